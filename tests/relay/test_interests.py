"""Who wants to know of which address, and what is owed to whom."""

from hypothesis import given
from hypothesis import strategies as st

from candy.relay.interests import Interests

A, B, C = 1, 2, 3
"""Connections."""


def owed(interests: Interests, members: int = 100, most: int = 100) -> dict[int, list[int]]:
    return {connection: list(addresses) for connection, addresses in interests.owed(members, most)}


def test_who_has_asked_is_told_of_changes_until_its_end() -> None:
    interests = Interests()
    interests.ask(A, 10)
    interests.ask(B, 10)
    interests.changed(11)
    assert not interests.owes
    interests.changed(10)
    interests.changed(10)
    assert owed(interests) == {A: [10], B: [10]}
    assert not interests.owes
    interests.changed(10)
    interests.forget(A)
    assert owed(interests) == {B: [10]}
    interests.forget(B)
    interests.changed(10)
    assert (len(interests), interests.owes) == (0, False)


def test_who_hears_of_an_asker_does_once_and_has_not_asked() -> None:
    interests = Interests()
    assert interests.hear(A, 10)
    assert not interests.hear(A, 10)
    assert not interests.has_asked(A, 10)
    interests.ask(A, 10)
    assert interests.has_asked(A, 10)
    assert not interests.hear(A, 10)
    assert interests.has_asked(A, 10)


def test_of_one_member_the_oldest_goes() -> None:
    interests = Interests(each=2)
    for address in (10, 11, 10, 12):
        interests.ask(A, address)
    for address in (10, 11, 12):
        interests.changed(address)
    assert owed(interests) == {A: [10, 12]}


def test_of_all_that_of_who_has_asked_longest_ago() -> None:
    interests = Interests(most=3)
    interests.ask(A, 10)
    interests.ask(B, 10)
    interests.ask(A, 11)
    interests.ask(C, 10)
    assert len(interests) == 3
    interests.changed(10)
    assert owed(interests) == {A: [10], C: [10]}


def test_a_million_are_remembered() -> None:
    """Of members that ask for as much as they may: beyond that who asked first pays, and who asks for more itself."""
    interests = Interests()
    for connection in range(245):
        for address in range(4096 + (connection == 244)):
            interests.ask(connection, address)
    assert len(interests) == 1_000_000
    interests.changed(0)
    assert list(owed(interests, 245)) == list(range(1, 244))
    for connection in range(245):
        interests.forget(connection)
    assert len(interests) == 0


def test_what_is_forgotten_is_owed_no_more() -> None:
    interests = Interests(each=1)
    interests.ask(A, 10)
    interests.changed(10)
    interests.ask(A, 11)
    assert owed(interests) == {A: []}


def test_a_few_at_a_time() -> None:
    interests = Interests()
    for address in (10, 11, 12):
        interests.ask(A, address)
        interests.changed(address)
    interests.ask(B, 10)
    interests.changed(10)
    assert owed(interests, 1, 2) == {A: [10, 11]}
    assert owed(interests, 1, 2) == {B: [10]}
    assert owed(interests, 1, 2) == {A: [12]}
    assert not interests.owes


@given(
    st.lists(st.tuples(st.sampled_from("ahf"), st.integers(1, 4), st.integers(10, 16)), max_size=60),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_the_bounds_hold_and_nobody_else_is_told(steps: list[tuple[str, int, int]], most: int, each: int) -> None:
    interests = Interests(most, each)
    wanted: set[tuple[int, int]] = set()
    for what, connection, address in steps:
        match what:
            case "a":
                interests.ask(connection, address)
                wanted.add((connection, address))
            case "h":
                interests.hear(connection, address)
                wanted.add((connection, address))
            case "f":
                interests.forget(connection)
                wanted = {pair for pair in wanted if pair[0] != connection}
        assert len(interests) <= most
    for address in range(10, 17):
        interests.changed(address)
    told = owed(interests)
    pairs = {(connection, address) for connection, addresses in told.items() for address in addresses}
    assert pairs <= wanted
    assert len(pairs) == len(interests)
    assert all(len(addresses) <= each for addresses in told.values())
