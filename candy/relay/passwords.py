"""The passwords of one network: several may hold at a time, so that an old one can be replaced without an hour zero.

    digest of a message ─▶ prove(digest_of, received) ─▶ the Password with which it was made, or None
    holds(password, wall) ─▶ whether who came by it may stay

Rules:
 1. Each has a name for its owner, in no message, and perhaps an end. From its end on it is as wrong as any other.
 2. A session is one member's, who has one password: the first that it proves is the session's for good
    (candy.relay.session).
 3. A password that does not hold any more, because it was taken away or came to its end, lets nobody stay who came by
    it.

 4. As soon as one of them is `legacy`, old clients log in by such ones alone: their log-in can be recorded and guessed
    on, and must not give away another password. As long as none is, they log in by any.

This module knows neither sessions nor files. `wall` is in Unix seconds, `now` in seconds of a monotonic clock.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from math import inf

from candy.protocol.auth import digest_matches

PASSWORDS_MAX = 16
"""Of one network, because a wrong digest is compared with that of each."""
NAME_MAX = 63
"""Characters."""
LOOK_S = 60.0
"""Between two looks at passwords that come to an end, at most: the machine's clock may be set meanwhile."""


@dataclass(frozen=True, slots=True)
class Password:
    """One of them."""

    secret: bytes = field(repr=False)
    """Raw bytes, as they go into every digest."""
    name: str = ""
    until: float = inf
    """Unix seconds: from then on it does not hold."""
    legacy: bool = False
    """For old clients, and for no log-in with keys."""
    addresses: IPv4Network | None = None
    """Those that who came by it may have; None: any."""

    def holds(self, wall: float) -> bool:
        return wall < self.until


class Passwords:
    """Those of one network. Immutable."""

    __slots__ = ("_all", "_of_old_clients")

    def __init__(self, passwords: Iterable[Password]) -> None:
        self._all = tuple(passwords)
        self._of_old_clients = tuple(each for each in self._all if each.legacy) or self._all

    def __iter__(self) -> Iterator[Password]:
        return iter(self._all)

    def prove(self, digest_of: Callable[[bytes], bytes], received: bytes) -> Password | None:
        """The password from which an old client's digest was made, held or not.

        Args:
            digest_of: the digest of the message with a password's raw bytes.
            received: the digest that came with it.
        """
        proven = [each for each in self._of_old_clients if digest_matches(digest_of(each.secret), received)]
        return proven[0] if proven else None

    def holds(self, password: Password, wall: float) -> bool:
        """Whether who came by this password, of this list or of one before it, may stay."""
        return any(each.secret == password.secret and each.holds(wall) for each in self._all)

    @property
    def are_shared(self) -> bool:
        """Whether old clients log in by the same as who has a key: none is for them alone."""
        return not any(each.legacy for each in self._all)

    def named(self, name: str) -> Password | None:
        """The first one of this name."""
        return next((each for each in self._all if each.name == name), None)

    @property
    def secrets(self) -> list[bytes]:
        """Of all, in their order."""
        return [each.secret for each in self._all]

    def with_keys(self, wall: float) -> list[Password]:
        """Those that hold, and are not for old clients alone."""
        return [each for each in self._all if each.holds(wall) and not each.legacy]

    def holding(self, wall: float) -> int:
        """How many of them hold."""
        return sum(each.holds(wall) for each in self._all)

    def next_end(self, wall: float) -> float:
        """When the next of them that still hold comes to its end, Unix seconds; inf: none does."""
        return min((each.until for each in self._all if each.holds(wall)), default=inf)


class Circles:
    """Who may tell whom where it is (UDP4CONN), as numbers for the engine: those who have one password, because what
    they then send each other directly is under it, and lets who knows neither of two guess at both."""

    __slots__ = ("_next", "_numbers")

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._next = 1

    def of(self, password: Password | None) -> int:
        """Of who came by this; 0, of nobody else: by none."""
        if password is None:
            return 0
        if password.secret not in self._numbers:
            self._numbers[password.secret] = self._next
            self._next += 1
        return self._numbers[password.secret]

    def keep(self, passwords: Passwords) -> None:
        """Forget all others."""
        self._numbers = {each: self._numbers[each] for each in passwords.secrets if each in self._numbers}


class Ends:
    """When to look which of a network's passwords have come to their ends."""

    __slots__ = ("_next", "_passwords", "due")

    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords
        self._next = -inf
        """The next end, Unix seconds, as far as was known at the last look."""
        self.due = 0.0 if passwords.next_end(-inf) < inf else inf
        """The next look, in the seconds of `now`; the first one at once, for want of a clock."""

    def look(self, now: float, wall: float) -> bool:
        """Whether one has come to its end since the last look, or this is the first."""
        is_over = wall >= self._next
        if is_over:
            self._next = self._passwords.next_end(wall)
        self.due = inf if self._next == inf else now + min(self._next - wall, LOOK_S)
        return is_over
