"""How the engine's connections end, from either side, and what is left of them: numbers, slots, descriptors."""

import errno
import os
import socket
import struct

import pytest
from kit.peer import BINARY, CLOSE, PATIENCE, PING, EngineRelay, Frame, Peer, numbered

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

A, B = 0x0A000001, 0x0A000002


def test_close_handshake_from_our_side() -> None:
    with EngineRelay() as relay:
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
    with EngineRelay() as relay:
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


def test_one_close_frame_although_it_has_to_wait() -> None:
    with EngineRelay() as relay:
        stalled, other = relay.member(A), relay.member(B)
        other.forward(*(numbered(B, A, n, 1000) for n in range(1000)))
        other.sync()
        assert relay.engine.close(stalled.connection, 1000)
        assert relay.engine.close(stalled.connection, 1001)
        assert [f.payload for f in stalled.receive_all() if f.opcode == CLOSE] == [b"\x03\xe8"]


def test_close_without_a_word() -> None:
    with EngineRelay() as relay:
        peer = relay.member(A)
        assert relay.engine.close(peer.connection)
        assert peer.receive_all() == []
        assert relay.cause(peer.connection) == "local"


def test_abrupt_close_cuts_a_graceful_one_short() -> None:
    with EngineRelay() as relay:
        peer = relay.member(A)
        assert relay.engine.close(peer.connection, 1000)
        assert relay.engine.close(peer.connection)
        assert [f.opcode for f in peer.receive_all()] == [CLOSE]
        assert relay.cause(peer.connection) == "local"


@pytest.mark.parametrize("reason", ["x" * 200, "é" * 100, "€" * 60])
def test_a_long_reason_is_cut_to_whole_characters(reason: str) -> None:
    with EngineRelay() as relay:
        peer = relay.member(A)
        relay.engine.close(peer.connection, 1000, reason)
        [frame] = peer.receive_all()
        assert len(frame.payload) <= 125
        assert reason.startswith(frame.payload[2:].decode())
        assert len(frame.payload) > 120


def test_hang_up_within_a_frame() -> None:
    with EngineRelay() as relay:
        peer = relay.member(A)
        peer.sock.sendall(peer.frame(BINARY, numbered(A, A, 1))[:-1])
        peer.close()
        assert relay.cause(peer.connection) == "eof"


@pytest.mark.plain
def test_reset() -> None:
    with EngineRelay() as relay:
        peer = relay.adopt(tcp=True)
        peer.sync()
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert relay.cause(peer.connection) == "reset"


def test_a_stale_number_does_nothing_to_its_successor() -> None:
    with EngineRelay(max_connections=2) as relay:
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


def test_packets_for_who_is_gone_are_stale() -> None:
    with EngineRelay() as relay:
        old, other = relay.member(A), relay.member(B)
        old.close()
        relay.poll.poll(PATIENCE * 1000)  # ended, and Python doesn't know yet: the address still leads there
        other.forward(numbered(B, A, 1), numbered(B, A, 2))
        other.sync()
        assert relay.dropped() == {"stale": 2}


def end(relay: EngineRelay, old: Peer) -> None:
    """End a connection whatever it was doing."""
    assert relay.engine.close(old.connection)
    assert relay.cause(old.connection) == "local"


def successor(relay: EngineRelay, old: Peer) -> Peer:
    """Give the slot of one that has ended to another with the same address."""
    new = relay.member(old.address)
    assert new.connection & 0xFFFFFFFF == old.connection & 0xFFFFFFFF, "the test is about one slot"
    return new


@pytest.mark.parametrize("interrupted", ["never", "before the end", "after it"])
def test_the_next_owner_inherits_no_half_frame(interrupted: str) -> None:
    """Wherever it lies: another's turn moves it out of the receive buffer."""
    with EngineRelay(max_connections=2) as relay:
        old, other = relay.member(A), relay.member(B)
        old.sock.sendall(old.frame(BINARY, numbered(A, B, 1))[:50])
        old.wait_until_read()
        if interrupted == "before the end":
            other.sync()
        end(relay, old)
        new = successor(relay, old)
        if interrupted == "after it":
            other.sync()
        new.forward(numbered(A, B, 2))
        assert new.sync() == []
        assert [f.payload for f in other.sync()] == [numbered(A, B, 2)]


def test_the_next_owner_inherits_no_fragment() -> None:
    with EngineRelay(max_connections=2) as relay:
        old, other = relay.member(A), relay.member(B)
        old.send(BINARY, b"\7first", final=False)
        old.wait_until_read()
        end(relay, old)
        # Behind the report: before it a worker may still have to give back what an answer took.
        assert relay.engine.stats()["queued_bytes"] == 0
        new = successor(relay, old)
        new.forward(numbered(A, B, 2))
        assert new.sync() == []
        assert [f.payload for f in other.sync()] == [numbered(A, B, 2)]


def test_the_next_owner_gets_nothing_of_the_backlog() -> None:
    with EngineRelay(max_connections=2) as relay:
        old, other = relay.member(A), relay.member(B)
        other.forward(*(numbered(B, A, n, 1000) for n in range(1000)))
        other.sync()
        stats = relay.engine.connection_stats(old.connection)
        assert stats is not None
        assert stats["queued_bytes"] > 100_000
        end(relay, old)
        new = successor(relay, old)
        other.forward(numbered(B, A, 7777))
        other.sync()
        assert [f.payload for f in new.sync()] == [numbered(B, A, 7777)]
        assert relay.unaccounted() == 0


def test_every_slot_is_used_again() -> None:
    with EngineRelay(max_connections=3) as relay:
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


def test_stop_closes_everything_and_can_be_repeated() -> None:
    relay = EngineRelay(3)
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
