"""What a relay told to route: sets that replace, entries that pile up, and what a reconnect leaves."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candy.errors import WireError
from candy.member.routeset import MAX_ROUTES, RouteSet
from candy.protocol.wire import DropReason, Route, RouteEntry

FIRST, LAST = Route.FIRST, Route.LAST
OWN = IPv4Address("192.168.202.7")
NEAR, FAR = IPv4Address("192.168.202.1"), IPv4Address("192.168.202.2")


def entry(destination: str, next_hop: IPv4Address = NEAR) -> RouteEntry:
    return RouteEntry(IPv4Network(destination), next_hop)


A, B, C = entry("10.1.0.0/16"), entry("10.2.0.0/16"), entry("10.3.0.0/16", FAR)


def told(*entries: RouteEntry, extended: bool = True) -> RouteSet:
    """One that was told these on its first connection."""
    routes = RouteSet()
    routes.begin(OWN, extended=extended)
    routes.received(Route(entries, FIRST | LAST))
    return routes


def test_a_new_set_replaces_the_old_one() -> None:
    routes = told(A, B)
    assert list(routes.routes) == [A, B]
    routes.received(Route((C, A), FIRST | LAST))
    assert list(routes.routes) == [C, A]


def test_an_empty_set_withdraws_all() -> None:
    routes = told(A, B)
    routes.received(Route((), FIRST | LAST))
    assert list(routes.routes) == []


def test_a_set_of_several_messages_counts_once_it_is_complete() -> None:
    routes = told(A)
    routes.received(Route((B,), FIRST))
    routes.received(Route((C,)))
    assert list(routes.routes) == [A]
    routes.received(Route((), LAST))
    assert list(routes.routes) == [B, C]


def test_a_set_that_begins_anew() -> None:
    routes = told()
    routes.received(Route((A,), FIRST))
    routes.received(Route((B,), FIRST | LAST))
    assert list(routes.routes) == [B]


@pytest.mark.parametrize("flags", [0, LAST])
def test_a_message_outside_of_a_set(flags: int) -> None:
    routes = told(A)
    with pytest.raises(WireError, match=DropReason.OUTSIDE_SET):
        routes.received(Route((B,), flags))
    assert list(routes.routes) == [A]


def test_a_set_of_which_a_message_could_not_be_read() -> None:
    routes = told(A)
    routes.received(Route((B,), FIRST))
    routes.abandon()
    with pytest.raises(WireError, match=DropReason.OUTSIDE_SET):
        routes.received(Route((C,), LAST))
    assert list(routes.routes) == [A]


def test_a_set_of_which_a_message_is_wrong() -> None:
    routes = told(A)
    with pytest.raises(WireError, match=DropReason.BAD_NEXT_HOP):
        routes.received(Route((B, entry("10.4.0.0/16", IPv4Address("255.255.255.255"))), FIRST))
    with pytest.raises(WireError, match=DropReason.OUTSIDE_SET):
        routes.received(Route((C,), LAST))
    assert list(routes.routes) == [A]


@pytest.mark.parametrize("flags", [0, FIRST, LAST, FIRST | LAST])
def test_entries_of_an_original_server_accumulate(flags: int) -> None:
    """field: "ROUTE of the original has no way to withdraw or replace: within one connection entries accumulate, first
    match wins". Its reserved bytes mean nothing."""
    routes = RouteSet()
    routes.begin(OWN, extended=False)
    routes.received(Route((A,), flags))
    routes.received(Route((B, RouteEntry(A.destination, FAR)), flags))
    routes.received(Route((), flags))
    assert list(routes.routes) == [A, B]


def test_only_a_reconnect_starts_afresh() -> None:
    """field: "only a reconnect starts afresh". What it does not repeat holds until it has told all."""
    routes = told(A, B, extended=False)
    routes.begin(OWN, extended=False)
    assert list(routes.routes) == [A, B]
    assert not routes.is_settled
    routes.received(Route((C,)))
    routes.received(Route((RouteEntry(B.destination, FAR),)))
    assert list(routes.routes) == [C, RouteEntry(B.destination, FAR), A]
    routes.settle()
    assert list(routes.routes) == [C, RouteEntry(B.destination, FAR)]
    assert routes.is_settled


def test_a_set_of_the_next_connection_is_all_of_it() -> None:
    routes = told(A, B)
    routes.begin(OWN, extended=True)
    assert list(routes.routes) == [A, B]
    routes.received(Route((C,), FIRST))
    assert list(routes.routes) == [A, B]
    routes.received(Route((), LAST))
    assert list(routes.routes) == [C]
    assert routes.is_settled


