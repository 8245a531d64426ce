"""A relay's own device where members seal: one more member, behind no wire."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kit.peer import FORWARD, SUPER, EngineRelay, Peer, packet
from kit.sealing import CIPHERS, CLEAR, OFF, PREFER, REQUIRE, SEAL, Pair, pair
from kit.superpacket import ANY, NO_VNET, A, B, C, D, ip_header, pattern, segments, tcp

from candy._fastpath import (
    CANDY3,
    EVENT_CLEAR,
    EVENT_CONFIRMED,
    EVENT_CONTROL,
    EVENT_MESSAGE,
    EVENT_UNKNOWN,
    EVENT_WANTED,
)

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

PATIENCE_S = 20.0
GROUP = 0xE0000001
COMMIT = 35
CIPHER = pytest.mark.parametrize("cipher", CIPHERS.values(), ids=CIPHERS.keys())


class Own:
    """A relay whose device has the address A; its kernel is the test's."""

    def __init__(self, relay: EngineRelay, kernel: socket.socket, tun: int) -> None:
        self.relay = relay
        self.engine = relay.engine
        self.kernel = kernel
        self.tun = tun

    def seals_for(self, one: Pair, *, confirmed: bool = True) -> None:
        one.install(self.engine, self.tun, confirmed=confirmed)
        self.engine.set_peer(self.tun, one.peer, SEAL, session=one.local)

    def told(self, peer: Peer, kind: int) -> list[bytes]:
        peer.sync()
        self.relay.events += self.engine.events()
        return [detail for number, what, detail in self.relay.events if (number, what) == (self.tun, kind)]


@contextmanager
def own(sealing: int = PREFER, *, vnet: bool = False, workers: int = 1) -> Iterator[Own]:
    with EngineRelay(workers) as relay, relay.device(vnet=vnet) as (kernel, tun):
        assert relay.engine.bind(tun, A)
        relay.engine.set_sealing(tun, sealing, A)
        yield Own(relay, kernel, tun)


def address(value: int) -> bytes:
    return struct.pack(">I", value)


def handshake(source: int, destination: int) -> bytes:
    return struct.pack(">BBHII", 20, 1, 0, source, destination) + bytes(136)


@CIPHER
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("length", [28, 74, 1400, 8200, 65_482])
def test_it_seals_what_its_kernel_sends_and_opens_what_members_seal(cipher: int, workers: int, length: int) -> None:
    one = pair(A, B, cipher=cipher)
    with own(workers=workers) as device:
        member = device.relay.member(B, extended=CANDY3)
        device.seals_for(one)
        out = packet(A, B, pattern(length - 28))
        for number in range(3):
            device.kernel.send(out)
            frame = member.receive()
            sealed = one.went(frame.payload)
            assert (frame.mask, sealed.counter, sealed.packet) == (None, number, out)
            back = packet(B, A, pattern(length - 28), flow=number)
            member.forward(one.comes_packet(number, back))
            assert device.kernel.recv(1 << 17) == back
        assert device.relay.dropped() == {}


def test_super_packets_both_ways() -> None:
    one = pair(A, B)
    whole, back = tcp(pattern(60_000), source=A, to=B), tcp(pattern(60_000), source=B, to=A)
    with own(vnet=True) as device:
        member = device.relay.member(B, extended=CANDY3)
        device.seals_for(one)
        device.kernel.send(bytes(ANY) + whole)
        sealed = one.went(member.receive().payload)
        assert (sealed.plain[:10], sealed.packet) == (bytes(ANY), whole)
        member.forward(one.comes(0, bytes(ANY) + back))
        got = device.kernel.recv(1 << 17)
        assert segments(got[:10], got[10:]) == segments(bytes(ANY), back)
        assert device.relay.dropped() == {}


def test_members_seal_for_others_as_ever() -> None:
    one = pair(A, B)
    with own() as device:
        member, other = device.relay.member(B, extended=CANDY3), device.relay.member(C, extended=CANDY3)
        device.seals_for(one)
        theirs = pair(B, C).other().comes_packet(0, packet(B, C))
        member.forward(theirs)
        assert other.receive().payload == theirs
        assert device.relay.dropped() == {}


def test_what_waits_goes_once_there_is_a_session() -> None:
    one = pair(A, B)
    with own() as device:
        member = device.relay.member(B, extended=CANDY3)
        device.kernel.send(packet(A, B, b"first"))
        assert device.relay.details(device.tun, EVENT_WANTED) == [address(B)]
        device.seals_for(one, confirmed=False)
        assert one.went(member.receive().payload).packet == packet(A, B, b"first")
        member.forward(one.comes_packet(0, packet(B, A)))
        assert device.kernel.recv(100) == packet(B, A)
        assert device.told(member, EVENT_CONFIRMED) == [struct.pack(">I", one.local)]
        assert device.engine.send_sealed(device.tun, one.local)
        assert one.went(member.receive().payload).plain == b""


