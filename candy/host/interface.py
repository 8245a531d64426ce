"""The relay's own interface in a network: a TUN device that the engine carries as it carries members.

    HostInterface ─▶ start() ─▶ bound by the network ─▶ route(rules) ─▶ route(other rules) … ─▶ close()
    made               up, the engine's                  as a member that is told rules             gone

Rules: it is what an interface of candy-client is, without a connection between; so it reaches networks behind members
and may have one behind itself, whose packets arrive unwrapped. Whether this machine forwards them is its
administrator's to say. This module does not know who else is a member.
"""

import asyncio
from ipaddress import IPv4Interface

from candy._fastpath import Engine
from candy.host.kernelroutes import KernelRoutes
from candy.host.tun import Tun
from candy.options import DEFAULT_MTU
from candy.relay.rules import Rules


class HostInterface:
    """An interface of this machine in one of the relay's networks.

    Args:
        name: its name.
        address: its address there.
        engine: carries its packets, until stop().
        network: the engine's number.

    Raises:
        OperationalError: it can't be made.
    """

    def __init__(self, name: str, address: IPv4Interface, engine: Engine, network: int) -> None:
        self.name = name
        self.connection = 0
        """The engine's number, behind start()."""
        self._address = address
        self._engine = engine
        self._network = network
        self._tun = Tun(name, DEFAULT_MTU)
        self._kernel = KernelRoutes(name)
        self._routing = asyncio.Lock()

    async def start(self) -> None:
        """Bring it up, and let the engine have its packets.

        Raises:
            OperationalError: the kernel refuses.
        """
        await self._tun.configure(self._address)
        self.connection = self._engine.adopt_tun(self._tun.fileno(), network=self._network, vnet=self._tun.vnet)

    async def route(self, routes: Rules) -> None:
        """Follow these rules instead of those before.

        Raises:
            OperationalError: the kernel refuses.
        """
        own = self._address.ip
        async with self._routing:
            # The relay is here, so no route can be in its way.
            entries = await self._kernel.install(routes.entries(own), self._address, ())
            # Without rules all IPIP is somebody else's, and is left alone.
            is_concerned = bool(entries or routes.lans(own))
            self._engine.set_routes(
                self.connection,
                int(own) if is_concerned else 0,
                [(int(e.destination[0]), int(e.destination.netmask), int(e.next_hop)) for e in entries],
            )

    def close(self) -> None:
        """Give up its descriptor; with the engine's gone too, the interface is. Idempotent."""
        self._tun.close()
