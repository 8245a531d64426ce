"""The limit on wrong hashes: per source, from which failure on, and how the delay grows and ends."""

import pytest

from candy.relay.guessing import FailureLimiter


def test_sixty_failures_a_minute_cost_nothing() -> None:
    limiter = FailureLimiter(60)
    delays = [limiter.failed("203.0.113.5", second) for second in range(0, 3600)]
    assert delays == [0.0] * 3600


def test_the_sixty_first_within_a_minute_is_delayed_and_the_delay_grows_to_a_bound() -> None:
    limiter = FailureLimiter(60)
    delays = [limiter.failed("203.0.113.5", 100.0 + count / 1000) for count in range(200)]
    assert delays[:60] == [0.0] * 60
    assert delays[60] == 2.0
    assert delays[60:] == sorted(delays[60:])
    assert delays[61] > delays[60]
    assert delays[-1] == max(delays) == 10.0
    assert limiter.failed("203.0.113.5", 100.2 + 59) == 10.0
    assert limiter.failed("203.0.113.5", 300.0) == 0.0


def test_the_delay_starts_small_again_after_a_quiet_time() -> None:
    limiter = FailureLimiter(limit=1)
    assert [limiter.failed("203.0.113.5", 0.0) for _ in range(100)][-1] == 10.0
    assert [limiter.failed("203.0.113.5", second) for second in (60.0, 61.0)] == [0.0, 2.0]


def test_failures_are_counted_per_source() -> None:
    limiter = FailureLimiter(limit=1)
    assert limiter.failed("203.0.113.5", 0.0) == 0.0
    assert limiter.failed("203.0.113.6", 0.0) == 0.0
    assert limiter.failed("203.0.113.5", 0.0) > 0.0


@pytest.mark.parametrize("source", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_exempt(source: str) -> None:
    limiter = FailureLimiter(limit=1)
    assert [limiter.failed(source, 0.0) for _ in range(10)] == [0.0] * 10
    assert len(limiter) == 0


@pytest.mark.parametrize("source", ["12.7.0.1", "128.0.0.1", "::2", "fe80::1", "2001:db8::127.0.0.1"])
def test_only_loopback_is_exempt(source: str) -> None:
    limiter = FailureLimiter(limit=1)
    assert limiter.failed(source, 0.0) == 0.0
    assert limiter.failed(source, 0.0) > 0.0


def test_sources_are_bounded_and_the_one_that_failed_longest_ago_is_forgotten() -> None:
    limiter = FailureLimiter(limit=1, sources=2)
    limiter.failed("203.0.113.1", 0.0)
    limiter.failed("203.0.113.2", 0.0)
    assert limiter.failed("203.0.113.1", 0.0) > 0.0
    limiter.failed("203.0.113.3", 0.0)
    assert len(limiter) == 2
    assert limiter.failed("203.0.113.1", 0.0) > 0.0
    assert limiter.failed("203.0.113.2", 0.0) == 0.0
