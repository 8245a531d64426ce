"""Outer headers: which are ours to take off, what comes out, and what may be in them, at the relay and at a device."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from kit.peer import BINARY, CONTINUATION, FORWARD, SUPER, EngineRelay, Peer
from kit.superpacket import (
    ANY,
    IPIP,
    NO_VNET,
    TCP,
    A,
    B,
    C,
    D,
    ip_header,
    pattern,
    segments,
    tcp,
    udp,
)

from candy._fastpath import write_device

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

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


# What may be within: every end judges alike.

E = 0x0A000005
NEAR, FAR, ELSEWHERE, PUBLIC = 0xC0A80105, 0xC0A80205, 0xC0A80305, 0x08080808
ALONE, LAN = 0xFFFFFFFF, 0xFFFFFF00
RULES = [
    (0xC0A80200, LAN, B, A, ALONE),
    (0xC0A80400, LAN, B, C, ALONE),
    (0xC0A80100, LAN, A, B, ALONE),
    # Everything lies behind D, for A and B.
    (0, 0, D, 0x0A000000, 0xFFFFFFFC),
]
"""The LAN of NEAR behind A, that of FAR behind B for A alone."""


@dataclass(frozen=True)
class Case:
    """Who wraps for whom, the addresses within, and the name under which it is dropped, "" for not at all."""

    sender: int
    receiver: int
    source: int
    destination: int
    drop: str = ""


SOURCE, DESTINATION = "inner_source", "inner_destination"
WITHIN = {
    "both ends": Case(A, B, A, B),
    "from a LAN": Case(A, B, NEAR, B),
    "to a LAN": Case(A, B, A, FAR),
    "from LAN to LAN": Case(A, B, NEAR, FAR),
    "back": Case(B, A, FAR, NEAR),
    "from who has no LAN": Case(C, B, C, B),
    "by another rule about the same member": Case(C, B, C, 0xC0A804FF),
    "to anywhere": Case(A, D, NEAR, PUBLIC),
    "from another": Case(A, B, C, B, SOURCE),
    "from the receiver": Case(A, B, B, B, SOURCE),
    "from the receiver's LAN": Case(A, B, FAR, B, SOURCE),
    "from a public address": Case(A, B, PUBLIC, B, SOURCE),
    "from nobody": Case(A, B, 0, B, SOURCE),
    "from another's LAN": Case(C, B, NEAR, FAR, SOURCE),
    "from beside its LAN": Case(A, B, 0xC0A80005, B, SOURCE),
    "to another": Case(A, B, A, C, DESTINATION),
    "to the sender": Case(A, B, A, A, DESTINATION),
    "to the sender's LAN": Case(A, B, A, NEAR, DESTINATION),
    "to nobody's LAN": Case(A, B, A, ELSEWHERE, DESTINATION),
    "to a LAN behind another": Case(A, C, A, FAR, DESTINATION),
    "to a LAN that is another's to reach": Case(C, B, C, FAR, DESTINATION),
    "to another LAN that is another's to reach": Case(A, B, A, 0xC0A80405, DESTINATION),
    "to a public address": Case(A, B, A, PUBLIC, DESTINATION),
    "to everywhere, by whom no rule names": Case(E, D, E, PUBLIC, DESTINATION),
    "to a group": Case(A, D, A, 0xE0000001, DESTINATION),
    "to everybody": Case(A, D, A, 0xFFFFFFFF, DESTINATION),
    "both forged": Case(A, B, C, C, SOURCE),
}


def old(length: int, source: int, destination: int) -> bytes:
    """An old client's outer header."""
    return bytes(9) + bytes([IPIP]) + bytes(2) + ip_header(length, IPIP, source, destination)[12:20]


def ours(length: int, source: int, destination: int) -> bytes:
    return ip_header(length, IPIP, source, destination)


def users(length: int, source: int, destination: int) -> bytes:
    """As a kernel's own tunnel writes it."""
    return ip_header(length, IPIP, source, destination, number=7)


