"""Links, addresses and routes of this machine, asked of the kernel and told to it: rtnetlink(7).

    with Netlink() as kernel: ─┬─▶ links() addresses() routes() lookup()    what it has
                               └─▶ set_link() add_address() add_route() …   what it shall have

    a request    nlmsghdr 16 │ ifinfomsg 16, ifaddrmsg 8 or rtmsg 12 │ attributes
    nlmsghdr     length u32, type u16, flags u16, sequence u32, port u32
    an attribute length u16, type u16, value, and zeros up to a multiple of 4

Rules:
 1. The kernel carries a request out while it is sent, so its answer is there at once, and nothing here waits.
 2. A refusal is a Refused, with the kernel's errno. What an answer has that is not understood is passed over.
 3. Only what is asked for comes back, also of a kernel that ignores a filter (before Linux 4.20).

This module does not know what candy wants of an interface. A library would do the same for thirteen megabytes.
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, ip_address
from types import TracebackType
from typing import Any, NamedTuple, Self

RECEIVE_BYTES = 65536
"""More than the kernel puts into one answer."""
DUMPS_MAX = 8
"""Attempts at a list that changes while the kernel writes it."""
PATIENCE_S = 10.0

# From <linux/netlink.h>.
SOL_NETLINK = 270
NETLINK_GET_STRICT_CHK = 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR = 0x01, 0x04, 0x10
NLM_F_DUMP = 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLA_TYPE_MASK = 0x3FFF

# From <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if_addr.h> and <linux/if.h>.
RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
IFLA_IFNAME, IFLA_MTU, IFLA_TXQLEN, IFLA_LINKINFO, IFLA_GSO_MAX_SEGS = 3, 4, 13, 18, 40
IFLA_INFO_KIND = 1
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_FLAGS = 1, 2, 3, 8
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RT_TABLE_MAIN = 254
RT_SCOPE_LINK = 253
RTPROT_KERNEL = 2
RTN_UNICAST, RTN_LOCAL = 1, 2
RTM_F_FIB_MATCH = 0x2000
IFF_UP, IFF_LOOPBACK = 1, 8

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")


class Refused(OSError):
    """The kernel does not do it, or has no such thing."""


class Link(NamedTuple):
    """An interface."""

    ifindex: int
    name: str
    is_up: bool
    is_loopback: bool
    mtu: int
    queue: int
    """Packets that may wait (txqlen)."""
    segments: int
    """In a super-packet, at most (gso_max_segs); 0: the kernel does not say."""
    kind: str
    """By its driver's name, like tun; empty for a machine's own hardware."""


class Owned(NamedTuple):
    """An address of this machine, of either family."""

    ifindex: int
    ip: IPv4Address | IPv6Address
    flags: int
    """IFA_F_…, of <linux/if_addr.h>."""


class Address(NamedTuple):
    """An IPv4 address of an interface."""

    ifindex: int
    own: IPv4Interface
    network: IPv4Network
    """Of the other end, where there is one."""
    label: str
    """The interface's name, or an alias of it."""


class Route(NamedTuple):
    """An IPv4 route, as a table has it."""

    destination: IPv4Network
    ifindex: int | None
    """None: it leads by several interfaces, or nowhere."""
    source: str | None
    """The address that this machine gives to what it sends there."""
    metric: int
    protocol: int
    """The number by which a program marks its routes."""
    kind: int
    """RTN_UNICAST and others."""


class Hop(NamedTuple):
    """What packets to one address take."""

    ifindex: int | None
    gateway: str | None
    source: str | None
    kind: int


