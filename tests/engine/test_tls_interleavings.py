"""Orders of events between the thread of handshakes, a connection's worker and others, made to happen every time.

As in test_interleavings.py. Members are placed on the workers in turn: `a`, over plain TCP, is worker 0's, and `b`,
over TLS, is worker 1's once the thread of handshakes has handed it over.
"""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.held import Held, let_go
from kit.meeting import Insider, Meeting
from kit.peer import BINARY, CLOSE, EngineRelay, Peer, number_of, numbered
from kit.secure import APPLICATION_DATA, Secured

from candy._fastpath import hold_at, release, wait_held

pytestmark = pytest.mark.engine

A, B, C, D = (0x0A000001 + n for n in range(4))
SO_SNDBUFFORCE = 32
"""Of Linux; Python does not name it."""
MOVING = ("secured", "handed")


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    """Nothing that one test has held is held in the next."""
    yield
    let_go()


def moving(relay: EngineRelay, secured: Secured, point: str) -> Meeting:
    """A member whose handshake is done, and the thread that did it held on its way to the worker."""
    hold_at(point)
    meeting = Meeting(relay, secured)
    assert relay.engine.bind(meeting.connection, B)
    meeting.tls.handshake()
    assert wait_held(point)
    return meeting


def successor(relay: EngineRelay, old: Meeting) -> Peer:
    """A plain member in the slot of one that has ended."""
    new = relay.member(B)
    assert new.connection & 0xFFFFFFFF == old.connection & 0xFFFFFFFF, "the test is about one slot"
    return new


@pytest.mark.parametrize("point", MOVING)
def test_what_is_sent_while_it_moves(secured: Secured, point: str) -> None:
    """By another worker, by Python and by the peer: in order, and all of it."""
    with Held(2) as relay:
        a = relay.member(A)
        b = moving(relay, secured, point)
        a.forward(numbered(A, B, 1))
        assert a.sync() == []
        assert relay.engine.send(b.connection, b"\6")
        a.forward(numbered(A, B, 2))
        assert a.sync() == []
        b.peer.forward(numbered(B, A, 3))
        release(point)
        received = [b.peer.receive().payload for _ in range(3)]
        # What has no flow may overtake what has one.
        assert b"\6" in received
        assert [number_of(payload)[1] for payload in received if payload != b"\6"] == [1, 2]
        assert number_of(a.receive().payload)[1] == 3
        assert relay.dropped() == {}
        assert a.sync() == b.peer.sync() == []  # a worker counts what has left after it has left
        assert relay.unaccounted() == 0


@pytest.mark.parametrize("code", [None, 1001])
@pytest.mark.parametrize("point", MOVING)
def test_its_end_while_it_moves(secured: Secured, point: str, code: int | None) -> None:
    with Held(2, max_connections=2) as relay:
        a = relay.member(A)
        b = moving(relay, secured, point)
        a.forward(numbered(A, B, 1))
        assert a.sync() == []
        assert relay.engine.close(b.connection, code)
        release(point)
        # Behind a close frame no packet is sent.
        assert [frame.opcode for frame in b.peer.receive_all()] == [BINARY if code is None else CLOSE]
        b.raw.close()
        assert b.cause() == "local"
        # Its worker was to take the former connection, and must not take the slot's next one.
        new = successor(relay, b)
        for n in range(10):
            a.forward(numbered(A, B, n))
            assert number_of(new.receive().payload)[1] == n
            assert new.sync() == a.sync() == []
        assert relay.unaccounted() == 0


@pytest.mark.parametrize("clean", [False, True], ids=["truncated", "clean"])
@pytest.mark.parametrize("point", MOVING)
def test_the_peers_end_while_it_moves(secured: Secured, point: str, clean: bool) -> None:
    with Held(2, max_connections=2) as relay:
        a = relay.member(A)
        b = moving(relay, secured, point)
        b.peer.forward(numbered(B, A, 1))
        if clean:
            b.tls.close()
        else:
            b.raw.close()
        release(point)
        assert b.cause() == ("eof" if clean else "truncated")
        assert number_of(a.receive().payload)[1] == 1
        assert successor(relay, b).sync() == []


@pytest.mark.parametrize("point", MOVING)
def test_the_engines_end_while_it_moves(secured: Secured, point: str) -> None:
    with Held(2) as relay:
        b = moving(relay, secured, point)
        stopper = threading.Thread(target=relay.engine.stop)
        stopper.start()
        release(point)
        stopper.join()
        assert b.raw.recv(1) in (b"", b"\x17")


def test_a_worker_that_is_woken_for_what_has_ended(secured: Secured) -> None:
    """A sender of another worker has compared the generation and appends: the packet is counted, and its request wakes
    nobody for the slot's next owner."""
    with Held(2, max_connections=2) as relay:
        a = relay.member(A)
        b = Meeting(relay, secured)
        b.peer.sync()
        assert relay.engine.bind(b.connection, B)
        hold_at("inbox")
        a.forward(numbered(A, B, 1))
        assert wait_held("inbox")
        hold_at("moved_on")
        assert relay.engine.close(b.connection)
        assert wait_held("moved_on")
        release("moved_on")
        release("inbox")
        assert b.cause() == "local"
        assert a.sync() == []
        assert relay.dropped() == {"closed": 1}
        new = Meeting(relay, secured)
        assert new.connection & 0xFFFFFFFF == b.connection & 0xFFFFFFFF, "the test is about one slot"
        assert new.peer.sync() == []
        assert relay.engine.bind(new.connection, B)
        a.forward(numbered(A, B, 2))
        assert number_of(new.peer.receive().payload)[1] == 2
        assert a.sync() == new.peer.sync() == []
        assert relay.unaccounted() == 0


def test_records_without_data_are_a_turns_work(secured: Secured, tmp_path: Path) -> None:
    """200 of them, each of a read, lie in front of a bystander's packet. When that leaves, not a quarter was read."""
    with Held(1) as relay:
        a, bystander, c = relay.member(A), relay.member(B), relay.member(C)
        flood = Insider(relay, secured, tmp_path)
        flood.arrive()
        assert relay.engine.bind(flood.connection, D)
        flood.raw.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
        padded = [flood.sealer.seal(bytes([APPLICATION_DATA]) + bytes(16000), 0) for _ in range(200)]
        hold_at("unlocked")
        a.forward(numbered(A, C, 1))
        assert wait_held("unlocked")
        before = relay.engine.stats()["receives"]
        flood.raw.sendall(b"".join(padded))
        bystander.forward(numbered(B, C, 2))
        hold_at("unlocked")
        assert wait_held("unlocked")
        assert relay.engine.stats()["receives"] - before < 50
        release("unlocked")
        assert [number_of(c.receive().payload)[1] for _ in range(2)] == [1, 2]
        flood.arrive()
