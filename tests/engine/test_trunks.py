"""Links between relays: what crosses one, as what it arrives, and what goes no further."""

import struct
from collections import Counter

import pytest
from kit.peer import (
    BINARY,
    CLOSE,
    FORWARD,
    PING,
    SEALED,
    SUPER,
    EngineRelay,
    Peer,
    number_of,
    numbered,
    packet,
    padded,
    patience_ms,
    sealed,
    tcp_pair,
)
from kit.superpacket import pattern, segments, tcp
from kit.trunks import CONTROL, by_network, linked, network, trunk

from candy import _fastpath
from candy._fastpath import CANDY3, EVENT_MESSAGE

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

A, B, C, D, E = (0x0A000001 + n for n in range(5))
ALL, POOL, GROUP = 0xFFFFFFFF, 0x0A0000FF, 0xE0000001
LAN = 0xC0A80100
FORMS = (0, 1, CANDY3)
HANDSHAKE, GENERAL, DISCOVERY, UDP4CONN = b"\x14", b"\xff", b"\x05", b"\x03"


def received(peer: Peer) -> list[bytes]:
    """The messages that have come so far."""
    return [frame.payload for frame in peer.sync() if frame.opcode == BINARY]


def handshake(source: int, destination: int) -> bytes:
    return HANDSHAKE + struct.pack(">BxxII", 1, source, destination) + bytes(136)


def told(kind: bytes, source: int, destination: int, size: int = 40) -> bytes:
    """A UDP4CONN, DISCOVERY or GENERAL of no LAN endpoint."""
    return kind + (b"\1\0\0" if kind == GENERAL else b"") + struct.pack(">II", source, destination) + bytes(size)


class Two:
    """Two relays with a trunk between them; A is a member of the one, B of the other."""

    def __init__(self, one: EngineRelay, other: EngineRelay, *, extended: tuple[int, int] = (CANDY3, CANDY3)) -> None:
        self.one, self.other = one, other
        self.ends = linked(one, other)
        self.a = one.member(A, extended=extended[0])
        self.b = other.member(B, extended=extended[1])
        self.lead(B, A)

    def lead(self, there: int, here: int) -> None:
        """Say to both who has which address."""
        self.one.engine.lead(0, there, 1)
        self.other.engine.lead(0, here, 1)

    def across(self, *payloads: bytes) -> list[bytes]:
        """What B gets of these messages of A's."""
        last = numbered(A, B, 0xFFFFFFFF)
        self.a.forward(*payloads, last)
        return [frame.payload for frame in self.b.receive_until(BINARY, last)]


@pytest.mark.parametrize("receiver", FORMS)
@pytest.mark.parametrize("sender", FORMS)
def test_packets_cross_between_members_of_any_kind(sender: int, receiver: int) -> None:
    with EngineRelay() as one, EngineRelay() as other:
        two = Two(one, other, extended=(sender, receiver))
        payloads = [numbered(A, B, n, size) for n, size in enumerate((23, 124, 125, 126, 1400, 1499))]
        sent = [padded(one) for one in payloads] if sender == CANDY3 else payloads
        expected = [padded(one) for one in payloads] if sender == receiver == CANDY3 else payloads
        assert two.across(*sent) == expected
        two.b.forward(*(numbered(B, A, n) for n in range(3)))
        assert [number_of(two.a.receive().payload)[1] for _ in range(3)] == [0, 1, 2]
        assert received(two.a) == received(two.b) == []  # and all of it is counted
        assert (one.dropped(), other.dropped()) == ({}, {})
        assert one.unaccounted() == other.unaccounted() == 0


def test_what_is_sealed_and_masked_stays_so() -> None:
    with EngineRelay() as one, EngineRelay() as other:
        two = Two(one, other)
        payloads = [padded(sealed(A, B, pattern(size))) for size in (16, 98, 1000, 30_000, 65_560)]
        two.a.forward(*payloads)
        frames = [two.b.receive() for _ in payloads]
        assert [frame.payload for frame in frames] == payloads
        assert all(frame.passed for frame in frames)


