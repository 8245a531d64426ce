"""The member's life: its parts are made, it stays in the network, and a signal ends it.

    run() ─▶ interface, state, engine, Member ─▶ stay() ─▶ SIGTERM, SIGINT ─▶ close frame ─▶ engine stops
                                                  │ ▲      SIGUSR1: counters
                                                  │ └── SIGHUP: settings again; another stay() if a connection needs it
                                                watch() interface and NAT: right again, whatever others do;
                                                        the way to the relay: Member.changed
                                                keep_writing(): the state's files, while they can't be written

Rules:
 1. A part that was made is ended, also when a later one fails.
 2. Of settings that are read again those are applied that candy.options says a reload applies; any other change needs a
    restart, and is named in the log, last of all. Without a file there is nothing to read, and SIGHUP ends the member.

What happens between start and end is candy.member.member's.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial

from candy._fastpath import Engine
from candy.control.serving import Answering, serving
from candy.control.sockets import place
from candy.errors import ConfigError, OperationalError
from candy.host.interface import Interface
from candy.host.kernelroutes import KernelRoutes
from candy.host.masquerade import Masquerade
from candy.host.notifications import Notifications
from candy.host.servicemanager import ServiceManager
from candy.host.tun import Tun
from candy.host.underlay import Underlay
from candy.host.watch import watch
from candy.member import parts
from candy.member.acceptance import Acceptance
from candy.member.control import MemberControl
from candy.member.member import Member
from candy.member.monitor import KINDS, Monitor
from candy.member.parts import Parts
from candy.member.settings import MemberSettings, change
from candy.member.state import MemberState

WORKERS_MAX = 2
"""One for each direction, on machines with more than two cores. On two cores one worker is as fast, and a ping is back
sooner."""
MAX_CONNECTIONS = 64
"""Of the engine: the interface, a connection, and those before it that have not ended yet."""
PING_AFTER_S = 15.0
DEAD_AFTER_S = 40.0
"""Where there is another relay to go to, that is done sooner (candy.member.silence)."""

_log = logging.getLogger(__name__)


class _Stays:
    """One stay of a member after another: the next one begins when settings have changed that a connection is made by.

    Args:
        settings: the member's, as it is.
        make: what a member with other settings connects as, and by.
    """

    def __init__(
        self,
        member: Member,
        settings: MemberSettings,
        make: Callable[[MemberSettings], Parts],
    ) -> None:
        self._member = member
        self._settings = settings
        self._make = make
        self._next: Parts | None = None
        """Of the next stay, once there is to be one."""
        self._staying: asyncio.Timeout

    async def lead(self) -> None:
        """Stay until cancelled."""
        while True:
            try:
                # A deadline that reload() sets.
                async with asyncio.timeout(None) as self._staying:
                    await self._member.stay()
            except TimeoutError:
                if self._next is None:
                    raise
                self._member.renew(*self._next)
                self._next = None

    def reload(self, reread: Callable[[], MemberSettings]) -> None:
        """Read the settings again; when they are sound, apply those that need no restart."""
        try:
            changed = change(self._settings, reread())
            made = self._make(changed.settings) if changed.takes_connection else None
        except (ConfigError, OperationalError) as error:
            _log.error("not read again, nothing changes: %s", error)
            return
        _log.info("the settings are read again")
        self._settings = changed.settings
        logging.root.setLevel(logging.DEBUG if changed.settings.debug else logging.INFO)
        if changed.applied:
            _log.info("changed: %s", ", ".join(changed.applied))
        if made is not None:
            _log.info("connecting anew to %s", made.relays.at_hand.relay)
            if self._next is None:
                self._staying.reschedule(asyncio.get_running_loop().time())
            self._next = made
        if changed.left:
            _log.warning("changed, which needs a restart: %s", ", ".join(changed.left))


async def _stay_until_signal(
    settings: MemberSettings,
    stays: _Stays,
    member: Member,
    control: MemberControl,
    monitor: Monitor,
    state: MemberState,
    interface: Interface,
    masquerade: Masquerade | None,
    rounds: Callable[[], list[int]],
    reread: Callable[[], MemberSettings] | None,
) -> None:
    loop, manager = asyncio.get_running_loop(), ServiceManager(os.environ)
    staying = loop.create_task(stays.lead())

    def end() -> None:
        _log.info("ending")
        manager.stopping()
        staying.cancel()

    def reload(reread: Callable[[], MemberSettings]) -> None:
        manager.reloading()
        stays.reload(reread)
        manager.ready()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if reread is not None:
        loop.add_signal_handler(signal.SIGHUP, reload, reread)
    elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # A terminal that is closed sends SIGHUP, which nohup has ignored.
        loop.add_signal_handler(signal.SIGHUP, end)
    loop.add_signal_handler(signal.SIGUSR1, member.log_counters)
    # Only now: an earlier signal would have left the NAT behind.
    with ExitStack() as stack:
        notifications = stack.enter_context(Notifications())
        beside = [
            loop.create_task(watch(interface, notifications)),
            loop.create_task(monitor.watch(notifications)),
            loop.create_task(state.folder.keep_writing()),
        ]
        # Where the kernel tells of nothing, the way to the relay is looked at all the same, and with it this.
        with suppress(OSError):
            notifications.subscribe(KINDS, lambda _: member.machine_changed())
        if masquerade is not None:
            stack.enter_context(masquerade)
            beside.append(loop.create_task(watch(masquerade, notifications)))
        answering = Answering("member", control)
        default = place("member", settings.interface, os.environ, os.geteuid())
        async with serving(settings, answering, default) as lines:
            for line in lines:
                _log.debug("%s", line)
            # It serves whether or not the relay can be reached: it goes on trying.
            manager.ready()
            beside.append(loop.create_task(manager.watch(rounds, partial(_status, member, interface))))
            await _until_one_ends(staying, *beside)


def _status(member: Member, interface: Interface) -> str:
    """For who asks the service manager."""
    progress = member.progress
    if progress.state == "connected":
        return f"connected as {interface.address}"
    return progress.state if progress.last_end is None else f"{progress.state}: {progress.last_end[1]}"


async def _until_one_ends(*tasks: asyncio.Task[None]) -> None:
    """Wait until a task ends, and end the others; an error of one is raised."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


