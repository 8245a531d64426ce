"""The relay's adapter: aiohttp at the door, the engine behind it, and the networks' actions carried out between them.

    TCP ─▶ Door (aiohttp) ─▶ Relay.answer ─▶ upgrade.hand_over ─▶ engine ──events──▶ Relay ──▶ Network of the path
                                                                 engine ◀───────── actions ◀──────┘

Rules:
 1. Decisions are the networks'. The adapter gives them clocks and randomness, and carries out their actions in order.
 2. Of a member Python keeps one Session; aiohttp's objects go with the upgrade.
 3. An unauthenticated connection has a deadline from TCP's accept on, and counts against its source's limit. Every
    deadline is by candy.relay.clock.
 4. A connection belongs to one network, found by the path of its URL, and a network's actions reach its own connections
    alone. A relay whose only network is `/` takes any path, as the original does.
 5. Of settings that are read again (SIGHUP) the relay applies what candy.relay.changes says; a change of any other
    needs a restart, and is named in the log, last of all.

It never sees a forwarded packet. Its start and end are in candy.relay.lifecycle.
"""

import asyncio
import errno
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address
from math import inf
from typing import TYPE_CHECKING

from aiohttp import web

from candy import counters
from candy._fastpath import (
    EVENT_CLOSED,
    EVENT_CONTROL,
    EVENT_MESSAGE,
    EVENT_PING,
    EVENT_PONG,
    MEMBER_FORMAT,
    Engine,
)
from candy.errors import ConfigError, OperationalError, RequestError
from candy.protocol.actions import Log
from candy.protocol.addresses import source_of
from candy.protocol.closing import CloseCode
from candy.relay import health, lines, upgrade
from candy.relay.accept import is_shortage
from candy.relay.actor import Actor, Recorder, write
from candy.relay.changes import Changes, Reloaded, changes
from candy.relay.clock import Alarm, Clock
from candy.relay.door import Door
from candy.relay.guessing import FailureLimiter
from candy.relay.interfaces import Interfaces
from candy.relay.invitation import describe_pool
from candy.relay.keys import number_of
from candy.relay.leases import Traffic
from candy.relay.limits import OwnLimits
from candy.relay.login import LogIn
from candy.relay.network import Network
from candy.relay.proxies import TrustedProxies
from candy.relay.recording import Outcome
from candy.relay.register import Register
from candy.relay.reservations import Reservation
from candy.relay.served import Served, serve
from candy.relay.session import Action
from candy.relay.settings import RelaySettings, canonical_path
from candy.relay.showing import Showing
from candy.relay.totals import Totals

if TYPE_CHECKING:
    # Its library need not be there.
    from candy.relay.cluster.cluster import Cluster
    from candy.relay.cluster.mesh import Mesh

GOODBYE_S = 2.0
"""How long members may take to answer the close frame when the relay ends."""
ORIGIN_SHOWN = 100
"""Characters of an Origin in the log."""

log = logging.getLogger("candy.relay")


