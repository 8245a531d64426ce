"""What connections have carried, asked of the engine now and then: each once in PASS_S, and few at a time.

    look(connections, now) ─▶ read(connection) ─▶ tell(connection, Traffic)

What a connection has carried at its end the engine reports itself, and it can be asked for a while after that. Which
connections there are, and who wants to know, the adapter says; `now` is in seconds of a monotonic clock.
"""

from collections.abc import Callable, Collection, Mapping

from candy.relay.leases import Traffic

PASS_S = 60.0
LOOKS = 100
"""In at most so many calls all are asked."""


class Totals:
    """See above. `read` returns None for a connection that has ended, else what Engine.connection_stats() does."""

    def __init__(self, read: Callable[[int], Mapping[str, int] | None], tell: Callable[[int, Traffic], None]) -> None:
        self._read = read
        self._tell = tell
        self._left: list[int] = []
        """Of this pass, which are asked next."""
        self._share = 0
        self._next_pass = 0.0

    def look(self, connections: Collection[int], now: float) -> None:
        """Ask for the next ones."""
        if not self._left and now >= self._next_pass:
            self._left = list(connections)
            self._share = len(self._left) // LOOKS + 1
            self._next_pass = now + PASS_S
        for connection in self._left[-self._share :]:
            stats = self._read(connection) if connection in connections else None
            if stats is not None:
                self._tell(connection, Traffic(*(stats[name] for name in Traffic._fields)))
        del self._left[-self._share :]
