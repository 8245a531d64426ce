"""Keys, paths and links with original clients that come and go under traffic both ways: for the sanitizers too.

All is bounded in count. CANDY_STRESS (a factor, default 1) makes it longer or shorter: scripts/sanitize.sh sets it.
"""

import os
import socket
import struct
from contextlib import suppress

import pytest
from kit.old_linked import FORWARD, LONGEST, OWN_KEY, PEER_KEY, OldLinked, old_linked, opened
from kit.peer import packet
from kit.sealing import CLEAR
from kit.superpacket import NO_VNET, A, B, pattern, tcp

pytestmark = pytest.mark.engine

ROUNDS = max(4, int(8 * float(os.environ.get("CANDY_STRESS", "1"))))
TURNS = 20
HEARTBEAT = bytes.fromhex("00 0a000002 00000000 0000 01")
OWN_KEYS, PEER_KEYS = (OWN_KEY, bytes(32)), (PEER_KEY, bytes([7]) * 32)
SUPER = struct.pack("<BBHHHH", 1, 1, 40, 1000, 20, 16) + tcp(pattern(20_000), source=A, to=B)


@pytest.mark.parametrize("workers", [1, 2])
def test_all_at_once(workers: int) -> None:
    """Python's thread replaces what the worker seals and opens with. No IV comes twice, and all opens."""
    ivs: set[bytes] = set()
    with old_linked(vnet=True, workers=workers) as one:
        engine, tun = one.engine, one.tun
        one.device.kernel.setblocking(False)
        one.peer.setblocking(False)
        for number in range(ROUNDS):
            own, key = OWN_KEYS[number % 2], PEER_KEYS[number % 2]
            engine.set_old_key(tun, A, own, sealed=engine.old_sealed(tun))
            for turn in range(TURNS):
                with suppress(BlockingIOError):
                    one.device.kernel.send(SUPER)
                    one.device.kernel.send(NO_VNET + packet(A, B, flow=turn))
                for _ in range(10):
                    one.comes(FORWARD + packet(B, A, flow=turn), key=own)
                one.comes(HEARTBEAT, key=own)
                one.path(key, longest=(0, 600, 1100, LONGEST)[turn % 4])
                engine.send_old(tun, one.link, *one.there, key, HEARTBEAT)
                if turn == 5:
                    engine.clear_old_path(tun, B)
                if turn == 10:
                    engine.set_old_key(tun, A)
                    engine.set_old_key(tun, A, own, sealed=engine.old_sealed(tun))
                if turn == 15:
                    engine.forget_peer(tun, B)
                    engine.set_peer(tun, B, CLEAR, takes_clear=True, tells_clear=False)
                engine.old_paths(tun)
                come(one, ivs)
                emptied(one.device.kernel)
                one.device.relay.events += engine.events()
            one.device.server.sync()
            if number % 4 == 3:
                another_link(one)
        one.path(PEER_KEY)
        engine.set_old_key(tun, A, OWN_KEY, sealed=engine.old_sealed(tun))
        one.device.kernel.setblocking(True)
        last = packet(B, A, b"the last one")
        one.comes(FORWARD + last)
        while one.device.kernel.recv(1 << 17)[10:] != last:
            pass
    assert len(ivs) > ROUNDS * TURNS


def another_link(one: OldLinked) -> None:
    assert one.engine.close_link(one.link)
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.bind(("127.0.0.1", 0))
    one.own = own.getsockname()
    one.link = one.engine.open_link(one.tun, own.detach())


def come(one: OldLinked, ivs: set[bytes]) -> None:
    """What has come to the peer."""
    while True:
        try:
            datagram = one.peer.recv(65536)
        except BlockingIOError:
            return
        assert any(opened(datagram, key) is not None for key in PEER_KEYS)
        assert datagram[:12] not in ivs
        ivs.add(datagram[:12])


def emptied(kernel: socket.socket) -> None:
    while True:
        try:
            kernel.recv(1 << 17)
        except BlockingIOError:
            return
