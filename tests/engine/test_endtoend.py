"""What is sealed, as the relay sees it: whom it may come from, whom it goes to, and what its sender is told."""

import struct
import time

import pytest
from kit.peer import BINARY, PATIENCE, SEALED, EngineRelay, Peer, numbered, packet, sealed, xor_mask
from kit.superpacket import A, B, C, D

from candy._fastpath import CANDY3, CANDY3_PAYLOAD, EVENT_CONTROL, EVENT_MESSAGE, Backlog

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

EVERYBODY = 0x0A0000FF
GROUP, HANDSHAKE, CONTROL = b"\x13", b"\x14", b"\x16"
NOT_SEALING, COMMIT = 34, 35
SAVED = 250
"""Handshakes of one message number that a sender may begin with."""
KEY = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)


def sealed_group(source: int, group: int, *, size: int = 100) -> bytes:
    return GROUP + struct.pack(">xHII", 7, source, group) + bytes(size - 12)


def handshake(source: int, destination: int, message: int = 1, *, size: int | None = None) -> bytes:
    length = size if size is not None else {1: 148, 2: 100}[message]
    return HANDSHAKE + struct.pack(">BxxII", message, source, destination) + bytes(length - 12)


def received(peer: Peer) -> list[bytes]:
    """The messages that have come so far."""
    return [frame.payload for frame in peer.sync() if frame.opcode == BINARY]


def told(relay: EngineRelay, peer: Peer) -> list[bytes]:
    """What the engine has said so far that a member should be told."""
    peer.sync()
    relay.events += relay.engine.events()
    return [detail for number, kind, detail in relay.events if (number, kind) == (peer.connection, EVENT_CONTROL)]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (sealed(C, B), "spoofed_source"),
        (sealed(A, D), "no_route"),
        (sealed(A, A), "no_route"),
        (sealed(A, EVERYBODY), "no_route"),
        (sealed(A, 0xE0000001), "no_route"),
        (sealed(A, B, bytes(65_590 - 24)), "too_large"),
        (sealed(A, B)[:39], "too_short"),
        (SEALED, "too_short"),
        (sealed_group(C, EVERYBODY), "spoofed_source"),
        (sealed_group(A, B), "no_route"),
        (sealed_group(A, EVERYBODY, size=51), "too_short"),
        (GROUP, "too_short"),
        (handshake(C, B), "spoofed_source"),
        (handshake(A, D), "no_route"),
        (handshake(A, A), "no_route"),
        (handshake(A, 0xFFFFFFFF), "no_route"),
        (handshake(A, EVERYBODY), "no_route"),
        (handshake(A, B, size=147), "bad_handshake"),
        (handshake(A, B, size=149), "bad_handshake"),
        (handshake(A, B, 2, size=148), "bad_handshake"),
        (handshake(A, B, 1, size=100), "bad_handshake"),
        (handshake(A, B, 3, size=100), "bad_handshake"),
        (handshake(A, B, size=99), "too_short"),
        (HANDSHAKE, "too_short"),
    ],
)
def test_dropped_under_a_name(payload: bytes, reason: str) -> None:
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        other = relay.member(C, extended=CANDY3)
        sender.forward(payload)
        assert told(relay, sender) == []
        assert relay.dropped() == {reason: 1}
        assert received(receiver) == received(other) == []


def test_rules_and_networks_that_check_nothing_let_no_other_source_seal() -> None:
    with EngineRelay() as relay:
        number = relay.engine.add_network(check_source=False)
        sender = relay.member(A, extended=CANDY3, network=number)
        relay.member(B, extended=CANDY3, network=number)
        relay.engine.set_rules(number, [(C, 0xFFFFFFFF, A, 0, 0)])
        sender.forward(sealed(C, B))
        sender.sync()
        assert relay.dropped() == {"spoofed_source": 1}


def test_before_the_log_in() -> None:
    with EngineRelay() as relay:
        relay.member(B, extended=CANDY3)
        stranger = relay.adopt(extended=CANDY3)
        stranger.forward(sealed(A, B), sealed_group(A, EVERYBODY), handshake(A, B))
        assert relay.details(stranger.connection, EVENT_MESSAGE) == [handshake(A, B)]
        assert relay.dropped() == {"not_authenticated": 2}


