"""Super-packets in memory: how they are taken apart, what is refused, and what is put together.

Which of it each kind of member gets to see is in test_offload_engine.py.
"""

import struct
from dataclasses import replace

import pytest
from kit.peer import FORWARD, SUPER
from kit.superpacket import (
    ACK,
    ANY,
    CWR,
    ECE,
    FIN,
    GSO_ECN,
    GSO_NONE,
    GSO_TCP4,
    GSO_UDP,
    HOSTILE,
    IPIP,
    NEEDS_CSUM,
    NO_VNET,
    NOT_MERGED,
    PSH,
    TCP,
    UDP,
    A,
    B,
    C,
    D,
    Vnet,
    checksums_right,
    folded,
    ip_header,
    pattern,
    payload_of,
    run_of,
    segments,
    tcp,
    tcp_header,
    udp,
    udp_header,
    with_checksums,
)

from candy._fastpath import cut, segment, write_device

pytestmark = pytest.mark.engine


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


def test_a_last_segment_that_is_full_ends_the_flow_too() -> None:
    found = segment(bytes(ANY), tcp(pattern(2000), flags=ACK | PSH | FIN))
    assert [one[33] for one in found] == [ACK, ACK | PSH | FIN]


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


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_header_cut_anywhere_is_read_no_further(protocol: int) -> None:
    """The length fields agree with what is there, behind which a page can't be read."""
    header = tcp_header(1) if protocol == TCP else udp_header(0)
    vnet = ANY if protocol == TCP else Vnet(NEEDS_CSUM, GSO_UDP, 28, 1000, 20, 6)
    for outer in (b"", ip_header(20, IPIP, A, B)):
        for length in range(len(header)):
            packet = ip_header(length, protocol, A, B) + header[:length]
            packet = (ip_header(len(packet), IPIP, A, B) if outer else b"") + packet
            with pytest.raises(ValueError, match="not what"):
                segment(bytes(vnet), packet)


@pytest.mark.parametrize(
    ("vnet", "packet", "count"),
    [
        (replace(ANY, gso_size=8), tcp(pattern(1024)), 128),
        (replace(ANY, gso_size=512), tcp(pattern(65_495)), 128),
        (Vnet(NEEDS_CSUM, GSO_UDP, 28, 1, 20, 6), udp(pattern(128)), 128),
    ],
    ids=["short TCP", "long TCP", "UDP"],
)
def test_as_many_packets_as_one_may_stand_for(vnet: Vnet, packet: bytes, count: int) -> None:
    found = segment(bytes(vnet), packet)
    assert len(found) == count
    assert found == segments(bytes(vnet), packet)


@pytest.mark.parametrize("gso_size", [3000, 3001, 0xFFFF])
def test_segments_larger_than_the_payload_are_one_packet(gso_size: int) -> None:
    assert segment(bytes(replace(ANY, gso_size=gso_size)), tcp(pattern(3000))) == [tcp(pattern(3000))]


@pytest.mark.parametrize("wrapped", [False, True])
def test_parts_are_as_a_kernel_would_hand_them_over(wrapped: bool) -> None:
    """Only the first speaks of CWR, one packet is no super-packet, and the checksum's field has the pseudo header's
    sum, from which the one that cuts or receives it goes on."""
    packet = tcp(pattern(4500), flags=ACK | CWR)
    outer = 0
    if wrapped:
        packet = ip_header(len(packet), IPIP, C, D) + packet
        outer = 20
    parts = cut(bytes(replace(ANY, gso_type=GSO_TCP4 | GSO_ECN)), packet, 2)
    assert [Vnet.read(part[:10]) for part in parts] == [
        Vnet(NEEDS_CSUM, GSO_TCP4 | GSO_ECN, 40, 1000, 20, 16),
        Vnet(NEEDS_CSUM, GSO_TCP4, 40, 1000, 20, 16),
        Vnet(NEEDS_CSUM, GSO_NONE, 40, 0, 20, 16),
    ]
    for part in parts:
        inner = part[10 + outer :]
        assert struct.unpack_from(">H", inner, 36)[0] == folded(inner[12:20] + struct.pack(">HH", TCP, len(inner) - 20))


def test_a_virtio_header_has_ten_bytes() -> None:
    with pytest.raises(ValueError, match="10 bytes, not 9"):
        segment(bytes(9), tcp(b""))
    with pytest.raises(ValueError, match="too short"):
        write_device([FORWARD + bytes(19)])


KERNEL_SEES = {
    "TCP": (Vnet(3, GSO_TCP4, 0xFFFF, 1000, 20, 16), tcp(pattern(3000)), Vnet(1, GSO_TCP4, 40, 1000, 20, 16)),
    "UDP": (Vnet(1, GSO_UDP, 0, 1000, 20, 6), udp(pattern(3000)), Vnet(1, GSO_UDP, 28, 1000, 20, 6)),
    "a checksum alone": (Vnet(3, GSO_NONE, 9, 9, 20, 16), tcp(pattern(30)), Vnet(1, GSO_NONE, 40, 0, 20, 16)),
    "nothing special": (Vnet(0, GSO_NONE, 9, 9, 9, 9), tcp(pattern(30)), Vnet(0, GSO_NONE, 0, 0, 0, 0)),
    "a valid packet": (Vnet(2, GSO_NONE, 9, 9, 9, 9), tcp(pattern(30)), Vnet(0, GSO_NONE, 0, 0, 0, 0)),
}


