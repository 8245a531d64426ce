"""This machine's interfaces in the networks: made, watched, and each of them one more member that seals.

    make(served) ─▶ Interface ─▶ watched; OwnSealing ◀── on_event(), go_on() ── engine, clock
                        └─▶ removed from outside: a line in the log, and no more than that

Rules:
 1. A network without keys has nobody who seals, and its interface does not either.
 2. A key for the interface that can't be written costs its sealing; one that is damaged, or that others can read, ends
    the start, as any other.
 3. What makes interfaces is imported with the first of them, because most relays have none.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from candy._fastpath import EVENT_LOST, Engine
from candy.errors import InterfaceGone, UnwritableError
from candy.relay.served import Served
from candy.relay.session import Action
from candy.relay.state import folder_at

if TYPE_CHECKING:
    from candy.host.interface import Interface
    from candy.host.notifications import Notifications
    from candy.relay.sealing import OwnSealing

log = logging.getLogger("candy.relay")


class Interfaces:
    """See above.

    Args:
        folder: the relay's state folder.
        act: carries out what a network decides.
        woken: called when go_on() may be due sooner.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        act: Callable[[Served, Iterable[Action]], None],
        woken: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._act = act
        self._woken = woken
        self._stack = ExitStack()
        self._notifications: Notifications | None = None
        """Of the kernel, for all interfaces."""
        self._served: dict[int, Served] = {}
        """By the engine's numbers of the interfaces."""
        self._watching: set[asyncio.Task[None]] = set()
        """Tasks: one for each interface."""

    def open(self, stack: ExitStack) -> None:
        """Interfaces that are made from now on are closed with this."""
        self._stack = stack

    async def make(self, served: Served) -> None:
        """Give this machine its interface in a network, if it is to have one, and keep it as it shall be.

        Raises:
            OperationalError: it could not be created, or its key's file can't be used.
        """
        address = served.settings.tun
        if address is None:
            return
        if self._notifications is None:
            from candy.host.notifications import Notifications

            self._notifications = self._stack.enter_context(Notifications())
        # Bound before it is up, so that none of its first packets is dropped.
        self._act(served, served.make_interface(self._stack))
        interface = served.interface
        assert interface is not None
        self._served[interface.connection] = served
        self._seal(served, interface)
        await interface.configure(address)
        await served.follow()
        log.info("%sthis machine is %s on interface %s", served.label, address, interface.name)
        self._watching.add(asyncio.create_task(self._watch(interface, self._notifications)))

    def on_event(self, connection: int, kind: int, detail: bytes) -> bool:
        """Act on an event of the engine's; False: it is none about an interface."""
        served = self._served.get(connection)
        if served is None:
            return False
        if kind == EVENT_LOST:
            assert served.interface is not None
            name = served.interface.name
            log.error("%sinterface %s was removed from outside: restart to have it back", served.label, name)
        elif served.sealing is not None:
            served.sealing.on_event(kind, detail)
        return True

    @property
    def delay(self) -> float:
        """Seconds until go_on() has to be called; inf: not at all."""
        return min((sealing.delay for sealing in self._sealing()), default=inf)

    def go_on(self) -> None:
        """Act on what time and traffic have brought."""
        for sealing in self._sealing():
            sealing.go_on()

    def stop(self) -> None:
        """The relay ends: leave the event loop, and wipe what is secret."""
        for watching in self._watching:
            watching.cancel()
        for sealing in self._sealing():
            sealing.end()

    def _sealing(self) -> "list[OwnSealing]":
        return [served.sealing for served in self._served.values() if served.sealing is not None]

    def _seal(self, served: Served, interface: "Interface") -> None:
        from candy.relay.sealing import OwnSealing, Times

        keyring = served.keyring
        if keyring is None:
            return
        try:
            device = keyring.own_device()
        except UnwritableError as error:
            log.warning("%sinterface %s does not seal: %s", served.label, interface.name, error)
            return
        served.sealing = OwnSealing(
            self._engine,
            served.network,
            interface.connection,
            device,
            served.settings.seals,
            Times(folder_at(self._folder), keyring.times),
            partial(self._act, served),
            self._woken,
        )

    async def _watch(self, interface: "Interface", notifications: "Notifications") -> None:
        from candy.host.watch import watch

        # That another program removed it is the engine's to tell.
        with suppress(InterfaceGone):
            await watch(interface, notifications)
