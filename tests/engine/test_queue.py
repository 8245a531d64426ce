"""The backlog of a receiver that takes too little: bounded, counted, whole frames, in order, and nobody else's matter.

A receiver stalls by not reading. What the kernel's socket buffers hold has left the engine; the rest waits in its
queue.
"""

import socket
from collections import Counter

import pytest
from kit.peer import BINARY, CLOSE, FORWARD, PING, PONG, EngineRelay, Frame, Peer, number_of, numbered

from candy import _fastpath

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

A, B, C = 0x0A000001, 0x0A000002, 0x0A000003
COMMIT = 65536
"""More bytes than the engine commits to one send from a slow backlog."""
AHEAD = 131072
"""What a later frame can't overtake: no more than is sealed ahead of the kernel while nothing waits."""


def flood(sender: Peer, receiver: Peer, count: int, *, size: int = 1000, flow: int = 0, first: int = 0) -> None:
    """Send numbered packets in batches, each of which the engine has dealt with before the next."""
    for start in range(first, first + count, 200):
        numbers = range(start, min(start + 200, first + count))
        sender.forward(*(numbered(sender.address, receiver.address, n, size, flow=flow) for n in numbers))
        assert sender.sync() == []


def queued(relay: EngineRelay, peer: Peer) -> int:
    """Bytes that wait for this peer."""
    stats = relay.engine.connection_stats(peer.connection)
    assert stats is not None
    return stats["queued_bytes"]


def check_order(frames: list[Frame]) -> Counter[int]:
    """Numbers rise within each flow. Returns how many packets of each flow came."""
    last: dict[int, int] = {}
    found: Counter[int] = Counter()
    for frame in frames:
        if frame.opcode == BINARY and frame.payload[:1] == FORWARD:
            flow, number = number_of(frame.payload)
            assert number > last.get(flow, -1)
            last[flow] = number
            found[flow] += 1
    return found


CARRIERS = pytest.mark.parametrize(
    ("extended", "tcp"),
    [(True, False), (False, False), (True, True), (False, True)],
    ids=["stream-socketpair", "segments-socketpair", "stream-tcp", "segments-tcp"],
)


@CARRIERS
def test_a_stalled_receiver_loses_its_own_packets_and_all_are_counted(extended: bool, tcp: bool) -> None:
    bound = 400_000
    with EngineRelay(queue_bytes=bound) as relay:
        sender, other = relay.member(A, tcp=tcp), relay.member(C)
        stalled = relay.member(B, extended=extended, tcp=tcp)
        stalled.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sent = {flow: 3000 + flow for flow in range(3)}
        for flow, count in sent.items():
            flood(sender, stalled, count, flow=flow)
            waiting = queued(relay, stalled)
            assert waiting <= bound
        # What takes nothing for a while is cut down to 64 KiB.
        assert waiting > bound // 2 or ("stalled" in relay.dropped() and 32_768 < waiting <= 65_536)
        flood(sender, other, 50)
        assert len(other.sync()) == 50
        frames = relay.drain(stalled)
        assert set(relay.dropped()) <= {"queue_full", "stalled", "delay"}
        assert sum(relay.dropped().values()) > 0
        assert len(frames) + sum(relay.dropped().values()) == sum(sent.values())
        # No flow crowds another out; but after a while without progress nothing comes in any more, whatever its flow.
        assert set(check_order(frames)) == {0, 1, 2} or "stalled" in relay.dropped()
        assert relay.unaccounted() == 0
        # Fit again for work.
        flood(sender, stalled, 20, flow=9)
        assert check_order(relay.drain(stalled)) == {9: 20}


@CARRIERS
def test_small_sips(extended: bool, tcp: bool) -> None:
    with EngineRelay(queue_bytes=200_000) as relay:
        sender, slow = relay.member(A), relay.member(B, extended=extended, tcp=tcp)
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        flood(sender, slow, 4000, size=150)
        frames = relay.drain(slow, most=37)
        assert len(frames) + sum(relay.dropped().values()) == 4000
        check_order(frames)


@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
def test_a_pong_and_a_message_overtake_the_backlog(extended: bool) -> None:
    with EngineRelay(queue_bytes=2_000_000) as relay:
        sender, stalled = relay.member(A), relay.member(B, extended=extended)
        flood(sender, stalled, 1500)
        assert relay.engine.send(stalled.connection, b"\x06\0\0\0")
        stalled.send(PING, b"urgent")
        stalled.wait_until_read()
        sender.sync()
        stats = relay.engine.connection_stats(stalled.connection)
        assert stats is not None
        assert stats["queued_bytes"] > 500_000
        frames = stalled.receive_until(PONG, b"urgent")
        assert sum(f.size for f in frames if f.payload[:1] == FORWARD) <= stats["bytes_out"] + AHEAD
        assert [f.payload for f in frames if f.payload[:1] != FORWARD] == [b"\x06\0\0\0"]
        assert len(relay.drain(stalled)) > 100


