"""Leases of one network: which device has which address, for weeks, and what is known of the device.

    claim ──▶ connected ──left──▶ idle ──── unseen for `days` ────▶ ended
                  ▲                │
                  └──────claim─────┘  by the same VMAC; by another device: ended

Rules:
 1. A device is a VMAC with an address, because several clients of one host share a VMAC. An address has one lease at
    most, a VMAC any number. Without a VMAC there is none. One that logs in by a key of its own has that key, 32 bytes,
    in place of the VMAC.
 2. A lease ends when its device was not seen for `days`, when another device claims the address (the pool and the
    network decide who may), or by command. While its device is connected it is seen.
 3. At `limit` leases the device that was seen longest ago is forgotten, and of one VMAC, at LEASES_PER_VMAC, the one
    that was claimed longest ago. A device that comes while all of them are connected gets none.
 4. What changes is noted for the store (candy.relay.store), which may be long behind: `changes` gives each address
    once, and `restore` takes back what was kept.

This module reads no clock: `wall`, Unix seconds, is set by the network with each event. Addresses are integers, as in
candy.relay.pool.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from typing import NamedTuple, Self

from candy.protocol.hello import Hello
from candy.protocol.keys import fingerprint
from candy.protocol.noise import KEY_BYTES
from candy.relay.limits import NO_OWN, OwnLimits, month_of

LEASE_DAYS = 30
LEASE_LIMIT = 65536
"""Leases of a network."""
LEASES_PER_VMAC = 64
"""Clients of one host; more only cost time to look through."""
DAY_S = 86400
CHANGES_MOST = 1000
"""Leases that are copied for the store at once: those of ten thousand members take megabytes."""
NUMBER_BYTES = 8
"""Random, so that a relay that lost its leases gives none a second time."""
SEEN_S = 3600
"""How old what is kept of a connected device's last sight may be."""


class Traffic(NamedTuple):
    """What a device sent (`in`) and was sent (`out`), as the engine counts it."""

    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0

    def plus(self, more: Self, less: Self) -> "Traffic":
        """This, and `more` without `less`."""
        return Traffic(*(a + b - c for a, b, c in zip(self, more, less, strict=True)))

    def packed(self) -> bytes:
        """In a third of the room, to be kept for each of many."""
        return _PACKED.pack(*self)

    @classmethod
    def unpacked(cls, packed: bytes) -> Self:
        """Of packed()."""
        return cls(*_PACKED.unpack(packed))


_PACKED = struct.Struct("=4Q")
NO_TRAFFIC = Traffic()
NO_TRAFFIC_PACKED = NO_TRAFFIC.packed()
NO_HELLO = Hello()


AS_NETWORK = -1
"""Of a limit that a device has as all have it."""


class LeaseRow(NamedTuple):
    """A lease as the store keeps it, in the order of its columns."""

    ip: int
    vmac: bytes
    name: str
    os: str
    version: str
    first_seen: int
    last_seen: int
    source: str
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    number: bytes = b""
    month: int = 0
    used: int = 0
    limit_down: int = AS_NETWORK
    limit_up: int = AS_NETWORK
    quota: int = AS_NETWORK

    @property
    def own(self) -> OwnLimits:
        """The last three."""
        return OwnLimits(*(None if limit == AS_NETWORK else limit for limit in self[-3:]))


