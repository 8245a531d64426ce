"""What the original's clients say to each other over UDP: the plaintexts drawn, and the key of a recipient.

    datagram    ┌────────────┬────────────────┬──────────────────────┐
    1500 most   │ IV      12 │ tag         16 │ ciphertext           │  AES-256-GCM, random IV, no AAD
                └────────────┴────────────────┴──────────────────────┘
    HEARTBEAT   ┌──┬─────────┬─────────┬────────┬───────┐
    12          │ 0│ tun   4 │ ip    4 │ port 2 │ ack 1 │  ip and port carry nothing useful
                └──┴─────────┴─────────┴────────┴───────┘
    FORWARD     ┌──┬────────────────────────────────┐
    21          │ 1│ IPv4 packet                 20+│  the engine's
                └──┴────────────────────────────────┘
    DELAY       ┌──┬─────────┬─────────┬──────────────────┐
    17          │ 2│ src   4 │ dst   4 │ milliseconds   8 │  `dst` sends it back as it is
                └──┴─────────┴─────────┴──────────────────┘
    ROUTE       ┌──┬─────────┬─────────┬─────────┐
    13          │ 4│ dst   4 │ next  4 │ rtt   4 │  signed milliseconds; below 0 or above 1000: withdrawn
                └──┴─────────┴─────────┴─────────┘

The key is that of the recipient, and all who have the network's password send to it under that one key.

Rules: the length is checked before the first field is read, and bytes behind a message are ignored. Bytes that are not
one of these messages raise WireError.
"""

from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address
from struct import Struct
from typing import ClassVar, Final, Self

from candy.errors import WireError
from candy.protocol.wire import DropReason

IV_BYTES: Final = 12
TAG_BYTES: Final = 16
DATAGRAM_MAX: Final = 1500
"""Bytes that an original client receives at most."""
ROUTE_RTT_MAX: Final = 1000
"""Milliseconds; a route of more is none."""


def recipient_key(password: bytes, recipient: IPv4Address) -> bytes:
    """The 32 bytes of the key by which this member of the network opens datagrams: H(password ‖ address, reversed)."""
    return sha256(password + recipient.packed[::-1]).digest()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """HEARTBEAT: `tun` is there; `ack`: and has heard the recipient."""

    KIND: ClassVar[int] = 0
    LAYOUT: ClassVar[Struct] = Struct(">BI6x?")

    tun: IPv4Address
    ack: bool

    def encode(self) -> bytes:
        return self.LAYOUT.pack(self.KIND, int(self.tun), self.ack)

    @classmethod
    def decode(cls, plaintext: bytes) -> Self:
        _, tun, ack = cls.LAYOUT.unpack_from(plaintext)
        return cls(IPv4Address(tun), ack)


@dataclass(frozen=True, slots=True)
class Delay:
    """DELAY: from `src` to `dst` and back. What `token` means `src` alone knows; the original's is its clock."""

    KIND: ClassVar[int] = 2
    LAYOUT: ClassVar[Struct] = Struct(">BII8s")

    src: IPv4Address
    dst: IPv4Address
    token: bytes

    def encode(self) -> bytes:
        return self.LAYOUT.pack(self.KIND, int(self.src), int(self.dst), self.token)

    @classmethod
    def decode(cls, plaintext: bytes) -> Self:
        _, src, dst, token = cls.LAYOUT.unpack_from(plaintext)
        return cls(IPv4Address(src), IPv4Address(dst), token)


@dataclass(frozen=True, slots=True)
class PeerRoute:
    """ROUTE: packets for `dst` may go to `next_hop`, and take `rtt_ms` from there."""

    KIND: ClassVar[int] = 4
    LAYOUT: ClassVar[Struct] = Struct(">BIIi")

    dst: IPv4Address
    next_hop: IPv4Address
    rtt_ms: int

    @property
    def is_withdrawn(self) -> bool:
        return not 0 <= self.rtt_ms <= ROUTE_RTT_MAX

    def encode(self) -> bytes:
        return self.LAYOUT.pack(self.KIND, int(self.dst), int(self.next_hop), self.rtt_ms)

    @classmethod
    def decode(cls, plaintext: bytes) -> Self:
        _, dst, next_hop, rtt_ms = cls.LAYOUT.unpack_from(plaintext)
        return cls(IPv4Address(dst), IPv4Address(next_hop), rtt_ms)


PeerMessage = Heartbeat | Delay | PeerRoute
_BY_KIND: Final[dict[int, type[PeerMessage]]] = {each.KIND: each for each in (Heartbeat, Delay, PeerRoute)}


def decode(plaintext: bytes) -> PeerMessage:
    """The message that was in a datagram. Raises WireError, and nothing else, for bytes that are none."""
    if not plaintext:
        raise WireError(DropReason.EMPTY_MESSAGE)
    message_type = _BY_KIND.get(plaintext[0])
    if message_type is None:
        raise WireError(DropReason.UNKNOWN_KIND)
    if len(plaintext) < message_type.LAYOUT.size:
        raise WireError(DropReason.TOO_SHORT)
    return message_type.decode(plaintext)
