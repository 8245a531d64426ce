"""The relays that are measured, all behind one face: made with their members connected and logged in."""

import base64
import os
import secrets
import socket
import struct
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import _endpoints
from machine import Cores, congestion_of, pin_congestion
from topology import Topology

from candy import _fastpath
from candy.protocol import auth, wire

TCP_NOTSENT_LOWAT = 25
"""Of linux/tcp.h; the socket module has it from Python 3.12 on."""
NOTSENT_LOWAT = 65536
"""What the engine begins with; it then follows the rate at which a member drains."""


NAMES = {0: "candy, no candy.2", 1: "candy", _fastpath.CANDY3: "candy, candy.3"}
"""In the table, by what the members agreed to."""


class Contestant(ABC):
    """One relay with the members of a topology.

    Attributes:
        name: in the table.
        topology: who of the members sends to whom.
        endpoints: the members.
    """

    name: str
    topology: Topology
    endpoints: _endpoints.Endpoints

    @abstractmethod
    def cpu_ns(self) -> int:
        """CPU time that the relay has used."""

    def sends(self) -> int | None:
        """Send calls so far, None where the relay doesn't tell."""
        return None

    def drops(self) -> dict[str, int]:
        """Packets dropped so far, by reason."""
        return {}

    @abstractmethod
    def close(self) -> None: ...


def listen() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    pin_congestion(listener)
    return listener


def connect(listener: socket.socket) -> socket.socket:
    """A member's end of a new connection."""
    return connect_to(listener.getsockname())


def connect_to(address: tuple[str, int]) -> socket.socket:
    """The same by address."""
    member = socket.socket()
    pin_congestion(member)
    member.connect(address)
    member.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return member


def connected_pairs(count: int) -> list[tuple[socket.socket, socket.socket]]:
    """(member's end, relay's end) of so many TCP connections, with the options that the engine sets on its end."""
    pairs = []
    with listen() as listener:
        for _ in range(count):
            member = connect(listener)
            relay, _ = listener.accept()
            relay.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            relay.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
            pairs.append((member, relay))
    return pairs


class Candy(Contestant):
    """The engine.

    Args:
        extended: the members agreed to candy.2, or to candy.3 (CANDY3); else each frame leaves as a TCP segment of its
            own.
        sealed: what they send is sealed.

    Attributes:
        threads: the kernel's numbers of the engine's.
    """

    name = "candy"

    def __init__(
        self,
        topology: Topology,
        size: int,
        cores: Cores,
        *,
        workers: int = 1,
        extended: int = True,
        sealed: bool = False,
    ) -> None:
        self.name = "candy, sealed" if sealed else NAMES[extended]
        if topology.stalled:
            self.name += ", one stalled"
        self.topology = topology
        others = threads()
        with cores.for_relay():
            # The members of a bench never say a word on their own: no liveness.
            self._engine = _fastpath.Engine(workers, ping_after=0, dead_after=0)
        self.threads = threads() - others
        self._engine.add_network()
        self._members = []
        for number, (member, relay) in enumerate(connected_pairs(len(topology.routes))):
            self._members.append(member)
            connection = self._engine.adopt(relay.detach(), extended=extended)
            self._engine.bind(connection, _endpoints.MEMBER_BASE + number)
        passed = extended == _fastpath.CANDY3
        self.endpoints = endpoints(self._members, topology, size, passed=passed, sealed=sealed)

    def cpu_ns(self) -> int:
        return sum(self._engine.worker_cpu_ns())

    def sends(self) -> int:
        return self._engine.stats()["sends"]

    def drops(self) -> dict[str, int]:
        return self._engine.drops()

    def close(self) -> None:
        self._engine.stop()
        close_all(self._members)


