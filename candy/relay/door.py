"""Where strangers come in: each has a number, a source and a deadline from TCP's accept on, and aiohttp once it speaks.

    Acceptor ─▶ Guest -1, …              ─▶ first bytes ─▶ queue ─▶ aiohttp's request ─▶ upgraded: the engine's number
             └▶ TLS: Guest of the engine ─▶ handshake ───────┘                            └▶ upgraded: the same number
                   └─────────────── one Admission counts all these numbers, by source ──────────────┘

Rules:
 1. A guest has as long as a member has for its authentication to be upgraded, and tls.HANDSHAKE_S of this for TLS. That
    time starts anew with the upgrade, and is then watched by the network.
 2. A guest that says nothing costs a descriptor and little more. asyncio gets it when its first bytes are there, and
    under TLS a socket to the engine when the engine is through with the handshake.
 3. A request takes time of the loop. So a turn begins few, and a guest that its source's limit closes while it is in
    the queue costs none.
 4. A trusted proxy's guest is counted when its request has told the source.

This module does not know what a request asks for.
"""

import asyncio
import contextlib
import logging
import secrets
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from candy._fastpath import EVENT_CLOSED, EVENT_HELLO, EVENT_SECURED, EVENT_TLS, Engine
from candy.carrier.secure import plaintext
from candy.carrier.tls import HANDSHAKE_S, Certificates
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
    """The engine's, or one below 0."""
    peer: str
    """IP address as text."""
    sock: socket.socket | None
    """None: the engine has it."""
    request_deadline: float
    alarm: Alarm | None = None
    """None: the engine's deadline for a handshake."""
    is_queued: bool = False
    serving: asyncio.Task[None] | None = None
    """Since it has left the queue."""
    transport: asyncio.Transport | None = None
    """aiohttp's."""


