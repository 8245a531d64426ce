"""The Noise Protocol Framework (revision 34), as far as candy speaks it: two handshakes and the ciphers that come out.

    initiator   Handshake(IKPSK1, …) ── write(payload) ─▶ message 1 ─▶ read(message) ── Handshake(…)   responder
                read(message) ◀──────── message 2 ◀── write(payload)
                split() ─▶ what is sent, what is received                  split() ─▶ what is received, what is sent

Rules:
 1. Everything here is the specification's: names, order of tokens, and what is refused. Section numbers are its own.
 2. Primitives are arguments, so that the caller chooses the library. This module has no I/O, clock or randomness.
 3. A message that can't be read leaves a handshake of no more use: who then reads, writes or splits gets an error.
 4. A key exchange with a point of low order is a failure (section 12.1 leaves it to the application).

This module knows neither connections nor what the payloads mean.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

KEY_BYTES: Final = 32
"""Of an X25519 key, a pre-shared key, and a cipher's key."""
TAG_BYTES: Final = 16
MESSAGE_MAX: Final = 65535
NONCE_MAX: Final = (1 << 64) - 2
"""The last that a message may have; the one behind it is reserved (section 5.1)."""
_HASH_BYTES: Final = 32


class NoiseError(Exception):
    """A message was refused, or a handshake is over."""


@dataclass(frozen=True)
class Primitives:
    """What a handshake is made of.

    Args:
        exchange: X25519 of a private and a public key, each KEY_BYTES; None for a point of low order.
        seal: AES-256-GCM: key, nonce of 12 bytes, associated data, plaintext ─▶ ciphertext and tag.
        open: the other way; None if the tag is wrong.
        hkdf: HKDF of SHA-256 with empty info (section 4.3): a chaining key, KEY_BYTES or nothing, and how many outputs
            of KEY_BYTES.
    """

    exchange: Callable[[bytes, bytes], bytes | None]
    seal: Callable[[bytes, bytes, bytes, bytes], bytes]
    open: Callable[[bytes, bytes, bytes, bytes], bytes | None]
    hkdf: Callable[[bytes, bytes, int], Sequence[bytes]]


@dataclass(frozen=True)
class KeyPair:
    """Of X25519, each KEY_BYTES. What knows it shows it to nobody: a log has the public half alone."""

    private: bytes = field(repr=False)
    public: bytes


class Token(Enum):
    """Of a message pattern (section 7.1)."""

    E = auto()
    S = auto()
    EE = auto()
    ES = auto()
    SE = auto()
    SS = auto()
    PSK = auto()


@dataclass(frozen=True)
class Pattern:
    """A handshake whose initiator knows the responder's static key before, and both a pre-shared key."""

    name: bytes
    messages: tuple[tuple[Token, ...], tuple[Token, ...]]


IKPSK1: Final = Pattern(
    b"Noise_IKpsk1_25519_AESGCM_SHA256",
    ((Token.E, Token.ES, Token.S, Token.SS, Token.PSK), (Token.E, Token.EE, Token.SE)),
)
IKPSK2: Final = Pattern(
    b"Noise_IKpsk2_25519_AESGCM_SHA256",
    ((Token.E, Token.ES, Token.S, Token.SS), (Token.E, Token.EE, Token.SE, Token.PSK)),
)


