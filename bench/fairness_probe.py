"""The bystander of fairness.py: one member sends small packets to another, and both look at the clock.

Packets are sent at random intervals whether the ones before arrived or not: a load that holds the relay up for a
while then delays as many of them as it does of any packets. A packet that is sent only when the one before arrived
would meet each such while just once.
"""

import os
import random
import select
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import TracebackType
from typing import Self

from fairness_loads import BINARY, frame, ip_header
from fairness_relay import HELLO
from machine import pin_congestion

from candy.protocol.wire import Kind

FROM, TO = (int(IPv4Address(text)) for text in ("10.255.0.1", "10.255.0.2"))
INTERVAL_S = 0.0005
"""Mean time from one packet to the next; each is 0.5 to 1.5 of that."""
PATIENCE_S = 10.0
"""A packet that has not arrived so long after the last one was sent is lost."""
READ_BYTES = 262144
NUMBER = struct.Struct("!I")
START = bytes([Kind.FORWARD]) + ip_header(20 + NUMBER.size, FROM, TO, 254)
"""Of each payload; the packet's number follows."""


@dataclass(frozen=True)
class Delays:
    """What became of some packets, nanoseconds for each that arrived."""

    sent: int
    arrived_ns: list[int]

    @property
    def lost(self) -> int:
        return self.sent - len(self.arrived_ns)

    def percentile_ms(self, percent: int) -> float:
        """Lost packets count as PATIENCE_S."""
        all_ns = [*self.arrived_ns, *[round(PATIENCE_S * 1e9)] * self.lost]
        if len(all_ns) < 2 or percent == 100:
            return max(all_ns) / 1e6
        return statistics.quantiles(all_ns, n=100, method="inclusive")[percent - 1] / 1e6


class Payloads:
    """The whole frames in a stream of a relay's."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payload of each binary frame that is whole now; they are to be iterated to the end."""
        data = self._rest + data
        at = 0
        while len(data) >= at + 2:
            length, start = data[at + 1], at + 2
            if length > 125:
                start += 2 if length == 126 else 8
                if len(data) < start:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            if len(data) < start + length:
                break
            if data[at] == 128 | BINARY:
                yield data[start : start + length]
            at = start + length
        self._rest = data[at:]


class Bystander:
    """Two members that log in at once, in this thread.

    Args:
        port: the relay's.
    """

    def __init__(self, port: int) -> None:
        self._from = connect(port, FROM)
        try:
            self._to = connect(port, TO)
        except OSError:
            self._from.close()
            raise
        self._payloads = Payloads()
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        self._from.close()
        self._to.close()

    def probe(self, count: int) -> Delays:
        """Send so many packets and wait for them.

        Raises:
            ConnectionError: the relay ended a connection.
            TimeoutError: it takes no more packets.
        """
        sent_ns: dict[int, int] = {}
        delays: list[int] = []
        interval_ns = INTERVAL_S * 1e9
        last, due = self._next + count, time.perf_counter_ns()
        with urgent():
            while sent_ns or self._next < last:
                now = time.perf_counter_ns()
                if self._next < last and now >= due:
                    sent_ns[self._next] = now
                    self._from.sendall(frame(BINARY, START + NUMBER.pack(self._next)))
                    self._next += 1
                    due = now + round(interval_ns * random.uniform(0.5, 1.5))
                    if self._next == last:
                        due = now + round(PATIENCE_S * 1e9)
                elif self._next == last and now >= due:
                    break
                for number, arrived in self._arrivals((due - now) / 1e9):
                    before = sent_ns.pop(number, None)
                    if before is not None:
                        delays.append(arrived - before)
        return Delays(count, delays)

    def _arrivals(self, patience_s: float) -> Iterator[tuple[int, int]]:
        """Numbers of packets, and when they came, if any comes before so long."""
        readable, _, _ = select.select([self._to, self._from], [], [], max(0.0, patience_s))
        now = time.perf_counter_ns()
        for connection in readable:
            data = connection.recv(READ_BYTES)
            if not data:
                raise ConnectionError("the relay ended a bystander's connection")
            if connection is self._to:
                for payload in self._payloads.feed(data):
                    if payload.startswith(START):
                        yield NUMBER.unpack_from(payload, len(START))[0], now


def connect(port: int, address: int) -> socket.socket:
    """A member that the relay will adopt."""
    connection = socket.socket()
    try:
        pin_congestion(connection)
        connection.settimeout(PATIENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect(("127.0.0.1", port))
        connection.sendall(HELLO.pack(address, True))
    except OSError:
        connection.close()
        raise
    return connection


def may_be_urgent() -> bool:
    try:
        with urgent(required=True):
            return True
    except PermissionError:
        return False


@contextmanager
def urgent(*, required: bool = False) -> Iterator[None]:
    """Run this thread before all others of its core, if that is allowed: the load is on the same one, and its share of
    that core is nothing that the relay could help.

    Raises:
        PermissionError: it is required, and not allowed.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        if required:
            raise
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
