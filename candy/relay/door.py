"""aiohttp's server, with a deadline and a limit on unauthenticated connections.

    TCP accepts ─▶ numbered -1, -2, … ─▶ request ─▶ upgraded: the engine's number, 1 and more ─▶ authenticated: left
                        └───────────── one Admission counts both, by source ─────────────┘

aiohttp by itself would wait for a first request forever. Here the request has to come within the time that a member
has for its authentication. That time starts anew with the upgrade, and is then watched by the network.

This module does not know what a request asks for.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from candy.relay.admission import Admission

log = logging.getLogger("candy.relay")


class _Request(web.BaseRequest):
    """One whose response, aiohttp's own errors included, does not tell which versions of what run here."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.pop("Server", None)


class Door(web.Server):
    """Accepts HTTP connections for one handler.

    Args:
        handler: answers a request.
        close_connection: ends a connection that the engine has.
        timeout_s: seconds from TCP's accept to the end of aiohttp's part.
        limit_per_source: unauthenticated connections of one address.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        close_connection: Callable[[int], object],
        timeout_s: float,
        limit_per_source: int,
    ) -> None:
        request = partial(_Request, loop=asyncio.get_running_loop())
        super().__init__(handler, request_factory=request, access_log=None, keepalive_timeout=timeout_s)
        self._close_connection = close_connection
        self._timeout_s = timeout_s
        self._admission = Admission(limit_per_source)
        self._last = 0
        self._numbers: dict[RequestHandler, tuple[int, asyncio.TimerHandle]] = {}
        self._transports: dict[int, asyncio.Transport] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._last -= 1
        timer = asyncio.get_running_loop().call_later(self._timeout_s, transport.abort)
        self._numbers[handler] = (self._last, timer)
        self._transports[self._last] = transport
        peer = transport.get_extra_info("peername")
        self.admit(self._last, peer[0] if peer else "unknown")

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        number, timer = self._numbers.pop(handler)
        timer.cancel()
        del self._transports[number]
        self.left(number)

    def upgraded(self, handler: RequestHandler, connection: int, source: str) -> None:
        """The engine owns the connection now, which counts under the engine's number, and never under both at once."""
        if handler in self._numbers:
            self.left(self._numbers[handler][0])
        self.admit(connection, source)

    def admit(self, number: int, source: str) -> None:
        """Count an unauthenticated connection; beyond the limit its source's oldest is closed."""
        oldest = self._admission.arrived(number, source)
        if oldest is None:
            return
        log.debug("%s: too many connections that have not authenticated: the oldest goes", source)
        if oldest > 0:
            self._close_connection(oldest)
        else:
            self._transports[oldest].abort()

    def left(self, number: int) -> None:
        """The connection has authenticated, or has ended."""
        self._admission.left(number)
