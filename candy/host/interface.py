"""An interface of this machine in a network: the device, the kernel's routes through it, the engine's routes behind it.

    Interface(tun, kernel, engine) ─▶ configure(address) ─▶ follow(entries) ─▶ follow(other entries) … ─▶ close()
    a connection of the engine's      up                    networks behind members                      gone

Rules:
 1. The engine has new routes first, then the kernel, so that the engine wraps whatever the kernel sends there. What the
    kernel refused is taken from the engine again.
 2. Without an address there is nothing to route.

The relay has one for each of its networks with an address of its own, the member has one. This module does not know
which networks lie behind which members, nor how the routes were told. Whether this machine forwards packets is its
administrator's decision.
"""

import asyncio
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from candy._fastpath import Engine
from candy.host.kernelroutes import KernelRoutes
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

    def __init__(self, tun: Tun, kernel: KernelRoutes, engine: Engine, network: int = 0) -> None:
        self.name = tun.name
        self.connection = engine.adopt_tun(tun.fileno(), network=network, vnet=tun.vnet)
        """The engine's number."""
        self._tun = tun
        self._kernel = kernel
        self._engine = engine
        self._following = asyncio.Lock()

    @property
    def routes(self) -> dict[IPv4Network, IPv4Address]:
        """Those in use: destination and next hop."""
        return self._kernel.installed

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
        await self._tun.configure(address)

    async def follow(
        self, entries: tuple[RouteEntry, ...], *, relay: Collection[IPv4Address] = (), is_gateway: bool = True
    ) -> None:
        """Send to these destinations through members, as far as this machine can, and to no others.

        Args:
            entries: one for each destination, first match first.
            relay: the addresses by which the relay is reached: no route may lead there.
            is_gateway: networks may lie behind this machine, so packets that members wrapped for it are unwrapped.

        Raises:
            OperationalError: the interface is gone, or the kernel does not answer.
        """
        own = self._tun.address
        if own is None:
            return
        async with self._following:
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