@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
def test_another_flow_is_served_soon(extended: bool) -> None:
    with EngineRelay(queue_bytes=2_000_000) as relay:
        sender, stalled = relay.member(A), relay.member(B, extended=extended)
        flood(sender, stalled, 1500, flow=1)
        for flow in range(2, 6):
            sender.forward(numbered(A, B, 0, 100, flow=flow))
        sender.sync()
        # Only now: the kernel still takes a little of what waits after the last packet came in.
        stats = relay.engine.connection_stats(stalled.connection)
        assert stats is not None
        frames = relay.drain(stalled)
        # Of four flows at most a few fall into the bulk's sub-queue.
        at = min(at for at, f in enumerate(frames) if number_of(f.payload)[0] != 1)
        assert sum(f.size for f in frames[:at]) <= stats["bytes_out"] + AHEAD
        check_order(frames)


def test_fragments_of_a_datagram_stay_in_order() -> None:
    """Only the first has ports, so none of them may choose the sub-queue."""
    with EngineRelay(queue_bytes=2_000_000) as relay:
        sender, stalled = relay.member(A), relay.member(B)
        flood(sender, stalled, 500)
        for n in range(40):
            whole = numbered(A, B, n, 1400, flow=1000 + n)
            fragment = b"\x20\0" if n % 20 < 10 else b"\0\xaf"
            sender.forward(whole[:7] + fragment + whole[9:])
        sender.sync()
        fragments = [f.payload for f in relay.drain(stalled) if f.payload[7:9] in (b"\x20\0", b"\0\xaf")]
        numbers = [number_of(payload)[1] for payload in fragments]
        assert len(numbers) > 20
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
def test_close_with_a_backlog(extended: bool) -> None:
    """Whole frames, then the close frame, then the end; what the close overtook is counted."""
    with EngineRelay() as relay:
        sender, stalled = relay.member(A), relay.member(B, extended=extended)
        flood(sender, stalled, 1000)
        assert relay.engine.close(stalled.connection, 1012, "again")
        frames = stalled.receive_all()
        assert (frames[-1].opcode, frames[-1].payload) == (CLOSE, b"\x03\xf4again")
        assert all(f.opcode == BINARY for f in frames[:-1])
        check_order(frames)
        stalled.close()
        assert relay.cause(stalled.connection) == "local"
        assert relay.dropped()["closed"] > 100
        assert len(frames) - 1 + sum(relay.dropped().values()) == 1000
        assert relay.unaccounted() == 0


def test_a_receiver_that_never_takes_the_close_frame_is_ended() -> None:
    with EngineRelay() as relay:
        sender, stalled = relay.member(A), relay.member(B)
        flood(sender, stalled, 1000)
        assert relay.engine.close(stalled.connection, 1001)
        assert relay.cause(stalled.connection) == "local"
        assert relay.unaccounted() == 0
        assert relay.engine.stats()["queued_bytes"] == 0


@pytest.mark.parametrize("how", ["close", "hang up"])
def test_a_backlog_that_is_cut_off_is_counted(how: str) -> None:
    with EngineRelay() as relay:
        sender, stalled = relay.member(A), relay.member(B)
        flood(sender, stalled, 1000)
        if how == "close":
            assert relay.engine.close(stalled.connection)
        else:
            stalled.close()
        relay.cause(stalled.connection)
        assert relay.dropped()["closed"] > 100
        assert relay.unaccounted() == 0
        # What answered the sender's pings may be kept for a moment.
        assert relay.engine.stats()["queued_bytes"] <= COMMIT


@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
def test_a_batch_for_a_broken_socket_is_counted_and_ends_the_connection(extended: bool) -> None:
    """The receiver's reading side is shut: the first send fails, and nobody but the sender's worker hears of it."""
    with EngineRelay() as relay:
        sender, deaf = relay.member(A), relay.member(B, extended=extended)
        deaf.sock.shutdown(socket.SHUT_RD)
        sender.forward(*(numbered(A, B, n) for n in range(10)))
        sender.sync()
        sender.forward(*(numbered(A, B, n) for n in range(10)))
        sender.sync()
        assert relay.unaccounted() == 0
        assert relay.cause(deaf.connection) in ("eof", "reset")
        sender.forward(*(numbered(A, B, n) for n in range(10)))
        sender.sync()
        assert relay.unaccounted() == 0
        assert relay.engine.stats()["packets_out"] == 0


def test_a_stalled_receiver_with_a_full_queue_is_not_even_copied_for() -> None:
    """Once it took nothing for a while its new packets are dropped as "stalled", however many keep coming."""
    with EngineRelay(queue_bytes=200_000) as relay:
        sender, stalled = relay.member(A), relay.member(B)
        for _ in range(2000):
            flood(sender, stalled, 200)
            if "stalled" in relay.dropped():
                break
        assert "stalled" in relay.dropped()
        sent = relay.engine.stats()["packets_in"]
        assert len(relay.drain(stalled)) + sum(relay.dropped().values()) == sent


