"""What connections have carried, asked of the engine now and then, and told few at a time.

    look(now) ─▶ once in PASS_S: read() ─▶ rows ─▶ a share of them each time: tell(connection, Traffic)

What a connection has carried at its end its network asks for by itself. Who wants to know of a connection, and whether
it is still there, the adapter says; `now` is in seconds of a monotonic clock.
"""

import struct
from collections.abc import Callable

from candy.relay.leases import Traffic

PASS_S = 60.0
LOOKS = 100
"""In at most so many calls all are told."""
URGENT = 10
"""The same is done so many times as often where quotas depend on it."""


class Totals:
    """See above. `read` is Engine.members(), and `row` the struct format of its rows, each of which begins with the
    connection and its Traffic. `is_urgent` says whether quotas depend on it."""

    def __init__(
        self,
        read: Callable[[], bytes],
        row: str,
        tell: Callable[[int, Traffic], None],
        is_urgent: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_urgent = is_urgent
        self._read = read
        self._tell = tell
        self._row = struct.Struct(row)
        self._left = memoryview(b"")
        """Of this pass, which are told next."""
        self._share = 0
        """Bytes of it, each time."""
        self._next_pass = 0.0

    def look(self, now: float) -> None:
        """Tell the next ones."""
        if not self._left and now >= self._next_pass:
            self._left = memoryview(self._read())
            often = URGENT if self._is_urgent() else 1
            self._share = (len(self._left) // self._row.size * often // LOOKS + 1) * self._row.size
            self._next_pass = now + PASS_S / often
        for connection, *counters in self._row.iter_unpack(self._left[: self._share]):
            self._tell(connection, Traffic(*counters[:4]))
        self._left = self._left[self._share :]
