"""A member with the real engine, against a relay as the original is: fixtures, known to every test.

    setting.start() ─▶ visitor = await setting.relay.member() ─▶ log_in(visitor) ─▶ packets_pass(setting, visitor)

Rules: the interface is one end of a packet socket and the kernel's routes are a dict, so nothing here needs root. The
member's clock stands still, and it never really sleeps between two attempts.
"""

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from kit.recorded import GRANTED, PASSWORD, STEPS, VMAC, WALL
from lab.programs import PATIENCE_S

from candy._fastpath import Engine
from candy.carrier.tls import Trust
from candy.errors import OperationalError
from candy.host.interface import Interface
from candy.host.kernelroutes import KernelRoutes
from candy.host.tun import Tun
from candy.member import conversation
from candy.member.conversation import Identity
from candy.member.dial import Dialer
from candy.member.keyring import Keyring
from candy.member.keys import MemberKeys
from candy.member.member import Member
from candy.member.relays import Relays
from candy.member.sealing import Sealing
from candy.member.state import MemberState
from candy.protocol import auth, wire
from candy.protocol.login import Asks
from candy.protocol.wire import Route, RouteEntry
from candy.sealing.seals import Seal

OTHER = IPv4Interface("192.168.202.9/24")
PACKET = bytes.fromhex("4500001c000100004011000cc0a8ca07c0a8ca0900010002000800ff")
"""UDP from 192.168.202.7 to .9, without payload."""
DELAYS = 8
"""After as many the member sleeps for good."""


class Device:
    """What an Interface uses of a Tun: its packets are at the socket `kernel`."""

    name = "candy"
    vnet = False

    def __init__(self) -> None:
        self.kernel, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.setblocking(False)
        self._ours.setblocking(False)
        self.address: IPv4Interface | None = None
        self.addresses: list[IPv4Interface] = []
        """All that it was given, one after another."""
        self.refusal: OperationalError | None = None

    def fileno(self) -> int:
        return self._ours.fileno()

    async def configure(self, address: IPv4Interface) -> None:
        if self.refusal is not None:
            raise self.refusal
        if address != self.address:
            self.address = address
            self.addresses.append(address)

    def close(self) -> None:
        self.kernel.close()
        self._ours.close()


class Kernel:
    """What an Interface uses of KernelRoutes; `refuses` are destinations that it may not have."""

    def __init__(self) -> None:
        self.refuses: set[IPv4Network] = set()
        self.installed: dict[IPv4Network, IPv4Address] = {}
        self.refused: dict[IPv4Network, str] = {}
        self.own: IPv4Interface | None = None
        self.relay: Collection[IPv4Address] = ()
        self.reviews = 0
        self._more = asyncio.Event()

    async def install(
        self, entries: Iterable[RouteEntry], own: IPv4Interface, relay: Collection[IPv4Address]
    ) -> tuple[RouteEntry, ...]:
        taken = tuple(entry for entry in entries if entry.destination not in self.refuses)
        self.refused = {entry.destination: "the kernel refuses" for entry in entries if entry not in taken}
        self.installed = {entry.destination: entry.next_hop for entry in taken}
        self.own, self.relay = own, relay
        self.reviews += 1
        self._more.set()
        return taken

    async def reviewed(self, count: int) -> None:
        """Return once the member has set its routes this often."""
        async with asyncio.timeout(PATIENCE_S):
            while self.reviews < count:
                self._more.clear()
                await self._more.wait()


class Visitor:
    """One connection as the relay sees it."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.request = request
        self.socket = socket

    async def receive(self) -> tuple[aiohttp.WSMsgType, Any]:
        message = await self.socket.receive(PATIENCE_S)
        return message.type, message.data

    async def binary(self) -> bytes:
        """The next message, which is a binary one."""
        kind, data = await self.receive()
        assert kind is aiohttp.WSMsgType.BINARY
        assert isinstance(data, bytes)
        return data

    async def messages(self, count: int) -> list[str]:
        """The next ones, in hex."""
        received = []
        for _ in range(count):
            kind, data = await self.receive()
            assert kind in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.PING)
            received.append(data.hex())
        return received

    async def grant(self, address: IPv4Interface, password: bytes = PASSWORD) -> None:
        await self.socket.send_bytes(wire.Expttun(WALL, address, auth.expttun_digest(password, WALL)).encode())

    def pong_as_the_original(self) -> None:
        """1500 bytes of its own: RFC 6455 allows 125, and the payload of the PING."""
        assert self.request.transport is not None
        self.request.transport.write(b"\x8a\x7e\x05\xdc" + bytes(1500))

    def hang_up(self) -> None:
        assert self.request.transport is not None
        self.request.transport.abort()


class StagedRelay:
    """The original's side of the wire, by hand: no subprotocol, nothing by itself."""

    def __init__(self) -> None:
        self.port = 0
        self.protocols: tuple[str, ...] = ()
        self.headers: Callable[[], Mapping[str, str]] = dict
        """Gives further ones for each 101."""
        self._members: asyncio.Queue[Visitor] = asyncio.Queue()
        self._done = asyncio.Event()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        # Nobody is waited for who does not answer a close frame.
        socket = web.WebSocketResponse(timeout=0, autoping=False, protocols=self.protocols, compress=False)
        socket.headers.update(self.headers())
        await socket.prepare(request)
        self._members.put_nowait(Visitor(request, socket))
        await self._done.wait()
        return socket

    async def member(self) -> Visitor:
        """The next connection."""
        return await asyncio.wait_for(self._members.get(), PATIENCE_S)

    def end(self) -> None:
        self._done.set()


