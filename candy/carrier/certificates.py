"""Certificates as they lie in files: what is in them, whom they are for, and what is wrong with them.

    examine(path)       ─▶ Chain, with Facts: names, kind of key, its digest, first and last second, issuer
    facts(der)          ─▶ Facts
    by_name(all facts)  ─▶ which of several certificates to show whom
    doubts(chains, now) ─▶ what members will stumble over, a line each
    mistake(chain, key) ─▶ why OpenSSL can't use these files
    make()              ─▶ a key, and a certificate that it signs itself

Rules:
 1. OpenSSL has the last word on what can be used. This module says why not, and what can be used and still is wrong; a
    certificate that it can't read has no facts.
 2. cryptography takes ten megabytes, so this module is imported within the functions that need it.

It does not know what the files are used for.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises for a certificate that is not as it should be."""

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?-----END \1-----", re.DOTALL)
"""Of PEM (RFC 7468)."""
OWN_NAME = "candy-relay"
"""In a certificate that a relay makes for itself."""
SOON_S = 14 * 86400.0
SOON_SHARE = 4
"""So long before its end a certificate should have been renewed, and one of a short life in its last quarter."""
_DER = b"\x30"
"""The first byte of a certificate or a key in DER, a SEQUENCE."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Of a certificate, as far as they could be read."""

    names: tuple[str, ...] = ()
    """DNS names and addresses (subjectAltName), in lower case; one may begin with `*.`."""
    kind: str = ""
    """Of its key."""
    digest: bytes = b""
    """SHA-256 of its key, as in a pin."""
    begins: float = 0.0
    ends: float | None = None
    """Unix seconds; None: unknown."""
    issuer: str = ""
    """Who signed it, by its name for people."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A certificate's file."""

    path: Path
    facts: Facts
    """Of its first one, which is shown to clients as the relay's."""
    stranger: int = 0
    """The place, from 1 on, of the first certificate that did not issue the one before; 0: of none."""


def examine(path: Path) -> Chain:
    """Read a PEM chain.

    Raises:
        OSError: the file can't be read.
    """
    content = path.read_bytes()
    try:
        certificates = _load(content)
        return Chain(path, _facts(certificates[0]), _stranger(certificates))
    except UNREADABLE:
        return Chain(path, Facts())


def facts(certificate: bytes | None) -> Facts:
    """What is in a certificate.

    Args:
        certificate: DER; None: there is none.
    """
    if certificate is None:
        return Facts()
    try:
        return _facts(x509.load_der_x509_certificate(certificate))
    except UNREADABLE:
        return Facts()


def _facts(certificate: x509.Certificate) -> Facts:
    return Facts(
        _names(certificate),
        # What of a server's certificates TLS has one each of, and chooses from.
        type(certificate.public_key()).__name__,
        sha256(_spki(certificate.public_key())).digest(),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        _issuer(certificate),
    )


def _issuer(certificate: x509.Certificate) -> str:
    for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        for found in certificate.issuer.get_attributes_for_oid(kind):
            return str(found.value)
    return ""


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    dns = found.get_values_for_type(x509.DNSName)
    return (*(name.lower() for name in dns), *map(str, found.get_values_for_type(x509.IPAddress)))


def by_name(certificates: Sequence[Facts]) -> tuple[tuple[int, ...], Mapping[str, tuple[int, ...]]]:
    """Which certificates to show whom: those for a client that asks for no name, or none of theirs, and those for each
    name. All are places in the sequence, of each kind of key the first that is for this name.

    A client without a name is shown the first certificate, and of other kinds of key those that stand in for that one.
    """

    def group(name: str) -> tuple[int, ...]:
        wildcard = "*." + name.partition(".")[2]
        kinds: dict[str, int] = {}
        for place, each in enumerate(certificates):
            if name in each.names or wildcard in each.names:
                kinds.setdefault(each.kind, place)
        return tuple(kinds.values())

    groups = {name: group(name) for each in certificates for name in each.names}
    first, *_ = certificates
    others = groups[first.names[0]] if first.names else ()
    # Of its own kind it goes before a namesake.
    return (0, *(place for place in others if certificates[place].kind != first.kind)), groups


