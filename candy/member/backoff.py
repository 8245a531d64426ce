"""How long to wait before the next attempt to connect, once all relays that a member knows were tried.

    failure in a row     1          2         3          4         5           6, 7, …
    lost, unreachable    1 to 1.5   2 to 3    2.7 to 4   2.7 to 4  2.7 to 4    2.7 to 4    seconds
    refused              1 to 1.5   2 to 3    4 to 6     8 to 12   16 to 24    20 to 30    seconds
    replaced             8 to 12    16 to 24  32 to 48   64 to 96  128 to 192  200 to 300  seconds

Rules: never under `LEAST_S`; a connection that held, and a failure of another row, start the row anew: a
relay that was away for an hour and then refuses once is tried again soon. Only the row of the replaced goes on
after a failure of another one, because the machine that replaced this member is still there. The width of a step
spreads members that all lost the same relay.
"""

from collections.abc import Callable
from enum import Enum

LEAST_S = 1.0
LEAST_REPLACED_S = 8.0
MOST_UNREACHABLE_S = 4.0
"""A relay that comes back has its members back within 5 s."""
MOST_REFUSED_S = 30.0
MOST_REPLACED_S = 300.0
GROWTH = 2.0
SPREAD = 1.5
"""Longest over shortest delay of one step."""


class Row(Enum):
    """Which sort of failure; the values are the shortest and longest delay in seconds."""

    LOST = (LEAST_S, MOST_UNREACHABLE_S)
    REFUSED = (LEAST_S, MOST_REFUSED_S)
    """The relay was reached, and ended the connection right after the handshake."""
    REPLACED = (LEAST_REPLACED_S, MOST_REPLACED_S)
    """Another connection with this member's VMAC took its address over: the two must not do that in turn."""


class Backoff:
    """The rows of failures so far.

    Args:
        random: a number in [0, 1), uniformly distributed.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._row = Row.LOST
        self._failures = 0
        self.replacements = 0
        """In a row."""

    def held(self) -> None:
        """A connection was confirmed, and was not replaced."""
        self._failures = 0
        self.replacements = 0

    def next_delay(self, row: Row) -> float:
        """Count one more failure, or the end of a connection; seconds to wait."""
        if row is not self._row:
            self._row = row
            self._failures = self.replacements if row is Row.REPLACED else 0
        least, most = row.value
        # The exponent is bounded too: a float ends at 2**1024, which is an hour of failures.
        shortest = min(most / SPREAD, least * GROWTH ** min(self._failures, 16))
        self._failures += 1
        self.replacements += row is Row.REPLACED
        return shortest * (1 + (SPREAD - 1) * self._random())
