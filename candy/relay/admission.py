"""Admission: how many connections of one source address may be unauthenticated at a time.

    arrived ──▶ counted, oldest first ──left──▶ not counted (authenticated or gone)
                      └── more than the limit: the oldest is named, and is to be closed

Rules: a newcomer is never turned away, so that whoever fills the limit with idle connections keeps nobody
out; its own oldest ones pay. Every operation is O(1), and nothing is kept of a source without such a
connection. The count runs over all networks of a server. Loopback is not counted, for a reverse proxy sits there and
all members share it. This module closes nothing and knows neither time
nor sessions.
"""

from collections import OrderedDict

from candy.protocol.auth import is_loopback

LIMIT_PER_SOURCE = 64


class Admission:
    """The unauthenticated connections of a server, by source address."""

    __slots__ = ("_by_source", "_limit", "_source_of")

    def __init__(self, limit_per_source: int = LIMIT_PER_SOURCE) -> None:
        self._limit = limit_per_source
        self._by_source: dict[str, OrderedDict[int, None]] = {}
        self._source_of: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._source_of)

    def arrived(self, connection: int, source: str) -> int | None:
        """Count a new connection. Returns the one to close for it, which counts no more, or None."""
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
        """The connection authenticated, or is gone; nothing happens for one that is not counted."""
        source = self._source_of.pop(connection, None)
        if source is None:
            return
        connections = self._by_source[source]
        del connections[connection]
        if not connections:
            del self._by_source[source]
