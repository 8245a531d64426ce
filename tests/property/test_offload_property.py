"""Segmenting and coalescing against the slow model; every checksum against dpkt."""

import random
import struct
from dataclasses import fields, replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from kit.peer import FORWARD, SUPER
from kit.superpacket import (
    ACK,
    CWR,
    FIN,
    GSO_ECN,
    GSO_NONE,
    GSO_TCP4,
    GSO_UDP,
    IPIP,
    NEEDS_CSUM,
    NO_VNET,
    PSH,
    TCP,
    UDP,
    A,
    B,
    Vnet,
    checksums_right,
    folded,
    ip_header,
    segments,
    tcp_header,
    udp_header,
    with_checksums,
)

from candy import _fastpath

pytestmark = pytest.mark.engine

words = st.integers(0, 0xFFFF) | st.sampled_from((0, 1, 0x7FFF, 0xFFFE, 0xFFFF))
sequences = st.integers(0, 0xFFFFFFFF) | st.sampled_from((0, 0xFFFFFFFF, 0xFFFFFA00, 0x7FFFFFFF))


def options(most: int) -> st.SearchStrategy[bytes]:
    """IP or TCP options; what they say is of no concern."""
    return st.integers(0, most // 4).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))


@st.composite
def payloads(draw: st.DrawFn, most: int = 6000) -> bytes:
    return random.Random(draw(st.integers(0, 1000))).randbytes(draw(st.integers(0, most)))


@st.composite
def super_packets(draw: st.DrawFn) -> tuple[Vnet, bytes]:
    """One that is as it should be, with everything that varies."""
    payload = draw(payloads())
    # From the least that is taken: 8 bytes of TCP, 128 packets of UDP.
    least = max(8, -(-len(payload) // 128))
    gso_size = draw(st.integers(least, 1500) | st.sampled_from((least, least + 1, max(least, len(payload)), 0xFFFF)))
    if draw(st.booleans()):
        body = tcp_header(
            draw(sequences),
            draw(st.integers(0, 255)),
            window=draw(words),
            urgent=draw(words),
            options=draw(options(40)),
            reserved=draw(st.integers(0, 15)),
        )
        protocol, at, kind = TCP, 16, draw(st.sampled_from((GSO_TCP4, GSO_TCP4 | GSO_ECN)))
    else:
        body, protocol, at, kind = udp_header(len(payload)), UDP, 6, GSO_UDP
    body += payload
    header = ip_header(
        len(body),
        protocol,
        A,
        B,
        tos=draw(st.integers(0, 255)),
        number=draw(words),
        fragment=draw(st.sampled_from((0, 0x4000, 0x8000))),
        options=draw(options(40)),
    )
    kind = draw(st.sampled_from((kind, GSO_NONE)))
    # What the kernel left in the checksum's field is the pseudo header's sum; nobody may depend on it.
    vnet = Vnet(NEEDS_CSUM, kind, draw(words), gso_size if kind else 0, len(header), at)
    packet = header + body
    if draw(st.booleans()):
        packet = ip_header(len(packet), IPIP, A, B, options=draw(options(40))) + packet
    return vnet, packet


def segmented(vnet: bytes, packet: bytes) -> list[bytes] | None:
    try:
        return _fastpath.segment(vnet, packet)
    except ValueError:
        return None


@given(super_packets())
def test_segments_are_the_models(one: tuple[Vnet, bytes]) -> None:
    vnet, packet = bytes(one[0]), one[1]
    found = segmented(vnet, packet)
    assert found is not None
    assert found == segments(vnet, packet)
    assert all(checksums_right(segment) for segment in found)


@given(super_packets(), st.integers(1, 200))
def test_parts_stand_for_the_same_packets(one: tuple[Vnet, bytes], n: int) -> None:
    """Cut for a slow link, and then segmented: nobody can tell."""
    vnet, packet = one
    assume(vnet.gso_size)
    parts = _fastpath.cut(bytes(vnet), packet, n)
    wanted = segments(bytes(vnet), packet)
    assert wanted is not None
    assert [_fastpath.segment(part[:10], part[10:]) for part in parts] == [
        wanted[i : i + n] for i in range(0, len(wanted), n)
    ]


@given(super_packets(), st.data())
def test_a_header_that_lies_is_refused_or_read_as_the_model_reads_it(
    one: tuple[Vnet, bytes], data: st.DataObject
) -> None:
    """Any field of the virtio header, any byte of the packet's headers, any length."""
    vnet, packet = one
    for field in data.draw(st.lists(st.sampled_from([field.name for field in fields(Vnet)]), max_size=3)):
        value = data.draw(st.integers(0, 255) if field in ("flags", "gso_type") else words)
        vnet = replace(vnet, **{field: value})
    changed = bytearray(packet)
    for _ in range(data.draw(st.integers(0, 2))):
        changed[data.draw(st.integers(0, min(100, len(changed) - 1)))] = data.draw(st.integers(0, 255))
    packet = bytes(changed)
    if data.draw(st.booleans()):
        packet = packet[: data.draw(st.integers(0, len(packet)))]
    assert segmented(bytes(vnet), packet) == segments(bytes(vnet), packet)


@given(st.binary(min_size=10, max_size=10), st.binary(max_size=200))
@example(bytes(Vnet(gso_type=GSO_TCP4, gso_size=0xFFFF)), b"\x45")
def test_any_bytes_at_all(vnet: bytes, packet: bytes) -> None:
    assert segmented(vnet, packet) == segments(vnet, packet)


@given(super_packets(), st.booleans(), st.sampled_from((0, B)))
def test_a_device_is_written_what_the_super_packet_stands_for(one: tuple[Vnet, bytes], vnet: bool, own: int) -> None:
    """With virtio headers as one write that stands for the same packets, without as those packets."""
    head, packet = bytes(one[0]), one[1]
    wanted = segments(head, packet)
    assert wanted is not None
    assume(vnet or len(wanted) <= 100)  # the socket that plays the device holds no more
    outer = 20 if packet[9] == IPIP and packet[0] == 0x45 and own == B and packet[4:8] == b"\0\0\x40\0" else 0
    writes, drops = _fastpath.write_device([SUPER + head + packet], vnet=vnet, own=own)
    if not vnet:
        assert writes == [segment[outer:] for segment in wanted]
    elif packet[9] == IPIP and not outer:
        # The kernel would take the virtio header for the outer packet's.
        assert (writes, drops) == ([], {"bad_super": 1})
    else:
        [write] = writes
        assert segments(write[:10], write[10:]) == [segment[outer:] for segment in wanted]


# ------------------------------------------------------------------------------------------------------- coalescing


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Packets of a few TCP flows as a member without candy.2 sends them, some of which are odd."""
    found: list[bytes] = []
    for _ in range(draw(st.integers(1, 5))):
        size = draw(st.sampled_from((8, 9, 100, 1348)))
        payload = random.Random(draw(st.integers(0, 1000))).randbytes(draw(st.integers(0, 300 if size < 10 else 9000)))
        flags = ACK | draw(st.sampled_from((0, 0, PSH, PSH, FIN, CWR | PSH)))
        body = tcp_header(
            draw(sequences),
            flags,
            ports=(draw(st.integers(1, 2)), 80),
            window=draw(st.sampled_from((0, 500))),
            urgent=draw(st.sampled_from((0, 0, 1))),
            options=draw(st.sampled_from((b"", bytes(range(12))))),
        )
        header = ip_header(
            len(body) + len(payload),
            TCP,
            A,
            B,
            number=draw(words),
            fragment=draw(st.sampled_from((0x4000, 0))),
            options=draw(st.sampled_from((b"", b"", bytes(4)))),
        )
        vnet = Vnet(NEEDS_CSUM, GSO_TCP4, 0, size, len(header), 16)
        found += segments(bytes(vnet), header + body + payload) or []
    found = found[:400]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(found) - 1))
        match draw(st.sampled_from(("lost", "again", "changed", "corrupt", "header", "later", "other"))):
            case "lost" if len(found) > 1:
                del found[at]
            case "again":
                found.insert(at, found[at])
            case "changed":
                changed = bytearray(found[at])
                changed[draw(st.integers(1, min(len(changed), 60) - 1))] ^= 1 << draw(st.integers(0, 7))
                found[at] = bytes(changed)
                if changed[0] == 0x45 and len(changed) == int.from_bytes(changed[2:4], "big"):
                    found[at] = with_checksums(found[at])
            case "header":
                found[at] = found[at][:10] + bytes([found[at][10] ^ 1]) + found[at][11:]
            case "corrupt":
                found[at] = found[at][:-1] + bytes([found[at][-1] ^ 1])
            case "later":
                found.append(found.pop(at))
            case _:
                found.insert(at, with_checksums(ip_header(18, UDP, A, B) + udp_header(10) + bytes(10)))
    return found


def plausible(packet: bytes) -> bool:
    """What the engine lets a kernel see."""
    size = (packet[0] & 15) * 4
    return packet[0] >> 4 == 4 and 20 <= size <= int.from_bytes(packet[2:4], "big") <= len(packet)


def without_id(packet: bytes) -> bytes:
    """With DF an id means nothing (RFC 6864)."""
    if packet[6] & 0x40 == 0 or with_checksums(packet)[10:12] != packet[10:12]:
        return packet
    return packet[:4] + b"\0\0" + packet[6:10] + b"\0\0" + packet[12:]


@given(streams())
def test_coalescing_and_segmenting_again_changes_nothing(packets: list[bytes]) -> None:
    writes, drops = _fastpath.write_device([FORWARD + packet for packet in packets])
    wanted = [packet for packet in packets if plausible(packet)]
    found: list[bytes] = []
    for write in writes:
        if write[:10] == NO_VNET:
            found.append(write[10:])
            continue
        vnet, packet = Vnet.read(write[:10]), write[10:]
        # The kernel goes on from the pseudo header's sum.
        pseudo = packet[12:20] + struct.pack(">HH", TCP, len(packet) - 20)
        assert int.from_bytes(packet[36:38], "big") == folded(pseudo)
        assert vnet.hdr_len == 20 + (packet[32] >> 4) * 4
        assert with_checksums(packet)[10:12] == packet[10:12]
        parts = segments(write[:10], packet)
        assert parts is not None
        assert len(parts) > 1
        found += parts
    assert [without_id(packet) for packet in found] == [without_id(packet) for packet in wanted]
    assert drops == ({"not_ipv4": len(packets) - len(wanted)} if len(packets) > len(wanted) else {})
    plain, _ = _fastpath.write_device([FORWARD + packet for packet in packets], vnet=False)
    assert plain == wanted
