"""To which relay a member goes next, of all that it knows.

    own: of -w ┐
    told       ┴─▶ Round ─▶ url ─▶ held(url) … failed(url) ─▶ url, is_over

Rules:
 1. Own ones come first, in their user's order; behind them those that a relay told, in an order that each member draws
    for itself, so that the members of a dead relay do not all come to the same other one.
 2. A member keeps to the relay that it is at, and goes on to the next one when that is lost.
 3. A round is over once all were tried since a connection held. Only then the pause grows.

No I/O, no clock; randomness is an argument.
"""

from collections.abc import Callable, Sequence


class Round:
    """See the rules above.

    Args:
        own: URLs, at least one.
        random: a number in [0, 1), uniformly distributed.
    """

    def __init__(self, own: Sequence[str], random: Callable[[], float]) -> None:
        self._own = tuple(own)
        self._told: tuple[str, ...] = ()
        self._random = random
        self._tried: set[str] = set()
        """Since a connection held, or since the last round was over."""
        self.url = self._own[0]
        """The next to go to."""
        self.is_over = True
        """Nothing is left to be tried but what has failed."""

    @property
    def urls(self) -> tuple[str, ...]:
        """All, in their order."""
        return self._own + self._told

    def is_own(self, url: str) -> bool:
        return url in self._own

    def tell(self, urls: Sequence[str]) -> None:
        """These are told, and no others any more."""
        wanted = [url for url in dict.fromkeys(urls) if url not in self._own]
        kept = tuple(url for url in self._told if url in wanted)
        self._told = kept + tuple(sorted((url for url in wanted if url not in kept), key=lambda _: self._random()))

    def has_others(self, url: str) -> bool:
        """Whether there are relays beside this one."""
        return any(other != url for other in self.urls)

    def held(self, url: str) -> None:
        """A connection to it holds."""
        self._tried.clear()
        self.url, self.is_over = url, True

    def failed(self, url: str) -> None:
        """There was no connection to it, or what there was is lost."""
        self._tried.add(url)
        urls = self.urls
        behind = urls.index(url) + 1 if url in urls else 0
        following = urls[behind:] + urls[:behind]
        untried = [other for other in following if other not in self._tried]
        self.is_over = not untried
        if self.is_over:
            self._tried.clear()
        self.url = (untried or following)[0]
