"""What members tell each other: UDP4CONN, DISCOVERY and GENERAL, relayed by their addresses alone, without Python."""

import struct

import pytest
from kit.peer import BINARY, EngineRelay, numbered

from candy import _fastpath

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

A, B, C, NOBODY, EVERYBODY = 0x0A000001, 0x0A000002, 0x0A000003, 0x0A000063, 0xFFFFFFFF


def udp4conn(source: int, destination: int, more: bytes = b"") -> bytes:
    return struct.pack(">BIIIH", 3, source, destination, 0xCB007105, 4000) + more


def discovery(source: int, destination: int, more: bytes = b"") -> bytes:
    return struct.pack(">BII", 5, source, destination) + more


def general(source: int, destination: int, more: bytes = b"") -> bytes:
    return struct.pack(">BBHII", 255, 0x45, 0x0001, source, destination) + more


def lan_endpoint(source: int, destination: int, more: bytes = b"") -> bytes:
    return struct.pack(">BBHIIIH", 255, 0, 0, source, destination, 0xC0A80105, 5000) + more


KINDS = (udp4conn, discovery, general, lan_endpoint)
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("pieces", [1, 2], ids=["whole", "fragments"])
@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
@each_kind
def test_to_one_member(kind: type, extended: bool, pieces: int) -> None:
    """Unchanged, to the longest that an old member takes, in order with packets, and Python hears nothing."""
    with EngineRelay() as relay:
        one, other, third = relay.member(A), relay.member(B, extended=extended), relay.member(C)
        short = kind(A, B)
        messages = [short, short + b"~", short + bytes(1500 - len(short)), numbered(A, B, 1), short]
        for message in messages:
            if pieces == 1:
                one.send(BINARY, message)
            else:
                one.send(BINARY, message[:3], final=False)
                one.send(0, message[3:])
        one.sync()
        assert [(f.opcode, f.payload) for f in other.sync()] == [(BINARY, message) for message in messages]
        assert third.sync() == []
        assert relay.dropped() == {}
        assert relay.unaccounted() == 0
        assert relay.engine.events() == []


@pytest.mark.parametrize("kind", [discovery, general, lan_endpoint])
def test_to_all_others(kind: type) -> None:
    """Members alone: the relay's own interface needs no direct links."""
    with EngineRelay() as relay, relay.device() as (kernel, tun):
        relay.engine.bind(tun, 0x0A000009)
        one, others = relay.member(A), [relay.member(B), relay.member(C, extended=False)]
        one.send(BINARY, kind(A, EVERYBODY))
        one.forward(numbered(A, 0x0A000009, 1))
        one.sync()
        assert [[f.payload for f in other.sync()] for other in others] == [[kind(A, EVERYBODY)]] * 2
        assert kernel.recv(65536) == numbered(A, 0x0A000009, 1)[1:]
        assert relay.dropped() == {}


def test_broadcasts_of_messages_have_the_allowance_of_packets() -> None:
    with EngineRelay(broadcast_rate=1) as relay:
        one, other = relay.member(A), relay.member(B)
        one.send(BINARY, discovery(A, EVERYBODY))
        one.send(BINARY, discovery(A, EVERYBODY))
        one.forward(numbered(A, EVERYBODY, 1))
        one.sync()
        assert [f.payload for f in other.sync()] == [discovery(A, EVERYBODY)]
        assert relay.dropped() == {"broadcast_limit": 2}


@each_kind
@pytest.mark.parametrize(
    ("source", "destination", "reason"),
    [(B, C, "spoofed_source"), (0, B, "spoofed_source"), (A, NOBODY, "no_route"), (A, 0, "no_route")],
)
def test_what_is_not_relayed(kind: type, source: int, destination: int, reason: str) -> None:
    with EngineRelay() as relay:
        one, others = relay.member(A), [relay.member(B), relay.member(C)]
        one.send(BINARY, kind(source, destination))
        one.sync()
        assert [other.sync() for other in others] == [[], []]
        assert relay.dropped() == {reason: 1}
        assert relay.unaccounted() == 0
        assert relay.engine.events() == []


