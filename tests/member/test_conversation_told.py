"""What a relay tells a client that has logged in, in memory: routes, what members say of themselves, and nonsense."""

from ipaddress import IPv4Address, IPv4Interface
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.joining import CONNECTION, FAR, LAN_A, LAN_B, OTHER, OWN, answer, conversation, joined, route
from kit.recorded import GRANTED, STEPS, WALL

from candy.member.conversation import ROUTES_S, VERDICT_S, Configure, Learn, SetPlacements, SetRoutes
from candy.member.routeset import RouteSet
from candy.protocol import wire
from candy.protocol.actions import Close, Drop, Log
from candy.protocol.wire import Behind, DropReason, Placement, Route


def test_routes_of_an_original_server() -> None:
    """field: entries accumulate within a connection."""
    talk = joined()
    assert talk.received(route(LAN_A), 2.0, WALL) == [SetRoutes((LAN_A,))]
    assert talk.received(route(LAN_B), 3.0, WALL) == [SetRoutes((LAN_A, LAN_B))]
    assert talk.received(route(), 4.0, WALL) == [SetRoutes((LAN_A, LAN_B))]
    assert talk.deadline == inf


def test_sets_of_candy_2() -> None:
    talk = joined(extended=True)
    assert talk.received(route(LAN_A, flags=Route.FIRST), 2.0, WALL) == [SetRoutes(())]
    assert talk.received(route(LAN_B, flags=Route.LAST), 3.0, WALL) == [SetRoutes((LAN_A, LAN_B))]
    assert talk.received(route(LAN_B, flags=Route.FIRST | Route.LAST), 3.0, WALL) == [SetRoutes((LAN_B,))]
    assert talk.received(route(flags=Route.FIRST | Route.LAST), 3.0, WALL) == [SetRoutes(())]
    assert talk.deadline == inf


def test_routes_hold_over_a_reconnect_until_the_relay_has_told_its_own() -> None:
    """field: only a reconnect starts afresh."""
    routes = RouteSet()
    joined(routes).received(route(LAN_A), 2.0, WALL)
    talk = conversation(address=GRANTED, routes=routes)
    opened = talk.opened(100.0)
    assert opened[1:3] == [Configure(GRANTED), SetRoutes((LAN_A,))]
    assert talk.deadline == 100.0 + VERDICT_S
    assert talk.received(route(LAN_B), 103.0, WALL) == [SetRoutes((LAN_B, LAN_A))]
    assert talk.deadline == 103.0 + ROUTES_S
    assert talk.received(route(), 103.5, WALL) == [SetRoutes((LAN_B, LAN_A))]
    assert talk.expired(103.5 + ROUTES_S - 0.01) == []
    assert talk.expired(103.5 + ROUTES_S) == [SetRoutes((LAN_B,))]
    assert talk.deadline == inf
    assert talk.received(route(LAN_A), 110.0, WALL) == [SetRoutes((LAN_B, LAN_A))]
    assert talk.deadline == inf


@pytest.mark.parametrize("extended", [False, True])
def test_a_relay_that_tells_none_has_none(extended: bool) -> None:
    routes = RouteSet()
    joined(routes).received(route(LAN_A), 2.0, WALL)
    talk = joined(routes, at=100.0, extended=extended)
    assert talk.deadline == 100.0 + VERDICT_S
    assert talk.expired(talk.deadline) == [SetRoutes(())]
    assert talk.deadline == inf


def test_both_deadlines_at_once() -> None:
    routes = RouteSet()
    joined(routes).received(route(LAN_A), 2.0, WALL)
    talk = conversation(address=GRANTED, routes=routes)
    talk.opened(100.0)
    assert talk.ponged(100.0 + VERDICT_S) == [
        SetRoutes(()),
        Log("info", "connected as 192.168.202.7/24 (the relay answers)"),
    ]


def test_a_set_after_a_reconnect_waits_for_nothing() -> None:
    routes = RouteSet()
    joined(routes).received(route(LAN_A), 2.0, WALL)
    talk = joined(routes, at=100.0, extended=True)
    assert talk.received(route(LAN_B, flags=Route.FIRST | Route.LAST), 102.0, WALL) == [SetRoutes((LAN_B,))]
    assert talk.deadline == inf


