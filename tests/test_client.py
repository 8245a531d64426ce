"""The client against a relay as the original is, with the real engine: what it says, keeps, tells and when it returns.

The interface is one end of a packet socket, so that nothing here needs root but the last tests.
"""

import asyncio
import json
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import pytun
import trustme
from aiohttp import web

from candy import __version__, auth, client, conversation, wire
from candy._fastpath import Engine
from candy.client import Client, hello
from candy.config import ClientSettings
from candy.conversation import Member
from candy.dial import Dialer
from candy.errors import OperationalError
from candy.state import ClientState
from candy.tun import Tun

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())
STEPS = VECTORS["transcript"]
PASSWORD = VECTORS["password"].encode()
VMAC = STEPS[0]["vmac"].encode()
WALL = STEPS[0]["timestamp"]
GRANTED = IPv4Interface("192.168.202.7/24")
OTHER = IPv4Interface("192.168.202.9/24")
PACKET = bytes.fromhex("4500001c000100004011000cc0a8ca07c0a8ca0900010002000800ff")
"""UDP from 192.168.202.7 to .9, without payload."""


DELAYS = 8
"""After as many the client sleeps for good."""


class Interface:
    """What the client sees of a Tun: its packets are at the socket `kernel`."""

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


class Visitor:
    """One connection as the relay sees it."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.request = request
        self.socket = socket

    async def receive(self) -> tuple[aiohttp.WSMsgType, Any]:
        message = await self.socket.receive()
        return message.type, message.data

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


class Relay:
    """The original's side of the wire, by hand: no subprotocol, nothing by itself."""

    def __init__(self) -> None:
        self.port = 0
        self.protocols: tuple[str, ...] = ()
        self._members: asyncio.Queue[Visitor] = asyncio.Queue()
        self._done = asyncio.Event()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(autoping=False, protocols=self.protocols, compress=False)
        await socket.prepare(request)
        self._members.put_nowait(Visitor(request, socket))
        await self._done.wait()
        return socket

    async def member(self) -> Visitor:
        """The next connection."""
        return await self._members.get()

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

    async def said(self, text: str) -> str:
        """The first line with this in it, once it is there."""
        while not (found := [line for line in self.lines if text in line]):
            self._more.clear()
            await self._more.wait()
        return found[0]


class Setting:
    """A client, its parts, and what it did."""

    def __init__(self, folder: Path, engine: Engine, interface: Interface, relay: Relay) -> None:
        self.folder = folder
        self.engine = engine
        self.interface = interface
        self.relay = relay
        self.delays: list[float] = []
        self.slept_enough = asyncio.Event()
        self.client: asyncio.Task[None]
        state = folder / "vmac"
        state.mkdir()
        (state / "__noname__").write_bytes(VMAC)

    def start(
        self, *, scheme: str = "ws", address: IPv4Interface | None = None, ca_file: Path | None = None, port: int = 0
    ) -> None:
        state = ClientState(self.folder)
        member = Member(
            password=PASSWORD,
            vmac=state.vmac(os.urandom),
            address=address,
            hello=bytes.fromhex(STEPS[4]["hex"]),
            randbytes=bytes,
        )
        self.client = asyncio.create_task(
            Client(
                member,
                state,
                Dialer(f"{scheme}://127.0.0.1:{port or self.relay.port}", ca_file=ca_file),
                self.engine,
                cast(Tun, self.interface),
                random=lambda: 0.0,
                wall=lambda: float(WALL),
                sleep=self.sleep,
            ).stay()
        )

    async def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        if len(self.delays) == DELAYS:
            self.slept_enough.set()
            await asyncio.Event().wait()

    async def stop(self) -> None:
        self.client.cancel()
        await asyncio.wait([self.client])

    def kept(self, what: str) -> str:
        return (self.folder / what / "__noname__").read_text()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(2, max_connections=8, ping_when_quiet=True)
    engine.add_network()
    yield engine
    engine.stop()


