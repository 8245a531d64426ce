"""Makes the upgraded connection to another relay, and gives its socket to the engine as a link.

    1 TCP        to the host of its URL
    2 TLS        for wss://, by candy.carrier.secure: in the engine, which has the connection from here on
    3 upgrade    aiohttp's request, with the links' own subprotocol
    4 hand-over  a duplicate of the socket and the bytes read behind the answer, or the engine's connection

Rules: a failure is an OperationalError of one line; a failed attempt leaves no descriptor behind. This module knows
neither messages nor when to try again.
"""

import asyncio
import os
import socket
from contextlib import ExitStack
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from candy._fastpath import Engine, TlsContext
from candy.carrier import upgraded
from candy.carrier.handover import RELAY_DEAD_AFTER_S, RELAY_PING_AFTER_S, RELAY_SUBPROTOCOL
from candy.carrier.secure import Secure, TlsFailed
from candy.errors import OperationalError

ATTEMPT_S: Final = 4.0
"""The kernel asks again after 1 s and 3 s, and then not before 7: a new attempt asks sooner."""


async def dial(url: str, engine: Engine, secure: Secure, tls: TlsContext | None) -> int:
    """Make one attempt of at most ATTEMPT_S.

    Args:
        tls: for wss:// alone.

    Returns:
        the engine's connection.

    Raises:
        OperationalError: there is none; the text begins with the URL.
    """
    connector = _Connector(secure, tls)
    made: int | None = None
    try:
        async with asyncio.timeout(ATTEMPT_S), upgraded.session(connector) as session:
            made = await _upgrade(session, url, engine, connector)
        # The end of aiohttp's session awaits, so time or caller may be over before.
        connection, made = made, None
        return connection
    except TimeoutError:
        why = f"no success within {ATTEMPT_S:g} s"
    except TlsFailed as error:
        why = _no_tls(connector.host, error)
    except aiohttp.ClientError as error:
        why = f"no relay answers there ({error})"
    except (OperationalError, OSError) as error:
        why = str(error)
    finally:
        if made is not None:
            engine.close(made)
        connector.end()
    raise OperationalError(f"{url}: {why}")


async def _upgrade(session: aiohttp.ClientSession, url: str, engine: Engine, connector: "_Connector") -> int:
    key, response = await upgraded.ask(session, url, {"Sec-WebSocket-Protocol": RELAY_SUBPROTOCOL})
    try:
        if response.status != 101:
            raise OperationalError(f"it answers {response.status}: is it a relay of this cluster?")
        if wrong := upgraded.wrong_in(response.headers, key, (RELAY_SUBPROTOCOL,)):
            raise OperationalError(f"its upgrade is not a valid one ({wrong})")
        if response.headers.get("Sec-WebSocket-Protocol") != RELAY_SUBPROTOCOL:
            raise OperationalError("it is no relay of a cluster, or of an older version")
        with ExitStack() as undo:
            fd, tail = upgraded.taken(response)
            if connector.secured is not None:
                plaintext = undo.enter_context(socket.socket(fileno=fd))
                if not engine.upgrade(
                    connector.secured, trunk=True, ping_after=RELAY_PING_AFTER_S, dead_after=RELAY_DEAD_AFTER_S
                ):
                    raise OperationalError("the connection was lost")
                plaintext.close()
                return connector.release()
            undo.callback(os.close, fd)
            connection = engine.adopt(
                fd, trunk=True, tail=tail, ping_after=RELAY_PING_AFTER_S, dead_after=RELAY_DEAD_AFTER_S
            )
            undo.pop_all()
            return connection
    finally:
        response.close()


class _Connector(aiohttp.BaseConnector):
    """Steps 1 and 2, for one connection."""

    def __init__(self, secure: Secure, tls: TlsContext | None) -> None:
        super().__init__(force_close=True)
        self._secure = secure
        self._tls = tls
        self._used = False
        self.host = ""
        """Whose certificate it has to be."""
        self.secured: int | None = None
        """The engine's connection."""

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        if self._used:
            # aiohttp repeats a GET at once when the server closes the connection.
            raise aiohttp.ServerDisconnectedError
        self._used = True
        self.host = req.url.raw_host or ""
        opened = await _connected(self.host, req.url.port or 0)
        if self._tls is not None:
            self.secured, opened = await self._secure.open(opened, self._tls)
        _, protocol = await self._loop.create_connection(self._factory, sock=opened)
        return protocol

    def release(self) -> int:
        """The engine's connection is somebody else's matter from here on."""
        assert self.secured is not None
        connection, self.secured = self.secured, None
        self._secure.release(connection)
        return connection

    def end(self) -> None:
        if self.secured is not None:
            self._secure.close(self.secured)


def _no_tls(host: str, error: TlsFailed) -> str:
    """Why there is none, and what to do."""
    if not error.verdict:
        return f"TLS failed ({error}): is it a wss:// port, or rather ws://?"
    # It takes ten megabytes.
    from candy.carrier.distrust import OTHER_HOST, other_host

    if error.verdict in OTHER_HOST:
        its = other_host(error.certificate, host)
        return f"{its}: have {host} added to it, or give that relay the url that it is for"
    return f"its TLS certificate is not trusted ({error}): name its authority with ca_file in [cluster]"


async def _connected(host: str, port: int) -> socket.socket:
    """Raises OSError."""
    loop = asyncio.get_running_loop()
    failed: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with ExitStack() as undo:
            sock = undo.enter_context(socket.socket(family, kind, protocol))
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, address)
            except OSError as error:
                failed = error
                continue
            undo.pop_all()
            return sock
    raise failed
