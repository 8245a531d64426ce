"""Masks that pass through between members with candy.3, and what the relay unmasks all the same."""

import struct

import pytest
from kit.peer import (
    BINARY,
    CONTINUATION,
    FORWARD,
    SUPER,
    EngineRelay,
    Peer,
    build_frame,
    numbered,
    packet,
    padded,
    sealed,
    xor_mask,
)
from kit.superpacket import ANY, IPIP, A, B, C, D, ip_header, pattern, segments, tcp

from candy._fastpath import CANDY3, CANDY3_PAYLOAD, MAX_PAYLOAD

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

MASK = bytes([0x80, 1, 2, 3])
WHOLE = SUPER + bytes(ANY) + tcp(pattern(60_000))
WRAPPED = FORWARD + ip_header(28 + 9, IPIP, A, B) + packet(C, D, bytes(9))
FORMS = [41, 100, 121, 126, 1300, 8187, 8188, 65_000, 65_531]
"""Lengths of payloads at which a frame's length has the same form with 4 bytes more."""
EDGES = [122, 123, 124, 125, 65_532, 65_533, 65_534, 65_535]
"""And at which it has not."""


def raw(peer: Peer, size: int) -> bytes:
    """The next bytes on the wire."""
    data = b""
    while len(data) < size:
        data += peer.sock.recv(size - len(data))
    return data


def of_length(kind: bytes, n: int) -> bytes:
    """A payload of this kind and length from A to B."""
    if kind == FORWARD:
        return FORWARD + packet(A, B, pattern(n - 29))
    if kind == SUPER:
        return SUPER + bytes(10) + packet(A, B, pattern(n - 39))
    return sealed(A, B, pattern(n - 24))


@pytest.mark.parametrize("kind", [FORWARD, SUPER, sealed(A, B)[:1]], ids=["forward", "super", "sealed"])
@pytest.mark.parametrize("n", FORMS)
def test_a_masked_frame_goes_on_byte_by_byte_but_for_its_header(kind: bytes, n: int) -> None:
    payload = of_length(kind, n)
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        for mask in (MASK, bytes([254, 0, 0, 0])):
            sender.sock.sendall(build_frame(BINARY, payload, mask=mask))
            wanted = build_frame(BINARY, mask + xor_mask(payload, mask))
            assert raw(receiver, len(wanted)) == wanted
        assert relay.dropped() == {}


@pytest.mark.parametrize("n", [65_536, 65_546, 65_589])
def test_the_longest_pass_too(n: int) -> None:
    payload = sealed(A, B, pattern(n - 24))
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        sender.forward(payload, numbered(A, B, 1))
        first, second = receiver.receive(), receiver.receive()
        assert (first.payload, first.passed) == (payload, True)
        assert (second.payload, second.passed) == (numbered(A, B, 1), True)


@pytest.mark.parametrize("kind", [FORWARD, SUPER, sealed(A, B)[:1]], ids=["forward", "super", "sealed"])
def test_what_is_longer_than_any_packet_reaches_nobody(kind: bytes) -> None:
    """With its mask it would be longer than a receiver takes, and end that one's connection."""
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        for n in (65_590, CANDY3_PAYLOAD):
            payload = of_length(kind, 1000).ljust(n, b"\0")
            sender.forward(payload)
        sender.forward(numbered(A, B, 1))
        assert receiver.receive().payload == numbered(A, B, 1)
        assert relay.dropped() == {"too_large": 2}


@pytest.mark.parametrize("n", EDGES)
def test_where_the_length_would_change_its_form_it_is_unmasked(n: int) -> None:
    payloads = [of_length(FORWARD, n), sealed(A, B, pattern(n - 24))]
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        sender.forward(*payloads, numbered(A, B, 1))
        for payload in payloads:
            frame = receiver.receive()
            assert (frame.payload, frame.passed) == (payload, False)
        frame = receiver.receive()
        assert (frame.payload, frame.passed) == (numbered(A, B, 1), True)


@pytest.mark.parametrize("mask", [bytes(4), bytes([127, 9, 9, 9]), bytes([255, 9, 9, 9])])
def test_a_mask_that_could_be_a_kind_is_taken_off(mask: bytes) -> None:
    payloads = [numbered(A, B, 0), sealed(A, B), WHOLE]
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        sender.sock.sendall(b"".join(build_frame(BINARY, payload, mask=mask) for payload in payloads))
        for payload in payloads:
            frame = receiver.receive()
            assert (frame.payload, frame.passed) == (payload, False)


def test_fragments_are_unmasked() -> None:
    payload = sealed(A, B, pattern(200))
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        sender.send(BINARY, payload[:9], final=False)
        sender.send(CONTINUATION, payload[9:])
        sender.send(BINARY, payload[:1], final=False)
        sender.send(CONTINUATION, payload[1:30])
        frame = receiver.receive()
        assert (frame.payload, frame.passed) == (payload, False)
        sender.sync()
        assert relay.dropped() == {"too_short": 1}


