"""Connections of the engine: adopted, bound, told of, closed; what is dropped and why; the client with its device.

Frames and their faults are in test_engine_frames.py, backlogs in test_engine_queue.py, races in test_engine_stress.py.
"""

import ctypes
import errno
import os
import select
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from peer import BINARY, CLOSE, FORWARD, PATIENCE, PING, PONG, Frame, Relay, numbered, packet

from candy import _fastpath

pytestmark = pytest.mark.engine

A, B, C = 0x0A000001, 0x0A000002, 0x0A000003
NOBODY, GROUP = 0x0A000063, 0xE0000001
MESSAGE, CLOSED = _fastpath.EVENT_MESSAGE, _fastpath.EVENT_CLOSED

# ------------------------------------------------------------------------------------------------ dropped, and alive

DROPPED = {
    "packet for nobody": (FORWARD + packet(A, NOBODY), "no_route"),
    "spoofed source": (FORWARD + packet(B, B), "spoofed_source"),
    "source 0.0.0.0": (FORWARD + packet(0, B), "spoofed_source"),
    **{f"packet of {n} bytes": ((FORWARD + packet(A, B))[: n + 1], "too_short") for n in (0, 1, 11, 12, 15, 16, 19)},
    "long message": (b"\xff" + bytes(1500), "too_large"),
}


@pytest.mark.parametrize("pieces", [1, 2], ids=["whole", "fragments"])
@pytest.mark.parametrize("name", DROPPED)
def test_dropped_under_a_name_and_the_connection_lives(name: str, pieces: int) -> None:
    payload, reason = DROPPED[name]
    with Relay() as relay:
        one, other = relay.member(A), relay.member(B)
        if pieces == 1:
            one.send(BINARY, payload)
        else:
            one.send(BINARY, payload[:1], final=False)
            one.send(0, payload[1:])
        assert one.sync() == []
        assert other.sync() == []
        assert relay.dropped() == {reason: 1}
        stats = relay.engine.connection_stats(one.connection)
        assert stats is not None
        assert stats["drops"] == 1
        one.forward(numbered(A, B, 1))
        one.sync()
        assert [f.payload for f in other.sync()] == [numbered(A, B, 1)]


def test_packets_before_authentication() -> None:
    with Relay() as relay:
        one, other = relay.adopt(), relay.member(B)
        for source in (A, B, 0):
            one.forward(FORWARD + packet(source, B), FORWARD + packet(source, GROUP))
        one.sync()
        assert other.sync() == []
        assert relay.dropped() == {"not_authenticated": 6}


@pytest.mark.parametrize("message", [b"", b"\0", b"\x02" * 73, b"\x07", b"\xfe\0", b"\xff" + bytes(1499)], ids=len)
def test_whatever_is_not_forwarded_is_pythons(message: bytes) -> None:
    """Unknown kinds and the empty message as well: Python judges messages."""
    with Relay() as relay:
        peer = relay.adopt()
        peer.send(BINARY, message)
        assert relay.details(peer.connection, MESSAGE) == [message]
        assert relay.dropped() == {}


def test_a_packet_to_the_sender_itself() -> None:
    with Relay() as relay:
        one = relay.member(A)
        one.forward(numbered(A, A, 3))
        assert [f.payload for f in one.sync()] == [numbered(A, A, 3)]


# ------------------------------------------------------------------------------------------------- addresses, networks


def test_bind_replaces_the_holder_who_then_owns_nothing() -> None:
    with Relay() as relay:
        one, old, new = relay.member(A), relay.member(B), relay.member(C)
        assert relay.engine.bind(new.connection, B)
        one.forward(numbered(A, B, 1), numbered(A, C, 2), FORWARD + packet(A, GROUP, b"all"))
        old.forward(numbered(B, A, 3))
        one.sync()
        assert old.sync() == []
        assert [f.payload for f in new.sync()] == [numbered(A, B, 1), FORWARD + packet(A, GROUP, b"all")]
        assert one.sync() == []
        assert relay.dropped() == {"no_route": 1, "not_authenticated": 1}


def test_unbind_and_bind_again() -> None:
    with Relay() as relay:
        one, other = relay.member(A), relay.member(B)
        assert relay.engine.unbind(other.connection)
        assert relay.engine.unbind(other.connection)
        one.forward(numbered(A, B, 1), FORWARD + packet(A, GROUP))
        one.sync()
        assert other.sync() == []
        assert relay.engine.bind(other.connection, B)
        assert relay.engine.bind(other.connection, B)
        one.forward(numbered(A, B, 2), FORWARD + packet(A, GROUP))
        one.sync()
        assert [f.payload for f in other.sync()] == [numbered(A, B, 2), FORWARD + packet(A, GROUP)]
        assert relay.dropped() == {"no_route": 1}


