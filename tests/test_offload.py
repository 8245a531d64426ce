"""Super-packets: how they are taken apart and put together, and which of it each kind of member gets to see."""

import resource
import struct
from dataclasses import replace

import pytest
from peer import BINARY, FORWARD, Peer, Relay
from superpacket import (
    ACK,
    CWR,
    DATA_VALID,
    ECE,
    FIN,
    GSO_ECN,
    GSO_NONE,
    GSO_TCP4,
    GSO_UDP,
    IPIP,
    NEEDS_CSUM,
    NO_VNET,
    PSH,
    RST,
    SYN,
    TCP,
    UDP,
    URG,
    Vnet,
    checksums_right,
    ip_header,
    segments,
    tcp_header,
    udp_header,
    with_checksums,
)

from candy._fastpath import LEGACY_PAYLOAD, segment, write_device

pytestmark = pytest.mark.engine

A, B, C, D = 0x0A000001, 0x0A000002, 0x0A000003, 0x0A000004
SUPER = b"\x10"
ANY = Vnet(NEEDS_CSUM, GSO_TCP4, 54, 1000, 20, 16)


def tcp(payload: bytes, sequence: int = 1, flags: int = ACK, *, source: int = A, to: int = B, **fields: int) -> bytes:
    """A TCP packet with right checksums; `fields` are tcp_header's and, with ip_, ip_header's."""
    ip = {name.removeprefix("ip_"): value for name, value in fields.items() if name.startswith("ip_")}
    body = tcp_header(sequence, flags, **{k: v for k, v in fields.items() if not k.startswith("ip_")})  # type: ignore[arg-type]
    return with_checksums(ip_header(len(body + payload), TCP, source, to, **ip) + body + payload)  # type: ignore[arg-type]


def udp(payload: bytes, *, source: int = A, to: int = B) -> bytes:
    return with_checksums(ip_header(8 + len(payload), UDP, source, to) + udp_header(len(payload)) + payload)


def payload_of(packet: bytes) -> bytes:
    """Of TCP behind an IPv4 header without options."""
    return packet[20 + (packet[32] >> 4) * 4 :]


def pattern(size: int) -> bytes:
    return bytes(n * 7 & 0xFF for n in range(size))


# ------------------------------------------------------------------------------------------------------- segmenting


def test_a_tcp_super_packet_field_by_field() -> None:
    flags = ACK | PSH | FIN | CWR | ECE
    packet = tcp(pattern(2500), 0xFFFFFF00, flags, ip_number=0xFFFF, ip_fragment=0, urgent=3)
    found = segment(bytes(ANY), packet)
    assert [len(one) for one in found] == [1040, 1040, 540]
    assert b"".join(payload_of(one) for one in found) == pattern(2500)
    assert [struct.unpack_from(">H", one, 2)[0] for one in found] == [1040, 1040, 540]
    assert [struct.unpack_from(">H", one, 4)[0] for one in found] == [0xFFFF, 0, 1]
    assert [struct.unpack_from(">I", one, 24)[0] for one in found] == [0xFFFFFF00, 0x2E8, 0x6D0]
    assert [one[33] for one in found] == [ACK | CWR | ECE, ACK | ECE, ACK | ECE | PSH | FIN]
    assert {one[34:36] + one[38:40] for one in found} == {packet[34:36] + packet[38:40]}
    assert all(checksums_right(one) for one in found)


def test_a_udp_super_packet_field_by_field() -> None:
    packet = udp(pattern(2001))
    found = segment(bytes(Vnet(NEEDS_CSUM, GSO_UDP, 28, 1000, 20, 6)), packet)
    assert [one[28:] for one in found] == [pattern(2001)[:1000], pattern(2001)[1000:2000], pattern(2001)[2000:]]
    assert [struct.unpack_from(">H", one, 24)[0] for one in found] == [1008, 1008, 9]
    assert [struct.unpack_from(">H", one, 4)[0] for one in found] == [0, 1, 2]
    assert all(checksums_right(one) for one in found)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1399])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_checksum_that_was_left_to_us(protocol: int, size: int) -> None:
    """Without segmentation: whatever stood in its place, and a header checksum that is wrong."""
    whole = (tcp if protocol == TCP else udp)(pattern(size))
    at = 20 + (16 if protocol == TCP else 6)
    broken = whole[:10] + b"\xab\xcd" + whole[12:at] + b"\x12\x34" + whole[at + 2 :]
    assert segment(bytes(Vnet(NEEDS_CSUM, csum_offset=at - 20)), broken) == [whole]


