"""Routes by other members: which count, what is told of own links, and how that ends."""

from ipaddress import IPv4Address
from itertools import pairwise

import pytest

from candy.member.legacyroutes import (
    DESTINATIONS_MOST,
    EACH_MOST,
    EXPIRE_S,
    HOPS_MOST,
    LINKS_MOST,
    TELLS_EACH,
    TELLS_RATE,
    TELLS_SAVED,
    Announce,
    Hop,
    LegacyRoutes,
    SetHops,
)
from candy.protocol.datagram import PeerRoute

OWN, A, B, C, D, E, F = (IPv4Address(f"10.99.0.{last}") for last in range(1, 8))
COST = 10
NOW = 1000.0


@pytest.fixture
def routes() -> LegacyRoutes:
    """With links to A and B."""
    routes = LegacyRoutes(OWN, COST, lambda address: True)
    routes.linked(A, 0.020)
    routes.linked(B, 0.005)
    told(routes)
    return routes


def told(routes: LegacyRoutes, now: float = NOW, times: int = 20) -> list[Announce]:
    found = [action for second in range(times) for action in routes.tick(now + second)]
    return [action for action in found if isinstance(action, Announce)]


def says(routes: LegacyRoutes, peer: IPv4Address, destination: IPv4Address, rtt_ms: int = 30) -> list[SetHops]:
    return routes.heard(peer, PeerRoute(destination, peer, rtt_ms), NOW)


def test_what_a_peer_says_of_another(routes: LegacyRoutes) -> None:
    assert says(routes, A, C) == [SetHops(C, (A,))]
    assert routes.by(C) == Hop(A, 50)
    assert says(routes, A, C) == []
    assert says(routes, A, C, -1) == [SetHops(C, ())]
    assert routes.by(C) is None


def test_the_cheapest_comes_first(routes: LegacyRoutes) -> None:
    says(routes, A, C, 30)
    assert says(routes, B, C, 44) == [SetHops(C, (B, A))]
    assert routes.by(C) == Hop(B, 49)
    assert says(routes, B, C, 46) == [SetHops(C, (A, B))]
    assert routes.linked(B, 0.001) == [SetHops(C, (B, A))]
    assert says(routes, B, C, 1001) == [SetHops(C, (A,))]


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        (C, PeerRoute(D, C, 1)),
        (A, PeerRoute(D, B, 1)),
        (A, PeerRoute(OWN, A, 1)),
        (A, PeerRoute(A, A, 1)),
        (A, PeerRoute(D, A, -1)),
        (A, PeerRoute(D, A, 1001)),
    ],
    ids=["without a link", "for another", "to here", "to itself", "withdrawn before", "too far"],
)
def test_what_counts_for_nothing(routes: LegacyRoutes, peer: IPv4Address, message: PeerRoute) -> None:
    assert routes.heard(peer, message, NOW) == []
    assert len(routes) == 0


def test_what_no_member_can_have() -> None:
    routes = LegacyRoutes(OWN, COST, lambda address: address != C)
    routes.linked(A, 0.02)
    assert says(routes, A, C) == []
    assert says(routes, A, D) == [SetHops(D, (A,))]


def test_with_the_link_its_routes_end(routes: LegacyRoutes) -> None:
    says(routes, A, C)
    says(routes, B, C)
    says(routes, A, D)
    assert routes.unlinked(A) == [SetHops(C, (B,)), SetHops(D, ())]
    assert routes.unlinked(A) == []
    assert says(routes, A, D) == []


def test_what_is_not_said_again_is_over(routes: LegacyRoutes) -> None:
    says(routes, A, C)
    routes.heard(B, PeerRoute(C, B, 30), NOW + 60)
    assert not [each for each in routes.tick(NOW + EXPIRE_S - 1) if isinstance(each, SetHops)]
    assert [each for each in routes.tick(NOW + EXPIRE_S) if isinstance(each, SetHops)] == [SetHops(C, (B,))]
    assert routes.tick(NOW + EXPIRE_S + 60) == [SetHops(C, ())]


def test_all_ends(routes: LegacyRoutes) -> None:
    says(routes, A, C)
    assert routes.end() == [SetHops(C, ())]
    assert told(routes) == []


def test_links_are_told_to_others_alone() -> None:
    """Nobody hears of itself, nor of what this member reaches by another one."""
    routes = LegacyRoutes(OWN, COST, lambda address: True)
    routes.linked(A, 0.020)
    assert told(routes) == []
    routes.linked(B, 0.005)
    says(routes, A, C)
    assert set(told(routes)) == {Announce(A, PeerRoute(B, OWN, 15)), Announce(B, PeerRoute(A, OWN, 30))}
    assert told(routes) == []
    routes.linked(A, 0.030)
    assert told(routes) == [Announce(B, PeerRoute(A, OWN, 40))]


def test_a_link_that_ends_is_withdrawn_first(routes: LegacyRoutes) -> None:
    routes.linked(C, 0.001)
    told(routes)
    routes.linked(C, 0.001)
    routes.unlinked(A)
    first = [each for each in routes.tick(NOW + 100) if isinstance(each, Announce) and each.peer == B]
    assert [each.message for each in first] == [PeerRoute(A, OWN, -1), PeerRoute(C, OWN, 11)]


