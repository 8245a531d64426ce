"""Who is where: which relay has which member, as each relay says of its own.

    set(), flush() ─▶ Update (epoch, sequence) ─▶ every other relay: take() ─▶ Change …
    beat() ─▶ Beat: epoch, sequence, how many, digest ─▶ the same? ─ no ─▶ due(): ask the author ─▶ parts() ─▶ take()

    Update, Part   version 1 ‖ kind 1 ‖ epoch 8 ‖ sequence 8 ‖ part 2 ‖ of 2 ‖ networks 2 ‖ (length 1 ‖ word) …
                   ‖ entries 4 ‖ (network 2 ‖ address 4 ‖ length 1 ‖ place) …      a place of no length: it has left
    Beat           version 1 ‖ kind 1 ‖ epoch 8 ‖ sequence 8 ‖ entries 4 ‖ digest 8
    place          generation 8 ‖ flags 1 ‖ commit 2 ‖ lease 8 ‖ device 8 ‖ VMAC or key

Rules:
 1. A relay alone says which members it has. What others say of them is not even sent.
 2. Its updates are numbered. Of a lower epoch, or a number that was had, nothing is taken. Behind a gap nothing is
    taken either, and the author is asked for all that it has; updates that come meanwhile wait.
 3. A beat has what shows whether two are of one mind: number, count and a digest of all entries. After a reconnection
    the next beat of each is compared like any other, and who differs is asked after a time of the asker's own (jitter),
    so that twenty do not ask one in the same moment.
 4. Of two relays that both have an address the one with the higher generation counts: the revision of its grant.
 5. Of an author that is gone nothing is left (candy.relay.cluster.presence decides that).

No I/O, clock or randomness: `now` is in seconds of a monotonic clock, jitter an argument. A network is a word of
candy.relay.cluster.records, an address an integer.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple, Self

from candy.protocol.addresses import ipv4
from candy.protocol.noise import KEY_BYTES
from candy.relay.cluster.records import FormatError

VERSION: Final = 1
UPDATE: Final = 1
PART: Final = 2
BEAT: Final = 3
CHANGES_MOST: Final = 4096
"""Of one message: 400 KB at most, of NATS' 1 MB."""
WAITING_MOST: Final = 1024
"""Updates that wait for what lies before them; beyond that all is asked for anew."""
GROUPS_FROM: Final = 0xE0000000
"""224.0.0.0: no address from there on is a member's."""
JITTER_S: Final = 2.0
AGAIN_S: Final = 5.0
"""How long an author may take to answer before it is asked again."""
_HEAD = struct.Struct("!BBQQHH")
_COUNT = struct.Struct("!I")
_WORDS = struct.Struct("!H")
_ENTRY = struct.Struct("!HIB")
_BEAT = struct.Struct("!BBQQIQ")
_PLACE = struct.Struct("!QBH8sQ")
_MODULUS = 1 << 64

Key = tuple[str, int]
"""A network's word, and an address."""


class Place(NamedTuple):
    """A member, as its relay has it."""

    generation: int
    """The revision of its grant; 0 for one without a VMAC, which has none."""
    flags: int = 0
    """candy.protocol.login.Asks."""
    commit_bytes: int = 0
    lease: bytes = bytes(8)
    device: int = 0
    identity: bytes = b""
    """VMAC or key."""

    def packed(self) -> bytes:
        numbers = (self.generation, self.flags, self.commit_bytes, self.lease, self.device)
        return _PLACE.pack(*numbers) + self.identity

    @classmethod
    def unpacked(cls, packed: bytes) -> Self:
        generation, flags, commit_bytes, lease, device = _PLACE.unpack_from(packed)
        return cls(generation, flags, commit_bytes, lease, device, packed[_PLACE.size :])


class Change(NamedTuple):
    """What is different about an address now."""

    key: Key
    author: str
    is_there: bool


class Beat(NamedTuple):
    """What a relay says of all its entries."""

    epoch: int
    sequence: int
    entries: int
    digest: int

    def encode(self) -> bytes:
        return _BEAT.pack(VERSION, BEAT, *self)


class Update(NamedTuple):
    """Entries of one author; with `parts`, this one of so many that are all it has."""

    epoch: int
    sequence: int
    entries: list[tuple[Key, bytes]]
    part: int = 0
    parts: int = 0

    def encode(self) -> bytes:
        words = list(dict.fromkeys(word for (word, _), _ in self.entries))
        numbers = {word: number for number, word in enumerate(words)}
        kind = PART if self.parts else UPDATE
        pieces = [_HEAD.pack(VERSION, kind, self.epoch, self.sequence, self.part, self.parts), _WORDS.pack(len(words))]
        for word in words:
            raw = word.encode()
            pieces += [bytes([len(raw)]), raw]
        pieces.append(_COUNT.pack(len(self.entries)))
        for (word, ip), place in self.entries:
            pieces += [_ENTRY.pack(numbers[word], ip, len(place)), place]
        return b"".join(pieces)


