"""Whether a member believes the keys that a relay shows, and what it keeps of them.

    configured key, what is kept ─▶ judge(shown) ─▶ Known: keep it once the log-in is answered │ TrustError: refuse

Rules:
 1. Own is the network's key that was passed last, if what is kept was reached from the configured key, or there is none
    configured; else the configured one. A relay shows the own key, or a way to its own from there, by signatures one
    after the other whose numbers grow. Without an own key the first one counts (first contact).
 2. A relay's key is of the generation that was seen, or a later one, under one network's key and relay's number; of the
    same generation it is the same key.
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


@dataclass(frozen=True, slots=True)
class Known:
    """What a member knows of a network and its relay.

    ┌──────────┬────────┬──────────────┐┌────────────┐
    │ number 2 │ key 32 │ generation 6 ││ network 32 │  once for each that was passed, the present one last
    └──────────┴────────┴──────────────┘└────────────┘
    """

    LAYOUT: ClassVar[Struct] = Struct(">H32s6s")
    LENGTHS: ClassVar[range] = range(LAYOUT.size + KEY_BYTES, LAYOUT.size + PASSED_MAX * KEY_BYTES + 1, KEY_BYTES)

    number: int
    relay: bytes
    generation: int
    passed: tuple[bytes, ...]

    @property
    def network(self) -> bytes:
        """The present key."""
        return self.passed[-1]

    def encode(self) -> bytes:
        head = self.LAYOUT.pack(self.number, self.relay, self.generation.to_bytes(6, "big"))
        return head + b"".join(self.passed)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Of one of LENGTHS."""
        number, relay, generation = cls.LAYOUT.unpack_from(data)
        passed = (data[at : at + KEY_BYTES] for at in range(cls.LAYOUT.size, len(data), KEY_BYTES))
        return cls(number, relay, int.from_bytes(generation, "big"), tuple(passed))

    def is_before(self, other: "Known") -> bool:
        """Whether `other` is what the relay, or its network, has said later than this."""
        if other.generation == ANY_GENERATION:
            return False
        if (self.network, self.number) == (other.network, other.number):
            return self.generation < other.generation
        return self.network in other.passed[:-1]

    def succeeded(self, entry: Succession, verify: Verify) -> "Known":
        """The relay tells of another network's key. Raises TrustError, unless the present one signed it."""
        if entry.old != self.network or not entry.is_signed(verify):
            raise TrustError(f"a new network key {shown_network(entry.new)} is not signed by the one before")
        # Its relay's key follows, signed by the new one.
        return replace(self, generation=0, passed=_kept((*self.passed, entry.new)))

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
    return replace(kept, relay=key, generation=ANY_GENERATION)


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
    if kept is not None and (kept.network, kept.number) == (passed[-1], key.number):
        is_accepted = kept.generation == ANY_GENERATION and key.relay == kept.relay
        if key.generation < kept.generation and not is_accepted:
            raise TrustError(
                f"the relay shows a key that was replaced, {shown_relay(key.relay)}: it is a copy of your relay, or "
                "went back to a backup; if you know that it is yours, run candy-client accept with that key"
            )
        if key.generation == kept.generation and key.relay != kept.relay:
            raise TrustError(
                f"the relay shows another key of the same time, {shown_relay(key.relay)}: it is not your relay; if you "
                "know that it is yours, run candy-client accept with that key"
            )
    return Known(key.number, key.relay, key.generation, passed)


def _kept(passed: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return passed[-PASSED_MAX:]
