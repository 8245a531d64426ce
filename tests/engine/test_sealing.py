"""A client's device where members seal: what leaves it sealed, and what of that comes back out of another's."""

import socket
import struct

import pytest
from kit.peer import BINARY, CONTINUATION, FORWARD, SUPER, EngineRelay, packet, xor_mask
from kit.sealing import (
    CIPHERS,
    CLEAR,
    KEY_REFUSED,
    NO_ROUTE,
    NOT_SEALING,
    OFF,
    PREFER,
    REQUIRE,
    SEAL,
    Sealed,
    behind,
    pair,
    siphash,
)
from kit.sealing_device import LABELS, MASK, address, client
from kit.superpacket import ANY, IPIP, NO_VNET, A, B, C, D, ip_header, pattern, segments, tcp, udp

from candy import _fastpath
from candy._fastpath import CANDY3

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

CIPHER = pytest.mark.parametrize("cipher", CIPHERS.values(), ids=CIPHERS.keys())
GROUP = 0xE0000001


@CIPHER
@pytest.mark.parametrize("length", [28, 72, 73, 74, 75, 76, 100, 1400, 8100, 8200, 20_000, 65_482, 65_485, 65_535])
def test_a_packet_is_sealed(cipher: int, length: int) -> None:
    one = pair(A, B, cipher=cipher)
    with client() as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        out = packet(A, B, pattern(length - 28))
        for number in range(3):
            frame = device.sends(out)
            sealed = one.went(frame.payload)
            assert (sealed.counter, sealed.packet) == (number, out)
            assert sealed.plain[:10] == NO_VNET
            assert len(frame.payload) not in {*range(122, 126), *range(65_532, 65_536)}
            assert frame.mask is not None
            assert 128 <= frame.mask[0] <= 254
        assert device.relay.dropped() == {}


@CIPHER
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("length", [28, 100, 1400, 8200, 65_535])
def test_a_sealed_packet_comes_out(cipher: int, masked: bool, length: int) -> None:
    one = pair(A, B, cipher=cipher)
    with client() as device:
        one.install(device.engine, device.tun)
        for number in range(3):
            back = packet(B, A, pattern(length - 28), flow=number)
            device.comes(one.comes_packet(number, back), masked=masked)
            assert device.reads() == back
        device.comes(one.comes(3, NO_VNET + packet(B, A, b"padded") + bytes(4)), masked=masked)
        assert device.reads() == packet(B, A, b"padded")
        assert device.relay.dropped() == {}


def test_super_packets_both_ways() -> None:
    one = pair(A, B)
    whole = tcp(pattern(60_000), source=A, to=B)
    back = tcp(pattern(60_000), source=B, to=A)
    with client(vnet=True) as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        sealed = one.went(device.sends(bytes(ANY) + whole).payload)
        assert (sealed.plain[:10], sealed.packet) == (bytes(ANY), whole)
        device.comes(one.comes(0, bytes(ANY) + back))
        got = device.reads()
        assert segments(got[:10], got[10:]) == segments(bytes(ANY), back)
        assert device.relay.dropped() == {}


def test_plain_packets_that_were_sealed_are_put_together() -> None:
    one = pair(A, B)
    whole = segments(bytes(ANY), tcp(pattern(8000), source=B, to=A))
    assert whole is not None
    with client(vnet=True) as device:
        one.install(device.engine, device.tun)
        frames = [device.server.frame(BINARY, behind(MASK, one.comes_packet(n, part))) for n, part in enumerate(whole)]
        device.server.sock.sendall(b"".join(frames))
        got = b"".join(device.reads()[50:] for _ in range(1))
        assert len(got) >= 1000
        assert device.relay.dropped() == {}


def test_what_is_longer_than_a_peer_wants_is_cut_before() -> None:
    one = pair(A, B)
    whole = tcp(pattern(60_000), source=A, to=B)
    with client(vnet=True) as device:
        one.install(device.engine, device.tun)
        device.seal_with(one, longest=5000)
        device.kernel.send(bytes(ANY) + whole)
        parts = [one.went(device.server.receive().payload) for _ in range(15)]
        assert [part.counter for part in parts] == list(range(15))
        assert max(len(part.packet) for part in parts) <= 5000
        found = []
        for part in parts:
            found += segments(part.plain[:10], part.packet) or []
        assert found == segments(bytes(ANY), whole)
        # Nothing to cut: one packet goes as it is.
        long = udp(pattern(9000), source=A, to=B)
        assert one.went(device.sends(NO_VNET + long).payload).packet == long


