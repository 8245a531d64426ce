"""Super-packets through an engine: which of it each kind of member, and a device, gets to see."""

import resource
import struct
from dataclasses import replace

import pytest
from kit.peer import BINARY, CONTINUATION, FORWARD, SUPER, EngineRelay, Peer
from kit.superpacket import (
    ACK,
    ANY,
    CWR,
    GSO_ECN,
    GSO_NONE,
    GSO_TCP4,
    GSO_UDP,
    HOSTILE,
    IPIP,
    NEEDS_CSUM,
    NO_VNET,
    NOT_MERGED,
    UDP,
    A,
    B,
    C,
    D,
    Vnet,
    ip_header,
    pattern,
    run_of,
    segments,
    tcp,
    udp,
)

from candy._fastpath import LEGACY_PAYLOAD

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

SUPERS = {
    "TCP": (ANY, tcp(pattern(60_000))),
    "TCP with ECN": (replace(ANY, gso_type=GSO_TCP4 | GSO_ECN), tcp(pattern(9000), flags=ACK | CWR)),
    "UDP": (Vnet(NEEDS_CSUM, GSO_UDP, 28, 1372, 20, 6), udp(pattern(30_000))),
    "a checksum alone": (Vnet(NEEDS_CSUM, csum_offset=6), udp(pattern(1001))),
    "nothing special": (Vnet(0, GSO_NONE, 0, 0, 0, 0), tcp(pattern(77))),
    "as large as a frame may be": (replace(ANY, gso_size=1459), tcp(pattern(65_535 - 40))),
    "larger segments than payload": (replace(ANY, gso_size=0xFFFF), tcp(pattern(1000))),
    "wrapped": (ANY, ip_header(3040, IPIP, A, B) + tcp(pattern(3000), source=C, to=D)),
}


def packets_of(peer: Peer) -> list[bytes]:
    """What a member without the extension was sent so far."""
    frames = [frame for frame in peer.sync() if frame.opcode == BINARY]
    assert all(frame.payload[:1] == FORWARD and len(frame.payload) <= LEGACY_PAYLOAD for frame in frames)
    return [frame.payload[1:] for frame in frames]


@pytest.mark.parametrize("name", SUPERS)
def test_members_with_the_extension_exchange_it_whole_and_others_get_segments(name: str) -> None:
    vnet, packet = SUPERS[name]
    with EngineRelay() as relay:
        sender, extended = relay.member(A), relay.member(B)
        relay.engine.set_rules(0, [(C, 0xFFFFFFFF, A, 0, 0), (D, 0xFFFFFFFF, B, 0, 0)])
        whole = SUPER + bytes(vnet) + packet
        sender.forward(whole)
        assert extended.receive().payload == whole
        extended.close()
        old = relay.member(B, extended=False)
        sender.forward(whole)
        sender.sync()
        assert packets_of(old) == segments(bytes(vnet), packet)
        assert relay.dropped() == {}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_super_packet_reaches_no_old_member_and_no_device(name: str) -> None:
    vnet, packet = HOSTILE[name]
    hostile = SUPER + bytes(vnet) + packet.ljust(20, b"\0")
    # The relay looks up the addresses first, and these have to be right for anything to happen.
    hostile = hostile[:23] + struct.pack(">II", A, B) + hostile[31:]
    with EngineRelay() as relay, relay.device(vnet=True) as (kernel, tun):
        sender, old = relay.member(A), relay.member(B, extended=False)
        sender.forward(hostile, FORWARD + tcp(b"next"))
        sender.sync()
        assert packets_of(old) == [tcp(b"next")]
        server = relay.joined(tun, extended=True)
        server.forward(hostile, FORWARD + tcp(b"next"))
        assert kernel.recv(65536) == NO_VNET + tcp(b"next")
        assert relay.dropped() == {"bad_super": 2}


