"""Probes of all peers together: how many, and when."""

from itertools import groupby

from candy.member.budget import LATE_S, ROUTINE_RATE, TICK_S, Budget, tick_of


def test_a_tick_is_the_next_or_has_just_been() -> None:
    assert tick_of(10.0) == 10.0
    assert tick_of(10.0 + LATE_S) == 10.0
    assert tick_of(10.0 + 2 * LATE_S) == 10.0 + TICK_S


def test_what_is_due_a_little_late_is_due_no_earlier_than_now() -> None:
    assert Budget().turn(10.0 + LATE_S) == 10.0 + LATE_S


def test_turns_come_together_and_no_faster_than_their_rate() -> None:
    budget = Budget()
    turns = [budget.turn(10.0) for _ in range(120)]
    assert turns == sorted(turns)
    together = [len(list(each)) for _, each in groupby(turns)]
    assert max(together) <= ROUTINE_RATE * TICK_S + 1
    assert len(together) <= 120 / (ROUTINE_RATE * TICK_S) + 1
    assert turns[-1] >= 10.0 + 119 / ROUTINE_RATE - LATE_S


def test_a_turn_a_pause_after_a_tick_is_on_a_tick() -> None:
    """So what is probed again and again has no other pause than it would have alone."""
    budget = Budget()
    for late in (0.0, 0.01, LATE_S):
        assert budget.turn(tick_of(20.0 + late + 1.5)) == 21.5
        budget = Budget()