def test_the_end_of_a_former_holder_leaves_its_successors_route_alone() -> None:
    with Relay() as relay:
        one, old, new = relay.member(A), relay.member(B), relay.adopt()
        old.close()
        relay.poll.poll(PATIENCE * 1000)  # ended, and Python doesn't know yet
        assert not relay.engine.bind(old.connection, C)
        assert relay.engine.bind(new.connection, B)
        assert relay.cause(old.connection) == "eof"
        one.forward(numbered(A, B, 1))
        one.sync()
        assert [f.payload for f in new.sync()] == [numbered(A, B, 1)]


def test_equal_addresses_in_two_networks_never_meet() -> None:
    with Relay() as relay:
        second = relay.engine.add_network()
        assert second == 1
        one, other = relay.member(A), relay.member(B)
        far_one, far_other = relay.member(A, network=1), relay.member(B, network=1)
        one.forward(numbered(A, B, 1), FORWARD + packet(A, GROUP, b"here"), FORWARD + packet(A, 0x0A0000FF, b"here"))
        far_one.forward(numbered(A, B, 2), FORWARD + packet(A, 0xFFFFFFFF, b"there"))
        one.sync()
        far_one.sync()
        assert len(other.sync()) == 3
        assert [f.payload for f in far_other.sync()] == [numbered(A, B, 2), FORWARD + packet(A, 0xFFFFFFFF, b"there")]
        far_one.forward(FORWARD + packet(A, 0x0A0000FF))
        far_one.sync()
        assert relay.dropped() == {"no_route": 1}  # the first network's broadcast address


@pytest.mark.parametrize("address", [1, 0x0000FFFF, 0x00010000, 0x7FFFFFFF, 0x80000000, 0xDFFFFFFF, 0xFFFFFFFE])
def test_any_address_can_be_bound(address: int) -> None:
    with Relay() as relay:
        one, other = relay.member(A), relay.member(address)
        one.forward(numbered(A, address, 1))
        one.sync()
        assert [f.payload for f in other.sync()] == [numbered(A, address, 1)]


def test_no_address_at_all() -> None:
    with Relay() as relay:
        assert not relay.engine.bind(relay.adopt().connection, 0)


def test_broadcasts_are_limited_for_each_sender() -> None:
    with Relay(broadcast_rate=0) as relay:
        one, other = relay.member(A), relay.member(B)
        one.forward(FORWARD + packet(A, GROUP), numbered(A, B, 1))
        one.sync()
        assert [f.payload for f in other.sync()] == [numbered(A, B, 1)]
        assert relay.dropped() == {"broadcast_limit": 1}


# ------------------------------------------------------------------------------------------------------------- events


def test_events_in_order_and_the_end_last() -> None:
    with Relay(2) as relay:
        peers = [relay.adopt() for _ in range(6)]
        for n in range(20):
            for peer in peers:
                peer.send(BINARY, bytes([7, n]))
                peer.send(PONG, bytes([n]))
        for peer in peers:
            peer.sync()
            peer.close()
        for peer in peers:
            relay.cause(peer.connection)
            mine = [(kind, detail) for connection, kind, detail in relay.events if connection == peer.connection]
            wanted = [e for n in range(20) for e in ((MESSAGE, bytes([7, n])), (_fastpath.EVENT_PONG, bytes([n])))]
            assert mine == [*wanted, (CLOSED, b"eof")]
        assert relay.engine.events() == []


def test_more_messages_than_python_takes() -> None:
    with Relay() as relay:
        peer = relay.adopt()
        for n in range(500):
            peer.send(BINARY, b"\7" + n.to_bytes(2, "big"))
        peer.sync()
        kept = 500 - relay.dropped()["events"]
        assert 0 < kept < 500
        assert relay.details(peer.connection, MESSAGE, kept) == [b"\7" + n.to_bytes(2, "big") for n in range(kept)]
        peer.send(BINARY, b"\7again")
        assert relay.details(peer.connection, MESSAGE, kept + 1)[-1] == b"\7again"


def test_fileno_is_readable_only_while_there_are_events() -> None:
    with Relay() as relay:
        assert relay.poll.poll(0) == []
        peer = relay.adopt()
        peer.send(BINARY, b"\7")
        assert relay.poll.poll(PATIENCE * 1000)
        assert relay.engine.events() == [(peer.connection, MESSAGE, b"\7")]
        assert relay.poll.poll(0) == []


