"""This machine's addresses, for other machines to reach it by UDP; and whether it reaches another's beside our tunnels.

    look() ─▶ addresses that others may have a way to, and those of our own devices
    reaches(address) ─▶ would the kernel send by another device than one of ours?
    mtu_to(address) ─▶ how long a packet there may be, as far as the kernel knows

Rules:
 1. An address of a device of ours, of whichever network and program, is none: a tunnel must not lead through a tunnel.
    Ours are TUN devices that are called as we call them.
 2. What the kernel would do now decides. The caller looks again when something has changed.

This module does not know what is sent, nor who.
"""

import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from candy.host.netlink import RTN_LOCAL, RTN_UNICAST, Link, Netlink
from candy.protocol.addresses import may_be_elsewhere

# From <linux/in.h> and <linux/if_addr.h>.
IP_MTU: Final = 14
IFA_F_TEMPORARY: Final = 0x01
IFA_F_DADFAILED: Final = 0x08
IFA_F_DEPRECATED: Final = 0x20
IFA_F_TENTATIVE: Final = 0x40
_UNFIT: Final = IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE | IFA_F_TEMPORARY
"""What goes soon, or may be no address at all."""
_OURS: Final = ("candy-", "cs-")

Address = IPv4Address | IPv6Address


class Machine(NamedTuple):
    """What there was at a look."""

    addresses: tuple[Address, ...] = ()
    """In the kernel's order, which is that of interfaces."""
    tunnels: frozenset[Address] = frozenset()
    """Of our devices."""
    devices: frozenset[int] = frozenset()
    """These, by interface number."""


async def look() -> Machine:
    """Ask the kernel.

    Raises:
        OSError: it can't be asked.
    """
    addresses: list[Address] = []
    tunnels: set[Address] = set()
    with Netlink() as kernel:
        links = {link.ifindex: link for link in kernel.links()}
        for ifindex, address, flags in kernel.owned():
            link = links.get(ifindex)
            if link is None:
                continue
            if _is_ours(link):
                tunnels.add(address)
            elif link.is_up and not flags & _UNFIT:
                addresses += [address] if may_be_elsewhere(address) else []
    devices = (link.ifindex for link in links.values() if _is_ours(link))
    return Machine(tuple(dict.fromkeys(addresses)), frozenset(tunnels), frozenset(devices))


def reaches(address: Address, machine: Machine) -> bool:
    """Whether there is a way to an address, and none of our devices is on it. Nothing is sent."""
    try:
        with Netlink() as kernel:
            hop = kernel.lookup(address)
    except OSError:
        return False
    return (
        hop.kind in (RTN_UNICAST, RTN_LOCAL) and hop.ifindex not in machine.devices and address not in machine.tunnels
    )


def mtu_to(address: IPv4Address) -> int:
    """Bytes of the longest packet on the way to an address, by its interface and by what routers have said. 0: there is
    no way. Nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return probe.getsockopt(socket.IPPROTO_IP, IP_MTU)
    except OSError:
        return 0


def _is_ours(link: Link) -> bool:
    return link.kind == "tun" and (link.name == "candy" or link.name.startswith(_OURS))
