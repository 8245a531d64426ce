"""Captures: what is copied of one member's packets, what is said of each, and what is lost."""

import struct

import pytest
from kit.pcapng import Block, packets
from kit.peer import (
    BINARY,
    CONTINUATION,
    FORWARD,
    SUPER,
    EngineRelay,
    Peer,
    build_frame,
    numbered,
    packet,
    sealed,
)
from kit.superpacket import ANY, IPIP, ip_header, pattern, tcp

from candy import _fastpath
from candy._fastpath import CANDY3, CAPTURE_MOST

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

A, B, C, D = (0x0A000001 + n for n in range(4))
GROUP = 0xE0000001
SHARE = 40
"""Of a worker's time one part."""
SAVED_NS = 1_000_000


class Capture:
    """One of an engine's, read as a whole."""

    def __init__(self, relay: EngineRelay, peer: Peer, **options: int) -> None:
        self.engine = relay.engine
        number = self.engine.capture(peer.connection, **options)  # type: ignore[arg-type]
        assert number is not None
        self.number = number

    def read(self) -> list[Block]:
        """All that is there."""
        found = b""
        while piece := self.engine.read_capture(self.number):
            found += piece
        return packets(found)

    @property
    def lost(self) -> int:
        return self.engine.capture_stats(self.number)[1]


def seen(blocks: list[Block]) -> list[tuple[str, str, bytes]]:
    return [(block.direction, block.comment, block.data) for block in blocks]


def test_both_ways_with_direction_and_time() -> None:
    with EngineRelay() as relay:
        a, b = relay.member(A), relay.member(B)
        capture = Capture(relay, a, clock_ns=10**18)
        a.forward(numbered(A, B, 1))
        a.sync()
        b.forward(numbered(B, A, 2))
        b.sync()
        a.sync()
        blocks = capture.read()
        assert seen(blocks) == [("in", "", numbered(A, B, 1)[1:]), ("out", "", numbered(B, A, 2)[1:])]
        times = [block.fields["time"] for block in blocks]
        received = [relay.engine.received_ns(peer.connection) for peer in (a, b)]
        assert 10**18 < times[0] <= times[1] <= 10**18 + max(time for time in received if time is not None)
        assert all(block.fields["interface"] == 0 for block in blocks)
        assert relay.engine.capture_stats(capture.number) == (2, 0, False)
        assert capture.read() == []


def test_nothing_but_packets() -> None:
    """No message to or from Python, no ping, no word from member to member."""
    with EngineRelay() as relay:
        a, b = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        capture = Capture(relay, a)
        assert relay.engine.send(a.connection, b"\x16a message")
        a.send(BINARY, b"\x16an answer")
        a.send(BINARY, b"")
        b.send(BINARY, b"\x14\x01\0\0" + struct.pack(">II", B, A) + bytes(136))
        assert [frame.payload[:1] for frame in a.sync() + a.sync()].count(b"\x16") == 1
        b.sync()
        a.sync()
        assert capture.read() == []
        assert capture.lost == 0


@pytest.mark.parametrize("extended", [False, True, CANDY3], ids=["old", "candy2", "candy3"])
def test_what_passed_a_queue_is_shown_once(extended: int) -> None:
    """Some left at once, some were queued, and what a frame cost is no matter."""
    with EngineRelay() as relay:
        a, b = relay.member(A, extended=CANDY3), relay.member(B, extended=extended)
        b.sock.setsockopt(1, 8, 4096)
        capture = Capture(relay, b, snap=64)
        for first in range(0, 2000, 100):
            a.forward(*(numbered(A, B, n, 1000) for n in range(first, first + 100)))
            a.sync()
        got = relay.drain(b)
        dropped = sum(relay.dropped().values())
        blocks = capture.read()
        passed = [block.data for block in blocks if not block.comment]
        assert len(got) == 2000 - dropped
        assert [data[28:32] for data in passed] == [frame.payload[29:33] for frame in got]
        assert len(blocks) == 2000
        assert capture.lost == 0
        assert {block.fields["length"] for block in blocks} == {len(numbered(A, B, 0, 1000)) - 1}


