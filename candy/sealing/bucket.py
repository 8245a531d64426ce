"""A token bucket: so many events a second, and so many saved up.

Of a relay's allowances this is the member's side: who keeps within them loses nothing there. `now` is in seconds of one
monotonic clock.
"""


class Bucket:
    """Full at first.

    Args:
        rate: tokens a second.
        most: that are saved up.
    """

    __slots__ = ("_at", "_left", "_most", "_rate")

    def __init__(self, rate: float, most: float) -> None:
        self._rate = rate
        self._most = self._left = most
        self._at = 0.0

    def left(self, now: float) -> int:
        """Whole tokens."""
        self._left = min(self._most, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return int(self._left)

    def take(self, now: float, count: int = 1) -> bool:
        """Take so many, if there are as many; returns whether there were."""
        if self.left(now) < count:
            return False
        self._left -= count
        return True
