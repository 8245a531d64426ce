"""What a network remembers, for who asks and for the store: leases, reservations, devices with keys, log-ins that
came before.

    leases(), reservations(), find(), reserve(), release() ◀── commands
    changes() ──▶ Kept ──▶ candy.relay.store ──▶ Kept ──▶ restore()

Rule: `Kept` is a copy, so that another thread may write it while the network goes on.

Who is connected, and what follows for members from a change, the network knows (candy.relay.network).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from candy.errors import RequestError
from candy.protocol.addresses import is_unicast
from candy.relay.enrolment import Device, Invitation
from candy.relay.leases import Lease, LeaseRow, LeaseStatus
from candy.relay.limits import OwnLimits, month_of
from candy.relay.realm import Realm
from candy.relay.reservations import Reservation, is_meant


@dataclass(slots=True)
class Kept:
    """What the store has of a network, or what is new for it."""

    leases: dict[int, LeaseRow | None] = field(default_factory=dict)
    """By address; None: it ended."""
    reservations: dict[int, Reservation | None] = field(default_factory=dict)
    """Those by command, by address; None: released."""
    digests: list[tuple[int, bytes]] = field(default_factory=list)
    """Timestamp and digest of each AUTH that was let in."""
    earliest: int = 0
    """Digests of earlier timestamps need not be kept any longer."""
    forgotten: int = 0
    """See ReplayMemory."""
    is_whole: bool = False
    """Whatever else the store has of this network is wrong."""
    devices: dict[bytes, Device | None] = field(default_factory=dict)
    """Those with keys, by key; None: it is forgotten."""
    invitations: dict[bytes, Invitation | None] = field(default_factory=dict)
    """By selector; None: it ended."""

    def __bool__(self) -> bool:
        return self.is_whole or bool(
            self.leases or self.reservations or self.devices or self.invitations or self.digests
        )


class Register:
    """See above. Every method is pure, and none takes longer than its answer."""

    def __init__(self, realm: Realm) -> None:
        self._realm = realm
        self._pool = realm.pool
        self._replays = realm.replays

    def leases(self, wall: int) -> Iterator[LeaseStatus]:
        """All leases that there are at the first step, by address; `wall` in Unix seconds."""
        for lease in sorted(self._pool.leases, key=lambda lease: lease.ip):
            yield self._status(lease, wall)

    def reservations(self) -> Iterator[Reservation]:
        """All reserved addresses, in order; `is_configured` tells those of the configuration."""
        return iter(self._pool.reservations)

    def is_configured(self, reservation: Reservation) -> bool:
        """Whether it is the configuration's, which no command changes."""
        return self._pool.reservations.is_configured(int(reservation.address))

    def find(self, device: str) -> IPv4Address:
        """The address of a device with a lease, or else the one that is reserved for it. `device` is a name (in any
        case of letters), `vmac:` and a VMAC, `key:` and a fingerprint, or the address itself, which need not be leased.

        Raises:
            RequestError: there is no such device, or more than one: the text lists their addresses.
        """
        try:
            return IPv4Address(device)
        except ValueError:
            pass
        found = sorted(lease.ip for lease in self._pool.leases if is_meant(device, lease.vmac, lease.hello.name))
        if not found:
            found = [int(one.address) for one in self.reservations() if one.is_written(device)]
        if not found:
            raise RequestError(f"{device!r} is no device that has a lease or a reservation: `leases` lists them")
        if len(found) > 1:
            listed = ", ".join(str(IPv4Address(ip)) for ip in found)
            raise RequestError(f"{device!r} is more than one device: give one of the addresses {listed}")
        return IPv4Address(found[0])

    def reserve(self, reservation: Reservation) -> None:
        """By command; what follows for members is Network.reserve's.

        Raises:
            RequestError: the address is reserved in the configuration, the relay's own, or none that a member can have.
        """
        ip, pool = reservation.address, self._pool
        if not is_unicast(ip) or not (self._realm.allow_outside_pool or pool.contains(ip)):
            raise RequestError(f"{ip} is not a member's address in the pool {pool.network}: choose one that is")
        if self._realm.host is not None and pool.holder(ip) == self._realm.host:
            raise RequestError(f"{ip} is this relay's own: choose another address")
        pool.reserve(reservation)

    def release(self, ip: IPv4Address) -> None:
        """By command: end the reservation of an address and, unless its device is connected, its lease.

        Raises:
            RequestError: there is neither, or the configuration reserves it.
        """
        if not self._pool.give_up(ip):
            is_held = self._pool.holder(ip) is not None or self._pool.is_elsewhere(int(ip))
            why = "its device is connected: kick it first" if is_held else "it is neither reserved nor leased"
            raise RequestError(f"{ip} can't be released: {why}")

    def limit(self, ip: IPv4Address, own: OwnLimits, *, is_forgiven: bool = False) -> None:
        """By command; what follows for members is Network.limit's.

        Raises:
            RequestError: the address has no lease.
        """
        self._pool.leases.limit(self._lease_at(ip), own, is_forgiven=is_forgiven)

    def own_limits(self, ip: IPv4Address) -> OwnLimits:
        """Of the device with the lease of this address.

        Raises:
            RequestError: it has none.
        """
        return self._lease_at(ip).own

    def used(self, ip: IPv4Address, wall: int) -> int:
        """Bytes that its device has carried in this month, at all relays, up to the last report.

        Raises:
            RequestError: it has no lease.
        """
        return self.used_by(self._lease_at(ip), wall)

    def used_by(self, lease: Lease, wall: int) -> int:
        """The same of a lease."""
        return self._realm.used(lease, month_of(wall))

    def _lease_at(self, ip: IPv4Address) -> Lease:
        lease = self._pool.leases.get(int(ip))
        if lease is None:
            raise RequestError(f"{ip} has no lease, by which limits are kept: `leases` lists them")
        return lease

    def set_lease_days(self, days: int) -> None:
        """How long an address is kept for its device from now on; 0: for ever."""
        self._pool.leases.days = days

    def changes(self) -> Kept:
        """What is new since the last call."""
        if self._pool.leases.has_lost_count:
            return self.everything()
        kept = Kept(self._pool.leases.changes(), self._pool.reservations.changes(), self._replays.changes())
        kept.devices, kept.invitations = self._realm.enrolment.changes()
        return self._kept(kept)

    def everything(self) -> Kept:
        """All of it, instead of changes()."""
        leases, reservations = self._pool.leases.rows(), self._pool.reservations.rows()
        kept = Kept(leases, reservations, self._replays.rows(), is_whole=True)
        kept.devices, kept.invitations = self._realm.enrolment.rows()
        return self._kept(kept)

    def restore(self, kept: Kept, wall: int) -> None:
        """Take back what was kept, and empty it, so that it is never in memory twice. What has happened since counts
        more."""
        self._pool.leases.wall = wall
        self._pool.leases.restore(_taken_from(kept.leases))
        self._pool.restore([reservation for reservation in kept.reservations.values() if reservation is not None])
        invitations = [invitation for invitation in kept.invitations.values() if invitation is not None]
        devices = [device for device in kept.devices.values() if device is not None]
        self._realm.enrolment.restore(devices, invitations, wall)
        self._replays.restore(kept.digests, kept.forgotten, wall)

    def _kept(self, kept: Kept) -> Kept:
        kept.earliest = self._replays.earliest
        kept.forgotten = self._replays.forgotten
        return kept

    def _status(self, lease: Lease, wall: int) -> LeaseStatus:
        reservation = self._pool.reservations.get(lease.ip)
        return LeaseStatus(
            IPv4Address(lease.ip),
            lease.vmac,
            lease.hello.name,
            lease.hello.os,
            lease.hello.version,
            lease.first_seen,
            wall if lease.is_connected else lease.last_seen,
            lease.source,
            lease.traffic,
            lease.is_connected,
            reservation is not None and reservation.is_for(lease.vmac, lease.hello.name),
            lease.used_in(month_of(wall)),
            lease.own,
        )


def _taken_from(rows: dict[int, LeaseRow | None]) -> Iterator[LeaseRow]:
    while rows:
        _, row = rows.popitem()
        if row is not None:
            yield row
