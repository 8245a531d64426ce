"""What the control interface answers: the shapes, each field with its unit.

    a side's snapshot ─▶ these ─┬─▶ JSON          candy.control.server
                                ├─▶ a document    candy.control.document
                                └─▶ tables        candy.cli.tables

Rules: plain data, filled by the sides from what they know at one moment. Times are Unix seconds. `in` and `out` are as
the program that answers sees it: what came in from a member, or from the relay, and what went out to it. A name is as
its device gave it: the program that shows a name escapes it (candy.control.escape).

This module does not know where the figures come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

WhyVerdict = Literal[
    "passes",
    "no member there",
    "not in this network",
    "source refused",
    "rule",
    "sealing",
    "too large",
    "stalled",
    "limit",
    "malformed",
]
SealedOrNot = Literal["sealed", "clear", "waiting", "no route", "key refused", "does not seal"]
SealSetting = Literal["prefer", "require", "off"]
HeldBy = Literal["down", "up", "both"] | None
DOCUMENTED = {"use_attribute_docstrings": True}
"""Has pydantic take the words under a field for those of the document."""


@dataclass(slots=True, kw_only=True)
class Problem:
    """Why nothing was answered or done."""

    __pydantic_config__ = DOCUMENTED

    error: str
    """One line that says what is wrong and how to mend it."""


@dataclass(slots=True, kw_only=True)
class Traffic:
    """What one connection carried since it began."""

    __pydantic_config__ = DOCUMENTED

    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    drops: int
    """Packets and messages of it or for it that were not delivered."""
    queued_bytes: int
    """What waits for it now."""
    queue_delay_ms: float
    """While something waits, how long the packet that left last had waited, and the time since then."""
    bytes_in_per_s: float | None = None
    """Over the time that was asked for with `over`."""
    bytes_out_per_s: float | None = None
    packets_in_per_s: float | None = None
    packets_out_per_s: float | None = None

    def set_rates(self, before: Mapping[str, int], seconds: float) -> None:
        """Say how much of it came since an earlier look, whose figures have the names of these."""
        self.packets_in_per_s = (self.packets_in - before["packets_in"]) / seconds
        self.bytes_in_per_s = (self.bytes_in - before["bytes_in"]) / seconds
        self.packets_out_per_s = (self.packets_out - before["packets_out"]) / seconds
        self.bytes_out_per_s = (self.bytes_out - before["bytes_out"]) / seconds


@dataclass(slots=True, kw_only=True)
class Member(Traffic):
    """A member that is logged in."""

    __pydantic_config__ = DOCUMENTED

    network: str
    """The path of its network."""
    address: str
    """IPv4, in the network."""
    name: str | None
    """As its device says; not unique."""
    os: str | None
    version: str | None
    """Of its program, as its device says."""
    vmac: str | None
    path: Literal["relay"]
    """How its packets travel."""
    extension: bool
    """candy.2 was agreed on."""
    seal: SealSetting | None
    """With whom it seals packets, as it says itself: all who can, all or nobody, nobody. Null: with nobody, for it
    logged in without a key."""
    since: float
    """When it logged in."""
    source: str
    """The IP address that it came from."""
    round_trip_ms: float | None
    """By the kernel's measure, where it was asked for and is known."""
    limit_down: int | None
    """Bits a second that it is sent at most, with the quota's if that is used up; null: any number."""
    limit_up: int | None
    """And that are read of it."""
    held: HeldBy
    """What had to wait for a limit within the last second, its own or its network's: what is sent to it, what it sends,
    or both."""
    quota: int | None
    """Bytes that it may carry in a month; null: any number."""
    quota_left: int | None
    """Of these, up to the last report."""
    relay: str | None = None
    """The relay where it is; null: there is one alone."""


@dataclass(slots=True, kw_only=True)
class MemberDetail(Member):
    """The same of one member, with its drops by reason."""

    __pydantic_config__ = DOCUMENTED

    drops_by_reason: dict[str, int]
    """Of all reasons for which something was dropped."""


