"""The sessions of one pair of members: which of them seals, which open, when another one is due.

    message 2 was read ──────────────▶ current ──▶ previous ──▶ gone         by the initiator
    message 2 was sent ──▶ next ──▶ current ──▶ previous ──▶ gone            by the responder: a packet has opened

Rules are WireGuard's (whitepaper, section 6):
 1. All three open, the current one seals. A session is next until a packet of it opens: so a message 1 that was
    repeated, or forged, never disturbs what runs. A new next replaces an unconfirmed one.
 2. It began for the initiator when it sent message 1, for the responder when it read it. It seals for SEND_S and opens
    for OPEN_S.
 3. Another one is due as due() says; and while that has no answer, this one goes on.

This module knows neither keys nor messages. `now` is in seconds of CLOCK_BOOTTIME.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from candy.sealing.seals import Seen

REKEY_SENT_S: Final = 120.0
REKEY_RECEIVED_S: Final = 165.0
REKEY_EITHER_S: Final = 170.0
"""After a crossing both may think that the other began."""
SEND_S: Final = 175.0
"""Less than OPEN_S, so that what is under way still arrives."""
OPEN_S: Final = 180.0
REKEY_BYTES: Final = 1 << 36
KEEPALIVE_S: Final = 10.0
ANSWER_S: Final = 15.0
_UNSEEN: Final = Seen(0)


class Due(Enum):
    """What the current session asks for."""

    NOTHING = auto()
    REKEY = auto()
    """Another session, by a note within this one."""
    RENEW = auto()
    """Another one by HANDSHAKE: the peer may have lost this one."""
    KEEPALIVE = auto()
    """An empty packet."""


@dataclass(slots=True, eq=False)
class Session:
    """One, as both ends have agreed on it."""

    local: int
    hash: bytes
    """Of its handshake."""
    is_initiator: bool
    began: float
    commit_bytes: int
    """The longest packet that the peer wants in one piece."""
    stamp: bytes = b""
    """Of message 1, for the responder."""
    seen: Seen = _UNSEEN

    @property
    def sends_until(self) -> float:
        return self.began + SEND_S

    @property
    def opens_until(self) -> float:
        return self.began + OPEN_S


class Slots:
    """See above. Methods that return sessions return those that are gone."""

    __slots__ = ("_kept_alive_at", "current", "next", "previous")

    def __init__(self) -> None:
        self.previous: Session | None = None
        self.current: Session | None = None
        self.next: Session | None = None
        self._kept_alive_at = 0.0

    def __iter__(self) -> Iterator[Session]:
        return (session for session in (self.previous, self.current, self.next) if session is not None)

    def initiated(self, session: Session) -> list[Session]:
        """Message 2 was read: the session is confirmed. An unconfirmed next stays: handshakes may have crossed, and
        then the peer may be about to use that one."""
        gone = [] if self.previous is None else [self.previous]
        self.previous, self.current = self.current, session
        return gone

    def answered(self, session: Session) -> list[Session]:
        """Message 2 was sent."""
        gone = [] if self.next is None else [self.next]
        self.next = session
        return gone

    def confirmed(self) -> list[Session]:
        """A packet has opened under the next session."""
        gone = [] if self.previous is None else [self.previous]
        self.previous, self.current, self.next = self.current, self.next, None
        return gone

    def expired(self, now: float) -> list[Session]:
        """Those that open nothing any more."""
        gone = [session for session in self if now >= session.opens_until]
        for session in gone:
            self._remove(session)
        return gone

    def clear(self) -> list[Session]:
        """All of them."""
        gone = list(self)
        self.previous = self.current = self.next = None
        return gone

    def sealing(self, now: float) -> Session | None:
        """The one that seals."""
        return self.current if self.current is not None and now < self.current.sends_until else None

    def due(self, now: float) -> Due:
        """What is due by what the sessions have carried. KEEPALIVE is said once, and taken for sent."""
        session = self.sealing(now)
        if session is None:
            return Due.NOTHING
        seen, age_sent = session.seen, session.seen.packet_sent_at - session.began
        heard = max(other.seen.received_at for other in self)
        if 0.0 < seen.unanswered_since <= now - ANSWER_S and heard <= seen.unanswered_since:
            return Due.RENEW
        by_initiator = age_sent >= REKEY_SENT_S or seen.received_at - session.began >= REKEY_RECEIVED_S
        by_either = age_sent >= REKEY_EITHER_S or seen.bytes_sent >= REKEY_BYTES
        if by_either or (session.is_initiator and by_initiator):
            return Due.REKEY
        # What came under another one does not show in this one's: then the last packet or empty one has answered it.
        answered_at = max(seen.packet_sent_at, self._kept_alive_at)
        others = (other.seen.owes_since for other in self if other is not session)
        owed = seen.owes_since or max((owes for owes in others if owes > answered_at), default=0.0)
        if 0.0 < owed <= now - KEEPALIVE_S:
            self._kept_alive_at = now
            return Due.KEEPALIVE
        return Due.NOTHING

    def _remove(self, session: Session) -> None:
        for slot in ("previous", "current", "next"):
            if getattr(self, slot) is session:
                setattr(self, slot, None)
