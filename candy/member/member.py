"""The member's adapter: one conversation after another, under an interface that stays.

    Dialer ──fd──▶ Engine ──events──▶ Conversation ──actions──▶ Engine, Interface, MemberState, Peers, log
       ▲           ▲ packets            │      ▲
       │       Interface             Ending  RouteSet
       └───────────── Sequels ◀─────────┘

Rules: the adapter awaits and decides nothing; the interface keeps its address and its routes between connections, so
that connections over it survive; a signal ends everything, with a goodbye to the relay.

This module does not know packets, nor what the messages mean. Its start and end are in candy.member.lifecycle.
"""

import asyncio
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import inf

from candy import counters
from candy._fastpath import EVENT_CLOSED, EVENT_CLOSING, EVENT_LOST, EVENT_MESSAGE, EVENT_PONG, Engine
from candy.errors import AddressTaken, InterfaceGone, OperationalError
from candy.host.interface import Interface
from candy.host.underlay import Underlay
from candy.member.conversation import (
    Action,
    Configure,
    Conversation,
    Ending,
    Identity,
    Join,
    Keep,
    Learn,
    SetPlacements,
    SetRoutes,
)
from candy.member.dial import Dialer, Upgraded
from candy.member.peers import Peers
from candy.member.routeset import RouteSet
from candy.member.sequel import Sequels
from candy.member.state import MemberState
from candy.protocol.actions import Close, Drop, Log, Ping, Send
from candy.protocol.closing import CloseCode
from candy.protocol.wire import RouteEntry

GOODBYE_S = 2.0
"""How long the relay may take to answer our close frame."""

_log = logging.getLogger(__name__)