@pytest.mark.parametrize("kind", ["old", "candy.2", "off", "device"])
def test_sealed_goes_to_nobody_who_does_not_take_it_and_its_sender_is_told_once_a_second(kind: str) -> None:
    with EngineRelay() as relay, relay.device() as (_, tun):
        sender = relay.member(A, extended=CANDY3)
        for address in (B, C):
            if kind == "device":
                assert relay.engine.bind(tun, address)
            else:
                extended = {"old": 0, "candy.2": 1, "off": CANDY3}[kind]
                relay.member(address, extended=extended, takes_sealed=kind != "off")
            sender.forward(*[sealed(A, address)] * 5)
            assert told(relay, sender)[-1] == struct.pack(">BI", NOT_SEALING, address)
        start = time.monotonic()
        sender.forward(*[sealed(A, C)] * 5)
        assert len(told(relay, sender)) == 2 or time.monotonic() - start > 0.5
        assert relay.dropped() == {"not_sealing": 15}
        assert relay.unaccounted() == 0


def test_of_how_many_addresses_a_sender_is_told_is_bounded() -> None:
    with EngineRelay() as relay:
        sender = relay.member(A, extended=CANDY3)
        addresses = [0x0A000010 + n for n in range(30)]
        for address in addresses:
            relay.member(address)
        start = time.monotonic()
        sender.forward(*[sealed(A, address) for address in addresses * 3])
        found = told(relay, sender)
        assert len(set(found)) == len(found)
        assert len(found) == 8 or time.monotonic() - start > 0.5
        assert relay.dropped() == {"not_sealing": 90}


def test_from_a_member_without_candy_3_these_are_messages_of_no_kind() -> None:
    with EngineRelay() as relay:
        relay.member(B, extended=CANDY3)
        sender = relay.member(A)
        sender.forward(sealed(A, B), sealed_group(A, EVERYBODY), handshake(A, B), sealed(A, B, bytes(1500)))
        wanted = [sealed(A, B), sealed_group(A, EVERYBODY), handshake(A, B)]
        assert relay.details(sender.connection, EVENT_MESSAGE, 3) == wanted
        sender.sync()
        assert relay.dropped() == {"too_large": 1}


def test_a_group_s_goes_to_those_who_take_it() -> None:
    with EngineRelay() as relay:
        sender = relay.member(A, extended=CANDY3)
        takes, newer = relay.member(B, extended=CANDY3), relay.member(C)
        old, off = relay.member(D, extended=0), relay.member(0x0A000009, extended=CANDY3, takes_sealed=False)
        wanted = [sealed_group(A, group, size=size) for group, size in ((EVERYBODY, 52), (0xE0000001, 65_597))]
        sender.forward(*wanted)
        sender.sync()
        assert received(takes) == wanted
        assert received(newer) == received(old) == received(off) == []
        assert relay.engine.stats()["copies"] == 2
        assert CANDY3_PAYLOAD >= 65_597


def test_a_group_s_counts_with_the_allowance_of_broadcasts() -> None:
    with EngineRelay(broadcast_rate=1) as relay:
        sender, takes = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        sender.forward(*[sealed_group(A, EVERYBODY)] * 5)
        sender.sync()
        assert received(takes) == [sealed_group(A, EVERYBODY)]
        assert relay.dropped() == {"broadcast_limit": 4}


@pytest.mark.parametrize("message", [1, 2])
def test_handshakes_have_an_allowance_each(message: int) -> None:
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3, takes_sealed=False)
        start = time.monotonic()
        sender.forward(*[handshake(A, B, message)] * 5 * SAVED)
        sender.sync()
        more = 200 * (time.monotonic() - start) + 1
        got = len(received(receiver))
        assert SAVED <= got <= SAVED + more
        assert relay.dropped().get("handshake_limit", 0) == 5 * SAVED - got
        # The other's is not touched, nor is another sender's.
        other = 3 - message
        sender.forward(handshake(A, B, other))
        receiver.forward(handshake(B, A, message))
        assert handshake(A, B, other) in received(receiver)
        assert received(sender) == [handshake(B, A, message)]


@pytest.mark.parametrize("extended", [0, 1])
def test_handshakes_go_to_nobody_without_candy_3(extended: int) -> None:
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=CANDY3), relay.member(B, extended=extended)
        sender.forward(handshake(A, B))
        assert told(relay, sender) == []
        assert received(receiver) == []
        assert relay.dropped() == {"not_sealing": 1}


