"""How two candy.3 members get a session, in bytes: HANDSHAKE, the notes that stand for it in rekeying, their payloads.

    HANDSHAKE      ┌──┬─────────┬─────────┬──────────┬───────────────┬──────────┬────────────┬───────────────┐
    148 or 100     │20│ message │ zeros 2 │ source 4 │ destination 4 │ sender 4 │ receiver 4 │ Noise message │
    C→S→C          └──┴─────────┴─────────┴──────────┴───────────────┴──────────┴────────────┴───────────────┘
    note           ┌───┬─────────┬──────────┬────────────┬───────────────┐
    138 or 90      │128│ message │ sender 4 │ receiver 4 │ Noise message │   within a SEALED
                   └───┴─────────┴──────────┴────────────┴───────────────┘
    within 1       ┌─────────┬─────────┬───────┬──────────┬──────────┐
    32             │ time 12 │ ciphers │ flags │ commit 4 │ zeros 14 │
                   └─────────┴─────────┴───────┴──────────┴──────────┘
    within 2       ┌──────────┬───────────────┬──────────┬────────────┬────────┬───────┬──────────┬──────────┐
    32             │ source 4 │ destination 4 │ sender 4 │ receiver 4 │ cipher │ flags │ commit 4 │ zeros 10 │
                   └──────────┴───────────────┴──────────┴────────────┴────────┴───────┴──────────┴──────────┘

Sender and receiver are session numbers: each what its owner wants to be called by in SEALED. `time` is TAI64N.

Rules: the length is checked before the first field is read; bytes that are none raise WireError (`bad_handshake`). What
is zeros within a payload is not looked at, so that a later candy can have it. This module knows neither who may have a
session, nor where primitives come from.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from struct import Struct
from typing import ClassVar, Final, Self

from candy.errors import WireError
from candy.protocol.keys import expand
from candy.protocol.login import Asks
from candy.protocol.noise import KEY_BYTES, TAG_BYTES
from candy.protocol.noise import Cipher as NoiseCipher
from candy.protocol.wire import DropReason

HANDSHAKE: Final = 20
"""The kind."""
NOTE: Final = 0x80
"""The first byte of a note, which no virtio header has."""
STAMP_BYTES: Final = 12
_SESSION: Final = b"candy.3 session\0"
_REKEY: Final = b"candy.3 rekey\0\0\0"
_RELAY_PATH: Final = b"candy.3 relay path"


class Cipher(IntEnum):
    """What seals the packets of a session; the numbers are also bits of what is offered."""

    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2


ALL_CIPHERS: Final = Cipher.AES_256_GCM | Cipher.CHACHA20_POLY1305


@dataclass(frozen=True, slots=True)
class Offer:
    """The payload of message 1."""

    LAYOUT: ClassVar[Struct] = Struct(f">{STAMP_BYTES}sBBI14x")

    stamp: bytes
    """TAI64N, greater than any before it of this member."""
    ciphers: int
    """Bits of Cipher."""
    flags: Asks
    commit_bytes: int

    def encode(self) -> bytes:
        return self.LAYOUT.pack(self.stamp, self.ciphers, self.flags, self.commit_bytes)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Of a payload as long as its message's length has it."""
        stamp, ciphers, flags, commit_bytes = cls.LAYOUT.unpack(data)
        return cls(stamp, ciphers, Asks(flags), commit_bytes)


@dataclass(frozen=True, slots=True)
class Answer:
    """The payload of message 2."""

    LAYOUT: ClassVar[Struct] = Struct(">16sBBI10x")

    ends: bytes
    """Of its Message. Known to who reads it, so that it commits the message to its key."""
    cipher: int
    flags: Asks
    commit_bytes: int

    def encode(self) -> bytes:
        return self.LAYOUT.pack(self.ends, self.cipher, self.flags, self.commit_bytes)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Of a payload as long as its message's length has it."""
        ends, cipher, flags, commit_bytes = cls.LAYOUT.unpack(data)
        return cls(ends, cipher, Asks(flags), commit_bytes)