# -------------------------------------------------------------------------------------------------- the end of the line


def test_close_handshake_from_our_side() -> None:
    with Relay() as relay:
        peer, other = relay.member(A), relay.member(B)
        assert relay.engine.close(peer.connection, 1001, "bye")
        assert peer.receive() == Frame(CLOSE, b"\x03\xe9bye", True, None, 7)
        other.forward(numbered(B, A, 1))
        other.sync()
        # Whatever the peer sends now is thrown away, and draws no answer.
        peer.forward(numbered(A, B, 2))
        peer.send(PING, b"too late")
        peer.send(CLOSE, b"\x03\xe9")
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.receive_all() == []
        assert relay.cause(peer.connection) == "local"
        assert other.sync() == []
        assert sum(relay.dropped().values()) == 1


def test_nothing_follows_the_close_frame() -> None:
    """ "The application MUST NOT send any more data frames after sending a Close frame." """
    with Relay() as relay:
        peer, other = relay.member(A), relay.member(B)
        for _ in range(50):
            other.forward(*(numbered(B, A, n) for n in range(20)))
        assert relay.engine.close(peer.connection, 1000)
        relay.engine.close(peer.connection, 1001)
        relay.engine.send(peer.connection, b"\6")
        relay.engine.ping(peer.connection, b"late")
        frames = peer.receive_all()
        assert [f.opcode for f in frames].index(CLOSE) == len(frames) - 1
        assert frames[-1].payload == b"\x03\xe8"


def test_close_without_a_word() -> None:
    with Relay() as relay:
        peer = relay.member(A)
        assert relay.engine.close(peer.connection)
        assert peer.receive_all() == []
        assert relay.cause(peer.connection) == "local"


def test_abrupt_close_cuts_a_graceful_one_short() -> None:
    with Relay() as relay:
        peer = relay.member(A)
        assert relay.engine.close(peer.connection, 1000)
        assert relay.engine.close(peer.connection)
        assert [f.opcode for f in peer.receive_all()] == [CLOSE]
        assert relay.cause(peer.connection) == "local"


@pytest.mark.parametrize("reason", ["x" * 200, "é" * 100, "€" * 60])
def test_a_long_reason_is_cut_to_whole_characters(reason: str) -> None:
    with Relay() as relay:
        peer = relay.member(A)
        relay.engine.close(peer.connection, 1000, reason)
        [frame] = peer.receive_all()
        assert len(frame.payload) <= 125
        assert reason.startswith(frame.payload[2:].decode())
        assert len(frame.payload) > 120


def test_hang_up_within_a_frame() -> None:
    with Relay() as relay:
        peer = relay.member(A)
        peer.sock.sendall(peer.frame(BINARY, numbered(A, A, 1))[:-1])
        peer.close()
        assert relay.cause(peer.connection) == "eof"


def test_reset() -> None:
    with Relay() as relay:
        peer = relay.adopt(tcp=True)
        peer.sync()
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert relay.cause(peer.connection) == "reset"


def test_a_stale_number_does_nothing_to_its_successor() -> None:
    with Relay(max_connections=2) as relay:
        old, other = relay.member(A), relay.member(B)
        stale = old.connection
        old.close()
        relay.cause(stale)
        new = relay.member(A)
        assert new.connection & 0xFFFFFFFF == stale & 0xFFFFFFFF, "the test is about one slot"
        engine = relay.engine
        for number in (stale, 0, -1, 1 << 63, 1 << 64, 1 << 80, new.connection ^ 1 << 40):
            assert not engine.bind(number, B)
            assert not engine.unbind(number)
            assert not engine.send(number, b"\7")
            assert not engine.ping(number)
            assert not engine.close(number)
            assert not engine.close(number, 1000)
            assert not engine.join(number, new.connection)
            assert engine.received_ns(number) is None
            assert engine.connection_stats(number) is None
        other.forward(numbered(B, A, 1))
        other.sync()
        assert [f.payload for f in new.sync()] == [numbered(B, A, 1)]


def test_every_slot_is_used_again() -> None:
    with Relay(max_connections=3) as relay:
        numbers = set()
        for _ in range(30):
            peers = [relay.adopt() for _ in range(3)]
            numbers |= {peer.connection for peer in peers}
            ours, theirs = socket.socketpair()
            with ours, theirs:
                with pytest.raises(OSError, match="taken") as error:
                    relay.engine.adopt(theirs.fileno())
                assert error.value.errno == errno.ENFILE
                ours.sendall(b"x")
                theirs.setblocking(True)
                assert theirs.recv(1) == b"x"
            for peer in peers:
                peer.close()
                relay.cause(peer.connection)
        assert len(numbers) == 90
        assert relay.engine.stats()["connections"] == 0