def run(settings: MemberSettings, reread: Callable[[], MemberSettings] | None = None) -> int:
    """Be a member until SIGTERM, SIGINT or SIGHUP; returns the exit status.

    Args:
        reread: reads the settings again. With it SIGHUP does that, instead of ending the member.

    Raises:
        ConfigError: the URL, the CA file or a proxy variable can't be used.
        OperationalError: an interface could not be created, --masquerade has no nft, or a file with keys is damaged.
    """
    acceptance = Acceptance(settings.accept_routes)
    masquerade = Masquerade(settings.interface) if settings.masquerade else None
    underlay = Underlay(settings.interface)
    relays = parts.relays(settings, underlay)
    with Tun(settings.interface, settings.mtu, offload=settings.offload) as tun:
        state = MemberState(settings.state_dir, settings.name)
        identity, keyring = parts.identity(settings, state, acceptance), parts.keyring(settings)

        def make(other: MemberSettings) -> Parts:
            made = Parts(
                parts.identity(other, state, acceptance),
                parts.keyring(other),
                parts.relays(other, underlay),
                other.seals,
                other.secret,
            )
            acceptance.change(other.accept_routes)
            return made

        try:
            engine = Engine(
                workers=min(WORKERS_MAX, max(1, len(os.sched_getaffinity(0)) - 1)),
                max_connections=MAX_CONNECTIONS,
                max_guests=MAX_CONNECTIONS,
                ping_after=PING_AFTER_S,
                dead_after=DEAD_AFTER_S,
                ping_when_quiet=True,
            )
        except OSError as error:
            raise OperationalError(f"the engine can't start: {error.strerror}") from error
        try:
            engine.add_network()
            interface = Interface(tun, KernelRoutes(tun.name, acceptance.doubt), engine)
            linking = parts.linking(settings, state, engine, interface.connection)
            sealing = parts.sealing(settings, state, engine, interface.connection, linking)
            member = Member(
                identity, keyring, state, relays, engine, interface, underlay, sealing=sealing, linking=linking
            )
            _log.info("interface %s is made; connecting to %s", interface.name, relays.at_hand.relay)
            stays = _Stays(member, settings, make)
            monitor = Monitor(member.look, member.changed)
            control = MemberControl(member, engine, interface)
            asyncio.run(
                _stay_until_signal(
                    settings,
                    stays,
                    member,
                    control,
                    monitor,
                    state,
                    interface,
                    masquerade,
                    engine.worker_rounds,
                    reread,
                )
            )
            member.end()
        finally:
            # The interface is gone once the engine's duplicate of its descriptor is closed as well.
            engine.stop()
    return 0
