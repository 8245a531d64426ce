"""Memory is shared: what strangers may hold, and what stalled members keep."""

import pytest
from kit.peer import BINARY, CONTINUATION, PING, PONG, EngineRelay, Peer, number_of, numbered

from candy import _fastpath

EVENT_MESSAGE = _fastpath.EVENT_MESSAGE

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


@pytest.mark.parametrize("rest", [300, 900], ids=["fits", "too long"])
def test_a_stranger_holds_a_kilobyte_of_input(rest: int) -> None:
    """Fragments and a cut frame together: where that is the last fragment, and too long, the message is lost."""
    with EngineRelay() as relay:
        ours = relay.member(A)
        strangers = [relay.adopt() for _ in range(50)]
        for n, stranger in enumerate(strangers):
            stranger.send(BINARY, b"\xff" + bytes(599), final=False)
            for _ in range(10):
                stranger.send(CONTINUATION, bytes(10), final=False)
            stranger.sock.sendall(stranger.frame(CONTINUATION, bytes(rest))[:-1])
            stranger.wait_until_read()
            ours.sync()
            # The worker may be about to give back what the last answer to our own member took.
            assert relay.engine.stats()["queued_bytes"] <= (n + 1) * (1024 + 32) + 256
        for stranger in strangers:
            stranger.sock.sendall(b"\0")
            assert stranger.sync() == []
            stranger.send(BINARY, b"\xff" + bytes(1000))
            wanted = [1000, 1001] if rest == 300 else [1001]
            messages = relay.details(stranger.connection, EVENT_MESSAGE, len(wanted))
            assert [len(message) for message in messages] == wanted
        assert relay.engine.stats()["queued_bytes"] == 0
        assert relay.dropped() == ({} if rest == 300 else {"not_authenticated": 50})


def test_a_strangers_cut_ping_between_fragments_is_answered() -> None:
    """However many bytes of fragments are kept: a control frame has room beside them."""
    with EngineRelay() as relay:
        ours, stranger = relay.member(A), relay.adopt()
        stranger.send(BINARY, b"\xff" + bytes(1000), final=False)
        ping = stranger.frame(PING, bytes(125))
        for part in (ping[:60], ping[60:]):
            stranger.sock.sendall(part)
            stranger.wait_until_read()
            ours.sync()
        stranger.send(CONTINUATION, bytes(20))
        assert stranger.receive().payload == bytes(125)
        assert relay.details(stranger.connection, EVENT_MESSAGE) == [b"\xff" + bytes(1020)]
        assert relay.dropped() == {}


def test_a_long_frame_that_came_with_the_upgrade_is_passed_over() -> None:
    with EngineRelay() as relay:
        ours = relay.member(A)
        long = ours.frame(BINARY, numbered(A, B, 1, 60_000))
        for at in (20, 1100, 5000, 59_999):
            stranger = relay.adopt(tail=long[:at])
            ours.sync()  # its worker's buffer is for this one now
            assert relay.engine.stats()["queued_bytes"] <= 1100
            stranger.sock.sendall(long[at:])
            assert stranger.sync() == []
        assert relay.dropped() == {"not_authenticated": 4}


