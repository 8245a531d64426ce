"""Super-packets, slowly: what each stands for, and whether checksums are right.

Rules:
 1. `segments` is the obvious reading of the virtio header that the engine is compared with. It shares no code with it.
 2. Checksums are dpkt's, which nothing else here knows how to compute.

Knows neither frames nor devices.
"""

import struct
from dataclasses import dataclass

import dpkt

NEEDS_CSUM, DATA_VALID = 1, 2
GSO_NONE, GSO_TCP4, GSO_UDP, GSO_ECN = 0, 1, 5, 0x80
TCP, UDP, IPIP = 6, 17, 4
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
NO_VNET = bytes(10)
TCP_SEGMENT_MIN = 8
"""Bytes of payload: Linux' TCP_MIN_GSO_SIZE."""
UDP_SEGMENTS_MAX = 128
"""Linux' UDP_MAX_SEGMENTS."""


@dataclass(frozen=True)
class Vnet:
    """A virtio header."""

    flags: int = NEEDS_CSUM
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 20
    csum_offset: int = 16

    def __bytes__(self) -> bytes:
        fields = (self.flags, self.gso_type, self.hdr_len, self.gso_size, self.csum_start, self.csum_offset)
        return struct.pack("<BBHHHH", *fields)

    @classmethod
    def read(cls, data: bytes) -> "Vnet":
        return cls(*struct.unpack("<BBHHHH", data))