def test_segments_that_no_old_member_takes_are_dropped_with_a_word() -> None:
    """Fragmentation needed, and the MTU that would do."""
    with EngineRelay() as relay:
        sender, old = relay.member(A), relay.member(B, extended=False)
        sender.forward(SUPER + bytes(replace(ANY, gso_size=1460)) + tcp(pattern(3000)))
        [answer] = [frame.payload for frame in sender.sync() if frame.opcode == BINARY]
        assert answer[1 + 20 : 1 + 22] == b"\3\4"
        assert struct.unpack_from(">H", answer, 1 + 26)[0] == LEGACY_PAYLOAD - 1
        assert packets_of(old) == []
        assert relay.dropped() == {"too_large": 1}


@pytest.mark.parametrize("members", [3, 1030])
def test_a_super_packet_for_everybody_reaches_each_as_plain_packets(members: int) -> None:
    """1,030 are more than one batch holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4 * members:
        pytest.skip(f"needs {4 * members} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * members), hard))
    vnet, packet = Vnet(NEEDS_CSUM, GSO_UDP, 28, 300, 20, 6), udp(pattern(3000), to=0xFFFFFFFF)
    with EngineRelay() as relay:
        sender = relay.member(A)
        others = [relay.member(C + n, extended=bool(n % 2)) for n in range(members)]
        sender.forward(SUPER + bytes(vnet) + packet)
        sender.sync()
        wanted = segments(bytes(vnet), packet)
        for other in others:
            assert packets_of(other) == wanted
        assert relay.dropped() == {}


def test_only_who_agreed_may_send_it() -> None:
    with EngineRelay() as relay:
        sender, extended = relay.member(A, extended=False), relay.member(B)
        whole = SUPER + bytes(ANY) + tcp(pattern(1000))
        sender.forward(whole)
        sender.send(BINARY, whole[:100], final=False)
        sender.send(CONTINUATION, whole[100:])
        sender.forward(FORWARD + tcp(b"next"))
        assert extended.receive().payload == FORWARD + tcp(b"next")
        assert relay.dropped() == {"bad_super": 2}


@pytest.mark.parametrize("name", [name for name in SUPERS if name != "wrapped"])
@pytest.mark.parametrize("extended", [True, False])
def test_a_client_sends_what_its_relay_understands(name: str, extended: bool) -> None:
    vnet, packet = SUPERS[name]
    with EngineRelay() as relay, relay.device(vnet=True) as (kernel, tun):
        server = relay.joined(tun, extended=extended)
        kernel.send(bytes(vnet) + packet)
        kernel.send(NO_VNET + tcp(b"next"))
        if not vnet.flags:
            assert server.receive().payload == FORWARD + packet
        elif extended:
            assert server.receive().payload == SUPER + bytes(vnet) + packet
        else:
            for wanted in segments(bytes(vnet), packet) or []:
                assert server.receive().payload == FORWARD + wanted
        assert server.receive().payload == FORWARD + tcp(b"next")
        assert relay.dropped() == {}


@pytest.mark.parametrize("name", [name for name in SUPERS if name != "wrapped"])
@pytest.mark.parametrize("vnet", [True, False])
def test_a_client_writes_a_super_packet_whole_or_as_packets(name: str, vnet: bool) -> None:
    head, packet = SUPERS[name]
    with EngineRelay() as relay, relay.device(vnet=vnet) as (kernel, tun):
        server = relay.joined(tun, extended=True)
        server.forward(SUPER + bytes(head) + packet)
        wanted = segments(bytes(head), packet)
        assert wanted is not None
        if vnet:
            write = kernel.recv(66_000)
            assert segments(write[:10], write[10:]) == wanted
        else:
            assert [kernel.recv(66_000) for _ in wanted] == wanted
        assert relay.dropped() == {}


@pytest.mark.parametrize("extended", [True, False])
def test_a_client_coalesces_what_comes_one_by_one(extended: bool) -> None:
    with EngineRelay() as relay, relay.device(vnet=True) as (kernel, tun):
        server = relay.joined(tun, extended=extended)
        server.wait_until_read()
        packets = run_of(20, source=B, to=A)
        server.forward(*(FORWARD + packet for packet in packets))
        found: list[bytes] = []
        while len(found) < len(packets):
            write = kernel.recv(66_000)
            found += segments(write[:10], write[10:]) or []
        assert found == packets
        # One call each way: however the bytes were read, that is fewer than one write a packet.
        assert relay.engine.stats()["sends"] < len(packets)


def test_every_kind_of_packet_passes_a_device_unchanged() -> None:
    """Fragments, options, ICMP, UDP without a checksum, zero windows, urgent data, ECN."""
    plain = [packet for name, packet in NOT_MERGED.items() if "source" not in name and "destination" not in name]
    plain.append(udp(b"no checksum")[:26] + b"\0\0" + b"no checksum")
    plain.append(ip_header(100, 1, A, B) + pattern(100))
    plain.append(ip_header(100, UDP, A, B, fragment=0x2000) + pattern(100))
    plain.append(ip_header(100, UDP, A, B, fragment=13) + pattern(100))
    with EngineRelay() as relay, relay.device(vnet=True) as (kernel, tun):
        server = relay.joined(tun, extended=True)
        for packet in plain:
            kernel.send(NO_VNET + packet)
            assert server.receive().payload == FORWARD + packet
            server.forward(FORWARD + packet)
            assert kernel.recv(65536) == NO_VNET + packet
        assert relay.dropped() == {}


def test_a_checksum_left_to_us_that_the_wire_cannot_express() -> None:
    """The user's own IPIP, and a protocol that nobody here knows: completed by what the kernel says."""
    inner = udp(pattern(33), source=C, to=D)
    pseudo = struct.pack(">II", C, D) + struct.pack(">HH", UDP, 41)
    total = sum(struct.unpack(">6H", pseudo))
    partial = inner[:26] + struct.pack(">H", (total & 0xFFFF) + (total >> 16)) + inner[28:]
    outer = ip_header(len(inner), IPIP, A, B, number=77)
    with EngineRelay() as relay, relay.device(vnet=True) as (kernel, tun):
        server = relay.joined(tun, extended=True)
        kernel.send(bytes(Vnet(NEEDS_CSUM, csum_start=40, csum_offset=6)) + outer + partial)
        assert server.receive().payload == FORWARD + outer + inner
        for start, offset in (
            (0, 0),
            (19, 6),
            (60, 60),
            (0xFFFF, 0xFFFF),
            (20, 0xFFFF),
            (81, 0),
            (len(outer + inner), 0),
        ):
            kernel.send(bytes(Vnet(NEEDS_CSUM, csum_start=start, csum_offset=offset)) + outer + partial)
        kernel.send(bytes(Vnet(NEEDS_CSUM, GSO_TCP4, 0, 100, 40, 6)) + outer + partial)
        kernel.send(b"short")
        kernel.send(NO_VNET + tcp(b"next"))
        assert server.receive().payload == FORWARD + tcp(b"next")
        assert relay.dropped() == {"bad_super": 8, "not_ipv4": 1}


