"""Bytes to and from the engine: every violation with its close code, every cut, length and mask, both roles.

What the frame parser does with arbitrary bytes is in property/; this file says which bytes deserve what.
"""

import itertools
import socket
import struct

import dpkt
import pytest
from kit.peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FORBIDDEN_CODES,
    FORWARD,
    MAX_PAYLOAD,
    PING,
    PONG,
    TEXT,
    EngineRelay,
    Frame,
    Peer,
    build_frame,
    number_of,
    numbered,
    packet,
    read_messages,
    tcp_pair,
)
from kit.superpacket import ip_header

from candy import _fastpath

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

A, B, C, D = (0x0A000001, 0x0A000002, 0x0A000003, 0x0A000004)
NETWORK_BROADCAST = 0x0A0000FF
ZERO = "00000000"
"""A mask that lets the payload be read."""

# What a client sends to a server, in hex, and the code with which it is closed.
VIOLATIONS = {
    "unmasked": ("82 00", 1002),
    "RSV1": (f"c2 80 {ZERO}", 1002),
    "RSV2": (f"a2 80 {ZERO}", 1002),
    "RSV3": (f"92 80 {ZERO}", 1002),
    **{f"opcode {n}": (f"8{n:x} 80 {ZERO}", 1002) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "fragmented ping": (f"09 80 {ZERO}", 1002),
    "fragmented close": (f"08 80 {ZERO}", 1002),
    "ping of 126": (f"89 fe 007e {ZERO}" + "00" * 126, 1002),
    "ping of 65536": (f"89 ff 0000000000010000 {ZERO}", 1002),
    "pong of 126 from a client": (f"8a fe 007e {ZERO}" + "00" * 126, 1002),
    "stray continuation": (f"80 80 {ZERO}", 1002),
    "stray first continuation": (f"00 80 {ZERO}", 1002),
    "whole message between fragments": (f"02 81 {ZERO} 05 82 81 {ZERO} 05", 1002),
    "first fragment between fragments": (f"02 81 {ZERO} 05 01 81 {ZERO} 05", 1002),
    "whole packet between fragments": (f"02 81 {ZERO} 05 82 95 {ZERO} 01" + "00" * 20, 1002),
    "whole super-packet between fragments": (f"02 81 {ZERO} 05 82 9f {ZERO} 10" + "00" * 30, 1002),
    "125 in two bytes": (f"82 fe 007d {ZERO}", 1002),
    "0 in two bytes": (f"82 fe 0000 {ZERO}", 1002),
    "65535 in eight bytes": (f"82 ff 000000000000ffff {ZERO}", 1002),
    "length 2^63": ("82 ff 8000000000000000", 1002),
    "length 2^64 - 1": ("82 ff ffffffffffffffff", 1002),
    "length 2^63 - 1": ("82 ff 7fffffffffffffff", 1009),
    "length 2^32 + 1": ("82 ff 0000000100000001", 1009),
    "length 65547": ("82 ff 000000000001000b", 1009),
    "65547 in fragments": (
        build_frame(BINARY, b"\1" * 65536, mask=bytes(4), final=False).hex()
        + build_frame(CONTINUATION, b"\1" * 11, mask=bytes(4)).hex(),
        1009,
    ),
    "close with one byte": (f"88 81 {ZERO} 03", 1002),
    **{f"close code {code}": (f"88 82 {ZERO} {code:04x}", 1002) for code in FORBIDDEN_CODES},
}
LEGAL_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999)