@dataclass(slots=True, eq=False)
class Lease:
    """One lease. Small, because there is one per member. Changed by Leases alone."""

    ip: int
    vmac: bytes
    hello: Hello
    first_seen: int
    last_seen: int
    """Unix seconds; of a connected device this is what the store has."""
    source: str
    """Where it last came from."""
    carried: bytes = NO_TRAFFIC_PACKED
    """`traffic`, packed."""
    is_connected: bool = True
    older: "Lease | None" = None
    """Of the same VMAC, the one that was claimed before this one."""
    number: bytes = b""
    """As members with candy.3 know it, of 8 bytes; empty as long as none was told."""
    month: int = 0
    """By candy.relay.limits.month_of()."""
    used: int = 0
    """Bytes that it has carried in that month."""
    own: OwnLimits = NO_OWN
    """What it may carry, by command."""

    @property
    def traffic(self) -> Traffic:
        """Of all its connections; of the one that there is up to the last report."""
        return Traffic.unpacked(self.carried)

    @property
    def device(self) -> str:
        """As the log names it."""
        return f"{self.hello.name!r}" if self.hello.name else f"the {identity(self.vmac)} {shown_vmac(self.vmac)}"

    def used_in(self, month: int) -> int:
        """Bytes that it has carried in a month, up to the last report."""
        return self.used if self.month == month else 0

    def row(self) -> LeaseRow:
        hello = self.hello
        seen = (self.first_seen, self.last_seen, self.source)
        down, up, quota = (AS_NETWORK if limit is None else limit for limit in self.own)
        return LeaseRow(
            self.ip,
            self.vmac,
            hello.name,
            hello.os,
            hello.version,
            *seen,
            *self.traffic,
            self.number,
            self.month,
            self.used,
            down,
            up,
            quota,
        )


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """A lease for who asks."""

    address: IPv4Address
    vmac: bytes
    name: str
    """At most 63 printable characters, as the device says; perhaps empty, and not unique."""
    os: str
    version: str
    first_seen: int
    last_seen: int
    """Unix seconds; of a connected device: now."""
    source: str
    """The IP address that it last came from."""
    traffic: Traffic
    """Of all its connections, up to the last report."""
    is_connected: bool
    is_reserved: bool
    """The address is reserved for this device."""
    used: int = 0
    """Bytes that it has carried in this month, up to the last report."""
    own: OwnLimits = NO_OWN
    """What it may carry, by command."""


def fresh_number(draw: Callable[[int], bytes]) -> bytes:
    """For a lease: of this device's having this address, of no other before or after it, and not 0."""
    drawn = int.from_bytes(draw(NUMBER_BYTES), "big")
    return (1 + drawn % ((1 << 8 * NUMBER_BYTES) - 1)).to_bytes(NUMBER_BYTES, "big")


def identity(vmac: bytes) -> str:
    """What stands for a device (rule 1), in a word."""
    return "key" if len(vmac) == KEY_BYTES else "VMAC"


@lru_cache(1024)
def shown_vmac(vmac: bytes) -> str:
    """As text; what is not printable ASCII is escaped. Of a key its fingerprint."""
    if len(vmac) == KEY_BYTES:
        return fingerprint(vmac)
    return vmac.decode("latin-1").encode("unicode_escape").decode("ascii")


