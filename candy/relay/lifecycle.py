"""The relay's life: its parts are made, it listens and says so, and a signal ends it.

    run() ─▶ engine, Relay, leases, interfaces ─▶ listen ─▶ announce ─▶ SIGTERM, SIGINT ─▶ close frames ─▶ engine stops
                                                                        SIGHUP: settings again, SIGUSR1: counters
                                                  ├─▶ the certificate's files, every few seconds
                                                  └─▶ the password's file, while it can't be written

Rule: a part that was made is ended, also when a later one fails. What happens between start and end is
candy.relay.relay's.
"""

import asyncio
import errno
import gc
import logging
import os
import resource
import select
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from functools import partial

from candy._fastpath import Engine
from candy.carrier.tls import Certificates
from candy.control.model import Reloaded
from candy.control.serving import Answering, serving
from candy.control.sockets import place
from candy.errors import ConfigError, OperationalError, RequestError
from candy.host.servicemanager import ServiceManager
from candy.relay import stun
from candy.relay.clustersettings import LINK_SLOTS, ClusterSettings
from candy.relay.control import RelayControl
from candy.relay.enrolment import Admit
from candy.relay.invitation import describe_pool, member_address, member_line, member_url
from candy.relay.keeper import Keeper
from candy.relay.listen import hosts, listen, port_of
from candy.relay.relay import GOODBYE_S, Relay
from candy.relay.served import Served
from candy.relay.settings import RelaySettings
from candy.relay.state import certificate_files, folder_at
from candy.relay.store import Store
from candy.settings import host_port

GUESTS_MAX = 65536
"""Connections with TLS that are not upgraded yet."""
LOOK_S = 2.0
"""Between two looks at the certificate's files."""
READER_S = 1.0
"""How long the lines for members may wait for who reads them."""

log = logging.getLogger("candy.relay")


