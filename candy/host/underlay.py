"""What this machine has beside the tunnel: the way to the relay, other networks, name servers; and what is in the way.

    Dialer ── find(addresses) ─▶ Way of each ─▶ bind(socket) ─▶ connect          never through the tunnel
    Outer ── egress(targets) ─▶ Egress for each                                  to be compared with one from before
    Member ── review(own network, routes, ways) ─▶ one warning for each overlap

A granted network, or a rule's destination, may enclose an address that the connection itself depends on. A socket
that is bound to the interface that leads there (SO_BINDTODEVICE) does not see the tunnel's routes, whatever they are.
It leaves nothing behind, because there is nothing but the socket; and each connection is bound anew, so it follows when
another interface becomes the way. (A mark with a routing rule would leave the rule, and needs the tunnel's routes in a
table of their own, which would go before longer ones of this machine.)

Rules:
 1. What the kernel would do without the tunnel is the way: the longest prefix wins, then the smallest metric.
 2. Without the right to bind, the connection goes where the kernel sends it, and the caller keeps routes out of its
    way. So it has to where the kernel drops answers from an interface that it would not send to (rp_filter 1).
 3. Look-ups of names are the system's, and nothing here can bind them: an enclosed name server is worth a warning.

This module does not know who uses the socket, nor who wants which routes.
"""

import logging
import re
import socket
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

from candy.host.netlink import RTN_LOCAL, Netlink, Refused

RESOLV_CONFS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
"""The first of these that is there names the name servers: the other names systemd-resolved, on loopback."""
RESOLV_CONF_BYTES = 65536
STRICT = 1
"""The value of rp_filter with which the kernel drops what comes in by another interface than answers would take."""

_log = logging.getLogger(__name__)


class Connected(NamedTuple):
    """A network that this machine is part of, and by which interface."""

    network: IPv4Network
    interface: str
    ifindex: int = 0
    """The interface's."""


class Route(NamedTuple):
    """The kernel's to one address."""

    ifindex: int | None = None
    """Its interface's; None: there is no route."""
    destination: IPv4Network | None = None
    is_local: bool = False
    """The address is this machine's own."""


class Way(NamedTuple):
    """How this machine reaches an address without the tunnel."""

    interface: str
    can_bind: bool
    """A socket may be bound to it."""
    is_strict: bool = False
    """Answers are dropped there once a route to the address leads into the tunnel."""

    @property
    def is_apart(self) -> bool:
        """No route into the tunnel can be in its way."""
        return self.can_bind and not self.is_strict


class Target(NamedTuple):
    """Where packets go to. Those of a connection that there is have a source, and perhaps an interface, that stay."""

    address: IPv4Address | IPv6Address
    source: str | None = None
    interface: str | None = None
    """None: where the kernel sends them, without the tunnel."""


class Egress(NamedTuple):
    """What packets to a target take, beside the tunnel. A connection that was made by another one may not hold."""

    interface: str
    gateway: str | None = None
    """None: the address is on the cable, or this machine's own."""
    source: str | None = None
    """The address that the kernel gives to what it sends there."""


class Overlaps(NamedTuple):
    """What is in a tunnel's way, or in whose way it is: a line each."""

    networks: list[str]
    """Other interfaces' that overlap its own."""
    inside: list[str]
    """What it encloses that this machine depends on, with what becomes of it."""
    harms: bool
    """Of the latter something is not kept out."""


