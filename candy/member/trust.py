"""Whether a member believes the keys that a relay shows, and what it keeps of them.

    configured key, what is kept ─▶ judge(shown) ─▶ Known: keep it once the log-in is answered │ TrustError: refuse

Rules:
 1. Own is the network's key that was passed last, if what is kept was reached from the configured key, or there is none
    configured; else the configured one. A relay shows the own key, or a way to its own from there, by signatures one
    after the other whose numbers grow. Without an own key the first one counts (first contact).
 2. A relay's key is of the generation that was seen, or a later one, under one network's key and relay's number; of the
    same generation it is the same key. Relays of one network have different numbers, and what was seen of each counts.
 3. Nothing is kept before message 2 has opened: who has not got the credential gets no key kept.
 4. Whatever is refused is named in full, so that `candy-client accept KEY` can take it.

No I/O: candy.member.keys has the files.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from struct import Struct
from typing import ClassVar, Final, Self

from candy.errors import TrustError
from candy.protocol.keys import RelayKey, Shown, Succession, Verify
from candy.protocol.noise import KEY_BYTES

ANY_GENERATION: Final = (1 << 48) - 1
"""Of a relay's key that is kept because its user accepted it: as it may be of any."""
_NETWORK, _RELAY = "network/", "relay/"
"""Before a key that is named in full: which of the two it is."""
PASSED_MAX: Final = 9
"""Network's keys that are kept: the present one, and as many as a relay shows the ends of."""
OTHERS_MAX: Final = 63
"""Relays of the network that are kept beside the one that was seen last."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A relay of the network, as it was seen last."""

    LAYOUT: ClassVar[Struct] = Struct(">H32s6s")

    number: int
    relay: bytes
    generation: int

    def encode(self) -> bytes:
        return self.LAYOUT.pack(self.number, self.relay, self.generation.to_bytes(6, "big"))

    @classmethod
    def decode(cls, data: bytes, offset: int) -> Self:
        number, relay, generation = cls.LAYOUT.unpack_from(data, offset)
        return cls(number, relay, int.from_bytes(generation, "big"))


@dataclass(frozen=True, slots=True)
class Known:
    """What a member knows of a network and its relays.

    ┌──────────┬────────┬──────────────┐┌────────────┐  ┌──────────┬────────┬──────────────┐  ┌──────────┐
    │ number 2 │ key 32 │ generation 6 ││ network 32 │… │ number 2 │ key 32 │ generation 6 │… │ networks │
    └──────────┴────────┴──────────────┘└────────────┘  └──────────┴────────┴──────────────┘  └──────────┘

    The relay that was seen last; each key of the network that was passed, the present one last; and if other relays
    were seen, these, and a byte that says how many of the network's keys there are.
    """

    LENGTHS: ClassVar[frozenset[int]] = frozenset(
        Seen.LAYOUT.size * (1 + others) + KEY_BYTES * networks + bool(others)
        for networks in range(1, PASSED_MAX + 1)
        for others in range(OTHERS_MAX + 1)
    )

    number: int
    relay: bytes
    generation: int
    passed: tuple[bytes, ...]
    others: tuple[Seen, ...] = ()
    """Other relays of the present network's key, the one that was seen last first."""

    @property
    def network(self) -> bytes:
        """The present key."""
        return self.passed[-1]

    @property
    def seen(self) -> tuple[Seen, ...]:
        """All relays."""
        return (Seen(self.number, self.relay, self.generation), *self.others)

    def encode(self) -> bytes:
        first, *others = self.seen
        behind = [*(other.encode() for other in others), bytes([len(self.passed)])] if others else []
        return b"".join([first.encode(), *self.passed, *behind])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Of one of LENGTHS. Raises ValueError: its last byte does not fit."""
        first, size = Seen.decode(data, 0), Seen.LAYOUT.size
        # Without others a length is even, with them odd.
        has_others = len(data) % 2 == 1
        end = size + data[-1] * KEY_BYTES if has_others else len(data)
        others = range(end, len(data) - 1, size) if has_others else range(0)
        if has_others and not (1 <= data[-1] <= PASSED_MAX and end + len(others) * size == len(data) - 1):
            raise ValueError("keys and relays do not fill it")
        passed = tuple(data[at : at + KEY_BYTES] for at in range(size, end, KEY_BYTES))
        own = (first.number, first.relay, first.generation)
        return cls(*own, passed, tuple(Seen.decode(data, at) for at in others))

    def is_before(self, other: "Known") -> bool:
        """Whether `other` is what the relay, or its network, has said later than this."""
        if other.generation == ANY_GENERATION:
            return False
        if (self.network, self.number) == (other.network, other.number):
            return self.generation < other.generation
        return self.network in other.passed[:-1]

    def beside(self, other: "Known") -> "Known":
        """This, with what `other` has seen of the network's other relays as far as that is later."""
        if other.network != self.network:
            return self
        latest = {each.number: each for each in self.others}
        for each in other.seen:
            if each.number != self.number and (
                each.number not in latest or latest[each.number].generation < each.generation
            ):
                latest[each.number] = each
        return replace(self, others=tuple(latest.values())[:OTHERS_MAX])

    def succeeded(self, entry: Succession, verify: Verify) -> "Known":
        """The relay tells of another network's key. Raises TrustError, unless the present one signed it."""
        if entry.old != self.network or not entry.is_signed(verify):
            raise TrustError(f"a new network key {shown_network(entry.new)} is not signed by the one before")
        # Its relay's key follows, signed by the new one.
        return replace(self, generation=0, passed=_kept((*self.passed, entry.new)), others=())

    def renewed(self, key: RelayKey, verify: Verify) -> "Known":
        """The relay tells of another key of its own. Raises TrustError."""
        if key.network != self.network:
            raise TrustError(f"a new relay key is of another network, {shown_network(key.network)}")
        return _with_relay(key, self, self.passed, verify)