class Netlink:
    """A socket to the kernel, in the network namespace in which it is opened.

    Raises:
        OSError: there is none for this process.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(PATIENCE_S)
            with suppress(OSError):
                # An older kernel lists all: rule 3.
                self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def links(self) -> list[Link]:
        """All interfaces."""
        return [_link(body) for body in self._dump(RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0))]

    def link(self, ifindex: int) -> Link:
        """One interface. Raises Refused: it is not there."""
        return _link(self._get(RTM_GETLINK, _LINK.pack(0, 0, ifindex, 0, 0)))

    def set_link(
        self,
        ifindex: int,
        *,
        mtu: int | None = None,
        queue: int | None = None,
        segments: int | None = None,
        is_up: bool = False,
    ) -> None:
        """Change what is given of an interface, and with is_up bring it up. Raises Refused."""
        numbers = {IFLA_MTU: mtu, IFLA_TXQLEN: queue, IFLA_GSO_MAX_SEGS: segments}
        attributes = [_attribute(number, _u32(value)) for number, value in numbers.items() if value is not None]
        self._do(RTM_NEWLINK, _LINK.pack(0, 0, ifindex, IFF_UP * is_up, IFF_UP * is_up), *attributes)

    def addresses(self, ifindex: int = 0) -> list[Address]:
        """All IPv4 addresses, or one interface's."""
        bodies = self._dump(RTM_GETADDR, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, ifindex))
        found = [_address(body) for body in bodies if body[0] == socket.AF_INET]
        return [address for address in found if ifindex in (0, address.ifindex)]

    def owned(self) -> list[Owned]:
        """All addresses of both families."""
        found: list[Owned] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            bodies = self._dump(RTM_GETADDR, _ADDRESS.pack(family, 0, 0, 0, 0))
            found += [_owned(body) for body in bodies if body[0] == family]
        return found

    def add_address(self, ifindex: int, address: IPv4Interface) -> None:
        """Raises Refused; EEXIST: it is there already."""
        self._do(RTM_NEWADDR, *_of_address(ifindex, address), flags=NLM_F_CREATE | NLM_F_EXCL)

    def delete_address(self, ifindex: int, address: IPv4Interface) -> None:
        """Raises Refused; EADDRNOTAVAIL: it is not there."""
        self._do(RTM_DELADDR, *_of_address(ifindex, address))

    def routes(self, ifindex: int, protocol: int = 0) -> list[Route]:
        """IPv4 routes to hosts and networks by one interface, or those of them that one program's number marks."""
        head = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, protocol, 0, RTN_UNICAST, 0)
        # The kernel is asked for these alone, if it can tell them apart: a router may have a million others.
        return [
            route
            for route in map(_route, self._dump(RTM_GETROUTE, head, _attribute(RTA_OIF, _u32(ifindex))))
            if route.ifindex == ifindex and route.kind == RTN_UNICAST and protocol in (0, route.protocol)
        ]

    def match(self, address: IPv4Address, ifindex: int | None = None) -> Route:
        """The route that leads to an address, or does so by this interface alone. Raises Refused: there is none."""
        return _route(self._lookup(address, ifindex, RTM_F_FIB_MATCH))

    def lookup(self, address: IPv4Address | IPv6Address, ifindex: int | None = None) -> Hop:
        """What becomes of a packet to an address. By an interface alone, the kernel takes an address that no route
        leads to for one on its cable. Raises Refused: there is no route."""
        body = self._lookup(address, ifindex, 0)
        has = _attributes(body, _ROUTE.size)
        hops = (_shown(has.get(RTA_GATEWAY)), _shown(has.get(RTA_PREFSRC)))
        return Hop(_interface(has), *hops, kind=_ROUTE.unpack_from(body)[7])

    def _lookup(self, address: IPv4Address | IPv6Address, ifindex: int | None, flags: int) -> bytes:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        head = _ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, flags)
        by = [] if ifindex is None else [_attribute(RTA_OIF, _u32(ifindex))]
        return self._get(RTM_GETROUTE, head, _attribute(RTA_DST, address.packed), *by)

    def add_route(self, destination: IPv4Network, ifindex: int, source: IPv4Address, protocol: int) -> None:
        """Lead a network into an interface, as a network on the cable. Raises Refused; EEXIST: it has a route."""
        source_of = _attribute(RTA_PREFSRC, source.packed)
        self._do(RTM_NEWROUTE, *_of_route(destination, ifindex, protocol), source_of, flags=NLM_F_CREATE | NLM_F_EXCL)

    def delete_route(self, destination: IPv4Network, ifindex: int, protocol: int) -> None:
        """Raises Refused; ESRCH: it is not there."""
        self._do(RTM_DELROUTE, *_of_route(destination, ifindex, protocol))

    def _dump(self, kind: int, *parts: bytes) -> list[bytes]:
        """All that the kernel lists, each without its header."""
        for _ in range(DUMPS_MAX):
            self._send(kind, NLM_F_DUMP, parts)
            bodies, is_torn = [], False
            for flags, body in self._answers():
                bodies.append(body)
                is_torn = is_torn or bool(flags & NLM_F_DUMP_INTR)
            if not is_torn:
                break
        # What changes without end is as good as it gets.
        return bodies

    def _get(self, kind: int, *parts: bytes) -> bytes:
        self._send(kind, 0, parts)
        return next(self._answers())[1]

    def _do(self, kind: int, *parts: bytes, flags: int = 0) -> None:
        self._send(kind, flags | NLM_F_ACK, parts)
        for _ in self._answers():
            pass

    def _send(self, kind: int, flags: int, parts: tuple[bytes, ...]) -> None:
        self._sequence += 1
        body = b"".join(parts)
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        """Flags and bodies, until the kernel says that there are no more."""
        while True:
            received = self._socket.recv(RECEIVE_BYTES)
            at = 0
            while at + _HEADER.size <= len(received):
                size, kind, flags, sequence, _ = _HEADER.unpack_from(received, at)
                body = received[at + _HEADER.size : at + size]
                at += max(_HEADER.size, _aligned(size))
                if sequence != self._sequence:
                    # Of a question whose answer was not read to its end.
                    continue
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    number = -int.from_bytes(body[:4], "little" if _IS_LITTLE else "big", signed=True)
                    if number:
                        raise Refused(number, os.strerror(number))
                    return
                yield flags, body


