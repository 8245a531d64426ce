"""TLS records against RFC 8448, against a model of each suite, and each way in which a record can be wrong.

OpenSSL is the peer in test_tls.py.
"""

import hmac
from collections.abc import Callable
from functools import partial

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from kit.secure import ALERT, APPLICATION_DATA, HANDSHAKE, Sealer, records

from candy._fastpath import RecordLayer

pytestmark = pytest.mark.engine

SUITES: dict[str, tuple[str, int, type[AESGCM | ChaCha20Poly1305]]] = {
    "AES-128-GCM": ("sha256", 16, AESGCM),
    "AES-256-GCM": ("sha384", 32, AESGCM),
    "CHACHA20-POLY1305": ("sha256", 32, ChaCha20Poly1305),
}
CHANGE_CIPHER_SPEC = 20
UNEXPECTED_MESSAGE, BAD_RECORD_MAC, RECORD_OVERFLOW, HANDSHAKE_FAILURE, ILLEGAL_PARAMETER = 10, 20, 22, 40, 47
MASTER, SERVER_RANDOM, CLIENT_RANDOM = bytes(range(48)), b"s" * 32, b"c" * 32
KEY_UPDATE = bytes([24, 0, 0, 1, 0])

# RFC 8448, 3: "Simple 1-RTT Handshake".
CLIENT_SECRET = bytes.fromhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
SERVER_SECRET = bytes.fromhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
CLIENT_RECORDS = [
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a297"
    "7014bd1e3deae63aeebb21694915e4",
    "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3",
]
SERVER_RECORDS = [
    "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a21c"
    "0047c2abf332540dd032e167c2955d",
    "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9",
]
"""Behind a ticket, which has the first number."""
CONTENTS = [(APPLICATION_DATA, bytes(range(50))), (ALERT, b"\1\0")]


def secrets(cipher: str) -> tuple[bytes, bytes]:
    size = 48 if cipher == "AES-256-GCM" else 32
    return b"p" * size, b"o" * size


def pair(cipher: str, *, tls12: bool) -> tuple[RecordLayer, RecordLayer]:
    """A server and a client."""
    if tls12:
        ends = [
            RecordLayer(cipher, MASTER, SERVER_RANDOM + CLIENT_RANDOM, tls12=True, client=client)
            for client in (False, True)
        ]
    else:
        one, other = secrets(cipher)
        ends = [RecordLayer(cipher, one, other), RecordLayer(cipher, other, one)]
    return ends[0], ends[1]


def sealer(cipher: str = "AES-128-GCM") -> Sealer:
    """Seals as a peer, by the model."""
    return Sealer(secrets(cipher)[0], cipher=cipher)


def verdict(call: Callable[[], object]) -> object:
    """What it returns, or the alert."""
    try:
        return call()
    except ValueError as error:
        return int(str(error))


def test_rfc_8448() -> None:
    client, server = (
        RecordLayer("AES-128-GCM", SERVER_SECRET, CLIENT_SECRET),
        RecordLayer("AES-128-GCM", CLIENT_SECRET, SERVER_SECRET),
    )
    server.sealed = 1
    assert [server.seal(content, kind).hex() for kind, content in CONTENTS] == SERVER_RECORDS
    assert [client.seal(content, kind).hex() for kind, content in CONTENTS] == CLIENT_RECORDS
    assert server.open(bytes.fromhex("".join(CLIENT_RECORDS))) == CONTENTS


@pytest.mark.parametrize("cipher", SUITES)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1400, 16384])
def test_tls13_against_the_model(cipher: str, size: int) -> None:
    layer, model = RecordLayer(cipher, *secrets(cipher)), sealer(cipher)
    content = bytes(n & 255 for n in range(size))
    for _ in range(3):
        assert layer.open(model.seal(content, APPLICATION_DATA)) == [(APPLICATION_DATA, content)]
    own = Sealer(secrets(cipher)[1], cipher=cipher)
    for number in range(3):
        assert layer.seal(content) == own.seal(content, APPLICATION_DATA)
        assert layer.sealed == number + 1


