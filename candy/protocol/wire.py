"""The wire format: every message drawn, encoded and decoded. No prose about it anywhere else.

One message is one unfragmented binary WebSocket frame; its first byte is the kind. Integers and addresses are
big-endian, timestamps int64 Unix seconds, `hash` is SHA-256 (what it covers: `candy.protocol.auth`). A `~` marks
confusion: 0 to 64 random bytes, so that frames have no fixed length; a receiver ignores whatever follows the
fixed part.

    AUTH        ┌──┬─────────┬───────────────────┬──────────────────────────────┐
    45, C→S     │ 0│ ip    4 │ timestamp       8 │ hash                      32 │~
                └──┴─────────┴───────────────────┴──────────────────────────────┘
    FORWARD     ┌──┬────────────────────────────────┐
    21, both    │ 1│ IPv4 packet                 20+│  source at offset 13, destination at 17
                └──┴────────────────────────────────┘
    EXPTTUN     ┌──┬───────────────────┬──────────────────────────────┬──────────────────────────────┐
    73, both    │ 2│ timestamp       8 │ "ip/prefix", NUL-padded   32 │ hash                      32 │~
                └──┴───────────────────┴──────────────────────────────┴──────────────────────────────┘
    UDP4CONN    ┌──┬─────────┬─────────┬─────────┬────────┐
    15, C→S→C   │ 3│ src   4 │ dst   4 │ ip    4 │ port 2 │
                └──┴─────────┴─────────┴─────────┴────────┘
    VMAC        ┌──┬────────────────────┬───────────────────┬──────────────────────────────┐
    57, C→S     │ 4│ vmac            16 │ timestamp       8 │ hash                      32 │~
                └──┴────────────────────┴───────────────────┴──────────────────────────────┘
    DISCOVERY   ┌──┬─────────┬─────────┐
    9, C→S→C    │ 5│ src   4 │ dst   4 │
                └──┴─────────┴─────────┘
    ROUTE       ┌──┬─────────┬─────────┬────────────┐┌────────────────┬─────────┬────────────┐
    4+, S→C     │ 6│ count 1 │ flags 1 │ reserved 1 ││ destination  4 │ mask  4 │ next hop 4 │  `count` times
                └──┴─────────┴─────────┴────────────┘└────────────────┴─────────┴────────────┘
    SUPER       ┌──┬────────────────────┬────────────────────────────────┐
    31, both    │16│ virtio_net_hdr  10 │ IPv4 packet, up to 64 KB    20+│  source at 23, destination at 27
                └──┴────────────────────┴────────────────────────────────┘
    BEHIND      ┌──┬───────────┬─────────┬─────────┐┌───────────────┬────────┬────────────┬──────────┬────────┐
    4+, S→C     │17│ version 1 │ count 1 │ flags 1 ││ destination 4 │ mask 4 │ next hop 4 │ device 4 │ mask 4 │
                └──┴───────────┴─────────┴─────────┘└───────────────┴────────┴────────────┴──────────┴────────┘
    GENERAL     ┌───┬───────────┬─────────┬─────────┬─────────┬───────┐
    12, C→S→C   │255│ subtype 1 │ extra 2 │ src   4 │ dst   4 │ data  │
                └───┴───────────┴─────────┴─────────┴─────────┴───────┘

The number under a name is the shortest message in bytes, then who sends it (C member, S relay, C→S→C relayed
unchanged). `flags`: bit 0 first, bit 1 last message of a set; in ROUTE they are used with the extension `candy.2`
alone, as BEHIND is, whose second mask is the device's. What stands behind the gap in these two comes `count` times.
GENERAL with subtype 0 and extra 0 carries the sender's LAN endpoint: ip 4, port 2.

Rules: the length is checked before the first field is read. Bytes that are not a message raise WireError with a
DropReason and nothing else. FORWARD and SUPER are the engine's and are not decoded here. This module knows
neither passwords nor sessions, nor whether a well-formed message may be believed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from struct import Struct
from typing import ClassVar, Self

from candy.errors import WireError

SUBPROTOCOL = "candy.2"
SEALING_SUBPROTOCOL = "candy.3"
"""It contains the other."""
MAX_PAYLOAD = 65546
"""Bytes of payload accepted from anyone (a SUPER with the longest IPv4 packet); more is closed with MESSAGE_TOO_BIG."""
LEGACY_PAYLOAD = 1500
"""Bytes of payload an endpoint without the extension can hold; it drops the connection beyond that."""
MAX_ROUTE_ENTRIES = 100
"""Entries that existing peers take in one ROUTE message."""
MAX_PLACEMENTS = (LEGACY_PAYLOAD - 4) // 20
"""As many as one BEHIND has room for: the engine sends messages of up to LEGACY_PAYLOAD."""
MAX_CONFUSION = 64
"""Random bytes that a sender appends at most; a receiver takes any number."""
BROADCAST = IPv4Address("255.255.255.255")


class Kind(IntEnum):
    """The first byte of a message."""

    AUTH = 0
    FORWARD = 1
    EXPTTUN = 2
    UDP4CONN = 3
    VMAC = 4
    DISCOVERY = 5
    ROUTE = 6
    SUPER = 16
    BEHIND = 17
    GENERAL = 255


class DropReason(StrEnum):
    """Why a message was dropped without a consequence for its connection. The values name counters."""

    EMPTY_MESSAGE = "empty_message"
    """Without a byte, so without a kind."""
    UNKNOWN_KIND = "unknown_kind"
    """A kind that is not drawn above, or one that the engine alone handles."""
    TOO_SHORT = "too_short"
    """Shorter than the minimum of its kind, or a ROUTE or BEHIND with fewer entries than its count."""
    BAD_CIDR = "bad_cidr"
    """The text of an EXPTTUN is not `ip/prefix` and a NUL within its 32 bytes."""
    BAD_MASK = "bad_mask"
    """A mask in a ROUTE or BEHIND is not ones followed by zeros."""
    BAD_NEXT_HOP = "bad_next_hop"
    """The next hop of a ROUTE entry is not an address that a member can have."""
    OUTSIDE_SET = "outside_set"
    """A ROUTE or BEHIND that continues a set which was not begun, or of which an earlier message was dropped."""
    TOO_MANY_ROUTES = "too_many_routes"
    """A ROUTE or BEHIND with which there would be more destinations than a member takes."""
    UNKNOWN_VERSION = "unknown_version"
    """A BEHIND of a version that is not drawn above."""
    UNKNOWN_SUBTYPE = "unknown_subtype"
    """A GENERAL for us that is not the LAN endpoint of its sender."""
    FOREIGN_DESTINATION = "foreign_destination"
    """Relayed to us, with a destination that is neither our address nor the broadcast address."""
    UNEXPECTED_KIND = "unexpected_kind"
    """From a member: a kind that only the relay sends. From the relay: one that it never sends, or not at that time."""
    NO_ACQUAINTANCE = "no_acquaintance"
    """A UDP4CONN between members that are not of one password, or have no business with it."""
    NOT_AUTHENTICATED = "not_authenticated"
    """To be relayed, but its sender has no address yet."""
    TOO_LARGE = "too_large"
    """To be relayed, but longer than every endpoint can hold."""
    SPOOFED_SOURCE = "spoofed_source"
    """To be relayed, with a source that is not its sender's address; or relayed, with one that no other member has."""
    NO_ROUTE = "no_route"
    """To be relayed to an address that no member holds."""
    SECOND_AUTH = "second_auth"
    """AUTH on a connection that authenticated already; the first one stands."""
    VMAC_AFTER_AUTH = "vmac_after_auth"
    """A VMAC that comes too late to identify the member."""
    EXPTTUN_AFTER_AUTH = "expttun_after_auth"
    """A request for an address on a connection that claimed one."""
    BAD_LOGIN = "bad_login"
    """A LOGIN of another version, number, credential or length, or with a field that can't be."""
    BAD_CONTROL = "bad_control"
    """A CONTROL that is not the next, or does not open: the connection ends with it."""
    ASK_LIMIT = "ask_limit"
    """An ASK of a member that has used up its allowance of addresses."""
    BAD_HANDSHAKE = "bad_handshake"
    """A HANDSHAKE, or a note in its place, that is none, does not open, or that its sender may not send then."""
    HANDSHAKE_LIMIT = "handshake_limit"
    """More of them than are looked at, of one sender or of all."""
    GROUP_CLOCK = "group_clock"
    """Sealed for a group, under an epoch whose time is too far from this member's clock."""
    GROUP_SENDERS = "group_senders"
    """Sealed for a group, by one more sender than are known at a time."""
    BAD_OFFER = "bad_offer"
    """A note of another member that offers addresses for direct links, and is none."""
    BAD_ANSWER = "bad_answer"
    """An answer to a probe of a direct link that is none."""
    BAD_STUN = "bad_stun"
    """The answer of a STUN server that is none."""


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH: the sender claims `ip`. Never answered."""

    LAYOUT: ClassVar[Struct] = Struct(">BIq32s")

    ip: IPv4Address
    timestamp: int
    digest: bytes

    def encode(self, confusion: bytes = b"") -> bytes:
        return self.LAYOUT.pack(Kind.AUTH, int(self.ip), self.timestamp, self.digest) + confusion

    @classmethod
    def decode(cls, message: bytes) -> Self:
        _, ip, timestamp, digest = cls.LAYOUT.unpack_from(message)
        return cls(IPv4Address(ip), timestamp, digest)


@dataclass(frozen=True, slots=True)
class Expttun:
    """EXPTTUN: the request for a dynamic address, 0.0.0.0/0 for any, and its answer: the one granted."""

    LAYOUT: ClassVar[Struct] = Struct(">Bq32s32s")

    timestamp: int
    address: IPv4Interface
    digest: bytes

    def encode(self, confusion: bytes = b"") -> bytes:
        text = str(self.address).encode("ascii")
        return self.LAYOUT.pack(Kind.EXPTTUN, self.timestamp, text, self.digest) + confusion

    @classmethod
    def decode(cls, message: bytes) -> Self:
        _, timestamp, field, digest = cls.LAYOUT.unpack_from(message)
        return cls(timestamp, _parse_cidr(field), digest)


@dataclass(frozen=True, slots=True)
class Udp4Conn:
    """UDP4CONN: `src` can be reached from outside at `ip`:`port`."""

    LAYOUT: ClassVar[Struct] = Struct(">BIIIH")

    src: IPv4Address
    dst: IPv4Address
    ip: IPv4Address
    port: int

    def encode(self) -> bytes:
        return self.LAYOUT.pack(Kind.UDP4CONN, int(self.src), int(self.dst), int(self.ip), self.port)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        _, src, dst, ip, port = cls.LAYOUT.unpack_from(message)
        return cls(IPv4Address(src), IPv4Address(dst), IPv4Address(ip), port)


@dataclass(frozen=True, slots=True)
class Vmac:
    """VMAC: 16 ASCII hex characters that identify an installation. Clients before 2024 send none."""

    LAYOUT: ClassVar[Struct] = Struct(">B16sq32s")
    NONE: ClassVar[tuple[bytes, ...]] = (bytes(16), b"0" * 16)

    vmac: bytes
    timestamp: int
    digest: bytes

    @property
    def identity(self) -> bytes | None:
        """The 16 bytes, or None for all zero: as bytes or as the hex characters."""
        return None if self.vmac in self.NONE else self.vmac

    def encode(self, confusion: bytes = b"") -> bytes:
        return self.LAYOUT.pack(Kind.VMAC, self.vmac, self.timestamp, self.digest) + confusion

    @classmethod
    def decode(cls, message: bytes) -> Self:
        return cls(*cls.LAYOUT.unpack_from(message)[1:])


@dataclass(frozen=True, slots=True)
class Discovery:
    """DISCOVERY: `src` asks `dst`, or all members by 255.255.255.255, to try a direct link."""

    LAYOUT: ClassVar[Struct] = Struct(">BII")

    src: IPv4Address
    dst: IPv4Address

    def encode(self) -> bytes:
        return self.LAYOUT.pack(Kind.DISCOVERY, int(self.src), int(self.dst))

    @classmethod
    def decode(cls, message: bytes) -> Self:
        _, src, dst = cls.LAYOUT.unpack_from(message)
        return cls(IPv4Address(src), IPv4Address(dst))


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """One entry of a ROUTE: packets to `destination` go to the member `next_hop`."""

    LAYOUT: ClassVar[Struct] = Struct(">III")

    destination: IPv4Network
    next_hop: IPv4Address

    def encode(self) -> bytes:
        network = self.destination
        return self.LAYOUT.pack(int(network.network_address), int(network.netmask), int(self.next_hop))

    @classmethod
    def decode(cls, message: bytes, offset: int) -> Self:
        destination, mask, next_hop = cls.LAYOUT.unpack_from(message, offset)
        return cls(_network(destination, mask), IPv4Address(next_hop))


@dataclass(frozen=True, slots=True)
class Route:
    """ROUTE: at most `MAX_ROUTE_ENTRIES` entries towards existing peers, 255 by the format."""

    LAYOUT: ClassVar[Struct] = Struct(">BBBx")
    FIRST: ClassVar[int] = 1
    LAST: ClassVar[int] = 2

    entries: tuple[RouteEntry, ...]
    flags: int = 0

    def encode(self) -> bytes:
        head = self.LAYOUT.pack(Kind.ROUTE, len(self.entries), self.flags)
        return head + b"".join(entry.encode() for entry in self.entries)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        _, count, flags = cls.LAYOUT.unpack_from(message)
        end = cls.LAYOUT.size + count * RouteEntry.LAYOUT.size
        if len(message) < end:
            raise WireError(DropReason.TOO_SHORT)
        offsets = range(cls.LAYOUT.size, end, RouteEntry.LAYOUT.size)
        return cls(tuple(RouteEntry.decode(message, offset) for offset in offsets), flags)


@dataclass(frozen=True, slots=True)
class Placement:
    """One entry of a BEHIND: `destination` lies behind the member `next_hop`, for members within `device`."""

    LAYOUT: ClassVar[Struct] = Struct(">IIIII")

    destination: IPv4Network
    next_hop: IPv4Address
    device: IPv4Network

    @property
    def numbers(self) -> tuple[int, int, int, int, int]:
        """Destination, its mask, next hop, device, its mask: in the wire's order, which is the engine's too."""
        there, here = self.destination, self.device
        return (
            int(there.network_address),
            int(there.netmask),
            int(self.next_hop),
            int(here.network_address),
            int(here.netmask),
        )

    def encode(self) -> bytes:
        return self.LAYOUT.pack(*self.numbers)

    @classmethod
    def decode(cls, message: bytes, offset: int) -> Self:
        destination, mask, next_hop, device, device_mask = cls.LAYOUT.unpack_from(message, offset)
        return cls(_network(destination, mask), IPv4Address(next_hop), _network(device, device_mask))


@dataclass(frozen=True, slots=True)
class Behind:
    """BEHIND: what lies behind members and for whom, told to who has something behind it."""

    LAYOUT: ClassVar[Struct] = Struct(">BBBB")
    VERSION: ClassVar[int] = 1
    FIRST: ClassVar[int] = 1
    LAST: ClassVar[int] = 2

    placements: tuple[Placement, ...]
    flags: int

    def encode(self, version: int = VERSION) -> bytes:
        head = self.LAYOUT.pack(Kind.BEHIND, version, len(self.placements), self.flags)
        return head + b"".join(placement.encode() for placement in self.placements)

    @classmethod
    def decode(cls, message: bytes, expected: int = VERSION) -> Self:
        """`expected`: the version; within CONTROL it is another (candy.protocol.control)."""
        _, version, count, flags = cls.LAYOUT.unpack_from(message)
        if version != expected:
            raise WireError(DropReason.UNKNOWN_VERSION)
        end = cls.LAYOUT.size + count * Placement.LAYOUT.size
        if len(message) < end:
            raise WireError(DropReason.TOO_SHORT)
        offsets = range(cls.LAYOUT.size, end, Placement.LAYOUT.size)
        return cls(tuple(Placement.decode(message, offset) for offset in offsets), flags)


@dataclass(frozen=True, slots=True)
class General:
    """GENERAL: any data between members; the relay reads `src` and `dst` alone."""

    LAYOUT: ClassVar[Struct] = Struct(">BBHII")
    ENDPOINT: ClassVar[Struct] = Struct(">IH")
    LAN_ENDPOINT: ClassVar[int] = 0

    subtype: int
    extra: int
    src: IPv4Address
    dst: IPv4Address
    data: bytes

    @property
    def lan_endpoint(self) -> tuple[IPv4Address, int]:
        """The sender's, address and port. Raises WireError where the data is not one."""
        if (self.subtype, self.extra) != (self.LAN_ENDPOINT, 0):
            raise WireError(DropReason.UNKNOWN_SUBTYPE)
        if len(self.data) < self.ENDPOINT.size:
            raise WireError(DropReason.TOO_SHORT)
        ip, port = self.ENDPOINT.unpack_from(self.data)
        return IPv4Address(ip), port

    def encode(self) -> bytes:
        head = self.LAYOUT.pack(Kind.GENERAL, self.subtype, self.extra, int(self.src), int(self.dst))
        return head + self.data

    @classmethod
    def decode(cls, message: bytes) -> Self:
        _, subtype, extra, src, dst = cls.LAYOUT.unpack_from(message)
        return cls(subtype, extra, IPv4Address(src), IPv4Address(dst), message[cls.LAYOUT.size :])


