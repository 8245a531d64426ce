"""Direct links with original clients: what leaves by one, and what comes out of one."""

import struct

import pytest
from kit.linked import numbered, packed, place, udp
from kit.old_linked import FORWARD, LONGEST, OWN_KEY, PEER_KEY, OldLinked, old_linked, opened, sealed
from kit.peer import packet
from kit.sealing import CIPHERS, CLEAR, NO_ROUTE, OFF, PREFER, REQUIRE, WAIT, pair
from kit.superpacket import ANY, NO_VNET, A, B, C, pattern, segments, tcp

from candy import _fastpath
from candy._fastpath import EVENT_MET, EVENT_OLD, EVENT_QUIET, EVENT_STUN

pytestmark = pytest.mark.engine

SEALING = pytest.mark.parametrize("sealing", [OFF, PREFER], ids=["off", "prefer"])
HEARTBEAT = bytes.fromhex("00 0a000002 00000000 0000 01")


@SEALING
@pytest.mark.parametrize("vnet", [False, True])
def test_packets_leave_by_the_path(sealing: int, vnet: bool) -> None:
    with old_linked(sealing=sealing, vnet=vnet) as one:
        packets = [packet(A, B, pattern(length - 28)) for length in (28, 29, 100, 1000, LONGEST)]
        for out in packets:
            one.device.kernel.send((NO_VNET if vnet else b"") + out)
        assert [one.went() for _ in packets] == [FORWARD + out for out in packets]
        assert one.dropped() == {}
        [(peer, sent, heard, *figures)] = one.engine.old_paths(one.tun)
        assert peer == B
        assert sent >= heard > 0
        assert figures == [0, 0, 5, sum(map(len, packets)), False]
        assert one.engine.old_sealed(one.tun) == 5


def test_no_iv_comes_twice() -> None:
    with old_linked() as one:
        for number in range(200):
            one.device.kernel.send(packet(A, B, flow=number))
        assert len({one.peer.recv(2000)[:12] for _ in range(200)}) == 200


def test_a_super_packet_leaves_as_packets() -> None:
    whole = tcp(pattern(50_000), source=A, to=B)
    vnet = struct.pack("<BBHHHH", 1, 1, 40, 1360, 20, 16)
    with old_linked(vnet=True) as one:
        one.device.kernel.send(vnet + whole)
        expected = segments(vnet, whole)
        assert expected is not None
        assert [one.went() for _ in expected] == [FORWARD + part for part in expected]
        assert one.engine.old_sealed(one.tun) == len(expected)


def test_what_is_too_long_goes_by_the_relay() -> None:
    with old_linked() as one:
        out = packet(A, B, pattern(LONGEST + 1 - 28))
        assert one.device.sends(out).payload == FORWARD + out
        assert one.dropped() == {}


def test_others_packets_go_by_the_relay() -> None:
    with old_linked() as one:
        one.engine.set_peer(one.tun, C, CLEAR, takes_clear=True)
        out = packet(A, C, b"elsewhere")
        assert one.device.sends(out).payload == FORWARD + out


@pytest.mark.parametrize("vnet", [False, True])
def test_before_a_path_is_proven_packets_come_by_it_and_none_leave(vnet: bool) -> None:
    """Whom this member has acknowledged sends some at once."""
    with old_linked(vnet=vnet, with_path=False) as one:
        one.path(longest=0)
        one.arrives()
        head = NO_VNET if vnet else b""
        out = packet(A, B, b"by the relay")
        assert one.device.sends(head + out).payload == FORWARD + out
        if vnet:
            whole = tcp(pattern(3000), source=A, to=B)
            assert one.device.sends(bytes(ANY) + whole).payload[-len(whole) :] == whole
        one.path()
        one.device.kernel.send(head + out)
        assert one.went() == FORWARD + out
        one.path(longest=0)
        one.arrives()
        assert one.device.sends(head + out).payload == FORWARD + out
        assert one.dropped() == {}


