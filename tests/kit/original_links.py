"""The original client's direct links, written after the protocol and not after ours: a peer to test against.

It believes whatever opens, learns its peer's address from any heartbeat, and sends its packets as soon as it has an
acknowledgement. `Wire` carries what peers send each other, by relay and by UDP, in the seconds of a simulated clock.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import count

from candy.member.peers import Endpoint
from candy.protocol import wire
from candy.protocol.datagram import Delay, Heartbeat

INIT, PREPARING, SYNCHRONIZING, CONNECTING, CONNECTED, WAITING, FAILED = range(7)


class Wire:
    """Events in the order of their time; who sends says what happens then."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), what))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = until


@dataclass
class Original:
    """One link of an original client with one peer.

    Args:
        relay: sends a message through the relay.
        udp: sends a plaintext to an endpoint.
        stun: asks the STUN server, whose answer goes to mapped().
    """

    tun: IPv4Address
    peer: IPv4Address
    lan: Endpoint
    relay: Callable[[wire.Udp4Conn | wire.General], None]
    udp: Callable[[Endpoint, Heartbeat | Delay], None]
    stun: Callable[[], None]
    state: int = INIT
    seconds: int = 0
    retry: int = 30
    ack: bool = False
    known: dict[str, Endpoint] = field(default_factory=dict)
    silent: int = 0
    delays: list[Delay] = field(default_factory=list)

    def go(self, state: int) -> None:
        self.state, self.seconds = state, 0
        if state in (INIT, WAITING, FAILED):
            self.known, self.ack = {}, False
        if state == CONNECTED:
            self.silent, self.retry = 0, 30
            self.udp(self.real, Delay(self.tun, self.peer, bytes(8)))

    @property
    def real(self) -> Endpoint:
        return self.known["real"]

    def packet_through_relay(self) -> None:
        if self.state == INIT:
            self.go(PREPARING)

    def mapped(self, public: Endpoint) -> None:
        if self.state != PREPARING:
            return
        self.relay(wire.Udp4Conn(self.tun, self.peer, public.ip, public.port))
        self.go(CONNECTING if "public" in self.known else SYNCHRONIZING)

    def told(self, message: wire.Udp4Conn | wire.General) -> None:
        if isinstance(message, wire.General):
            self.known["lan"] = Endpoint(*message.lan_endpoint)
            return
        if self.state == SYNCHRONIZING:
            self.go(CONNECTING)
        elif self.state not in (CONNECTING, CONNECTED):
            self.go(PREPARING)
            data = wire.General.ENDPOINT.pack(int(self.lan.ip), self.lan.port)
            self.relay(wire.General(0, 0, self.tun, self.peer, data))
        self.known["public"] = Endpoint(message.ip, message.port)

    def received(self, message: Heartbeat | Delay, source: Endpoint) -> None:
        if isinstance(message, Delay):
            if message.dst == self.tun:
                self.delays.append(message)
                self.udp(source, message)
            return
        if self.state in (INIT, WAITING, FAILED):
            return
        if "real" not in self.known or not self.known["real"].ip.is_private or source.ip.is_private:
            self.known["real"] = source
        self.ack = True
        if message.ack:
            self.silent = 0
            if self.state == CONNECTING:
                self.go(CONNECTED)

    def second(self) -> None:
        self.seconds += 1
        beat = Heartbeat(self.tun, self.ack)
        match self.state:
            case _ if self.state == PREPARING:
                self.stun()
                if self.seconds > 10:
                    self.go(FAILED)
            case _ if self.state == SYNCHRONIZING:
                if "lan" in self.known:
                    self.udp(self.known["lan"], beat)
                if self.seconds > 10:
                    self.go(FAILED)
            case _ if self.state == CONNECTING:
                for name in ("public", "lan"):
                    if name in self.known:
                        self.udp(self.known[name], beat)
                if self.seconds > 10:
                    self.go(WAITING)
            case _ if self.state == CONNECTED:
                self.silent += 1
                self.udp(self.real, beat)
                if self.silent > 3:
                    self.go(INIT)
            case _ if self.state == WAITING and self.seconds >= self.retry:
                self.retry = min(2 * self.retry, 3600)
                self.go(INIT)