def test_in_the_clear_it_takes_what_comes_from_who_does_not_seal() -> None:
    wrapped = ip_header(20 + len(packet(B, A)), 4, C, A) + packet(B, A)
    with own() as device:
        member, old = device.relay.member(B, extended=CANDY3), device.relay.member(C)
        old.forward(FORWARD + packet(C, A, b"unknown"))
        assert device.kernel.recv(100) == packet(C, A, b"unknown")
        assert device.told(old, EVENT_CLEAR) == [address(C)]
        device.engine.set_peer(device.tun, C, CLEAR, takes_clear=True)
        device.seals_for(pair(A, B))
        for payload in (FORWARD + packet(B, A), SUPER + NO_VNET + packet(B, A)):
            member.forward(payload)
        device.engine.set_routes(device.tun, A, [])
        device.engine.set_rules(0, [(B, 0xFFFFFFFF, C, 0, 0)])
        old.forward(FORWARD + wrapped, FORWARD + packet(C, A, b"old"))
        assert device.kernel.recv(100) == packet(C, A, b"old")
        member.sync()
        assert device.relay.dropped() == {"not_sealed": 3}
        device.kernel.send(packet(A, C, b"to the old one"))
        assert old.receive().payload == FORWARD + packet(A, C, b"to the old one")


def test_handshakes_are_python_s() -> None:
    with own() as device:
        member, old = device.relay.member(B, extended=CANDY3), device.relay.member(C)
        member.forward(handshake(B, A), handshake(C, A))
        assert device.told(member, EVENT_MESSAGE) == [handshake(B, A)]
        old.forward(handshake(C, A))
        old.sync()
        assert device.told(member, EVENT_MESSAGE) == [handshake(B, A)]
        assert device.relay.dropped() == {"spoofed_source": 1}
        device.engine.set_sealing(device.tun, OFF, A)
        member.forward(handshake(B, A), pair(A, B).comes_packet(0, packet(B, A)))
        assert device.told(member, EVENT_MESSAGE) == [handshake(B, A)]
        assert device.relay.dropped() == {"spoofed_source": 1, "not_sealing": 2}


def test_how_many_handshakes_wait_for_python_is_bounded() -> None:
    with own() as device:
        members = [device.relay.member(B + n, extended=CANDY3) for n in range(5)]
        for n, member in enumerate(members):
            member.forward(*[handshake(B + n, A)] * 250)
            member.sync()
        assert device.relay.dropped() == {"events": 250 * 5 - 1024}
        assert len(device.told(members[0], EVENT_MESSAGE)) == 1024


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"own": D}, "no_route"),
        ({"local": 9}, "unknown_session"),
        ({"peer": C}, "spoofed_source"),
        ({"receives": bytes(32)}, "bad_seal"),
    ],
)
def test_what_does_not_open_is_dropped(changed: dict[str, object], reason: str) -> None:
    one = pair(A, B)
    with own() as device:
        member = device.relay.member(B, extended=CANDY3)
        device.seals_for(one)
        good = one.comes_packet(7, packet(B, A))
        member.forward(Pair(**{**vars(one), **changed}).comes_packet(0, packet(B, A)), good, good)
        assert device.kernel.recv(100) == packet(B, A)
        unknown = device.told(member, EVENT_UNKNOWN)
        assert unknown == ([address(B)] if reason == "unknown_session" else [])
        assert device.relay.dropped() == {reason: 1, "replayed": 1}


def test_nothing_goes_or_comes_in_the_clear_where_all_is_to_be_sealed() -> None:
    with own(REQUIRE) as device:
        member = device.relay.member(B, extended=CANDY3)
        member.forward(FORWARD + packet(B, A), FORWARD + packet(B, GROUP))
        member.sync()
        device.kernel.send(packet(A, GROUP))
        device.kernel.send(packet(A, B))
        assert device.relay.details(device.tun, EVENT_WANTED) == [address(B)]
        assert member.sync() == []
        assert device.relay.dropped() == {"not_sealed": 1, "group_not_sealed": 2}


def test_groups_are_in_the_clear_where_that_may_be() -> None:
    with own() as device:
        member = device.relay.member(B, extended=CANDY3)
        member.forward(FORWARD + packet(B, GROUP))
        assert device.kernel.recv(100) == packet(B, GROUP)
        device.kernel.send(packet(A, GROUP))
        assert member.receive().payload == FORWARD + packet(A, GROUP)
        assert device.relay.dropped() == {}


def test_it_is_told_how_much_a_slow_member_takes_at_once() -> None:
    one = pair(A, B)
    with own(vnet=True) as device:
        slow = device.relay.member(B, extended=CANDY3, tcp=True)
        device.seals_for(one)
        long = bytes(ANY) + tcp(pattern(60_000), source=A, to=B)
        end = time.monotonic() + PATIENCE_S
        found: list[bytes] = []
        while not found:
            assert time.monotonic() < end
            for _ in range(4):
                device.kernel.send(long)
            for _ in range(2000):
                slow.sock.recv(64)
            device.relay.events += device.engine.events()
            found = [detail for _, kind, detail in device.relay.events if kind == EVENT_CONTROL]
        assert {number for number, kind, _ in device.relay.events if kind == EVENT_CONTROL} == {device.tun}
        kind, destination, limit = struct.unpack(">BII", found[0])
        assert (kind, destination) == (COMMIT, B)
        assert 4096 <= limit <= 2 * len(long)
