"""What a backlog takes of the memory: in proportion to the bytes that wait, whatever the frames, members and flows."""

from collections.abc import Callable

import pytest
from kit.peer import BINARY, FORWARD, SUPER, EngineRelay, Peer, build_frame
from kit.superpacket import GSO_TCP4, Vnet, ip_header, tcp_header, udp_header

from candy import _fastpath

pytestmark = pytest.mark.engine

A, B = 0x0A000001, 0x0A000100
WAITING_MAX = 3_000_000
"""Bytes that fit the share of a destination (4 MiB)."""


def bound(waiting: int, flows: int, size: int) -> int:
    """Bytes that a backlog may take, as docs/architecture.md has it (The queue, Memory).

    Args:
        waiting: bytes of the frames that wait, those on their way to the kernel included.
        flows: at most 256, the sub-queues of a destination.
        size: of a frame. One of 87 bytes that waits pays for the sub-queue of its flow.
    """
    beside = 2560 + 64 * flows
    return 2 * waiting + (min(beside, 4096) if size >= 87 and waiting >= size * flows else beside)


def plain(flow: int, size: int) -> bytes:
    """A FORWARD whose packet has `size` bytes. Where there is no room for ports, flows differ by their protocol."""
    if size < 28:
        return FORWARD + ip_header(size - 20, flow % 256, A, B) + bytes(size - 20)
    return FORWARD + ip_header(size - 20, 17, A, B) + udp_header(size - 28, ports=(flow, 9)) + bytes(size - 28)


def large(flow: int, size: int) -> bytes:
    """A SUPER with `size` bytes of TCP payload."""
    vnet = Vnet(gso_type=GSO_TCP4, hdr_len=40, gso_size=1400)
    headers = ip_header(20 + size, 6, A, B) + tcp_header(1, ports=(flow, 80))
    return SUPER + bytes(vnet) + headers + bytes(size)


def received_as(payload: bytes, *, extended: bool) -> int:
    """Bytes on the wire to a member of what came with this payload."""
    if payload[:1] == SUPER and not extended:
        segments = _fastpath.segment(payload[1:11], payload[11:])
        return sum(len(build_frame(BINARY, FORWARD + segment)) for segment in segments)
    return len(build_frame(BINARY, payload))


class Backlog:
    """What waits for a new member, which takes nothing unless it is told to.

    Args:
        payloads: batches of packets for it.
    """

    def __init__(self, relay: EngineRelay, sender: Peer, payloads: list[list[bytes]], *, extended: bool) -> None:
        self.relay, self.sender = relay, sender
        self.before = relay.engine.stats()["queued_bytes"]
        self.member = relay.member(B, extended=extended)
        self.member.sock.setblocking(False)
        self.given = 0
        self.least = received_as(payloads[0][0], extended=extended)
        fill = plain(0, 1400)
        while self.taken() == 0:
            sender.forward(fill)
            sender.sync()
            self.given += received_as(fill, extended=extended)
        for batch in payloads:
            sender.sock.sendall(b"".join(build_frame(BINARY, payload, mask=bytes(4)) for payload in batch))
            self.given += sum(received_as(payload, extended=extended) for payload in batch)
        sender.sync()

    def waiting(self) -> int:
        """Bytes of the frames that the kernel has not taken; of those that CoDel dropped the shortest count."""
        stats = self.relay.engine.connection_stats(self.member.connection)
        assert stats is not None
        return self.given - stats["bytes_out"] - stats["drops"] * self.least

    def taken(self) -> int:
        """Bytes of memory."""
        return self.relay.engine.stats()["queued_bytes"] - self.before

    def read(self, most: int) -> int:
        """Have the member take something, and the worker send what there is room for; returns how much was taken."""
        try:
            data = self.member.sock.recv(most)
        except BlockingIOError:
            return 0
        self.sender.sync()
        return len(data)

    def end(self) -> None:
        assert self.relay.engine.close(self.member.connection)
        assert self.relay.cause(self.member.connection) == "local"
        assert self.taken() == 0


@pytest.mark.parametrize("extended", [True, False], ids=["candy.2", "old"])
@pytest.mark.parametrize("size", [20, 22, 29, 52, 87, 300, 1499])
def test_plain_packets(size: int, extended: bool) -> None:
    with EngineRelay() as relay:
        sender = relay.member(A)
        for flows in (1, 2, 8, 32, 256):
            batch = [plain(flow, size) for flow in range(flows)]
            for each in (1, 2, 10, 100):
                if each * flows * size <= WAITING_MAX:
                    backlog = Backlog(relay, sender, [batch] * each, extended=extended)
                    assert backlog.taken() <= bound(backlog.waiting(), flows + 1, size)
                    backlog.end()


@pytest.mark.parametrize("extended", [True, False], ids=["candy.2", "old"])
@pytest.mark.parametrize("size", [3000, 64_000])
def test_super_packets(size: int, extended: bool) -> None:
    with EngineRelay() as relay:
        sender = relay.member(A)
        for flows in (1, 2, 8, 32, 256):
            batch = [large(flow, size) for flow in range(flows)]
            for each in (1, 2, 10, 100):
                if each * flows * size <= WAITING_MAX:
                    backlog = Backlog(relay, sender, [batch] * each, extended=extended)
                    assert backlog.taken() <= bound(backlog.waiting(), flows + 1, 1400)
                    backlog.end()


@pytest.mark.parametrize("extended", [True, False], ids=["candy.2", "old"])
@pytest.mark.parametrize(("make", "size"), [(plain, 29), (plain, 1400), (large, 64_000)], ids=["29", "1400", "super"])
def test_while_it_drains(make: Callable[[int, int], bytes], size: int, extended: bool) -> None:
    """No more is kept for a frame that is nearly sent, and next to nothing when all are."""
    with EngineRelay() as relay:
        batch = [make(flow, size) for flow in range(16)]
        backlog = Backlog(relay, relay.member(A), [batch] * (1_500_000 // size // 16), extended=extended)
        while backlog.read(10_007):
            # In this order: towards an old member the worker goes on by itself, and what is taken only gets less.
            assert bound(backlog.waiting(), 17, 0) >= backlog.taken()
        assert backlog.taken() <= bound(0, 17, 0)
        backlog.end()
