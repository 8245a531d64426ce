"""What the engine is told of sealed traffic, and what it tells: all of the line between decisions and packets.

    candy.sealing.sessions ── Install, Remove, SetPeer, ForgetPeer, SendSealed, … ──▶ engine
                           ◀── Wanted, Clear, Unknown, Confirmed, Noted, Grouped ──── as they come
                           ◀── Seen, of each session ─────────────────────────────── once a second

The engine has two tables. Of sessions, by local number: what arrives as SEALED names one. Of peers, by address: what
becomes of a packet that the device gives for that address, as the next hop of its route, and of what comes from there
in the clear.

Rules:
 1. Actions are carried out in order, and take effect for the packets behind them. Keys are copied, and overwritten with
    the session; nothing here is kept by the engine beyond Remove and ForgetPeer.
 2. An event about an address is raised once, and again after the next SetPeer for it. For an address without an entry
    the engine makes one: what is for it waits, what comes from it in the clear is taken, under REQUIRE dropped. That is
    answered by SetPeer or ForgetPeer. Where the engine's table is full there is no event, and no waiting.
 3. Of each session an event comes before those that follow from it: Confirmed before the Noted of the same packet.
 4. Times are seconds of CLOCK_BOOTTIME. What is sealed or opened beyond a bound of Install, or of SEND_BYTES_MAX,
    COUNTER_MAX and FORGERIES_MAX, is refused by the engine itself: Python may be late.

Sizes and order of the checks are those of docs/protocol.md, "Sealed packets".
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from ipaddress import IPv4Address
from typing import Final

from candy.protocol.handshake import Cipher

SEND_BYTES_MAX: Final = 1 << 38
"""Plaintext sealed under one key."""
COUNTER_MAX: Final = 1 << 48
"""The first counter that is not sealed or opened any more."""
FORGERIES_MAX: Final = 1 << 30
"""Packets of a session that did not open, after which none does."""
UNKNOWN_MAX: Final = 64
"""Unknown within a second, of all sources together; further ones are counted alone."""
LABEL_KEY_BYTES: Final = 16
"""Of SipHash-2-4."""
EPOCH_BYTES: Final = 16
GROUP_PACKETS_MAX: Final = 1 << 32
GROUP_BYTES_MAX: Final = 1 << 36


class Seal(Enum):
    """The setting `seal`."""

    PREFER = "prefer"
    REQUIRE = "require"
    OFF = "off"


class Way(IntEnum):
    """What becomes of a packet for a peer."""

    WAIT = 0
    """It waits, within bounds and for 6 s (`no_session`), and raises Wanted. What waits at the next SetPeer goes the
    way that this names: it is sealed, sent in the clear, or dropped under its name."""
    SEAL = 1
    """Under SetPeer.session. When that may send no more, or is not there, as WAIT."""
    CLEAR = 2
    """As FORWARD or SUPER."""
    NO_ROUTE = 3
    """Dropped as `no_route`."""
    KEY_REFUSED = 4
    """Dropped as `key_refused`."""
    NOT_SEALING = 5
    """Dropped as `peer_not_sealing`, and answered with an ICMP, administratively prohibited, once a second."""


@dataclass(frozen=True, slots=True)
class SetSealing:
    """Who this member is, and how it deals with what it knows nothing of. Comes before all others, and again with each
    change. With OFF the tables count for nothing: everything is sent and taken in the clear, SEALED is dropped."""

    seal: Seal
    own: IPv4Address
    """Source of what is sealed, destination of what is opened."""
    checks_source: bool
    """Inner sources have to be the peer's own, or behind it; else they only must not be this member's."""


@dataclass(frozen=True, slots=True)
class Install:
    """Open what arrives for this session from now on; seal under it once a SetPeer names it. Its number is not in use.

    Counters begin at 0, the window is empty.
    """

    local: int
    """This member's number, which the peer puts into SEALED. 32 bits, not 0."""
    peer: IPv4Address
    """The only source from which it is taken."""
    remote: int
    """The peer's number, which goes into SEALED."""
    cipher: Cipher
    sends: bytes = field(repr=False)
    """Key of 32 bytes, of the path through the relay."""
    receives: bytes = field(repr=False)
    sends_until: float
    opens_until: float
    is_confirmed: bool
    """False: the first packet that opens raises Confirmed."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget a session, and overwrite its keys. What was sealed already may still go out."""

    local: int


