"""By which URLs members reach the relays of a cluster, as each relay tells its members.

    public URLs, who is there ─▶ Entrances.look() ─▶ urls, this relay's own first ─▶ below(path) of a network

Rules:
 1. Only a `public_url` is told: the `url` by which relays reach each other may be one of an inner network.
 2. A relay that is there is told of at once, and one that has gone for KEPT_S more: most come back, and who goes to one
    that is not there loses a moment.
 3. Of more than RELAYS_MAX each relay leaves out others: it tells of those whose names follow its own.

No I/O and no clock.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from candy.protocol.control import RELAYS_MAX, URL_MAX

KEPT_S: Final = 60.0


class Entrances:
    """See the rules above.

    Args:
        name: this relay's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._there: dict[str, float] = {}
        """When each relay was there last."""
        self.urls: tuple[str, ...] = ()
        """At the last look."""

    def look(self, public: Mapping[str, str], there: Iterable[str], now: float) -> bool:
        """Look at who is there; whether other URLs are to be told now.

        Args:
            public: `public_url` of each relay that ever was, by name; empty: it has none.
            there: names of the others that are.
        """
        self._there |= dict.fromkeys([self._name, *there], now)
        self._there = {name: last for name, last in self._there.items() if now - last < KEPT_S}
        order = sorted(self._there, key=lambda name: (name < self._name, name))
        found = dict.fromkeys(url for name in order if (url := public.get(name, "")))
        before, self.urls = self.urls, tuple(found)[:RELAYS_MAX]
        return self.urls != before

    def below(self, path: str) -> list[str]:
        """Of the network at this path, those that can be told."""
        urls = (url if path == "/" else url + path for url in self.urls)
        return [url for url in urls if len(url) <= URL_MAX and url.isascii() and url.isprintable()]
