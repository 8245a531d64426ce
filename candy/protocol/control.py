"""What relay and candy.3 member tell each other behind the log-in: sealed, counted, one message with its kind.

    CONTROL      ┌──┬─────────┬───────────┬─────────┬────────┐
    29+, both    │22│ zeros 3 │ counter 8 │ message │ tag 16 │  1,500 bytes at most
                 └──┴─────────┴───────────┴─────────┴────────┘

The messages within, beside the ROUTE and BEHIND of candy.protocol.wire, BEHIND in version 2 there:

    ASK          ┌──┬─────────┐┌──────┐
    2+, C→S      │32│ count 1 ││ ip 4 │  `count` times
                 └──┴─────────┘└──────┘
    TELL         ┌──┬─────────┐┌──────┬───────┬───────┬─────────┬──────────┬────────┬──────────┐
    2+, S→C      │33│ count 1 ││ ip 4 │ state │ flags │ lease 8 │ commit 4 │ key 32 │ device 8 │  `count` times
                 └──┴─────────┘└──────┴───────┴───────┴─────────┴──────────┴────────┴──────────┘
    NOT_SEALING  ┌──┬──────┐                COMMIT   ┌──┬──────┬─────────┐
    5, S→C       │34│ ip 4 │                9, S→C   │35│ ip 4 │ bytes 4 │
                 └──┴──────┘                         └──┴──────┴─────────┘
    NETWORK_KEY  ┌──┬────────────────┐      RELAY_KEY  ┌──┬───────────────┐
    137, S→C     │36│ Succession 136 │      139, S→C   │37│ Candy-Key 138 │  both: candy.protocol.keys
                 └──┴────────────────┘                 └──┴───────────────┘
    CLOSING      ┌──┬────────┬──────┐       APPROVED   ┌──┬──────┬──────────┬─────────┐
    3+, S→C      │38│ code 2 │ text │       14, S→C    │39│ ip 4 │ prefix 1 │ lease 8 │
                 └──┴────────┴──────┘                  └──┴──────┴──────────┴─────────┘
    CONFIRM      ┌──┐                       RELAYS     ┌──┬───────┬───────┬─────────┐┌──────────┬─────┐
    1, C→S       │40│                       4+, S→C    │41│ first │ total │ count 1 ││ length 2 │ URL │  `count` times
                 └──┘                                  └──┴───────┴───────┴─────────┘└──────────┴─────┘

Rules: as in candy.protocol.wire: the length is checked before the first field is read, bytes that are not a message
raise WireError, and whatever follows the fixed part is ignored. A Channel has both directions of one connection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Interface
from struct import Struct
from typing import ClassVar, Final, Self

from candy.errors import TrustError, WireError
from candy.protocol import keys, wire
from candy.protocol.closing import parse
from candy.protocol.noise import TAG_BYTES, Cipher, NoiseError, Primitives
from candy.protocol.wire import DropReason

CONTROL: Final = 22
"""The kind."""
CONTROL_MAX: Final = wire.LEGACY_PAYLOAD
COUNTER_MAX: Final = 1 << 40
"""Messages in one direction; at the last the connection ends."""
ASKS_MAX: Final = 64
BEHIND_VERSION: Final = 2
"""Of a BEHIND within."""
_HEAD: Final = Struct(">B3xQ")
RELAYS_MAX: Final = 16
"""URLs of relays."""
URL_MAX: Final = 512
"""Bytes of one."""
PLACEMENTS_MAX: Final = (CONTROL_MAX - _HEAD.size - TAG_BYTES - wire.Behind.LAYOUT.size) // wire.Placement.LAYOUT.size
"""As many as a BEHIND within has room for."""


class Kind(IntEnum):
    """The first byte of a message within."""

    ASK = 32
    TELL = 33
    NOT_SEALING = 34
    COMMIT = 35
    NETWORK_KEY = 36
    RELAY_KEY = 37
    CLOSING = 38
    APPROVED = 39
    CONFIRM = 40
    RELAYS = 41


class State(IntEnum):
    """What the relay says of an address."""

    NOBODY = 0
    SEALS = 1
    CLEAR = 2
    """An old client, or one that says so."""
    REVOKED = 3
    AWAY = 4


@dataclass(frozen=True, slots=True)
class Ask:
    """ASK: whose are these addresses?"""

    LAYOUT: ClassVar[Struct] = Struct(">BB")

    addresses: tuple[IPv4Address, ...]

    def encode(self) -> bytes:
        head = self.LAYOUT.pack(Kind.ASK, len(self.addresses))
        return head + b"".join(address.packed for address in self.addresses)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        _, count = cls.LAYOUT.unpack_from(message)
        end = cls.LAYOUT.size + 4 * count
        if len(message) < end or count > ASKS_MAX:
            raise WireError(DropReason.TOO_SHORT if len(message) < end else DropReason.TOO_LARGE)
        return cls(tuple(IPv4Address(message[at : at + 4]) for at in range(cls.LAYOUT.size, end, 4)))


@dataclass(frozen=True, slots=True)
class Peer:
    """One entry of a TELL. What is not known is zeros."""

    LAYOUT: ClassVar[Struct] = Struct(">IBB8sI32sQ")
    UNASKED: ClassVar[int] = 128
    """A flag: who is told has not asked. It is of one that has asked, or of the next hop of a route."""

    address: IPv4Address
    state: State
    flags: int = 0
    lease: bytes = bytes(8)
    commit_bytes: int = 0
    key: bytes = bytes(32)
    device: int = 0

    def encode(self) -> bytes:
        own = (self.flags, self.lease, self.commit_bytes, self.key, self.device)
        return self.LAYOUT.pack(int(self.address), self.state, *own)

    @classmethod
    def decode(cls, message: bytes, offset: int) -> Self:
        address, state, flags, lease, commit_bytes, key, device = cls.LAYOUT.unpack_from(message, offset)
        if state not in iter(State):
            raise WireError(DropReason.UNKNOWN_VERSION)
        return cls(IPv4Address(address), State(state), flags, lease, commit_bytes, key, device)


@dataclass(frozen=True, slots=True)
class Tell:
    """TELL: whose an address is, and with which key."""

    LAYOUT: ClassVar[Struct] = Struct(">BB")
    MOST: ClassVar[int] = (CONTROL_MAX - _HEAD.size - TAG_BYTES - LAYOUT.size) // Peer.LAYOUT.size

    peers: tuple[Peer, ...]

    def encode(self) -> bytes:
        return self.LAYOUT.pack(Kind.TELL, len(self.peers)) + b"".join(peer.encode() for peer in self.peers)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        _, count = cls.LAYOUT.unpack_from(message)
        end = cls.LAYOUT.size + count * Peer.LAYOUT.size
        if len(message) < end:
            raise WireError(DropReason.TOO_SHORT)
        return cls(tuple(Peer.decode(message, at) for at in range(cls.LAYOUT.size, end, Peer.LAYOUT.size)))


@dataclass(frozen=True, slots=True)
class NotSealing:
    """NOT_SEALING: a sealed packet for this address was dropped."""

    LAYOUT: ClassVar[Struct] = Struct(">BI")

    address: IPv4Address

    def encode(self) -> bytes:
        return self.LAYOUT.pack(Kind.NOT_SEALING, int(self.address))

    @classmethod
    def decode(cls, message: bytes) -> Self:
        return cls(IPv4Address(cls.LAYOUT.unpack_from(message)[1]))


@dataclass(frozen=True, slots=True)
class Commit:
    """COMMIT: packets for this address should not be longer, for a while."""

    LAYOUT: ClassVar[Struct] = Struct(">BII")

    address: IPv4Address
    longest: int
    """Bytes."""

    def encode(self) -> bytes:
        return self.LAYOUT.pack(Kind.COMMIT, int(self.address), self.longest)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        _, address, longest = cls.LAYOUT.unpack_from(message)
        return cls(IPv4Address(address), longest)


@dataclass(frozen=True, slots=True)
class NetworkKey:
    """NETWORK_KEY: the network has another key from now on."""

    LAYOUT: ClassVar[Struct] = Struct(f">B{keys.Succession.BYTES}s")

    succession: keys.Succession

    def encode(self) -> bytes:
        return self.LAYOUT.pack(Kind.NETWORK_KEY, self.succession.encode())

    @classmethod
    def decode(cls, message: bytes) -> Self:
        return cls(keys.Succession.decode(cls.LAYOUT.unpack_from(message)[1]))


@dataclass(frozen=True, slots=True)
class RelayKey:
    """RELAY_KEY: the relay has another key from now on."""

    LAYOUT: ClassVar[Struct] = Struct(f">B{keys.RelayKey.BYTES}s")

    key: keys.RelayKey

    def encode(self) -> bytes:
        return self.LAYOUT.pack(Kind.RELAY_KEY, self.key.encode())

    @classmethod
    def decode(cls, message: bytes) -> Self:
        try:
            return cls(keys.RelayKey.decode(cls.LAYOUT.unpack_from(message)[1]))
        except TrustError as error:
            raise WireError(DropReason.UNKNOWN_VERSION) from error


@dataclass(frozen=True, slots=True)
class Closing:
    """CLOSING: what the CLOSE behind it means."""

    LAYOUT: ClassVar[Struct] = Struct(">BH")

    code: int
    text: str

    def encode(self) -> bytes:
        return self.LAYOUT.pack(Kind.CLOSING, self.code) + self.text.encode("ascii")

    @classmethod
    def decode(cls, message: bytes) -> Self:
        return cls(*parse(message[1:]))


@dataclass(frozen=True, slots=True)
class Approved:
    """APPROVED: the device that waited is let in, as this address."""

    LAYOUT: ClassVar[Struct] = Struct(">BIB8s")

    address: IPv4Interface
    lease: bytes

    def encode(self) -> bytes:
        return self.LAYOUT.pack(Kind.APPROVED, int(self.address.ip), self.address.network.prefixlen, self.lease)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        _, ip, prefix, lease = cls.LAYOUT.unpack_from(message)
        if prefix > 32:
            raise WireError(DropReason.BAD_MASK)
        return cls(IPv4Interface((ip, prefix)), lease)


@dataclass(frozen=True, slots=True)
class Confirm:
    """CONFIRM: the member has read the answer to its log-in."""

    LAYOUT: ClassVar[Struct] = Struct(">B")

    def encode(self) -> bytes:
        return self.LAYOUT.pack(Kind.CONFIRM)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class Relays:
    """RELAYS: by which relays members reach the network, this one among them.

    `first` is the number of the first URL here, of `total` in the whole set. One whose first is 0 begins a set anew,
    which counts once all are there.
    """

    LAYOUT: ClassVar[Struct] = Struct(">BBBB")
    LENGTH: ClassVar[Struct] = Struct(">H")

    first: int
    total: int
    urls: tuple[str, ...]

    def encode(self) -> bytes:
        head = self.LAYOUT.pack(Kind.RELAYS, self.first, self.total, len(self.urls))
        return head + b"".join(self.LENGTH.pack(len(url)) + url.encode("ascii") for url in self.urls)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        _, first, total, count = cls.LAYOUT.unpack_from(message)
        if total > RELAYS_MAX or first + count > total:
            raise WireError(DropReason.TOO_LARGE)
        urls, at = [], cls.LAYOUT.size
        for _ in range(count):
            begin = at + cls.LENGTH.size
            if len(message) < begin:
                raise WireError(DropReason.TOO_SHORT)
            [length] = cls.LENGTH.unpack_from(message, at)
            at = begin + length
            if len(message) < at:
                raise WireError(DropReason.TOO_SHORT)
            url = message[begin:at]
            # A URL is printable ASCII.
            if length > URL_MAX or not all(0x20 < byte < 0x7F for byte in url):
                raise WireError(DropReason.BAD_CONTROL)
            urls.append(url.decode("ascii"))
        return cls(first, total, tuple(urls))


def relays_messages(urls: Sequence[str]) -> list[bytes]:
    """What tells of these, at most RELAYS_MAX of at most URL_MAX bytes each, as few messages as will do."""
    room = CONTROL_MAX - _HEAD.size - TAG_BYTES - Relays.LAYOUT.size
    batches: list[list[str]] = [[]]
    left = room
    for url in urls:
        if (size := Relays.LENGTH.size + len(url)) > left:
            batches.append([])
            left = room
        batches[-1].append(url)
        left -= size
    messages, first = [], 0
    for batch in batches:
        messages.append(Relays(first, len(urls), tuple(batch)).encode())
        first += len(batch)
    return messages


FromMember = Ask | Confirm
FromRelay = Tell | NotSealing | Commit | NetworkKey | RelayKey | Closing | Approved | Relays | wire.Route | wire.Behind

_BY_KIND: dict[int, type[FromMember | FromRelay]] = {
    Kind.ASK: Ask,
    Kind.TELL: Tell,
    Kind.NOT_SEALING: NotSealing,
    Kind.COMMIT: Commit,
    Kind.NETWORK_KEY: NetworkKey,
    Kind.RELAY_KEY: RelayKey,
    Kind.CLOSING: Closing,
    Kind.APPROVED: Approved,
    Kind.CONFIRM: Confirm,
    Kind.RELAYS: Relays,
    wire.Kind.ROUTE: wire.Route,
    wire.Kind.BEHIND: wire.Behind,
}


WITHIN: Final = frozenset(_BY_KIND)
"""Kinds that come within a CONTROL, and in the clear from nobody who has the keys for one."""


def decode(message: bytes) -> FromMember | FromRelay:
    """The message that stood in a CONTROL. Raises WireError, and nothing else, for bytes that are not one."""
    if not message:
        raise WireError(DropReason.EMPTY_MESSAGE)
    message_type = _BY_KIND.get(message[0])
    if message_type is None:
        raise WireError(DropReason.UNKNOWN_KIND)
    if len(message) < message_type.LAYOUT.size:
        raise WireError(DropReason.TOO_SHORT)
    if message_type is wire.Behind:
        return wire.Behind.decode(message, BEHIND_VERSION)
    return message_type.decode(message)


def seal(cipher: Cipher, message: bytes) -> bytes:
    """The next CONTROL; `cipher` is of one direction, and of control_key()."""
    head = _HEAD.pack(CONTROL, cipher.nonce)
    assert len(head) + len(message) + TAG_BYTES <= CONTROL_MAX
    return head + cipher.seal(head, message)


def opened(cipher: Cipher, data: bytes) -> bytes:
    """The message within the next CONTROL. Raises WireError if it is not the next, or does not open."""
    head = _HEAD.pack(CONTROL, cipher.nonce)
    if len(data) > CONTROL_MAX or cipher.nonce >= COUNTER_MAX or data[: len(head)] != head:
        raise WireError(DropReason.BAD_CONTROL)
    try:
        return cipher.open(head, data[len(head) :])
    except NoiseError as error:
        raise WireError(DropReason.BAD_CONTROL) from error


class Channel:
    """CONTROL both ways on one connection: each direction has its key, and counts from 0 on.

    Args:
        sends, receives: of control_key().
    """

    def __init__(self, primitives: Primitives, sends: bytes, receives: bytes) -> None:
        self._sends = Cipher(primitives, sends)
        self._receives = Cipher(primitives, receives)

    def seal(self, message: bytes) -> bytes:
        """The next CONTROL to send. It has to be sent: without it none that follows would be taken."""
        return seal(self._sends, message)

    def opened(self, data: bytes) -> bytes:
        """The message within the next CONTROL. Raises WireError if it is not the next, or does not open."""
        return opened(self._receives, data)
