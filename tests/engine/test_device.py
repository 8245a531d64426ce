"""The engine of a client: its device, its relay, and what passes between the two. Also a relay's own device."""

import socket
import struct

import pytest
from kit.peer import BINARY, CLOSE, FORWARD, PONG, EngineRelay, packet

from candy import _fastpath

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

A, B = 0x0A000001, 0x0A000002
NOBODY, GROUP = 0x0A000063, 0xE0000001
KINDS = pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM], ids=["seqpacket", "dgram"])


@KINDS
@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
def test_a_client_carries_packets_both_ways(kind: int, extended: bool) -> None:
    with EngineRelay() as relay, relay.device(kind) as (kernel, tun):
        server = relay.joined(tun, extended=extended)
        masks = set()
        for n in range(100):
            out = packet(A, B, n.to_bytes(2, "big") * (n % 50))
            kernel.send(out)
            frame = server.receive()
            assert (frame.opcode, frame.payload) == (BINARY, FORWARD + out)
            masks.add(frame.mask)
            back = packet(B, A, bytes(n * 14), flow=n)
            server.forward(FORWARD + back)
            assert kernel.recv(65536) == back
        assert len(masks) > 95
        assert b"\0\0\0\0" not in masks
        assert relay.dropped() == {}


@KINDS
def test_batches_through_a_client(kind: int) -> None:
    with EngineRelay() as relay, relay.device(kind) as (kernel, tun):
        server = relay.joined(tun)
        ins = [packet(B, A, struct.pack(">H", n) + bytes(n % 97)) for n in range(8)]
        for _ in range(20):
            server.forward(*(FORWARD + p for p in ins))
            assert [kernel.recv(65536) for _ in ins] == ins
            for p in ins:
                kernel.send(p)
            assert [server.receive().payload for _ in ins] == [FORWARD + p for p in ins]


@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
@pytest.mark.parametrize("length", [20, 124, 125, 126, 1499, 1500, 65534, 65535])
def test_packet_lengths_from_a_device(length: int, extended: bool) -> None:
    with EngineRelay() as relay, relay.device() as (kernel, tun):
        server = relay.joined(tun, extended=extended)
        out = bytearray(packet(A, B, bytes(max(0, length - 28))))[:length]
        out[2:4] = length.to_bytes(2, "big")
        kernel.send(out)
        kernel.send(packet(A, B, b"next"))
        frame = server.receive()
        if extended or length <= 1499:
            assert frame.payload == FORWARD + out
            frame = server.receive()
        else:
            assert relay.dropped() == {"too_large": 1}
        assert frame.payload == FORWARD + packet(A, B, b"next")


NOT_IPV4 = {
    "empty header": bytes(19),
    "IPv6": b"\x60" + bytes(39),
    "version 5, and right but for that": b"\x55" + packet(A, B)[1:],
    "header of 16": b"\x44" + packet(A, B)[1:],
    "header longer than the packet": b"\x4f" + packet(A, B)[1:],
    "total length too long": packet(A, B)[:-1],
    "total length below the header": packet(A, B)[:2] + b"\0\x10" + packet(A, B)[4:],
}


@pytest.mark.parametrize("name", NOT_IPV4)
def test_what_is_no_ipv4_passes_in_neither_direction(name: str) -> None:
    junk = NOT_IPV4[name]
    with EngineRelay() as relay, relay.device() as (kernel, tun):
        server = relay.joined(tun)
        good = packet(A, B)
        kernel.send(junk)
        kernel.send(good)
        assert server.receive().payload == FORWARD + good
        server.forward(FORWARD + junk, FORWARD + good)
        assert kernel.recv(65536) == good
        drops = relay.dropped()
        assert sum(drops.values()) == 2
        assert set(drops) <= {"not_ipv4", "too_short"}


def test_a_device_that_takes_no_more_is_counted() -> None:
    with EngineRelay() as relay, relay.device(socket.SOCK_DGRAM) as (kernel, tun):
        server = relay.joined(tun)
        server.forward(*(FORWARD + packet(B, A, struct.pack(">H", n)) for n in range(2000)))
        server.sync()
        lost = relay.dropped()["tun_write"]
        got = [struct.unpack_from(">H", kernel.recv(2048), 28)[0] for _ in range(2000 - lost)]
        assert got == sorted(got)
        assert relay.unaccounted() == 0


def test_a_full_socket_never_stops_the_device() -> None:
    with EngineRelay(queue_bytes=200_000) as relay, relay.device() as (kernel, tun):
        server = relay.joined(tun)
        for n in range(3000):
            kernel.send(packet(A, B, struct.pack(">H", n) + bytes(900)))
        frames = []
        while relay.engine.stats()["packets_in"] < 3000:
            frames += server.sync()
        frames += relay.drain(server)
        assert len(frames) + sum(relay.dropped().values()) == relay.engine.stats()["packets_in"]
        numbers = [struct.unpack_from(">H", f.payload, 29)[0] for f in frames]
        assert numbers == sorted(set(numbers))


