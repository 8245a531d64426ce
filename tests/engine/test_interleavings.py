"""Orders of events between threads that happen once in a million times, made to happen every time.

A debug build holds a thread at a named point (candy_point in engine/fastpath.h) while another is driven past it.
Members are placed on the workers in turn; in each test `a` sends from worker 0 to `b` of worker 1, whose send lock is
held by a thread that sends for `d`, of worker 1, or for `c`, of worker 2 where there are three.
"""

import array
import errno
import fcntl
import select
import socket
import termios
import threading
from collections.abc import Iterator

import pytest
from kit.held import Held, let_go
from kit.peer import FORWARD, PATIENCE, PING, PONG, Peer, number_of, numbered, packet
from kit.sealing import CLEAR, pair
from kit.sealing_device import client

from candy import _fastpath
from candy._fastpath import hold_at, release, wait_held

pytestmark = pytest.mark.engine

A, B, C, D, E = (0x0A000001 + n for n in range(5))


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    """Nothing that one test has held is held in the next."""
    yield
    let_go()


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


def test_all_counters_are_read_without_a_send_lock() -> None:
    """A thread has b's, for as long as the test wants."""
    with Held(2) as relay:
        a, b = relay.member(A), relay.member(B)
        hold_at("compared")
        a.forward(numbered(A, B, 1))
        assert wait_held("compared")
        assert [connection for connection, *_ in relay.listed()] == [a.connection, b.connection]
        release("compared")
        assert numbers(b, 1) == [1]


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


def test_a_table_outlives_who_reads_it() -> None:
    """Rules that are replaced while a worker has them in its hands: they hold for its packet, and the memory is nobody
    else's before it has let go."""
    lan, alone = 0xC0A80100, 0xFFFFFFFF
    with Held(2) as relay:
        a, b = relay.member(A), relay.member(B)
        relay.engine.set_rules(0, [(lan, 0xFFFFFF00, A, 0, 0)])
        hold_at("table")
        a.forward(numbered(lan, B, 1), numbered(lan, B, 2))
        assert wait_held("table")
        for n in range(3):
            # The other worker has had each turn that lets go of a table.
            relay.engine.set_rules(0, [(lan + 1 + n, alone, C, 0, 0)])
            assert b.sync() == []
            assert _fastpath.replaced_tables(relay.engine) == 1 + n
        release("table")
        assert a.sync() == []
        assert numbers(b, 1) == [1]
        assert relay.dropped() == {"spoofed_source": 1}
        for _ in range(20):
            relay.engine.set_rules(0, [])
            relay.engine.set_rules(0, [(lan, alone, A, 0, 0)])
            assert a.sync() == b.sync() == []
        # Which were replaced in the last rounds, at most.
        assert _fastpath.replaced_tables(relay.engine) <= 4


def test_a_devices_routes_outlive_who_reads_them() -> None:
    with Held(1) as relay, relay.device() as (kernel, tun):
        a, b, c = (relay.member(address) for address in (A, B, C))
        assert relay.engine.bind(tun, D)
        assert relay.engine.set_routes(tun, D, [(0xC0A80100, 0xFFFFFF00, B)])
        hold_at("table")
        for n in (1, 2):
            kernel.send(numbered(D, 0xC0A80101, n)[1:])
        assert wait_held("table")
        for _ in range(3):
            assert relay.engine.set_routes(tun, D, [(0xC0A80100, 0xFFFFFF00, C)])
        assert _fastpath.replaced_tables(relay.engine) == 3
        release("table")
        assert number_of(b.receive().payload[20:])[1] == 1
        assert number_of(c.receive().payload[20:])[1] == 2
        assert a.sync() == []


def test_a_network_outlives_who_reads_it() -> None:
    """A worker is about to read the rules of a network that is removed, whose connections are all being closed."""
    with Held(2) as relay:
        number = relay.engine.add_network()
        lan = 0xC0A80101
        relay.engine.set_rules(number, [(lan, 0xFFFFFFFF, A, 0, 0)])
        a, b = (relay.member(address, network=number) for address in (A, B))
        hold_at("table")
        a.forward(numbered(lan, B, 1))
        assert wait_held("table")
        relay.engine.remove_network(number)
        for connection in (a.connection, b.connection):
            assert relay.engine.close(connection)
        assert relay.cause(b.connection) == "local"
        # The other worker has had each of its turns, and Python has taken note of all there is.
        assert _fastpath.kept_networks(relay.engine) == 2
        with pytest.raises(ValueError, match="no network"):
            relay.adopt(network=number)
        release("table")
        assert relay.cause(a.connection) == "local"
        assert _fastpath.kept_networks(relay.engine) == 1
        # The packet was judged by the rules of its network: its destination alone is gone.
        assert relay.dropped() == {"no_route": 1}