_IS_LITTLE = struct.pack("=H", 1)[0] == 1


def _aligned(size: int) -> int:
    return (size + 3) & ~3


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _attribute(number: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, number) + value + bytes(_aligned(size) - size)


def _attributes(body: bytes, at: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at + 4 <= len(body):
        size, number = struct.unpack_from("=HH", body, at)
        found[number & NLA_TYPE_MASK] = body[at + 4 : at + size]
        at += max(4, _aligned(size))
    return found


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(struct.unpack("=I", value)[0])


def _text(value: bytes | None) -> str:
    return os.fsdecode((value or b"").rstrip(b"\0"))


def _link(body: bytes) -> Link:
    _, _, ifindex, flags, _ = _LINK.unpack_from(body)
    has = _attributes(body, _LINK.size)
    return Link(
        ifindex,
        _text(has.get(IFLA_IFNAME)),
        bool(flags & IFF_UP),
        bool(flags & IFF_LOOPBACK),
        _number(has.get(IFLA_MTU)),
        _number(has.get(IFLA_TXQLEN)),
        _number(has.get(IFLA_GSO_MAX_SEGS)),
        _text(_attributes(has.get(IFLA_LINKINFO, b""), 0).get(IFLA_INFO_KIND)),
    )


def _owned(body: bytes) -> Owned:
    _, _, flags, _, ifindex = _ADDRESS.unpack_from(body)
    has = _attributes(body, _ADDRESS.size)
    packed = has.get(IFA_LOCAL) or has[IFA_ADDRESS]
    return Owned(ifindex, ip_address(packed), _number(has.get(IFA_FLAGS)) or flags)


def _address(body: bytes) -> Address:
    _, prefix, _, _, ifindex = _ADDRESS.unpack_from(body)
    has = _attributes(body, _ADDRESS.size)
    # Without another end both are the interface's own.
    other = has.get(IFA_ADDRESS) or has[IFA_LOCAL]
    own = IPv4Interface((has.get(IFA_LOCAL) or other, prefix))
    return Address(ifindex, own, IPv4Network((other, prefix), strict=False), _text(has.get(IFA_LABEL)))


def _route(body: bytes) -> Route:
    _, length, _, _, _, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    has = _attributes(body, _ROUTE.size)
    destination = IPv4Network((has.get(RTA_DST, bytes(4)), length), strict=False)
    metric = _number(has.get(RTA_PRIORITY))
    return Route(destination, _interface(has), _shown(has.get(RTA_PREFSRC)), metric, protocol, kind)


def _interface(has: dict[int, bytes]) -> int | None:
    return _number(has[RTA_OIF]) if RTA_OIF in has else None


def _shown(packed: bytes | None) -> str | None:
    return None if packed is None else str(ip_address(packed))


def _of_address(ifindex: int, address: IPv4Interface) -> tuple[bytes, ...]:
    head = _ADDRESS.pack(socket.AF_INET, address.network.prefixlen, 0, 0, ifindex)
    return head, *(_attribute(number, address.ip.packed) for number in (IFA_LOCAL, IFA_ADDRESS))


def _of_route(destination: IPv4Network, ifindex: int, protocol: int) -> tuple[bytes, ...]:
    head: tuple[Any, ...] = (destination.prefixlen, 0, 0, RT_TABLE_MAIN, protocol, RT_SCOPE_LINK, RTN_UNICAST, 0)
    where = _attribute(RTA_DST, destination.network_address.packed)
    return _ROUTE.pack(socket.AF_INET, *head), where, _attribute(RTA_OIF, _u32(ifindex))
