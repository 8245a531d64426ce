"""Buckets against what they promise, whatever passes and whenever it is looked."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from candy._fastpath import Limited, TokenBucket

MS = 1_000_000
SECOND = 1000 * MS
CREDIT = 40 * MS
RATES = st.integers(1000, 125_000_000)


@given(RATES, st.lists(st.tuples(st.integers(1, 65_536), st.integers(0, 50 * MS)), min_size=1, max_size=200))
def test_no_more_passes_than_the_rate_and_what_was_saved_up(rate: int, steps: list[tuple[int, int]]) -> None:
    member = Limited(rate, TokenBucket(0))
    begin = now = SECOND
    passed = last = 0
    for size, pause in steps:
        now += pause
        if member.passes(size, now):
            passed, last = passed + size, size
    assert (passed - last) * SECOND <= rate * (now - begin + CREDIT) + len(steps) * rate


@given(RATES, st.integers(1, 20))
def test_who_always_has_something_gets_the_whole_rate(rate: int, pause_ms: int) -> None:
    """As long as it is looked within what is saved up."""
    member = Limited(rate, TokenBucket(0))
    passed = 0
    for now in range(SECOND, 3 * SECOND, pause_ms * MS):
        while member.passes(member.piece, now):
            passed += member.piece
    assert passed >= rate * 2 * (SECOND - pause_ms * MS) // SECOND - member.piece


@given(st.integers(100_000, 12_500_000), st.integers(2, 12), st.integers(0, 1 << 32))
def test_members_of_a_network_have_equal_shares_of_its_limit(rate: int, count: int, seed: int) -> None:
    shared, shuffled = TokenBucket(rate), Random(seed)
    members = [Limited(0, shared) for _ in range(count)]
    passed = [0] * count
    order = list(range(count))
    for now in range(SECOND, 4 * SECOND, MS):
        shuffled.shuffle(order)
        for one in order:
            while members[one].passes(members[one].piece, now):
                passed[one] += members[one].piece
    piece = members[0].piece
    assert sum(passed) <= 3 * rate + rate * CREDIT // SECOND + count * piece
    assert sum(passed) >= 3 * rate * 98 // 100 - count * piece
    assert max(passed) - min(passed) <= 3 * piece + rate * CREDIT // SECOND


@given(RATES, st.integers(1, 1 << 20), st.integers(1, 1 << 20))
def test_what_is_given_back_counts_for_nothing(rate: int, size: int, more: int) -> None:
    bucket, other = TokenBucket(rate), TokenBucket(rate)
    bucket.take(size + more, SECOND)
    bucket.give(more)
    assert abs(bucket.take(0, SECOND) - other.take(size, SECOND)) <= 2


@given(st.integers(0, 1 << 30), st.integers(0, 1 << 62))
def test_without_a_limit_nothing_is_owed(size: int, now: int) -> None:
    bucket = TokenBucket(0)
    assert bucket.take(size, now) == 0
    bucket.give(size)
    assert bucket.take(size, now) == 0
