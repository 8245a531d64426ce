"""Connections of the engine: adopted, bound, told of, kept alive; what is dropped and why.

How they end is in test_engine_end.py, the client with its device in test_engine_device.py, frames and their faults in
test_engine_frames.py, backlogs in test_engine_queue.py, races in test_engine_stress.py, and what the way of a packet
does without in test_engine_steady.py.
"""

import os
import socket
import time
from contextlib import suppress

import pytest
from kit.peer import BINARY, FORWARD, PATIENCE, PING, PONG, EngineRelay, Frame, Peer, numbered, packet, tcp_pair

from candy import _fastpath

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

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
    with EngineRelay() as relay:
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
    with EngineRelay() as relay:
        one, other = relay.adopt(), relay.member(B)
        for source in (A, B, 0):
            one.forward(FORWARD + packet(source, B), FORWARD + packet(source, GROUP))
        one.sync()
        assert other.sync() == []
        assert relay.dropped() == {"not_authenticated": 6}


@pytest.mark.parametrize("message", [b"", b"\0", b"\x02" * 73, b"\x07", b"\xfe\0", b"\xff" + bytes(1015)], ids=len)
def test_whatever_is_not_forwarded_is_pythons(message: bytes) -> None:
    """Unknown kinds and the empty message as well: Python judges messages."""
    with EngineRelay() as relay:
        peer = relay.adopt()
        peer.send(BINARY, message)
        assert relay.details(peer.connection, MESSAGE) == [message]
        assert relay.dropped() == {}


def test_a_member_may_send_longer_messages() -> None:
    with EngineRelay() as relay:
        peer = relay.member(A)
        peer.send(BINARY, b"\x07" + bytes(1499))
        assert relay.details(peer.connection, MESSAGE) == [b"\x07" + bytes(1499)]
        assert relay.dropped() == {}


def test_a_packet_to_the_sender_itself() -> None:
    with EngineRelay() as relay:
        one = relay.member(A)
        one.forward(numbered(A, A, 3))
        assert [f.payload for f in one.sync()] == [numbered(A, A, 3)]


# ------------------------------------------------------------------------------------------------- addresses, networks


def test_bind_replaces_the_holder_who_then_owns_nothing() -> None:
    with EngineRelay() as relay:
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
    with EngineRelay() as relay:
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
    with EngineRelay() as relay:
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
    with EngineRelay() as relay:
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
    with EngineRelay() as relay:
        one, other = relay.member(A), relay.member(address)
        one.forward(numbered(A, address, 1))
        one.sync()
        assert [f.payload for f in other.sync()] == [numbered(A, address, 1)]


def test_no_address_at_all() -> None:
    with EngineRelay() as relay:
        assert not relay.engine.bind(relay.adopt().connection, 0)


def test_broadcasts_are_limited_for_each_sender() -> None:
    with EngineRelay(broadcast_rate=0) as relay:
        one, other = relay.member(A), relay.member(B)
        one.forward(FORWARD + packet(A, GROUP), numbered(A, B, 1))
        one.sync()
        assert [f.payload for f in other.sync()] == [numbered(A, B, 1)]
        assert relay.dropped() == {"broadcast_limit": 1}


def test_reserved_addresses_are_no_group() -> None:
    """Multicast ends at 239.255.255.255, and only the last of what follows is a broadcast."""
    with EngineRelay() as relay:
        one, other = relay.member(A), relay.member(B)
        for address in (0xDFFFFFFF, 0xF0000000, 0xFFFFFFFE, 0xEFFFFFFF):
            one.forward(FORWARD + packet(A, address))
        one.sync()
        assert [f.payload for f in other.sync()] == [FORWARD + packet(A, 0xEFFFFFFF)]
        assert relay.dropped() == {"no_route": 3}