def test_a_set_does_not_go_on_over_a_reconnect() -> None:
    routes = told(A)
    routes.received(Route((B,), FIRST))
    routes.begin(OWN, extended=True)
    with pytest.raises(WireError, match=DropReason.OUTSIDE_SET):
        routes.received(Route((C,), LAST))
    assert list(routes.routes) == [A]


def test_connections_that_tell_nothing_leave_all_as_it_was() -> None:
    routes = told(A, extended=False)
    routes.received(Route((B,)))
    for extended in (False, True, False):
        routes.begin(OWN, extended=extended)
    assert list(routes.routes) == [A, B]
    routes.settle()
    assert list(routes.routes) == []


def test_another_address_starts_afresh() -> None:
    routes = told(A)
    routes.begin(FAR, extended=True)
    assert list(routes.routes) == []
    assert routes.is_settled


def test_what_leads_to_this_member_is_no_route_and_shadows_others() -> None:
    routes = told(entry("10.1.0.0/16", OWN), RouteEntry(A.destination, FAR), B)
    assert list(routes.routes) == [B]


def test_a_destination_with_host_bits_is_the_network() -> None:
    message = bytes.fromhex("06010300 0a01ff05 ffff0000 c0a8ca01")
    decoded = Route.decode(message)
    assert list(told(*decoded.entries).routes) == [A]


def many(count: int, start: int = 0) -> tuple[RouteEntry, ...]:
    return tuple(RouteEntry(IPv4Network((10 << 24 | number << 8, 24)), NEAR) for number in range(start, start + count))


@pytest.mark.parametrize("extended", [False, True])
def test_no_more_than_a_member_takes(extended: bool) -> None:
    """field: "at most 100 entries a message". We take the 255 that the format has room for, in any number of messages
    up to a bound."""
    routes = RouteSet()
    routes.begin(OWN, extended=extended)
    for start in range(0, MAX_ROUTES, 250):
        last = start + 250 == MAX_ROUTES
        routes.received(Route(many(250, start), (0 if start else FIRST) | (LAST if last else 0)))
    assert list(routes.routes) == list(many(MAX_ROUTES))
    # Nor is it one more when it was told before.
    if extended:
        routes.received(Route(many(250), FIRST))
        for start in range(250, MAX_ROUTES, 250):
            routes.received(Route(many(250, start)))
    routes.received(Route(many(1)))
    with pytest.raises(WireError, match=DropReason.TOO_MANY_ROUTES):
        routes.received(Route(many(1, MAX_ROUTES)))
    assert list(routes.routes) == list(many(MAX_ROUTES))


HOPS = [NEAR, FAR, OWN, IPv4Address("192.168.202.8")]
entries = st.builds(
    RouteEntry,
    st.builds(lambda number: IPv4Network((10 << 24 | number << 16, 16)), st.integers(0, 5)),
    st.sampled_from(HOPS),
)
messages = st.builds(Route, st.lists(entries, max_size=4).map(tuple), st.integers(0, 3))
steps = st.lists(
    st.one_of(messages, st.tuples(st.sampled_from([OWN, FAR]), st.booleans()), st.just("settle"), st.just("abandon")),
    max_size=20,
)


def first_match(listed: list[RouteEntry], own: IPv4Address, destination: IPv4Network) -> IPv4Address | None:
    """The original's way: look through all of them."""
    for one in listed:
        if one.destination == destination:
            return None if one.next_hop == own else one.next_hop
    return None


@given(steps)
def test_against_a_plain_list(steps: list[Route | tuple[IPv4Address, bool] | str]) -> None:
    """Always the first match of all that was told, in a list that is never tidied up."""
    routes = RouteSet()
    routes.begin(OWN, extended=True)
    own, extended = OWN, True
    told: list[RouteEntry] = []
    former: list[RouteEntry] = []
    coming: list[RouteEntry] | None = None
    for step in steps:
        match step:
            case Route():
                if not extended:
                    told += step.entries
                    routes.received(step)
                    continue
                coming = [] if step.flags & FIRST else coming
                if coming is None:
                    with pytest.raises(WireError):
                        routes.received(step)
                    continue
                coming += step.entries
                routes.received(step)
                if step.flags & LAST:
                    told, former, coming = coming, [], None
            case (address, extended):
                former = told + former if address == own else []
                own, told, coming = address, [], None
                routes.begin(own, extended=extended)
            case "settle":
                former = []
                routes.settle()
            case "abandon":
                coming = None
                routes.abandon()
        for number in range(6):
            destination = IPv4Network((10 << 24 | number << 16, 16))
            found = [one.next_hop for one in routes.routes if one.destination == destination]
            expected = first_match(told + former, own, destination)
            assert found == ([] if expected is None else [expected])
