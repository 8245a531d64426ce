"""The machine under the benchmarks: what it is, which core does what, and what else ran meanwhile."""

import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONGESTION = b"cubic"
"""Congestion control of every socket, where the kernel has it: the system's default differs from machine to machine."""


def describe() -> str:
    """Kernel, processor and cores in one line."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    cores = len(os.sched_getaffinity(0))
    return (
        f"Linux {platform.release()}, {processor}, {cores} core{'s' * (cores != 1)}, Python {platform.python_version()}"
    )


def pin_congestion(connection: socket.socket) -> None:
    """Set CONGESTION if it is there."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
    except FileNotFoundError:
        return


def congestion_of(connection: socket.socket) -> str:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


class Cores:
    """Which core the relay has and which its members; without two of them, or unpinned, the kernel places both."""

    def __init__(self, *, pinned: bool) -> None:
        self.all = os.sched_getaffinity(0)
        self.pinned = pinned and len(self.all) >= 2
        self.relay = {min(self.all)} if self.pinned else self.all
        self.members = {max(self.all)} if self.pinned else self.all

    @contextmanager
    def for_relay(self) -> Iterator[None]:
        """Threads and processes started here run on the relay's core; the caller is back on the members' afterwards."""
        os.sched_setaffinity(0, self.relay)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.members)

    def release(self) -> None:
        os.sched_setaffinity(0, self.all)

    def __str__(self) -> str:
        if not self.pinned:
            return "relay and members placed by the kernel"
        return f"relay on core {min(self.relay)}, all members on core {min(self.members)}"


class Bystanders:
    """How busy everybody but the benchmark kept the machine."""

    def __init__(self) -> None:
        self._start = self._busy_idle(), self._own()

    def share(self) -> float:
        """Share of all cores since the start, 0 to 1. Programs that we started count as others until they ended."""
        (busy, idle), own = self._busy_idle(), self._own()
        (busy_before, idle_before), own_before = self._start
        total = busy - busy_before + idle - idle_before
        if total == 0:
            return 0.0
        return max(0.0, (busy - busy_before - (own - own_before)) / total)

    @staticmethod
    def _busy_idle() -> tuple[float, float]:
        ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        idle = ticks[3] + ticks[4]
        hertz = os.sysconf("SC_CLK_TCK")
        return (sum(ticks) - idle) / hertz, idle / hertz

    @staticmethod
    def _own() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system
