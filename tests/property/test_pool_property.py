"""The pool against a slow, obvious model: a list of who holds what, searched from end to end."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from candy.errors import PoolFull
from candy.relay.pool import Pool

NETWORK = IPv4Network("10.0.0.0/29")
HOSTS = list(NETWORK.hosts())
LEASE_LIMIT = 2

connections = st.integers(1, 8)
vmacs = st.sampled_from([None, b"1" * 16, b"2" * 16, b"3" * 16])
# Two around the network as well, which can be claimed but not granted.
addresses = st.integers(-1, 8).map(lambda offset: NETWORK.network_address + offset)


@dataclass
class Entry:
    ip: IPv4Address
    connection: int
    vmac: bytes | None
    claimed: bool


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(NETWORK, first=HOSTS[2], lease_limit=LEASE_LIMIT)
        self.entries: list[Entry] = []
        self.leases: list[tuple[bytes, IPv4Address]] = []
        self.turn = HOSTS[2:] + HOSTS[:2]

    def on(self, ip: IPv4Address) -> list[Entry]:
        return [entry for entry in self.entries if entry.ip == ip]

    def of(self, connection: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.connection == connection]

    def remove(self, gone: list[Entry]) -> None:
        self.entries = [entry for entry in self.entries if entry not in gone]

    def choose(self, asked: IPv4Address, vmac: bytes | None, former: list[Entry]) -> IPv4Address | None:
        """The address by the pool's second rule."""
        if asked in HOSTS and all(vmac is not None and entry.vmac == vmac for entry in self.on(asked)):
            return asked
        remembered = [ip for owner, ip in self.leases if owner == vmac]
        for ip in [entry.ip for entry in former] + remembered:
            if ip in HOSTS and not self.on(ip):
                return ip
        for ip in list(self.turn):
            self.turn.append(self.turn.pop(0))
            if not self.on(ip):
                return ip
        return None

    @rule(asked=addresses, vmac=vmacs, connection=connections)
    def ask(self, asked: IPv4Address, vmac: bytes | None, connection: int) -> None:
        former = self.of(connection)
        self.remove(former)
        expected = self.choose(asked, vmac, former)
        if expected is None:
            with pytest.raises(PoolFull):
                self.pool.ask(asked, vmac, connection)
            return
        granted = self.pool.ask(asked, vmac, connection)
        assert granted.ip == expected
        assert granted.network == NETWORK
        self.remove([entry for entry in self.on(expected) if not entry.claimed])
        self.entries.append(Entry(expected, connection, vmac, claimed=False))

    @rule(ip=addresses, vmac=vmacs, connection=connections)
    def claim(self, ip: IPv4Address, vmac: bytes | None, connection: int) -> None:
        self.pool.claim(ip, vmac, connection)
        self.remove(self.of(connection) + self.on(ip))
        self.entries.append(Entry(ip, connection, vmac, claimed=True))
        if vmac is not None:
            self.leases = [lease for lease in self.leases if lease[0] != vmac]
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
                assert self.pool.is_reserved_against(ip, vmac, 1) is against

    @invariant()
    def an_address_has_one_holder_and_at_most_one_reservation_of_the_same_vmac(self) -> None:
        for ip in HOSTS:
            claims = [entry for entry in self.on(ip) if entry.claimed]
            reservations = [entry for entry in self.on(ip) if not entry.claimed]
            assert len(claims) <= 1
            assert len(reservations) <= 1
            if claims and reservations:
                assert claims[0].vmac == reservations[0].vmac is not None


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_pool = PoolMachine.TestCase