def as_server(data: bytes) -> bytes:
    """The same frames without their (zero) masks."""
    frames = b""
    while len(data) >= 2:
        extended = {126: 2, 127: 8}.get(data[1] & 127, 0)
        length = int.from_bytes(data[2 : 2 + extended], "big") if extended else data[1] & 127
        at = 2 + extended
        frames += data[:1] + bytes([data[1] & 127]) + data[2:at] + data[at + 4 : at + 4 + length]
        data = data[at + 4 + length :]
    return frames


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violation_is_closed_with_its_code_and_nobody_else_notices(name: str) -> None:
    text, code = VIOLATIONS[name]
    with EngineRelay() as relay:
        bad, good = relay.member(A), relay.member(B)
        bad.sock.sendall(bytes.fromhex(text))
        assert [(f.opcode, f.payload) for f in bad.receive_all()] == [(CLOSE, struct.pack(">H", code))]
        bad.close()
        assert relay.cause(bad.connection) == ("too_large" if code == 1009 else "protocol_error")
        good.forward(numbered(B, B, 7))
        assert [f.payload for f in good.sync()] == [numbered(B, B, 7)]


@pytest.mark.parametrize("name", [name for name in VIOLATIONS if name != "unmasked" and "from a client" not in name])
def test_a_client_is_as_strict(name: str) -> None:
    text, code = VIOLATIONS[name]
    with EngineRelay() as relay:
        server = relay.adopt(client=True)
        server.sock.sendall(as_server(bytes.fromhex(text)))
        [answer] = server.receive_all()
        assert (answer.opcode, answer.payload) == (CLOSE, struct.pack(">H", code))


def test_masked_frame_for_a_client() -> None:
    with EngineRelay() as relay:
        server = relay.adopt(client=True)
        server.sock.sendall(build_frame(BINARY, b"\5", mask=bytes(4)))
        [answer] = server.receive_all()
        assert (answer.opcode, answer.payload) == (CLOSE, b"\x03\xea")
        server.close()
        assert relay.cause(server.connection) == "protocol_error"


@pytest.mark.parametrize("name", VIOLATIONS)
def test_the_parser_agrees(name: str) -> None:
    text, code = VIOLATIONS[name]
    parser = _fastpath.FrameParser()
    good = build_frame(PING, b"before", mask=b"mask")
    assert parser.feed(good + bytes.fromhex(text) + good) == [(PING, b"before")]
    assert parser.error == code
    assert parser.feed(good) == []


@pytest.mark.parametrize("client", [True, False])
def test_whether_a_frame_is_masked_shows_in_its_second_byte(client: bool) -> None:
    parser = _fastpath.FrameParser(client=client)
    assert parser.feed(b"\x82" + (b"\x80" if client else b"\0")) == []
    assert parser.error == 1002


def test_half_a_close_code_is_none_whatever_follows() -> None:
    """At the end of what can be read, and before a byte that would make it whole."""
    for follows in (b"", b"\xe8"):
        parser = _fastpath.FrameParser()
        assert parser.feed(build_frame(CLOSE, b"\x03", mask=bytes(4)) + follows) == []
        assert parser.error == 1002


@pytest.mark.parametrize("length", [0, 1, 126, 65536])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
def test_a_frame_cut_in_its_header_is_read_no_further(length: int, masked: bool) -> None:
    """A page that can't be read follows what the parser is given."""
    frame = build_frame(BINARY, bytes(length), mask=b"mask" if masked else None)
    for cut in range(len(frame) - length):
        parser = _fastpath.FrameParser(client=not masked)
        assert parser.feed(frame[:cut]) == []
        assert parser.error == 0
        assert parser.feed(frame[cut:]) == [(BINARY, bytes(length))]


def test_what_came_before_a_violation_is_still_forwarded() -> None:
    with EngineRelay() as relay:
        bad, good = relay.member(A), relay.member(B)
        payload = numbered(A, B, 1)
        bad.sock.sendall(bad.frame(BINARY, payload) + bytes.fromhex("f0 00") + bad.frame(BINARY, payload))
        assert len(bad.receive_all()) == 1
        assert [f.payload for f in good.sync()] == [payload]


