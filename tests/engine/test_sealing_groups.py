"""Packets to groups where members have a secret: sealed once for all, and opened by all."""

import socket
import struct

import pytest
from kit.peer import BINARY, CONTINUATION, FORWARD, EngineRelay, packet
from kit.sealing import OFF, PREFER, REQUIRE, Epoch, epoch, siphash
from kit.sealing_device import LABELS, Device, client
from kit.superpacket import ANY, NO_VNET, A, B, C, D, pattern, segments, tcp, udp

from candy import _fastpath
from candy._fastpath import CANDY3

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

GROUP, EVERYBODY, BROADCAST = 0xE0000001, 0xFFFFFFFF, 0x0A0000FF
OURS, THEIRS = epoch(A), epoch(B)


def seal_with(device: Device, ours: Epoch = OURS) -> None:
    device.engine.seal_groups(device.tun, ours.epoch, ours.key, LABELS)


def opens(device: Device, payload: bytes, theirs: Epoch = THEIRS) -> None:
    device.engine.open_group(device.tun, theirs.source, theirs.epoch, theirs.key, payload)


@pytest.mark.parametrize("destination", [GROUP, EVERYBODY, BROADCAST])
@pytest.mark.parametrize("length", [28, 60, 61, 62, 63, 64, 100, 1400, 8200, 65_474, 65_535])
def test_a_packet_for_a_group_is_sealed(destination: int, length: int) -> None:
    with client(REQUIRE) as device:
        seal_with(device)
        out = packet(A, destination, pattern(length - 28))
        for number in range(3):
            frame = device.sends(out)
            counter, _, found = OURS.went(frame.payload)
            assert (counter, found) == (number, out)
            assert frame.mask is not None
        assert device.relay.dropped() == {}


def test_its_label_tells_flows_apart() -> None:
    with client(REQUIRE) as device:
        seal_with(device)
        for flow in range(20):
            out = packet(A, GROUP, flow=flow)
            _, label, _ = OURS.went(device.sends(out).payload)
            known = out[12:20] + out[9:10] + out[20:24]
            assert label == siphash(LABELS, known.ljust(16, b"\0")) & 0xFFFF


@pytest.mark.parametrize("size", [2, 1000, 60_000])
def test_of_a_super_packet_each_packet_is_sealed(size: int) -> None:
    whole = tcp(pattern(size), source=A, to=GROUP)
    wanted = segments(bytes(ANY), whole)
    assert wanted is not None
    with client(REQUIRE, vnet=True) as device:
        seal_with(device)
        device.kernel.send(bytes(ANY) + whole)
        found = [OURS.went(device.server.receive().payload) for _ in wanted]
        assert [(counter, packet) for counter, _, packet in found] == list(enumerate(wanted))
        device.kernel.send(NO_VNET + udp(pattern(size), source=A, to=GROUP))
        assert OURS.went(device.server.receive().payload)[2] == udp(pattern(size), source=A, to=GROUP)
        assert device.relay.dropped() == {}


@pytest.mark.parametrize("vnet", [False, True])
@pytest.mark.parametrize("length", [28, 100, 1400, 65_535])
def test_what_others_sealed_comes_out(vnet: bool, length: int) -> None:
    with client(REQUIRE, vnet=vnet) as device:
        seal_with(device)
        backs = [packet(B, GROUP, pattern(length - 28), flow=n) for n in range(4)]
        payloads = [THEIRS.comes_packet(n, back) for n, back in enumerate(backs)]
        device.comes(payloads[0], masked=False)
        assert device.told(_fastpath.EVENT_GROUPED) == [payloads[0]]
        opens(device, payloads[0])
        device.comes(*payloads[1:3], masked=False)
        device.server.send(BINARY, payloads[3][:11], final=False)
        device.server.send(CONTINUATION, payloads[3][11:])
        assert [device.reads() for _ in backs] == [(NO_VNET if vnet else b"") + back for back in backs]
        # One that was on its way to Python while the first was opened.
        late = packet(B, GROUP, b"late")
        opens(device, THEIRS.comes_packet(4, late))
        assert device.reads().endswith(late)
        assert device.told(_fastpath.EVENT_GROUPED) == [payloads[0]]
        assert device.relay.dropped() == {}


def test_through_a_relay_to_all_who_seal() -> None:
    with (
        EngineRelay() as relay,
        EngineRelay() as one,
        EngineRelay() as other,
        one.device() as (kernel, tun),
        other.device() as (far_kernel, far_tun),
    ):
        for end, number, own in ((one, tun, A), (other, far_tun, B)):
            ours, theirs = socket.socketpair()
            relay.engine.bind(relay.engine.adopt(ours.detach(), extended=CANDY3), own)
            end.engine.join(end.engine.adopt(theirs.detach(), extended=CANDY3, client=True), number)
            end.engine.set_sealing(number, REQUIRE, own)
            sender = epoch(own)
            end.engine.seal_groups(number, sender.epoch, sender.key, LABELS)
        old, silent = relay.member(C), relay.member(D, extended=CANDY3, takes_sealed=False)
        for n in range(50):
            out = packet(A, GROUP, struct.pack(">I", n))
            kernel.send(out)
            if n == 0:
                [payload] = other.details(far_tun, _fastpath.EVENT_GROUPED)
                assert out not in payload
                other.engine.open_group(far_tun, A, OURS.epoch, OURS.key, payload)
            assert far_kernel.recv(2000) == out
        assert old.sync() == silent.sync() == []
        assert relay.dropped() == one.dropped() == other.dropped() == {}
        assert relay.engine.stats()["copies"] == 50