def test_what_cannot_be_adopted_stays_the_callers() -> None:
    with Relay() as relay:
        reader, writer = os.pipe()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram, open(reader, "rb"), open(writer, "wb"):
            for fd in (datagram.fileno(), reader):
                with pytest.raises(OSError, match=r"."):
                    relay.engine.adopt(fd)
                os.fstat(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            relay.engine.adopt(1 << 20)
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(ValueError, match="network"):
            relay.engine.adopt(theirs.fileno(), network=1)
        assert relay.engine.stats()["connections"] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"workers": 65},
        {"queue_bytes": 1000},
        {"memory_bytes": 0},
        {"max_connections": 0},
        {"ping_after": -1.0},
        {"dead_after": float("nan")},
        {"broadcast_rate": -1},
    ],
    ids=str,
)
def test_arguments_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        _fastpath.Engine(**options)  # type: ignore[arg-type]


def test_stop_closes_everything_and_can_be_repeated() -> None:
    relay = Relay(3)
    peers = [relay.adopt() for _ in range(5)]
    before = {int(name) for name in os.listdir("/proc/self/fd")}
    relay.engine.stop()
    relay.engine.stop()
    assert {int(name) for name in os.listdir("/proc/self/fd")} < before
    for peer in peers:
        assert peer.sock.recv(1) == b""
        peer.close()
        assert not relay.engine.send(peer.connection, b"\7")
        assert not relay.engine.close(peer.connection)
    assert relay.engine.events() == []


def test_messages_are_limited() -> None:
    with Relay() as relay:
        peer = relay.adopt()
        assert relay.engine.send(peer.connection, bytes(1500))
        assert peer.receive() == Frame(BINARY, bytes(1500), True, None, 1504)
        with pytest.raises(ValueError, match="1500"):
            relay.engine.send(peer.connection, bytes(1501))
        with pytest.raises(ValueError, match="125"):
            relay.engine.ping(peer.connection, bytes(126))


def test_ping_comes_back_as_an_event() -> None:
    with Relay() as relay:
        peer = relay.adopt()
        assert relay.engine.ping(peer.connection, b"are you there")
        assert peer.receive() == Frame(PING, b"are you there", True, None, 15)
        peer.send(PONG, b"are you there")
        assert relay.details(peer.connection, _fastpath.EVENT_PONG) == [b"are you there"]


# ----------------------------------------------------------------------------------------------------------- keepalive


def test_a_silent_peer_is_pinged_and_then_given_up() -> None:
    with Relay(ping_after=0.1, dead_after=3.0) as relay:
        peer = relay.adopt()
        heard = relay.engine.received_ns(peer.connection)
        assert (peer.receive().opcode, peer.receive().opcode) == (PING, PING)
        assert relay.engine.received_ns(peer.connection) == heard
        assert all(frame == Frame(PING, b"", True, None, 2) for frame in peer.receive_all())
        assert relay.cause(peer.connection) == "silent"


def test_a_quiet_client_pings_although_it_is_talked_to() -> None:
    with Relay(ping_after=0.1, dead_after=60.0, ping_when_quiet=True) as relay:
        server = relay.adopt(client=True)
        server.sock.settimeout(0.01)
        while True:
            server.send(PONG)
            try:
                frame = server.receive()
            except TimeoutError:
                continue
            break
        assert (frame.opcode, frame.payload) == (PING, b"")


# ---------------------------------------------------------------------------------------------- the client, the device


KINDS = pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM], ids=["seqpacket", "dgram"])


@KINDS
@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
def test_a_client_carries_packets_both_ways(kind: int, extended: bool) -> None:
    with Relay() as relay, relay.device(kind) as (kernel, tun):
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
    with Relay() as relay, relay.device(kind) as (kernel, tun):
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
    with Relay() as relay, relay.device() as (kernel, tun):
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
    "header of 16": b"\x44" + packet(A, B)[1:],
    "header longer than the packet": b"\x4f" + packet(A, B)[1:],
    "total length too long": packet(A, B)[:-1],
    "total length below the header": packet(A, B)[:2] + b"\0\x10" + packet(A, B)[4:],
}


