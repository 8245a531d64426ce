"""Messages between relay and candy.3 member: literal bytes both ways, and what a CONTROL has to be."""

import json
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.primitives import PRIMITIVES

from candy.errors import WireError
from candy.protocol import control, keys, wire
from candy.protocol.control import (
    COUNTER_MAX,
    RELAYS_MAX,
    URL_MAX,
    Approved,
    Ask,
    Closing,
    Commit,
    Confirm,
    FromMember,
    FromRelay,
    NetworkKey,
    NotSealing,
    Peer,
    RelayKey,
    Relays,
    State,
    Tell,
)
from candy.protocol.noise import Cipher
from candy.protocol.wire import DropReason

VECTORS = json.loads((Path(__file__).parent / "sealed_vectors.json").read_text())
CANDY_KEY, SUCCESSION = (bytes.fromhex(VECTORS[name]) for name in ("Candy-Key", "Candy-Succession entry"))
KEY = bytes.fromhex(VECTORS["control of member"])
IP = IPv4Address("10.0.0.2")
PEER = Peer(IP, State.SEALS, 2, bytes([7]) * 8, 65535, bytes([8]) * 32, 9)
PEER_BYTES = "0a000002010207070707070707070000ffff" + "08" * 32 + "0000000000000009"
BOTH_WAYS: list[tuple[FromMember | FromRelay, str]] = [
    (Ask((IP, IPv4Address("10.0.0.3"))), "20 02 0a000002 0a000003"),
    (Ask(()), "20 00"),
    (Tell((PEER,)), "21 01" + PEER_BYTES),
    (NotSealing(IP), "22 0a000002"),
    (Commit(IP, 3000), "23 0a000002 00000bb8"),
    (NetworkKey(keys.Succession.decode(SUCCESSION)), "24" + SUCCESSION.hex()),
    (RelayKey(keys.RelayKey.decode(CANDY_KEY)), "25" + CANDY_KEY.hex()),
    (Closing(4009, "gone"), "26 0fa9 676f6e65"),
    (Approved(IPv4Interface("10.0.0.2/24"), bytes([7]) * 8), "27 0a000002 18 0707070707070707"),
    (Confirm(), "28"),
    (Relays(1, 3, ("wss://b/", "ws://c")), "29 01 03 02 0008 7773733a2f2f622f 0006 77733a2f2f63"),
    (Relays(0, 0, ()), "29 00 00 00"),
    (wire.Route(()), "06 00 00 00"),
]


@pytest.mark.parametrize(("message", "text"), BOTH_WAYS)
def test_each_message_both_ways(message: FromMember | FromRelay, text: str) -> None:
    data = bytes.fromhex(text)
    assert message.encode() == data
    assert control.decode(data) == message
    # What stands behind is ignored, but by the one that is all text.
    if not isinstance(message, Closing):
        assert control.decode(data + b"\0") == message


@pytest.mark.parametrize(("message", "text"), BOTH_WAYS)
def test_no_message_is_shorter(message: FromMember | FromRelay, text: str) -> None:
    if isinstance(message, Closing):
        text = text[:7]
    for cut in range(1, len(bytes.fromhex(text))):
        with pytest.raises(WireError, match=DropReason.TOO_SHORT):
            control.decode(bytes.fromhex(text)[:cut])