def test_as_it_is_on_a_trunk() -> None:
    """The network once for each batch, and the members' messages as they came."""
    with EngineRelay() as relay:
        one, other = relay.member(A, extended=CANDY3), relay.member(B, extended=1)
        end = trunk(relay, 7, [0])
        relay.engine.lead(0, C, 7)
        one.forward(numbered(A, C, 1), numbered(A, C, 2))
        assert end.receive().payload == network(0)
        first, second = end.receive(), end.receive()
        assert [first.payload, second.payload] == [numbered(A, C, 1), numbered(A, C, 2)]
        assert first.passed
        assert second.passed
        other.forward(numbered(B, C, 3))
        assert end.receive().payload == network(0)
        assert not (third := end.receive()).passed
        assert third.payload == numbered(B, C, 3)


def test_super_packets_are_cut_where_their_receiver_is() -> None:
    whole = tcp(pattern(5000), source=A, to=B)
    vnet = struct.pack("<BBHHHH", 1, 1, 40, 1000, 20, 16)
    for receiver in FORMS:
        with EngineRelay() as one, EngineRelay() as other:
            two = Two(one, other, extended=(1, receiver))
            cut = segments(vnet, whole)
            assert cut is not None
            expected = [SUPER + vnet + whole] if receiver else [FORWARD + segment for segment in cut]
            assert two.across(SUPER + vnet + whole) == expected


def test_a_packet_too_large_for_an_old_member_is_answered_across() -> None:
    with EngineRelay() as one, EngineRelay() as other:
        two = Two(one, other, extended=(1, 0))
        body = packet(A, B, bytes(1600))
        two.a.forward(FORWARD + body[:6] + b"\x40" + body[7:])
        answer = two.a.receive().payload
        assert answer[10] == 1
        assert answer[21:23] == bytes([3, 4])
        assert struct.unpack_from(">II", answer, 13) == (B, A)
        assert other.dropped() == {"too_large": 1}


def test_networks_are_apart_whatever_each_relay_calls_them() -> None:
    with EngineRelay() as one, EngineRelay() as other:
        second = one.engine.add_network()
        assert other.engine.add_network() == second == 1
        linked(one, other, networks=([0, 1], [1, 0]))
        senders = [one.member(A, network=n) for n in range(2)]
        receivers = [other.member(B, network=1 - n) for n in range(2)]
        for n in range(2):
            one.engine.lead(n, B, 1)
            other.engine.lead(n, A, 1)
        for n in (0, 1, 0):
            senders[n].forward(numbered(A, B, n))
            assert receivers[n].receive().payload == numbered(A, B, n)
        assert [received(peer) for peer in receivers] == [[], []]


def test_what_came_by_a_trunk_leaves_by_none() -> None:
    with EngineRelay() as one, EngineRelay() as middle, EngineRelay() as last:
        two = Two(one, middle)
        linked(middle, last, numbers=(2, 1))
        c = last.member(C)
        one.engine.lead(0, C, 1)
        middle.engine.lead(0, C, 2)
        last.engine.lead(0, A, 1)
        strays = [numbered(A, C, 1), sealed(A, C), handshake(A, C)]
        assert two.across(*strays) == []
        assert middle.dropped() == {"moved": len(strays)}
        assert received(c) == []


def test_nobody_here_has_it() -> None:
    with EngineRelay() as one, EngineRelay() as other:
        two = Two(one, other)
        one.engine.lead(0, C, 1)
        strays = [numbered(A, C, 1), sealed(A, C), handshake(A, C), told(DISCOVERY, A, C)]
        assert two.across(*strays) == []
        assert (one.dropped(), other.dropped()) == ({}, {"moved": len(strays)})