def test_udp_never_says_that_it_has_no_checksum() -> None:
    """A sum of zero "is transmitted as all ones"; TCP has no such rule."""
    for protocol, at in ((UDP, 6), (TCP, 16)):
        for last in range(0x10000):
            body = (udp_header(2) if protocol == UDP else tcp_header(1)) + struct.pack(">H", last)
            whole = with_checksums(ip_header(len(body), protocol, A, B) + body)
            value = whole[20 + at : 22 + at]
            if value in (b"\0\0", b"\xff\xff"):
                assert segment(bytes(Vnet(csum_offset=at)), whole) == [whole]
                assert value == (b"\xff\xff" if protocol == UDP else b"\0\0")
                break
        else:
            pytest.fail("no such payload")


def test_an_outer_header_stands_before_each_segment() -> None:
    inner = tcp(pattern(2500), source=C, to=D)
    packet = ip_header(len(inner), IPIP, A, B, ttl=9) + inner
    found = segment(bytes(ANY), packet)
    assert [one[20:] for one in found] == segment(bytes(ANY), inner)
    assert [one[:20] for one in found] == [ip_header(len(one) - 20, IPIP, A, B, ttl=9) for one in found]


HOSTILE = {
    "flags unknown": (replace(ANY, flags=5), tcp(pattern(3000))),
    "segments without a checksum": (replace(ANY, flags=0), tcp(pattern(3000))),
    "segments of a valid packet": (replace(ANY, flags=DATA_VALID), tcp(pattern(3000))),
    "kind unknown": (replace(ANY, gso_type=2), tcp(pattern(3000))),
    "IPv6": (replace(ANY, gso_type=4), tcp(pattern(3000))),
    "UDP fragments": (replace(ANY, gso_type=3, csum_offset=6), udp(pattern(3000))),
    "ECN alone": (replace(ANY, gso_type=GSO_ECN), tcp(pattern(3000))),
    "ECN with UDP": (replace(ANY, gso_type=GSO_UDP | GSO_ECN, csum_offset=6), udp(pattern(3000))),
    "TCP said to be UDP": (replace(ANY, gso_type=GSO_UDP), tcp(pattern(3000))),
    "UDP said to be TCP": (replace(ANY, csum_offset=6), udp(pattern(3000))),
    "65,495 packets": (replace(ANY, gso_size=1), tcp(pattern(65_495))),
    "TCP by sevens": (replace(ANY, gso_size=7), tcp(pattern(70))),
    "129 datagrams": (replace(ANY, gso_type=GSO_UDP, gso_size=10, csum_offset=6), udp(pattern(1281))),
    "segments of nothing": (replace(ANY, gso_size=0), tcp(pattern(3000))),
    **{f"start {n}": (replace(ANY, csum_start=n), tcp(pattern(3000))) for n in (0, 19, 21, 24, 3040, 0xFFFF)},
    **{f"offset {n}": (replace(ANY, csum_offset=n), tcp(pattern(3000))) for n in (0, 6, 15, 17, 3000, 0xFFFF)},
    "IPv4 options overlooked": (ANY, ip_header(3020, TCP, A, B, options=bytes(4)) + tcp_header(1) + bytes(3000)),
    "a fragment": (ANY, tcp(pattern(3000), ip_fragment=0x2000)),
    "a later fragment": (ANY, tcp(pattern(3000), ip_fragment=1)),
    "half a TCP header": (ANY, ip_header(19, TCP, A, B) + tcp_header(1)[:19]),
    "TCP options beyond the end": (ANY, ip_header(20, TCP, A, B) + tcp_header(1, options=bytes(4))[:20]),
    "a TCP header of 16": (ANY, tcp(b"")[:32] + b"\x40" + tcp(b"")[33:]),
    "half a UDP header": (replace(ANY, gso_type=GSO_UDP, csum_offset=6), ip_header(7, UDP, A, B) + bytes(7)),
    "another protocol": (ANY, ip_header(100, 1, A, B) + bytes(100)),
    "longer than it says": (ANY, tcp(pattern(3000)) + b"\0"),
    "shorter than it says": (ANY, tcp(pattern(3000))[:-1]),
    "IPv6 packet": (ANY, b"\x60" + tcp(pattern(3000))[1:]),
    "an IPv4 header of 16": (ANY, b"\x44" + tcp(pattern(3000))[1:]),
    "an IPv4 header of 60 in 40": (replace(ANY, csum_start=60), b"\x4f" + tcp(b"")[1:]),
    "an inner packet cut off": (ANY, ip_header(10, IPIP, A, B) + tcp(b"")[:10]),
    "an inner packet too short": (ANY, ip_header(50, IPIP, A, B) + tcp(bytes(10)) + b"\0"[:0] + b""),
    "an inner packet too long": (ANY, ip_header(51, IPIP, A, B) + tcp(bytes(10)) + b"\0"),
    "two outer headers": (ANY, ip_header(80, IPIP, A, B) + ip_header(60, IPIP, A, B) + tcp(pattern(20))),
}
HOSTILE["an inner packet too short"] = (ANY, ip_header(49, IPIP, A, B) + tcp(bytes(10))[:-1])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused(name: str) -> None:
    vnet, packet = HOSTILE[name]
    assert segments(bytes(vnet), packet) is None
    with pytest.raises(ValueError, match="not what its virtio header claims"):
        segment(bytes(vnet), packet)
    assert write_device([SUPER + bytes(vnet) + packet])[0] == []


