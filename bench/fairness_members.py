"""The load of fairness.py: one connection, or many in turn, and its crowd. A process of its own.

It is told what to do in one line of JSON on standard input, and answers that and every later line with one on standard
output; it ends with its standard input:

    {"load": "tiny, to nobody", "port": 40001, "cores": [1]}
    {"connected": 0}                 the crowd is connected, and may not be adopted yet; the load waits for a line
    {}                               starts the load; any later line asks
    {"sent": 1.5, "returns": 0}      frames given to the kernel, connections that ended and came back, both since then
"""

import json
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable

import checkout  # noqa: F401
from fairness_loads import LOADS, RETURNING, SENDER, Load, Way, member, stream
from fairness_relay import HELLO
from machine import pin_congestion

READ_BYTES = 262144
ENDS_AT_ONCE = 64
"""Connections that come and go at a time."""
LINGER_SECONDS = 1.0
SPINS = 1000
"""Turns of a loop between two looks at standard input: much less than a millisecond."""
EVENTS_MAX = 256
HUNG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
CLOSED_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER's: no thousands of ports in TIME_WAIT."""


class Members:
    """All that one load is made of.

    Args:
        port: the relay's.
    """

    def __init__(self, load: Load, port: int) -> None:
        self._load = load
        self._server = ("127.0.0.1", port)
        self._epoll = select.epoll()
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        self._sockets: dict[int, socket.socket] = {}
        self._act: dict[int, Callable[[int], None]] = {}
        self._lingering: deque[tuple[float, int, int]] = deque()
        """When a connection ends, its descriptor, and the address with which it comes back."""
        self._into = bytearray(READ_BYTES)
        self._stream, self._frames = stream(load) if load.frames else (b"", 0)
        self._view = memoryview(self._stream)
        self._at = self._bytes = self.returns = 0
        for number in range(load.crowd.count):
            crowd = load.crowd
            one = self._connect(member(number), extended=crowd.extended, receive_buffer=crowd.receive_buffer)
            if crowd.reads:
                self._watch(one, select.EPOLLIN, self._drain)

    @property
    def sent(self) -> float:
        """Frames given to the kernel, but for those at the start of a connection."""
        return self._bytes / len(self._stream) * self._frames if self._stream else 0.0

    def start(self) -> None:
        if self._load.way in (Way.RETURN, Way.LINGER):
            for number in range(ENDS_AT_ONCE):
                self._come(RETURNING + number)
        elif self._load.way is not Way.SPIN and self._stream:
            self._begin()

    def run(self) -> bool:
        """One turn; whether there is something on standard input."""
        if self._load.way is Way.SPIN:
            for _ in range(SPINS):
                pass
        asked = False
        for file, events in self._epoll.poll(self._wait(), EVENTS_MAX):
            if file == sys.stdin.fileno():
                asked = True
            elif file in self._act:
                self._act[file](events)
        while self._lingering and self._lingering[0][0] <= time.monotonic():
            _, file, address = self._lingering.popleft()
            self._sockets.pop(file).close()
            self._come(address)
        return asked

    def close(self) -> None:
        self._epoll.close()
        for one in self._sockets.values():
            one.close()

    def _wait(self) -> float | None:
        """Seconds until there is something to do even if nothing happens; None: for ever."""
        if self._load.way is Way.SPIN:
            return 0.0
        return max(0.0, self._lingering[0][0] - time.monotonic()) if self._lingering else None

    def _connect(self, address: int, *, extended: bool, receive_buffer: int = 0, more: bytes = b"") -> int:
        """A connection that the relay will adopt; its descriptor."""
        one = socket.socket()
        pin_congestion(one)
        if receive_buffer:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSED_AT_ONCE)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[one.fileno()] = one
        one.connect(self._server)
        one.sendall(HELLO.pack(address, extended) + more)
        one.setblocking(False)
        return one.fileno()

    def _watch(self, file: int, events: int, act: Callable[[int, int], None]) -> None:
        self._act[file] = lambda events: act(file, events)
        self._epoll.register(file, events | select.EPOLLRDHUP)

    def _forget(self, file: int) -> None:
        del self._act[file]
        self._sockets.pop(file).close()

    def _drain(self, file: int, events: int) -> None:
        """Read what is there and throw it away; a member of the crowd that the relay ended is not missed."""
        if events & HUNG_UP:
            self._forget(file)
            return
        self._sockets[file].recv_into(self._into)

    # The one connection of a flood, or of what is sent once.

    def _begin(self) -> None:
        load = self._load
        address = SENDER if load.logged_in else 0
        file = self._connect(address, extended=load.extended, receive_buffer=load.receive_buffer, more=load.first)
        self._at = 0
        self._watch(file, select.EPOLLOUT | (select.EPOLLIN if load.reads else 0), self._flood)

    def _flood(self, file: int, events: int) -> None:
        connection = self._sockets[file]
        if events & HUNG_UP:
            self._forget(file)
            self.returns += 1
            self._begin()
            return
        sent = 0
        try:
            if events & select.EPOLLIN:
                connection.recv_into(self._into)
            if events & select.EPOLLOUT:
                sent = connection.send(self._view[self._at :])
        except (BlockingIOError, ConnectionError):
            # The latter will show as an event.
            return
        self._bytes += sent
        self._at += sent
        if self._at == len(self._stream):
            self._at = 0
            if self._load.way is Way.ONCE:
                self._epoll.modify(file, select.EPOLLRDHUP)

    # Many that come and go.

    def _come(self, address: int) -> None:
        load = self._load
        file = self._connect(address if load.logged_in else 0, extended=load.extended, more=self._stream)
        self._bytes += len(self._stream)
        self._watch(file, select.EPOLLIN, lambda file, events: self._answered(file, address))

    def _answered(self, file: int, address: int) -> None:
        """The relay has answered: end, and come back."""
        self.returns += 1
        if self._load.way is Way.LINGER:
            self._epoll.unregister(file)
            del self._act[file]
            self._lingering.append((time.monotonic() + LINGER_SECONDS, file, address))
        else:
            self._forget(file)
            self._come(address)


def say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    order = json.loads(sys.stdin.readline())
    os.sched_setaffinity(0, order["cores"])
    load = LOADS[order["load"]]
    members = Members(load, order["port"])
    try:
        say({"connected": load.crowd.count})
        if not os.read(sys.stdin.fileno(), 4096):
            return
        members.start()
        say({})
        while True:
            if members.run():
                asked = os.read(sys.stdin.fileno(), 4096)
                if not asked:
                    return
                say({"sent": members.sent, "returns": members.returns})
    finally:
        members.close()


if __name__ == "__main__":
    main()
