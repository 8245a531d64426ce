"""Super-packets, slowly: what each stands for, whether checksums are right, and many of them, right and wrong.

Rules:
 1. `segments` is the obvious reading of the virtio header that the engine is compared with. It shares no code with it.
 2. Checksums are dpkt's, which nothing else here knows how to compute.

Knows neither frames nor devices.
"""

import struct
from dataclasses import dataclass, replace

import dpkt

NEEDS_CSUM, DATA_VALID = 1, 2
GSO_NONE, GSO_TCP4, GSO_UDP, GSO_ECN = 0, 1, 5, 0x80
TCP, UDP, IPIP = 6, 17, 4
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
NO_VNET = bytes(10)
TCP_SEGMENT_MIN = 8
"""Bytes of payload: Linux' TCP_MIN_GSO_SIZE."""
SEGMENTS_MAX = 128
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


def folded(data: bytes) -> int:
    """The Internet checksum's sum, not inverted: what a kernel goes on from."""
    return 0xFFFF - int(dpkt.in_cksum(data))


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
        if (protocol == TCP and head.gso_size < TCP_SEGMENT_MIN) or len(payload) > SEGMENTS_MAX * head.gso_size:
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


# Packets to begin with

A, B, C, D = 0x0A000001, 0x0A000002, 0x0A000003, 0x0A000004
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


def run_of(count: int, size: int = 1000, **fields: int) -> list[bytes]:
    """Consecutive packets of one flow."""
    data = pattern(count * size)
    at = range(0, len(data), size)
    return [tcp(data[n : n + size], 1 + n, ip_number=5 + i, **fields) for i, n in enumerate(at)]


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
    "129 packets": (replace(ANY, gso_size=8), tcp(pattern(1025))),
    "129 datagrams": (replace(ANY, gso_type=GSO_UDP, gso_size=10, csum_offset=6), udp(pattern(1281))),
    "segments of nothing": (replace(ANY, gso_size=0), tcp(pattern(3000))),
    "datagrams of nothing": (replace(ANY, gso_type=GSO_UDP, gso_size=0, csum_offset=6), udp(pattern(300))),
    "UDP with TCP's offset": (replace(ANY, gso_type=GSO_UDP), udp(pattern(3000))),
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
    "an inner packet too short": (ANY, ip_header(49, IPIP, A, B) + tcp(bytes(10))[:-1]),
    "an inner packet too long": (ANY, ip_header(51, IPIP, A, B) + tcp(bytes(10)) + b"\0"),
    "two outer headers": (ANY, ip_header(80, IPIP, A, B) + ip_header(60, IPIP, A, B) + tcp(pattern(20))),
}
"""What is not what its virtio header claims."""


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
"""What does not go on where the first packet of a run ends."""
