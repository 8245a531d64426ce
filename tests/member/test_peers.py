"""What is known of other members: the last word of each, and no more of them than a bound."""

from ipaddress import IPv4Address

import pytest

from candy.errors import WireError
from candy.member.peers import MAX_PEERS, Endpoint, Peer, Peers
from candy.protocol import wire
from candy.protocol.wire import DropReason

OWN, OTHER, THIRD = (IPv4Address(f"192.168.202.{last}") for last in (7, 9, 11))
PUBLIC, LAN = Endpoint(IPv4Address("203.0.113.5"), 4000), Endpoint(IPv4Address("192.168.1.5"), 4001)
LAN_BYTES = bytes.fromhex("c0a80105 0fa1")


def general(data: bytes, subtype: int = 0, extra: int = 0) -> wire.General:
    return wire.General(subtype, extra, OTHER, OWN, data)


def test_all_of_a_peer() -> None:
    peers = Peers()
    assert peers.learn(wire.Discovery(OTHER, wire.BROADCAST)) == Peer(asks=True)
    assert peers.learn(wire.Udp4Conn(OTHER, OWN, *PUBLIC)) == Peer(PUBLIC, asks=True)
    assert peers.learn(general(LAN_BYTES)) == Peer(PUBLIC, LAN, True)
    assert dict(peers) == {OTHER: Peer(PUBLIC, LAN, True)}


def test_the_last_word_counts() -> None:
    peers = Peers()
    peers.learn(wire.Udp4Conn(OTHER, OWN, *LAN))
    peers.learn(wire.Udp4Conn(THIRD, OWN, *LAN))
    peers.learn(wire.Udp4Conn(OTHER, OWN, *PUBLIC))
    assert list(peers) == [(THIRD, Peer(LAN)), (OTHER, Peer(PUBLIC))]


def test_a_lan_endpoint_with_more_behind_it() -> None:
    assert Peers().learn(general(LAN_BYTES + b"more")) == Peer(lan=LAN)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (general(LAN_BYTES[:5]), DropReason.TOO_SHORT),
        (general(b""), DropReason.TOO_SHORT),
        (general(LAN_BYTES, subtype=1), DropReason.UNKNOWN_SUBTYPE),
        (general(LAN_BYTES, extra=1), DropReason.UNKNOWN_SUBTYPE),
    ],
)
def test_a_general_about_something_else(message: wire.General, reason: DropReason) -> None:
    peers = Peers()
    with pytest.raises(WireError, match=reason):
        peers.learn(message)
    assert list(peers) == []


def test_who_was_silent_for_longest_makes_room() -> None:
    peers = Peers()
    first = IPv4Address("10.0.0.1")
    for number in range(MAX_PEERS):
        peers.learn(wire.Discovery(first + number, OWN))
    # A word of one that is there takes nobody's room, and keeps its own.
    peers.learn(wire.Udp4Conn(first, OWN, *PUBLIC))
    peers.learn(wire.Discovery(first + MAX_PEERS, OWN))
    kept = dict(peers)
    assert len(kept) == MAX_PEERS
    assert kept[first] == Peer(PUBLIC, asks=True)
    assert first + 1 not in kept
    assert first + MAX_PEERS in kept


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        (Peer(), ""),
        (Peer(PUBLIC), "public 203.0.113.5:4000"),
        (Peer(PUBLIC, LAN, True), "public 203.0.113.5:4000, LAN 192.168.1.5:4001, asks for a link"),
        (Peer(asks=True), "asks for a link"),
    ],
)
def test_in_words(peer: Peer, text: str) -> None:
    assert str(peer) == text
