"""The relays that a member may go to: where each is, how it is dialed, and which one is in use.

    parts.relays(settings) ─▶ Relays ─▶ next() ─▶ Dialer ─▶ used(dialer), held(dialer) … failed(dialer) ─▶ next()
    RELAYS, the state folder ─▶ tell(urls)

Rules:
 1. What relays tell is judged as if it were hostile: no more than RELAYS_MAX URLs, each as sound as one of -w, without
    user and fragment, with TLS if the user's first one has that, and of the same network's path. The relay there has
    to show the network's key (candy.member.login, rule 2), so nobody goes there who knows none.
 2. Nothing that leads into the tunnel may lead to the relay in use, nor to the one that is dialed.
 3. Of relays that were told the dialer is made when it is needed, and forgotten when they are neither in use nor next.

Which one is next candy.member.rounds decides.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Final
from urllib.parse import urlsplit

from candy.host.underlay import Way
from candy.member.dial import Dialer, shown_url
from candy.member.rounds import Round
from candy.member.settings import check_url
from candy.protocol.control import RELAYS_MAX, URL_MAX
from candy.protocol.linking import Endpoint

DOUBTED_MAX: Final = 64
"""Lines of the log about what relays tell."""

_log = logging.getLogger(__name__)


class Relays:
    """See the rules above.

    Args:
        own: dialers of the user's URLs, at least one, in their order.
        make: a dialer of a URL that was told.
        random: a number in [0, 1), uniformly distributed.
    """

    def __init__(self, own: Sequence[Dialer], make: Callable[[str], Dialer], random: Callable[[], float]) -> None:
        self._own = tuple(own)
        self._make = make
        self._round = Round([dialer.relay for dialer in own], random)
        self._dialers = {dialer.relay: dialer for dialer in own}
        self._used: Dialer | None = None
        """Of the connection that leads, or led last."""
        self._dialed = own[0]
        """Of the last attempt."""
        self._doubted: set[str] = set()
        """URLs that are not gone to, of which there is a line in the log."""

    @property
    def extension(self) -> bool:
        """They are offered candy.3."""
        return self._own[0].extension

    @property
    def at_hand(self) -> Dialer:
        """The one in use; before there is one, the one that is dialed."""
        return self._dialed if self._used is None else self._used

    @property
    def following(self) -> str:
        """The URL of the next one to go to."""
        return self._round.url

    @property
    def others(self) -> list[str]:
        """URLs beside that of the one at hand, in their order."""
        return [url for url in self._round.urls if url != self.at_hand.relay]

    @property
    def has_others(self) -> bool:
        return self._round.has_others(self.at_hand.relay)

    def is_own(self, url: str) -> bool:
        """It is the user's; else a relay told it."""
        return self._round.is_own(url)

    @property
    def is_over(self) -> bool:
        """All were tried since a connection held."""
        return self._round.is_over

    def next(self) -> Dialer:
        """The one to go to now.

        Raises:
            ConfigError, OperationalError: as Dialer does.
        """
        url = self._round.url
        dialer = self._dialers.get(url)
        if dialer is None:
            dialer = self._dialers[url] = self._make(url)
        self._dialed = dialer
        self._tidy()
        return dialer

    def used(self, dialer: Dialer) -> None:
        """A connection of its leads from now on."""
        self._used = dialer
        self._tidy()

    def held(self, dialer: Dialer) -> None:
        """That connection holds."""
        self._round.held(dialer.relay)

    def failed(self, url: str) -> None:
        """There was no connection to this one, or what there was is lost or in doubt."""
        self._round.failed(url)

    def left(self) -> None:
        """No connection leads any more."""
        self._used = None

    def tell(self, urls: Sequence[str]) -> tuple[str, ...]:
        """The relays of the network are these, by a relay's word; those of them that are believed."""
        usable = []
        for told in urls[:RELAYS_MAX]:
            try:
                usable.append(usable_url(told, self._own[0].relay))
            except ValueError as error:
                # A relay may tell as often as it likes.
                if told not in self._doubted and len(self._doubted) < DOUBTED_MAX:
                    self._doubted.add(told)
                    _log.warning("not gone to: the relay tells of another one, whose URL %r %s", told, error)
        self._round.tell(usable)
        return tuple(usable)

    @property
    def exposed(self) -> frozenset[IPv4Address]:
        """See Outer.exposed."""
        return frozenset().union(*(dialer.outer.exposed for dialer in self._dialers_at_hand))

    @property
    def ways(self) -> Mapping[IPv4Address, Way]:
        """See Outer.ways."""
        return {address: way for dialer in self._dialers_at_hand for address, way in dialer.outer.ways.items()}

    async def look(self) -> bool:
        """Look at the way to these; whether it has changed. Raises OSError: the kernel can't be asked."""
        return any([await dialer.outer.look() for dialer in self._dialers_at_hand])

    async def endpoints(self) -> list[Endpoint]:
        """See Dialer.relay_endpoints()."""
        return await self.at_hand.relay_endpoints()

    @property
    def _dialers_at_hand(self) -> list[Dialer]:
        return list(dict.fromkeys([self.at_hand, self._dialed]))

    def _tidy(self) -> None:
        kept = {*self._own, *self._dialers_at_hand}
        self._dialers = {url: dialer for url, dialer in self._dialers.items() if dialer in kept}


def usable_url(told: str, first: str) -> str:
    """A URL that a relay told, as a member asks for it.

    Args:
        first: the user's own.

    Raises:
        ValueError: it is not used; the text completes the sentence "<url> …".
    """
    if len(told) > URL_MAX:
        raise ValueError(f"is longer than {URL_MAX} characters")
    url, own = urlsplit(check_url(told)), urlsplit(first)
    if "@" in url.netloc or "#" in told:
        raise ValueError("has a user or a fragment in it")
    if own.scheme == "wss" and url.scheme != "wss":
        raise ValueError("is without TLS, which -w asks for")
    if url.path.rstrip("/") != own.path.rstrip("/") or url.query != own.query:
        raise ValueError("has another path than -w, which names the network")
    return shown_url(url.geturl())