def test_what_nobody_was_told_is_not_withdrawn(routes: LegacyRoutes) -> None:
    routes.linked(C, 0.001)
    routes.unlinked(C)
    assert told(routes) == []


def test_what_is_too_far_is_told_to_nobody(routes: LegacyRoutes) -> None:
    routes.linked(A, 0.991)
    assert told(routes) == [Announce(B, PeerRoute(A, OWN, -1))]
    routes.linked(A, 0.991)
    assert told(routes) == []
    routes.linked(A, 0.990)
    assert told(routes) == [Announce(B, PeerRoute(A, OWN, 1000))]


def test_few_are_told_at_once() -> None:
    """And all in the end."""
    routes = LegacyRoutes(OWN, COST, lambda address: True)
    peers = [IPv4Address("10.99.1.0") + number for number in range(40)]
    for peer in peers:
        routes.linked(peer, 0.01)
    found: list[Announce] = []
    for second in range(60):
        now = [each for each in routes.tick(NOW + second) if isinstance(each, Announce)]
        assert all(sum(each.peer == peer for each in now) <= TELLS_EACH for peer in peers)
        found += now
        assert len(found) <= TELLS_SAVED + TELLS_RATE * second
    assert len(set(found)) == len(found) == 40 * 39


def test_as_many_are_told_as_can_be_told_in_time() -> None:
    """So that one announcement may be lost, and no route is over: those that are told hear of each other in half its
    time, each link being measured anew each minute."""
    routes = LegacyRoutes(OWN, COST, lambda address: True)
    peers = [IPv4Address("10.99.1.0") + number for number in range(3 * LINKS_MOST)]
    heard: dict[tuple[IPv4Address, IPv4Address], list[float]] = {}
    for second in range(1000):
        for number, peer in enumerate(peers):
            if second == 0 or second % 60 == number % 60:
                routes.linked(peer, 0.01)
        for each in routes.tick(NOW + second):
            assert isinstance(each, Announce)
            heard.setdefault((each.peer, each.message.dst), []).append(NOW + second)
    first = peers[:LINKS_MOST]
    assert set(heard) == {(to, of) for to in first for of in first if to != of}
    pauses = [after - before for times in heard.values() for before, after in pairwise([NOW, *times, NOW + 1000])]
    assert max(pauses) < EXPIRE_S / 2


def test_the_next_one_takes_the_place_of_one_that_ends() -> None:
    routes = LegacyRoutes(OWN, COST, lambda address: True)
    peers = [IPv4Address("10.99.1.0") + number for number in range(LINKS_MOST + 2)]
    for peer in peers:
        routes.linked(peer, 0.01)
    told(routes, times=200)
    routes.unlinked(peers[-2])
    assert told(routes, NOW + 200) == []
    routes.unlinked(peers[7])
    rest = {*peers[:LINKS_MOST]} - {peers[7]}
    assert set(told(routes, NOW + 300, times=200)) == {
        *(Announce(peer, PeerRoute(peers[7], OWN, -1)) for peer in rest),
        *(Announce(peer, PeerRoute(peers[-1], OWN, 20)) for peer in rest),
        *(Announce(peers[-1], PeerRoute(peer, OWN, 20)) for peer in rest),
    }


def test_others_are_believed_all_the_same() -> None:
    routes = LegacyRoutes(OWN, COST, lambda address: True)
    for number in range(LINKS_MOST):
        routes.linked(IPv4Address("10.99.1.0") + number, 0.01)
    routes.linked(A, 0.01)
    assert says(routes, A, C) == [SetHops(C, (A,))]
    assert routes.unlinked(A) == [SetHops(C, ())]


def test_too_many_announcers_of_one() -> None:
    routes = LegacyRoutes(OWN, COST, lambda address: True)
    for peer in (A, B, C, D, E):
        routes.linked(peer, 0.010)
    for peer, rtt_ms in ((A, 50), (B, 20), (C, 30), (D, 40)):
        says(routes, peer, F, rtt_ms)
    assert says(routes, E, F, 50) == []
    assert says(routes, E, F, 49) == [SetHops(F, (B, C, D, E))]
    assert HOPS_MOST == 4


def test_too_many_destinations() -> None:
    routes = LegacyRoutes(OWN, COST, lambda address: True)
    first = IPv4Address("10.100.0.0")
    for peer in (A, B, C, D, E):
        routes.linked(peer, 0.010)
    for number in range(EACH_MOST):
        assert says(routes, A, first + number)
    assert says(routes, A, first + EACH_MOST) == []
    for number in range(EACH_MOST, DESTINATIONS_MOST):
        assert says(routes, (B, C, D)[number // EACH_MOST - 1], first + number)
    assert says(routes, E, first + DESTINATIONS_MOST) == []
    assert says(routes, E, first, 1)
    assert len(routes) == DESTINATIONS_MOST
