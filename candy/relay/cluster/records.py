"""The records of a cluster: what is in them, how they are written, and how they are sealed.

    Grant, Redeemable, Member of the roll … ─▶ JSON ─▶ Envelope: id, sealed ─▶ a ledger's value

    value     salt 16 ‖ AES-256-GCM (key: HKDF of secret and salt; data: bucket, key) of: id 8 ‖ JSON

Rules:
 1. NATS sees keys and sizes, and no value. It can give back an older value, but not make one, nor put one under
    another key.
 2. Each writing has a random id, so that who has lost the answer sees by reading whether its own took effect.
 3. A reader passes over fields that it does not know. What it can't do without raises FormatError.

No I/O here; random bytes are an argument.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network
from typing import Any, ClassVar, NamedTuple, Self

from candy.errors import CandyError
from candy.protocol.auth import TOLERANCE_S
from candy.protocol.noise import Primitives
from candy.relay.cluster.ledger import Bucket
from candy.relay.enrolment import Device, Invitation, Standing

SCHEMA = 1
"""Of all records; buckets carry it."""
SECRET_LEAST = 32
"""Bytes of the relays' secret."""
ID_BYTES = 8
SALT_BYTES = 16
RECENT_MOST = 64
"""Devices that an invitation's record names: those that came by it last."""
SLOT_S = 60
"""Digests are forgotten by times of so many seconds."""
_NONCE = bytes(12)


class FormatError(CandyError):
    """A value that no relay with this secret has written; one line that says what to look at."""


def word(path: str) -> str:
    """A network's path as a word of a key, another one for each path: `=2Fhome`."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda found: f"={ord(found[0]):02X}", path)


def path_of(word: str) -> str:
    """Of word()."""
    return re.sub(r"=([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), word)


def grant_key(path: str, ip: int) -> str:
    return f"{word(path)}.{IPv4Address(ip)}"


def device_key(path: str, key: bytes) -> str:
    return f"{word(path)}.device.{key.hex()}"


def invitation_key(path: str, selector: bytes) -> str:
    return f"{word(path)}.invitation.{selector.hex()}"


def reserved_key(path: str, ip: int) -> str:
    return f"{word(path)}.reserved.{ip:08x}"


def digest_key(path: str, timestamp: int, digest: bytes) -> str:
    """The slot is there to be forgotten by: a digest covers its timestamp."""
    return f"{word(path)}.{timestamp // SLOT_S}.{digest.hex()}"


def settings_key(path: str) -> str:
    return f"{word(path)}.settings"


def forgotten_key(path: str) -> str:
    return f"{word(path)}.forgotten"


class Opened(NamedTuple):
    """What was in a value."""

    id: bytes
    content: bytes


class Envelope:
    """Rule 1.

    Args:
        secret: of all relays, at least SECRET_LEAST bytes.
    """

    def __init__(self, secret: bytes, primitives: Primitives, draw: Callable[[int], bytes]) -> None:
        self._primitives = primitives
        self._draw = draw
        [self._key] = primitives.hkdf(b"candy cluster v1".ljust(32, b"\0"), _material(secret), 1)

    def seal(self, bucket: Bucket, key: str, content: bytes) -> tuple[bytes, bytes]:
        """The value, and its id."""
        salt, own = self._draw(SALT_BYTES), self._draw(ID_BYTES)
        return salt + self._primitives.seal(self._of(salt), _NONCE, _about(bucket, key), own + content), own

    def open(self, bucket: Bucket, key: str, value: bytes) -> Opened:
        """Raises FormatError for what is none of ours, or stood under another key."""
        salt, sealed = value[:SALT_BYTES], value[SALT_BYTES:]
        opened = None
        if len(sealed) >= ID_BYTES + SALT_BYTES:
            opened = self._primitives.open(self._of(salt), _NONCE, _about(bucket, key), sealed)
        if opened is None:
            why = "was written by a relay with another secret_file, or by none: give all relays the same"
            raise FormatError(f"{key} in candy's bucket {bucket} {why}")
        return Opened(opened[:ID_BYTES], opened[ID_BYTES:])

    def digest(self, what: bytes) -> str:
        """Of what is short and secret, such as a password: the same at all relays, and nobody else can try guesses."""
        state = self._key
        for at in range(0, max(len(what), 1), 31):
            # Each piece with its length, so that no two divide into the same.
            piece = what[at : at + 31]
            [state] = self._primitives.hkdf(state, bytes([len(piece)]) + piece.ljust(31, b"\0"), 1)
        return state.hex()

    def _of(self, salt: bytes) -> bytes:
        [key] = self._primitives.hkdf(self._key, salt, 1)
        return key


def _about(bucket: Bucket, key: str) -> bytes:
    return f"{bucket}/{key}".encode()


def _material(secret: bytes) -> bytes:
    # At most 32 bytes are taken: of longer ones all count.
    if len(secret) <= SECRET_LEAST:
        return secret
    return sha256(secret).digest()


@dataclass(frozen=True, slots=True)
class Record:
    """What a value holds. Fields are text, whole numbers, truths, bytes, or lists of text."""

    bucket: ClassVar[Bucket]

    def encode(self) -> bytes:
        # Not asdict(), which copies what is within, and takes as long as all else.
        values = ((each.name, getattr(self, each.name)) for each in fields(self))
        plain = {name: value.hex() if isinstance(value, bytes) else value for name, value in values}
        return json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Raises FormatError."""
        try:
            plain = json.loads(content)
            given = {}
            for each in fields(cls):
                if each.name in plain:
                    given[each.name] = _typed(each.type, plain[each.name])
            return cls(**given)
        except (ValueError, TypeError) as error:
            why = "is of another version: update the relays, the oldest first"
            raise FormatError(f"a record of candy's bucket {cls.bucket} {why} ({error})") from None