class Cipher:
    """A key and the nonce of its next message (section 5.1). It opens and seals in order.

    Args:
        key: KEY_BYTES.
    """

    __slots__ = ("_primitives", "key", "nonce")

    def __init__(self, primitives: Primitives, key: bytes) -> None:
        self._primitives = primitives
        self.key = key
        self.nonce = 0

    def seal(self, data: bytes, plaintext: bytes) -> bytes:
        """Encrypt one message with this associated data.

        Raises:
            NoiseError: it is too long, or the key has sealed as many as it may.
        """
        if len(plaintext) + TAG_BYTES > MESSAGE_MAX:
            raise NoiseError("a message is too long")
        sealed = self._primitives.seal(self.key, self._nonce(), data, plaintext)
        self.nonce += 1
        return sealed

    def open(self, data: bytes, ciphertext: bytes) -> bytes:
        """Decrypt one message with this associated data; one that is refused takes no nonce.

        Raises:
            NoiseError: it is not what was sealed.
        """
        if not TAG_BYTES <= len(ciphertext) <= MESSAGE_MAX:
            raise NoiseError("a message is too short or too long")
        opened = self._primitives.open(self.key, self._nonce(), data, ciphertext)
        if opened is None:
            raise NoiseError("a message was changed, or is of another key")
        self.nonce += 1
        return opened

    def _nonce(self) -> bytes:
        """AES-GCM's (section 12.3)."""
        if self.nonce > NONCE_MAX:
            raise NoiseError("a key has no nonces left")
        return bytes(4) + self.nonce.to_bytes(8, "big")


