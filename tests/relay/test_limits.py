"""What a member may carry, by its network's limits, its own, and what it has used of its quota."""

import pytest

from candy.relay.limits import NO_OWN, UNLIMITED, Allowed, Limits, OwnLimits, allowed, bytes_per_s, month_of

NETWORK = Limits(down=10_000_000, up=5_000_000, quota=1000, quota_rate=1_000_000)


@pytest.mark.parametrize(
    ("limits", "own", "used", "expected"),
    [
        (Limits(), NO_OWN, 1 << 60, UNLIMITED),
        (NETWORK, NO_OWN, 0, Allowed(10_000_000, 5_000_000, 1000)),
        (NETWORK, NO_OWN, 999, Allowed(10_000_000, 5_000_000, 1000)),
        (NETWORK, NO_OWN, 1000, Allowed(1_000_000, 1_000_000, 1000, is_spent=True)),
        (NETWORK, OwnLimits(up=500_000), 1000, Allowed(1_000_000, 500_000, 1000, is_spent=True)),
        (NETWORK, OwnLimits(down=0), 0, Allowed(0, 5_000_000, 1000)),
        (NETWORK, OwnLimits(down=0), 1000, Allowed(1_000_000, 1_000_000, 1000, is_spent=True)),
        (NETWORK, OwnLimits(quota=0), 1 << 60, Allowed(10_000_000, 5_000_000)),
        (NETWORK, OwnLimits(quota=2000), 1500, Allowed(10_000_000, 5_000_000, 2000)),
        (Limits(quota=10, quota_rate=0), NO_OWN, 10, Allowed(0, 0, 10, is_spent=True)),
    ],
)
def test_what_holds(limits: Limits, own: OwnLimits, used: int, expected: Allowed) -> None:
    assert allowed(limits, own, used) == expected


@pytest.mark.parametrize(
    ("wall", "month"),
    [
        (0, 1970 * 12),
        (1_798_761_599, 2026 * 12 + 11),  # 2026-12-31 23:59:59
        (1_798_761_600, 2027 * 12),
        (1_709_251_199, 2024 * 12 + 1),  # 2024-02-29 23:59:59
        (1_709_251_200, 2024 * 12 + 2),
    ],
)
def test_months_are_of_utc(wall: int, month: int) -> None:
    assert month_of(wall) == month


def test_a_rate_for_the_engine() -> None:
    assert (bytes_per_s(0), bytes_per_s(8000), bytes_per_s(10_000_001)) == (0, 1000, 1_250_000)