def test_broadcasts_reach_who_is_left() -> None:
    """A member that leaves, once or twice, frees one place in the list, for one member; the others keep theirs."""
    addresses = [A, B, C, NOBODY]
    for first in addresses[1:]:
        for second in addresses[1:]:
            with EngineRelay() as relay:
                members = {address: relay.member(address) for address in addresses}
                for address in (first, second):
                    assert relay.engine.unbind(members[address].connection)
                members[A].forward(FORWARD + packet(A, GROUP))
                members[A].sync()
                for address in addresses[1:]:
                    wanted = [] if address in (first, second) else [FORWARD + packet(A, GROUP)]
                    assert [f.payload for f in members[address].sync()] == wanted
                late = [relay.member(NOBODY + 1 + n) for n in range(3)]
                members[A].forward(FORWARD + packet(A, GROUP, b"late"))
                members[A].sync()
                for peer in late:
                    assert [f.payload for f in peer.sync()] == [FORWARD + packet(A, GROUP, b"late")]


def test_a_member_sends_from_the_networks_behind_it() -> None:
    lans = [(0xC0A80000, 0xFFFF0000), (0xAC100000, 0xFFF00000)]
    # For whom is no matter here. Behind others there are networks too.
    rules = [(*lan, A, NOBODY, 0xFFFFFFFF) for lan in lans]
    others = [((10 + n) << 24, 0xFF000000, A + n, 0, 0) for n in (-2, -1, 1, 2, 3)]
    with EngineRelay() as relay:
        one, other = relay.member(A), relay.member(B)
        relay.engine.set_rules(0, [*others, *rules])
        right = [FORWARD + packet(source, B) for source in (A, 0xC0A80001, 0xC0A8FFFF, 0xAC100000, 0xAC1FFFFF)]
        wrong = [
            FORWARD + packet(source, B) for source in (B, 0, 0x09000001, 0x0B000001, 0xC0A7FFFF, 0xC0A90000, 0xAC0FFFFF)
        ]
        one.forward(*wrong, *right, *wrong)
        one.sync()
        assert [f.payload for f in other.sync()] == right
        assert relay.dropped() == {"spoofed_source": 2 * len(wrong)}
        # What was told before holds no more.
        for fresh, passing in ((others, 1), (rules[:1], 3), ([], 1)):
            relay.engine.set_rules(0, fresh)
            one.forward(*right)
            one.sync()
            assert [f.payload for f in other.sync()] == right[:passing]
        with pytest.raises(ValueError, match="no network 1"):
            relay.engine.set_rules(1, rules)
        with pytest.raises(OverflowError):
            relay.engine.set_rules(0, [(1 << 32, 0, 0, 0, 0)])


# ------------------------------------------------------------------------------------------------------------- events


def test_events_in_order_and_the_end_last() -> None:
    with EngineRelay(2) as relay:
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
            assert mine[:-1] == wanted
            assert mine[-1][0] == CLOSED
        assert relay.engine.events() == []


def test_more_messages_than_python_takes() -> None:
    """A connection has an allowance, which grows again."""
    with EngineRelay() as relay:
        peer = relay.adopt()
        for n in range(500):
            peer.send(BINARY, b"\7" + n.to_bytes(2, "big"))
        peer.sync()
        kept = 500 - relay.dropped()["events"]
        assert 0 < kept < 500
        assert relay.details(peer.connection, MESSAGE, kept) == [b"\7" + n.to_bytes(2, "big") for n in range(kept)]
        before = relay.dropped()["events"]
        again = 0
        while relay.dropped()["events"] == before + again:
            peer.send(BINARY, b"\7again")
            peer.sync()
            again += 1
        assert relay.details(peer.connection, MESSAGE, kept + 1)[-1] == b"\7again"


def test_unasked_pongs_and_messages_share_one_allowance() -> None:
    """However fast Python takes them: never do so many wait that one of them is dropped for it."""
    for log_in in (False, True):
        with EngineRelay() as relay:
            peer = relay.member(A) if log_in else relay.adopt()
            for _ in range(60):
                for n in range(50):
                    peer.send(PONG if n % 2 else BINARY, b"\7" + n.to_bytes(2, "big"))
                peer.sync()
                relay.engine.events()
            assert relay.dropped()["events"] > 1000


