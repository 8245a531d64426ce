"""Digests against recorded ones, the clock window at its bounds, replays, and the limit on failures."""

from ipaddress import IPv4Address

import pytest
from kit.recorded import COMPUTED, MESSAGES, PASSWORD

from candy.protocol import auth, wire

WALL = 1_700_000_000


def digest_of(message: wire.Message) -> bytes:
    match message:
        case wire.Vmac():
            return auth.vmac_digest(PASSWORD, message.vmac, message.timestamp)
        case wire.Expttun():
            return auth.expttun_digest(PASSWORD, message.timestamp)
        case wire.Auth():
            return auth.auth_digest(PASSWORD, message.ip, message.timestamp)
        case _:
            pytest.fail(f"{message} has no digest")


@pytest.mark.parametrize("step", MESSAGES)
def test_digests_of_the_recorded_messages(step: dict[str, str]) -> None:
    payload = bytes.fromhex(step["hex"])
    digest = digest_of(wire.decode(payload))
    assert digest == payload[-32:]
    assert auth.digest_matches(digest, payload[-32:])


@pytest.mark.parametrize("entry", COMPUTED)
def test_computed_auth(entry: dict[str, str]) -> None:
    ip, timestamp = IPv4Address(entry["ip"]), int(entry["timestamp"])
    digest = auth.auth_digest(entry["password"].encode(), ip, timestamp)
    assert wire.Auth(ip, timestamp, digest).encode().hex() == entry["hex"]


def test_there_is_a_computed_auth() -> None:
    assert len(COMPUTED) == 1


@pytest.mark.parametrize("bit", [0, 7, 100, 255])
def test_one_wrong_bit_does_not_match(bit: int) -> None:
    digest = auth.expttun_digest(PASSWORD, WALL)
    wrong = (int.from_bytes(digest) ^ 1 << bit).to_bytes(32)
    assert not auth.digest_matches(digest, wrong)
    assert auth.digest_matches(digest, bytes(digest))


@pytest.mark.parametrize("timestamp", [-(2**63), 2**63 - 1, 0, -1])
def test_digests_take_every_int64(timestamp: int) -> None:
    digests = {
        auth.auth_digest(PASSWORD, IPv4Address("10.0.0.1"), timestamp),
        auth.expttun_digest(PASSWORD, timestamp),
        auth.vmac_digest(PASSWORD, bytes(16), timestamp),
    }
    assert [len(digest) for digest in digests] == [32, 32, 32]


@pytest.mark.parametrize(
    ("timestamp", "timely"),
    [
        (WALL, True),
        (WALL - 300, True),
        (WALL + 300, True),
        (WALL - 301, False),
        (WALL + 301, False),
        (0, False),
        (-(2**63), False),
        (2**63 - 1, False),
    ],
)
def test_the_clock_window(timestamp: int, timely: bool) -> None:
    assert auth.is_timely(timestamp, WALL) is timely


def test_the_clock_window_has_the_given_width() -> None:
    assert auth.is_timely(WALL + 5, WALL, 5)
    assert not auth.is_timely(WALL + 6, WALL, 5)


@pytest.mark.parametrize("skew", [-300, 0, 300])
def test_a_digest_is_remembered_as_long_as_it_is_timely(skew: int) -> None:
    memory = auth.ReplayMemory()
    timestamp = WALL + skew
    assert memory.is_first(b"a" * 32, timestamp, WALL)
    for wall in range(WALL, timestamp + 301):
        assert not memory.is_first(b"a" * 32, timestamp, wall)
    assert len(memory) == 1
    memory.is_first(b"b" * 32, timestamp + 301, timestamp + 301)
    assert len(memory) == 1


def test_digests_of_one_second_are_told_apart() -> None:
    memory = auth.ReplayMemory()
    assert memory.is_first(b"a" * 32, WALL, WALL)
    assert memory.is_first(b"b" * 32, WALL, WALL)
    assert not memory.is_first(b"a" * 32, WALL, WALL)
    assert not memory.is_first(b"b" * 32, WALL, WALL)