class Relay:
    """Between the engine, which reports, and the networks, which decide."""

    def __init__(self, settings: RelaySettings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(engine.fileno(), self._on_events)
        self._clock = Clock(self._loop)
        self.door = Door(
            self.answer,
            engine=engine,
            clock=self._clock,
            timeout_s=_longest_timeout(settings),
            limit_per_source=settings.unauthenticated_per_source,
            proxies=TrustedProxies(settings.trusted_proxies),
        )
        self._timer: Alarm | None = None
        self._looks_at_deadlines = False
        """At the end of this turn of the loop."""
        self._actor = Actor(engine, self._clock, self.door.left, self._set_timer)
        self._totals = Totals(engine.members, MEMBER_FORMAT, self._on_traffic, self._has_quotas)
        self._connections: dict[int, Served] = {}
        self._events: deque[tuple[int, int, bytes]] = deque()
        """Taken from the engine, and not acted on yet."""
        self._ending: asyncio.Future[None] | None = None
        self._reloading = asyncio.Lock()
        self._interfaces = Interfaces(engine, settings.state_dir, self._act, self._set_timer)
        self.showing = Showing()
        self._joining: dict[str, Served] = {}
        """Networks that are about to be served, of which other relays tell already."""
        self.cluster: Cluster | None = None
        """None: it is alone."""
        self.mesh: Mesh | None = None
        self._failures = FailureLimiter(settings.failures_per_minute)
        self._served = {network.path: serve(network, engine, self._failures) for network in settings.networks}

    def load_keys(self) -> None:
        """Have members log in with keys, in all networks.

        Raises:
            OperationalError: a file of keys is damaged, or others can read it.
        """
        for served in self._served.values():
            self._load_keys(served)

    def _load_keys(self, served: Served) -> None:
        its = self._settings.cluster
        served.load_keys(self._settings.state_dir, int(time.time()), None if its is None else number_of(its.name))

    def keep_by(self, recorder: Recorder) -> None:
        """Write down by this what devices are let in by."""
        self._actor.recorder = recorder

    def share_by(self, cluster: "Cluster") -> None:
        """Serve the networks together with other relays from now on."""
        self.cluster = cluster
        self.keep_by(cluster)

    @property
    def name(self) -> str | None:
        """Among the others; None: it is alone."""
        return None if self.cluster is None else self.cluster.name

    async def make_interfaces(self, stack: ExitStack) -> None:
        """Give this machine its interfaces in the networks, and keep them as they shall be; they are closed with the
        stack.

        Raises:
            OperationalError: an interface could not be created, or its key's file can't be used.
        """
        self._interfaces.open(stack)
        for served in self._served.values():
            await self._interfaces.make(served)
        self._set_timer()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """aiohttp's handler: a refusal, or the hand-over to the engine."""
        if health.is_asked(request):
            free = self._settings.slots - self._engine.stats()["connections"]
            return health.answer(is_ending=self.is_ending, free_slots=free)
        refused = upgrade.refusal(request)
        if refused is not None:
            return refused
        source = self.door.client(request)
        if (origin := upgrade.foreign_origin(request, self._settings.allow_origin)) is not None:
            why = f"a web page of {origin[:ORIGIN_SHOWN]!r}, which no --allow-origin names"
            self._not_let_in(source, why, "origin")
            return upgrade.foreign()
        if self.mesh is not None and upgrade.is_link(request):
            return self._take_link(self.mesh, request, source)
        served = self._find(request.path)
        if served is None:
            return upgrade.no_such_network()
        log_in = served.log_in(upgrade.offered(request))
        if log_in is None and not served.settings.legacy:
            return upgrade.too_old()
        given = self._hand_over(request, source, served.number, log_in)
        if isinstance(given, web.Response):
            return given
        connection, response = given
        self._connections[connection] = served
        now = self._clock.time()
        if log_in is not None:
            self._act(served, served.network.opened_with_keys(connection, source, now, log_in))
        else:
            extended, instance = response.extended, response.instance
            self._act(served, served.network.opened(connection, source, now, extended=extended, instance=instance))
        self._set_timer()
        return response

    def _take_link(self, mesh: "Mesh", request: web.BaseRequest, source: str) -> web.StreamResponse:
        """Another relay of the cluster dials this one."""
        given = self._hand_over(request, source, None, None)
        if isinstance(given, web.Response):
            return given
        mesh.opened(given[0], source)
        return given[1]

    def _hand_over(
        self, request: web.BaseRequest, source: str, network: int | None, log_in: LogIn | None
    ) -> tuple[int, upgrade.HandedOver] | web.Response:
        """Give the socket of a sound request to the engine, in a network or as a link (None); else what to answer."""
        try:
            guest = self.door.guest(request)
            connection, response = upgrade.hand_over(request, self._engine, network, guest, log_in)
        except ConnectionError as error:
            log.debug("%s: not let in: %s", source, error)
            return upgrade.not_alone()
        except OSError as error:
            # ENFILE is the engine's: no slot is left.
            if is_shortage(error) and error.errno != errno.ENFILE:
                self.door.short(error)
            else:
                why = error.strerror or str(error)
                self._not_let_in(source, why, "not let in")
            return upgrade.full()
        self.door.upgraded(request.protocol, connection, source)
        return connection, response

    def _not_let_in(self, source: str, why: str, kind: str) -> None:
        counted_as = source_of(source)
        self._actor.log(lines.line("warning", f"not let in: {why}", source=source, kind=kind, counted_as=counted_as))

    def report(self, line: Log) -> None:
        """Write a line to the log, within the limit of its kind and source."""
        self._actor.log(line)

    def _find(self, path: str) -> Served | None:
        """The network at the path of a URL."""
        served = self._served.get(canonical_path(path))
        # The original takes "any path", and its users may have given one.
        return self._served["/"] if served is None and len(self._served) == 1 else served

    def registers(self) -> Mapping[str, Register]:
        """What the networks remember, by their paths."""
        return {path: served.network.register for path, served in self._served.items()}

    def look(self) -> None:
        """Ask the engine for what it does not tell by itself."""
        self._totals.look(self._loop.time())

    def network(self, path: str) -> Network:
        """The network at a path, for commands: its `register` has leases(), reservations() and find().

        Raises:
            RequestError: there is none.
        """
        return self._served_at(path).network

    def reserve(self, path: str, reservation: Reservation) -> None:
        """Reserve an address of the network at this path from now on, by command (Network.reserve).

        Raises:
            RequestError: there is no such network, or the address can't be reserved.
        """
        self.decide(self._served_at(path), lambda network, now, wall: network.reserve(reservation, now))

    def limit(self, path: str, ip: IPv4Address, own: OwnLimits, *, is_forgiven: bool) -> None:
        """What the device with the lease of this address may carry, by command (Network.limit).

        Raises:
            RequestError: there is no such network, or no lease.
        """
        decided = self._served_at(path)
        self.decide(decided, lambda network, now, wall: network.limit(ip, own, wall, is_forgiven=is_forgiven))

    def release(self, path: str, ip: IPv4Address) -> None:
        """End reservation and lease of an address, by command (Register.release).

        Raises:
            RequestError: there is no such network, or nothing to release.
        """
        self._served_at(path).network.register.release(ip)

    def _served_at(self, path: str) -> Served:
        served = self._served.get(canonical_path(path))
        if served is None:
            known = ", ".join(self._served)
            raise RequestError(f"{path!r} is no network of this relay: it has {known}")
        return served

    async def reload(self, reread: Callable[[], RelaySettings]) -> Reloaded:
        """Read the settings again (SIGHUP); when they are sound, apply those that need no restart.

        Raises:
            ConfigError, OperationalError: the settings can't be read, or are not sound; nothing has changed.
        """
        # One after the other: each begins with what the one before has left.
        async with self._reloading:
            failed = self.showing.again()
            try:
                wanted = reread()
            except (ConfigError, OperationalError) as error:
                log.error("not read again, nothing changes: %s", error)
                raise
            log.info("the settings are read again")
            found = changes(self._settings, wanted)
            self._settings = found.running
            failed += self._apply_own(found.running, found.own)
            failed += await self._apply_networks(found)
            reloaded = replace(found.reloaded, failed=tuple(failed))
            if reloaded.applied:
                log.info("changed: %s", ", ".join(reloaded.applied))
            if reloaded.needs_restart:
                log.warning("changed, which needs a restart: %s", ", ".join(reloaded.needs_restart))
            return reloaded

    def _apply_own(self, settings: RelaySettings, names: AbstractSet[str]) -> list[str]:
        """What is not of one network; returns what went wrong."""
        if "debug" in names:
            logging.root.setLevel(logging.DEBUG if settings.debug else logging.INFO)
        self.door.proxies = TrustedProxies(settings.trusted_proxies)
        self.door.timeout_s = _longest_timeout(settings)
        if "public_url" in names and self.cluster is not None:
            self.cluster.publish(settings.public_url or "")
        return self.showing.follow(settings, names)

    async def _apply_networks(self, found: Changes) -> list[str]:
        """Networks that go, come and change; returns what went wrong."""
        now, wall = self._clock.time(), int(time.time())
        for settings in found.removed:
            served = self._served.pop(settings.path)
            self._act(served, served.leave(now))
            if self.cluster is not None:
                self.cluster.leave(settings.path)
            log.info("network %s: no longer served", settings.path)
        failed = []
        for settings in found.added:
            served = serve(settings, self._engine, self._failures)
            try:
                self._load_keys(served)
                await self._join(served)
            except OperationalError as error:
                served.leave(now)
                log.error("network %s is not served: %s", settings.path, error)
                failed.append(f"network {settings.path} is not served: {error}")
                continue
            self._served[settings.path] = served
            log.info("network %s: %s", settings.path, describe_pool(settings))
        for settings, names in found.changed:
            served = self._served[settings.path]
            self._act(served, served.change(settings, names, now, wall))
        self._set_timer()
        # What takes time: this machine's interfaces.
        added = {settings.path for settings in found.added} & self._served.keys()
        for path in (*sorted(added), *(settings.path for settings, _ in found.changed)):
            served = self._served[path]
            try:
                await (self._interfaces.make(served) if path in added else served.follow())
            except (OperationalError, OSError) as error:
                log.error("%s%s", served.label, error)
                failed.append(f"{served.label}{error}")
        return failed

    async def _join(self, served: Served) -> None:
        """Have other relays serve a network as well that is new here. Raises OperationalError."""
        if self.cluster is None:
            return
        path = served.settings.path
        self._joining[path] = served
        common = self.cluster.common(served.settings, served.public_key)
        try:
            await self.cluster.join(path, served.network, served.number, common)
        finally:
            del self._joining[path]

    @property
    def settings(self) -> RelaySettings:
        """Those that it runs with: a reload may change them."""
        return self._settings

    @property
    def served(self) -> Mapping[str, Served]:
        """Its networks, by their paths."""
        return self._served

    def decide(self, served: Served, decide: Callable[[Network, float, int], list[Action]]) -> None:
        """Have a network decide something for an operator, with `now` and `wall`, and carry that out.

        Raises:
            RequestError: what `decide` raises; nothing has changed.
        """
        self._act(served, decide(served.network, self._clock.time(), int(time.time())))
        self._set_timer()

    def now(self) -> float:
        """The time of its networks' clock."""
        return self._clock.time()

    def decide_at(self, path: str, decide: Callable[[Network, float, int], list[Action]]) -> None:
        """Have the network at a path decide something that other relays have brought about."""
        self.decide(self._joining.get(path) or self._served_at(path), decide)

    async def record(self) -> bool:
        """Write down what is new of devices and invitations; whether that was done."""
        recorder = self._actor.recorder
        return recorder is not None and await recorder.record() is Outcome.KEPT

    def seconds_since(self, moment: float) -> float:
        """How long ago something was that a network has noted."""
        return self._clock.time() - moment

    def drops(self) -> Mapping[str, int]:
        """What was dropped so far, by reason: by the engine, and by the networks."""
        summed = Counter(self._engine.drops())
        summed.update(self._actor.drops)
        return summed

    async def close_all(self) -> None:
        """Tell every member that the relay ends, and wait at most GOODBYE_S for their answers."""
        self._ending = self._loop.create_future()
        for connection in self._connections:
            self._actor.close(connection, CloseCode.GOING_AWAY, "the relay ends")
        if self._connections:
            await asyncio.wait([self._ending], timeout=GOODBYE_S)

    @property
    def is_ending(self) -> bool:
        """Whether members are told so already."""
        return self._ending is not None

    def stop(self) -> None:
        """Leave the event loop."""
        self._loop.remove_reader(self._engine.fileno())
        self._clock.stop()
        self._interfaces.stop()
        if self._timer is not None:
            self._timer.cancel()
        for line in self._actor.lines.rest():
            write(line)

    def log_counters(self) -> None:
        """Write all counters to the log (SIGUSR1)."""
        for line in counters.lines(self._engine.stats(), self.drops()):
            log.info("%s", line)

    def _on_events(self) -> None:
        self._events.extend(self._engine.events())
        self._act_on_events()

    def _act_on_events(self) -> None:
        now, wall = self._clock.time(), int(time.time())
        try:
            while self._events:
                self._on_event(*self._events.popleft(), now, wall)
        finally:
            # A fault of ours in one event is for the loop to show; it may not cost the others, ends included.
            if self._events:
                self._loop.call_soon(self._act_on_events)
            self._set_timer()

    def _on_event(self, connection: int, kind: int, detail: bytes, now: float, wall: int) -> None:
        if self._interfaces.on_event(connection, kind, detail):
            return
        if self.mesh is not None and self.mesh.on_event(connection, kind, detail):
            return
        served = self._connections.get(connection)
        if served is None:
            self.door.on_event(connection, kind, detail)
        elif kind == EVENT_MESSAGE:
            self._act(served, self._actor.received(served, connection, detail, now, wall))
        elif kind == EVENT_CONTROL:
            self._act(served, served.network.noticed(connection, detail))
        elif kind == EVENT_PONG:
            self._act(served, served.network.ponged(connection, detail, now, wall))
        elif kind == EVENT_PING:
            self._act(served, served.network.pinged(connection, detail, now, wall))
        elif kind == EVENT_CLOSED:
            # Behind it stands how long the peer had been silent.
            cause = detail.decode().partition(" ")[0]
            self._on_closed(served, connection, cause, now, wall)

    def _has_quotas(self) -> bool:
        return any(served.network.has_quotas for served in self._served.values())

    def _on_traffic(self, connection: int, traffic: Traffic) -> None:
        # This machine's interface is no session, and one that has left since the engine was asked has told its last.
        if (served := self._connections.get(connection)) is not None:
            self._act(served, served.network.carried(connection, traffic, int(time.time())))

    def _on_closed(self, served: Served, connection: int, cause: str, now: float, wall: int) -> None:
        log.debug("connection %d closed: %s", connection, cause)
        del self._connections[connection]
        self._actor.forget(connection)
        self.door.left(connection)
        self._act(served, served.network.closed(connection, now, wall, cause))
        if self._ending is not None and not self._connections and not self._ending.done():
            self._ending.set_result(None)

    def _on_timer(self) -> None:
        self._timer = None
        now, wall = self._clock.time(), int(time.time())
        for served in self._served.values():
            self._act(served, served.network.expired(now, wall))
        for line in self._actor.lines.expired(now):
            write(line)
        self._interfaces.go_on()
        self._set_timer()

    def _set_timer(self) -> None:
        """Deadlines may have changed: look at them once in this turn of the loop, whatever else happens in it."""
        if not self._looks_at_deadlines:
            self._looks_at_deadlines = True
            self._loop.call_soon(self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        """Wake up for the next deadline. Most deadlines are met early, so an earlier waking is left alone."""
        self._looks_at_deadlines = False
        deadlines = [served.network.next_deadline() for served in self._served.values()]
        deadlines.append(self._actor.lines.next_deadline())
        if (delay := self._interfaces.delay) < inf:
            deadlines.append(self._clock.time() + delay)
        when = min((deadline for deadline in deadlines if deadline is not None), default=None)
        if when is None or (self._timer is not None and self._timer.when <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(when, self._on_timer)

    def _act(self, served: Served, actions: Iterable[Action]) -> None:
        self._actor.act(served, actions)


def _longest_timeout(settings: RelaySettings) -> float:
    """Which network's timeout a connection has shows with its request."""
    return max(network.auth_timeout for network in settings.networks)
