"""What follows an ending: how long to wait, what is news, how a member gets out of the way of its double, and what it
makes of connections that are cut in their silence."""

import pytest

from candy.member.conversation import Ending
from candy.member.sequel import Sequel, Sequels

HELD = Ending("the connection was lost", held=True)
LOST = Ending("connection refused")
REFUSED = Ending("the password is wrong", refused=True)
REPLACED = Ending("replaced", replaced=True)
CUT = (
    "cut after 10 s of silence, 3 times in a row: is there a proxy on the way that ends silent connections? "
    "Pinging after 3.3 s from now on"
)


def sequels(*endings: Ending, is_granted: bool = True) -> list[Sequel]:
    following = Sequels(lambda: 0.0, is_granted=is_granted)
    return [following.after(ending) for ending in endings]


def test_each_sort_waits_in_its_own_row() -> None:
    assert [sequel.delay for sequel in sequels(LOST, LOST, REFUSED, REFUSED, HELD, HELD)] == [1, 2, 1, 2, 1, 1]


def test_a_reason_is_said_once_until_a_connection_held() -> None:
    other = Ending("no route")
    assert [sequel.is_news for sequel in sequels(LOST, LOST, other, LOST, LOST, HELD, HELD, LOST, LOST)] == [
        *(True, False, True, True, False),
        *(True, True, True, False),
    ]


def test_a_replacement_is_always_said() -> None:
    assert [sequel.is_news for sequel in sequels(REPLACED, REPLACED)] == [True, True]


def test_whoever_was_replaced_asks_for_a_free_address() -> None:
    """ "with a granted (not fixed) address a free one instead"."""
    assert [sequel.asks_anew for sequel in sequels(REPLACED, LOST, REFUSED, HELD)] == [True, False, False, False]


def test_who_was_replaced_waits_whatever_changes() -> None:
    """ "A backoff pause is cut short too when the way changes": but a double is there by any way."""
    assert [sequel.stands for sequel in sequels(LOST, REFUSED, HELD, REPLACED)] == [False, False, False, True]


def test_the_third_replacement_in_a_row_needs_another_vmac() -> None:
    found = sequels(REPLACED, LOST, REPLACED, REPLACED, REPLACED, REPLACED, REPLACED)
    assert [sequel.needs_vmac for sequel in found] == [False, False, False, True, False, False, True]
    # With the new VMAC it starts anew.
    assert [sequel.delay for sequel in found] == [8, 1, 16, 32, 8, 16, 32]


def test_a_connection_that_held_in_between_makes_them_no_row() -> None:
    found = sequels(REPLACED, REPLACED, HELD, REPLACED, REPLACED)
    assert not any(sequel.needs_vmac for sequel in found)
    assert [sequel.delay for sequel in found] == [8, 16, 1, 8, 16]


def test_a_member_with_an_address_of_its_own_can_only_wait() -> None:
    found = sequels(*[REPLACED] * 7, is_granted=False)
    assert [sequel.delay for sequel in found] == [8, 16, 32, 64, 128, 200, 200]
    assert not any(sequel.needs_vmac or sequel.asks_anew for sequel in found)


def silent(*silences: float, held: bool = False) -> tuple[Sequels, list[Sequel]]:
    """Connections that broke off after these seconds without a byte."""
    following = Sequels(lambda: 0.0, is_granted=True)
    return following, [
        following.after(Ending("the connection was lost", refused=not held, held=held, silence=silence))
        for silence in silences
    ]


def test_silent_connections_that_are_cut_ping_more_often() -> None:
    """F14: "taken for a refusal, so that the pause grows to 30 s"."""
    following, found = silent(10.0, 10.3, 9.9)
    assert [sequel.text for sequel in found] == ["the connection was lost"] * 2 + [CUT]
    assert [sequel.delay for sequel in found] == [1, 2, 1]
    assert [sequel.is_news for sequel in found] == [True, False, True]
    assert following.ping_after == pytest.approx(3.3)
    # From here on it counts anew.
    assert following.after(LOST).delay == 2


def test_the_same_of_connections_that_held() -> None:
    following, found = silent(12.0, 12.0, 12.0, held=True)
    assert found[-1].text.startswith("cut after 12 s of silence, 3 times in a row")
    assert [sequel.delay for sequel in found] == [1, 1, 1]
    assert following.ping_after == 4.0


@pytest.mark.parametrize(
    "silences",
    [
        # Too few.
        [10.0, 10.0],
        # Not the same.
        [10.0, 10.0, 11.1],
        [10.0, 14.0, 10.0, 14.0, 10.0],
        # A relay that says no does so at once.
        [0.2, 0.2, 0.2, 4.9, 4.9, 4.9],
        # It had pinged, and that did not arrive.
        [29.7, 29.7, 29.7],
        # Somebody was talking.
        [10.0, 10.0, 0.5, 10.0],
    ],
)
def test_other_ends_are_no_cuts(silences: list[float]) -> None:
    following, found = silent(*silences)
    assert following.ping_after is None
    assert {sequel.text for sequel in found} == {"the connection was lost"}


def test_ends_that_say_nothing_of_silence_are_left_out() -> None:
    following, _ = silent(10.0, 10.0)
    following.after(LOST)
    following.after(Ending("the connection was lost", held=True, silence=10.0))
    assert following.ping_after is not None


def test_it_is_cut_even_sooner() -> None:
    """Another proxy, for the machine has moved."""
    following, _ = silent(12.0, 12.0, 12.0, 6.0, 6.0, 6.0)
    assert following.ping_after == 2.0


def test_another_relay_is_gone_to_soon() -> None:
    """field: "backoff is per round": the pause grows when all were tried, and not before."""
    following = Sequels(lambda: 0.5, is_granted=True)
    found = [following.after(LOST, relay, is_over=relay == "c").delay for relay in "abcabcabc"]
    assert found == [0.4, 0.4, 1.25, 0.4, 0.4, 2.5, 0.4, 0.4, pytest.approx(10 / 3)]
    # One that holds begins anew.
    assert following.after(HELD, "a", is_over=False).delay == 0.4
    assert following.after(LOST, "b", is_over=True).delay == 1.25


def test_a_round_in_which_one_refuses_is_a_refusal() -> None:
    following = Sequels(lambda: 0.0, is_granted=True)
    for expected in (1, 2, 4, 8, 16, 20):
        assert following.after(REFUSED, "a", is_over=False).delay == 0
        assert following.after(LOST, "b", is_over=True).delay == expected
    assert following.after(LOST, "a", is_over=False).delay == 0
    assert following.after(LOST, "b", is_over=True).delay == 1


def test_who_was_replaced_waits_although_there_are_others() -> None:
    following = Sequels(lambda: 0.0, is_granted=False)
    assert [following.after(REPLACED, "a", is_over=False).delay for _ in range(3)] == [8, 16, 32]


def test_a_reason_is_said_once_for_each_relay() -> None:
    following = Sequels(lambda: 0.0, is_granted=True)
    assert [following.after(LOST, relay).is_news for relay in "abab"] == [True, True, False, False]