@pytest.fixture
def interface() -> Iterator[Interface]:
    interface = Interface()
    yield interface
    interface.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls() -> ssl.SSLContext | None:
    """Of the relay."""
    return None


@pytest.fixture
async def relay(tls: ssl.SSLContext | None) -> AsyncIterator[Relay]:
    relay = Relay()
    application = web.Application()
    application.router.add_get("/{path:.*}", relay.serve)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    relay.port = runner.addresses[0][1]
    yield relay
    relay.end()
    await runner.cleanup()


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    journal = Journal()
    logger = logging.getLogger("candy")
    level = logger.level
    logger.addHandler(journal)
    logger.setLevel(logging.INFO)
    yield journal
    logger.setLevel(level)
    logger.removeHandler(journal)


@pytest.fixture
async def setting(
    tmp_path: Path, engine: Engine, interface: Interface, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Setting]:
    monkeypatch.setattr(conversation, "CONFIRM_S", 0.0)
    setting = Setting(tmp_path, engine, interface, relay)
    yield setting
    await setting.stop()


async def log_in(visitor: Visitor, address: IPv4Interface = GRANTED) -> None:
    await visitor.messages(2)
    await visitor.grant(address)
    await visitor.messages(2)


async def packets_pass(setting: Setting, visitor: Visitor) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(setting.interface.kernel, PACKET)
    assert await visitor.receive() == (aiohttp.WSMsgType.BINARY, b"\x01" + PACKET)
    await visitor.socket.send_bytes(b"\x01" + PACKET)
    assert await loop.sock_recv(setting.interface.kernel, 2000) == PACKET


@pytest.mark.parametrize("protocols", [(), ("candy.2",)])
async def test_the_recorded_conversation(setting: Setting, journal: Journal, protocols: tuple[str, ...]) -> None:
    setting.relay.protocols = protocols
    setting.start()
    visitor = await setting.relay.member()
    assert await visitor.messages(2) == [STEPS[0]["hex"], STEPS[1]["hex"]]
    await visitor.socket.send_bytes(bytes.fromhex(STEPS[2]["hex"]))
    assert await visitor.receive() == (aiohttp.WSMsgType.BINARY, bytes.fromhex(STEPS[3]["hex"]))
    assert await visitor.receive() == (aiohttp.WSMsgType.PING, bytes.fromhex(STEPS[4]["hex"]))
    assert setting.interface.addresses == [GRANTED]
    visitor.pong_as_the_original()
    assert await journal.said("connected") == "connected as 192.168.202.7/24 (the relay answers)"
    assert setting.kept("address") == "192.168.202.7/24"
    await packets_pass(setting, visitor)
    assert journal.warnings == []


async def test_an_address_of_its_own(setting: Setting, journal: Journal) -> None:
    setting.start(address=GRANTED)
    visitor = await setting.relay.member()
    # It has its address before there is a relay.
    assert setting.interface.addresses == [GRANTED]
    assert await visitor.messages(3) == [STEPS[0]["hex"], STEPS[3]["hex"], STEPS[4]["hex"]]
    visitor.pong_as_the_original()
    await journal.said("connected as 192.168.202.7/24")
    await packets_pass(setting, visitor)
    assert not (setting.folder / "address").exists()


async def test_it_comes_back_with_the_same_address_and_a_new_timestamp(
    setting: Setting, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "VERDICT_S", 0.0)
    setting.start()
    timestamps = []
    for _ in range(3):
        visitor = await setting.relay.member()
        [_, request] = await visitor.messages(2)
        await visitor.grant(GRANTED)
        [claim, _] = await visitor.messages(2)
        asked, claimed = wire.decode(bytes.fromhex(request)), wire.decode(bytes.fromhex(claim))
        assert isinstance(asked, wire.Expttun)
        assert isinstance(claimed, wire.Auth)
        assert asked.timestamp == claimed.timestamp
        timestamps.append((asked.address, claimed.timestamp))
        await packets_pass(setting, visitor)
        visitor.hang_up()
    await journal.said("trying again")
    assert timestamps == [(conversation.ANY_ADDRESS, WALL), (GRANTED, WALL + 1), (GRANTED, WALL + 2)]
    # Nothing was done to the interface, and what held is no row of failures.
    assert setting.interface.addresses == [GRANTED]
    assert setting.delays[:2] == [1.0, 1.0]
    assert setting.kept("timestamp") >= str(WALL + 2)


