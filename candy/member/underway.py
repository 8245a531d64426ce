"""The probes of one peer that are on their way: which answer is whose, and which are lost.

    took() ─▶ under way ─ answered() ─▶ Sent                 may_send() ─▶ whether the budget has so many for it
                  └─ expired() ─▶ Sent, lost ─ answered() for LATE_S more ─▶ Sent

Rules:
 1. An answer counts that comes from where its probe was sent, and says that as many bytes arrived there.
 2. OUTSTANDING_MOST at a time. No more are sent before one of these is answered or lost.

No I/O, no clock: `now` is in seconds of CLOCK_BOOTTIME.
"""

from collections.abc import Iterator
from math import inf
from typing import Final, NamedTuple

from candy.member.budget import Budget
from candy.protocol.linking import Answer, Endpoint

OUTSTANDING_MOST: Final = 64
WAIT_S: Final = 0.1
LATE_S: Final = 3.0
"""So long an answer counts, to a probe that was given up."""


class Sent(NamedTuple):
    """A probe."""

    endpoint: Endpoint
    size: int
    """Of the IP packet in a round of sizes; 0: it is not of one."""
    length: int
    """Of its datagram."""
    at: float
    lost_at: float


class UnderWay:
    """See above.

    Args:
        budget: of probes, shared with other peers'.
    """

    __slots__ = ("_budget", "_granted", "_late", "_outstanding", "wait_until")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._outstanding: dict[bytes, Sent] = {}
        self._late: dict[bytes, Sent] = {}
        """Given up, and perhaps answered yet."""
        self._granted = 0
        """Probes that the budget has for it, from `wait_until` on."""
        self.wait_until = -inf
        """None is sent before."""

    @property
    def lost_at(self) -> float:
        """When the next one is; inf: none is under way."""
        return min((sent.lost_at for sent in self._outstanding.values()), default=inf)

    def may_send(self, now: float, count: int) -> bool:
        """Whether so many may be sent, which have to be then. If not, none is until its time has come."""
        if now < self.wait_until:
            return False
        if len(self._outstanding) + count > OUTSTANDING_MOST:
            self.wait_until = now + WAIT_S
            return False
        if self._granted < count:
            self.wait_until = self._budget.slot(now, count - self._granted)
            self._granted = count
        if now < self.wait_until:
            return False
        self._granted -= count
        return True

    def took(self, id: bytes, sent: Sent) -> None:
        """It is under way."""
        self._outstanding[id] = sent

    def answered(self, answer: Answer, source: Endpoint) -> Sent | None:
        """Which one this answers; None: none (rule 1)."""
        under_way = self._outstanding if answer.id in self._outstanding else self._late
        sent = under_way.get(answer.id)
        if sent is None or (sent.endpoint, sent.length) != (source, answer.length):
            return None
        return under_way.pop(answer.id)

    def expired(self, now: float) -> Iterator[Sent]:
        """Those that are lost, once each."""
        for id, sent in list(self._late.items()):
            if now >= sent.lost_at + LATE_S or len(self._late) > OUTSTANDING_MOST:
                del self._late[id]
        for id, sent in list(self._outstanding.items()):
            if now >= sent.lost_at:
                del self._outstanding[id]
                self._late[id] = sent
                yield sent

    def clear(self) -> None:
        """Nothing is awaited any more."""
        self._outstanding.clear()
        self._late.clear()
        self.wait_until, self._granted = -inf, 0