class Leases:
    """See the rules above. `days` 0: for ever."""

    def __init__(self, days: int = LEASE_DAYS, limit: int = LEASE_LIMIT) -> None:
        self.days = days
        self.wall = 0
        self._limit = limit
        self._by_ip: dict[int, Lease] = {}
        self._by_vmac: dict[bytes, Lease] = {}
        """The one that was claimed last, with those before it behind it."""
        self._idle: dict[int, Lease] = {}
        """Of devices that are not connected; the one that was seen longest ago stands first."""
        self._expired = 0
        """When it was looked whose time is over."""
        self._changed: dict[int, None] = {}
        """Not a set, which takes several times the room."""
        self.has_lost_count = False
        """More ended than changes() can tell: see rows()."""
        self._watchers: list[Callable[[int], None]] = []

    def __len__(self) -> int:
        return len(self._by_ip)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._by_ip.values())

    def watch(self, watch: Callable[[int], None]) -> None:
        """Have this called, too, with each address whose lease begins or ends."""
        self._watchers.append(watch)

    def get(self, ip: int) -> Lease | None:
        return self._by_ip.get(ip)

    def of(self, vmac: bytes | None) -> Iterator[Lease]:
        """The leases of a VMAC; the one that was claimed last comes first."""
        lease = self._by_vmac.get(vmac) if vmac is not None else None
        while lease is not None:
            yield lease
            lease = lease.older

    def hello_of(self, vmac: bytes | None) -> Hello:
        """What the VMAC's devices last said of themselves."""
        return next((lease.hello for lease in self.of(vmac)), NO_HELLO)

    def idle(self) -> Iterable[Lease]:
        """Those of devices that are not connected; the one that was seen longest ago comes first."""
        return self._idle.values()

    def claim(self, ip: int, vmac: bytes | None, source: str) -> Lease | None:
        """A device connected at this address. Its lease, if it gets one (rules 1 and 3)."""
        lease = self._by_ip.get(ip)
        if lease is not None and lease.vmac != vmac:
            self.end(ip)
            lease = None
        if vmac is None:
            return None
        if lease is None:
            if not self._make_room(vmac):
                return None
            lease = Lease(ip, vmac, self.hello_of(vmac), self.wall, self.wall, source)
            self._add(lease)
        if self._by_vmac[vmac] is not lease:
            self._unlink(lease)
            self._link(lease)
        self._idle.pop(ip, None)
        lease.is_connected = True
        lease.source = source
        self._see(lease)
        return lease

    def left(self, ip: int) -> None:
        """The device at this address is not connected any more."""
        lease = self._by_ip.get(ip)
        if lease is None or not lease.is_connected:
            return
        lease.is_connected = False
        self._idle[ip] = lease
        self._see(lease)

    def end(self, ip: int) -> None:
        """End the lease of an address, if there is one."""
        lease = self._by_ip.pop(ip, None)
        if lease is None:
            return
        self._idle.pop(ip, None)
        self._unlink(lease)
        self._change(ip)
        self._tell_watchers(ip)

    def expire(self) -> None:
        """End the leases of devices that were not seen for too long."""
        # Once a second: to find the first of a dict takes time when many before it are gone.
        if self.wall == self._expired:
            return
        self._expired = self.wall
        while self.days and self._idle:
            earliest = next(iter(self._idle.values()))
            if earliest.last_seen + self.days * DAY_S >= self.wall:
                return
            self.end(earliest.ip)

    def tell(self, lease: Lease, hello: Hello) -> Hello:
        """Its device said this of itself; the same, which is in memory once."""
        if lease.hello != hello:
            lease.hello = hello
            self._note(lease)
        return lease.hello

    def number(self, lease: Lease, fresh: bytes) -> bytes:
        """Its number; if it has none yet, this one becomes it (fresh_number())."""
        if not lease.number:
            lease.number = fresh
            self._note(lease)
        return lease.number

    def carry(self, lease: Lease, now: Traffic, before: Traffic) -> None:
        """One of its device's connections has carried `now` in all, `before` of which was reported."""
        if now != before:
            lease.carried = lease.traffic.plus(now, before).packed()
            month = month_of(self.wall)
            more = now.bytes_in + now.bytes_out - before.bytes_in - before.bytes_out
            lease.month, lease.used = month, lease.used_in(month) + more
            self._note(lease)
        if lease.is_connected and self.wall - lease.last_seen >= SEEN_S:
            self._see(lease)

    def limit(self, lease: Lease, own: OwnLimits, *, is_forgiven: bool = False) -> None:
        """Its device may carry so much from now on; forgiven: and has carried nothing yet in this month."""
        lease.own = NO_OWN if own == NO_OWN else own
        if is_forgiven:
            lease.used = 0
        self._note(lease)

    def changes(self) -> dict[int, LeaseRow | None]:
        """What is new since it was told last, by address; None: the lease ended. CHANGES_MOST at once: call it until
        nothing is left."""
        changed = [self._changed.popitem()[0] for _ in range(min(len(self._changed), CHANGES_MOST))]
        if not self._changed:
            # An empty one keeps the room that it had.
            self._changed = {}
        return {ip: lease.row() if (lease := self._by_ip.get(ip)) is not None else None for ip in changed}

    def rows(self) -> dict[int, LeaseRow | None]:
        """Everything, in the form of changes() and instead of it."""
        self._changed = {}
        self.has_lost_count = False
        return {ip: lease.row() for ip, lease in self._by_ip.items()}

    def restore(self, rows: Iterable[LeaseRow]) -> None:
        """Take back leases that were kept, if possible in the order in which they were seen. What has happened since
        counts more."""
        for row in rows:
            if row.ip in self._by_ip:
                continue
            hello = Hello(row.os, row.version, row.name)
            traffic = Traffic(row.packets_in, row.bytes_in, row.packets_out, row.bytes_out)
            carried = traffic.packed() if traffic != NO_TRAFFIC else NO_TRAFFIC_PACKED
            seen = (row.first_seen, row.last_seen, row.source)
            lease = Lease(row.ip, row.vmac, hello, *seen, carried, is_connected=False, number=row.number)
            lease.month, lease.used, own = row.month, row.used, row.own
            lease.own = NO_OWN if own == NO_OWN else own
            self._add(lease)
            self._idle[row.ip] = lease
        order = [lease.last_seen for lease in self._idle.values()]
        if order != sorted(order):
            self._idle = dict(sorted(self._idle.items(), key=lambda item: item[1].last_seen))
        while len(self._by_ip) > self._limit and self._end_idle():
            pass
        self.expire()

    def learn(self, row: LeaseRow) -> None:
        """Another relay says who has an address, and when it was seen there."""
        lease = self._by_ip.get(row.ip)
        if lease is None or lease.vmac != row.vmac:
            self.end(row.ip)
            if not self._make_room(row.vmac):
                return
            hello = Hello(row.os, row.version, row.name)
            lease = Lease(row.ip, row.vmac, hello, row.first_seen, row.last_seen, row.source, is_connected=False)
            self._add(lease)
            self._idle[row.ip] = lease
        lease.number = row.number or lease.number
        if not lease.is_connected and row.last_seen > lease.last_seen:
            lease.last_seen, lease.source = row.last_seen, row.source
            self._idle[row.ip] = self._idle.pop(row.ip)
        self._note(lease)

    def _add(self, lease: Lease) -> None:
        self._by_ip[lease.ip] = lease
        self._link(lease)
        self._tell_watchers(lease.ip)

    def _tell_watchers(self, ip: int) -> None:
        for watch in self._watchers:
            watch(ip)

    def _link(self, lease: Lease) -> None:
        lease.older = self._by_vmac.get(lease.vmac)
        self._by_vmac[lease.vmac] = lease

    def _unlink(self, lease: Lease) -> None:
        rest = [other for other in self.of(lease.vmac) if other is not lease]
        del self._by_vmac[lease.vmac]
        for other in reversed(rest):
            self._link(other)

    def _make_room(self, vmac: bytes) -> bool:
        """For another lease of this VMAC, by rule 3; False: all are connected."""
        own = list(self.of(vmac))
        if len(own) >= LEASES_PER_VMAC:
            gone = next((lease for lease in reversed(own) if not lease.is_connected), None)
            if gone is None:
                return False
            self.end(gone.ip)
        return len(self._by_ip) < self._limit or self._end_idle()

    def _end_idle(self) -> bool:
        """End the lease of the device that was seen longest ago; False: all are connected."""
        if not self._idle:
            return False
        self.end(next(iter(self._idle)))
        return True

    def _see(self, lease: Lease) -> None:
        lease.last_seen = self.wall
        self._note(lease)

    def _note(self, lease: Lease) -> None:
        # Another device may have the address by now.
        if self._by_ip.get(lease.ip) is lease:
            self._change(lease.ip)

    def _change(self, ip: int) -> None:
        self._changed[ip] = None
        if len(self._changed) > 2 * self._limit:
            self._changed = {}
            self.has_lost_count = True