async def test_another_address_moves_the_interface(setting: Setting, journal: Journal) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    visitor.hang_up()
    visitor = await setting.relay.member()
    await log_in(visitor, OTHER)
    assert setting.interface.addresses == [GRANTED, OTHER]
    assert "the relay granted 192.168.202.9/24 in place of 192.168.202.7/24" in journal.warnings
    await packets_pass(setting, visitor)


async def test_an_unconfirmed_address_is_not_kept(setting: Setting) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    visitor.hang_up()
    visitor = await setting.relay.member()
    await visitor.messages(2)
    assert not (setting.folder / "address").exists()


async def test_the_kept_address_is_asked_for(setting: Setting) -> None:
    (setting.folder / "address").mkdir()
    (setting.folder / "address" / "__noname__").write_text(str(OTHER))
    setting.start()
    visitor = await setting.relay.member()
    [_, request] = await visitor.messages(2)
    asked = wire.decode(bytes.fromhex(request))
    assert isinstance(asked, wire.Expttun)
    assert asked.address == OTHER


async def test_a_relay_that_refuses(setting: Setting, journal: Journal) -> None:
    setting.start(address=GRANTED)
    for _ in range(8):
        visitor = await setting.relay.member()
        await visitor.messages(2)
        visitor.hang_up()
    await setting.slept_enough.wait()
    assert setting.delays == [1, 2, 4, 8, 16, 20, 20, 20]
    # Said once.
    assert journal.warnings == [
        "closed right after the handshake: wrong password, a clock off by more than 300 s, "
        "or the address 192.168.202.7 is taken; trying again in 1.0 s"
    ]


async def test_a_relay_with_another_password(setting: Setting, journal: Journal) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await visitor.messages(2)
    await visitor.grant(GRANTED, password=b"other")
    kind, code = await visitor.receive()
    assert (kind, code) == (aiohttp.WSMsgType.CLOSE, 1008)
    visitor.hang_up()
    await setting.relay.member()
    assert journal.warnings == [
        "the relay's hash is wrong: it has another password, or is no relay of yours; trying again in 1.0 s"
    ]
    assert setting.interface.addresses == []


async def test_a_relay_that_grants_nothing(setting: Setting, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "ANSWER_S", 0.0)
    setting.start()
    visitor = await setting.relay.member()
    await visitor.messages(2)
    assert (await visitor.receive())[0] == aiohttp.WSMsgType.CLOSE
    visitor.hang_up()
    await journal.said("the relay granted no address within 0 s: has it a pool?; trying again in 1.0 s")


async def test_a_relay_that_is_not_there(setting: Setting, journal: Journal) -> None:
    setting.start(port=1)
    await setting.slept_enough.wait()
    assert setting.delays == pytest.approx([1, 2, 8 / 3, 8 / 3, 8 / 3, 8 / 3, 8 / 3, 8 / 3])
    assert len(journal.warnings) == 1
    assert "connection refused" in journal.warnings[0]


async def test_goodbye(setting: Setting) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    leaving = asyncio.create_task(setting.stop())
    assert await visitor.receive() == (aiohttp.WSMsgType.CLOSE, 1001)
    await leaving
    assert setting.engine.stats()["connections"] == 1


async def test_goodbye_to_a_relay_that_does_not_answer(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "GOODBYE_S", 0.0)
    setting.start()
    await setting.relay.member()
    await setting.stop()
    assert setting.client.cancelled()