def forwarded(outer: Callable[[int, int, int], bytes], case: Case) -> bytes:
    inner = udp(pattern(50), source=case.source, to=case.destination)
    return FORWARD + outer(len(inner), case.sender, case.receiver) + inner


def super_packet(case: Case) -> bytes:
    inner = tcp(pattern(3000), source=case.source, to=case.destination)
    return SUPER + bytes(ANY) + ours(len(inner), case.sender, case.receiver) + inner


def in_fragments(peer: Peer, payload: bytes) -> None:
    peer.send(BINARY, payload[:30], final=False)
    peer.send(CONTINUATION, payload[30:])


def payloads(peer: Peer) -> list[bytes]:
    return [frame.payload for frame in peer.sync() if frame.opcode == BINARY]


@pytest.mark.parametrize("name", WITHIN)
def test_what_passes_the_relay(name: str) -> None:
    case = WITHIN[name]
    plain = [forwarded(ours, case), forwarded(old, case)]
    whole = super_packet(case)
    with EngineRelay() as relay:
        relay.engine.set_rules(0, RULES)
        sender, receiver = relay.member(case.sender), relay.member(case.receiver)
        sender.forward(*plain, whole)
        in_fragments(sender, plain[0])
        sender.sync()
        assert payloads(receiver) == ([] if case.drop else [*plain, whole, plain[0]])
        assert relay.dropped() == ({case.drop: 4} if case.drop else {})


@pytest.mark.parametrize("name", WITHIN)
def test_what_passes_to_an_old_member(name: str) -> None:
    """It "strips 20 bytes from any packet whose protocol is 4", so the user's own is looked at like all else."""
    case = WITHIN[name]
    plain = [forwarded(outer, case) for outer in (ours, old, users)]
    whole = super_packet(case)
    with EngineRelay() as relay:
        relay.engine.set_rules(0, RULES)
        sender, receiver = relay.member(case.sender), relay.member(case.receiver, extended=False)
        sender.forward(*plain, whole)
        sender.sync()
        parts = [FORWARD + one for one in segments(bytes(ANY), whole[11:]) or []]
        assert payloads(receiver) == ([] if case.drop else [*plain, *parts])
        assert relay.dropped() == ({case.drop: 4} if case.drop else {})


@pytest.mark.parametrize("vnet", [True, False])
@pytest.mark.parametrize("name", WITHIN)
def test_what_comes_out_at_a_device(name: str, vnet: bool) -> None:
    """Of a member that was told; one that was not leaves it to the relay."""
    case = WITHIN[name]
    plain = [forwarded(ours, case), forwarded(old, case)]
    whole = super_packet(case)
    dropped = {case.drop: 3} if case.drop else {}
    written, drops = write_device([*plain, whole], vnet=vnet, own=case.receiver, rules=RULES)
    untold = write_device([*plain, whole], vnet=vnet, own=case.receiver)
    assert (written, drops) == (([], dropped) if case.drop else untold)
    assert untold[1] == {}
    assert len(untold[0]) == (3 if vnet else 5)
    if not case.drop:
        # What is for another device, or the user's own, is not looked at.
        for payload, own in ((plain[0], E), (forwarded(users, case), case.receiver)):
            told = write_device([payload], vnet=vnet, own=own, rules=RULES)
            assert told == write_device([payload], vnet=vnet, own=own)


@pytest.mark.parametrize("name", WITHIN)
def test_what_comes_out_at_the_relays_own_device(name: str) -> None:
    case = WITHIN[name]
    with EngineRelay() as relay, relay.device(vnet=True) as (kernel, tun):
        relay.engine.set_rules(0, RULES)
        sender = relay.member(case.sender)
        assert relay.engine.bind(tun, case.receiver)
        assert relay.engine.set_routes(tun, case.receiver, [])
        last = tcp(b"last", source=case.sender, to=case.receiver)
        sender.forward(forwarded(ours, case), forwarded(old, case), super_packet(case), FORWARD + last)
        writes = [kernel.recv(66_000)]
        while writes[-1] != NO_VNET + last:
            writes.append(kernel.recv(66_000))
        assert len(writes) == (1 if case.drop else 4)
        assert relay.dropped() == ({case.drop: 3} if case.drop else {})


