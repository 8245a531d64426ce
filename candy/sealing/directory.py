"""What the relay says of other members, as far as it is believed: whose an address is, and with which key.

    meet(address) ─▶ Contact ── ask() ─▶ asks() ─▶ ASK …… TELL ─▶ hear() ─▶ Contact.standing, Contact.identity
                                                            └─ Pins: believed, or refused with a warning

Rules:
 1. What is told of an address that the member has asked about, or unasked (flag 128), is heard; of others only a
    revocation is, whose key counts: no session with it begins any more, whatever is told later.
 2. A lease has one key, and one that has sealed does so ever after (candy.sealing.pins): else the relay is not
    believed, a warning names both, and `forget` has it believed. A key that is this member's own is never another's.
 3. An address that goes to another lease with another key, or without one, is believed, with a warning that names both:
    that is what happens when it goes to another device, and what a relay would say that lies. Who was there last is
    pinned, so that a restart hides nothing.
 4. At most CONTACTS_MOST: who was of use longest ago makes room, and who seals only where nobody else is there: else
    forged sources of packets in the clear would have what is known of it forgotten, and its sessions with that.
 5. What was told on a connection is stale on the next one, and not before: the relay tells no more changes. It counts
    until it is told again, but for nothing new.

This module knows neither sessions nor messages' ways.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from hmac import compare_digest
from ipaddress import IPv4Address
from math import inf
from typing import Final, NamedTuple

from candy.protocol.actions import Log
from candy.protocol.control import ASKS_MAX, Ask, Peer, State
from candy.protocol.keys import fingerprint
from candy.sealing.bucket import Bucket
from candy.sealing.pins import NO_KEY, NO_LEASE, Pins
from candy.sealing.seals import SetPeer
from candy.sealing.slots import Slots

CONTACTS_MOST: Final = 4096
LONGEST: Final = 65535
"""Bytes of an IPv4 packet."""
REVOKED_MOST: Final = 4096
"""Revoked keys that are remembered; the relay answers by state 3 in any case."""
ASK_RATE: Final = 200.0
ASKS_SAVED: Final = 1000.0


class Standing(Enum):
    """How this member stands to an address."""

    UNKNOWN = auto()
    """Nothing was told yet."""
    ABSENT = auto()
    """It is nobody's, its member is away, or its device was revoked."""
    REFUSED = auto()
    """What the relay says is not believed."""
    CLEAR = auto()
    """An old client, or one that does not want to seal."""
    SEALS = auto()


class Identity(NamedTuple):
    """Who has a session: it ends when the address is another's."""

    lease: bytes
    key: bytes
    device: int = 0
    """Its number, as the relay's operator sees it; 0: it is not known."""


@dataclass(slots=True, eq=False)
class Contact:
    """All that is known of an address, and had with it. Its sessions and what is under way are others' to change."""

    address: IPv4Address
    label_key: bytes = field(repr=False)
    """Of flow labels."""
    standing: Standing = Standing.UNKNOWN
    identity: Identity | None = None
    """Of who seals there, also while it is away."""
    before: Identity | None = None
    """The last one who sealed."""
    refused: Peer | None = None
    """What was not believed last."""
    seals: bool = False
    """By what the relay says, or its lease has done, nothing in the clear is of who is there, or was last."""
    has_key: bool = False
    """It does not seal, and could."""
    is_stale: bool = False
    """Told on a connection before this one."""
    is_asking: bool = False
    """The answer has not come yet."""
    asked_at: float = -inf
    """When the relay was, or would have been if it had answered before."""
    wants: bool = False
    """A session, as soon as one may begin."""
    slots: Slots = field(default_factory=Slots)
    entry: SetPeer | None = None
    """What the engine has of it."""
    is_wanted: bool = False
    """The engine has raised Wanted since then."""
    longest: int = LONGEST
    """By the relay's COMMIT, until `longest_until`."""
    longest_until: float = -inf
    looked_at: float = -inf
    """When it last sent something for a session that is not there."""
    warned_at: float = -inf
    """Of an answer that does not open."""
    due: float = -inf
    """When its entry has to be looked at again."""
    is_linked: bool = False
    """It answers by a direct link."""

    @property
    def is_there(self) -> bool:
        """It seals, and may be reached: also one that the relay calls away, while it answers by a direct link."""
        is_away = self.standing is Standing.ABSENT and self.identity is not None
        return self.standing is Standing.SEALS or (is_away and self.is_linked)

    @property
    def is_told(self) -> bool:
        """Whether what is known of it holds now."""
        return self.standing is not Standing.UNKNOWN and not self.is_stale and not self.is_asking


