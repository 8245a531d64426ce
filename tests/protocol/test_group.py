"""Packets for groups, in the bytes of the vectors."""

import json
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from kit.primitives import PRIMITIVES, pair

from candy.errors import WireError
from candy.protocol import group
from candy.protocol.group import Sealed

VECTORS = json.loads((Path(__file__).parent / "sealed_vectors.json").read_text())
NETWORK = bytes.fromhex(VECTORS["Candy-Key"])[2:34]
MESSAGE = bytes.fromhex(VECTORS["SEALED_GROUP"])
ONE = IPv4Address("10.0.0.1")
SENDER = pair(bytes([0x11]) * 32).public


def test_the_vectors() -> None:
    sealed = Sealed.decode(MESSAGE)
    epoch = group.make_epoch(1_800_000_000, bytes([0x61]) * 8)
    assert (sealed.source, sealed.epoch, sealed.counter) == (ONE, epoch, 0)
    assert group.time_of(epoch) == 1_800_000_000
    key = group.key(bytes([0x42]) * 32, epoch, NETWORK, ONE, SENDER)
    assert key.hex() == VECTORS["group key"]
    opened = PRIMITIVES.open(key, sealed.nonce, sealed.head, sealed.body)
    assert opened is not None
    assert opened[:11] == bytes(10) + b"\x45"


def test_the_nonce_is_the_counter() -> None:
    sealed = Sealed.decode(MESSAGE[:28] + (258).to_bytes(8, "big") + MESSAGE[36:])
    assert sealed.nonce == bytes(10) + b"\1\2"


@pytest.mark.parametrize("message", [b"", MESSAGE[:51], b"\x12" + MESSAGE[1:]])
def test_what_is_none(message: bytes) -> None:
    with pytest.raises(WireError):
        Sealed.decode(message)


def test_everything_that_makes_a_key_counts() -> None:
    secret, epoch, network = bytes([1]) * 32, bytes(16), bytes([2]) * 32
    keys = {
        group.key(secret, epoch, network, ONE, SENDER),
        group.key(bytes(32), epoch, network, ONE, SENDER),
        group.key(secret, bytes([1]) * 16, network, ONE, SENDER),
        group.key(secret, epoch, bytes(32), ONE, SENDER),
        group.key(secret, epoch, network, ONE + 1, SENDER),
        group.key(secret, epoch, network, ONE, bytes(32)),
    }
    assert len(keys) == 6
