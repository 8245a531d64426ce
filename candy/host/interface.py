"""An interface of this machine in a network: the device, the kernel's routes through it, the engine's routes behind it.

    Interface(tun, kernel, engine) ─▶ configure(address) ─▶ follow(entries) ─▶ follow(other entries) … ─▶ close()
    a connection of the engine's      up                    networks behind members                      gone
                                      reconcile(judge): what other programs took away is put right

Rules:
 1. The engine has new routes first, then the kernel, so that the engine wraps whatever the kernel sends there. What the
    kernel refused is taken from the engine again.
 2. Without an address there is nothing to route.
 3. One task at a time changes it, or compares it with what the kernel has.

The relay has one for each of its networks with an address of its own, the member has one. This module does not know
which networks lie behind which members, nor how the routes were told. Whether this machine forwards packets is its
administrator's decision.
"""

import asyncio
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from candy._fastpath import Engine
from candy.host.kernelroutes import KernelRoutes
from candy.host.notifications import Kind
from candy.host.reconciler import Fact, Judge, Part
from candy.host.tun import Tun
from candy.protocol.wire import RouteEntry

DIRECTLY = 0
"""The engine's next hop of packets that are not wrapped."""


class Interface:
    """A device that the engine carries packets of, and the routes that lead through it.

    Args:
        tun: the device, owned from here on.
        kernel: the kernel's routes through it.
        engine: carries its packets, until Engine.stop().
        network: the engine's number.

    Raises:
        OSError: the engine has no slot for it.
    """

    kinds = (Kind.LINK, Kind.ADDRESS, Kind.ROUTE)
    """What others can change of it."""

    def __init__(self, tun: Tun, kernel: KernelRoutes, engine: Engine, network: int = 0) -> None:
        self.name = tun.name
        self.connection = engine.adopt_tun(tun.fileno(), network=network, vnet=tun.vnet)
        """The engine's number."""
        self._tun = tun
        self._kernel = kernel
        self._engine = engine
        self._alone = asyncio.Lock()
        self._followed: tuple[tuple[RouteEntry, ...], Collection[IPv4Address], bool] | None = None
        """What was last to be followed with this address: entries, relay, is_gateway."""

    @property
    def routes(self) -> dict[IPv4Network, IPv4Address]:
        """Those in use: destination and next hop."""
        return self._kernel.installed

    @property
    def refused(self) -> dict[IPv4Network, str]:
        """Destinations that the kernel has no route to, and why not."""
        return self._kernel.refused

    @property
    def address(self) -> IPv4Interface | None:
        """Its own, once it has one."""
        return self._tun.address

    async def configure(self, address: IPv4Interface) -> None:
        """Give it this address instead of the one it had, and bring it up.

        Raises:
            AddressTaken: another interface has the address.
            OperationalError: the kernel refuses.
        """
        async with self._alone:
            before = self._tun.address
            await self._tun.configure(address)
            if address != before:
                # The kernel took the routes along with the address that they had.
                self._followed = None

    async def follow(
        self, entries: tuple[RouteEntry, ...], *, relay: Collection[IPv4Address] = (), is_gateway: bool = True
    ) -> None:
        """Send to these destinations through members, as far as this machine can, and to no others.

        Args:
            entries: one for each destination, first match first.
            relay: the addresses by which the relay is reached: no route may lead there.
            is_gateway: networks may lie behind this machine, so packets that members wrapped for it are unwrapped.

        Raises:
            InterfaceGone: another program removed it.
            OperationalError: the kernel does not answer.
        """
        async with self._alone:
            self._followed = entries, relay, is_gateway
            await self._follow()

    async def reconcile(self, judge: Judge) -> None:
        """Compare it with what the kernel has, and put right what judge chooses of what is missing. What was in the way
        of a route may be gone as well.

        Raises:
            InterfaceGone: another program removed it.
            OperationalError: the kernel refuses.
        """
        async with self._alone:
            found = await self._tun.found()
            routes = self.routes if self._followed is not None else {}
            wanted = self._tun.wanted | {Fact(Part.ROUTE, destination) for destination in routes}
            if facts := judge(wanted, found):
                await self._tun.restore(facts)
            if facts or self._kernel.refused:
                # By difference, and all of them: with address or state the kernel takes routes away.
                await self._follow()

    async def _follow(self) -> None:
        own = self._tun.address
        if own is None or self._followed is None:
            return
        entries, relay, is_gateway = self._followed
        self._wrap(entries, own, is_gateway)
        taken = await self._kernel.install(entries, own, relay)
        if taken != entries:
            self._wrap(taken, own, is_gateway)

    def _wrap(self, entries: tuple[RouteEntry, ...], own: IPv4Interface, is_gateway: bool) -> None:
        """Have the engine wrap packets for these destinations, and unwrap what is wrapped for this machine."""
        routes = [(entry.destination, int(entry.next_hop)) for entry in entries]
        # A destination may enclose the members' own network: members are still reached directly.
        enclosing = (i for i, (destination, _) in enumerate(routes) if own.network.subnet_of(destination))
        if (first := next(enclosing, None)) is not None:
            routes.insert(first, (own.network, DIRECTLY))
        # Without routes in either direction any IPIP is a program's on this machine, and is left alone.
        is_concerned = is_gateway or bool(entries)
        self._engine.set_routes(
            self.connection,
            int(own.ip) if is_concerned else 0,
            [(int(network.network_address), int(network.netmask), next_hop) for network, next_hop in routes],
        )

    def close(self) -> None:
        """Close the device; with the engine's duplicate closed too, the interface is gone. Idempotent."""
        self._tun.close()
