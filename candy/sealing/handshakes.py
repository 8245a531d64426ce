"""The handshakes of a member with others, and the sessions that come of them.

    begin() ─▶ message 1, under way ── message 2 ─▶ session: current          repeat(): after 5 s another, for 90 s
    came(message 1) ─▶ Intake ─▶ judged ─▶ message 2, session: next ── confirmed() ─▶ current

Rules:
 1. Whom the relay says to seal may have a session: the static key has to be the one told. If nothing is told, the relay
    is asked, and the message is kept for that long.
 2. The time in message 1 has to exceed that of every confirmed session of that key, and of a next that is younger than
    UNDERWAY_S: so a repeated one changes nothing. It counts from the session's confirmation on, not from message 1,
    which a thief of this member's key can forge.
 3. Crossing: with a message 1 of its own under way, the member with the smaller key drops the other's and waits; the
    other answers, and still takes an answer to its own.
 4. Within a session the messages are notes. What gets no answer is repeated as HANDSHAKE: the peer may have lost the
    session. Without a relay, or with one that calls the peer away, it is repeated as a note, which a direct link may
    carry.
 5. A relay that is away for AWAY_MOST_S could have told of a revocation long since: from then on no session begins
    without it.
 6. Message 2 that does not open leaves what is under way as it was. It is a sign of another secret, or of a relay that
    lies: a warning, once in WARNED_S.

This module does not know what becomes of packets: Changed asks for that. `now` is in seconds of CLOCK_BOOTTIME.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest
from ipaddress import IPv4Address
from math import inf
from typing import Final

from candy.protocol.actions import Drop, Log, Send
from candy.protocol.handshake import Message
from candy.protocol.noise import NoiseError
from candy.protocol.wire import DropReason
from candy.sealing import agreement
from candy.sealing.agreement import Agreed, Offered, Party
from candy.sealing.bucket import Bucket
from candy.sealing.directory import Contact, Directory, Standing
from candy.sealing.intake import Arrival, Intake
from candy.sealing.seals import EngineAction, Install, Remove, SendSealed
from candy.sealing.slots import Session
from candy.sealing.stamps import Moment, Stamps

REPEAT_S: Final = 5.0
JITTER_S: Final = 0.334
GIVE_UP_S: Final = 90.0
UNDERWAY_S: Final = 5.0
AWAY_MOST_S: Final = 24 * 3600.0
CONFIRM_S: Final = 1.0
"""How long who has answered leaves it to the other to confirm that, before it begins one itself."""
WARNED_S: Final = 3600.0
RATE: Final = 50.0
SAVED: Final = 250.0
"""Messages 1, as the relay lets them pass."""
TRIES_MOST: Final = 16
"""Answers to one message 1 that are tried: each costs key exchanges."""
ASK_AGAIN_S: Final = 5.0
KEYS_MOST: Final = 4096
"""Whose last time is remembered; of one that was forgotten a message 1 could be repeated, once and for nothing."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What becomes of packets for this address may be something else now."""

    contact: Contact


@dataclass(frozen=True, slots=True)
class KeepStamp:
    """Have the file handshake/NAME hold this, before anything behind it."""

    content: bytes


Step = Changed | EngineAction | Send | Drop | Log | KeepStamp


@dataclass(slots=True, eq=False)
class _Underway:
    """A message 1 that has no answer yet."""

    contact: Contact
    offered: Offered
    first_at: float
    """Of the first one in a row."""
    sent_at: float
    repeat_at: float
    tries: int = 0

    @property
    def number(self) -> int:
        return self.offered.message.sender


