"""Orders of events between threads that happen once in a million times, made to happen every time.

A debug build holds a thread at a named point (candy_point in engine/fastpath.h) while another is driven past it.
Members are placed on the workers in turn; in each test `a` sends from worker 0 to `b` of worker 1, whose send lock is
held by a thread that sends for `d`, of worker 1, or for `c`, of worker 2 where there are three.
"""

import array
import errno
import fcntl
import select
import termios
from collections.abc import Iterator

import pytest
from kit.peer import FORWARD, PATIENCE, PING, PONG, EngineRelay, Peer, number_of, numbered

from candy import _fastpath
from candy._fastpath import hold_at, release, wait_held

pytestmark = pytest.mark.engine

A, B, C, D, E = (0x0A000001 + n for n in range(5))


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    """Nothing that one test has held is held in the next."""
    yield
    for point in _fastpath.POINTS:
        release(point)


class Held(EngineRelay):
    """A relay that lets its workers go before it stops them: also when the test has failed."""

    def __exit__(self, *error: object) -> None:
        for point in _fastpath.POINTS:
            release(point)
        super().__exit__(None, None, None)


def numbers(peer: Peer, count: int) -> list[int]:
    """The numbers of so many packets that come to a peer."""
    frames = [peer.receive() for _ in range(count)]
    assert all(frame.payload[:1] == FORWARD for frame in frames)
    return [number_of(frame.payload)[1] for frame in frames]


def readable(peer: Peer) -> int:
    """Bytes that have come to a peer and wait to be read."""
    found = array.array("i", [0])
    fcntl.ioctl(peer.sock, termios.FIONREAD, found)
    return found[0]


def left_in_the_inbox(a: Peer, d: Peer) -> None:
    """Bring worker 0 behind its append to b's inbox and worker 1 behind its unlocking, which both did not look again:
    the lock was taken when worker 0 tried it, the inbox empty when worker 1 looked into it."""
    for point in ("locked", "inbox", "appended", "unlocked"):
        hold_at(point)
    d.forward(numbered(D, B, 1))
    assert wait_held("locked")
    a.forward(numbered(A, B, 2))
    assert wait_held("inbox")
    release("locked")
    assert wait_held("unlocked")
    release("inbox")
    assert wait_held("appended")


def test_append_then_try() -> None:
    """The holder has unlocked and is slow to look: who has appended sends it."""
    with Held(2) as relay:
        a, b, _, d = (relay.member(address) for address in (A, B, C, D))
        left_in_the_inbox(a, d)
        release("appended")
        assert a.sync() == []
        assert numbers(b, 2) == [1, 2]
        release("unlocked")
        assert relay.unaccounted() == 0


def test_unlock_then_look() -> None:
    """Who has appended is slow to try the lock: its former holder sends it."""
    with Held(2) as relay:
        a, b, _, d = (relay.member(address) for address in (A, B, C, D))
        left_in_the_inbox(a, d)
        one = readable(b)
        release("unlocked")
        assert d.sync() == []
        # Not read before: room in b's socket, like a tick, has its worker look as well.
        assert readable(b) == 2 * one > 0
        assert numbers(b, 2) == [1, 2]
        release("appended")
        assert a.sync() == []
        assert relay.unaccounted() == 0


def test_what_was_left_goes_before_the_holders_own() -> None:
    with Held(2) as relay:
        a, b, _, d = (relay.member(address) for address in (A, B, C, D))
        hold_at("locked")
        d.forward(numbered(D, B, 1))
        assert wait_held("locked")
        a.forward(numbered(A, B, 2), numbered(A, B, 3))
        assert a.sync() == []
        release("locked")
        assert numbers(b, 3) == [2, 3, 1]


def test_nobody_waits_for_a_send_lock() -> None:
    with Held(2) as relay:
        a, b, c, d = (relay.member(address) for address in (A, B, C, D))
        hold_at("locked")
        d.forward(numbered(D, B, 1))
        assert wait_held("locked")
        a.forward(numbered(A, B, 2), numbered(A, C, 3))
        assert numbers(c, 1) == [3]
        release("locked")
        assert sorted(numbers(b, 2)) == [1, 2]


def test_generation_then_descriptor() -> None:
    """The number is dead before its descriptor is closed, which then no thread uses any more."""
    with Held(2) as relay:
        a, b, c = relay.member(A), relay.member(B), relay.member(C)
        hold_at("moved_on")
        assert relay.engine.close(b.connection)
        assert wait_held("moved_on")
        assert relay.engine.received_ns(b.connection) is None
        assert select.select([b.sock], [], [], 0)[0] == [], "closed already"
        a.forward(numbered(A, B, 1), numbered(A, C, 2))
        assert a.sync() == []
        assert numbers(c, 1) == [2]
        assert relay.dropped() == {"stale": 1}
        release("moved_on")
        assert b.receive_all() == []
        assert relay.cause(b.connection) == "local"
        new = relay.member(B)
        assert new.connection & 0xFFFFFFFF == b.connection & 0xFFFFFFFF, "the test is about one slot"
        a.forward(numbered(A, B, 3))
        a.sync()
        assert numbers(new, 1) == [3]
        assert relay.unaccounted() == 0


def test_no_descriptor_is_closed_under_a_sender() -> None:
    """A thread has compared the generation and is about to send: a close that comes now finds the send lock taken."""
    with Held(2) as relay:
        a, b, c, d = (relay.member(address) for address in (A, B, C, D))
        # The close is the first that worker 1 does from here on: a turn of b's would wait for the lock as well.
        hold_at("unlocked")
        d.forward(numbered(D, C, 0))
        assert wait_held("unlocked")
        hold_at("compared")
        hold_at("taken")
        a.forward(numbered(A, B, 1))
        assert wait_held("compared")
        assert relay.engine.close(b.connection)
        release("unlocked")
        assert wait_held("taken"), "closed without the lock"
        release("taken")
        release("compared")
        assert [number_of(frame.payload)[1] for frame in b.receive_all()] == [1]
        assert numbers(c, 1) == [0]
        assert a.sync() == d.sync() == []
        assert relay.unaccounted() == 0


