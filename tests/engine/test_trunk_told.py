"""What the senders of sealed packets are told by links between relays: how much a slow one takes at once, and who does
not seal any more."""

import struct
import time

import pytest
from kit.peer import BINARY, PATIENCE, EngineRelay, Peer, sealed
from kit.trunks import by_network, linked, network, trunk

from candy._fastpath import CANDY3, EVENT_CONTROL

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

A, B, C, D, E = (0x0A000001 + n for n in range(5))
NOT_SEALING, COMMIT = 34, 35
NOTICES_SAVED = 400


def notice(member: int, told: bytes) -> bytes:
    return struct.pack(">BI", 25, member) + told


def not_sealing(address: int) -> bytes:
    return struct.pack(">BI", NOT_SEALING, address)


def commit(address: int, limit: int = 5000) -> bytes:
    return struct.pack(">BII", COMMIT, address, limit)


def received(peer: Peer) -> list[tuple[int, bytes]]:
    """What has come by a trunk so far, each with the number of its network."""
    return by_network([frame.payload for frame in peer.sync() if frame.opcode == BINARY])


def told(relay: EngineRelay, peer: Peer) -> list[bytes]:
    """What the engine has said so far that a member should be told."""
    relay.events += relay.engine.events()
    return [detail for number, kind, detail in relay.events if (number, kind) == (peer.connection, EVENT_CONTROL)]


def read_slowly(peer: Peer) -> list[bytes]:
    """The messages of 128,000 bytes."""
    for _ in range(2000):
        peer.buffer += peer.sock.recv(64)
    peer.take()
    frames = [frame.payload for frame in peer.unread if frame.opcode == BINARY]
    peer.unread.clear()
    return frames


def test_of_a_slow_trunk() -> None:
    """Each sender by its destination, whatever its network and address."""
    with EngineRelay() as relay:
        second = relay.engine.add_network()
        end = trunk(relay, 1, [0, second], tcp=True)
        senders = [relay.member(A, extended=CANDY3, network=number) for number in (0, second)]
        for number in (0, second):
            for address in (B, C):
                relay.engine.lead(number, address, 1)
        start = time.monotonic()
        wanted = ({B}, {B, C})
        found: list[set[int]] = [set(), set()]
        while tuple(found) != wanted:
            assert time.monotonic() - start < PATIENCE
            for sender, addresses in zip(senders, wanted, strict=True):
                for address in addresses:
                    sender.forward(*[sealed(A, address, bytes(60_000))] * 2)
            read_slowly(end)
            for number, sender in enumerate(senders):
                for message in told(relay, sender):
                    kind, address, limit = struct.unpack(">BII", message)
                    assert kind == COMMIT
                    assert 4096 <= limit <= 120_000
                    found[number].add(address)
        # What is short enough is nobody's matter.
        quiet = relay.member(D, extended=CANDY3)
        quiet.forward(*[sealed(D, B)] * 10)
        read_slowly(end)
        assert told(relay, quiet) == []


def test_of_a_slow_member_to_a_sender_elsewhere() -> None:
    with EngineRelay() as relay:
        relay.engine.add_network()
        end = trunk(relay, 1, [1, 0])
        slow = relay.member(B, extended=CANDY3, tcp=True)
        relay.engine.lead(0, A, 1)
        start = time.monotonic()
        found: list[tuple[int, bytes]] = []
        while not found:
            assert time.monotonic() - start < PATIENCE
            end.forward(network(1), *[sealed(A, B, bytes(60_000))] * 4)
            read_slowly(slow)
            found = received(end)
        number, message = found[0]
        assert number == 1
        kind, member, what, address, limit = struct.unpack(">BIBII", message)
        assert (kind, member, what, address) == (25, A, COMMIT, B)
        assert 4096 <= limit <= 120_000


def test_of_who_does_not_seal_to_senders_elsewhere() -> None:
    """Each pair once a second."""
    with EngineRelay() as relay:
        end = trunk(relay, 1, [0])
        relay.member(B, extended=1)
        relay.member(C, extended=CANDY3, takes_sealed=False)
        for address in (A, D):
            relay.engine.lead(0, address, 1)
        start = time.monotonic()
        pairs = [(A, B), (D, B), (A, C)]
        end.forward(network(0), *(sealed(*pair) for pair in pairs * 5))
        found: list[tuple[int, bytes]] = []
        while len(found) < len(pairs):
            found += received(end)
        found += received(end)
        if time.monotonic() - start < 0.5:
            assert sorted(found) == sorted((0, notice(source, not_sealing(address))) for source, address in pairs)
        assert relay.dropped() == {"not_sealing": 15}


def test_how_many_pairs_are_told_is_bounded() -> None:
    with EngineRelay() as relay:
        end = trunk(relay, 1, [0])
        relay.member(B, extended=1)
        senders = [0x0A010000 + n for n in range(50)]
        for address in senders:
            relay.engine.lead(0, address, 1)
        start = time.monotonic()
        end.forward(network(0), *(sealed(address, B) for address in senders * 3))
        found: list[tuple[int, bytes]] = []
        while not found:
            found = received(end)
        found += received(end)
        assert len(found) <= 8 * (1 + (time.monotonic() - start) / 0.9)


def test_across() -> None:
    with EngineRelay() as one, EngineRelay() as other:
        linked(one, other)
        a = one.member(A, extended=CANDY3)
        other.member(B, extended=1)
        one.engine.lead(0, B, 1)
        other.engine.lead(0, A, 1)
        a.forward(sealed(A, B))
        assert one.details(a.connection, EVENT_CONTROL) == [not_sealing(B)]
        assert (one.dropped(), other.dropped()) == ({}, {"not_sealing": 1})


def test_what_another_relay_may_have_members_told() -> None:
    with EngineRelay() as relay:
        end = trunk(relay, 1, [0])
        a = relay.member(A, extended=CANDY3)
        relay.member(C, extended=1)
        relay.engine.lead(0, B, 1)
        relay.engine.lead(0, D, 2)
        good = [not_sealing(B), commit(B)]
        end.forward(network(0), *(notice(A, message) for message in good))
        assert relay.details(a.connection, EVENT_CONTROL, 2) == good
        of_others = [notice(A, not_sealing(address)) for address in (A, C, D, E)]
        to_nobody = [notice(address, commit(B)) for address in (B, C, D, E)]
        malformed = [
            b"\x19",
            notice(A, b""),
            notice(A, not_sealing(B)[:-1]),
            notice(A, commit(B)[:5]),
            notice(A, not_sealing(B) + bytes(4)),
            notice(A, commit(B) + b"\0"),
            notice(A, b"\x24" + not_sealing(B)[1:]),
        ]
        end.forward(network(0), *of_others, *to_nobody, *malformed)
        assert received(end) == []
        assert told(relay, a) == good
        assert relay.dropped() == {
            "relay_source": len(of_others),
            "moved": len(to_nobody),
            "unknown_kind": len(malformed),
        }


def test_how_much_another_relay_may_have_members_told() -> None:
    with EngineRelay() as relay:
        end = trunk(relay, 1, [0])
        members = [relay.member(0x0A010000 + n, extended=CANDY3) for n in range(20)]
        relay.engine.lead(0, B, 1)
        start = time.monotonic()
        for _ in range(30):
            end.forward(network(0), *(notice(member.address, not_sealing(B)) for member in members))
        assert received(end) == []
        count = sum(len(told(relay, member)) for member in members)
        assert count <= NOTICES_SAVED + 200 * (1 + time.monotonic() - start)
        assert relay.dropped() == {"events": 600 - count}
        assert count >= NOTICES_SAVED