@pytest.mark.parametrize("length", [*range(60), 3039])
def test_a_packet_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="not what"):
        segment(bytes(ANY), tcp(pattern(3000))[:length])


@pytest.mark.parametrize(
    ("vnet", "packet", "count"),
    [
        (replace(ANY, gso_size=8), tcp(pattern(65_495)), 8187),
        (Vnet(NEEDS_CSUM, GSO_UDP, 28, 1, 20, 6), udp(pattern(128)), 128),
    ],
    ids=["TCP", "UDP"],
)
def test_as_many_packets_as_a_kernel_may_make(vnet: Vnet, packet: bytes, count: int) -> None:
    found = segment(bytes(vnet), packet)
    assert len(found) == count
    assert found == segments(bytes(vnet), packet)


@pytest.mark.parametrize("gso_size", [3000, 3001, 0xFFFF])
def test_segments_larger_than_the_payload_are_one_packet(gso_size: int) -> None:
    assert segment(bytes(replace(ANY, gso_size=gso_size)), tcp(pattern(3000))) == [tcp(pattern(3000))]


def test_a_virtio_header_has_ten_bytes() -> None:
    with pytest.raises(ValueError, match="10 bytes, not 9"):
        segment(bytes(9), tcp(b""))
    with pytest.raises(ValueError, match="too short"):
        write_device([FORWARD + bytes(19)])


# ------------------------------------------------------------------------------------------------------- coalescing


def run_of(count: int, size: int = 1000, **fields: int) -> list[bytes]:
    """Consecutive packets of one flow."""
    data = pattern(count * size)
    at = range(0, len(data), size)
    return [tcp(data[n : n + size], 1 + n, ip_number=5 + i, **fields) for i, n in enumerate(at)]


def written(packets: list[bytes]) -> list[bytes]:
    writes, drops = write_device([FORWARD + packet for packet in packets])
    assert drops == {}
    return writes


