"""CONTROL: each has to be the next, so none is lost; a connection that brings more than Python takes is not read."""

import struct
import time

import pytest
from kit.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, EngineRelay, Peer, number_of, numbered

from candy._fastpath import CANDY3, EVENT_MESSAGE

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

A, B = 0x0A000001, 0x0A000002
WAITING = 64
"""Of one connection that Python has not taken."""
SAVED, PER_S = 1000, 200
"""What a member may send."""


def control(number: int, size: int = 60) -> bytes:
    return b"\x16" + struct.pack(">3xQ", number).ljust(size - 1, b"\0")


def controls(count: int, first: int = 0, size: int = 60) -> list[bytes]:
    return [control(number, size) for number in range(first, first + count)]


def told(relay: EngineRelay, peer: Peer) -> list[bytes]:
    """What Python has taken of this connection."""
    return [detail for number, kind, detail in relay.events if (number, kind) == (peer.connection, EVENT_MESSAGE)]


@pytest.mark.parametrize("pieces", [1, 2], ids=["whole", "fragments"])
def test_a_client_takes_all_that_its_relay_says(pieces: int) -> None:
    """However much that is, with packets between, and nothing of it waits for a clock."""
    with EngineRelay() as relay, relay.device() as (kernel, tun):
        server = relay.joined(tun, extended=CANDY3)
        for first in range(0, 3000, 300):
            messages = controls(300, first)
            if pieces == 1:
                server.forward(*messages)
            else:
                frames = [
                    (server.frame(BINARY, m[:1], final=False), server.frame(CONTINUATION, m[1:])) for m in messages
                ]
                server.sock.sendall(b"".join(part for frame in frames for part in frame))
            relay.details(server.connection, EVENT_MESSAGE, first + 300)
        server.send(BINARY, numbered(B, A, 7))
        assert told(relay, server) == controls(3000)
        assert number_of(b"\1" + kernel.recv(2000)) == (0, 7)
        assert relay.dropped() == {}


@pytest.mark.plain
def test_a_client_is_not_read_while_python_has_enough() -> None:
    with EngineRelay() as relay, relay.device() as (_, tun):
        server = relay.joined(tun, extended=CANDY3)
        server.forward(*controls(WAITING))
        server.sync()
        server.sock.sendall(server.frame(BINARY, control(WAITING)) + server.frame(PING, b"behind it"))
        server.wait_until_read()
        assert relay.engine.events()[-1][2] == control(WAITING - 1)
        assert server.receive_until(PONG, b"behind it") == []
        assert relay.details(server.connection, EVENT_MESSAGE) == [control(WAITING)]


def test_a_member_that_sends_too_many_is_slow_and_loses_nothing() -> None:
    """Beyond what is saved up it has its rate; the others are read meanwhile."""
    with EngineRelay() as relay:
        fast, other = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        began = time.monotonic()
        fast.forward(*controls(SAVED + PER_S), numbered(A, B, 1))
        relay.details(fast.connection, EVENT_MESSAGE, SAVED)
        other.forward(*controls(WAITING))
        assert relay.details(other.connection, EVENT_MESSAGE, WAITING) == controls(WAITING)
        assert relay.details(fast.connection, EVENT_MESSAGE, SAVED + PER_S) == controls(SAVED + PER_S)
        assert time.monotonic() - began > 0.5
        assert number_of(other.receive().payload) == (0, 1)
        assert relay.dropped() == {}


def test_what_is_longer_than_a_message_is_none() -> None:
    with EngineRelay() as relay, relay.device() as (_, tun):
        server = relay.joined(tun, extended=CANDY3)
        server.forward(*controls(WAITING))
        server.forward(*controls(10, size=1501))
        server.forward(*controls(10, size=6000))
        server.sync()
        assert relay.dropped() == {"too_large": 20}
        assert relay.details(server.connection, EVENT_MESSAGE, WAITING) == controls(WAITING)


@pytest.mark.plain
def test_it_may_be_ended_while_it_rests() -> None:
    """What was not read makes no reset of its end."""
    with EngineRelay() as relay:
        fast = relay.member(A, extended=CANDY3)
        fast.forward(*controls(SAVED + 300))
        relay.details(fast.connection, EVENT_MESSAGE, SAVED)
        assert relay.engine.close(fast.connection, 1001)
        assert [frame.opcode for frame in fast.receive_all()] == [CLOSE]
        assert relay.cause(fast.connection) == "local"


@pytest.mark.plain
def test_its_end_is_seen_while_it_rests() -> None:
    with EngineRelay() as relay:
        fast = relay.member(A, extended=CANDY3)
        fast.forward(*controls(SAVED + 10))
        fast.close()
        assert relay.cause(fast.connection) == "eof"
        assert told(relay, fast) == controls(SAVED + 10)


@pytest.mark.plain
def test_without_memory_to_hold_its_input_all_is_told() -> None:
    """As a turn goes on beyond its work then: what was read is not thrown away."""
    with EngineRelay(memory_bytes=1 << 20) as relay, relay.device() as (_, tun):
        server, other = relay.joined(tun, extended=CANDY3), relay.member(A)
        address = A
        for size in (60_000, 8000, 1200):
            lost = relay.dropped().get("memory", 0)
            while relay.dropped().get("memory", 0) == lost:
                address += 1
                member = relay.member(address)
                member.sock.sendall(member.frame(BINARY, numbered(address, A, 1, size))[:-10])
                member.wait_until_read()
                other.sync()  # the worker's buffer is for this one now
        server.forward(*controls(WAITING + 100))
        server.sync()
        assert [detail for _, _, detail in relay.engine.events()] == controls(WAITING + 100)


@pytest.mark.plain
def test_while_too_much_waits_for_python_they_rest() -> None:
    """Of all connections together: what others lose then is no CONTROL."""
    with EngineRelay() as relay, relay.device() as (_, tun):
        server = relay.joined(tun, extended=CANDY3)
        peers = [relay.member(0x0A010000 + n) for n in range(180)]
        for peer in peers:
            for _ in range(60):
                peer.send(BINARY, b"\7".ljust(1000))
            peer.sync()
        lost = relay.dropped()
        assert lost["events"] > 0
        server.forward(*controls(30))
        server.wait_until_read()
        assert relay.details(server.connection, EVENT_MESSAGE, 30) == controls(30)
        assert relay.dropped() == lost
