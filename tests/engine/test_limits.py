"""Limits: what exceeds one waits, nothing of it is lost for that, and nobody else waits.

Rates of a byte a second make what waits wait for good, so that no test depends on a clock; limits are lifted to see it
go on.
"""

import socket
import struct
import time

import pytest
from kit.peer import BINARY, PATIENCE, PING, PONG, EngineRelay, Peer, number_of, numbered

from candy._fastpath import CANDY3, Backlog, Limited, TokenBucket

pytestmark = pytest.mark.engine
carried = pytest.mark.usefixtures("carrier")

A, B, C, D = 0x0A000001, 0x0A000002, 0x0A000003, 0x0A000004
MS = 1_000_000
SECOND = 1000 * MS
CREDIT = 40 * MS
KINDS = pytest.mark.parametrize("extended", [False, True, CANDY3], ids=["legacy", "candy.2", "candy.3"])


def packets(receiver: Peer, count: int) -> list[int]:
    """The numbers of the next ones."""
    found: list[int] = []
    while len(found) < count:
        frame = receiver.receive()
        if frame.opcode == BINARY:
            found.append(number_of(frame.payload)[1])
    return found


def send(sender: Peer, receiver: Peer, numbers: range, size: int = 1000) -> None:
    sender.forward(*(numbered(sender.address, receiver.address, n, size) for n in numbers))


def held(relay: EngineRelay, direction: str, times: int = 1) -> None:
    """Wait until something had to wait so often."""
    until = time.monotonic() + PATIENCE
    while relay.engine.stats()[f"held_{direction}"] < times:
        assert time.monotonic() < until, "nothing had to wait"


@carried
@KINDS
def test_what_a_member_is_sent_waits_and_is_whole_once_its_limit_is_lifted(extended: int) -> None:
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=extended), relay.member(B, extended=extended)
        assert relay.engine.set_limits(receiver.connection, down=1)
        receiver.sync()
        send(sender, receiver, range(20))
        sender.sync()
        held(relay, "down")
        first = packets(receiver, 1)
        # What is no packet does not wait behind those that do.
        receiver.send(PING, b"?")
        assert receiver.receive_until(PONG, b"?") == []
        stats = relay.engine.connection_stats(receiver.connection)
        assert stats is not None
        assert stats["queued_bytes"] > 18_000
        assert stats["held_down"] == 1
        assert relay.engine.set_limits(receiver.connection)
        assert first + packets(receiver, 19) == list(range(20))
        assert relay.dropped() == {}


@carried
@KINDS
def test_what_a_member_sends_is_not_read_and_nobody_else_waits(extended: int) -> None:
    with EngineRelay() as relay:
        sender, other, receiver = (relay.member(ip, extended=extended) for ip in (A, C, B))
        assert relay.engine.set_limits(sender.connection, up=1)
        # It is read once more, and then what that was is not paid for within any test's patience.
        sender.send(PING, b"a" * 100)
        assert sender.receive_until(PONG, b"a" * 100) == []
        # No more than the kernel takes for one that is not read.
        send(sender, receiver, range(10), 400)
        held(relay, "up")
        send(other, receiver, range(1000, 1003))
        other.sync()
        assert relay.engine.set_limits(sender.connection)
        found = packets(receiver, 13)
        assert [n for n in found if n < 1000] == list(range(10))
        # They came while the others waited.
        assert found.index(1002) < found.index(9)
        assert relay.dropped() == {}


@carried
def test_a_networks_limit_is_for_all_its_members_also_those_that_join_later() -> None:
    with EngineRelay() as relay:
        sender, early = relay.member(A), relay.member(B)
        relay.engine.set_network_limits(0, down=1)
        late = relay.member(C)
        for receiver in (early, late):
            receiver.sync()
            send(sender, receiver, range(10))
            sender.sync()
        held(relay, "down")
        relay.engine.set_limits(late.connection, down=1 << 40)
        relay.engine.set_network_limits(0)
        assert packets(early, 10) == packets(late, 10) == list(range(10))
        assert relay.dropped() == {}


def test_another_network_has_its_own() -> None:
    with EngineRelay() as relay:
        other = relay.engine.add_network()
        relay.engine.set_network_limits(0, down=1, up=1)
        sender, receiver = relay.member(A, network=other), relay.member(B, network=other)
        send(sender, receiver, range(50))
        assert packets(receiver, 50) == list(range(50))
        assert (relay.engine.stats()["held_down"], relay.engine.stats()["held_up"]) == (0, 0)


def test_rows_say_who_is_held() -> None:
    with EngineRelay() as relay:
        sender, receiver = relay.member(A), relay.member(B)
        relay.engine.set_limits(receiver.connection, down=1)
        receiver.sync()
        send(sender, receiver, range(10))
        sender.sync()
        held(relay, "down")
        rows = {row[0]: row[-2:] for row in relay.listed()}
        assert rows == {sender.connection: (0, 0), receiver.connection: (1, 0)}


def test_the_next_connection_in_the_place_has_no_limit() -> None:
    with EngineRelay() as relay:
        first = relay.member(A)
        relay.engine.set_limits(first.connection, down=1, up=1)
        relay.engine.close(first.connection)
        relay.cause(first.connection)
        sender, receiver = relay.member(A), relay.member(B)
        assert first.connection & 0xFFFFFFFF in (sender.connection & 0xFFFFFFFF, receiver.connection & 0xFFFFFFFF)
        send(sender, receiver, range(50))
        assert packets(receiver, 50) == list(range(50))


