"""The memory of replays: a digest is never believed twice, whatever the clock does and however many come.

And of address requests: which of them may be another's, sniffed.
"""

import pytest

from candy.protocol.auth import expttun_digest
from candy.relay.replays import KEPT_BYTES, SNIFFED_S, ReplayMemory, Sightings

WALL = 1_700_000_000


@pytest.mark.parametrize("skew", [-300, 0, 300])
def test_a_digest_is_remembered_as_long_as_it_is_timely(skew: int) -> None:
    memory = ReplayMemory()
    timestamp = WALL + skew
    assert memory.is_first(b"a" * 32, timestamp, WALL)
    for wall in range(WALL, timestamp + 301):
        assert not memory.is_first(b"a" * 32, timestamp, wall)
    assert len(memory) == 1
    memory.is_first(b"b" * 32, timestamp + 301, timestamp + 301)
    assert len(memory) == 1


def test_a_digest_that_was_kept_whole_is_known_again() -> None:
    """As the store of an earlier version has it."""
    memory = ReplayMemory()
    memory.restore([(WALL, digest(WALL))], 0, WALL)
    assert not memory.is_first(digest(WALL), WALL, WALL)
    assert all(len(kept) == KEPT_BYTES for _, kept in memory.rows())


def test_digests_of_one_second_are_told_apart() -> None:
    memory = ReplayMemory()
    assert memory.is_first(b"a" * 32, WALL, WALL)
    assert memory.is_first(b"b" * 32, WALL, WALL)
    assert not memory.is_first(b"a" * 32, WALL, WALL)
    assert not memory.is_first(b"b" * 32, WALL, WALL)


def test_the_memory_is_bounded_by_the_window() -> None:
    memory = ReplayMemory(tolerance=5)
    for second in range(1000):
        for skew in (-5, 0, 5):
            assert memory.is_first(bytes([skew % 256]) + second.to_bytes(31), WALL + second + skew, WALL + second)
        assert len(memory) <= 3 * 11


@pytest.mark.parametrize("jump", [10**12, 600])
def test_the_memory_survives_a_clock_that_jumps_ahead(jump: int) -> None:
    memory = ReplayMemory(tolerance=5)
    for second in range(20):
        memory.is_first(second.to_bytes(32), WALL + second, WALL + second)
    for second in range(20):
        wall = WALL + jump + second
        assert memory.is_first(b"new" + second.to_bytes(29), wall, wall)
        assert not memory.is_first(b"new" + second.to_bytes(29), wall, wall)
    assert len(memory) <= 11


def test_a_clock_set_back_makes_no_forgotten_digest_valid() -> None:
    memory = ReplayMemory(tolerance=300)
    assert memory.is_first(b"old" * 8, WALL, WALL)
    # Forgotten, because it is untimely: nobody can use it any more.
    assert memory.is_first(b"new" * 8, WALL + 301, WALL + 301)
    assert len(memory) == 1
    for wall in (WALL, WALL - 200, WALL + 300):
        assert not memory.is_first(b"old" * 8, WALL, wall)
        # Neither can one that was never there, if it could have been.
        assert not memory.is_first(b"unheard of", WALL, wall)
    assert memory.forgotten == WALL


def test_members_whose_clocks_are_right_get_in_while_the_relay_s_goes_wrong_and_right_again() -> None:
    """Nobody's AUTH is timely while the relay's clock is far ahead, so nothing later than the members is forgotten."""
    memory = ReplayMemory()
    assert memory.is_first(b"before", WALL, WALL)
    # One whose clock is as wrong.
    assert memory.is_first(b"astray", WALL + 10**6, WALL + 10**6)
    assert memory.is_first(b"after", WALL + 1, WALL + 1)
    assert not memory.is_first(b"before", WALL, WALL + 1)
    assert not memory.is_first(b"astray", WALL + 10**6, WALL + 10**6)


