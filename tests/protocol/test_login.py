"""The log-in's messages: the bytes of sealed_vectors.json both ways, and everything else refused."""

import json
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.primitives import PRIMITIVES, pair

from candy.errors import WireError
from candy.protocol import keys
from candy.protocol.hello import Hello
from candy.protocol.keys import RelayKey
from candy.protocol.login import (
    LOGIN_MAX,
    NO_SELECTOR,
    Asked,
    Asks,
    Credential,
    Login,
    Tells,
    Told,
    control_key,
    prologue,
)
from candy.protocol.noise import IKPSK1, Handshake, NoiseError
from candy.protocol.wire import DropReason

VECTORS = json.loads((Path(__file__).parent / "sealed_vectors.json").read_text())
FIRST, SECOND = (bytes.fromhex(VECTORS[f"LOGIN {number}"]) for number in (1, 2))
DEVICE, RELAY, EPHEMERAL, RELAY_EPHEMERAL = (pair(bytes([number]) * 32) for number in (0x11, 0x12, 0x14, 0x15))
KEY = RelayKey.decode(bytes.fromhex(VECTORS["Candy-Key"]))
NONCE, SELECTOR, SECRET = bytes([0x31]) * 32, bytes([0x41]) * 16, bytes([0x42]) * 32
ASKED = Asked(flags=Asks.HAS_AES, instance=0x7171717171717171, hello=Hello("linux", "7.0", "laptop"))
TOLD = Told(flags=Tells.ADMITS_OLD, address=IPv4Interface("10.0.0.1/24"), lease=bytes([0x72]) * 8, clock=1_800_000_001)
HEAD = FIRST[:20]


def handshakes(seen: bytes | None = None) -> tuple[Handshake, Handshake]:
    psk = keys.of_device(SECRET, KEY.network)
    seen = seen if seen is not None else prologue(KEY, NONCE, ("candy.3", "candy.2"), HEAD)
    one = Handshake(
        IKPSK1,
        PRIMITIVES,
        is_initiator=True,
        prologue=prologue(KEY, NONCE, ("candy.3", "candy.2"), HEAD),
        static=DEVICE,
        ephemeral=EPHEMERAL,
        remote=KEY.relay,
        psk=psk,
    )
    other = Handshake(
        IKPSK1, PRIMITIVES, is_initiator=False, prologue=seen, static=RELAY, ephemeral=RELAY_EPHEMERAL, psk=psk
    )
    return one, other


def test_a_log_in_in_bytes() -> None:
    one, other = handshakes()
    first = Login(1, Credential.DEVICE, SELECTOR, one.write(ASKED.encode()))
    assert first.encode() == FIRST
    read = Login.decode(FIRST, 1)
    assert read == first
    assert Asked.decode(other.read(read.noise)) == ASKED
    second = Login(2, Credential.NONE, NO_SELECTOR, other.write(TOLD.encode()))
    assert second.encode() == SECOND
    assert Told.decode(one.read(Login.decode(SECOND, 2).noise)) == TOLD
    sends, receives = map(control_key, one.split())
    assert (sends.hex(), receives.hex()) == (VECTORS["control of member"], VECTORS["control of relay"])


@pytest.mark.parametrize(
    "seen",
    [
        prologue(KEY, bytes(32), ("candy.3", "candy.2"), HEAD),
        prologue(KEY, NONCE, ("candy.3",), HEAD),
        prologue(KEY, NONCE, ("candy.2", "candy.3"), HEAD),
        prologue(KEY, NONCE, ("candy.3", "candy.2"), HEAD[:3] + b"\2" + HEAD[4:]),
    ],
)
def test_what_both_have_not_seen_alike_does_not_open(seen: bytes) -> None:
    one, other = handshakes(seen)
    with pytest.raises(NoiseError):
        other.read(one.write(ASKED.encode()))


def read_by_relay(data: bytes) -> bytes:
    login = Login.decode(data, 1)
    return handshakes(prologue(KEY, NONCE, ("candy.3", "candy.2"), login.head))[1].read(login.noise)