class Underlay:
    """This machine without one of its interfaces.

    Args:
        tunnel: that interface's name.
    """

    def __init__(self, tunnel: str) -> None:
        self._tunnel = tunnel
        self._said: frozenset[str] = frozenset()

    async def find(self, addresses: Iterable[IPv4Address]) -> dict[IPv4Address, Way]:
        """The way to each of these addresses; one that nothing but the tunnel leads to is missing."""
        index = self._index()
        with Netlink() as netlink:
            found = {address: _way_to(netlink, address, index) for address in addresses}
        return {address: way for address, way in found.items() if way is not None}

    async def egress(self, targets: Iterable[Target]) -> dict[Target, Egress | None]:
        """The egress for each of these; None where nothing but the tunnel leads, or the source is no address of this
        machine."""
        index = self._index()
        with Netlink() as netlink:
            return {target: _egress_for(netlink, target, index) for target in targets}

    async def review(
        self, own: IPv4Interface, routes: Collection[IPv4Network], ways: Mapping[IPv4Address, Way]
    ) -> None:
        """Log each overlap that was not there at the last review, as overlaps() has them."""
        found = await self.overlaps(own, routes, ways)
        lines = (*found.networks, *found.inside)
        for line in lines:
            if line not in self._said:
                _log.warning("%s", line)
        self._said = frozenset(lines)

    async def overlaps(
        self, own: IPv4Interface, routes: Collection[IPv4Network], ways: Mapping[IPv4Address, Way]
    ) -> Overlaps:
        """What is in the way, and in whose way it is; of a tunnel that is not there what would be.

        Args:
            own: the tunnel's address.
            routes: destinations that lead into it.
            ways: to the relay's addresses, or its proxy's.
        """
        index = self._index()
        with Netlink() as netlink:
            others = [network for network in connected_networks(netlink) if network.ifindex != index]
            servers = name_servers()
            inside = {
                address: str(enclosing((own.network, *routes), address) or "a route")
                for address in {*ways, *servers}
                if self._leads_into(netlink, index, address, (own.network, *routes))
            }
        swallowed = {address: way for address, way in ways.items() if address in inside}
        return Overlaps(
            [collision(own.network, name, network) for network, name, _ in others if own.network.overlaps(network)],
            [
                *(_about_relay(inside[address], address, way) for address, way in swallowed.items()),
                *(_about_name_server(inside[server], server) for server in servers if server in inside),
            ],
            not all(way.is_apart for way in swallowed.values()),
        )

    def _leads_into(
        self, netlink: Netlink, index: int, address: IPv4Address, networks: Collection[IPv4Network]
    ) -> bool:
        route = route_to(netlink, address)
        if index:
            return route.ifindex == index
        # The longer prefix wins, and of two alike the kernel has the other one now.
        its = enclosing(networks, address)
        return (
            its is not None
            and not route.is_local
            and (route.destination is None or its.prefixlen > route.destination.prefixlen)
        )

    def _index(self) -> int:
        """The tunnel's; no interface has 0."""
        try:
            return socket.if_nametoindex(self._tunnel)
        except OSError:
            return 0


class Holding(NamedTuple):
    """What the kernel has of an interface of ours."""

    is_up: bool | None
    """None: it is not there."""
    holder: str | None
    """The interface that has the member's address; None: none has."""
    routes: frozenset[IPv4Network]
    """Destinations that lead through it."""


async def holding(name: str, address: IPv4Address) -> Holding:
    """What the kernel has of the interface that shall have this address."""
    with Netlink() as netlink:
        links = {link.ifindex: link for link in netlink.links()}
        index = next((index for index, link in links.items() if link.name == name), 0)
        holders = [its.ifindex for its in netlink.addresses() if its.own.ip == address]
        held = [links[ifindex].name for ifindex in holders if ifindex in links]
        through = netlink.routes(index) if index else []
    return Holding(
        links[index].is_up if index else None,
        next((its for its in held if its == name), held[0] if held else None),
        frozenset(route.destination for route in through),
    )


def bind(opened: socket.socket, way: Way | None) -> None:
    """Have this socket reach its peer by this way alone, if it may be bound."""
    if way is not None and way.can_bind:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, way.interface.encode())


def connected_networks(netlink: Netlink) -> list[Connected]:
    """All of this machine, in the kernel's order."""
    return [Connected(address.network, address.label, address.ifindex) for address in netlink.addresses()]


def route_to(netlink: Netlink, address: IPv4Address) -> Route:
    """The route that the kernel takes to an address now."""
    try:
        route = netlink.match(address)
    except Refused:
        # "Network is unreachable".
        return Route()
    return Route(route.ifindex, route.destination, route.kind == RTN_LOCAL)


def name_servers() -> list[IPv4Address]:
    """Those that this machine asks, as far as they have IPv4 addresses."""
    for path in RESOLV_CONFS:
        try:
            with path.open("rb") as file:
                text = file.read(RESOLV_CONF_BYTES).decode("utf-8", "replace")
        except OSError:
            continue
        found = re.findall(r"^\s*nameserver\s+(\d+\.\d+\.\d+\.\d+)\s*$", text, re.MULTILINE)
        return [IPv4Address(server) for server in found if _is_address(server)]
    return []


