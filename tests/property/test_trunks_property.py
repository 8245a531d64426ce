"""What another relay sends, in any order and any pieces, against a slow model: who gets what, and what ends it."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.peer import BINARY, CLOSE, FORWARD, PING, SUPER, EngineRelay, build_frame, numbered, packet, sealed, xor_mask
from kit.trunks import CONTROL, network, trunk

from candy._fastpath import CANDY3, EVENT_MESSAGE

pytestmark = pytest.mark.engine

A, B, C, NOBODY = 0x0A000001, 0x0A000002, 0x0A000003, 0x0A000063
NETWORKS = [1, 0]
"""Of the relay, by their numbers on the link."""
masks = st.binary(min_size=4, max_size=4).map(lambda mask: bytes([128 + mask[0] % 127]) + mask[1:])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message that a relay sends, or one that none should."""
    source, destination = draw(st.sampled_from((A, A, A, B, NOBODY))), draw(st.sampled_from((B, B, B, A, NOBODY)))
    size = draw(st.integers(0, 300) | st.sampled_from((1400, 9000, 65_000)))
    made = draw(
        st.sampled_from(
            (
                numbered(source, destination, draw(st.integers(0, 999)), 40 + size),
                SUPER + bytes(10) + packet(source, destination, bytes(size)),
                sealed(source, destination, bytes(16 + min(size, 60_000))),
                b"\xff" + struct.pack(">3xII", source, destination) + bytes(min(size, 1400)),
                network(draw(st.sampled_from((0, 1, 0, 1, 0, 1, 2)))),
                network(0)[: draw(st.sampled_from((1, 2, 3)))],
                draw(st.binary(max_size=30)),
            )
        )
    )
    if made[:1] in (FORWARD, SUPER, b"\x12") and draw(st.booleans()):
        mask = draw(masks)
        return mask + xor_mask(made, mask)
    return made


frames = st.one_of(
    messages().map(lambda message: build_frame(BINARY, message)),
    messages().map(lambda message: build_frame(BINARY, network(0)) + build_frame(BINARY, message)),
    st.binary(max_size=100).map(lambda body: build_frame(PING, body)),
    st.sampled_from((build_frame(1, b"text"), build_frame(BINARY, CONTROL + b"?"))),
)


class Model:
    """What becomes of the messages of one stream."""

    def __init__(self) -> None:
        self.network: int | None = None
        self.got: tuple[list[bytes], list[bytes]] = ([], [])
        self.told: list[bytes] = []
        self.is_over = False

    def take(self, message: bytes) -> None:
        kind = message[0] if message else 0
        if kind == CONTROL[0]:
            self.told.append(message)
        elif kind == 24:
            number = int.from_bytes(message[1:], "big")
            self.is_over = len(message) != 3 or number >= len(NETWORKS)
            self.network = None if self.is_over else NETWORKS[number]
        elif self.network is None:
            self.is_over = True
        elif 128 <= kind <= 254:
            self._packet(xor_mask(message[4:], message[:4]) if len(message) > 4 else b"")
        elif kind == 255 and len(message) >= 12:
            # Subtype 0 says where its sender is, which stays at a relay.
            if message[1]:
                self._to(message, 4, len(message) <= 1500)
        else:
            self._packet(message)

    def _packet(self, message: bytes) -> None:
        least, at = {1: (21, 13), 16: (31, 23), 18: (40, 4)}.get(message[0] if message else 0, (0, 0))
        self._to(message, at, bool(least) and len(message) >= least)

    def _to(self, message: bytes, at: int, is_whole: bool) -> None:
        assert self.network is not None
        if is_whole and struct.unpack_from(">II", message, at) == (A, B):
            self.got[self.network].append(message)


@given(stream=st.lists(frames, max_size=12), cuts=st.lists(st.integers(0, 100_000), max_size=4))
def test_any_stream_of_another_relays(stream: list[bytes], cuts: list[int]) -> None:
    data = b"".join(stream)
    ends = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    model = Model()
    with EngineRelay() as relay:
        relay.engine.add_network()
        members = [relay.member(B, network=number, extended=CANDY3) for number in range(2)]
        end = trunk(relay, 1, NETWORKS)
        for number in range(2):
            relay.engine.lead(number, A, 1)
        at = 0
        while at < len(data) and not model.is_over:
            opcode, size = data[at] & 15, data[at + 1] & 127
            header = 2 if size < 126 else 4
            size = size if size < 126 else int.from_bytes(data[at + 2 : at + 4], "big")
            if opcode == BINARY:
                model.take(data[at + header : at + header + size])
            at += header + size
        for start, stop in itertools.pairwise(ends):
            end.sock.sendall(data[start:stop])
        if model.is_over:
            while (frame := end.receive()).opcode != CLOSE:
                pass
            assert frame.payload == struct.pack(">H", 1002)
        else:
            end.sync()
        for member, expected in zip(members, model.got, strict=True):
            assert [frame.payload.rstrip(b"\0") for frame in member.sync() if frame.opcode == BINARY] == [
                message.rstrip(b"\0") for message in expected
            ]
        relay.events += relay.engine.events()
        assert [detail for number, kind, detail in relay.events if kind == EVENT_MESSAGE] == model.told