@pytest.mark.parametrize(
    "source", [B, C, D, E], ids=["its receiver's", "another's here", "another relay's", "nobody's"]
)
def test_a_relay_is_believed_for_its_own_members(source: int) -> None:
    with EngineRelay() as relay:
        b = relay.member(B, extended=CANDY3)
        relay.member(C)
        end = trunk(relay, 1, [0])
        trunk(relay, 2, [0])
        relay.engine.lead(0, A, 1)
        relay.engine.lead(0, D, 2)
        group = b"\x13" + struct.pack(">xHII", 7, source, GROUP) + bytes(60)
        end.forward(
            network(0),
            numbered(source, B, 1),
            SUPER + bytes(10) + packet(source, B),
            sealed(source, B),
            numbered(source, GROUP, 1),
            group,
            handshake(source, B),
            told(GENERAL, source, ALL),
            numbered(A, B, 2),
        )
        assert b.receive().payload == numbered(A, B, 2)
        assert relay.dropped() == {"relay_source": 7}


def test_what_lies_behind_another_relays_member() -> None:
    with EngineRelay() as relay:
        b = relay.member(B)
        end, stranger = trunk(relay, 1, [0]), trunk(relay, 2, [0])
        relay.engine.lead(0, A, 1)
        relay.engine.set_rules(0, [(LAN, 0xFFFFFF00, A, B, ALL), (LAN + 256, 0xFFFFFF00, C, B, ALL)])
        end.forward(network(0), numbered(LAN + 300, B, 1), numbered(LAN + 3, B, 2))
        assert b.receive().payload == numbered(LAN + 3, B, 2)
        stranger.forward(network(0), numbered(LAN + 3, B, 3))
        assert received(stranger) == received(b) == []
        assert relay.dropped() == {"relay_source": 2}


def test_where_sources_are_not_checked() -> None:
    with EngineRelay() as relay:
        number = relay.engine.add_network(check_source=False)
        b = relay.member(B, network=number, extended=CANDY3)
        end = trunk(relay, 1, [number])
        end.forward(network(0), numbered(E, B, 1), sealed(E, B))
        assert b.receive().payload == numbered(E, B, 1)
        assert received(end) == received(b) == []
        assert relay.dropped() == {"relay_source": 1}


def test_what_a_user_wraps_for_an_old_member_is_checked_where_that_is() -> None:
    """It takes off 20 bytes of whatever has protocol 4."""
    inner = packet(E, B, b"inside")
    with EngineRelay() as one, EngineRelay() as other:
        two = Two(one, other, extended=(1, 0))
        own = packet(A, B, packet(A, B), protocol=4)
        assert two.across(FORWARD + own[:20] + inner) == []
        assert other.dropped() == {"inner_source": 1}
        whole = own[:20] + packet(A, B)
        assert two.across(FORWARD + whole) == [FORWARD + whole]


def test_no_trunk_leads_there() -> None:
    with EngineRelay() as relay:
        a = relay.member(A, extended=CANDY3)
        b = relay.member(B)
        other = relay.engine.add_network()
        relay.engine.lead(0, C, 1)
        trunk(relay, 1, [other])
        lost = [numbered(A, C, 1), sealed(A, C), handshake(A, C)]
        a.forward(*lost)
        assert received(a) == []
        assert relay.dropped() == {"no_relay_link": 3}
        end = trunk(relay, 1, [0])
        a.forward(numbered(A, C, 2), numbered(A, B, 3))
        assert by_network([end.receive().payload, end.receive().payload]) == [(0, numbered(A, C, 2))]
        relay.engine.close(end.connection, 1000)
        a.forward(numbered(A, C, 4))
        assert received(a) == []
        end.close()
        assert relay.cause(end.connection) in ("local", "reset", "eof", "truncated")
        a.forward(numbered(A, C, 5))
        assert received(a) == []
        assert received(b) == [numbered(A, B, 3)]
        assert relay.dropped() == {"no_relay_link": 5}


