"""The last hour of a relay, in samples: what it carried in each step of time.

    Samples(loop, read): a tick each STEP_S ─▶ take() ─▶ KEPT of them ─▶ history()

Rule: a sample is what came between two ticks, by the second, however late a tick was. The oldest make room for new
ones: all of them together take a quarter of a megabyte, and no more.

This module does not know where the figures come from.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from candy.control.model import History

STEP_S = 5.0
KEPT = 720
"""An hour."""


class Totals(NamedTuple):
    """What a relay has counted since its start, and who is in."""

    bytes_in: int
    bytes_out: int
    packets_in: int
    packets_out: int
    drops: int
    members: int


class _Sample(NamedTuple):
    bytes_in_per_s: float
    bytes_out_per_s: float
    packets_in_per_s: float
    packets_out_per_s: float
    drops_per_s: float
    members: int


class Samples:
    """What has been seen since it was made; stop() ends it.

    Args:
        read: gives the totals of the moment.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, read: Callable[[], Totals]) -> None:
        self._loop = loop
        self._read = read
        self._taken: deque[_Sample] = deque(maxlen=KEPT)
        self._at = loop.time()
        self._before = read()
        self._timer = loop.call_later(STEP_S, self._tick)

    def stop(self) -> None:
        """Let the loop go."""
        self._timer.cancel()

    def history(self) -> History:
        """All that are kept."""
        taken = self._taken
        ago = self._loop.time() - self._at
        return History(
            step_s=STEP_S,
            until=time.time() - ago,
            bytes_in_per_s=[sample.bytes_in_per_s for sample in taken],
            bytes_out_per_s=[sample.bytes_out_per_s for sample in taken],
            packets_in_per_s=[sample.packets_in_per_s for sample in taken],
            packets_out_per_s=[sample.packets_out_per_s for sample in taken],
            drops_per_s=[sample.drops_per_s for sample in taken],
            members=[sample.members for sample in taken],
        )

    def _tick(self) -> None:
        self.take(self._loop.time(), self._read())
        self._timer = self._loop.call_later(STEP_S, self._tick)

    def take(self, now: float, totals: Totals) -> None:
        """One more sample, which ends `now`, by the loop's clock."""
        seconds, before = now - self._at, self._before

        def per_second(after: int, before: int) -> float:
            # A tenth is as much as anybody sees, and half of the answer's text.
            return round((after - before) / seconds, 1)

        sample = _Sample(
            bytes_in_per_s=per_second(totals.bytes_in, before.bytes_in),
            bytes_out_per_s=per_second(totals.bytes_out, before.bytes_out),
            packets_in_per_s=per_second(totals.packets_in, before.packets_in),
            packets_out_per_s=per_second(totals.packets_out, before.packets_out),
            drops_per_s=per_second(totals.drops, before.drops),
            members=totals.members,
        )
        self._taken.append(sample)
        self._at, self._before = now, totals
