"""The primitives of the programs against the library `cryptography`, and RFC 8032."""

import ssl
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from kit import primitives as own

from candy import primitives

KEY, OTHER = bytes([1]) * 32, bytes([2]) * 32
NONCE = bytes(12)
ORDER = 2**252 + 27742317777372353535851937790883648493
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (325606250916557431795983626356110631294008115727848805560023387167927233504).to_bytes(32, "little"),
    (39382357235489614581723060781553021112529911719440698176882885853963445705823).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]
"""Every point of X25519 whose order is low, and their other spellings."""

keys = st.binary(min_size=32, max_size=32)


@given(keys, keys)
def test_x25519(private: bytes, other: bytes) -> None:
    pair, theirs = primitives.key_pair(private), own.pair(other)
    assert pair == own.pair(private)
    assert primitives.exchange(private, theirs.public) == own.exchange(private, theirs.public)
    assert primitives.exchange(private, theirs.public) == primitives.exchange(other, pair.public)
    # Any bytes are a public key.
    assert primitives.exchange(private, other) == own.exchange(private, other)


@pytest.mark.parametrize("public", LOW_ORDER)
def test_x25519_with_a_point_of_low_order(public: bytes) -> None:
    assert primitives.exchange(KEY, public) is None


@given(keys, st.binary(max_size=32), st.integers(1, 255))
def test_hkdf(chaining: bytes, material: bytes, outputs: int) -> None:
    assert primitives.hkdf(chaining, material, outputs) == own.hkdf(chaining, material, outputs)


@pytest.mark.parametrize(
    ("chaining", "material", "outputs"), [(31, 0, 2), (33, 0, 2), (32, 33, 2), (32, 0, 0), (32, 0, 256)]
)
def test_hkdf_of_what_it_does_not_take(chaining: int, material: int, outputs: int) -> None:
    with pytest.raises(ValueError, match="HKDF"):
        primitives.hkdf(bytes(chaining), bytes(material), outputs)


@given(keys, st.binary(min_size=12, max_size=12), st.binary(max_size=100), st.binary(max_size=2000))
def test_aes(key: bytes, nonce: bytes, data: bytes, plaintext: bytes) -> None:
    sealed = primitives.seal(key, nonce, data, plaintext)
    assert sealed == own.seal(key, nonce, data, plaintext)
    assert primitives.opened(key, nonce, data, sealed) == plaintext


@given(st.binary(max_size=40), st.data())
def test_aes_opens_nothing_that_was_changed(plaintext: bytes, data: st.DataObject) -> None:
    sealed = primitives.seal(KEY, NONCE, b"data", plaintext)
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = bytearray(sealed)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert primitives.opened(KEY, NONCE, b"data", bytes(changed)) is None
    assert primitives.opened(KEY, NONCE, b"data", sealed[:at]) is None
    assert primitives.opened(KEY, NONCE, b"date", sealed) is None
    assert primitives.opened(KEY, bytes([1] * 12), b"data", sealed) is None
    assert primitives.opened(OTHER, NONCE, b"data", sealed) is None


@given(keys, st.binary(max_size=200))
def test_ed25519(seed: bytes, message: bytes) -> None:
    theirs = Ed25519PrivateKey.from_private_bytes(seed)
    public = primitives.signing_public(seed)
    signature = primitives.sign(seed, message)
    assert public == theirs.public_key().public_bytes_raw()
    assert signature == theirs.sign(message)
    assert primitives.verify(public, signature, message)
    assert not primitives.verify(public, signature, message + b"\0")


def test_ed25519_by_its_specification() -> None:
    # RFC 8032, section 7.1, TEST 2.
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert primitives.signing_public(seed) == public
    assert primitives.sign(seed, b"\x72") == signature
    assert primitives.verify(public, signature, b"\x72")
    assert not primitives.verify(public, signature, b"\x73")
    assert not primitives.verify(public, bytes(64), b"\x72")
    assert not primitives.verify(public, signature[:-1], b"\x72")
    assert not primitives.verify(public[:-1], signature, b"\x72")


def test_ed25519_takes_no_signature_a_second_way() -> None:
    # RFC 8032, section 5.1.7: S is below the group's order.
    seed = bytes([3]) * 32
    signature = primitives.sign(seed, b"text")
    other = signature[:32] + (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")
    assert primitives.verify(primitives.signing_public(seed), signature, b"text")
    assert not primitives.verify(primitives.signing_public(seed), other, b"text")


@pytest.mark.parametrize("length", [0, 31, 33, 56])
def test_a_key_of_another_length(length: int) -> None:
    wrong = bytes(length)
    public = own.pair(KEY).public
    for use in (
        partial(primitives.key_pair, wrong),
        partial(primitives.exchange, wrong, public),
        partial(primitives.exchange, KEY, wrong),
        partial(primitives.signing_public, wrong),
        partial(primitives.sign, wrong, b""),
        partial(primitives.seal, wrong, NONCE, b"", b""),
        partial(primitives.seal, KEY, wrong, b"", b""),
        partial(primitives.opened, wrong, NONCE, b"", bytes(16)),
        partial(primitives.opened, KEY, wrong, b"", bytes(16)),
    ):
        with pytest.raises(ValueError, match="bytes"):
            use()


def test_what_fails_is_not_left_for_pythons_ssl() -> None:
    assert primitives.exchange(KEY, bytes(32)) is None
    assert primitives.opened(KEY, NONCE, b"", bytes(16)) is None
    assert not primitives.verify(bytes([255] * 32), bytes([255] * 64), b"")
    # It raises what it finds in OpenSSL's queue of errors.
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="relay.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
