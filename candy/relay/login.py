"""The relay's half of a log-in with keys, on one connection: message 1 is read, message 2 answers it.

    shown ─▶ 101    message 1 ─▶ read() ─▶ Claim: who, and what it has proven ─▶ answer(told) ─▶ Answer: message 2, keys
                                       └─▶ None: nothing is proven, so the connection ends without a word

Rules:
 1. One try: read() is called once.
 2. For a selector that there is not no key exchange is worked out.
 3. What can't be opened, a point of low order, and a device's credential under another key are one and the same: None.
 4. Python keeps neither handshake nor keys of it behind answer().

Whether a device is let in decides candy.relay.enrolment, and as whom the network. Primitives are arguments.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from candy.errors import WireError
from candy.protocol.keys import NONCE_BYTES, RelayKey, Shown, Succession
from candy.protocol.login import NO_SELECTOR, Asked, Credential, Login, Told, control_key, prologue
from candy.protocol.noise import IKPSK1, KEY_BYTES, Handshake, KeyPair, NoiseError, Primitives
from candy.relay.enrolment import Enrolment, Proof
from candy.relay.passwords import Password


@dataclass(frozen=True, slots=True)
class RelayKeyPair:
    """What a relay shows, and the private half of it."""

    pair: KeyPair
    key: RelayKey
    successions: tuple[Succession, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """Who has opened message 1, and how."""

    key: bytes
    """The device's, public."""
    proof: Proof
    asked: Asked


@dataclass(frozen=True, slots=True)
class Answer:
    """Message 2, and what follows for the connection."""

    message: bytes
    sends: bytes = field(repr=False)
    """The key of the relay's CONTROLs."""
    receives: bytes = field(repr=False)
    """Of the member's."""
    name: str
    """Of the connection, for logs: the same on both sides."""


class LogIn:
    """See the rules above.

    Args:
        keys: the relay's, as they are when the connection is upgraded.
        offered: the subprotocols of the upgrade, in their order.
        draw: that many random bytes.
        key_pair: of X25519, from 32 random bytes.
    """

    __slots__ = ("_draw", "_handshake", "_key_pair", "_keys", "_offered", "_primitives", "shown")

    def __init__(
        self,
        keys: RelayKeyPair,
        offered: Sequence[str],
        draw: Callable[[int], bytes],
        primitives: Primitives,
        key_pair: Callable[[bytes], KeyPair],
    ) -> None:
        self._keys = keys
        self._offered = tuple(offered)
        self._draw = draw
        self._primitives = primitives
        self._key_pair = key_pair
        self._handshake: Handshake | None = None
        self.shown = Shown(keys.key, draw(NONCE_BYTES), keys.successions)
        """For the 101."""

    @property
    def relay_key(self) -> RelayKey:
        """Under which it is; perhaps rotated away meanwhile."""
        return self._keys.key

    def read(self, login: Login, enrolment: Enrolment, passwords: Iterable[Password]) -> Claim | None:
        """What message 1 proves; None: nothing.

        Args:
            login: as Login.decode() has it.
            passwords: those that hold, and are not for old clients alone.
        """
        assert self._handshake is None
        proofs = enrolment.candidates(login, passwords)
        if not proofs:
            return None
        seen = prologue(self._keys.key, self.shown.nonce, self._offered, login.head)
        handshake = Handshake(
            IKPSK1,
            self._primitives,
            is_initiator=False,
            prologue=seen,
            static=self._keys.pair,
        )
        try:
            asked = Asked.decode(handshake.read(login.noise, [proof.psk for proof in proofs]))
        except (NoiseError, WireError):
            return None
        assert handshake.remote is not None
        proof = next(proof for proof in proofs if proof.psk == handshake.psk)
        if not enrolment.is_of(proof, handshake.remote):
            return None
        self._handshake = handshake
        return Claim(handshake.remote, proof, asked)

    def answer(self, told: Told) -> Answer:
        """To be called once, behind a Claim."""
        assert self._handshake is not None
        handshake, self._handshake = self._handshake, None
        # Only now: who proves nothing costs none.
        handshake.ephemeral = self._key_pair(self._draw(KEY_BYTES))
        noise = handshake.write(told.encode())
        sends, receives = map(control_key, handshake.split())
        message = Login(2, Credential.NONE, NO_SELECTOR, noise).encode()
        return Answer(message, sends, receives, handshake.hash[:8].hex())
