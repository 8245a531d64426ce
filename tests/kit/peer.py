"""A member played by a test: builds frames and IPv4 packets, reads frames, and breaks every rule it is told to.

Rules:
 1. Whatever can be waited for is waited for: nothing here sleeps, and nothing looks at a clock. PATIENCE only turns
    a hang into a failure.
 2. `read_messages` is the slow, obvious reading of RFC 6455 that the engine is compared with. It shares no code with
    the engine and takes the whole input at once.
 3. Masks are drawn from a seeded generator, so that a failure can be repeated.

Knows nothing of passwords, leases or candy's messages other than FORWARD, SUPER and the clear bytes of SEALED.
"""

import array
import fcntl
import os
import random
import select
import socket
import struct
import termios
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from kit.secure import Secured, TlsSocket

from candy import _fastpath

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FORWARD, SUPER, SEALED = b"\x01", b"\x10", b"\x12"
MAX_PAYLOAD = 65546
MAX_CANDY3_PAYLOAD = 65600
MASK_BYTES = 4
FORBIDDEN_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
"""Close codes that no endpoint may put on the wire (RFC 6455, 7.4)."""
DEFAULT_TLS: Secured | None = None
"""What connections have for which a test does not say: see the fixture `carrier`."""
PATIENCE = 20
"""Seconds after which something that has to happen is given up."""
PACKET_DROPS = tuple(name for name in _fastpath.DROPS if name not in ("text", "events", "control"))
"""The reasons for which a packet can be dropped; the others count messages and control frames."""


