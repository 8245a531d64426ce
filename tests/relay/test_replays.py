"""The memory of replays: as long as a digest is timely, and no longer, whatever the clock does."""

import pytest

from candy.relay.replays import ReplayMemory

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


@pytest.mark.parametrize("jump", [10**12, -(10**12), -600, 600])
def test_the_memory_survives_a_clock_that_jumps(jump: int) -> None:
    memory = ReplayMemory(tolerance=5)
    for second in range(20):
        memory.is_first(second.to_bytes(32), WALL + second, WALL + second)
    for second in range(20):
        wall = WALL + jump + second
        assert memory.is_first(b"new" + second.to_bytes(29), wall, wall)
        assert not memory.is_first(b"new" + second.to_bytes(29), wall, wall)
    # Whatever was remembered before a clock was set back goes when time has passed it again.
    memory.is_first(b"last" * 8, WALL + 10**13, WALL + 10**13)
    assert len(memory) == 1
