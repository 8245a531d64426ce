"""What a single connection can cost all others: turns, answers, broadcasts, and those who only wait."""

import contextlib
import os
import select

import pytest
from kit.peer import BINARY, PING, PONG, EngineRelay, numbered

pytestmark = pytest.mark.engine

A, B, C = 0x0A000001, 0x0A000002, 0x0A000003
EVERYBODY = 0xFFFFFFFF


@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
def test_the_answers_of_a_turn_leave_together(extended: bool) -> None:
    with EngineRelay() as relay:
        peer = relay.member(A, extended=extended)
        before = relay.engine.stats()["sends"]
        peer.sock.sendall(b"".join(peer.frame(PING, bytes([n])) for n in range(200)))
        assert [peer.receive().payload for _ in range(200)] == [bytes([n]) for n in range(200)]
        assert relay.engine.stats()["sends"] - before <= 4


def test_a_broadcast_passes_to_more_members_than_the_rate() -> None:
    """Once: then its sender waits until it has earned the copies."""
    with EngineRelay(broadcast_rate=1) as relay:
        one = relay.member(A)
        others = [relay.member(B + n) for n in range(50)]
        one.forward(numbered(A, EVERYBODY, 1), numbered(A, EVERYBODY, 2))
        one.sync()
        assert [[frame.payload for frame in other.sync()] for other in others] == [[numbered(A, EVERYBODY, 1)]] * 50
        assert relay.dropped() == {"broadcast_limit": 1}


def test_the_allowance_counts_bytes() -> None:
    """A thousand copies a second, and not of 60,000 bytes each."""
    with EngineRelay(broadcast_rate=1000) as relay:
        one = relay.member(A)
        others = [relay.member(B + n) for n in range(10)]
        for n in range(20):
            one.forward(numbered(A, EVERYBODY, n, 60_000))
            one.sync()
            for other in others:
                other.sync()
        assert relay.dropped()["broadcast_limit"] > 5


@pytest.mark.parametrize("members", [1, 200])
def test_who_only_waits_costs_next_to_nothing(members: int) -> None:
    """Old members that take nothing, with packets waiting for each; two-hundred of them take no fifth of a core."""
    with EngineRelay(memory_bytes=1 << 28) as relay:
        sender = relay.member(A)
        stalled = [relay.member(0x0A000100 + n, extended=False, tcp=True) for n in range(members)]
        for peer in stalled:
            peer.sock.setsockopt(1, 8, 2304)
            sender.forward(*(numbered(A, peer.address, n, 1400) for n in range(200)))
            sender.sync()
        [before] = relay.engine.worker_cpu_ns()
        select.select([], [], [], 1)
        [after] = relay.engine.worker_cpu_ns()
        assert after - before < 200_000_000


def test_every_worker_comes_round_with_and_without_work() -> None:
    with EngineRelay(workers=2) as relay:
        before = relay.engine.worker_rounds()
        assert len(before) == 2
        while any(now <= then for now, then in zip(relay.engine.worker_rounds(), before, strict=True)):
            os.sched_yield()
        busy = relay.engine.worker_rounds()
        sender = relay.member(A)
        for number in range(1000):
            sender.forward(numbered(A, A, number))
            sender.sync()
        assert sum(relay.engine.worker_rounds()) - sum(busy) >= 1000


def test_what_a_member_sent_to_itself_comes_before_its_close_frame() -> None:
    with EngineRelay() as relay:
        peer = relay.member(A)
        peer.sock.sendall(peer.frame(BINARY, numbered(A, A, 1)) + peer.frame(PING, b"last") + b"\xff\xff")
        frames = peer.receive_all()
        assert sorted(frame.opcode for frame in frames[:-1]) == [BINARY, PONG]
        assert frames[-1].payload == b"\x03\xea"


def test_who_has_little_to_do_does_not_wait_for_all_who_have_much() -> None:
    """Forty floods of pings, each worth many turns. A member's ping comes between their turns, not behind all of them.
    What the flooders had in the meantime shows in the answers that find no room with them."""
    with EngineRelay(memory_bytes=1 << 28) as relay:
        modest = relay.member(A)
        flooders = [relay.member(0x0A000100 + n) for n in range(40)]
        for peer in flooders:
            peer.sock.setblocking(False)
        waits = []
        for _ in range(10):
            for peer in flooders:
                with contextlib.suppress(BlockingIOError):
                    peer.sock.send(peer.frame(PING) * 60_000)
            before = relay.engine.drops()["control"]
            modest.sync()
            waits.append(relay.engine.drops()["control"] - before)
        a_turn = 1300
        assert min(waits) < 20 * a_turn


def test_connections_that_come_and_go_while_others_have_much_to_do() -> None:
    """They leave stale entries among those that wait for a turn, which go before they are too many."""
    with EngineRelay(max_connections=32) as relay:
        for n in range(20):
            peer = relay.member(0x0A000100 + n)
            peer.sock.setblocking(False)
            peer.sock.send(peer.frame(PING) * 60_000)
        for _ in range(400):
            one = relay.adopt()
            one.sock.setblocking(False)
            one.sock.send(one.frame(PING) * 3000)
            relay.engine.close(one.connection)
            assert relay.cause(one.connection) == "local"
            one.close()
        assert relay.member(A).sync() == []