def test_labels_tell_flows_apart_and_outlast_sessions() -> None:
    found = []
    with client() as device:
        for one in (pair(A, B, number=1), pair(A, B, number=2)):
            one.install(device.engine, device.tun)
            device.seal_with(one)
            found.append([one.went(device.sends(packet(A, B, flow=n % 50)).payload).label for n in range(100)])
    assert found[0] == found[1]
    assert found[0][:50] == found[0][50:]
    assert len(set(found[0])) > 45


def test_a_label_is_a_siphash_of_the_flow() -> None:
    assert siphash(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5, "the vector of SipHash's paper"
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        for flow in range(20):
            out = packet(A, B, flow=flow)
            known = out[12:20] + out[9:10] + out[20:24]
            label = one.went(device.sends(out).payload).label
            assert label == siphash(LABELS, known.ljust(16, b"\0")) & 0xFFFF


def test_through_a_relay_from_device_to_device() -> None:
    there = pair(A, B)
    with (
        EngineRelay() as relay,
        EngineRelay() as one,
        EngineRelay() as other,
        one.device(vnet=True) as (kernel, tun),
        other.device(vnet=True) as (far_kernel, far_tun),
    ):
        for end, number, own in ((one, tun, A), (other, far_tun, B)):
            ours, theirs = socket.socketpair()
            member = relay.engine.adopt(ours.detach(), extended=CANDY3)
            relay.engine.bind(member, own)
            uplink = end.engine.adopt(theirs.detach(), extended=CANDY3, client=True)
            end.engine.join(uplink, number)
            end.engine.set_sealing(number, REQUIRE, own)
            mine = there if own == A else there.other()
            mine.install(end.engine, number)
            end.engine.set_peer(number, mine.peer, SEAL, session=mine.local)
        for n in range(300):
            whole = tcp(pattern(200 * (n + 1)), source=A, to=B)
            back = tcp(pattern(100), source=B, to=A, ip_number=n)
            kernel.send(bytes(ANY) + whole)
            got = far_kernel.recv(1 << 17)
            assert segments(got[:10], got[10:]) == segments(bytes(ANY), whole)
            far_kernel.send(NO_VNET + back)
            assert kernel.recv(1 << 17)[10:] == back
        assert relay.dropped() == one.dropped() == other.dropped() == {}
        assert relay.engine.stats()["packets_in"] == 600


def test_what_the_relay_says_is_lost_behind_no_handshakes() -> None:
    """A CONTROL that is left out ends the connection, and any member may send handshakes."""
    shake = bytes([20, 1, 0, 0]) + address(B) + address(A) + bytes([1]).rjust(4) + bytes(132)
    with client() as device:
        said = [bytes([22, 0, 0, 0]) + struct.pack(">Q", n) + bytes(100) for n in range(300)]
        device.server.forward(*[shake] * 250, *said)
        heard: list[bytes] = []
        while len(heard) < len(said):
            device.relay.pump()
            told = [detail for _, kind, detail in device.relay.events if kind == _fastpath.EVENT_MESSAGE]
            heard = [detail for detail in told if detail[0] == 22]
        assert heard == said


def test_every_bit_that_is_changed_is_refused() -> None:
    one = pair(A, B)
    payload = one.comes_packet(0, packet(B, A))
    with client() as device:
        one.install(device.engine, device.tun)
        for bit in range(8, len(payload) * 8):
            changed = bytearray(payload)
            changed[bit // 8] ^= 1 << bit % 8
            device.comes(bytes(changed), masked=bit % 2 == 0)
        device.nothing_comes()
        drops = device.relay.dropped()
        # Destination; source and session number; the counter's upper 16 bits; all else.
        assert drops == {
            "no_route": 32,
            "unknown_session": 64,
            "replayed": 16,
            "bad_seal": len(payload) * 8 - 8 - 32 - 64 - 16,
        }
        device.comes(payload)
        assert device.reads() == packet(B, A)


def test_replayed_reordered_cut_and_forged() -> None:
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        order = [0, 3, 1, 2, 70_000, 70_000 - 65_535, 69_999]
        for number in order:
            device.comes(one.comes_packet(number, packet(B, A, flow=number & 0xFFFF)))
            assert device.reads() == packet(B, A, flow=number & 0xFFFF)
        for number in [*order, 4, 70_000 - 65_536]:
            device.comes(one.comes_packet(number, packet(B, A)))
        device.server.sync()
        assert device.relay.dropped() == {"replayed": len(order) + 2}
        fresh = one.comes_packet(70_001, packet(B, A))
        for n in range(40, len(fresh)):
            device.comes(fresh[:n])
        forged = Sealed(B, A, one.local, 70_001, NO_VNET + packet(B, A)).seal(bytes(32))
        device.comes(forged)
        device.server.sync()
        assert device.relay.dropped()["bad_seal"] == len(fresh) - 40 + 1
        device.comes(fresh)
        assert device.reads() == packet(B, A)


def test_what_is_no_packet_within_a_seal() -> None:
    one = pair(A, B)
    junk = [b"\0", bytes(29), bytes(10) + bytes(20), NO_VNET + packet(B, A) + bytes(5), bytes([4]) * 10 + packet(B, A)]
    with client() as device:
        one.install(device.engine, device.tun)
        for number, plain in enumerate(junk):
            device.comes(one.comes(number, plain))
        device.nothing_comes()
        assert device.relay.dropped() == {"bad_super": len(junk)}


def test_inner_addresses_are_the_members_own_or_behind_them() -> None:
    one, far = pair(A, B), 0xC0A80107
    mine = 0xAC100001
    rules = [(0xC0A80100, 0xFFFFFF00, B, 0, 0), (0xAC100000, 0xFFFF0000, A, B, 0xFFFFFFFF)]
    with client() as device:
        one.install(device.engine, device.tun)
        tries = [(C, A), (A, A), (B, C), (B, GROUP), (far, A), (B, mine)]
        for number, (source, destination) in enumerate(tries):
            device.comes(one.comes_packet(number, packet(source, destination)))
        device.nothing_comes()
        assert device.relay.dropped() == {"inner_source": 3, "inner_destination": 3}
        device.engine.set_rules(0, rules)
        for number, (source, destination) in enumerate([(far, A), (B, mine), (far, mine)], 100):
            device.comes(one.comes_packet(number, packet(source, destination)))
            assert device.reads() == packet(source, destination)
        device.engine.set_sealing(device.tun, PREFER, A, checks_source=False)
        device.comes(one.comes_packet(200, packet(D, A)), one.comes_packet(201, packet(A, A)))
        assert device.reads() == packet(D, A)
        device.nothing_comes()
        assert device.relay.dropped() == {"inner_source": 4, "inner_destination": 3}


def test_nothing_is_unwrapped_that_was_sealed() -> None:
    """An outer header within a seal is the user's own, whatever it looks like."""
    one = pair(A, B)
    inner = packet(C, D)
    wrapped = ip_header(len(inner), IPIP, B, A) + inner
    with client() as device:
        one.install(device.engine, device.tun)
        device.engine.set_routes(device.tun, A, [])
        device.comes(one.comes_packet(0, wrapped))
        assert device.reads() == wrapped


def test_packets_for_a_network_behind_a_member_are_sealed_for_it() -> None:
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        device.engine.set_routes(device.tun, A, [(0xC0A80100, 0xFFFFFF00, B)])
        out = packet(A, 0xC0A80107)
        assert one.went(device.sends(out).payload).packet == out


def test_notes_and_empty_packets() -> None:
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun, confirmed=False)
        note = b"\x80\x01" + bytes(range(167))
        device.comes(one.comes(0, note), one.comes(1, b""), one.comes(2, b"\x80\x02abc"))
        for number, plain in enumerate([b"\x80", b"\x80\x00", b"\x80\x10", note + b"\0"], 3):
            device.comes(one.comes(number, plain))
        assert device.events() == [
            (_fastpath.EVENT_CONFIRMED, address(one.local)),
            (_fastpath.EVENT_NOTED, address(one.local) + note),
            (_fastpath.EVENT_NOTED, address(one.local) + b"\x80\x02abc"),
        ]
        assert device.relay.dropped() == {"unknown_note": 4}
        for number, body in enumerate([b"", note, b"\x80\x02xyz"]):
            assert device.engine.send_sealed(device.tun, one.local, body)
            sealed = one.went(device.server.receive().payload)
            assert (sealed.counter, sealed.plain, sealed.label) == (number, body, 0)
        assert not device.engine.send_sealed(device.tun, 7)


def test_notes_have_a_limit() -> None:
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        for number in range(60):
            device.comes(one.comes(number, b"\x80\x01" + bytes([number])))
        heard = device.told(_fastpath.EVENT_NOTED)
        # Saved up, and those of the seconds that this takes.
        assert 16 <= len(heard) < 60
        assert heard[:16] == [address(one.local) + b"\x80\x01" + bytes([number]) for number in range(16)]
        assert device.relay.dropped() == {"handshake_limit": 60 - len(heard)}


def test_nothing_is_taken_in_the_clear_where_there_is_room_for_none_but_those_that_seal() -> None:
    first = 0x0B000000
    with client() as device:
        for number in range(4096):
            device.engine.set_peer(device.tun, first + number, NO_ROUTE)
        device.comes(FORWARD + packet(B, A))
        device.nothing_comes()
        assert device.relay.dropped() == {"not_sealed": 1}
        device.engine.set_peer(device.tun, first, CLEAR, takes_clear=True)
        device.comes(FORWARD + packet(B, A))
        assert device.reads() == packet(B, A)
        assert device.engine.forget_peer(device.tun, first)
        device.engine.set_peer(device.tun, first, NO_ROUTE)
        device.comes(FORWARD + packet(B, A))
        device.nothing_comes()
        assert device.relay.dropped() == {"not_sealed": 2}


def test_what_a_session_has_carried() -> None:
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        assert device.engine.seen(device.tun) == [(one.local, 0, 0.0, 0.0, 0.0, 0.0)]
        out = packet(A, B, bytes(100))
        device.sends(out)
        device.sends(out)
        [(_, carried, sent_at, unanswered, received, owes)] = device.engine.seen(device.tun)
        assert (carried, received, owes) == (2 * (len(out) + 10), 0.0, 0.0)
        assert 0.0 < unanswered <= sent_at
        device.comes(one.comes(0, b""))
        device.server.sync()
        [(_, _, _, unanswered, received, owes)] = device.engine.seen(device.tun)
        assert (unanswered, owes) == (0.0, 0.0)
        assert received >= sent_at
        device.comes(one.comes_packet(1, packet(B, A)))
        device.reads()
        assert device.engine.seen(device.tun)[0][5] > 0.0
        device.engine.send_sealed(device.tun, one.local)
        after = device.engine.seen(device.tun)[0]
        assert after[5] == 0.0
        assert after[2] == sent_at, "an empty packet is none of the user's"


def test_the_end_of_its_counters() -> None:
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        _fastpath.set_counter(device.engine, device.tun, one.local, 2**48 - 2)
        assert [one.went(device.sends(packet(A, B)).payload).counter for _ in range(2)] == [2**48 - 2, 2**48 - 1]
        device.kernel.send(packet(A, B))
        assert device.told(_fastpath.EVENT_WANTED) == [address(B)]
        assert not device.engine.send_sealed(device.tun, one.local)
        device.comes(one.comes_packet(2**48, packet(B, A)), one.comes_packet(2**48 - 1, packet(B, A)))
        assert device.reads() == packet(B, A)
        assert device.relay.dropped() == {"replayed": 1}


def test_the_end_of_its_bytes() -> None:
    """Before a packet could go beyond them; without a session that seals, nothing goes in the clear."""
    one = pair(A, B)
    out = packet(A, B, bytes(1000))
    with client() as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        longest = 65_589
        _fastpath.set_carried(device.engine, device.tun, one.local, bytes_sent=2**38 - longest)
        assert one.went(device.sends(out).payload).packet == out
        device.kernel.send(out)
        assert device.told(_fastpath.EVENT_WANTED) == [address(B)]
        assert _fastpath.waiting_bytes_of(device.engine, device.tun) == len(NO_VNET + out)
        assert device.server.sync() == []
        # A message of rekeying has room still, to the last byte.
        assert device.engine.send_sealed(device.tun, one.local, b"\x80\x01")
        assert one.went(device.server.receive().payload).counter == 1
        _fastpath.set_carried(device.engine, device.tun, one.local, bytes_sent=2**38 - 2)
        assert device.engine.send_sealed(device.tun, one.local, b"\x80\x01")
        assert not device.engine.send_sealed(device.tun, one.local, b"\x80\x01")


def test_the_end_of_its_forgeries() -> None:
    one = pair(A, B)
    forged = Sealed(B, A, one.local, 5, NO_VNET + packet(B, A)).seal(bytes(32))
    with client() as device:
        one.install(device.engine, device.tun)
        _fastpath.set_carried(device.engine, device.tun, one.local, failures=2**30 - 1)
        device.comes(one.comes_packet(0, packet(B, A, b"before")))
        assert device.reads() == packet(B, A, b"before")
        device.comes(forged, one.comes_packet(1, packet(B, A)))
        device.nothing_comes()
        assert device.relay.dropped() == {"bad_seal": 2}


def test_what_is_over_neither_seals_nor_opens() -> None:
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun, until=0.0, opens=0.0)
        device.seal_with(one)
        device.kernel.send(packet(A, B))
        device.comes(one.comes_packet(0, packet(B, A)))
        device.nothing_comes()
        assert not device.engine.send_sealed(device.tun, one.local)
        assert device.relay.dropped() == {"unknown_session": 1}
        assert device.events() == [(_fastpath.EVENT_WANTED, address(B))]


