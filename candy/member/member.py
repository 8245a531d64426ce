"""The client: one conversation after another, under an interface that stays.

    Dialer ──fd──▶ Engine ──events──▶ Conversation ──actions──▶ Engine, Tun, KernelRoutes, MemberState, Peers, log
       ▲           ▲ packets            │      ▲
       │          Tun                Ending  RouteSet
       └───────────── Backoff ◀─────────┘

Rules: this is the adapter, so it waits and decides nothing; the interface keeps its address and its routes between
connections, so that what is open over it survives; a signal ends everything, with a goodbye to the relay.

This module does not know packets, nor what the messages mean.
"""

import asyncio
import logging
import os
import random
import secrets
import signal
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from ipaddress import IPv4Interface
from math import inf

from candy import __version__, counters
from candy._fastpath import EVENT_CLOSED, EVENT_LOST, EVENT_MESSAGE, EVENT_PONG, Engine
from candy.errors import OperationalError
from candy.host.kernelroutes import KernelRoutes
from candy.host.masquerade import Masquerade
from candy.host.tun import Tun
from candy.member.backoff import Backoff
from candy.member.conversation import (
    Action,
    Configure,
    Conversation,
    Ending,
    Join,
    Keep,
    Learn,
    Member,
    SetRoutes,
)
from candy.member.dial import Dialer, Upgraded
from candy.member.peers import Peers
from candy.member.routeset import RouteSet
from candy.member.settings import MemberSettings
from candy.member.state import MemberState
from candy.protocol.actions import Close, Drop, Log, Ping, Send
from candy.protocol.closing import CloseCode
from candy.protocol.wire import RouteEntry

GOODBYE_S = 2.0
"""How long the relay may take to answer our close frame."""
WORKERS_MAX = 2
"""One for each direction, where there are cores for them; on two, one is as fast, and a ping is back sooner."""
MAX_CONNECTIONS = 64
"""Of the engine: the interface, a connection, and those before it that are about to end."""
PING_AFTER_S = 15.0
DEAD_AFTER_S = 40.0
LONGEST_PING = 125

_log = logging.getLogger(__name__)


class Client:
    """The adapter: carries out what conversations ask for, one after another, until it is cancelled.

    Args:
        member: who speaks.
        state: keeps address and timestamp.
        dialer, engine, tun, kernel: as made by run(); the engine has one network, number 0.
        random: a number in [0, 1).
        wall: Unix seconds.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        member: Member,
        state: MemberState,
        dialer: Dialer,
        engine: Engine,
        tun: Tun,
        kernel: KernelRoutes,
        *,
        random: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._member = member
        self._state = state
        self._dialer = dialer
        self._engine = engine
        self._tun = tun
        self._tun_connection = engine.adopt_tun(tun.fileno(), vnet=tun.vnet)
        self._kernel = kernel
        self._told = RouteSet()
        self._routes: tuple[RouteEntry, ...] = ()
        """To be used, as far as this machine can."""
        self._peers = Peers()
        self._drops: Counter[str] = Counter()
        self._backoff = Backoff(random)
        self._wall = wall
        self._sleep = sleep
        self._last = state.address()
        """The address to ask for."""
        self._complaint = ""
        """The last line about an end: not said again until a connection held."""

    def log_counters(self) -> None:
        """Write all counters to the log, then the routes in use and what is known of other members (SIGUSR1)."""
        for line in counters.lines(self._engine.stats(), self._engine.drops(), self._drops):
            _log.info("%s", line)
        for destination, next_hop in self._kernel.installed.items():
            _log.info("route %s: through %s", destination, next_hop)
        for address, peer in self._peers:
            _log.info("member %s: %s", address, peer)

    async def stay(self) -> None:
        """Connect and reconnect until cancelled; then say goodbye to the relay.

        Raises:
            OperationalError: the interface or the state can't be used.
        """
        if self._member.address is not None:
            await self._tun.configure(self._member.address)
        _log.info("interface %s is made; connecting to %s", self._tun.name, self._dialer.relay)
        while True:
            # This machine, or the relay, may have moved to where one of the routes leads.
            await self._set_routes()
            try:
                upgraded = await self._dialer.dial()
            except OperationalError as error:
                ending = Ending(str(error))
            else:
                ending = await self._converse(upgraded)
            if ending.held:
                self._backoff.held()
                self._complaint = ""
            delay = self._backoff.next_delay(refused=ending.refused)
            level = logging.DEBUG if ending.text == self._complaint else logging.WARNING
            self._complaint = ending.text
            _log.log(level, "%s; trying again in %.1f s", ending.text, delay)
            await self._sleep(delay)

    async def _converse(self, upgraded: Upgraded) -> Ending:
        try:
            connection = self._engine.adopt(upgraded.fd, client=True, extended=upgraded.extended, tail=upgraded.tail)
        except OSError as error:
            os.close(upgraded.fd)
            return Ending(f"the engine can't take the connection: {error.strerror}")
        ending = None
        try:
            timestamp = self._state.next_timestamp(int(self._wall()))
            conversation = Conversation(
                self._member, connection, timestamp, self._last, self._told, extended=upgraded.extended
            )
            ending = await self._lead(conversation, connection)
            return ending
        finally:
            if ending is None:
                await self._say_goodbye(connection)
            if upgraded.transport is not None:
                # What the engine had to say is said; a silent relay could keep it open for a while yet.
                upgraded.transport.abort()

    async def _lead(self, conversation: Conversation, connection: int) -> Ending:
        now = asyncio.get_running_loop().time
        await self._perform(conversation.opened(now()))
        while True:
            await self._wait_for_events(conversation.deadline)
            for source, event, detail in self._engine.events():
                if event == EVENT_LOST:
                    raise OperationalError(f"interface {self._tun.name} was removed from outside: start again")
                if source != connection:
                    continue
                if event == EVENT_CLOSED:
                    return conversation.closed(detail.decode("ascii"), now())
                if event == EVENT_PONG:
                    await self._perform(conversation.ponged(now()))
                elif event == EVENT_MESSAGE:
                    await self._perform(conversation.received(detail, now(), int(self._wall())))
            await self._perform(conversation.expired(now()))

    async def _perform(self, actions: list[Action]) -> None:
        # Whether the engine took something is not asked: where it could not, an EVENT_CLOSED is on its way.
        for action in actions:
            match action:
                case Send():
                    self._engine.send(action.connection, action.payload)
                case Ping():
                    self._engine.ping(action.connection, action.payload)
                case Close():
                    self._engine.close(action.connection, action.code, action.reason)
                case Join():
                    self._engine.join(action.connection, self._tun_connection)
                case Configure():
                    await self._tun.configure(action.address)
                    self._last = action.address
                case Keep():
                    self._state.keep_address(action.address)
                case SetRoutes():
                    self._routes = action.routes
                    await self._set_routes()
                case Learn():
                    _log.debug("%s: %s", action.message.src, self._peers.learn(action.message))
                case Drop():
                    self._drops[action.reason] += 1
                    _log.debug("message from the relay dropped: %s", action.reason)
                case Log():
                    _log.log(logging.getLevelNamesMapping()[action.level.upper()], "%s", action.text)

    async def _set_routes(self) -> None:
        """Have kernel and engine route as far as both can; without an address there is nothing to route."""
        own = self._tun.address
        if own is None:
            return
        # The engine first, so that it wraps already what the kernel sends.
        self._wrap(self._routes, own)
        taken = await self._kernel.install(self._routes, own, self._dialer.addresses)
        if taken != self._routes:
            self._wrap(taken, own)

    def _wrap(self, entries: tuple[RouteEntry, ...], own: IPv4Interface) -> None:
        """Have the engine wrap what is for these destinations."""
        routes = [(entry.destination, int(entry.next_hop)) for entry in entries]
        # A destination may enclose the members' own network: they are still reached directly, next hop 0.
        enclosing = (i for i, (destination, _) in enumerate(routes) if own.network.subnet_of(destination))
        if (first := next(enclosing, None)) is not None:
            routes.insert(first, (own.network, 0))
        self._engine.set_routes(
            self._tun_connection,
            int(own.ip),
            [(int(network.network_address), int(network.netmask), next_hop) for network, next_hop in routes],
        )

    async def _wait_for_events(self, deadline: float) -> None:
        """Return once the engine has events, or at the deadline."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._engine.fileno(), readable.set)
        try:
            async with asyncio.timeout_at(deadline if deadline < inf else None):
                await readable.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(self._engine.fileno())

    async def _say_goodbye(self, connection: int) -> None:
        deadline = asyncio.get_running_loop().time() + GOODBYE_S
        open_ = self._engine.close(connection, CloseCode.GOING_AWAY, "")
        while open_ and asyncio.get_running_loop().time() < deadline:
            await self._wait_for_events(deadline)
            open_ = (connection, EVENT_CLOSED) not in {(s, event) for s, event, _ in self._engine.events()}