def test_a_client_takes_more_from_its_relay() -> None:
    """All members of a network may speak to one of them at once."""
    with EngineRelay() as relay, relay.device() as (_, tun):
        peer = relay.joined(tun)
        for n in range(10):
            for m in range(20):
                peer.send(BINARY, wire_discovery(n * 20 + m))
            peer.sync()
            assert len(relay.details(peer.connection, MESSAGE, 20 * (n + 1))) == 20 * (n + 1)
        assert relay.dropped() == {}


def test_events_that_python_does_not_take() -> None:
    """64 of one connection wait, whatever its allowance: an end of ours has none. More are counted."""
    with EngineRelay() as relay, relay.device() as (_, tun):
        peer = relay.joined(tun)
        for n in range(100):
            peer.send(BINARY, wire_discovery(n))
        peer.sync()
        assert [detail for _, _, detail in relay.engine.events()] == [wire_discovery(n) for n in range(64)]
        assert relay.dropped() == {"events": 36}
        peer.send(BINARY, wire_discovery(100))
        assert relay.details(peer.connection, MESSAGE) == [wire_discovery(100)]


def wire_discovery(number: int) -> bytes:
    return b"\5" + number.to_bytes(4, "big") + A.to_bytes(4, "big")


def test_events_of_many_are_bounded_too() -> None:
    """8 MiB of all connections' events wait at most. What does not fit is counted."""
    connections, each, size = 180, 60, 1000
    with EngineRelay() as relay:
        peers = [relay.member(0x0A010000 + n) for n in range(connections)]
        for peer in peers:
            for _ in range(each):
                peer.send(BINARY, b"\7".ljust(size))
            peer.sync()
        lost = relay.dropped()["events"]
        kept = relay.engine.events()
        assert 0 < len(kept) == connections * each - lost
        assert len(kept) * (16 + size) <= 8 << 20
        peers[0].send(BINARY, b"\7again")
        assert relay.details(peers[0].connection, MESSAGE) == [b"\7again"]


def test_fileno_is_readable_only_while_there_are_events() -> None:
    with EngineRelay() as relay:
        assert relay.poll.poll(0) == []
        peer = relay.adopt()
        peer.send(BINARY, b"\7")
        assert relay.poll.poll(PATIENCE * 1000)
        assert relay.engine.events() == [(peer.connection, MESSAGE, b"\7")]
        assert relay.poll.poll(0) == []


def test_messages_are_limited() -> None:
    with EngineRelay() as relay:
        peer = relay.adopt()
        assert relay.engine.send(peer.connection, bytes(1500))
        assert peer.receive() == Frame(BINARY, bytes(1500), True, None, 1504)
        with pytest.raises(ValueError, match="1500"):
            relay.engine.send(peer.connection, bytes(1501))
        with pytest.raises(ValueError, match="125"):
            relay.engine.ping(peer.connection, bytes(126))


def test_ping_comes_back_as_an_event() -> None:
    with EngineRelay() as relay:
        peer = relay.adopt()
        assert relay.engine.ping(peer.connection, b"are you there")
        assert peer.receive() == Frame(PING, b"are you there", True, None, 15)
        peer.send(PONG, b"are you there")
        assert relay.details(peer.connection, _fastpath.EVENT_PONG) == [b"are you there"]


# ----------------------------------------------------------------------------------------------------------- keepalive


def test_a_silent_peer_is_pinged_and_then_given_up() -> None:
    with EngineRelay(ping_after=0.1, dead_after=3.0) as relay:
        peer = relay.adopt()
        heard = relay.engine.received_ns(peer.connection)
        assert (peer.receive().opcode, peer.receive().opcode) == (PING, PING)
        assert relay.engine.received_ns(peer.connection) == heard
        assert all(frame == Frame(PING, b"", True, None, 2) for frame in peer.receive_all())
        assert relay.cause(peer.connection) == "silent"