def test_a_network_outlives_the_turn_that_closes_its_last_connection() -> None:
    """Its descriptor is closed, and the worker is not through with the input at hand."""
    with Held(1) as relay:
        number = relay.engine.add_network()
        a = relay.member(A, network=number)
        relay.engine.remove_network(number)
        hold_at("closed")
        a.close()
        assert wait_held("closed")
        assert relay.engine.events() == []
        assert _fastpath.kept_networks(relay.engine) == 2
        release("closed")
        assert relay.cause(a.connection) == "eof"
        assert _fastpath.kept_networks(relay.engine) == 1


SPOOFED = numbered(0x0B000001, B, 0, 33)
"""With as many rules about its sender as a network may have, it is compared with each."""


@pytest.mark.parametrize(("opcode", "payload"), [(9, b""), (2, b""), (2, b"\5"), (2, b"\xff"), (2, SPOOFED)], ids=str)
def test_a_turn_ends(opcode: int, payload: bytes) -> None:
    """Whatever lies in front of a bystander's ping, all of it there before the worker looks: it has an answer before
    the end of that, which is shown by the last frame of the flood, a packet for the bystander."""
    with Held(1) as relay:
        a, bystander, c, flood = (relay.member(address) for address in (A, B, C, D))
        relay.engine.set_rules(0, [(0xC0A80000 + n, 0xFFFFFFFF, D, 0, 0) for n in range(1000)])
        hold_at("unlocked")
        a.forward(numbered(A, C, 1))
        assert wait_held("unlocked")
        flood.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        frame = flood.frame(opcode, payload)
        # Those that are dropped at once are the cheapest: 20,000 of them fill a turn.
        flood.sock.sendall(frame * (180_000 // len(frame)) + flood.frame(2, numbered(D, B, 2)))
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


@pytest.mark.parametrize(
    ("opcode", "payload"), [(9, b""), (2, b"\5"), (2, FORWARD + bytes(20))], ids=["pings", "messages", "packets"]
)
def test_a_strangers_turn_is_a_kilobyte(opcode: int, payload: bytes) -> None:
    """10,000 frames of a stranger's lie in front of a bystander's packet. When that leaves, two turns at most of the
    stranger's have been: nearly all of what it sends is dropped, which tells how much was looked at."""
    with Held(1) as relay:
        a, bystander, _, stranger = relay.member(A), relay.member(B), relay.member(C), relay.adopt()
        hold_at("unlocked")
        a.forward(numbered(A, C, 1))
        assert wait_held("unlocked")
        frame = stranger.frame(opcode, payload)
        stranger.sock.sendall(frame * (60_000 // len(frame)))
        bystander.forward(numbered(B, B, 2))
        hold_at("unlocked")  # let go, and hold at the next
        assert wait_held("unlocked")
        drops = relay.engine.connection_drops(stranger.connection)
        assert drops is not None
        assert 30 < sum(drops.values()) <= 2 * 1024 // len(frame)
        release("unlocked")
        assert numbers(bystander, 1) == [2]


def test_members_come_and_go_during_a_broadcast() -> None:
    """While the first copies are being sent: who leaves gets nothing, nor does the next owner of its slot; who comes
    may get one; all others get one."""
    with Held(2, broadcast_rate=1 << 20, max_connections=4000) as relay:
        a = relay.member(A)
        members = [relay.member(0x0A010000 + n) for n in range(3000)]
        whole = numbered(A, 0xFFFFFFFF, 1, 1400)
        hold_at("unlocked")
        a.forward(whole)
        assert wait_held("unlocked")
        # Of worker 1, which is not held: one whose copy is ready to be sent, one whose turn is still to come.
        ready, coming = members[50], members[2000]
        heirs = []
        for leaving in (ready, coming):
            assert relay.engine.close(leaving.connection)
            assert relay.cause(leaving.connection) == "local"
            heirs.append(relay.adopt())
            assert heirs[-1].connection & 0xFFFFFFFF == leaving.connection & 0xFFFFFFFF, "the test is about one slot"
        unbound, silent = members[2500:2503], members[1001]
        for member in unbound:
            assert relay.engine.unbind(member.connection)
        silent.close()
        late = [relay.member(0x0A020000 + n) for n in range(2)]  # in places of some that left
        release("unlocked")
        assert a.sync() == []
        assert relay.cause(silent.connection) in ("eof", "reset")
        gone = (ready, coming, *unbound, silent)
        assert all(member.sync() == [] for member in (*heirs, *unbound))
        received = 0
        for member in members:
            if member not in gone:
                assert [frame.payload for frame in member.sync()] == [whole]
                received += 1
        for member in late:
            frames = member.sync()
            assert [frame.payload for frame in frames] in ([], [whole])
            received += len(frames)
        stats, drops = relay.engine.stats(), relay.dropped()
        assert set(drops) <= {"stale", "closed"}
        assert stats["copies"] == received + sum(drops.values())
        assert (stats["packets_in"], stats["packets_out"], stats["queued_bytes"]) == (1, received, 0)


def test_a_broadcast_ends_with_its_sender() -> None:
    """The next owner of the slot does not go on with it."""
    with Held(2, broadcast_rate=1 << 20, max_connections=4000) as relay:
        a = relay.member(A)
        members = [relay.member(0x0A010000 + n) for n in range(3000)]
        hold_at("unlocked")
        a.forward(numbered(A, 0xFFFFFFFF, 1, 1400))
        assert wait_held("unlocked")
        assert relay.engine.close(a.connection)
        release("unlocked")
        assert relay.cause(a.connection) == "local"
        new = relay.member(A)
        assert new.connection & 0xFFFFFFFF == a.connection & 0xFFFFFFFF, "the test is about one slot"
        assert new.sync() == []
        received = sum(len(member.sync()) for member in members)
        assert 0 < received < 3000
        stats = relay.engine.stats()
        assert (stats["copies"], stats["packets_out"], stats["queued_bytes"]) == (received, received, 0)
        new.forward(numbered(A, 0xFFFFFFFF, 2))
        new.sync()
        assert all(numbers(member, 1) == [2] for member in members)


@pytest.mark.parametrize("then", ["free", "of the same worker", "of the other worker", "asked of the other worker"])
def test_what_was_asked_of_a_member_is_nothing_for_its_slot_afterwards(then: str) -> None:
    """A sender found `b` in need of a look (RETRY), Python asked for its end (ABORT), and it has ended by itself
    before its worker, number 1, looked at either. By then its slot is free, or the next connection's."""
    with Held(2) as relay:
        a = relay.member(A)
        b = relay.member(B, extended=False, tcp=True)
        c, d = relay.member(C), relay.member(D)
        other, e = relay.member(D + 1), relay.member(D + 2)
        if "other" in then:
            other.close()  # else worker 1 has the fewest when b has gone
            assert relay.cause(other.connection) == "eof"
        b.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        hold_at("unlocked")
        d.forward(numbered(D, C, 1))
        assert wait_held("unlocked")
        # What worker 1 finds next: d has a packet, b ends, e has a packet.
        d.forward(numbered(D, C, 2))
        b.sock.shutdown(socket.SHUT_WR)
        e.forward(numbered(e.address, C, 3))
        hold_at("unlocked")
        assert wait_held("unlocked")
        assert numbers(c, 2) == [1, 2]
        a.forward(*(numbered(A, B, n, 1400) for n in range(200)))
        a.sync()
        stats = relay.engine.connection_stats(b.connection)
        assert stats is not None
        assert stats["queued_bytes"] > 100_000
        assert relay.engine.close(b.connection)
        hold_at("unlocked")
        assert wait_held("unlocked")
        assert numbers(c, 1) == [3]
        assert relay.cause(b.connection) == "eof"
        if then == "free":
            release("unlocked")
            assert all(peer.sync() == [] for peer in (a, c, d, e))
            assert relay.engine.events() == [], "it has ended once more"
        new = relay.member(B)
        assert new.connection & 0xFFFFFFFF == b.connection & 0xFFFFFFFF, "the test is about one slot"
        if then == "of the same worker":
            assert relay.engine.close(new.connection)  # the slot is in its worker's list twice
        if then == "asked of the other worker":
            hold_at("locked")
            a.forward(numbered(A, C, 4))
            assert wait_held("locked")
            assert relay.engine.close(new.connection)
            release("unlocked")
            assert d.sync() == e.sync() == []
            assert relay.engine.received_ns(new.connection) is not None, "worker 1 has done what worker 0 has to"
            release("locked")
            assert numbers(c, 1) == [4]
        release("unlocked")
        assert all(peer.sync() == [] for peer in (a, c, d, e))
        if then in ("free", "of the other worker"):
            assert new.sync() == []
            a.forward(numbered(A, B, 9))
            assert numbers(new, 1) == [9]
            assert relay.engine.close(new.connection)
        assert new.receive_all() == []
        assert relay.cause(new.connection) == "local"
        assert relay.member(B).sync() == []


def test_nothing_overtakes_what_is_not_yet_released() -> None:
    """The way to a peer is open, and the worker has not been asked yet to release what waits for it."""
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        device.engine.set_peer(device.tun, C, CLEAR)
        device.kernel.send(packet(A, B, b"first"))
        assert device.sends(packet(A, C)).payload == FORWARD + packet(A, C)
        hold_at("opened")
        opens = threading.Thread(target=device.seal_with, args=(one,))
        opens.start()
        assert wait_held("opened")
        device.kernel.send(packet(A, B, b"second"))
        assert device.sends(packet(A, C)).payload == FORWARD + packet(A, C)
        release("opened")
        opens.join(PATIENCE)
        came = [one.went(device.server.receive().payload).packet for _ in range(2)]
        assert came == [packet(A, B, b"first"), packet(A, B, b"second")]
