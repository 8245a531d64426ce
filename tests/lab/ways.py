"""A second way between two hosts of an Ethernet, by a router of its own.

    Detour(laboratory, near, far) ─▶ narrow(1280), silence()

    near ── eth0 10.0.0.2 ─────────── the hub ─────────── 10.0.0.3 eth0 ── far
         ── eth1 10.7.1.2 ── 10.7.1.1 router 10.7.2.1 ── 10.7.2.2 eth1 ──

It leads from the one to the other alone: the relay is reached by eth0.
"""

from lab.laboratory import Laboratory
from lab.namespaces import Host, Namespace

HUB = "10.0.0.0/24"
DETOUR = "10.7.0.0/16"
"""Where each end of the one way and of the other has its address."""


class Detour:
    """See above. Either host has its eth1 from now on."""

    def __init__(self, laboratory: Laboratory, near: Host, far: Host) -> None:
        self.router = Namespace("router of a detour")
        laboratory.stack.callback(self.router.close)
        self.router.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        for number, host in enumerate((near, far), 1):
            peer = ("peer", "name", "eth1", "netns", host.path)
            self.router.run("ip", "link", "add", f"side{number}", "type", "veth", *peer)
            self.router.run("ip", "address", "add", f"10.7.{number}.1/24", "dev", f"side{number}")
            self.router.run("ip", "link", "set", f"side{number}", "up")
            host.run("ip", "address", "add", f"10.7.{number}.2/24", "dev", "eth1")
            host.run("ip", "link", "set", "eth1", "up")
            host.run("ip", "route", "add", DETOUR, "via", f"10.7.{number}.1")

    def narrow(self, mtu: int) -> None:
        """Let no longer packets through, either way, on the far side of the router."""
        self.router.run("ip", "link", "set", "side2", "mtu", str(mtu))

    def silence(self) -> None:
        """Tell nobody what does not get through."""
        self.router.run("nft", "add table ip quiet; add chain ip quiet out { type filter hook output priority 0; }")
        self.router.run("nft", "add rule ip quiet out icmp type destination-unreachable drop")