def hello(host: str) -> bytes:
    """The payload of the first PING, as the original sends it."""
    return f"candy::linux::{__version__}::{host}".encode()[:LONGEST_PING]


async def _stay_until_signal(client: Client, masquerade: Masquerade | None) -> None:
    loop = asyncio.get_running_loop()
    staying = loop.create_task(client.stay())

    def end() -> None:
        _log.info("ending")
        staying.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A terminal that is closed sends SIGHUP, which nohup has ignored.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGUSR1, client.log_counters)
    # Only now: a signal that came before would have left behind what it sets.
    with ExitStack() as stack:
        if masquerade is not None:
            stack.enter_context(masquerade)
        with suppress(asyncio.CancelledError):
            await staying


def run(settings: MemberSettings) -> int:
    """Be a member until SIGTERM, SIGINT or SIGHUP; returns the exit status.

    Raises:
        ConfigError: the URL, the CA file or a proxy variable can't be used.
        OperationalError: no interface, or the state can't be used, or there is no nft for --masquerade.
    """
    masquerade = Masquerade(settings.interface) if settings.masquerade else None
    dialer = Dialer(settings.url, ca_file=settings.ca_file, insecure=settings.insecure, extension=settings.extension)
    with Tun(settings.interface, settings.mtu, offload=settings.offload) as tun:
        state = MemberState(settings.state_dir, settings.name)
        member = Member(
            password=settings.password,
            vmac=state.vmac(secrets.token_bytes),
            address=settings.tun,
            hello=hello(socket.gethostname()),
            randbytes=secrets.token_bytes,
        )
        if settings.insecure and settings.url.startswith("wss:"):
            _log.warning("the relay's certificate is not verified (--insecure)")
        try:
            engine = Engine(
                workers=min(WORKERS_MAX, max(1, len(os.sched_getaffinity(0)) - 1)),
                max_connections=MAX_CONNECTIONS,
                ping_after=PING_AFTER_S,
                dead_after=DEAD_AFTER_S,
                ping_when_quiet=True,
            )
        except OSError as error:
            raise OperationalError(f"the engine can't start: {error.strerror}") from error
        try:
            engine.add_network()
            client = Client(member, state, dialer, engine, tun, KernelRoutes(settings.interface))
            asyncio.run(_stay_until_signal(client, masquerade))
        finally:
            # The interface is gone once the engine's duplicate of its descriptor is closed as well.
            engine.stop()
    return 0
