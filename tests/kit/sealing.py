"""What members seal for each other, slowly: the obvious reading of docs/protocol.md that the engine is compared with.

Shares no code with the engine: the ciphers are those of the library `cryptography`.
"""

import struct
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from kit.peer import MASK_BYTES, xor_mask

from candy._fastpath import Engine

AES_256_GCM, CHACHA20_POLY1305 = 1, 2
CIPHERS = {"aes": AES_256_GCM, "chacha": CHACHA20_POLY1305}
OFF, PREFER, REQUIRE = range(3)
WAIT, SEAL, CLEAR, NO_ROUTE, KEY_REFUSED, NOT_SEALING = range(6)
"""candy.sealing.seals.Way."""
HEADER, TAG, VNET = 24, 16, 10
FOREVER = 1e9
"""Of CLOCK_BOOTTIME, seconds."""


@dataclass(frozen=True)
class Sealed:
    """A SEALED, taken apart: its clear bytes, and what they stand before."""

    source: int
    destination: int
    session: int
    counter: int
    plain: bytes
    label: int = 0

    @property
    def header(self) -> bytes:
        return struct.pack(">BxHIIIQ", 18, self.label, self.source, self.destination, self.session, self.counter)

    def seal(self, key: bytes, cipher: int = AES_256_GCM) -> bytes:
        nonce = bytes(4) + self.counter.to_bytes(8, "big" if cipher == AES_256_GCM else "little")
        return self.header + aead(key, cipher).encrypt(nonce, self.plain, self.header)

    @property
    def packet(self) -> bytes:
        """The IPv4 packet within, without padding."""
        packet = self.plain[VNET:]
        assert set(packet[int.from_bytes(packet[2:4], "big") :]) <= {0}
        return packet[: int.from_bytes(packet[2:4], "big")]


def aead(key: bytes, cipher: int) -> AESGCM | ChaCha20Poly1305:
    return AESGCM(key) if cipher == AES_256_GCM else ChaCha20Poly1305(key)


def opened(key: bytes, payload: bytes, cipher: int = AES_256_GCM) -> Sealed | None:
    """A SEALED's payload, None when it does not open."""
    kind, zero, label, source, destination, session, counter = struct.unpack_from(">BBHIIIQ", payload)
    nonce = bytes(4) + counter.to_bytes(8, "big" if cipher == AES_256_GCM else "little")
    try:
        plain = aead(key, cipher).decrypt(nonce, payload[HEADER:], payload[:HEADER])
    except InvalidTag:
        return None
    assert (kind, zero) == (18, 0)
    return Sealed(source, destination, session, counter, plain, label)


def of_packet(packet: bytes, source: int, destination: int, session: int, counter: int) -> Sealed:
    """A packet without offloads, sealed."""
    return Sealed(source, destination, session, counter, bytes(VNET) + packet)


def behind(mask: bytes, payload: bytes) -> bytes:
    """A payload as it comes through a relay with the mask that its sender gave it."""
    assert len(mask) == MASK_BYTES
    return mask + xor_mask(payload, mask)


@dataclass(frozen=True)
class Pair:
    """A session, as one end has it: with the numbers and keys of both."""

    own: int
    peer: int
    local: int
    remote: int
    sends: bytes
    receives: bytes
    cipher: int = AES_256_GCM

    def other(self) -> "Pair":
        """As the other end has it."""
        return replace(
            self,
            own=self.peer,
            peer=self.own,
            local=self.remote,
            remote=self.local,
            sends=self.receives,
            receives=self.sends,
        )

    def install(
        self, engine: Engine, tun: int, *, until: float = FOREVER, opens: float = FOREVER, confirmed: bool = True
    ) -> None:
        engine.install(
            tun,
            local=self.local,
            peer=self.peer,
            remote=self.remote,
            cipher=self.cipher,
            sends=self.sends,
            receives=self.receives,
            sends_until=until,
            opens_until=opens,
            confirmed=confirmed,
        )

    def comes(self, counter: int, plain: bytes) -> bytes:
        """A SEALED from the peer."""
        return Sealed(self.peer, self.own, self.local, counter, plain).seal(self.receives, self.cipher)

    def comes_packet(self, counter: int, packet: bytes) -> bytes:
        return self.comes(counter, bytes(VNET) + packet)

    def went(self, payload: bytes) -> Sealed:
        """What this end has sealed."""
        found = opened(self.sends, payload, self.cipher)
        assert found is not None
        assert (found.source, found.destination, found.session) == (self.own, self.peer, self.remote)
        return found


def pair(own: int, peer: int, *, cipher: int = AES_256_GCM, number: int = 1) -> Pair:
    return Pair(own, peer, 1000 + number, 2000 + number, bytes([number]) * 32, bytes([128 + number]) * 32, cipher)


def siphash(key: bytes, data: bytes) -> int:
    """SipHash-2-4, as its paper has it."""
    ones = (1 << 64) - 1
    k0, k1 = struct.unpack("<QQ", key)
    v: list[int] = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotated(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & ones

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & ones
            v[1] = rotated(v[1], 13) ^ v[0]
            v[0] = rotated(v[0], 32)
            v[2] = (v[2] + v[3]) & ones
            v[3] = rotated(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & ones
            v[3] = rotated(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & ones
            v[1] = rotated(v[1], 17) ^ v[2]
            v[2] = rotated(v[2], 32)

    whole = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", whole):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


@dataclass(frozen=True)
class Epoch:
    """One sender's packets to groups, under one key."""

    source: int
    key: bytes
    epoch: bytes

    def clear(self, counter: int, destination: int, label: int = 0) -> bytes:
        return struct.pack(">BxHII16sQ", 19, label, self.source, destination, self.epoch, counter)

    def comes(self, counter: int, plain: bytes, destination: int) -> bytes:
        """A SEALED_GROUP of this sender's."""
        clear = self.clear(counter, destination)
        return clear + AESGCM(self.key).encrypt(bytes(4) + counter.to_bytes(8, "big"), plain, clear)

    def comes_packet(self, counter: int, packet: bytes) -> bytes:
        return self.comes(counter, bytes(VNET) + packet, int.from_bytes(packet[16:20], "big"))

    def went(self, payload: bytes) -> tuple[int, int, bytes]:
        """Counter, label and packet of what this sender has sealed."""
        label, destination = struct.unpack_from(">H4xI", payload, 2)
        counter = int.from_bytes(payload[28:36], "big")
        assert payload[:36] == self.clear(counter, destination, label)
        plain = AESGCM(self.key).decrypt(bytes(4) + payload[28:36], payload[36:], payload[:36])
        packet = plain[VNET:]
        assert plain[:VNET] == bytes(VNET)
        assert packet[16:20] == destination.to_bytes(4, "big")
        return counter, label, packet


def epoch(source: int, number: int = 1) -> Epoch:
    return Epoch(source, bytes([64 + number]) * 32, bytes([number]) * 16)
