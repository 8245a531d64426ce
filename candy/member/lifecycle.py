"""The member's life: its parts are made, it stays in the network, and a signal ends it.

    run() ─▶ interface, state, engine, Member ─▶ stay() ─▶ SIGTERM, SIGINT, SIGHUP ─▶ close frame ─▶ engine stops
                                                  │        SIGUSR1: counters
                                                watch() interface and NAT: right again, whatever others do

Rule: a part that was made is ended, also when a later one fails. What happens between start and end is
candy.member.member's.
"""

import asyncio
import logging
import os
import secrets
import signal
import socket
from contextlib import ExitStack

from candy import __version__
from candy._fastpath import Engine
from candy.errors import OperationalError
from candy.host.interface import Interface
from candy.host.kernelroutes import KernelRoutes
from candy.host.masquerade import Masquerade
from candy.host.notifications import Notifications
from candy.host.tun import Tun
from candy.host.underlay import Underlay
from candy.host.watch import watch
from candy.member.acceptance import Acceptance
from candy.member.conversation import Identity
from candy.member.dial import Dialer
from candy.member.member import Member
from candy.member.settings import MemberSettings
from candy.member.state import MemberState

WORKERS_MAX = 2
"""One for each direction, on machines with more than two cores. On two cores one worker is as fast, and a ping is back
sooner."""
MAX_CONNECTIONS = 64
"""Of the engine: the interface, a connection, and those before it that have not ended yet."""
PING_AFTER_S = 15.0
DEAD_AFTER_S = 40.0
LONGEST_PING = 125
"""Bytes of a PING's payload (RFC 6455, section 5.5)."""

_log = logging.getLogger(__name__)


def hello(host: str) -> bytes:
    """The payload of the first PING, as the original sends it."""
    return f"candy::linux::{__version__}::{host}".encode()[:LONGEST_PING]


async def _stay_until_signal(member: Member, interface: Interface, masquerade: Masquerade | None) -> None:
    loop = asyncio.get_running_loop()
    staying = loop.create_task(member.stay())

    def end() -> None:
        _log.info("ending")
        staying.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A terminal that is closed sends SIGHUP, which nohup has ignored.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGUSR1, member.log_counters)
    # Only now: an earlier signal would have left the NAT behind.
    with ExitStack() as stack:
        notifications = stack.enter_context(Notifications())
        watching = [loop.create_task(watch(interface, notifications))]
        if masquerade is not None:
            stack.enter_context(masquerade)
            watching.append(loop.create_task(watch(masquerade, notifications)))
        await _until_one_ends(staying, *watching)


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


def run(settings: MemberSettings) -> int:
    """Be a member until SIGTERM, SIGINT or SIGHUP; returns the exit status.

    Raises:
        ConfigError: the URL, the CA file or a proxy variable can't be used.
        OperationalError: an interface could not be created, the state can't be used, or --masquerade has no nft.
    """
    acceptance = Acceptance(settings.accept_routes)
    masquerade = Masquerade(settings.interface) if settings.masquerade else None
    underlay = Underlay(settings.interface)
    dialer = Dialer(
        settings.url,
        ca_file=settings.ca_file,
        insecure=settings.insecure,
        extension=settings.extension,
        underlay=underlay,
    )
    with Tun(settings.interface, settings.mtu, offload=settings.offload) as tun:
        state = MemberState(settings.state_dir, settings.name)
        identity = Identity(
            password=settings.password,
            vmac=state.vmac(secrets.token_bytes),
            address=settings.tun,
            hello=hello(socket.gethostname()),
            randbytes=secrets.token_bytes,
            acceptance=acceptance,
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
            interface = Interface(tun, KernelRoutes(tun.name, acceptance.doubt), engine)
            member = Member(identity, state, dialer, engine, interface, underlay)
            asyncio.run(_stay_until_signal(member, interface, masquerade))
        finally:
            # The interface is gone once the engine's duplicate of its descriptor is closed as well.
            engine.stop()
    return 0