@pytest.mark.parametrize("df", [0x4000, 0])
@pytest.mark.parametrize("last", [1000, 1])
def test_a_run_becomes_one_write(df: int, last: int) -> None:
    packets = run_of(10, ip_fragment=df)
    packets[-1] = tcp(pattern(last), 9001, ACK | PSH, ip_number=14, ip_fragment=df)
    [write] = written(packets)
    vnet = Vnet.read(write[:10])
    assert vnet == Vnet(NEEDS_CSUM, GSO_TCP4, 40, 1000, 20, 16)
    assert segments(write[:10], write[10:]) == packets


def test_a_super_packet_has_at_most_64_kilobytes() -> None:
    writes = written(run_of(100, 1348))
    assert [len(write) - 10 for write in writes] == [40 + 48 * 1348, 40 + 48 * 1348, 40 + 4 * 1348]


def odd(change: bytes, at: int) -> bytes:
    """The second packet of a run with these bytes changed, and right checksums."""
    packet = run_of(2)[1]
    return with_checksums(packet[:at] + change + packet[at + len(change) :])


NOT_MERGED = {
    "another source": odd(b"\x0a\0\0\x09", 12),
    "another destination": odd(b"\x0a\0\0\x09", 16),
    "another port": odd(b"\0\1", 20),
    "a gap": tcp(pattern(1000), 1002, ip_number=6),
    "again": tcp(pattern(1000), 1, ip_number=6),
    "acknowledging more": odd(b"\0\0\0\x08", 28),
    "another window": odd(b"\0\1", 34),
    "a zero window": odd(b"\0\0", 34),
    "urgent": tcp(pattern(1000), 1001, ACK | URG, ip_number=6, urgent=1),
    "an urgent pointer without the flag": odd(b"\0\1", 38),
    "TOS": odd(b"\x04", 1),
    "congestion experienced": odd(b"\x03", 1),
    "TTL": odd(b"\x3f", 8),
    "no DF": odd(b"\0", 6),
    "a fragment": odd(b"\x20", 6),
    "FIN": tcp(pattern(1000), 1001, ACK | FIN, ip_number=6),
    "SYN": tcp(pattern(1000), 1001, ACK | SYN, ip_number=6),
    "RST": tcp(pattern(1000), 1001, ACK | RST, ip_number=6),
    "ECE": tcp(pattern(1000), 1001, ACK | ECE, ip_number=6),
    "CWR": tcp(pattern(1000), 1001, ACK | CWR, ip_number=6),
    "without ACK": tcp(pattern(1000), 1001, PSH, ip_number=6),
    "a reserved bit": odd(b"\x51", 32),
    "larger than the first": tcp(pattern(1001), 1001, ip_number=6),
    "nothing": tcp(b"", 1001, ip_number=6),
    "IP options": with_checksums(
        ip_header(1020, TCP, A, B, number=6, options=bytes(4)) + tcp_header(1001) + pattern(1000)
    ),
    "TCP options": with_checksums(
        ip_header(1024, TCP, A, B, number=6) + tcp_header(1001, options=bytes(4)) + pattern(1000)
    ),
    "bytes behind its end": run_of(2)[1] + b"\0",
    "a wrong checksum": run_of(2)[1][:-1] + b"\0",
    "a wrong header checksum": run_of(2)[1][:10] + b"\0\0" + run_of(2)[1][12:],
}


@pytest.mark.parametrize("name", NOT_MERGED)
def test_what_differs_is_written_by_itself(name: str) -> None:
    packets = [run_of(1)[0], NOT_MERGED[name]]
    assert written(packets) == [NO_VNET + packet for packet in packets]
    if name not in ("larger than the first",):
        packets.reverse()
        assert written(packets) == [NO_VNET + packet for packet in packets]


def test_without_df_ids_have_to_count_up() -> None:
    packets = run_of(3, ip_fragment=0)
    assert len(written(packets)) == 1
    packets[1] = tcp(payload_of(packets[1]), 1001, ip_number=9, ip_fragment=0)
    assert written(packets) == [NO_VNET + packet for packet in packets]


