"""A client's engine where members seal, between its kernel and its relay; both of these are the test's."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kit.peer import BINARY, EngineRelay, Frame, Peer
from kit.sealing import PREFER, SEAL, Pair, behind
from kit.superpacket import A

from candy._fastpath import CANDY3

LABELS = bytes(range(16))
MASK = bytes([0x80, 1, 2, 3])


class Device:
    """A client's engine between its kernel and its relay; both of these are the test's."""

    def __init__(self, relay: EngineRelay, kernel: socket.socket, tun: int, server: Peer) -> None:
        self.relay = relay
        self.engine = relay.engine
        self.kernel = kernel
        self.tun = tun
        self.server = server

    def seal_with(self, one: Pair, *, longest: int = 65535, **options: bool) -> None:
        """Seal what is for a peer under this session, from now on."""
        self.engine.set_peer(self.tun, one.peer, SEAL, session=one.local, longest=longest, label_key=LABELS, **options)

    def events(self) -> list[tuple[int, bytes]]:
        """What was told of sealing until now."""
        self.server.sync()
        self.relay.events += self.engine.events()
        return [(kind, detail) for connection, kind, detail in self.relay.events if connection == self.tun]

    def told(self, kind: int) -> list[bytes]:
        return [detail for what, detail in self.events() if what == kind]

    def comes(self, *payloads: bytes, masked: bool = True) -> None:
        """Payloads from the relay, as it passes them on."""
        for payload in payloads:
            self.server.send(BINARY, behind(MASK, payload) if masked else payload)

    def reads(self) -> bytes:
        return self.kernel.recv(1 << 17)

    def nothing_comes(self) -> None:
        self.server.sync()
        self.kernel.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.kernel.recv(1)
        self.kernel.setblocking(True)

    def sends(self, data: bytes) -> Frame:
        """Have the kernel send this, and return the frame that it becomes."""
        self.kernel.send(data)
        return self.server.receive()


@contextmanager
def client(
    sealing: int = PREFER, *, vnet: bool = False, checks_source: bool = True, workers: int = 1
) -> Iterator[Device]:
    with EngineRelay(workers) as relay, relay.device(vnet=vnet) as (kernel, tun):
        server = relay.joined(tun, extended=CANDY3)
        relay.engine.set_sealing(tun, sealing, A, checks_source=checks_source)
        yield Device(relay, kernel, tun, server)


def address(value: int) -> bytes:
    return struct.pack(">I", value)