def test_without_its_session_what_is_for_a_peer_waits() -> None:
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        device.sends(packet(A, B))
        assert device.engine.remove_session(device.tun, one.local)
        device.kernel.send(packet(A, B))
        assert device.told(_fastpath.EVENT_WANTED) == [address(B)]
        assert device.relay.dropped() == {}


@pytest.mark.parametrize("extended", [0, 1])
def test_nothing_is_sealed_for_a_relay_without_candy_3(extended: int) -> None:
    one = pair(A, B)
    with EngineRelay() as relay, relay.device() as (kernel, tun):
        server = relay.joined(tun, extended=extended)
        relay.engine.set_sealing(tun, PREFER, A)
        one.install(relay.engine, tun)
        relay.engine.set_peer(tun, B, SEAL, session=one.local)
        kernel.send(packet(A, B))
        while not relay.dropped():
            server.sync()
        relay.engine.set_peer(tun, B, CLEAR)
        kernel.send(packet(A, B))
        assert server.receive().payload == FORWARD + packet(A, B)
        assert not relay.engine.send_sealed(tun, one.local)
        assert relay.dropped() == {"no_session": 1}


def test_sessions_come_and_go() -> None:
    one = pair(A, B)
    with client() as device:
        device.comes(one.comes_packet(0, packet(B, A)))
        device.server.sync()
        assert device.events() == [(_fastpath.EVENT_UNKNOWN, address(B))]
        one.install(device.engine, device.tun)
        with pytest.raises(ValueError, match="not in use"):
            one.install(device.engine, device.tun)
        device.comes(one.comes_packet(0, packet(B, A)))
        assert device.reads() == packet(B, A)
        assert device.engine.remove_session(device.tun, one.local)
        assert not device.engine.remove_session(device.tun, one.local)
        for number in range(100):
            device.comes(one.comes_packet(number, packet(B, A)))
        device.nothing_comes()
        assert device.relay.dropped() == {"unknown_session": 101}


