"""What original clients say by UDP: the bytes both ways, the key of the vectors, and everything else refused."""

import json
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candy.errors import WireError
from candy.protocol.datagram import Delay, Heartbeat, PeerMessage, PeerRoute, decode, recipient_key
from candy.protocol.wire import DropReason

VECTORS = json.loads((Path(__file__).parents[1] / "kit" / "vectors.json").read_text())
ADDRESSES = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
MESSAGES = st.one_of(
    st.builds(Heartbeat, ADDRESSES, st.booleans()),
    st.builds(Delay, ADDRESSES, ADDRESSES, st.binary(min_size=8, max_size=8)),
    st.builds(PeerRoute, ADDRESSES, ADDRESSES, st.integers(-(2**31), 2**31 - 1)),
)
LENGTHS = {0: 12, 2: 17, 4: 13}


def test_key_is_the_originals() -> None:
    [vector] = [each for each in VECTORS["computed"] if each["kind"] == "P2P_KEY"]
    key = recipient_key(vector["password"].encode(), IPv4Address(vector["recipient_ip"]))
    assert key.hex() == vector["hex"]


def test_layouts() -> None:
    own, other = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
    assert Heartbeat(own, True).encode() == bytes.fromhex("00 0a000001 00000000 0000 01")
    assert Delay(own, other, b"12345678").encode() == bytes.fromhex("02 0a000001 0a000002") + b"12345678"
    assert PeerRoute(own, other, -1).encode() == bytes.fromhex("04 0a000001 0a000002 ffffffff")


@given(MESSAGES, st.binary(max_size=9))
def test_round_trip(message: PeerMessage, tail: bytes) -> None:
    plaintext = message.encode()
    assert len(plaintext) == LENGTHS[plaintext[0]]
    assert decode(plaintext + tail) == message


@given(MESSAGES, st.data())
def test_too_short(message: PeerMessage, data: st.DataObject) -> None:
    plaintext = message.encode()
    cut = data.draw(st.integers(0, len(plaintext) - 1))
    with pytest.raises(WireError) as caught:
        decode(plaintext[:cut])
    assert caught.value.reason == (DropReason.TOO_SHORT if cut else DropReason.EMPTY_MESSAGE)


@pytest.mark.parametrize("kind", [1, 3, 5, 255])
def test_unknown_kind(kind: int) -> None:
    with pytest.raises(WireError) as caught:
        decode(bytes([kind]) + bytes(40))
    assert caught.value.reason == DropReason.UNKNOWN_KIND


@pytest.mark.parametrize(("rtt", "withdrawn"), [(-1, True), (0, False), (1000, False), (1001, True)])
def test_withdrawn(rtt: int, withdrawn: bool) -> None:
    assert PeerRoute(IPv4Address(1), IPv4Address(2), rtt).is_withdrawn is withdrawn
