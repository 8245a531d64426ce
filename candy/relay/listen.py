"""Where the relay listens: its sockets, with or without TLS.

    RelaySettings ─▶ listen() ─▶ a TCPSite of aiohttp for each of hosts(), all on one port

Rule: all sockets open or none do. One that can't be opened is an error, told in one line that says how to mend it.
This module does not know what comes in.
"""

import errno
import os
import ssl

from aiohttp import web

from candy.errors import OperationalError
from candy.relay.settings import RelaySettings
from candy.settings import host_port

BACKLOG = 4096
"""Connections that the kernel may hold until they are accepted: after a restart all members return at once."""


def hosts(settings: RelaySettings) -> tuple[str, ...]:
    """The addresses to listen on. asyncio opens `::` for IPv6 alone, but a user who writes it means both families. Each
    family has a socket of its own, so that the log and the limits show a peer's IPv4 address as one."""
    return ("::", "0.0.0.0") if settings.host == "::" else (settings.host,)


async def listen(runner: web.ServerRunner, settings: RelaySettings, context: ssl.SSLContext | None) -> int:
    """Open the sockets, all on one port.

    Args:
        context: of TLS; None: without.

    Returns:
        the port.

    Raises:
        OperationalError: the address or the port can't be listened on.
    """
    port = settings.port
    for host in hosts(settings):
        await _open(runner, host, port, context)
        port = int(runner.addresses[0][1])
    return port


async def _open(runner: web.ServerRunner, host: str, port: int, context: ssl.SSLContext | None) -> None:
    site = web.TCPSite(runner, host, port, backlog=BACKLOG, ssl_context=context, reuse_address=True)
    where = host_port(host, port)
    family = "IPv6" if ":" in host else "IPv4"
    before = len(runner.addresses)
    try:
        await site.start()
    except OSError as error:
        # asyncio wraps the kernel's error and keeps only its number.
        if error.errno == errno.EADDRINUSE:
            raise OperationalError(f"{where} is in use: end what listens there, or choose another with -w") from None
        if error.errno == errno.EACCES:
            raise OperationalError(
                f"cannot listen on {where}: low ports take root or CAP_NET_BIND_SERVICE: choose another with -w"
            ) from None
        # The number of a name that is not found is negative, and the text is right.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise OperationalError(f"cannot listen on {where}: {reason}: choose another with -w") from None
    # asyncio skips a socket that the kernel refuses to make.
    if len(runner.addresses) == before:
        raise OperationalError(
            f"cannot listen on {where}: there is no socket for it: has this machine {family}, and a descriptor left?"
        )