def test_all_that_send_for_no_session_have_a_limit() -> None:
    with client() as device:
        for number in range(300):
            source = 0x0B000000 + number
            device.comes(pair(A, source).comes_packet(0, packet(source, A)))
        heard = device.told(_fastpath.EVENT_UNKNOWN)
        # Saved up, and those of the seconds that this takes.
        assert 64 <= len(heard) < 300
        assert heard[:64] == [address(0x0B000000 + number) for number in range(64)]


def test_one_that_sends_for_no_session_hides_no_other_that_does() -> None:
    one, other = pair(A, B), pair(A, C)
    with client() as device:
        device.comes(*(one.comes_packet(number, packet(B, A)) for number in range(200)))
        device.comes(*(other.comes_packet(number, packet(C, A)) for number in range(2)))
        device.nothing_comes()
        assert device.told(_fastpath.EVENT_UNKNOWN) == [address(B), address(C)]
        assert device.relay.dropped() == {"unknown_session": 202}


def test_rekeying_loses_nothing() -> None:
    first, second = pair(A, B, number=1), pair(A, B, number=2)
    with client() as device:
        first.install(device.engine, device.tun)
        device.seal_with(first)
        outs = [packet(A, B, struct.pack(">I", n)) for n in range(200)]
        for out in outs[:100]:
            device.kernel.send(out)
        second.install(device.engine, device.tun)
        device.seal_with(second)
        for out in outs[100:]:
            device.kernel.send(out)
        found = []
        for _ in outs:
            payload = device.server.receive().payload
            session = int.from_bytes(payload[12:16], "big")
            found.append((first if session == first.remote else second).went(payload).packet)
        assert found == outs
        device.comes(second.comes_packet(0, packet(B, A, b"new")), first.comes_packet(0, packet(B, A, b"old")))
        assert [device.reads(), device.reads()] == [packet(B, A, b"new"), packet(B, A, b"old")]


