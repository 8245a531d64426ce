"""The limit on wrong hashes: per source, from which failure on log-ins wait in line, and how the line goes on."""

import pytest

from candy.relay.guessing import LONGEST_WAIT_S, LOOPBACK_SOURCES, TURNS_PER_S, FailureLimiter

OFFICE = "203.0.113.5"
PLACES = int(LONGEST_WAIT_S * TURNS_PER_S)


def over_the_limit(limit: int = 60) -> FailureLimiter:
    limiter = FailureLimiter(limit)
    for _ in range(limit):
        limiter.failed(OFFICE, 0.0)
    return limiter


def test_sixty_failures_a_minute_cost_nothing() -> None:
    limiter = FailureLimiter(60)
    for second in range(3600):
        assert limiter.turn(OFFICE, second) == second
        limiter.failed(OFFICE, second)


def test_the_failure_that_reaches_the_limit_is_told() -> None:
    limiter = FailureLimiter(60)
    assert [limiter.failed(OFFICE, 0.0) for _ in range(61)] == [False] * 59 + [True, False]


def test_over_the_limit_each_takes_the_next_place_in_a_line_that_is_bounded() -> None:
    limiter = over_the_limit()
    turns = [limiter.turn(OFFICE, 10.0) for _ in range(PLACES)]
    assert turns == [10.0 + (place + 1) / TURNS_PER_S for place in range(PLACES)]
    assert limiter.turn(OFFICE, 10.0) is None
    assert limiter.turn(OFFICE, 10.0 + 1 / TURNS_PER_S) == 10.0 + LONGEST_WAIT_S + 1 / TURNS_PER_S
    assert limiter.turn(OFFICE, 10.0 + 1 / TURNS_PER_S) is None


def test_no_more_than_a_few_a_second_however_many_come() -> None:
    limiter = over_the_limit(limit=1000)
    turns = []
    for step in range(50 * 100):
        now = step / 100
        turn = limiter.turn(OFFICE, now)
        if turn is not None:
            assert now < turn <= now + LONGEST_WAIT_S
            turns.append(turn)
    assert turns == sorted(turns)
    assert len([turn for turn in turns if turn <= 50.0]) == 50 * TURNS_PER_S


def test_the_line_ends_when_failures_have_become_few() -> None:
    limiter = over_the_limit()
    assert limiter.turn(OFFICE, 59.9) == 59.9 + 1 / TURNS_PER_S
    assert limiter.turn(OFFICE, 60.0) == 60.0


def test_wrong_ones_in_the_line_keep_it_up() -> None:
    limiter = over_the_limit()
    now = 0.0
    for _ in range(1000):
        turn = limiter.turn(OFFICE, now)
        assert turn is not None
        assert turn > now
        now = turn
        limiter.failed(OFFICE, now)


def test_each_source_has_its_own_count_and_line() -> None:
    limiter = over_the_limit(limit=1)
    other = "203.0.113.6"
    assert limiter.turn(other, 0.0) == 0.0
    limiter.failed(other, 0.0)
    assert [limiter.turn(source, 0.0) for source in (OFFICE, other)] == [1 / TURNS_PER_S] * 2


@pytest.mark.parametrize("first", [1, 60])
def test_loopback_counts_as_several_sources(first: int) -> None:
    limiter = FailureLimiter(first)
    reached = [limiter.failed("127.0.0.1", 0.0) for _ in range(first * LOOPBACK_SOURCES)]
    assert reached == [False] * (first * LOOPBACK_SOURCES - 1) + [True]
    turns = [limiter.turn("127.0.0.1", 0.0) for _ in range(PLACES * LOOPBACK_SOURCES + 1)]
    assert turns[0] == 1 / (TURNS_PER_S * LOOPBACK_SOURCES)
    assert turns[-2:] == [LONGEST_WAIT_S, None]
    assert limiter.turn(OFFICE, 0.0) == 0.0


def test_sources_are_bounded_and_the_one_that_failed_longest_ago_is_forgotten() -> None:
    limiter = FailureLimiter(limit=1, sources=2)
    for source in ("a", "b", "a", "c"):
        limiter.failed(source, 0.0)
    assert [limiter.turn(source, 0.0) == 0.0 for source in "abc"] == [False, True, False]


def test_lines_are_bounded_and_the_one_that_grew_longest_ago_is_forgotten() -> None:
    limiter = FailureLimiter(limit=1, sources=2000)
    for number in range(1100):
        limiter.failed(str(number), 0.0)
        assert limiter.turn(str(number), 0.0) == 1 / TURNS_PER_S
    assert limiter.turn("1099", 0.0) == 2 / TURNS_PER_S
    assert limiter.turn("0", 0.0) == 1 / TURNS_PER_S
