"""Orders of events between workers that write to a capture, its reader, and its end: see test_interleavings.py.

`a` and `c` are of worker 0, `b` and `d` of worker 1. A thread is held at "watched" before it takes the capture's lock,
at "contended" where another has that, at "captured" with it, its packet in the ring and not shown to the reader yet.
"""

from collections.abc import Iterator

import pytest
from kit.held import Held, let_go
from kit.pcapng import packets
from kit.peer import Peer, numbered

from candy._fastpath import hold_at, release, replaced_tables, wait_held

pytestmark = pytest.mark.engine

A, B, C, D = (0x0A000001 + n for n in range(4))


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    """Nothing that one test has held is held in the next."""
    yield
    let_go()


def members(relay: Held) -> tuple[Peer, ...]:
    return tuple(relay.member(address) for address in (A, B, C, D))


def captured(relay: Held, peer: Peer, ring_bytes: int = 65536) -> int:
    number = relay.engine.capture(peer.connection, ring_bytes=ring_bytes)
    assert number is not None
    return number


def numbers(relay: Held, number: int) -> list[int]:
    """Of the packets that can be read now."""
    return [int.from_bytes(block.data[28:32], "big") for block in packets(relay.engine.read_capture(number))]


@pytest.mark.parametrize("point", ["watched", "captured"])
def test_a_capture_outlives_who_writes(point: str) -> None:
    """It is over while a worker writes to it: its memory stays until that worker has let go of it."""
    with Held(2) as relay:
        a, b, _, d = members(relay)
        number = captured(relay, a)
        hold_at(point)
        a.forward(numbered(A, B, 1))
        assert wait_held(point)
        relay.engine.end_capture(number)
        d.sync()
        assert replaced_tables(relay.engine) == 1
        release(point)
        assert a.sync() == []
        assert [frame.payload for frame in b.sync()] == [numbered(A, B, 1)]
        again = captured(relay, a)
        a.forward(numbered(A, B, 2))
        a.sync()
        assert numbers(relay, again) == [2]


def test_two_workers_write_at_once() -> None:
    """The second waits for a copy of the first's, and both packets are whole, one behind the other."""
    with Held(2) as relay:
        a, b, _, d = members(relay)
        number = captured(relay, a)
        hold_at("captured")
        a.forward(numbered(A, B, 1))
        assert wait_held("captured")
        hold_at("contended")
        d.forward(numbered(D, A, 2))
        assert wait_held("contended"), "it writes where another one does"
        assert numbers(relay, number) == []
        release("contended")
        release("captured")
        d.sync()
        a.sync()
        assert numbers(relay, number) == [1, 2]
        b.sync()


def test_the_other_worker_comes_first() -> None:
    """One has built its block and not taken the lock: the other's goes before it."""
    with Held(2) as relay:
        a, _, _, d = members(relay)
        number = captured(relay, a)
        hold_at("watched")
        a.forward(numbered(A, B, 1))
        assert wait_held("watched")
        d.forward(numbered(D, A, 2))
        d.sync()
        assert numbers(relay, number) == [2]
        release("watched")
        a.sync()
        assert numbers(relay, number) == [1]


def test_a_reader_where_the_writer_is() -> None:
    """A packet half shown is not read, and what the reader takes meanwhile makes no room that is written to twice."""
    with Held(2) as relay:
        a, _, _, d = members(relay)
        size = 28 + 44 + 8 + 4 + 4
        number = captured(relay, a, ring_bytes=4096)
        fit = 4096 // size
        a.forward(*(numbered(A, B, n, 45) for n in range(fit - 1)))
        a.sync()
        hold_at("captured")
        a.forward(numbered(A, B, fit - 1, 45), numbered(A, B, fit, 45))
        assert wait_held("captured")
        assert numbers(relay, number) == list(range(fit - 1))
        assert numbers(relay, number) == []
        release("captured")
        a.sync()
        assert numbers(relay, number) == [fit - 1, fit]
        assert relay.engine.capture_stats(number) == (fit + 1, 0, False)
        d.sync()


def test_room_that_comes_in_time() -> None:
    """The ring was full when the writer came, and is not any more when it has the lock."""
    with Held(2) as relay:
        a, _, _, _ = members(relay)
        size = 28 + 44 + 8 + 4 + 4
        fit = 4096 // size
        number = captured(relay, a, ring_bytes=4096)
        a.forward(*(numbered(A, B, n, 45) for n in range(fit)))
        a.sync()
        hold_at("watched")
        a.forward(numbered(A, B, fit, 45))
        assert wait_held("watched")
        assert numbers(relay, number) == list(range(fit))
        release("watched")
        a.sync()
        assert numbers(relay, number) == [fit]
        assert relay.engine.capture_stats(number) == (fit + 1, 0, False)
