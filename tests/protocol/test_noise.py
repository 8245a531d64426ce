"""The Noise handshakes: published vectors, an oracle, and everything that must be refused."""

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.primitives import PRIMITIVES, exchange, hkdf, opened, pair, seal
from noise.connection import Keypair, NoiseConnection

from candy.protocol.noise import (
    IKPSK1,
    IKPSK2,
    KEY_BYTES,
    MESSAGE_MAX,
    NONCE_MAX,
    TAG_BYTES,
    Cipher,
    Handshake,
    KeyPair,
    NoiseError,
    Pattern,
    Primitives,
)

VECTORS = json.loads((Path(__file__).parent / "noise_vectors.json").read_text())
PATTERNS = [IKPSK1, IKPSK2]
LOW_ORDER = [
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]
"""Points of X25519 whose exchange gives zero (RFC 7748, section 6.1)."""


STATIC, OTHER_STATIC, EPHEMERAL, OTHER_EPHEMERAL, ANOTHER = (pair(bytes([number]) * KEY_BYTES) for number in range(5))
PSK = bytes([5]) * KEY_BYTES


def sides(pattern: Pattern, **differs: Any) -> tuple[Handshake, Handshake]:
    """An initiator and a responder that agree, but for what differs at the responder."""
    initiator = Handshake(
        pattern,
        PRIMITIVES,
        is_initiator=True,
        prologue=b"candy",
        static=STATIC,
        ephemeral=EPHEMERAL,
        remote=OTHER_STATIC.public,
        psk=PSK,
    )
    given_: dict[str, Any] = {"prologue": b"candy", "static": OTHER_STATIC, "ephemeral": OTHER_EPHEMERAL, "psk": PSK}
    return initiator, Handshake(pattern, PRIMITIVES, is_initiator=False, **(given_ | differs))


def joined(pattern: Pattern) -> tuple[Handshake, Handshake]:
    one, other = sides(pattern)
    other.read(one.write(b"there"))
    one.read(other.write(b"back"))
    return one, other


@pytest.mark.parametrize("pattern", PATTERNS)
def test_published_vectors(pattern: Pattern) -> None:
    key = {name: bytes.fromhex(VECTORS[name]) for name in VECTORS if name.startswith(("init", "resp", "psk", "pro"))}
    common = {"prologue": key["prologue"], "psk": key["psk"]}
    one = Handshake(
        pattern,
        PRIMITIVES,
        is_initiator=True,
        static=pair(key["init_static"]),
        ephemeral=pair(key["init_ephemeral"]),
        remote=key["init_remote_static"],
        **common,
    )
    other = Handshake(
        pattern,
        PRIMITIVES,
        is_initiator=False,
        static=pair(key["resp_static"]),
        ephemeral=pair(key["resp_ephemeral"]),
        **common,
    )
    payloads = [bytes.fromhex(payload) for payload in VECTORS["payloads"]]
    messages = [bytes.fromhex(message) for message in VECTORS["messages"][pattern.name.decode()]]
    assert one.write(payloads[0]) == messages[0]
    assert other.read(messages[0]) == payloads[0]
    assert other.remote == pair(key["init_static"]).public
    assert other.write(payloads[1]) == messages[1]
    assert one.read(messages[1]) == payloads[1]
    assert one.hash == other.hash
    (sends, receives), (back, gets) = one.split(), other.split()
    for number in range(2, len(messages)):
        sealing, opening = (sends, gets) if number % 2 == 0 else (back, receives)
        assert sealing.seal(b"", payloads[number]) == messages[number]
        assert opening.open(b"", messages[number]) == payloads[number]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("is_initiator", [True, False])
@given(payloads=st.lists(st.binary(max_size=200), min_size=2, max_size=6), prologue=st.binary(max_size=100))
def test_another_implementation_understands(
    pattern: Pattern, is_initiator: bool, payloads: list[bytes], prologue: bytes
) -> None:
    own, others, ephemeral = (pair(secrets.token_bytes(KEY_BYTES)) for _ in range(3))
    psk = secrets.token_bytes(KEY_BYTES)
    ours = Handshake(
        pattern,
        PRIMITIVES,
        is_initiator=is_initiator,
        prologue=prologue,
        static=own,
        ephemeral=ephemeral,
        remote=others.public if is_initiator else None,
        psk=psk,
    )
    oracle = NoiseConnection.from_name(pattern.name)
    oracle.set_psks(psk)
    oracle.set_prologue(prologue)
    oracle.set_keypair_from_private_bytes(Keypair.STATIC, others.private)
    if is_initiator:
        oracle.set_as_responder()
    else:
        oracle.set_as_initiator()
        oracle.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, own.public)
    oracle.start_handshake()
    if is_initiator:
        assert oracle.read_message(ours.write(payloads[0])) == payloads[0]
        assert ours.read(bytes(oracle.write_message(payloads[1]))) == payloads[1]
    else:
        assert ours.read(bytes(oracle.write_message(payloads[0]))) == payloads[0]
        assert oracle.read_message(ours.write(payloads[1])) == payloads[1]
    assert ours.remote == others.public
    assert oracle.get_handshake_hash() == ours.hash
    sends, receives = ours.split()
    for payload in payloads[2:]:
        assert oracle.decrypt(sends.seal(b"", payload)) == payload
        assert receives.open(b"", bytes(oracle.encrypt(payload))) == payload


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_changed_bit_of_message_1_is_refused(pattern: Pattern) -> None:
    message = sides(pattern)[0].write(b"payload")
    for at in range(len(message) * 8):
        changed = bytearray(message)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(NoiseError):
            sides(pattern)[1].read(bytes(changed))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_changed_bit_of_message_2_is_refused(pattern: Pattern) -> None:
    def answered() -> tuple[Handshake, bytes]:
        one, other = sides(pattern)
        other.read(one.write(b""))
        return one, other.write(b"payload")

    for at in range(len(answered()[1]) * 8):
        one, message = answered()
        changed = bytearray(message)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(NoiseError):
            one.read(bytes(changed))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_shorter_message_is_refused(pattern: Pattern) -> None:
    message = sides(pattern)[0].write(b"payload")
    for length in range(len(message)):
        with pytest.raises(NoiseError):
            sides(pattern)[1].read(message[:length])