def test_a_flow_keeps_to_one_of_several_trunks() -> None:
    with EngineRelay() as relay:
        a = relay.member(A)
        ends = [trunk(relay, 1, [0]) for _ in range(3)]
        far = [0x0A010000 + n for n in range(40)]
        for address in far:
            relay.engine.lead(0, address, 1)
        a.forward(*(numbered(A, address, n) for n in range(5) for address in far))
        assert received(a) == []
        came = [by_network(received(end)) for end in ends]
        flows = [{payload[17:21] for _, payload in one} for one in came]
        assert all(flows)
        assert sum(map(len, flows)) == len(far)
        for one in came:
            for flow in {payload[17:21] for _, payload in one}:
                assert [number_of(payload)[1] for _, payload in one if payload[17:21] == flow] == list(range(5))
        relay.engine.close(ends[0].connection)
        relay.cause(ends[0].connection)
        a.forward(*(numbered(A, address, 9) for address in far))
        assert received(a) == []
        assert sum(len(by_network(received(end))) for end in ends[1:]) == len(far)


@pytest.mark.parametrize("destination", [ALL, POOL, GROUP])
def test_a_groups_packet_crosses_once_and_is_copied_there(destination: int) -> None:
    with EngineRelay() as one, EngineRelay() as other, EngineRelay() as third:
        two = Two(one, other)
        for _ in range(2):
            linked(one, other)
        linked(other, third)
        others = [other.member(C + n, extended=form) for n, form in enumerate(FORMS)]
        outsider = third.member(E)
        own = one.member(E)
        payload = FORWARD + packet(A, destination, b"all")
        two.a.forward(payload)
        for peer in (own, two.b, *others):
            assert peer.receive().payload == payload
        assert received(two.a) == received(outsider) == []
        assert (one.engine.stats()["copies"], other.engine.stats()["copies"]) == (2, 4)
        assert (one.dropped(), other.dropped()) == ({}, {})


def test_other_things_for_all() -> None:
    with EngineRelay() as one, EngineRelay() as other:
        two = Two(one, other)
        old = other.member(C, extended=0)
        group = b"\x13" + struct.pack(">xHII", 7, A, GROUP) + bytes(60)
        two.a.forward(group)
        assert two.b.receive().payload == group
        d = one.member(D, extended=0)
        two.lead(C, D)
        for kind in (DISCOVERY, GENERAL):
            d.forward(told(kind, D, ALL))
            assert two.b.receive().payload == old.receive().payload == told(kind, D, ALL)
        assert one.dropped() == {}


def test_a_relays_packets_for_groups_have_one_allowance() -> None:
    with EngineRelay(broadcast_rate=10) as relay:
        members = [relay.member(B + n) for n in range(4)]
        end = trunk(relay, 1, [0])
        relay.engine.lead(0, A, 1)
        end.forward(network(0), *(FORWARD + packet(A, ALL, bytes([n])) for n in range(20)))
        received(end)
        came = [len(received(member)) for member in members]
        assert came == [came[0]] * 4
        assert 0 < came[0] < 20
        assert relay.dropped() == {"broadcast_limit": 20 - came[0]}


def test_more_members_than_a_turn_has_work_for() -> None:
    """The rest of what came waits until the packet has gone to all."""
    with EngineRelay(broadcast_rate=1 << 30) as relay:
        members = [relay.member(0x0A010000 + n) for n in range(300)]
        end = trunk(relay, 1, [0])
        relay.engine.lead(0, A, 1)
        long = FORWARD + packet(A, ALL, bytes(60_000))
        end.forward(network(0), long, numbered(A, ALL, 1), numbered(A, 0x0A010000, 2))
        for member in members:
            assert member.receive().payload == long
            assert member.receive().payload == numbered(A, ALL, 1)
        assert members[0].receive().payload == numbered(A, 0x0A010000, 2)


@pytest.mark.parametrize("kind", [DISCOVERY, GENERAL])
@pytest.mark.parametrize("sender", FORMS)
def test_what_members_tell_each_other_crosses(kind: bytes, sender: int) -> None:
    with EngineRelay() as one, EngineRelay() as other:
        two = Two(one, other, extended=(sender, 0))
        assert two.across(told(kind, A, B)) == [told(kind, A, B)]
        assert (one.dropped(), other.dropped()) == ({}, {})


LAN_ENDPOINT = GENERAL + bytes(3)