@pytest.mark.parametrize("at", range(0, len(FIRST) * 8, 7))
def test_a_changed_bit_of_message_1_is_refused(at: int) -> None:
    assert read_by_relay(FIRST) == ASKED.encode()
    changed = bytearray(FIRST)
    changed[at // 8] ^= 1 << at % 8
    with pytest.raises((WireError, NoiseError)):
        read_by_relay(bytes(changed))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", 1),
        (FIRST[:184], 1),
        (FIRST + bytes(LOGIN_MAX + 1 - len(FIRST)), 1),
        (FIRST, 2),
        (SECOND, 1),
        (SECOND[:144], 2),
        (b"\x14" + FIRST[1:], 1),
        (FIRST[:1] + b"\2" + FIRST[2:], 1),
        (FIRST[:3] + b"\0" + FIRST[4:], 1),
        (FIRST[:3] + b"\4" + FIRST[4:], 1),
        # A password has no selector, and an answer neither.
        (FIRST[:3] + b"\1" + FIRST[4:], 1),
        (SECOND[:3] + b"\1" + SECOND[4:], 2),
        (SECOND[:4] + b"\1" + SECOND[5:], 2),
    ],
)
def test_another_login_is_refused(data: bytes, message: int) -> None:
    with pytest.raises(WireError, match=DropReason.BAD_LOGIN):
        Login.decode(data, message)


def test_the_longest_login_is_taken() -> None:
    assert len(Login.decode(FIRST + bytes(LOGIN_MAX - len(FIRST)), 1).encode()) == LOGIN_MAX
    assert len(FIRST[:185]) == len(Login.decode(FIRST[:185], 1).encode())


@pytest.mark.parametrize(
    "payload",
    [
        ASKED.encode()[:68],
        b"\1" + ASKED.encode()[1:],
        ASKED.encode()[:52] + b"\x21" + ASKED.encode()[53:],
        ASKED.encode()[:-1],
        ASKED.encode()[:66] + b"\x40" + bytes(66),
    ],
)
def test_a_payload_that_can_not_be_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError, match=DropReason.BAD_LOGIN):
        Asked.decode(payload)


@pytest.mark.parametrize(
    "payload", [TOLD.encode()[:76], TOLD.encode()[:7] + b"\x21" + TOLD.encode()[8:], TOLD.encode()[:76] + b"\1"]
)
def test_an_answer_that_can_not_be_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError, match=DropReason.BAD_LOGIN):
        Told.decode(payload)


def test_what_a_later_candy_adds_is_ignored() -> None:
    assert Asked.decode(ASKED.encode() + b"more") == ASKED
    assert Told.decode(TOLD.encode() + b"more") == TOLD


def test_texts_are_cut_and_cleaned() -> None:
    asked = Asked(hello=Hello("linux", "7.0", "ü" * 40))
    assert Asked.decode(asked.encode()).hello.name == "ü" * 31
    assert Asked.decode(Asked(hello=Hello("a\x1b[1m", "\n", "\u202e")).encode()).hello == Hello("a[1m", "", "")
    told = Told.decode(Told(code=4009, text="gone\n").encode())
    assert told.text == "gone"


def test_secrets_are_in_no_repr() -> None:
    assert str(SECRET) not in repr(Told(secret=SECRET))


def decoded(decode: Callable[[bytes], Login | Asked | Told], data: bytes) -> Login | Asked | Told | None:
    """None where it is refused, in the one way there is."""
    try:
        return decode(data)
    except WireError as error:
        return None if error.reason == DropReason.BAD_LOGIN else pytest.fail(error.reason)


@given(st.binary(max_size=600), st.sampled_from([1, 2]))
def test_any_bytes_are_a_login_or_a_wire_error(data: bytes, message: int) -> None:
    for whole in (data, FIRST[:3] + data, SECOND[:20] + data):
        login = decoded(partial(Login.decode, message=message), whole)
        assert login is None or login.encode() == whole


@given(st.binary(max_size=300))
def test_any_bytes_are_a_payload_or_a_wire_error(data: bytes) -> None:
    for whole in (data, bytes(32) + data):
        for payload in (Asked, Told):
            found = decoded(payload.decode, whole)
            assert found is None or payload.decode(found.encode()) == found


@given(st.ip_addresses(v=4), st.integers(0, 32), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_any_payload_both_ways(ip: IPv4Address, prefix: int, commit_bytes: int, instance: int) -> None:
    asked = Asked(address=IPv4Interface((ip, prefix)), commit_bytes=commit_bytes, instance=instance)
    assert Asked.decode(asked.encode()) == asked