def test_a_connection_may_be_given_up_at_a_pace_of_its_own() -> None:
    with EngineRelay(dead_after=0) as relay:
        peer = relay.adopt(dead_after=0.1)
        assert relay.cause(peer.connection) == "silent"
        for wrong in (-1.0, 86401.0, float("nan")):
            with pytest.raises(ValueError, match="dead_after"):
                relay.adopt(dead_after=wrong)
    with EngineRelay(dead_after=0.1) as relay:
        patient = relay.adopt(dead_after=0)
        peer = relay.adopt()
        assert relay.cause(peer.connection) == "silent"
        patient.sync()


@pytest.mark.parametrize(("dead_after", "milliseconds"), [(None, 45_000), (4.0, 4_000)])
def test_the_kernel_is_as_patient(dead_after: float | None, milliseconds: int) -> None:
    """With what was sent and stays without an answer."""
    ours, theirs = tcp_pair()
    with EngineRelay() as relay, ours, theirs.dup() as same:
        relay.engine.adopt(theirs.detach(), dead_after=dead_after)
        assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds


def test_a_connection_may_be_pinged_at_a_pace_of_its_own() -> None:
    with EngineRelay(ping_after=0) as relay:
        peer = relay.adopt(ping_after=0.1)
        assert peer.receive().opcode == PING
        for wrong in (-1.0, 86401.0, float("nan")):
            with pytest.raises(ValueError, match="ping_after"):
                relay.adopt(ping_after=wrong)


def test_the_end_of_a_connection_says_how_long_it_was_silent_before() -> None:
    with EngineRelay(ping_after=0.1) as relay:
        peer = relay.adopt()
        # Some time after it was heard for the last time.
        assert peer.receive().opcode == PING
        heard = relay.engine.received_ns(peer.connection)
        assert heard is not None
        least = (time.monotonic_ns() - heard) // 1_000_000
        peer.close()
        [detail] = relay.details(peer.connection, CLOSED)
        most = (time.monotonic_ns() - heard) // 1_000_000
        cause, silence = detail.decode().split(" ")
        assert cause == "eof"
        assert least <= int(silence) <= most


def test_a_quiet_client_pings_although_it_is_talked_to() -> None:
    with EngineRelay(ping_after=0.1, dead_after=60.0, ping_when_quiet=True) as relay:
        server = relay.adopt(client=True)
        server.sock.settimeout(0.01)
        for _ in range(PATIENCE * 100):
            server.send(PONG)
            with suppress(TimeoutError):
                frame = server.receive()
                break
        else:
            pytest.fail("it never pinged")
        assert (frame.opcode, frame.payload) == (PING, b"")


# ------------------------------------------------------------------------------------------------- what is not adopted


def test_what_cannot_be_adopted_stays_the_callers() -> None:
    with EngineRelay() as relay:
        reader, writer = os.pipe()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram, open(reader, "rb"), open(writer, "wb"):
            for fd, why in ((datagram.fileno(), "not a stream socket"), (reader, "Socket operation on non-socket")):
                with pytest.raises(OSError, match=why):
                    relay.engine.adopt(fd)
                os.fstat(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            relay.engine.adopt(1 << 20)
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(ValueError, match="network"):
            relay.engine.adopt(theirs.fileno(), network=1)
        assert relay.engine.stats()["connections"] == 0


@pytest.mark.plain
def test_what_epoll_refuses_stays_the_callers() -> None:
    """Here because it is watched already. Nothing has been written to it, and slot and memory are free again."""
    with EngineRelay(max_connections=2) as relay:
        ours, theirs = socket.socketpair()
        peer = Peer(ours)
        relay.peers.append(peer)
        peer.connection = relay.engine.adopt(theirs.fileno())
        for _ in range(3):
            before = relay.engine.stats()
            with pytest.raises(FileExistsError):
                relay.engine.adopt(theirs.fileno(), preamble=b"HTTP/1.1 101 Switching Protocols\r\n\r\n", tail=b"\x82")
            os.fstat(theirs.fileno())
            assert relay.engine.stats() == before
            assert peer.sync() == []
            other = relay.adopt()  # the slot is there for others, and as new
            assert other.sync() == []
            other.close()
            assert relay.cause(other.connection) == "eof"
        theirs.detach()
        peer.close()
        assert relay.cause(peer.connection) == "eof"


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
