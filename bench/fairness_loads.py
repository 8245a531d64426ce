"""Everything that one connection can do to the relay: the loads of fairness.py, and the bytes of each.

A load is data: which frames its connection sends, over and over or once, whether it reads the answers, and which crowd
of other members is there. `fairness_members.py` plays it. Knows neither sockets nor clocks.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address

from candy.protocol.wire import Kind

CONTINUATION, TEXT, BINARY, RESERVED, CLOSE, PING = 0, 1, 2, 3, 8, 9
MASK = bytes.fromhex("37fa213d")
"""Of every frame; the example of RFC 6455, and as good as any."""
SENDER = int(IPv4Address("10.0.0.1"))
"""Address of the connection that makes the load, once it is logged in; the addresses of its crowd follow."""
RETURNING = int(IPv4Address("10.7.0.0"))
"""Address of the first of many that come and go."""
NOBODY, STRANGER, EVERYBODY = (int(IPv4Address(text)) for text in ("10.9.9.9", "10.8.8.8", "255.255.255.255"))
DEVICE = int(IPv4Address("10.6.0.1"))
"""The relay's own, where it has one."""
STREAM_BYTES = 262144
"""What is given to the kernel at a time is at least this long, so that sending costs little Python."""
TINY, LARGE = 20, 1400
"""Bytes of a packet: a bare IPv4 header; a full one."""
SUPERS = ((128, 8), (128, 508), (8120, 8))
"""Segments of a super-packet, and bytes of payload in each: the most that may be, short and long; far too many."""
BROADCAST_MEMBERS, SILENT_MEMBERS, WAITING_MEMBERS, TURNS = 3000, 9000, 1000, 500
FULL_BYTES = 28000
"""Sent to a member with a receive buffer of 2 KB that reads nothing: some of it waits in the relay."""


class Way(Enum):
    """What the connection does with its frames."""

    FLOOD = "sends them over and over, as fast as the relay takes them"
    ONCE = "sends them once and is quiet"
    RETURN = "sends them at the start of many connections, each of which ends at the answer and comes back"
    LINGER = "the same, but holds on to each for a second after the relay's end"
    SPIN = "sends nothing; its process is as busy as that of a flood"


@dataclass(frozen=True)
class Crowd:
    """Members that do nothing but receive."""

    count: int = 0
    extended: bool = True
    reads: bool = True
    receive_buffer: int = 0
    """SO_RCVBUF, bytes; 0: the kernel's own choice."""