class Handshake:
    """One side of a handshake: writes and reads its two messages in turn (section 5.3).

    Args:
        is_initiator: writes the first one.
        prologue: what both must have seen alike.
        static: ours.
        ephemeral: a key pair that serves for this handshake alone; a responder may set it before it writes.
        remote: the responder's public key, for the initiator.
        psk: KEY_BYTES that both have; a responder may set it once it has learned `remote`, if the pattern has it in
            message 2.
    """

    def __init__(
        self,
        pattern: Pattern,
        primitives: Primitives,
        *,
        is_initiator: bool,
        prologue: bytes,
        static: KeyPair,
        ephemeral: KeyPair | None = None,
        remote: bytes | None = None,
        psk: bytes | None = None,
    ) -> None:
        self._primitives = primitives
        self._is_initiator = is_initiator
        self._static = static
        self.ephemeral = ephemeral
        self.remote = remote
        """The other's static public key, as soon as it is known."""
        self._remote_ephemeral: bytes | None = None
        self.psk = psk
        self._left: tuple[tuple[Token, ...], ...] | None = pattern.messages
        """Messages to come; None while one is worked on, and after one that failed."""
        self._writes = is_initiator
        self._cipher: Cipher | None = None
        # Of exactly a hash's length, so it is its own hash (section 5.2).
        assert len(pattern.name) == _HASH_BYTES
        self.hash = self._chaining = pattern.name
        """Of all that both saw: the same on both sides, and of no other handshake, once it is complete."""
        self._mix_hash(prologue)
        responder = remote if is_initiator else static.public
        if responder is None:
            raise NoiseError("the responder's key is not known")
        self._mix_hash(responder)

    def write(self, payload: bytes) -> bytes:
        """The next message, with this payload.

        Raises:
            NoiseError: it is not our turn, the peer's key is one of low order, or the payload is too long.
        """
        message = b""
        with self._turn(writes=True) as tokens:
            for token in tokens:
                if token is Token.E:
                    message += self._mix_ephemeral(self._own_ephemeral().public)
                elif token is Token.S:
                    message += self._seal(self._static.public)
                else:
                    self._mix(token)
            message += self._seal(payload)
            if len(message) > MESSAGE_MAX:
                raise NoiseError("a message is too long")
        return message

    def read(self, message: bytes, psks: Sequence[bytes] = ()) -> bytes:
        """The payload of the peer's next message.

        Args:
            psks: one of which the peer has, if the pattern has it in this message; then `psk` is that one.

        Raises:
            NoiseError: it is none, was changed, or its sender has other keys than it must.
        """
        with self._turn(writes=False) as tokens:
            if len(message) > MESSAGE_MAX:
                raise NoiseError("a message is too long")
            for token in tokens:
                if token is Token.E:
                    self._remote_ephemeral, message = self._take(message, KEY_BYTES)
                    self._mix_ephemeral(self._remote_ephemeral)
                elif token is Token.S:
                    sealed, message = self._take(message, KEY_BYTES + TAG_BYTES)
                    self.remote = self._open(sealed)
                elif token is Token.PSK and psks:
                    return self._open_with_one_of(psks, message)
                else:
                    self._mix(token)
            return self._open(message)

    def split(self) -> tuple[Cipher, Cipher]:
        """The ciphers behind the handshake: of what we send, and of what we receive.

        Raises:
            NoiseError: it is not complete.
        """
        if self._left != ():
            raise NoiseError("the handshake is not complete")
        one, other = (Cipher(self._primitives, key) for key in self._primitives.hkdf(self._chaining, b"", 2))
        return (one, other) if self._is_initiator else (other, one)

    @contextmanager
    def _turn(self, *, writes: bool) -> Iterator[tuple[Token, ...]]:
        """The tokens of the next message, and after it the other side's turn. Who fails within has none any more."""
        if not self._left or self._writes != writes:
            raise NoiseError("this is not the turn of this side")
        (tokens, *left), self._left = self._left, None
        yield tokens
        self._left, self._writes = tuple(left), not writes

    # The symmetric state (section 5.2).

    def _mix(self, token: Token) -> None:
        """Of the two letters of a token the first is the initiator's key."""
        match token:
            case Token.PSK:
                if self.psk is None or len(self.psk) != KEY_BYTES:
                    raise NoiseError("there is no pre-shared key of 32 bytes")
                self._chaining, mixed, key = self._primitives.hkdf(self._chaining, self.psk, 3)
                self._mix_hash(mixed)
                self._cipher = Cipher(self._primitives, key)
            case Token.EE:
                self._exchange(self._own_ephemeral(), self._remote_ephemeral)
            case Token.SS:
                self._exchange(self._static, self.remote)
            case Token.ES if self._is_initiator:
                self._exchange(self._own_ephemeral(), self.remote)
            case Token.SE if not self._is_initiator:
                self._exchange(self._own_ephemeral(), self.remote)
            case _:
                self._exchange(self._static, self._remote_ephemeral)

    def _own_ephemeral(self) -> KeyPair:
        if self.ephemeral is None:
            raise NoiseError("there is no ephemeral key")
        return self.ephemeral

    def _exchange(self, ours: KeyPair, public: bytes | None) -> None:
        shared = None if public is None else self._primitives.exchange(ours.private, public)
        if shared is None:
            raise NoiseError("a key is a point of low order")
        self._mix_key(shared)

    def _mix_ephemeral(self, public: bytes) -> bytes:
        """In a handshake with a pre-shared key this key is mixed into the cipher's too (section 9.2)."""
        self._mix_hash(public)
        self._mix_key(public)
        return public

    def _mix_key(self, material: bytes) -> None:
        self._chaining, key = self._primitives.hkdf(self._chaining, material, 2)
        self._cipher = Cipher(self._primitives, key)

    def _mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def _seal(self, plaintext: bytes) -> bytes:
        assert self._cipher is not None
        sealed = self._cipher.seal(self.hash, plaintext)
        self._mix_hash(sealed)
        return sealed

    def _open(self, sealed: bytes) -> bytes:
        assert self._cipher is not None
        opened = self._cipher.open(self.hash, sealed)
        self._mix_hash(sealed)
        return opened

    def _open_with_one_of(self, psks: Sequence[bytes], sealed: bytes) -> bytes:
        """In both patterns nothing but the payload is behind the pre-shared key, so it alone shows which one it was."""
        before = self._chaining, self.hash
        for self.psk in psks:
            self._chaining, self.hash = before
            self._mix(Token.PSK)
            with suppress(NoiseError):
                return self._open(sealed)
        raise NoiseError("a message was changed, or is of another key")

    @staticmethod
    def _take(message: bytes, length: int) -> tuple[bytes, bytes]:
        if len(message) < length:
            raise NoiseError("a message is too short")
        return message[:length], message[length:]
