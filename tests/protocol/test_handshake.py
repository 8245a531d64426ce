"""The messages by which two members get a session: literal bytes, and every byte that makes them none."""

import json
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.primitives import PRIMITIVES

from candy.errors import WireError
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
from candy.protocol.noise import Cipher as NoiseCipher
from candy.protocol.wire import DropReason

VECTORS = json.loads((Path(__file__).parent / "sealed_vectors.json").read_text())
ONE, TWO = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
FIRST, SECOND = (bytes.fromhex(text) for text in VECTORS["HANDSHAKE"])
NOTE = bytes.fromhex(VECTORS["note 1"])


def test_both_messages() -> None:
    first, second = Message.decode(FIRST), Message.decode(SECOND)
    assert first == Message(1, ONE, TWO, 0x51515151, 0, FIRST[20:])
    assert second == Message(2, TWO, ONE, 0x52525252, 0x51515151, SECOND[20:])
    assert (first.encode(), second.encode()) == (FIRST, SECOND)
    assert second.ends == SECOND[4:20]


def test_a_note() -> None:
    note = Message.decode_note(NOTE, ONE, TWO)
    assert note == Message(1, ONE, TWO, 0x53535353, 0, NOTE[10:])
    assert note.encode_note() == NOTE


def test_prologues() -> None:
    network = bytes([9]) * 32
    first = Message.decode(FIRST)
    assert prologue(network, first) == b"candy.3 session\0" + network + FIRST[4:12] + FIRST[:20]
    within = bytes([8]) * 32
    assert rekey_prologue(first, within) == b"candy.3 rekey\0\0\0" + FIRST[4:12] + FIRST[12:16] + within


def test_payloads() -> None:
    offer = Offer(bytes(range(12)), 3, Asks.HAS_AES, 65535)
    assert offer.encode().hex() == "000102030405060708090a0b03020000ffff" + "00" * 14
    assert Offer.decode(offer.encode()) == offer
    answer = Answer(bytes(range(16)), 1, Asks.HAS_AES, 1500)
    assert answer.encode().hex() == "000102030405060708090a0b0c0d0e0f0102000005dc" + "00" * 10
    assert Answer.decode(answer.encode()) == answer


def test_what_a_later_candy_puts_there_is_not_looked_at() -> None:
    offer, answer = Offer(bytes(12), 1, Asks(0), 0), Answer(bytes(16), 1, Asks(0), 0)
    assert Offer.decode(offer.encode()[:18] + b"x" * 14) == offer
    assert Answer.decode(answer.encode()[:22] + b"x" * 10) == answer


@pytest.mark.parametrize(
    "data",
    [
        b"",
        FIRST[:19],
        FIRST[:-1],
        FIRST + b"\0",
        SECOND[:-1],
        SECOND + b"\0",
        bytes([21]) + FIRST[1:],
        bytes([20, 0]) + FIRST[2:],
        bytes([20, 2]) + FIRST[2:],
        bytes([20, 3]) + FIRST[2:],
        bytes([20, 1, 1, 0]) + FIRST[4:],
        bytes([20, 1, 0, 1]) + FIRST[4:],
        FIRST[:4] + TWO.packed + FIRST[8:],
        FIRST[:12] + bytes(4) + FIRST[16:],
        FIRST[:19] + b"\1" + FIRST[20:],
        SECOND[:16] + bytes(4) + SECOND[20:],
    ],
)
def test_what_is_no_handshake(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        Message.decode(data)
    assert caught.value.reason == DropReason.BAD_HANDSHAKE


@pytest.mark.parametrize(
    "data", [b"", NOTE[:9], NOTE[:-1], NOTE + b"\0", b"\x00" + NOTE[1:], b"\x80\2" + NOTE[2:], b"\x80\3" + NOTE[2:]]
)
def test_what_is_no_note_of_a_handshake(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        Message.decode_note(data, ONE, TWO)
    assert caught.value.reason == DropReason.BAD_HANDSHAKE


@given(st.binary(max_size=160) | st.binary(max_size=140).map(lambda data: b"\x14\1\0\0" + data))
def test_any_bytes(data: bytes) -> None:
    for decode in (Message.decode, lambda data: Message.decode_note(data, ONE, TWO)):
        with suppress(WireError):
            message = decode(data)
            assert data in (message.encode(), message.encode_note())


@pytest.mark.parametrize(
    ("offered", "own", "have_aes", "chosen"),
    [
        (ALL_CIPHERS, ALL_CIPHERS, True, Cipher.AES_256_GCM),
        (ALL_CIPHERS, ALL_CIPHERS, False, Cipher.CHACHA20_POLY1305),
        (1, ALL_CIPHERS, False, Cipher.AES_256_GCM),
        (ALL_CIPHERS, 2, True, Cipher.CHACHA20_POLY1305),
        (1, 2, True, None),
        (0, ALL_CIPHERS, True, None),
        (4, 4, True, None),
    ],
)
def test_the_cipher(offered: int, own: int, have_aes: bool, chosen: Cipher | None) -> None:
    assert choose(offered, own, have_aes=have_aes) is chosen


def test_the_key_of_the_relay_path_is_not_that_of_split() -> None:
    key = bytes([7]) * 32
    assert path_key(NoiseCipher(PRIMITIVES, key)) not in (key, path_key(NoiseCipher(PRIMITIVES, bytes(32))))
