"""Which IPv4 addresses and networks can be a member's, or lie behind one: what both sides judge by.

This module knows neither pools nor rules nor kernels.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

NOT_UNICAST = tuple(IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"))
"""This network, loopback, and all that is multicast, reserved or broadcast: a host has no address in them."""
SHORTEST_PREFIX = 8
"""Of a granted address and of a ROUTE's destination. The hash covers neither, and a shorter prefix could draw half of
the internet into the tunnel."""


@lru_cache(1024)
def ipv4(number: int) -> IPv4Address:
    """The address of this number. Deciding a log-in asks for the same one twenty times, and to make it takes each time
    as long as to seal a message."""
    return IPv4Address(number)


def is_unicast(ip: IPv4Address) -> bool:
    """Whether a member can have this address at all."""
    return not any(ip in network for network in NOT_UNICAST)


def broadcast_of(network: IPv4Network) -> IPv4Address:
    """What is for all in this network; 255.255.255.255, where it is too small for an address of its own (RFC 3021)."""
    return network.broadcast_address if network.prefixlen <= 30 else IPv4Address(0xFFFFFFFF)


def is_loopback(text: str) -> bool:
    """Whether an IP address, as text, is this machine's loopback: where a reverse proxy connects from, for members of
    any address."""
    return text == "::1" or text.startswith(("127.", "::ffff:127."))


def source_of(text: str) -> str:
    """What limits count a peer's IP address, as text, under: an IPv4 address, an IPv6 /64, or this machine as one.

    A host has a whole /64 to choose its address from. What is no IP address counts as it is.
    """
    if is_loopback(text):
        return "127.0.0.1"
    try:
        ip = ip_address(text)
    except ValueError:
        return text
    if isinstance(ip, IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(IPv6Network((int(ip) >> 64 << 64, 64)))


def may_be_elsewhere(address: IPv4Address | IPv6Address) -> bool:
    """Whether another machine can have this address, and be reached by it without naming an interface."""
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address.sixtofour or address.teredo):
        return False
    never = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    return not never and not (isinstance(address, IPv4Address) and address.is_reserved)
