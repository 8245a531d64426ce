"""How many probes a member sends, to all its peers together.

    slot() ─▶ when so many may be sent, which are the caller's then        turn() ─▶ when a routine probe may

Rules:
 1. PROBES_RATE a second, with PROBES_SAVED saved up. Who asks first has his first, however many: a thousand that wait
    are not looked at before their time.
 2. Of these ROUTINE_RATE are for probes that come again and again. With many peers each has them more seldom, and what
    is new or in doubt waits for none of them.

No clock: `now` is in seconds of CLOCK_BOOTTIME.
"""

from math import inf
from typing import Final

PROBES_RATE: Final = 40.0
PROBES_SAVED: Final = 100.0
ROUTINE_RATE: Final = 12.0


class Budget:
    """See above."""

    __slots__ = ("_paid_at", "_turn_at")

    def __init__(self) -> None:
        self._paid_at = -inf
        """When all that was given away has come in at this rate."""
        self._turn_at = -inf

    def slot(self, now: float, count: int) -> float:
        """When so many probes may be sent: now, or behind all for which others wait."""
        at = max(now, self._paid_at + (count - PROBES_SAVED) / PROBES_RATE)
        self._paid_at = max(now, self._paid_at) + count / PROBES_RATE
        return at

    def turn(self, now: float) -> float:
        """When a routine probe may be sent, which is due now."""
        at = max(now, self._turn_at)
        self._turn_at = at + 1 / ROUTINE_RATE
        return at