def _typed(type_: Any, value: Any) -> Any:
    if type_ is bytes:
        return bytes.fromhex(value)
    if type_ in (int, str, bool):
        if type(value) is not type_:
            raise TypeError(f"{value!r} is no {type_.__name__}")
        return value
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"{value!r} is no list of text")
    return tuple(value)


@dataclass(frozen=True, slots=True)
class Grant(Record):
    """Who has an address. Its revision is the grant's generation: the higher wins."""

    bucket: ClassVar[Bucket] = Bucket.GRANTS

    holder: bytes
    """VMAC or key, as in candy.relay.leases; empty: it is free."""
    relay: str
    """That has written this."""
    seen: int
    """Unix seconds, when its device was seen, to the hour."""
    since: int = 0
    name: str = ""
    os: str = ""
    version: str = ""
    source: str = ""
    number: bytes = b""
    """Of the lease."""

    @property
    def is_free(self) -> bool:
        return not self.holder


@dataclass(frozen=True, slots=True)
class Credential(Record):
    """A device with a key (candy.relay.enrolment)."""

    bucket: ClassVar[Bucket] = Bucket.DEVICES

    key: bytes
    number: int
    selector: bytes
    secret: bytes
    standing: int
    name: str
    by: str
    invitation: bytes
    addresses: str
    since: int
    has_come: bool
    knows: bytes = b""

    @classmethod
    def of(cls, device: Device) -> Self:
        given = {each.name: getattr(device, each.name) for each in fields(cls)}
        return cls(**given | {"standing": int(device.standing), "addresses": _text(device.addresses)})

    def device(self) -> Device:
        """Raises FormatError."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        standing = _standing(self.standing)
        return Device(**given | {"standing": standing, "addresses": _addresses(self.addresses)})


@dataclass(frozen=True, slots=True)
class Redeemable(Record):
    """An invitation, and who came by it."""

    bucket: ClassVar[Bucket] = Bucket.DEVICES

    selector: bytes
    secret: bytes
    name: str
    addresses: str
    uses: int
    until: int
    used: int
    recent: tuple[str, ...] = ()
    """The beginnings of the keys of devices that came by it last, in hex: one that asks again counts once."""

    @classmethod
    def of(cls, invitation: Invitation) -> Self:
        names = [each.name for each in fields(cls) if each.name != "recent"]
        given = {name: getattr(invitation, name) for name in names}
        return cls(**given | {"addresses": _text(invitation.addresses)})

    def invitation(self) -> Invitation:
        """Raises FormatError."""
        own = (self.selector, self.secret, self.name, _addresses(self.addresses))
        return Invitation(*own, self.uses, self.until, self.used)


@dataclass(frozen=True, slots=True)
class Reserved(Record):
    """For which device a command has reserved an address."""

    bucket: ClassVar[Bucket] = Bucket.DEVICES

    device: str
    """As candy.relay.reservations reads it; empty: it is released."""


@dataclass(frozen=True, slots=True)
class Common(Record):
    """What all relays of a network have to have alike."""

    bucket: ClassVar[Bucket] = Bucket.NETWORKS

    relays: tuple[str, ...]
    """Those that serve it so, or did last."""
    pool: str
    passwords: tuple[str, ...]
    """Digests, sorted."""
    rules: tuple[str, ...]
    """In their order."""
    key: str = ""
    """The network's public key, in hex."""
    reservations: tuple[str, ...] = ()
    """Of the configuration."""
    allow_outside_pool: bool = False
    legacy: bool = True
    clock_tolerance: int = TOLERANCE_S


@dataclass(frozen=True, slots=True)
class Watermark(Record):
    """AUTHs up to this time are believed no more, in Unix seconds: their digests are forgotten, or about to be."""

    bucket: ClassVar[Bucket] = Bucket.NETWORKS

    timestamp: int


@dataclass(frozen=True, slots=True)
class Spent(Record):
    """An AUTH's digest that came."""

    bucket: ClassVar[Bucket] = Bucket.DIGESTS

    relay: str


@dataclass(frozen=True, slots=True)
class RelayRecord(Record):
    """A relay of the cluster."""

    bucket: ClassVar[Bucket] = Bucket.RELAYS

    url: str
    epoch: int
    """Of its last start; the next is higher."""
    version: str
    imported: tuple[str, ...] = ()
    """Paths of networks of which its own file was imported."""
    is_running: bool = True
    """It has not said that it ends."""
    key: str = ""
    """By which it is known on links, in hex: another one at each start."""
    public_url: str = ""
    """By which members reach it, where that was given."""


def _text(addresses: IPv4Network | None) -> str:
    return "" if addresses is None else str(addresses)


def _addresses(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text) if text else None
    except ValueError:
        raise FormatError(f"{text!r} in a device's record are no addresses") from None


def _standing(number: int) -> Standing:
    try:
        return Standing(number)
    except ValueError:
        raise FormatError(f"{number} in a device's record is no standing: update this relay") from None
