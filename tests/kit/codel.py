"""CoDel, slowly, and the engine's beside it on the same arrivals.

Rules:
 1. `CoDel` is the pseudo-code of RFC 8289, section 5, word for word where Python allows it. It takes packets and
    doubles as its own queue; where docs/architecture.md numbers a difference, so does a comment. It shares no code
    with the engine.
 2. `Trial` gives both the same packets and the same clock. Whatever leaves, or is dropped on the way, is compared at
    once; so is what stays.

Knows neither round robin nor shares of memory: which flow is served next it is told by the engine.
"""

import math
from collections import deque
from dataclasses import dataclass

from kit.peer import FORWARD
from kit.superpacket import UDP, A, B, ip_header, udp_header

from candy import _fastpath

MS = 1_000_000
TARGET, INTERVAL, SECOND = 5 * MS, 100 * MS, 1000 * MS
QUANTUM = 1514
"""Bytes: what stays behind a packet that may be dropped is more."""
KEY = (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0)
"""Of the flow hash: any key with which the flows here have sets of their own."""
DELIVER, MARK, DROP = "deliver", "mark", "drop"
NOT_CAPABLE, ECT_1, ECT_0, CE = range(4)
"""The ECN field (RFC 3168)."""
Decision = tuple[str, int]
"""What became of a packet, and its number."""


@dataclass(frozen=True)
class Packet:
    number: int
    size: int
    """Of its frame, bytes."""
    ecn: int
    stamp: int


def control_law(then: int, count: int) -> int:
    return then + int(INTERVAL / math.sqrt(count))