def decode(message: bytes) -> Update | Beat:
    """Raises FormatError."""
    if message[:1] != bytes([VERSION]):
        raise FormatError("a message of the directory is of another version: have all relays run one version of candy")
    try:
        return Beat(*_BEAT.unpack(message)[2:]) if message[1] == BEAT else _decode_update(message)
    except (struct.error, IndexError, UnicodeDecodeError):
        raise FormatError("a message of the directory is cut or malformed") from None


def _decode_update(message: bytes) -> Update:
    _, kind, epoch, sequence, part, parts = _HEAD.unpack_from(message)
    at = _HEAD.size
    [count] = _WORDS.unpack_from(message, at)
    at += _WORDS.size
    words = []
    for _ in range(count):
        length = message[at]
        words.append(_piece(message, at + 1, length).decode())
        at += 1 + length
    [count] = _COUNT.unpack_from(message, at)
    at += _COUNT.size
    entries = []
    for _ in range(count):
        number, ip, length = _ENTRY.unpack_from(message, at)
        at += _ENTRY.size
        if length and not _PLACE.size <= length <= _PLACE.size + KEY_BYTES:
            raise IndexError
        if not 0 < ip < GROUPS_FROM:
            raise FormatError(f"a message of the directory has a member at {ipv4(ip)}, where none can be")
        entries.append(((words[number], ip), _piece(message, at, length)))
        at += length
    if at != len(message) or kind != (PART if parts else UPDATE) or (parts and part >= parts):
        raise IndexError
    return Update(epoch, sequence, entries, part, parts)


def _piece(message: bytes, at: int, length: int) -> bytes:
    piece = message[at : at + length]
    if len(piece) < length:
        raise IndexError
    return piece


@dataclass(slots=True)
class _Entries:
    """Of one author, with what tells whether two have the same."""

    places: dict[Key, bytes] = field(default_factory=dict)
    digest: int = 0

    def set(self, key: Key, place: bytes) -> None:
        before = self.places.get(key)
        if before == (place or None):
            return
        if before is not None:
            self.digest = (self.digest - _digest(key, before)) % _MODULUS
        if place:
            self.digest = (self.digest + _digest(key, place)) % _MODULUS
            self.places[key] = place
        elif before is not None:
            del self.places[key]


def _digest(key: Key, place: bytes) -> int:
    word, ip = key
    return int.from_bytes(blake2b(word.encode() + _COUNT.pack(ip) + place, digest_size=8).digest(), "big")


@dataclass(slots=True)
class _Author:
    epoch: int = 0
    sequence: int = 0
    entries: _Entries = field(default_factory=_Entries)
    ask_at: float | None = None
    """When to ask it for all that it has; None: nothing is missing."""
    waiting: dict[int, list[tuple[Key, bytes]]] = field(default_factory=dict)
    """Updates by their sequences, while something is missing."""
    parts: dict[int, list[tuple[Key, bytes]]] = field(default_factory=dict)
    parts_of: tuple[int, int] = (0, 0)
    """Epoch and sequence of those parts."""


