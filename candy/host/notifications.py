"""The kernel tells what kind of thing has changed in this machine's network, at once and to those who asked.

    subscribe({Kind.LINK, Kind.ROUTE}, listener) ─▶ listener(Kind.ROUTE), listener(Kind.LINK) …      close()
    from now on                                     by the event loop, after a change

Rules:
 1. What has changed is for the listener to find out: no notification is read beyond its arrival. A socket for each kind
    tells the kinds apart, so nothing has to be parsed.
 2. Any number of changes between two turns of the loop may be one call.
 3. Nothing is missed: where the kernel had to drop notifications (ENOBUFS), something has changed.
 4. This process's own changes are told as well.

This module does not know who wants to know, nor how things should be.
"""

import asyncio
import enum
import errno
import socket
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

# From <linux/netlink.h>, which Python's socket module has no names for.
NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1

READS_MAX = 256
"""In one turn of the loop. What is left makes the socket readable again."""


class Kind(enum.Enum):
    """A kind of thing that changes: the netlink family that tells it, and its groups of <linux/rtnetlink.h> or
    <linux/netfilter/nfnetlink.h>."""

    LINK = (socket.NETLINK_ROUTE, (1,))
    """An interface comes, goes, is up or down, has another MTU, name or carrier (RTNLGRP_LINK)."""
    ADDRESS = (socket.NETLINK_ROUTE, (5, 9))
    """An address of an interface (RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR)."""
    ROUTE = (socket.NETLINK_ROUTE, (7, 8, 11, 19))
    """A route, or a routing rule (RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE). The
    routes that go with an interface or an address are not all told: ask for these kinds too."""
    FORWARDING = (socket.NETLINK_ROUTE, (24,))
    """net.ipv4.ip_forward, or a setting beside it (RTNLGRP_IPV4_NETCONF)."""
    RULESET = (NETLINK_NETFILTER, (7,))
    """A table, chain, rule or set of nftables (NFNLGRP_NFTABLES). It takes CAP_NET_ADMIN."""


class Notifications:
    """The changes in the network namespace in which the first listener for a kind subscribed, until close()."""

    def __init__(self) -> None:
        self._sockets: dict[Kind, socket.socket] = {}
        self._listeners: dict[Kind, list[Callable[[Kind], object]]] = {kind: [] for kind in Kind}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def subscribe(self, kinds: Iterable[Kind], listener: Callable[[Kind], object]) -> None:
        """Have the running event loop call listener(kind) after each change of one of these kinds.

        Raises:
            OSError: the kernel does not tell this process of a kind. The kinds before it are told.
        """
        for kind in kinds:
            if kind not in self._sockets:
                opened = self._sockets[kind] = _open(kind)
                asyncio.get_running_loop().add_reader(opened, self._read, kind, opened)
            self._listeners[kind].append(listener)

    def close(self) -> None:
        """Tell nobody any more. Idempotent."""
        for opened in self._sockets.values():
            asyncio.get_running_loop().remove_reader(opened)
            opened.close()
        self._sockets.clear()

    def _read(self, kind: Kind, opened: socket.socket) -> None:
        _drain(opened)
        for listener in self._listeners[kind]:
            listener(kind)


def _open(kind: Kind) -> socket.socket:
    """A socket that hears of nothing but this kind."""
    family, groups = kind.value
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, family)
    try:
        # With an address of its own: one with the kernel's, 0, would be taken for the sender and hear nothing.
        opened.bind((0, 0))
        for group in groups:
            opened.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    except OSError:
        opened.close()
        raise
    return opened


def _drain(opened: socket.socket) -> None:
    for _ in range(READS_MAX):
        try:
            # The rest of the message goes with its first byte.
            opened.recv(1)
        except BlockingIOError:
            break
        except OSError as error:
            # Reported once, and there is more to read behind it.
            if error.errno != errno.ENOBUFS:
                raise