def test_another_address_takes_no_routes_along() -> None:
    routes = RouteSet()
    joined(routes).received(route(LAN_A), 2.0, WALL)
    talk = conversation(last=GRANTED, routes=routes)
    talk.opened(100.0)
    actions = talk.received(answer("192.168.202.9/24"), 100.1, WALL)
    assert actions[1:3] == [Configure(IPv4Interface("192.168.202.9/24")), SetRoutes(())]
    assert talk.deadline == inf


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (bytes.fromhex("06010000 0a010000 ff00ff00 c0a8ca02"), DropReason.BAD_MASK),
        (bytes.fromhex("06010000 0a010000 ffff0000 e0000001"), DropReason.BAD_NEXT_HOP),
        (bytes.fromhex("06020000 0a010000 ffff0000 c0a8ca02"), DropReason.TOO_SHORT),
        (bytes.fromhex("060000"), DropReason.TOO_SHORT),
    ],
)
@pytest.mark.parametrize("extended", [False, True])
def test_a_route_message_of_no_use(payload: bytes, reason: DropReason, extended: bool) -> None:
    talk = joined(extended=extended)
    talk.received(route(LAN_A, flags=Route.FIRST | Route.LAST), 2.0, WALL)
    # The first message of a set, and then this one.
    talk.received(route(flags=Route.FIRST), 2.0, WALL)
    assert talk.received(payload, 3.0, WALL) == [
        Drop(CONNECTION, reason),
        Log("warning", f"routes that the relay told can't be used: {reason}"),
    ]
    rest = talk.received(route(LAN_B, flags=Route.LAST), 4.0, WALL)
    if extended:
        assert rest[0] == Drop(CONNECTION, DropReason.OUTSIDE_SET)
    else:
        assert rest == [SetRoutes((LAN_A, LAN_B))]


PLACED = tuple(Placement(lan.destination, lan.next_hop, GRANTED.network) for lan in (LAN_A, LAN_B))


def test_what_lies_behind_whom() -> None:
    """Only as whole sets."""
    talk = joined(extended=True)
    assert talk.received(Behind(PLACED[:1], Behind.FIRST).encode(), 2.0, WALL) == []
    assert talk.received(Behind(PLACED[1:], Behind.LAST).encode(), 2.0, WALL) == [SetPlacements(PLACED)]
    empty = Behind((), Behind.FIRST | Behind.LAST).encode()
    assert talk.received(empty, 2.0, WALL) == [SetPlacements(())]
    for unlucky in (conversation(extended=True), joined()):
        unlucky.opened(0.0)
        assert unlucky.received(empty, 2.0, WALL) == [Drop(CONNECTION, DropReason.UNEXPECTED_KIND)]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (bytes.fromhex("11010002")[:-1], DropReason.TOO_SHORT),
        (bytes.fromhex("11010102") + bytes(19), DropReason.TOO_SHORT),
        (bytes.fromhex("11010102 0a010000 ff00ff00 c0a8ca02 00000000 00000000"), DropReason.BAD_MASK),
        (bytes.fromhex("11020002"), DropReason.UNKNOWN_VERSION),
    ],
)
def test_a_part_that_cannot_be_read_breaks_its_set(payload: bytes, reason: DropReason) -> None:
    talk = joined(extended=True)
    talk.received(Behind(PLACED, Behind.FIRST).encode(), 2.0, WALL)
    said = f"what the relay told of networks behind members can't be used: {reason}"
    assert talk.received(payload, 3.0, WALL) == [Drop(CONNECTION, reason), Log("warning", said)]
    last = Behind(PLACED, Behind.LAST).encode()
    assert talk.received(last, 3.0, WALL)[0] == Drop(CONNECTION, DropReason.OUTSIDE_SET)
    # Routes are sets of their own.
    assert talk.received(route(LAN_A, flags=Route.FIRST), 4.0, WALL) == [SetRoutes(())]
    talk.received(payload, 4.0, WALL)
    assert talk.received(route(LAN_B, flags=Route.LAST), 4.0, WALL) == [SetRoutes((LAN_A, LAN_B))]