# 125, 126 and 65535, 65536 change the form of the length; masked and unmasked headers change places at each.
LENGTHS = (
    21,
    22,
    23,
    24,
    36,
    37,
    52,
    53,
    84,
    124,
    125,
    126,
    127,
    128,
    1499,
    1500,
    1501,
    65534,
    65535,
    65536,
    65537,
    65546,
)
MASKS = (bytes(4), b"\xff" * 4, b"\x01\x00\x00\x00", b"\x00\x00\x00\x01", b"\x12\x34\x56\x78")


def sized(source: int, destination: int, length: int, number: int) -> bytes:
    """A FORWARD payload of exactly this length whose bytes differ from place to place. The relay doesn't insist on
    version, header length and total length, so neither does this."""
    head = FORWARD + struct.pack(">BBHHHBBHII", 0, 0, 0, number & 0xFFFF, 0, 0, 17, 0, source, destination)
    rest = length - len(head)
    return head + (bytes(range(251)) * (rest // 251 + 1))[:rest]


@pytest.mark.parametrize("mask", MASKS, ids=bytes.hex)
@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_arrives_unchanged(length: int, mask: bytes) -> None:
    with EngineRelay() as relay:
        one, other = relay.member(A), relay.member(B)
        payloads = [sized(A, B, length, n) for n in range(3)]
        one.sock.sendall(b"".join(build_frame(BINARY, p, mask=mask) for p in payloads))
        one.sync()
        assert [f.payload for f in other.sync()] == payloads


def test_longer_than_an_old_member_holds() -> None:
    with EngineRelay() as relay:
        one, old = relay.member(A), relay.member(B, extended=False)
        payloads = [sized(A, B, length, length) for length in (1499, 1500, 1501, 1502, 65546, 21)]
        one.forward(*payloads)
        one.sync()
        assert [f.payload for f in old.sync()] == [p for p in payloads if len(p) <= 1500]
        assert relay.dropped() == {"too_large": 3}
        assert relay.unaccounted() == 0


@pytest.mark.parametrize(
    ("protocol", "fragment", "first", "due"),
    [
        (17, 0x4000, 0, True),
        (6, 0x6000, 0, True),
        (17, 0, 0, False),
        (17, 0x2000, 0, False),
        (17, 0x4001, 0, False),
        (1, 0x4000, 8, True),
        (1, 0x4000, 18, True),
        (1, 0x4000, 3, False),
        (1, 0x4000, 11, False),
        (1, 0x4000, 40, False),
    ],
    ids=[
        *("DF", "first fragment", "no DF", "fragment without DF", "later fragment"),
        *("echo", "mask reply", "unreachable", "time exceeded", "unknown ICMP"),
    ],
)
def test_a_packet_that_is_too_large_is_answered_only_where_it_is_due(
    protocol: int, fragment: int, first: int, due: bool
) -> None:
    """Fragmentation needed (RFC 1191) is for packets with DF, and for nothing that RFC 1122 leaves unanswered."""
    long = ip_header(1500, protocol, A, B, fragment=fragment) + bytes([first, *bytes(1499)])
    with EngineRelay() as relay:
        one, old = relay.member(A), relay.member(B, extended=False)
        one.forward(FORWARD + long)
        answers = [f.payload for f in one.sync() if f.opcode == BINARY]
        assert old.sync() == []
        assert relay.dropped() == {"too_large": 1}
        if not due:
            assert answers == []
            return
        body = struct.pack(">BBHHH", 3, 4, 0, 0, 1499) + long[:28]
        body = body[:2] + struct.pack(">H", dpkt.in_cksum(body)) + body[4:]
        assert answers == [FORWARD + ip_header(36, 1, B, A, fragment=0) + body]


Conversation = tuple[bytes, list[bytes], list[tuple[int, bytes]], list[bytes]]


def test_a_destination_that_got_nothing_but_what_is_too_large_for_it() -> None:
    """It is known to the batch and has no piece of it; frames for others come in between."""
    with EngineRelay() as relay:
        one, old, other = relay.member(A), relay.member(B, extended=False), relay.member(C)
        steps = [(B, 1501), (C, 30), (B, 30), (C, 30), (B, 1501), (B, 31), (C, 1501), (B, 32)]
        payloads = [sized(A, to, length, n) for n, (to, length) in enumerate(steps)]
        one.forward(*payloads)
        one.sync()
        for peer, longest in ((old, 1500), (other, MAX_PAYLOAD)):
            wanted = [p for p, (to, n) in zip(payloads, steps, strict=True) if to == peer.address and n <= longest]
            assert [f.payload for f in peer.sync()] == wanted


def conversation() -> Conversation:
    """A stream with everything legal in it: bytes, packets from A to B, control frames that come back, messages."""
    masks = itertools.cycle(MASKS)

    def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
        return build_frame(opcode, payload, mask=next(masks), final=final)

    packets = [sized(A, B, length, length) for length in (21, 125, 126, 127, 700, 65536, 33)]
    data = frame(PING, b"") + frame(BINARY, b"\x07first")
    for payload in packets[:4]:
        data += frame(BINARY, payload)
    data += frame(BINARY, packets[4][:1], final=False)
    data += frame(PING, b"between fragments")
    data += frame(CONTINUATION, b"", final=False)
    data += frame(CONTINUATION, packets[4][1:40], final=False)
    data += frame(PONG, b"")
    data += frame(CONTINUATION, packets[4][40:])
    data += frame(BINARY, packets[5]) + frame(BINARY, packets[6])
    data += frame(BINARY, b"\x08", final=False) + frame(CONTINUATION, b"last")
    data += frame(PING, b"end" * 40)
    pongs = [(PONG, b""), (PONG, b"between fragments"), (PONG, b"end" * 40)]
    return data, packets, pongs, [b"\x07first", b"\x08last"]


def check_conversation(relay: EngineRelay, one: Peer, other: Peer, expected: Conversation) -> None:
    _, packets, pongs, messages = expected
    assert [(f.opcode, f.payload) for f in one.sync()] == pongs
    assert [f.payload for f in other.sync()] == packets
    assert relay.details(one.connection, _fastpath.EVENT_MESSAGE, len(messages)) == messages
    assert relay.dropped() == {}
    assert relay.unaccounted() == 0


@pytest.mark.parametrize("interrupted", [False, True], ids=["alone", "interrupted"])
@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 13, 64, 1000, 100_000])
def test_a_stream_in_pieces(step: int, extended: bool, interrupted: bool) -> None:
    """Interrupted: between two pieces the receive buffer is needed for somebody else's."""
    with EngineRelay() as relay:
        one, other = relay.member(A, extended=extended), relay.member(B)
        third = relay.member(C)
        expected = conversation()
        data = expected[0]
        # The long frame is cut finely at both ends only.
        fine = set(range(0, 1500)) | set(range(len(data) - 600, len(data)))
        cuts = [at for at in range(0, len(data), step) if at in fine or at % 4096 < step]
        for start, end in itertools.pairwise([*cuts, len(data)]):
            one.sock.sendall(data[start:end])
            one.wait_until_read()
            if interrupted:
                third.sock.sendall(third.frame(PONG))
                third.wait_until_read()
        check_conversation(relay, one, other, expected)