class Directory:
    """See the rules above.

    Args:
        name: this relay's.
        epoch: of its start, higher than of any before.
        jitter: a number from 0 to 1, another one each time.
    """

    def __init__(self, name: str, epoch: int, jitter: Callable[[], float]) -> None:
        self.name = name
        self.epoch = epoch
        self._jitter = jitter
        self._own = _Entries()
        self._sequence = 0
        self._pending: dict[Key, bytes] = {}
        self._authors: dict[str, _Author] = {}

    # What this relay says.

    def set(self, key: Key, place: Place | None) -> None:
        """A member of this relay's is there, or has left."""
        packed = b"" if place is None else place.packed()
        if self._own.places.get(key, b"") == packed:
            return
        self._own.set(key, packed)
        self._pending[key] = packed

    @property
    def has_news(self) -> bool:
        return bool(self._pending)

    def flush(self) -> bytes | None:
        """The next update; call it until there is none."""
        if not self._pending:
            return None
        keys = list(islice(self._pending, CHANGES_MOST))
        entries = [(key, self._pending.pop(key)) for key in keys]
        self._sequence += 1
        return Update(self.epoch, self._sequence, entries).encode()

    def beat(self) -> bytes | None:
        """What the others compare; None: flush() comes first."""
        if self._pending:
            return None
        return Beat(self.epoch, self._sequence, len(self._own.places), self._own.digest).encode()

    def parts(self) -> Iterator[bytes]:
        """All that this relay has, for one that asks. Call flush() first."""
        entries = list(self._own.places.items())
        count = max(1, -(-len(entries) // CHANGES_MOST))
        for number in range(count):
            piece = entries[number * CHANGES_MOST : (number + 1) * CHANGES_MOST]
            yield Update(self.epoch, self._sequence, piece, number, count).encode()

    # What others say.

    def take(self, name: str, message: bytes, now: float) -> list[Change]:
        """A message of another relay's: what is different now.

        Raises:
            FormatError: it is none.
        """
        decoded = decode(message)
        if name == self.name:
            return []
        author = self._authors.setdefault(name, _Author())
        if decoded.epoch < author.epoch:
            return []
        changes = self._begin(name, author, decoded.epoch) if decoded.epoch > author.epoch else []
        if isinstance(decoded, Beat):
            self._compare(author, decoded, now)
        elif decoded.parts:
            changes += self._take_part(name, author, decoded, now)
        else:
            changes += self._take_update(name, author, decoded, now)
        return changes

    def due(self, now: float) -> list[str]:
        """Relays that are to be asked for all that they have, now."""
        asked = []
        for name, author in self._authors.items():
            if author.ask_at is not None and author.ask_at <= now:
                author.ask_at = now + AGAIN_S + self._jitter() * JITTER_S
                asked.append(name)
        return asked

    @property
    def next_due(self) -> float | None:
        return min((each.ask_at for each in self._authors.values() if each.ask_at is not None), default=None)

    def gone(self, name: str) -> list[Change]:
        """A relay is gone: nobody is there. What it says of this epoch later counts again, all of it."""
        author = self._authors.get(name)
        if author is None:
            return []
        changes = self._begin(name, author, author.epoch)
        author.ask_at = None
        return changes

    # Who is where.

    def find(self, key: Key) -> tuple[str, Place] | None:
        """The relay that has an address, this one or another, and what it says."""
        found: tuple[str, Place] | None = None
        for name, entries in self._everybody():
            if (packed := entries.places.get(key)) is not None:
                place = Place.unpacked(packed)
                # By name, so that all come to one answer where generations are none.
                if found is None or (place.generation, name) > (found[1].generation, found[0]):
                    found = name, place
        return found

    def elsewhere(self, key: Key) -> tuple[str, Place] | None:
        """The same of the other relays."""
        found = self.find(key)
        return None if found is None or found[0] == self.name else found

    def of(self, name: str) -> Iterator[tuple[Key, Place]]:
        """What another relay has."""
        author = self._authors.get(name)
        for key, packed in list(author.entries.places.items()) if author is not None else ():
            yield key, Place.unpacked(packed)

    def addresses(self, word: str) -> frozenset[int]:
        """All in a network at which other relays have members."""
        return frozenset(ip for each in self._authors.values() for name, ip in each.entries.places if name == word)

    def counts(self) -> dict[str, int]:
        """How many members each other relay has."""
        return {name: len(author.entries.places) for name, author in self._authors.items()}

    @property
    def missing(self) -> list[str]:
        """Relays of which something is missing."""
        return [name for name, author in self._authors.items() if author.ask_at is not None]

    def fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """The same at all relays that are of one mind."""
        everybody = [(name, len(entries.places), entries.digest) for name, entries in self._everybody()]
        return tuple(sorted(each for each in everybody if each[1]))

    def _everybody(self) -> Iterator[tuple[str, _Entries]]:
        yield self.name, self._own
        for name, author in self._authors.items():
            yield name, author.entries

    def _begin(self, name: str, author: _Author, epoch: int) -> list[Change]:
        """Nothing is known of it in this epoch."""
        changes = [Change(key, name, False) for key in author.entries.places]
        author.epoch, author.sequence, author.entries = epoch, 0, _Entries()
        author.waiting, author.parts, author.parts_of = {}, {}, (0, 0)
        return changes

    def _compare(self, author: _Author, beat: Beat, now: float) -> None:
        own = (author.sequence, len(author.entries.places), author.entries.digest)
        if author.ask_at is None and beat.sequence >= author.sequence and own != beat[1:]:
            self._ask(author, now)

    def _ask(self, author: _Author, now: float) -> None:
        if author.ask_at is None:
            author.ask_at = now + self._jitter() * JITTER_S

    def _take_update(self, name: str, author: _Author, update: Update, now: float) -> list[Change]:
        if update.sequence <= author.sequence:
            return []
        if update.sequence == author.sequence + 1 and author.ask_at is None:
            author.sequence = update.sequence
            return self._apply(name, author, update.entries)
        if len(author.waiting) < WAITING_MOST:
            author.waiting[update.sequence] = update.entries
        self._ask(author, now)
        return []

    def _take_part(self, name: str, author: _Author, update: Update, now: float) -> list[Change]:
        of = (update.epoch, update.sequence)
        if update.sequence < author.sequence or (author.ask_at is None):
            return []
        if author.parts_of != of:
            author.parts, author.parts_of = {}, of
        author.parts[update.part] = update.entries
        if len(author.parts) < update.parts:
            return []
        whole = dict(entry for entries in author.parts.values() for entry in entries)
        author.parts, author.parts_of, author.ask_at = {}, (0, 0), None
        left = [(key, b"") for key in author.entries.places if key not in whole]
        changes = self._apply(name, author, [*left, *whole.items()])
        author.sequence = update.sequence
        waiting, author.waiting = author.waiting, {}
        for sequence in sorted(waiting):
            changes += self._take_update(name, author, Update(update.epoch, sequence, waiting[sequence]), now)
        return changes

    @staticmethod
    def _apply(name: str, author: _Author, entries: list[tuple[Key, bytes]]) -> list[Change]:
        changes = []
        for key, place in entries:
            if author.entries.places.get(key, b"") != place:
                author.entries.set(key, place)
                changes.append(Change(key, name, bool(place)))
        return changes
