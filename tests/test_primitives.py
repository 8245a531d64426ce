"""The primitives of the programs against what the tests have of their own, and against RFC 8032."""

from kit import primitives as own

from candy import primitives

KEY, OTHER = bytes([1]) * 32, bytes([2]) * 32
NONCE = bytes(12)


def test_x25519() -> None:
    pair = primitives.key_pair(KEY)
    assert pair == own.pair(KEY)
    public = own.pair(OTHER).public
    assert primitives.exchange(KEY, public) == own.exchange(KEY, public) == own.exchange(OTHER, pair.public)
    assert primitives.exchange(KEY, bytes(32)) is None


def test_aes() -> None:
    sealed = primitives.seal(KEY, NONCE, b"data", b"text")
    assert sealed == own.seal(KEY, NONCE, b"data", b"text")
    assert primitives.opened(KEY, NONCE, b"data", sealed) == b"text"
    assert primitives.opened(KEY, NONCE, b"date", sealed) is None
    assert primitives.opened(OTHER, NONCE, b"data", sealed) is None


def test_ed25519() -> None:
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


def test_ed25519_takes_no_signature_a_second_way() -> None:
    # RFC 8032, section 5.1.7: S is below the group's order.
    seed = bytes([3]) * 32
    signature = primitives.sign(seed, b"text")
    order = 2**252 + 27742317777372353535851937790883648493
    other = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert primitives.verify(primitives.signing_public(seed), signature, b"text")
    assert not primitives.verify(primitives.signing_public(seed), other, b"text")