class Member:
    """The adapter: carries out the actions of one conversation after another, until it is cancelled.

    Args:
        identity: what it says of itself.
        state: keeps address and timestamp.
        dialer, engine, interface: as made by run(); the engine has one network, number 0.
        underlay: this machine beside the interface; None: what is in its way is not looked for.
        random: a number in [0, 1).
        wall: Unix seconds.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        identity: Identity,
        state: MemberState,
        dialer: Dialer,
        engine: Engine,
        interface: Interface,
        underlay: Underlay | None = None,
        *,
        random: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._identity = identity
        self._state = state
        self._dialer = dialer
        self._engine = engine
        self._interface = interface
        self._underlay = underlay
        self._told = RouteSet()
        self._routes: tuple[RouteEntry, ...] = ()
        """Those in force, of which the interface follows as many as it can."""
        self._peers = Peers()
        self._drops: Counter[str] = Counter()
        self._random = random
        self._sequels = Sequels(random, is_granted=identity.address is None)
        self._wall = wall
        self._sleep = sleep
        self._last = state.address()
        """The address to ask for."""

    def renew(self, identity: Identity, dialer: Dialer) -> None:
        """Be this from the next stay() on, by other connections. The interface keeps what it has until then."""
        self._identity, self._dialer = identity, dialer
        self._sequels = Sequels(self._random, is_granted=identity.address is None)

    def log_counters(self) -> None:
        """Write all counters to the log, then the routes in use and what other members said of themselves (SIGUSR1)."""
        for line in counters.lines(self._engine.stats(), self._engine.drops(), self._drops):
            _log.info("%s", line)
        for destination, next_hop in self._interface.routes.items():
            _log.info("route %s: through %s", destination, next_hop)
        for address, peer in self._peers:
            _log.info("member %s: %s", address, peer)

    async def stay(self) -> None:
        """Connect and reconnect until cancelled; then say goodbye to the relay.

        Raises:
            OperationalError: the interface or the state can't be used.
        """
        while True:
            try:
                ending = await self._attempt()
            except AddressTaken as error:
                # A second interface of this machine, perhaps of another client, has it. It may yet go.
                ending = Ending(str(error), refused=True)
            sequel = self._sequels.after(ending)
            level = logging.WARNING if sequel.is_news else logging.DEBUG
            _log.log(level, "%s; trying again in %.1f s", ending.text, sequel.delay)
            if sequel.asks_anew:
                self._last = None
            if sequel.needs_vmac:
                self._identity = replace(self._identity, vmac=self._state.renew_vmac(self._identity.randbytes))
                _log.warning("replaced again and again: this member has made itself a new VMAC")
            await self._sleep(sequel.delay)

    async def _attempt(self) -> Ending:
        """Connect once; returns when that has failed, or the connection has ended.

        Raises:
            AddressTaken: another interface has the member's address.
        """
        if self._identity.address is not None:
            await self._interface.configure(self._identity.address)
        # This machine, or the relay, may have moved into a network that one of the routes leads to.
        await self._follow()
        name = self._dialer.outer.name
        try:
            upgraded = await self._dialer.dial(known=self._state.reached(name) if name is not None else ())
        except OperationalError as error:
            return Ending(str(error))
        if name is not None:
            self._state.keep_reached(name, self._dialer.outer.good)
        return await self._converse(upgraded)

    async def _converse(self, upgraded: Upgraded) -> Ending:
        try:
            connection = self._engine.adopt(upgraded.fd, client=True, extended=upgraded.extended, tail=upgraded.tail)
        except OSError as error:
            os.close(upgraded.fd)
            return Ending(f"the engine can't take the connection: {error.strerror}")
        # What the connection before was told is nothing for this one, whose relay may be another.
        self._engine.set_rules(0, ())
        ending = None
        try:
            timestamp = self._state.next_timestamp(int(self._wall()))
            conversation = Conversation(
                self._identity, connection, timestamp, self._last, self._told, extended=upgraded.extended
            )
            ending = await self._lead(conversation, connection)
            return ending
        finally:
            if ending is None:
                await self._say_goodbye(connection)
            if upgraded.transport is not None:
                # The engine's close frame is sent; a silent relay could keep the transport open for longer.
                upgraded.transport.abort()

    async def _lead(self, conversation: Conversation, connection: int) -> Ending:
        now = asyncio.get_running_loop().time
        await self._perform(conversation.opened(now()))
        while True:
            await self._wait_for_events(conversation.deadline)
            for source, event, detail in self._engine.events():
                if event == EVENT_LOST:
                    raise InterfaceGone(self._interface.name)
                if source != connection:
                    continue
                if event == EVENT_CLOSING:
                    conversation.closing(detail)
                elif event == EVENT_CLOSED:
                    return conversation.closed(detail.decode("ascii"), now())
                elif event == EVENT_PONG:
                    await self._perform(conversation.ponged(now()))
                elif event == EVENT_MESSAGE:
                    await self._perform(conversation.received(detail, now(), int(self._wall())))
            await self._perform(conversation.expired(now()))

    async def _perform(self, actions: list[Action]) -> None:
        # The engine's answers are ignored: where it refuses, an EVENT_CLOSED follows.
        for action in actions:
            match action:
                case Send():
                    self._engine.send(action.connection, action.payload)
                case Ping():
                    self._engine.ping(action.connection, action.payload)
                case Close():
                    self._engine.close(action.connection, action.code, action.reason)
                case Join():
                    self._engine.join(action.connection, self._interface.connection)
                case Configure():
                    await self._interface.configure(action.address)
                    self._last = action.address
                case Keep():
                    self._state.keep_address(action.address)
                case SetRoutes():
                    self._routes = action.routes
                    await self._follow()
                case SetPlacements():
                    self._engine.set_rules(0, [placement.numbers for placement in action.placements])
                case Learn():
                    _log.debug("%s: %s", action.message.src, self._peers.learn(action.message))
                case Drop():
                    self._drops[action.reason] += 1
                    _log.debug("message from the relay dropped: %s", action.reason)
                case Log():
                    _log.log(logging.getLevelNamesMapping()[action.level.upper()], "%s", action.text)

    async def _follow(self) -> None:
        """Lead packets for the routes in force into the tunnel, and tell what that is in the way of."""
        outer = self._dialer.outer
        await self._interface.follow(self._routes, relay=outer.exposed)
        if self._underlay is not None and (own := self._interface.address) is not None:
            await self._underlay.review(own, self._interface.routes.keys(), outer.ways)

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
