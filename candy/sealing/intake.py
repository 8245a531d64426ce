"""Which of the messages 1 that come a member looks at: each costs it key exchanges, and any member can send them.

    came(source) ─▶ within the source's allowance? ─▶ a place in line ─▶ ready(): one of each source in turn
                                                 └── dropped: handshake_limit        └─▶ keep(), until it is told who

Rules:
 1. SOURCE_RATE a second of one source, RATE in all. What is beyond the latter waits, one message of each source (its
    last), for WAIT_S at most; WAIT_MOST sources do.
 2. Of a source whose key is not known one message is kept for KEEP_S while the relay is asked, KEPT_MOST in all.
"""

from collections import OrderedDict
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from candy.protocol.handshake import Message
from candy.sealing.bucket import Bucket
from candy.sealing.slots import Session

SOURCE_RATE: Final = 2.0
RATE: Final = 200.0
WAIT_S: Final = 5.0
"""Behind that its sender has sent another."""
WAIT_MOST: Final = 1024
KEEP_S: Final = 1.0
KEPT_MOST: Final = 64
SOURCES_MOST: Final = 4096
"""Whose allowances are remembered; an older one is full again, if it is not of half a second ago."""


class Arrival(NamedTuple):
    """A message 1."""

    message: Message
    within: Session | None
    """The session that it came in as a note."""
    at: float


class Intake:
    """See above. `now` is in seconds of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._bucket = Bucket(RATE, RATE)
        self._sources: OrderedDict[IPv4Address, Bucket] = OrderedDict()
        self._waiting: OrderedDict[IPv4Address, Arrival] = OrderedDict()
        self._kept: OrderedDict[IPv4Address, Arrival] = OrderedDict()

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def came(self, arrival: Arrival) -> bool:
        """Take it into the line; False: it is beyond a limit."""
        source = arrival.message.source
        bucket = self._sources.setdefault(source, Bucket(SOURCE_RATE, SOURCE_RATE))
        self._sources.move_to_end(source)
        if len(self._sources) > SOURCES_MOST:
            self._sources.popitem(last=False)
        if not bucket.take(arrival.at) or (source not in self._waiting and len(self._waiting) == WAIT_MOST):
            return False
        # In the place of the one before, if there is one.
        self._waiting[source] = arrival
        return True

    def ready(self, now: float) -> Iterator[Arrival]:
        """Those that are to be looked at now."""
        while self._waiting:
            arrival = next(iter(self._waiting.values()))
            if now - arrival.at < WAIT_S and not self._bucket.take(now):
                return
            del self._waiting[arrival.message.source]
            if now - arrival.at < WAIT_S:
                yield arrival

    def keep(self, arrival: Arrival) -> bool:
        """Keep it until its source is told of; False: there are too many."""
        source = arrival.message.source
        for old in [kept for kept, other in self._kept.items() if arrival.at - other.at >= KEEP_S]:
            del self._kept[old]
        if source not in self._kept and len(self._kept) == KEPT_MOST:
            return False
        self._kept[source] = arrival
        return True

    def kept(self, source: IPv4Address, now: float) -> Arrival | None:
        """The one that was kept of this source; it is given once."""
        arrival = self._kept.pop(source, None)
        return arrival if arrival is not None and now - arrival.at < KEEP_S else None

    def clear(self) -> None:
        """Forget what waits and is kept."""
        self._waiting.clear()
        self._kept.clear()
