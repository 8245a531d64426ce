"""The pool against a slow, obvious model: a list of who holds what, searched from end to end."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from candy.errors import PoolFull
from candy.relay.leases import Leases
from candy.relay.pool import OFFER_S, OFFERS_PER_SOURCE, Pool
from candy.relay.reservations import Reservation

NETWORK = IPv4Network("10.0.0.0/29")
HOSTS = list(NETWORK.hosts())
LEASE_LIMIT = 4

connections = st.integers(1, 8)
vmacs = st.sampled_from([None, b"1" * 16, b"2" * 16, b"3" * 16])
# Two around the network as well, which can be claimed but not granted.
addresses = st.integers(-1, 8).map(lambda offset: NETWORK.network_address + offset)
sources = st.sampled_from(["a", "b"])


@dataclass
class Entry:
    ip: IPv4Address
    connection: int
    vmac: bytes | None
    claimed: bool
    source: str = ""
    until: float = inf


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(NETWORK, first=HOSTS[2], leases=Leases(limit=LEASE_LIMIT))
        self.entries: list[Entry] = []
        self.leases: list[tuple[bytes, IPv4Address]] = []
        """In the order of their claims."""
        self.idle: list[IPv4Address] = []
        """Of these, whose device is not connected, in the order in which they left."""
        self.reserved: dict[IPv4Address, bytes] = {}
        self.turn = HOSTS[2:] + HOSTS[:2]
        self.now = 0.0

    def on(self, ip: IPv4Address) -> list[Entry]:
        return [entry for entry in self.entries if entry.ip == ip]

    def of(self, connection: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.connection == connection]

    def remove(self, gone: list[Entry]) -> None:
        self.entries = [entry for entry in self.entries if entry not in gone]
        self.idle += [entry.ip for entry in gone if entry.claimed and self.lessee(entry.ip) is not None]

    def lessee(self, ip: IPv4Address) -> bytes | None:
        return next((vmac for vmac, leased in self.leases if leased == ip), None)

    def end_lease(self, ip: IPv4Address) -> None:
        self.leases = [lease for lease in self.leases if lease[1] != ip]
        self.idle = [other for other in self.idle if other != ip]

    def lease(self, ip: IPv4Address, vmac: bytes | None) -> None:
        if self.lessee(ip) != vmac:
            self.end_lease(ip)
        if vmac is None:
            return
        if (vmac, ip) not in self.leases and len(self.leases) >= LEASE_LIMIT:
            if not self.idle:
                return
            self.end_lease(self.idle[0])
        self.leases = [lease for lease in self.leases if lease != (vmac, ip)] + [(vmac, ip)]
        self.idle = [other for other in self.idle if other != ip]

    def is_for(self, ip: IPv4Address, vmac: bytes | None) -> bool:
        return ip not in self.reserved or self.reserved[ip] == vmac

    def is_available(self, ip: IPv4Address, vmac: bytes) -> bool:
        is_used = any(entry.claimed or entry.vmac == vmac for entry in self.on(ip))
        return ip in HOSTS and self.is_for(ip, vmac) and not is_used

    def choose(self, asked: IPv4Address, vmac: bytes | None, former: list[Entry]) -> IPv4Address | None:
        """The address by the pool's third rule."""
        for ip, owner in self.reserved.items():
            if owner == vmac and self.is_available(ip, owner):
                return ip
        if asked in HOSTS and self.lessee(asked) in (None, vmac) and self.is_for(asked, vmac):
            is_leased = self.lessee(asked) is not None
            # Who has claimed it without a lease is not known again.
            others = [
                entry
                for entry in self.on(asked)
                if vmac is None or entry.vmac != vmac or (entry.claimed and not is_leased)
            ]
            if not others or (is_leased and not any(entry.claimed for entry in others)):
                return asked
        for entry in former:
            if entry.ip in HOSTS and not self.on(entry.ip) and self.is_for(entry.ip, vmac):
                return entry.ip
        for owner, ip in reversed(self.leases):
            if owner == vmac and self.is_available(ip, owner):
                return ip
        free = [ip for ip in self.turn if not self.on(ip) and ip not in self.reserved]
        for ip in free:
            if self.lessee(ip) is None:
                behind = self.turn.index(ip) + 1
                self.turn = self.turn[behind:] + self.turn[:behind]
                return ip
        return next((ip for ip in self.idle if ip in free), None)

    @rule(ip=st.sampled_from(HOSTS), vmac=st.sampled_from([b"1" * 16, b"2" * 16]))
    def reserve(self, ip: IPv4Address, vmac: bytes) -> None:
        self.pool.reserve(Reservation(ip, vmac=vmac))
        self.reserved[ip] = vmac

    @rule(ip=st.sampled_from(HOSTS))
    def give_up(self, ip: IPv4Address) -> None:
        is_left = ip in self.idle
        assert self.pool.give_up(ip) is (ip in self.reserved or is_left)
        self.reserved.pop(ip, None)
        if is_left:
            self.end_lease(ip)

    @rule(seconds=st.sampled_from([1.0, OFFER_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.remove([entry for entry in self.entries if entry.until <= self.now])

    @rule(asked=addresses, vmac=vmacs, connection=connections, source=sources, may_keep=st.booleans())
    def ask(self, asked: IPv4Address, vmac: bytes | None, connection: int, source: str, may_keep: bool) -> None:
        former = self.of(connection)
        self.remove(former)
        expected = self.choose(asked, vmac, former)
        if expected is None:
            with pytest.raises(PoolFull):
                self.pool.ask(asked, vmac, connection, source, self.now, may_keep=may_keep)
            return
        granted = self.pool.ask(asked, vmac, connection, source, self.now, may_keep=may_keep)
        assert granted.ip == expected
        assert granted.network == NETWORK
        older = [entry for entry in self.on(expected) if not entry.claimed]
        others = [entry for entry in self.entries if entry.source == source and entry not in older]
        if may_keep and len(others) < OFFERS_PER_SOURCE:
            self.remove(older)
            until = self.now + OFFER_S
            self.entries.append(Entry(expected, connection, vmac, claimed=False, source=source, until=until))

    @rule(ip=addresses, vmac=vmacs, connection=connections)
    def claim(self, ip: IPv4Address, vmac: bytes | None, connection: int) -> None:
        self.pool.claim(ip, vmac, connection)
        mine = self.of(connection)
        self.remove([*mine, *(entry for entry in self.on(ip) if entry not in mine)])
        self.entries.append(Entry(ip, connection, vmac, claimed=True))
        self.lease(ip, vmac)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def claim_what_was_granted(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.entries))
        self.claim(entry.ip, entry.vmac, entry.connection)

    @rule(connection=connections)
    def release(self, connection: int) -> None:
        self.pool.release(connection)
        self.remove(self.of(connection))

    @invariant()
    def holders_are_those_of_the_model(self) -> None:
        claims = {entry.ip: entry.connection for entry in self.entries if entry.claimed}
        for offset in range(-1, 9):
            ip = NETWORK.network_address + offset
            assert self.pool.holder(ip) == claims.get(ip)
        assert sorted(self.pool.holders()) == sorted(claims.values())

    @invariant()
    def offers_are_those_of_the_model(self) -> None:
        for ip in HOSTS:
            for vmac in (None, b"1" * 16):
                against = any(
                    not entry.claimed and entry.connection != 1 and (vmac is None or entry.vmac != vmac)
                    for entry in self.on(ip)
                )
                is_lessee = vmac is not None and self.lessee(ip) == vmac
                assert self.pool.is_offered_to_another(ip, vmac, 1, self.now) is (against and not is_lessee)

    @invariant()
    def an_address_has_one_holder_and_at_most_one_offer_of_the_same_vmac(self) -> None:
        for ip in HOSTS:
            claims = [entry for entry in self.on(ip) if entry.claimed]
            offers = [entry for entry in self.on(ip) if not entry.claimed]
            assert len(claims) <= 1
            assert len(offers) <= 1
            if claims and offers:
                assert claims[0].vmac == offers[0].vmac is not None

    @invariant()
    def leases_are_those_of_the_model(self) -> None:
        assert {(lease.vmac, IPv4Address(lease.ip)) for lease in self.pool.leases} == set(self.leases)
        assert [IPv4Address(lease.ip) for lease in self.pool.leases.idle()] == self.idle

    @invariant()
    def no_source_has_more_than_its_offers(self) -> None:
        for source in ("a", "b"):
            assert sum(entry.source == source for entry in self.entries) <= OFFERS_PER_SOURCE


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_pool = PoolMachine.TestCase
