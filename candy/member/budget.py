"""How many probes a member sends, to all its peers together.

    slot() ─▶ when so many may be sent, which are the caller's then        turn() ─▶ when a routine probe may
    may_compare() ─▶ whether two addresses of a peer may have some more now
    tick_of(at) ─▶ when something that may wait a little is done, together with all else of that kind

Rules:
 1. PROBES_RATE a second, with PROBES_SAVED saved up. Who asks first has his first, however many: a thousand that wait
    are not looked at before their time.
 2. Of these ROUTINE_RATE are for probes that come again and again. With many peers each has them more seldom, and what
    is new or in doubt waits for none of them.
 3. A program that wakes up pays for that more than for a probe. So what is routine has its time on a tick, which all
    peers have in common: all that is due is done by one awakening.

No clock: `now` is in seconds of CLOCK_BOOTTIME.
"""

from math import ceil, inf
from typing import Final

PROBES_RATE: Final = 40.0
PROBES_SAVED: Final = 100.0
ROUTINE_RATE: Final = 12.0
COMPARED_S: Final = 1.0
"""From one comparison to the next, which costs 2 * candy.member.trial.RECENT probes."""
TICK_S: Final = 0.5
"""From one tick to the next. Pauses of routine probes are multiples of it."""
LATE_S: Final = 0.05
"""What comes so long after a tick still belongs to it: a program wakes up a little late."""


def tick_of(at: float) -> float:
    """The tick of what is due at this time: the next one, or one that has just been."""
    return ceil((at - LATE_S) / TICK_S) * TICK_S


class Budget:
    """See above."""

    __slots__ = ("_compared_at", "_paid_at", "_turn_at")

    def __init__(self) -> None:
        self._paid_at = -inf
        """When all that was given away has come in at this rate."""
        self._turn_at = -inf
        self._compared_at = -inf

    def slot(self, now: float, count: int) -> float:
        """When so many probes may be sent: now, or behind all for which others wait."""
        at = max(now, self._paid_at + (count - PROBES_SAVED) / PROBES_RATE)
        self._paid_at = max(now, self._paid_at) + count / PROBES_RATE
        return at

    def turn(self, now: float) -> float:
        """When a routine probe may be sent, which is due now: by a tick."""
        at = max(now, self._turn_at)
        self._turn_at = at + 1 / ROUTINE_RATE
        return max(now, tick_of(at))

    def may_compare(self, now: float) -> bool:
        """Whether a comparison may begin. It has then."""
        if now < self._compared_at + COMPARED_S:
            return False
        self._compared_at = now
        return True