def test_two_streams_cut_at_every_length() -> None:
    """What one leaves incomplete must survive the other's reads, however long it is."""
    lengths = (40, 1400, 4000, 4100, 17_000, 65_000)
    with EngineRelay() as relay:
        one, other, third = relay.member(A), relay.member(B), relay.member(C)
        data = {
            peer: b"".join(peer.frame(BINARY, numbered(peer.address, B, n, n)) for n in lengths)
            for peer in (one, third)
        }
        for start in range(0, len(data[one]), 3_333):
            for peer in (one, third):
                peer.sock.sendall(data[peer][start : start + 3_333])
                peer.wait_until_read()
        found = [f.payload for f in other.sync()]
        for peer in (one, third):
            source = peer.address.to_bytes(4, "big")
            assert [p for p in found if p[13:17] == source] == [numbered(peer.address, B, n, n) for n in lengths]
        assert relay.dropped() == {}


def test_an_incomplete_frame_ends_with_its_connection() -> None:
    """The number of a connection that broke off within a frame goes to another, who begins with a frame of its own."""
    with EngineRelay(max_connections=2) as relay:
        other = relay.member(B)
        for n in range(20):
            one = relay.member(A)
            one.sock.sendall(one.frame(BINARY, numbered(A, B, n)) + one.frame(BINARY, numbered(A, B, 99))[:50])
            one.wait_until_read()
            one.close()
            assert relay.cause(one.connection) == "eof"
        assert [number_of(f.payload)[1] for f in other.sync()] == list(range(20))


