"""The pool: which connection holds which address, and which address to grant next.

    ask ──▶ offered ──claim──▶ claimed
             │                   │
             └─────release───────┴──▶ free (leased to the device that claimed it last)

Rules:
 1. A connection holds at most one address: the one it was offered and has not claimed yet, or the one it claimed.
    Asking again, claiming and releasing each give up what it held before.
 2. Who claims an address has its lease from then on (candy.relay.leases). An address may be reserved
    (candy.relay.reservations): it is granted to nobody else. What is leased to a device with a key another one may
    claim only when it was granted it (3f), or when the address is reserved for others than that device.
 3. What is granted is the first of these that can be:
     a. an address that is reserved for this device,
     b. the one asked for, when it is free and leased to nobody else. So is one that is in use by the same VMAC alone,
        which has its lease: one installation came back before its old connection was found dead,
     c. the one the connection itself held until now,
     d. one leased to this VMAC, the one that it claimed last first,
     e. the next free one that is leased to nobody,
     f. of the free ones the one whose device was seen longest ago.
    One of a or d is never granted while in use: several clients of one host share a VMAC.
 4. A lease comes before any offer: who has the lease is granted the address, and may claim it, although it was offered
    to another. EXPTTUN can be sniffed and sent again with any address in it.
 5. A source has few offers, and each is short. Beyond that an address is granted without being kept, and the next one
    who asks for any is granted the next one. Two that ask for this very one are then a matter of who claims it first.
 6. The network and the broadcast address are never granted, nor is one outside the network. They can be
    claimed: whether a member may have them, the session decides.

An offer ends with `claim`, `release` or after OFFER_S. This module knows neither sessions nor passwords; a connection
is an opaque number, a VMAC 16 bytes or None, or in its place a device's key of 32, a source as by source_of(), and
`now` in seconds of a monotonic clock.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from candy.errors import ConfigError, PoolFull
from candy.protocol.addresses import NOT_UNICAST, ipv4
from candy.protocol.noise import KEY_BYTES
from candy.relay.leases import NO_HELLO, Lease, Leases
from candy.relay.reservations import Reservation, Reservations

OFFER_S = 5.0
"""How long a granted address is kept for its connection: a few round trips of the slowest line."""
OFFERS_PER_SOURCE = 4
LONGEST_PREFIX = 30
"""A relay needs two members, and a /31 has none but its network and broadcast address."""


@dataclass(frozen=True, slots=True)
class _Offer:
    ip: int
    connection: int
    vmac: bytes | None
    source: str
    until: float


class Pool:
    """The addresses of one network. Without a network nothing can be granted, and any address be claimed.

    Addresses are kept as integers inside, because hashing an IPv4Address is Python code. There is a claim for each
    member, so of claims no more is kept than their numbers.
    """

    def __init__(
        self, network: IPv4Network | None, *, first: IPv4Address | None = None, leases: Leases | None = None
    ) -> None:
        """`first` is granted first (default: the network's lowest), then those after it, round and round.

        Raises ConfigError for a network without room for two members or with addresses that no member can
        have.
        """
        self.network = network
        self.leases = leases if leases is not None else Leases()
        self.leases.watch(self._note)
        self.reservations = Reservations()
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
        self._taken: dict[int, None] = {}
        """Those of the pool's addresses that are held, leased or reserved. All others can be granted. Not a set, which
        takes nearly twice the room."""
        self.is_revoked: Callable[[bytes], bool] = lambda key: False
        """Whether the device with this key was revoked: its lease keeps nobody out."""
        self.is_elsewhere: Callable[[int], bool] = lambda ip: False
        """Whether a member of another relay's has the address."""
        self._claims: dict[int, int] = {}
        """Connections by address."""
        self._claimed: dict[int, int] = {}
        """Addresses by connection."""
        self._offers: dict[int, _Offer] = {}
        """By address, in the order in which they end."""
        self._offered: dict[int, _Offer] = {}
        """By connection."""
        self._by_source: Counter[str] = Counter()
        """How many of the offers each source has."""

    def enlarge(self, network: IPv4Network) -> None:
        """Grant addresses of this network, of which the one before is a part. Holds and leases stay.

        Raises:
            ConfigError: as for a new pool, or the network before is not a part of it.
        """
        if self.network is None or not self.network.subnet_of(network):
            raise ConfigError(f"pool {network} has not all of {self.network} in it")
        _check(network)
        lowest = int(network.network_address) + 1
        self._cursor += self._lowest - lowest
        self.network, self._lowest, self._size = network, lowest, network.num_addresses - 2
        # What was held, leased or reserved outside of the smaller network may be inside.
        self._free = self._size - sum(self._is_ours(ip) for ip in self._claims.keys() | self._offers.keys())
        for ip in (*self._claims, *self._offers):
            self._note(ip)
        for lease in self.leases:
            self._note(lease.ip)
        for reservation in self.reservations:
            self._note(int(reservation.address))

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
        may_keep: bool = True,
        within: IPv4Network | None = None,
    ) -> IPv4Interface:
        """Grant an address to `connection` by rule 3, and return it with the network's prefix; `within` bounds it.

        Any address outside the pool, such as 0.0.0.0, asks for none in particular. The address is kept as an offer if
        the source has one left and `may_keep`. Raises PoolFull when none is left.
        """
        if self.network is None:
            raise PoolFull("the network has no address pool: a member needs a fixed address")
        self.leases.expire()
        self._end_offers(now)
        offer = self._offered.get(connection)
        held = offer.ip if offer is not None else self._claimed.get(connection)
        self.release(connection)
        ip = self._choose(int(asked), vmac, held, within)
        if may_keep:
            self._offer(ip, vmac, connection, source, now)
        return IPv4Interface((ip, self.network.prefixlen))

    def keep(self, ip: IPv4Address, vmac: bytes | None, connection: int, source: str, now: float) -> None:
        """Keep an address that is about to be claimed as if it had been granted, if nobody else has it."""
        self._end_offers(now)
        self.release(connection)
        if int(ip) not in self._claims and int(ip) not in self._offers:
            self._offer(int(ip), vmac, connection, source, now)

    def claim(self, ip: IPv4Address, vmac: bytes | None, connection: int, source: str = "") -> Lease | None:
        """Make `connection` the holder of `ip`, instead of the connection that held it or had the offer. Its lease, if
        it gets one."""
        number = int(ip)
        self.release(connection)
        if (before := self._claims.get(number)) is not None:
            self.release(before)
        if (offer := self._offers.get(number)) is not None:
            self.release(offer.connection)
        self._free -= self._is_free(number)
        lease = self.leases.claim(number, vmac, source)
        if lease is not None:
            # Equal, and in memory once.
            number = lease.ip
        self._claims[number] = connection
        self._claimed[connection] = number
        self._note(number)
        return lease

    def begin_at(self, share: int) -> None:
        """Grant addresses from another place on: this of 2^64 shares of the pool."""
        if self._size:
            self._cursor = share * self._size >> 64

    def release(self, connection: int) -> None:
        """Give up what `connection` holds, if anything."""
        if (ip := self._claimed.pop(connection, None)) is not None:
            del self._claims[ip]
            self.leases.left(ip)
        elif (offer := self._offered.pop(connection, None)) is not None:
            ip = offer.ip
            del self._offers[ip]
            self._by_source[offer.source] -= 1
            if not self._by_source[offer.source]:
                del self._by_source[offer.source]
        else:
            return
        self._free += self._is_free(ip)
        self._note(ip)

    def holder(self, ip: IPv4Address) -> int | None:
        """The connection that claimed `ip`."""
        return self._claims.get(int(ip))

    def address_of(self, connection: int | None) -> IPv4Address:
        """What a connection holds; 0.0.0.0 for nothing, or no connection."""
        if connection is None:
            return ipv4(0)
        offer = self._offered.get(connection)
        return ipv4(offer.ip if offer is not None else self._claimed.get(connection, 0))

    def holders(self) -> Iterable[int]:
        """Every connection that claimed an address."""
        return self._claims.values()

    @property
    def used(self) -> int:
        """How many of its addresses are held, leased or reserved."""
        return len(self._taken)

    @property
    def free(self) -> int:
        """How many addresses nobody has."""
        return self._size - len(self._taken)

    def is_offered_to_another(self, ip: IPv4Address, vmac: bytes | None, connection: int, now: float) -> bool:
        """Whether `ip` was granted to another connection, of another installation, that may yet claim it, and is not
        leased to this one."""
        self._end_offers(now)
        offer = self._offers.get(int(ip))
        if offer is None or offer.connection == connection:
            return False
        return vmac is None or vmac not in (offer.vmac, self._lessee(int(ip)))

    def may_claim(self, ip: IPv4Address, vmac: bytes | None) -> bool:
        """Whether reservations let a device with this VMAC claim `ip`. Of one that has not said its name it shows only
        afterwards."""
        reservation = self.reservations.get(int(ip))
        has_said = vmac is None or self.leases.hello_of(vmac) != NO_HELLO
        is_doubtful = reservation is not None and bool(reservation.name) and not has_said
        return is_doubtful or not self._is_reserved_for_another(int(ip), vmac)

    def is_reserved_for_another(self, ip: IPv4Address, vmac: bytes | None) -> bool:
        """Whether nobody with this VMAC may have `ip`."""
        return self._is_reserved_for_another(int(ip), vmac)

    def is_reserved_for(self, ip: IPv4Address, vmac: bytes | None) -> bool:
        """Whether `ip` is reserved, and for the devices with this VMAC."""
        return self.reservations.get(int(ip)) is not None and not self._is_reserved_for_another(int(ip), vmac)

    def reserved_for(self, vmac: bytes | None) -> IPv4Address | None:
        """The reserved address that a device is granted when it asks now."""
        ip = self._reserved_for(vmac)
        return None if ip is None else IPv4Address(ip)

    def reserve(self, reservation: Reservation) -> None:
        """By command. Raises RequestError, see Reservations.add()."""
        self.reservations.add(reservation)
        self._note(int(reservation.address))

    def learn(self, ip: int, reservation: Reservation | None) -> None:
        """What a command to another relay has reserved an address for; None: it has released it."""
        self.reservations.learn(ip, reservation)
        self._note(ip)

    def configure(self, reservations: Iterable[Reservation]) -> None:
        """What the configuration reserves from now on."""
        before = [int(reservation.address) for reservation in self.reservations]
        self.reservations.configure(reservations)
        for ip in (*before, *(int(reservation.address) for reservation in self.reservations)):
            self._note(ip)

    def restore(self, reservations: Iterable[Reservation]) -> None:
        """What commands have reserved, as it was kept."""
        self.reservations.restore(reservations)
        for reservation in self.reservations:
            self._note(int(reservation.address))

    def give_up(self, ip: IPv4Address) -> bool:
        """By command: end the reservation of an address, and its lease unless its device is connected. Whether there
        was one of them. Raises RequestError, see Reservations.remove()."""
        was_reserved = self.reservations.remove(int(ip))
        lease = self.leases.get(int(ip))
        is_left = lease is not None and not lease.is_connected and not self.is_elsewhere(int(ip))
        if is_left:
            self.leases.end(int(ip))
        self._note(int(ip))
        return was_reserved or is_left

    def _offer(self, ip: int, vmac: bytes | None, connection: int, source: str, now: float) -> None:
        older = self._offers.get(ip)
        if self._by_source[source] < OFFERS_PER_SOURCE or (older is not None and older.source == source):
            if older is not None:
                self.release(older.connection)
            self._free -= self._is_free(ip)
            self._offers[ip] = self._offered[connection] = _Offer(ip, connection, vmac, source, now + OFFER_S)
            self._by_source[source] += 1
            self._note(ip)

    def _choose(self, asked: int, vmac: bytes | None, held: int | None, within: IPv4Network | None) -> int:
        """By rule 3, whose letters these are."""
        bounds = self._addresses(within)
        reserved = self._reserved_for(vmac)
        if reserved is not None and reserved in bounds:  # a
            return reserved
        if asked in bounds and self._is_grantable(asked, vmac):  # b
            return asked
        if (
            held is not None
            and held in bounds
            and self._is_free(held)
            and not self._is_reserved_for_another(held, vmac)
        ):  # c
            return held
        for lease in self.leases.of(vmac):  # d
            if lease.ip in bounds and self._is_available(lease.ip, vmac):
                return lease.ip
        if within is not None and (ip := next((ip for ip in bounds if ip not in self._taken), None)) is not None:  # e
            return ip
        if within is None and len(self._taken) < self._size:  # e
            return self._next()
        if self._free:  # f
            for lease in self.leases.idle():
                is_open = self._is_free(lease.ip) and self.reservations.get(lease.ip) is None
                is_open = is_open and not self.is_elsewhere(lease.ip)
                if lease.ip in bounds and is_open and not self.is_anothers_by_key(lease.ip, vmac, was_granted=True):
                    return lease.ip
        if within is not None:
            raise PoolFull(f"no address of {within} is left in the pool {self.network}")
        in_use = "in use or reserved" if len(self.reservations) else "in use"
        raise PoolFull(f"the pool {self.network} is full: all {self._size} addresses are {in_use}")

    def is_anothers_by_key(self, ip: int, vmac: bytes | None, *, was_granted: bool = False) -> bool:
        """Whether the address is leased to a device with a key, which may have it, and not to this one: else any
        member could take it while that one is away. What `was_granted` goes to one with a key all the same (3f)."""
        lessee = self._lessee(ip)
        if lessee is None or len(lessee) != KEY_BYTES or lessee == vmac or self.is_revoked(lessee):
            return False
        has_key = vmac is not None and len(vmac) == KEY_BYTES
        return not (was_granted and has_key) and not self._is_reserved_for_another(ip, lessee)

    def _addresses(self, within: IPv4Network | None) -> range:
        """Those of the pool within these bounds."""
        ours = range(self._lowest, self._lowest + self._size)
        if within is None:
            return ours
        first, last = int(within.network_address), int(within.broadcast_address)
        return range(max(ours.start, first), min(ours.stop, last + 1))

    def _reserved_for(self, vmac: bytes | None) -> int | None:
        for ip in self.reservations.of(vmac, self.leases.hello_of(vmac).name):
            if self._is_available(ip, vmac):
                return ip
        return None

    def _is_reserved_for_another(self, ip: int, vmac: bytes | None) -> bool:
        reservation = self.reservations.get(ip)
        return reservation is not None and not reservation.is_for(vmac, self.leases.hello_of(vmac).name)

    def _is_ours(self, ip: int) -> bool:
        return 0 <= ip - self._lowest < self._size

    def _is_free(self, ip: int) -> bool:
        return self._is_ours(ip) and ip not in self._claims and ip not in self._offers

    def _lessee(self, ip: int) -> bytes | None:
        lease = self.leases.get(ip)
        return None if lease is None else lease.vmac

    def _is_grantable(self, ip: int, vmac: bytes | None) -> bool:
        """Whether it is granted to one who asks for this very address."""
        lessee = self._lessee(ip)
        if not self._is_ours(ip) or lessee not in (None, vmac) or self._is_reserved_for_another(ip, vmac):
            return False
        if lessee is not None:
            # Who uses it is the lessee, and rule 4: an offer is nothing to the lessee.
            return True
        offer = self._offers.get(ip)
        return ip not in self._claims and (offer is None or (vmac is not None and offer.vmac == vmac))

    def _is_available(self, ip: int, vmac: bytes | None) -> bool:
        """Whether an address that is leased to, or reserved for, this VMAC is granted when it asks for any."""
        offer = self._offers.get(ip)
        is_coming = offer is not None and offer.vmac == vmac
        is_ours = self._is_ours(ip) and not self._is_reserved_for_another(ip, vmac)
        is_ours = is_ours and not self.is_anothers_by_key(ip, vmac)
        return is_ours and ip not in self._claims and not is_coming

    def _note(self, ip: int) -> None:
        """See whether the address can be granted, after something happened to it."""
        if not self._is_ours(ip):
            return
        if self._is_free(ip) and self.leases.get(ip) is None and self.reservations.get(ip) is None:
            self._taken.pop(ip, None)
        else:
            self._taken[ip] = None

    def _end_offers(self, now: float) -> None:
        while self._offers:
            earliest = next(iter(self._offers.values()))
            if earliest.until > now:
                return
            self.release(earliest.connection)

    def _next(self) -> int:
        """The next address that can be granted; there is one. A round takes one step per address and comes by each of
        them: O(1) unless nearly all are taken."""
        while True:
            ip = self._lowest + self._cursor
            self._cursor = (self._cursor + 1) % self._size
            if ip not in self._taken:
                return ip


def _check(network: IPv4Network) -> None:
    if network.prefixlen > LONGEST_PREFIX:
        raise ConfigError(f"pool {network} has no room for two members: use /{LONGEST_PREFIX} or a shorter prefix")
    for other in NOT_UNICAST:
        if network.overlaps(other):
            raise ConfigError(f"pool {network} overlaps {other}, where no member can be: use a private network")
