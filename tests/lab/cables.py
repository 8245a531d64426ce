"""A cable that loses, reorders and delays what goes over it: it forwards Ethernet frames, for kernels without netem.

    hub: bridge0 ── near ═ this thread ═ far ── port bridge ── portN ── eth0, host

Rules: the kernel gives it each frame whole, cut and summed as it would go over a wire; which is lost or held back is
drawn from a seed, and how long one is held back is said in frames of the same direction, not in time, but for the last.
A delay is what each frame takes at least, and none overtakes another by it.
"""

import fcntl
import os
import select
import struct
import threading
import time
from collections import deque
from random import Random
from types import TracebackType
from typing import Final, Self

from lab.namespaces import Host, Namespace

TUNSETIFF: Final = 0x400454CA
IFF_TAP_WITHOUT_HEADER: Final = 0x0002 | 0x1000
LONGEST: Final = 2048
LAST_MS: Final = 5
"""After this long without a frame what is held back goes on; and by so much a delay may be longer than it is said."""


class Cable:
    """Put between a host and its hub.

    Args:
        loss: the share of frames that are lost, of each direction.
        held: the share that is held back.
        behind: the number of frames that overtake such a one.
    """

    def __init__(
        self, hub: Namespace, host: Host, *, loss: float = 0.0, held: float = 0.0, behind: int = 3, seed: int = 1
    ) -> None:
        self.lost = self.reordered = self.carried = 0
        self.delay_s = 0.0
        """Of each frame, either way, from now on."""
        self._loss, self._held, self._behind = loss, held, behind
        self._random = Random(seed)
        with hub:
            self._ends = [_tap(f"{end}{host.port}") for end in ("near", "far")]
        bridge = f"own{host.port}"
        hub.run("ip", "link", "add", bridge, "type", "bridge")
        hub.run("ip", "link", "set", host.port, "nomaster")
        for name, master in ((f"near{host.port}", "bridge0"), (f"far{host.port}", bridge), (host.port, bridge)):
            hub.run("ip", "link", "set", name, "master", master, "up")
        hub.run("ip", "link", "set", bridge, "up")
        self._late: dict[int, deque[tuple[float, bytes]]] = {end: deque() for end in self._ends}
        """Frames for an end, each with the time at which it gets there."""
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._forward, name=f"cable of {host.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._stopped)
        self._thread.join()
        for each in (*self._ends, self._stop):
            os.close(each)

    def _forward(self) -> None:
        waiting: dict[int, deque[tuple[int, bytes]]] = {end: deque() for end in self._ends}
        """Frames of an end that are held back, each with the number of those that go before it."""
        others = dict(zip(self._ends, reversed(self._ends), strict=True))
        poll = select.poll()
        for each in (*self._ends, self._stop):
            poll.register(each, select.POLLIN)
        while True:
            ready = poll.poll(LAST_MS)
            if any(end == self._stop for end, _ in ready):
                return
            for end, _ in ready:
                self._take(os.read(end, LONGEST), others[end], waiting[end])
            if not ready:
                for end, held in waiting.items():
                    while held:
                        self._put(held.popleft()[1], others[end])
            self._arrive()

    def _take(self, frame: bytes, to: int, held: deque[tuple[int, bytes]]) -> None:
        self.carried += 1
        if self._random.random() < self._loss:
            self.lost += 1
            return
        if self._random.random() < self._held:
            self.reordered += 1
            held.append((self._behind, frame))
            return
        self._put(frame, to)
        for number in range(len(held)):
            held[number] = held[number][0] - 1, held[number][1]
        while held and held[0][0] <= 0:
            self._put(held.popleft()[1], to)

    def _put(self, frame: bytes, to: int) -> None:
        self._late[to].append((time.monotonic() + self.delay_s, frame))

    def _arrive(self) -> None:
        now = time.monotonic()
        for end, late in self._late.items():
            while late and late[0][0] <= now:
                os.write(end, late.popleft()[1])


def _tap(name: str) -> int:
    opened = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(opened, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP_WITHOUT_HEADER))
    return opened