@pytest.mark.parametrize("name", KERNEL_SEES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_kernel_sees_a_virtio_header_of_ours(name: str, wrapped: bool) -> None:
    """Written from what was found in the packet, whatever else came over the network."""
    received, packet, wanted = KERNEL_SEES[name]
    outer = ip_header(len(packet), IPIP, D, C) if wrapped else b""
    assert write_device([SUPER + bytes(received) + outer + packet], own=C) == ([bytes(wanted) + packet], {})


# ------------------------------------------------------------------------------------------------------- coalescing


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


def test_a_super_packet_has_at_most_128_pieces() -> None:
    packets = run_of(300, 8)
    writes = written(packets)
    assert [len(write) - 10 for write in writes] == [40 + 128 * 8, 40 + 128 * 8, 40 + 44 * 8]
    assert [one for write in writes for one in segments(write[:10], write[10:]) or []] == packets


@pytest.mark.parametrize("name", NOT_MERGED)
def test_what_differs_is_written_by_itself(name: str) -> None:
    packets = [run_of(1)[0], NOT_MERGED[name]]
    assert written(packets) == [NO_VNET + packet for packet in packets]
    if name != "larger than the first":
        packets.reverse()
        assert written(packets) == [NO_VNET + packet for packet in packets]


def test_without_df_ids_have_to_count_up() -> None:
    packets = run_of(3, ip_fragment=0)
    assert len(written(packets)) == 1
    packets[1] = tcp(payload_of(packets[1]), 1001, ip_number=9, ip_fragment=0)
    assert written(packets) == [NO_VNET + packet for packet in packets]


@pytest.mark.parametrize("at", [10, 36, 1039], ids=["header checksum", "checksum", "payload"])
def test_a_corrupt_first_packet_is_not_mended(at: int) -> None:
    packets = run_of(3)
    packets[0] = packets[0][:at] + bytes([packets[0][at] ^ 1]) + packets[0][at + 1 :]
    first, *rest = written(packets)
    assert first == NO_VNET + packets[0]
    assert [one for write in rest for one in segments(write[:10], write[10:]) or []] == packets[1:]


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


def test_nothing_follows_a_first_packet_that_pushes() -> None:
    packets = run_of(3)
    packets[0] = tcp(payload_of(packets[0]), 1, ACK | PSH, ip_number=5)
    first, second = written(packets)
    assert first == NO_VNET + packets[0]
    assert segments(second[:10], second[10:]) == packets[1:]


def test_other_tcp_options_are_written_by_themselves() -> None:
    """As many bytes of them, and another time stamp."""
    packets = [
        tcp(pattern(1000), 1 + 1000 * n, ip_number=5 + n, options=bytes(11) + bytes([n == 1]))  # type: ignore[arg-type]
        for n in range(3)
    ]
    assert written(packets) == [NO_VNET + packet for packet in packets]


def test_nothing_overtakes_what_is_being_put_together() -> None:
    run, other, whole = run_of(3), udp(b"other"), tcp(pattern(3000), source=C)
    writes, drops = write_device(
        [*(FORWARD + one for one in run), SUPER + bytes(ANY) + whole, *(FORWARD + one for one in run), FORWARD + other]
    )
    found = [one for write in writes for one in segments(write[:10], write[10:]) or []]
    assert found == [*run, *(segments(bytes(ANY), whole) or []), *run, other]
    assert drops == {}


def of_a_kind(changes: dict[int, int], sequence: int = 1001) -> list[bytes]:
    """Two packets that go on from each other with these bytes in both, and right checksums wherever a kernel that took
    them for plain TCP would look."""
    found = []
    for number, start in enumerate((1, sequence)):
        packet = bytearray(tcp(pattern(1000), start, ip_number=5 + number))
        for at, value in changes.items():
            packet[at] = value
        pseudo = packet[12:20] + struct.pack(">BBH", 0, packet[9], len(packet) - 20)
        packet[36:38] = bytes(2)
        packet[36:38] = struct.pack(">H", 0xFFFF - folded(bytes(pseudo + packet[20:])))
        packet[10:12] = bytes(2)
        packet[10:12] = struct.pack(">H", 0xFFFF - folded(bytes(packet[:20])))
        found.append(bytes(packet))
    return found


OF_A_KIND = {
    "another protocol": of_a_kind({9: 253}),
    "first fragments": of_a_kind({6: 0x20}),
    "later fragments": of_a_kind({6: 0, 7: 9}),
    "reserved bits": of_a_kind({32: 0x51}),
    "a TCP header of 16": of_a_kind({32: 0x40}, 1005),
    **{f"flags {flags:#x}": of_a_kind({33: flags}) for flags in (0, 0x11, 0x12, 0x14, 0x30, 0x50, 0x90)},
    "IP options": of_a_kind({0: 0x46}),
    "bytes behind their end": of_a_kind({2: 3, 3: 0xE8}),
    # Its options are what stands in their place in the other.
    "options in the second": [run_of(1)[0], tcp(pattern(1000), 1001, ip_number=6, options=pattern(4))],  # type: ignore[arg-type]
    "nothing in them": [tcp(b"", 1, ip_number=5 + n, options=bytes(4)) for n in range(2)],  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", OF_A_KIND)
def test_two_of_a_kind_that_no_kernel_would_cut_stay_two(name: str) -> None:
    """What the first packet must not be, where the second differs in nothing."""
    assert written(OF_A_KIND[name]) == [NO_VNET + packet for packet in OF_A_KIND[name]]
