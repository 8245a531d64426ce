"""Reverse proxies that are trusted, and the address of the client that a request of theirs comes from.

    peer of TCP ── not a trusted proxy ─▶ the peer
             └── a trusted proxy ─▶ Forwarded, X-Forwarded-For, from the right ─▶ the first address that is none

Rules:
 1. What a trusted proxy says is believed, and nothing that stands to its left: a stranger can have written that. A
    value that is no address leaves the last proxy that is trusted, and so does a header that can't be read.
 2. A proxy writes one of the two headers and passes the other on as the stranger wrote it. So if both are there and
    name different addresses, neither is believed.
 3. Loopback is exempt from limits, but not as the end of such a chain: that is `proxy 127.0.0.1`.

This module knows neither requests nor sockets, and no limits.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from candy.protocol.addresses import is_loopback

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# RFC 7239, section 4. A quoted string may hold commas and semicolons.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = rf'{_TOKEN}=(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
_ELEMENT = rf"{_PAIR}(?:[ \t]*;[ \t]*{_PAIR})*"
_FORWARDED = re.compile(rf"{_ELEMENT}(?:[ \t]*,[ \t]*{_ELEMENT})*")
_ONE_ELEMENT = re.compile(_ELEMENT)
_FOR = re.compile(rf'(?i:for)=({_TOKEN}|"(?:[^"\\]|\\.)*")')
_NODE = re.compile(r"(?:\[(?P<bracketed>[0-9a-fA-F:.]+)\]|(?P<ipv4>[0-9.]+))(?::\d{1,5})?|(?P<bare>[0-9a-fA-F:.]+)")


class TrustedProxies:
    """Those in these networks."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)

    def __contains__(self, peer: str) -> bool:
        """Whether the peer of a TCP connection is one of them."""
        if not self._networks:
            return False
        address = _address(peer)
        return address is not None and self._trusts(address)

    def client(self, peer: str, forwarded: Sequence[str], x_forwarded_for: Sequence[str]) -> str:
        """The client that a request comes from, an IP address as text unless it is rule 3's.

        Args:
            peer: of the TCP connection.
            forwarded: the values of all header lines `Forwarded`, in their order.
            x_forwarded_for: the same of `X-Forwarded-For`.
        """
        nearest = _address(peer) if self._networks else None
        if nearest is None or not self._trusts(nearest):
            return peer
        chains = [_chain_of_forwarded(forwarded)] if forwarded else []
        chains += [_chain_of_x_forwarded_for(x_forwarded_for)] if x_forwarded_for else []
        found = {self._farthest_believed(nearest, chain) for chain in chains}
        client = str(found.pop() if len(found) == 1 else nearest)
        return f"proxy {client}" if is_loopback(client) else client

    def _farthest_believed(self, nearest: Address, chain: Sequence[Address | None]) -> Address:
        believed = nearest
        for address in reversed(chain):
            if address is None:
                break
            believed = address
            if not self._trusts(address):
                break
        return believed

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _chain_of_x_forwarded_for(lines: Sequence[str]) -> list[Address | None]:
    """Addresses from the farthest to the nearest; None is what is no address."""
    return [_node(part.strip()) for part in ",".join(lines).split(",")]


def _chain_of_forwarded(lines: Sequence[str]) -> list[Address | None]:
    """The same. A part that can't be read can hide where the next one begins, so then nothing is believed."""
    text = ",".join(lines).strip()
    if not _FORWARDED.fullmatch(text):
        return [None]
    chain = []
    for element in _ONE_ELEMENT.finditer(text):
        values = [match[1] for pair in re.finditer(_PAIR, element[0]) if (match := _FOR.fullmatch(pair[0]))]
        chain.append(_node(re.sub(r"\\(.)", r"\1", values[0].strip('"'))) if len(values) == 1 else None)
    return chain


def _node(text: str) -> Address | None:
    """An address, with or without a port."""
    match = _NODE.fullmatch(text)
    return _address(match["bracketed"] or match["ipv4"] or match["bare"]) if match else None
