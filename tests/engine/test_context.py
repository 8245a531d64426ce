"""TLS contexts of the engine: which certificate a client is shown, which keys a member takes, how long they live."""

import gc
import hashlib
import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from kit.peer import PATIENCE, EngineRelay
from kit.secure import TlsSocket
from lab.tls import written

from candy._fastpath import TlsContext, openssl_version

pytestmark = pytest.mark.engine

AUTHORITY = trustme.CA()
EC, RSA = trustme.KeyType.ECDSA, trustme.KeyType.RSA
CERTIFICATES = {
    "first": AUTHORITY.issue_cert("relay.test", key_type=EC),
    "first, RSA": AUTHORITY.issue_cert("relay.test", key_type=RSA),
    "other": AUTHORITY.issue_cert("other.test", key_type=EC),
    "wild": AUTHORITY.issue_cert("*.wild.test", key_type=EC),
    "own": AUTHORITY.issue_cert("own.wild.test", key_type=EC),
}
FILES = dict[str, tuple[Path, Path]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FILES:
    folder = tmp_path_factory.mktemp("certificates")
    return {name: written(folder, name, certificate) for name, certificate in CERTIFICATES.items()}


def several(files: FILES) -> TlsContext:
    return TlsContext.server(
        files["first"],
        files["first, RSA"],
        names={
            "other.test": TlsContext.server(files["other"]),
            "*.wild.test": TlsContext.server(files["wild"]),
            "own.wild.test": TlsContext.server(files["own"]),
        },
    )


def serial(certificate: bytes) -> int:
    return load_pem_x509_certificate(certificate).serial_number


def shown(context: TlsContext, name: str | None, trusting: ssl.SSLContext | None = None) -> str:
    """Which certificate a client gets to see that asks for this name, and behind which a frame comes back."""
    trusting = trusting or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(trusting)
    trusting.check_hostname = False
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    with EngineRelay() as relay:
        relay.engine.adopt(theirs.detach(), tls=context)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        talk = trusting.wrap_bio(incoming, outgoing, server_hostname=name)
        with closing(ours):
            while True:
                try:
                    talk.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    ours.sendall(outgoing.read())
                    incoming.write(ours.recv(65536))
        certificate = talk.getpeercert()
    assert certificate is not None
    found = int(str(certificate["serialNumber"]), 16)
    return next(name for name, each in CERTIFICATES.items() if serial(each.cert_chain_pems[0].bytes()) == found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, "first"),
        ("relay.test", "first"),
        ("stranger.test", "first"),
        ("test", "first"),
        ("other.test", "other"),
        ("OTHER.Test", "other"),
        ("a.wild.test", "wild"),
        ("A.WILD.test", "wild"),
        ("own.wild.test", "own"),
        # A star is one label, and the rest of it no name.
        ("a.b.wild.test", "first"),
        ("wild.test", "first"),
    ],
)
def test_certificates_by_name(files: FILES, name: str | None, expected: str) -> None:
    assert shown(several(files), name) == expected


def test_both_kinds_of_key_side_by_side(files: FILES) -> None:
    for cipher, expected in (("ECDHE-RSA-AES128-GCM-SHA256", "first, RSA"), ("ECDHE-ECDSA-AES128-GCM-SHA256", "first")):
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.maximum_version = ssl.TLSVersion.TLSv1_2
        trusting.set_ciphers(cipher)
        assert shown(several(files), "relay.test", trusting) == expected


def test_contexts_that_python_has_forgotten(files: FILES) -> None:
    """The connection counts its context, and that one those for other names."""
    context = several(files)
    ours, theirs = socket.socketpair()
    with EngineRelay() as relay:
        relay.engine.adopt(theirs.detach(), tls=context)
        del context
        gc.collect()
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        AUTHORITY.configure_trust(trusting)
        talk = TlsSocket(ours, trusting, name="other.test")
        with closing(ours):
            talk.handshake()
    assert talk.object.getpeercert() is not None


def digest(name: str) -> bytes:
    key = load_pem_x509_certificate(CERTIFICATES[name].cert_chain_pems[0].bytes()).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_any_of_several_pins(place: int) -> None:
    """Under a name that the certificate has not."""
    pins = [bytes([number]) * 32 for number in range(3)]
    pins[place] = digest("first")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATES["first"].configure_cert(serving)
    ours, theirs = socket.socketpair()
    with EngineRelay() as relay, closing(ours):
        context = TlsContext.connecting("stranger.test", pins=tuple(pins))
        relay.engine.adopt(theirs.detach(), client=True, tls=context, preamble=b"after the handshake")
        assert TlsSocket(ours, serving, name=None).recv(99) == b"after the handshake"


def hello(context: TlsContext) -> bytes:
    """What a member says first."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    with EngineRelay() as relay, closing(ours):
        relay.engine.adopt(theirs.detach(), client=True, tls=context)
        return ours.recv(65536)


def extension(hello: bytes, kind: int) -> bytes:
    """Of a ClientHello (RFC 8446, section 4.1.2) in one record."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    at += 2
    while at < len(hello):
        found, size = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
        if found == kind:
            return hello[at + 4 : at + 4 + size]
        at += 4 + size
    return b""


SERVER_NAME, SUPPORTED_GROUPS, KEY_SHARE = 0, 10, 51
X25519, X25519MLKEM768 = b"\0\x1d", b"\x11\xec"


def test_what_a_member_says_first() -> None:
    first = hello(TlsContext.connecting("relay.test"))
    assert extension(first, SERVER_NAME)[5:] == b"relay.test"
    assert extension(first, SUPPORTED_GROUPS)[2:4] == X25519
    # One share, of 32 bytes.
    assert extension(first, KEY_SHARE)[:6] == b"\0\x24" + X25519 + b"\0\x20"
    assert len(extension(first, KEY_SHARE)) == 38
    assert extension(hello(TlsContext.connecting("127.0.0.1")), SERVER_NAME) == b""


def test_ml_kem(files: FILES) -> None:
    """Shares for both: a relay without it answers at once."""
    version = tuple(map(int, openssl_version().split()[1].split(".")[:2]))
    if version < (3, 5):
        why = r"^OpenSSL 3.* has no X25519MLKEM768: it takes OpenSSL 3\.5 or later$"
        with pytest.raises(OSError, match=why):
            TlsContext.server(files["first"], ml_kem=True)
        with pytest.raises(OSError, match=why):
            TlsContext.connecting("relay.test", ml_kem=True)
        return
    first = hello(TlsContext.connecting("relay.test", ml_kem=True))
    assert extension(first, SUPPORTED_GROUPS)[2:6] == X25519MLKEM768 + X25519
    assert extension(first, KEY_SHARE)[2:4] == X25519MLKEM768
    assert X25519 + b"\0\x20" in extension(first, KEY_SHARE)
    assert shown(TlsContext.server(files["first"], ml_kem=True), None) == "first"
