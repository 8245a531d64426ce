"""The memory of AUTH digests, by which a replay is told from a log-in.

    is_first(digest, timestamp, wall) ─▶ True once, then False

Rule: an AUTH is refused if its digest came before, or could have been forgotten. What is no longer remembered is never
believed again, whatever the clock does and however many log-ins come.

The memory is a network's own, because a digest covers its network's password. This module knows neither sessions nor
connections; `wall` is in Unix seconds.
"""

import heapq
from math import inf

from candy.protocol.auth import TOLERANCE_S

DIGEST_LIMIT = 1 << 17
"""AUTH digests that are remembered: twice as many as a relay has connections, unless it is told otherwise."""


class ReplayMemory:
    """The AUTH digests of one network that would still be timely if they came again.

    A digest is kept under its timestamp until that leaves the window, so it is remembered for up to twice the
    tolerance when its sender's clock runs ahead. With `limit` digests those of the earliest second go before their
    time. Every operation is O(log n) amortised, n being the seconds in the window.
    """

    __slots__ = ("_by_timestamp", "_count", "_limit", "_timestamps", "_tolerance", "forgotten")

    def __init__(self, tolerance: int = TOLERANCE_S, limit: int = DIGEST_LIMIT) -> None:
        self._tolerance = tolerance
        self._limit = limit
        self._by_timestamp: dict[int, set[bytes]] = {}
        self._timestamps: list[int] = []
        """A heap of the keys."""
        self._count = 0
        self.forgotten: float = -inf
        """The latest timestamp of a digest that was forgotten. Those of later ones are all remembered."""

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
        digests = self._by_timestamp.get(timestamp)
        if digests is None:
            digests = self._by_timestamp[timestamp] = set()
            heapq.heappush(self._timestamps, timestamp)
        elif digest in digests:
            return False
        digests.add(digest)
        self._count += 1
        while self._count > self._limit:
            self._forget_earliest()
        # With the memory full of later ones it is forgotten at once. To let it in would be to let its replays in.
        return timestamp > self.forgotten

    def _forget_earliest(self) -> None:
        timestamp = heapq.heappop(self._timestamps)
        self._count -= len(self._by_timestamp.pop(timestamp))
        self.forgotten = max(self.forgotten, timestamp)
