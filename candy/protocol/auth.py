"""Who may be believed: digests, the clock window, the memory of replays, the limit on failures.

Rules:
 1. A digest is SHA-256 over the password and the fields of its message, and is compared in constant time.
 2. A timestamp is believed within a tolerance on both sides of the relay's clock.
 3. Only AUTH digests can be held against replay. EXPTTUN's covers password and time alone, so that two
    members, and the relay itself, may rightly send the same one in the same second.
 4. Only a wrong hash is a failure, and failures never keep a right hash out: they delay how fast a wrong one
    is told so by the closing. One office shares one address.

Time is an argument: `wall` in Unix seconds, `now` in seconds of a monotonic clock. This module knows neither
connections nor addresses of the pool.
"""

import hmac
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address

TOLERANCE_S = 300
"""How far a timestamp may lie from the relay's clock, in seconds, unless set otherwise."""


def auth_digest(password: bytes, ip: IPv4Address, timestamp: int) -> bytes:
    """The 32 bytes of an AUTH: H(password ‖ ip ‖ timestamp)."""
    return sha256(password + ip.packed + _int64(timestamp)).digest()


def expttun_digest(password: bytes, timestamp: int) -> bytes:
    """The 32 bytes of an EXPTTUN: H(password ‖ timestamp). The address in it is not covered."""
    return sha256(password + _int64(timestamp)).digest()


def vmac_digest(password: bytes, vmac: bytes, timestamp: int) -> bytes:
    """The 32 bytes of a VMAC: H(password ‖ vmac ‖ timestamp)."""
    return sha256(password + vmac + _int64(timestamp)).digest()


def digest_matches(expected: bytes, received: bytes) -> bool:
    """Whether both are the same, found out in a time that does not depend on where they differ."""
    return hmac.compare_digest(expected, received)


def is_timely(timestamp: int, wall: int, tolerance: int = TOLERANCE_S) -> bool:
    """Whether a timestamp lies within `tolerance` seconds of `wall`, the bounds included."""
    return abs(timestamp - wall) <= tolerance


def _int64(timestamp: int) -> bytes:
    return timestamp.to_bytes(8, "big", signed=True)


def is_loopback(source: str) -> bool:
    """Whether an IP address, as text, is this machine: a reverse proxy sits there, for members of everywhere."""
    return source == "::1" or source.startswith(("127.", "::ffff:127."))


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
        # A clock that jumped would make this long: then what is there is looked through instead.
        if len(passed) > len(self._by_timestamp):
            passed = [timestamp for timestamp in self._by_timestamp if timestamp < oldest]
        for timestamp in passed:
            self._by_timestamp.pop(timestamp, None)
        # Follows a clock that is set back too, so that what is remembered then is swept later as well.
        self._oldest = oldest


@dataclass(slots=True)
class _Failures:
    times: deque[float]
    excess: int = 0


class FailureLimiter:
    """Counts wrong hashes per source address and says how long the closing after one is to be delayed.

    The first `limit` (at least 1) within any 60 s cost nothing. The next delay by `FIRST_DELAY_S`, each
    further one a little more up to `MAX_DELAY_S`, until the rate falls below the limit again. At most
    `sources` addresses are remembered; the one that failed longest ago goes. Loopback is exempt, for a
    reverse proxy sits there.
    """

    WINDOW_S = 60.0
    FIRST_DELAY_S = 2.0
    DELAY_STEP_S = 0.1
    MAX_DELAY_S = 10.0

    __slots__ = ("_by_source", "_limit", "_sources")

    def __init__(self, limit: int = 60, sources: int = 1024) -> None:
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