RELAYED = [
    wire.Udp4Conn(OTHER, OWN, IPv4Address("203.0.113.5"), 4000),
    wire.Discovery(OTHER, OWN),
    wire.Discovery(OTHER, wire.BROADCAST),
    wire.General(0, 0, OTHER, OWN, bytes.fromhex("c0a80105 0fa1")),
    wire.General(0, 0, OTHER, wire.BROADCAST, bytes.fromhex("c0a80105 0fa1")),
]


@pytest.mark.parametrize("message", RELAYED)
def test_what_others_say_of_themselves(message: wire.Udp4Conn | wire.Discovery | wire.General) -> None:
    assert joined().received(message.encode(), 2.0, WALL) == [Learn(message)]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", DropReason.EMPTY_MESSAGE),
        (b"\x07" + bytes(100), DropReason.UNKNOWN_KIND),
        (b"\xfe" + bytes(100), DropReason.UNKNOWN_KIND),
        (wire.Udp4Conn(OTHER, OWN, FAR, 1).encode()[:-1], DropReason.TOO_SHORT),
        (wire.Discovery(OTHER, OWN).encode()[:-1], DropReason.TOO_SHORT),
        (wire.General(0, 0, OTHER, OWN, b"").encode()[:-1], DropReason.TOO_SHORT),
        (wire.General(0, 0, OTHER, OWN, bytes(5)).encode(), DropReason.TOO_SHORT),
        (wire.General(1, 0, OTHER, OWN, bytes(6)).encode(), DropReason.UNKNOWN_SUBTYPE),
        (wire.Udp4Conn(OTHER, wire.BROADCAST, FAR, 1).encode(), DropReason.FOREIGN_DESTINATION),
        (wire.Discovery(OTHER, FAR).encode(), DropReason.FOREIGN_DESTINATION),
        (wire.Discovery(OWN, OWN).encode(), DropReason.SPOOFED_SOURCE),
        (wire.Discovery(wire.BROADCAST, OWN).encode(), DropReason.SPOOFED_SOURCE),
        (bytes.fromhex(STEPS[0]["hex"]), DropReason.UNEXPECTED_KIND),
        (bytes.fromhex(STEPS[3]["hex"]), DropReason.UNEXPECTED_KIND),
    ],
)
def test_what_is_dropped(payload: bytes, reason: DropReason) -> None:
    talk = joined()
    assert talk.received(payload, 2.0, WALL) == [Drop(CONNECTION, reason)]
    assert talk.received(route(LAN_A), 2.0, WALL) == [SetRoutes((LAN_A,))]


@pytest.mark.parametrize("message", [*RELAYED, Route((LAN_A,), Route.FIRST | Route.LAST)])
def test_nothing_of_others_before_there_is_an_address(message: wire.Udp4Conn | Route) -> None:
    talk = conversation()
    talk.opened(0.0)
    assert talk.received(message.encode(), 0.1, WALL)[0] == Drop(CONNECTION, DropReason.UNEXPECTED_KIND)


KINDS = st.sampled_from([2, 3, 5, 6, 17, 255]).map(lambda kind: bytes([kind]))
ANY_BYTES = st.binary(max_size=120) | st.builds(bytes.__add__, KINDS, st.binary(max_size=120))


@given(payload=ANY_BYTES)
def test_any_bytes_are_survived(payload: bytes) -> None:
    talk = conversation()
    talk.opened(0.0)
    actions = talk.received(payload, 0.1, WALL)
    assert all(isinstance(action, Drop | Log | Close) for action in actions)


@given(payload=ANY_BYTES, extended=st.booleans())
def test_any_bytes_are_survived_by_a_member(payload: bytes, extended: bool) -> None:
    actions = joined(extended=extended).received(payload, 2.0, WALL)
    # Of a set that is not whole yet nothing follows.
    assert actions or payload[:1] == b"\x11"
    assert all(isinstance(action, Drop | Log | Learn | SetRoutes | SetPlacements) for action in actions)