# Ways, and what waits

WAYS = {NO_ROUTE: "no_route", KEY_REFUSED: "key_refused", NOT_SEALING: "peer_not_sealing"}


def test_what_is_for_somebody_unknown_waits_and_asks_once() -> None:
    one = pair(A, B)
    outs = [packet(A, B, struct.pack(">I", n)) for n in range(20)]
    with client() as device:
        for out in outs:
            device.kernel.send(out)
        assert device.told(_fastpath.EVENT_WANTED) == [address(B)]
        assert device.server.sync() == []
        one.install(device.engine, device.tun)
        device.seal_with(one)
        assert [one.went(device.server.receive().payload).packet for _ in outs] == outs
        assert device.told(_fastpath.EVENT_WANTED) == [address(B)]
        assert _fastpath.waiting_bytes_of(device.engine, device.tun) == 0
        assert device.relay.dropped() == {}


def test_what_waits_may_go_in_the_clear() -> None:
    with client(vnet=True) as device:
        whole = tcp(pattern(30_000), source=A, to=B)
        device.engine.set_routes(device.tun, A, [(0xC0A80100, 0xFFFFFF00, B)])
        device.kernel.send(NO_VNET + packet(A, B))
        device.kernel.send(bytes(ANY) + whole)
        device.kernel.send(NO_VNET + packet(A, 0xC0A80107))
        assert device.told(_fastpath.EVENT_WANTED) == [address(B)]
        device.engine.set_peer(device.tun, B, CLEAR)
        assert device.server.receive().payload == FORWARD + packet(A, B)
        assert device.server.receive().payload == SUPER + bytes(ANY) + whole
        wrapped = device.server.receive().payload
        assert (wrapped[13:21], wrapped[21:]) == (address(A) + address(B), packet(A, 0xC0A80107))


