"""SEALED_GROUP: a packet for a group, sealed for all who have the secret.

    SEALED_GROUP   ┌──┬───┬─────────┬──────────┬───────────────┬────────────┬───────────┬────────────────────────┐
    52+, C→S→C     │19│ 0 │ label 2 │ source 4 │ destination 4 │ epoch   16 │ counter 8 │ virtio 10, packet; tag │
                   └──┴───┴─────────┴──────────┴───────────────┴────────────┴───────────┴────────────────────────┘
    epoch          ┌────────┬──────────┐
                   │ time 8 │ random 8 │  of its begin, Unix seconds
                   └────────┴──────────┘

Rules: the length is checked before the first field is read. What is within is the engine's.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address
from struct import Struct
from typing import ClassVar, Final, Self

from candy.errors import WireError
from candy.protocol.keys import derive
from candy.protocol.noise import TAG_BYTES
from candy.protocol.wire import DropReason

SEALED_GROUP: Final = 19
"""The kind."""
RANDOM_BYTES: Final = 8
_LABEL: Final = b"candy.3 group"


@dataclass(frozen=True, slots=True)
class Sealed:
    """One of them, as far as it can be read by everybody."""

    LAYOUT: ClassVar[Struct] = Struct(">BxHII16sQ")

    message: bytes
    source: IPv4Address
    epoch: bytes
    counter: int

    @property
    def head(self) -> bytes:
        """What the tag covers, but is not sealed."""
        return self.message[: self.LAYOUT.size]

    @property
    def body(self) -> bytes:
        return self.message[self.LAYOUT.size :]

    @property
    def nonce(self) -> bytes:
        """Of AES-256-GCM."""
        return bytes(4) + self.counter.to_bytes(8, "big")

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """Raises WireError if it is none."""
        if len(message) < cls.LAYOUT.size + TAG_BYTES or message[0] != SEALED_GROUP:
            raise WireError(DropReason.TOO_SHORT)
        _, _, source, _, epoch, counter = cls.LAYOUT.unpack_from(message)
        return cls(message, IPv4Address(source), epoch, counter)


def make_epoch(time: int, random: bytes) -> bytes:
    """One that begins at this time, Unix seconds; with RANDOM_BYTES."""
    return time.to_bytes(8, "big") + random


def time_of(epoch: bytes) -> int:
    return int.from_bytes(epoch[:8], "big")


def key(secret: bytes, epoch: bytes, network: bytes, source: IPv4Address, sender: bytes) -> bytes:
    """Of one sender's epoch.

    Args:
        secret: of --secret.
        network: the network's key.
        sender: the sender's public key.
    """
    return derive(secret, epoch, _LABEL + network + source.packed + sender)