@dataclass(slots=True, kw_only=True)
class Members:
    """All members that are logged in, of the network that was asked for or of all, at all relays that serve it."""

    __pydantic_config__ = DOCUMENTED

    members: list[Member]
    unreached: list[str]
    """Relays that were not reached, whose members are left out."""


@dataclass(slots=True, kw_only=True)
class Network:
    """One of a relay's networks."""

    __pydantic_config__ = DOCUMENTED

    path: str
    pool: str | None
    """CIDR; null: it grants no addresses."""
    members: int
    addresses_used: int
    """Of the pool: held, or reserved for one that logs in just now."""
    addresses_free: int
    rules: int
    """SD-WAN."""
    interface: str | None
    """This machine's in the network."""
    own_address: str | None
    """And its address, with the prefix's length."""
    limit_down: int | None
    """Bits a second that all members together are sent at most; null: any number."""
    limit_up: int | None
    """And that are read of them."""


@dataclass(slots=True, kw_only=True)
class Networks:
    """A relay's networks."""

    __pydantic_config__ = DOCUMENTED

    networks: list[Network]


@dataclass(slots=True, kw_only=True)
class OtherRelay:
    """Another relay of the cluster, as this one sees it."""

    __pydantic_config__ = DOCUMENTED

    relay: str
    """Its name."""
    there: bool
    """It is heard; or it has not said that it ends."""
    members: int
    links: int
    """Connections to it by which packets go; 0: they are dropped."""
    round_trip_ms: float | None
    """To it, by a ping that was sent for this answer; null without a link, or an answer in time."""
    url: str
    """By which relays reach it."""
    public_url: str | None
    """By which members do, where that was given: they are told it."""


@dataclass(slots=True, kw_only=True)
class ClusterStatus:
    """The other relays that serve the same networks, as this one sees them."""

    __pydantic_config__ = DOCUMENTED

    name: str
    """This relay's among them."""
    nats: bool
    """There is a connection to NATS. Without one members stay and known devices log in; new ones have to wait."""
    server: str
    """Of NATS, host:port: the one that it is connected to, or was last."""
    relays: dict[str, int]
    """The others that are there, and how many members each has."""
    missing: list[str]
    """Relays of which not everything is known yet."""
    others: list[OtherRelay]
    """All that have not said that they end."""


@dataclass(slots=True, kw_only=True)
class RelayStatus:
    """A relay as a whole."""

    __pydantic_config__ = DOCUMENTED

    version: str
    pid: int
    since: float
    """When it began to listen."""
    listening: list[str]
    """host:port."""
    public_url: str | None
    """How others reach it, where that was given."""
    networks: int
    members: int
    connections: int
    """Members and those that are about to be; this machine's interfaces too."""
    connections_most: int
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    drops: dict[str, int]
    """By reason, as far as something was dropped for it."""
    queued_bytes: int
    """What waits for all."""
    logins: dict[str, int]
    """How log-ins ended: admitted, or why not."""
    worker_cpu_s: list[float]
    """CPU time of each forwarding thread."""
    cluster: ClusterStatus | None = None
    """Null: the relay is alone."""


@dataclass(slots=True, kw_only=True)
class History:
    """What a relay carried in the last hour, or since its start: each list has a figure for each step of time, the
    oldest first."""

    __pydantic_config__ = DOCUMENTED

    step_s: float
    """How long a step is."""
    until: float
    """When the last one ended."""
    bytes_in_per_s: list[float]
    bytes_out_per_s: list[float]
    packets_in_per_s: list[float]
    packets_out_per_s: list[float]
    drops_per_s: list[float]
    """Packets and messages that were not delivered."""
    members: list[int]
    """At the end of each step."""