def test_a_full_memory_forgets_the_earliest_second_and_believes_nothing_of_it_any_more() -> None:
    memory = ReplayMemory(limit=10)
    for number in range(10):
        assert memory.is_first(bytes([number]), WALL + number // 5, WALL)
    assert len(memory) == 10
    assert memory.forgotten < WALL
    assert memory.is_first(b"eleventh", WALL + 2, WALL + 2)
    assert len(memory) == 6
    assert memory.forgotten == WALL
    # All five are as untrustworthy as the one whose place was needed.
    for number in range(5):
        assert not memory.is_first(bytes([number]), WALL, WALL + 2)
    assert not memory.is_first(b"never there", WALL - 1, WALL + 2)
    assert not memory.is_first(bytes([5]), WALL + 1, WALL + 2)
    assert memory.is_first(b"still timely", WALL + 1, WALL + 2)


def test_more_log_ins_in_one_second_than_fit_are_refused_for_the_rest_of_it() -> None:
    memory = ReplayMemory(limit=10)
    believed = [memory.is_first(number.to_bytes(32, "little"), WALL, WALL) for number in range(1000)]
    assert believed == [True] * 10 + [False] * 990
    assert len(memory) <= 10
    assert not any(memory.is_first(number.to_bytes(32, "little"), WALL, WALL) for number in range(1000))
    assert memory.is_first(b"a second later", WALL + 1, WALL + 1)


def test_a_memory_full_of_the_future_believes_nothing_that_it_can_t_remember() -> None:
    memory = ReplayMemory(limit=10)
    for number in range(10):
        assert memory.is_first(bytes([number]), WALL + 300, WALL)
    assert not memory.is_first(b"now", WALL, WALL)
    assert not memory.is_first(b"now", WALL, WALL)
    assert len(memory) == 10


# EXPTTUN


def digest(timestamp: int) -> bytes:
    return expttun_digest(b"secret", timestamp)


def test_each_password_has_a_digest_of_its_own() -> None:
    sightings = Sightings()
    sightings.answered(digest(WALL), WALL)
    assert sightings.may_keep(expttun_digest(b"another", WALL), WALL, "203.0.113.1", 100.0)
    assert not sightings.may_keep(digest(WALL), WALL, "203.0.113.1", 100.0)


def test_a_request_that_came_before_keeps_nothing_for_another_source() -> None:
    sightings = Sightings()
    assert sightings.may_keep(digest(WALL), WALL, "203.0.113.1", 100.0)
    # Members whose clocks agree send the same digest in the same second.
    assert sightings.may_keep(digest(WALL), WALL, "203.0.113.2", 100.0 + SNIFFED_S)
    assert not sightings.may_keep(digest(WALL), WALL, "203.0.113.3", 100.1 + SNIFFED_S)
    assert not sightings.may_keep(digest(WALL), WALL, "203.0.113.2", 100.1 + SNIFFED_S)
    # Its own sender asks again.
    assert sightings.may_keep(digest(WALL), WALL, "203.0.113.1", 200.0)
    assert sightings.may_keep(digest(WALL + 1), WALL + 1, "203.0.113.3", 200.0)


def test_a_digest_that_the_relay_sent_keeps_nothing_unless_a_member_sent_it_before() -> None:
    sightings = Sightings()
    sightings.answered(digest(WALL), WALL)
    assert not sightings.may_keep(digest(WALL), WALL, "203.0.113.1", 100.0)
    assert sightings.may_keep(digest(WALL + 1), WALL + 1, "203.0.113.1", 101.0)
    sightings.answered(digest(WALL + 1), WALL + 1)
    assert sightings.may_keep(digest(WALL + 1), WALL + 1, "203.0.113.2", 101.9)


def test_sightings_are_bounded_and_what_may_be_forgotten_is_not_taken_for_new() -> None:
    sightings = Sightings(limit=3)
    for second in range(10):
        assert sightings.may_keep(digest(WALL + second), WALL + second, "203.0.113.1", float(second))
        assert len(sightings) <= 3
    assert not sightings.may_keep(digest(WALL + 6), WALL + 6, "203.0.113.1", 100.0)
    assert not sightings.may_keep(digest(WALL - 100), WALL - 100, "203.0.113.2", 100.0)
    assert sightings.may_keep(digest(WALL + 7), WALL + 7, "203.0.113.1", 100.0)
    assert sightings.may_keep(digest(WALL + 10), WALL + 10, "203.0.113.2", 100.0)