def ip_header(
    length: int,
    protocol: int,
    source: int,
    destination: int,
    *,
    tos: int = 0,
    number: int = 0,
    fragment: int = 0x4000,
    ttl: int = 64,
    options: bytes = b"",
) -> bytes:
    """An IPv4 header for `length` bytes behind it. `fragment` is the whole field: 0x4000 is DF."""
    size = 20 + len(options)
    first = struct.pack(">BBHHHBB", 0x40 | size // 4, tos, size + length, number, fragment, ttl, protocol)
    rest = struct.pack(">II", source, destination) + options
    return first + struct.pack(">H", dpkt.in_cksum(first + b"\0\0" + rest)) + rest


def tcp_header(
    sequence: int,
    flags: int = ACK,
    *,
    ports: tuple[int, int] = (40000, 80),
    acknowledgement: int = 7,
    window: int = 500,
    urgent: int = 0,
    options: bytes = b"",
    reserved: int = 0,
) -> bytes:
    """A TCP header without its checksum."""
    where = (20 + len(options)) // 4 << 4 | reserved
    return struct.pack(">HHIIBBHHH", *ports, sequence, acknowledgement, where, flags, window, 0, urgent) + options


def udp_header(length: int, *, ports: tuple[int, int] = (40000, 53)) -> bytes:
    """A UDP header, without its checksum, for `length` bytes behind it."""
    return struct.pack(">HHHH", *ports, (8 + length) & 0xFFFF, 0)


def with_checksums(packet: bytes) -> bytes:
    """The IPv4 header's checksum, and a TCP or UDP checksum unless it is a fragment, computed anew."""
    size = (packet[0] & 15) * 4
    header = packet[:10] + b"\0\0" + packet[12:size]
    header = header[:10] + struct.pack(">H", dpkt.in_cksum(header)) + header[12:]
    at = size + {TCP: 16, UDP: 6}.get(packet[9], 0)
    if at == size or int.from_bytes(packet[6:8], "big") & 0x3FFF:
        return header + packet[size:]
    pseudo = packet[12:20] + struct.pack(">BBH", 0, packet[9], len(packet) - size)
    body = packet[size:at] + b"\0\0" + packet[at + 2 :]
    value = dpkt.in_cksum(pseudo + body)
    # "If the computed checksum is zero, it is transmitted as all ones" (RFC 768).
    if packet[9] == UDP and value == 0:
        value = 0xFFFF
    return header + body[: at - size] + struct.pack(">H", value) + body[at - size + 2 :]


def checksums_right(packet: bytes) -> bool:
    """Whether dpkt would have made the very same packet."""
    if packet[9] == IPIP:
        size = (packet[0] & 15) * 4
        return bool(dpkt.in_cksum(packet[:size]) == 0) and checksums_right(packet[size:])
    read = dpkt.ip.IP(packet)
    read.sum = 0
    if isinstance(read.data, dpkt.tcp.TCP | dpkt.udp.UDP):
        if isinstance(read.data, dpkt.udp.UDP) and read.data.sum == 0:
            return bool(dpkt.in_cksum(packet[: (packet[0] & 15) * 4]) == 0)
        read.data.sum = 0
    return bytes(read) == packet


def header_size(packet: bytes) -> int | None:
    """Of an IPv4 packet that is just as long as it says; None when it isn't one."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    size = (packet[0] & 15) * 4
    total = int.from_bytes(packet[2:4], "big")
    return size if size >= 20 and size <= total == len(packet) else None


def segments(vnet: bytes, packet: bytes) -> list[bytes] | None:
    """The packets that a super-packet stands for; None when it is not what its virtio header claims."""
    head = Vnet.read(vnet)
    size = header_size(packet)
    if size is None or head.flags & ~(NEEDS_CSUM | DATA_VALID):
        return None
    outer, inner = b"", packet
    if packet[9] == IPIP:
        outer, inner = packet[:size], packet[size:]
        size = header_size(inner)
        if size is None:
            return None
    if not head.flags & NEEDS_CSUM:
        only_headers = with_header_checksum(outer) + with_header_checksum(inner[:size]) + inner[size:]
        return [only_headers] if head.gso_type == GSO_NONE else None
    protocol, body = inner[9], inner[size:]
    if int.from_bytes(inner[6:8], "big") & 0x3FFF or head.csum_start != size:
        return None
    if protocol == TCP:
        if len(body) < 20 or head.csum_offset != 16 or not 20 <= (body[12] >> 4) * 4 <= len(body):
            return None
        transport, payload = body[: (body[12] >> 4) * 4], body[(body[12] >> 4) * 4 :]
    elif protocol == UDP:
        if len(body) < 8 or head.csum_offset != 6:
            return None
        transport, payload = body[:8], body[8:]
    else:
        return None
    if head.gso_type == GSO_NONE:
        parts = [payload]
    elif head.gso_size and (head.gso_type, protocol) in {(GSO_TCP4, TCP), (GSO_TCP4 | GSO_ECN, TCP), (GSO_UDP, UDP)}:
        # No kernel goes further.
        if head.gso_size < TCP_SEGMENT_MIN if protocol == TCP else len(payload) > UDP_SEGMENTS_MAX * head.gso_size:
            return None
        parts = [payload[at : at + head.gso_size] for at in range(0, len(payload), head.gso_size)] or [b""]
    else:
        return None
    return [one_segment(outer, inner[:size], transport, parts, n) for n in range(len(parts))]


def one_segment(outer: bytes, ip: bytes, transport: bytes, parts: list[bytes], number: int) -> bytes:
    """The packet with part `number` of the payload."""
    part, changed = parts[number], bytearray(transport)
    if ip[9] == TCP:
        before = sum(len(one) for one in parts[:number])
        sequence = int.from_bytes(transport[4:8], "big") + before
        changed[4:8] = (sequence % (1 << 32)).to_bytes(4, "big")
        if number < len(parts) - 1:
            changed[13] &= 255 - FIN - PSH
        if number > 0:
            changed[13] &= 255 - CWR
    else:
        changed[4:6] = (8 + len(part)).to_bytes(2, "big")
    header = bytearray(ip)
    header[2:4] = (len(ip) + len(changed) + len(part)).to_bytes(2, "big")
    header[4:6] = ((int.from_bytes(ip[4:6], "big") + number) % (1 << 16)).to_bytes(2, "big")
    packet = with_checksums(bytes(header + changed) + part)
    if not outer:
        return packet
    around = bytearray(outer)
    around[2:4] = (len(outer) + len(packet)).to_bytes(2, "big")
    return with_header_checksum(bytes(around)) + packet


def with_header_checksum(header: bytes) -> bytes:
    """The header alone."""
    if not header:
        return b""
    empty = header[:10] + b"\0\0" + header[12:]
    return empty[:10] + struct.pack(">H", dpkt.in_cksum(empty)) + empty[12:]
