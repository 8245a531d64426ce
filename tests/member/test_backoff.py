"""Every step of the rows at its bounds, and what starts a row anew."""

import pytest

from candy.member.backoff import LEAST_REPLACED_S, LEAST_S, Backoff, Row

ROWS = [
    (Row.LOST, [(1, 1.5), (2, 3), (8 / 3, 4), (8 / 3, 4)]),
    (Row.REFUSED, [(1, 1.5), (2, 3), (4, 6), (8, 12), (16, 24), (20, 30), (20, 30)]),
    (Row.REPLACED, [(8, 12), (16, 24), (32, 48), (64, 96), (128, 192), (200, 300), (200, 300)]),
]


@pytest.mark.parametrize(("row", "steps"), ROWS)
@pytest.mark.parametrize("end", [0, 1])
def test_row(row: Row, steps: list[tuple[float, float]], end: int) -> None:
    backoff = Backoff(lambda: float(end))
    assert [backoff.next_delay(row) for _ in steps] == pytest.approx([step[end] for step in steps])


def test_uniform_between_the_bounds() -> None:
    assert Backoff(lambda: 0.5).next_delay(Row.LOST) == 1.25


@pytest.mark.parametrize(
    ("row", "least", "most"), [(Row.LOST, LEAST_S, 8 / 3), (Row.REFUSED, LEAST_S, 20), (Row.REPLACED, 8, 200)]
)
def test_a_row_has_no_end(row: Row, least: float, most: float) -> None:
    backoff = Backoff(lambda: 0.0)
    delays = [backoff.next_delay(row) for _ in range(5000)]
    assert min(delays) == least
    assert delays[-1] == pytest.approx(most)


@pytest.mark.parametrize(("row", "first"), [(Row.REFUSED, LEAST_S), (Row.REPLACED, LEAST_REPLACED_S)])
def test_a_connection_that_held_starts_anew(row: Row, first: float) -> None:
    backoff = Backoff(lambda: 0.0)
    for _ in range(9):
        backoff.next_delay(row)
    backoff.held()
    assert [backoff.next_delay(row) for _ in range(2)] == [first, 2 * first]


def test_a_failure_of_another_sort_starts_anew() -> None:
    backoff = Backoff(lambda: 0.0)
    for _ in range(9):
        backoff.next_delay(Row.LOST)
    assert backoff.next_delay(Row.REFUSED) == 1
    assert backoff.next_delay(Row.REFUSED) == 2
    assert backoff.next_delay(Row.LOST) == 1


def test_only_the_row_of_the_replaced_goes_on_behind_others() -> None:
    """The machine that replaced this member did not go away because the relay did."""
    backoff = Backoff(lambda: 0.0)
    rows = [Row.REPLACED, Row.LOST, Row.REPLACED, Row.REFUSED, Row.REPLACED, Row.LOST]
    assert [backoff.next_delay(row) for row in rows] == [8, 1, 16, 1, 32, 1]
    assert backoff.replacements == 3