def test_four_thousand_strangers_at_the_default_limit() -> None:
    """Half of them send a long frame first. Each has a kilobyte, and members notice nothing."""
    with EngineRelay() as relay:
        member, other = relay.member(A), relay.member(B)
        strangers = [relay.adopt() for _ in range(4000)]
        long = member.frame(BINARY, numbered(A, B, 1, 60_000))
        for stranger in strangers[::2]:
            stranger.sock.sendall(long[:30_000])
        for stranger in strangers[::2]:
            stranger.wait_until_read()
            stranger.sock.sendall(long[30_000:])
        for stranger in strangers:
            stranger.send(BINARY, b"\xff" + bytes(499), final=False)
            stranger.sock.sendall(stranger.frame(CONTINUATION, bytes(400))[:-1])
        for stranger in strangers:
            stranger.wait_until_read()
        member.sync()
        assert 3500 * 1024 < relay.engine.stats()["queued_bytes"] <= 4000 * 1056
        for size in (100, 1400, 60_000):
            frame = member.frame(BINARY, numbered(A, B, 5, size))
            for at in range(0, size, size // 4):
                member.sock.sendall(frame[at : min(at + size // 4, size)])
                member.wait_until_read()
                assert other.sync() == []
            member.sock.sendall(frame[size:])
            member.sync()
            assert [f.payload for f in other.sync()] == [numbered(A, B, 5, size)]
        for stranger in strangers:
            stranger.sock.sendall(b"\0")
            stranger.send(PING, b"here")
        for stranger in strangers:
            assert stranger.receive_until(PONG, b"here") == []
        assert relay.dropped() == {"not_authenticated": 2000}
        assert [(kind, len(detail)) for _, kind, detail in relay.engine.events()] == [(EVENT_MESSAGE, 900)] * 4000
        assert relay.engine.stats()["connections"] == 4002


def fill(relay: EngineRelay, peer: Peer, payload: bytes) -> None:
    """Send control frames to a peer that reads nothing until no more may wait. Answers to its pings count like ours."""
    while relay.engine.ping(peer.connection, payload):
        pass


@pytest.mark.parametrize("payload", [b"", bytes(125)], ids=["empty", "longest"])
def test_answers_to_strangers_are_part_of_the_sixteenth(payload: bytes) -> None:
    """Counted by what they take, not by their bytes; and who has none waiting gets one in any case."""
    with EngineRelay(memory_bytes=1 << 20) as relay:
        member, last = relay.member(A), relay.adopt()
        strangers = [relay.adopt() for _ in range(100)]
        for stranger in strangers:
            fill(relay, stranger, payload)
        # Beside the sixteenth: of each the queue's own structure, and one answer that waits or is being sent.
        assert relay.engine.stats()["queued_bytes"] <= (1 << 20) // 16 + 100 * (256 + 2 * 160)
        last.send(PING, b"let me in")
        assert last.receive_until(PONG, b"let me in") == []
        member.forward(numbered(A, A, 1))
        assert [f.payload for f in member.sync()] == [numbered(A, A, 1)]
        # What they read and what they leave behind is theirs no more.
        for n, stranger in enumerate(strangers[::2]):
            assert relay.engine.bind(stranger.connection, 0x0A000100 + n)
            assert stranger.receive().opcode == PING
        for stranger in strangers:
            stranger.close()
            relay.cause(stranger.connection)
        member.sync()
        assert relay.engine.stats()["queued_bytes"] <= 4096  # what the member's own packet waited in, until the tick
        newcomers = [relay.adopt() for _ in range(60)]
        for stranger in newcomers:
            stranger.sock.sendall(stranger.frame(BINARY, b"\xff" + bytes(900))[:-1])
            stranger.wait_until_read()
        for stranger in newcomers:
            stranger.sock.sendall(b"\0")
            assert len(relay.details(stranger.connection, EVENT_MESSAGE)) == 1


@pytest.mark.parametrize("payload", [b"", bytes(125)], ids=["empty", "longest"])
def test_answers_to_a_member_are_bounded_by_what_they_take(payload: bytes) -> None:
    with EngineRelay() as relay:
        relay.member(A)
        member = relay.member(B)
        fill(relay, member, payload)
        # As much again may be on its way to the kernel.
        assert relay.engine.stats()["queued_bytes"] <= 2 * 65_536 + 4096
        # Of each what it takes in the inbox counts: 24 bytes beside its own.
        stats = relay.engine.connection_stats(member.connection)
        assert stats is not None
        frame = 2 + len(payload)
        assert stats["queued_bytes"] <= 2 * (65_536 // (24 + frame) * frame) + 4096


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


def test_a_message_that_has_a_flow_counts_as_a_packet() -> None:
    """Not with the control frames, whose room it would take for ever."""
    with EngineRelay() as relay:
        member = relay.member(A)
        for n in range(2000):
            assert relay.engine.send(member.connection, numbered(A, A, n, 100))
            assert member.receive().payload == numbered(A, A, n, 100)
        assert member.sync() == []


def hold_all_but(relay: EngineRelay, third: Peer, left: int) -> None:
    """Have begun frames hold all of 1 MiB but so many bytes, or up to 100 more."""
    address = 0x0A000100
    while (room := (1 << 20) - relay.engine.stats()["queued_bytes"] - left) > 100:
        peer = relay.member(address)
        peer.sock.sendall(peer.frame(BINARY, b"\xff" + bytes(min(room, 16_000) - 50))[:-1])
        peer.wait_until_read()
        third.sync()  # the worker's buffer is for this one now
        address += 1


def test_without_memory_a_cut_ping_between_fragments_is_lost_alone() -> None:
    with EngineRelay(memory_bytes=1 << 20) as relay:
        member, third = relay.member(A), relay.member(B)
        hold_all_but(relay, third, 40)
        member.send(BINARY, b"\xff1", final=False)
        ping = member.frame(PING, bytes(125))
        member.sock.sendall(ping[:60])
        member.wait_until_read()
        third.sync()
        member.sock.sendall(ping[60:])
        member.send(CONTINUATION, b"2")
        assert member.sync() == []
        assert relay.dropped() == {"memory": 1, "control": 1}
        assert relay.engine.events() == []


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


def test_a_burst_beside_five_hundred_stalled_members_arrives_whole() -> None:
    """At the default limits, while packets for the stalled ones keep coming."""
    with EngineRelay() as relay:
        sender, healthy = relay.member(A), relay.member(C)
        stalled = [relay.member(0x0A010000 + n) for n in range(500)]
        flood = [sender.frame(BINARY, numbered(A, peer.address, 0, 60_000)) for peer in stalled]
        for frame in flood[:60]:
            for _ in range(10):
                sender.sock.sendall(frame * 8)  # more than a destination may hold
        for frame in flood:
            sender.sock.sendall(frame * 8)
        sender.sync()
        for _ in range(300):
            if relay.engine.stats()["queued_bytes"] <= 500 * 160_000:
                break
            sender.sock.sendall(b"".join(flood))
            sender.sync()
        else:
            pytest.fail("the stalled members are not cut")
        burst = [sender.frame(BINARY, numbered(A, C, n, 1400, flow=n % 250)) for n in range(1500)]
        sender.sock.sendall(b"".join((*flood, *burst, *flood)))
        sender.sync()
        found: list[int] = []
        late = 0
        while len(found) + late < 1500:
            found += [number_of(frame.payload)[1] for frame in healthy.sync()]
            lost = relay.engine.connection_drops(healthy.connection)
            assert lost is not None
            late = lost["delay"]  # CoDel's, where this machine is slow
            assert sum(lost.values()) == late
        assert len(set(found)) == len(found)
