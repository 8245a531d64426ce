"""The relay's clock for everything that waits for a peer: it stands still while the relay keeps its peers waiting.

    loop.time() ─▶ a tick every TICK_S ─▶ time(): of the time between two ticks at most MOST_S counts
                                          call_at(when): by this clock

Rules:
 1. A loop that is busy for seconds, with a thousand log-ins at once or a machine that stalls, can't read what its peers
    have sent. This time is not theirs, so it counts for no deadline.
 2. A deadline that is noticed late is put off, once and by a tick: the loop reads first what is there.

This module knows neither connections nor networks.
"""

import asyncio
from collections.abc import Callable

TICK_S = 0.25
MOST_S = 0.5
"""More than TICK_S, because a tick is a little late on every machine that has something to do."""
LATE_S = 0.05


class Clock:
    """Seconds that the relay has waited for its peers, from the loop's time at the start on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lag = 0.0
        self._ticked = loop.time()
        self._ticking = loop.call_later(TICK_S, self._tick)

    def time(self) -> float:
        """Now. It never goes back."""
        return self._ticked - self._lag + min(self.loop.time() - self._ticked, MOST_S)

    def call_at(self, when: float, callback: Callable[[], object]) -> "Alarm":
        """Call once this clock shows `when`."""
        return Alarm(self, when, callback)

    def stop(self) -> None:
        """Let the loop go."""
        self._ticking.cancel()

    def _tick(self) -> None:
        now = self.loop.time()
        self._lag += max(0.0, now - self._ticked - MOST_S)
        self._ticked = now
        self._ticking = self.loop.call_later(TICK_S, self._tick)


class Alarm:
    """A call that a Clock will make, unless it is cancelled before."""

    def __init__(self, clock: Clock, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self._clock = clock
        self._callback = callback
        self._is_put_off = False
        # What is due already is not noticed late.
        self._arm(max(0.0, when - clock.time()))

    def cancel(self) -> None:
        self._handle.cancel()

    def _arm(self, delay: float) -> None:
        self._handle = self._clock.loop.call_later(delay, self._ring)

    def _ring(self) -> None:
        left = self.when - self._clock.time()
        if left > 0:
            self._arm(left)
        elif self._clock.loop.time() - self._handle.when() > LATE_S and not self._is_put_off:
            self._is_put_off = True
            self._arm(TICK_S)
        else:
            self._callback()
