"""Whether the relay in use still says something, for a member that has another one to go to.

    look(silent) ─▶ NOTHING │ ASK: ping it │ DOUBT: go to another one beside it        delay: until the next look

Rules:
 1. Behind ASK_S without a byte it is asked, and again each ASK_S.
 2. Behind DOUBT_S to DOUBT_S + SPREAD_S it is in doubt, once until it is heard again: no sooner, for it was asked
    and TCP has repeated what was lost thrice; spread, so that the members of one dead relay do not all move at once.
 3. The engine gives a connection up later (candy.member.lifecycle), whether or not there is another relay.

No I/O, no clock; randomness is an argument.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

ASK_S: Final = 3.0
DOUBT_S: Final = 5.0
SPREAD_S: Final = 1.0
SOON_S: Final = 0.05
"""The least time between two looks."""


class Look(Enum):
    """What follows from one."""

    NOTHING = auto()
    ASK = auto()
    DOUBT = auto()


class Silence:
    """Of one connection after another; see the rules above.

    Args:
        random: a number in [0, 1), uniformly distributed.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._doubt_s = DOUBT_S
        self._asked = 0
        """How often, in the silence that lasts."""
        self._is_doubted = False
        self.delay = ASK_S
        """Seconds until the next look."""

    def look(self, silent: float) -> Look:
        """Nothing was heard for so many seconds."""
        if silent < ASK_S:
            self._asked, self._is_doubted = 0, False
            self.delay = max(ASK_S - silent, SOON_S)
            return Look.NOTHING
        if not self._asked:
            self._doubt_s = DOUBT_S + SPREAD_S * self._random()
        if silent >= self._doubt_s and not self._is_doubted:
            self._is_doubted = True
            self.delay = ASK_S
            return Look.DOUBT
        is_due = silent >= ASK_S * (self._asked + 1)
        self._asked += is_due
        left = ASK_S * (self._asked + 1) - silent
        if not self._is_doubted:
            left = min(left, self._doubt_s - silent)
        self.delay = max(left, SOON_S)
        return Look.ASK if is_due else Look.NOTHING
