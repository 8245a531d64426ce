"""Two LANs, the gateways that are members, and a host behind each.

near 10.1.0.5 ── lan0 10.1.0.1  gateway  192.168.202.1 ══ relay ══ 192.168.202.2  gateway  lan0 10.2.0.1 ── far 10.2.0.5

Rule: what the gateways' kernels do of themselves, forwarding, is set here; routes and addresses are the clients'.
"""

import re
from contextlib import ExitStack
from pathlib import Path

from lab.laboratory import PORT, Client, Laboratory
from lab.namespaces import Ethernet, Host, Namespace
from lab.original import OriginalRelay, entry

ONE, TWO = "192.168.202.1", "192.168.202.2"
NEAR_LAN, FAR_LAN = "10.1.0.0/16", "10.2.0.0/16"
NEAR, FAR = "10.1.0.5", "10.2.0.5"
RULES = f"{ONE}/32,{FAR_LAN},{TWO};{TWO}/32,{NEAR_LAN},{ONE}"


class Site:
    """A gateway, and a host on the LAN behind it.

    Args:
        number: the LAN is 10.<number>.0.0/16, the gateway's address in the network 192.168.202.<number>.
        route: the host has a default route by the gateway.
    """

    def __init__(self, laboratory: Laboratory, stack: ExitStack, number: int, *, route: bool = True) -> None:
        self.own = f"192.168.202.{number}"
        self.address = f"10.{number}.0.5"
        self.lan = f"10.{number}.0.0/16"
        self.gateway: Host = laboratory.host()
        self.host = Namespace(f"host of LAN {number}")
        stack.callback(self.host.close)
        peer = ["peer", "name", "eth0", "netns", self.host.path]
        self.gateway.run("ip", "link", "add", "lan0", "type", "veth", *peer)
        self.gateway.run("ip", "address", "add", f"10.{number}.0.1/16", "dev", "lan0")
        self.gateway.run("ip", "link", "set", "lan0", "up")
        self.host.run("ip", "address", "add", f"{self.address}/16", "dev", "eth0")
        self.host.run("ip", "link", "set", "eth0", "up")
        if route:
            self.host.run("ip", "route", "add", "default", "via", f"10.{number}.0.1")

    def forward(self) -> None:
        with self.gateway:
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def forwards(self) -> str:
        with self.gateway:
            return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()

    def routes(self) -> list[str]:
        """The destinations that go through candy."""
        return re.findall(r"^(\S+)", self.gateway.run("ip", "route", "show", "proto", "202"), re.MULTILINE)


class Lans:
    """Two sites or more, whose gateways forward, and the relay between them."""

    def __init__(self, laboratory: Laboratory, stack: ExitStack, count: int = 2) -> None:
        self.laboratory = laboratory
        self._stack = stack
        self.sites = [Site(laboratory, stack, number) for number in range(1, count + 1)]
        self.near, self.far = self.sites[:2]
        for site in self.sites:
            site.forward()

    def original(self, *, extended: bool = False) -> OriginalRelay:
        """A relay that tells each gateway the other one's LAN."""
        relay = OriginalRelay(self.laboratory.hub, (Ethernet.ADDRESS, PORT), extended=extended)
        if not extended:
            relay.rules = {ONE: [[entry(FAR_LAN, TWO)]], TWO: [[entry(NEAR_LAN, ONE)]]}
        return self._stack.enter_context(relay)

    def connect(self, *flags: str) -> tuple[Client, Client]:
        """Both gateways, logged in."""
        clients = [self.join(site, *flags) for site in (self.near, self.far)]
        for one in clients:
            one.connected()
        return clients[0], clients[1]

    def join(self, site: Site, *flags: str) -> Client:
        return self.laboratory.client("-t", f"{site.own}/24", *flags, host=site.gateway)


def routed(client: Client, destination: str, after: int = 0) -> None:
    """Wait until this client routes there."""
    client.wait_for(rf"{re.escape(destination)} is reached through", after)


def unrouted(client: Client, destination: str, after: int = 0) -> None:
    client.wait_for(rf"{re.escape(destination)} is not reached through the network any more", after)
