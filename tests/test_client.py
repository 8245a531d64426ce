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
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
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
from candy.kernelroutes import KernelRoutes
from candy.state import ClientState
from candy.tun import Tun
from candy.wire import Route, RouteEntry

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


class Kernel:
    """What the client sees of KernelRoutes; `refused` are destinations that it may not have."""

    def __init__(self) -> None:
        self.refused: set[IPv4Network] = set()
        self.installed: dict[IPv4Network, IPv4Address] = {}
        self.own: IPv4Interface | None = None
        self.relay: Collection[IPv4Address] = ()
        self.reviews = 0

    async def install(
        self, entries: Iterable[RouteEntry], own: IPv4Interface, relay: Collection[IPv4Address]
    ) -> tuple[RouteEntry, ...]:
        taken = tuple(entry for entry in entries if entry.destination not in self.refused)
        self.installed = {entry.destination: entry.next_hop for entry in taken}
        self.own, self.relay = own, relay
        self.reviews += 1
        return taken


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
        self.kernel = Kernel()
        self.delays: list[float] = []
        self.slept_enough = asyncio.Event()
        self.client: Client
        self.staying: asyncio.Task[None]
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
        self.client = Client(
            member,
            state,
            Dialer(f"{scheme}://127.0.0.1:{port or self.relay.port}", ca_file=ca_file),
            self.engine,
            cast(Tun, self.interface),
            cast(KernelRoutes, self.kernel),
            random=lambda: 0.0,
            wall=lambda: float(WALL),
            sleep=self.sleep,
        )
        self.staying = asyncio.create_task(self.client.stay())

    async def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        if len(self.delays) == DELAYS:
            self.slept_enough.set()
            await asyncio.Event().wait()

    async def stop(self) -> None:
        self.staying.cancel()
        await asyncio.wait([self.staying])

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
    """field: an original server chooses no subprotocol, and answers PING with an illegal PONG of 1500 bytes."""
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
    """field: "after any end a client waits 1 s and starts again from step 1"."""
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
        "or the address 192.168.202.7 is taken or outside of the pool; trying again in 1.0 s"
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
    assert setting.staying.cancelled()


async def test_no_slot_for_the_connection(setting: Setting, journal: Journal) -> None:
    small = Engine(1, max_connections=1)
    small.add_network()
    setting.engine = small
    setting.start()
    await journal.said("the engine can't take the connection: ")
    await setting.stop()
    small.stop()


async def test_an_interface_that_fails_ends_it(setting: Setting) -> None:
    setting.interface.refusal = OperationalError("interface candy is gone: start again")
    setting.start()
    visitor = await setting.relay.member()
    await visitor.messages(2)
    await visitor.grant(GRANTED)
    assert await visitor.receive() == (aiohttp.WSMsgType.CLOSE, 1001)
    with pytest.raises(OperationalError, match="interface candy is gone"):
        await setting.staying


FAR = IPv4Address("192.168.202.2")
LAN_A, LAN_B, VAST = (RouteEntry(IPv4Network(text), FAR) for text in ("10.1.0.0/16", "10.2.0.0/16", "192.168.0.0/16"))
TO_LAN_A = bytes.fromhex("4500001c 00010000 4011a6cd c0a8ca07 0a010005 00010002 00080000")
"""UDP from 192.168.202.7 to 10.1.0.5, without payload and checksum."""
FROM_LAN_A = bytes.fromhex("4500001c 00010000 3f11a7cd 0a010005 c0a8ca07 00020001 00080000")


def checksum_is_right(header: bytes) -> bool:
    """RFC 1071: with the checksum in place the sum is all ones."""
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2))
    return (total & 0xFFFF) + (total >> 16) == 0xFFFF


async def sent(setting: Setting, visitor: Visitor, packet: bytes) -> bytes:
    """What the relay gets when this machine sends a packet."""
    await asyncio.get_running_loop().sock_sendall(setting.interface.kernel, packet)
    kind, message = await visitor.receive()
    assert (kind, message[0]) == (aiohttp.WSMsgType.BINARY, wire.Kind.FORWARD)
    return cast(bytes, message[1:])


async def routed(setting: Setting, count: int) -> None:
    """Return once the client has set routes this often."""
    while setting.kernel.reviews < count:
        await asyncio.sleep(0)


async def tell(setting: Setting, visitor: Visitor, *entries: RouteEntry, flags: int = 0) -> None:
    """Send a ROUTE, and wait until the client has acted upon it."""
    count = setting.kernel.reviews
    await visitor.socket.send_bytes(Route(entries, flags).encode())
    await routed(setting, count + 1)


