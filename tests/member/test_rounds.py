"""Which relay a member goes to next."""

from collections.abc import Callable

from candy.member.rounds import Round

A, B, C, D = "wss://a/", "wss://b/", "wss://c/", "wss://d/"


def drawn(*numbers: float) -> Callable[[], float]:
    return iter(numbers).__next__


def visited(following: Round, count: int) -> list[tuple[str, bool]]:
    """Where it goes if it gets in nowhere, and whether the pause before that is a long one."""
    found = []
    for _ in range(count):
        following.failed(following.url)
        found.append((following.url, following.is_over))
    return found


def test_one_alone_is_tried_again() -> None:
    one = Round([A], drawn())
    assert (one.url, one.is_over, one.has_others(A)) == (A, True, False)
    assert visited(one, 2) == [(A, True), (A, True)]


def test_its_users_come_in_their_order_and_a_round_is_over_when_all_were_tried() -> None:
    following = Round([A, B, C], drawn())
    assert following.url == A
    assert visited(following, 7) == [(B, False), (C, False), (A, True), (B, False), (C, False), (A, True), (B, False)]


def test_it_keeps_to_the_one_that_held() -> None:
    following = Round([A, B, C], drawn())
    following.failed(A)
    following.held(B)
    assert (following.url, following.is_over) == (B, True)
    # That one is lost: the others are tried before it is again.
    assert visited(following, 3) == [(C, False), (A, False), (B, True)]


def test_those_that_were_told_come_behind_in_an_order_of_its_own() -> None:
    following = Round([A], drawn(0.9, 0.1, 0.5))
    following.tell([B, A, C, D, C])
    assert following.urls == (A, C, D, B)
    assert (following.is_own(A), following.is_own(C)) == (True, False)
    # Who stays has its place, and what is new comes behind.
    following = Round([A], drawn(0.9, 0.1, 0.5))
    following.tell([B, C])
    following.tell([D, B, C])
    assert following.urls == (A, C, B, D)


def test_one_that_is_not_told_any_more() -> None:
    following = Round([A], drawn(0.0, 0.0))
    following.tell([B, C])
    following.held(B)
    following.tell([C])
    assert following.has_others(B)
    assert visited(following, 3) == [(A, False), (C, False), (A, True)]


def test_what_failed_before_counts_while_nothing_holds() -> None:
    """Of two connections side by side the one fails here, and the other one there."""
    following = Round([A, B, C], drawn())
    following.held(A)
    following.failed(A)
    following.failed(B)
    following.failed(A)
    assert (following.url, following.is_over) == (C, False)
