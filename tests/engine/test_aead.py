"""Sealed packets over bytes in memory, against another implementation of their ciphers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.peer import xor_mask
from kit.sealing import CIPHERS, Sealed, opened

from candy._fastpath import SealLayer

KEY = bytes(range(32))
MASK = bytes([0x80, 0x55, 0xAA, 0x01])
CIPHER = pytest.mark.parametrize(
    ("cipher", "own"),
    [(cipher, own) for cipher in CIPHERS.values() for own in (True, False)],
    ids=[f"{name}-{how}" for name in CIPHERS for how in ("own", "openssl")],
)
LENGTHS = [1310, 8191, 8192, 8193, 16_384, 16_387, 65_000, 65_549]


def number(mask: bytes) -> int:
    return int.from_bytes(mask, "little")


@CIPHER
@pytest.mark.parametrize("mask", [bytes(4), MASK], ids=["plain", "masked"])
def test_short_packets_as_the_other_implementation(cipher: int, own: bool, mask: bytes) -> None:
    """With every place where a block, and eight of them, begin and end."""
    layer = SealLayer(cipher, KEY, own=own)
    for length in range(400):
        check(layer, cipher, length, mask)


@CIPHER
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("mask", [bytes(4), MASK], ids=["plain", "masked"])
def test_as_the_other_implementation(cipher: int, own: bool, length: int, mask: bytes) -> None:
    check(SealLayer(cipher, KEY, own=own), cipher, length, mask)


def check(layer: SealLayer, cipher: int, length: int, mask: bytes) -> None:
    plain = bytes(n * 31 & 0xFF for n in range(length))
    one = Sealed(0x0A000001, 0x0A000002, 0xDEADBEEF, 0x0102030405, plain, 0x1234)
    wanted = one.seal(KEY, cipher)
    assert xor_mask(layer.seal(one.header, plain, number(mask)), mask) == wanted
    assert xor_mask(layer.seal(one.header, plain, number(mask), apart=True), mask) == wanted
    assert layer.open(xor_mask(wanted, mask), number(mask)) == plain


@CIPHER
def test_every_bit_counts(cipher: int, own: bool) -> None:
    layer = SealLayer(cipher, KEY, own=own)
    payload = Sealed(1, 2, 3, 4, b"plain text").seal(KEY, cipher)
    for bit in range(len(payload) * 8):
        changed = bytearray(payload)
        changed[bit // 8] ^= 1 << bit % 8
        assert layer.open(bytes(changed)) is None
        assert opened(KEY, bytes(changed), cipher) is None
    assert layer.open(payload) == b"plain text"


@CIPHER
def test_what_is_cut_or_longer_does_not_open(cipher: int, own: bool) -> None:
    layer = SealLayer(cipher, KEY, own=own)
    payload = Sealed(1, 2, 3, 4, bytes(100)).seal(KEY, cipher)
    for n in range(40, len(payload)):
        assert layer.open(payload[:n]) is None
    assert layer.open(payload + b"\0") is None


@CIPHER
@given(
    key=st.binary(min_size=32, max_size=32),
    plain=st.binary(max_size=300),
    mask=st.binary(min_size=4, max_size=4),
    counter=st.integers(0, 2**48),
)
def test_any_packet(cipher: int, own: bool, key: bytes, plain: bytes, mask: bytes, counter: int) -> None:
    one = Sealed(5, 6, 7, counter, plain)
    layer = SealLayer(cipher, key, own=own)
    payload = layer.seal(one.header, plain, number(mask))
    assert opened(key, xor_mask(payload, mask), cipher) == one
    assert layer.open(payload, number(mask)) == plain