async def test_packets_for_a_network_behind_a_member_are_wrapped(setting: Setting, journal: Journal) -> None:
    """field: ROUTE accumulates within a connection to an original server, and starts afresh with the next one."""
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    assert (setting.kernel.own, setting.kernel.installed) == (GRANTED, {})
    assert setting.kernel.relay == {IPv4Address("127.0.0.1")}
    assert await sent(setting, visitor, TO_LAN_A) == TO_LAN_A
    await tell(setting, visitor, LAN_A)
    await tell(setting, visitor, LAN_B)
    assert setting.kernel.installed == {LAN_A.destination: FAR, LAN_B.destination: FAR}
    packet = await sent(setting, visitor, TO_LAN_A)
    outer, inner = packet[:20], packet[20:]
    assert inner == TO_LAN_A
    assert outer[:4] + outer[9:10] + outer[12:] == bytes.fromhex("45000030 04 c0a8ca07 c0a8ca02")
    assert outer[8] >= 64
    assert checksum_is_right(outer)
    # What is for members is not.
    await packets_pass(setting, visitor)
    visitor.hang_up()
    visitor = await setting.relay.member()
    await log_in(visitor)
    # Until this relay has told its own.
    assert (await sent(setting, visitor, TO_LAN_A))[20:] == TO_LAN_A
    await tell(setting, visitor, LAN_B)
    assert setting.kernel.installed == {LAN_B.destination: FAR, LAN_A.destination: FAR}


async def test_an_all_zero_outer_header(setting: Setting) -> None:
    """field: "SD-WAN packets of old clients have an outer header that is all zero but for protocol 4, source and
    destination"."""
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    outer = bytes(9) + b"\x04" + bytes(2) + FAR.packed + GRANTED.ip.packed
    await visitor.socket.send_bytes(b"\x01" + outer + FROM_LAN_A)
    assert await asyncio.get_running_loop().sock_recv(setting.interface.kernel, 2000) == FROM_LAN_A


async def test_a_resent_packet_of_somebody_else(setting: Setting) -> None:
    """field: "peers legitimately re-send foreign packets for a moment when a direct link breaks". It is the kernel's to
    drop, and nothing else happens."""
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    foreign = PACKET[:16] + FAR.packed + PACKET[20:]
    await visitor.socket.send_bytes(b"\x01" + foreign)
    assert await asyncio.get_running_loop().sock_recv(setting.interface.kernel, 2000) == foreign
    await packets_pass(setting, visitor)


async def test_sets_of_candy_2_replace_each_other(setting: Setting) -> None:
    setting.relay.protocols = ("candy.2",)
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    await tell(setting, visitor, LAN_A, flags=Route.FIRST | Route.LAST)
    assert len(await sent(setting, visitor, TO_LAN_A)) == 20 + len(TO_LAN_A)
    await tell(setting, visitor, LAN_B, flags=Route.FIRST)
    assert setting.kernel.installed == {LAN_A.destination: FAR}
    await tell(setting, visitor, flags=Route.LAST)
    assert setting.kernel.installed == {LAN_B.destination: FAR}
    assert await sent(setting, visitor, TO_LAN_A) == TO_LAN_A
    await tell(setting, visitor, flags=Route.FIRST | Route.LAST)
    assert setting.kernel.installed == {}


async def test_what_the_kernel_may_not_have_is_not_wrapped(setting: Setting) -> None:
    setting.kernel.refused = {LAN_A.destination}
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    await tell(setting, visitor, LAN_A, LAN_B)
    assert await sent(setting, visitor, TO_LAN_A) == TO_LAN_A


async def test_a_destination_around_the_members_own_network(setting: Setting) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    await tell(setting, visitor, VAST)
    await packets_pass(setting, visitor)
    beyond = TO_LAN_A[:16] + IPv4Address("192.168.5.5").packed + TO_LAN_A[20:]
    assert (await sent(setting, visitor, beyond))[20:] == beyond


async def test_routes_are_looked_at_again_before_each_attempt(setting: Setting, journal: Journal) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    await tell(setting, visitor, LAN_A)
    reviews = setting.kernel.reviews
    setting.relay.port = 0
    setting.kernel.refused = {LAN_A.destination}
    visitor.hang_up()
    await routed(setting, reviews + 1)
    assert setting.kernel.installed == {}


