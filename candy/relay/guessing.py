"""The brake on guessing passwords: a source that fails too often has all its log-ins wait in one line.

    turn(source, now) ─▶ now: under the limit
                     │─▶ later: the time at which it is judged, TURNS_PER_S a second, in the order of their coming
                     └─▶ None: the line is full
    failed(source, now) ◀─ a wrong hash

Rules:
 1. Only a wrong hash is a failure.
 2. Over the limit a right hash waits like a wrong one. If it did not, silence would tell that a guess was wrong.
 3. All members of one office share an address. So the line is short and goes on whatever happens in it, and a device
    that has been here before (candy.relay.devices) need not join it.
 4. Loopback counts as LOOPBACK_SOURCES sources, because a reverse proxy connects from there for members of any address.

Counts and lines are the relay's, over all its networks. This module knows neither sessions nor connections; a source is
as by source_of(), `now` in seconds of a monotonic clock.
"""

from collections import OrderedDict

from candy.protocol.addresses import is_loopback
from candy.relay.allowance import KEYS, Allowance

MINUTE_S = 60.0
TURNS_PER_S = 4
LONGEST_WAIT_S = 8.0
"""A place further back in the line is not given. A member waits 10 s for an address, and may have to be probed for."""
LOOPBACK_SOURCES = 8


class FailureLimiter:
    """See the rules above. `limit` (at least 1): wrong hashes within any minute that cost a source nothing."""

    __slots__ = ("_failures", "_last_turns", "_loopback_failures")

    def __init__(self, limit: int, sources: int = KEYS) -> None:
        self._failures: Allowance[str] = Allowance(limit, MINUTE_S, sources)
        self._loopback_failures: Allowance[str] = Allowance(limit * LOOPBACK_SOURCES, MINUTE_S, 1)
        self._last_turns: OrderedDict[str, float] = OrderedDict()
        """Of the lines' last places."""

    def turn(self, source: str, now: float) -> float | None:
        """When the next log-in of `source` is judged. A time after `now` is a place in the line, taken by asking."""
        if not self._failures_of(source).is_used_up(source, now):
            return now
        per_second = TURNS_PER_S * LOOPBACK_SOURCES if is_loopback(source) else TURNS_PER_S
        turn = max(now, self._last_turns.get(source, now)) + 1 / per_second
        if turn - now > LONGEST_WAIT_S:
            return None
        self._last_turns[source] = turn
        self._last_turns.move_to_end(source)
        if len(self._last_turns) > KEYS:
            self._last_turns.popitem(last=False)
        return turn

    def failed(self, source: str, now: float) -> bool:
        """Count a wrong hash from `source`. Returns whether it has reached the limit by it."""
        return self._failures_of(source).use(source, now)

    def _failures_of(self, source: str) -> Allowance[str]:
        return self._loopback_failures if is_loopback(source) else self._failures
