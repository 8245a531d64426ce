"""What waits for a link between relays: how it is shared, and of which network each of it is."""

import struct
import time
from itertools import pairwise

import pytest
from kit.peer import BINARY, FORWARD, PATIENCE, SUPER, EngineRelay, Frame, Peer, number_of, numbered, packet, sealed
from kit.sealing import PREFER, SEAL, pair
from kit.superpacket import ANY, pattern, segments, tcp
from kit.trunks import NETWORK, by_network, linked, network, trunk

from candy._fastpath import CANDY3

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

A, B, C, D, E = (0x0A000001 + n for n in range(5))


def messages(frames: list[Frame]) -> list[tuple[int, bytes]]:
    return by_network([frame.payload for frame in frames if frame.opcode == BINARY])


def slow(relay: EngineRelay, networks: list[int]) -> Peer:
    """A trunk whose other end reads nothing yet, and to which little fits the kernel."""
    return trunk(relay, 1, networks, tcp=False)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_message_is_of_its_network_also_if_it_has_waited(workers: int) -> None:
    with EngineRelay(workers) as relay:
        second = relay.engine.add_network()
        end = slow(relay, [second, 0])
        members = [relay.member(A, network=n, extended=CANDY3) for n in (0, second)]
        for n in (0, second):
            for address in (C, D):
                relay.engine.lead(n, address, 1)
        for turn in range(20):
            for n, member in enumerate(members):
                for address in (C, D):
                    member.forward(*(numbered(A, address, 40 * turn + i, 1000, flow=n) for i in range(40)))
                    member.forward(sealed(A, address, bytes([n]) * 900, label=turn))
        for member in members:
            member.sync()
        came = messages(relay.drain(end))
        for n in range(2):
            for address in (C, D):
                flow = [
                    payload
                    for number, payload in came
                    if number == 1 - n and payload[:1] == FORWARD and payload[17:21] == address.to_bytes(4, "big")
                ]
                assert {number_of(payload)[0] for payload in flow} == {n}
                order = [number_of(payload)[1] for payload in flow]
                assert order == sorted(set(order))
                assert len(order) > 700
            covered = [payload for number, payload in came if number == 1 - n and payload[:1] != FORWARD]
            assert [set(payload[24:]) for payload in covered] == [{n}] * len(covered)
        # Between looks at its rate the queue may be full, too, where the machine is busy.
        assert set(relay.dropped()) <= {"delay", "queue_full"}
        assert len(came) + sum(relay.dropped().values()) == 3280


def test_networks_and_destinations_share_it_alike() -> None:
    """Whatever the number of flows."""
    with EngineRelay() as relay:
        second = relay.engine.add_network()
        end = slow(relay, [0, second])
        a, b = relay.member(A), relay.member(A, network=second)
        relay.engine.lead(0, C, 1)
        relay.engine.lead(0, D, 1)
        relay.engine.lead(second, C, 1)
        for turn in range(40):
            a.forward(*(numbered(A, C, turn, 1000, flow=flow) for flow in range(50)))
        a.forward(*(numbered(A, D, n, 1000) for n in range(20)))
        assert [frame for frame in a.sync() if frame.opcode == BINARY] == []
        b.forward(*(numbered(A, C, n, 1000) for n in range(20)))
        b.sync()
        came = messages(relay.drain(end))
        # Between looks at its rate the queue may be full, too, where the machine is busy.
        assert set(relay.dropped()) <= {"delay", "queue_full"}
        assert len(came) + sum(relay.dropped().values()) == 2040
        places = [
            at for at, (number, payload) in enumerate(came) if number == 1 or payload[17:21] == D.to_bytes(4, "big")
        ]
        assert len(places) > 30
        # Behind those that had left when they came there are no more than as many of the others, and a turn's.
        assert places[-1] - places[0] < 70


def test_its_bound() -> None:
    with EngineRelay(queue_bytes=1 << 17) as relay:
        end = slow(relay, [0])
        a = relay.member(A)
        relay.engine.lead(0, C, 1)
        for turn in range(20):
            a.forward(*(numbered(A, C, turn, 1400) for _ in range(50)))
        a.sync()
        stats = relay.engine.connection_stats(end.connection)
        assert stats is not None
        assert 0 < stats["queued_bytes"] <= 1 << 17
        came = messages(relay.drain(end))
        assert set(relay.dropped()) <= {"queue_full", "stalled"}
        assert len(came) + sum(relay.dropped().values()) == 1000
        assert {number for number, _ in came} == {0}


