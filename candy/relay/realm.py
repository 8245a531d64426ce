"""What the sessions of one network share, and their network with them. Nothing happens here."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from candy.protocol.login import Tells
from candy.relay.devices import Devices
from candy.relay.enrolment import Enrolment
from candy.relay.guessing import FailureLimiter
from candy.relay.leases import Lease
from candy.relay.limits import Limits
from candy.relay.passwords import Circles, Passwords
from candy.relay.pool import Pool
from candy.relay.recording import Sharing, Wanted
from candy.relay.replays import ReplayMemory, Sightings
from candy.relay.rules import Rules
from candy.sealing.joined import Own


@dataclass(slots=True, kw_only=True)
class Realm:
    """What the sessions of one network share: its passwords, its settings and what it knows of all of them."""

    passwords: Passwords
    pool: Pool
    replays: ReplayMemory
    sightings: Sightings
    devices: Devices
    enrolment: Enrolment
    failures: FailureLimiter
    randbytes: Callable[[int], bytes]
    tolerance: int
    allow_outside_pool: bool
    forward_broadcast: bool
    rules: Rules
    tells: Tells
    """Flags of every answer to a log-in with a key."""
    host: int | None = None
    """The number of the relay's own interface in the network, which holds an address but has no session."""
    own: Own | None = None
    """How that interface seals; None: it does not."""
    limits: Limits = field(default_factory=Limits)
    """Of each member, as far as its device has none of its own."""
    shared: Sharing | None = None
    """With other relays; None: there are none."""
    circles: Circles = field(default_factory=Circles)
    circle_of: Callable[[int], int] = lambda connection: 0
    """The circle of the member with this connection."""
    logins: Counter[str] = field(default_factory=Counter)
    """How log-ins ended: ADMITTED, or why not."""

    def used(self, lease: Lease, month: int) -> int:
        """Bytes that a device has carried in a month, at all relays, up to their last reports."""
        elsewhere = 0 if self.shared is None else self.shared.used_elsewhere(lease.ip, lease.vmac, month)
        return lease.used_in(month) + elsewhere

    def address_wanted(self, ip: int, holder: bytes | None) -> Wanted | None:
        """What other relays have to agree on before a device gets an address that is its own to have here; None:
        nothing."""
        if self.shared is None or holder is None or self.shared.is_settled(ip, holder):
            return None
        lease = self.pool.leases.get(ip)
        before = lease.vmac if lease is not None and lease.vmac != holder else b""
        return Wanted(ip, holder, before)
