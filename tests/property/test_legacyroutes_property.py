"""Routes by other members against a slow, obvious model; with bounds so small that they are reached."""

from collections import Counter
from ipaddress import IPv4Address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from candy.member import legacyroutes
from candy.member.legacyroutes import EXPIRE_S, HOPS_MOST, TELLS_EACH, Announce, LegacyRoutes, SetHops
from candy.protocol.datagram import PeerRoute

OWN = IPv4Address("10.99.0.1")
DESTINATIONS_MOST, EACH_MOST = 6, 4
members = st.integers(1, 12).map(lambda number: IPv4Address("10.99.0.0") + number)


class RoutesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.routes = LegacyRoutes(OWN, 10, lambda address: address != IPv4Address("10.99.0.12"))
        self.now = 1000.0
        self.peers: set[IPv4Address] = set()
        self.said: dict[tuple[IPv4Address, IPv4Address], float] = {}
        """When an announcer last said that it reaches a destination."""
        self.hops: dict[IPv4Address, tuple[IPv4Address, ...]] = {}
        self.told: set[tuple[IPv4Address, IPv4Address]] = set()

    def do(self, actions: list[SetHops] | list[SetHops | Announce]) -> None:
        for action in actions:
            if isinstance(action, SetHops):
                self.hops[action.peer] = action.hops
                continue
            destination, by, rtt_ms = action.message.dst, action.message.next_hop, action.message.rtt_ms
            assert by == OWN
            assert action.peer in self.peers
            assert destination not in (action.peer, OWN)
            if rtt_ms < 0:
                self.told.remove((action.peer, destination))
            else:
                assert destination in self.peers
                self.told.add((action.peer, destination))

    @rule(peer=members, rtt_s=st.floats(0, 2))
    def linked(self, peer: IPv4Address, rtt_s: float) -> None:
        if peer != OWN:
            self.peers.add(peer)
            self.do(self.routes.linked(peer, rtt_s))

    @rule(peer=members)
    def unlinked(self, peer: IPv4Address) -> None:
        self.peers.discard(peer)
        self.told = {each for each in self.told if each[0] != peer}
        self.do(self.routes.unlinked(peer))

    @rule(peer=members, destination=members, by=members, rtt_ms=st.integers(-2, 1002))
    def heard_of_anyone(self, peer: IPv4Address, destination: IPv4Address, by: IPv4Address, rtt_ms: int) -> None:
        self.heard(peer, PeerRoute(destination, by, rtt_ms))

    @rule(peer=members, destination=members, rtt_ms=st.integers(-1, 1000))
    def heard_of_itself(self, peer: IPv4Address, destination: IPv4Address, rtt_ms: int) -> None:
        self.heard(peer, PeerRoute(destination, peer, rtt_ms))

    def heard(self, peer: IPv4Address, message: PeerRoute) -> None:
        if peer == message.next_hop and not message.is_withdrawn:
            self.said[message.dst, peer] = self.now
        else:
            before = self.said.pop((message.dst, peer), None) if peer == message.next_hop else None
            assert before is None or message.is_withdrawn
        self.do(self.routes.heard(peer, message, self.now))

    @rule(seconds=st.sampled_from([1.0, 1.0, 30.0, EXPIRE_S]))
    def pass_s(self, seconds: float) -> None:
        self.now += seconds
        actions = self.routes.tick(self.now)
        told = Counter(action.peer for action in actions if isinstance(action, Announce))
        assert all(count <= TELLS_EACH for count in told.values())
        self.do(actions)

    @invariant()
    def the_engine_has_what_status_shows(self) -> None:
        for destination, hops in self.hops.items():
            assert self.routes.hops(destination) == hops
            assert (self.routes.by(destination) is None) == (not hops)

    @invariant()
    def only_what_a_linked_peer_said_of_late(self) -> None:
        for destination, hops in self.hops.items():
            assert destination not in hops
            assert not hops or destination not in (OWN, IPv4Address("10.99.0.12"))
            for hop in hops:
                assert hop in self.peers
                assert self.said[destination, hop] > self.now - EXPIRE_S

    @invariant()
    def bounds(self) -> None:
        held = {destination: hops for destination, hops in self.hops.items() if hops}
        assert len(held) == len(self.routes) <= DESTINATIONS_MOST
        assert all(len(hops) <= HOPS_MOST for hops in held.values())
        each = Counter(hop for hops in held.values() for hop in hops)
        assert all(count <= EACH_MOST for count in each.values())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legacyroutes, "DESTINATIONS_MOST", DESTINATIONS_MOST)
    monkeypatch.setattr(legacyroutes, "EACH_MOST", EACH_MOST)


RoutesMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
test_routes = RoutesMachine.TestCase