@pytest.mark.parametrize("way", WAYS)
def test_what_waits_and_what_comes_may_go_nowhere(way: int) -> None:
    with client() as device:
        device.kernel.send(packet(A, B))
        assert device.told(_fastpath.EVENT_WANTED) == [address(B)]
        device.engine.set_peer(device.tun, B, way)
        device.kernel.send(packet(A, B))
        if way == NOT_SEALING:
            answer = device.reads()
            assert (answer[9], answer[12:16], answer[20:22]) == (1, address(B), b"\x03\x0d")
        device.nothing_comes()
        assert device.server.sync() == []
        assert device.relay.dropped() == {WAYS[way]: 2}


def test_each_set_peer_may_ask_to_be_told() -> None:
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        for told in (0, 1, 1, 2):
            device.seal_with(one, tells_wanted=told != len(device.told(_fastpath.EVENT_WANTED)))
            device.sends(packet(A, B))
            device.sends(packet(A, B))
            assert device.told(_fastpath.EVENT_WANTED) == [address(B)] * told
        device.engine.set_peer(device.tun, B, 0)
        device.kernel.send(packet(A, B))
        assert len(device.told(_fastpath.EVENT_WANTED)) == 3
        device.engine.set_peer(device.tun, B, 0)
        assert len(device.told(_fastpath.EVENT_WANTED)) == 4, "one waits already"


def test_the_waiting_room_has_bounds() -> None:
    with client() as device:
        for n in range(1030):
            device.kernel.send(packet(A, B, struct.pack(">I", n)))
        device.server.sync()
        while device.engine.stats()["packets_in"] < 1030:
            device.server.sync()
        assert device.relay.dropped() == {"no_session": 6}
        for _ in range(20):
            device.kernel.send(packet(A, C, bytes(60_000)))
        while device.engine.stats()["packets_in"] < 1050:
            device.server.sync()
        assert device.relay.dropped() == {"no_session": 6 + 3}
        one = pair(A, B)
        one.install(device.engine, device.tun)
        device.seal_with(one)
        numbers = [struct.unpack_from(">I", one.went(device.server.receive().payload).packet, 28) for _ in range(1024)]
        assert numbers == [(n,) for n in range(6, 1030)]
        for n in range(400):
            device.kernel.send(packet(A, 0x0A000100 + n, bytes(60_000)))
        while device.engine.stats()["packets_in"] < 1450:
            device.server.sync()
        waiting = _fastpath.waiting_bytes_of(device.engine, device.tun)
        assert 16_777_216 - 60_100 <= waiting <= 16_777_216
        assert device.engine.forget_peer(device.tun, 0x0A000100 + 399)
        assert _fastpath.waiting_bytes_of(device.engine, device.tun) == waiting - 60_038
        assert not device.engine.forget_peer(device.tun, 0x0A000100 + 399)