@pytest.mark.parametrize("cipher", SUITES)
@pytest.mark.parametrize("size", [0, 1, 16, 1400, 16384])
def test_tls12_against_the_model(cipher: str, size: int) -> None:
    """RFC 5246, 6.3: of the key block each end has its half; and the Finished had the number 0."""
    server, client = pair(cipher, tls12=True)
    digest, key_bytes, aead = SUITES[cipher]
    salt_bytes = 12 if aead is ChaCha20Poly1305 else 4
    block = prf(digest, MASTER, b"key expansion" + SERVER_RANDOM + CLIENT_RANDOM)
    client_key, server_key = block[:key_bytes], block[key_bytes : 2 * key_bytes]
    salts = block[2 * key_bytes :]
    content = bytes(n & 255 for n in range(size))
    for layer, key, salt in (
        (client, client_key, salts[:salt_bytes]),
        (server, server_key, salts[salt_bytes : 2 * salt_bytes]),
    ):
        for number in (1, 2):
            explicit = number.to_bytes(8, "big") if aead is AESGCM else b""
            counter = (int.from_bytes(salt, "big") ^ number).to_bytes(12, "big") if aead is ChaCha20Poly1305 else b""
            beside = number.to_bytes(8, "big") + bytes([APPLICATION_DATA, 3, 3]) + size.to_bytes(2, "big")
            sealed = explicit + aead(key).encrypt(counter or salt + explicit, content, beside)
            record = bytes([APPLICATION_DATA, 3, 3]) + len(sealed).to_bytes(2, "big") + sealed
            assert layer.seal(content) == record
            assert (server if layer is client else client).open(record) == [(APPLICATION_DATA, content)]


def prf(digest: str, secret: bytes, seed: bytes) -> bytes:
    """RFC 5246, 5: more than enough of it."""
    step, out = seed, b""
    while len(out) < 128:
        step = hmac.digest(secret, step, digest)
        out += hmac.digest(secret, step + seed, digest)
    return out


@pytest.mark.parametrize("cipher", SUITES)
@pytest.mark.parametrize("tls12", [False, True], ids=["1.3", "1.2"])
@given(data=st.data())
def test_nothing_changed_opens(cipher: str, tls12: bool, data: st.DataObject) -> None:
    """A record that was changed, cut, repeated or moved: an alert, or a wait for more."""
    server, client = pair(cipher, tls12=tls12)
    whole = [client.seal(data.draw(st.binary(max_size=60)), APPLICATION_DATA) for _ in range(2)]
    record = bytearray(whole[0])
    match data.draw(st.sampled_from(["change", "cut", "swap", "repeat", "reflect"])):
        case "change":
            record[data.draw(st.integers(0, len(record) - 1))] ^= data.draw(st.integers(1, 255))
        case "cut":
            del record[data.draw(st.integers(0, len(record) - 1)) :]
        case "swap":
            record = bytearray(whole[1])
        case "repeat":
            server.open(bytes(record))
        case "reflect":
            server = client
    assert verdict(lambda: server.open(bytes(record))) in ([], UNEXPECTED_MESSAGE, BAD_RECORD_MAC, RECORD_OVERFLOW)


@pytest.mark.parametrize("tls12", [False, True], ids=["1.3", "1.2"])
def test_records_cut_anywhere(tls12: bool) -> None:
    """No byte is looked at that has not come."""
    server, client = pair("AES-128-GCM", tls12=tls12)
    record = client.seal(b"content")
    for cut in range(len(record)):
        assert server.open(record[:cut]) == []
    assert server.open(record + record[:6]) == [(APPLICATION_DATA, b"content")]


