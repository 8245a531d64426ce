"""The relay: aiohttp at the door, the engine behind it, and the networks' decisions carried out between the two.

    TCP ─▶ Door (aiohttp) ─▶ Relay.answer ─▶ upgrade.hand_over ─▶ engine ──events──▶ Relay ──▶ Network of the path
                                                                 engine ◀───────── actions ◀──────┘

Rules:
 1. This is the only part of the relay that awaits, reads clocks and draws random numbers.
 2. One Session per member is all that is kept of it in Python; aiohttp's objects go with the upgrade.
 3. Whoever has not authenticated is on a clock from the moment TCP accepted it, and counts against its source.
 4. A connection is of one network, found by the path of its URL, and what a network decides reaches its own alone. A
    relay whose only network is `/` takes any path, as the original does.
 5. Of settings that are read again (SIGHUP) the rules are used; all else needs a restart, and is named in the log.

It never sees a forwarded packet.
"""

import asyncio
import logging
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from candy import counters
from candy._fastpath import EVENT_CLOSED, EVENT_LOST, EVENT_MESSAGE, EVENT_PONG, Engine
from candy.carrier.handover import RELAY_FULL
from candy.errors import ConfigError, OperationalError
from candy.host.interface import HostInterface
from candy.protocol.actions import Close, Drop, Log, Ping, Send
from candy.protocol.closing import CloseCode
from candy.protocol.wire import Kind
from candy.relay import upgrade
from candy.relay.door import Door
from candy.relay.guessing import FailureLimiter
from candy.relay.invitation import member_address, member_line
from candy.relay.listen import hosts, listen
from candy.relay.network import Network
from candy.relay.pool import Pool
from candy.relay.rules import Rule, Rules
from candy.relay.session import Action, AllowSources, Bind, Unbind
from candy.relay.settings import NetworkSettings, RelaySettings, canonical_path, needs_restart
from candy.settings import host_port

GOODBYE_S = 2.0
"""How long members may take to answer the close frame when the relay ends."""

log = logging.getLogger("candy.relay")