def test_the_original_servers_pong_of_1500_bytes() -> None:
    with EngineRelay() as relay:
        server = relay.adopt(client=True)
        server.send(PONG, bytes(1500))
        assert server.sync() == []
        assert relay.details(server.connection, _fastpath.EVENT_PONG) == [bytes(1500)]
        server.send(PONG, bytes(1501))
        assert [(f.opcode, f.payload) for f in server.receive_all()] == [(CLOSE, b"\x03\xea")]


def test_after_a_reconnect_the_device_goes_on_with_the_new_connection() -> None:
    with EngineRelay() as relay, relay.device() as (kernel, tun):
        first = relay.joined(tun)
        first.close()
        relay.cause(first.connection)
        kernel.send(packet(A, B, b"lost"))
        second = relay.joined(tun)
        kernel.send(packet(A, B, b"kept"))
        bodies = [second.receive().payload[29:]]
        if bodies == [b"lost"]:
            bodies.append(second.receive().payload[29:])
        else:
            assert relay.dropped() == {"stale": 1}
        assert bodies[-1] == b"kept"


def test_a_device_is_no_connection() -> None:
    with EngineRelay() as relay, relay.device() as (kernel, tun):
        server = relay.joined(tun)
        assert not relay.engine.send(tun, b"\7")
        assert not relay.engine.ping(tun)
        assert not relay.engine.join(tun, server.connection)
        assert not relay.engine.join(server.connection, server.connection)
        kernel.send(packet(A, B))
        assert server.receive().payload == FORWARD + packet(A, B)
        kernel.setblocking(False)
        with pytest.raises(BlockingIOError):
            kernel.recv(100)


def test_a_connection_to_a_server_cannot_be_a_member() -> None:
    """What a server sends isn't masked and what it gets has to be: the relay's paths are not for it."""
    with EngineRelay() as relay:
        other, server = relay.member(B), relay.adopt(client=True)
        assert not relay.engine.bind(server.connection, A)
        server.forward(FORWARD + packet(A, GROUP), FORWARD + packet(A, B))
        server.sync()
        other.forward(FORWARD + packet(B, A), FORWARD + packet(B, GROUP))
        assert other.sync() == []
        assert server.sync() == []


def test_the_relays_own_device_is_a_member() -> None:
    with EngineRelay() as relay, relay.device() as (kernel, tun):
        one = relay.member(A)
        assert relay.engine.bind(tun, B)
        one.forward(FORWARD + packet(A, B, b"in"), FORWARD + packet(A, GROUP, b"all"))
        assert kernel.recv(100) == packet(A, B, b"in")
        assert kernel.recv(100) == packet(A, GROUP, b"all")
        kernel.send(packet(B, A, b"out"))
        kernel.send(packet(B, GROUP, b"all"))
        kernel.send(packet(B, NOBODY))
        kernel.send(packet(B, A, b"end"))
        assert [one.receive().payload for _ in range(3)] == [
            FORWARD + packet(B, A, b"out"),
            FORWARD + packet(B, GROUP, b"all"),
            FORWARD + packet(B, A, b"end"),
        ]
        assert relay.dropped() == {"no_route": 1}


def test_the_first_route_that_matches_counts() -> None:
    """What goes through another member is wrapped for it; a hop that is the device itself stands for directly."""
    routes = [
        (0xC0A80100, 0xFFFFFF00, A),
        (0xC0A80000, 0xFFFF0000, 0x0A000003),
        (0xC0000000, 0xFF000000, 0x0A000004),
    ]
    hops = {0xC0A80101: 0, 0xC0A80201: 0x0A000003, 0xC0A8FFFF: 0x0A000003, 0xC0A70001: 0x0A000004, B: 0, 0xC1000000: 0}
    with EngineRelay() as relay, relay.device() as (kernel, tun):
        server = relay.joined(tun)
        assert relay.engine.set_routes(tun, A, routes)
        for destination, hop in hops.items():
            inner = packet(A, destination, b"body")
            kernel.send(inner)
            payload = server.receive().payload
            if hop:
                assert struct.unpack_from(">II", payload, 13) == (A, hop)
                assert payload[21:] == inner
            else:
                assert payload == FORWARD + inner
        assert relay.dropped() == {}


def test_no_room_for_an_outer_header() -> None:
    """An outer header's length field counts to 65,535 as well."""
    with EngineRelay() as relay, relay.device() as (kernel, tun):
        server = relay.joined(tun)
        assert relay.engine.set_routes(tun, A, [(NOBODY, 0xFFFFFFFF, B)])
        for length in (65_535, 65_516, 65_515):
            inner = packet(A, NOBODY, bytes(length - 28))
            kernel.send(inner)
        payload = server.receive().payload
        assert (payload[3:5], payload[21:]) == (b"\xff\xff", inner)
        assert relay.dropped() == {"too_large": 2}
