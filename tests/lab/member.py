"""A member that a test plays by hand: candy's protocol on a blocking socket, right or wrong as the test wants it.

    connect() ─▶ 101 ─▶ send(…), log_in(ip), … ─▶ receive() ─▶ close()

Frames are kit.peer's, which reads them strictly; of the messages in them nothing is believed and nothing checked.
"""

import itertools
import os
import socket
import struct
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface
from types import TracebackType
from typing import Self

from kit.peer import BINARY, CLOSE, PING, PONG, Peer, build_frame
from lab.programs import PASSWORD, PATIENCE_S, connect

from candy.protocol import auth, wire

_payloads = itertools.count(1)
_vmacs = itertools.count(1)


def upgrade_request(
    *headers: str, path: str = "/", key: str = "AAAAAAAAAAAAAAAAAAAAAA==", extended: bool = False
) -> bytes:
    """As the original client's, with further header lines behind it."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: relay",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
        *(["Sec-WebSocket-Protocol: candy.2"] if extended else []),
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def frame(payload: bytes, opcode: int = BINARY, *, final: bool = True, masked: bool = True) -> bytes:
    """One WebSocket frame."""
    return build_frame(opcode, payload, mask=os.urandom(4) if masked else None, final=final)


def everything(opened: socket.socket) -> bytes:
    """What comes up to the end, be it orderly or not."""
    received = b""
    try:
        while data := opened.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(source: str, destination: str, data: bytes = b"", protocol: int = 17) -> bytes:
    """An IPv4 packet with a right header; for UDP (17) `data` is whatever it is."""
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0, 64, protocol, 0) + addresses
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + data


def echo(source: str, destination: str, number: int, data: bytes = b"", *, reply: bool = False) -> bytes:
    """An ICMP echo request or reply as an IPv4 packet."""
    body = struct.pack(">BBHHH", 0 if reply else 8, 0, 0, 0x6361, number) + data
    return packet(source, destination, body[:2] + struct.pack(">H", checksum(body)) + body[4:], protocol=1)


class Ended(Exception):
    """The peer ended the connection."""


class Speaker:
    """Makes the messages of one member, right ones unless told otherwise.

    Args:
        vmac: 16 hex characters; by default nobody else's.
    """

    def __init__(self, vmac: bytes | None = None, password: str = PASSWORD) -> None:
        self.password = password.encode()
        self.vmac = vmac if vmac is not None else b"%016x" % next(_vmacs)

    def auth(self, ip: str, timestamp: int | None = None) -> bytes:
        timestamp = int(time.time()) if timestamp is None else timestamp
        address = IPv4Address(ip)
        return wire.Auth(address, timestamp, auth.auth_digest(self.password, address, timestamp)).encode()

    def greeting(self, timestamp: int | None = None) -> bytes:
        """VMAC."""
        timestamp = int(time.time()) if timestamp is None else timestamp
        return wire.Vmac(self.vmac, timestamp, auth.vmac_digest(self.password, self.vmac, timestamp)).encode()

    def request(self, cidr: str = "0.0.0.0/0", timestamp: int | None = None) -> bytes:
        """EXPTTUN."""
        timestamp = int(time.time()) if timestamp is None else timestamp
        digest = auth.expttun_digest(self.password, timestamp)
        return wire.Expttun(timestamp, IPv4Interface(cidr), digest).encode()


class Member(Speaker):
    """A connection behind its upgrade.

    Args:
        opened: a connected socket, owned from here on.
        ahead: bytes to send together with the upgrade request.
        path: of the network.
        headers: further lines of the request.
        extended: offer candy.2.
        vmac, password: as for Speaker.
    """

    def __init__(
        self,
        opened: socket.socket,
        *,
        ahead: bytes = b"",
        path: str = "/",
        headers: Sequence[str] = (),
        extended: bool = False,
        vmac: bytes | None = None,
        password: str = PASSWORD,
    ) -> None:
        super().__init__(vmac, password)
        self.socket = opened
        self.socket.settimeout(PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers_pings = True
        self.ip: IPv4Address | None = None
        self.socket.sendall(upgrade_request(*headers, path=path, extended=extended) + ahead)
        received = b""
        while b"\r\n\r\n" not in received:
            data = self.socket.recv(65536)
            if not data:
                raise Ended("end of stream")
            received += data
        head, _, behind = received.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        assert self.head.startswith("HTTP/1.1 101 "), self.head
        self._peer = Peer(opened, candy3="Sec-WebSocket-Protocol: candy.3" in self.head.split("\r\n"))
        self._peer.buffer = behind
        self.socket.settimeout(PATIENCE_S)
        self._peer.take()

    @classmethod
    def connect(
        cls,
        address: tuple[str, int],
        *,
        path: str = "/",
        extended: bool = False,
        vmac: bytes | None = None,
        password: str = PASSWORD,
    ) -> Self:
        opened = connect(address)
        return cls(opened, path=path, extended=extended, vmac=vmac, password=password)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, payload: bytes, opcode: int = BINARY, *, final: bool = True, masked: bool = True) -> None:
        self.socket.sendall(frame(payload, opcode, final=final, masked=masked))

    def forward(self, packet: bytes) -> None:
        """Send an IPv4 packet."""
        self.send(bytes([wire.Kind.FORWARD]) + packet)

    def receive(self) -> tuple[int, bytes]:
        """The next frame, (opcode, payload); a PING is answered before.

        Raises:
            Ended: there is none any more.
        """
        try:
            frame = self._peer.receive()
        except (EOFError, ConnectionError) as error:
            raise Ended(str(error) or "end of stream") from error
        if frame.opcode == PING and self.answers_pings:
            self.send(frame.payload, PONG)
        return frame.opcode, frame.payload

    def receive_message(self) -> bytes:
        """The next binary message; control frames are passed over, but for the end.

        Raises:
            Ended: a close frame, or the end without one.
        """
        while True:
            opcode, payload = self.receive()
            if opcode == BINARY:
                return payload
            if opcode == CLOSE:
                raise Ended(f"closed with {int.from_bytes(payload[:2], 'big')}")

    def receive_packet(self) -> bytes:
        """The next message, which is an IPv4 packet."""
        message = self.receive_message()
        assert message[0] == wire.Kind.FORWARD, message
        return message[1:]

    def end(self) -> int | None:
        """Wait for the relay to end this connection: its close code, None for an end without a word."""
        try:
            while True:
                opcode, payload = self.receive()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big")
        except Ended:
            return None

    # Parts of a session.

    def ask(self, cidr: str = "0.0.0.0/0") -> IPv4Interface:
        """Have an address granted. As this is answered in Python, everything sent before was seen by it then."""
        self.send(self.request(cidr))
        message = wire.decode(self.receive_message())
        assert isinstance(message, wire.Expttun)
        return message.address

    def log_in(self, ip: str, timestamp: int | None = None) -> Self:
        """Authenticate, and wait until this was believed. Twice within a second with one address is a replay.

        Raises:
            Ended: it was not.
        """
        self.send(self.auth(ip, timestamp))
        self.ip = IPv4Address(ip)
        self.settle()
        return self

    def settle(self) -> list[bytes]:
        """Return once all that was sent was acted upon, in the engine and in Python: two messages to ourselves.

        What came meanwhile is the result.
        """
        assert self.ip is not None
        data = b"settle %d" % next(_payloads)
        to_self = wire.General(7, 0, self.ip, self.ip, data).encode()
        through = bytes([wire.Kind.FORWARD]) + packet(str(self.ip), str(self.ip), data)
        came = []
        for message in (to_self, through):
            self.send(message)
            while (received := self.receive_message()) != message:
                came.append(received)
        return came
