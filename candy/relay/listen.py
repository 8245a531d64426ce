"""Where the relay listens: its sockets, with or without TLS.

    RelaySettings ─▶ listen() ─▶ a TCPSite of aiohttp for each of hosts(), all on one port

Rules: nothing is opened by halves, so one socket that is not to be had is an error, told in one line that says how to
mend it. This module does not know what comes in.
"""

import errno
import os
import ssl

from aiohttp import web

from candy.errors import OperationalError
from candy.relay.settings import RelaySettings
from candy.settings import host_port

BACKLOG = 4096
"""Connections that the kernel may hold for us: after a restart everybody returns at once."""


def hosts(settings: RelaySettings) -> tuple[str, ...]:
    """What is listened on. asyncio opens `::` for IPv6 alone, but who writes it means everybody. A socket for each
    family, not one for both: whoever comes over IPv4 then has its IPv4 address in the log and in the limits."""
    return ("::", "0.0.0.0") if settings.host == "::" else (settings.host,)


async def listen(runner: web.ServerRunner, settings: RelaySettings) -> int:
    """Open the endpoints, all on one port.

    Returns:
        the port.

    Raises:
        OperationalError: the address, the port or the certificate is not to be had.
    """
    context = _tls_context(settings)
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
        # Of a name that is not found the number is negative, and the text is right.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise OperationalError(f"cannot listen on {where}: {reason}: choose another with -w") from None
    # asyncio passes over a socket that the kernel does not give.
    if len(runner.addresses) == before:
        raise OperationalError(
            f"cannot listen on {where}: there is no socket for it: has this machine {family}, and a descriptor left?"
        )


def _tls_context(settings: RelaySettings) -> ssl.SSLContext | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without any password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password="")
    except OSError as error:
        if not isinstance(error, ssl.SSLError):
            why = error.strerror or str(error)
        elif error.reason == "KEY_VALUES_MISMATCH":
            why = "the key is of another certificate"
        else:
            why = "one of them is not what it should be"
        raise OperationalError(
            f"cannot use {settings.tls_certificate} with {settings.tls_key}: {why}: "
            "give a PEM chain and its unencrypted key"
        ) from None
    return context
