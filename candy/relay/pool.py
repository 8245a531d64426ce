"""The pool: which connection holds which address, and which address to grant next.

    ask ──▶ reserved ──claim──▶ claimed
             │                   │
             └─────release───────┴──▶ free (leased to the VMAC that claimed it last)

Rules:
 1. A connection holds at most one address: the one it was granted and has not claimed yet (a reservation), or
    the one it claimed. Asking again, claiming and releasing each give up what it held before.
 2. An address is leased to the VMAC that claimed it last, until that claims another, or another connection this one.
 3. The address asked for is granted when it is free and leased to nobody else. So is one that is in use by the same
    VMAC alone: one installation came back before its old connection was found dead. Else the one the connection itself
    held until now, else the one leased to this VMAC, else the next free one, if possible one that is leased to nobody.
    An address that is only remembered is never granted while in use: several clients of one host share a VMAC.
 4. A lease comes before any reservation: who has the lease is granted the address, and may claim it, although it is
    reserved for another. EXPTTUN can be sniffed and sent again with any address in it.
 5. A source has few reservations, and each is short. Beyond that an address is granted without being reserved, and the
    next one who asks for any is granted the next one. Two that ask for this very one are then a matter of who claims it
    first.
 6. The network and the broadcast address are never granted, nor is one outside the network. They can be
    claimed: whether a member may have them, the session decides.

A reservation ends with `claim`, `release` or after RESERVATION_S. This module knows neither sessions nor
passwords; a connection is an opaque number, a VMAC 16 bytes or None, a source as by source_of(), and `now` in seconds
of a monotonic clock.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from math import inf

from candy.errors import ConfigError, PoolFull
from candy.protocol.addresses import NOT_UNICAST

LEASE_LIMIT = 65536
"""VMACs whose last address is remembered; the one that claimed longest ago is forgotten first."""
RESERVATION_S = 5.0
"""How long a granted address is kept for its connection: a few round trips of the slowest line."""
RESERVATIONS_PER_SOURCE = 4
LEASED_PASSED = 1024
"""Addresses that a search goes on by after it has found a free one that is leased to somebody."""
LONGEST_PREFIX = 30
"""A relay needs two members, and a /31 has none but its network and broadcast address."""


@dataclass(frozen=True, slots=True)
class _Hold:
    ip: int
    connection: int
    vmac: bytes | None
    source: str | None = None
    until: float = inf
    """Of a reservation."""


class Pool:
    """The addresses of one network. Without a network nothing can be granted, and any address be claimed.

    Addresses are kept as integers inside, because hashing an IPv4Address is Python code.
    """

    def __init__(
        self, network: IPv4Network | None, *, first: IPv4Address | None = None, lease_limit: int = LEASE_LIMIT
    ) -> None:
        """`first` is granted first (default: the network's lowest), then those after it, round and round.

        Raises ConfigError for a network without room for two members or with addresses that no member can
        have.
        """
        self.network = network
        self._lowest = 0
        self._size = 0
        if network is not None:
            _check(network)
            self._lowest = int(network.network_address) + 1
            self._size = network.num_addresses - 2
        self._cursor = 0
        if first is not None:
            if not self.contains(first):
                raise ConfigError(f"the first address {first} is not a member's in the pool {network}")
            self._cursor = int(first) - self._lowest
        self._free = self._size
        self._claims: dict[int, _Hold] = {}
        self._reservations: dict[int, _Hold] = {}
        """By address, in the order in which they end."""
        self._by_connection: dict[int, _Hold] = {}
        self._by_source: Counter[str | None] = Counter()
        """How many of the reservations each source has."""
        self._leases: OrderedDict[bytes, int] = OrderedDict()
        self._lessees: dict[int, bytes] = {}
        """The same by address."""
        self._lease_limit = lease_limit

    def contains(self, ip: IPv4Address) -> bool:
        """Whether the pool could grant `ip`: inside the network, neither its first address nor its last."""
        return self._is_ours(int(ip))

    def ask(
        self,
        asked: IPv4Address,
        vmac: bytes | None,
        connection: int,
        source: str,
        now: float,
        *,
        may_reserve: bool = True,
    ) -> IPv4Interface:
        """Grant an address to `connection` by rule 3, and return it with the network's prefix.

        Any address outside the pool, such as 0.0.0.0, asks for none in particular. The address is reserved if
        the source has a reservation left and `may_reserve`. Raises PoolFull when none is left.
        """
        if self.network is None:
            raise PoolFull("the network has no address pool: a member needs a fixed address")
        self._end_reservations(now)
        held = self._by_connection.get(connection)
        self.release(connection)
        leased = self._leases.get(vmac) if vmac is not None else None
        if self._is_grantable(int(asked), vmac):
            ip = int(asked)
        elif held is not None and self._is_free(held.ip):
            ip = held.ip
        elif leased is not None and self._is_available(leased):
            ip = leased
        else:
            ip = self._next_free()
        older = self._reservations.get(ip)
        is_left = self._by_source[source] < RESERVATIONS_PER_SOURCE or (older is not None and older.source == source)
        if may_reserve and is_left:
            if older is not None:
                self.release(older.connection)
            self._put(self._reservations, _Hold(ip, connection, vmac, source, now + RESERVATION_S))
            self._by_source[source] += 1
        return IPv4Interface((ip, self.network.prefixlen))

    def claim(self, ip: IPv4Address, vmac: bytes | None, connection: int) -> None:
        """Make `connection` the holder of `ip`, instead of the connection that held or reserved it."""
        self.release(connection)
        for holds in (self._claims, self._reservations):
            if int(ip) in holds:
                self.release(holds[int(ip)].connection)
        self._put(self._claims, _Hold(int(ip), connection, vmac))
        self._end_lease(self._lessees.get(int(ip)))
        if vmac is not None:
            self._end_lease(vmac)
            self._leases[vmac] = int(ip)
            self._lessees[int(ip)] = vmac
            if len(self._leases) > self._lease_limit:
                self._end_lease(next(iter(self._leases)))

    def release(self, connection: int) -> None:
        """Give up what `connection` holds, if anything."""
        hold = self._by_connection.pop(connection, None)
        if hold is None:
            return
        if self._claims.get(hold.ip) is hold:
            del self._claims[hold.ip]
        else:
            del self._reservations[hold.ip]
            self._by_source[hold.source] -= 1
            if not self._by_source[hold.source]:
                del self._by_source[hold.source]
        self._free += self._is_free(hold.ip)

    def holder(self, ip: IPv4Address) -> int | None:
        """The connection that claimed `ip`."""
        hold = self._claims.get(int(ip))
        return None if hold is None else hold.connection

    def holders(self) -> Iterable[int]:
        """Every connection that claimed an address."""
        return (hold.connection for hold in self._claims.values())

    def is_reserved_against(self, ip: IPv4Address, vmac: bytes | None, connection: int, now: float) -> bool:
        """Whether `ip` was granted to another connection, of another installation, that may yet claim it, and is not
        leased to this one."""
        self._end_reservations(now)
        hold = self._reservations.get(int(ip))
        if hold is None or hold.connection == connection:
            return False
        return vmac is None or vmac not in (hold.vmac, self._lessees.get(int(ip)))

    def _is_ours(self, ip: int) -> bool:
        return 0 <= ip - self._lowest < self._size

    def _is_free(self, ip: int) -> bool:
        return self._is_ours(ip) and ip not in self._claims and ip not in self._reservations

    def _is_grantable(self, ip: int, vmac: bytes | None) -> bool:
        """Whether it is granted to one who asks for this very address."""
        lessee = self._lessees.get(ip)
        if not self._is_ours(ip) or lessee not in (None, vmac):
            return False
        # Rule 4: a reservation is nothing to the lessee.
        against = [self._claims] if lessee is not None else [self._claims, self._reservations]
        return all(vmac is not None and holds[ip].vmac == vmac for holds in against if ip in holds)

    def _is_available(self, ip: int) -> bool:
        """Whether a leased address is granted to its lessee who asks for any."""
        reservation = self._reservations.get(ip)
        is_coming = reservation is not None and reservation.vmac == self._lessees[ip]
        return self._is_ours(ip) and ip not in self._claims and not is_coming

    def _put(self, holds: dict[int, _Hold], hold: _Hold) -> None:
        self._free -= self._is_free(hold.ip)
        holds[hold.ip] = hold
        self._by_connection[hold.connection] = hold

    def _end_reservations(self, now: float) -> None:
        while self._reservations:
            earliest = next(iter(self._reservations.values()))
            if earliest.until > now:
                return
            self.release(earliest.connection)

    def _end_lease(self, vmac: bytes | None) -> None:
        if vmac is not None and vmac in self._leases:
            del self._lessees[self._leases.pop(vmac)]

    def _next_free(self) -> int:
        # A round takes one step per address and grants every free one: O(1) unless nearly all are taken, and
        # when all are, `_free` saves the round.
        leased: int | None = None
        for step in range(self._size if self._free else 0):
            ip = self._lowest + (self._cursor + step) % self._size
            if self._is_free(ip):
                if ip not in self._lessees:
                    return self._turn_to(ip)
                leased = ip if leased is None else leased
            if leased is not None and step >= LEASED_PASSED:
                break
        if leased is None:
            raise PoolFull(f"the pool {self.network} is full: all {self._size} addresses are in use")
        return self._turn_to(leased)

    def _turn_to(self, ip: int) -> int:
        """The next turn begins behind it."""
        self._cursor = (ip - self._lowest + 1) % self._size
        return ip


def _check(network: IPv4Network) -> None:
    if network.prefixlen > LONGEST_PREFIX:
        raise ConfigError(f"pool {network} has no room for two members: use /{LONGEST_PREFIX} or a shorter prefix")
    for other in NOT_UNICAST:
        if network.overlaps(other):
            raise ConfigError(f"pool {network} overlaps {other}, where no member can be: use a private network")
