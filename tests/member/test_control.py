"""What a member answers over its control interface: its connection from beginning to end, its routes, its peers."""

import asyncio
import json
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest
from kit.login import NETWORK
from kit.openapi import Document
from kit.recorded import GRANTED
from lab.keyedrelay import KeyedRelay
from lab.setting import OTHER, PACKET, Journal, Setting, Visitor, log_in, packets_pass, tell

from candy import __version__
from candy._fastpath import Engine
from candy.control.calls import MEMBER
from candy.control.document import document
from candy.control.model import MemberStatus
from candy.control.serving import Answering, serving
from candy.member.control import PAYLOAD, MemberControl
from candy.protocol import wire
from candy.protocol.keys import fingerprint
from candy.protocol.wire import RouteEntry
from candy.settings import Settings

PING = aiohttp.WSMsgType.PING
COUNTED = dict.fromkeys(("packets_in", "bytes_in", "packets_out", "bytes_out", "drops", "queued_bytes"), 1)


@pytest.fixture
def control(setting: Setting) -> Callable[[], MemberControl]:
    return lambda: MemberControl(setting.member, setting.engine, setting.interface)


async def status_with_pong(control: MemberControl, visitor: Visitor) -> MemberStatus:
    """The relay has to answer a ping meanwhile."""
    asked = asyncio.create_task(control.status())
    assert await visitor.receive() == (PING, PAYLOAD)
    await visitor.socket.pong(PAYLOAD)
    return await asked


async def test_from_the_beginning_to_the_end(
    setting: Setting, journal: Journal, control: Callable[[], MemberControl]
) -> None:
    setting.start()
    status = await control().status()
    assert (status.state, status.relay, status.version) == ("connecting", setting.member.relay, __version__)
    assert (status.address, status.network, status.extension, status.since) == (None, None, None, None)
    assert (status.bytes_in, status.round_trip_ms, status.last_end, status.routes) == (0, None, None, [])
    visitor = await setting.relay.member()
    await log_in(visitor)
    status = await control().status()
    assert (status.state, status.extension, status.since) == ("logging in", False, None)
    assert (status.log_in, status.network_key, status.device_key) == ("hash", None, None)
    await visitor.socket.pong(b"any")
    await journal.said("connected as")
    await packets_pass(setting, visitor)
    status = await status_with_pong(control(), visitor)
    assert (status.state, status.address, status.network) == ("connected", str(GRANTED), str(GRANTED.network))
    assert status.since is not None
    assert status.round_trip_ms is not None
    assert 0 < status.round_trip_ms < 60_000
    assert status.packets_out >= 1
    visitor.hang_up()
    await setting.relay.member()
    status = await control().status()
    assert status.last_end is not None
    assert "closed soon after the handshake" in status.last_end.reason


async def test_whom_it_believes_and_what_it_came_by(
    setting: Setting, journal: Journal, control: Callable[[], MemberControl]
) -> None:
    relay = KeyedRelay(setting)
    setting.start()
    status = await control().status()
    assert (status.log_in, status.network_key, status.device_key) == (None, None, None)
    visitor = await relay.visitor()
    await visitor.let_in()
    assert visitor.claim is not None
    assert (await control().status()).log_in == "password"
    visitor.visitor.hang_up()
    await (await relay.visitor()).let_in()
    status = await control().status()
    assert (status.log_in, status.extension) == ("device", True)
    assert status.network_key == fingerprint(NETWORK)
    assert status.device_key == fingerprint(visitor.claim.key)
    # What is damaged by then is said elsewhere.
    (setting.folder / "network" / "__noname__").write_text("AAAA")
    status = await control().status()
    assert (status.network_key, status.device_key) == (None, None)


async def test_a_relay_that_answers_no_ping(
    setting: Setting, journal: Journal, control: Callable[[], MemberControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candy.member.control.PING_S", 0.05)
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    visitor.pong_as_the_original()
    await journal.said("connected as")
    assert (await control().status()).round_trip_ms is None


async def test_rates(
    setting: Setting, journal: Journal, control: Callable[[], MemberControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are over all of the time between the two looks, also while a ping is awaited."""
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    await visitor.socket.pong(b"any")
    await journal.said("connected as")
    now = 0.0
    clock = SimpleNamespace(time=time.time, monotonic=lambda: now)
    monkeypatch.setattr("candy.member.control.time", clock)
    asked = asyncio.create_task(control().status(over=0.01))
    assert await visitor.receive() == (PING, PAYLOAD)
    now = 20.0
    for _ in range(3):
        await visitor.socket.send_bytes(b"\x01" + PACKET)
    await visitor.socket.pong(PAYLOAD)
    status = await asked
    assert (status.packets_in_per_s, status.packets_out_per_s) == (3 / 20, 0)


@pytest.mark.parametrize("looks", [[None, COUNTED], [COUNTED, None], [None, None]])
async def test_no_rates_without_two_looks(
    setting: Setting, journal: Journal, looks: list[dict[str, int] | None]
) -> None:
    """The engine may know a connection no more that the member still has."""
    setting.start()
    await log_in(await setting.relay.member())
    engine = SimpleNamespace(connection_stats=lambda connection: looks.pop(0))
    status = await MemberControl(setting.member, cast(Engine, engine), setting.interface).status(over=0.01)
    assert (status.state, status.packets_in_per_s) == ("logging in", None)


async def test_routes_with_their_state(
    setting: Setting, journal: Journal, control: Callable[[], MemberControl]
) -> None:
    taken, refused = IPv4Network("172.16.0.0/16"), IPv4Network("172.17.0.0/16")
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    setting.kernel.refuses = {refused}
    await tell(setting, visitor, RouteEntry(taken, OTHER.ip), RouteEntry(refused, OTHER.ip))
    found = [
        (route.destination, route.next_hop, route.state, route.reason) for route in (await control().status()).routes
    ]
    assert found == [
        ("172.16.0.0/16", str(OTHER.ip), "installed", None),
        ("172.17.0.0/16", str(OTHER.ip), "refused", "the kernel refuses"),
    ]


async def test_peers(setting: Setting, journal: Journal, control: Callable[[], MemberControl]) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    assert (await control().members()).members == []
    where = wire.Udp4Conn(OTHER.ip, GRANTED.ip, IPv4Address("203.0.113.5"), 4000)
    await visitor.socket.send_bytes(where.encode())
    await tell(setting, visitor)
    [peer] = (await control().members()).members
    assert (peer.address, peer.public, peer.lan, peer.asks) == (str(OTHER.ip), "203.0.113.5:4000", None, False)


async def test_answers_are_the_documents(
    setting: Setting, control: Callable[[], MemberControl], tmp_path: Path
) -> None:
    setting.start()
    path = tmp_path / "control"
    settings = Settings(state_dir=tmp_path)
    found = Document(json.loads(json.dumps(document("member", MEMBER))))
    async with serving(settings, Answering("member", control()), path):
        connector = aiohttp.UnixConnector(str(path))
        async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
            for method, call in sorted(found.operations):
                async with session.request(method, call) as response:
                    assert found.check(method, call, response.status, await response.json()) == (method, call)
            async with session.get("/metrics") as response:
                assert response.status == 404