class Door(web.Server):
    """Serves HTTP to the connections that it is given, for one handler.

    Args:
        handler: answers a request.
        engine: does TLS, and has the connections that were upgraded.
        clock: of all deadlines.
        timeout_s: seconds from TCP's accept to the end of aiohttp's part; may be set anew.
        limit_per_source: unauthenticated connections of one source.
        proxies: whose word on where a request comes from counts; may be set anew.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        engine: Engine,
        clock: Clock,
        timeout_s: float,
        limit_per_source: int,
        proxies: TrustedProxies,
    ) -> None:
        request = partial(_Request, loop=asyncio.get_running_loop())
        # aiohttp's own deadline is longer than any of ours.
        super().__init__(self._answer, request_factory=request, access_log=None)
        self._handler = handler
        self._certificates: Certificates | None = None
        """What is shown to guests; None: no TLS."""
        self._acceptor: Acceptor | None = None
        self._engine = engine
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
        self._left: asyncio.Future[None] | None = None
        """Done when the last guest has left, once that is awaited."""

    @property
    def guests(self) -> int:
        """Connections that nobody has upgraded."""
        return len(self._guests)

    def open(self, listeners: Sequence[socket.socket], certificates: Certificates | None = None) -> None:
        """Accept from these sockets, and show `certificates` to who comes; None: no TLS."""
        self._certificates = certificates
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
        now = self._clock.time()
        if self._certificates is None:
            self._last -= 1
            alarm = self._clock.call_at(now + self.timeout_s, partial(self._end, self._last))
            guest = Guest(self._last, peer, connection, now + self.timeout_s, alarm)
        else:
            try:
                number = self._begin_tls(connection, self._certificates)
            except OSError as error:
                connection.close()
                self.short(error)
                return
            guest = Guest(number, peer, None, now + self.timeout_s)
        self._guests[guest.number] = guest
        if peer not in self.proxies:
            self.admit(guest.number, peer)
        if guest.sock is None:
            return
        connection.setblocking(False)
        # Not only when the loop comes round: what came together with the connection counts as said at once.
        head = _peek(connection)
        if head is None:
            self._loop.add_reader(connection, self._look, guest)
        else:
            self._hear(guest, head)

    def _begin_tls(self, connection: socket.socket, certificates: Certificates) -> int:
        patience = min(self.timeout_s, HANDSHAKE_S)
        number = self._engine.begin_tls(connection.fileno(), tls=certificates.serving, deadline=patience)
        connection.detach()
        return number

    def on_event(self, number: int, kind: int, detail: bytes) -> None:
        """What the engine tells of a guest."""
        if kind == EVENT_HELLO:
            self._admission.heard(number)
        elif kind == EVENT_SECURED:
            self._queue_up(self._guests[number])
        elif kind == EVENT_TLS:
            log.debug("connection %d: no TLS: %s", number, detail[2:].decode("ascii"))
        elif kind == EVENT_CLOSED:
            log.debug("connection %d closed: %s", number, detail.decode("ascii").partition(" ")[0])
            self._forget(self._guests[number])

    def _look(self, guest: Guest) -> None:
        """See whether a silent guest has said something by now."""
        assert guest.sock is not None
        head = _peek(guest.sock)
        if head is not None:
            self._loop.remove_reader(guest.sock)
            self._hear(guest, head)

    def _hear(self, guest: Guest, head: bytes) -> None:
        """The first that a guest has said; nothing for its end."""
        if not head:
            self._end(guest.number)
            return
        self._admission.heard(guest.number)
        self._queue_up(guest)

    def _queue_up(self, guest: Guest) -> None:
        if guest.alarm is not None:
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
            guest.request_deadline += now - since
            guest.alarm = self._clock.call_at(guest.request_deadline, partial(self._end, guest.number))
            guest.serving = self._loop.create_task(self._serve(guest))
        if self._queue:
            self._loop.call_soon(self._serve_some)

    async def _serve(self, guest: Guest) -> None:
        """Give a guest to aiohttp."""
        try:
            sock = guest.sock if guest.sock is not None else plaintext(self._engine, guest.number)
        except ConnectionError:
            # Its end is on its way.
            return
        except OSError as error:
            self.short(error)
            self._engine.close(guest.number)
            return
        handler = self()
        self._numbers[handler] = guest.number
        await self._loop.connect_accepted_socket(lambda: handler, sock)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """aiohttp's handler."""
        response = await self._handler(request)
        guest = self.guest(request)
        if guest is not None:
            # No upgrade: its next request may pass.
            self._engine.pass_http(guest)
        return response

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        guest = self._guests.get(self._numbers[handler])
        if guest is not None:
            guest.transport = transport

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        # None: aiohttp has closed it by itself.
        if handler.transport is not None:
            # As Python does itself from 3.12 on: else the transport refers to itself, and the garbage of a thousand
            # log-ins takes a megabyte until it is collected.
            vars(handler.transport).pop("_read_ready_cb", None)
        super().connection_lost(handler, exc)
        guest = self._guests.get(self._numbers.pop(handler))
        # Of what the engine has it tells the end.
        if guest is not None and guest.sock is not None:
            self._forget(guest)

    def _forget(self, guest: Guest) -> None:
        if guest.alarm is not None:
            guest.alarm.cancel()
        del self._guests[guest.number]
        self.left(guest.number)
        if not self._guests and self._left is not None and not self._left.done():
            self._left.set_result(None)

    def _end(self, number: int) -> None:
        """End a guest, whatever it waits for."""
        guest = self._guests[number]
        if guest.sock is None:
            self._engine.close(number)
        elif guest.serving is None:
            self._loop.remove_reader(guest.sock)
            guest.sock.close()
            self._forget(guest)
        elif guest.transport is not None:
            guest.transport.abort()
        else:
            # aiohttp will notice the end of its socket.
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
        if self._guests:
            # The engine may have the last bytes of an answer.
            self._left = self._loop.create_future()
            await asyncio.wait([self._left], timeout=timeout)

    def client(self, request: web.BaseRequest) -> str:
        """Where a request comes from: an IP address as text, or what stands for it."""
        guest = self._guests.get(self._numbers.get(request.protocol, 0))
        if guest is None:
            return "unknown"
        peer = guest.peer
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

    def guest(self, request: web.BaseRequest) -> int | None:
        """The engine's guest that a request comes from; None: it is none of the engine's, or none any more."""
        guest = self._guests.get(self._numbers.get(request.protocol, 0))
        return guest.number if guest is not None and guest.sock is None else None

    def upgraded(self, handler: RequestHandler, connection: int, source: str) -> None:
        """The engine owns the connection now, which counts under the engine's number, and never under both at once."""
        number = self._numbers.get(handler)
        if number == connection:
            self._forget(self._guests[number])
        elif number is not None:
            self.left(number)
        self.admit(connection, source, heard=True)

    def admit(self, number: int, source: str, *, heard: bool = False) -> None:
        """Count an unauthenticated connection; beyond the limit one of its source's is closed."""
        victim = self._admission.arrived(number, source, heard=heard)
        if victim is None:
            return
        log.debug("%s: too many connections that have not authenticated: one of them goes", source)
        if victim > 0:
            self._engine.close(victim)
        else:
            self._end(victim)

    def left(self, number: int) -> None:
        """The connection has authenticated, or has ended."""
        self._admission.left(number)


def _peek(sock: socket.socket) -> bytes | None:
    """A byte of what a guest has said; None for nothing yet, nothing for an end."""
    try:
        return sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
