"""The original's server as its members see it, for tests to play with: it tells the routes that a test gives it,
answers PING with 1500 bytes, forwards whatever it gets by its destination, and checks nothing but masks.

    OriginalRelay(hub, address) ─▶ tell(ip, entries), forward(packet) … ─▶ close()

With `extended` it chooses candy.2, as our relay does, and so may tell sets.
"""

import base64
import hashlib
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import TracebackType
from typing import Self

from kit.peer import BINARY, CLOSE, PING, PONG, build_frame, xor_mask
from lab.namespaces import Namespace
from lab.programs import PASSWORD, PATIENCE_S

from candy.protocol import auth, wire

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
DESTINATION_AT = {wire.Kind.FORWARD: 17, wire.Kind.SUPER: 27}


def entry(destination: str, next_hop: str) -> wire.RouteEntry:
    return wire.RouteEntry(IPv4Network(destination), IPv4Address(next_hop))


class _Connection:
    """One member's; a thread reads it."""

    def __init__(self, opened: socket.socket, extended: bool) -> None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = opened
        self._lock = threading.Lock()
        self._stream = opened.makefile("rb")
        lines = iter(lambda: self._stream.readline().decode().strip(), "")
        headers = dict(line.split(": ", 1) for line in lines if ": " in line)
        accept = base64.b64encode(hashlib.sha1((headers["Sec-WebSocket-Key"] + _GUID).encode()).digest()).decode()
        answer = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        answer += [
            f"Sec-WebSocket-Accept: {accept}",
            *(["Sec-WebSocket-Protocol: candy.2"] if extended else []),
            "",
            "",
        ]
        opened.sendall("\r\n".join(answer).encode())

    def send(self, payload: bytes, opcode: int = BINARY) -> None:
        # The member may be gone; then its thread ends as well.
        with self._lock, suppress(OSError):
            self.socket.sendall(build_frame(opcode, payload))

    def receive(self) -> tuple[int, bytes]:
        """The next frame.

        Raises:
            EOFError: there is none any more.
        """
        head = self._read(2)
        assert head[1] & 0x80, "a client masks"
        size = head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
        mask = self._read(4)
        return head[0] & 15, xor_mask(self._read(size), mask)

    def _read(self, count: int) -> bytes:
        try:
            data = self._stream.read(count)
        except OSError as error:
            raise EOFError from error
        if len(data) < count:
            raise EOFError
        return data

    def end(self) -> None:
        """Wake the thread that reads, which closes it."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._stream.close()
        self.socket.close()


class OriginalRelay:
    """A relay on the hub.

    Args:
        hub: where it listens.
        address: on which.
        extended: choose candy.2.
        grant: the address for a member that asks for one.
        echo: it has not got the password, and answers a request for an address with the request's own time and digest.
    """

    def __init__(
        self,
        hub: Namespace,
        address: tuple[str, int],
        *,
        extended: bool = False,
        grant: str = "192.168.202.77/24",
        echo: bool = False,
    ) -> None:
        self.extended = extended
        self.echo = echo
        self.grant = grant
        self.rules: dict[str, list[list[wire.RouteEntry]]] = {}
        """What a member is told when it logs in, message by message."""
        self.longest = 0
        """Bytes of the longest payload that came in."""
        self.wrapped: list[bytes] = []
        """The outer headers of the last thousand packets with protocol 4."""
        self.logins: list[str] = []
        self._members: dict[IPv4Address, _Connection] = {}
        self._changed = threading.Condition()
        self._open: set[_Connection] = set()
        with hub:
            self._listener = socket.create_server(address)
        self._threads = [threading.Thread(target=self._accept, name="original relay", daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def tell(self, ip: str, entries: Iterable[wire.RouteEntry], flags: int = 0) -> None:
        """Send a member one ROUTE."""
        self._member(ip).send(wire.Route(tuple(entries), flags).encode())

    def tell_set(self, ip: str, *entries: wire.RouteEntry) -> None:
        """Send a member a whole set of candy.2."""
        self.tell(ip, entries, wire.Route.FIRST | wire.Route.LAST)

    def tell_behind(self, ip: str, *placements: wire.Placement) -> None:
        """Send a member with candy.2 a whole set of what lies behind whom."""
        self._member(ip).send(wire.Behind(placements, wire.Behind.FIRST | wire.Behind.LAST).encode())

    def forward(self, packet: bytes) -> None:
        """Send a packet, whatever it is, to the member of its destination."""
        self._member(str(IPv4Address(packet[16:20]))).send(bytes([wire.Kind.FORWARD]) + packet)

    def hang_up(self, ip: str) -> None:
        self._member(ip).end()

    def logged_in(self, ip: str, times: int = 1) -> None:
        """Wait until a member has logged in this often."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.logins.count(ip) >= times, PATIENCE_S):
                raise AssertionError(f"{ip} did not log in: {self.logins}")

    def close(self) -> None:
        # Closing alone would not wake accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            connection.end()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _member(self, ip: str) -> _Connection:
        self.logged_in(ip)
        return self._members[IPv4Address(ip)]

    def _accept(self) -> None:
        while True:
            try:
                opened, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(opened,), name="member", daemon=True))
            self._threads[-1].start()

    def _serve(self, opened: socket.socket) -> None:
        with closing(_Connection(opened, self.extended)) as connection:
            self._open.add(connection)
            try:
                while True:
                    opcode, payload = connection.receive()
                    if opcode == PING:
                        connection.send(payload if self.extended else payload + bytes(1500 - len(payload)), PONG)
                    elif opcode == CLOSE:
                        connection.send(payload, CLOSE)
                    elif opcode == BINARY:
                        self._take(connection, payload)
            except EOFError:
                self._open.discard(connection)

    def _take(self, connection: _Connection, payload: bytes) -> None:
        self.longest = max(self.longest, len(payload))
        if (at := DESTINATION_AT.get(wire.Kind(payload[0]))) is not None:
            outer = payload[at - 16 : at + 4]
            if outer[9] == 4:
                self.wrapped = [*self.wrapped[-999:], outer]
            if (member := self._members.get(IPv4Address(payload[at : at + 4]))) is not None:
                member.send(payload)
            return
        match wire.decode(payload):
            case wire.Expttun(timestamp=timestamp, digest=digest) if self.echo:
                connection.send(wire.Expttun(timestamp, IPv4Interface(self.grant), digest).encode())
            case wire.Expttun():
                now = int(time.time())
                digest = auth.expttun_digest(PASSWORD.encode(), now)
                connection.send(wire.Expttun(now, IPv4Interface(self.grant), digest).encode())
            case wire.Auth(ip=ip):
                self._members[ip] = connection
                for entries in self.rules.get(str(ip), []):
                    connection.send(wire.Route(tuple(entries)).encode())
                with self._changed:
                    self.logins.append(str(ip))
                    self._changed.notify_all()