@dataclass(frozen=True, slots=True)
class SetPeer:
    """The whole entry of an address: in place of the one before, but what waits goes on waiting (see Way)."""

    address: IPv4Address
    way: Way
    session: int = 0
    """Local number, for Way.SEAL."""
    takes_clear: bool = False
    """FORWARD and SUPER from this address, and of what lies behind it by BEHIND, are taken; else dropped as
    `not_sealed`."""
    longest: int = 65535
    """Bytes of an IPv4 packet that is sealed for it: longer super-packets are cut before. 1,500 at least."""
    label_key: bytes = field(default=bytes(LABEL_KEY_BYTES), repr=False)
    """Of its flow labels. The same as long as there is an entry."""
    tells_wanted: bool = False
    """The next packet for it raises Wanted. With Way.WAIT it does so in any case, also if it waits already."""
    tells_clear: bool = False
    """The next packet from it in the clear raises Clear."""


@dataclass(frozen=True, slots=True)
class ForgetPeer:
    """Remove the entry; what waits is dropped as `no_session`."""

    address: IPv4Address


@dataclass(frozen=True, slots=True)
class SendSealed:
    """Send a note under a session, or, without a body, an empty packet; flow label 0. Not counted as a packet of the
    user's: see Seen. If the session may send no more it is dropped."""

    local: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class SealGroups:
    """Seal packets to groups under this epoch from now on, with counters from 0. At its end (GROUP_PACKETS_MAX,
    GROUP_BYTES_MAX) they are dropped as `group_not_sealed` until the next one.

    Without `key`, and before the first of these, there is no secret: under PREFER they go and are taken in the clear,
    under REQUIRE they are dropped as `group_not_sealed`; a SEALED_GROUP is dropped as `no_secret`, without an event."""

    epoch: bytes = b""
    """EPOCH_BYTES."""
    key: bytes = field(default=b"", repr=False)
    """Of AES-256-GCM."""
    label_key: bytes = field(default=bytes(LABEL_KEY_BYTES), repr=False)


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """Open SEALED_GROUPs of this source and epoch from now on, with a window of 1,024; `message` is the first one. If
    they are open already there is that one to be opened: it came before the engine had heard of this."""

    source: IPv4Address
    epoch: bytes
    key: bytes = field(repr=False)
    message: bytes


@dataclass(frozen=True, slots=True)
class CloseGroup:
    """Forget an epoch."""

    source: IPv4Address
    epoch: bytes


EngineAction = SetSealing | Install | Remove | SetPeer | ForgetPeer | SendSealed | SealGroups | OpenGroup | CloseGroup


@dataclass(frozen=True, slots=True)
class Wanted:
    """A packet for this address came from the device: one waits, or SetPeer.tells_wanted asked to be told; or it
    was to be sealed, and there is neither a relay nor a direct link. That is raised once a second."""

    address: IPv4Address


@dataclass(frozen=True, slots=True)
class Clear:
    """A packet in the clear came from this address, to which rule 2 or SetPeer.tells_clear applies. For one behind
    another member it is that member's address, and so for an outer header's."""

    source: IPv4Address


@dataclass(frozen=True, slots=True)
class Unknown:
    """A SEALED from this address for a session that is not there (`unknown_session`)."""

    source: IPv4Address


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The first packet has opened under a session that was not confirmed."""

    local: int


@dataclass(frozen=True, slots=True)
class Noted:
    """A note of type 1 or 2 has opened under a session; others are the engine's to drop, as `unknown_note`."""

    local: int
    note: bytes
    """With its 0x80."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """A SEALED_GROUP of a source and epoch that are not open; its length and destination are right. As often as
    Engine's EVENT_GROUPED, beyond that they are counted alone (`handshake_limit`)."""

    message: bytes


EngineEvent = Wanted | Clear | Unknown | Confirmed | Noted | Grouped


@dataclass(frozen=True, slots=True)
class Seen:
    """What a session has carried. A packet is one of the user's: neither a note, nor empty. 0.0 is never."""

    local: int
    bytes_sent: int = 0
    """Sealed under its key, of any sort."""
    packet_sent_at: float = 0.0
    """The last one."""
    unanswered_since: float = 0.0
    """The first packet that was sent since anything came; 0.0 once something comes."""
    received_at: float = 0.0
    """When anything came last that opened."""
    owes_since: float = 0.0
    """The first packet that came since anything was sent; 0.0 once something is sent."""