class Handshakes:
    """See above.

    Args:
        directory: of whom the relay tells.
        stamps: the times of this member's messages 1.
        randbytes: n random bytes.
        prefix: the upper 16 bits of session numbers; 0: any.
    """

    def __init__(
        self, directory: Directory, stamps: Stamps, randbytes: Callable[[int], bytes], prefix: int = 0
    ) -> None:
        self._directory = directory
        self._stamps = stamps
        self._randbytes = randbytes
        self._prefix = prefix
        self._intake = Intake()
        self._bucket = Bucket(RATE, SAVED)
        self._underway: dict[IPv4Address, _Underway] = {}
        self._sessions: dict[int, tuple[Contact, Session]] = {}
        """By local number."""
        self._latest: OrderedDict[bytes, bytes] = OrderedDict()
        """Rule 2's times, by key."""
        self._connection: int | None = None
        self._lost_at = inf
        """When the relay was, of a member that had one."""
        self.party: Party | None = None
        """This member; None before it has an address."""

    @property
    def has_waiting(self) -> bool:
        """Messages that are to be looked at a little later."""
        return self._intake.has_waiting

    @property
    def deadline(self) -> float:
        """When repeat() has to be called."""
        return min((underway.repeat_at for underway in self._underway.values()), default=inf)

    def reserve(self, at: Moment) -> list[Step]:
        """Times for handshakes to come."""
        bound = self._stamps.reserve(at.wall)
        return [] if bound is None else [KeepStamp(bound)]

    def joined(self, connection: int, party: Party) -> None:
        self._connection, self.party = connection, party

    def lost(self, now: float) -> None:
        """The relay is gone, and what was under way."""
        if self._connection is not None:
            self._connection, self._lost_at = None, now
        self._intake.clear()
        self._underway.clear()

    def session(self, local: int) -> tuple[Contact, Session] | None:
        """With whom this one is."""
        return self._sessions.get(local)

    def is_underway(self, contact: Contact) -> bool:
        return contact.address in self._underway

    def begin(self, contact: Contact, at: Moment, within: Session | None = None) -> list[Step] | None:
        """Send message 1, unless one is under way; None if that has to wait: for the relay, for its allowance, or for
        the packet that confirms a session which the other has begun."""
        if self.is_underway(contact):
            return []
        if contact.slots.next is not None and at.now - contact.slots.next.began < CONFIRM_S:
            return None
        return self._offer(contact, at, at.now, within)

    def repeat(self, at: Moment) -> list[Step]:
        """Send what has got no answer again, or give it up."""
        steps: list[Step] = []
        for underway in [underway for underway in self._underway.values() if at.now >= underway.repeat_at]:
            if at.now - underway.first_at < GIVE_UP_S:
                contact = underway.contact
                is_by_relay = self._connection is not None and contact.standing is Standing.SEALS
                within = None if is_by_relay else contact.slots.sealing(at.now)
                steps += self._offer(contact, at, underway.first_at, within) or []
            else:
                del self._underway[underway.contact.address]
                steps.append(Changed(underway.contact))
        return steps

    def came(self, message: Message, within: Session | None, at: Moment) -> list[Step]:
        """A message of another member, on a connection that has joined."""
        if message.number == 2:
            return self._on_second(message, at)
        if not self._intake.came(Arrival(message, within, at.now)):
            return self._dropped(DropReason.HANDSHAKE_LIMIT)
        return self.work(at)

    def work(self, at: Moment) -> list[Step]:
        """Look at what waits, as far as may be now."""
        return [step for arrival in self._intake.ready(at.now) for step in self._on_first(arrival, at)]

    def told(self, contact: Contact, at: Moment) -> list[Step]:
        """Something was told of it, for which a message of it may have been kept."""
        arrival = self._intake.kept(contact.address, at.now)
        return [] if arrival is None else self._on_first(arrival, at)

    def confirmed(self, local: int) -> list[Step]:
        """A packet has opened under a session that was next."""
        found = self._sessions.get(local)
        if found is None or found[0].slots.next is not found[1]:
            # It was removed, while the event was on its way.
            return []
        contact, session = found
        assert contact.identity is not None
        key = contact.identity.key
        self._latest[key] = max(session.stamp, self._latest.get(key, b""))
        self._latest.move_to_end(key)
        if len(self._latest) > KEYS_MOST:
            self._latest.popitem(last=False)
        self._underway.pop(contact.address, None)
        self._seals(contact)
        return [*self.removed(contact.slots.confirmed()), Changed(contact)]

    def wipe(self, contact: Contact) -> list[Step]:
        """End all with it."""
        self._underway.pop(contact.address, None)
        return [*self.removed(contact.slots.clear()), Changed(contact)]

    def removed(self, gone: list[Session]) -> list[Step]:
        """These sessions have left their slots."""
        for session in gone:
            del self._sessions[session.local]
        return [Remove(session.local) for session in gone]

    def _offer(self, contact: Contact, at: Moment, first_at: float, within: Session | None) -> list[Step] | None:
        party, identity = self.party, contact.identity
        if party is None or identity is None or not contact.is_there:
            return None
        if within is None and contact.standing is not Standing.SEALS:
            return None
        if not self._may_begin(within, at.now):
            return None
        if not self._bucket.take(at.now):
            return None
        stamp, bound = self._stamps.next(at.wall)
        first = Message(1, party.address, contact.address, self._number(), 0)
        secret, inside = self._randbytes(32), None if within is None else within.hash
        try:
            offered = agreement.offered(party, first, identity.key, stamp, secret, inside)
        except NoiseError as error:
            return [Log("warning", f"the key of {contact.address} can't be one: {error}")]
        repeat_at = at.now + REPEAT_S + JITTER_S * int.from_bytes(self._randbytes(2), "big") / 65535
        self._underway[contact.address] = _Underway(contact, offered, first_at, at.now, repeat_at)
        kept: list[Step] = [] if bound is None else [KeepStamp(bound)]
        return [*kept, self._carry(offered.message, within)]

    def _on_first(self, arrival: Arrival, at: Moment) -> list[Step]:
        message, within = arrival.message, arrival.within
        bad = self._dropped(DropReason.BAD_HANDSHAKE)
        contact = self._directory.get(message.source)
        if self.party is None or contact is None or not self._may_begin(within, at.now):
            return bad
        if within is None and not contact.is_told:
            self._directory.ask(contact, at.now)
            return [] if self._intake.keep(arrival) else self._dropped(DropReason.HANDSHAKE_LIMIT)
        identity = contact.identity
        if identity is None or not contact.is_there:
            self._ask_again(contact, at)
            return bad
        # The one that it came in may be the one before, or seal no more.
        carrier = None if within is None else contact.slots.sealing(at.now)
        if self._waits_for_its_own(contact, identity.key, at) or (carrier is None and self._connection is None):
            return []
        try:
            heard = agreement.heard(self.party, message, self._randbytes(32), None if within is None else within.hash)
            if not compare_digest(heard.key, identity.key):
                self._ask_again(contact, at)
                return bad
            if not self._is_later(contact, identity.key, heard.offer.stamp, at):
                return bad
            second, agreed = agreement.answered(self.party, heard, self._number())
        except NoiseError:
            return bad
        session = Session(agreed.local, agreed.hash, False, at.now, agreed.commit_bytes, heard.offer.stamp)
        gone = contact.slots.answered(session)
        installed = self._install(contact, session, agreed, is_confirmed=False)
        return [*self.removed(gone), installed, Changed(contact), self._carry(second, carrier)]

    def _on_second(self, message: Message, at: Moment) -> list[Step]:
        bad = self._dropped(DropReason.BAD_HANDSHAKE)
        underway = self._underway.get(message.source)
        if underway is None or underway.number != message.receiver or underway.tries == TRIES_MOST:
            return bad
        assert self.party is not None
        contact = underway.contact
        underway.tries += 1
        try:
            agreed = underway.offered.agreed(self.party, message)
        except NoiseError:
            return [*bad, *self._warn(contact, at)]
        del self._underway[contact.address]
        session = Session(agreed.local, agreed.hash, True, underway.sent_at, agreed.commit_bytes)
        gone = contact.slots.initiated(session)
        self._seals(contact)
        installed = self._install(contact, session, agreed, is_confirmed=True)
        # The peer sends nothing under it before it has opened a packet.
        return [*self.removed(gone), installed, Changed(contact), SendSealed(session.local)]

    def _waits_for_its_own(self, contact: Contact, key: bytes, at: Moment) -> bool:
        """Rule 3."""
        underway = self._underway.get(contact.address)
        if underway is None or at.now - underway.sent_at >= UNDERWAY_S:
            return False
        assert self.party is not None
        return self.party.device.public < key

    def _is_later(self, contact: Contact, key: bytes, stamp: bytes, at: Moment) -> bool:
        """Rule 2."""
        fresh = contact.slots.next
        if fresh is not None and at.now - fresh.began < UNDERWAY_S and stamp <= fresh.stamp:
            return False
        return stamp > self._latest.get(key, b"")

    def _ask_again(self, contact: Contact, at: Moment) -> None:
        """Perhaps the relay no longer remembers that it has to tell of changes."""
        if contact.standing is not Standing.REFUSED and at.now - contact.asked_at >= ASK_AGAIN_S:
            self._directory.ask(contact, at.now)

    def _warn(self, contact: Contact, at: Moment) -> list[Step]:
        if at.now - contact.warned_at < WARNED_S:
            return []
        contact.warned_at = at.now
        text = (
            f"the answer of {contact.address} does not open: it has another secret (--secret), or something between "
            "has changed it; if all members have the same secret, the relay lies about keys"
        )
        return [Log("warning", text)]

    def _seals(self, contact: Contact) -> None:
        """There is a session that both have confirmed."""
        assert contact.identity is not None
        contact.wants = False
        its = contact.identity
        self._directory.pins.pin(its.lease, its.key, contact.address, has_sealed=True)
        self._directory.use(contact)

    def _install(self, contact: Contact, session: Session, agreed: Agreed, *, is_confirmed: bool) -> Install:
        self._sessions[session.local] = contact, session
        return Install(
            session.local,
            contact.address,
            agreed.remote,
            agreed.cipher,
            agreed.sends,
            agreed.receives,
            session.sends_until,
            session.opens_until,
            is_confirmed,
        )

    def _carry(self, message: Message, within: Session | None) -> Send | SendSealed:
        if within is not None:
            return SendSealed(within.local, message.encode_note())
        assert self._connection is not None
        return Send(self._connection, message.encode())

    def _number(self) -> int:
        """Random, not 0, not in use."""
        while True:
            number = int.from_bytes(self._randbytes(4), "big")
            if self._prefix:
                number = self._prefix << 16 | number & 0xFFFF
            used = number in self._sessions or any(number == other.number for other in self._underway.values())
            if number != 0 and not used:
                return number

    def _may_begin(self, within: Session | None, now: float) -> bool:
        """By the relay, or without it within a session (rule 5)."""
        return self._connection is not None or (within is not None and now < self._lost_at + AWAY_MOST_S)

    def _dropped(self, reason: DropReason) -> list[Step]:
        return [Drop(self._connection or 0, reason)]
