"""What follows the end of a connection, or of an attempt: how long to wait, what to say, and as whom to come back.

    Ending ──▶ Sequels ──▶ Sequel: delay, is_news, asks_anew, needs_vmac

Rules:
 1. A reason is said once, and again once a connection has held. A replacement is always said, for it is somebody
    else's doing.
 2. A member that was replaced has a double: a copy of its disk or state folder, or a second process that uses it. With
    a granted address it asks for none in particular next time, so that it gets a free one and leaves the other in
    peace. With an address of its own it can only wait, longer each time.
 3. A change of the way to the relay cuts the wait short, but not for the sake of a double.
 4. `REPLACED_MAX` replacements in a row mean that this does not do: a member with a granted address needs another VMAC.

No I/O, no clock; randomness is an argument. This module does not know how a connection is made, nor why it ended.
"""

from collections.abc import Callable
from dataclasses import dataclass

from candy.member.backoff import Backoff, Row
from candy.member.conversation import Ending

REPLACED_MAX = 3


@dataclass(frozen=True, slots=True)
class Sequel:
    """What to do before the next attempt."""

    delay: float
    """Seconds."""
    is_news: bool
    """The ending's text is worth a warning."""
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
        self._backoff = Backoff(random)
        self._is_granted = is_granted
        self._said = ""

    def after(self, ending: Ending) -> Sequel:
        """Count one more ending; what follows from it."""
        row = Row.REPLACED if ending.replaced else Row.REFUSED if ending.refused else Row.LOST
        if ending.held:
            self._backoff.held()
        if ending.held or ending.replaced:
            self._said = ""
        delay = self._backoff.next_delay(row)
        is_news = ending.text != self._said
        self._said = ending.text
        needs_vmac = self._is_granted and self._backoff.replacements == REPLACED_MAX
        if needs_vmac:
            self._backoff.held()
        return Sequel(delay, is_news, self._is_granted and ending.replaced, needs_vmac, stands=ending.replaced)