@dataclass(frozen=True)
class Load:
    """One row of the table."""

    name: str
    frames: Sequence[bytes] = ()
    """In the order in which they are sent."""
    times: int = 1
    """How often, where that is not over and over."""
    first: bytes = b""
    """Sent once at the start of each connection, before the frames."""
    way: Way = Way.FLOOD
    logged_in: bool = True
    extended: bool = True
    """The connection agreed to candy.2."""
    reads: bool = False
    receive_buffer: int = 0
    crowd: Crowd = Crowd()
    engine: dict[str, float] = field(default_factory=dict)
    """Arguments of the engine."""
    device: bool = False
    """The relay has an interface of its own, with the address DEVICE."""
    waits: bool = False
    """The relay has nothing to do: what counts is the CPU time that it uses, not a bystander's packet."""


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A client's frame with at most 65,535 bytes."""
    length = len(payload)
    start = struct.pack("!BB", final << 7 | opcode, 128 | min(length, 126))
    if length > 125:
        start += struct.pack("!H", length)
    repeated = (MASK * (length // 4 + 1))[:length]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return start + MASK + masked.to_bytes(length, "big")


def ip_header(length: int, source: int, destination: int, protocol: int) -> bytes:
    """An IPv4 header for a packet of `length` bytes in all."""
    header = struct.pack("!BBHHHBBHII", 0x45, 0, length, 0, 0x4000, 64, protocol, 0, source, destination)
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return header[:10] + struct.pack("!H", checksum) + header[12:]


def forward(destination: int, size: int = TINY, *, source: int = SENDER) -> bytes:
    """A frame with a packet of `size` bytes; one without room for ports is of no protocol."""
    ports = struct.pack("!HHHH", 9, 9, size - 20, 0) if size >= 28 else b""
    packet = ip_header(size, source, destination, 17 if ports else 254) + ports
    return frame(BINARY, bytes([Kind.FORWARD]) + packet + bytes(size - len(packet)))


def super_payload(destination: int, segments: int, size: int) -> tuple[bytes, bytes]:
    """Virtio header and TCP packet that stand for so many segments with `size` bytes of payload each."""
    length = 40 + segments * size
    vnet = struct.pack("<BBHHHH", 1, 1, 40, size, 20, 16)
    tcp = struct.pack("!HHIIBBHHH", 40000, 80, 1, 1, 0x50, 0x10, 500, 0, 0)
    return vnet, ip_header(length, SENDER, destination, 6) + tcp + bytes(segments * size)


def super_frame(destination: int, segments: int, size: int) -> bytes:
    return frame(BINARY, bytes([Kind.SUPER]) + b"".join(super_payload(destination, segments, size)))


def member(number: int) -> int:
    """Address of a member of the crowd, from 0."""
    return SENDER + 1 + number


def messages(*kinds: Kind) -> list[bytes]:
    """Messages of the control plane with garbage behind the kind."""
    return [frame(BINARY, bytes([kind]) + b"\xa5" * 50) for kind in kinds]


def stream(load: Load) -> tuple[bytes, int]:
    """What is sent without a pause, and how many frames that is."""
    whole = b"".join(load.frames)
    times = -(-STREAM_BYTES // len(whole)) if load.way is Way.FLOOD else load.times
    return whole * times, len(load.frames) * times


def state(logged_in: bool) -> str:
    return "logged in" if logged_in else "before log-in"


def answers(reads: bool) -> str:
    return "read" if reads else "unread"


def extension(extended: bool) -> str:
    return "candy.2" if extended else "old"


def without_packets() -> Iterator[Load]:
    """What needs no log-in."""
    for logged_in in (False, True):
        for size in (0, 4, 125):
            for reads in (True, False):
                name = f"pings of {size} bytes, {state(logged_in)}, {answers(reads)}"
                yield Load(name, [frame(PING, bytes(size))], logged_in=logged_in, reads=reads)
    begin = frame(BINARY, bytes([Kind.FORWARD]), final=False)
    go_on = [frame(CONTINUATION, b"x", final=False)]
    whole = [frame(BINARY, b"\x03", final=False), *go_on * 1000, frame(CONTINUATION)]
    for logged_in in (False, True):
        for name, frames, first in (
            ("empty frames", [frame(BINARY)], b""),
            ("1-byte frames", [frame(BINARY, bytes([Kind.FORWARD]))], b""),
            ("text frames", [frame(TEXT, b"x")], b""),
            ("empty fragments, never finished", [frame(CONTINUATION, final=False)], begin),
            ("1-byte fragments, never finished", go_on, begin),
            ("1-byte fragments, 1,000 a message", whole, b""),
            ("log-in messages of garbage", messages(Kind.EXPTTUN, Kind.VMAC, Kind.ROUTE), b""),
            ("kinds 3, 5, 255", messages(Kind.UDP4CONN, Kind.DISCOVERY, Kind.GENERAL), b""),
        ):
            yield Load(f"{name}, {state(logged_in)}", frames, first=first, logged_in=logged_in)


def packets() -> Iterator[Load]:
    """FORWARDs and SUPERs."""
    yield Load("tiny, before log-in", [forward(SENDER)], logged_in=False)
    for reads in (True, False):
        yield Load(f"tiny, to itself, {answers(reads)}", [forward(SENDER)], reads=reads)
    yield Load("tiny, to nobody", [forward(NOBODY)])
    yield Load("tiny, with a wrong source", [forward(member(0), source=STRANGER)], crowd=Crowd(1))
    for extended in (True, False):
        to = f"{TURNS} {extension(extended)} members in turn"
        turns = [forward(member(number)) for number in range(TURNS)]
        yield Load(f"tiny, to {to}", turns, crowd=Crowd(TURNS, extended))
        for name, size in (("tiny", TINY), ("1,400 bytes", LARGE)):
            made = [forward(member(0), size)]
            yield Load(f"{name}, to one {extension(extended)} member", made, crowd=Crowd(1, extended))
        stalled = Crowd(1, extended, reads=False, receive_buffer=2048)
        yield Load(
            f"1,400 bytes, to a stalled {extension(extended)} member", [forward(member(0), LARGE)], crowd=stalled
        )
        for segments, size in SUPERS:
            yield Load(
                f"SUPERs of {segments:,} x {size}, to one {extension(extended)} member",
                [super_frame(member(0), segments, size)],
                crowd=Crowd(1, extended),
            )

    for name, size in (("tiny", TINY), ("1,400 bytes", LARGE)):
        yield Load(f"{name}, to the relay's own interface", [forward(DEVICE, size)], device=True)


def talk() -> Iterator[Load]:
    """What members tell each other."""
    to_one = frame(BINARY, struct.pack("!BIIIH", Kind.UDP4CONN, SENDER, member(0), SENDER, 4000))
    long = frame(BINARY, struct.pack("!BBHII", Kind.GENERAL, 1, 0, SENDER, member(0)) + bytes(LARGE))
    for extended in (True, False):
        yield Load(f"UDP4CONN, to one {extension(extended)} member", [to_one], crowd=Crowd(1, extended))
        yield Load(f"long GENERAL, to one {extension(extended)} member", [long], crowd=Crowd(1, extended))
    to_all = frame(BINARY, struct.pack("!BII", Kind.DISCOVERY, SENDER, EVERYBODY))
    yield Load(f"DISCOVERY, to {BROADCAST_MEMBERS:,} members", [to_all], crowd=Crowd(BROADCAST_MEMBERS))


def broadcasts() -> Iterator[Load]:
    for extended in (True, False):
        crowd = Crowd(BROADCAST_MEMBERS, extended)
        to = f"to {BROADCAST_MEMBERS:,} {extension(extended)} members"
        for name, size in (("tiny", TINY), ("1,400-byte", LARGE)):
            yield Load(f"{name} broadcasts, {to}", [forward(EVERYBODY, size)], crowd=crowd)
        for segments, size in SUPERS:
            yield Load(
                f"SUPER broadcasts of {segments:,} x {size}, {to}",
                [super_frame(EVERYBODY, segments, size)],
                crowd=crowd,
            )


def ends_and_silence() -> Iterator[Load]:
    """Connections that come and go, and members that make no load at all."""
    silent = Crowd(SILENT_MEMBERS, reads=False)
    for logged_in in (False, True):
        yield Load(
            f"close and return, {state(logged_in)}", [frame(CLOSE)], way=Way.RETURN, logged_in=logged_in, reads=True
        )
        yield Load(
            f"hang up and return, {state(logged_in)}", [frame(PING)], way=Way.RETURN, logged_in=logged_in, reads=True
        )
    # The relay has closed, and waits for the other side to do so.
    yield Load("fault and linger", [frame(RESERVED)], way=Way.LINGER, reads=True)
    yield Load(
        f"fault and linger, beside {SILENT_MEMBERS:,}", [frame(RESERVED)], way=Way.LINGER, reads=True, crowd=silent
    )
    yield Load(f"{SILENT_MEMBERS:,} silent members, pinged", way=Way.ONCE, crowd=silent, engine={"ping_after": 1.0})


def waiting() -> Iterator[Load]:
    for count in (1, WAITING_MEMBERS):
        yield Load(
            f"waiting: {count:,} old member{'s' * (count > 1)}",
            [forward(member(number), LARGE) for number in range(count)],
            times=FULL_BYTES // LARGE,
            way=Way.ONCE,
            crowd=Crowd(count, extended=False, reads=False, receive_buffer=2048),
            waits=True,
        )
    # 7,860 bytes.
    yield Load(
        "waiting: 60 pings before log-in, old, unread",
        [frame(PING, bytes(125))] * 60,
        way=Way.ONCE,
        logged_in=False,
        extended=False,
        receive_buffer=2048,
        waits=True,
    )


def catalogue() -> Iterator[Load]:
    yield Load("none, but a busy process", way=Way.SPIN)
    yield from without_packets()
    yield from packets()
    yield from talk()
    yield from broadcasts()
    yield from ends_and_silence()
    yield from waiting()


LOADS = {load.name: load for load in catalogue()}
