"""What an operator is shown of connections: all members' counters in one call, delays, and round-trip times."""

import itertools

import pytest
from kit.peer import EngineRelay, numbered

from candy import _fastpath

pytestmark = pytest.mark.engine

A, B, C = 0x0A000001, 0x0A000002, 0x0A000003


def test_all_members_in_one_call() -> None:
    """Each as connection_stats() has it; who has no address is not there."""
    with EngineRelay() as relay:
        one, other = relay.member(A), relay.member(B)
        relay.adopt()
        one.forward(numbered(A, B, 1), numbered(B, A, 2))
        assert one.sync() == []
        assert len(other.sync()) == 1
        listed = relay.listed()
        assert [connection for connection, *_ in listed] == [one.connection, other.connection]
        for connection, *figures in listed:
            stats = relay.engine.connection_stats(connection)
            assert stats is not None
            names = ("packets_in", "bytes_in", "packets_out", "bytes_out", "drops", "queued_bytes")
            assert figures == [*(stats[name] for name in names), 0, 0, 0]
        assert [row[5] for row in listed] == [1, 0]
        other.close()
        assert relay.cause(other.connection) == "eof"
        assert [connection for connection, *_ in relay.listed()] == [one.connection]


def test_what_waits_and_for_how_long() -> None:
    with EngineRelay() as relay:
        sender, stalled = relay.member(A), relay.member(B)
        for first in range(0, 1000, 200):
            sender.forward(*(numbered(A, B, number, 1000) for number in range(first, first + 200)))
            sender.sync()
        [_, (connection, *_, queued, delay_ns, _, _)] = relay.listed()
        assert connection == stalled.connection
        assert queued > 200_000
        [_, (*_, later_ns, _, _)] = relay.listed()
        # Nothing leaves, so it grows.
        assert 0 < delay_ns < later_ns
        before, _ = relay.engine.delays()
        received = len(relay.drain(stalled))
        counted, sum_ns = relay.engine.delays()
        assert received == 1000
        assert sum(before) < sum(counted) <= received
        assert len(counted) == len(_fastpath.DELAY_BOUNDS_S) + 1
        # None of them waited less than the lower bound of its count, nor longer than its upper one.
        lowest = (0.0, *_fastpath.DELAY_BOUNDS_S)
        assert sum_ns / 1e9 >= sum(count * least for count, least in zip(counted, lowest, strict=True))
        if not counted[-1]:
            uppers = zip(counted, _fastpath.DELAY_BOUNDS_S, strict=False)
            assert sum_ns / 1e9 <= sum(count * most for count, most in uppers)
        [_, (*_, left, delay_ns, _, _)] = relay.listed()
        assert (left, delay_ns) == (0, 0)


def test_bounds_double() -> None:
    assert _fastpath.DELAY_BOUNDS_S[:3] == (0.00025, 0.0005, 0.001)
    bounds = _fastpath.DELAY_BOUNDS_S
    assert all(after == 2 * before for before, after in itertools.pairwise(bounds))


def test_round_trips_are_the_kernels() -> None:
    with EngineRelay() as relay:
        tcp, other = relay.member(A, tcp=True), relay.member(B)
        tcp.forward(numbered(A, B, 1))
        tcp.sync()
        found = relay.engine.round_trip_us(tcp.connection)
        assert found is not None
        assert 0 < found < 10_000_000
        # A socketpair, as under TLS of Python's, has none.
        assert relay.engine.round_trip_us(other.connection) is None
        tcp.close()
        assert relay.cause(tcp.connection) == "eof"
        assert relay.engine.round_trip_us(tcp.connection) is None
