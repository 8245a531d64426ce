"""Which counters are taken: each once, and none that is 65,536 below the greatest."""

from hypothesis import given
from hypothesis import strategies as st

from candy._fastpath import ReplayWindow

PACKETS = 65_536


class Model:
    """The obvious window: all that came."""

    def __init__(self) -> None:
        self.came: set[int] = set()

    def take(self, number: int) -> bool:
        if number in self.came or (self.came and number <= max(self.came) - PACKETS):
            return False
        self.came.add(number)
        return True


def test_in_order_it_is_a_number() -> None:
    window = ReplayWindow()
    for number in range(200_000):
        assert window.take(number)
    assert not window.take(199_999)
    assert not window.take(0)
    assert not window.has_bits


def test_exactly_at_its_edges() -> None:
    window = ReplayWindow()
    assert window.take(1_000_000)
    assert window.has_bits
    for number in (1_000_000 - PACKETS, 1_000_000 - PACKETS - 1, 0, 1_000_000):
        assert not window.take(number)
    assert window.take(1_000_000 - PACKETS + 1)
    assert not window.take(1_000_000 - PACKETS + 1)
    assert window.take(999_999)


def test_a_great_step_leaves_nothing_behind() -> None:
    window = ReplayWindow()
    assert window.take(0)
    assert window.take(2)
    assert window.take(1 << 40)
    assert not window.take(1)
    for number in range((1 << 40) - PACKETS + 1, 1 << 40):
        assert window.take(number)
        assert not window.take(number)


def test_a_step_forgets_nothing_that_came() -> None:
    window = ReplayWindow()
    came = [0, 1, 2, 5, 200, 263, 264, 500]
    for number in came:
        assert window.take(number)
    assert not any(window.take(number) for number in came)
    assert all(window.take(number) for number in range(500) if number not in came)


def test_without_memory_what_is_late_is_dropped() -> None:
    window = ReplayWindow(room=False)
    assert [window.take(n) for n in (0, 5, 3, 5, 6)] == [True, True, False, False, True]
    assert not window.has_bits


STEPS = st.one_of(
    st.integers(0, 100), st.integers(0, 3 * PACKETS), st.integers(PACKETS - 70, PACKETS + 70), st.integers(0, 1 << 48)
)


@given(st.lists(STEPS, max_size=100))
def test_as_a_set(numbers: list[int]) -> None:
    window, model = ReplayWindow(), Model()
    for number in numbers:
        assert window.take(number) == model.take(number), number


@given(st.lists(st.integers(-PACKETS - 70, 300), max_size=200))
def test_as_a_set_along_a_stream(steps: list[int]) -> None:
    window, model = ReplayWindow(), Model()
    at = 500_000
    for step in steps:
        at += max(step, 0)
        assert window.take(at + min(step, 0)) == model.take(at + min(step, 0))
