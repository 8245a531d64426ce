"""Every step of both rows at its bounds, and what starts a row anew."""

import pytest

from candy.member.backoff import LEAST_S, Backoff

LOST = [(1, 1.5), (2, 3), (8 / 3, 4), (8 / 3, 4)]
REFUSED = [(1, 1.5), (2, 3), (4, 6), (8, 12), (16, 24), (20, 30), (20, 30)]


@pytest.mark.parametrize(("refused", "row"), [(False, LOST), (True, REFUSED)])
@pytest.mark.parametrize("end", [0, 1])
def test_row(refused: bool, row: list[tuple[float, float]], end: int) -> None:
    backoff = Backoff(lambda: float(end))
    assert [backoff.next_delay(refused=refused) for _ in row] == pytest.approx([step[end] for step in row])


def test_uniform_between_the_bounds() -> None:
    assert Backoff(lambda: 0.5).next_delay(refused=False) == 1.25


@pytest.mark.parametrize("refused", [False, True])
def test_a_row_has_no_end(refused: bool) -> None:
    backoff = Backoff(lambda: 0.0)
    delays = [backoff.next_delay(refused=refused) for _ in range(5000)]
    assert min(delays) == LEAST_S
    assert delays[-1] == pytest.approx(20 if refused else 8 / 3)


def test_a_connection_that_held_starts_anew() -> None:
    backoff = Backoff(lambda: 0.0)
    for _ in range(9):
        backoff.next_delay(refused=True)
    backoff.held()
    assert [backoff.next_delay(refused=True) for _ in range(2)] == [1, 2]


def test_a_failure_of_the_other_sort_starts_anew() -> None:
    backoff = Backoff(lambda: 0.0)
    for _ in range(9):
        backoff.next_delay(refused=False)
    assert backoff.next_delay(refused=True) == 1
    assert backoff.next_delay(refused=True) == 2
    assert backoff.next_delay(refused=False) == 1