def test_members_with_candy_3_tell_only_others_where_they_are() -> None:
    def at(source: int, destination: int) -> list[bytes]:
        addresses = struct.pack(">II", source, destination)
        return [b"\x03" + addresses + bytes(6), b"\x05" + addresses, b"\xff\0\0\0" + addresses]

    with EngineRelay() as relay:
        one, two, older = (relay.member(address, extended=n) for address, n in ((A, CANDY3), (B, CANDY3), (C, 1)))
        one.forward(*at(A, B), *at(A, C))
        assert received(one) == []
        assert received(older) == at(A, C)
        older.forward(*at(C, A))
        older.sync()
        assert received(one) == at(C, A)
        assert received(two) == []
        assert relay.dropped() == {"unexpected_kind": 3}
        everybody = at(A, 0xFFFFFFFF)[1:]
        one.forward(*everybody)
        one.sync()
        older.forward(at(C, 0xFFFFFFFF)[1])
        assert received(older) == everybody
        assert received(two) == [at(C, 0xFFFFFFFF)[1]]


def test_what_is_for_python_has_an_allowance_of_its_own() -> None:
    control = CONTROL + bytes(60)
    with EngineRelay() as relay:
        sender = relay.member(A, extended=CANDY3)
        for turn in range(6):
            sender.forward(*[control] * 60)
            assert len(relay.details(sender.connection, EVENT_MESSAGE, 60 * (turn + 1))) == 60 * (turn + 1)
        assert relay.dropped() == {}


def test_the_label_and_both_addresses_are_the_flow_masked_or_not() -> None:
    backlog = Backlog(key=KEY)
    frames = [sealed(A, B, label=label) for label in range(4)] + [sealed(A, C), sealed(C, B)]
    for payload in frames:
        backlog.append(payload, 1)
    before = backlog.places
    assert len(before) == len(frames)
    for payload in frames:
        for mask in (bytes([128, 1, 2, 3]), bytes([254, 0, 0, 0])):
            # Of another counter and other bytes, and behind its mask.
            backlog.append(mask + xor_mask(payload[:16] + b"\x77" * 40, mask), 1)
    assert backlog.places.keys() == before.keys()
    # A packet in the clear is a flow of its own; behind its mask the same.
    clear = numbered(A, B, 1)
    backlog.append(clear, 1)
    after = backlog.places
    assert len(after) == len(frames) + 1
    backlog.append(bytes([200, 1, 2, 3]) + xor_mask(clear, bytes([200, 1, 2, 3])), 1)
    assert backlog.places.keys() == after.keys()


def test_ecn_is_marked_beneath_a_mask_and_never_in_what_is_sealed() -> None:
    mask = bytes([0x99, 7, 8, 9])
    plain = packet(A, B, bytes(2000))
    capable = b"\x01" + plain[:1] + b"\x02" + plain[2:]
    for payload in (capable, sealed(A, B, bytes([0x45, 2]) * 1000)):
        backlog = Backlog(key=KEY)
        passed = mask + xor_mask(payload, mask)
        for n in range(400):
            backlog.append(passed, 1_000_000 * (n + 1))
        out = [backlog.take(400_000_000 + 5_000_000 * n) for n in range(300)]
        marked = {frame for frame in out if frame not in (passed, None)}
        if payload is capable:
            assert {xor_mask(frame[4:], mask)[2] for frame in marked if frame} == {3}
            assert backlog.drops == {}
        else:
            assert marked == set()
            assert backlog.drops["delay"] > 0


def test_a_slow_destination_s_senders_are_told_how_much_it_takes_at_once() -> None:
    long = sealed(A, B, bytes(60_000))
    with EngineRelay() as relay:
        sender, other = relay.member(A, extended=CANDY3), relay.member(C, extended=CANDY3)
        slow = relay.member(B, extended=CANDY3, tcp=True)
        start = time.monotonic()
        found: list[bytes] = []
        while not found:
            assert time.monotonic() - start < PATIENCE
            sender.forward(*[long] * 4)
            other.forward(sealed(C, B))
            for _ in range(2000):
                slow.sock.recv(64)
            found = told(relay, sender)
        kind, address, limit = struct.unpack(">BII", found[0])
        assert (kind, address) == (COMMIT, B)
        assert 4096 <= limit <= 2 * len(long)
        for _ in range(20):
            sender.forward(*[long] * 4)
            for _ in range(2000):
                slow.sock.recv(64)
        assert len(told(relay, sender)) <= 1 + (time.monotonic() - start) / 0.1
        assert told(relay, other) == []
