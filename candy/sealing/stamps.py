"""The time that a member puts into message 1 of its handshakes: TAI64N, and each greater than all before it.

    next(wall) ─▶ max(wall, the last one + 1 ns)         file handshake/NAME: a bound, above which the next start begins
    reserve(wall) ─▶ a further bound, before one is needed

Rules:
 1. A peer refuses a time that does not exceed the last one, so none may be used twice, whatever the clock does, also
    across restarts. What is kept is a bound up to AHEAD_NS ahead: it is written before a time above the one before is
    used, so that is seldom; mostly by reserve(), where no first packet of a pair waits for the disk.
 2. A damaged file is as none: then the clock alone says what is greater.
"""

from binascii import a2b_base64, b2a_base64
from typing import Final, NamedTuple

from candy.protocol.handshake import STAMP_BYTES

AHEAD_NS: Final = 600 * 10**9
_EPOCH_S: Final = (1 << 62) + 10
"""1970 in TAI64, as WireGuard counts it."""
_NS: Final = 10**9


class Moment(NamedTuple):
    """When something happens: `now` in seconds of CLOCK_BOOTTIME, so that a suspend counts, `wall` in Unix ns."""

    now: float
    wall: int


class Stamps:
    """See above.

    Args:
        kept: content of the file; None: there is none.
    """

    def __init__(self, kept: bytes | None = None) -> None:
        bound = _parsed(kept or b"")
        self.is_damaged = kept is not None and bound is None
        self._last = self._bound = bound or 0

    def next(self, wall: int) -> tuple[bytes, bytes | None]:
        """The next time, 12 bytes; and what the file has to hold before it is used, if that is something else.

        Args:
            wall: Unix ns.
        """
        self._last = max(wall, self._last + 1)
        return encode(self._last), None if self._last <= self._bound else self._go_beyond(self._last)

    def reserve(self, wall: int) -> bytes | None:
        """What the file has to hold for times of the next minutes, if that is something else."""
        least = max(wall, self._last + 1)
        return None if least + AHEAD_NS // 2 <= self._bound else self._go_beyond(least)

    def _go_beyond(self, wall: int) -> bytes:
        self._bound = wall + AHEAD_NS
        return b2a_base64(encode(self._bound))


def encode(wall: int) -> bytes:
    """TAI64N of Unix ns."""
    seconds, rest = divmod(wall, _NS)
    return (_EPOCH_S + seconds).to_bytes(8, "big") + rest.to_bytes(4, "big")


def _parsed(text: bytes) -> int | None:
    """The Unix ns that a file holds."""
    try:
        held = a2b_base64(text.strip(), strict_mode=True)
    except ValueError:
        return None
    seconds, rest = int.from_bytes(held[:8], "big") - _EPOCH_S, int.from_bytes(held[8:], "big")
    return seconds * _NS + rest if len(held) == STAMP_BYTES and seconds >= 0 and rest < _NS else None