@dataclass(slots=True, kw_only=True)
class Kicked:
    """The member whose connection was ended. It may come back."""

    __pydantic_config__ = DOCUMENTED

    network: str
    address: str
    relay: str | None = None
    """Where it was; null: there is one relay alone."""


@dataclass(slots=True, kw_only=True)
class Lease:
    """An address that a device has, connected or not."""

    __pydantic_config__ = DOCUMENTED

    network: str
    address: str
    name: str | None
    """As its device last said; not unique."""
    os: str | None
    version: str | None
    vmac: str | None
    first_seen: float
    last_seen: float
    """Of a connected device: now."""
    source: str
    """The IP address that it last came from."""
    packets_in: int
    """Of all its connections, up to the last report; so are the next three."""
    bytes_in: int
    packets_out: int
    bytes_out: int
    connected: bool
    reserved: bool
    """The address is reserved for this device."""


@dataclass(slots=True, kw_only=True)
class Reservation:
    """An address that is granted to no other device."""

    __pydantic_config__ = DOCUMENTED

    network: str
    address: str
    device: str
    """A name, a VMAC behind `vmac:`, or a key's fingerprint behind `key:`."""
    configured: bool
    """In the configuration, which no command changes."""


@dataclass(slots=True, kw_only=True)
class Leases:
    """Who has which address for how long, and what is reserved."""

    __pydantic_config__ = DOCUMENTED

    leases: list[Lease]
    reservations: list[Reservation]


@dataclass(slots=True, kw_only=True)
class Reserve:
    """What to reserve."""

    __pydantic_config__ = DOCUMENTED

    address: IPv4Address
    device: str
    """A name, a VMAC behind `vmac:`, or a key's fingerprint behind `key:`."""
    network: str = "/"


@dataclass(slots=True, kw_only=True)
class SetLimits:
    """What a device may carry from now on. Null: as it was; 0: no limit."""

    __pydantic_config__ = DOCUMENTED

    down: int | None = None
    """Bits a second that it is sent."""
    up: int | None = None
    """Bits a second that are read of it."""
    quota: int | None = None
    """Bytes in a month."""
    as_network: bool = False
    """First forget what was set before, so that it is as the network has it."""
    forgive: bool = False
    """It has carried nothing yet in this month."""
    network: str = "/"


@dataclass(slots=True, kw_only=True)
class DeviceLimits:
    """What a device may carry."""

    __pydantic_config__ = DOCUMENTED

    network: str
    address: str
    down: int | None
    """Bits a second that it is sent at most; null: any number."""
    up: int | None
    """And that are read of it."""
    quota: int | None
    """Bytes that it may carry in a month; null: any number."""
    used: int
    """Bytes that it has carried in this month, up to the last report."""
    spent: bool
    """The quota is used up, which is in the rates above."""


@dataclass(slots=True, kw_only=True)
class Released:
    """The address that has neither reservation nor lease any more."""

    __pydantic_config__ = DOCUMENTED

    network: str
    address: str


@dataclass(slots=True, kw_only=True)
class WhyEnd:
    """One end of the way that was asked about."""

    __pydantic_config__ = DOCUMENTED

    network: str
    """The path of its network."""
    address: str
    name: str | None
    """As the device says that has the address, or had it last."""
    through: str | None
    """The member that has the address, or that it lies behind; null: nobody has it."""
    connected: bool
    """That member is there, or it is the relay itself."""
    last_seen: float | None
    """When that member was, if it has a lease; of a connected one: now."""
    heard_s: float | None
    """Seconds since its connection's last byte came, an answer to a ping too."""
    seals: bool
    """It takes what is sealed."""
    requires_sealing: bool
    """It sends and takes nothing in the clear."""
    drops_now: dict[str, int]
    """What was dropped of it, or for it, while the relay looked: by reason."""
    member: MemberDetail | None
    """All that is known of its connection."""


