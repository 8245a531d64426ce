"""An hour of samples: rates of what was counted between two ticks, and no more of them than fit."""

import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from candy.control.samples import KEPT, STEP_S, Samples, Totals


class Timer:
    """One that waits."""

    def __init__(self, loop: "Loop", when: float, callback: Callable[[], None]) -> None:
        self._loop = loop
        self.when = when
        self.callback = callback

    def cancel(self) -> None:
        self._loop.waiting.remove(self)


class Loop:
    """A clock that a test sets, and timers that it lets run."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waiting: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self.waiting.append(Timer(self, self.now + delay, callback))
        return self.waiting[-1]

    def pass_time(self, seconds: float) -> None:
        """And have what waits happen at the end, however late that is."""
        self.now += seconds
        due, self.waiting = self.waiting, []
        for timer in due:
            assert timer.when <= self.now
            timer.callback()


class Relay:
    """What it counts."""

    def __init__(self) -> None:
        self.totals = Totals(0, 0, 0, 0, 0, 0)

    def read(self) -> Totals:
        return self.totals


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def relay() -> Relay:
    return Relay()


@pytest.fixture
def samples(loop: Loop, relay: Relay) -> Iterator[Samples]:
    samples = Samples(cast(AbstractEventLoop, loop), relay.read)
    yield samples
    samples.stop()
    assert loop.waiting == []


def test_before_the_first(samples: Samples) -> None:
    history = samples.history()
    assert (history.step_s, history.bytes_in_per_s, history.members) == (STEP_S, [], [])


def test_rates(samples: Samples, loop: Loop, relay: Relay) -> None:
    relay.totals = Totals(1000, 2000, 10, 20, 5, 3)
    loop.pass_time(STEP_S)
    # Twice as late as it should be, and so half as much by the second.
    relay.totals = Totals(2000, 2000, 20, 21, 5, 2)
    loop.pass_time(2 * STEP_S)
    history = samples.history()
    assert history.bytes_in_per_s == [200.0, 100.0]
    assert history.bytes_out_per_s == [400.0, 0.0]
    assert history.packets_in_per_s == [2.0, 1.0]
    assert history.packets_out_per_s == [4.0, 0.1]
    assert history.drops_per_s == [1.0, 0.0]
    assert history.members == [3, 2]


def test_when_the_last_one_ended(samples: Samples, loop: Loop) -> None:
    """By the clock of those who ask, also if that was set meanwhile."""
    loop.pass_time(STEP_S)
    loop.now += 2.0
    before = time.time()
    until = samples.history().until
    assert before - 2.0 <= until <= time.time() - 2.0


def test_what_counts_from_before_is_in_none(loop: Loop, relay: Relay) -> None:
    relay.totals = Totals(10**12, 10**12, 10**9, 10**9, 10**9, 1)
    samples = Samples(cast(AbstractEventLoop, loop), relay.read)
    loop.pass_time(STEP_S)
    assert (samples.history().bytes_in_per_s, samples.history().drops_per_s) == ([0.0], [0.0])


def test_an_hour_of_them(samples: Samples, loop: Loop, relay: Relay) -> None:
    for number in range(KEPT + 2):
        relay.totals = relay.totals._replace(members=number)
        loop.pass_time(STEP_S)
    assert KEPT * STEP_S == 3600
    assert samples.history().members == list(range(2, KEPT + 2))
