"""Redeems an invitation: one log-in, without an interface, by which the device comes to a credential of its own.

    join() ─▶ Dialer ─▶ KeyedConversation ─▶ KeepKeys: the files ─▶ CONFIRM ─▶ close frame

This module does not know where links come from, nor what becomes of the settings.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Interface

from candy._fastpath import EVENT_CLOSED, EVENT_MESSAGE, Engine
from candy.carrier.secure import Secure
from candy.errors import OperationalError
from candy.member import parts
from candy.member.acceptance import Acceptance
from candy.member.conversation import Action, Configure, Conversation, Identity, KeepKeys
from candy.member.dial import Dialer, Upgraded
from candy.member.keyed import keyed
from candy.member.keyring import Keyring
from candy.member.login import OLD_RELAY
from candy.member.routeset import RouteSet
from candy.member.settings import MemberSettings
from candy.member.state import MemberState
from candy.primitives import verify
from candy.protocol.actions import Close, Send
from candy.protocol.closing import CloseCode
from candy.protocol.link import Invitation
from candy.protocol.login import Asks

_CONNECTIONS = 4
GOODBYE_S = 2.0
"""How long the relay may take to answer our close frame."""


def join(settings: MemberSettings, invitation: Invitation) -> IPv4Interface:
    """Log in once; returns the address that the relay has given.

    Args:
        settings: with the network's key of the invitation's link.

    Raises:
        ConfigError: the URL, the CA file or a proxy variable can't be used.
        OperationalError: it did not come to a credential; the text says why, and what to do.
    """
    dialer, keyring = parts.dialer(settings), parts.keyring(settings, invitation)
    state = MemberState(settings.state_dir, settings.name)
    identity = parts.identity(settings, state, Acceptance(settings.accept_routes))
    with running() as engine:
        return asyncio.run(_Joining(dialer, keyring, identity, engine).run())


@contextmanager
def running() -> Iterator[Engine]:
    """An engine for a few connections, without an interface.

    Raises:
        OperationalError: it can't start.
    """
    try:
        engine = Engine(max_connections=_CONNECTIONS, max_guests=_CONNECTIONS)
    except OSError as error:
        raise OperationalError(f"the engine can't start: {error.strerror}") from error
    try:
        engine.add_network()
        yield engine
    finally:
        engine.stop()


Event = tuple[int, int, bytes]


@contextmanager
def reading(engine: Engine, is_taken: Callable[[int, int, bytes], bool]) -> Iterator[asyncio.Queue[Event]]:
    """The engine's events come into a queue, but those that are taken before."""
    events: asyncio.Queue[Event] = asyncio.Queue()

    def read() -> None:
        for event in engine.events():
            if not is_taken(*event):
                events.put_nowait(event)

    loop = asyncio.get_running_loop()
    loop.add_reader(engine.fileno(), read)
    try:
        yield events
    finally:
        loop.remove_reader(engine.fileno())


async def hang_up(engine: Engine, connection: int, events: asyncio.Queue[Event]) -> None:
    """End a connection, and have the relay hear of it if it still answers."""
    engine.close(connection, CloseCode.GOING_AWAY, "")
    with suppress(TimeoutError):
        async with asyncio.timeout(GOODBYE_S):
            while (await events.get())[1] != EVENT_CLOSED:
                pass


class _Joining:
    """One log-in."""

    def __init__(self, dialer: Dialer, keyring: Keyring, identity: Identity, engine: Engine) -> None:
        self._dialer = dialer
        self._keyring = keyring
        self._identity = identity
        self._engine = engine
        self._events: asyncio.Queue[Event]

    async def run(self) -> IPv4Interface:
        """See join()."""
        secure = Secure(self._engine)
        with reading(self._engine, secure.on_event) as self._events:
            upgraded = await self._dialer.dial(secure=secure)
            try:
                return await self._log_in(upgraded)
            finally:
                upgraded.hang_up()

    async def _log_in(self, upgraded: Upgraded) -> IPv4Interface:
        if upgraded.shown is None:
            upgraded.carrier.close()
            raise OperationalError(OLD_RELAY)
        try:
            log_in = await self._keyring.log_in(upgraded.shown)
            connection = upgraded.hand_over(self._engine, None)
        except OSError as error:
            upgraded.carrier.close()
            raise OperationalError(f"the engine can't take the connection: {error.strerror}") from error
        except OperationalError:
            upgraded.carrier.close()
            raise
        instance = int(self._dialer.instance, 16)
        # Nothing is sealed for who leaves at once.
        seals = Asks.SEALS_NOTHING
        talk = keyed(self._identity, connection, None, RouteSet(), log_in, upgraded.shown, instance, verify, seals)
        address = await self._talk(talk)
        await hang_up(self._engine, connection, self._events)
        return address

    async def _talk(self, talk: Conversation) -> IPv4Interface:
        """Up to the member's confirmation."""
        now = asyncio.get_running_loop().time
        address = self._perform(talk.opened(now()))
        while address is None:
            try:
                async with asyncio.timeout_at(talk.deadline):
                    _, event, detail = await self._events.get()
            except TimeoutError:
                address = self._perform(talk.expired(now()))
                continue
            if event == EVENT_CLOSED:
                raise OperationalError(talk.closed(detail.decode("ascii").split()[0], now()).text)
            if event == EVENT_MESSAGE:
                address = self._perform(talk.received(detail, now(), 0))
        return address

    def _perform(self, actions: list[Action]) -> IPv4Interface | None:
        """The address, once there is one. What an interface would need is passed over."""
        address = None
        for action in actions:
            match action:
                case Send():
                    self._engine.send(action.connection, action.payload)
                case Close():
                    self._engine.close(action.connection, action.code, action.reason)
                case KeepKeys():
                    self._keyring.keep(action.known, action.ticket)
                case Configure():
                    address = action.address
        return address
