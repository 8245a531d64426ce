"""Keys of candy.3 as they are shown, told and derived: what signs what, and what is made from what.

    network's key (Ed25519) ─signs─▶ relay's key (X25519)     RelayKey: header Candy-Key, message RELAY_KEY
                            └signs─▶ the next network's key   Succession: header Candy-Succession, message NETWORK_KEY
    secret of a credential ─derive, stretch─▶ pre-shared key of the log-in

    Candy-Key         ┌─────────┬─────────┬────────────┬──────────┬───────────┬───────────────┬──────────────┐
    138 bytes         │ version │ flags 1 │ network 32 │ relay 32 │ number  2 │ generation  6 │ signature 64 │
                      └─────────┴─────────┴────────────┴──────────┴───────────┴───────────────┴──────────────┘
    Candy-Succession  ┌────────┬────────┬──────────┬──────────────┐
    136 bytes         │ old 32 │ new 32 │ number 8 │ signature 64 │  up to 8 times in the header
                      └────────┴────────┴──────────┴──────────────┘

Rules:
 1. A length or version that is another is a TrustError; flags that are not known don't count.
 2. Whether a signature is right says `verify`, whether a right one may be believed candy.member.trust.
 3. Primitives are arguments, as in candy.protocol.noise. What comes of the standard library here is pure.

docs/protocol.md has what this is for.
"""

import hashlib
import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final, Self

from candy.errors import TrustError
from candy.protocol.noise import KEY_BYTES

KEY_HEADER: Final = "Candy-Key"
NONCE_HEADER: Final = "Candy-Nonce"
SUCCESSION_HEADER: Final = "Candy-Succession"
NONCE_BYTES: Final = 32
SELECTOR_BYTES: Final = 16
SECRET_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
SUCCESSIONS_MAX: Final = 8
"""Changes of the network's key that a relay shows."""
STRETCH: Final = {"n": 1 << 15, "r": 8, "p": 3, "dklen": KEY_BYTES, "maxmem": 1 << 26}

Sign = Callable[[bytes, bytes], bytes]
"""Ed25519: seed of 32 bytes, message ─▶ signature."""
Verify = Callable[[bytes, bytes, bytes], bool]
"""Ed25519, strict as RFC 8032 is: public key, signature, message."""


