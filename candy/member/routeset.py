"""The SD-WAN routes that a member was told, over all its connections.

    begin() ─▶ received() … ─▶ settle() ─▶ begin() …         routes: those in force
    a connection logs in       told all    the next one

Rules:
 1. With candy.2 the messages from a first to a last one are a set. Complete, it replaces all that was told before, and
    an empty one withdraws it; incomplete, it changes nothing.
 2. Without, "within one connection entries accumulate, first match wins, and only a reconnect starts afresh".
 3. What was in force when a connection ended stays so, behind what the next one tells, until that one has told all;
    so connections through a gateway survive a reconnect. Without candy.2 the caller decides when it has told all.
 4. Rules are about addresses: with another address all that was told before is gone at once.
 5. Of several entries for one destination the first counts. One that leads to this member itself is known, and shadows
    others, but is not a route.

This module knows neither kernels nor engines, nor which destinations the kernel refuses.
"""

from ipaddress import IPv4Address, IPv4Network

from candy.errors import WireError
from candy.protocol.addresses import is_unicast
from candy.protocol.wire import DropReason, Route, RouteEntry

MAX_ROUTES = 1000
"""Destinations that a relay may name: the engine compares each packet of the device with one after another."""

_Entries = dict[IPv4Network, RouteEntry]
"""In the order in which they were told."""


class RouteSet:
    """All destinations that the relay named, and their next hops."""

    def __init__(self) -> None:
        self._address: IPv4Address | None = None
        self._extended = False
        self._told: _Entries = {}
        """On this connection."""
        self._former: _Entries = {}
        """In force when the one before ended; empty once this one has told all."""
        self._coming: _Entries | None = None
        """A set whose last message has not come yet."""

    @property
    def routes(self) -> tuple[RouteEntry, ...]:
        """Those in force, first match first."""
        return tuple(entry for entry in self._in_force().values() if entry.next_hop != self._address)

    @property
    def is_settled(self) -> bool:
        """Nothing of an earlier connection is in force any more."""
        return not self._former

    def begin(self, address: IPv4Address, *, extended: bool) -> None:
        """A connection logs in with this address; `extended`: candy.2 was agreed on."""
        self._former = self._in_force() if address == self._address else {}
        self._address = address
        self._extended = extended
        self._told = {}
        self._coming = None

    def received(self, message: Route) -> None:
        """A ROUTE of this connection.

        Raises:
            WireError: it can't be used, nor can the set that it is part of; nothing in force has changed.
        """
        if not self._extended:
            self._told = _extend(self._told, message)
            return
        coming = {} if message.flags & Route.FIRST else self._coming
        self._coming = None
        if coming is None:
            raise WireError(DropReason.OUTSIDE_SET)
        coming = _extend(coming, message)
        if not message.flags & Route.LAST:
            self._coming = coming
            return
        self._told = coming
        self._former = {}

    def abandon(self) -> None:
        """A ROUTE could not be read: the set that it was part of is incomplete."""
        self._coming = None

    def settle(self) -> None:
        """This connection has told all: routes that it did not repeat are gone."""
        self._former = {}

    def _in_force(self) -> _Entries:
        rest = {destination: entry for destination, entry in self._former.items() if destination not in self._told}
        return self._told | rest


def _extend(entries: _Entries, message: Route) -> _Entries:
    """The entries with those of the message behind them."""
    if not all(is_unicast(entry.next_hop) for entry in message.entries):
        raise WireError(DropReason.BAD_NEXT_HOP)
    extended = dict(entries)
    for entry in message.entries:
        extended.setdefault(entry.destination, entry)
    if len(extended) > MAX_ROUTES:
        raise WireError(DropReason.TOO_MANY_ROUTES)
    return extended
