"""The pool against a slow, obvious model: a list of who holds what, searched from end to end."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from candy.errors import PoolFull
from candy.relay.pool import RESERVATION_S, RESERVATIONS_PER_SOURCE, Pool

NETWORK = IPv4Network("10.0.0.0/29")
HOSTS = list(NETWORK.hosts())
LEASE_LIMIT = 2

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
        self.pool = Pool(NETWORK, first=HOSTS[2], lease_limit=LEASE_LIMIT)
        self.entries: list[Entry] = []
        self.leases: list[tuple[bytes, IPv4Address]] = []
        self.turn = HOSTS[2:] + HOSTS[:2]
        self.now = 0.0

    def on(self, ip: IPv4Address) -> list[Entry]:
        return [entry for entry in self.entries if entry.ip == ip]

    def of(self, connection: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.connection == connection]

    def remove(self, gone: list[Entry]) -> None:
        self.entries = [entry for entry in self.entries if entry not in gone]

    def lessee(self, ip: IPv4Address) -> bytes | None:
        return next((vmac for vmac, leased in self.leases if leased == ip), None)

    def choose(self, asked: IPv4Address, vmac: bytes | None, former: list[Entry]) -> IPv4Address | None:
        """The address by the pool's third rule."""
        if asked in HOSTS and self.lessee(asked) in (None, vmac):
            others = [entry for entry in self.on(asked) if vmac is None or entry.vmac != vmac]
            if not others or (self.lessee(asked) is not None and not any(entry.claimed for entry in others)):
                return asked
        for entry in former:
            if entry.ip in HOSTS and not self.on(entry.ip):
                return entry.ip
        own = [ip for owner, ip in self.leases if owner == vmac and ip in HOSTS]
        if own and not any(entry.claimed or entry.vmac == vmac for entry in self.on(own[0])):
            return own[0]
        free = [ip for ip in self.turn if not self.on(ip)]
        chosen = next((ip for ip in free if self.lessee(ip) is None), free[0] if free else None)
        if chosen is not None:
            behind = self.turn.index(chosen) + 1
            self.turn = self.turn[behind:] + self.turn[:behind]
        return chosen

    @rule(seconds=st.sampled_from([1.0, RESERVATION_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.remove([entry for entry in self.entries if entry.until <= self.now])

    @rule(asked=addresses, vmac=vmacs, connection=connections, source=sources, may_reserve=st.booleans())
    def ask(self, asked: IPv4Address, vmac: bytes | None, connection: int, source: str, may_reserve: bool) -> None:
        former = self.of(connection)
        self.remove(former)
        expected = self.choose(asked, vmac, former)
        if expected is None:
            with pytest.raises(PoolFull):
                self.pool.ask(asked, vmac, connection, source, self.now, may_reserve=may_reserve)
            return
        granted = self.pool.ask(asked, vmac, connection, source, self.now, may_reserve=may_reserve)
        assert granted.ip == expected
        assert granted.network == NETWORK
        older = [entry for entry in self.on(expected) if not entry.claimed]
        others = [entry for entry in self.entries if entry.source == source and entry not in older]
        if may_reserve and len(others) < RESERVATIONS_PER_SOURCE:
            self.remove(older)
            until = self.now + RESERVATION_S
            self.entries.append(Entry(expected, connection, vmac, claimed=False, source=source, until=until))

    @rule(ip=addresses, vmac=vmacs, connection=connections)
    def claim(self, ip: IPv4Address, vmac: bytes | None, connection: int) -> None:
        self.pool.claim(ip, vmac, connection)
        self.remove(self.of(connection) + self.on(ip))
        self.entries.append(Entry(ip, connection, vmac, claimed=True))
        self.leases = [lease for lease in self.leases if lease[0] != vmac and lease[1] != ip]
        if vmac is not None:
            self.leases = [*self.leases, (vmac, ip)][-LEASE_LIMIT:]

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
    def reservations_are_those_of_the_model(self) -> None:
        for ip in HOSTS:
            for vmac in (None, b"1" * 16):
                against = any(
                    not entry.claimed and entry.connection != 1 and (vmac is None or entry.vmac != vmac)
                    for entry in self.on(ip)
                )
                is_lessee = vmac is not None and self.lessee(ip) == vmac
                assert self.pool.is_reserved_against(ip, vmac, 1, self.now) is (against and not is_lessee)

    @invariant()
    def an_address_has_one_holder_and_at_most_one_reservation_of_the_same_vmac(self) -> None:
        for ip in HOSTS:
            claims = [entry for entry in self.on(ip) if entry.claimed]
            reservations = [entry for entry in self.on(ip) if not entry.claimed]
            assert len(claims) <= 1
            assert len(reservations) <= 1
            if claims and reservations:
                assert claims[0].vmac == reservations[0].vmac is not None

    @invariant()
    def no_source_has_more_than_its_reservations(self) -> None:
        for source in ("a", "b"):
            assert sum(entry.source == source for entry in self.entries) <= RESERVATIONS_PER_SOURCE


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_pool = PoolMachine.TestCase
