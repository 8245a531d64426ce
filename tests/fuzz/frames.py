"""Never crashes or hangs, reads what the slow model reads, closes with the code deserved, disturbs nobody else.

The invariant for the frame parser and for a whole engine on a socketpair, in Python: what the fuzzer of _targets.pyx
found is replayed against it. Also a target for atheris, which is no dependency of candy's: `pip install atheris`, then,
with tests/ and the checkout on PYTHONPATH, `python tests/fuzz/frames.py -max_total_time=60 tests/fuzz/corpus/frames`.

An input's first byte says who speaks and in what pieces (0x80: a server speaks; 0x40: candy.3 was agreed on; the rest,
this bit included: bytes a piece, 0 all at once); the others are the stream. The sender is 10.0.0.1, another member
10.0.0.2.
"""

import struct
import sys

from kit.peer import (
    BINARY,
    CLOSE,
    FORWARD,
    MAX_CANDY3_PAYLOAD,
    MAX_PAYLOAD,
    PING,
    PONG,
    EngineRelay,
    numbered,
    read_messages,
)

from candy import _fastpath

A, B = 0x0A000001, 0x0A000002


def longest(data: bytes) -> int:
    """Bytes that a payload may have."""
    return MAX_CANDY3_PAYLOAD if data[:1] and data[0] & 64 else MAX_PAYLOAD


def split(data: bytes) -> tuple[bool, list[bytes]]:
    """Whether the stream has to be masked, and its pieces."""
    if not data:
        return True, []
    step = (data[0] & 127) or len(data)
    return data[0] < 128, [data[at : at + step] for at in range(1, len(data), step)]


def for_b(destination: bytes) -> bool:
    """Whether it reaches B: its own address, a multicast group, or a broadcast address."""
    return destination in (b"\x0a\0\0\2", b"\x0a\0\0\xff", b"\xff\xff\xff\xff") or destination[0] >> 4 == 14


def check_parser(data: bytes) -> None:
    masked, chunks = split(data)
    parser = _fastpath.FrameParser(client=not masked, candy3=longest(data) != MAX_PAYLOAD)
    found = [frame for chunk in chunks for frame in parser.feed(chunk)]
    assert (found, parser.error) == read_messages(b"".join(chunks), masked=masked, most=longest(data))


def check_engine(data: bytes) -> None:
    masked, chunks = split(data)
    found, error = read_messages(b"".join(chunks), masked=masked)
    ends = [n for n, (opcode, _) in enumerate(found) if opcode == CLOSE]
    before = found[: ends[0]] if ends else found
    closing = found[ends[0]][1][:2] if ends else struct.pack(">H", error) if error else None
    with EngineRelay() as relay:
        other = relay.member(B)
        peer = relay.adopt(client=not masked)
        if masked:
            relay.engine.bind(peer.connection, A)
        for n, chunk in enumerate(chunks, 1):
            peer.sock.sendall(chunk)
            peer.wait_until_read()
            seen, fault = read_messages(b"".join(chunks[:n]), masked=masked)
            if fault or any(opcode == CLOSE for opcode, _ in seen):
                break  # what is sent into a closed connection is answered with a reset
        if closing is None:
            peer.sock.shutdown(1)
        answers = peer.receive_all()
        pongs = [payload for opcode, payload in before if opcode == PING]
        assert [f.payload for f in answers if f.opcode == PONG] == pongs
        assert [f.payload for f in answers if f.opcode == CLOSE] == ([] if closing is None else [closing])
        peer.close()
        relay.cause(peer.connection)
        wanted = [
            payload
            for opcode, payload in before
            if masked and opcode == BINARY and payload[:1] == FORWARD and payload[13:17] == struct.pack(">I", A)
            if len(payload) > 20 and for_b(payload[17:21])
        ]
        other.forward(numbered(B, B, 1))
        got = [f.payload for f in other.sync() if f.payload[:1] == FORWARD]
        assert got == [*wanted, numbered(B, B, 1)]


def check(data: bytes) -> None:
    check_parser(data)
    check_engine(data)


if __name__ == "__main__":
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