@pytest.mark.parametrize("name", NOT_IPV4)
def test_what_is_no_ipv4_passes_in_neither_direction(name: str) -> None:
    junk = NOT_IPV4[name]
    with Relay() as relay, relay.device() as (kernel, tun):
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
    with Relay() as relay, relay.device(socket.SOCK_DGRAM) as (kernel, tun):
        server = relay.joined(tun)
        server.forward(*(FORWARD + packet(B, A, struct.pack(">H", n)) for n in range(2000)))
        server.sync()
        lost = relay.dropped()["tun_write"]
        got = [struct.unpack_from(">H", kernel.recv(2048), 28)[0] for _ in range(2000 - lost)]
        assert got == sorted(got)
        assert relay.unaccounted() == 0


def test_a_full_socket_never_stops_the_device() -> None:
    with Relay(queue_bytes=200_000) as relay, relay.device() as (kernel, tun):
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
    with Relay() as relay:
        server = relay.adopt(client=True)
        server.send(PONG, bytes(1500))
        assert server.sync() == []
        assert relay.details(server.connection, _fastpath.EVENT_PONG) == [bytes(1500)]
        server.send(PONG, bytes(1501))
        assert [(f.opcode, f.payload) for f in server.receive_all()] == [(CLOSE, b"\x03\xea")]


def test_after_a_reconnect_the_device_goes_on_with_the_new_connection() -> None:
    with Relay() as relay, relay.device() as (kernel, tun):
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
    with Relay() as relay, relay.device() as (kernel, tun):
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
    with Relay() as relay:
        other, server = relay.member(B), relay.adopt(client=True)
        assert not relay.engine.bind(server.connection, A)
        server.forward(FORWARD + packet(A, GROUP), FORWARD + packet(A, B))
        server.sync()
        other.forward(FORWARD + packet(B, A), FORWARD + packet(B, GROUP))
        assert other.sync() == []
        assert server.sync() == []


def test_the_relays_own_device_is_a_member() -> None:
    with Relay() as relay, relay.device() as (kernel, tun):
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


# --------------------------------------------------------------------------------- without Python, or malloc


def test_packets_pass_while_python_stands_still() -> None:
    """The whole way is gone while this thread holds Python's lock and would not hand it over for a thousand seconds."""
    libc = ctypes.PyDLL(None)
    interval = sys.getswitchinterval()
    with Relay() as relay:
        one, other = relay.member(A), relay.member(B)
        frame = one.frame(BINARY, numbered(A, B, 1))
        wait = ctypes.create_string_buffer(struct.pack("ihh", other.sock.fileno(), select.POLLIN, 0))
        sys.setswitchinterval(1000)
        try:
            libc.send(one.sock.fileno(), frame, len(frame), 0)
            assert libc.poll(wait, 1, PATIENCE * 1000) == 1
        finally:
            sys.setswitchinterval(interval)
        assert other.receive().payload == numbered(A, B, 1)


COUNTER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <unistd.h>
#include <sys/syscall.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static long calls;
static void count(void) {
    if (syscall(SYS_gettid) != getpid())
        __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
}
void *malloc(size_t n) { count(); return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { count(); return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { count(); return __libc_realloc(p, n); }
long worker_allocations(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }
"""

STEADY = """
import ctypes
from peer import BINARY, PING, FORWARD, Relay, numbered, packet

count = ctypes.CDLL(None).worker_allocations
count.restype = ctypes.c_long
A, B, C = 0x0A000001, 0x0A000002, 0x0A000003
with Relay() as relay:
    one, other, third = relay.member(A), relay.member(B), relay.member(C, extended=False)
    def turn():
        for n in range(50):
            data = b"".join(one.frame(BINARY, numbered(A, (B, C)[i % 5 == 0], i)) for i in range(60))
            data += one.frame(BINARY, FORWARD + packet(A, 0xE0000001))
            one.sock.sendall(data[:-9])
            one.wait_until_read()
            one.sock.sendall(data[-9:])
            one.wait_until_read()
            assert sum(other.receive() is not None for _ in range(49)) == 49
            assert sum(third.receive() is not None for _ in range(13)) == 13
    turn()
    before = count()
    turn()
    print(before > 0, count() - before, relay.engine.stats()["packets_in"])
"""


def test_steady_forwarding_allocates_nothing(tmp_path: Path) -> None:
    """Every allocation by a worker is counted while packets run, alternate, are cut and broadcast."""
    if "LD_PRELOAD" in os.environ:
        pytest.skip("a sanitizer has put its own allocator here")
    source, library = tmp_path / "count.c", tmp_path / "count.so"
    source.write_text(COUNTER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    found = subprocess.run(
        [sys.executable, "-c", STEADY],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    # The first word shows that the count counts: a backlog's memory, made once, is in it.
    assert (found.stdout, found.stderr) == ("True 0 6100\n", "")