@pytest.mark.parametrize("sender", [1, CANDY3])
def test_a_long_super_packet_is_cut_for_a_slow_trunk(sender: int) -> None:
    """Each part of its network. Those that a member sends that seals come with masks."""
    vnet, whole = struct.pack("<BBHHHH", 1, 1, 40, 1000, 20, 16), tcp(pattern(60_000), source=A, to=C)
    pieces = segments(vnet, whole)
    assert pieces is not None
    with EngineRelay() as relay:
        second = relay.engine.add_network()
        end = trunk(relay, 1, [0, second], tcp=True)
        a = relay.member(A, extended=sender, network=second)
        relay.engine.lead(second, C, 1)
        message = SUPER + vnet + whole
        came: list[tuple[int, bytes]] = []
        start = time.monotonic()
        while all(len(payload) == len(message) for _, payload in came):
            assert time.monotonic() - start < PATIENCE
            a.forward(*[message] * 4)
            for _ in range(2000):
                end.buffer += end.sock.recv(64)
            end.take()
            came = messages(list(end.unread))
        # A packet that is cut counts as several.
        frames = end.sync()
        while (stats := relay.engine.connection_stats(end.connection)) and stats["queued_bytes"]:
            frames += end.sync()
        frames += end.sync()
        came = messages(frames)
        assert {number for number, _ in came} == {1}
        payloads = [frame.payload for frame in frames if frame.opcode == BINARY]
        before = [first for first, part in pairwise(payloads) if part[0] != NETWORK and len(part) < len(message)]
        assert set(before) == {network(1)}
        parts = [segments(payload[1:11], payload[11:]) for _, payload in came if payload[:1] == SUPER]
        assert {piece for part in parts for piece in part or [b""]} == set(pieces)
        assert all(payload[1:] in pieces for _, payload in came if payload[:1] == FORWARD)
        # Between looks at its rate the queue may be full, too, where the machine is busy.
        assert set(relay.dropped()) <= {"delay", "queue_full"}


def test_a_ping_and_a_close_go_first() -> None:
    with EngineRelay() as relay:
        end = slow(relay, [0])
        a = relay.member(A)
        relay.engine.lead(0, C, 1)
        for turn in range(20):
            a.forward(*(numbered(A, C, turn, 1400) for _ in range(50)))
        a.sync()
        assert relay.engine.ping(end.connection, b"still there?")
        before = end.receive_until(9, b"still there?")
        assert len(before) < 700
        relay.drain(end)


def test_a_relays_device_seals_for_members_elsewhere() -> None:
    one = pair(A, B)
    with EngineRelay() as relay, relay.device(vnet=True) as (kernel, tun), EngineRelay() as other:
        linked(relay, other)
        assert relay.engine.bind(tun, A)
        relay.engine.set_sealing(tun, PREFER, A)
        member = other.member(B, extended=CANDY3)
        relay.engine.lead(0, B, 1)
        other.engine.lead(0, A, 1)
        one.install(relay.engine, tun)
        relay.engine.set_peer(tun, B, SEAL, session=one.local)
        out = packet(A, B, pattern(1000))
        for _ in range(3):
            kernel.send(bytes(10) + out)
            assert one.went(member.receive().payload).packet == out
        long = tcp(pattern(60_000), source=A, to=B)
        kernel.send(bytes(ANY) + long)
        assert one.went(member.receive().payload).packet == long
        back = packet(B, A, pattern(1000))
        member.forward(one.comes_packet(0, back))
        assert kernel.recv(1 << 17)[10:] == back
        assert relay.engine.send_sealed(tun, one.local)
        assert one.went(member.receive().payload).plain == b""
        shake = b"\x14\1\0\0" + B.to_bytes(4, "big") + A.to_bytes(4, "big") + bytes(136)
        member.forward(shake)
        assert relay.details(tun, 1) == [shake]
        member.forward(FORWARD + back)
        assert [frame for frame in member.sync() if frame.opcode == BINARY] == []
        assert (relay.dropped().keys() | other.dropped().keys()) <= {"not_sealed"}


def test_what_a_device_says_goes_by_a_trunk_that_is_there() -> None:
    one = pair(A, B)
    with EngineRelay(queue_bytes=1 << 17) as relay, relay.device() as (_, tun):
        end = slow(relay, [0])
        assert relay.engine.bind(tun, A)
        relay.engine.set_sealing(tun, PREFER, A)
        relay.engine.lead(0, B, 1)
        one.install(relay.engine, tun)
        assert relay.engine.send_sealed(tun, one.local)
        assert end.receive().payload == network(0)
        assert one.went(end.receive().payload).plain == b""
        relay.engine.close(end.connection)
        relay.cause(end.connection)
        assert not relay.engine.send_sealed(tun, one.local)
