"""The engine's frame parser, and a whole engine, against the slow model for any bytes in any pieces."""

import itertools
import struct
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kit.peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FORWARD,
    MAX_PAYLOAD,
    PING,
    PONG,
    TEXT,
    EngineRelay,
    build_frame,
    read_messages,
)

from candy import _fastpath

pytestmark = pytest.mark.engine

A, B, C, D, NOBODY, GROUP = 0x0A000001, 0x0A000002, 0x0A000003, 0x0A000004, 0x0A000063, 0xE0000001
masks = st.sampled_from((bytes(4), b"\xff" * 4, b"\x80\0\0\0", b"\0\0\0\1")) | st.binary(min_size=4, max_size=4)
lengths = st.integers(0, 140) | st.sampled_from(
    (125, 126, 127, 1499, 1500, 1501, 65535, 65536, MAX_PAYLOAD, MAX_PAYLOAD + 1)
)


@st.composite
def frames(draw: st.DrawFn, *, masked: bool) -> bytes:
    """A frame that is mostly right; sometimes nothing but bytes."""
    if draw(st.integers(0, 30)) == 0:
        return draw(st.binary(max_size=20))
    opcode = draw(st.sampled_from((CONTINUATION, TEXT, BINARY, BINARY, PING, PONG, CLOSE)) | st.integers(0, 15))
    length = draw(st.integers(0, 130) if opcode >= CLOSE else lengths)
    payload = draw(st.binary(max_size=16))
    payload = (payload * (length // max(1, len(payload)) + 1))[:length] if payload else bytes(length)
    if opcode == CLOSE and draw(st.booleans()):
        payload = struct.pack(">H", draw(st.integers(990, 5010))) + payload[:100]
    mask = draw(masks) if masked != (draw(st.integers(0, 40)) == 0) else None
    final = draw(st.integers(0, 4)) > 0
    reserved = draw(st.integers(1, 7)) if draw(st.integers(0, 40)) == 0 else 0
    return build_frame(opcode, payload, mask=mask, final=final, reserved=reserved)


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in itertools.pairwise([0, *cuts, len(data)])]


def parse(chunks: list[bytes], *, masked: bool) -> tuple[list[tuple[int, bytes]], int]:
    parser = _fastpath.FrameParser(client=not masked)
    found = [frame for chunk in chunks for frame in parser.feed(chunk)]
    return found, parser.error


@given(st.data(), st.booleans())
def test_the_parser_reads_what_the_model_reads_however_it_is_cut(data: st.DataObject, masked: bool) -> None:
    stream = b"".join(data.draw(st.lists(frames(masked=masked), max_size=8)))
    wanted = read_messages(stream, masked=masked)
    assert parse([stream], masked=masked) == wanted
    assert parse(data.draw(pieces(stream)), masked=masked) == wanted
    if len(stream) < 5000:
        assert parse([stream[at : at + 1] for at in range(len(stream))], masked=masked) == wanted


@given(st.binary(max_size=300), st.booleans())
@example(b"\x88\x80\0\0\0\0", True)
def test_any_bytes_at_all(stream: bytes, masked: bool) -> None:
    wanted = read_messages(stream, masked=masked)
    assert parse([stream], masked=masked) == wanted
    assert parse([stream[at : at + 1] for at in range(len(stream))], masked=masked) == wanted
    assert wanted[1] in (0, 1002, 1009)


@given(
    st.lists(st.tuples(st.sampled_from((TEXT, BINARY)), lengths.filter(lambda n: n <= MAX_PAYLOAD)), max_size=4), masks
)
def test_what_is_built_is_read(messages: list[tuple[int, int]], mask: bytes) -> None:
    whole = [(opcode, bytes(n % 251 for n in range(length))) for opcode, length in messages]
    for masked in (True, False):
        stream = b"".join(build_frame(*message, mask=mask if masked else None) for message in whole)
        assert parse([stream], masked=masked) == (whole, 0)


steps = st.lists(
    st.tuples(
        st.sampled_from((B, B, C, D, D, A, NOBODY, GROUP, None)),
        st.integers(21, 200) | st.sampled_from((1499, 1500, 1501, 4000)),
        masks,
        st.integers(1, 6),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def relay_of_four() -> Iterator[EngineRelay]:
    with EngineRelay() as relay:
        for address in (A, B, C, D):
            relay.member(address, extended=address != D)
        yield relay


@given(data=st.data(), script=steps)
def test_the_relay_sends_what_the_model_says(
    relay_of_four: EngineRelay, data: st.DataObject, script: list[tuple[int | None, int, bytes, int]]
) -> None:
    """Runs, alternations, broadcasts, strangers and pings in between, cut anywhere. D is without the extension."""
    one, *others = relay_of_four.peers
    stream = b""
    pongs = []
    wanted: dict[int, list[bytes]] = {A: [], B: [], C: [], D: []}
    for n, (to, length, mask, times) in enumerate(script):
        if to is None:
            stream += build_frame(PING, bytes([n]), mask=mask)
            pongs.append(bytes([n]))
            continue
        for turn in range(times):
            head = FORWARD + struct.pack(">BBHHHBBHII", 0, 0, 0, n, turn, 0, 17, 0, A, to)
            payload = head + bytes((n + at) % 256 for at in range(length - 21))
            stream += build_frame(BINARY, payload, mask=mask)
            for address in (B, C, D) if to == GROUP else (to,):
                if address in wanted and (address != D or length <= 1500):
                    wanted[address].append(payload)
    for piece in data.draw(pieces(stream)):
        one.sock.sendall(piece)
        one.wait_until_read()
    mine = one.sync()
    assert [f.payload for f in mine if f.opcode == PONG] == pongs
    assert [f.payload for f in mine if f.opcode == BINARY] == wanted[A]
    for peer in others:
        assert [f.payload for f in peer.sync()] == wanted[peer.address]
