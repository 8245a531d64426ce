"""Walks the way of a member from its settings to its packets, step by step, and says what is wrong with each.

    settings ─▶ Dialer: name, TCP, proxy, TLS, upgrade ─▶ half a log-in: clock, log-in ─▶ a long request: path MTU
                and the other relays of -w, as far as the upgrade
                candy.member.machine: address, routes, state, forwarding, firewall

Rules:
 1. It does what the member does, by the member's own parts, whose words say what failed and what to do.
 2. It takes nothing from a client that runs: it ends its log-in when the relay has answered, before it has claimed an
    address, and changes nothing on this machine but for a VMAC and a key of the device, which are made as by a first
    start. What such a client has is compared with what the kernel has.
 3. A step that fails leaves those behind it out, as far as they need it.

This module does not know how a client that runs is asked, nor how findings are shown.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface
from typing import Final

from candy._fastpath import EVENT_CLOSED, EVENT_CLOSING, EVENT_MESSAGE, Engine
from candy.carrier.secure import Secure
from candy.errors import OperationalError, TookTooLong
from candy.host.underlay import Underlay
from candy.member import parts
from candy.member.acceptance import Acceptance
from candy.member.conversation import Action, Configure, Conversation, KeepKeys
from candy.member.dial import Dialer, Upgraded
from candy.member.findings import NOT_REACHED, Finding, State, Walk, clock
from candy.member.joining import Event, hang_up, reading, running
from candy.member.keyed import keyed
from candy.member.keyring import Keyring
from candy.member.login import why_not_by_hash
from candy.member.machine import Machine, Running
from candy.member.routeset import RouteSet
from candy.member.settings import MemberSettings
from candy.member.state import MemberState
from candy.member.steps import Step
from candy.primitives import verify
from candy.protocol.actions import Close, Log, Send
from candy.protocol.closing import CloseCode, parse
from candy.protocol.login import Asks
from candy.sealing.seals import Seal

PADDING_BYTES: Final = 4000
"""Of a request that fills segments of any Ethernet, and that web servers take."""
NO_ADDRESS: Final = frozenset({CloseCode.NO_POOL, CloseCode.POOL_FULL})
"""Refusals of an address that was asked for in place of a member's own: password and clock are right."""
IP_MTU, IPV6_MTU = 14, 24
"""From <linux/in.h> and <linux/in6.h>."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What the relay has said to half a log-in."""

    address: IPv4Interface | None
    """The one that it would give; None: none."""
    failure: str | None
    code: int | None = None
    """Of a refusal by close frame."""
    clock: int | None = None
    """The relay's, Unix seconds."""
    here: int = 0
    """This machine's, when the answer came."""


def examine(settings: MemberSettings, client: Running | None) -> list[Finding]:
    """Look at everything, which takes a few seconds, more where something fails.

    Raises:
        ConfigError: the URL, the CA file or a proxy variable can't be used.
        OperationalError: the engine can't start, or a file with keys is damaged.
    """
    underlay = Underlay(settings.interface)
    dialer, keyring = parts.dialer(settings, underlay), parts.keyring(settings)
    others = [parts.dialer(settings, underlay, url) for url in settings.urls[1:]]
    machine = Machine(settings, client, underlay)
    with running() as engine:
        return asyncio.run(Doctor(settings, client, dialer, keyring, engine, others=others).examine(machine))