def test_a_path_ends() -> None:
    with old_linked() as one:
        assert one.engine.clear_old_path(one.tun, B)
        assert not one.engine.clear_old_path(one.tun, B)
        assert one.engine.old_paths(one.tun) == []
        out = packet(A, B, b"by the relay")
        assert one.device.sends(out).payload == FORWARD + out
        one.comes(FORWARD + packet(B, A, b"by the link"))
        one.comes(HEARTBEAT)
        one.told(EVENT_OLD)
        one.path()
        one.arrives()
        assert one.dropped() == {"spoofed_source": 1}


def test_another_key_of_the_peers() -> None:
    with old_linked() as one:
        one.device.kernel.send(packet(A, B, b"one"))
        assert one.went() == FORWARD + packet(A, B, b"one")
        one.path(bytes(32))
        one.device.kernel.send(packet(A, B, b"two"))
        assert opened(one.peer.recv(2000), bytes(32)) == FORWARD + packet(A, B, b"two")
        [(*_, out, _size, quiet)] = one.engine.old_paths(one.tun)
        assert (out, quiet) == (2, False)


def test_forgotten_peers_have_no_path() -> None:
    with old_linked() as one:
        assert one.engine.forget_peer(one.tun, B)
        assert one.engine.old_paths(one.tun) == []


@SEALING
@pytest.mark.parametrize("vnet", [False, True])
def test_packets_come_by_a_link(sealing: int, vnet: bool) -> None:
    with old_linked(sealing=sealing, vnet=vnet) as one:
        for length in (28, 29, 100, 1000, 1400, LONGEST):
            back = packet(B, A, pattern(length - 28))
            one.comes(FORWARD + back)
            assert one.device.reads() == (NO_VNET if vnet else b"") + back
        assert one.dropped() == {}
        [(*_, packets, size, out, _out_size, _quiet)] = one.engine.old_paths(one.tun)
        assert (packets, size, out) == (6, 28 + 29 + 100 + 1000 + 1400 + LONGEST, 0)


def test_segments_are_put_together() -> None:
    with old_linked(vnet=True) as one:
        parts = [tcp(pattern(1000), 1 + 1000 * number, source=B, to=A) for number in range(3)]
        for part in parts:
            one.comes(FORWARD + part)
        got = b""
        while len(got) < 3000:
            got += one.device.reads()[10 + 40 :]
        assert got == 3 * pattern(1000)


REFUSED = {
    "of another member": (packet(C, A, b"spoofed"), "spoofed_source"),
    "of nobody": (packet(0, A, b"spoofed"), "spoofed_source"),
    "of this member": (packet(A, A, b"spoofed"), "spoofed_source"),
    "for another member": (packet(B, C, b"stray"), "no_route"),
    "for a group": (packet(B, 0xE0000001, b"group"), "no_route"),
    "for all": (packet(B, 0xFFFFFFFF, b"all"), "no_route"),
    "wrapped, by no rule": (struct.pack(">BBHIBBHII", 0, 0, 0, 0, 0, 4, 0, B, A) + packet(C, A, b"x"), "inner_source"),
    "too short": (bytes(19), "link_malformed"),
}