class Journal(logging.Handler):
    """What the user is told."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self._more = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if record.levelno >= logging.WARNING:
            self.warnings.append(record.getMessage())
        self._more.set()

    async def said(self, text: str, times: int = 1) -> str:
        """The first line with this in it, or a later one, once it is there."""
        async with asyncio.timeout(PATIENCE_S):
            while len(found := [line for line in self.lines if text in line]) < times:
                self._more.clear()
                await self._more.wait()
        return found[times - 1]


class Setting:
    """A member, its parts, and what it did."""

    def __init__(self, folder: Path, engine: Engine, device: Device, relay: StagedRelay) -> None:
        self.folder = folder
        self.engine = engine
        self.device = device
        self.relay = relay
        self.kernel = Kernel()
        self.is_started = False
        self.delays: list[float] = []
        self.keyring: Callable[[], Keyring] = lambda: Keyring(
            MemberKeys(folder), password=PASSWORD, randbytes=os.urandom
        )
        """Makes what the member logs in by."""
        self.seal: Seal | None = None
        """How it seals; None: what it is told of that nobody hears."""
        self.others: list[StagedRelay] = []
        """To go to when the first one is lost."""
        self._slept_enough = asyncio.Event()
        self.interface: Interface
        self.member: Member
        self.staying: asyncio.Task[None]
        state = folder / "vmac"
        state.mkdir()
        (state / "__noname__").write_bytes(VMAC)

    def start(
        self, *, scheme: str = "ws", address: IPv4Interface | None = None, ca_file: Path | None = None, port: int = 0
    ) -> None:
        state = MemberState(self.folder)
        identity = Identity(
            password=PASSWORD,
            vmac=state.vmac(os.urandom),
            address=address,
            hello=bytes.fromhex(STEPS[4]["hex"]),
            randbytes=bytes,
        )
        self.interface = Interface(cast(Tun, self.device), cast(KernelRoutes, self.kernel), self.engine)
        tun = self.interface.connection
        sealing = None if self.seal is None else partial(Sealing, Asks(0), self.seal, None, state, self.engine, tun)
        self.member = Member(
            identity,
            self.keyring(),
            state,
            self._relays(Dialer(f"{scheme}://127.0.0.1:{port or self.relay.port}/", trust=Trust(ca_file))),
            self.engine,
            self.interface,
            sealing=sealing,
            random=lambda: 0.0,
            wall=lambda: float(WALL),
            sleep=self._sleep,
        )
        self.staying = asyncio.create_task(self.member.stay())
        self.is_started = True

    def _relays(self, dialer: Dialer) -> Relays:
        """With those of `others` behind it, by ws://."""
        own = [dialer]
        for other in self.others:
            own.append(Dialer(f"ws://127.0.0.1:{other.port}/", instance=dialer.instance))
        return Relays(own, Dialer, lambda: 0.0)

    async def _sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        if len(self.delays) == DELAYS:
            self._slept_enough.set()
            await asyncio.Event().wait()

    async def given_up(self) -> None:
        """Return once the member has slept as often as it may."""
        await asyncio.wait_for(self._slept_enough.wait(), PATIENCE_S)

    async def stop(self) -> None:
        if self.is_started:
            self.staying.cancel()
            await asyncio.wait([self.staying])

    def kept(self, what: str) -> str:
        return (self.folder / what / "__noname__").read_text()


async def serving(relay: StagedRelay, tls: ssl.SSLContext | None = None) -> web.AppRunner:
    """Have it listen, until the runner's cleanup()."""
    application = web.Application()
    application.router.add_get("/{path:.*}", relay.serve)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    relay.port = runner.addresses[0][1]
    return runner


@pytest.fixture
def relay_tls() -> ssl.SSLContext | None:
    """Of the relay; none unless a test has one of its own."""
    return None


@pytest.fixture
async def setting(
    tmp_path: Path, relay_tls: ssl.SSLContext | None, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Setting]:
    monkeypatch.setattr(conversation, "CONFIRM_S", 0.0)
    engine = Engine(2, max_connections=8, max_guests=8, ping_when_quiet=True)
    engine.add_network()
    device, relay = Device(), StagedRelay()
    runner = await serving(relay, relay_tls)
    setting = Setting(tmp_path, engine, device, relay)
    yield setting
    await setting.stop()
    relay.end()
    await runner.cleanup()
    device.close()
    engine.stop()


@contextmanager
def journaling() -> Iterator[Journal]:
    """What the user is told meanwhile."""
    journal = Journal()
    logger = logging.getLogger("candy")
    level = logger.level
    logger.addHandler(journal)
    logger.setLevel(logging.INFO)
    try:
        yield journal
    finally:
        logger.setLevel(level)
        logger.removeHandler(journal)


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    with journaling() as journal:
        yield journal


async def log_in(visitor: Visitor, address: IPv4Interface = GRANTED) -> None:
    await visitor.messages(2)
    await visitor.grant(address)
    await visitor.messages(2)


async def packets_pass(setting: Setting, visitor: Visitor) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(setting.device.kernel, PACKET)
    assert await visitor.receive() == (aiohttp.WSMsgType.BINARY, b"\x01" + PACKET)
    await visitor.socket.send_bytes(b"\x01" + PACKET)
    assert await loop.sock_recv(setting.device.kernel, 2000) == PACKET


async def tell(setting: Setting, visitor: Visitor, *entries: RouteEntry, flags: int = 0) -> None:
    """Send a ROUTE, and wait until the member has acted upon it."""
    count = setting.kernel.reviews
    await visitor.socket.send_bytes(Route(entries, flags).encode())
    await setting.kernel.reviewed(count + 1)
