"""Where the relay listens: its sockets, with or without TLS.

    RelaySettings ─▶ listen() ─▶ a socket for each address of hosts(), all on one port

Rule: all sockets open or none do. One that can't be opened is an error, told in one line that says how to mend it.
This module does not accept what comes in.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from candy.errors import OperationalError
from candy.options import DEFAULT_HOST
from candy.relay.settings import RelaySettings
from candy.settings import host_port

BACKLOG = 4096
"""Connections that the kernel may hold until they are accepted: after a restart all members return at once."""
IPV4_ROUTES = Path("/proc/net/route")
IPV6_ADDRESSES = Path("/proc/net/if_inet6")
IPV6_SCOPE_HOST = "10"
"""Loopback's, in the fourth column of IPV6_ADDRESSES."""


def hosts(settings: RelaySettings) -> tuple[str, ...]:
    """The addresses to listen on. A socket for `::` is IPv6's alone here, but a user who writes it means both families,
    and one who writes nothing on a machine without IPv4 means them too. Each family has a socket of its own, so that
    the log and the limits show a peer's IPv4 address as one."""
    if settings.host == "::" or (settings.host is None and _has_ipv6_alone()):
        return ("::", "0.0.0.0")
    return (settings.host or DEFAULT_HOST,)


def _has_ipv6_alone() -> bool:
    """Whether this machine has IPv6 addresses, and no interface with IPv4. Loopback doesn't count."""
    try:
        routes = IPV4_ROUTES.read_text().splitlines()[1:]
        addresses = [line.split() for line in IPV6_ADDRESSES.read_text().splitlines()]
    except OSError:
        return False
    return not routes and any(address[3] != IPV6_SCOPE_HOST for address in addresses)


async def listen(settings: RelaySettings) -> list[socket.socket]:
    """Open the sockets, all on one port.

    Returns:
        listening sockets that don't block.

    Raises:
        OperationalError: the address or the port can't be listened on.
    """
    sockets: list[socket.socket] = []
    with ExitStack() as undo:
        for host in hosts(settings):
            sockets += await _open(host, port_of(sockets) if sockets else settings.port, undo)
        undo.pop_all()
    return sockets


def port_of(sockets: Sequence[socket.socket]) -> int:
    """The port on which all of these listen."""
    return int(sockets[0].getsockname()[1])


async def _open(host: str, port: int, undo: ExitStack) -> list[socket.socket]:
    """A socket for each address of the host, which the stack closes."""
    where = host_port(host, port)
    opened: list[socket.socket] = []
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                listener = undo.enter_context(socket.create_server(address, family=family, backlog=BACKLOG))
            except OSError as error:
                # A name may have addresses of a family that this machine lacks.
                if error.errno not in (errno.EAFNOSUPPORT, errno.EMFILE, errno.ENFILE):
                    raise
                continue
            listener.setblocking(False)
            opened.append(listener)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OperationalError(f"{where} is in use: end what listens there, or choose another with -w") from None
        if error.errno == errno.EACCES:
            raise OperationalError(
                f"cannot listen on {where}: low ports take root or CAP_NET_BIND_SERVICE: choose another with -w"
            ) from None
        # The number of a name that is not found is negative, and the text is right.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise OperationalError(f"cannot listen on {where}: {reason}: choose another with -w") from None
    if not opened:
        kind = "IPv6" if ":" in host else "IPv4"
        raise OperationalError(
            f"cannot listen on {where}: there is no socket for it: has this machine {kind}, and a descriptor left?"
        )
    return opened