class Doctor:
    """One examination.

    Args:
        settings: the client's.
        client: one that runs with these.
        dialer, keyring: made of them; the first relay's.
        engine: has one network, number 0.
        wall: Unix seconds.
        others: dialers of the other relays.
    """

    def __init__(
        self,
        settings: MemberSettings,
        client: Running | None,
        dialer: Dialer,
        keyring: Keyring,
        engine: Engine,
        wall: Callable[[], float] = time.time,
        *,
        others: Sequence[Dialer] = (),
    ) -> None:
        self._settings = settings
        self._client = client
        self._dialer = dialer
        self._others = others
        self._keyring = keyring
        self._engine = engine
        self._wall = wall
        self._secure = Secure(engine)
        self._state = MemberState(settings.state_dir, settings.name)
        self._kept_segment: int | None = None
        """What the client knows of the longest TCP segments on the way."""
        self._events: asyncio.Queue[Event]

    async def examine(self, machine: Machine) -> list[Finding]:
        """All of it."""
        found, address = await self.walk()
        if self._client is not None:
            address = self._client.address or address
        *way, path = found
        here = [await machine.address(address), await machine.routes(address, self._dialer.outer.ways)]
        return [*way, *await self.others(), *here, path, machine.state(), *machine.gateway()]

    async def others(self) -> list[Finding]:
        """Whether the other relays answer. A member does without them, so that they do not is a warning."""
        found = []
        with reading(self._engine, self._secure.on_event) as self._events:
            for dialer in self._others:
                began = time.monotonic()
                try:
                    (await dialer.dial(secure=self._secure)).close()
                    state, text = State.OK, f"{dialer.relay} answers, to go to when another one is lost"
                except OperationalError as error:
                    state, text = State.WARNING, str(error)
                found.append(Finding("other relay", state, time.monotonic() - began, text))
        return found

    async def walk(self) -> tuple[list[Finding], IPv4Interface | None]:
        """The way to the relay, and the address that the member has or would be given."""
        outer = self._dialer.outer
        outer.segment = self._kept_segment = self._state.segment(outer.host)
        with reading(self._engine, self._secure.on_event) as self._events:
            found, upgraded = await self._reach()
            if upgraded is None:
                rest = ("clock", "log-in", "path MTU")
                return [*found, *(Finding(step, State.SKIPPED, None, NOT_REACHED) for step in rest)], self._settings.tun
            mtu = _mtu_of(upgraded.outer)
            logged_in, granted = await self._enter(upgraded)
            return [*found, *logged_in, await self._path(mtu)], self._settings.tun or granted

    async def _reach(self) -> tuple[list[Finding], Upgraded | None]:
        """From the name to the upgrade."""
        walk, upgraded, failure = await self._dial()
        outer = self._dialer.outer
        if upgraded is None and walk.at is Step.NAME and (known := self._known()):
            # As the member does; what is wrong with the name is said all the same.
            lost = walk.findings(self._said(None), time.monotonic(), failure)[0]
            walk, upgraded, failure = await self._dial(known)
            found = walk.findings(self._said(upgraded), time.monotonic(), failure)
            tried = replace(lost, text=f"{lost.text}; tried on at the addresses of last time: {', '.join(outer.found)}")
            return [tried, *found[1:]], upgraded
        return walk.findings(self._said(upgraded), time.monotonic(), failure), upgraded

    def _known(self) -> tuple[str, ...]:
        name = self._dialer.outer.name
        return () if name is None else self._state.reached(name)

    async def _dial(self, known: tuple[str, ...] = ()) -> tuple[Walk, Upgraded | None, str | None]:
        """One attempt, and why it failed."""
        walk = Walk()
        try:
            upgraded = await self._dialer.dial(
                secure=self._secure,
                known=known,
                told=lambda step: walk.begin(step, time.monotonic()),
            )
        except OperationalError as error:
            return walk, None, self._without_url(error)
        return walk, upgraded, None

    def _said(self, upgraded: Upgraded | None) -> dict[Step, tuple[State, str]]:
        """Of each step, if it goes well."""
        dialer, settings = self._dialer, self._settings
        outer, ok = dialer.outer, State.OK
        spoken = "as the original's relay does, without candy.2"
        if upgraded is not None and upgraded.extended:
            spoken = "candy.2" if upgraded.shown is None else "candy.3"
        tls = (ok, "the relay's certificate is believed")
        if not settings.url.startswith("wss:"):
            tls = (State.SKIPPED, "none: the URL begins with ws://")
        elif settings.insecure:
            tls = (State.WARNING, "the relay's certificate is not verified (--insecure)")
        addresses = ", ".join(outer.found)
        return {
            Step.NAME: (ok, f"{outer.name} is at {addresses}") if outer.name else (State.SKIPPED, "none: an address"),
            Step.TCP: (ok, f"connected to {_peer(upgraded)}"),
            Step.PROXY: (ok, f"through {dialer.proxy}")
            if dialer.proxy
            else (State.SKIPPED, "none: the environment names none for this URL"),
            Step.TLS: tls,
            Step.UPGRADE: (ok, spoken),
        }

    async def _enter(self, upgraded: Upgraded) -> tuple[list[Finding], IPv4Interface | None]:
        """Clock and log-in, and the address that the relay would give. The connection is over then."""
        began = time.monotonic()
        try:
            answered = await self._ask(upgraded)
        finally:
            upgraded.hang_up()
        took = time.monotonic() - began
        its_clock = clock(answered.clock, answered.here, took)
        if answered.code == CloseCode.CLOCK_OFF and answered.failure is not None:
            its_clock = Finding("clock", State.FAILED, took, answered.failure)
        if its_clock.state is State.FAILED and answered.failure == its_clock.text:
            return [its_clock, Finding("log-in", State.SKIPPED, None, NOT_REACHED)], None
        return [its_clock, self._log_in(answered, took)], answered.address

    def _log_in(self, answered: Answered, took: float) -> Finding:
        failure, client = answered.failure, self._client
        if client is not None and client.is_connected:
            told = f"the client that runs is connected as {client.address}"
            if failure is None:
                return Finding("log-in", State.OK, took, told)
            return Finding("log-in", State.WARNING, took, f"{told}; another log-in fails: {failure}")
        ended = "" if client is None or client.last_end is None else f"; the client that runs says: {client.last_end}"
        if failure is not None:
            return Finding("log-in", State.FAILED, took, f"{failure}{ended}")
        if client is not None and ended:
            # It may be between two attempts, for what it says is over, or for what only its own log-in meets.
            return Finding("log-in", State.WARNING, took, f"the relay lets this device in{ended}")
        return Finding("log-in", State.OK, took, "the relay lets this device in")

    async def _ask(self, upgraded: Upgraded) -> Answered:
        """Half a log-in."""
        settings = self._settings
        with ExitStack() as unused:
            unused.callback(upgraded.carrier.close)
            try:
                log_in = None if upgraded.shown is None else await self._keyring.log_in(upgraded.shown)
                if log_in is None and (why := self._why_not_by_hash()) is not None:
                    return Answered(None, why)
                connection = upgraded.hand_over(self._engine, None)
            except OperationalError as error:
                return Answered(None, str(error))
            except OSError as error:
                return Answered(None, f"the engine can't take the connection: {error.strerror}")
            unused.pop_all()
        identity = parts.identity(settings, self._state, Acceptance(settings.accept_routes))
        last = self._state.address()
        if log_in is not None and upgraded.shown is not None:
            # Nothing is sealed for who leaves at once.
            seals, instance = Asks.SEALS_NOTHING, int(self._dialer.instance, 16)
            shown = upgraded.shown
            talk: Conversation = keyed(identity, connection, last, RouteSet(), log_in, shown, instance, verify, seals)
            return await self._talk(talk)
        # An AUTH would take the address over, so one is asked for in place of a fixed one as well.
        asks = replace(identity, address=None)
        wall = int(self._wall())
        talk = Conversation(asks, connection, wall, last, RouteSet(), extended=upgraded.extended)
        answered = await self._talk(talk)
        if identity.address is None or (answered.failure is not None and answered.code not in NO_ADDRESS):
            return answered
        return replace(answered, address=identity.address, failure=None)

    def _why_not_by_hash(self) -> str | None:
        """Raises OperationalError."""
        return why_not_by_hash(
            knows_network=self._keyring.knows_network(),
            extension=self._settings.extension,
            seals_alone=self._settings.seals is Seal.REQUIRE,
            has_password=self._keyring.has_password,
        )

    async def _talk(self, talk: Conversation) -> Answered:
        """Up to the relay's answer."""
        now = asyncio.get_running_loop().time
        code, wall = None, 0
        answered = self._perform(talk.opened(now()))
        while answered is None:
            try:
                async with asyncio.timeout_at(talk.deadline):
                    _, event, detail = await self._events.get()
            except TimeoutError:
                answered = self._perform(talk.expired(now()))
                continue
            if event == EVENT_CLOSED:
                ending = talk.closed(detail.decode("ascii").split()[0], now())
                return Answered(None, ending.text, code, talk.relay_clock, wall)
            if event == EVENT_CLOSING:
                code, _ = parse(detail)
                talk.closing(detail)
            elif event == EVENT_MESSAGE:
                wall = int(self._wall())
                answered = self._perform(talk.received(detail, now(), wall))
        await hang_up(self._engine, talk.connection, self._events)
        return replace(answered, clock=talk.relay_clock, here=wall)

    def _perform(self, actions: list[Action]) -> Answered | None:
        """Carry out what comes before the relay's answer, and nothing behind: neither a claim nor a confirmation."""
        is_answered, said = False, ""
        for action in actions:
            match action:
                case Configure():
                    return Answered(action.address, None)
                case KeepKeys():
                    is_answered = True
                case Send() if not is_answered:
                    self._engine.send(action.connection, action.payload)
                case Close():
                    self._engine.close(action.connection, action.code, action.reason)
                case Log():
                    said = action.text
        # Let in, but without an address: it waits for approval, which the last line says.
        return Answered(None, said) if is_answered else None

    async def _path(self, mtu: int | None) -> Finding:
        """Whether long segments arrive: by a request that fills some."""
        outer, began = self._dialer.outer, time.monotonic()
        try:
            try:
                upgraded = await self._dialer.dial(secure=self._secure, known=self._known(), padding=PADDING_BYTES)
            except TookTooLong:
                # That has taught it a shorter length, which is tried once.
                upgraded = await self._dialer.dial(secure=self._secure, known=self._known(), padding=PADDING_BYTES)
        except OperationalError as error:
            why, took = self._without_url(error), time.monotonic() - began
            if isinstance(error, TookTooLong):
                told = f"a long request is not answered, where a short one is: {why}"
                return Finding("path MTU", State.FAILED, took, f"{told}: have ICMP let through on the way")
            told = f"not known, because a long request is refused, where a short one is not: {why}"
            return Finding("path MTU", State.WARNING, took, told)
        upgraded.close()
        took = time.monotonic() - began
        if outer.segment is not None:
            learned = "which the client knows" if outer.segment == self._kept_segment else "which it will learn"
            told = f"TCP segments of more than {outer.segment} bytes vanish on the way, and nothing says so, {learned}"
            return Finding("path MTU", State.WARNING, took, f"{told}: have ICMP let through there")
        return Finding("path MTU", State.OK, took, f"{mtu} bytes, and long segments arrive" if mtu else "they arrive")

    def _without_url(self, error: OperationalError) -> str:
        return str(error).removeprefix(f"{self._dialer.relay}: ")


def _peer(upgraded: Upgraded | None) -> str:
    if upgraded is None:
        return "it"
    there, here = upgraded.outer.getpeername(), upgraded.outer.getsockname()
    return f"{there[0]} port {there[1]}, from {here[0]}"


def _mtu_of(connected: socket.socket) -> int | None:
    """What the kernel holds for the path's, bytes."""
    is_ipv6 = connected.family == socket.AF_INET6
    try:
        return connected.getsockopt(*((socket.IPPROTO_IPV6, IPV6_MTU) if is_ipv6 else (socket.IPPROTO_IP, IP_MTU)))
    except OSError:
        return None
