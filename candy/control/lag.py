"""How late an event loop is: what a timer is late, everything else is.

    Lag(loop): a tick each TICK_S ─▶ histogram()

This module does not know what the loop is busy with.
"""

import asyncio

from candy.control.metrics import Histogram

TICK_S = 0.5
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Lag:
    """What has been counted since it was made; stop() ends it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum = 0.0
        self._timer = loop.call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """Let the loop go."""
        self._timer.cancel()

    def histogram(self) -> Histogram:
        """Seconds."""
        return Histogram(bounds=BOUNDS_S, counts=tuple(self._counts), sum=self._sum)

    def _tick(self) -> None:
        self.count(self._loop.time() - self._timer.when())
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def count(self, late: float) -> None:
        """One more."""
        late = max(0.0, late)
        self._sum += late
        self._counts[sum(late > bound for bound in BOUNDS_S)] += 1
