"""The kernel's routes to networks behind other members: through the interface, and nowhere else.

    install(entries, …) ─▶ refuse what would do harm, or is doubted ─▶ add what is missing ─▶ delete the others
                                                                     the kernel's table is what was installed

Rules:
 1. Changed by difference: a route that stays is not touched, so that connections over it live on. Ours are told apart
    by PROTOCOL, and no other route is ever touched. The kernel deletes them with the interface.
 2. The route to the relay must not lead through the relay: a destination that would replace the one in use is refused.
 3. A network that this machine is part of stays where it is, and so does a destination that has a route of the same
    length already.
 4. A refusal is told in the log once, all destinations with one reason in one line, and leaves the other routes as they
    are.

This module does not know what lies behind a destination, nor how a packet finds its next hop.
"""

import errno
import logging
import socket
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from candy.errors import InterfaceGone, OperationalError
from candy.host.netlink import Netlink, Refused
from candy.host.underlay import Connected, connected_networks, route_to
from candy.protocol.addresses import NOT_UNICAST, SHORTEST_PREFIX
from candy.protocol.wire import RouteEntry

PROTOCOL = 202
"""Marks our routes, in `ip route` and in netlink's rtm_protocol: a number that no routing program uses."""

NAMED_MAX = 3
"""Of the destinations that one line is about."""

_log = logging.getLogger(__name__)


class KernelRoutes:
    """The routes through one interface.

    Args:
        interface: its name.
        doubt: why a destination is not to be believed; None if it is.
    """

    def __init__(self, interface: str, doubt: Callable[[IPv4Network], str | None] = lambda destination: None) -> None:
        self._interface = interface
        self._doubt = doubt
        self.installed: dict[IPv4Network, IPv4Address] = {}
        """Destination and next hop, as shown to the user."""
        self.refused: dict[IPv4Network, str] = {}
        """Destination and reason."""

    async def install(
        self, entries: Iterable[RouteEntry], own: IPv4Interface, relay: Collection[IPv4Address]
    ) -> tuple[RouteEntry, ...]:
        """Have the kernel route these destinations through the interface, and no others.

        Args:
            entries: one for each destination.
            own: the interface's address: the source of what this machine sends there.
            relay: where connections to the relay, or its proxy, go to.

        Returns:
            the entries that were not refused.

        Raises:
            InterfaceGone: another program removed the interface.
            OperationalError: the kernel does not answer.
        """
        wanted = tuple(entries)
        if not wanted and not self.installed:
            self.refused = {}
            return ()
        try:
            index = socket.if_nametoindex(self._interface)
            with Netlink() as netlink:
                refused = self._install(netlink, index, wanted, own, relay)
        except Refused as error:
            raise OperationalError(f"{self._interface}: cannot set routes: {error.strerror}") from error
        except OSError as error:
            raise InterfaceGone(self._interface) from error
        installed = tuple(entry for entry in wanted if entry.destination not in refused)
        self._tell({entry.destination: entry.next_hop for entry in installed}, refused)
        return installed

    def _install(
        self,
        netlink: Netlink,
        index: int,
        wanted: tuple[RouteEntry, ...],
        own: IPv4Interface,
        relay: Collection[IPv4Address],
    ) -> dict[IPv4Network, str]:
        """The destinations that were refused, each with the reason."""
        connected = connected_networks(netlink)
        ways = {address: _way_to(netlink, address, index) for address in relay}
        present = {route.destination: route.source for route in netlink.routes(index, PROTOCOL)}
        kept, refused = set(), {}
        for destination in (entry.destination for entry in wanted):
            why = refusal(destination, self._interface, connected, ways) or self._doubt(destination)
            if why is None and present.get(destination) != str(own.ip):
                try:
                    netlink.add_route(destination, index, own.ip, PROTOCOL)
                except Refused as error:
                    why = _explain(destination, error)
            if why is None:
                kept.add(destination)
            else:
                refused[destination] = why
        for destination in present.keys() - kept:
            try:
                netlink.delete_route(destination, index, PROTOCOL)
            except Refused as error:
                # Another program deleted it first.
                if error.errno != errno.ESRCH:
                    raise
        return refused

    def _tell(self, installed: dict[IPv4Network, IPv4Address], refused: dict[IPv4Network, str]) -> None:
        """Log what has changed."""
        for destination, next_hop in installed.items():
            if self.installed.get(destination) != next_hop:
                _log.info("%s is reached through %s", destination, next_hop)
        for destination in self.installed.keys() - installed.keys():
            _log.info("%s is not reached through the network any more", destination)
        news: dict[str, list[IPv4Network]] = {}
        for destination, why in refused.items():
            if self.refused.get(destination) != why:
                news.setdefault(why, []).append(destination)
        for why, destinations in news.items():
            _log.warning("%s not reached through the network: %s", _enumerate(destinations), why)
        self.installed, self.refused = installed, refused


def refusal(
    destination: IPv4Network,
    interface: str,
    connected: Iterable[Connected],
    ways: dict[IPv4Address, IPv4Network | None],
) -> str | None:
    """Why a destination must not be routed through the interface, None if it may.

    Args:
        interface: ours.
        connected: all networks of this machine.
        ways: for each address of the relay the destination of the route that leads to it by another interface, or None.
    """
    if destination.prefixlen < SHORTEST_PREFIX:
        return f"it is more than a /{SHORTEST_PREFIX}, which is more than a network behind a member"
    if any(destination.overlaps(network) for network in NOT_UNICAST):
        return "it is not a network of hosts"
    for network, name, _ in connected:
        # A network behind a member may lie within the members' own network.
        if destination == network or (name != interface and destination.subnet_of(network)):
            return f"this machine is part of {network} by {name}"
    for address, way in ways.items():
        # The longest prefix wins, so a destination shorter than the route to the relay does no harm.
        if address in destination and (way is None or way.prefixlen <= destination.prefixlen):
            return f"the relay is reached at {address}, and so would be reached through itself"
    return None


def _way_to(netlink: Netlink, address: IPv4Address, index: int) -> IPv4Network | None:
    """The destination of the route that the kernel takes to an address; None if it has none but our interface's."""
    route = route_to(netlink, address)
    return None if route.ifindex == index else route.destination


def _enumerate(destinations: list[IPv4Network]) -> str:
    """The subject of a sentence and its verb."""
    named = ", ".join(str(destination) for destination in destinations[:NAMED_MAX])
    if len(destinations) > NAMED_MAX:
        named += f" and {len(destinations) - NAMED_MAX} more"
    return f"{named} {'is' if len(destinations) == 1 else 'are'}"


def _explain(destination: IPv4Network, error: Refused) -> str:
    if error.errno == errno.EEXIST:
        return f"there is a route already, see `ip route show {destination}`"
    return f"the kernel refuses ({error.strerror})"