def tells_endpoint(message: Udp4Conn | Discovery | General) -> bool:
    """Whether it says where its sender is; who gets datagrams from there can try passwords on them."""
    return isinstance(message, Udp4Conn) or (isinstance(message, General) and message.subtype == General.LAN_ENDPOINT)


Message = Auth | Expttun | Udp4Conn | Vmac | Discovery | Route | Behind | General

_BY_KIND: dict[int, type[Message]] = {
    Kind.AUTH: Auth,
    Kind.EXPTTUN: Expttun,
    Kind.UDP4CONN: Udp4Conn,
    Kind.VMAC: Vmac,
    Kind.DISCOVERY: Discovery,
    Kind.ROUTE: Route,
    Kind.BEHIND: Behind,
    Kind.GENERAL: General,
}


def decode(message: bytes) -> Message:
    """The message that these bytes encode. Raises WireError, and nothing else, for bytes that are not a message."""
    if not message:
        raise WireError(DropReason.EMPTY_MESSAGE)
    message_type = _BY_KIND.get(message[0])
    if message_type is None:
        raise WireError(DropReason.UNKNOWN_KIND)
    if len(message) < message_type.LAYOUT.size:
        raise WireError(DropReason.TOO_SHORT)
    return message_type.decode(message)


def draw_confusion(randbytes: Callable[[int], bytes]) -> bytes:
    """0 to `MAX_CONFUSION` random bytes to end a hashed message with; `randbytes(n)` returns n."""
    return randbytes(randbytes(1)[0] % (MAX_CONFUSION + 1))


def _network(address: int, mask: int) -> IPv4Network:
    zeros = (mask ^ 0xFFFFFFFF).bit_length()
    if mask != 0xFFFFFFFF >> zeros << zeros:
        raise WireError(DropReason.BAD_MASK)
    return IPv4Network((address, 32 - zeros), strict=False)


def _parse_cidr(field: bytes) -> IPv4Interface:
    text, nul, _ = field.partition(b"\0")
    # Only `ip/prefix`: IPv4Interface alone would take a bare address and a netmask behind the slash as well.
    if not nul or not text.partition(b"/")[2].isdigit():
        raise WireError(DropReason.BAD_CIDR)
    try:
        return IPv4Interface(text.decode("ascii"))
    except ValueError as error:
        raise WireError(DropReason.BAD_CIDR) from error
