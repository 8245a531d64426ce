"""An allowance: so many events within any window of time, for each of many keys.

    use(key, now) ─▶ counted; is_used_up(key, now) ─▶ whether `limit` were used within the last `window_s`

What a key is (a source, a device) and what follows from a used-up allowance, its owner knows. `now` is in seconds of a
monotonic clock.
"""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

Key = TypeVar("Key")

KEYS = 1024
"""That are remembered; the one whose last use is the longest ago is forgotten first."""


class Allowance(Generic[Key]):
    """At most `limit` (at least 1) uses within any `window_s` for each key."""

    __slots__ = ("_by_key", "_keys", "_limit", "_window_s")

    def __init__(self, limit: int, window_s: float, keys: int = KEYS) -> None:
        self._limit = limit
        self._window_s = window_s
        self._keys = keys
        self._by_key: OrderedDict[Key, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_key)

    def is_used_up(self, key: Key, now: float) -> bool:
        """Whether the last `limit` uses all lie within the window."""
        times = self._by_key.get(key)
        return times is not None and len(times) == self._limit and now - times[0] < self._window_s

    def use(self, key: Key, now: float) -> bool:
        """Count a use, also beyond the limit. Returns whether this one has used the allowance up."""
        was_used_up = self.is_used_up(key, now)
        times = self._by_key.setdefault(key, deque(maxlen=self._limit))
        self._by_key.move_to_end(key)
        if len(self._by_key) > self._keys:
            self._by_key.popitem(last=False)
        times.append(now)
        return not was_used_up and self.is_used_up(key, now)