async def test_no_slot_for_the_connection(setting: Setting, journal: Journal) -> None:
    small = Engine(1, max_connections=1)
    small.add_network()
    setting.engine = small
    setting.start()
    await journal.said("the engine can't take the connection: ")
    await setting.stop()
    small.stop()


async def test_an_interface_that_fails_ends_it(setting: Setting) -> None:
    setting.interface.refusal = OperationalError("interface candy is gone: start candy-client again")
    setting.start()
    visitor = await setting.relay.member()
    await visitor.messages(2)
    await visitor.grant(GRANTED)
    assert await visitor.receive() == (aiohttp.WSMsgType.CLOSE, 1001)
    with pytest.raises(OperationalError, match="interface candy is gone"):
        await setting.client


class TestThroughTls:
    @pytest.fixture
    def tls(self, authority: trustme.CA) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        return context

    async def test_all_of_it(self, setting: Setting, authority: trustme.CA, tmp_path: Path, journal: Journal) -> None:
        ca_file = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        setting.start(scheme="wss", ca_file=ca_file)
        visitor = await setting.relay.member()
        await log_in(visitor)
        visitor.pong_as_the_original()
        await journal.said("connected as 192.168.202.7/24")
        await packets_pass(setting, visitor)
        visitor.hang_up()
        visitor = await setting.relay.member()
        await log_in(visitor)
        await packets_pass(setting, visitor)
        leaving = asyncio.create_task(setting.stop())
        assert await visitor.receive() == (aiohttp.WSMsgType.CLOSE, 1001)
        await leaving


@pytest.mark.parametrize("host", ["vm", "h" * 200, "hôte" * 50])
def test_hello(host: str) -> None:
    text = hello(host)
    assert text.startswith(f"candy::linux::{__version__}::{host[:2]}".encode())
    assert len(text) <= 125


def settings(folder: Path, **more: object) -> ClientSettings:
    return ClientSettings.model_validate(
        {"password": PASSWORD, "state_dir": folder, "url": "ws://127.0.0.1:1/", **more}
    )


def test_without_the_right_to_make_an_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise pytun.Error(1, "Operation not permitted")

    monkeypatch.setattr(pytun, "TunTapDevice", refuse)
    with pytest.raises(OperationalError, match=r"^cannot make interface candy: run as root"):
        client.run(settings(tmp_path))
    assert list(tmp_path.iterdir()) == []


RUN = """
import logging, pathlib, sys
from candy import client
from candy.config import ClientSettings
logging.basicConfig(level=logging.INFO, format="%(message)s")
sys.exit(client.run(ClientSettings.model_validate({
    "password": b"secret", "state_dir": pathlib.Path(sys.argv[1]), "url": "ws://127.0.0.1:1/",
    "name": "test", "tun": "10.9.8.7/24", "mtu": 1300,
})))
"""


@pytest.mark.netns
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_ends_with_a_signal_and_takes_its_interface_along(tmp_path: Path, number: int) -> None:
    namespace = f"candy-{os.getpid()}-{number}"
    inside = ["ip", "netns", "exec", namespace]
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        command = [*inside, sys.executable, "-c", RUN, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": str(Path(client.__file__).parent.parent)}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as program:
            assert program.stderr is not None
            lines = [program.stderr.readline() for _ in range(2)]
            assert lines[0] == "interface candy-test is made; connecting to ws://127.0.0.1:1/\n"
            assert re.search(r"connection refused: .*; trying again in 1\.\d s$", lines[1])
            show = [*inside, "ip", "-o", "address", "show", "dev", "candy-test"]
            shown = subprocess.run(show, check=True, capture_output=True, text=True).stdout
            assert "inet 10.9.8.7/24 " in shown
            program.send_signal(number)
            rest = program.stderr.read()
            assert program.wait() == 0
        assert "Traceback" not in rest
        assert subprocess.run(show, check=False, capture_output=True).returncode != 0
        assert re.fullmatch(r"[0-9a-f]{16}", (tmp_path / "vmac" / "test").read_text())
    finally:
        subprocess.run(["ip", "netns", "del", namespace], check=True)