def test_every_bit_that_is_changed_is_refused() -> None:
    payload = THEIRS.comes_packet(1, packet(B, GROUP))
    with client(REQUIRE) as device:
        seal_with(device)
        opens(device, THEIRS.comes_packet(0, packet(B, GROUP)))
        device.reads()
        for bit in range(8, len(payload) * 8):
            changed = bytearray(payload)
            changed[bit // 8] ^= 1 << bit % 8
            device.comes(bytes(changed), masked=False)
        device.nothing_comes()
        device.events()
        drops = device.relay.dropped()
        # Of the group's address the first four bits are what makes it one.
        assert drops.pop("no_route") == 4
        # Other sources and epochs: Python is asked, which opens none of them.
        told = len(device.told(_fastpath.EVENT_GROUPED)) + drops.pop("handshake_limit", 0) + drops.pop("events", 0)
        assert told == 32 + 128
        # The counter's upper half, and the bit that makes it one that came; all else.
        assert drops == {"replayed": 33, "bad_seal": len(payload) * 8 - 8 - 4 - 160 - 33}
        device.comes(payload, masked=False)
        assert device.reads() == packet(B, GROUP)


def test_replayed_reordered_and_too_old() -> None:
    with client(REQUIRE) as device:
        seal_with(device)
        order = [0, 3, 1, 2, 5000, 5000 - 1023, 4999]
        for number in order:
            back = packet(B, GROUP, flow=number)
            if number == 0:
                opens(device, THEIRS.comes_packet(0, back))
            else:
                device.comes(THEIRS.comes_packet(number, back), masked=False)
            assert device.reads() == back
        for number in [*order, 4, 5000 - 1024, 2**32]:
            device.comes(THEIRS.comes_packet(number, packet(B, GROUP)), masked=False)
        opens(device, THEIRS.comes_packet(5000, packet(B, GROUP)))
        device.nothing_comes()
        assert device.relay.dropped() == {"replayed": len(order) + 4}


def test_what_is_no_packet_of_its_sender_s_within_a_seal() -> None:
    far = 0xC0A80107
    with client(REQUIRE) as device:
        seal_with(device)
        opens(device, THEIRS.comes_packet(0, packet(B, GROUP)))
        device.reads()
        plains = [
            (b"", "bad_super"),
            (bytes(29), "bad_super"),
            (bytes(30), "bad_super"),
            (bytes(ANY) + tcp(pattern(3000), source=B, to=GROUP), "bad_super"),
            (NO_VNET + packet(B, GROUP) + b"\0", "bad_super"),
            (NO_VNET + packet(B, EVERYBODY), "inner_destination"),
            (NO_VNET + packet(C, GROUP), "inner_source"),
            (NO_VNET + packet(A, GROUP), "inner_source"),
            (NO_VNET + packet(far, GROUP), "inner_source"),
        ]
        wanted: dict[str, int] = {}
        for number, (plain, reason) in enumerate(plains, 1):
            device.comes(THEIRS.comes(number, plain, GROUP), masked=False)
            wanted[reason] = wanted.get(reason, 0) + 1
        device.nothing_comes()
        assert device.relay.dropped() == wanted
        device.engine.set_rules(0, [(0xC0A80100, 0xFFFFFF00, B, 0, 0)])
        device.comes(THEIRS.comes_packet(100, packet(far, GROUP)), masked=False)
        assert device.reads() == packet(far, GROUP)


def test_what_is_for_no_group_and_one_s_own() -> None:
    with client(REQUIRE) as device:
        seal_with(device)
        device.comes(THEIRS.comes(0, bytes(60), A), OURS.comes(0, bytes(60), GROUP), masked=False)
        device.comes(THEIRS.comes(0, b"", GROUP)[:51], THEIRS.comes(0, bytes(65_546), GROUP), masked=False)
        device.nothing_comes()
        assert device.events() == []
        assert device.relay.dropped() == {"no_route": 1, "spoofed_source": 1, "too_short": 1, "too_large": 1}


@pytest.mark.parametrize("sealing", [PREFER, REQUIRE])
def test_without_a_secret_there_are_none(sealing: int) -> None:
    out, sealed = packet(A, GROUP), THEIRS.comes_packet(0, packet(B, GROUP))
    with client(sealing) as device:
        for _ in range(2):
            device.comes(sealed, masked=False)
            if sealing == PREFER:
                assert device.sends(out).payload == FORWARD + out
            else:
                device.kernel.send(out)
            device.nothing_comes()
            # And again when it was taken away.
            seal_with(device)
            assert OURS.went(device.sends(out).payload)[2] == out
            device.engine.seal_groups(device.tun)
        assert device.events() == []
        in_the_clear = {} if sealing == PREFER else {"group_not_sealed": 2}
        assert device.relay.dropped() == {"no_secret": 2, **in_the_clear}


def test_with_off_they_are_in_the_clear() -> None:
    with client(OFF) as device:
        seal_with(device)
        out = packet(A, GROUP)
        assert device.sends(out).payload == FORWARD + out
        device.comes(THEIRS.comes_packet(0, packet(B, GROUP)), masked=False)
        device.nothing_comes()
        assert device.relay.dropped() == {"unexpected_kind": 1}


def test_another_epoch_takes_its_place() -> None:
    second = epoch(A, 2)
    with client(REQUIRE) as device:
        seal_with(device)
        assert [OURS.went(device.sends(packet(A, GROUP)).payload)[0] for _ in range(3)] == [0, 1, 2]
        seal_with(device, second)
        assert [second.went(device.sends(packet(A, GROUP)).payload)[0] for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("at", [(2**32 - 1, 0), (5, 2**36 - 10 - 28)], ids=["counters", "bytes"])
def test_at_its_end_an_epoch_seals_nothing(at: tuple[int, int]) -> None:
    with client(REQUIRE) as device:
        seal_with(device)
        _fastpath.set_group_counter(device.engine, device.tun, *at)
        assert OURS.went(device.sends(packet(A, GROUP)).payload)[0] == at[0]
        device.kernel.send(packet(A, GROUP))
        device.nothing_comes()
        assert device.relay.dropped() == {"group_not_sealed": 1}
        seal_with(device, epoch(A, 2))
        assert epoch(A, 2).went(device.sends(packet(A, GROUP)).payload)[0] == 0


def test_epochs_come_and_go() -> None:
    other = epoch(B, 2)
    with client(REQUIRE) as device:
        seal_with(device)
        for each in (THEIRS, other):
            opens(device, each.comes_packet(0, packet(B, GROUP)), each)
            device.reads()
        assert device.engine.close_group(device.tun, B, THEIRS.epoch)
        assert not device.engine.close_group(device.tun, B, THEIRS.epoch)
        assert not device.engine.close_group(device.tun, C, other.epoch)
        device.comes(THEIRS.comes_packet(1, packet(B, GROUP)), other.comes_packet(1, packet(B, GROUP)), masked=False)
        assert device.reads() == packet(B, GROUP)
        assert device.told(_fastpath.EVENT_GROUPED) == [THEIRS.comes_packet(1, packet(B, GROUP))]


def test_of_what_is_not_open_python_is_not_told_too_often() -> None:
    """And nothing of it holds up what is of others."""
    with client(REQUIRE) as device:
        seal_with(device)
        flood = [THEIRS.comes_packet(number, packet(B, GROUP)) for number in range(1000)]
        for n in range(0, len(flood), 50):
            device.comes(*flood[n : n + 50], masked=False)
            device.events()
        told = len(device.told(_fastpath.EVENT_GROUPED))
        assert 64 <= told < 1000
        assert device.relay.dropped() == {"handshake_limit": 1000 - told}
        other = epoch(C).comes_packet(0, packet(C, GROUP))
        device.comes(other, masked=False)
        assert device.told(_fastpath.EVENT_GROUPED)[-1] == other


@pytest.mark.plain
def test_what_waits_in_the_queue_is_sealed_when_it_leaves() -> None:
    with client(REQUIRE) as device:
        seal_with(device)
        for n in range(3000):
            device.kernel.send(packet(A, GROUP, struct.pack(">I", n) + bytes(5000)))
        frames = []
        while device.engine.stats()["packets_in"] < 3000:
            frames += device.server.sync()
        frames += device.relay.drain(device.server)
        found = [OURS.went(frame.payload) for frame in frames]
        numbers = [struct.unpack_from(">I", sealed, 28)[0] for _, _, sealed in found]
        assert numbers == sorted(set(numbers))
        counters = [counter for counter, _, _ in found]
        assert counters == sorted(set(counters))
        # But for what went straight to the kernel, and was left by it.
        assert counters[-1] < len(found) + 30
        assert len(found) + sum(device.relay.dropped().values()) == 3000


def test_arguments_out_of_range() -> None:
    with client() as device:
        tun, engine, message = device.tun, device.engine, THEIRS.comes_packet(0, packet(B, GROUP))
        for wrong in ((b"1", OURS.key), (OURS.epoch, b"1"), (OURS.epoch, b""), (b"", OURS.key)):
            with pytest.raises(ValueError, match="an epoch has 16 bytes"):
                engine.seal_groups(tun, *wrong)
        with pytest.raises(ValueError, match="an epoch has 16 bytes"):
            engine.open_group(tun, B, OURS.epoch, b"", message)
        with pytest.raises(ValueError, match="an epoch has 16 bytes"):
            engine.close_group(tun, B, b"")
        for long in (message[:51], bytes(65_598)):
            with pytest.raises(ValueError, match="a message has 52 to 65597 bytes"):
                engine.open_group(tun, B, OURS.epoch, OURS.key, long)
