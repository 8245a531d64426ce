"""Machines behind routers with NAT, in LANs of their own, on the Ethernet of a laboratory.

    Router(laboratory, 1) ─▶ host() ─▶ 192.168.1.2, host() ─▶ 192.168.1.3 …   forget(), block(), narrow(1280), forward()

A router's NAT is the kernel's: it keeps the port where it can, and lets in answers alone, so it is port-restricted.
SYMMETRIC gives each destination another port. With FULL_CONE a port leads to the first machine, from all that send
there, and with ADDRESS_RESTRICTED from all addresses that it has sent to, whatever their ports.
"""

from lab.laboratory import Laboratory
from lab.namespaces import Host
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

RESTRICTED = "masquerade"
SYMMETRIC = "masquerade random,fully-random"
FULL_CONE = "masquerade persistent"
ADDRESS_RESTRICTED = "address-restricted"


class Router:
    """A router, and its LAN.

    Args:
        number: of the LAN, 192.168.NUMBER.0/24.
        nat: how what leaves is translated.
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
        run("nft", "add chain ip nat in { type nat hook prerouting priority dstnat; }")
        self._translate(FULL_CONE if nat == ADDRESS_RESTRICTED else nat)
        if nat == FULL_CONE:
            run("nft", f"add rule ip nat in iifname eth0 ip protocol udp dnat to {self._lan}.2")
        if nat == ADDRESS_RESTRICTED:
            run("nft", "add set ip nat met { type ipv4_addr; flags dynamic,timeout; timeout 1m; size 1024; }")
            run("nft", "add chain ip nat sent { type filter hook forward priority 0; }")
            run("nft", "add rule ip nat sent oifname eth0 ip protocol udp update @met { ip daddr }")
            run("nft", f"add rule ip nat in iifname eth0 ip protocol udp ip saddr @met dnat to {self._lan}.2")
        # What nobody within has asked for gets no further, and is not answered.
        run("nft", "add table ip filter; add chain ip filter in { type filter hook input priority 0; }")
        run("nft", "add rule ip filter in iifname eth0 ct state new drop")
        run("nft", "add chain ip filter through { type filter hook forward priority 0; }")

    def host(self) -> Host:
        """Plug in another machine."""
        self._hosts += 1
        made = Host(f"lan {self._number} host {self._hosts}", f"{self._lan}.{self._hosts}", f"port{self._hosts}")
        self._laboratory.stack.callback(made.close)
        peer = ("peer", "name", "eth0", "netns", made.path)
        self.outside.run("ip", "link", "add", made.port, "type", "veth", *peer)
        self.outside.run("ip", "link", "set", made.port, "master", "lan0", "up")
        made.run("ip", "address", "add", f"{made.address}/24", "dev", "eth0")
        made.run("ip", "link", "set", "eth0", "up")
        made.run("ip", "route", "add", "default", "via", f"{self._lan}.1")
        return made

    def _translate(self, nat: str) -> None:
        run = self.outside.run
        run("nft", f"add rule ip nat out oifname eth0 ip protocol udp {nat}")
        run("nft", "add rule ip nat out oifname eth0 masquerade")

    def forget(self, first: int) -> None:
        """Have the NAT forget what it translates, and take ports from this one on instead."""
        self.outside.run("nft", "flush chain ip nat out")
        self._translate(f"masquerade to :{first}-{first + 1000}")
        with self.outside, NFCTSocket() as conntrack:
            conntrack.flush()

    def forward(self, port: int, host: Host, to: int | None = None) -> None:
        """Have a UDP port of the outside lead to a machine's, of the same number unless `to` says another; also from
        within: a hairpin."""
        run, there = self.outside.run, f"{host.address}:{to or port}"
        run("nft", f"add rule ip nat in ip daddr {self.address} udp dport {port} dnat to {there}")
        run("nft", f"add rule ip nat out oifname lan0 ct status dnat ip protocol udp snat to {self.address}")

    def part(self, *hosts: Host) -> None:
        """Have these machines reach each other no more, but the router."""
        # Where the kernel has br_netfilter, what is translated within the LAN would be bridged, and not routed.
        self.outside.run("sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables=0", check=False)
        for host in hosts:
            self.outside.run("bridge", "link", "set", "dev", host.port, "isolated", "on")

    def narrow(self, mtu: int) -> None:
        """Let no longer packets through, either way."""
        self.outside.run("ip", "link", "set", "eth0", "mtu", str(mtu))

    def block(self) -> None:
        """Let no UDP through any more."""
        self.outside.run("nft", "add rule ip filter through ip protocol udp drop")

    def unblock(self) -> None:
        self.outside.run("nft", "flush chain ip filter through")