def test_passed_and_unmasked_frames_take_turns_in_their_order() -> None:
    """In one batch, to one receiver and to two: what moves left, what is gathered, what stays."""
    sizes = [41, 8192, 100, 1300, 123, 20_000, 122, 64, 1400, 8190]
    with EngineRelay() as relay:
        sender = relay.member(A, extended=CANDY3)
        receivers = {B: relay.member(B, extended=CANDY3), C: relay.member(C, extended=CANDY3), D: relay.member(D)}
        sent: dict[int, list[bytes]] = {B: [], C: [], D: []}
        frames = []
        for n in range(50):
            to = (B, B, C, D)[n * 7 % 11 % 4]
            payload = numbered(A, to, n, sizes[n % 10])
            sent[to].append(payload)
            unmasked = n % 5 == 0
            frames.append(build_frame(BINARY, payload, mask=bytes(4)) if unmasked else sender.frame(BINARY, payload))
        sender.sock.sendall(b"".join(frames))
        for to, receiver in receivers.items():
            assert [receiver.receive().payload for _ in sent[to]] == sent[to]


@pytest.mark.parametrize("extended", [0, 1], ids=["old", "candy.2"])
def test_to_others_padding_is_cut_and_nothing_passes(extended: int) -> None:
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=CANDY3), relay.member(B, extended=extended)
        plain = FORWARD + packet(A, B, bytes(92))
        for extra in range(6):
            sender.forward(plain + bytes(extra))
        got = [receiver.receive().payload for _ in range(6)]
        # What is longer than padding may be is the packet's sender's own affair.
        assert got == [plain] * 5 + [plain + bytes(5)]


def test_a_super_packet_to_an_old_member_is_cut_without_its_padding() -> None:
    with EngineRelay() as relay:
        sender, old, newer = relay.member(A, extended=CANDY3), relay.member(B, extended=0), relay.member(C)
        sender.forward(WHOLE + bytes(4))
        wanted = segments(bytes(ANY), WHOLE[11:])
        assert wanted is not None
        assert [old.receive().payload[1:] for _ in wanted] == wanted
        other = SUPER + bytes(ANY) + tcp(pattern(60_000), to=C)
        sender.forward(other + bytes(3))
        assert newer.receive().payload == other
        assert relay.dropped() == {}


def test_a_group_is_unmasked_and_its_padding_cut() -> None:
    everybody = 0x0A0000FF
    with EngineRelay() as relay:
        sender = relay.member(A, extended=CANDY3)
        receivers = [relay.member(B, extended=CANDY3), relay.member(C), relay.member(D, extended=0)]
        plain = FORWARD + packet(A, everybody, bytes(95))
        sender.forward(plain + bytes(2), SUPER + bytes(10) + packet(A, everybody, b"super") + bytes(4))
        for receiver in receivers:
            assert [receiver.receive().payload for _ in range(2)] == [plain, FORWARD + packet(A, everybody, b"super")]


def test_a_device_gets_packets_without_padding() -> None:
    with EngineRelay() as relay, relay.device() as (kernel, tun):
        sender = relay.member(A, extended=CANDY3)
        assert relay.engine.bind(tun, B)
        sender.forward(padded(numbered(A, B, 1, 123)))
        assert kernel.recv(65536) == numbered(A, B, 1, 123)[1:]


def test_what_is_wrapped_is_looked_at_through_its_mask() -> None:
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        sender.forward(WRAPPED)
        sender.sync()
        assert relay.dropped() == {"inner_source": 1}
        relay.engine.set_rules(0, [(C, 0xFFFFFFFF, A, 0, 0), (D, 0xFFFFFFFF, B, 0, 0)])
        sender.forward(WRAPPED)
        assert receiver.receive().payload == WRAPPED


def test_payloads_have_another_limit_with_it_alone() -> None:
    longest = FORWARD + packet(A, B, bytes(100))
    with EngineRelay() as relay:
        sender, receiver, newer = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3), relay.member(C)
        whole = longest.ljust(CANDY3_PAYLOAD, b"\0")
        sender.forward(whole, numbered(A, B, 1))
        assert receiver.receive().payload == numbered(A, B, 1)
        newer.sock.sendall(build_frame(BINARY, bytes(MAX_PAYLOAD + 1), mask=MASK)[:14])
        assert newer.receive().payload == struct.pack(">H", 1009)
        sender.sock.sendall(build_frame(BINARY, bytes(CANDY3_PAYLOAD + 1), mask=MASK)[:14])
        assert sender.receive().payload == struct.pack(">H", 1009)


def test_no_payload_that_begins_with_a_mask_is_taken_from_anybody() -> None:
    """It would be a mask beneath a mask: to Python it is a message of no kind, and to members nothing."""
    twice = MASK + xor_mask(numbered(A, B, 1), MASK)
    with EngineRelay() as relay:
        relay.member(B, extended=CANDY3)
        for extended in (1, CANDY3):
            sender = relay.member(A, extended=extended)
            sender.forward(twice)
            assert relay.details(sender.connection, 1) == [twice]
        assert relay.engine.stats()["packets_out"] == 0


def test_there_are_no_other_extensions() -> None:
    with EngineRelay() as relay:
        for client, extended in ((True, CANDY3 + 1), (False, CANDY3 + 1), (False, -1)):
            with pytest.raises(ValueError, match="extended is 0, 1 or CANDY3"):
                relay.adopt(client=client, extended=extended)


def test_masks_are_as_candy_3_demands() -> None:
    """Of the test's own members: what is measured and tested with them passes."""
    with EngineRelay() as relay:
        peer = relay.member(A, extended=CANDY3)
        masks = {peer.frame(BINARY, padded(numbered(A, B, n)))[2] for n in range(500)}
        assert min(masks) >= 128
        assert max(masks) <= 254
        assert len(masks) > 100
        assert {len(padded(bytes(n))) for n in (*EDGES, 121, 126)} == {121, 126, 65_536}