def run(settings: RelaySettings, reread: Callable[[], RelaySettings] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP; returns the exit status.

    Args:
        reread: reads the settings again. With it SIGHUP does that, instead of ending the relay.

    Raises:
        OperationalError: the relay can't listen, the certificate can't be used, or the machine refuses an interface or
            a thread.
    """
    # aiohttp logs every malformed request as an error, and any peer can send one.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    asyncio.run(_serve(settings, reread))
    return 0


async def _serve(settings: RelaySettings, reread: Callable[[], RelaySettings] | None) -> None:
    _raise_descriptor_limit()
    try:
        engine = Engine(
            settings.workers,
            queue_bytes=settings.queue_bytes,
            max_connections=settings.slots,
            max_guests=GUESTS_MAX,
            max_trunks=0 if settings.cluster is None else LINK_SLOTS,
        )
    except OSError as error:
        raise OperationalError(f"cannot start {settings.workers} workers: {error.strerror}: use --workers 1") from None
    relay = Relay(settings, engine)
    keeper = Keeper(Store(settings.state_dir), relay.registers, relay.look)
    stopped = asyncio.Event()
    manager = ServiceManager(os.environ)
    reloading: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    writing = loop.create_task(folder_at(settings.state_dir).keep_writing())
    with ExitStack() as interfaces:
        stack = AsyncExitStack()
        try:
            relay.load_keys()
            relay.keep_by(keeper)
            await keeper.start()
            if settings.cluster is not None:
                await stack.enter_async_context(_shared(settings.cluster, relay, engine))
            await relay.make_interfaces(interfaces)
            certificates = _certificates(settings)
            listeners = await listen(settings)
            if settings.stun:
                stun.serve(stun.places(settings.stun_listen, listeners), engine)
            relay.door.open(listeners, certificates)
            if certificates is not None:
                relay.showing.take(certificates)
                loop.call_later(LOOK_S, _look, relay)
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(signum, stopped.set)
            loop.add_signal_handler(signal.SIGUSR1, relay.log_counters)
            if reread is not None:
                loop.add_signal_handler(signal.SIGHUP, _reload, relay, reread, reloading, manager)
            elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                # A terminal that is closed sends SIGHUP, which nohup has ignored.
                loop.add_signal_handler(signal.SIGHUP, stopped.set)
            port = port_of(listeners)
            pin = certificates.pin() if certificates is not None and settings.tls_self_signed else None
            async with _controlled(settings, relay, engine, port, pin, reread) as lines:
                _announce(settings, relay, port, pin)
                for line in lines:
                    log.info("%s", line)
                _settle()
                manager.ready()
                watching = loop.create_task(manager.watch(engine.worker_rounds, partial(_status, relay)))
                try:
                    await stopped.wait()
                finally:
                    watching.cancel()
                log.info("ending")
                manager.stopping()
                relay.door.close()
                await relay.close_all()
        finally:
            writing.cancel()
            await relay.door.shutdown(GOODBYE_S)
            await stack.aclose()
            await keeper.stop()
            relay.stop()
            # Before the interfaces are closed: they are gone once the engine's duplicates are closed as well.
            engine.stop()


@asynccontextmanager
async def _controlled(
    settings: RelaySettings,
    relay: Relay,
    engine: Engine,
    port: int,
    pin: str | None,
    reread: Callable[[], RelaySettings] | None,
) -> AsyncIterator[list[str]]:
    """Answer operators meanwhile; a line about each place where that is."""

    async def reload() -> Reloaded:
        assert reread is not None
        try:
            done = await relay.reload(reread)
        except (ConfigError, OperationalError) as error:
            raise RequestError(f"not read again, nothing changes: {error}", 409) from None
        return Reloaded(applied=list(done.applied), needs_restart=list(done.needs_restart), failed=list(done.failed))

    def url_of(served: Served) -> tuple[str, str | None]:
        url = member_url(relay.settings, served.settings, member_address(hosts(settings)[0]), port)
        return url, pin if url.startswith("wss:") else None

    listening = [host_port(host, port) for host in hosts(settings)]
    control = RelayControl(relay, engine, listening, url_of, None if reread is None else reload)
    answering = Answering("relay", control, control.metrics, has_page=True)
    try:
        default = place("relay", str(port), os.environ, os.geteuid())
        async with serving(settings, answering, default, settings.metrics) as lines:
            yield lines
    finally:
        control.stop()


@asynccontextmanager
async def _shared(settings: ClusterSettings, relay: Relay, engine: Engine) -> AsyncIterator[None]:
    """Serve the networks together with other relays meanwhile.

    Raises:
        OperationalError: they, or NATS, can't be used.
    """
    try:
        # Without a cluster there need not be such a library.
        from candy.relay.cluster.cluster import Cluster
        from candy.relay.cluster.mesh import Mesh
        from candy.relay.cluster.records import word
    except ModuleNotFoundError as error:
        if error.name not in ("nats", "nkeys"):
            raise
        raise OperationalError('cluster: needs the library of NATS: pip install "candy-vpn[cluster]"') from None
    cluster = Cluster(settings, relay, {path: served.network for path, served in relay.served.items()})
    numbers = {word(path): served.number for path, served in relay.served.items()}
    cluster.public_url = relay.settings.public_url or ""
    mesh = Mesh(settings, engine, numbers, cluster.psk, cluster.presence.linked, relay.door.left, relay.report)
    relay.mesh = cluster.mesh = mesh
    await cluster.start(
        {path: cluster.common(served.settings, served.public_key) for path, served in relay.served.items()}
    )
    relay.share_by(cluster)
    try:
        yield
    finally:
        await mesh.stop()
        await cluster.stop()


def _certificates(settings: RelaySettings) -> Certificates | None:
    files = certificate_files(settings)
    return Certificates(files, ml_kem=settings.ml_kem) if files else None


def _look(relay: Relay) -> None:
    """What renews certificates may not know of this relay."""
    asyncio.get_running_loop().call_later(LOOK_S, _look, relay)
    relay.showing.look()


def _status(relay: Relay) -> str:
    """For who asks the service manager."""
    members = sum(served.network.members for served in relay.served.values())
    return f"{members} {'member' if members == 1 else 'members'} in"


def _reload(
    relay: Relay,
    reread: Callable[[], RelaySettings],
    reloading: set[asyncio.Task[None]],
    manager: ServiceManager,
) -> None:
    """Have a task do it, which the set keeps alive."""
    task = asyncio.get_running_loop().create_task(_reload_once(relay, reread, manager))
    reloading.add(task)
    task.add_done_callback(reloading.discard)


async def _reload_once(relay: Relay, reread: Callable[[], RelaySettings], manager: ServiceManager) -> None:
    # What is wrong with the settings is in the log.
    manager.reloading()
    with suppress(ConfigError, OperationalError):
        await relay.reload(reread)
    manager.ready()


def _announce(settings: RelaySettings, relay: Relay, port: int, pin: str | None) -> None:
    main, *others = settings.networks
    where = " and ".join(host_port(host, port) for host in hosts(settings))
    log.info("listening on %s, %s", where, describe_pool(main))
    for network in others:
        log.info("network %s: %s", network.path, describe_pool(network))
    if settings.doubt_of_shared is not None:
        log.warning("%s", settings.doubt_of_shared)
    if pin is not None:
        log.info("the TLS key is %s: members that were not given the whole line need it as --pin", pin)
    address = member_address(hosts(settings)[0])
    try:
        for network in settings.networks:
            which = "this network" if network.path == "/" else f"the network {network.path}"
            if network.admit is Admit.INVITE:
                where = "" if network.path == "/" else f" --network {network.path}"
                _print(f"To let a device into {which}: candy-server invite --name NAME{where}")
                continue
            _print(f"To join {which}, run on another machine:")
            keyring = relay.served[network.path].keyring
            key = None if keyring is None else keyring.current.key.network
            _print("  " + member_line(settings, network, address, port, pin, key))
    except OSError as error:
        # A full disk, or a reader that has exited or stalls, doesn't end the relay. The rest in the buffer would fail
        # again at the exit.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        log.warning("the lines for members can't be printed: %s", error.strerror)


def _print(line: str) -> None:
    """A line on stdout; OSError: it can't be written, or would have to wait."""
    if sys.stdout is not None and not select.select([], [sys.stdout], [], READER_S)[1]:
        raise TimeoutError(errno.ETIMEDOUT, "nobody reads them")
    # In one write, so that no line of the log, which comes from another thread, gets in between.
    print(f"{line}\n", end="", flush=True)


def _settle() -> None:
    """What there is now stays, and the collector of garbage need not look through it again. What connections leave it
    then collects once that is a share of what members are: else of all this too, which is megabytes."""
    gc.collect()
    gc.freeze()
    # It goes by what the last one found.
    gc.collect()


def _raise_descriptor_limit() -> None:
    """Every member is a descriptor: use all that the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