@pytest.mark.parametrize("end", ["PSH", "shorter"])
def test_nothing_follows_what_ends_a_run(end: str) -> None:
    packets = run_of(4)
    if end == "PSH":
        packets[1] = tcp(payload_of(packets[1]), 1001, ACK | PSH, ip_number=6)
    else:
        packets[1] = tcp(payload_of(packets[1])[:-1], 1001, ip_number=6)
        packets[2:] = [tcp(pattern(1000), 2000 + n * 1000, ip_number=7 + n) for n in range(2)]
    first, second = written(packets)
    assert segments(first[:10], first[10:]) == packets[:2]
    assert segments(second[:10], second[10:]) == packets[2:]


# --------------------------------------------------------------------------------------------------- through an engine


def packets_of(peer: Peer) -> list[bytes]:
    """What a member without the extension was sent so far."""
    frames = [frame for frame in peer.sync() if frame.opcode == BINARY]
    assert all(frame.payload[:1] == FORWARD and len(frame.payload) <= LEGACY_PAYLOAD for frame in frames)
    return [frame.payload[1:] for frame in frames]


SUPERS = {
    "TCP": (ANY, tcp(pattern(60_000))),
    "TCP with ECN": (replace(ANY, gso_type=GSO_TCP4 | GSO_ECN), tcp(pattern(9000), flags=ACK | CWR)),
    "UDP": (Vnet(NEEDS_CSUM, GSO_UDP, 28, 1372, 20, 6), udp(pattern(30_000))),
    "a checksum alone": (Vnet(NEEDS_CSUM, csum_offset=6), udp(pattern(1001))),
    "nothing special": (Vnet(0, GSO_NONE, 0, 0, 0, 0), tcp(pattern(77))),
    "as large as a frame may be": (replace(ANY, gso_size=1459), tcp(pattern(65_535 - 40))),
    "wrapped": (ANY, ip_header(3040, IPIP, A, B) + tcp(pattern(3000), source=C, to=D)),
}


@pytest.mark.parametrize("name", SUPERS)
def test_members_with_the_extension_exchange_it_whole_and_others_get_segments(name: str) -> None:
    vnet, packet = SUPERS[name]
    with Relay() as relay:
        sender, extended = relay.member(A), relay.member(B)
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
    with Relay() as relay, relay.device(vnet=True) as (kernel, tun):
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
    with Relay() as relay:
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
    with Relay() as relay:
        sender = relay.member(A)
        others = [relay.member(C + n, extended=bool(n % 2)) for n in range(members)]
        sender.forward(SUPER + bytes(vnet) + packet)
        sender.sync()
        wanted = segments(bytes(vnet), packet)
        for other in others:
            assert packets_of(other) == wanted
        assert relay.dropped() == {}


def test_only_who_agreed_may_send_it() -> None:
    with Relay() as relay:
        sender, extended = relay.member(A, extended=False), relay.member(B)
        sender.forward(SUPER + bytes(ANY) + tcp(pattern(1000)), FORWARD + tcp(b"next"))
        assert extended.receive().payload == FORWARD + tcp(b"next")
        assert relay.dropped() == {"bad_super": 1}


@pytest.mark.parametrize("name", set(SUPERS) - {"wrapped"})
@pytest.mark.parametrize("extended", [True, False])
def test_a_client_sends_what_its_relay_understands(name: str, extended: bool) -> None:
    vnet, packet = SUPERS[name]
    with Relay() as relay, relay.device(vnet=True) as (kernel, tun):
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


@pytest.mark.parametrize("name", set(SUPERS) - {"wrapped"})
@pytest.mark.parametrize("vnet", [True, False])
def test_a_client_writes_a_super_packet_whole_or_as_packets(name: str, vnet: bool) -> None:
    head, packet = SUPERS[name]
    with Relay() as relay, relay.device(vnet=vnet) as (kernel, tun):
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
    with Relay() as relay, relay.device(vnet=True) as (kernel, tun):
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
    with Relay() as relay, relay.device(vnet=True) as (kernel, tun):
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
    with Relay() as relay, relay.device(vnet=True) as (kernel, tun):
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
    with Relay() as relay, relay.device(vnet=True) as (kernel, tun):
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