@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize("size", [3000, 65_535 - 40])
def test_a_gateway_wraps_a_super_packet_and_its_far_end_unwraps_it(extended: bool, size: int) -> None:
    """65,535 bytes leave no room for an outer header: those travel as segments."""
    packet = tcp(pattern(size), source=A, to=D)
    with EngineRelay() as relay, relay.device(vnet=True) as (kernel, tun):
        server = relay.joined(tun, extended=extended)
        assert relay.engine.set_routes(tun, A, [(D, 0xFFFFFFFF, B)])
        kernel.send(bytes(ANY) + packet)
        wanted = segments(bytes(ANY), packet)
        assert wanted is not None
        if extended and size == 3000:
            sent = server.receive().payload
            assert sent[:11] == SUPER + bytes(ANY)
            assert sent[11:] == ip_header(len(packet), IPIP, A, B) + packet
        else:
            for one in wanted:
                assert server.receive().payload == FORWARD + ip_header(len(one), IPIP, A, B) + one
        back = tcp(pattern(3000), source=D, to=C)
        wrapped = ip_header(len(back), IPIP, B, A) + back
        if extended:
            server.forward(SUPER + bytes(ANY) + wrapped)
        else:
            server.forward(*(FORWARD + one for one in segments(bytes(ANY), wrapped) or []))
        found: list[bytes] = []
        while len(found) < 3:
            write = kernel.recv(66_000)
            found += segments(write[:10], write[10:]) or []
        assert found == segments(bytes(ANY), back)
        assert relay.dropped() == {}