@pytest.mark.parametrize("padding", [1, 100, 16384 - 7])
def test_padding(padding: int) -> None:
    layer = RecordLayer("AES-128-GCM", *secrets("AES-128-GCM"))
    record = sealer().seal(b"content" + bytes([APPLICATION_DATA]) + bytes(padding - 1), 0)
    assert layer.open(record) == [(APPLICATION_DATA, b"content")]


def test_lengths() -> None:
    """TLSCiphertext: "MUST NOT exceed 2^14 + 256 bytes"; TLSInnerPlaintext: 2^14 + 1, its padding included."""
    for size in (16385, 16384 + 239, 16384 + 240):
        layer = RecordLayer("AES-128-GCM", *secrets("AES-128-GCM"))
        assert verdict(partial(layer.open, sealer().seal(bytes(size), APPLICATION_DATA))) == RECORD_OVERFLOW
    # What can't be told before all of it is there is told at once.
    assert verdict(lambda: layer.open(b"\x17\3\3\x41\1")) == RECORD_OVERFLOW
    for tls12, least in ((False, 16), (True, 24)):
        server, _ = pair("AES-128-GCM", tls12=tls12)
        for n in range(least):
            record = b"\x17\3\3" + n.to_bytes(2, "big") + bytes(n)
            assert verdict(partial(server.open, record)) == BAD_RECORD_MAC


def test_what_has_no_kind() -> None:
    """RFC 8446, 5.4: "If a receiving implementation does not find a non-zero octet", it ends."""
    layer = RecordLayer("AES-128-GCM", *secrets("AES-128-GCM"))
    assert verdict(lambda: layer.open(sealer().seal(bytes(30), 0))) == UNEXPECTED_MESSAGE
    assert verdict(lambda: layer.open(b"\x17\3\3\0\x10" + bytes(16))) == BAD_RECORD_MAC


@pytest.mark.parametrize("kind", [CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, 0, 24, 255])
def test_records_without_protection(kind: int) -> None:
    layer = RecordLayer("AES-128-GCM", *secrets("AES-128-GCM"))
    for body in (b"\2\x28", bytes(40)):
        record = bytes([kind, 3, 3]) + len(body).to_bytes(2, "big") + body
        assert verdict(partial(layer.open, record)) in (UNEXPECTED_MESSAGE, BAD_RECORD_MAC)


# ------------------------------------------------------------------------------------------------------------ new keys


@pytest.mark.parametrize("cipher", SUITES)
def test_key_updates_against_the_model(cipher: str) -> None:
    layer, peer = RecordLayer(cipher, *secrets(cipher)), sealer(cipher)
    own = Sealer(secrets(cipher)[1], cipher=cipher)
    for asks in (False, True, True, False):
        [(kind, message)] = layer.open(peer.key_update(requested=asks))
        assert kind == HANDSHAKE
        assert layer.hear(message)
        assert layer.open(peer.seal(b"new", APPLICATION_DATA)) == [(APPLICATION_DATA, b"new")]
        due = own.key_update(requested=False) if asks else b""
        assert layer.seal(b"x") == due + own.seal(b"x", APPLICATION_DATA)


def test_many_that_ask_get_one() -> None:
    layer, peer = RecordLayer("AES-128-GCM", *secrets("AES-128-GCM")), sealer()
    for _ in range(5):
        [(_, message)] = layer.open(peer.key_update(requested=True))
        layer.hear(message)
    assert len(records(layer.seal(b"x"))) == 2
    assert len(records(layer.seal(b"x"))) == 1


def test_worn_keys() -> None:
    """New ones before AES-GCM's limit, 2^24.5 records; the number begins at 0 again."""
    server, client = pair("AES-128-GCM", tls12=False)
    client.sealed = (1 << 24) - 1
    assert len(records(client.seal(b"x"))) == 1
    update, record = records(client.seal(b"x"))
    assert (len(update), client.sealed) == (27, 1)
    # The receiver has the key that follows, which no record of before needs.
    assert server.hear(KEY_UPDATE)
    assert server.open(record) == [(APPLICATION_DATA, b"x")]


