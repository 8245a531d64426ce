"""How two relays get to know each other on a link, before packets go by it: messages, and what follows from each.

    dials                                                        is dialed
    22 ‖ 1 ‖ Noise message 1, its name ────────────────────────▶ a record with this name and this key?
         ◀──────────────────────────────── 22 ‖ 2 ‖ Noise message 2
    22 ‖ 3 ‖ sealed: last 1 ‖ words of its networks … ─────────▶ those that it serves too, in this order: their numbers
         ◀──────────────────────────────── 22 ‖ 4 ‖ sealed: a bit for each
    22 ‖ 5 ‖ sealed: nothing ──────────────────────────────────▶ packets may go to the one that dialed

Rules:
 1. Noise_IKpsk1 with the keys that both have in their records, which are sealed with the cluster's secret; the
    pre-shared key comes of that secret. So nobody is a relay who has not all of it: secret, record and key.
 2. What does not fit ends the link. No number is taken from a peer: networks are found by their words.
 3. Who is dialed takes packets before it says so, and who dialed before it says that: none is lost.

No I/O, clock or randomness but what Noise draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from candy.errors import CandyError
from candy.protocol.noise import IKPSK1, Cipher, Handshake, KeyPair, NoiseError, Primitives

CONTROL: Final = 22
"""First byte of every message, as the engine has it."""
PROLOGUE: Final = b"candy relay link v1"
WORDS_BYTES: Final = 900
"""Of words in one message: with what is around it, the engine takes 1,024 bytes of who has not logged in."""
WORDS_MOST: Final = 4096
_HELLO, _ANSWER, _NETWORKS, _COMMON, _READY = range(1, 6)


class LinkError(CandyError):
    """The other end is no relay of this cluster, or not what it says; one line."""


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from a message, in this order."""

    agreed: tuple[str, ...] | None = None
    """Words of the networks that both serve, by their numbers: what comes is taken from now on."""
    messages: Sequence[bytes] = ()
    """To be sent."""
    is_open: bool = False
    """Packets may leave from now on."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a relay is by its own word, and what all of them have.

    Args:
        psk: of the cluster's secret, 32 bytes.
        words: of the networks that it serves.
    """

    name: str
    pair: KeyPair
    psk: bytes = field(repr=False)
    words: Sequence[str]
    primitives: Primitives


class LinkLogin:
    """One link's log-in; see the rules above.

    Args:
        key_of: the public key of another relay, by name, as its record has it; None: there is none that runs.
        draw: a key pair of this log-in alone.
        peer: whom this end has dialed; None: it was dialed.

    Raises:
        LinkError: whom it has dialed runs no more.
    """

    def __init__(
        self,
        own: Identity,
        key_of: Callable[[str], bytes | None],
        draw: Callable[[], KeyPair],
        peer: str | None = None,
    ) -> None:
        self._own = own
        self._key_of = key_of
        self._draw = draw
        self.peer = peer
        """Name of the other relay; None: not known yet."""
        self._words: list[str] = []
        self._sends: Cipher | None = None
        self._receives: Cipher | None = None
        self._expects = _HELLO if peer is None else _ANSWER
        remote = None if peer is None else key_of(peer)
        if peer is not None and remote is None:
            raise LinkError(f"{peer} has ended meanwhile")
        self._handshake = Handshake(
            IKPSK1,
            own.primitives,
            is_initiator=peer is not None,
            prologue=PROLOGUE,
            static=own.pair,
            ephemeral=None if peer is None else draw(),
            remote=remote,
            psk=own.psk,
        )

    def begin(self) -> bytes:
        """The first message of who has dialed."""
        return bytes([CONTROL, _HELLO]) + self._handshake.write(self._own.name.encode())

    def received(self, message: bytes) -> Step:
        """Raises LinkError; the link is to be ended then."""
        if len(message) < 2 or not self._expects or tuple(message[:2]) != (CONTROL, self._expects):
            raise LinkError("a message of a link's log-in came out of its order")
        handlers: dict[int, Callable[[bytes], Step]] = {
            _HELLO: self._hello,
            _ANSWER: self._answer,
            _NETWORKS: self._networks,
            _COMMON: self._common,
            _READY: self._ready,
        }
        try:
            return handlers[self._expects](message[2:])
        except NoiseError as error:
            raise LinkError(f"its keys are not those of its record, or it has another secret_file ({error})") from None

    def _hello(self, body: bytes) -> Step:
        name = self._handshake.read(body).decode("ascii", "replace")
        if self._handshake.remote is None or self._key_of(name) != self._handshake.remote or name == self._own.name:
            raise LinkError(f"{name[:32]!r} has another key than its record, or none")
        # Only now: who proves nothing costs none.
        self._handshake.ephemeral = self._draw()
        self.peer = name
        answer = bytes([CONTROL, _ANSWER]) + self._handshake.write(b"")
        self._sends, self._receives = self._handshake.split()
        self._expects = _NETWORKS
        return Step(messages=[answer])

    def _answer(self, body: bytes) -> Step:
        self._handshake.read(body)
        self._sends, self._receives = self._handshake.split()
        self._expects = _COMMON
        return Step(messages=[self._sealed(_NETWORKS, part) for part in _parts(self._own.words)])

    def _networks(self, body: bytes) -> Step:
        part = self._opened(body)
        self._words += part[1:].decode("ascii", "replace").split()
        if not part or len(self._words) > WORDS_MOST or len(set(self._words)) != len(self._words):
            raise LinkError("its list of networks makes no sense")
        if not part[0]:
            return Step()
        self._expects = _READY
        common = [word in self._own.words for word in self._words]
        bits = sum(is_common << at for at, is_common in enumerate(common))
        told = self._sealed(_COMMON, bits.to_bytes((len(common) + 7) // 8, "little"))
        return Step(agreed=_chosen(self._words, bits), messages=[told])

    def _common(self, body: bytes) -> Step:
        bits = int.from_bytes(self._opened(body), "little")
        if bits >> len(self._own.words):
            raise LinkError("it serves networks of which it was not asked")
        self._expects = 0
        return Step(_chosen(self._own.words, bits), [self._sealed(_READY, b"")], is_open=True)

    def _ready(self, body: bytes) -> Step:
        self._opened(body)
        self._expects = 0
        return Step(is_open=True)

    def _sealed(self, kind: int, body: bytes) -> bytes:
        assert self._sends is not None
        head = bytes([CONTROL, kind])
        return head + self._sends.seal(head, body)

    def _opened(self, body: bytes) -> bytes:
        assert self._receives is not None
        return self._receives.open(bytes([CONTROL, self._expects]), body)


def _chosen(words: Sequence[str], bits: int) -> tuple[str, ...]:
    return tuple(word for at, word in enumerate(words) if bits >> at & 1)


def _parts(words: Sequence[str]) -> list[bytes]:
    """Words in messages of no more than WORDS_BYTES each, the last one marked."""
    parts = [b""]
    for word in words:
        piece = word.encode()
        if parts[-1] and len(parts[-1]) + 1 + len(piece) > WORDS_BYTES:
            parts.append(b"")
        parts[-1] += (b" " if parts[-1] else b"") + piece
    return [bytes([at == len(parts) - 1]) + part for at, part in enumerate(parts)]
