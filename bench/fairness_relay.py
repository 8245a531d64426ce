"""The relay of fairness.py: an engine that adopts each connection. A process of its own, which has its own GIL.

It is told what to do in one line of JSON on standard input, and answers that and every later line with one on standard
output; it ends with its standard input:

    {"worker_cores": [0], "other_cores": [1], "engine": {"ping_after": 1.0}, "device": false}
    {"port": 40001}                                  where it listens on 127.0.0.1
    {}                                               any line asks for totals since the start
    {"adopted": 3, "gone": 1, "refused": 0, "cpu_ns": 1, "stats": {…}, "drops": {…}}

A connection begins with a HELLO instead of an HTTP upgrade; all behind it is for the engine. It uses nothing but what
every build's Engine has, and does nothing about the messages that members send. A device takes root's rights.
"""

import json
import os
import selectors
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import checkout  # noqa: F401
from fairness_loads import DEVICE
from machine import pin_congestion

from candy import _fastpath
from candy.host.tun import Tun
from candy.options import DEFAULT_MTU

HELLO = struct.Struct("!IBxxx")
"""The address to bind, 0 for none, and whether candy.2 was agreed to."""
HELLO_SECONDS = 1.0
BACKLOG = 4096
AT_A_TIME = 64
"""Connections adopted before events are looked at."""
PREFERRED_NICE = -20
AUTOGROUP = Path("/proc/self/autogroup")
TCP_DEFER_ACCEPT_SECONDS = 1
"""A connection is accepted when its HELLO is there."""


def say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


class RelayUnderLoad:
    """The engine's Python side."""

    def __init__(self, engine: _fastpath.Engine, listener: socket.socket) -> None:
        self._engine = engine
        self._listener = listener
        self._adopted = self._gone = self._refused = 0

    def run(self) -> None:
        """Until standard input ends."""
        with selectors.EpollSelector() as selector:
            for file, act in (
                (self._listener, self._admit),
                (self._engine.fileno(), self._hear),
                (sys.stdin.fileno(), self._answer),
            ):
                selector.register(file, selectors.EVENT_READ, act)
            while all(key.data() for key, _ in selector.select()):
                pass

    def _admit(self) -> bool:
        for _ in range(AT_A_TIME):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                break
            try:
                self._adopt(connection)
                self._adopted += 1
            except OSError:
                # It was given up by its own side already, or every slot is taken.
                connection.close()
                self._refused += 1
        return True

    def _adopt(self, connection: socket.socket) -> None:
        connection.settimeout(HELLO_SECONDS)
        hello = connection.recv(HELLO.size, socket.MSG_WAITALL)
        if len(hello) < HELLO.size:
            raise ConnectionResetError("it ended within its HELLO")
        address, extended = HELLO.unpack(hello)
        number = self._engine.adopt(connection.fileno(), extended=bool(extended))
        connection.detach()
        if address:
            self._engine.bind(number, address)

    def _hear(self) -> bool:
        self._gone += sum(what == _fastpath.EVENT_CLOSED for _, what, _ in self._engine.events())
        return True

    def _answer(self) -> bool:
        asked = os.read(sys.stdin.fileno(), 4096)
        for _ in range(asked.count(b"\n")):
            say(
                {
                    "adopted": self._adopted,
                    "gone": self._gone,
                    "refused": self._refused,
                    "cpu_ns": sum(self._engine.worker_cpu_ns()),
                    "stats": self._engine.stats(),
                    "drops": self._engine.drops(),
                }
            )
        return bool(asked)


@contextmanager
def preferred() -> Iterator[None]:
    """Prefer the threads that are started here to the machine's other users, where that is allowed."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PREFERRED_NICE)
        # Where the kernel groups by session, a thread's own counts within its session alone, and this is a new one.
        if AUTOGROUP.exists():
            AUTOGROUP.write_text(str(PREFERRED_NICE))
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, usual)


@contextmanager
def own_interface(engine: _fastpath.Engine) -> Iterator[None]:
    """The relay's interface. It has no address in the kernel, which takes each packet and throws it away."""
    with Tun(f"fair{os.getpid()}", DEFAULT_MTU) as tun:
        subprocess.run(["ip", "link", "set", tun.name, "up"], check=True)
        engine.bind(engine.adopt_tun(tun.fileno(), vnet=tun.vnet), DEVICE)
        yield


def main() -> None:
    order = json.loads(sys.stdin.readline())
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener, ExitStack() as stack:
        pin_congestion(listener)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, TCP_DEFER_ACCEPT_SECONDS)
        listener.setblocking(False)
        # The worker inherits the cores of the thread that starts it, and its priority.
        os.sched_setaffinity(0, order["worker_cores"])
        with preferred():
            engine = _fastpath.Engine(1, **{"ping_after": 0, "dead_after": 0, **order["engine"]})
        os.sched_setaffinity(0, order["other_cores"])
        try:
            engine.add_network()
            if order["device"]:
                stack.enter_context(own_interface(engine))
            say({"port": listener.getsockname()[1]})
            RelayUnderLoad(engine, listener).run()
        finally:
            engine.stop()


if __name__ == "__main__":
    main()
