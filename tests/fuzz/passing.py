"""What passes between members with candy.3 is what was sent, whatever it is, and nothing else is disturbed.

The invariant for a whole engine and for its queue, in Python: what the fuzzer of _targets.pyx found is replayed against
it. An input is a mask and a payload, of 10.0.0.1, as it sends them to 10.0.0.2.
"""

from kit.peer import BINARY, EngineRelay, build_frame, sealed, xor_mask

from candy._fastpath import CANDY3, Backlog

A, B = 0x0A000001, 0x0A000002
ADDRESSES = bytes.fromhex("0a000001 0a000002")
GROUPS = [bytes([first]) for first in range(224, 240)]
KEY = (3, 5, 7)
SEALED_KIND, HANDSHAKE_KIND = 18, 20
PLACES = {1: (13, 21, 65_600), 16: (23, 31, 65_600), SEALED_KIND: (4, 40, 65_589), HANDSHAKE_KIND: (4, 100, 148)}
"""Of a kind that goes from member to member: where its addresses are, its least and its greatest length."""


def arrives(payload: bytes) -> bool:
    """Whether a relay takes it for a message from A to B; IPIP and what is for B's kernel are others' to look at."""
    if not payload or payload[0] not in PLACES:
        return False
    at, least, most = PLACES[payload[0]]
    if payload[0] == HANDSHAKE_KIND and (len(payload), payload[1:2]) not in ((148, b"\1"), (100, b"\2")):
        return False
    if payload[0] in (1, 16) and payload[at - 3 : at - 2] == b"\4":
        return False
    return least <= len(payload) <= most and payload[at : at + 8] == ADDRESSES


def check_passing(data: bytes) -> None:
    mask, payload = data[:4], data[4:]
    if len(mask) < 4 or len(payload) > 65_600:
        return
    if payload[:1] in (b"\1", b"\x10") and len(payload) > 31:
        # Never wrapped here: what is within has rules of its own.
        at = PLACES[payload[0]][0] - 3
        payload = payload[:at] + b"\x11" + payload[at + 1 :]
    if not for_group(payload):
        check_engine(mask, payload)
    check_queue(mask, payload)


def for_group(payload: bytes) -> bool:
    """Whether it is one's for several, and goes another way."""
    at = {1: 17, 16: 27, 19: 8}.get(payload[0]) if payload else None
    destination = payload[at : at + 4] if at is not None else b""
    return destination in (b"\x0a\0\0\xff", b"\xff\xff\xff\xff") or destination[:1] in GROUPS


def check_engine(mask: bytes, payload: bytes) -> None:
    last = sealed(A, B, bytes(20), label=9)
    with EngineRelay() as relay:
        sender, receiver = relay.member(A, extended=CANDY3), relay.member(B, extended=CANDY3)
        sender.sock.sendall(build_frame(BINARY, payload, mask=mask) + sender.frame(BINARY, last))
        sender.sync()
        found = [receiver.receive().payload]
        while found[-1] != last:
            found.append(receiver.receive().payload)
        assert found == ([payload, last] if arrives(payload) else [last])


def check_queue(mask: bytes, payload: bytes) -> None:
    if not 128 <= mask[0] <= 254 or not arrives(payload):
        return
    backlog = Backlog(key=KEY)
    backlog.append(payload, 1)
    places = backlog.places.keys()
    backlog.append(mask + xor_mask(payload, mask), 1)
    assert backlog.places.keys() == places
    assert backlog.take(2) == payload
    taken = backlog.take(2)
    assert taken is not None
    assert xor_mask(taken[4:], taken[:4]) == payload
