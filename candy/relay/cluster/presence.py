"""Which of the other relays are there, by what this one observes itself.

    heard(name) ◀── its beat       echoed() ◀── this relay's own beat, back from NATS       linked(name, is_up)
                      └─▶ gone(now): relays that were there and are not any more

Rules:
 1. A relay is gone when its link is down and its beat is missed, while NATS demonstrably works: MISSED beats of this
    relay's own have come back since the last one of the other's, over no less than GONE_S.
 2. Time is this observer's own, monotonic. No relay's clock is compared with another's.
 3. A relay that is gone and is heard again is there again.

No I/O and no clock.
"""

from dataclasses import dataclass
from typing import Final

BEAT_S: Final = 1.0
MISSED: Final = 3
GONE_S: Final = 3.0


@dataclass(slots=True)
class _Other:
    heard: float
    echoes: int = 0
    """Of this relay's beats, since."""
    is_linked: bool = False


class Presence:
    """See the rules above."""

    def __init__(self) -> None:
        self._others: dict[str, _Other] = {}
        self._last_echo = float("-inf")

    def heard(self, name: str, now: float) -> bool:
        """A beat of another relay; whether it was not there before."""
        other = self._others.get(name)
        if other is None:
            self._others[name] = _Other(now)
            return True
        other.heard, other.echoes = now, 0
        return False

    def echoed(self, now: float) -> None:
        """A beat of this relay's own has come back."""
        self._last_echo = now
        for other in self._others.values():
            other.echoes += 1

    def linked(self, name: str, is_up: bool) -> None:
        """The link to another relay has come up or gone down."""
        if (other := self._others.get(name)) is not None:
            other.is_linked = is_up

    def gone(self, now: float) -> list[str]:
        """Relays that are gone since the last call; they are forgotten."""
        found = [
            name
            for name, other in self._others.items()
            if not other.is_linked and other.echoes >= MISSED and now - other.heard >= GONE_S
        ]
        for name in found:
            del self._others[name]
        return found

    def works(self, now: float) -> bool:
        """Whether NATS demonstrably works."""
        return now - self._last_echo < MISSED * BEAT_S

    @property
    def there(self) -> list[str]:
        """Names, in order."""
        return sorted(self._others)