def test_the_users_own_passes_between_members_of_ours() -> None:
    """Nobody takes its outer header off but whom the user told to."""
    payload = forwarded(users, Case(A, B, ELSEWHERE, PUBLIC))
    fragment = ip_header(40, IPIP, A, B, fragment=0x2000) + bytes(40)
    with EngineRelay() as relay:
        sender, receiver = relay.member(A), relay.member(B)
        sender.forward(payload, FORWARD + fragment)
        sender.sync()
        assert payloads(receiver) == [payload, FORWARD + fragment]
        assert relay.dropped() == {}


def test_who_wraps_does_so_in_its_own_name() -> None:
    """Else a LAN that lies within a rule's devices could go where its gateway may not."""
    rules = [(0xC0A80100, LAN, C, B, ALONE), (FAR, ALONE, B, 0xC0A80000, 0xFFFF0000)]
    with EngineRelay() as relay:
        relay.engine.set_rules(0, rules)
        sender, receiver = relay.member(C), relay.member(B)
        sender.forward(*(forwarded(outer, Case(NEAR, B, NEAR, FAR)) for outer in (ours, old)))
        sender.sync()
        assert payloads(receiver) == []
        assert relay.dropped() == {SOURCE: 2}


def test_a_longer_outer_header_is_no_way_round() -> None:
    """An old member takes off 20 bytes of it too, and what it then takes for addresses are others' checksums."""
    inner = tcp(pattern(3000), source=C, to=C)
    outer = ip_header(len(inner), IPIP, A, B, options=bytes.fromhex("45000014"))
    inner = inner[:8] + A.to_bytes(4, "big") + B.to_bytes(4, "big") + inner[16:]
    with EngineRelay() as relay:
        sender, receiver = relay.member(A), relay.member(B, extended=False)
        sender.forward(SUPER + bytes(ANY) + outer + inner, FORWARD + (outer + inner)[:1400])
        sender.sync()
        assert payloads(receiver) == []
        assert relay.dropped() == {SOURCE: 2}


def test_nothing_is_wrapped_for_a_group() -> None:
    """Old members unwrap it whatever its destination is."""
    groups = (0xFFFFFFFF, 0x0A0000FF, 0xE0000001)
    with EngineRelay() as relay:
        sender, old_one, extended = relay.member(A), relay.member(B, extended=False), relay.member(C)
        for group in groups:
            sender.forward(*(forwarded(outer, Case(A, group, A, group)) for outer in (ours, old, users)))
            sender.forward(super_packet(Case(A, group, A, B)))
        sender.forward(forwarded(ours, Case(A, E, A, E)))
        sender.sync()
        assert payloads(old_one) == payloads(extended) == []
        assert relay.dropped() == {DESTINATION: 4 * len(groups), "no_route": 1}


def test_half_an_inner_header() -> None:
    packet = ip_header(19, IPIP, A, B) + bytes(19)
    with EngineRelay() as relay:
        sender, receiver = relay.member(A), relay.member(B)
        sender.forward(FORWARD + packet, SUPER + bytes(ANY) + packet)
        sender.sync()
        assert payloads(receiver) == []
        assert relay.dropped() == {"too_short": 1, "bad_super": 1}


def test_without_a_source_check() -> None:
    case = Case(A, B, PUBLIC, ELSEWHERE)
    sent = [forwarded(ours, case), forwarded(old, case), super_packet(case)]
    to_all = forwarded(old, Case(A, 0xFFFFFFFF, A, B))
    with EngineRelay() as relay:
        number = relay.engine.add_network(check_source=False)
        relay.engine.set_rules(number, RULES)
        sender, receiver = relay.member(A, network=number), relay.member(B, network=number)
        sender.forward(*sent, to_all)
        sender.sync()
        assert payloads(receiver) == [*sent, to_all]
        assert relay.dropped() == {}