async def test_another_address_changes_the_outer_source(setting: Setting) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    await tell(setting, visitor, LAN_A)
    visitor.hang_up()
    visitor = await setting.relay.member()
    await log_in(visitor, OTHER)
    # They were for the other address.
    assert setting.kernel.installed == {}
    await tell(setting, visitor, LAN_A)
    assert setting.kernel.own == OTHER
    assert (await sent(setting, visitor, TO_LAN_A))[12:20] == OTHER.ip.packed + FAR.packed
    # And what is wrapped for it is for us.
    loop = asyncio.get_running_loop()
    for own, unwrapped in ((GRANTED, False), (OTHER, True)):
        outer = (await sent(setting, visitor, TO_LAN_A))[:12] + FAR.packed + own.ip.packed
        await visitor.socket.send_bytes(b"\x01" + outer + FROM_LAN_A)
        received = await loop.sock_recv(setting.interface.kernel, 2000)
        assert received == (FROM_LAN_A if unwrapped else outer + FROM_LAN_A)


async def test_a_member_that_sends_nothing_pings(setting: Setting) -> None:
    """field: cacao drops a client that it has read nothing from for 60 s, and the old server never pings. So ours pings
    when it has sent nothing for a while, however much it receives; and its first PING is right behind AUTH."""
    engine = Engine(1, max_connections=8, ping_after=0.05, ping_when_quiet=True)
    engine.add_network()
    setting.engine = engine
    setting.start(address=GRANTED)
    visitor = await setting.relay.member()
    assert await visitor.messages(3) == [STEPS[0]["hex"], STEPS[3]["hex"], STEPS[4]["hex"]]
    loop = asyncio.get_running_loop()

    async def flood() -> None:
        while True:
            await visitor.socket.send_bytes(b"\x01" + PACKET)
            await loop.sock_recv(setting.interface.kernel, 2000)

    flooding = asyncio.create_task(flood())
    assert (await visitor.receive())[0] == aiohttp.WSMsgType.PING
    flooding.cancel()
    await asyncio.wait([flooding])
    await setting.stop()
    engine.stop()


async def test_a_ping_of_the_relay_is_answered_with_the_same_bytes(setting: Setting) -> None:
    """field: the client "answers a server's PING with the same bytes"."""
    setting.start(address=GRANTED)
    visitor = await setting.relay.member()
    await visitor.messages(3)
    await visitor.socket.ping(b"still there?")
    assert await visitor.receive() == (aiohttp.WSMsgType.PONG, b"still there?")


async def test_counters_routes_and_members_are_shown(setting: Setting, journal: Journal) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    for message in (
        b"\x07unknown",
        b"\x05short",
        wire.Udp4Conn(OTHER.ip, GRANTED.ip, IPv4Address("203.0.113.5"), 4000).encode(),
        wire.General(0, 0, OTHER.ip, GRANTED.ip, bytes.fromhex("c0a80105 0fa1")).encode(),
        wire.Discovery(FAR, wire.BROADCAST).encode(),
    ):
        await visitor.socket.send_bytes(message)
    await tell(setting, visitor, LAN_A)
    await packets_pass(setting, visitor)
    setting.client.log_counters()
    assert {
        "connections: 2",
        "dropped unknown_kind: 1",
        "dropped too_short: 1",
        "route 10.1.0.0/16: through 192.168.202.2",
        "member 192.168.202.9: public 203.0.113.5:4000, LAN 192.168.1.5:4001",
        "member 192.168.202.2: asks for a link",
    } <= set(journal.lines)


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
        raise pytun.Error(13, "Permission denied")

    monkeypatch.setattr(pytun, "TunTapDevice", refuse)
    with pytest.raises(OperationalError, match=r"^/dev/net/tun is closed to this user: run as root"):
        client.run(settings(tmp_path))
    assert list(tmp_path.iterdir()) == []


RUN = """
import logging, pathlib, signal, sys
from candy import client
from candy.config import ClientSettings
logging.basicConfig(level=logging.INFO, format="%(message)s")
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.exit(client.run(ClientSettings.model_validate({
    "password": b"secret", "state_dir": pathlib.Path(sys.argv[1]), "url": "ws://127.0.0.1:1/",
    "name": "test", "tun": "10.9.8.7/24", "mtu": 1300,
})))
"""


@pytest.mark.netns
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
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
        assert rest.endswith("ending\n")
        assert subprocess.run(show, check=False, capture_output=True).returncode != 0
        assert re.fullmatch(r"[0-9a-f]{16}", (tmp_path / "vmac" / "test").read_text())
    finally:
        subprocess.run(["ip", "netns", "del", namespace], check=True)
