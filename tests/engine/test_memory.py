"""Memory is shared: what strangers may hold, what stalled members keep, what a backlog takes."""

import pytest
from kit.peer import BINARY, CONTINUATION, PING, PONG, EngineRelay, numbered

pytestmark = pytest.mark.engine

A, B, C = 0x0A000001, 0x0A000002, 0x0A000003


def test_a_strangers_long_frame_is_passed_over() -> None:
    """Counted, and no reason to close; what stands behind it is read."""
    with EngineRelay() as relay:
        stranger = relay.adopt()
        for size in (1100, 5000, 65_000):
            frame = stranger.frame(BINARY, numbered(A, B, 1, size))
            stranger.sock.sendall(frame[:700])
            stranger.wait_until_read()
            stranger.sock.sendall(frame[700:])
            assert stranger.sync() == []
        assert relay.dropped() == {"not_authenticated": 3}


def test_strangers_have_a_sixteenth() -> None:
    """A thousand of them, with a cut frame each: nobody is closed, and a member's cut frame is whole in the end."""
    with EngineRelay(memory_bytes=1 << 20) as relay:
        member = relay.member(A)
        strangers = [relay.adopt() for _ in range(1000)]
        for stranger in strangers:
            stranger.sock.sendall(stranger.frame(BINARY, b"\xff" + bytes(900))[:-1])
            stranger.wait_until_read()
        for size in (100, 1400, 60_000):
            frame = member.frame(BINARY, numbered(A, A, 5, size))
            member.sock.sendall(frame[:-5])
            member.wait_until_read()
            assert relay.engine.stats()["queued_bytes"] <= (1 << 20) // 16 + 32 * 1000 + 128 * 1024
            member.sock.sendall(frame[-5:])
            assert [f.payload for f in member.sync()] == [numbered(A, A, 5, size)]
        for stranger in strangers:
            stranger.sock.sendall(b"\0")
            assert stranger.sync() == []
        assert relay.events == []
        assert relay.engine.stats()["connections"] == 1001


def test_without_memory_a_members_frames_are_lost_and_it_stays() -> None:
    """Other members' begun frames hold all there is."""
    with EngineRelay(memory_bytes=1 << 20) as relay:
        member = relay.member(A)
        others = [relay.member(0x0A000100 + n) for n in range(40)]
        for other in others:
            frame = other.frame(BINARY, numbered(other.address, A, 1, 60_000))
            for at in range(0, 50_000, 10_000):
                other.sock.sendall(frame[at : at + 10_000])
                other.wait_until_read()
        for n in range(7):
            other = relay.member(B + n)
            other.sock.sendall(other.frame(BINARY, b"\xff" + bytes(10_000))[:9000])
            other.wait_until_read()
        third = relay.member(0x0A000200)
        frame = member.frame(BINARY, numbered(A, A, 1, 60_000))
        for at in range(0, len(frame), 10_000):
            member.sock.sendall(frame[at : at + 10_000])
            member.wait_until_read()
            third.sync()  # the worker's buffer is for this one now
        assert member.sync() == []
        member.send(BINARY, b"\xff" + bytes(30_000), final=False)
        member.send(CONTINUATION, bytes(30_000))
        assert member.sync() == []
        assert relay.dropped()["memory"] >= 2
        member.forward(numbered(A, A, 2))
        member.wait_until_read()  # in one read with a ping it would have to wait behind the answer
        assert [f.payload for f in member.sync()] == [numbered(A, A, 2)]
        assert relay.engine.events() == []


@pytest.mark.parametrize("flows", [1, 16, 256])
@pytest.mark.parametrize("size", [29, 100, 1400, 9000, 65_000])
def test_a_backlog_takes_in_proportion_to_what_waits(size: int, flows: int) -> None:
    with EngineRelay() as relay:
        sender, stalled = relay.member(A), relay.member(B)
        fill = 0
        while not (stats := relay.engine.connection_stats(stalled.connection)) or stats["queued_bytes"] == 0:
            sender.forward(numbered(A, B, fill, 1400))
            sender.sync()
            fill += 1
        for n in range(min(2000, 2_000_000 // size)):
            sender.forward(numbered(A, B, n, max(size, 33), flow=n % flows))
        sender.sync()
        stats = relay.engine.connection_stats(stalled.connection)
        assert stats is not None
        # The commit block is not among the bytes that wait, and counts like the answers to our pings.
        assert relay.engine.stats()["queued_bytes"] <= 2 * stats["queued_bytes"] + 4096 + 65_536 + 4096


def test_stalled_members_leave_room_for_a_burst() -> None:
    with EngineRelay(memory_bytes=1 << 25) as relay:
        sender, healthy = relay.member(A), relay.member(C)
        stalled = [relay.member(0x0A000100 + n) for n in range(100)]
        for peer in stalled:
            for _ in range(4):
                sender.forward(*(numbered(A, peer.address, n, 1400) for n in range(400)))
                sender.sync()
        while relay.engine.stats()["queued_bytes"] > (1 << 25) * 7 // 8 - (2 << 20):
            sender.sync()  # within a second the stalled ones are cut, until as much is free as one of them holds
        sender.forward(*(numbered(A, C, n, 1000) for n in range(700)))
        sender.sync()
        lost = relay.engine.connection_drops(healthy.connection)
        assert lost is not None
        assert sum(lost.values()) == 0


def test_generations_wrap() -> None:
    """Past 2³² a slot is used on, and its input is heard."""
    with EngineRelay(first_generation=(1 << 32) - 2, max_connections=1) as relay:
        seen = set()
        for n in range(5):
            peer = relay.member(A)
            assert peer.connection > 0
            seen.add(peer.connection)
            peer.forward(numbered(A, A, n))
            assert [f.payload for f in peer.sync()] == [numbered(A, A, n)]
            peer.send(PING, b"x")
            assert peer.receive().opcode == PONG
            peer.close()
            assert relay.cause(peer.connection) == "eof"
        assert len(seen) == 5
