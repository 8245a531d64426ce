"""Original clients that reach each other by one of ours, and it them: what leaves, what is taken, what is sent on."""

import struct

import pytest
from kit.linked import udp
from kit.old_linked import FORWARD, LONGEST, PEER_KEY, old_linked, three
from kit.peer import PATIENCE, packet
from kit.sealing import CLEAR, OFF, PREFER, WAIT
from kit.superpacket import NO_VNET, A, B, C, pattern, segments, tcp

from candy._fastpath import EVENT_QUIET, set_old_sealed

pytestmark = pytest.mark.engine

SEALING = pytest.mark.parametrize("sealing", [OFF, PREFER], ids=["off", "prefer"])
D = C + 1


# To and from a peer that is reached by another


@SEALING
@pytest.mark.parametrize("vnet", [False, True])
def test_packets_leave_by_a_hop(sealing: int, vnet: bool) -> None:
    with three(sealing=sealing, vnet=vnet, has_path=False) as (one, _):
        one.engine.set_old_hops(one.tun, C, [B])
        out = packet(A, C, b"by another")
        one.device.kernel.send((NO_VNET if vnet else b"") + out)
        assert one.went() == FORWARD + out
        one.engine.set_old_hops(one.tun, C, [])
        one.device.kernel.send((NO_VNET if vnet else b"") + out)
        assert one.device.server.receive().payload[-len(out) :] == out
        assert one.dropped() == {}


def test_a_super_packet_leaves_by_a_hop() -> None:
    whole = tcp(pattern(50_000), source=A, to=C)
    vnet = struct.pack("<BBHHHH", 1, 1, 40, 1360, 20, 16)
    with three(vnet=True, has_path=False) as (one, _):
        one.engine.set_old_hops(one.tun, C, [B])
        one.device.kernel.send(vnet + whole)
        expected = segments(vnet, whole)
        assert expected is not None
        assert [one.went() for _ in expected] == [FORWARD + part for part in expected]


def test_an_own_path_comes_before_a_hop() -> None:
    with three() as (one, third):
        one.engine.set_old_hops(one.tun, C, [B])
        out = packet(A, C, b"directly")
        one.device.kernel.send(out)
        assert third.went() == FORWARD + out
        one.engine.clear_old_path(one.tun, C)
        one.device.kernel.send(out)
        assert one.went() == FORWARD + out


def test_a_hop_without_a_path_has_nothing_of_it() -> None:
    with three(has_path=False) as (one, _):
        one.engine.set_old_hops(one.tun, C, [D, B])
        out = packet(A, C, b"by the relay")
        assert one.device.sends(out).payload == FORWARD + out
        one.engine.set_old_hops(one.tun, C, [B])
        one.engine.clear_old_path(one.tun, B)
        assert one.device.sends(out).payload == FORWARD + out


def test_by_a_hop_whose_path_is_not_proven_they_come_and_none_leave() -> None:
    with three(has_path=False) as (one, _):
        one.engine.set_old_hops(one.tun, C, [B])
        one.path(longest=0)
        out = packet(A, C, b"by the relay")
        assert one.device.sends(out).payload == FORWARD + out
        back = packet(C, A, b"by another")
        one.comes(FORWARD + back)
        assert one.device.reads() == back
        one.path()
        one.device.kernel.send(out)
        assert one.went() == FORWARD + out
        assert one.dropped() == {}


@pytest.mark.parametrize("who", [B, C], ids=["the hop", "the peer"])
def test_who_may_seal_now_is_sent_nothing(who: int) -> None:
    with three(has_path=False) as (one, _):
        one.engine.set_old_hops(one.tun, C, [B])
        one.engine.set_peer(one.tun, D, CLEAR)
        one.engine.set_peer(one.tun, who, WAIT)
        one.device.kernel.send(packet(A, C, b"not so"))
        behind = packet(A, D, b"behind it")
        if who == B:
            out = packet(A, C, b"not so")
            assert one.device.server.receive().payload == FORWARD + out
        assert one.device.sends(behind).payload == FORWARD + behind
        one.device.server.sync()
        one.peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.peer.recv(1)
        one.peer.settimeout(PATIENCE)
        one.engine.set_peer(one.tun, who, CLEAR, takes_clear=True)
        one.device.kernel.send(packet(A, C, b"again"))
        assert one.went() in (FORWARD + packet(A, C, b"again"), FORWARD + packet(A, C, b"not so"))


@SEALING
def test_packets_come_by_any_of_its_hops(sealing: int) -> None:
    with three(sealing=sealing, has_path=False) as (one, _):
        for hops in ([B], [D, B], [D, D + 1, D + 2, B]):
            one.engine.set_old_hops(one.tun, C, hops)
            back = packet(C, A, b"by another")
            one.comes(FORWARD + back)
            assert one.device.reads() == back
        assert one.dropped() == {}
        [(peer, *_, packets, size, _out, _out_size, _quiet)] = one.engine.old_paths(one.tun)
        assert (peer, packets, size) == (B, 3, 3 * len(back))
        one.engine.set_old_hops(one.tun, C, [])
        one.comes(FORWARD + back)
        one.arrives()
        assert one.dropped() == {"spoofed_source": 1}


