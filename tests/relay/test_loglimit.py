"""The limit on lines of the log: first at once, then one a minute, and no flood hides another kind."""

import pytest

from candy.protocol.actions import Log
from candy.relay.loglimit import DEVICES_MAX, PERIOD_S, SOURCES_MAX, LineLimiter


def line(number: int = 0, kind: str | None = "password", source: str = "203.0.113.1") -> Log:
    return Log("warning", f"{source}: {kind} {number}", kind, source)


@pytest.fixture
def limiter() -> LineLimiter:
    return LineLimiter()


def test_the_first_at_once_and_then_one_a_minute(limiter: LineLimiter) -> None:
    assert limiter.next_deadline() is None
    assert [limiter.passes(line(number), 100.0 + number) for number in range(50)] == [True] + [False] * 49
    assert limiter.next_deadline() == 160.0
    assert limiter.expired(159.9) == []
    assert limiter.expired(160.0) == [Log("warning", "203.0.113.1: password 49 … and 48 more")]
    assert not limiter.passes(line(50), 161.0)
    # One line stands for itself.
    assert limiter.expired(220.0) == [line(50)]
    assert limiter.expired(280.0) == []
    assert (len(limiter), limiter.next_deadline()) == (0, None)
    assert limiter.passes(line(51), 281.0)


def test_some_may_be_written_at_once(limiter: LineLimiter) -> None:
    lines = [Log("warning", f"refused {number}", "password", "203.0.113.1", at_once=3) for number in range(6)]
    assert [limiter.passes(each, 100.0) for each in lines] == [True, True, True, False, False, False]
    assert limiter.expired(160.0) == [Log("warning", "refused 5 … and 2 more")]
    assert [limiter.passes(each, 161.0) for each in lines] == [True, True, False, False, False, False]


def test_kinds_and_sources_have_limits_of_their_own(limiter: LineLimiter) -> None:
    for _ in range(1000):
        limiter.passes(line(), 0.0)
    assert limiter.passes(line(kind="clock"), 1.0)
    assert limiter.passes(line(source="203.0.113.2"), 2.0)
    assert not limiter.passes(line(kind="clock"), 3.0)


def test_what_peers_do_not_cause_is_exempt(limiter: LineLimiter) -> None:
    assert all(limiter.passes(line(kind=None), 0.0) for _ in range(1000))
    assert len(limiter) == 0


def of_member(device: int, number: int = 0, kind: str = "logged in") -> Log:
    return Log("info", f"{device}: {kind} {number}", kind, f"{device:016x}", at_once=3, of_member=True)


def test_a_member_that_comes_and_goes_all_the_time(limiter: LineLimiter) -> None:
    """A few lines a minute, however often; and none of another member's is hidden."""
    for second in range(60):
        came = limiter.passes(of_member(7, second), 100.0 + second)
        went = limiter.passes(of_member(7, second, "logged out"), 100.0 + second)
        assert came == went == (second < 3)
    assert limiter.passes(of_member(8), 159.0)
    assert limiter.expired(160.0) == [
        Log("info", "7: logged in 59 … and 56 more"),
        Log("info", "7: logged out 59 … and 56 more"),
    ]


def test_a_mass_reconnection_of_members_hides_nothing(limiter: LineLimiter) -> None:
    """Beyond those that are told apart lines are written, and cost no memory."""
    everybody = [of_member(device) for device in range(3 * DEVICES_MAX)]
    assert all(limiter.passes(each, 0.0) for each in everybody)
    assert len(limiter) == DEVICES_MAX
    assert all(limiter.passes(everybody[-1], 1.0) for _ in range(10))
    assert [limiter.passes(everybody[0], 2.0) for _ in range(3)] == [True, True, False]
    assert limiter.expired(PERIOD_S) == [everybody[0]]


def test_a_flood_from_everywhere(limiter: LineLimiter) -> None:
    """It is a few lines, costs little memory, and hides no line of another kind."""
    flood = [line(number, source=f"2001:db8::{number:x}") for number in range(10_000)]
    assert sum(limiter.passes(each, 0.0) for each in flood) == SOURCES_MAX + 1
    assert len(limiter) == SOURCES_MAX + 1
    assert limiter.passes(line(kind="clock", source="2001:db8::270f"), 0.0)
    # A source that is told apart still is.
    assert not limiter.passes(flood[0], 1.0)
    rest = 10_000 - SOURCES_MAX - 1
    assert limiter.expired(PERIOD_S) == [
        flood[0],
        Log("warning", f"{flood[-1].text} … and {rest - 1} more from several addresses"),
    ]
    # Those that fell silent leave room for others.
    assert limiter.passes(line(source="2001:db8:1::"), PERIOD_S)
    assert len(limiter) == 3


def test_what_was_counted_is_told_at_the_end(limiter: LineLimiter) -> None:
    for number in range(3):
        limiter.passes(line(number), 0.0)
    limiter.passes(line(kind="clock"), 0.0)
    assert limiter.rest() == [Log("warning", "203.0.113.1: password 2 … and 1 more")]