def test_tls12_has_no_new_keys() -> None:
    _, client = pair("AES-128-GCM", tls12=True)
    client.sealed = 1 << 24
    assert len(records(client.seal(b"x"))) == 1


# ------------------------------------------------------------------------------------------------------------ messages


TICKET = bytes([4, 0, 0, 30]) + bytes(30)


@pytest.mark.parametrize("cut", range(1, len(TICKET), 3))
def test_tickets_in_pieces(cut: int) -> None:
    """A client passes them over, cut anywhere, one behind the other."""
    layer = RecordLayer("AES-128-GCM", *secrets("AES-128-GCM"))
    assert not layer.hear(TICKET + TICKET[:cut], client=True)
    assert layer.hear(TICKET[cut:] + TICKET, client=True)


def test_a_key_update_in_pieces() -> None:
    layer = RecordLayer("AES-128-GCM", *secrets("AES-128-GCM"))
    assert [layer.hear(KEY_UPDATE[at : at + 1]) for at in range(5)] == [False] * 4 + [True]


MESSAGES = {
    "an empty record": (b"", UNEXPECTED_MESSAGE),
    "a ticket for a server": (TICKET, UNEXPECTED_MESSAGE),
    "a ClientHello": (b"\1\0\0\2xx", UNEXPECTED_MESSAGE),
    "a HelloRequest": (bytes(4), UNEXPECTED_MESSAGE),
    "a Finished": (b"\x14\0\0\x20" + bytes(32), UNEXPECTED_MESSAGE),
    "a KeyUpdate that is too long": (b"\x18\0\0\2\0\0", UNEXPECTED_MESSAGE),
    "an empty KeyUpdate": (b"\x18\0\0\0", UNEXPECTED_MESSAGE),
    "a KeyUpdate of another kind": (b"\x18\0\0\1\2", ILLEGAL_PARAMETER),
    "more behind a KeyUpdate": (KEY_UPDATE * 2, UNEXPECTED_MESSAGE),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_that_have_no_place(name: str) -> None:
    content, expected = MESSAGES[name]
    layer = RecordLayer("AES-128-GCM", *secrets("AES-128-GCM"))
    assert verdict(lambda: layer.hear(content)) == expected


def test_a_ticket_that_is_too_long() -> None:
    layer = RecordLayer("AES-128-GCM", *secrets("AES-128-GCM"))
    assert verdict(lambda: layer.hear(b"\4\x02\0\1", client=True)) == UNEXPECTED_MESSAGE


def test_messages_of_tls12() -> None:
    """A client need not follow a HelloRequest, and a server has no second handshake."""
    server, client = pair("AES-128-GCM", tls12=True)
    assert client.hear(bytes(4) * 3, client=True)
    for end, content, is_client in (
        (client, TICKET, True),
        (server, bytes(4), False),
        (server, b"\1\0\0\2xx", False),
        (server, KEY_UPDATE, False),
    ):
        assert verdict(partial(end.hear, content, client=is_client)) == HANDSHAKE_FAILURE


@given(st.lists(st.binary(max_size=12), max_size=8), st.booleans(), st.booleans())
def test_any_messages(pieces: list[bytes], client: bool, tls12: bool) -> None:
    """Cut in whatever way: followed, or refused with an alert."""
    end = pair("AES-128-GCM", tls12=tls12)[client]
    for piece in pieces:
        found = verdict(partial(end.hear, piece, client=client))
        if not isinstance(found, bool):
            assert found in (UNEXPECTED_MESSAGE, HANDSHAKE_FAILURE, ILLEGAL_PARAMETER)
            break


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(stream: bytes, tls12: bool) -> None:
    """Nothing is believed that was not sealed."""
    server, _ = pair("AES-128-GCM", tls12=tls12)
    assert verdict(lambda: server.open(stream)) in ([], UNEXPECTED_MESSAGE, BAD_RECORD_MAC, RECORD_OVERFLOW)
