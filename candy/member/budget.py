"""How many probes a member sends, to all its peers together.

    take() ─▶ True: send        take() ─▶ False ─▶ again(): ask then        turn() ─▶ then a routine probe may go

Rules:
 1. PROBES_RATE a second, with PROBES_SAVED saved up. Who finds nothing left asks again once for each probe that others
    wait for: a thousand that wait look as seldom as one.
 2. Of these ROUTINE_RATE are for probes that come again and again. With many peers each has them more seldom, and what
    is new or in doubt waits for none of them.

No clock: `now` is in seconds of CLOCK_BOOTTIME.
"""

from math import inf
from typing import Final

from candy.sealing.bucket import Bucket

PROBES_RATE: Final = 40.0
PROBES_SAVED: Final = 100.0
ROUTINE_RATE: Final = 12.0


class Budget:
    """See above."""

    __slots__ = ("_again_at", "_probes", "_turn_at")

    def __init__(self) -> None:
        self._probes = Bucket(PROBES_RATE, PROBES_SAVED)
        self._again_at = -inf
        self._turn_at = -inf

    def take(self, now: float, count: int) -> bool:
        """So many probes are to be sent now; returns whether they may be."""
        return self._probes.take(now, count)

    def again(self, now: float, count: int) -> float:
        """When who may not send so many now asks again: behind all who wait."""
        self._again_at = max(now, self._again_at) + count / PROBES_RATE
        return self._again_at

    def turn(self, now: float) -> float:
        """When a routine probe may be sent, which is due now."""
        at = max(now, self._turn_at)
        self._turn_at = at + 1 / ROUTINE_RATE
        return at