@dataclass(frozen=True, slots=True)
class Message:
    """One of the two messages, however it is carried."""

    LAYOUT: ClassVar[Struct] = Struct(">BBHIIII")
    NOTE_LAYOUT: ClassVar[Struct] = Struct(">BBII")
    NOISE_BYTES: ClassVar[dict[int, int]] = {
        1: KEY_BYTES + KEY_BYTES + TAG_BYTES + Offer.LAYOUT.size + TAG_BYTES,
        2: KEY_BYTES + Answer.LAYOUT.size + TAG_BYTES,
    }
    """By the message's number."""

    number: int
    source: IPv4Address
    destination: IPv4Address
    sender: int
    receiver: int
    """0 in message 1."""
    noise: bytes = b""

    @property
    def head(self) -> bytes:
        """All of a HANDSHAKE but the Noise message."""
        own = (int(self.source), int(self.destination), self.sender, self.receiver)
        return self.LAYOUT.pack(HANDSHAKE, self.number, 0, *own)

    @property
    def ends(self) -> bytes:
        """Who, to whom, and which session: what payload 2 repeats of its header."""
        return self.head[4:]

    def encode(self) -> bytes:
        """As HANDSHAKE."""
        return self.head + self.noise

    def encode_note(self) -> bytes:
        return self.NOTE_LAYOUT.pack(NOTE, self.number, self.sender, self.receiver) + self.noise

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Of a HANDSHAKE."""
        if len(data) < cls.LAYOUT.size:
            raise WireError(DropReason.BAD_HANDSHAKE)
        kind, number, zeros, source, destination, sender, receiver = cls.LAYOUT.unpack_from(data)
        if kind != HANDSHAKE or zeros:
            raise WireError(DropReason.BAD_HANDSHAKE)
        ends = (IPv4Address(source), IPv4Address(destination))
        return cls._checked(number, *ends, sender, receiver, data[cls.LAYOUT.size :])

    @classmethod
    def decode_note(cls, data: bytes, source: IPv4Address, destination: IPv4Address) -> Self:
        """Of a note in a session of these two."""
        if len(data) < cls.NOTE_LAYOUT.size or data[0] != NOTE:
            raise WireError(DropReason.BAD_HANDSHAKE)
        _, number, sender, receiver = cls.NOTE_LAYOUT.unpack_from(data)
        return cls._checked(number, source, destination, sender, receiver, data[cls.NOTE_LAYOUT.size :])

    @classmethod
    def _checked(
        cls, number: int, source: IPv4Address, destination: IPv4Address, sender: int, receiver: int, noise: bytes
    ) -> Self:
        right = sender != 0 and (receiver == 0) == (number == 1) and source != destination
        if not right or len(noise) != cls.NOISE_BYTES.get(number):
            raise WireError(DropReason.BAD_HANDSHAKE)
        return cls(number, source, destination, sender, receiver, noise)


def prologue(network: bytes, first: Message) -> bytes:
    """What both have to have seen alike before message 1, 76 bytes.

    Args:
        network: the network's key.
        first: message 1.
    """
    return _SESSION + network + first.source.packed + first.destination.packed + first.head


def rekey_prologue(first: Message, within: bytes) -> bytes:
    """The same for a message 1 that is a note, 60 bytes; `within` is the handshake hash of the session that has it."""
    return _REKEY + first.source.packed + first.destination.packed + first.sender.to_bytes(4, "big") + within


def path_key(cipher: NoiseCipher) -> bytes:
    """The key of SEALED through the relay, in the direction of one of split()'s ciphers."""
    return expand(cipher.key, _RELAY_PATH)


def choose(offered: int, own: int, *, have_aes: bool) -> Cipher | None:
    """The responder's choice; None if there is no cipher that both have.

    Args:
        offered, own: bits of Cipher.
        have_aes: the processors of both have it.
    """
    both = offered & own
    order = (Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305)
    return next((cipher for cipher in (order if have_aes else order[::-1]) if cipher & both), None)
