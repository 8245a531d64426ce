"""The limit on unauthenticated connections of one source.

    arrived ──▶ silent ──heard──▶ heard ──left──▶ not counted (authenticated or gone)
                  └── more than the limit: one of these is named, and is to be closed; one of those if none is silent

Rules: a source is as by source_of(). A newcomer is never turned away, so a source that fills the limit with idle
connections keeps no other out. Who pays for the newcomer is drawn by lot among those that have not said anything yet.
A member's log-in is silent for milliseconds and takes seconds if the way is long, so it outlives the idle connections
of a neighbour behind the same address, however fast these come; and nobody can tell who will be next. Every operation
is O(1), and nothing is kept of a source without such a connection. The count runs over all networks of a relay.
Loopback is not counted, because a reverse proxy may connect from there for all of its members.

This module closes nothing, draws no random number, and knows neither time nor sessions.
"""

from collections.abc import Callable

from candy.protocol.addresses import is_loopback, source_of


class _Lot:
    """Connections, of which one can be drawn."""

    __slots__ = ("_members", "_places")

    def __init__(self) -> None:
        self._members: list[int] = []
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, connection: int) -> bool:
        return connection in self._places

    def __getitem__(self, place: int) -> int:
        return self._members[place]

    def add(self, connection: int) -> None:
        self._places[connection] = len(self._members)
        self._members.append(connection)

    def remove(self, connection: int) -> None:
        place, last = self._places.pop(connection), self._members.pop()
        if last != connection:
            self._members[place] = last
            self._places[last] = place


class _Source:
    """The unauthenticated connections of one source."""

    __slots__ = ("heard", "silent")

    def __init__(self) -> None:
        self.silent = _Lot()
        self.heard = _Lot()

    def __len__(self) -> int:
        return len(self.silent) + len(self.heard)

    def remove(self, connection: int) -> None:
        (self.silent if connection in self.silent else self.heard).remove(connection)


class Admission:
    """The unauthenticated connections of a relay, by source.

    Args:
        limit_per_source: how many of each are allowed.
        draw: a random number from 0 to one below its argument.
    """

    __slots__ = ("_by_source", "_draw", "_limit", "_source_of")

    def __init__(self, limit_per_source: int, draw: Callable[[int], int]) -> None:
        self._limit = limit_per_source
        self._draw = draw
        self._by_source: dict[str, _Source] = {}
        self._source_of: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._source_of)

    def arrived(self, connection: int, source: str, *, heard: bool = False) -> int | None:
        """Count a new connection. Returns the one to close in its place, which is not counted any more, or None.

        Args:
            source: an IP address as text, or what stands for it.
            heard: it has said something already.
        """
        if is_loopback(source):
            return None
        source = source_of(source)
        victim = self._victim(source)
        if victim is not None:
            self.left(victim)
        connections = self._by_source.setdefault(source, _Source())
        (connections.heard if heard else connections.silent).add(connection)
        self._source_of[connection] = source
        return victim

    def heard(self, connection: int) -> None:
        """The connection has said something. One that is not counted is ignored."""
        source = self._source_of.get(connection)
        if source is None:
            return
        connections = self._by_source[source]
        connections.remove(connection)
        connections.heard.add(connection)

    def left(self, connection: int) -> None:
        """The connection has authenticated, or has ended. One that is not counted is ignored."""
        source = self._source_of.pop(connection, None)
        if source is None:
            return
        connections = self._by_source[source]
        connections.remove(connection)
        if not len(connections):
            del self._by_source[source]

    def _victim(self, source: str) -> int | None:
        connections = self._by_source.get(source)
        if connections is None or len(connections) < self._limit:
            return None
        candidates = connections.silent if len(connections.silent) else connections.heard
        return candidates[self._draw(len(candidates))]