def test_a_super_packet_is_one_packet() -> None:
    whole = tcp(pattern(30_000))
    with EngineRelay() as relay:
        a, b = relay.member(A), relay.member(B)
        source, destination = struct.unpack_from(">II", whole, 12)
        assert (source, destination) == (A, B)
        one, other = Capture(relay, a), Capture(relay, b)
        a.forward(SUPER + bytes(ANY) + whole)
        a.sync()
        b.sync()
        assert seen(one.read()) == [("in", "", whole)]
        assert seen(other.read()) == [("out", "", whole)]


@pytest.mark.parametrize("extended", [True, CANDY3], ids=["unmasked", "masked"])
def test_padding_is_no_part_of_a_packet(extended: int) -> None:
    whole = packet(A, B, pattern(93))
    with EngineRelay() as relay:
        a, b = relay.member(A, extended=CANDY3), relay.member(B, extended=extended)
        one, other = Capture(relay, a), Capture(relay, b)
        a.forward(FORWARD + whole + bytes(126 - 1 - len(whole)))
        a.sync()
        b.sync()
        [block] = one.read()
        assert (block.data, block.fields["length"]) == (whole, len(whole))
        assert seen(other.read()) == [("out", "", whole)]


def test_sealed_packets_show_their_addresses_and_no_ciphertext() -> None:
    with EngineRelay() as relay:
        a, b = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        one, other = Capture(relay, a), Capture(relay, b)
        payload = sealed(A, B, b"ciphertext" * 10, label=7)
        group = b"\x13\0" + struct.pack(">HII", 7, A, GROUP) + bytes(24) + b"ciphertext" * 10
        a.forward(payload, group)
        a.sync()
        b.sync()
        for capture, direction in ((one, "in"), (other, "out")):
            first, second = capture.read()
            assert (first.direction, first.comment, second.comment) == (direction, "sealed", "sealed")
            assert first.data == ip_header(len(payload), 253, A, B)[:4] + first.data[4:20] + payload[:24]
            assert first.data[8:10] == bytes([64, 253])
            assert first.data[12:20] == struct.pack(">II", A, B)
            total = sum(struct.unpack(">10H", first.data[:20]))
            assert (total & 0xFFFF) + (total >> 16) == 0xFFFF, "the header's checksum"
            assert first.fields["length"] == 20 + len(payload)
            assert second.data[12:20] == struct.pack(">II", A, GROUP)
            assert second.data[20:] == group[:36]


def test_no_more_than_snap() -> None:
    with EngineRelay() as relay:
        a, _ = relay.member(A), relay.member(B)
        capture = Capture(relay, a, snap=64)
        a.forward(numbered(A, B, 1, 1000))
        a.sync()
        [block] = capture.read()
        assert (block.data, block.fields["length"]) == (numbered(A, B, 1, 1000)[1:65], 999)


def test_a_packet_that_came_in_fragments() -> None:
    with EngineRelay() as relay:
        a, b = relay.member(A), relay.member(B)
        capture = Capture(relay, a)
        payload = numbered(A, B, 1, 300)
        a.send(BINARY, payload[:100], final=False)
        a.send(CONTINUATION, payload[100:])
        a.forward(numbered(C, B, 2)[:1] + numbered(C, B, 2)[1:])
        a.sync()
        b.sync()
        assert seen(capture.read()) == [
            ("in", "", payload[1:]),
            ("in", "dropped: spoofed_source", numbered(C, B, 2)[1:]),
        ]


@pytest.mark.parametrize("drops_only", [False, True], ids=["all", "drops"])
def test_the_reason_of_a_drop(drops_only: bool) -> None:
    """Counted with the member that has sent it: it is shown once, as it came."""
    long = FORWARD + packet(A, C, pattern(1600))
    gso = SUPER + bytes(ANY) + tcp(pattern(30_000))
    bad = bytearray(gso)
    bad[3:5] = b"\xff\xff"  # its virtio header claims another length of headers
    wrapped = FORWARD + ip_header(28 + 20, IPIP, A, B) + packet(D, B)
    expected = [
        ("spoofed_source", numbered(C, B, 2)[1:]),
        ("no_route", numbered(A, D, 3)[1:]),
        ("too_large", long[1:]),
        ("inner_source", wrapped[1:]),
        ("too_short", FORWARD[1:] + b"E" * 10),
    ]
    with EngineRelay() as relay:
        a, b, c = relay.member(A), relay.member(B, extended=False), relay.member(C, extended=False)
        capture = Capture(relay, a, drops_only=drops_only)
        for payload in (
            numbered(C, B, 2),
            numbered(A, D, 3),
            long,
            wrapped,
            FORWARD + b"E" * 10,
            numbered(A, B, 4),
        ):
            a.forward(payload)
            a.sync()
        b.sync()
        c.sync()
        found = seen(capture.read())
        passed = [] if drops_only else [("in", "", numbered(A, B, 4)[1:])]
        assert found == [("in", f"dropped: {reason}", data) for reason, data in expected] + passed
        assert relay.engine.connection_drops(a.connection) != {}