def doubts(chains: Sequence[Chain], now: float) -> list[str]:
    """What is wrong with certificates that can be used, a line each.

    Args:
        now: Unix seconds.
    """
    found = []
    default, groups = by_name([chain.facts for chain in chains])
    shown = set(default).union(*groups.values())
    for place, (path, facts, stranger) in enumerate((chain.path, chain.facts, chain.stranger) for chain in chains):
        if facts.ends is None:
            continue
        if facts.ends < now:
            found.append(f"{path} has expired since {moment(facts.ends)}: renew it")
        elif facts.ends - now < min(SOON_S, (facts.ends - facts.begins) / SOON_SHARE):
            found.append(f"{path} ends soon, at {moment(facts.ends)}: renew it")
        elif facts.begins > now:
            found.append(
                f"{path} is valid from {moment(facts.begins)} on, and this machine's clock says {moment(now)}: "
                "put the clock right, if that is wrong"
            )
        if not facts.names:
            found.append(f"{path} names no host (subjectAltName): members refuse it unless they have its pin")
        if stranger:
            found.append(
                f"{path}: certificate {stranger} in it did not issue the one before: members may not find "
                "the way to their authority: put its own first, then each one's issuer"
            )
        if place not in shown:
            found.append(f"{path} is shown to nobody: one before it has its names and its kind of key: remove it")
    return found


def mistake(chain: Path, key: Path) -> str:
    """Why these files can't be used, and what to do, in one line; empty: nobody knows.

    Raises:
        OSError: one of them can't be read.
    """
    of_chain, of_key = chain.read_bytes(), key.read_bytes()
    return _wrong_chain(chain, of_chain, key, of_key) or _wrong_key(key, of_key) or _wrong_pair(of_chain, of_key)


def _wrong_chain(chain: Path, content: bytes, key: Path, of_key: bytes) -> str:
    labels = _labels(content)
    if any(label.endswith("CERTIFICATE") for label in labels):
        try:
            _load(content)
        except UNREADABLE as error:
            return f"a certificate in {chain} can't be read ({error}): was it cut off, or changed?"
        return ""
    if any(label.endswith("PRIVATE KEY") for label in labels):
        if any(label.endswith("CERTIFICATE") for label in _labels(of_key)):
            return f"{chain} is the key and {key} the certificate: exchange them"
        return f"{chain} is a private key: give the certificate there"
    if any(label.endswith("REQUEST") for label in labels):
        return f"{chain} asks for a certificate and is none: give what the authority made of it"
    if content.startswith(_DER):
        return f"{chain} is not PEM: convert it, with openssl x509 -inform der -in {chain} -out {chain}.pem"
    return f"{chain} has no certificate in it: give a PEM file, with lines -----BEGIN CERTIFICATE-----"


def _wrong_key(key: Path, content: bytes) -> str:
    labels = [label for label in _labels(content) if label.endswith("PRIVATE KEY")]
    if not labels and content.startswith(_DER):
        return f"{key} is not PEM: convert it, with openssl pkey -inform der -in {key} -out {key}.pem"
    if not labels:
        return f"{key} has no private key in it: give a PEM file, with lines -----BEGIN PRIVATE KEY-----"
    try:
        _load_key(content)
    except TypeError:
        # "Password was not given but private key is encrypted"
        return f"{key} is encrypted: give it without its password, from openssl pkey -in {key} -out FILE"
    except (ValueError, UnsupportedAlgorithm):
        return f"the key in {key} can't be read: was it cut off, or changed?"
    return ""


def _wrong_pair(chain: bytes, key: bytes) -> str:
    ours = _spki(_load_key(key).public_key())
    try:
        fitting = [_spki(certificate.public_key()) == ours for certificate in _load(chain)]
    except UNREADABLE:
        return ""
    if fitting[0]:
        return ""
    if any(fitting):
        return f"the key is of certificate {fitting.index(True) + 1} in the chain: put that first"
    return "the key is of another certificate: give the one that this was made for"


def make() -> bytes:
    """A private key (P-256) and a certificate for it, in one PEM file.

    Who has its pin looks at nothing else in it, and a machine may have no clock: so it is valid at all times.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, OWN_NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        # "To indicate that a certificate has no well-defined expiration date" (RFC 5280).
        .not_valid_after(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(OWN_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + certificate.public_bytes(Encoding.PEM)


def moment(when: float) -> str:
    """A point of time for people, which is the same on all machines."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _stranger(certificates: Sequence[x509.Certificate]) -> int:
    for place in range(1, len(certificates)):
        if certificates[place - 1].issuer != certificates[place].subject:
            return place + 1
    return 0


def _labels(content: bytes) -> list[str]:
    return [block[1].decode() for block in _BLOCK.finditer(content)]


def _load(content: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(content)


def _load_key(content: bytes) -> PrivateKeyTypes:
    """The first key of a file that may hold more than that."""
    [block, *_] = [block[0] for block in _BLOCK.finditer(content) if block[1].endswith(b"PRIVATE KEY")]
    return load_pem_private_key(block, None)


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
