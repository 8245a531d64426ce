"""The relay: aiohttp at the door, the engine behind it, and the networks' decisions carried out between the two.

    TCP ─▶ Door (aiohttp) ─▶ Relay.answer ─▶ upgrade.hand_over ─▶ engine ──events──▶ Relay ──▶ Network
                                                                 engine ◀───────── actions ◀──────┘

Rules:
 1. This is the only part of the relay that awaits, reads clocks and draws random numbers.
 2. One Session per member is all that is kept of it in Python; aiohttp's objects go with the upgrade.
 3. Whoever has not authenticated is on a clock from the moment TCP accepted it, and counts against its source.

It never sees a forwarded packet.
"""

import asyncio
import errno
import logging
import os
import resource
import signal
import ssl
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial

from aiohttp import web

from candy import upgrade
from candy._fastpath import EVENT_CLOSED, EVENT_MESSAGE, EVENT_PONG, Engine
from candy.addresses import Pool
from candy.auth import FailureLimiter
from candy.config import ServerSettings, member_address, member_line
from candy.door import Door
from candy.errors import OperationalError
from candy.network import Network
from candy.session import Action, Bind, Close, Drop, Log, Ping, Send, Unbind

BACKLOG = 4096
"""Connections that the kernel may hold for us: after a restart everybody returns at once."""
GOODBYE_S = 2.0
"""How long members may take to answer the close frame when the relay ends."""
GOING_AWAY = 1001

log = logging.getLogger("candy.server")


