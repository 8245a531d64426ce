"""A member's sealed sessions with others: what comes in from relay and engine, actions for both go out.

    joined, lost ──┐                                           ┌──▶ engine   candy.sealing.seals
    TELL, COMMIT … ┼─▶ Sessions ─┬─ Directory   who is it?     ├──▶ relay    ASK, HANDSHAKE
    HANDSHAKE ─────┤             ├─ Handshakes  a session      ├──▶ files    KeepPins, KeepStamp
    events, Seen ──┘             └─ Slots       of each pair   └──▶ log, counters

Rules:
 1. A session is between two leases. It ends with either, with the peer's key, and not with a connection.
 2. Before a first handshake with an address the relay is asked about it, so that it tells of changes from then on; and
    again of what it says about others (candy.sealing.ways).
 3. Of one that sends for a session which is not there the member does no more than once in ways.ASK_SOON_S.
 4. No I/O, no clock: `at` says when, randomness is an argument. Actions are to be carried out in order.

With seal = "off" nothing of this happens: the engine is told so.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from math import inf
from typing import Final

from candy.errors import WireError
from candy.protocol import control, group
from candy.protocol.actions import Drop, Log, Send
from candy.protocol.handshake import Message
from candy.protocol.linking import OFFER
from candy.protocol.login import Asks
from candy.protocol.wire import DropReason
from candy.sealing import ways
from candy.sealing.directory import Contact, Directory, Identity, Standing
from candy.sealing.groups import Groups
from candy.sealing.handshakes import Changed, Handshakes, KeepStamp, Step
from candy.sealing.joined import Joined, Own
from candy.sealing.pins import Pins
from candy.sealing.seals import (
    Clear,
    Confirmed,
    EngineAction,
    EngineEvent,
    ForgetPeer,
    Grouped,
    Noted,
    Seal,
    Seen,
    SendSealed,
    SetSealing,
    Unknown,
    Wanted,
    Way,
)
from candy.sealing.slots import Due, Session
from candy.sealing.stamps import Moment, Stamps

TICK_S: Final = 1.0
BUSY_S: Final = 0.05
"""Until the next tick, when a limit has left something to be done."""
COMMIT_S: Final = 5.0
KEEP_PINS_S: Final = 5.0
"""Between two writes."""


@dataclass(frozen=True, slots=True)
class KeepPins:
    """Have the file pins/NAME hold this."""

    content: bytes = field(repr=False)


Action = EngineAction | Send | Drop | Log | KeepPins | KeepStamp


class Sessions:
    """See above.

    Args:
        own: this member.
        seal: the setting.
        pins, stamps: as they were kept.
    """

    def __init__(self, own: Own, seal: Seal, pins: Pins, stamps: Stamps) -> None:
        self._own = own
        self._seal = seal
        self._pins = pins
        self._directory = Directory(pins, own.device.public, own.randbytes)
        self._handshakes = Handshakes(self._directory, stamps, own.randbytes, own.prefix)
        self._groups = Groups(own.primitives, own.randbytes)
        self._joined: Joined | None = None
        """The last log-in, also when it was lost."""
        self._is_connected = False
        self._told: SetSealing | None = None
        """What the engine has."""
        self._ticked_at = 0.0
        self._kept_at = -inf

    @property
    def deadline(self) -> float:
        """When tick() has to be called; inf: not at all."""
        if self._directory.is_empty:
            return self._groups.deadline
        is_busy = (self._is_connected and self._directory.has_asks) or self._handshakes.has_waiting
        soon = self._ticked_at + BUSY_S
        return soon if is_busy else min(self._ticked_at + TICK_S, max(soon, self._handshakes.deadline))

    def members(self, now: float) -> Iterator[tuple[IPv4Address, Way, Identity | None]]:
        """Of whom it knows, what becomes of packets for them, and who they are."""
        for contact in self._directory:
            yield contact.address, ways.way(contact, self._seal, now)[0], contact.identity

    def joined(self, joined: Joined, at: Moment) -> list[Action]:
        """Let in on a connection, which leads from now on."""
        self._leave(at.now)
        self._directory.joined()
        before, self._joined = self._joined, joined
        steps: list[Step] = []
        if before is not None and (before.address, before.lease) != (joined.address, joined.lease):
            steps += self._forget_all()
        self._is_connected = True
        self._handshakes.joined(joined.connection, joined.party(self._own))
        if self._seal is not Seal.OFF:
            steps += self._handshakes.reserve(at)
            for contact in self._directory:
                if contact.wants or any(contact.slots):
                    self._directory.ask(contact, at.now)
                steps.append(Changed(contact))
        return [*self._set_sealing(at), *self._out(steps, at)]

    def lost(self, now: float) -> None:
        """The connection that leads is gone. Sessions go on by direct links, as long as something goes over these."""
        self._leave(now)

    def changed(self, joined: Joined, at: Moment) -> list[Action]:
        """The network has another key, on the same connection."""
        self._joined = joined
        self._handshakes.joined(joined.connection, joined.party(self._own))
        return self._set_sealing(at)

    def set_seal(self, seal: Seal, flags: Asks, at: Moment) -> list[Action]:
        """The setting is another one, and with it what is said to others."""
        self._seal, self._own = seal, replace(self._own, flags=flags)
        if self._is_connected and self._joined is not None:
            self._handshakes.joined(self._joined.connection, self._joined.party(self._own))
        steps = self._forget_all() if seal is Seal.OFF else [Changed(contact) for contact in self._directory]
        return [*self._set_sealing(at), *self._out(steps, at)]

    def ended(self, at: Moment) -> list[Action]:
        """All sessions are to end, with the program or what they are made by."""
        return [*self._out(self._forget_all(), at), *self._keep_pins()]

    def received(self, payload: bytes, at: Moment) -> list[Action]:
        """A HANDSHAKE that came on the connection."""
        joined = self._joined
        if joined is None or not self._is_connected:
            return []
        try:
            message = Message.decode(payload)
        except WireError as error:
            return [Drop(joined.connection, error.reason)]
        if self._seal is Seal.OFF or message.destination != joined.address:
            return [Drop(joined.connection, DropReason.BAD_HANDSHAKE)]
        steps = self._meet(message.source)[1] if message.number == 1 else []
        return self._out([*steps, *self._handshakes.came(message, None, at)], at)

    def told(self, message: control.Tell | control.NotSealing | control.Commit, at: Moment) -> list[Action]:
        """What the relay says of other members."""
        if self._seal is Seal.OFF or not self._is_connected:
            return []
        steps: list[Step] = []
        match message:
            case control.Tell():
                for peer in message.peers:
                    steps += self._hear(peer, at)
            case control.NotSealing():
                contact = self._directory.get(message.address)
                if contact is not None:
                    self._directory.ask(contact, at.now)
            case control.Commit():
                contact = self._directory.get(message.address)
                if contact is not None:
                    contact.longest, contact.longest_until = message.longest, at.now + COMMIT_S
                    steps.append(Changed(contact))
        return self._out(steps, at)

    def happened(self, event: EngineEvent, at: Moment) -> list[Action]:
        """What the engine has met."""
        if self._seal is Seal.OFF:
            return []
        match event:
            case Wanted():
                steps = self._on_wanted(event.address, at)
            case Clear():
                steps = self._on_clear(event.source, at)
            case Unknown():
                steps = self._on_unknown(event.source, at)
            case Confirmed():
                steps = self._handshakes.confirmed(event.local)
            case Noted():
                steps = self._on_note(event, at)
            case Grouped():
                steps = self._on_group(event.message, at)
        return self._out(steps, at)

    def linked(self, address: IPv4Address, is_linked: bool, at: Moment) -> list[Action]:
        """A member answers by a direct link, or does so no more."""
        contact = self._directory.get(address)
        if contact is None or contact.is_linked == is_linked:
            return []
        contact.is_linked = is_linked
        return self._out([Changed(contact)], at)

    def has_key(self, address: IPv4Address) -> bool:
        """Whether the relay has told a key of one that does not seal."""
        contact = self._directory.get(address)
        return contact is not None and contact.has_key

    def tick(self, seen: Iterable[Seen], at: Moment) -> list[Action]:
        """Act on what time and traffic have brought.

        Args:
            seen: of the engine's sessions.
        """
        self._see(seen)
        self._ticked_at = at.now
        steps: list[Step] = []
        for contact in self._directory:
            if contact.wants and contact.is_told:
                steps += self._begin(contact, at)
            if contact.slots.current is not None:
                steps += self._look_after(contact, contact.slots.current, at)
            if at.now >= contact.due:
                steps += [*self._handshakes.removed(contact.slots.expired(at.now)), Changed(contact)]
        steps += [*self._handshakes.repeat(at), *self._handshakes.work(at), *self._groups.tick(at)]
        steps += self._handshakes.reserve(at)
        if self._pins.is_changed and at.now >= self._kept_at + KEEP_PINS_S:
            self._kept_at = at.now
            return [*self._out(steps, at), *self._keep_pins()]
        return self._out(steps, at)

    def forget(self, address: IPv4Address, at: Moment) -> list[Action] | None:
        """Believe what was refused of this address; None if nothing was."""
        contact, lines = self._directory.forget(address)
        return None if contact is None else self._out([*lines, Changed(contact)], at)

    def _on_wanted(self, address: IPv4Address, at: Moment) -> list[Step]:
        contact, steps = self._meet(address)
        way, _ = ways.way(contact, self._seal, at.now)
        if contact.entry is not None:
            contact.entry = replace(contact.entry, tells_wanted=False)
        contact.is_wanted = True
        if way is Way.SEAL or self._handshakes.is_underway(contact):
            return [*steps, Changed(contact)]
        contact.wants = way is Way.WAIT
        if contact.slots.next is None:
            self._directory.ask(contact, at.now)
        return [*steps, Changed(contact)]

    def _on_clear(self, source: IPv4Address, at: Moment) -> list[Step]:
        contact, steps = self._meet(source)
        if contact.entry is not None:
            contact.entry = replace(contact.entry, tells_clear=False)
        self._directory.ask(contact, at.now)
        return [*steps, Changed(contact)]

    def _on_unknown(self, source: IPv4Address, at: Moment) -> list[Step]:
        contact, steps = self._meet(source)
        if at.now < contact.looked_at + ways.ASK_SOON_S:
            return steps
        contact.looked_at = at.now
        if contact.is_told:
            return [*steps, *self._begin(contact, at)]
        contact.wants = True
        self._directory.ask(contact, at.now)
        return [*steps, Changed(contact)]

    def _on_note(self, event: Noted, at: Moment) -> list[Step]:
        found, joined = self._handshakes.session(event.local), self._joined
        # An offer of addresses is nothing for who has no direct links, as the relay's own interface.
        if found is None or joined is None or event.note[1] == OFFER:
            return []
        contact, session = found
        try:
            message = Message.decode_note(event.note, contact.address, joined.address)
        except WireError as error:
            return [Drop(joined.connection, error.reason)]
        return self._handshakes.came(message, session, at)

    def _on_group(self, message: bytes, at: Moment) -> list[Step]:
        if self._joined is None:
            return []
        try:
            sealed = group.Sealed.decode(message)
        except WireError as error:
            return [Drop(self._joined.connection, error.reason)]
        contact, steps = self._meet(sealed.source)
        if not contact.is_told:
            self._directory.ask(contact, at.now)
            result = self._groups.keep(sealed, at)
        else:
            result = self._groups.came(sealed, None if contact.identity is None else contact.identity.key, at)
        return [*steps, *([Drop(self._joined.connection, result)] if isinstance(result, str) else result)]

    def _hear(self, told: control.Peer, at: Moment) -> list[Step]:
        assert self._joined is not None
        steps: list[Step] = []
        if told.state is control.State.REVOKED:
            for having in self._directory.revoke(told.key):
                steps += self._wipe(having)
        if told.address == self._joined.address:
            return steps
        if told.flags & control.Peer.UNASKED:
            _, more = self._meet(told.address)
            steps += more
        known = self._directory.get(told.address)
        before = None if known is None else known.identity
        contact, lines = self._directory.hear(told)
        steps += lines
        if contact is None:
            return steps
        after = contact.identity
        if before is not None and (after is None or before[:2] != after[:2]):
            steps += self._wipe(contact)
        if contact.wants:
            steps += self._begin(contact, at)
        steps += [Changed(contact), *self._handshakes.told(contact, at)]
        kept = self._groups.told(contact.address, at)
        return steps if kept is None else [*steps, *self._on_group(kept, at)]

    def _begin(self, contact: Contact, at: Moment) -> list[Step]:
        """A session with it, if it seals; where that has to wait it is tried again."""
        if contact.standing is not Standing.SEALS:
            contact.wants = False
            return []
        steps = self._handshakes.begin(contact, at)
        contact.wants = steps is None
        return steps or []

    def _look_after(self, contact: Contact, current: Session, at: Moment) -> list[Step]:
        """Its session: whether it needs another one, or an empty packet."""
        match contact.slots.due(at.now):
            case Due.REKEY:
                return self._handshakes.begin(contact, at, current) or []
            case Due.RENEW:
                return self._handshakes.begin(contact, at) or []
            case Due.KEEPALIVE:
                return [SendSealed(current.local)]
            case Due.NOTHING:
                return []

    def _see(self, seen: Iterable[Seen]) -> None:
        for each in seen:
            found = self._handshakes.session(each.local)
            if found is None:
                continue
            contact, session = found
            session.seen = each
            if max(each.packet_sent_at, each.received_at) >= self._ticked_at:
                self._directory.use(contact)

    def _set(self, contact: Contact, at: Moment) -> list[Action]:
        """Tell the engine of it, if that is something new, or if nothing follows from the event that it raised."""
        if self._directory.get(contact.address) is not contact:
            had, contact.entry = contact.entry, None
            return [] if had is None else [ForgetPeer(contact.address)]
        entry, contact.due = ways.entry(contact, self._seal, at.now)
        is_coming = contact.wants or contact.is_asking or self._handshakes.is_underway(contact)
        is_stuck = entry.way is Way.WAIT and contact.is_wanted and not is_coming
        if entry == contact.entry and not is_stuck:
            return []
        contact.entry, contact.is_wanted = entry, False
        return [entry]

    def _out(self, steps: Iterable[Step], at: Moment) -> list[Action]:
        """Steps as actions, and what there is to ask the relay."""
        actions: list[Action] = []
        for step in steps:
            if isinstance(step, Changed):
                actions += self._set(step.contact, at)
            else:
                actions.append(step)
        if self._is_connected and self._joined is not None:
            connection = self._joined.connection
            actions += [Send(connection, ask.encode()) for ask in self._directory.asks(at.now)]
        return actions

    def _meet(self, address: IPv4Address) -> tuple[Contact, list[Step]]:
        contact, gone = self._directory.meet(address)
        return contact, [] if gone is None else self._wipe(gone)

    def _wipe(self, contact: Contact) -> list[Step]:
        """End all with it."""
        return [*self._handshakes.wipe(contact), *self._groups.forget(contact.address)]

    def _forget_all(self) -> list[Step]:
        steps: list[Step] = []
        for contact in self._directory:
            self._directory.drop(contact)
            steps += self._wipe(contact)
        return steps

    def _leave(self, now: float) -> None:
        self._is_connected = False
        self._handshakes.lost(now)
        self._directory.lost()

    def _set_sealing(self, at: Moment) -> list[Action]:
        joined = self._joined
        if joined is None:
            return []
        setting = SetSealing(self._seal, joined.address, joined.checks_source)
        actions: list[Action] = [] if setting == self._told else [setting]
        self._told = setting
        membership = None if self._seal is Seal.OFF else joined.membership(self._own)
        return [*actions, *self._groups.joined(membership, at)]

    def _keep_pins(self) -> list[Action]:
        return [KeepPins(self._pins.encode())] if self._pins.is_changed else []
