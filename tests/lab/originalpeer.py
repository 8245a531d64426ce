"""The original's client with sockets of its own: kit.original_links behind a relay, on a host of the laboratory.

    OriginalPeer(host, "192.168.202.77", "192.168.202.1") ─▶ runs on a thread, and answers pings ─▶ close()

Packets that come by UDP are counted apart from those that come by the relay.
"""

import select
import socket
import threading
import time
from ipaddress import IPv4Address
from types import TracebackType
from typing import Self

from kit import original_links
from kit.old_linked import opened, sealed
from kit.original_links import Original
from kit.peer import BINARY
from lab.laboratory import PORT
from lab.member import Ended, Member, echo
from lab.namespaces import Ethernet, Host
from lab.programs import PASSWORD

from candy.errors import WireError
from candy.member.peers import Endpoint
from candy.protocol import datagram, stun, wire
from candy.protocol.datagram import Delay, Heartbeat, recipient_key

FORWARD = bytes([wire.Kind.FORWARD])
STUN_ID = b"twelve bytes"


class OriginalPeer:
    """See above.

    Args:
        host: where it runs.
        tun: its address in the network.
        peer: the member that it may have a link with.
        begins: it tries for a link when a packet of that member's comes; else only that one may.
    """

    def __init__(self, host: Host, tun: str, peer: str, *, begins: bool = True, password: str = PASSWORD) -> None:
        self.tun, self.peer = IPv4Address(tun), IPv4Address(peer)
        self.by_udp = 0
        self.by_relay = 0
        self._begins = begins
        self._own = recipient_key(password.encode(), self.tun)
        self._its = recipient_key(password.encode(), self.peer)
        with host:
            self._member = Member.connect((Ethernet.ADDRESS, PORT), password=password)
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.bind((host.address, 0))
        self._member.log_in(tun)
        lan = Endpoint(IPv4Address(host.address), self._udp.getsockname()[1])
        self._original = Original(self.tun, self.peer, lan, self._tell, self._say, self._ask)
        self._begin = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="original client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._member.close()
        self._udp.close()

    @property
    def is_connected(self) -> bool:
        return self._original.state == original_links.CONNECTED

    def begin(self) -> None:
        """Try for a link, without a packet."""
        self._begin.set()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            readable, _, _ = select.select([self._member.socket, self._udp], [], [], 0.05)
            if self._member.socket in readable:
                try:
                    opcode, payload = self._member.receive()
                except Ended:
                    return
                if opcode == BINARY:
                    self._by_relay(payload)
            if self._udp in readable:
                self._by_udp(*self._udp.recvfrom(2048))
            if self._begin.is_set():
                self._begin.clear()
                self._original.packet_through_relay()
            if time.monotonic() >= due:
                due += 1
                self._original.second()

    def _by_relay(self, payload: bytes) -> None:
        if payload[:1] == FORWARD:
            self.by_relay += 1
            self._answer(payload[1:])
            if self._begins:
                self._original.packet_through_relay()
            return
        message = wire.decode(payload)
        if isinstance(message, wire.Udp4Conn | wire.General):
            self._original.told(message)

    def _by_udp(self, data: bytes, source: tuple[str, int]) -> None:
        if data[4:8] == stun.COOKIE.to_bytes(4, "big"):
            mapped = stun.answer(data, STUN_ID).mapped
            assert isinstance(mapped.address, IPv4Address)
            self._original.mapped(Endpoint(mapped.address, mapped.port))
            return
        plain = opened(data, self._own)
        if plain is None:
            return
        if plain[:1] == FORWARD:
            self.by_udp += 1
            self._answer(plain[1:])
            return
        try:
            message = datagram.decode(plain)
        except WireError:
            return
        if isinstance(message, Heartbeat | Delay):
            self._original.received(message, Endpoint(IPv4Address(source[0]), source[1]))

    def _answer(self, packet: bytes) -> None:
        """An echo request, by the way that packets go now."""
        if packet[9] != 1 or packet[20] != 8:
            return
        reply = bytearray(echo(str(self.tun), str(self.peer), 1, packet[28:], reply=True))
        reply[22:28] = packet[22:28]
        # Only the type differs from the request's.
        total = int.from_bytes(packet[22:24], "big") + 0x0800
        reply[22:24] = ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big")
        if self.is_connected:
            self._udp.sendto(sealed(FORWARD + reply, self._its), _name(self._original.real))
        else:
            self._member.forward(bytes(reply))

    def _tell(self, message: wire.Udp4Conn | wire.General) -> None:
        self._member.send(message.encode())

    def _say(self, endpoint: Endpoint, message: Heartbeat | Delay) -> None:
        self._udp.sendto(sealed(message.encode(), self._its), _name(endpoint))

    def _ask(self) -> None:
        self._udp.sendto(stun.request(STUN_ID), (Ethernet.ADDRESS, PORT))


def _name(endpoint: Endpoint) -> tuple[str, int]:
    return str(endpoint.ip), endpoint.port
