"""Unauthenticated connections per source: who goes is drawn by lot among the silent, and nothing is kept of leavers."""

import heapq
import random
from collections.abc import Callable, Iterator

import pytest

from candy.relay.admission import Admission

SOURCE = "203.0.113.5"


def first(_: int) -> int:
    return 0


def last(count: int) -> int:
    return count - 1


def test_up_to_the_limit_nobody_goes() -> None:
    admission = Admission(64, first)
    assert [admission.arrived(connection, SOURCE) for connection in range(64)] == [None] * 64
    assert len(admission) == 64


@pytest.mark.parametrize(("draw", "gone"), [(first, [0, 2, 3]), (last, [2, 3, 4])])
def test_beyond_the_limit_one_of_the_silent_goes(draw: Callable[[int], int], gone: list[int]) -> None:
    """Never the newcomer, nor one that has said something."""
    admission = Admission(3, draw)
    admission.arrived(0, SOURCE)
    admission.arrived(1, SOURCE)
    admission.heard(1)
    closed = [admission.arrived(connection, SOURCE) for connection in range(2, 6)]
    assert closed[0] is None
    assert sorted(connection for connection in closed if connection is not None) == gone
    assert len(admission) == 3


def test_where_none_is_silent_one_of_the_others_goes() -> None:
    admission = Admission(3, last)
    for connection in range(3):
        admission.arrived(connection, SOURCE, heard=True)
    assert admission.arrived(3, SOURCE) == 2
    # This one is silent, and so goes before the others.
    assert admission.arrived(4, SOURCE, heard=True) == 3


def test_the_lot_has_a_place_for_each_of_the_silent() -> None:
    """Also when some have left from among them."""
    asked = []

    def note(count: int) -> int:
        asked.append(count)
        return 0

    admission = Admission(5, note)
    for connection in range(5):
        admission.arrived(connection, SOURCE)
    admission.heard(0)
    admission.left(2)
    admission.arrived(5, SOURCE, heard=True)
    victims = [admission.arrived(connection, SOURCE, heard=True) for connection in range(6, 9)]
    assert asked == [3, 2, 1]
    assert {victim for victim in victims if victim is not None} == {1, 3, 4}


def test_whoever_left_is_not_counted_and_not_named() -> None:
    admission = Admission(3, first)
    for connection in range(3):
        admission.arrived(connection, SOURCE)
    admission.left(0)
    assert admission.arrived(3, SOURCE) is None
    assert admission.arrived(4, SOURCE) != 0


def test_sources_do_not_share_a_limit() -> None:
    admission = Admission(1, first)
    assert admission.arrived(1, SOURCE) is None
    assert admission.arrived(2, "203.0.113.6") is None
    assert admission.arrived(3, SOURCE) == 1
    assert admission.arrived(4, "203.0.113.6") == 2


def test_an_ipv6_64_is_one_source_and_loopback_none() -> None:
    admission = Admission(1, first)
    assert admission.arrived(1, "2001:db8:1:2::1") is None
    assert admission.arrived(2, "2001:db8:1:3::1") is None
    assert admission.arrived(3, "2001:db8:1:2:ffff::1") == 1
    assert admission.arrived(4, "203.0.113.5") is None
    assert admission.arrived(5, "::ffff:203.0.113.5") == 4
    assert [admission.arrived(number, text) for number, text in enumerate(("127.0.0.1", "127.0.0.1", "::1"), 6)] == [
        None
    ] * 3
    # A trusted proxy there that does not say for whom it asks.
    assert admission.arrived(10, "proxy 127.0.0.1") is None
    assert admission.arrived(11, "proxy 127.0.0.1") == 10


def test_leaving_twice_or_never_having_come_does_nothing() -> None:
    admission = Admission(1, first)
    admission.left(1)
    admission.heard(1)
    admission.arrived(1, SOURCE)
    assert admission.arrived(2, SOURCE) == 1
    admission.left(1)
    admission.heard(1)
    assert len(admission) == 1
    admission.left(2)
    admission.left(2)
    assert len(admission) == 0
    assert admission.arrived(3, SOURCE) is None


# A model of a neighbour behind the same address: honest log-ins while connections come that stay idle.

ROUND_TRIP_S = 0.2
IDLE_PER_S = 224
HONEST_PER_S = 5
DURATION_S = 40
DEADLINE_S = 10.0


def share_let_in(seed: int, *, over_tls: bool, waits_s: float) -> float:
    """The part of honest log-ins that are not closed, from when the idle ones have filled the limit.

    Args:
        over_tls: with one round trip more.
        waits_s: from TCP's accept to the first bytes.
    """
    chance = random.Random(seed)
    admission = Admission(64, chance.randrange)
    events = [(at, number, "idle") for number, at in enumerate(arrivals(chance, IDLE_PER_S))]
    honest = [(at, -number, "honest") for number, at in enumerate(arrivals(chance, HONEST_PER_S), 1) if at > 1.0]
    events += honest
    heapq.heapify(events)
    closed: set[int | None] = set()
    let_in = 0
    while events:
        at, connection, what = heapq.heappop(events)
        match what:
            case "idle":
                closed.add(admission.arrived(connection, SOURCE))
                heapq.heappush(events, (at + DEADLINE_S, connection, "end"))
            case "honest":
                closed.add(admission.arrived(connection, SOURCE))
                heapq.heappush(events, (at + waits_s, connection, "first bytes"))
                heapq.heappush(events, (at + waits_s + ROUND_TRIP_S * (2 + over_tls), connection, "member"))
            case "first bytes":
                admission.heard(connection)
            case "member":
                let_in += connection not in closed
                admission.left(connection)
            case "end":
                admission.left(connection)
    return let_in / len(honest)


def arrivals(chance: random.Random, per_s: float) -> Iterator[float]:
    """Times of independent arrivals."""
    at = chance.expovariate(per_s)
    while at < DURATION_S:
        yield at
        at += chance.expovariate(per_s)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("over_tls", [False, True])
def test_honest_log_ins_beside_idle_connections(seed: int, over_tls: bool) -> None:
    """The first bytes come right behind TCP's handshake, in the next packet."""
    assert share_let_in(seed, over_tls=over_tls, waits_s=0.002) >= 0.95
