"""Where strangers come in: each has a number, a source and a deadline from TCP's accept on, and aiohttp once it speaks.

    Acceptor ─▶ Guest -1, … ─▶ first bytes ─▶ queue ─▶ TLS ─▶ aiohttp's request ─▶ upgraded: the engine's number ─▶ left
                   └───────────────── one Admission counts both numbers, by source ──────────────┘

Rules:
 1. A guest has as long as a member has for its authentication to be upgraded, and tls.HANDSHAKE_S of this for TLS. That
    time starts anew with the upgrade, and is then watched by the network.
 2. A guest that says nothing costs a descriptor and little more. asyncio gets it when its first bytes are there, and
    under TLS when all of its ClientHello is: from then on TLS takes 256 KiB for it.
 3. A handshake takes milliseconds of the loop. So a turn begins few, and a guest that its source's limit closes while
    it is in the queue costs none.
 4. A trusted proxy's guest is counted when its request has told the source.

This module does not know what a request asks for.
"""

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from candy.carrier import tls
from candy.protocol.addresses import is_loopback
from candy.relay.accept import Acceptor
from candy.relay.admission import Admission
from candy.relay.clock import Alarm, Clock
from candy.relay.proxies import TrustedProxies

BEGINS_PER_TURN = 8

log = logging.getLogger("candy.relay")


class _Request(web.BaseRequest):
    """One whose response, aiohttp's own errors included, does not tell which versions of what run here."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.pop("Server", None)


@dataclass(slots=True, eq=False)
class Guest:
    """A connection that was accepted, as long as it is aiohttp's or nobody's."""

    number: int
    sock: socket.socket
    request_deadline: float
    alarm: Alarm
    awaited: int
    """Bytes that have to be there before it is queued."""
    is_queued: bool = False
    serving: asyncio.Task[None] | None = None
    """Since it has left the queue."""
    transport: asyncio.Transport | None = None
    """aiohttp's."""