@pytest.mark.parametrize(
    "differs",
    [{"prologue": b"candyx"}, {"static": ANOTHER}, {"psk": bytes(KEY_BYTES)}, {"psk": None}],
    ids=["prologue", "static", "psk", "no psk"],
)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_who_differs_is_refused(pattern: Pattern, differs: dict[str, Any]) -> None:
    def shake() -> None:
        one, other = sides(pattern, **differs)
        other.read(one.write(b""))
        # The pre-shared key of IKpsk2 has its part in the answer alone.
        one.read(other.write(b""))

    with pytest.raises(NoiseError):
        shake()


@pytest.mark.parametrize("at", range(3))
def test_a_responder_finds_which_of_several_pre_shared_keys_it_was(at: int) -> None:
    psks = [bytes([number]) * KEY_BYTES for number in (6, 7, 8)]
    psks[at] = PSK
    one, other = sides(IKPSK1, psk=None)
    assert other.read(one.write(b"there"), psks) == b"there"
    assert other.psk == PSK
    assert one.read(other.write(b"back")) == b"back"
    assert one.hash == other.hash
    (sends, _), (_, gets) = one.split(), other.split()
    assert gets.open(b"", sends.seal(b"", b"on")) == b"on"


def test_a_message_of_none_of_several_pre_shared_keys_is_refused() -> None:
    one, other = sides(IKPSK1, psk=None)
    message = one.write(b"")
    with pytest.raises(NoiseError, match="another key"):
        other.read(message, [bytes(KEY_BYTES), bytes([6]) * KEY_BYTES])
    with pytest.raises(NoiseError, match="turn"):
        other.read(message, [PSK])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("psk", [b"", PSK[1:], PSK + b"x"], ids=len)
def test_a_pre_shared_key_has_one_length(pattern: Pattern, psk: bytes) -> None:
    one, other = sides(pattern)
    one.psk = other.psk = psk

    def shake() -> None:
        other.read(one.write(b""))
        one.read(other.write(b""))

    with pytest.raises(NoiseError, match="32 bytes"):
        shake()


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_points_of_low_order_are_refused(pattern: Pattern, point: bytes) -> None:
    one, other = sides(pattern)
    with pytest.raises(NoiseError, match="low order"):
        other.read(point + one.write(b"")[KEY_BYTES:])
    initiator = Handshake(
        pattern,
        PRIMITIVES,
        is_initiator=True,
        prologue=b"",
        static=STATIC,
        ephemeral=EPHEMERAL,
        remote=point,
        psk=PSK,
    )
    with pytest.raises(NoiseError, match="low order"):
        initiator.write(b"")


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_points_of_low_order_are_refused_as_static_key_and_in_the_answer(pattern: Pattern, point: bytes) -> None:
    def exchange_of_cheat(private: bytes, public: bytes) -> bytes | None:
        # What the other side would have got of it.
        return bytes(KEY_BYTES) if private == cheat.private else exchange(private, public)

    cheat = KeyPair(b"has no private half", point)
    one = Handshake(
        pattern,
        Primitives(exchange_of_cheat, seal, opened, hkdf),
        is_initiator=True,
        prologue=b"candy",
        static=cheat,
        ephemeral=EPHEMERAL,
        remote=OTHER_STATIC.public,
        psk=PSK,
    )
    with pytest.raises(NoiseError, match="low order"):
        sides(pattern)[1].read(one.write(b""))
    one, other = sides(pattern)
    other.read(one.write(b""))
    with pytest.raises(NoiseError, match="low order"):
        one.read(point + other.write(b"")[KEY_BYTES:])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "misuse",
    [
        lambda one, other: other.write(b""),
        lambda one, other: one.read(b""),
        lambda one, other: (one.write(b""), one.write(b"")),
        lambda one, other: one.split(),
        lambda one, other: (one.write(b""), one.split()),
    ],
)
def test_out_of_turn(pattern: Pattern, misuse: Callable[[Handshake, Handshake], object]) -> None:
    with pytest.raises(NoiseError):
        misuse(*sides(pattern))