def test_one_endpoint_is_nobody_elses() -> None:
    with EngineRelay() as relay:
        one, other = relay.member(A), relay.member(B)
        one.send(BINARY, udp4conn(A, EVERYBODY))
        one.sync()
        assert other.sync() == []
        assert relay.dropped() == {"no_route": 1}


@pytest.mark.parametrize("circles", [(1, 2), (0, 0), (0, 1), (1, 0)])
def test_endpoints_stay_within_one_circle(circles: tuple[int, int]) -> None:
    """Whatever else members tell each other passes."""
    with EngineRelay() as relay:
        one, other = relay.member(A), relay.member(B)
        for member, address, circle in ((one, A, circles[0]), (other, B, circles[1])):
            relay.engine.bind(member.connection, address, circle=circle)
        for kind in KINDS:
            one.send(BINARY, kind(A, B))
        one.sync()
        assert [f.payload for f in other.sync()] == [discovery(A, B), general(A, B)]
        assert relay.dropped() == {"no_acquaintance": 2}
        relay.engine.bind(one.connection, A, circle=7)
        relay.engine.bind(other.connection, B, circle=7)
        endpoints = [udp4conn(A, B), lan_endpoint(A, B)]
        for message in endpoints:
            one.send(BINARY, message)
        one.sync()
        assert [f.payload for f in other.sync()] == endpoints


def test_lan_endpoints_for_all_go_to_the_circle() -> None:
    with EngineRelay() as relay:
        one, other, third = relay.member(A), relay.member(B), relay.member(C)
        relay.engine.bind(third.connection, C, circle=2)
        for message in (lan_endpoint(A, EVERYBODY), discovery(A, EVERYBODY)):
            one.send(BINARY, message)
        one.sync()
        assert [f.payload for f in other.sync()] == [lan_endpoint(A, EVERYBODY), discovery(A, EVERYBODY)]
        assert [f.payload for f in third.sync()] == [discovery(A, EVERYBODY)]
        assert relay.dropped() == {}
        relay.engine.bind(one.connection, A, circle=0)
        one.send(BINARY, lan_endpoint(A, EVERYBODY))
        one.sync()
        assert [other.sync(), third.sync()] == [[], []]
        assert relay.dropped() == {"no_acquaintance": 1}


def test_the_relays_own_interface_takes_none() -> None:
    with EngineRelay() as relay, relay.device() as (_, tun):
        relay.engine.bind(tun, B)
        one = relay.member(A)
        for kind in KINDS:
            one.send(BINARY, kind(A, B))
        one.sync()
        assert relay.dropped() == {"no_route": len(KINDS)}


@each_kind
def test_a_message_that_is_not_whole(kind: type) -> None:
    with EngineRelay() as relay:
        one, other = relay.member(A), relay.member(B)
        # A GENERAL is whole without its data.
        whole = min(len(kind(A, B)), 12 if kind is lan_endpoint else 15)
        for n in range(1, whole):
            one.send(BINARY, kind(A, B)[:n])
        one.sync()
        assert other.sync() == []
        assert relay.dropped() == {"too_short": whole - 1}


def test_one_who_has_not_logged_in_speaks_to_python() -> None:
    """Its AUTH may be among what Python has not judged yet."""
    with EngineRelay() as relay:
        stranger, other = relay.adopt(), relay.member(B)
        for kind in KINDS:
            stranger.send(BINARY, kind(A, B))
        wanted = [kind(A, B) for kind in KINDS]
        assert relay.details(stranger.connection, _fastpath.EVENT_MESSAGE, len(wanted)) == wanted
        assert other.sync() == []


@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
def test_many_messages_hold_up_no_packet(extended: bool) -> None:
    """They wait in a flow of their sender's, beside packets, and not before them."""
    with EngineRelay() as relay:
        flooder, sender, slow = relay.member(A), relay.member(C), relay.member(B, extended=extended, tcp=True)
        filler = [general(A, B, bytes(1400)) for _ in range(2000)]
        for message in filler:
            flooder.send(BINARY, message)
        flooder.sync()
        sender.forward(numbered(C, B, 1))
        sender.sync()
        payloads = [f.payload for f in relay.drain(slow)]
        place = payloads.index(numbered(C, B, 1))
        behind = len(payloads) - place - 1
        assert behind > len(payloads) // 4
