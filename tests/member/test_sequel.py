"""What follows an ending: how long to wait, what is news, and how a member gets out of the way of its double."""

from candy.member.conversation import Ending
from candy.member.sequel import Sequel, Sequels

HELD = Ending("the connection was lost", held=True)
LOST = Ending("connection refused")
REFUSED = Ending("the password is wrong", refused=True)
REPLACED = Ending("replaced", replaced=True)


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
