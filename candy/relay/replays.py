"""The memory of AUTH digests, by which a replay is told from a log-in.

    is_first(digest, timestamp, wall) ─▶ True once, False for as long as the timestamp stays timely

The memory is a network's own, because a digest covers its network's password. This module knows neither sessions nor
connections; `wall` is in Unix seconds.
"""

from collections.abc import Sequence

from candy.protocol.auth import TOLERANCE_S


class ReplayMemory:
    """The AUTH digests of one network that would still be timely if they came again.

    A digest is kept under its timestamp until that leaves the window, so it is remembered for up to twice the
    tolerance when its sender's clock runs ahead. Each second that passes drops one second's digests: O(1)
    amortised.
    """

    __slots__ = ("_by_timestamp", "_oldest", "_tolerance")

    def __init__(self, tolerance: int = TOLERANCE_S) -> None:
        self._tolerance = tolerance
        self._by_timestamp: dict[int, set[bytes]] = {}
        self._oldest = 0

    def __len__(self) -> int:
        return sum(len(digests) for digests in self._by_timestamp.values())

    def is_first(self, digest: bytes, timestamp: int, wall: int) -> bool:
        """Whether this digest is new; it is remembered from now on. For timely and right digests only."""
        self._forget(wall)
        digests = self._by_timestamp.setdefault(timestamp, set())
        if digest in digests:
            return False
        digests.add(digest)
        return True

    def _forget(self, wall: int) -> None:
        oldest = wall - self._tolerance
        passed: Sequence[int] = range(self._oldest, oldest)
        # After a clock that jumped this would be long: then the digests at hand are gone through instead.
        if len(passed) > len(self._by_timestamp):
            passed = [timestamp for timestamp in self._by_timestamp if timestamp < oldest]
        for timestamp in passed:
            self._by_timestamp.pop(timestamp, None)
        # Follows a clock that is set back too, so that digests remembered then are swept later as well.
        self._oldest = oldest
