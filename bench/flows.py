"""The flows of a latency measurement: frames in memory, clocks as arguments. Knows neither sockets nor the relay.

    Ping        one small packet after the other at random intervals; the member answers each
    ClosedLoop  as TCP: a window that grows with what is acknowledged and shrinks when something was lost
    OpenLoop    a constant rate, whatever arrives

A packet is UDP over IPv4 with a sequence number behind the ports, so that each flow is told apart by the relay.
"""

import random
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator

from candy.protocol import wire

_HEADER = struct.Struct("!BBHHHBBH4s4sHHHHI")
"""IPv4 and UDP headers, then the sequence number."""
_KIND = bytes([wire.Kind.FORWARD])
_UDP = 17
MEMBER, PINGER, BULK = (bytes([10, 64, 0, last]) for last in (1, 2, 3))
"""Addresses: the member behind the link, and who sends to it."""
PING_SIZE = 100
BULK_SIZE = 1400
ACK_SIZE = _HEADER.size
PING_PORT, BULK_PORT = 7, 9
"""Bulk flows have ports from this one on."""
LOST_AFTER_S = 1.0


def frame(source: bytes, destination: bytes, port: int, sequence: int, size: int) -> bytes:
    """A packet of `size` bytes as a client's frame, with the mask 0, which is one as good as any."""
    header = _HEADER.pack(0x45, 0, size, 0, 0, 64, _UDP, 0, source, destination, port, port, size - 20, 0, sequence)
    length = size + len(_KIND)
    start = struct.pack("!BBH", 0x82, 128 | 126, length) if length > 125 else struct.pack("!BB", 0x82, 128 | length)
    return start + bytes(4) + _KIND + header + bytes(size - _HEADER.size)


class Frames:
    """The packets in a stream of a relay's frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """Port, sequence number and size of each packet that is whole now; they are to be iterated to the end."""
        data = self._rest + data
        at = 0
        while len(data) >= at + 4:
            length, start = data[at + 1], at + 2
            if length == 126:
                length, start = data[at + 2] << 8 | data[at + 3], at + 4
            if len(data) < start + length:
                break
            fields = _HEADER.unpack_from(data, start + len(_KIND))
            yield fields[11], fields[14], fields[2]
            at = start + length
        self._rest = data[at:]


class Ping:
    """Round trips.

    Args:
        interval_s: mean time from one to the next.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next = 0
        self.due = 0.0
        self._sent: dict[int, float] = {}
        self.round_trips_s: list[float] = []

    def send(self, now: float) -> bytes:
        # At random, so that they don't keep step with anything.
        self.due = now + self._interval_s * random.uniform(0.5, 1.5)
        self._next += 1
        self._sent[self._next] = now
        return frame(PINGER, MEMBER, PING_PORT, self._next, PING_SIZE)

    def answered(self, sequence: int, now: float) -> None:
        sent = self._sent.pop(sequence, None)
        if sent is not None:
            self.round_trips_s.append(now - sent)

    def lost(self, now: float) -> int:
        """How many are waited for too long."""
        return sum(now - sent > LOST_AFTER_S for sent in self._sent.values())

    def restart(self) -> None:
        """Forget what was measured so far."""
        self.round_trips_s.clear()
        self._sent.clear()


class Bulk(ABC):
    """Large packets to the member.

    Args:
        port: the flow's, by which the relay tells it from others.
    """

    def __init__(self, port: int = BULK_PORT) -> None:
        self.port = port
        self._next = 0

    @abstractmethod
    def allowed(self, now: float) -> int:
        """How many packets may be sent now."""

    @abstractmethod
    def acknowledged(self, sequence: int, now: float) -> None:
        """The packet with this number arrived."""

    def send(self) -> bytes:
        self._next += 1
        return frame(BULK, MEMBER, self.port, self._next, BULK_SIZE)


class OpenLoop(Bulk):
    """A constant rate.

    Args:
        rate: bits a second.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._per_second = rate / 8 / BULK_SIZE
        self._since: float | None = None

    def allowed(self, now: float) -> int:
        if self._since is None:
            self._since = now
        return int((now - self._since) * self._per_second) - self._next

    def acknowledged(self, sequence: int, now: float) -> None:
        pass


class ClosedLoop(Bulk):
    """TCP's congestion control (RFC 5681) with CUBIC's factor (RFC 9438): slow start, then one packet more per round
    trip, and 0.7 of the window after a loss, once per round trip. The relay keeps order, so a gap is a loss."""

    FACTOR = 0.7
    WINDOW_MAX = 2048
    """Packets: about what a receiver's window holds with the usual settings."""

    def __init__(self, port: int = BULK_PORT) -> None:
        super().__init__(port)
        self._window = 10.0
        self._slow_start = True
        self._last = 0
        """Highest number that is known to have arrived."""
        self._recover = 0
        """A loss of a number up to this one is part of a loss that was acted upon."""
        self._moved = 0.0

    def allowed(self, now: float) -> int:
        if self._next != self._last and self._moved and now - self._moved > LOST_AFTER_S:
            self._last, self._window = self._next, 2.0
        return int(self._window) - (self._next - self._last)

    def acknowledged(self, sequence: int, now: float) -> None:
        self._moved = now
        if sequence <= self._last:
            return
        if sequence != self._last + 1 and self._last >= self._recover:
            self._window = max(2.0, self._window * self.FACTOR)
            self._slow_start = False
            self._recover = self._next
        elif sequence == self._last + 1:
            self._window = min(self.WINDOW_MAX, self._window + (1 if self._slow_start else 1 / self._window))
        self._last = sequence