class Directory:
    """See above.

    Args:
        pins: what is known of leases for good.
        own_key: this member's public key.
        randbytes: n random bytes.
    """

    def __init__(self, pins: Pins, own_key: bytes, randbytes: Callable[[int], bytes]) -> None:
        self.pins = pins
        self._own_key = own_key
        self._randbytes = randbytes
        self._contacts: OrderedDict[IPv4Address, Contact] = OrderedDict()
        """The one of use longest ago first."""
        self._revoked: OrderedDict[bytes, None] = OrderedDict()
        self._asks: OrderedDict[IPv4Address, Contact] = OrderedDict()
        """To be asked."""
        self._bucket = Bucket(ASK_RATE, ASKS_SAVED)

    def __iter__(self) -> Iterator[Contact]:
        return iter(list(self._contacts.values()))

    @property
    def is_empty(self) -> bool:
        return not self._contacts

    @property
    def has_asks(self) -> bool:
        return bool(self._asks)

    def get(self, address: IPv4Address) -> Contact | None:
        return self._contacts.get(address)

    def meet(self, address: IPv4Address) -> tuple[Contact, Contact | None]:
        """The contact of this address, made if there is none; and the one that had to make room for it."""
        contact = self._contacts.get(address)
        if contact is not None:
            self.use(contact)
            return contact, None
        gone = None
        if len(self._contacts) == CONTACTS_MOST:
            contacts = self._contacts.values()
            gone = next((each for each in contacts if not (each.seals or any(each.slots))), next(iter(contacts)))
            self.drop(gone)
        contact = self._contacts[address] = Contact(address, self._randbytes(16))
        if (pinned := self.pins.at(address)) is not None:
            contact.before = Identity(*pinned)
        return contact, gone

    def use(self, contact: Contact) -> None:
        """It is of use."""
        self._contacts.move_to_end(contact.address)

    def drop(self, contact: Contact) -> None:
        del self._contacts[contact.address]
        self._asks.pop(contact.address, None)

    def ask(self, contact: Contact, now: float) -> None:
        """Have the relay asked, unless it is being asked."""
        contact.asked_at = now
        if not contact.is_asking:
            contact.is_asking = True
            self._asks[contact.address] = contact

    def asks(self, now: float) -> Iterator[Ask]:
        """What to ask the relay now, within its allowance."""
        while count := min(len(self._asks), ASKS_MAX, self._bucket.left(now)):
            self._bucket.take(now, count)
            yield Ask(tuple(self._asks.popitem(last=False)[0] for _ in range(count)))

    def lost(self) -> None:
        """The connection is gone, and what the relay was asked with it."""
        self._asks.clear()
        for contact in self:
            contact.is_asking = False

    def joined(self) -> None:
        """There is another connection, on which nothing was told yet (rule 5)."""
        for contact in self:
            contact.is_stale = True

    def is_revoked(self, key: bytes) -> bool:
        return key in self._revoked

    def revoke(self, key: bytes) -> list[Contact]:
        """A device was revoked: no session with its key begins any more. Returns who has it, under any address."""
        if key == NO_KEY:
            return []
        self._revoked[key] = None
        if len(self._revoked) > REVOKED_MOST:
            self._revoked.popitem(last=False)
        having = [contact for contact in self if contact.identity is not None and contact.identity.key == key]
        for contact in having:
            contact.standing, contact.identity = Standing.ABSENT, None
        return having

    def hear(self, told: Peer) -> tuple[Contact | None, list[Log]]:
        """What the relay says of an address. Returns whom it is about, if it is heard, and lines for the user."""
        contact = self._contacts.get(told.address)
        if contact is None or not self._is_heard(contact, told):
            return None, []
        contact.is_asking = contact.is_stale = False
        self._asks.pop(contact.address, None)
        has_key = told.state in (State.AWAY, State.REVOKED) and told.key != NO_KEY
        contact.has_key = told.state is State.CLEAR and told.key != NO_KEY
        contact.seals = told.state is State.SEALS or has_key or self.pins.has_sealed(told.lease)
        why = self._doubt(told)
        if why is not None:
            return contact, self._refuse(contact, told, why)
        contact.refused = None
        match told.state:
            case State.SEALS if not self.is_revoked(told.key):
                return contact, self._on_sealing(contact, Identity(told.lease, told.key, told.device))
            case State.CLEAR:
                contact.standing, contact.identity = Standing.CLEAR, None
                return contact, self._on_clear(contact, told)
            case State.AWAY:
                stays = contact.identity is not None and contact.identity.lease == told.lease
                contact.standing, contact.identity = Standing.ABSENT, contact.identity if stays else None
            case _:
                contact.standing, contact.identity = Standing.ABSENT, None
        return contact, []

    def forget(self, address: IPv4Address) -> tuple[Contact | None, list[Log]]:
        """Believe what was refused of this address; None if nothing was."""
        contact = self._contacts.get(address)
        if contact is None or contact.refused is None:
            return None, []
        told, contact.refused, contact.before = contact.refused, None, None
        self.pins.forget(told.lease)
        return self.hear(told)

    def _is_heard(self, contact: Contact, told: Peer) -> bool:
        # A revocation is told to all, of an address that may be another's by now.
        if told.state is not State.REVOKED or contact.is_asking or contact.standing is Standing.UNKNOWN:
            return True
        known = contact.identity or contact.refused
        return known is not None and known.key == told.key

    def _doubt(self, told: Peer) -> str | None:
        if told.state is not State.SEALS:
            return self.pins.doubt(told)
        if told.key == NO_KEY or told.lease == NO_LEASE:
            return "it should seal, but without a key"
        if compare_digest(told.key, self._own_key):
            return "its key should be this member's own"
        return self.pins.doubt(told)

    def _refuse(self, contact: Contact, told: Peer, why: str) -> list[Log]:
        is_new = contact.refused is None or _facts(contact.refused) != _facts(told)
        contact.standing, contact.identity, contact.refused = Standing.REFUSED, None, told
        if not is_new:
            return []
        text = (
            f"not believed of {told.address}: {why}; nothing is sent there. If its device was made anew, run "
            f"candy-client forget {told.address}; if not, the relay lies"
        )
        return [Log("warning", text)]

    def _on_sealing(self, contact: Contact, identity: Identity) -> list[Log]:
        before = contact.before
        contact.standing = Standing.SEALS
        contact.identity = contact.before = identity
        self.pins.pin(identity.lease, identity.key, contact.address)
        if before is None or compare_digest(before.key, identity.key):
            return []
        text = (
            f"{contact.address} is another device now: number {identity.device} with the key "
            f"{fingerprint(identity.key)}, before it was {_named(before)}"
        )
        return [Log("warning", text)]

    def _on_clear(self, contact: Contact, told: Peer) -> list[Log]:
        before = contact.before
        if before is None or not self.pins.has_sealed(before.lease):
            return []
        contact.before = None
        self.pins.leave(contact.address)
        text = (
            f"{contact.address} is another device now, which does not seal: number {told.device}; before it was "
            f"{_named(before)}"
        )
        return [Log("warning", text)]


def _named(who: Identity) -> str:
    key = f"the key {fingerprint(who.key)}"
    return f"number {who.device} with {key}" if who.device else f"one with {key}"


def _facts(told: Peer) -> tuple[State, bytes, bytes]:
    return told.state, told.lease, told.key
