"""The limit on unauthenticated connections of one source address.

    arrived ──▶ counted, oldest first ──left──▶ not counted (authenticated or gone)
                      └── more than the limit: the oldest is named, and is to be closed

Rules: a newcomer is never turned away, so a source that fills the limit with idle connections keeps no other out: its
own oldest connections pay. Every operation is O(1), and nothing is kept of a source without such a connection. The
count runs over all networks of a relay. Loopback is not counted, because a reverse proxy connects from there for all
of its members.

This module closes nothing and knows neither time nor sessions.
"""

from collections import OrderedDict

from candy.protocol.addresses import is_loopback


class Admission:
    """The unauthenticated connections of a relay, by source address."""

    __slots__ = ("_by_source", "_limit", "_source_of")

    def __init__(self, limit_per_source: int) -> None:
        self._limit = limit_per_source
        self._by_source: dict[str, OrderedDict[int, None]] = {}
        self._source_of: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._source_of)

    def arrived(self, connection: int, source: str) -> int | None:
        """Count a new connection. Returns the one to close in its place, which is not counted any more, or None."""
        if is_loopback(source):
            return None
        connections = self._by_source.setdefault(source, OrderedDict())
        connections[connection] = None
        self._source_of[connection] = source
        if len(connections) <= self._limit:
            return None
        oldest = next(iter(connections))
        self.left(oldest)
        return oldest

    def left(self, connection: int) -> None:
        """The connection has authenticated, or has ended. One that is not counted is ignored."""
        source = self._source_of.pop(connection, None)
        if source is None:
            return
        connections = self._by_source[source]
        del connections[connection]
        if not connections:
            del self._by_source[source]
