"""The clock of what waits for a peer, with a loop whose time is the test's."""

import asyncio
import heapq
from collections.abc import Callable
from typing import cast

import pytest

from candy.relay.clock import MOST_S, TICK_S, Alarm, Clock


class Handle:
    def __init__(self, when: float) -> None:
        self._when = when
        self.cancelled = False

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Timers alone."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._due: list[tuple[float, int, Handle, Callable[[], object]]] = []
        self._count = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> Handle:
        self._count += 1
        handle = Handle(self.now + delay)
        heapq.heappush(self._due, (handle.when(), self._count, handle, callback))
        return handle

    def wait(self, seconds: float) -> None:
        """Idle: each timer in time."""
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now = max(self.now, self._due[0][0])
            self._turn()
        self.now = end

    def block(self, seconds: float) -> None:
        """Busy with one thing, then one turn."""
        self.now += seconds
        self._turn()

    def _turn(self) -> None:
        due = []
        while self._due and self._due[0][0] <= self.now:
            due.append(heapq.heappop(self._due))
        for _, _, handle, callback in due:
            if not handle.cancelled:
                callback()


@pytest.fixture
def loop() -> Loop:
    return Loop(1000.0)


@pytest.fixture
def clock(loop: Loop) -> Clock:
    return Clock(cast(asyncio.AbstractEventLoop, loop))


def alarm(loop: Loop, clock: Clock, after: float) -> tuple[Alarm, list[float]]:
    """One that notes when it rings."""
    rung: list[float] = []
    return clock.call_at(clock.time() + after, lambda: rung.append(loop.now)), rung


def test_an_idle_loop(loop: Loop, clock: Clock) -> None:
    before = clock.time()
    _, rung = alarm(loop, clock, 5.1)
    loop.wait(10.0)
    assert rung == [pytest.approx(1005.1)]
    assert clock.time() == pytest.approx(before + 10.0)


def test_a_loop_that_was_busy_in_between(loop: Loop, clock: Clock) -> None:
    """Most of its time does not count, although the alarm itself is in time."""
    _, rung = alarm(loop, clock, 5.0)
    loop.wait(1.0)
    loop.block(3.0)
    loop.wait(1.5)
    assert rung == []
    loop.wait(10.0)
    assert rung == [pytest.approx(1008.0 - MOST_S, abs=TICK_S)]


def test_a_loop_that_is_a_little_late(loop: Loop, clock: Clock) -> None:
    """That is the machine's other work, and changes nothing."""
    before = clock.time()
    for _ in range(10):
        loop.block(MOST_S - 0.01)
    assert clock.time() == pytest.approx(before + 10 * (MOST_S - 0.01))


def test_a_loop_that_is_busy_when_an_alarm_is_due(loop: Loop, clock: Clock) -> None:
    """What came meanwhile is read before: the alarm rings a turn later at the earliest."""
    _, rung = alarm(loop, clock, 5.0)
    loop.wait(4.99)
    loop.block(2.0)
    assert rung == []
    loop.wait(TICK_S)
    assert rung == [pytest.approx(1006.99 + TICK_S, abs=0.01)]


def test_an_alarm_is_put_off_once(loop: Loop, clock: Clock) -> None:
    """A loop that is late at every turn still ends what has to end."""
    _, rung = alarm(loop, clock, 1.0)
    for _ in range(20):
        loop.block(0.6)
    assert len(rung) == 1


def test_what_is_due_when_it_is_set_does_not_wait(loop: Loop, clock: Clock) -> None:
    """Nobody is late for it: what members are told of a newcomer goes in the loop's next turn."""
    _, rung = alarm(loop, clock, -1e9)
    loop.wait(0.0)
    assert rung == [1000.0]


def test_time_never_goes_back(loop: Loop, clock: Clock) -> None:
    seen = []
    for seconds in (0.1, 0.2, 5.0, 0.0, 0.24, 0.26, 3.0):
        loop.now += seconds
        seen.append(clock.time())
        loop._turn()
        seen.append(clock.time())
    assert seen == sorted(seen)


def test_a_cancelled_alarm_and_a_stopped_clock(loop: Loop, clock: Clock) -> None:
    cancelled, rung = alarm(loop, clock, 1.0)
    cancelled.cancel()
    loop.wait(2.0)
    assert rung == []
    clock.stop()
    loop.wait(2 * TICK_S)
    assert all(handle.cancelled for _, _, handle, _ in loop._due)
