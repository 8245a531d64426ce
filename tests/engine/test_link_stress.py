"""Links, paths and sessions that come and go under traffic both ways: for the sanitizers too."""

import os
import socket
import struct
from contextlib import suppress
from dataclasses import replace

import pytest
from kit.linked import Datagram, linked, packed
from kit.peer import packet
from kit.superpacket import ANY, A, B, pattern, segments, tcp

pytestmark = pytest.mark.engine

ROUNDS = max(4, int(8 * float(os.environ.get("CANDY_STRESS", "1"))))
PARTS = segments(bytes(ANY), tcp(pattern(20_000), source=B, to=A)) or []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("cipher", [1, 2])
def test_all_at_once(workers: int, cipher: int) -> None:
    """Python's thread replaces what the worker seals and opens with. No counter comes twice."""
    vnet = struct.pack("<BBHHHH", 1, 1, 40, 1000, 20, 16)
    seen: set[tuple[int, int]] = set()
    with linked(vnet=True, workers=workers, cipher=cipher) as one:
        engine, tun = one.engine, one.device.tun
        one.device.kernel.setblocking(False)
        one.peer.setblocking(False)
        session = one.one
        for number in range(ROUNDS):
            fresh = replace(
                session,
                local=session.local + 1,
                remote=session.remote + 1,
                sends=os.urandom(32),
                receives=os.urandom(32),
            )
            fresh.install(engine, tun)
            for count in range(20):
                with suppress(BlockingIOError):
                    one.device.kernel.send(vnet + tcp(pattern(20_000), source=A, to=B))
                for n, part in enumerate(PARTS):
                    one.peer.sendto(
                        Datagram(session.local, count * len(PARTS) + n, part, 1).seal(session.receives, cipher), one.own
                    )
                one.path(longest=600 + 40 * count)
                engine.send_sealed(tun, session.local, b"\x80\x03note")
                engine.send_by(tun, session.local, one.link, *packed(one.there), b"\x01" + bytes(40))
                if count == 10:
                    one.device.seal_with(fresh)
                    engine.clear_path(tun, B)
                if count == 15:
                    engine.remove_session(tun, session.local)
                    engine.forget_peer(tun, B)
                    one.device.seal_with(fresh)
                engine.expect_stun(one.link, [bytes([count]) * 12])
                engine.paths(tun)
                engine.seen(tun)
                seen |= taken(one.peer, seen)
                emptied(one.device.kernel)
                one.device.relay.events += engine.events()
            one.device.server.sync()
            session = fresh
            if number % 4 == 3:
                assert engine.close_link(one.link)
                own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                own.bind(("127.0.0.1", 0))
                one.own = own.getsockname()
                one.link = engine.open_link(tun, own.detach())
        one.one = session
        one.counter = 20 * len(PARTS)
        one.device.kernel.setblocking(True)
        last = packet(B, A, b"the last one")
        one.comes(last)
        while one.device.kernel.recv(1 << 17)[10:] != last:
            pass
    assert len(seen) > 100


def taken(peer: socket.socket, seen: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Session and counter of each datagram that has come; none of them came before."""
    found: set[tuple[int, int]] = set()
    while True:
        try:
            datagram = peer.recv(65536)
        except BlockingIOError:
            return found
        session, counter = struct.unpack_from(">IQ", datagram, 4)
        assert (session, counter) not in seen
        assert (session, counter) not in found
        found.add((session, counter))


def emptied(kernel: socket.socket) -> None:
    while True:
        try:
            kernel.recv(1 << 17)
        except BlockingIOError:
            return