def xor_mask(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask, both as RFC 6455 writes it: octet i with mask octet i modulo 4."""
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


def build_frame(
    opcode: int, payload: bytes = b"", *, mask: bytes | None = None, final: bool = True, reserved: int = 0
) -> bytes:
    """One frame with the shortest length field; masked unless mask is None."""
    first = final << 7 | reserved << 4 | opcode
    bit = 0 if mask is None else 128
    if len(payload) < 126:
        header = struct.pack(">BB", first, bit | len(payload))
    elif len(payload) < 65536:
        header = struct.pack(">BBH", first, bit | 126, len(payload))
    else:
        header = struct.pack(">BBQ", first, bit | 127, len(payload))
    return header + payload if mask is None else header + mask + xor_mask(payload, mask)


@dataclass(frozen=True)
class Frame:
    """A frame as it came: `mask` is None when it wasn't masked, `size` counts its bytes on the wire, `passed` says that
    the payload came behind the mask that its sender gave it (candy.3)."""

    opcode: int
    payload: bytes
    final: bool
    mask: bytes | None
    size: int
    passed: bool = False


def read_frame(data: bytes, most: int = MAX_PAYLOAD) -> Frame | int:
    """The frame at the start of data; 0 when more bytes are needed; else the close code deserved. `most`: bytes of a
    payload."""
    if len(data) < 2:
        return 0
    final, reserved, opcode = data[0] >> 7, data[0] >> 4 & 7, data[0] & 15
    masked, length = data[1] >> 7, data[1] & 127
    at = 2
    if reserved or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        return 1002
    if opcode >= CLOSE and not final:
        return 1002
    # A client survives the PONG of 1500 bytes with which the original server answers.
    longest_control = 1500 if opcode == PONG and not masked else 125
    if opcode >= CLOSE and (length == 127 or (length == 126 and longest_control == 125)):
        return 1002
    if length >= 126:
        size = 2 if length == 126 else 8
        if len(data) < at + size:
            return 0
        length = int.from_bytes(data[at : at + size], "big")
        at += size
        if length >= 1 << 63 or length < (126 if size == 2 else 65536):
            return 1002
        if opcode >= CLOSE and length > longest_control:
            return 1002
        if length > most:
            return 1009
    mask = None
    if masked:
        mask = data[at : at + 4]
        at += 4
    if len(data) < at + length:
        return 0
    payload = data[at : at + length]
    return Frame(opcode, xor_mask(payload, mask) if mask else payload, bool(final), mask, at + length)


def read_messages(data: bytes, *, masked: bool, most: int = MAX_PAYLOAD) -> tuple[list[tuple[int, bytes]], int]:
    """All messages and control frames in data, and the close code that it deserves (0: none).

    masked: frames have to be (a server reads), or must not be (a client reads).
    """
    found: list[tuple[int, bytes]] = []
    begun: tuple[int, bytes] | None = None
    while len(data) >= 2:
        frame = read_frame(data, most)
        if (data[1] >> 7) != masked:
            return found, 1002
        if isinstance(frame, int):
            return found, frame
        data = data[frame.size :]
        if frame.opcode == CLOSE:
            code = int.from_bytes(frame.payload[:2], "big")
            allowed = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
            if len(frame.payload) == 1 or (frame.payload and not allowed):
                return found, 1002
        if frame.opcode >= CLOSE:
            found.append((frame.opcode, frame.payload))
            continue
        if (frame.opcode == CONTINUATION) != (begun is not None):
            return found, 1002
        opcode, payload = begun or (frame.opcode, b"")
        payload += frame.payload
        if len(payload) > most:
            return found, 1009
        begun = (opcode, payload)
        if frame.final:
            found.append(begun)
            begun = None
    return found, 0


def take_mask_off(frame: Frame) -> Frame:
    """A frame as a member with candy.3 reads it: a message that begins with a mask is behind that."""
    if frame.opcode != BINARY or len(frame.payload) <= MASK_BYTES or not 128 <= frame.payload[0] <= 254:
        return frame
    payload = xor_mask(frame.payload[MASK_BYTES:], frame.payload[:MASK_BYTES])
    assert payload[:1] in (FORWARD, SUPER, SEALED), "only these pass with their masks"
    return replace(frame, payload=payload, passed=True)


def padded(payload: bytes) -> bytes:
    """A FORWARD or a SUPER as a member with candy.3 sends it: of a length at which a mask passes through."""
    n = len(payload)
    return payload.ljust(126 if 122 <= n < 126 else 65536 if 65532 <= n < 65536 else n, b"\0")


def sealed(source: int, destination: int, body: bytes = bytes(16), *, label: int = 0, session: int = 1) -> bytes:
    """A SEALED, as far as a relay looks into one; `body` is what would be ciphertext and tag."""
    return SEALED + struct.pack(">xHIIIQ", label, source, destination, session, 0) + body


def packet(source: int, destination: int, body: bytes = b"", *, flow: int = 0, protocol: int = 17) -> bytes:
    """A valid IPv4 packet; `flow` is the source port, by which flows are told apart.

    Args:
        source, destination: addresses in host order.
    """
    ports = struct.pack(">HHHH", flow, 9, 8 + len(body), 0)
    length = 20 + len(ports) + len(body)
    header = struct.pack(">BBHHHBBHII", 0x45, 0, length, 0, 0, 64, protocol, 0, source, destination)
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return header[:10] + struct.pack(">H", checksum) + header[12:] + ports + body


def numbered(source: int, destination: int, number: int, size: int = 64, *, flow: int = 0) -> bytes:
    """A FORWARD payload of `size` bytes whose packet carries a number."""
    body = struct.pack(">I", number)
    return FORWARD + packet(source, destination, body + bytes(max(0, size - 33)), flow=flow)


def number_of(payload: bytes) -> tuple[int, int]:
    """Flow and number that numbered() put into a FORWARD payload."""
    flow, number = struct.unpack_from(">H6xI", payload, 21)
    return flow, number


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


def patience_ms(fd: int) -> int:
    """How long the kernel waits for an acknowledgement, at the engine's end of a TCP connection."""
    with socket.socket(fileno=os.dup(fd)) as seen:
        return seen.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


class Peer:
    """The far end of one of the engine's connections.

    Args:
        sock: the test's end; closed by close().
        masking: this end is the WebSocket client, so its frames are masked.
        trunk: this end is another relay: neither end masks.
        candy3: it agreed to candy.3: no kind begins like its masks, and it takes off those of others.
    """

    def __init__(
        self,
        sock: socket.socket | TlsSocket,
        *,
        masking: bool = True,
        candy3: bool = False,
        trunk: bool = False,
        seed: int = 0,
    ) -> None:
        self.sock = sock
        self.masking = masking
        self.trunk = trunk
        self.candy3 = candy3
        self.longest = MAX_CANDY3_PAYLOAD + MASK_BYTES if candy3 else MAX_PAYLOAD
        self.connection = 0
        self.address = 0
        self.random = random.Random(seed)
        self.buffer = b""
        self.unread: deque[Frame] = deque()
        sock.settimeout(PATIENCE)

    def frame(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
        """A frame as this end has to send it."""
        mask = self.random.randbytes(4) if self.masking else None
        if mask is not None and self.candy3:
            mask = bytes([128 + mask[0] % 127]) + mask[1:]
        return build_frame(opcode, payload, mask=mask, final=final)

    def send(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> None:
        self.sock.sendall(self.frame(opcode, payload, final=final))

    def forward(self, *payloads: bytes) -> None:
        """Send these binary messages with one call."""
        self.sock.sendall(b"".join(self.frame(BINARY, payload) for payload in payloads))

    def wait_until_read(self) -> None:
        """Return when the engine has taken every byte (socketpair): what is sent next comes in a read of its own."""
        left = array.array("i", [1])
        while left[0]:
            fcntl.ioctl(self.sock, termios.TIOCOUTQ, left)

    def receive(self, most: int = 65536) -> Frame:
        """The next frame. Raises EOFError at the end of the stream, AssertionError when the bytes are no frame."""
        while not self.unread:
            data = self.sock.recv(most)
            if not data:
                assert not self.buffer, "the stream ended within a frame"
                raise EOFError
            self.buffer += data
            self.take()
        return self.unread.popleft()

    def take(self) -> None:
        """Move whole frames from the buffer to unread."""
        at = 0
        while frame := read_frame(self.buffer[at : at + self.longest + 14], self.longest):
            assert isinstance(frame, Frame), f"the engine sent what deserves close code {frame}"
            assert (frame.mask is None) == (self.masking or self.trunk), "masked by a server, or unmasked by a client"
            assert frame.final, "the engine never sends fragments"
            self.unread.append(take_mask_off(frame) if self.candy3 else frame)
            at += frame.size
        self.buffer = self.buffer[at:]

    def receive_until(self, opcode: int, payload: bytes, *, most: int = 65536) -> list[Frame]:
        """The frames before this one, which is taken as well."""
        before = []
        while (frame := self.receive(most)).opcode != opcode or frame.payload != payload:
            before.append(frame)
        return before

    def receive_all(self) -> list[Frame]:
        """Every frame up to the end of the stream."""
        frames = []
        try:
            while True:
                frames.append(self.receive())
        except EOFError:
            return frames

    def sync(self, *, most: int = 65536) -> list[Frame]:
        """Wait until the engine has done with all that was sent before; returns the frames that came meanwhile.

        The second ping can't be read by the engine before the batch with the first was dealt with. Pongs overtake what
        waits in a queue: see EngineRelay.drain().
        """
        before = []
        for turn in (b"sync 1", b"sync 2"):
            self.send(PING, turn)
            before += self.receive_until(PONG, turn, most=most)
        return before

    def close(self) -> None:
        self.sock.close()


class EngineRelay:
    """An engine with one network (number 0), its members, and what it told of them. Ends with the `with` block."""

    def __init__(self, workers: int = 1, **options: float) -> None:
        options.setdefault("ping_after", 0)
        options.setdefault("dead_after", 0)
        self.engine = _fastpath.Engine(workers, **options)  # type: ignore[arg-type]
        self.engine.add_network(0x0A0000FF)
        self.events: list[tuple[int, int, bytes]] = []
        self.peers: list[Peer] = []
        self.poll = select.poll()
        self.poll.register(self.engine.fileno(), select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        self.engine.stop()
        for peer in self.peers:
            peer.close()

    def adopt(
        self,
        *,
        extended: int = True,
        client: bool = False,
        trunk: bool = False,
        network: int = 0,
        preamble: bytes = b"",
        tail: bytes = b"",
        tcp: bool = False,
        ping_after: float | None = None,
    ) -> Peer:
        """A connection that nobody authenticated. Over TLS its handshake is done."""
        ours, theirs = tcp_pair() if tcp else socket.socketpair()
        tls = DEFAULT_TLS
        end = tls.peer(ours, client=client) if tls else ours
        candy3 = trunk or extended == _fastpath.CANDY3
        peer = Peer(end, masking=not (client or trunk), candy3=candy3, trunk=trunk, seed=len(self.peers))
        self.peers.append(peer)
        try:
            peer.connection = self.engine.adopt(
                theirs.fileno(),
                network=network,
                extended=extended,
                client=client,
                trunk=trunk,
                preamble=preamble,
                tail=tail,
                ping_after=ping_after,
                tls=tls.context(client=client) if tls else None,
            )
        except BaseException:
            theirs.close()
            raise
        theirs.detach()
        if isinstance(end, TlsSocket):
            end.handshake()
            if not preamble:
                peer.sync()  # until then the thread of handshakes may have it
        return peer

    def member(
        self,
        address: int,
        *,
        extended: int = True,
        network: int = 0,
        tail: bytes = b"",
        tcp: bool = False,
        takes_sealed: bool = True,
    ) -> Peer:
        """A connection that owns an address."""
        peer = self.adopt(extended=extended, network=network, tail=tail, tcp=tcp)
        assert self.engine.bind(peer.connection, address, takes_sealed=takes_sealed)
        peer.address = address
        return peer

    @contextmanager
    def device(self, kind: int = socket.SOCK_SEQPACKET, *, vnet: bool = False) -> Iterator[tuple[socket.socket, int]]:
        """A packet-preserving socket in place of a TUN device: the kernel's end, and the device's number."""
        kernel, ours = socket.socketpair(socket.AF_UNIX, kind)
        kernel.settimeout(PATIENCE)
        with kernel, ours:
            yield kernel, self.engine.adopt_tun(ours.fileno(), vnet=vnet)

    def joined(self, tun: int, *, extended: int = True) -> Peer:
        """The relay of a client whose device this is."""
        server = self.adopt(client=True, extended=extended)
        assert self.engine.join(server.connection, tun)
        return server

    def pump(self) -> None:
        """Wait until the engine has something to tell, and note it."""
        assert self.poll.poll(PATIENCE * 1000), f"no event came; so far: {self.events}"
        self.events += self.engine.events()

    def details(self, connection: int, kind: int, count: int = 1) -> list[bytes]:
        """The details of a connection's events of one kind, as soon as there are `count` of them."""

        def found() -> list[bytes]:
            return [detail for number, what, detail in self.events if (number, what) == (connection, kind)]

        while len(found()) < count:
            self.pump()
        return found()

    def cause(self, connection: int) -> str:
        """Why the connection ended, as soon as it did."""
        [detail] = self.details(connection, _fastpath.EVENT_CLOSED)
        return detail.decode().split()[0]

    def dropped(self) -> dict[str, int]:
        """The drop reasons that occurred."""
        return {reason: count for reason, count in self.engine.drops().items() if count}

    def listed(self) -> list[tuple[int, ...]]:
        """The rows of Engine.members()."""
        return list(struct.iter_unpack(_fastpath.MEMBER_FORMAT, self.engine.members()))

    def drain(self, peer: Peer, *, most: int = 65536) -> list[Frame]:
        """Read all that waits for this peer, the only one with a backlog. Every call of recv() takes at most `most`."""
        frames = []
        while self.unaccounted():
            frames += peer.sync(most=most)
        return frames + peer.sync(most=most)

    def unaccounted(self) -> int:
        """Packets that came in and neither left nor were dropped under a name; those that still wait count here."""
        stats, drops = self.engine.stats(), self.engine.drops()
        return stats["packets_in"] - stats["packets_out"] - sum(drops[reason] for reason in PACKET_DROPS)