def failed(pattern: Pattern, *, is_initiator: bool) -> tuple[Handshake, bytes]:
    """A side whose peer's message came changed in its last byte, and that message as it was."""
    one, other = sides(pattern)
    message = one.write(b"")
    if is_initiator:
        other.read(message)
        message = other.write(b"")
    side = one if is_initiator else other
    with pytest.raises(NoiseError, match="was changed"):
        side.read(message[:-1] + bytes([message[-1] ^ 1]))
    return side, message


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("is_initiator", [True, False])
@pytest.mark.parametrize(
    "goes_on",
    [lambda side, message: side.read(message), lambda side, _: side.write(b""), lambda side, _: side.split()],
    ids=["read", "write", "split"],
)
def test_a_handshake_that_has_failed_goes_no_further(
    pattern: Pattern, is_initiator: bool, goes_on: Callable[[Handshake, bytes], object]
) -> None:
    side, message = failed(pattern, is_initiator=is_initiator)
    with pytest.raises(NoiseError, match=r"turn|complete"):
        goes_on(side, message)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_who_has_the_responders_key_can_forge_message_1_and_no_more(pattern: Pattern) -> None:
    """Why a responder may believe nothing of message 1 before the initiator has shown that it could read message 2."""
    stolen, victim = OTHER_STATIC, KeyPair(b"not known to the thief", STATIC.public)

    def exchange_of_thief(private: bytes, public: bytes) -> bytes | None:
        if private != victim.private:
            return exchange(private, public)
        # The static keys' exchange can be had from either side of it, that with the responder's ephemeral key can't.
        return exchange(stolen.private, victim.public) if public == stolen.public else bytes([1]) * KEY_BYTES

    thief = Handshake(
        pattern,
        Primitives(exchange_of_thief, seal, opened, hkdf),
        is_initiator=True,
        prologue=b"candy",
        static=victim,
        ephemeral=ANOTHER,
        remote=stolen.public,
        psk=PSK,
    )
    _, responder = sides(pattern)
    assert responder.read(thief.write(b"let me in")) == b"let me in"
    assert responder.remote == victim.public
    answer = responder.write(b"")
    with pytest.raises(NoiseError, match="was changed"):
        thief.read(answer)


def test_a_message_has_a_longest_length() -> None:
    fixed = len(sides(IKPSK1)[0].write(b""))
    one, other = sides(IKPSK1)
    longest = one.write(bytes(MESSAGE_MAX - fixed))
    assert len(longest) == MESSAGE_MAX
    with pytest.raises(NoiseError, match="too long"):
        sides(IKPSK1)[0].write(bytes(MESSAGE_MAX - fixed + 1))
    with pytest.raises(NoiseError, match="too long"):
        sides(IKPSK1)[1].read(longest + b"x")
    assert other.read(longest) == bytes(MESSAGE_MAX - fixed)
    one.read(other.write(b""))
    (sends, _), (_, gets) = one.split(), other.split()
    with pytest.raises(NoiseError, match="too long"):
        sends.seal(b"", bytes(MESSAGE_MAX - TAG_BYTES + 1))
    with pytest.raises(NoiseError, match="too long"):
        gets.open(b"", bytes(MESSAGE_MAX + 1))
    assert gets.open(b"", sends.seal(b"", bytes(MESSAGE_MAX - TAG_BYTES))) == bytes(MESSAGE_MAX - TAG_BYTES)


def test_a_private_key_is_not_shown() -> None:
    shown = repr(STATIC)
    assert repr(STATIC.private) not in shown
    assert repr(STATIC.public) in shown


def test_an_initiator_has_to_know_the_responder() -> None:
    with pytest.raises(NoiseError):
        Handshake(IKPSK1, PRIMITIVES, is_initiator=True, prologue=b"", static=STATIC, ephemeral=EPHEMERAL, psk=PSK)


def test_a_refused_message_takes_no_nonce() -> None:
    (sends, _), (_, gets) = (side.split() for side in joined(IKPSK1))
    first, second = sends.seal(b"", b"first"), sends.seal(b"", b"second")
    for wrong in (b"", first[: TAG_BYTES - 1], first[:-1], second):
        with pytest.raises(NoiseError):
            gets.open(b"", wrong)
    assert gets.open(b"", first) == b"first"
    with pytest.raises(NoiseError):
        gets.open(b"", first)
    assert gets.open(b"", second) == b"second"
    third = sends.seal(b"data", b"third")
    with pytest.raises(NoiseError):
        gets.open(b"date", third)
    assert gets.open(b"data", third) == b"third"


def test_a_key_ends_before_its_nonces_repeat() -> None:
    cipher = Cipher(PRIMITIVES, PSK)
    cipher.nonce = NONCE_MAX
    cipher.seal(b"", b"the last")
    with pytest.raises(NoiseError, match="no nonces left"):
        cipher.seal(b"", b"one more")
    assert NONCE_MAX == 2**64 - 2
