"""The pool: which connection holds which address, and which address to grant next.

    ask ──▶ reserved ──claim──▶ claimed
             │                   │
             └─────release───────┴──▶ free (the VMAC remembers what it had claimed)

Rules:
 1. A connection holds at most one address: the one it was granted and has not claimed yet (a reservation), or
    the one it claimed. Asking again, claiming and releasing each give up what it held before.
 2. The address asked for is granted when it is free, or when all who hold or reserved it have the same VMAC:
    one installation came back before its old connection was found dead. Else the one the connection itself held
    until now, else the one this VMAC had last, else the next free one. An address that is only remembered is never
    granted while in use: several clients of one host share a VMAC.
 3. The network and the broadcast address are never granted, nor is one outside the network. They can be
    claimed: whether a member may have them, the session decides.

A reservation ends with `claim` or `release`; its deadline is the network's. This module knows neither sessions nor
passwords; a connection is an opaque number, a VMAC 16 bytes or None.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from candy.errors import ConfigError, PoolFull
from candy.protocol.addresses import NOT_UNICAST

LEASE_LIMIT = 65536
"""VMACs whose last address is remembered; the one that claimed longest ago is forgotten first."""
LONGEST_PREFIX = 30
"""A relay needs two members, and a /31 has none but its network and broadcast address."""


@dataclass(frozen=True, slots=True)
class _Hold:
    ip: int
    connection: int
    vmac: bytes | None


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
        self._by_connection: dict[int, _Hold] = {}
        self._leases: OrderedDict[bytes, int] = OrderedDict()
        self._lease_limit = lease_limit

    def contains(self, ip: IPv4Address) -> bool:
        """Whether the pool could grant `ip`: inside the network, neither its first address nor its last."""
        return 0 <= int(ip) - self._lowest < self._size

    def ask(self, asked: IPv4Address, vmac: bytes | None, connection: int) -> IPv4Interface:
        """Reserve an address for `connection` by rule 2, and return it with the network's prefix.

        Any address outside the pool, such as 0.0.0.0, asks for none in particular. Raises PoolFull when
        none is left.
        """
        if self.network is None:
            raise PoolFull("the network has no address pool: a member needs a fixed address")
        held = self._by_connection.get(connection)
        self.release(connection)
        last = self._leases.get(vmac) if vmac is not None else None
        if self._is_grantable(asked, vmac):
            ip = int(asked)
            older = self._reservations.get(ip)
            if older is not None:
                self.release(older.connection)
        elif held is not None and self._is_free(held.ip):
            ip = held.ip
        elif last is not None and self._is_free(last):
            ip = last
        else:
            ip = self._next_free()
        self._put(self._reservations, _Hold(ip, connection, vmac))
        return IPv4Interface((ip, self.network.prefixlen))

    def claim(self, ip: IPv4Address, vmac: bytes | None, connection: int) -> None:
        """Make `connection` the holder of `ip`, instead of the connection that held or reserved it."""
        self.release(connection)
        for hold in self._holds_on(int(ip)):
            self.release(hold.connection)
        self._put(self._claims, _Hold(int(ip), connection, vmac))
        if vmac is not None:
            self._leases[vmac] = int(ip)
            self._leases.move_to_end(vmac)
            if len(self._leases) > self._lease_limit:
                self._leases.popitem(last=False)

    def release(self, connection: int) -> None:
        """Give up what `connection` holds, if anything."""
        hold = self._by_connection.pop(connection, None)
        if hold is None:
            return
        holds = self._claims if self._claims.get(hold.ip) is hold else self._reservations
        del holds[hold.ip]
        self._free += self._is_free(hold.ip)

    def holder(self, ip: IPv4Address) -> int | None:
        """The connection that claimed `ip`."""
        hold = self._claims.get(int(ip))
        return None if hold is None else hold.connection

    def holders(self) -> Iterable[int]:
        """Every connection that claimed an address."""
        return (hold.connection for hold in self._claims.values())

    def is_reserved_against(self, ip: IPv4Address, vmac: bytes | None, connection: int) -> bool:
        """Whether `ip` was granted to another connection, of another installation, that may yet claim it."""
        hold = self._reservations.get(int(ip))
        return hold is not None and hold.connection != connection and (vmac is None or hold.vmac != vmac)

    def _is_free(self, ip: int) -> bool:
        in_network = 0 <= ip - self._lowest < self._size
        return in_network and ip not in self._claims and ip not in self._reservations

    def _is_grantable(self, ip: IPv4Address, vmac: bytes | None) -> bool:
        holds = self._holds_on(int(ip))
        return self.contains(ip) and all(vmac is not None and hold.vmac == vmac for hold in holds)

    def _holds_on(self, ip: int) -> list[_Hold]:
        return [holds[ip] for holds in (self._claims, self._reservations) if ip in holds]

    def _put(self, holds: dict[int, _Hold], hold: _Hold) -> None:
        self._free -= self._is_free(hold.ip)
        holds[hold.ip] = hold
        self._by_connection[hold.connection] = hold

    def _next_free(self) -> int:
        # A round takes one step per address and grants every free one: O(1) unless nearly all are taken, and
        # when all are, `_free` saves the round.
        for _ in range(self._size if self._free else 0):
            ip = self._lowest + self._cursor
            self._cursor = (self._cursor + 1) % self._size
            if self._is_free(ip):
                return ip
        raise PoolFull(f"the pool {self.network} is full: all {self._size} addresses are in use")


def _check(network: IPv4Network) -> None:
    if network.prefixlen > LONGEST_PREFIX:
        raise ConfigError(f"pool {network} has no room for two members: use /{LONGEST_PREFIX} or a shorter prefix")
    for other in NOT_UNICAST:
        if network.overlaps(other):
            raise ConfigError(f"pool {network} overlaps {other}, where no member can be: use a private network")
