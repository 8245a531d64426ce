"""What follows the end of a connection, or of an attempt: how long to wait, what to say, and as whom to come back.

    Ending ──▶ Sequels ──▶ Sequel: text, delay, is_news, asks_anew, needs_vmac
                       ──▶ ping_after of the next connection

Rules:
 1. A reason is said once for each relay, and again once a connection has held. A replacement is always said, for it is
    somebody else's doing.
 2. A member that was replaced has a double: a copy of its disk or state folder, or a second process that uses it. With
    a granted address it asks for none in particular next time, so that it gets a free one and leaves the other in
    peace. With an address of its own it can only wait, longer each time.
 3. A change of the way to the relay cuts the wait short, but not for the sake of a double.
 4. `REPLACED_MAX` replacements in a row mean that this does not do: a member with a granted address needs another VMAC.
    One with a device key has but one address, and never makes itself another key: it can only wait.
 5. `CUTS` connections that broke off after the same silence were cut by something on the way that ends silent ones. The
    relay refused nothing, so the pause does not grow, and the next connections ping before that silence is over.
 6. While there are relays that were not tried since a connection held, the next one is gone to within NEXT_S. Then the
    pause is that of the whole round: as after a refusal, if one of them has refused.

No I/O, no clock; randomness is an argument. This module does not know how a connection is made, nor why it ended.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from candy.member.backoff import Backoff, Row
from candy.member.conversation import SILENCE_S, Ending

REPLACED_MAX = 3
CUTS = 3
SAME_S = 1.0
"""Silences that differ by no more are the same."""
LONGEST_S = 20.0
"""By then a member has pinged: who cuts it now does not do so for its silence."""
NEXT_S = 0.8
"""The longest pause before another relay: members that all lost the same one come within this."""
RELAYS_SAID_MAX = 64
"""Of so many relays it is known what was said."""
PINGS = 3
"""In a silence after which connections are cut: one may be late, and one lost."""


@dataclass(frozen=True, slots=True)
class Sequel:
    """What to do before the next attempt."""

    text: str
    """What to say."""
    delay: float
    """Seconds."""
    is_news: bool
    """The text is worth a warning."""
    asks_anew: bool
    """Ask for no address in particular."""
    needs_vmac: bool
    """Make a new VMAC."""
    stands: bool
    """Wait all that long, whatever changes on this machine's way to the relay."""


class Sequels:
    """Over all connections of one member.

    Args:
        random: a number in [0, 1), uniformly distributed.
        is_granted: the relay grants this member its address.
    """

    def __init__(self, random: Callable[[], float], *, is_granted: bool) -> None:
        self._random = random
        self._backoff = Backoff(random)
        self._is_granted = is_granted
        self._said: dict[str, str] = {}
        """What was said last, by relay."""
        self._is_refused = False
        """By one of those that were tried in this round."""
        self._silences: deque[float] = deque(maxlen=CUTS)
        """After which connections broke off, in a row."""
        self.ping_after: float | None = None
        """Seconds of silence after which the next connection pings; None: as usual."""

    def after(self, ending: Ending, relay: str = "", *, is_over: bool = True) -> Sequel:
        """Count one more ending; what follows from it.

        Args:
            relay: at which.
            is_over: there is no other relay that was not tried since a connection held.
        """
        text, is_held = ending.text, ending.held
        row = Row.REPLACED if ending.replaced else Row.REFUSED if ending.refused else Row.LOST
        if ending.silence is not None and (silence := self._cut_after(ending.silence)):
            self.ping_after = silence / PINGS
            text = (
                f"cut after {silence:.0f} s of silence, {CUTS} times in a row: is there a proxy on the way that ends "
                f"silent connections? Pinging after {self.ping_after:.1f} s from now on"
            )
            row, is_held = Row.LOST, True
        if is_held:
            self._backoff.held()
        if is_held or ending.replaced or len(self._said) > RELAYS_SAID_MAX:
            self._said.clear()
        is_news = text != self._said.get(relay)
        self._said[relay] = text
        self._is_refused = not is_held and (self._is_refused or row is Row.REFUSED)
        if is_over or ending.replaced:
            if row is Row.LOST and self._is_refused:
                row = Row.REFUSED
            delay = self._backoff.next_delay(row)
            self._is_refused = False
        else:
            delay = NEXT_S * self._random()
        has_other = self._is_granted and not ending.by_key
        needs_vmac = has_other and self._backoff.replacements == REPLACED_MAX
        if needs_vmac:
            self._backoff.held()
        return Sequel(text, delay, is_news, has_other and ending.replaced, needs_vmac, stands=ending.replaced)

    def _cut_after(self, silence: float) -> float:
        """The silence after which connections are cut, once several were; 0 as long as that is not known."""
        if not SILENCE_S <= silence < LONGEST_S:
            self._silences.clear()
            return 0.0
        self._silences.append(silence)
        least = min(self._silences)
        if len(self._silences) < CUTS or max(self._silences) - least > SAME_S:
            return 0.0
        self._silences.clear()
        return least
