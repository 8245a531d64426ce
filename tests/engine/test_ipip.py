"""Outer headers on their way to a device: which are ours to take off, and what comes out."""

import pytest
from kit.peer import FORWARD
from kit.superpacket import IPIP, NO_VNET, TCP, A, B, C, D, ip_header, pattern, tcp, udp

from candy._fastpath import write_device

pytestmark = pytest.mark.engine

INNER = udp(pattern(50), source=C, to=D)
OURS = ip_header(len(INNER), IPIP, A, B)
OLD_CLIENTS = bytes(9) + bytes([IPIP]) + bytes(2) + OURS[12:20]
"""What the original writes: nothing but protocol and addresses."""
CASES = {
    "ours": (OURS + INNER, INNER),
    "an old client's": (OLD_CLIENTS + INNER, INNER),
    "the smallest": (ip_header(20, IPIP, A, B) + ip_header(0, TCP, C, D), ip_header(0, TCP, C, D)),
    "for another device": (ip_header(len(INNER), IPIP, A, C) + INNER, None),
    "with an id": (ip_header(len(INNER), IPIP, A, B, number=1) + INNER, None),
    "without DF": (ip_header(len(INNER), IPIP, A, B, fragment=0) + INNER, None),
    "a fragment": (ip_header(len(INNER), IPIP, A, B, fragment=0x6000) + INNER, None),
    "with options": (ip_header(len(INNER), IPIP, A, B, options=bytes(4)) + INNER, None),
    "another protocol": (ip_header(len(INNER), TCP, A, B) + INNER, None),
    "half an inner header": (ip_header(19, IPIP, A, B) + INNER[:19], None),
}
"""What comes, and what was in it; None: it is the user's own and stays as it is."""


@pytest.mark.parametrize("vnet", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_only_our_own_outer_header_is_taken_off(name: str, vnet: bool) -> None:
    packet, inner = CASES[name]
    head = NO_VNET if vnet else b""
    assert write_device([FORWARD + packet], vnet=vnet, own=B) == ([head + (inner or packet)], {})
    # A device has no address before it has routes, and then there is nothing to take off.
    nobodys = ip_header(len(INNER), IPIP, A, 0) + INNER
    assert write_device([FORWARD + nobodys], vnet=vnet) == ([head + nobodys], {})


@pytest.mark.parametrize("vnet", [True, False])
@pytest.mark.parametrize("outer", [OURS, OLD_CLIENTS], ids=["ours", "an old client's"])
def test_what_was_wrapped_has_to_be_ipv4(outer: bytes, vnet: bool) -> None:
    for inner in (b"\x60" + INNER[1:], INNER[:-1], b"\x44" + INNER[1:]):
        assert write_device([FORWARD + outer + inner], vnet=vnet, own=B) == ([], {"not_ipv4": 1})


def test_what_was_wrapped_is_put_together_too() -> None:
    run = [tcp(pattern(100), 1 + 100 * n, source=C, to=D, ip_number=n) for n in range(3)]
    wrapped = [FORWARD + ip_header(len(one), IPIP, A, B) + one for one in run]
    [write], drops = write_device(wrapped, own=B)
    assert (len(write), drops) == (10 + 40 + 300, {})