def test_what_has_waited_for_six_seconds_is_dropped() -> None:
    """Though nothing comes any more: neither another packet, nor a session."""
    with client() as device:
        for n in range(3):
            device.kernel.send(packet(A, B, struct.pack(">I", n)))
        while device.engine.stats()["packets_in"] < 3:
            device.server.sync()
        _fastpath.age_waiting(device.engine, device.tun, 7.0)
        device.kernel.send(packet(A, C))
        while device.relay.dropped() != {"no_session": 3}:
            assert device.server.sync() == []
        assert _fastpath.waiting_bytes_of(device.engine, device.tun) == len(NO_VNET + packet(A, C))
        _fastpath.age_waiting(device.engine, device.tun, 7.0)
        while device.relay.dropped() != {"no_session": 4}:
            assert device.server.sync() == []
        assert _fastpath.waiting_bytes_of(device.engine, device.tun) == 0


def test_order_holds_behind_what_waits() -> None:
    """Whatever way a packet takes, it does not overtake those that came before it."""
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        found: list[int] = []
        sent = 0
        for _ in range(30):
            device.engine.set_peer(device.tun, B, 0)
            for _ in range(20):
                device.kernel.send(packet(A, B, struct.pack(">I", sent)))
                sent += 1
            device.seal_with(one)
            for _ in range(20):
                device.kernel.send(packet(A, B, struct.pack(">I", sent)))
                sent += 1
            while len(found) < sent:
                found.append(struct.unpack_from(">I", one.went(device.server.receive().payload).packet, 28)[0])
        assert found == list(range(sent))


# In the clear


def test_from_somebody_unknown_it_is_taken_and_told_once() -> None:
    with client() as device:
        device.comes(FORWARD + packet(B, A), FORWARD + packet(B, A))
        assert [device.reads(), device.reads()] == [packet(B, A)] * 2
        assert device.events() == [(_fastpath.EVENT_CLEAR, address(B))]


def test_with_require_it_is_not() -> None:
    with client(REQUIRE) as device:
        device.comes(FORWARD + packet(B, A), FORWARD + packet(B, A), FORWARD + packet(B, GROUP))
        device.nothing_comes()
        assert device.events() == [(_fastpath.EVENT_CLEAR, address(B))]
        device.kernel.send(packet(A, GROUP))
        device.server.sync()
        assert device.relay.dropped() == {"not_sealed": 2, "group_not_sealed": 2}


def test_of_who_seals_nothing_comes_in_the_clear() -> None:
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        back = tcp(pattern(3000), source=B, to=A)
        device.comes(FORWARD + packet(B, A), SUPER + bytes(ANY) + back, masked=True)
        device.comes(FORWARD + packet(B, A), SUPER + bytes(ANY) + back, masked=False)
        device.nothing_comes()
        assert device.relay.dropped() == {"not_sealed": 4}
        device.comes(FORWARD + packet(B, GROUP))
        assert device.reads() == packet(B, GROUP)
        device.seal_with(one, takes_clear=True, tells_clear=True)
        device.comes(FORWARD + packet(B, A), FORWARD + packet(B, A))
        assert [device.reads(), device.reads()] == [packet(B, A)] * 2
        assert device.told(_fastpath.EVENT_CLEAR) == [address(B)]


def test_what_lies_behind_who_seals_does_not_come_in_the_clear() -> None:
    one, far = pair(A, B), 0xC0A80107
    with client() as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        device.engine.set_routes(device.tun, A, [])
        device.engine.set_rules(0, [(0xC0A80100, 0xFFFFFF00, B, 0, 0), (0xC0A80100, 0xFFFFFF00, C, 0, 0)])
        inner = packet(far, A)
        device.comes(FORWARD + inner)
        # C has wrapped it in a packet of its own.
        device.comes(FORWARD + ip_header(len(inner), IPIP, C, A, number=0) + inner)
        device.nothing_comes()
        assert device.relay.dropped() == {"not_sealed": 2}


def test_what_waits_is_dropped_with_off() -> None:
    with client() as device:
        device.kernel.send(packet(A, B))
        assert device.told(_fastpath.EVENT_WANTED) == [address(B)]
        device.engine.set_sealing(device.tun, OFF, A)
        assert device.relay.dropped() == {"no_session": 1}
        assert device.sends(packet(A, B)).payload == FORWARD + packet(A, B)