@pytest.mark.parametrize("drops_only", [False, True], ids=["all", "drops"])
def test_of_a_batch_each_packet_has_its_own_reason(drops_only: bool) -> None:
    """Also where one before it is sent on, or dropped for its receiver, while it is at hand."""
    with EngineRelay() as relay:
        a, b = relay.member(A), relay.member(B, extended=False)
        relay.member(C)
        capture = Capture(relay, a, drops_only=drops_only)
        batch = []
        for n in range(50):
            batch += [numbered(A, B, n), numbered(D, B, n), numbered(A, C, n), FORWARD + packet(A, B, bytes(1600))]
        a.forward(*batch)
        a.sync()
        b.sync()
        found = seen(capture.read())
        reasons = [("in", "", batch[0]), ("in", "dropped: spoofed_source", batch[1]), ("in", "", batch[2])]
        reasons.append(("in", "dropped: too_large", batch[3]))
        wanted = [(way, reasons[n % 4][1], payload[1:]) for n, payload in enumerate(batch) for way in ["in"]]
        assert found == [one for one in wanted if one[1] or not drops_only]


@pytest.mark.parametrize("drops_only", [False, True], ids=["all", "drops"])
def test_what_is_dropped_on_its_way_to_a_member(drops_only: bool) -> None:
    """Its queue is full: each that was counted is shown, as going out, and why."""
    with EngineRelay(queue_bytes=200_000) as relay:
        a, b = relay.member(A), relay.member(B)
        b.sock.setsockopt(1, 8, 4096)
        capture = Capture(relay, b, drops_only=drops_only, snap=64)
        blocks = []
        for first in range(0, 3000, 100):
            a.forward(*(numbered(A, B, n, 1000) for n in range(first, first + 100)))
            a.sync()
            blocks += capture.read()
        relay.drain(b)
        blocks += capture.read()
        dropped = relay.dropped()
        counted: dict[str, int] = {}
        for block in blocks:
            assert block.direction == "out"
            assert block.comment or not drops_only
            if block.comment:
                reason = block.comment.removeprefix("dropped: ")
                counted[reason] = counted.get(reason, 0) + 1
        assert sum(dropped.values()) > 0
        assert sum(counted.values()) + capture.lost >= sum(dropped.values())
        if not capture.lost:
            assert counted == dropped
        numbers = [block.data[28:32] for block in blocks]
        assert len(set(numbers)) == len(numbers), "a packet is shown twice"


def test_a_copy_that_one_member_does_not_get_is_no_drop() -> None:
    with EngineRelay() as relay:
        a, b, c = relay.member(A), relay.member(B, extended=False), relay.member(C)
        one, other = Capture(relay, a), Capture(relay, b)
        payload = FORWARD + packet(A, GROUP, bytes(1600))
        a.forward(payload)
        assert a.sync() == []
        assert [frame.payload for frame in c.sync()] == [payload]
        assert seen(one.read()) == [("in", "", payload[1:])]
        assert seen(other.read()) == [("out", "dropped: too_large", payload[1:])]


def test_a_broadcast_beyond_the_allowance() -> None:
    with EngineRelay(broadcast_rate=0) as relay:
        a, _ = relay.member(A), relay.member(B)
        capture = Capture(relay, a, drops_only=True)
        a.forward(numbered(A, GROUP, 1))
        a.sync()
        assert seen(capture.read()) == [("in", "dropped: broadcast_limit", numbered(A, GROUP, 1)[1:])]


