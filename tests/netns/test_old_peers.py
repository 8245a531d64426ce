"""Peers without the extension: what leaves towards them, segment by segment, and what they may do to us.

Rule: "to a member that negotiated nothing, every frame leaves as a segment of its own", for its library loses the
connection when a read finds part of a frame.
"""

import base64
import hashlib
import random
import re
import signal
import socket
import struct
import threading
import time
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from kit.peer import BINARY, CLOSE, PING, PONG
from lab.capture import Capture, frame_length
from lab.laboratory import PORT, Laboratory
from lab.member import Member, echo, frame, packet
from lab.namespaces import Host
from lab.programs import PASSWORD, PATIENCE_S

from candy.protocol import auth, wire

pytestmark = pytest.mark.netns

FRAMES = 20_000
SENDER, OLD = "192.168.202.10", "192.168.202.20"


@pytest.mark.parametrize("shaped", [False, True], ids=["at full speed", "50 Mbit/s"])
@pytest.mark.parametrize("pauses", [0, 3])
def test_each_frame_is_a_segment_of_its_own(laboratory: Laboratory, tmp_path: Path, shaped: bool, pauses: int) -> None:
    """20,000 of them, also towards a receiver that pauses until its window has no room for a frame. Of what the kernel
    held then, it would send a part, as a probe of the window: so it may hold nothing."""
    laboratory.relay()
    host = laboratory.host()
    if shaped:
        shape = ["rate", "50mbit", "burst", "32k", "latency", "50ms"]
        laboratory.hub.run("tc", "qdisc", "add", "dev", host.port, "root", "tbf", *shape)
    with laboratory.host():
        sender = Member(socket.create_connection(("10.0.0.1", PORT), PATIENCE_S), extended=True)
    with host:
        old = Member(socket.create_connection(("10.0.0.1", PORT), PATIENCE_S))
    capture = Capture(host, tmp_path)
    end = threading.Event()

    def flood() -> None:
        """Many frames in one send(), so that the relay receives them in long runs."""
        draw = random.Random(1)
        while not end.is_set():
            # Up to what an interface with the usual MTU of 1400 sends: a frame of 1405 bytes fits an MSS of 1448.
            sizes = [draw.choice((0, 40, 100, 105, 106, 500, 1300, 1380)) for _ in range(200)]
            packets = (packet(SENDER, OLD, bytes(size)) for size in sizes)
            sender.socket.sendall(b"".join(frame(bytes([wire.Kind.FORWARD]) + one) for one in packets))

    with sender, old, capture.program:
        sender.log_in(SENDER)
        old.log_in(OLD)
        flooding = threading.Thread(target=flood, name="flood")
        flooding.start()
        try:
            for number in range(pauses + 1):
                for _ in range(FRAMES // (pauses + 1)):
                    assert old.receive()[0] == BINARY
                deadline = time.monotonic() + PATIENCE_S
                while number < pauses and not window_is_closed(laboratory, host):
                    assert time.monotonic() < deadline, f"the window never closed:\n{both_ends(laboratory, host)}"
            # What arrived is not in the file at once.
            while len(capture.segments()) < FRAMES:
                assert old.receive()[0] == BINARY
        finally:
            end.set()
            flooding.join()
        segments = capture.stop()
    data = [segment for segment in segments if not segment[2].startswith(b"HTTP")]
    # All of them, be they sent once or again.
    assert [(length, head[:4].hex()) for _, length, head in data if frame_length(head) != length] == []
    assert len({sequence for sequence, _, _ in data}) >= FRAMES


def window_is_closed(laboratory: Laboratory, host: Host) -> bool:
    """Whether this host's window is too small for a frame, and the relay's kernel has nothing that it could cut for it.

    A host that runs out of memory before its window is full closes it altogether; a probe of such a window has no data.
    """
    details = laboratory.hub.run("ss", "-Htnoi", "dst", host.address)
    window = re.search(r"\bsnd_wnd:(\d+)", details)
    if window is None:
        return "timer:(persist" in details
    return int(window[1]) < 1405 and re.search(r"\b(unacked|notsent):", details) is None


def both_ends(laboratory: Laboratory, host: Host) -> str:
    """All that the kernel tells of the relay's socket to this host, and of the host's own."""
    return laboratory.hub.run("ss", "-tnoiem", "dst", host.address) + host.run("ss", "-tnoiem")


class Original:
    """Plays the original server for one client: no subprotocol, and room for 1500 bytes in a frame."""

    def __init__(self, listener: socket.socket) -> None:
        self.socket, _ = listener.accept()
        self.socket.settimeout(PATIENCE_S)
        self._received = b""
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        self.offered = {name.lower(): value for name, value in lines.items()}
        key = self.offered["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        answer = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        self.socket.sendall("\r\n".join([*answer, f"Sec-WebSocket-Accept: {accept}", "", ""]).encode())

    def send(self, payload: bytes, opcode: int = BINARY) -> None:
        self.socket.sendall(frame(payload, opcode, masked=False))

    def receive(self) -> tuple[int, bytes]:
        """The next frame. It has to be masked, and to fit the original's buffer."""
        while len(self._received) < 6:
            self._more()
        assert self._received[1] & 0x80
        short = self._received[1] & 0x7F
        header = 2 if short < 126 else 4
        size = short if short < 126 else struct.unpack_from(">H", self._received, 2)[0]
        assert short < 127
        assert size <= 1500
        while len(self._received) < header + 4 + size:
            self._more()
        opcode, mask = self._received[0] & 15, self._received[header : header + 4]
        hidden = self._received[header + 4 : header + 4 + size]
        self._received = self._received[header + 4 + size :]
        return opcode, bytes(byte ^ mask[at % 4] for at, byte in enumerate(hidden))

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, "the client ended the connection"
        self._received += data


def test_our_client_at_an_original_server(laboratory: Laboratory) -> None:
    """The recorded conversation, the illegal PONG, packets both ways, and the end."""
    with laboratory.hub:
        listener = socket.create_server(("10.0.0.1", PORT))
    password = PASSWORD.encode()
    with listener:
        client = laboratory.client()
        server = Original(listener)
    with server.socket:
        assert "origin" not in server.offered
        assert "sec-websocket-extensions" not in server.offered
        opcode, payload = server.receive()
        vmac = wire.decode(payload)
        assert isinstance(vmac, wire.Vmac)
        assert vmac.digest == auth.vmac_digest(password, vmac.vmac, vmac.timestamp)
        request = wire.decode(server.receive()[1])
        assert isinstance(request, wire.Expttun)
        assert request.address == IPv4Interface("0.0.0.0/0")
        assert request.digest == auth.expttun_digest(password, request.timestamp)
        now = int(time.time())
        digest = auth.expttun_digest(password, now)
        server.send(wire.Expttun(now, IPv4Interface("192.168.202.7/24"), digest).encode())
        claim = wire.decode(server.receive()[1])
        assert isinstance(claim, wire.Auth)
        assert (claim.ip, claim.digest) == (
            IPv4Address("192.168.202.7"),
            auth.auth_digest(password, IPv4Address("192.168.202.7"), claim.timestamp),
        )
        opcode, payload = server.receive()
        assert opcode == PING
        assert payload.startswith(b"candy::linux::")
        # "Illegal in RFC 6455; a client must survive it."
        server.send(payload + bytes(1500 - len(payload)), PONG)
        assert client.connected() == "192.168.202.7"
        for number in range(50):
            asked = echo("192.168.202.9", "192.168.202.7", number, bytes(1300))
            server.send(bytes([wire.Kind.FORWARD]) + asked)
            opcode, payload = server.receive()
            answered = payload[1:]
            assert (opcode, payload[0], answered[9]) == (BINARY, wire.Kind.FORWARD, 1)
            assert answered[12:20] == asked[16:20] + asked[12:16]
            assert answered[20] == 0
            assert answered[24:] == asked[24:]
            server.send(bytes(1500), PONG)
        # A PING of the server's comes back with the same bytes.
        server.send(b"still there?", PING)
        assert server.receive() == (PONG, b"still there?")
        client.signal(signal.SIGTERM)
        opcode, payload = server.receive()
        assert (opcode, payload[:2]) == (CLOSE, struct.pack(">H", 1001))
    assert client.wait() == 0


def test_our_client_sends_an_original_server_one_frame_in_a_segment(laboratory: Laboratory, tmp_path: Path) -> None:
    host = laboratory.host()
    with laboratory.hub:
        listener = socket.create_server(("10.0.0.1", PORT))
    with listener:
        client = laboratory.client("-t", "192.168.202.7/24", host=host)
        server = Original(listener)
    capture = Capture(host, tmp_path, f"tcp and dst port {PORT}")
    with server.socket, capture.program:
        while server.receive()[0] != PING:
            pass
        server.send(bytes(1500), PONG)
        client.connected()
        end = threading.Event()
        with host, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:

            def flood() -> None:
                while not end.is_set():
                    for size in range(0, 1372, 49):
                        sending.sendto(bytes(size), ("192.168.202.9", 9))

            flooding = threading.Thread(target=flood, name="flood")
            flooding.start()
            try:
                while len(capture.segments()) < FRAMES // 4:
                    for _ in range(1000):
                        server.receive()
            finally:
                end.set()
                flooding.join()
        segments = capture.stop()
    data = [(length, head) for _, length, head in segments if not head.startswith(b"GET ")]
    assert [(length, head[:4].hex()) for length, head in data if frame_length(head) != length] == []