class Door(web.Server):
    """Serves HTTP to the connections that it is given, for one handler.

    Args:
        handler: answers a request.
        close_connection: ends a connection that the engine has.
        clock: of all deadlines.
        timeout_s: seconds from TCP's accept to the end of aiohttp's part; may be set anew.
        limit_per_source: unauthenticated connections of one source.
        proxies: whose word on where a request comes from counts; may be set anew.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        close_connection: Callable[[int], object],
        clock: Clock,
        timeout_s: float,
        limit_per_source: int,
        proxies: TrustedProxies,
    ) -> None:
        request = partial(_Request, loop=asyncio.get_running_loop())
        # aiohttp's own deadline is longer than any of ours.
        super().__init__(handler, request_factory=request, access_log=None)
        self.tls: ssl.SSLContext | None = None
        """What is shown to guests; None: no TLS."""
        self._acceptor: Acceptor | None = None
        self._close_connection = close_connection
        self._clock = clock
        self.timeout_s = timeout_s
        self.proxies = proxies
        self._admission = Admission(limit_per_source, secrets.randbelow)
        self._has_warned_of_proxy = False
        self._last = 0
        self._guests: dict[int, Guest] = {}
        self._queue: deque[tuple[Guest, float]] = deque()
        """Guests that have said something, since when, and some that have gone meanwhile."""
        self._numbers: dict[RequestHandler, int] = {}

    @property
    def guests(self) -> int:
        """Connections that nobody has upgraded."""
        return len(self._guests)

    def open(self, listeners: Sequence[socket.socket], context: ssl.SSLContext | None = None) -> None:
        """Accept from these sockets, and show `context` to who comes; None: no TLS."""
        self.tls = context
        self._acceptor = Acceptor(listeners, self.accepted)

    def close(self) -> None:
        """Accept no more. Idempotent."""
        if self._acceptor is not None:
            self._acceptor.close()

    def short(self, error: OSError) -> None:
        """There is no room for a connection that was accepted already."""
        if self._acceptor is not None:
            self._acceptor.short(error)

    def accepted(self, connection: socket.socket, peer: str) -> None:
        """Take a connection, and own it from here on.

        Args:
            peer: its IP address as text.
        """
        self._last -= 1
        number = self._last
        now = self._clock.time()
        patience = self.timeout_s if self.tls is None else min(self.timeout_s, tls.HANDSHAKE_S)
        alarm = self._clock.call_at(now + patience, partial(self._end, number))
        guest = Guest(number, connection, now + self.timeout_s, alarm, awaited=1)
        self._guests[number] = guest
        if peer not in self.proxies:
            self.admit(number, peer)
        connection.setblocking(False)
        if self.tls is not None:
            self._await_bytes(guest, tls.RECORD_HEADER_BYTES)
        # Not only when the loop comes round: what came together with the connection counts as said at once.
        self._look(guest, is_readable=False)
        if not guest.is_queued and number in self._guests:
            self._loop.add_reader(connection, self._look, guest)

    def _look(self, guest: Guest, *, is_readable: bool = True) -> None:
        """See what a silent guest has said by now."""
        head = _peek(guest)
        if self.tls is not None and head is not None and guest.awaited == len(head) == tls.RECORD_HEADER_BYTES:
            self._await_bytes(guest, tls.record_bytes(head))
            head, is_readable = _peek(guest), False
        if head is None:
            return
        if not head:
            self._end(guest.number)
            return
        # A socket that is readable with fewer bytes has come to its end, or the kernel is short of memory for more.
        if len(head) < guest.awaited and not is_readable:
            return
        self._loop.remove_reader(guest.sock)
        self._await_bytes(guest, 1)
        self._admission.heard(guest.number)
        guest.alarm.cancel()
        guest.is_queued = True
        self._queue.append((guest, self._clock.time()))
        if len(self._queue) == 1:
            self._loop.call_soon(self._serve_some)

    def _serve_some(self) -> None:
        """Serve those who have been in the queue longest; what they waited there is not theirs."""
        now = self._clock.time()
        begun = 0
        while self._queue and begun < BEGINS_PER_TURN:
            guest, since = self._queue.popleft()
            if guest.number not in self._guests:
                continue
            begun += 1
            waited = now - since
            guest.request_deadline += waited
            guest.alarm = self._clock.call_at(guest.alarm.when + waited, partial(self._end, guest.number))
            guest.serving = self._loop.create_task(self._serve(guest))
        if self._queue:
            self._loop.call_soon(self._serve_some)

    def _await_bytes(self, guest: Guest, count: int) -> None:
        """Let the socket be readable when it has so many bytes, or its end."""
        if count != guest.awaited:
            guest.awaited = count
            guest.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    async def _serve(self, guest: Guest) -> None:
        """Give a guest to aiohttp, through TLS."""
        handler = self()
        self._numbers[handler] = guest.number
        try:
            await self._loop.connect_accepted_socket(lambda: handler, guest.sock, ssl=self.tls)
        except OSError as error:
            log.debug("connection %d: no TLS: %s", guest.number, error)
            # asyncio's frames and the future whose error this is hold each other, and TLS' buffers with them.
            traceback.clear_frames(error.__traceback__)
            del self._numbers[handler]
            self._forget(guest)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        guest = self._guests[self._numbers[handler]]
        guest.transport = transport
        guest.alarm.cancel()
        guest.alarm = self._clock.call_at(guest.request_deadline, partial(self._end, guest.number))

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._forget(self._guests[self._numbers.pop(handler)])

    def _forget(self, guest: Guest) -> None:
        guest.alarm.cancel()
        del self._guests[guest.number]
        self.left(guest.number)

    def _end(self, number: int) -> None:
        """End a guest, whatever it waits for."""
        guest = self._guests[number]
        if guest.serving is None:
            self._loop.remove_reader(guest.sock)
            guest.sock.close()
            self._forget(guest)
        elif guest.transport is not None:
            guest.transport.abort()
        else:
            # In the middle of TLS' handshake, which has no way to end it: it notices the end of its socket.
            with contextlib.suppress(OSError):
                guest.sock.shutdown(socket.SHUT_RDWR)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Accept no more, and end all guests; those that are answered just now have so many seconds."""
        self.close()
        for guest in list(self._guests.values()):
            if guest.transport is None:
                self._end(guest.number)
        self.pre_shutdown()
        await super().shutdown(timeout)

    def client(self, request: web.BaseRequest) -> str:
        """Where a request comes from: an IP address as text, or what stands for it."""
        peer = request.remote
        if peer is None:
            return "unknown"
        forwarded, x_forwarded_for = (request.headers.getall(name, ()) for name in ("Forwarded", "X-Forwarded-For"))
        if (forwarded or x_forwarded_for) and is_loopback(peer) and peer not in self.proxies:
            self._warn_of_proxy(peer)
        return self.proxies.client(peer, forwarded, x_forwarded_for)

    def _warn_of_proxy(self, peer: str) -> None:
        if not self._has_warned_of_proxy:
            self._has_warned_of_proxy = True
            log.warning(
                "a proxy on this machine forwards for others, whom the limits cannot tell apart: "
                "name it by --trusted-proxy %s",
                peer,
            )

    def upgraded(self, handler: RequestHandler, connection: int, source: str) -> None:
        """The engine owns the connection now, which counts under the engine's number, and never under both at once."""
        if handler in self._numbers:
            self.left(self._numbers[handler])
        self.admit(connection, source, heard=True)

    def admit(self, number: int, source: str, *, heard: bool = False) -> None:
        """Count an unauthenticated connection; beyond the limit one of its source's is closed."""
        victim = self._admission.arrived(number, source, heard=heard)
        if victim is None:
            return
        log.debug("%s: too many connections that have not authenticated: one of them goes", source)
        if victim > 0:
            self._close_connection(victim)
        else:
            self._end(victim)

    def left(self, number: int) -> None:
        """The connection has authenticated, or has ended."""
        self._admission.left(number)


def _peek(guest: Guest) -> bytes | None:
    """What a guest has said, as far as it is awaited; None for nothing yet, nothing for an end."""
    try:
        return guest.sock.recv(guest.awaited, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