def test_one_address_in_two_networks() -> None:
    with EngineRelay() as relay:
        other = relay.engine.add_network(0x0A0000FF)
        a, b = relay.member(A), relay.member(B)
        a2, b2 = relay.member(A, network=other), relay.member(B, network=other)
        capture = Capture(relay, a2)
        a.forward(numbered(A, B, 1))
        a2.forward(numbered(A, B, 2))
        b.forward(numbered(B, A, 3))
        b2.forward(numbered(B, A, 4))
        for peer in (a, b, a2, b2, a, b, a2, b2):
            peer.sync()
        assert sorted(block.data[28:32] for block in capture.read()) == [b"\0\0\0\2", b"\0\0\0\4"]


def block_size(kept: int) -> int:
    """Of a packet without a comment."""
    return 28 + (kept + 3) // 4 * 4 + 8 + 4 + 4


@pytest.mark.parametrize("left", [0, 1, 3, 4, 43])
def test_full_to_the_last_byte(left: int) -> None:
    """What fits exactly is taken; with a byte too little it is lost; and a reader goes on behind either."""
    size = 64
    with EngineRelay() as relay:
        a, _ = relay.member(A), relay.member(B)
        capture = Capture(relay, a, ring_bytes=block_size(size) * 50 + left)
        for start in (0, 1000, 2000, 3000):
            a.forward(*(numbered(A, B, start + n, size + 1) for n in range(60)))
            a.sync()
            blocks = capture.read()
            assert [block.data for block in blocks] == [numbered(A, B, start + n, size + 1)[1:] for n in range(50)]
            assert capture.read() == []
            assert capture.lost == 10 * (start // 1000 + 1)


def test_blocks_that_wrap() -> None:
    """Of all lengths, at all places of the ring."""
    with EngineRelay() as relay:
        a, _ = relay.member(A), relay.member(B)
        capture = Capture(relay, a, ring_bytes=4096 + 7)
        for n in range(600):
            payload = numbered(A, B, n, 40 + n * 7 % 1300)
            a.forward(payload)
            a.sync()
            assert [block.data for block in capture.read()] == [payload[1:]]
        assert capture.lost == 0


def test_longer_than_the_ring() -> None:
    with EngineRelay() as relay:
        a, _ = relay.member(A), relay.member(B)
        capture = Capture(relay, a, ring_bytes=4096)
        a.forward(numbered(A, B, 1, 5000), numbered(A, B, 2))
        a.sync()
        assert [block.data for block in capture.read()] == [numbered(A, B, 2)[1:]]
        assert capture.lost == 1


def test_what_a_reader_gets_at_once_is_bounded() -> None:
    with EngineRelay() as relay:
        a, _ = relay.member(A), relay.member(B)
        capture = Capture(relay, a)
        for n in range(60):
            a.forward(numbered(A, B, n, 10_000))
            a.sync()
        first = relay.engine.read_capture(capture.number)
        assert len(first) == _fastpath.CAPTURE_READ
        rest = b""
        while piece := relay.engine.read_capture(capture.number):
            rest += piece
        assert [block.data[28:32] for block in packets(first + rest)] == [n.to_bytes(4, "big") for n in range(60)]


def test_nobody_waits_for_a_reader() -> None:
    """A ring that nobody reads: every packet goes on, and all that was not kept is counted."""
    with EngineRelay() as relay:
        a, b = relay.member(A), relay.member(B)
        capture = Capture(relay, a, ring_bytes=4096)
        for first in range(0, 5000, 100):
            a.forward(*(numbered(A, B, n) for n in range(first, first + 100)))
            assert len(b.receive_until(BINARY, numbered(A, B, first + 99))) == 99
        assert len(capture.read()) + capture.lost == 5000


def test_what_there_is_no_time_for_is_counted() -> None:
    """Of a batch that takes longer than a worker may spend; whether there is time is the machine's matter, the sum is
    not."""
    count = 30_000
    with EngineRelay() as relay:
        a, b = relay.member(A), relay.member(B, extended=CANDY3)
        one, other = Capture(relay, a, snap=64), Capture(relay, b, snap=64)
        sent = b"".join(build_frame(BINARY, numbered(A, B, n), mask=bytes(4)) for n in range(count))
        found = [0, 0]
        for start in range(0, len(sent), 100_000):
            a.sock.sendall(sent[start : start + 100_000])
            b.receive()
            for n, capture in enumerate((one, other)):
                found[n] += len(capture.read())
        relay.drain(b)
        for n, capture in enumerate((one, other)):
            assert found[n] + len(capture.read()) + capture.lost == count


def test_a_workers_time() -> None:
    """A fortieth of it in the long run, and no more than a millisecond at once."""
    at_once = _fastpath.capture_afforded([10**12] * 50_000, 100).count(True)
    cost_ns = SAVED_NS / at_once
    assert 30 < cost_ns < 500
    assert _fastpath.capture_afforded([10**12] * 50_000, 65_000).count(True) < at_once / 20
    every = 200
    moments = range(10**12, 10**12 + 10**9, every)
    share = (_fastpath.capture_afforded(moments, 100).count(True) - at_once) * cost_ns / 10**9
    assert 0.9 / SHARE < share < 1.01 / SHARE


def test_the_end_of_a_member() -> None:
    """What was captured can be read behind it, and the slot's next owner is not captured."""
    with EngineRelay() as relay:
        a, b = relay.member(A), relay.member(B)
        capture = Capture(relay, a)
        a.forward(numbered(A, B, 1))
        a.sync()
        relay.engine.close(a.connection)
        assert relay.engine.capture_stats(capture.number)[2] is False
        assert relay.cause(a.connection) == "local"
        assert relay.engine.capture_stats(capture.number)[2] is True
        new = relay.member(A)
        assert new.connection & 0xFFFFFFFF == a.connection & 0xFFFFFFFF, "the test is about one slot"
        new.forward(numbered(A, B, 2))
        new.sync()
        assert [block.data for block in capture.read()] == [numbered(A, B, 1)[1:]]
        again = Capture(relay, new)
        relay.engine.end_capture(capture.number)
        new.forward(numbered(A, B, 3))
        new.sync()
        assert [block.data for block in again.read()] == [numbered(A, B, 3)[1:]]
        b.sync()


def test_ended_it_captures_nothing() -> None:
    with EngineRelay() as relay:
        a, _ = relay.member(A), relay.member(B)
        capture = Capture(relay, a)
        relay.engine.end_capture(capture.number)
        a.forward(numbered(A, B, 1))
        a.sync()
        again = Capture(relay, a)
        a.forward(numbered(A, B, 2))
        a.sync()
        assert [block.data for block in again.read()] == [numbered(A, B, 2)[1:]]


def test_who_can_be_captured() -> None:
    with EngineRelay() as relay, relay.device() as (_, tun):
        engine = relay.engine
        peers = [relay.member(A + n) for n in range(CAPTURE_MOST + 1)]
        assert engine.capture(tun) is None
        assert engine.capture(12345 << 32) is None
        first = Capture(relay, peers[0])
        with pytest.raises(ValueError, match="is being captured"):
            engine.capture(peers[0].connection)
        for peer in peers[1:-1]:
            Capture(relay, peer)
        with pytest.raises(ValueError, match=f"at most {CAPTURE_MOST} captures"):
            engine.capture(peers[-1].connection)
        engine.end_capture(first.number)
        for call in (engine.read_capture, engine.capture_stats, engine.end_capture):
            for number in (first.number, -1, CAPTURE_MOST):
                with pytest.raises(ValueError, match="no capture"):
                    call(number)
        Capture(relay, peers[-1])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"ring_bytes": 4095}, "ring_bytes must be from 4096"),
        ({"ring_bytes": (1 << 30) + 1}, "ring_bytes must be from 4096"),
        ({"snap": 63}, "snap must be from 64 to 65535, not 63"),
        ({"snap": 65536}, "snap must be from 64 to 65535, not 65536"),
    ],
)
def test_bounds(options: dict[str, int], why: str) -> None:
    with EngineRelay() as relay:
        a = relay.member(A)
        with pytest.raises(ValueError, match=why):
            relay.engine.capture(a.connection, **options)  # type: ignore[arg-type]
        Capture(relay, a)


def test_the_longest_packets() -> None:
    with EngineRelay() as relay:
        a, b = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        one, other = Capture(relay, a), Capture(relay, b)
        payload = FORWARD + packet(A, B, pattern(65_535 - 28))
        a.forward(payload, sealed(A, B, pattern(65_565)))
        b.receive()
        b.receive()
        a.sync()
        for capture in (one, other):
            first, second = capture.read()
            assert first.data == payload[1:]
            assert (len(second.data), second.fields["length"]) == (44, 20 + 65_589)