def run(settings: RelaySettings, reread: Callable[[], RelaySettings] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP; returns the exit status.

    Args:
        reread: gives the settings anew, for SIGHUP, which then does not end it.

    Raises:
        OperationalError: the address, the certificate, an interface or the machine's resources are not to be had.
    """
    # aiohttp complains of every malformed request, which here are everybody's to send.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    asyncio.run(_serve(settings, reread))
    return 0


async def _serve(settings: RelaySettings, reread: Callable[[], RelaySettings] | None) -> None:
    _raise_descriptor_limit()
    # To the engine this machine's interfaces are connections, too.
    slots = settings.max_connections + sum(network.tun is not None for network in settings.networks)
    try:
        engine = Engine(settings.workers, queue_bytes=settings.queue_bytes, max_connections=slots)
    except OSError as error:
        raise OperationalError(f"cannot start {settings.workers} workers: {error.strerror}: use --workers 1") from None
    relay = Relay(settings, engine)
    runner = web.ServerRunner(relay.door, handle_signals=False)
    await runner.setup()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    with ExitStack() as interfaces:
        try:
            await relay.make_interfaces(interfaces)
            port = await listen(runner, settings)
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(signum, stopped.set)
            loop.add_signal_handler(signal.SIGUSR1, relay.log_counters)
            if reread is not None:
                loop.add_signal_handler(signal.SIGHUP, relay.reload, reread)
            elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                # A terminal that is closed, unless nohup was to see to that.
                loop.add_signal_handler(signal.SIGHUP, stopped.set)
            _announce(settings, port)
            await stopped.wait()
            log.info("ending")
            for site in list(runner.sites):
                await site.stop()
            await relay.close_all()
        finally:
            await runner.cleanup()
            relay.stop()
            # Before the interfaces are closed: they are gone once the engine's duplicates are closed as well.
            engine.stop()


def _announce(settings: RelaySettings, port: int) -> None:
    main, *others = settings.networks
    where = " and ".join(host_port(host, port) for host in hosts(settings))
    log.info("listening on %s, %s", where, _describe_pool(main))
    for network in others:
        log.info("network %s: %s", network.path, _describe_pool(network))
    address = member_address(settings.host)
    try:
        for network in settings.networks:
            which = "this network" if network.path == "/" else f"the network {network.path}"
            print(f"To join {which}, run on another machine:", flush=True)
            print("  " + member_line(settings, network, address, port), flush=True)
    except OSError as error:
        # A full disk, or a reader that has gone, ends no relay. What is in the buffer would fail once more at the exit.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        log.warning("the lines for members can't be printed: %s", error.strerror)


def _describe_pool(network: NetworkSettings) -> str:
    return f"addresses from {network.pool}" if network.pool else "no pool: members bring their addresses"


def _raise_descriptor_limit() -> None:
    """Every member is a descriptor: take what the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(slots=True)
class _Served:
    """A network, the engine's number for it, and its interface on this machine."""

    settings: NetworkSettings
    number: int
    network: Network
    interface: HostInterface | None = None

    @property
    def label(self) -> str:
        """What its lines in the log begin with."""
        return "" if self.settings.path == "/" else f"{self.settings.path}: "


class Relay:
    """Between the engine, which reports, and the networks, which decide."""

    def __init__(self, settings: RelaySettings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(engine.fileno(), self._on_events)
        self.door = Door(
            self.answer,
            close_connection=engine.close,
            # Whose member it will be shows with its request.
            timeout_s=max(network.auth_timeout for network in settings.networks),
            limit_per_source=settings.unauthenticated_per_source,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._drops: Counter[str] = Counter()
        self._connections: dict[int, _Served] = {}
        self._ending: asyncio.Future[None] | None = None
        self._following: set[asyncio.Task[None]] = set()
        """Of this machine's interfaces, new rules."""
        failures = FailureLimiter(settings.failures_per_minute)
        self._served = {network.path: self._serve(network, failures) for network in settings.networks}

    def _serve(self, settings: NetworkSettings, failures: FailureLimiter) -> _Served:
        pool = settings.pool
        number = self._engine.add_network(
            int(pool.broadcast_address) if pool else 0xFFFFFFFF,
            forward_broadcast=settings.forward_broadcast,
            check_source=settings.check_source,
        )
        network = Network(
            settings.password,
            Pool(pool) if pool else None,
            randbytes=os.urandom,
            failures=failures,
            tolerance=settings.clock_tolerance,
            allow_outside_pool=settings.allow_outside_pool,
            forward_broadcast=settings.forward_broadcast,
            rules=Rules(settings.rules),
            max_members=settings.max_members or None,
            authentication_timeout=settings.auth_timeout,
        )
        return _Served(settings, number, network)

    async def make_interfaces(self, stack: ExitStack) -> None:
        """Give this machine its interfaces in the networks; they are closed with the stack.

        Raises:
            OperationalError: one is not to be had.
        """
        for served in self._served.values():
            address = served.settings.tun
            if address is None:
                continue
            interface = HostInterface(served.settings.interface, address, self._engine, served.number)
            stack.callback(interface.close)
            await interface.start()
            self._act(served, served.network.host(interface.connection, address.ip))
            await interface.route(Rules(served.settings.rules))
            served.interface = interface
            log.info("%sthis machine is %s on interface %s", served.label, address, interface.name)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """aiohttp's handler: a refusal, or the hand-over to the engine."""
        refused = upgrade.refusal(request)
        if refused is not None:
            return refused
        served = self._find(request.path)
        if served is None:
            return upgrade.no_such_network()
        source = request.remote or "unknown"
        try:
            connection, response = upgrade.hand_over(request, self._engine, served.number)
        except ConnectionError as error:
            log.debug("%s: not let in: %s", source, error)
            return upgrade.not_alone()
        except OSError as error:
            log.warning("%s: not let in: %s", source, error.strerror or error)
            return web.Response(status=503, text=RELAY_FULL)
        self._connections[connection] = served
        self.door.upgraded(request.protocol, connection, source)
        now = self._loop.time()
        self._act(served, served.network.opened(connection, source, now, extended=response.extended))
        self._set_timer()
        return response

    def _find(self, path: str) -> _Served | None:
        """The network at the path of a URL."""
        served = self._served.get(canonical_path(path))
        # "Any path", which the original's users may have given.
        return self._served["/"] if served is None and len(self._served) == 1 else served

    def reload(self, reread: Callable[[], RelaySettings]) -> None:
        """Read the settings again (SIGHUP); when they are sound, use what can be used without a restart."""
        try:
            wanted = reread()
        except (ConfigError, OperationalError) as error:
            log.error("not read again, nothing changes: %s", error)
            return
        for name in needs_restart(self._settings, wanted):
            log.warning("changed, which needs a restart: %s", name)
        log.info("the settings are read again")
        for settings in wanted.networks:
            served = self._served.get(settings.path)
            if served is not None and set(settings.rules) != set(served.settings.rules):
                self._change_rules(served, settings.rules)

    def _change_rules(self, served: _Served, written: tuple[Rule, ...]) -> None:
        served.settings = served.settings.model_copy(update={"rules": written})
        rules = Rules(written)
        self._act(served, served.network.set_rules(rules, self._loop.time()))
        self._set_timer()
        if served.interface is not None:
            following = self._loop.create_task(self._follow(served, served.interface, rules))
            self._following.add(following)
            following.add_done_callback(self._following.discard)

    async def _follow(self, served: _Served, interface: HostInterface, rules: Rules) -> None:
        try:
            await interface.route(rules)
        except OperationalError as error:
            log.error("%s%s", served.label, error)

    async def close_all(self) -> None:
        """Tell every member that the relay ends, and wait for their answers for a moment."""
        self._ending = self._loop.create_future()
        for connection in self._connections:
            self._engine.close(connection, CloseCode.GOING_AWAY, "the relay ends")
        if self._connections:
            await asyncio.wait([self._ending], timeout=GOODBYE_S)

    def stop(self) -> None:
        """Leave the event loop."""
        self._loop.remove_reader(self._engine.fileno())
        if self._timer is not None:
            self._timer.cancel()

    def log_counters(self) -> None:
        """Write all counters to the log (SIGUSR1)."""
        for line in counters.lines(self._engine.stats(), self._engine.drops(), self._drops):
            log.info("%s", line)

    def _on_events(self) -> None:
        now, wall = self._loop.time(), int(time.time())
        for connection, kind, detail in self._engine.events():
            if kind == EVENT_LOST:
                self._on_lost(connection)
                continue
            served = self._connections[connection]
            if kind == EVENT_MESSAGE:
                self._act(served, served.network.received(connection, detail, now, wall))
            elif kind == EVENT_PONG:
                self._act(served, served.network.ponged(connection, detail, now, wall))
            elif kind == EVENT_CLOSED:
                self._on_closed(served, connection, detail.decode(), now)
        self._set_timer()

    def _on_undelivered(self, message: Send) -> None:
        # As the engine counts what finds no room ahead of packets.
        self._drops["control"] += 1
        if message.payload[0] == Kind.ROUTE:
            # A part of a set would be worse than none: it comes back to the whole.
            self._engine.close(message.connection, CloseCode.SERVICE_RESTART, "no room for the routes")

    def _on_lost(self, connection: int) -> None:
        for served in self._served.values():
            if served.interface is not None and served.interface.connection == connection:
                name = served.interface.name
                log.error("%sinterface %s was removed from outside: restart to have it back", served.label, name)

    def _on_closed(self, served: _Served, connection: int, cause: str, now: float) -> None:
        log.debug("connection %d closed: %s", connection, cause)
        del self._connections[connection]
        self.door.left(connection)
        self._act(served, served.network.closed(connection, now))
        if self._ending is not None and not self._connections and not self._ending.done():
            self._ending.set_result(None)

    def _on_timer(self) -> None:
        self._timer = None
        now, wall = self._loop.time(), int(time.time())
        for served in self._served.values():
            self._act(served, served.network.expired(now, wall))
        self._set_timer()

    def _set_timer(self) -> None:
        """Wake up for the next deadline. Most deadlines are met early, so an earlier waking is left alone."""
        deadlines = (served.network.next_deadline() for served in self._served.values())
        when = min((deadline for deadline in deadlines if deadline is not None), default=None)
        if when is None or (self._timer is not None and self._timer.when() <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def _act(self, served: _Served, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send():
                    if not self._engine.send(action.connection, action.payload):
                        self._on_undelivered(action)
                case Bind():
                    self._engine.bind(action.connection, action.ip)
                    self.door.left(action.connection)
                case AllowSources():
                    lans = [(int(lan.network_address), int(lan.netmask)) for lan in action.lans]
                    self._engine.allow_sources(action.connection, lans)
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
                    level = logging.getLevelNamesMapping()[action.level.upper()]
                    log.log(level, "%s%s", served.label, action.text)