@pytest.mark.plain
def test_bytes_behind_the_upgrade() -> None:
    """`tail` may hold whole frames, a part of one, or nothing but a header's first byte."""
    data = conversation()[0]
    for cut in (1, 2, 3, 6, 7, 40, 300, 900, 1300, 20_000, len(data) - 1, len(data)):
        with EngineRelay() as relay:
            other = relay.member(B)
            # Before bind() nothing may be forwarded, so the packets in the tail can't be for anybody yet.
            one = relay.adopt(tail=data[:cut])
            one.sock.sendall(data[cut:])
            early = one.sync()
            assert [f.payload for f in early if f.opcode == PONG] == [p for _, p in conversation()[2]]
            assert other.sync() == []
            assert relay.dropped() == {"not_authenticated": 7}
            assert relay.details(one.connection, _fastpath.EVENT_MESSAGE, 2) == [b"\x07first", b"\x08last"]


def test_the_longest_tail() -> None:
    """Whatever adopt() accepts it has to survive, and the connection too."""
    frame = build_frame(PONG, bytes(100), mask=bytes(4))
    longest = 1 << 19
    tail = (frame * (longest // len(frame) + 1))[:longest]
    for tcp in (False, True):
        with EngineRelay() as relay:
            for length in (longest, longest - 1, 300_000):
                try:
                    peer = relay.adopt(tail=tail[:length], tcp=tcp)
                except ValueError:
                    continue
                rest = -length % len(frame)
                peer.sock.sendall(frame[len(frame) - rest :] if rest else b"")
                assert peer.sync() == []


def test_a_longer_tail_is_refused_and_the_descriptor_stays() -> None:
    ours, theirs = tcp_pair()
    with EngineRelay() as relay, ours, theirs:
        with pytest.raises(ValueError, match="tail"):
            relay.engine.adopt(theirs.fileno(), tail=bytes(600_000))
        ours.sendall(b"x")
        theirs.setblocking(True)
        assert theirs.recv(1) == b"x"


@pytest.mark.plain
def test_preamble_comes_first() -> None:
    with EngineRelay() as relay:
        ping = build_frame(PING, b"early", mask=b"mask")
        peer = relay.adopt(preamble=b"HTTP/1.1 101 \r\n\r\n", tail=ping)
        assert peer.sock.recv(17, socket.MSG_WAITALL) == b"HTTP/1.1 101 \r\n\r\n"
        assert peer.receive() == Frame(PONG, b"early", True, None, 7)


@pytest.mark.parametrize("length", [0, 1, 3, 4, 15, 16, 31, 32, 33, 124, 125])
def test_pong_has_the_same_bytes_before_and_after_bind(length: int) -> None:
    with EngineRelay() as relay:
        peer = relay.adopt()
        payload = bytes(range(100, 100 + length))
        for address in (A, B):
            peer.send(PING, payload)
            assert peer.receive() == Frame(PONG, payload, True, None, 2 + length)
            assert relay.engine.bind(peer.connection, address)


def test_runs_and_alternations_leave_as_the_model_says() -> None:
    """Runs to one destination are moved together in place, alternating ones gathered, with strangers in between."""
    steps: list[tuple[int, int]] = []
    for length in (21, 30, 100, 126, 1400):
        steps += [(B, length)] * 5 + [(C, length), (B, length), (D, length), (C, length)] * 3
        steps += [(0x0A000063, length), (B, length), (NETWORK_BROADCAST, length), (B, length), (0xFFFFFFFF, length)]
        steps += [(C, length), (C, length), (0xE0000001, length), (C, length), (A, length)]
    with EngineRelay() as relay:
        one, *others = [relay.member(address) for address in (A, B, C, D)]
        payloads = [sized(A, to, length, n) for n, (to, length) in enumerate(steps)]
        one.forward(*payloads)
        groups = (NETWORK_BROADCAST, 0xFFFFFFFF, 0xE0000001)
        mine = [f.payload for f in one.sync()]
        assert mine == [p for p, (to, _) in zip(payloads, steps, strict=True) if to == A]
        for peer in others:
            wanted = [p for p, (to, _) in zip(payloads, steps, strict=True) if to == peer.address or to in groups]
            assert [f.payload for f in peer.sync()] == wanted
        assert relay.dropped() == {"no_route": 5}


def test_more_destinations_and_runs_than_a_batch_gathers() -> None:
    """Past 1,024 destinations or 8,192 runs the batch is sent in parts; nothing changes place."""
    with EngineRelay() as relay:
        one = relay.member(A)
        addresses = [0x0A010000 + n for n in range(1100)]
        others = [relay.member(address) for address in addresses]
        rounds = [numbered(A, address, n) for n in range(9) for address in addresses]
        for start in range(0, len(rounds), 4000):
            one.forward(*rounds[start : start + 4000])
        one.sync()
        for peer in others:
            assert [f.payload for f in peer.sync()] == [numbered(A, peer.address, n) for n in range(9)]


@pytest.mark.parametrize("tcp", [False, True], ids=["socketpair", "tcp"])
@pytest.mark.parametrize("extended", [True, False], ids=["stream", "segments"])
def test_both_kinds_of_carrier(extended: bool, tcp: bool) -> None:
    with EngineRelay() as relay:
        one = relay.member(A, extended=extended, tcp=tcp)
        other = relay.member(B, extended=extended, tcp=tcp)
        payloads = [numbered(A, B, n, 40 + n % 1400) for n in range(300)]
        one.forward(*payloads)
        one.sync()
        assert [f.payload for f in other.sync()] == payloads
        assert relay.engine.stats()["packets_out"] == 300


def test_text_messages_are_dropped_whole_or_in_fragments() -> None:
    with EngineRelay() as relay:
        peer = relay.member(A)
        peer.send(TEXT, b"hello")
        peer.send(TEXT, FORWARD + packet(A, A), final=False)
        peer.send(CONTINUATION, b"")
        assert peer.sync() == []
        assert relay.dropped() == {"text": 2}


@pytest.mark.parametrize("code", LEGAL_CODES)
def test_close_is_answered_with_its_code(code: int) -> None:
    with EngineRelay() as relay:
        peer = relay.member(A)
        peer.send(CLOSE, struct.pack(">H", code) + b"why")
        assert [(f.opcode, f.payload) for f in peer.receive_all()] == [(CLOSE, struct.pack(">H", code))]
        assert relay.cause(peer.connection) == "peer"


def test_the_model_reads_what_it_builds() -> None:
    data, packets, pongs, messages = conversation()
    found, error = read_messages(data, masked=True)
    assert error == 0
    assert [p for _, p in found if p[:1] == FORWARD and len(p) > 20] == packets
    assert [p for opcode, p in found if opcode == PING] == [p for _, p in pongs]
    assert [p for opcode, p in found if opcode == BINARY and p[:1] != FORWARD] == messages