@pytest.mark.parametrize("kind", [UDP4CONN, LAN_ENDPOINT])
def test_endpoints_do_not_cross(kind: bytes) -> None:
    """They may only come to members of their sender's password, and what theirs is another relay does not say."""
    with EngineRelay() as one, EngineRelay() as other:
        two = Two(one, other)
        assert two.across(told(kind, A, B)) == []
        assert (one.dropped(), other.dropped()) == ({"no_acquaintance": 1}, {})
        assert two.across(told(LAN_ENDPOINT, A, ALL)) == []
        assert (one.dropped(), other.dropped()) == ({"no_acquaintance": 1}, {})


def test_handshakes_cross_and_their_sender_is_counted_where_it_is() -> None:
    with EngineRelay() as one, EngineRelay() as other:
        two = Two(one, other)
        old = other.member(C, extended=1)
        two.lead(C, D)
        two.a.forward(*[handshake(A, B)] * 251, handshake(A, C))
        d = one.member(D, extended=CANDY3)
        d.forward(handshake(D, B), handshake(D, C), numbered(D, B, 1))
        assert Counter(frame.payload for frame in two.b.receive_until(BINARY, numbered(D, B, 1))) == {
            handshake(A, B): 250,
            handshake(D, B): 1,
        }
        assert received(old) == []
        assert one.dropped() == {"handshake_limit": 2}
        assert other.dropped() == {"not_sealing": 1}


def test_what_is_sealed_for_who_takes_no_such() -> None:
    with EngineRelay() as one, EngineRelay() as other:
        two = Two(one, other, extended=(CANDY3, 1))
        assert two.across(sealed(A, B)) == []
        assert other.dropped() == {"not_sealing": 1}
        assert [kind for _, kind, _ in other.engine.events()] == []


