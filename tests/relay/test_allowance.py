"""An allowance: how many uses, within which time, for whom, and who is forgotten."""

from candy.relay.allowance import Allowance


def uses(allowance: Allowance[str], key: str, *times: float) -> list[bool]:
    return [allowance.use(key, time) for time in times]


def test_it_is_used_up_by_the_last_use_that_it_has() -> None:
    allowance: Allowance[str] = Allowance(3, 60.0)
    assert not allowance.is_used_up("a", 0.0)
    assert uses(allowance, "a", 0.0, 1.0) == [False, False]
    assert not allowance.is_used_up("a", 1.0)
    assert uses(allowance, "a", 2.0) == [True]
    assert allowance.is_used_up("a", 2.0)


def test_it_is_free_again_once_the_first_use_has_left_the_window() -> None:
    allowance: Allowance[str] = Allowance(3, 60.0)
    uses(allowance, "a", 0.0, 1.0, 2.0)
    assert allowance.is_used_up("a", 59.9)
    assert not allowance.is_used_up("a", 60.0)
    assert uses(allowance, "a", 60.0) == [True]
    assert allowance.is_used_up("a", 60.9)
    assert not allowance.is_used_up("a", 61.0)


def test_uses_beyond_the_limit_keep_it_used_up() -> None:
    allowance: Allowance[str] = Allowance(2, 60.0)
    assert uses(allowance, "a", *range(100)) == [False, True, *[False] * 98]
    assert allowance.is_used_up("a", 157.0)
    assert not allowance.is_used_up("a", 158.0)


def test_at_the_rate_of_the_limit_it_is_never_used_up() -> None:
    allowance: Allowance[str] = Allowance(60, 60.0)
    for second in range(1000):
        assert not allowance.is_used_up("a", second)
        allowance.use("a", second)


def test_each_key_has_its_own() -> None:
    allowance: Allowance[str] = Allowance(1, 60.0)
    assert uses(allowance, "a", 0.0) == [True]
    assert not allowance.is_used_up("b", 0.0)
    assert uses(allowance, "b", 0.0) == [True]


def test_keys_are_bounded_and_the_one_that_was_used_longest_ago_is_forgotten() -> None:
    allowance: Allowance[str] = Allowance(1, 60.0, keys=2)
    for key in ("a", "b", "a", "c"):
        allowance.use(key, 0.0)
    assert len(allowance) == 2
    assert [allowance.is_used_up(key, 0.0) for key in "abc"] == [True, False, True]