class CoDel:
    """One queue."""

    def __init__(self) -> None:
        self.packets: deque[Packet] = deque()
        self.bytes = 0
        self.first_above = 0
        self.drop_next = 0
        self.count = 0
        self.lastcount = 0
        self.dropping = False

    def enqueue(self, packet: Packet) -> None:
        self.packets.append(packet)
        self.bytes += packet.size

    def dodequeue(self, now: int, rate: int) -> tuple[Packet | None, bool]:
        """The next packet, and whether it may be dropped."""
        if not self.packets:
            self.first_above = 0
            return None, False
        packet = self.packets.popleft()
        self.bytes -= packet.size
        target = max(TARGET, packet.size * SECOND // rate) if rate else TARGET  # difference 1
        if now - packet.stamp < target or self.bytes <= QUANTUM:  # difference 2
            self.first_above = 0
            return packet, False
        if self.first_above == 0:
            self.first_above = now + INTERVAL
            return packet, False
        return packet, now >= self.first_above

    def dequeue(self, now: int, rate: int = 0) -> list[Decision]:
        """All that is decided until a packet leaves, its own way out last; nothing when none waits.

        Args:
            rate: at which the queue drains, bytes a second; 0 unknown.
        """
        decided: list[Decision] = []
        way_out = DELIVER
        packet, ok_to_drop = self.dodequeue(now, rate)
        if self.dropping:
            self.dropping = ok_to_drop
            while self.dropping and now >= self.drop_next and packet is not None:
                self.count += 1
                if packet.ecn != NOT_CAPABLE:  # difference 3
                    self.drop_next = control_law(self.drop_next, self.count)
                    way_out = MARK
                    break
                decided.append((DROP, packet.number))
                packet, ok_to_drop = self.dodequeue(now, rate)
                if ok_to_drop:
                    self.drop_next = control_law(self.drop_next, self.count)
                else:
                    self.dropping = False
        elif ok_to_drop and packet is not None:
            if packet.ecn != NOT_CAPABLE:  # difference 3
                way_out = MARK
            else:
                decided.append((DROP, packet.number))
                packet, _ = self.dodequeue(now, rate)
            self.dropping = True
            delta = self.count - self.lastcount
            self.count = delta if delta > 1 and now - self.drop_next < 16 * INTERVAL else 1
            self.drop_next = control_law(now, self.count)
            self.lastcount = self.count
        return decided if packet is None else [*decided, (way_out, packet.number)]


def payload_of(flow: int, number: int, size: int, ecn: int) -> bytes:
    """A FORWARD with a numbered datagram of a flow."""
    body = number.to_bytes(4, "big") + bytes(size - 4)
    datagram = udp_header(size, ports=(flow, 9)) + body
    return FORWARD + ip_header(len(datagram), UDP, A, B, tos=ecn) + datagram


class Trial:
    """A model for each flow, and the engine's queue of all."""

    def __init__(self, *, masked: bool = False, rate: int = 0) -> None:
        self.backlog = _fastpath.Backlog(key=KEY, masked=masked)
        self.backlog.rate = rate
        self.masked = masked
        self.flows: dict[int, CoDel] = {}
        self.sent: dict[int, list[Packet]] = {}
        self.gone: dict[int, int] = {}
        self.dropped = 0

    def append(self, now: int, size: int = 1000, *, flow: int = 1, ecn: int = NOT_CAPABLE) -> None:
        """A packet comes; its frame has so many bytes, at least 134."""
        header = (6 if self.masked else 2) + 2 + 1 + 28
        sent = self.sent.setdefault(flow, [])
        packet = Packet(len(sent), size, ecn, now)
        sent.append(packet)
        self.flows.setdefault(flow, CoDel()).enqueue(packet)
        self.backlog.append(payload_of(flow, packet.number, size - header, ecn), now)
        self.check()

    def take(self, now: int) -> list[Decision]:
        """The next packet leaves, if any waits; what both decided."""
        payload = self.backlog.take(now)
        if payload is None:
            assert [codel.dequeue(now, self.backlog.rate) for codel in self.flows.values() if codel.packets] == []
            for codel in self.flows.values():
                codel.dequeue(now, self.backlog.rate)
            return []
        decided = self.compare(payload, now)
        self.check()
        return decided

    def commit(self, now: int) -> list[Decision]:
        """As many packets leave as are handed to the kernel together. What is dropped behind the last of them shows
        when the next one leaves."""
        return [one for payload in self.backlog.commit(now) for one in self.compare(payload, now)]

    def compare(self, payload: bytes, now: int) -> list[Decision]:
        flow, number = int.from_bytes(payload[21:23], "big"), int.from_bytes(payload[29:33], "big")
        decided = self.flows[flow].dequeue(now, self.backlog.rate)
        packet, first = self.sent[flow][number], self.gone.get(flow, 0)
        ecn = payload[2] & 3
        assert payload == payload_of(flow, number, len(payload) - 29, ecn)
        assert ecn in (packet.ecn, CE)
        found = [*((DROP, n) for n in range(first, number)), (DELIVER if ecn == packet.ecn else MARK, number)]
        if packet.ecn == CE and decided[-1] == (MARK, number):
            found[-1] = decided[-1]  # a mark on a mark does not show
        assert found == decided, f"at {now} the engine decides {found} and the model {decided}"
        self.gone[flow] = number + 1
        self.dropped += number - first
        return decided

    def shed(self, limit: int = 0) -> None:
        """Lose packets for want of memory until so many bytes wait, of the only flow that has any."""
        self.backlog.shed(limit)
        [flow] = [flow for flow, codel in self.flows.items() if codel.packets]
        codel = self.flows[flow]
        while codel.bytes > limit:
            packet = codel.packets.popleft()
            codel.bytes -= packet.size
            self.gone[flow] = packet.number + 1
        self.check()

    def check(self) -> None:
        """What stays, and what was counted."""
        places = self.backlog.places
        assert sorted(places.values()) == sorted(codel.bytes for codel in self.flows.values() if codel.bytes)
        # A set each, or one could take the place of another that is empty (difference 4).
        assert len({place // 8 for place in places}) == len(places)
        assert self.backlog.drops.get("delay", 0) == self.dropped
