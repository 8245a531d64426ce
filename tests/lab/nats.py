"""Machines behind routers with NAT, each in a LAN of its own or of several, on the Ethernet of a laboratory.

    Router(laboratory, 1) ─▶ host() ─▶ 192.168.1.2, host() ─▶ 192.168.1.3 …      nat("masquerade"), run("nft", …)

A router's NAT is the kernel's: it keeps the port where it can, and lets nothing in but answers, so it is port-restricted.
`masquerade random,fully-random` gives each destination a port of its own: that is symmetric.
"""

from lab.laboratory import Laboratory
from lab.namespaces import Host, Namespace

RESTRICTED = "masquerade"
SYMMETRIC = "masquerade random,fully-random"


class Router:
    """A router, and its LAN.

    Args:
        number: of the LAN, 192.168.NUMBER.0/24.
        nat: the statement of nftables by which what leaves is translated.
    """

    def __init__(self, laboratory: Laboratory, number: int, nat: str = RESTRICTED) -> None:
        self._laboratory = laboratory
        self._number = number
        self._hosts = 1
        self.outside: Host = laboratory.host()
        self.address = self.outside.address
        self._lan = f"192.168.{number}"
        run = self.outside.run
        run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        run("ip", "link", "add", "lan0", "type", "bridge")
        run("ip", "address", "add", f"{self._lan}.1/24", "dev", "lan0")
        run("ip", "link", "set", "lan0", "up")
        run("nft", "add table ip nat; add chain ip nat out { type nat hook postrouting priority srcnat; }")
        run(
            "nft",
            f"add rule ip nat out oifname eth0 ip protocol udp {nat}; add rule ip nat out oifname eth0 masquerade",
        )
        # What nobody inside has asked for gets no further, and is not answered.
        run("nft", "add table ip filter; add chain ip filter in { type filter hook input priority 0; }")
        run("nft", "add rule ip filter in iifname eth0 ct state new drop")

    def host(self) -> Host:
        """Plug in another machine."""
        self._hosts += 1
        made = Host(f"lan {self._number} host {self._hosts}", f"{self._lan}.{self._hosts}", f"port{self._hosts}")
        self._laboratory.stack.callback(made.close)
        self._plug(made)
        return made

    def _plug(self, host: Host) -> None:
        self.outside.run(*("ip", "link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.path))
        self.outside.run("ip", "link", "set", host.port, "master", "lan0", "up")
        host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        host.run("ip", "route", "add", "default", "via", f"{self._lan}.1")

    def forget(self) -> None:
        """Have the NAT forget what it translates, and take other ports from now on."""
        self.outside.run("nft", "flush chain ip nat out")
        self.outside.run("nft", f"add rule ip nat out oifname eth0 {SYMMETRIC}")
        self.outside.run("conntrack", "-F")

    def block(self) -> None:
        """Let no UDP out any more."""
        self.outside.run("nft", "add chain ip filter through { type filter hook forward priority 0; }")
        self.outside.run("nft", "add rule ip filter through ip protocol udp drop")

    def unblock(self) -> None:
        self.outside.run("nft", "flush chain ip filter through")


__all__ = ["RESTRICTED", "SYMMETRIC", "Namespace", "Router"]