def enclosing(networks: Iterable[IPv4Network], address: IPv4Address) -> IPv4Network | None:
    """The longest of these networks that the address is in."""
    return max((network for network in networks if address in network), key=lambda n: n.prefixlen, default=None)


def collision(own: IPv4Network, name: str, network: IPv4Network) -> str:
    """The line for another interface whose network overlaps the tunnel's own."""
    if own.prefixlen > network.prefixlen:
        victims = f"hosts on {name} with addresses in {own} are not reached"
    elif own.prefixlen < network.prefixlen:
        victims = f"members with addresses in {network} are not reached"
    else:
        victims = f"members or hosts on {name} are not reached"
    return f"the network {own} overlaps {network} of {name}: {victims}: give the relay another pool with --dhcp"


def _about_relay(network: str, address: IPv4Address, way: Way) -> str:
    line = f"{network} of the tunnel encloses {address}, where the connection to the relay goes"
    if way.is_strict:
        return f"{line}: set net.ipv4.conf.{way.interface}.rp_filter to 2, or answers by {way.interface} are dropped"
    if not way.can_bind:
        return f"{line}, and this process may not bind it to {way.interface}: run as root, or add CAP_NET_RAW"
    return f"{line}: it stays outside, on {way.interface}"


def _about_name_server(network: str, server: IPv4Address) -> str:
    return (
        f"{network} of the tunnel encloses the name server {server}: while names are not found, "
        "the relay is looked for at the addresses of last time"
    )


def _way_to(netlink: Netlink, address: IPv4Address, tunnel: int) -> Way | None:
    route = route_to(netlink, address)
    if route.is_local:
        # No route leads away from this machine's own addresses, and what answers may be behind a NAT of its own.
        return Way("lo", False)
    index = _beside_tunnel(netlink, address, route, tunnel)
    return _probe(socket.if_indextoname(index)) if index is not None else None


def _egress_for(netlink: Netlink, target: Target, tunnel: int) -> Egress | None:
    index: int | None = None
    try:
        if target.source is not None and netlink.lookup(ip_address(target.source)).kind != RTN_LOCAL:
            return None
        if target.interface is not None:
            index = socket.if_nametoindex(target.interface)
        elif isinstance(target.address, IPv4Address):
            route = route_to(netlink, target.address)
            if route.is_local:
                return Egress("lo")
            index = _beside_tunnel(netlink, target.address, route, tunnel)
            if index is None:
                return None
        taken = netlink.lookup(target.address, index)
        if taken.ifindex is None:
            return None
        return Egress(socket.if_indextoname(taken.ifindex), taken.gateway, taken.source)
    except OSError:
        # There is no route, or an interface has just gone.
        return None


def _beside_tunnel(netlink: Netlink, address: IPv4Address, route: Route, tunnel: int) -> int | None:
    """The interface that leads to an address by rule 1, which `route` is the kernel's own answer for."""
    if route.ifindex not in (None, tunnel):
        return route.ifindex
    best: tuple[int, int, str, int] | None = None
    for link in netlink.links():
        if link.ifindex == tunnel or link.is_loopback or not link.is_up:
            continue
        try:
            # Of routes by this interface alone; and without a match the kernel would assume that it is on the cable.
            match = netlink.match(address, link.ifindex)
        except Refused:
            continue
        rank = (match.destination.prefixlen, -match.metric, link.name, link.ifindex)
        best = rank if best is None else max(best, rank)
    return best[3] if best is not None else None


def _probe(interface: str) -> Way:
    """The way by this interface, after a try to bind to it."""
    way = Way(interface, True, _is_strict(interface))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            bind(probe, way)
        except PermissionError:
            return way._replace(can_bind=False)
    return way


def _is_strict(interface: str) -> bool:
    """The kernel takes the larger one of two values."""
    values = []
    for name in ("all", interface):
        try:
            values.append(int(Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").read_text()))
        except (OSError, ValueError):
            continue
    return max(values, default=0) == STRICT


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True