@SEALING
@pytest.mark.parametrize(("inner", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(sealing: int, inner: bytes, reason: str) -> None:
    with old_linked(sealing=sealing) as one:
        one.comes(FORWARD + inner)
        one.arrives()
        assert one.dropped() == {reason: 1}


def test_only_from_the_address_of_its_path() -> None:
    with old_linked() as one, udp() as elsewhere:
        one.comes(FORWARD + packet(B, A, b"from elsewhere"), by=elsewhere)
        one.comes(HEARTBEAT, by=elsewhere)
        [detail] = one.told(EVENT_OLD)
        name = elsewhere.getsockname()
        assert detail == one.link.to_bytes(8, "big") + place((name[0], name[1])) + HEARTBEAT
        one.arrives()
        assert one.dropped() == {"spoofed_source": 1}


def test_a_member_that_seals_is_not_taken_in_the_clear() -> None:
    with old_linked() as one:
        one.engine.set_peer(one.tun, B, CLEAR, takes_clear=False, tells_clear=False)
        one.comes(FORWARD + packet(B, A, b"clear"))
        one.comes(HEARTBEAT)
        one.told(EVENT_OLD)
        one.engine.set_peer(one.tun, B, CLEAR, takes_clear=True, tells_clear=False)
        one.arrives()
        assert one.dropped() == {"not_sealed": 1}


def test_nothing_in_the_clear_where_all_is_sealed() -> None:
    with old_linked(sealing=REQUIRE) as one:
        one.engine.set_peer(one.tun, B, CLEAR, takes_clear=False, tells_clear=False)
        one.comes(FORWARD + packet(B, A, b"clear"))
        one.comes(HEARTBEAT)
        one.told(EVENT_OLD)
        one.device.nothing_comes()
        assert one.dropped() == {"not_sealed": 1}


WRONG = {
    "another key": sealed(FORWARD + packet(B, A), PEER_KEY),
    "a bit of the tag": bytes([*sealed(HEARTBEAT)[:27], 0, *sealed(HEARTBEAT)[28:]]),
    "too long": sealed(FORWARD + packet(B, A, pattern(1500 - 29 - 28 + 1))),
    "too short": sealed(HEARTBEAT[:11]),
    "one byte": b"\1",
    "zeros": bytes(100),
}


@SEALING
@pytest.mark.parametrize("datagram", WRONG.values(), ids=WRONG.keys())
def test_what_does_not_open(sealing: int, datagram: bytes) -> None:
    with old_linked(sealing=sealing) as one:
        one.peer.sendto(datagram, one.own)
        one.arrives()
        assert one.dropped() == {"link_unknown": 1}


@pytest.mark.parametrize("cipher", CIPHERS.values(), ids=CIPHERS.keys())
@pytest.mark.parametrize("counter", [0, 2**32 - 1], ids=["that may come", "beyond its bound"])
def test_what_looks_like_a_sessions_and_is_none(cipher: int, counter: int) -> None:
    """An IV that a chance of 1 in 2^62 makes is the header of a session's datagram; without a key it is that."""
    with old_linked() as one:
        session = numbered(pair(A, C, cipher=cipher), one.device)
        session.install(one.engine, one.tun)
        back = packet(B, A, pattern(700))
        datagram = sealed(FORWARD + back, iv=struct.pack(">BBHII", 18, 0, 0, session.local, counter))
        one.peer.sendto(datagram, one.own)
        assert one.device.reads() == back
        assert one.dropped() == {}
        one.engine.set_old_key(one.tun, A)
        one.peer.sendto(datagram, one.own)
        assert one.engine.expect_stun(one.link, [bytes(12)])
        one.peer.sendto(b"\1\1\0\0\x21\x12\xa4\x42" + bytes(12), one.own)
        one.device.relay.details(one.link, EVENT_STUN)
        assert one.dropped() == {"link_replayed" if counter else "link_bad_seal": 1}


def test_without_a_key_the_kernel_drops_it() -> None:
    with old_linked(with_key=False) as one:
        one.comes(FORWARD + packet(B, A, b"early"))
        one.engine.set_old_key(one.tun, A, OWN_KEY)
        one.arrives()
        one.engine.set_old_key(one.tun, A)
        one.comes(FORWARD + packet(B, A, b"late"))
        out = packet(A, B, b"by the relay")
        assert one.device.sends(out).payload == FORWARD + out
        one.engine.set_old_key(one.tun, A, OWN_KEY)
        one.arrives()
        assert one.dropped() == {}


def test_another_own_key() -> None:
    with old_linked() as one:
        one.engine.set_old_key(one.tun, A, PEER_KEY)
        one.comes(FORWARD + packet(B, A, b"under the old one"))
        back = packet(B, A, b"under the new one")
        one.comes(FORWARD + back, key=PEER_KEY)
        assert one.device.reads() == back
        assert one.dropped() == {"link_unknown": 1}


def test_messages_are_told_and_few_of_one_address() -> None:
    with old_linked() as one:
        for number in range(40):
            one.comes(bytes([0, number]) + bytes(10))
        one.arrives()
        told = one.told(EVENT_OLD, 16)
        name = one.peer.getsockname()
        head = one.link.to_bytes(8, "big") + place((name[0], name[1]))
        assert told[:16] == [head + bytes([0, number]) + bytes(10) for number in range(16)]
        assert one.dropped()["link_limit"] == 40 - len(told)


def test_no_long_message_is_told() -> None:
    with old_linked() as one:
        one.comes(bytes(65))
        one.arrives()
        assert one.dropped() == {"link_malformed": 1}
        assert one.device.told(EVENT_OLD) == []


def test_messages_to_a_peer() -> None:
    with old_linked() as one:
        assert one.engine.send_old(one.tun, one.link, *one.there, PEER_KEY, HEARTBEAT)
        assert one.went() == HEARTBEAT
        assert one.engine.old_sealed(one.tun) == 1
        assert not one.engine.send_old(one.tun, one.link, *packed(("10.9.9.9", 9)), PEER_KEY, HEARTBEAT)


def test_ivs_of_a_run_before_count() -> None:
    with old_linked() as one:
        one.engine.set_old_key(one.tun, A, OWN_KEY, sealed=(1 << 32) - 2)
        one.device.kernel.send(packet(A, B, b"one"))
        assert one.went() == FORWARD + packet(A, B, b"one")
        assert one.engine.old_sealed(one.tun) == (1 << 32) - 1
        # Without a key there is nothing to count.
        one.engine.set_old_key(one.tun, A)
        assert one.engine.old_sealed(one.tun) == (1 << 32) - 1
        one.engine.set_old_key(one.tun, A, PEER_KEY)
        assert one.engine.old_sealed(one.tun) == 0


def test_ivs_are_used_up() -> None:
    with old_linked() as one:
        _fastpath.set_old_sealed(one.engine, one.tun, (1 << 32) - 1)
        one.device.kernel.send(packet(A, B, b"the last"))
        assert one.went() == FORWARD + packet(A, B, b"the last")
        out = packet(A, B, b"by the relay")
        assert one.device.sends(out).payload == FORWARD + out
        assert one.told(EVENT_QUIET) == [B.to_bytes(4, "big")]
        assert not one.engine.send_old(one.tun, one.link, *one.there, PEER_KEY, HEARTBEAT)
        assert one.engine.old_sealed(one.tun) == 1 << 32
        # It stays so, until Python says otherwise.
        _fastpath.set_old_sealed(one.engine, one.tun, 0)
        assert one.device.sends(out).payload == FORWARD + out


def test_a_quiet_path_is_told_of_as_soon_as_there_is_room() -> None:
    with old_linked() as one:
        _fastpath.set_old_sealed(one.engine, one.tun, 1 << 32)
        _fastpath.set_pending(one.engine, one.tun, 16384)
        out = packet(A, B, b"by the relay")
        for _ in range(2):
            assert one.device.sends(out).payload == FORWARD + out
        assert one.device.told(EVENT_QUIET) == []
        _fastpath.set_pending(one.engine, one.tun, 16383)
        for _ in range(3):
            assert one.device.sends(out).payload == FORWARD + out
        assert one.device.told(EVENT_QUIET) == [B.to_bytes(4, "big")]
        assert one.dropped() == {"events": 2}


def test_a_super_packet_has_no_more_ivs_than_there_are() -> None:
    with old_linked(vnet=True) as one:
        _fastpath.set_old_sealed(one.engine, one.tun, (1 << 32) - 2)
        frame = one.device.sends(bytes(ANY) + tcp(pattern(3000), source=A, to=B))
        assert frame.payload[0] == 16
        assert one.engine.old_sealed(one.tun) == (1 << 32) - 2


def test_a_link_that_is_closed_carries_nothing() -> None:
    with old_linked() as one:
        assert one.engine.close_link(one.link)
        one.device.relay.cause(one.link)
        out = packet(A, B, b"by the relay")
        assert one.device.sends(out).payload == FORWARD + out


def bad(one: OldLinked) -> list[tuple[str, str, tuple[object, ...]]]:
    """What is said of it, the method, and its arguments."""
    return [
        ("a key", "set_old_key", (one.tun, A, bytes(31))),
        ("a key", "set_old_path", (one.tun, B, one.link, *one.there, bytes(33), LONGEST)),
        ("an address", "set_old_path", (one.tun, B, one.link, bytes(16), 9, PEER_KEY, LONGEST)),
        ("an address", "set_old_path", (one.tun, B, one.link, bytes(4), 0, PEER_KEY, LONGEST)),
        ("no such link", "set_old_path", (one.tun, B, one.device.server.connection, *one.there, PEER_KEY, LONGEST)),
        ("at most 1471 bytes", "set_old_path", (one.tun, B, one.link, *one.there, PEER_KEY, LONGEST + 1)),
        ("a key", "send_old", (one.tun, one.link, *one.there, bytes(31), HEARTBEAT)),
        ("a message", "send_old", (one.tun, one.link, *one.there, PEER_KEY, b"")),
        ("a message", "send_old", (one.tun, one.link, *one.there, PEER_KEY, bytes(65))),
    ]


def test_bad_arguments() -> None:
    with old_linked() as one:
        for words, name, arguments in bad(one):
            with pytest.raises(ValueError, match=words):
                getattr(one.engine, name)(*arguments)


def test_a_path_leads_by_links_of_its_device_alone() -> None:
    with old_linked() as one, one.device.relay.device() as (_, other), udp() as opened:
        one.engine.set_sealing(other, OFF, A)
        link = one.engine.open_link(other, opened.fileno())
        opened.detach()
        with pytest.raises(ValueError, match="no such link"):
            one.engine.set_old_path(one.tun, B, link, *one.there, PEER_KEY, LONGEST)
        one.engine.set_old_path(other, B, link, *one.there, PEER_KEY, LONGEST)


def test_a_path_takes_what_fits_it() -> None:
    with old_linked() as one:
        one.engine.set_old_path(one.tun, B, one.link, *one.there, PEER_KEY, 1000)
        fits, not_quite = (packet(A, B, pattern(length - 28)) for length in (1000, 1001))
        assert one.device.sends(not_quite).payload == FORWARD + not_quite
        one.device.kernel.send(fits)
        assert one.went() == FORWARD + fits


@pytest.mark.parametrize("way", [WAIT, NO_ROUTE])
def test_who_may_seal_now_is_sent_nothing(way: int) -> None:
    with old_linked() as one:
        one.engine.set_peer(one.tun, B, way)
        one.engine.set_peer(one.tun, C, CLEAR)
        one.device.kernel.send(packet(A, B, b"not so"))
        behind = packet(A, C, b"behind it")
        assert one.device.sends(behind).payload == FORWARD + behind
        one.engine.set_peer(one.tun, B, CLEAR, takes_clear=True)
        one.device.kernel.send(packet(A, B, b"again"))
        assert one.went() == FORWARD + packet(A, B, b"again")


@SEALING
@pytest.mark.parametrize("masked", [False, True])
def test_who_sends_by_the_relay_is_told_once_in_a_while(sealing: int, masked: bool) -> None:
    with old_linked(sealing=sealing) as one:
        if sealing != OFF:
            one.engine.set_peer(one.tun, C, CLEAR, takes_clear=True)
        for source in (B, B, C, B):
            back = packet(source, A, b"by the relay")
            one.device.comes(FORWARD + back, masked=masked)
            assert one.device.reads() == back
        assert one.told(EVENT_MET, 2) == [each.to_bytes(4, "big") for each in (B, C)]
        assert len(one.device.told(EVENT_MET)) == 2


def test_of_who_sends_by_the_relay_nothing_is_told_without_a_key() -> None:
    with old_linked(with_key=False, with_path=False) as one:
        one.device.comes(FORWARD + packet(B, A, b"by the relay"))
        one.device.reads()
        assert one.device.told(EVENT_MET) == []


def test_who_has_to_seal_is_not_met() -> None:
    with old_linked(with_path=False) as one:
        one.engine.set_peer(one.tun, B, CLEAR, takes_clear=False)
        one.device.comes(FORWARD + packet(B, A, b"in the clear"))
        one.device.server.sync()
        assert one.device.told(EVENT_MET) == []
        assert one.dropped() == {"not_sealed": 1}


def test_two_workers() -> None:
    with old_linked(workers=2) as one:
        for number in range(50):
            one.device.kernel.send(packet(A, B, flow=number))
            one.comes(FORWARD + packet(B, A, flow=number))
        for _ in range(50):
            one.went()
            one.device.reads()
        assert one.dropped() == {}
