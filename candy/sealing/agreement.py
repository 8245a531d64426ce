"""One handshake between two members: what each of its two messages is made of, and the keys that come out.

    initiator   offered() ── message 1 ─▶ heard() ─ is it the right key, is it later? ─▶ answered()   responder
                agreed()  ◀── message 2 ────────────────────────────────────────────────────┘
                    └── Agreed                                           Agreed ──┘

Noise_IKpsk2_25519_AESGCM_SHA256, with the prologue of a HANDSHAKE, or of a note if it runs inside of a session. Nothing
here is remembered: who may have a session, and when, is candy.sealing.handshakes'. Primitives are arguments.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from hmac import compare_digest
from ipaddress import IPv4Address

from candy.protocol.handshake import (
    ALL_CIPHERS,
    Answer,
    Cipher,
    Message,
    Offer,
    choose,
    path_key,
    prologue,
    rekey_prologue,
)
from candy.protocol.login import Asks
from candy.protocol.noise import IKPSK2, Handshake, KeyPair, NoiseError, Primitives


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """This member, in one network."""

    device: KeyPair
    address: IPv4Address
    network: bytes
    """The network's key."""
    psk: bytes = field(repr=False)
    """Of every pair: zeros, or of the secret."""
    flags: Asks
    commit_bytes: int
    """The longest packet that it wants in one piece."""
    ciphers: int = ALL_CIPHERS
    primitives: Primitives
    key_pair: Callable[[bytes], KeyPair]
    """Of X25519, from 32 random bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What both have at the end."""

    local: int
    remote: int
    """The session's number at the other end."""
    cipher: Cipher
    commit_bytes: int
    """The longest packet that the peer wants in one piece."""
    sends: bytes = field(repr=False)
    receives: bytes = field(repr=False)
    hash: bytes
    """Of the handshake: the same on both sides, and of no other."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message 1 that opened."""

    message: Message
    key: bytes
    """The initiator's static key, which it has proven only with what comes later."""
    offer: Offer
    handshake: Handshake = field(repr=False)


@dataclass(frozen=True, slots=True)
class Offered:
    """A message 1 that was sent, until its answer has come."""

    message: Message
    handshake: Handshake = field(repr=False)

    def agreed(self, party: Party, second: Message) -> Agreed:
        """Its answer came. One that is refused leaves this as it was: who is on the way may send what he likes.

        Raises:
            NoiseError: it does not open, or says what the answer to this can't.
        """
        # A handshake that has refused a message is over. All that it holds is replaced, never changed in place.
        handshake = copy(self.handshake)
        answer = Answer.decode(handshake.read(second.noise))
        if not compare_digest(answer.ends, second.ends):
            raise NoiseError("an answer is to another message")
        if answer.cipher not in set(Cipher) or not answer.cipher & party.ciphers:
            raise NoiseError("an answer names a cipher that was not offered")
        return _agreed(handshake, self.message.sender, second.sender, Cipher(answer.cipher), answer.commit_bytes)


def offered(party: Party, first: Message, key: bytes, stamp: bytes, secret: bytes, within: bytes | None) -> Offered:
    """Message 1 to the member with this key.

    Args:
        first: message 1 without its Noise message.
        stamp: its time.
        secret: 32 random bytes, for the ephemeral key.
        within: handshake hash of the session inside of which it runs; None: it is a HANDSHAKE.

    Raises:
        NoiseError: the key is a point of low order.
    """
    handshake = Handshake(
        IKPSK2,
        party.primitives,
        is_initiator=True,
        prologue=_prologue(party, first, within),
        static=party.device,
        ephemeral=party.key_pair(secret),
        remote=key,
        psk=party.psk,
    )
    noise = handshake.write(Offer(stamp, party.ciphers, party.flags, party.commit_bytes).encode())
    return Offered(replace(first, noise=noise), handshake)


def heard(party: Party, first: Message, secret: bytes, within: bytes | None) -> Heard:
    """What message 1 says, and who says so.

    Args:
        secret: 32 random bytes, for the ephemeral key of an answer.
        within: as for offered().

    Raises:
        NoiseError: it does not open.
    """
    handshake = Handshake(
        IKPSK2,
        party.primitives,
        is_initiator=False,
        prologue=_prologue(party, first, within),
        static=party.device,
        ephemeral=party.key_pair(secret),
        psk=party.psk,
    )
    offer = Offer.decode(handshake.read(first.noise))
    assert handshake.remote is not None
    return Heard(first, handshake.remote, offer, handshake)


def answered(party: Party, heard: Heard, local: int) -> tuple[Message, Agreed]:
    """Message 2, by which the initiator calls this side's end of the session `local`.

    Raises:
        NoiseError: there is no cipher that both have, or a key is a point of low order.
    """
    first, offer = heard.message, heard.offer
    cipher = choose(offer.ciphers, party.ciphers, have_aes=bool(offer.flags & party.flags & Asks.HAS_AES))
    if cipher is None:
        raise NoiseError("there is no cipher that both have")
    second = Message(2, first.destination, first.source, local, first.sender)
    noise = heard.handshake.write(Answer(second.ends, cipher, party.flags, party.commit_bytes).encode())
    return replace(second, noise=noise), _agreed(heard.handshake, local, first.sender, cipher, offer.commit_bytes)


def _prologue(party: Party, first: Message, within: bytes | None) -> bytes:
    return prologue(party.network, first) if within is None else rekey_prologue(first, within)


def _agreed(handshake: Handshake, local: int, remote: int, cipher: Cipher, commit_bytes: int) -> Agreed:
    sends, receives = map(path_key, handshake.split())
    return Agreed(
        local=local,
        remote=remote,
        cipher=cipher,
        commit_bytes=commit_bytes,
        sends=sends,
        receives=receives,
        hash=handshake.hash,
    )