def judge(shown: Shown, configured: bytes | None, kept: Known | None, verify: Verify) -> Known:
    """What to keep, when the log-in has succeeded.

    Args:
        configured: the network's key in the line of the configuration; None: there is none.
        kept: of a log-in before.

    Raises:
        TrustError: the relay is not to be believed; the text is for the user.
    """
    if kept is not None and configured is not None and configured not in kept.passed:
        kept = None
    passed = kept.passed if kept is not None else (configured,) if configured is not None else ()
    key = shown.key
    passed = _way(passed, key.network, shown.successions, verify) if passed else (key.network,)
    return _with_relay(key, kept, passed, verify)


def accepted(text: str, configured: bytes | None, kept: Known | None) -> Known:
    """What to keep instead, so that the key is believed that a refusal has named: the word of the member's user.

    Args:
        text: as that refusal has it.

    Raises:
        ValueError: it is none; the text completes the sentence "<text> …".
    """
    kind = next((kind for kind in (_NETWORK, _RELAY) if text.startswith(kind)), None)
    try:
        key = urlsafe_b64decode(text.removeprefix(kind or "") + "=")
    except ValueError:
        key = b""
    if kind is None or len(key) != KEY_BYTES:
        raise ValueError("is not a key as a refusal names it: copy it whole, it begins with network/ or relay/")
    if kind == _NETWORK:
        passed = () if kept is None else kept.passed
        # So that a line in the configuration leads there, too.
        if configured is not None and configured not in passed:
            passed = (configured,)
        return Known(0, bytes(KEY_BYTES), 0, _kept((*passed, key)))
    if kept is None:
        raise ValueError("is a relay's key, but this member knows no relay yet: it takes the first one that it meets")
    # Which relay's it is, it says when it is met; what was seen of them is needed again then.
    others = tuple(each for each in kept.seen if each.relay != key and each.generation != ANY_GENERATION)
    return replace(kept, relay=key, generation=ANY_GENERATION, others=others[:OTHERS_MAX])


def shown_network(key: bytes) -> str:
    """A network's key in full, as `accept` takes it."""
    return _NETWORK + _text(key)


def shown_relay(key: bytes) -> str:
    """A relay's."""
    return _RELAY + _text(key)


def _text(key: bytes) -> str:
    return urlsafe_b64encode(key).decode("ascii").rstrip("=")


def _way(
    passed: tuple[bytes, ...], towards: bytes, successions: Sequence[Succession], verify: Verify
) -> tuple[bytes, ...]:
    """The keys that were passed when the relay's is reached."""
    last = -1
    way = passed
    for entry in successions:
        if way[-1] == towards:
            break
        if entry.old == way[-1] and entry.number > last and entry.is_signed(verify):
            way = (*way, entry.new)
            last = entry.number
    if way[-1] != towards:
        raise TrustError(
            f"the relay is of another network, its key is {shown_network(towards)}: it is not your relay, or its "
            "network was made anew; if you know that it is yours, run candy-client accept with that key"
        )
    return _kept(way)


def _with_relay(key: RelayKey, kept: Known | None, passed: tuple[bytes, ...], verify: Verify) -> Known:
    if not key.is_signed(verify):
        raise TrustError("the relay's key is not signed by its network's: something on the way has changed it")
    seen = kept.seen if kept is not None and kept.network == passed[-1] else ()
    is_accepted = any(each.generation == ANY_GENERATION and each.relay == key.relay for each in seen)
    before = next((each for each in seen if each.number == key.number), None)
    if before is not None and not is_accepted:
        if key.generation < before.generation:
            raise TrustError(
                f"the relay shows a key that was replaced, {shown_relay(key.relay)}: it is a copy of your relay, or "
                "went back to a backup; if you know that it is yours, run candy-client accept with that key"
            )
        if key.generation == before.generation and key.relay != before.relay:
            raise TrustError(
                f"the relay shows another key of the same time, {shown_relay(key.relay)}: it is not your relay; if you "
                "know that it is yours, run candy-client accept with that key"
            )
    others = [each for each in seen if each.number != key.number and each.generation != ANY_GENERATION]
    return Known(key.number, key.relay, key.generation, passed, tuple(others[:OTHERS_MAX]))


def _kept(passed: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return passed[-PASSED_MAX:]