def test_behind_is_of_version_2_there_and_there_alone() -> None:
    placement = wire.Placement(IPv4Network("192.168.5.0/24"), IP, IPv4Network("10.0.0.0/24"))
    behind = wire.Behind((placement,), 3)
    assert control.decode(behind.encode(control.BEHIND_VERSION)) == behind
    for decode, version in ((control.decode, 1), (control.decode, 3), (wire.decode, 2)):
        with pytest.raises(WireError, match=DropReason.UNKNOWN_VERSION):
            decode(behind.encode(version))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", DropReason.EMPTY_MESSAGE),
        ("2a", DropReason.UNKNOWN_KIND),
        ("00" * 45, DropReason.UNKNOWN_KIND),
        ("20 41" + "00" * 260, DropReason.TOO_LARGE),
        ("21 01 0a000002 05" + "00" * 53, DropReason.UNKNOWN_VERSION),
        ("25 02" + CANDY_KEY.hex()[2:], DropReason.UNKNOWN_VERSION),
        ("27 0a000002 21" + "00" * 8, DropReason.BAD_MASK),
        ("29 00 11 01 0001 61", DropReason.TOO_LARGE),
        ("29 03 03 01 0001 61", DropReason.TOO_LARGE),
        ("29 01 00 00", DropReason.TOO_LARGE),
        ("29 00 01 01 0201" + "61" * 513, DropReason.BAD_CONTROL),
        ("29 00 01 01 0002 610a", DropReason.BAD_CONTROL),
        ("29 00 01 01 0002 c3a9", DropReason.BAD_CONTROL),
    ],
)
def test_anything_else_is_dropped(text: str, reason: DropReason) -> None:
    with pytest.raises(WireError, match=reason):
        control.decode(bytes.fromhex(text))


def test_as_few_messages_as_will_do() -> None:
    """Sixteen of the longest ones, and none at all."""
    urls = [f"wss://{number:02}.example.org/".ljust(URL_MAX, "x") for number in range(RELAYS_MAX)]
    messages = [control.decode(message) for message in control.relays_messages(urls)]
    assert [message.first for message in messages if isinstance(message, Relays)] == list(range(0, 16, 2))
    assert [url for message in messages if isinstance(message, Relays) for url in message.urls] == urls
    assert all(isinstance(message, Relays) and message.total == RELAYS_MAX for message in messages)
    for message in control.relays_messages(urls):
        assert len(control.seal(Cipher(PRIMITIVES, KEY), message)) <= control.CONTROL_MAX
    assert control.relays_messages([]) == [Relays(0, 0, ()).encode()]
    assert len(control.relays_messages(urls[:1] + ["wss://b/"] * 15)) == 1


def test_25_entries_fill_a_tell() -> None:
    assert Tell.MOST == 25
    assert len(control.seal(Cipher(PRIMITIVES, KEY), Tell((PEER,) * 25).encode())) <= control.CONTROL_MAX


def test_confirm_in_bytes() -> None:
    assert control.seal(Cipher(PRIMITIVES, KEY), Confirm().encode()).hex() == VECTORS["CONFIRM"]


def test_controls_open_in_their_order_alone() -> None:
    sends, receives = Cipher(PRIMITIVES, KEY), Cipher(PRIMITIVES, KEY)
    one, two, three = (control.seal(sends, bytes([40, number])) for number in range(3))
    assert control.opened(receives, one) == b"\x28\0"
    for wrong in (one, three, two[:-1], two + b"\0", two[:29], b"", two[:1] + b"\1" + two[2:]):
        with pytest.raises(WireError, match=DropReason.BAD_CONTROL):
            control.opened(receives, wrong)
    assert control.opened(receives, two) == b"\x28\1"


def test_the_last_counter() -> None:
    sends, receives = Cipher(PRIMITIVES, KEY), Cipher(PRIMITIVES, KEY)
    sends.nonce = receives.nonce = COUNTER_MAX - 1
    assert control.opened(receives, control.seal(sends, b"\x28")) == b"\x28"
    with pytest.raises(WireError, match=DropReason.BAD_CONTROL):
        control.opened(receives, control.seal(sends, b"\x28"))


@given(st.binary(max_size=200), st.integers(30, 42))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes, kind: int) -> None:
    for whole in (data, bytes([kind]) + data):
        try:
            message = control.decode(whole)
        except WireError:
            continue
        version = (control.BEHIND_VERSION,) if isinstance(message, wire.Behind) else ()
        # A text is cleaned, and so is what is made of it.
        assert isinstance(message, Closing) or control.decode(message.encode(*version)) == message
