"""How long to wait before the next attempt to connect.

    failure in a row     1          2         3          4         5           6, 7, …
    lost, unreachable    1 to 1.5   2 to 3    2.7 to 4   2.7 to 4  2.7 to 4    2.7 to 4    seconds
    refused              1 to 1.5   2 to 3    4 to 6     8 to 12   16 to 24    20 to 30    seconds

Rules: never under `LEAST_S`; a connection that held, and a failure of the other sort, start the row anew: a
relay that was away for an hour and then refuses once is tried again soon. The width of a step spreads members
that all lost the same relay.
"""

from collections.abc import Callable

LEAST_S = 1.0
MOST_UNREACHABLE_S = 4.0
"""A relay that comes back has its members back within 5 s."""
MOST_REFUSED_S = 30.0
GROWTH = 2.0
SPREAD = 1.5
"""Longest over shortest delay of one step."""


class Backoff:
    """The row of failures so far.

    Args:
        random: a number in [0, 1), uniformly distributed.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._refused = False
        self._failures = 0

    def held(self) -> None:
        """A connection was confirmed."""
        self._failures = 0

    def next_delay(self, *, refused: bool) -> float:
        """Count one more failure, or the end of a connection; seconds to wait.

        Args:
            refused: the relay was reached, and ended the connection right after the handshake.
        """
        if refused != self._refused:
            self._refused = refused
            self._failures = 0
        shortest = (MOST_REFUSED_S if refused else MOST_UNREACHABLE_S) / SPREAD
        # The exponent is bounded too: a float ends at 2**1024, which is an hour of failures.
        shortest = min(shortest, LEAST_S * GROWTH ** min(self._failures, 16))
        self._failures += 1
        return shortest * (1 + (SPREAD - 1) * self._random())