class Limit(Contestant):
    """A thread that receives and sends the same bytes without looking at them.

    Args:
        unmasks: it passes over them once in between, as unmasking has to, and still without looking.
        segments: each frame leaves as a TCP segment of its own; it is told how long one is.
        sealed: what the members send is sealed, and so longer.
    """

    def __init__(
        self,
        topology: Topology,
        size: int,
        cores: Cores,
        *,
        unmasks: bool = False,
        segments: bool = False,
        sealed: bool = False,
    ) -> None:
        more = [", unmasking"] * unmasks + [", segments"] * segments + [", sealed"] * sealed
        self.name = "limit" + "".join(more)
        self.topology = topology
        pairs = connected_pairs(len(topology.routes))
        self._members = [member for member, _ in pairs]
        self._ends = [relay for _, relay in pairs]
        frame = _endpoints.masked_frame_size(size, sealed=sealed) if topology.mixes or segments else 0
        with cores.for_relay():
            self._relay = _endpoints.BareRelay(
                [relay.fileno() for relay in self._ends],
                topology.routes,
                frame=frame,
                unmasks=unmasks,
                segments=segments,
            )
        self.endpoints = endpoints(
            self._members, topology, size, masked=True, sealed=sealed, addressed=not topology.mixes
        )

    def cpu_ns(self) -> int:
        return self._relay.cpu_ns()

    def sends(self) -> int:
        return self._relay.sends

    def close(self) -> None:
        self._relay.stop()
        close_all(self._members)
        close_all(self._ends)


class Program(Contestant):
    """A relay that is a program of its own, so that its interpreter is not held up by ours.

    Args:
        script: beside this file; takes the descriptor of a listening socket in LISTEN_FD and a CANDY_PASSWORD.
    """

    def __init__(self, script: str, topology: Topology, size: int, cores: Cores) -> None:
        self.name = script.partition("_")[0]
        self.topology = topology
        password = secrets.token_hex(8)
        with listen() as listener, cores.for_relay():
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name(script))],
                env={**os.environ, "CANDY_PASSWORD": password, "LISTEN_FD": str(listener.fileno())},
                pass_fds=[listener.fileno()],
            )
            address = listener.getsockname()
            self._members = [connect(listener) for _ in topology.routes]
        with ExitStack() as undo:
            undo.callback(self.close)
            for number, member in enumerate(self._members):
                log_in(member, address, IPv4Address(_endpoints.MEMBER_BASE + number), password.encode())
            undo.pop_all()
        self.endpoints = endpoints(self._members, topology, size)

    def cpu_ns(self) -> int:
        return _endpoints.process_cpu_ns(self._process.pid)

    def close(self) -> None:
        close_all(self._members)
        self._process.kill()
        self._process.wait()


class Aiohttp(Program):
    def __init__(self, topology: Topology, size: int, cores: Cores) -> None:
        super().__init__("aiohttp_relay.py", topology, size, cores)


class Picows(Program):
    def __init__(self, topology: Topology, size: int, cores: Cores) -> None:
        super().__init__("picows_relay.py", topology, size, cores)


def log_in(member: socket.socket, server: tuple[str, int], ip: IPv4Address, password: bytes) -> None:
    """Upgrade a connection to a WebSocket and authenticate; returns when the relay has read that."""
    member.sendall(
        f"GET / HTTP/1.1\r\nHost: {server[0]}:{server[1]}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = receive_until(member, b"\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 101 "):
        raise ConnectionError(f"the relay did not upgrade: {answer.splitlines()[0]!r}")
    now = int(time.time())
    message = wire.Auth(ip, now, auth.auth_digest(password, ip, now)).encode()
    ping, pong = b"\x89", b"\x8a\x00"
    member.sendall(client_frame(b"\x82", message) + client_frame(ping, b""))
    receive_until(member, pong)


def client_frame(first: bytes, payload: bytes) -> bytes:
    """A frame of at most 125 bytes with the mask 0, which is one as good as any."""
    return first + struct.pack("!BI", 128 | len(payload), 0) + payload


def receive_until(member: socket.socket, end: bytes) -> bytes:
    got = b""
    while not got.endswith(end):
        more = member.recv(4096)
        if not more:
            raise ConnectionError("the relay ended the connection")
        got += more
    return got


def endpoints(
    members: Sequence[socket.socket],
    topology: Topology,
    size: int,
    *,
    masked: bool = False,
    passed: bool = False,
    sealed: bool = False,
    addressed: bool = True,
) -> _endpoints.Endpoints:
    return _endpoints.Endpoints(
        [member.fileno() for member in members],
        topology.routes,
        size,
        window_bytes=topology.window_bytes,
        masked=masked,
        passed=passed,
        sealed=sealed,
        addressed=addressed,
        stalled=topology.stalled,
    )


def threads() -> set[int]:
    """The kernel's numbers of this process's threads."""
    return {int(name) for name in os.listdir("/proc/self/task")}


def close_all(connections: Sequence[socket.socket]) -> None:
    for connection in connections:
        connection.close()


def congestion() -> str:
    """The congestion control that the connections really have."""
    [(member, relay)] = connected_pairs(1)
    with member, relay:
        return congestion_of(relay)
