"""Times that grow, whatever clock and restarts do."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candy.sealing.stamps import AHEAD_NS, Stamps, encode

WALL = 1_800_000_000 * 10**9


def test_tai64n() -> None:
    assert encode(1_800_000_002 * 10**9 + 5).hex() == "400000006b49d20c00000005"


def test_it_is_the_clock_or_one_more() -> None:
    stamps = Stamps()
    assert stamps.next(WALL)[0] == encode(WALL)
    assert stamps.next(WALL)[0] == encode(WALL + 1)
    assert stamps.next(WALL - 10**9)[0] == encode(WALL + 2)
    assert stamps.next(WALL + 10)[0] == encode(WALL + 10)


def test_a_bound_is_kept_before_it_is_passed_and_seldom() -> None:
    stamps = Stamps()
    _, first = stamps.next(WALL)
    assert first == b64encode(encode(WALL + AHEAD_NS)) + b"\n"
    assert stamps.next(WALL + AHEAD_NS)[1] is None
    assert stamps.next(WALL + AHEAD_NS)[1] == b64encode(encode(WALL + 2 * AHEAD_NS + 1)) + b"\n"


def test_a_bound_is_reserved_before_it_is_needed() -> None:
    stamps = Stamps()
    assert stamps.reserve(WALL) == b64encode(encode(WALL + AHEAD_NS)) + b"\n"
    assert stamps.reserve(WALL) is None
    assert stamps.next(WALL + AHEAD_NS // 3)[1] is None
    assert stamps.reserve(WALL + AHEAD_NS // 2 + 1) == b64encode(encode(WALL + AHEAD_NS * 3 // 2 + 1)) + b"\n"
    # Behind a clock that is set back the last time counts.
    assert stamps.next(WALL + 2 * AHEAD_NS)[1] is not None
    assert stamps.reserve(WALL) is None


def test_a_restarted_member_goes_on_above_the_bound() -> None:
    _, kept = Stamps().next(WALL)
    stamp, again = Stamps(kept).next(WALL - 10**12)
    assert stamp == encode(WALL + AHEAD_NS + 1)
    assert again == b64encode(encode(WALL + 2 * AHEAD_NS + 1)) + b"\n"


@pytest.mark.parametrize(
    "kept", [b"\n", b"x", b"AAAA\n", b64encode(bytes(12)), b64encode(encode(WALL)[:8] + b"\xff" * 4), b"\xff"]
)
def test_a_damaged_file_is_as_none(kept: bytes) -> None:
    stamps = Stamps(kept)
    assert stamps.is_damaged
    assert stamps.next(WALL)[0] == encode(WALL)
    assert not Stamps().is_damaged
    assert not Stamps(Stamps().next(WALL)[1]).is_damaged


@given(st.lists(st.tuples(st.integers(0, 2**61), st.booleans()), min_size=1))
def test_it_grows(steps: list[tuple[int, bool]]) -> None:
    stamps, kept, last = Stamps(), None, b""
    for wall, restarts in steps:
        if restarts:
            stamps = Stamps(kept)
        stamp, bound = stamps.next(wall)
        kept = bound or kept
        assert stamp > last
        last = stamp
