"""What a backlog takes of the memory: in proportion to the bytes that wait, whatever the frames, members and flows."""

import socket
from collections.abc import Callable

import pytest
from kit.peer import BINARY, FORWARD, PING, SUPER, EngineRelay, Peer, build_frame
from kit.secure import APPLICATION_DATA, TlsSocket
from kit.superpacket import GSO_TCP4, Vnet, ip_header, tcp_header, udp_header

from candy import _fastpath

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

A, B = 0x0A000001, 0x0A000100
WAITING_MAX = 3_000_000
"""Bytes that fit the share of a destination (4 MiB)."""
RECORD_BESIDE, RECORD_MAX = 22, 16384
"""Bytes of a record of TLS 1.3 beside its plaintext, and the most of that."""


def bound(waiting: int) -> int:
    """Bytes that a backlog may take, as docs/architecture.md has it (The queue, Memory).

    Args:
        waiting: bytes of the frames that wait, those on their way to the kernel included, over TLS as records.
    """
    return 2 * waiting + 4096


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


def received_as(payload: bytes, *, extended: bool) -> list[int]:
    """Bytes of the frames that a member gets for what came with this payload."""
    if payload[:1] == SUPER and not extended:
        segments = _fastpath.segment(payload[1:11], payload[11:])
        return [len(build_frame(BINARY, FORWARD + segment)) for segment in segments]
    return [len(build_frame(BINARY, payload))]


def whole_records(data: bytes) -> list[int]:
    """Sizes of the records of TLS that this begins with, less the last where it is cut."""
    found = []
    at = 0
    while at + 5 <= len(data) and at + (size := 5 + int.from_bytes(data[at + 3 : at + 5], "big")) <= len(data):
        assert data[at] == APPLICATION_DATA
        found.append(size)
        at += size
    return found


def plaintext(data: bytes) -> int:
    """Bytes of it in records, of which the last may be cut."""
    sizes = whole_records(data)
    return sum(sizes) - RECORD_BESIDE * len(sizes) + max(0, len(data) - sum(sizes) - RECORD_BESIDE)


class Backlog:
    """What waits for a new member, which takes nothing unless it is told to.

    Args:
        payloads: batches of packets for it.

    Attributes:
        given: bytes of frames for it, less those that it has taken.
        begun: what it has of a record whose rest it has not taken.
    """

    def __init__(self, relay: EngineRelay, sender: Peer, payloads: list[list[bytes]], *, extended: bool) -> None:
        self.relay, self.sender = relay, sender
        self.before = 0
        self.before = self.taken()
        self.extended = extended
        self.member = relay.member(B, extended=extended)
        self.member.sock.setblocking(False)
        sock = self.member.sock
        self.secure = isinstance(sock, TlsSocket)
        self.wire = sock.sock if isinstance(sock, TlsSocket) else sock
        self.begun = b""
        self.given = 0
        self.least = min(received_as(payloads[0][0], extended=extended))
        fill = plain(0, 1400)
        while self.taken() == 0:
            sender.forward(fill)
            sender.sync()
            self.given += sum(received_as(fill, extended=extended))
        for batch in payloads:
            sender.sock.sendall(b"".join(build_frame(BINARY, payload, mask=bytes(4)) for payload in batch))
            self.given += sum(sum(received_as(payload, extended=extended)) for payload in batch)
        sender.sync()

    def waiting(self) -> int:
        """Bytes of the frames that the kernel has not taken; of those that CoDel dropped the shortest count."""
        out = self.frames_in(self.begun + self.peek())
        stats = self.relay.engine.connection_stats(self.member.connection)
        assert stats is not None
        frames = self.given - out - stats["drops"] * self.least
        if not self.secure:
            return frames
        sealed = frames - stats["queued_bytes"]
        records = 0 if sealed == 0 else 1 + sealed // (RECORD_MAX if self.extended else self.least)
        return frames + RECORD_BESIDE * records

    def frames_in(self, data: bytes) -> int:
        """Bytes of frames in what came over the wire."""
        return plaintext(data) if self.secure else len(data)

    def peek(self) -> bytes:
        """What the kernel holds for the member."""
        try:
            return self.wire.recv(4_000_000, socket.MSG_PEEK)
        except BlockingIOError:
            return b""

    def taken(self) -> int:
        """Bytes of memory."""
        # Waits for the send lock, under which the worker gives back what the sender's last answer took.
        self.relay.engine.connection_stats(self.sender.connection)
        return self.relay.engine.stats()["queued_bytes"] - self.before

    def read(self, most: int) -> int:
        """Have the member take something, and the worker send what there is room for; returns how much was taken."""
        try:
            data = self.wire.recv(most)
        except BlockingIOError:
            return 0
        self.begun += data
        whole = sum(whole_records(self.begun)) if self.secure else len(data)
        self.given -= self.frames_in(self.begun[:whole])
        self.begun = self.begun[whole:]
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
                    assert backlog.taken() <= bound(backlog.waiting())
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
                    assert backlog.taken() <= bound(backlog.waiting())
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
            assert bound(backlog.waiting()) >= backlog.taken()
        assert backlog.taken() <= bound(0)
        backlog.end()


@pytest.mark.parametrize("extended", [True, False], ids=["candy.2", "old"])
@pytest.mark.parametrize(("size", "count"), [(0, 2600), (1, 2600), (15, 1600), (125, 440)])
def test_control_frames(size: int, count: int, extended: bool) -> None:
    """Answers to a member that reads none of them, and then some at a time."""
    with EngineRelay() as relay:
        backlog = Backlog(relay, relay.member(A), [[plain(0, 1400)]], extended=extended)
        backlog.member.sock.sendall(b"".join(backlog.member.frame(PING, bytes(size)) for _ in range(count)))
        backlog.member.wait_until_read()
        backlog.sender.sync()
        backlog.given += count * (2 + size)
        backlog.least = 2 + size
        assert bound(backlog.waiting()) >= backlog.taken()
        while backlog.read(1000):
            assert bound(backlog.waiting()) >= backlog.taken()
        assert backlog.waiting() == 0
        assert backlog.taken() <= bound(0)
        assert relay.dropped() == {}
        backlog.end()