def test_with_off_the_tables_count_for_nothing() -> None:
    one = pair(A, B)
    with client(OFF) as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        assert device.sends(packet(A, B)).payload == FORWARD + packet(A, B)
        device.comes(FORWARD + packet(B, A))
        assert device.reads() == packet(B, A)
        device.comes(one.comes_packet(0, packet(B, A)))
        device.nothing_comes()
        assert device.relay.dropped() == {"unexpected_kind": 1}


# Masks, and what a client with candy.3 sends in the clear


@pytest.mark.parametrize("length", [29, 121, 122, 123, 124, 125, 126, 1400, 65_531, 65_532, 65_535])
def test_in_the_clear_too_masks_may_pass(length: int) -> None:
    with client(OFF) as device:
        out = packet(A, B, bytes(length - 29))
        frame = device.sends(out)
        assert frame.payload[:length] == FORWARD + out
        assert set(frame.payload[length:]) <= {0}
        assert len(frame.payload) not in {*range(122, 126), *range(65_532, 65_536)}
        assert frame.mask is not None
        assert 128 <= frame.mask[0] <= 254


def test_padding_and_masks_are_taken_off() -> None:
    with client(OFF, vnet=True) as device:
        back, whole = packet(B, A), tcp(pattern(3000), source=B, to=A)
        for masked in (True, False):
            for extra in range(5):
                device.comes(FORWARD + back + bytes(extra), masked=masked)
                assert device.reads() == NO_VNET + back
                device.comes(SUPER + bytes(ANY) + whole + bytes(extra), masked=masked)
                got = device.reads()
                assert segments(got[:10], got[10:]) == segments(bytes(ANY), whole)
        assert device.relay.dropped() == {}


@pytest.mark.parametrize("payload", [b"\3" + bytes(60), b"\x13" + bytes(60), b"\x80" + bytes(60), b"\xff" + bytes(60)])
def test_nothing_else_comes_behind_a_mask(payload: bytes) -> None:
    with client() as device:
        device.comes(payload)
        device.server.send(BINARY, behind(MASK, payload)[:9], final=False)
        device.server.send(CONTINUATION, behind(MASK, payload)[9:])
        device.nothing_comes()
        assert device.relay.dropped() == {"unknown_kind": 2}


def test_fragments_behind_a_mask() -> None:
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        payload = behind(MASK, one.comes_packet(0, packet(B, A)))
        device.server.send(BINARY, payload[:3], final=False)
        device.server.send(CONTINUATION, payload[3:])
        assert device.reads() == packet(B, A)
        device.server.send(BINARY, MASK)
        device.server.send(BINARY, MASK + xor_mask(b"\x12" + bytes(38), MASK))
        device.nothing_comes()
        assert device.relay.dropped() == {"too_short": 1, "unknown_kind": 1}


# A slow relay


@pytest.mark.plain
def test_what_waits_in_the_queue_is_sealed_when_it_leaves() -> None:
    """What is dropped before has no counter. Only what went straight to the kernel, and what that left, was sealed
    before it waited."""
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        for n in range(3000):
            device.kernel.send(packet(A, B, struct.pack(">I", n) + bytes(5000), flow=n % 3))
        frames = []
        while device.engine.stats()["packets_in"] < 3000:
            frames += device.server.sync()
        frames += device.relay.drain(device.server)
        found = [one.went(frame.payload) for frame in frames]
        counters = [sealed.counter for sealed in found]
        assert counters[100:] == sorted(counters)[100:]
        assert len(set(counters)) == len(found)
        assert max(counters) < len(found) + 30
        assert len(found) + sum(device.relay.dropped().values()) == 3000
        for flow in range(3):
            numbers = [n for n in (struct.unpack_from(">I", s.packet, 28)[0] for s in found) if n % 3 == flow]
            assert numbers == sorted(set(numbers))


@pytest.mark.plain
def test_what_waits_for_a_session_that_goes_is_dropped() -> None:
    one = pair(A, B)
    with client() as device:
        one.install(device.engine, device.tun)
        device.seal_with(one)
        n = 0
        while device.engine.connection_stats(device.server.connection)["queued_bytes"] < 500_000:  # type: ignore[index]
            device.kernel.send(packet(A, B, bytes(20_000)))
            n += 1
        device.engine.remove_session(device.tun, one.local)
        frames = device.relay.drain(device.server)
        assert all(one.went(frame.payload) for frame in frames)
        dropped = device.relay.dropped()["no_session"]
        assert dropped > 5
        assert len(frames) + dropped + _fastpath.waiting_bytes_of(device.engine, device.tun) // 20_038 == n