def test_an_inbox_is_nothing_for_the_slots_next_owner() -> None:
    """Appended before the generation moved on, and not sent by then: counted, and gone."""
    with Held(3) as relay:
        a, b, c = relay.member(A), relay.member(B), relay.member(C)
        hold_at("locked")
        hold_at("inbox")
        c.forward(numbered(C, B, 1))
        assert wait_held("locked")
        a.forward(numbered(A, B, 2))
        assert wait_held("inbox")
        hold_at("unlocked")
        hold_at("appended")
        hold_at("moved_on")
        relay.engine.close(b.connection)
        # Its worker waits for the send lock; whichever gets that first, worker 2 looks into no inbox any more.
        release("locked")
        assert wait_held("unlocked")
        assert wait_held("moved_on")
        # Worker 0 has compared the generation already: it appends.
        release("moved_on")
        release("inbox")
        assert wait_held("appended")
        assert relay.cause(b.connection) == "local"
        assert relay.dropped() == {"closed": 1}
        new = relay.member(B)
        assert new.connection & 0xFFFFFFFF == b.connection & 0xFFFFFFFF, "the test is about one slot"
        release("appended")
        release("unlocked")
        assert a.sync() == c.sync() == []
        a.forward(numbered(A, B, 3))
        assert numbers(new, 1) == [3]
        a.sync()
        assert relay.unaccounted() == 0


def test_report_then_through() -> None:
    """Python hears of an end when the worker is through with the connection, and not before."""
    with Held(2, max_connections=2) as relay:
        a, b = relay.member(A), relay.member(B)
        hold_at("closed")
        b.send(8, b"\x03\xe8")
        b.close()
        assert wait_held("closed")
        assert relay.engine.events() == []
        with pytest.raises(OSError, match="taken") as error:
            relay.adopt()
        assert error.value.errno == errno.ENFILE
        assert a.sync() == []
        release("closed")
        assert relay.poll.poll(PATIENCE * 1000)
        relay.cause(b.connection)
        relay.adopt()


def test_a_turn_is_nothing_for_the_slots_next_owner() -> None:
    """A connection on the ready list ends, and a turn before its own has it reported: by its turn the slot belongs to
    another worker, which reads it alone."""
    with Held(2) as relay:
        a, b, c, d, e = (relay.member(address) for address in (A, B, C, D, E))
        relay.engine.close(d.connection)
        assert relay.cause(d.connection) == "local"
        hold_at("unlocked")
        a.forward(numbered(A, B, 0))
        assert wait_held("unlocked")
        # The next round of worker 0: a's turn, behind which e is reported, c's, and the one that was to be e's.
        a.send(PING, b"a's turn")
        c.forward(numbered(C, B, 1))
        e.send(PING)
        relay.engine.close(e.connection)
        hold_at("unlocked")
        assert a.receive_until(PONG, b"a's turn") == []
        assert wait_held("unlocked")
        assert relay.cause(e.connection) == "local"
        new = relay.member(E)
        assert new.connection & 0xFFFFFFFF == e.connection & 0xFFFFFFFF, "the test is about one slot"
        hold_at("locked")
        new.forward(numbered(E, B, 2))
        assert wait_held("locked")
        new.forward(numbered(E, A, 3))
        release("unlocked")
        assert a.sync() == [], "worker 0 has read what worker 1 has to"
        release("locked")
        assert numbers(b, 3) == [0, 1, 2]
        assert numbers(a, 1) == [3]
        assert new.sync() == []
        assert relay.unaccounted() == 0


@pytest.mark.parametrize(("opcode", "payload"), [(9, b""), (2, b""), (2, b"\5"), (2, b"\xff")], ids=str)
def test_a_turn_ends(opcode: int, payload: bytes) -> None:
    """Whatever lies in front of a bystander's ping, all of it there before the worker looks: it has an answer before
    the end of that, which is shown by the last frame of the flood, a packet for the bystander."""
    with Held(1) as relay:
        a, bystander, c, flood = (relay.member(address) for address in (A, B, C, D))
        hold_at("unlocked")
        a.forward(numbered(A, C, 1))
        assert wait_held("unlocked")
        flood.sock.sendall(flood.frame(opcode, payload) * 4000 + flood.frame(2, numbered(D, B, 2)))
        bystander.send(9, b"here")
        release("unlocked")
        assert bystander.receive().payload == b"here"
        assert numbers(bystander, 1) == [2]
        assert numbers(c, 1) == [1]


def test_others_go_between_the_copies_of_a_broadcast() -> None:
    """The last of 3,000 members has another's packet before its copy of a broadcast that was there first."""
    with Held(1, broadcast_rate=1 << 20, max_connections=4000) as relay:
        a, d = relay.member(A), relay.member(D)
        members = [relay.member(0x0A010000 + n) for n in range(3000)]
        hold_at("unlocked")
        d.forward(numbered(D, A, 0))
        assert wait_held("unlocked")
        a.forward(numbered(A, 0xFFFFFFFF, 1, 1400), numbered(A, members[-1].address, 2))
        d.forward(numbered(D, members[-1].address, 3))
        release("unlocked")
        assert numbers(members[-1], 3) == [3, 1, 2]
        assert [numbers(member, 1) for member in members[:-1]] == [[1]] * 2999
        assert relay.engine.stats()["copies"] == 3001