@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
def test_answers_that_wait_leave_in_order(extended: bool) -> None:
    """Short and long, more than leave at once, and before all packets that wait."""
    answers = [n.to_bytes(2, "big") * (1 + n % 3 * 30) for n in range(300)]
    with EngineRelay() as relay:
        sender, stalled = relay.member(A), relay.member(B, extended=extended)
        flood(sender, stalled, 600)
        stalled.sock.sendall(b"".join(stalled.frame(PING, answer) for answer in answers))
        stalled.wait_until_read()
        frames = relay.drain(stalled)
        pongs = [f.payload for f in frames if f.opcode == PONG]
        assert pongs == answers
        check_order([f for f in frames if f.opcode == BINARY])


def test_control_frames_for_a_stalled_peer_are_bounded() -> None:
    with EngineRelay() as relay:
        sender, stalled = relay.member(A), relay.member(B)
        flood(sender, stalled, 600)
        pings = 3000
        for _ in range(pings):
            stalled.send(PING, bytes(100))
        stalled.wait_until_read()
        sender.sync()
        stalled.receive_until(PONG, bytes(100))  # so that drain()'s own have room again
        pongs = 1 + sum(f.opcode == PONG for f in relay.drain(stalled))
        assert 300 < pongs < pings
        assert relay.dropped()["control"] == pings - pongs


def test_send_says_when_the_peer_takes_no_more_messages() -> None:
    with EngineRelay() as relay:
        sender, stalled = relay.member(A), relay.member(B)
        flood(sender, stalled, 600)
        taken = sum(relay.engine.send(stalled.connection, bytes([6]) + bytes(999)) for _ in range(200))
        assert taken < 200
        stalled.receive_until(BINARY, bytes([6]) + bytes(999))
        assert 1 + sum(f.payload[0] == 6 for f in relay.drain(stalled)) == taken


def test_the_bound_over_all_queues() -> None:
    with EngineRelay(memory_bytes=1 << 20, queue_bytes=1 << 20) as relay:
        sender, healthy = relay.member(A), relay.member(C)
        stalled = [relay.member(0x0A000010 + n) for n in range(4)]
        for peer in stalled:
            flood(sender, peer, 1500)
            # A begun frame has to be finished, so each may hold one block beyond.
            assert relay.engine.stats()["queued_bytes"] <= (1 << 20) + 4 * COMMIT
        assert relay.dropped()["queue_full"] > 0
        flood(sender, healthy, 20)
        assert len(healthy.sync()) == 20
        received = 0
        while relay.unaccounted():
            received += sum(len(peer.sync()) for peer in stalled)
        received += sum(len(peer.sync()) for peer in stalled)
        assert received + sum(relay.dropped().values()) == 6000
        sender.sync()
        assert relay.engine.stats()["queued_bytes"] < 1 << 20


def test_stalled_receivers_take_nobody_elses_memory() -> None:
    """With all of the queues' memory gone, a member whose frame comes in two pieces stays connected."""
    with EngineRelay(memory_bytes=1 << 20, queue_bytes=1 << 20) as relay:
        sender, healthy = relay.member(A), relay.member(C)
        stalled = [relay.member(0x0A000010 + n) for n in range(4)]
        for peer in stalled:
            flood(sender, peer, 1500)
        assert relay.dropped()["queue_full"] > 0
        frame = healthy.frame(BINARY, numbered(C, C, 5))
        healthy.sock.sendall(frame[:20])
        healthy.wait_until_read()
        healthy.sock.sendall(frame[20:])
        assert [f.payload for f in healthy.sync()] == [numbered(C, C, 5)]
        healthy.send(BINARY, b"\x071", final=False)
        healthy.send(0, b"2")
        assert relay.details(healthy.connection, _fastpath.EVENT_MESSAGE) == [b"\x0712"]


def test_sparse_packets_of_many_flows_stay_within_the_bound() -> None:
    """What a backlog really occupies is bounded, not only its bytes: a small packet may not hold a whole block for
    itself as often as it likes."""
    bound = 200_000
    with EngineRelay(queue_bytes=bound) as relay:
        sender, stalled = relay.member(A), relay.member(B)
        flood(sender, stalled, 400)
        for n in range(4000):
            sender.forward(numbered(A, B, n, 60, flow=n % 500))
            sender.wait_until_read()
        sender.sync()
        assert relay.engine.stats()["queued_bytes"] <= 16 * bound


@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
def test_messages_that_have_left_hold_no_memory(extended: bool) -> None:
    """As after a restart, when everybody is granted an address within a moment. The bound is 64 blocks of 16 KiB."""
    with EngineRelay(memory_bytes=1 << 20) as relay:
        members = [relay.member(A + n, extended=extended) for n in range(200)]
        taken = [relay.engine.send(member.connection, b"\xffgranted") for member in members]
        assert taken == [True] * 200
        assert relay.dropped() == {}
        assert [[f.payload for f in member.sync()] for member in members] == [[b"\xffgranted"]] * 200