@dataclass(slots=True, kw_only=True)
class Why:
    """Why packets from one address to another arrive, or do not, as far as the relay knows."""

    __pydantic_config__ = DOCUMENTED

    verdict: WhyVerdict
    answer: str
    """The same in words, with what to do."""
    rule: str | None
    """The SD-WAN rule by which the destination is reached."""
    hints: list[str]
    """What was dropped of either since it logged in, to whomever it was."""
    looked_s: float
    """How long the relay looked for `drops_now` and the rates; 0: it did not."""
    source: WhyEnd
    destination: WhyEnd


@dataclass(slots=True, kw_only=True)
class Device:
    """A device that logs in with a key of its own."""

    __pydantic_config__ = DOCUMENTED

    network: str
    number: str
    """A number of the relay's for it, which stays."""
    name: str | None
    """That it was invited by, or gave itself; not unique."""
    fingerprint: str
    """Of its key, for people to compare."""
    standing: Literal["admitted", "waiting", "revoked"]
    """`waiting`: for approval."""
    came_by: str | None
    """The name of the password or invitation by which it came."""
    invited: bool
    """That is an invitation's."""
    since: float
    """When it came first."""
    addresses: str | None
    """CIDR, those that it is bound to."""
    address: str | None
    """Which it has now, or had last and keeps."""
    connected: bool


@dataclass(slots=True, kw_only=True)
class Devices:
    """The devices that log in with keys, of the network that was asked for or of all."""

    __pydantic_config__ = DOCUMENTED

    devices: list[Device]


@dataclass(slots=True, kw_only=True)
class Invite:
    """Whom to invite."""

    __pydantic_config__ = DOCUMENTED

    name: str = ""
    """For the device; empty: its own."""
    address: str | None = None
    """An address, or a network in CIDR, that it is bound to."""
    uses: int = 1
    """Devices."""
    expires_s: float = 3600.0
    """Seconds from now."""
    network: str = "/"


@dataclass(slots=True, kw_only=True)
class Invited:
    """The invitation."""

    __pydantic_config__ = DOCUMENTED

    network: str
    link: str
    """For candy-client join. It is a secret until it is used up."""
    name: str | None
    uses: int
    until: float


@dataclass(slots=True, kw_only=True)
class Revoked:
    """The device that was revoked."""

    __pydantic_config__ = DOCUMENTED

    device: Device
    password_admits: bool
    """Who knows a password comes back with another key."""
    unreached: list[str]
    """Other relays that were not reached: they let it in, or keep it, until they hear of it."""


@dataclass(slots=True, kw_only=True)
class RotatedKey:
    """What a network has from now on."""

    __pydantic_config__ = DOCUMENTED

    network: str
    generation: int
    """Of the relay's key: about the time at which it was made, Unix seconds."""
    url: str
    """Of the network, for members, with its key."""


@dataclass(slots=True, kw_only=True)
class RotatedKeys:
    """The keys that were made."""

    __pydantic_config__ = DOCUMENTED

    keys: list[RotatedKey]


@dataclass(slots=True, kw_only=True)
class Reloaded:
    """What became of settings that were read again."""

    __pydantic_config__ = DOCUMENTED

    applied: list[str]
    """The names of settings that have changed and are in force now."""
    needs_restart: list[str]
    """Of those that have changed, and that only a restart applies."""
    failed: list[str]
    """What went wrong with those that were to be applied, a line each."""


@dataclass(slots=True, kw_only=True)
class Route:
    """A network behind another member that the relay told of."""

    __pydantic_config__ = DOCUMENTED

    destination: str
    """CIDR."""
    next_hop: str
    """The member that it lies behind."""
    state: Literal["installed", "refused"]
    """In the kernel's table of this machine, or not."""
    reason: str | None
    """Why not."""


@dataclass(slots=True, kw_only=True)
class Ended:
    """The last end of a connection, or of an attempt to make one."""

    __pydantic_config__ = DOCUMENTED

    at: float
    reason: str