FAULTS = {
    "another number": [network(1)],
    "no such number": [network(0xFFFF)],
    "a short one": [network(0)[:2]],
    "a long one": [network(0) + b"\0"],
    "no network": [numbered(A, B, 1)],
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_was_not_agreed_on_ends_it(name: str) -> None:
    with EngineRelay() as relay:
        b = relay.member(B)
        end = trunk(relay, 1, [0])
        relay.engine.lead(0, A, 1)
        end.forward(*FAULTS[name], numbered(A, B, 2))
        assert end.receive().payload == struct.pack(">H", 1002)
        assert relay.cause(end.connection) == "protocol_error"
        assert received(b) == []


@pytest.mark.parametrize("fault", ["masked", "a fragment", "a continuation", "too long"])
def test_frames_that_no_relay_sends(fault: str) -> None:
    with EngineRelay() as relay:
        end = trunk(relay, 1, [0])
        frame = end.frame(BINARY, network(0))
        bad = {
            "masked": frame[:1] + b"\x83" + bytes(4) + frame[2:],
            "a fragment": end.frame(BINARY, network(0), final=False),
            "a continuation": end.frame(0, network(0)),
            "too long": end.frame(BINARY, bytes(65_601)),
        }
        end.sock.sendall(bad[fault])
        code = 1009 if fault == "too long" else 1002
        assert end.receive().payload == struct.pack(">H", code)
        assert relay.cause(end.connection) == ("too_large" if fault == "too long" else "protocol_error")


def test_what_is_no_packet() -> None:
    with EngineRelay() as relay:
        end = trunk(relay, 1, [0])
        relay.engine.lead(0, A, 1)
        end.send(1, b"text")
        end.forward(network(0), b"", b"\x63", FORWARD + bytes(19), SUPER + bytes(29), SEALED + bytes(38), b"\x80abcd")
        end.forward(GENERAL + struct.pack(">III", 0, A, B) + bytes(1500), HANDSHAKE + bytes(20), b"\x13" + bytes(40))
        assert received(end) == []
        assert relay.dropped() == {"text": 1, "unknown_kind": 4, "too_short": 5}


def test_before_its_relay_is_known() -> None:
    with EngineRelay() as relay:
        b = relay.member(B)
        end = relay.adopt(trunk=True)
        relay.engine.lead(0, A, 1)
        end.forward(network(0), numbered(A, B, 1), CONTROL + b"who I am", told(GENERAL, A, ALL))
        assert relay.details(end.connection, EVENT_MESSAGE) == [CONTROL + b"who I am"]
        assert received(b) == []
        # As of anybody who has not authenticated, no more is kept than so much.
        end.forward(CONTROL + bytes(1000), bytes(65_000))
        assert relay.engine.send(end.connection, CONTROL + b"so am I")
        assert end.receive_until(BINARY, CONTROL + b"so am I") == []
        assert received(end) == []
        assert relay.dropped()["not_authenticated"] == 4
        assert relay.engine.stats()["queued_bytes"] < 8192
        assert not relay.engine.open_trunk(end.connection)
        assert relay.engine.agree(end.connection, 1, [0])
        end.forward(CONTROL + b"ready", CONTROL + bytes(1500), network(0), numbered(A, B, 2))
        assert b.receive().payload == numbered(A, B, 2)
        assert relay.details(end.connection, EVENT_MESSAGE, 3)[-1] == CONTROL + b"ready"
        assert relay.dropped()["too_large"] == 1


def test_nothing_leaves_by_one_before_its_other_end_takes_it() -> None:
    with EngineRelay() as relay:
        a, b = relay.member(A), relay.member(B)
        end = relay.adopt(trunk=True)
        relay.engine.lead(0, C, 1)
        assert relay.engine.agree(end.connection, 1, [0])
        a.forward(numbered(A, C, 1), numbered(A, ALL, 2))
        assert received(a) == received(end) == []
        assert relay.dropped() == {"no_relay_link": 1}
        assert relay.engine.open_trunk(end.connection)
        assert relay.engine.open_trunk(end.connection)
        a.forward(numbered(A, C, 3), numbered(A, ALL, 4))
        assert received(a) == []
        assert by_network(received(end)) == [(0, numbered(A, C, 3)), (0, numbered(A, ALL, 4))]
        assert received(b) == [numbered(A, ALL, 2), numbered(A, ALL, 4)]
        assert not relay.engine.open_trunk(a.connection)


def test_who_knows_no_more_than_a_stranger_may_say_no_more() -> None:
    with EngineRelay() as relay:
        end = relay.adopt(trunk=True)
        end.forward(*[CONTROL] * 100)
        assert received(end) == []
        assert relay.dropped() == {"events": 36}


def test_it_is_pinged_and_has_an_end() -> None:
    with EngineRelay(ping_after=0.01) as relay:
        end = trunk(relay, 1, [0])
        assert end.receive().opcode == PING
        end.send(CLOSE, struct.pack(">H", 4001) + b"moved on")
        assert end.receive_until(CLOSE, struct.pack(">H", 4001)) is not None
        assert relay.cause(end.connection) == "peer"
        assert [detail for _, kind, detail in relay.events if kind == _fastpath.EVENT_CLOSING] == [b"\x0f\xa1moved on"]


@pytest.mark.parametrize(("is_trunk", "expected_ms"), [(False, 45000), (True, 5000)])
def test_the_kernel_gives_one_up_before_it_does_so_with_a_member(is_trunk: bool, expected_ms: int) -> None:
    ours, theirs = tcp_pair()
    with ours, EngineRelay() as relay:
        fd = theirs.detach()
        relay.engine.adopt(fd, trunk=is_trunk)
        assert patience_ms(fd) == expected_ms


def test_what_can_not_be_asked_of_one() -> None:
    with EngineRelay() as relay, relay.device() as (_, tun):
        end = trunk(relay, 1, [0])
        engine = relay.engine
        assert not engine.bind(end.connection, A)
        assert not engine.unbind(end.connection)
        assert not engine.join(end.connection, tun)
        assert not engine.set_limits(end.connection, down=1)
        assert engine.capture(end.connection) is None
        assert relay.listed() == []
        stats = engine.connection_stats(end.connection)
        assert stats is not None
        assert stats["packets_in"] == 0


def test_what_relays_can_not_agree_on() -> None:
    with EngineRelay() as relay:
        end = relay.adopt(trunk=True)
        agree = relay.engine.agree
        for relay_number, networks, text in (
            (-1, [0], "from 0 to 255"),
            (256, [0], "from 0 to 255"),
            (1, [1], "no network"),
            (1, [0, 0], "one number"),
        ):
            with pytest.raises(ValueError, match=text):
                agree(end.connection, relay_number, networks)
        assert not agree(relay.member(A).connection, 1, [0])
        assert not agree(0, 1, [0])
        assert agree(end.connection, 255, [0])
        with pytest.raises(ValueError, match="agreed before"):
            agree(end.connection, 255, [0])
        for _ in range(8):
            trunk(relay, 255, [])
        with pytest.raises(ValueError, match="8 links"):
            relay.engine.open_trunk(end.connection)
        for call in (
            lambda: relay.engine.lead(1, A, 1),
            lambda: relay.engine.lead(0, 0, 1),
            lambda: relay.engine.lead(0, A, 256),
            lambda: relay.engine.unlead(1, A, 1),
        ):
            with pytest.raises(ValueError):  # noqa: PT011 - each of another text
                call()


def test_an_address_is_one_relays_or_one_members() -> None:
    with EngineRelay() as relay:
        a, b = relay.member(A), relay.member(B)
        end = trunk(relay, 1, [0])
        relay.engine.lead(0, B, 1)
        a.forward(numbered(A, B, 1))
        assert received(a) == []
        assert by_network(received(end)) == [(0, numbered(A, B, 1))]
        b.forward(numbered(B, A, 2))
        assert received(b) == []
        assert relay.dropped() == {"not_authenticated": 1}
        assert relay.engine.bind(b.connection, B)
        assert not relay.engine.unlead(0, B, 1)
        a.forward(numbered(A, B, 3))
        assert b.receive().payload == numbered(A, B, 3)
        relay.engine.lead(0, C, 1)
        assert not relay.engine.unlead(0, C, 2)
        assert relay.engine.unlead(0, C, 1)
        assert not relay.engine.unlead(0, C, 1)
        a.forward(numbered(A, C, 4))
        assert received(a) == []
        assert relay.dropped() == {"not_authenticated": 1, "no_route": 1}


def test_a_network_is_there_as_long_as_a_trunk_for_it() -> None:
    with EngineRelay() as relay:
        number = relay.engine.add_network()
        ends = [trunk(relay, 1, [number, 0]) for _ in range(2)]
        relay.engine.remove_network(number)
        for end in ends:
            assert _fastpath.kept_networks(relay.engine) == 2
            end.forward(network(0), numbered(A, B, 1))
            assert received(end) == []
            relay.engine.close(end.connection)
            relay.cause(end.connection)
        assert _fastpath.kept_networks(relay.engine) == 1
        assert relay.dropped() == {"relay_source": 2}
        # And nothing goes to that relay any more that is for all.
        a, b = relay.member(A), relay.member(B)
        a.forward(numbered(A, ALL, 1))
        assert b.receive().payload == numbered(A, ALL, 1)
        assert relay.dropped() == {"relay_source": 2}


def test_a_relays_own_device() -> None:
    with EngineRelay() as one, EngineRelay() as other, one.device() as (kernel, tun):
        linked(one, other)
        assert one.engine.bind(tun, A)
        b = other.member(B)
        one.engine.lead(0, B, 1)
        other.engine.lead(0, A, 1)
        kernel.send(packet(A, B, b"out"))
        assert b.receive().payload == FORWARD + packet(A, B, b"out")
        b.forward(FORWARD + packet(B, A, b"in"), told(GENERAL, B, A))
        assert kernel.recv(2000) == packet(B, A, b"in")
        kernel.send(packet(A, ALL, b"all"))
        assert b.receive().payload == FORWARD + packet(A, ALL, b"all")
        b.forward(FORWARD + packet(B, ALL, b"all"))
        assert kernel.recv(2000) == packet(B, ALL, b"all")
        assert one.dropped() == {"moved": 1}