def run(settings: ServerSettings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status.

    Raises:
        OperationalError: the address, the certificate or the machine's resources are not to be had.
    """
    # aiohttp complains of every malformed request, which here are everybody's to send.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: ServerSettings) -> None:
    _raise_descriptor_limit()
    try:
        engine = Engine(settings.workers, queue_bytes=settings.queue_bytes, max_connections=settings.max_connections)
    except OSError as error:
        raise OperationalError(f"cannot start {settings.workers} workers: {error.strerror}: use --workers 1") from None
    relay = Relay(settings, engine)
    runner = web.ServerRunner(relay.door, handle_signals=False)
    await runner.setup()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        port = await _listen(runner, settings)
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stopped.set)
        loop.add_signal_handler(signal.SIGUSR1, relay.log_counters)
        log.info("listening on %s:%d, %s", settings.host, port, _describe_pool(settings))
        print("To join this network, run on another machine:", flush=True)
        print("  " + member_line(settings, member_address(settings.host), port), flush=True)
        await stopped.wait()
        log.info("ending")
        for site in list(runner.sites):
            await site.stop()
        await relay.close_all()
    finally:
        await runner.cleanup()
        relay.stop()
        engine.stop()


async def _listen(runner: web.ServerRunner, settings: ServerSettings) -> int:
    """Open the endpoint; returns its port."""
    site = web.TCPSite(
        runner,
        settings.host,
        settings.port,
        backlog=BACKLOG,
        ssl_context=_tls_context(settings),
        reuse_address=True,
    )
    where = f"{settings.host}:{settings.port}"
    try:
        await site.start()
    except OSError as error:
        # asyncio wraps the kernel's error and keeps only its number.
        if error.errno == errno.EADDRINUSE:
            raise OperationalError(f"{where} is in use: end what listens there, or choose another with -w") from None
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise OperationalError(f"cannot listen on {where}: {reason}: choose another with -w") from None
    return int(runner.addresses[0][1])


def _tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise OperationalError(
            f"cannot use {settings.tls_certificate} with {settings.tls_key}: {error}: "
            "give a PEM chain and its unencrypted key"
        ) from None
    return context


def _describe_pool(settings: ServerSettings) -> str:
    return f"addresses from {settings.pool}" if settings.pool else "no pool: members bring their addresses"


def _raise_descriptor_limit() -> None:
    """Every member is a descriptor: take what the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Relay:
    """Between the engine, which reports, and the networks, which decide."""

    def __init__(self, settings: ServerSettings, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(engine.fileno(), self._on_events)
        self.door = Door(
            self.answer,
            close_connection=engine.close,
            timeout_s=settings.auth_timeout,
            limit_per_source=settings.unauthenticated_per_source,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._drops: Counter[str] = Counter()
        self._connections: set[int] = set()
        self._ending: asyncio.Future[None] | None = None
        pool = settings.pool
        self._number = engine.add_network(int(pool.broadcast_address) if pool else 0xFFFFFFFF)
        self._network = Network(
            settings.password,
            Pool(pool) if pool else None,
            randbytes=os.urandom,
            failures=FailureLimiter(settings.failures_per_minute),
            tolerance=settings.clock_tolerance,
            allow_outside_pool=settings.allow_outside_pool,
            authentication_timeout=settings.auth_timeout,
        )

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """aiohttp's handler: a refusal, or the hand-over to the engine."""
        refused = upgrade.refusal(request)
        if refused is not None:
            return refused
        source = request.remote or "unknown"
        try:
            connection, response = upgrade.hand_over(request, self._engine, self._number)
        except OSError as error:
            log.warning("%s: not let in: %s", source, error.strerror or error)
            return web.Response(status=503, text="The relay is full; try again later.\n")
        self._connections.add(connection)
        self.door.admit(connection, source)
        self._act(self._network.opened(connection, source, self._loop.time()))
        self._set_timer()
        return response

    async def close_all(self) -> None:
        """Tell every member that the relay ends, and wait for their answers for a moment."""
        self._ending = self._loop.create_future()
        for connection in self._connections:
            self._engine.close(connection, GOING_AWAY, "the relay ends")
        if self._connections:
            await asyncio.wait([self._ending], timeout=GOODBYE_S)

    def stop(self) -> None:
        """Leave the event loop."""
        self._loop.remove_reader(self._engine.fileno())
        if self._timer is not None:
            self._timer.cancel()

    def log_counters(self) -> None:
        """Write all counters to the log (SIGUSR1)."""
        drops = Counter(self._engine.drops()) + self._drops
        for name, value in {**self._engine.stats(), **{f"dropped {k}": v for k, v in drops.items()}}.items():
            log.info("%s: %d", name, value)

    def _on_events(self) -> None:
        now, wall = self._loop.time(), int(time.time())
        for connection, kind, detail in self._engine.events():
            if kind == EVENT_MESSAGE:
                self._act(self._network.received(connection, detail, now, wall))
            elif kind == EVENT_PONG:
                self._act(self._network.ponged(connection, detail, now, wall))
            elif kind == EVENT_CLOSED:
                self._on_closed(connection, detail.decode(), now)
        self._set_timer()

    def _on_closed(self, connection: int, cause: str, now: float) -> None:
        log.debug("connection %d closed: %s", connection, cause)
        self._connections.discard(connection)
        self.door.left(connection)
        self._act(self._network.closed(connection, now))
        if self._ending is not None and not self._connections and not self._ending.done():
            self._ending.set_result(None)

    def _on_timer(self) -> None:
        self._timer = None
        self._act(self._network.expired(self._loop.time(), int(time.time())))
        self._set_timer()

    def _set_timer(self) -> None:
        """Wake up for the next deadline. Most deadlines are met early, so an earlier waking is left alone."""
        when = self._network.next_deadline()
        if when is None or (self._timer is not None and self._timer.when() <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def _act(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send():
                    self._engine.send(action.connection, action.payload)
                case Bind():
                    self._engine.bind(action.connection, action.ip)
                    self.door.left(action.connection)
                case Unbind():
                    self._engine.unbind(action.connection)
                case Ping():
                    self._engine.ping(action.connection, action.payload)
                case Close(delay=0.0):
                    self._engine.close(action.connection, action.code, action.reason)
                case Close():
                    close = partial(self._engine.close, action.connection, action.code, action.reason)
                    self._loop.call_later(action.delay, close)
                case Drop():
                    self._drops[action.reason] += 1
                case Log():
                    log.log(logging.getLevelNamesMapping()[action.level.upper()], action.text)