def test_by_others_they_do_not_come() -> None:
    with three() as (one, third):
        one.engine.set_old_hops(one.tun, D, [B])
        third.comes(FORWARD + packet(D, A, b"not by C"))
        with udp() as stranger:
            one.comes(FORWARD + packet(D, A, b"from elsewhere"), by=stranger)
        one.arrives()
        assert one.dropped() == {"spoofed_source": 2}


def test_bad_arguments() -> None:
    with old_linked() as one:
        for hops in ([C], [0], [1, 2, 3, 4, 5]):
            with pytest.raises(ValueError, match="up to 4 others"):
                one.engine.set_old_hops(one.tun, C, hops)
        one.engine.set_old_hops(one.tun, D + 9, [])


def test_a_peer_that_is_forgotten_has_none() -> None:
    with three(has_path=False) as (one, _):
        one.engine.set_old_hops(one.tun, C, [B])
        one.engine.forget_peer(one.tun, C)
        one.engine.set_peer(one.tun, C, CLEAR, takes_clear=True)
        out = packet(A, C, b"by the relay")
        assert one.device.sends(out).payload == FORWARD + out


# From one peer to another


@SEALING
@pytest.mark.parametrize("vnet", [False, True])
def test_a_packet_is_sent_on(sealing: int, vnet: bool) -> None:
    with three(sealing=sealing, vnet=vnet) as (one, third):
        packets = [packet(B, C, pattern(length - 28)) for length in (28, 29, 100, 1000, LONGEST)]
        for each in packets:
            one.comes(FORWARD + each)
        assert [third.went() for _ in packets] == [FORWARD + each for each in packets]
        third.comes(FORWARD + packet(C, B, b"back"))
        assert one.went() == FORWARD + packet(C, B, b"back")
        one.arrives()
        assert one.dropped() == {}
        assert one.engine.old_resent(one.tun) == one.engine.old_sealed(one.tun) == len(packets) + 1
        figures = {peer: tuple(figures[2:-1]) for peer, *figures in one.engine.old_paths(one.tun)}
        size = sum(map(len, packets))
        assert figures[C] == (1, 32, len(packets), size)
        assert figures[B][2:] == (1, 32)


def test_nothing_is_sent_on_unless_that_is_switched_on() -> None:
    with three() as (one, _):
        one.engine.resend_old(one.tun, False)
        one.comes(FORWARD + packet(B, C, b"refused"))
        one.arrives()
        assert one.dropped() == {"no_route": 1}
        assert one.engine.old_resent(one.tun) == one.engine.old_sealed(one.tun) == 0


def test_nor_what_was_sent_on_before() -> None:
    """Whose source is not at the other end of the path that it came by, though its packets are taken from there."""
    with three() as (one, _):
        one.engine.set_old_hops(one.tun, D, [B])
        one.comes(FORWARD + packet(D, C, b"again"))
        one.comes(FORWARD + packet(C, C, b"another's"))
        one.arrives()
        assert one.dropped() == {"spoofed_source": 2}


def test_nor_by_a_hop() -> None:
    with three() as (one, _):
        one.engine.set_old_hops(one.tun, D, [C])
        one.comes(FORWARD + packet(B, D, b"further"))
        one.arrives()
        assert one.dropped() == {"no_route": 1}


def test_nor_back() -> None:
    """Two addresses at one place, and to itself."""
    with three(has_path=False) as (one, _):
        one.path(PEER_KEY, peer=C)
        one.comes(FORWARD + packet(B, C, b"back"))
        one.comes(FORWARD + packet(B, B, b"back"))
        one.arrives()
        assert one.dropped() == {"no_route": 2}
        assert one.engine.old_sealed(one.tun) == 0


@pytest.mark.parametrize("who", [B, C], ids=["from", "to"])
def test_nor_for_who_may_seal_now(who: int) -> None:
    with three() as (one, _):
        one.engine.set_peer(one.tun, who, WAIT, takes_clear=True)
        one.comes(FORWARD + packet(B, C, b"no more"))
        one.arrives()
        assert one.dropped() == {"no_route": 1}


def test_nor_what_is_too_long() -> None:
    with three() as (one, third):
        third.path(1000)
        one.comes(FORWARD + packet(B, C, pattern(1001 - 28)))
        fits = packet(B, C, pattern(1000 - 28))
        one.comes(FORWARD + fits)
        assert third.went() == FORWARD + fits
        assert one.dropped() == {"too_large": 1}


def test_nor_more_than_there_are_ivs() -> None:
    with three() as (one, third):
        set_old_sealed(one.engine, one.tun, 2**32 - 1)
        last = packet(B, C, b"the last")
        one.comes(FORWARD + last)
        assert third.went() == FORWARD + last
        one.comes(FORWARD + packet(B, C, b"no more"))
        assert one.told(EVENT_QUIET) == [C.to_bytes(4, "big")]
        one.arrives()
        assert one.dropped() == {"no_route": 1}


def test_nor_what_is_short_or_for_all() -> None:
    with three() as (one, _):
        one.comes(FORWARD + bytes(19))
        one.comes(FORWARD + packet(B, 0xFFFFFFFF, b"all"))
        one.comes(FORWARD + packet(B, 0xE0000001, b"group"))
        one.arrives()
        assert one.dropped() == {"link_malformed": 1, "no_route": 2}