@dataclass(slots=True, kw_only=True)
class Linked:
    """How another member is reached."""

    __pydantic_config__ = DOCUMENTED

    address: str
    path: Literal["relay", "direct", "peer"]
    """`peer`: by another original client."""
    format: Literal["sealed", "original"] | None
    """Of datagrams on a path that is not the relay's: of a session between members that seal, or of the original's
    clients."""
    endpoint: str | None
    """Where its packets are sent to directly, host:port."""
    round_trip_ms: float | None
    """There and back on a direct path, smoothed."""
    mtu: int | None
    """Bytes of an IP packet that fits on a direct path."""
    since: float | None
    """When that was taken, Unix seconds."""
    by: str | None
    """The member that sends packets on to it."""
    cost_ms: int | None
    """Of that way, as members say: round trips, and what each adds."""
    why: str | None
    """Why there is no direct path: `not tried`, for nothing was sent; `being tried`; `idle`, without packets for a
    minute; `no path found`; `symmetric NAT on both ends`; `no UDP`; `MTU below 1280`; `peer too old`; `switched off` by
    the user, `switched off there` or `switched off for the network`. Of an original client also `no answer`, by the
    relay or on a path that was there; `no password of old clients`; `too many packets` for its format."""


@dataclass(slots=True, kw_only=True)
class MemberStatus(Traffic):
    """A member's own program. What it carried is that of the connection at hand; all zero without one."""

    __pydantic_config__ = DOCUMENTED

    version: str
    pid: int
    interface: str
    state: Literal["connected", "logging in", "waiting", "connecting"]
    """`logging in`: it has a connection; `waiting`: for the next attempt to make one."""
    relay: str
    """The URL of the one in use; before there is one, of the one that it is going to."""
    other_relays: list[str]
    """URLs of those that it goes to when that is lost, its own before those that a relay told."""
    address: str | None
    """With the prefix's length."""
    network: str | None
    """CIDR, of the address."""
    extension: bool | None
    """Whether candy.2 or candy.3 was agreed on; null without a connection."""
    log_in: Literal["hash", "password", "invitation", "device"] | None
    """What the connection was logged in by: `hash` is the password as old clients prove it, the others are those of
    candy.3; null without a connection."""
    network_key: str | None
    """Fingerprint of the network's key; null as long as none is known."""
    device_key: str | None
    """Fingerprint of this device's key; null as long as no relay has asked for one."""
    seal: SealSetting
    """With whom packets are sealed: all who can, all or nobody, nobody."""
    path: Literal["relay"]
    since: float | None
    """When the connection was confirmed."""
    links: list[Linked]
    """How each member is reached with whom packets are exchanged."""
    round_trip_ms: float | None
    """To the relay, by a ping that was sent for this answer."""
    routes: list[Route]
    drops_by_reason: dict[str, int]
    """Of the whole program, since its start."""
    last_end: Ended | None


@dataclass(slots=True, kw_only=True)
class Peer(Linked):
    """Another member, as far as it said something of itself."""

    __pydantic_config__ = DOCUMENTED

    public: str | None
    """Where it can be reached by UDP from outside of its LAN, host:port."""
    lan: str | None
    """And from within."""
    asks: bool
    """It looked for others to link with."""
    sealing: SealedOrNot | None
    """What becomes of packets for it: `sealed`; `clear`; `waiting` for a session; or dropped, because nobody is there,
    its key is not the one that it had, or it does not seal, which this member asks for. Null: none was sent yet."""
    key: str | None
    """Fingerprint of its device's key, if it seals."""


@dataclass(slots=True, kw_only=True)
class Peers:
    """The other members that this one knows of."""

    __pydantic_config__ = DOCUMENTED

    members: list[Peer]


@dataclass(slots=True, kw_only=True)
class Forgotten:
    """The member whose new key is believed."""

    __pydantic_config__ = DOCUMENTED

    address: str
