"""A member whose way to the relay changes, with the real engine: what it asks, dials and gives up, and how packets go.

The relay has candy.2. Which of two connections leads is decided, and tested, in candy.member.succession.
"""

import asyncio
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
from kit.recorded import GRANTED
from lab.programs import PATIENCE_S
from lab.setting import PACKET, Journal, Setting, Visitor, log_in, packets_pass

from candy.member.dial import Dialer, Plain, Upgraded
from candy.member.dialing import Failed, Reached
from candy.member.succession import PROBE_PREFIX

WAY = "the way to the relay has changed"
TAKEN = b"another connection with the same VMAC took 192.168.202.7 over"


@pytest.fixture
async def old(setting: Setting, journal: Journal) -> Visitor:
    """The connection that the member is in by."""
    setting.relay.protocols = ("candy.2",)
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    visitor.pong_as_the_original()
    await journal.said("connected as")
    return visitor


async def probed(visitor: Visitor) -> bytes:
    """The payload of the PING that asks whether the connection holds."""
    kind, payload = await visitor.receive()
    assert kind == aiohttp.WSMsgType.PING
    assert payload.startswith(PROBE_PREFIX)
    return bytes(payload)


async def ended(visitor: Visitor) -> bool:
    return (await visitor.receive())[0] in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


def forever(seconds: float) -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def test_the_connection_holds(setting: Setting, journal: Journal, old: Visitor) -> None:
    setting.member.changed(WAY)
    await old.socket.pong(await probed(old))
    await journal.said("the connection holds", 2)
    await packets_pass(setting, old)
    assert journal.lines[-2:] == [f"{WAY}: asking whether the connection holds", "the connection holds"]
    assert setting.delays == []


async def test_another_one_takes_over_when_it_is_in(setting: Setting, journal: Journal, old: Visitor) -> None:
    setting.member.changed(WAY)
    await probed(old)
    new = await setting.relay.member()
    await new.messages(2)
    # "make before break": it is not in yet.
    await packets_pass(setting, old)
    await new.grant(GRANTED)
    await new.messages(2)
    await packets_pass(setting, new)
    # What was on its way is not lost.
    await old.socket.send_bytes(b"\x01" + PACKET)
    assert await asyncio.get_running_loop().sock_recv(setting.device.kernel, 2000) == PACKET
    # A relay of ours ends it. That is no double's doing.
    await old.socket.close(code=4001, message=TAKEN)
    new.pong_as_the_original()
    await journal.said("connected as", 2)
    await packets_pass(setting, new)
    assert setting.device.addresses == [GRANTED]
    assert setting.delays == []
    assert journal.warnings == []


async def test_the_older_connection_ends_with_the_answer_on_the_newer_one(setting: Setting, old: Visitor) -> None:
    """Where the relay does not end it, or its word does not arrive."""
    setting.member.changed(WAY)
    await probed(old)
    new = await setting.relay.member()
    await log_in(new)
    new.pong_as_the_original()
    assert await ended(old)
    await packets_pass(setting, new)


async def test_a_relay_that_has_forgotten_the_connection(setting: Setting, journal: Journal, old: Visitor) -> None:
    setting.member.changed("this machine was asleep for 600 s")
    await probed(old)
    old.hang_up()
    await journal.said("; another connection is being made already")
    new = await setting.relay.member()
    await log_in(new)
    await packets_pass(setting, new)
    assert setting.delays == []


async def test_goodbye_in_doubt(setting: Setting, old: Visitor) -> None:
    setting.member.changed(WAY)
    await probed(old)
    new = await setting.relay.member()
    await new.messages(2)
    leaving = asyncio.create_task(setting.stop())
    assert await old.receive() == (aiohttp.WSMsgType.CLOSE, 1001)
    assert await new.receive() == (aiohttp.WSMsgType.CLOSE, 1001)
    await leaving
    assert setting.engine.stats()["connections"] == 1


async def test_a_pause_is_cut_short(setting: Setting, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting, "_sleep", forever)
    setting.start()
    visitor = await setting.relay.member()
    visitor.hang_up()
    await journal.said("trying again in")
    setting.member.changed(WAY)
    await log_in(await setting.relay.member())


async def test_a_pause_for_the_sake_of_a_double_is_not(
    setting: Setting, journal: Journal, old: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The member has the method itself already.
    monkeypatch.setattr(setting.member, "_sleep", forever)
    await old.socket.close(code=4001, message=TAKEN)
    await journal.said("replaced: ")
    setting.member.changed(WAY)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not setting.member._dialing.is_under_way
    # A change that is over by then is nothing for the next connection.
    monkeypatch.undo()
    assert not setting.staying.done()


async def test_an_attempt_by_the_way_before_is_given_up(setting: Setting) -> None:
    """It might wait ten seconds for an answer that can't arrive."""
    tried: asyncio.Queue[asyncio.StreamReader] = asyncio.Queue()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tried.put_nowait(reader)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as server:
        setting.start(port=server.sockets[0].getsockname()[1])
        first = await asyncio.wait_for(tried.get(), PATIENCE_S)
        setting.member.changed(WAY)
        await asyncio.wait_for(tried.get(), PATIENCE_S)
        await asyncio.wait_for(first.read(), PATIENCE_S)
        assert setting.delays == []
        await setting.stop()


async def test_what_an_attempt_came_to_in_the_last_moment_is_closed(setting: Setting) -> None:
    """Else each would leave a descriptor."""
    setting.start()
    await setting.relay.member()
    await setting.stop()
    here, there = socket.socketpair()

    async def dial() -> Reached | Failed:
        return Reached(Upgraded(Plain(here.detach(), b""), True, socket.socket()), Dialer("ws://x"), None)

    there.setblocking(False)
    with there:
        setting.member._dialing._task = asyncio.create_task(dial())
        await asyncio.wait([setting.member._dialing._task])
        await setting.member._dialing.abandon()
        assert there.recv(1) == b""


class TestThroughTls:
    @pytest.fixture
    def relay_tls(self, server_tls: ssl.SSLContext) -> ssl.SSLContext:
        return server_tls

    async def test_another_one_takes_over(self, setting: Setting, ca_file: Path, journal: Journal) -> None:
        setting.start(scheme="wss", ca_file=ca_file)
        old = await setting.relay.member()
        await log_in(old)
        await packets_pass(setting, old)
        setting.member.changed(WAY)
        new = await setting.relay.member()
        await log_in(new)
        await packets_pass(setting, new)
        new.pong_as_the_original()
        await probed(old)
        assert await ended(old)
        await packets_pass(setting, new)
        assert len(setting.member._reached) == 1
        assert journal.warnings == []