def test_a_held_connection_ends_as_any_other() -> None:
    with EngineRelay() as relay:
        sender, receiver = relay.member(A), relay.member(B)
        relay.engine.set_limits(receiver.connection, down=1)
        receiver.sync()
        send(sender, receiver, range(10))
        sender.sync()
        held(relay, "down")
        relay.engine.close(receiver.connection, 1000, "enough")
        assert receiver.receive_until(8, b"\x03\xe8enough")[:1] is not None
        receiver.close()
        assert relay.cause(receiver.connection) in ("local", "eof", "peer")
        assert set(relay.dropped()) == {"closed"}


def test_nobody_is_there() -> None:
    with EngineRelay() as relay, relay.device() as (_, tun):
        assert not relay.engine.set_limits(12345 << 32, down=1)
        assert not relay.engine.set_limits(tun, down=1)
        with pytest.raises(ValueError, match="network"):
            relay.engine.set_network_limits(7, down=1)


def window(peer: Peer) -> int:
    """Bytes that TCP lets this peer have on its way."""
    info = peer.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
    return int(struct.unpack_from("=I", info, 228)[0])


def test_the_kernel_takes_little_of_a_limited_source_and_as_much_as_ever_afterwards() -> None:
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, tcp=True), relay.member(B)

        def pass_some() -> int:
            for _ in range(20):
                send(sender, receiver, range(100))
                assert packets(receiver, 100) == list(range(100))
            sender.sync()
            return window(sender)

        before = pass_some()
        # A window that was offered once is used up first.
        relay.engine.set_limits(sender.connection, up=10_000_000)
        limited = pass_some()
        assert limited < before // 2
        relay.engine.set_limits(sender.connection)
        assert pass_some() > 2 * limited


# Over bytes, by a test's clock.


def udp(flow: int, size: int, number: int = 0) -> bytes:
    return numbered(A, B, number, size, flow=flow)


def drained(backlog: Backlog, start: int, end: int) -> int:
    """Bytes of packets that leave between these times, looked at each millisecond."""
    total = 0
    for now in range(start, end, MS):
        while found := backlog.commit(now):
            total += sum(len(message) - 1 for message in found)
    return total


@pytest.mark.parametrize("rate", [1000, 12_500, 1_250_000])
def test_a_backlog_leaves_at_its_limit(rate: int) -> None:
    backlog = Backlog(key=(1, 2, 3))
    backlog.limit(rate)
    # As much as it takes to be busy for twice as long as it is looked at.
    for number in range(4 * rate // 1000 + 10):
        backlog.append(udp(number % 16, 1000, number), 1)
    left = drained(backlog, SECOND, 2 * SECOND)
    most = rate + rate * CREDIT // SECOND + max(rate // 500, 1514)
    assert rate - rate // 100 <= left <= most or (rate < 1514 and left in (999, 2 * 999))


def test_the_lower_one_of_two_limits_counts() -> None:
    for own, shared in ((100_000, 50_000), (50_000, 100_000), (0, 50_000), (50_000, 0)):
        backlog = Backlog(key=(1, 2, 3))
        backlog.limit(own, shared)
        for number in range(300):
            backlog.append(udp(number % 16, 1000, number), 1)
        assert 49_000 <= drained(backlog, SECOND, 2 * SECOND) <= 54_000


def test_a_ping_waits_for_a_piece_and_no_more() -> None:
    backlog = Backlog(key=(1, 2, 3))
    backlog.limit(1_250_000)
    for number in range(2000):
        backlog.append(udp(1, 1400, number), 1)
    drained(backlog, SECOND, SECOND + 100 * MS)
    backlog.append(udp(2, 100), SECOND + 100 * MS)
    for now in range(SECOND + 100 * MS, SECOND + 110 * MS, MS):
        if any(len(message) == 101 - 1 for message in backlog.commit(now)):
            break
    else:
        pytest.fail("it has not left within 10 ms")


def test_super_packets_are_cut_to_pieces() -> None:
    """Else one of them would be 50 ms of a limit of 10 Mbit/s."""
    assert Limited(1_250_000, TokenBucket(0)).piece == 2500
    assert Limited(0, TokenBucket(12_500_000)).piece == 25_000
    assert Limited(1, TokenBucket(12_500_000)).piece == 1514
    assert Limited(1 << 40, TokenBucket(0)).piece == 262_144


def test_what_waits_is_counted_once_for_each_piece() -> None:
    one = Limited(1000, TokenBucket(0))
    assert one.passes(1000, SECOND)
    assert [one.passes(1000, SECOND + n * MS) for n in range(1, 950, 100)] == [False] * 10
    assert one.held == 1
    assert one.passes(1000, 2 * SECOND)
    assert not one.passes(1, 2 * SECOND)
    assert one.held == 2


def test_a_source_makes_up_for_what_the_kernel_dropped() -> None:
    """Its timer takes 200 ms and more, far longer than what is saved up."""

    def passed(one: Limited, now: int) -> int:
        count = 0
        while one.passes(1000, now):
            count += 1
        return count

    plain, dropped, late = (Limited(1_000_000, TokenBucket(1_000_000)) for _ in range(3))
    for one in plain, dropped, late:
        passed(one, SECOND)
    dropped.dropped(SECOND)
    late.dropped(SECOND)
    assert passed(plain, SECOND + 300 * MS) == 41
    assert passed(dropped, SECOND + 300 * MS) in (300, 301)
    # Not for good, and not all that was ever lost.
    assert passed(late, 2 * SECOND) == 41
    late.dropped(9 * SECOND)
    assert passed(late, 9 * SECOND) == 401
