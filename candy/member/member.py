"""The member's adapter: one connection after another, under an interface that stays.

    Relays ──fd──▶ Engine ──events──▶ Succession of Conversations ──actions──▶ Engine, Interface, MemberState, Peers,
       ▲  ▲        ▲ packets            │   ▲  │      ▲                        Keyring, Relays
       │  └────────│───Dial, Abandon────┘   │ Ending  RouteSet
       │       Interface      changed, Silence │
       └───────────────── Sequels ◀────────────┘

Rules: the adapter awaits and decides nothing; the interface keeps its address and its routes between connections, so
that connections over it survive; a signal ends everything, with a goodbye to the relay.

This module does not know packets, nor what the messages mean, nor how the way to the relay is watched. Its start and
end are in candy.member.lifecycle.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from math import inf

from candy import counters
from candy._fastpath import EVENT_CLOSED, EVENT_CLOSING, EVENT_LOST, EVENT_MESSAGE, EVENT_PONG, Engine
from candy.carrier.secure import Secure
from candy.errors import AddressTaken, InterfaceGone, KeysUnusable, OperationalError
from candy.host.interface import Interface
from candy.host.underlay import Underlay
from candy.member.conversation import (
    Admitted,
    Configure,
    Conversation,
    Ending,
    Identity,
    Join,
    Keep,
    KeepKeys,
    Learn,
    LearnRelays,
    NetworkChanged,
    SetPlacements,
    SetRoutes,
    Shake,
    Tell,
)
from candy.member.dialing import Dialing, Failed, Reached
from candy.member.keyed import KeyedConversation, keyed
from candy.member.keyring import Keyring
from candy.member.linking import Linking
from candy.member.peers import Peers
from candy.member.progress import Progress
from candy.member.relays import Relays
from candy.member.routeset import RouteSet
from candy.member.sealing import Sealing
from candy.member.sequel import Sequel, Sequels
from candy.member.silence import Look, Silence
from candy.member.state import MemberState
from candy.member.succession import Abandon, Action, Dial, Judge, Succession
from candy.primitives import verify
from candy.protocol import control
from candy.protocol.actions import Close, Drop, Log, Ping, Send
from candy.protocol.addresses import broadcast_of
from candy.protocol.login import Asks
from candy.protocol.secret import Secret
from candy.protocol.wire import RouteEntry
from candy.sealing.sealer import Said, Say
from candy.sealing.seals import Seal

GOODBYE_S = 2.0
"""How long the relay may take to answer our close frame."""

_log = logging.getLogger(__name__)


class Member:
    """The adapter: carries out the actions of one conversation after another, until it is cancelled.

    Args:
        identity: what it says of itself.
        keyring: what it logs in by, at a relay with candy.3.
        state: keeps address, timestamp, and what relays there are.
        relays, engine, interface: as made by run(); the engine has one network, number 0.
        underlay: this machine beside the interface; None: what is in its way is not looked for.
        sealing: makes what seals packets for others, by what it says; None: nothing does.
        linking: has the direct links with those; None: there are none.
        random: a number in [0, 1).
        wall: Unix seconds.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        identity: Identity,
        keyring: Keyring,
        state: MemberState,
        relays: Relays,
        engine: Engine,
        interface: Interface,
        underlay: Underlay | None = None,
        *,
        sealing: Callable[[Say], Sealing] | None = None,
        linking: Linking | None = None,
        random: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._identity = identity
        self._state = state
        self._engine = engine
        self._secure = Secure(engine)
        self._interface = interface
        self._underlay = underlay
        self.sealing = None if sealing is None else sealing(self._say)
        self.linking = linking
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
        self._stirred = asyncio.Event()
        """Something may be at hand to act upon."""
        self._change: str | None = None
        """Why the connection is in doubt, until that is acted upon."""
        self._dialing = Dialing(
            relays, keyring, state, self._secure, self._seals_alone, self._follow, self._stirred.set
        )
        self._silence = Silence(random)
        self._failed_at = ""
        """The relay of the last failure."""
        self._admitted: Admitted | None = None
        """The last log-in by a key."""
        self._reached: dict[int, Reached] = {}
        """By connection, those that the engine has."""
        self.progress = Progress()
        """What it is at."""
        if linking is not None:
            linking.relay = lambda: self.relays.endpoints()
            linking.wake = self._stirred.set
            linking.legacy.say = self._tell_members
            if self.sealing is not None:
                linking.linked = self.sealing.linked
                linking.legacy.ask_about, linking.legacy.has_key = self.sealing.look_up, self.sealing.has_key
        self._remember_relays()

    def renew(self, identity: Identity, keyring: Keyring, relays: Relays, seal: Seal, secret: Secret | None) -> None:
        """Be this from the next stay() on, by other connections. The interface keeps what it has until then, and
        sessions with others go on, as far as they may."""
        self._identity, self._dialing.keyring, self._dialing.relays = identity, keyring, relays
        self._remember_relays()
        if self.sealing is not None:
            self.sealing.change(seal, secret)
        self._sequels = Sequels(self._random, is_granted=identity.address is None)

    def _remember_relays(self) -> None:
        """Those that a relay of this network has told."""
        # What is wrong with the keys says the first log-in.
        with suppress(KeysUnusable):
            if (network := self.keyring.network()) is not None:
                self.relays.tell(self._state.relays(network))

    @property
    def keyring(self) -> Keyring:
        """What it logs in by."""
        return self._dialing.keyring

    @property
    def relays(self) -> Relays:
        """Those that it knows."""
        return self._dialing.relays

    @property
    def relay(self) -> str:
        """The URL of the relay that it is a member of, or is going to, without a password."""
        return self.relays.at_hand.relay

    @property
    def routes(self) -> tuple[RouteEntry, ...]:
        """Those that the relay told, of which the interface follows as many as it can."""
        return self._routes

    @property
    def peers(self) -> Peers:
        """What other members said of themselves."""
        return self._peers

    def drops(self) -> Mapping[str, int]:
        """What was dropped so far, by reason."""
        summed = Counter(self._engine.drops())
        summed.update(self._drops)
        return summed

    def log_counters(self) -> None:
        """Write all counters to the log, then the routes in use and what other members said of themselves (SIGUSR1)."""
        totals = self._engine.stats()
        if self.linking is not None:
            totals |= {"packets_resent": self.linking.legacy.resent}
        for line in counters.lines(totals, self.drops()):
            _log.info("%s", line)
        for destination, next_hop in self._interface.routes.items():
            _log.info("route %s: through %s", destination, next_hop)
        for address, peer in self._peers:
            _log.info("member %s: %s", address, peer)

    async def look(self) -> bool:
        """Whether the way to the relay has changed since the last look, or the last attempt.

        Raises:
            OSError: the kernel can't be asked.
        """
        return await self.relays.look()

    def changed(self, why: str) -> None:
        """The way to the relay has changed, or this machine was asleep; `why` is a sentence for the log."""
        self._change = why
        self._stirred.set()
        self.machine_changed()

    def machine_changed(self) -> None:
        """Something of this machine's network has changed, perhaps not the way to the relay."""
        if self.linking is not None:
            self.linking.changed()

    async def stay(self) -> None:
        """Connect and reconnect until cancelled; then say goodbye to the relay.

        Raises:
            OperationalError: the interface can't be used, or the relay has said what only the user can mend.
        """
        while True:
            try:
                ending = await self._attempt()
                is_over = self.relays.is_over
            except (AddressTaken, KeysUnusable) as error:
                # A second interface of this machine, perhaps of another client, has it, or a file is damaged.
                ending, is_over = Ending(str(error), refused=True), True
            if ending.final:
                raise OperationalError(ending.text)
            self.progress.ended(ending.text, self._wall())
            self.relays.left()
            sequel = self._sequels.after(ending, self._failed_at, is_over=is_over)
            level = logging.WARNING if sequel.is_news else logging.DEBUG
            again = "again" if self.relays.following == self.relay else self.relays.following
            _log.log(level, "%s; trying %s in %.1f s", sequel.text, again, sequel.delay)
            if sequel.asks_anew:
                self._last = None
            if sequel.needs_vmac:
                self._identity = replace(self._identity, vmac=self._state.renew_vmac(self._identity.randbytes))
                _log.warning("replaced again and again: this member has made itself a new VMAC")
            await self._pause(sequel)

    def end(self) -> None:
        """It has stayed for the last time: wipe what is secret, and keep what is to be kept."""
        if self.sealing is not None:
            self.sealing.end()
        if self.linking is not None:
            self.linking.legacy.end()

    async def _pause(self, sequel: Sequel) -> None:
        """Wait as long as it says, or until the way to the relay changes. What members have with each other goes on."""
        sleeping = asyncio.ensure_future(self._sleep(sequel.delay))
        sleeping.add_done_callback(lambda _: self._stirred.set())
        try:
            while not sleeping.done() and (sequel.stands or self._change is None):
                await self._wait(inf)
                if any(event == EVENT_LOST for _, event, _ in self._events()):
                    raise InterfaceGone(self._interface.name)
                self._go_on_beside()
        finally:
            sleeping.cancel()

    async def _attempt(self) -> Ending:
        """Connect; returns when that has failed, or the last connection that came of it has ended.

        Raises:
            AddressTaken: another interface has the member's address.
        """
        succession = Succession(self._identity.randbytes)
        self.progress.began(succession)
        if self._identity.address is not None:
            await self._interface.configure(self._identity.address)
        # What has changed before is nothing for a connection that is yet to be made.
        self._change = None
        try:
            await self._perform(succession.begin())
            while succession.ending is None:
                await self._wait(min(succession.deadline, await self._listen(succession)))
                await self._go_on(succession)
            return succession.ending
        finally:
            await self._leave(succession)

    async def _go_on(self, succession: Succession) -> None:
        """Act on all that has happened."""
        now = asyncio.get_running_loop().time
        if self._change is not None:
            change, self._change = self._change, None
            await self._perform(succession.changed(change, now()))
        if (dialed := self._dialing.taken()) is not None:
            await self._perform(self._open(succession, dialed, now()))
        for source, event, detail in self._events():
            if event == EVENT_LOST:
                raise InterfaceGone(self._interface.name)
            if event == EVENT_CLOSING:
                succession.closing(source, detail)
            elif event == EVENT_CLOSED:
                await self._on_closed(succession, source, detail.decode("ascii"))
            elif event == EVENT_PONG:
                self.progress.ponged(source)
                await self._perform(succession.ponged(source, detail, now()))
            elif event == EVENT_MESSAGE:
                await self._perform(succession.received(source, detail, now(), int(self._wall())))
        await self._perform(succession.expired(now()))
        self._go_on_beside()

    async def _on_closed(self, succession: Succession, connection: int, detail: str) -> None:
        """`detail` is the cause, and the milliseconds for which nothing had come."""
        cause, silence = detail.split()
        is_heard = connection in succession.connections
        actions = succession.closed(connection, cause, asyncio.get_running_loop().time(), int(silence) / 1000)
        # Who was replaced has a double, which would be at another relay, too.
        if is_heard and not (succession.ending is not None and succession.ending.replaced):
            self._fail(self._reached[connection].dialer.relay)
        await self._perform(actions)
        self._hang_up(connection)

    def _fail(self, relay: str) -> None:
        self._failed_at = relay
        self.relays.failed(relay)

    async def _listen(self, succession: Succession) -> float:
        """Whether the relay in use holds, and says something where there are others; when to look again."""
        talk = succession.leading
        if talk is None or talk.confirmed is None:
            return inf
        dialer = self._reached[talk.connection].dialer
        if not succession.is_in_doubt:
            self.relays.held(dialer)
        heard = self._engine.received_ns(talk.connection)
        if not self.relays.has_others or heard is None:
            return inf
        loop = asyncio.get_running_loop()
        look = self._silence.look((time.monotonic_ns() - heard) / 1e9)
        if look is Look.ASK:
            self._engine.ping(talk.connection, b"")
        elif look is Look.DOUBT:
            self.relays.failed(dialer.relay)
            await self._perform(succession.changed("the relay says nothing", loop.time()))
        return loop.time() + self._silence.delay

    def _go_on_beside(self) -> None:
        """Act on what there is with other members, whether there is a relay or not."""
        for part in (self.sealing, self.linking):
            if part is not None:
                part.go_on()

    def _events(self) -> list[tuple[int, int, bytes]]:
        """The engine's, but for those of connections that are being dialed, of direct links and of sealed sessions."""
        parts = [part.on_event for part in (self._secure, self.linking, self.sealing) if part is not None]
        return [event for event in self._engine.events() if not any(on_event(*event) for on_event in parts)]

    def _seals_alone(self) -> bool:
        return self.sealing is not None and self.sealing.seal is Seal.REQUIRE

    def _open(self, succession: Succession, dialed: Reached | Failed, now: float) -> list[Action]:
        """Begin the conversation on what was dialed."""
        if isinstance(dialed, Failed):
            self._fail(dialed.relay)
            return succession.failed(dialed.text, now, refused=dialed.refused)
        upgraded = dialed.upgraded
        try:
            connection = upgraded.hand_over(self._engine, self._sequels.ping_after)
        except OSError as error:
            upgraded.close()
            return succession.failed(f"the engine can't take the connection: {error.strerror}", now)
        self._reached[connection] = dialed
        return succession.opened(self._conversation(connection, dialed), now)

    def _conversation(self, connection: int, reached: Reached) -> Conversation:
        upgraded = reached.upgraded
        if reached.log_in is not None and upgraded.shown is not None:
            instance = int(reached.dialer.instance, 16)
            return keyed(
                self._identity,
                connection,
                self._last,
                self._told,
                reached.log_in,
                upgraded.shown,
                instance,
                verify,
                Asks.SEALS_NOTHING if self.sealing is None else self.sealing.flags,
            )
        timestamp = self._state.next_timestamp(int(self._wall()))
        return Conversation(self._identity, connection, timestamp, self._last, self._told, extended=upgraded.extended)

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
                    reached = self._reached[action.connection]
                    reached.dialer.outer.used = reached.upgraded.target
                    self.relays.used(reached.dialer)
                    self._engine.join(action.connection, self._interface.connection)
                    self._join_links(action.connection)
                case Configure():
                    await self._interface.configure(action.address)
                    # What is sent there is for all, and no member to seal for.
                    self._engine.set_broadcast(0, int(broadcast_of(action.address.network)))
                    self._last = action.address
                case KeepKeys():
                    # If it fails, what stands behind it is not done: the relay hears no confirmation.
                    self.keyring.keep(action.known, action.ticket)
                case LearnRelays():
                    told = self.relays.tell(action.urls)
                    self._state.keep_relays(action.network, told)
                case Keep():
                    self._state.keep_address(action.address)
                case SetRoutes():
                    self._routes = action.routes
                    if self.linking is not None:
                        self.linking.legacy.routed(bool(action.routes))
                    await self._follow()
                case SetPlacements():
                    self._engine.set_rules(0, [placement.numbers for placement in action.placements])
                case Learn():
                    _log.debug("%s: %s", action.message.src, self._peers.learn(action.message))
                    if self.linking is not None:
                        self.linking.legacy.told(action.message)
                case Admitted() | NetworkChanged() | Tell() | Shake():
                    if isinstance(action, Admitted):
                        self._admitted = action
                        if self.linking is not None:
                            self.linking.allow(action.allows_links)
                    if self.sealing is not None:
                        await self.sealing.perform(action)
                case Drop() | Log():
                    self._note(action)
                case Dial():
                    self._dialing.begin(action.attempt_s)
                case Judge():
                    ended = self._reached[action.connection]
                    ended.dialer.outer.judge(ended.upgraded.outer, gave_up=action.gave_up)
                case Abandon():
                    await self._dialing.abandon()

    def _join_links(self, connection: int) -> None:
        """Have direct links as the member that it is on this connection."""
        linking, own, password = self.linking, self._interface.address, self._identity.password
        if linking is None or own is None:
            return
        admitted = self._admitted if self._admitted is not None and self._admitted.connection == connection else None
        seal = Seal.OFF if self.sealing is None else self.sealing.seal
        if admitted is None:
            # A relay that knows no keys says nothing of it.
            linking.allow(True)
        if seal is Seal.REQUIRE or (admitted is not None and not admitted.shares_password):
            password = b""
        is_strict = admitted is not None and seal is not Seal.OFF
        linking.legacy.joined(own.ip, password, is_strict=is_strict, network=own.network)
        linking.changed()

    def _tell_members(self, message: bytes) -> None:
        """Send what is for other members, on the connection that leads."""
        talk = self.progress.conversation
        if talk is not None and talk.has_claimed:
            self._engine.send(talk.connection, message)

    def _note(self, action: Drop | Log) -> None:
        if isinstance(action, Drop):
            self._drops[action.reason] += 1
            _log.debug("message from the relay dropped: %s", action.reason)
        else:
            _log.log(logging.getLevelNamesMapping()[action.level.upper()], "%s", action.text)

    def _say(self, action: Said) -> None:
        """Carry out what sealed sessions have to say. The relay hears it on the connection that leads."""
        if not isinstance(action, Send):
            self._note(action)
            return
        talk, payload = self.progress.conversation, action.payload
        if not isinstance(talk, KeyedConversation) or talk.connection != action.connection:
            return
        self._engine.send(action.connection, talk.sealed(payload) if payload[0] in control.WITHIN else payload)

    async def _follow(self) -> None:
        """Lead packets for the routes in force into the tunnel, and tell what that is in the way of."""
        await self._interface.follow(self._routes, relay=self.relays.exposed)
        if (own := self._interface.address) is None:
            return
        if self.linking is not None:
            self.linking.lead((own.network, *(route.destination for route in self._routes)))
        if self._underlay is not None:
            await self._underlay.review(own, self._interface.routes.keys(), self.relays.ways)

    async def _wait(self, deadline: float) -> None:
        """Return once the engine has events, or something else is at hand, or at the deadline."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._engine.fileno(), self._stirred.set)
        for part in (self.sealing, self.linking):
            deadline = min(deadline, inf if part is None else loop.time() + part.delay)
        try:
            async with asyncio.timeout_at(deadline if deadline < inf else None):
                await self._stirred.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(self._engine.fileno())
            self._stirred.clear()

    async def _leave(self, succession: Succession) -> None:
        """End all connections, and have the relay hear of it if it still answers."""
        deadline = asyncio.get_running_loop().time() + GOODBYE_S
        left = set(succession.connections)
        await self._perform(succession.end())
        while left and asyncio.get_running_loop().time() < deadline:
            await self._wait(deadline)
            left -= {source for source, event, _ in self._events() if event == EVENT_CLOSED}
        for connection in list(self._reached):
            self._hang_up(connection)

    def _hang_up(self, connection: int) -> None:
        """The engine has sent what it had."""
        if self.sealing is not None:
            self.sealing.lost(connection)
        reached = self._reached.pop(connection, None)
        if reached is not None:
            reached.upgraded.hang_up()
