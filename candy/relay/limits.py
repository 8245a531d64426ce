"""What a member may carry: its rates, and its quota of a month.

    NetworkSettings ─▶ Limits ─┐
    by command ─▶ OwnLimits ───┴─▶ allowed(limits, own, used) ─▶ Allowed ─▶ a Limit for the engine
    leases ─▶ used ────────────┘

Rules:
 1. Rates are bits a second, quotas bytes in a month of UTC's; 0: none. What a device has of its own counts instead of
    its network's, one by one.
 2. What a member has sent and was sent counts, frames with their headers. Once that is its quota, both of its rates are
    the quota's rate until the month is over, unless they are lower.
 3. A device without a lease has no quota, for nothing would remember it.

Pure. `down` is towards the member, `up` what comes from it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

RATE_LEAST: Final = 8000
"""Bits a second. With less a member could not answer pings in time."""
RATE_MOST: Final = 10**12
QUOTA_MOST: Final = 10**17
QUOTA_RATE: Final = 1_000_000
"""Bits a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of each member of a network."""

    down: int = 0
    up: int = 0
    quota: int = 0
    quota_rate: int = QUOTA_RATE


class OwnLimits(NamedTuple):
    """Of one device, by command; None: as in its network."""

    down: int | None = None
    up: int | None = None
    quota: int | None = None


class Allowed(NamedTuple):
    """What holds for a member now."""

    down: int = 0
    up: int = 0
    quota: int = 0
    is_spent: bool = False
    """The quota is used up."""


NO_OWN: Final = OwnLimits()
UNLIMITED: Final = Allowed()


def allowed(limits: Limits, own: OwnLimits, used: int) -> Allowed:
    """By the rules above, for one that has carried so many bytes in this month."""
    down = limits.down if own.down is None else own.down
    up = limits.up if own.up is None else own.up
    quota = limits.quota if own.quota is None else own.quota
    is_spent = 0 < quota <= used
    if is_spent:
        down, up = _lower(down, limits.quota_rate), _lower(up, limits.quota_rate)
    return Allowed(down, up, quota, is_spent)


def month_of(wall: int) -> int:
    """The month of a time in Unix seconds, counted from year 0 on."""
    moment = datetime.fromtimestamp(wall, UTC)
    return moment.year * 12 + moment.month - 1


def bytes_per_s(bits: int) -> int:
    """Of a rate, for the engine; 0 stays none."""
    return bits // 8


def _lower(rate: int, other: int) -> int:
    return min(rate, other) if rate and other else max(rate, other)