def test_the_memory_is_bounded_by_the_window() -> None:
    memory = auth.ReplayMemory(tolerance=5)
    for second in range(1000):
        for skew in (-5, 0, 5):
            assert memory.is_first(bytes([skew % 256]) + second.to_bytes(31), WALL + second + skew, WALL + second)
        assert len(memory) <= 3 * 11


@pytest.mark.parametrize("jump", [10**12, -(10**12), -600, 600])
def test_the_memory_survives_a_clock_that_jumps(jump: int) -> None:
    memory = auth.ReplayMemory(tolerance=5)
    for second in range(20):
        memory.is_first(second.to_bytes(32), WALL + second, WALL + second)
    for second in range(20):
        wall = WALL + jump + second
        assert memory.is_first(b"new" + second.to_bytes(29), wall, wall)
        assert not memory.is_first(b"new" + second.to_bytes(29), wall, wall)
    # Whatever was remembered before a clock was set back goes when time has passed it again.
    memory.is_first(b"last" * 8, WALL + 10**13, WALL + 10**13)
    assert len(memory) == 1


def test_sixty_failures_a_minute_cost_nothing() -> None:
    limiter = auth.FailureLimiter()
    delays = [limiter.failed("203.0.113.5", second) for second in range(0, 3600)]
    assert delays == [0.0] * 3600


def test_the_sixty_first_within_a_minute_is_delayed_and_the_delay_grows_to_a_bound() -> None:
    limiter = auth.FailureLimiter()
    delays = [limiter.failed("203.0.113.5", 100.0 + count / 1000) for count in range(200)]
    assert delays[:60] == [0.0] * 60
    assert delays[60] == 2.0
    assert delays[60:] == sorted(delays[60:])
    assert delays[61] > delays[60]
    assert delays[-1] == max(delays) == 10.0
    assert limiter.failed("203.0.113.5", 100.2 + 59) == 10.0
    assert limiter.failed("203.0.113.5", 300.0) == 0.0


def test_the_delay_starts_small_again_after_a_quiet_time() -> None:
    limiter = auth.FailureLimiter(limit=1)
    assert [limiter.failed("203.0.113.5", 0.0) for _ in range(100)][-1] == 10.0
    assert [limiter.failed("203.0.113.5", second) for second in (60.0, 61.0)] == [0.0, 2.0]


def test_failures_are_counted_per_source() -> None:
    limiter = auth.FailureLimiter(limit=1)
    assert limiter.failed("203.0.113.5", 0.0) == 0.0
    assert limiter.failed("203.0.113.6", 0.0) == 0.0
    assert limiter.failed("203.0.113.5", 0.0) > 0.0


@pytest.mark.parametrize("source", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_exempt(source: str) -> None:
    limiter = auth.FailureLimiter(limit=1)
    assert [limiter.failed(source, 0.0) for _ in range(10)] == [0.0] * 10
    assert len(limiter) == 0


@pytest.mark.parametrize("source", ["12.7.0.1", "128.0.0.1", "::2", "fe80::1", "2001:db8::127.0.0.1"])
def test_only_loopback_is_exempt(source: str) -> None:
    limiter = auth.FailureLimiter(limit=1)
    assert limiter.failed(source, 0.0) == 0.0
    assert limiter.failed(source, 0.0) > 0.0


def test_sources_are_bounded_and_the_one_that_failed_longest_ago_is_forgotten() -> None:
    limiter = auth.FailureLimiter(limit=1, sources=2)
    limiter.failed("203.0.113.1", 0.0)
    limiter.failed("203.0.113.2", 0.0)
    assert limiter.failed("203.0.113.1", 0.0) > 0.0
    limiter.failed("203.0.113.3", 0.0)
    assert len(limiter) == 2
    assert limiter.failed("203.0.113.1", 0.0) > 0.0
    assert limiter.failed("203.0.113.2", 0.0) == 0.0
