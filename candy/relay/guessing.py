"""The brake on guessing passwords: how much later each further wrong hash of one source is answered.

    failed(source, now) ─▶ 0.0 for the first `limit` within 60 s ─▶ 2.0, 2.1, … 10.0 seconds beyond

Rule: only a wrong hash is a failure, and failures never keep a right hash out: they delay the close that tells the
source that a hash was wrong. All members of one office share an address.

The count is the relay's, over all its networks. This module knows neither sessions nor connections; `now` is in
seconds of a monotonic clock.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

from candy.protocol.addresses import is_loopback


@dataclass(slots=True)
class _Failures:
    times: deque[float]
    excess: int = 0


class FailureLimiter:
    """Counts wrong hashes per source address and says by how much the close after one is delayed.

    The first `limit` (at least 1) within any 60 s cost nothing. The next delay by `FIRST_DELAY_S`, each
    further one a little more up to `MAX_DELAY_S`, until the rate falls below the limit again. At most
    `sources` addresses are remembered; the one that failed longest ago goes. Loopback is exempt, because a
    reverse proxy connects from there.
    """

    WINDOW_S = 60.0
    FIRST_DELAY_S = 2.0
    DELAY_STEP_S = 0.1
    MAX_DELAY_S = 10.0

    __slots__ = ("_by_source", "_limit", "_sources")

    def __init__(self, limit: int, sources: int = 1024) -> None:
        self._limit = limit
        self._sources = sources
        self._by_source: OrderedDict[str, _Failures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_source)

    def failed(self, source: str, now: float) -> float:
        """Count a wrong hash from `source`, an IP address as text. Returns the delay in seconds, or 0.0."""
        if is_loopback(source):
            return 0.0
        failures = self._by_source.setdefault(source, _Failures(deque(maxlen=self._limit)))
        self._by_source.move_to_end(source)
        if len(self._by_source) > self._sources:
            self._by_source.popitem(last=False)
        times = failures.times
        is_over = len(times) == self._limit and now - times[0] < self.WINDOW_S
        times.append(now)
        if not is_over:
            failures.excess = 0
            return 0.0
        delay = self.FIRST_DELAY_S + self.DELAY_STEP_S * failures.excess
        failures.excess += 1
        return min(delay, self.MAX_DELAY_S)