@dataclass(frozen=True, slots=True)
class RelayKey:
    """A relay's key, signed by its network's."""

    LAYOUT: ClassVar[Struct] = Struct(">BB32s32sH6s64s")
    BYTES: ClassVar[int] = LAYOUT.size
    SIGNED_BYTES: ClassVar[int] = BYTES - SIGNATURE_BYTES
    VERSION: ClassVar[int] = 1
    LABEL: ClassVar[bytes] = b"candy.3 relay key"

    network: bytes
    relay: bytes
    number: int
    """Of the relay, among those of its network."""
    generation: int
    """Unix seconds at which the key was made, but more than any before it of that number."""
    signature: bytes
    flags: int = 0

    @property
    def signed(self) -> bytes:
        """All but the signature."""
        return self.encode()[: self.SIGNED_BYTES]

    @classmethod
    def make(cls, sign: Sign, seed: bytes, network: bytes, relay: bytes, number: int, generation: int) -> Self:
        """Signed with the network's seed."""
        signed = cls(network, relay, number, generation, bytes(SIGNATURE_BYTES)).signed
        return cls(network, relay, number, generation, sign(seed, cls.LABEL + signed))

    def is_signed(self, verify: Verify) -> bool:
        return verify(self.network, self.signature, self.LABEL + self.signed)

    def encode(self) -> bytes:
        generation = self.generation.to_bytes(6, "big")
        own = (self.flags, self.network, self.relay, self.number, generation, self.signature)
        return self.LAYOUT.pack(self.VERSION, *own)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises TrustError for another length or version."""
        if len(data) != cls.BYTES:
            raise TrustError(f"the relay's key has {len(data)} bytes instead of {cls.BYTES}")
        version, flags, network, relay, number, generation, signature = cls.LAYOUT.unpack(data)
        if version != cls.VERSION:
            raise TrustError(f"the relay's key is of version {version}, which this candy does not know")
        return cls(network, relay, number, int.from_bytes(generation, "big"), signature, flags)


@dataclass(frozen=True, slots=True)
class Succession:
    """The next key of a network, signed by the one before."""

    LAYOUT: ClassVar[Struct] = Struct(">32s32sQ64s")
    BYTES: ClassVar[int] = LAYOUT.size
    LABEL: ClassVar[bytes] = b"candy.3 network key"

    old: bytes
    new: bytes
    number: int
    """Grows from one to the next."""
    signature: bytes

    @classmethod
    def make(cls, sign: Sign, seed: bytes, old: bytes, new: bytes, number: int) -> Self:
        """Signed with the old key's seed."""
        signed = cls.LAYOUT.pack(old, new, number, b"")[:-SIGNATURE_BYTES]
        return cls(old, new, number, sign(seed, cls.LABEL + signed))

    def is_signed(self, verify: Verify) -> bool:
        return verify(self.old, self.signature, self.LABEL + self.encode()[:-SIGNATURE_BYTES])

    def encode(self) -> bytes:
        return self.LAYOUT.pack(self.old, self.new, self.number, self.signature)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises TrustError for another length."""
        if len(data) != cls.BYTES:
            raise TrustError(f"a successor of the network's key has {len(data)} bytes instead of {cls.BYTES}")
        return cls(*cls.LAYOUT.unpack(data))


def encode_successions(entries: Iterable[Succession]) -> bytes:
    """One behind the other."""
    return b"".join(entry.encode() for entry in entries)


def decode_successions(data: bytes) -> tuple[Succession, ...]:
    """Raises TrustError for a part of one, or too many."""
    if len(data) % Succession.BYTES or len(data) > SUCCESSIONS_MAX * Succession.BYTES:
        raise TrustError(f"the successors of the network's key have {len(data)} bytes")
    return tuple(Succession.decode(data[at : at + Succession.BYTES]) for at in range(0, len(data), Succession.BYTES))


@dataclass(frozen=True, slots=True)
class Shown:
    """What a relay shows before a log-in."""

    key: RelayKey
    nonce: bytes
    successions: tuple[Succession, ...] = ()

    def headers(self) -> dict[str, str]:
        """Of the 101."""
        headers = {KEY_HEADER: _text(self.key.encode()), NONCE_HEADER: _text(self.nonce)}
        if self.successions:
            headers[SUCCESSION_HEADER] = _text(encode_successions(self.successions))
        return headers

    @classmethod
    def parse(cls, get: Callable[[str], str | None]) -> Self:
        """From the 101's headers: `get` gives one by its name. Raises TrustError."""
        key, nonce = RelayKey.decode(_header(get, KEY_HEADER)), _header(get, NONCE_HEADER)
        if len(nonce) != NONCE_BYTES:
            raise TrustError(f"the relay's {NONCE_HEADER} has {len(nonce)} bytes instead of {NONCE_BYTES}")
        has_more = get(SUCCESSION_HEADER) is not None
        return cls(key, nonce, decode_successions(_header(get, SUCCESSION_HEADER)) if has_more else ())


def expand(key: bytes, label: bytes) -> bytes:
    """HKDF-Expand to 32 bytes (RFC 5869)."""
    return hmac.digest(key, label + b"\1", "sha256")


def derive(secret: bytes, salt: bytes, label: bytes) -> bytes:
    """HKDF to 32 bytes."""
    return expand(hmac.digest(salt, secret, "sha256"), label)


def of_password(password: bytes, network: bytes) -> bytes:
    """The pre-shared key of a log-in by password. It takes 0.2 s and 32 MB: call it on a thread, and once."""
    return hashlib.scrypt(password, salt=network, **STRETCH)


def of_invitation(secret: bytes, network: bytes) -> bytes:
    """The pre-shared key of a log-in by invitation."""
    return derive(secret, network, b"candy.3 invitation")


def of_device(secret: bytes, network: bytes) -> bytes:
    """The pre-shared key of a log-in by a device's own credential."""
    return derive(secret, network, b"candy.3 device")


def of_pair(secret: bytes, network: bytes) -> bytes:
    """The pre-shared key of all pairs of members that have this secret."""
    return derive(secret, network, b"candy.3 pair")


def fingerprint(key: bytes) -> str:
    """Of a key, for people to compare: 16 bytes of SHA-256 as hex, in groups of four."""
    return hashlib.sha256(key).digest()[:16].hex(" ", 2)


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _header(get: Callable[[str], str | None], name: str) -> bytes:
    text = get(name)
    if text is None:
        raise TrustError(f"the relay shows no {name}: something on the way has taken it out, or it is not your relay")
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise TrustError(f"the relay's {name} is not base64") from None
