"""What is known of digests that came before: the replay of a log-in, and the age of an address request.

    AUTH:    is_first(digest, timestamp, wall) ─▶ True once, then False, after a restart too (candy.relay.store)
    EXPTTUN: may_keep(timestamp, source, now) ─▶ False once a stranger has had time to sniff it

Rules:
 1. An AUTH is refused if its digest came before, or could have been forgotten: what is no longer remembered is never
    believed again, whatever the clock does and however many log-ins come.
 2. An EXPTTUN can't be held against replay, because two members, and the relay itself, may send the same digest in one
    second. It is answered always. But it keeps no address SNIFFED_S after its digest came from another source, nor once
    the digest has left this relay in an answer: else who sniffs one would be given a fresh one with each answer.

Both memories are a network's own, because a digest covers a password of its network. This module knows neither sessions
nor connections; `wall` is in Unix seconds, `now` in seconds of a monotonic clock, a source as by source_of().
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from math import inf

from candy.protocol.auth import TOLERANCE_S

DIGEST_LIMIT = 1 << 17
"""AUTH digests that are remembered: twice as many as a relay has connections, unless it is told otherwise."""
KEPT_BYTES = 15
"""Of a digest, in memory and in the store: no two digests ever have them in common, and one more costs 16."""
SIGHTING_LIMIT = 1024
"""EXPTTUN digests that are remembered. The usual clock window has one for each of 601 seconds, of each password."""
SNIFFED_S = 5.0
"""How long after the first sighting of an EXPTTUN another source may still be a member that sent it in good faith."""


class ReplayMemory:
    """The AUTH digests of one network that would still be timely if they came again.

    A digest is kept under its timestamp until that leaves the window, so it is remembered for up to twice the
    tolerance when its sender's clock runs ahead. With `limit` digests those of the earliest second go before their
    time. Every operation is O(log n) amortised, n being the seconds in the window. Of a digest the first KEPT_BYTES are
    kept: there may be one for each of thousands of members.
    """

    __slots__ = ("_by_timestamp", "_count", "_limit", "_new", "_timestamps", "_tolerance", "forgotten")

    def __init__(self, tolerance: int = TOLERANCE_S, limit: int = DIGEST_LIMIT) -> None:
        self._tolerance = tolerance
        self._limit = limit
        self._by_timestamp: dict[int, dict[bytes, None]] = {}
        """Not sets, which take nearly twice the room."""
        self._timestamps: list[int] = []
        """A heap of the keys."""
        self._count = 0
        self._new: dict[int, list[bytes]] = {}
        """Of these, the digests that the store has not been given, by timestamp."""
        self.forgotten = 0
        """The latest timestamp of a digest that was forgotten, 0 for none. Those of later ones are all remembered."""

    def __len__(self) -> int:
        return self._count

    def is_first(self, digest: bytes, timestamp: int, wall: int) -> bool:
        """Whether this digest is new; it is remembered from now on. For timely and right digests only.

        False as well for a digest that could have been forgotten, which is one whose timestamp is `forgotten` or
        earlier.
        """
        while self._timestamps and self._timestamps[0] < wall - self._tolerance:
            self._forget_earliest()
        if timestamp <= self.forgotten:
            return False
        digest = digest[:KEPT_BYTES]
        if digest in self._by_timestamp.get(timestamp, ()):
            return False
        self._remember(digest, timestamp)
        self._new.setdefault(timestamp, []).append(digest)
        while self._count > self._limit:
            self._forget_earliest()
        # With the memory full of later ones it is forgotten at once. To let it in would be to let its replays in.
        return timestamp > self.forgotten

    @property
    def earliest(self) -> int:
        """The first timestamp of which digests are remembered."""
        return self._timestamps[0] if self._timestamps else self.forgotten + 1

    def changes(self) -> list[tuple[int, bytes]]:
        """What is new since the last call: timestamp and digest."""
        new, self._new = self._new, {}
        return [(timestamp, digest) for timestamp, digests in new.items() for digest in digests]

    def rows(self) -> list[tuple[int, bytes]]:
        """Everything, in the form of changes() and instead of it."""
        self._new = {}
        return [(timestamp, digest) for timestamp, digests in self._by_timestamp.items() for digest in digests]

    def restore(self, digests: Iterable[tuple[int, bytes]], forgotten: int, wall: int) -> None:
        """Take back what was kept."""
        self.forgotten = max(self.forgotten, forgotten)
        for timestamp, whole in digests:
            digest = whole[:KEPT_BYTES]
            if timestamp >= wall - self._tolerance and digest not in self._by_timestamp.get(timestamp, ()):
                self._remember(digest, timestamp)
        while self._count > self._limit:
            self._forget_earliest()

    def _remember(self, digest: bytes, timestamp: int) -> None:
        if timestamp not in self._by_timestamp:
            self._by_timestamp[timestamp] = {}
            heapq.heappush(self._timestamps, timestamp)
        self._by_timestamp[timestamp][digest] = None
        self._count += 1

    def _forget_earliest(self) -> None:
        timestamp = heapq.heappop(self._timestamps)
        self._new.pop(timestamp, None)
        self._count -= len(self._by_timestamp.pop(timestamp))
        self.forgotten = max(self.forgotten, timestamp)


class Sightings:
    """When, and from where, each EXPTTUN digest of one network first came.

    With `limit` of them the one that came first is forgotten, and whatever is as old as a forgotten one is no longer
    taken for new.
    """

    __slots__ = ("_first", "_forgotten", "_limit")

    def __init__(self, limit: int = SIGHTING_LIMIT) -> None:
        self._limit = limit
        self._first: OrderedDict[bytes, tuple[float, str, int]] = OrderedDict()
        """By digest: time, source and timestamp."""
        self._forgotten: float = -inf

    def __len__(self) -> int:
        return len(self._first)

    def may_keep(self, digest: bytes, timestamp: int, source: str, now: float) -> bool:
        """Whether a right EXPTTUN of `source` may be of its own making, as far as that shows."""
        if timestamp <= self._forgotten:
            return False
        since, first, _ = self._note(digest, now, source, timestamp)
        return first == source or now - since <= SNIFFED_S

    def answered(self, digest: bytes, timestamp: int) -> None:
        """The relay itself has sent this digest."""
        self._note(digest, -inf, "", timestamp)

    def _note(self, digest: bytes, now: float, source: str, timestamp: int) -> tuple[float, str, int]:
        first = self._first.setdefault(digest, (now, source, timestamp))
        if len(self._first) > self._limit:
            _, (_, _, gone) = self._first.popitem(last=False)
            self._forgotten = max(self._forgotten, gone)
        return first
