"""The member against a relay as the original is, with the real engine: what it says, keeps, tells and when it returns.

Routes are in test_member_routes.py. Nothing here needs root.
"""

import asyncio
import ssl
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import aiohttp
import pytest
from kit.joining import FAR, LAN_A
from kit.recorded import GRANTED, STEPS, WALL
from lab.setting import OTHER, PACKET, Journal, Setting, log_in, packets_pass, tell

from candy._fastpath import Engine
from candy.errors import AddressTaken, OperationalError
from candy.member import conversation, member
from candy.protocol import wire


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
    assert setting.device.addresses == [GRANTED]
    visitor.pong_as_the_original()
    assert await journal.said("connected") == "connected as 192.168.202.7/24 (the relay answers)"
    assert setting.kept("address") == "192.168.202.7/24"
    await packets_pass(setting, visitor)
    assert journal.warnings == []


async def test_an_address_of_its_own(setting: Setting, journal: Journal) -> None:
    setting.start(address=GRANTED)
    visitor = await setting.relay.member()
    # It has its address before there is a relay.
    assert setting.device.addresses == [GRANTED]
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
    assert setting.device.addresses == [GRANTED]
    assert setting.delays[:2] == [1.0, 1.0]
    assert setting.kept("timestamp") >= str(WALL + 2)


async def test_another_address_moves_the_interface(setting: Setting, journal: Journal) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    visitor.hang_up()
    visitor = await setting.relay.member()
    await log_in(visitor, OTHER)
    assert setting.device.addresses == [GRANTED, OTHER]
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
    await setting.given_up()
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
        "the relay's hash is wrong: it has another password, or is not your relay; trying again in 1.0 s"
    ]
    assert setting.device.addresses == []


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
    await setting.given_up()
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
    monkeypatch.setattr(member, "GOODBYE_S", 0.0)
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
    setting.device.refusal = OperationalError("interface candy was removed from outside: start again")
    setting.start()
    visitor = await setting.relay.member()
    await visitor.messages(2)
    await visitor.grant(GRANTED)
    assert await visitor.receive() == (aiohttp.WSMsgType.CLOSE, 1001)
    with pytest.raises(OperationalError, match="interface candy was removed"):
        await setting.staying


@pytest.mark.parametrize("address", [None, GRANTED])
async def test_an_address_of_another_interface_is_waited_for(
    setting: Setting, journal: Journal, monkeypatch: pytest.MonkeyPatch, address: IPv4Interface | None
) -> None:
    """ "The second client ends with status 1": now it says so, and has the address once it is free."""
    configure, tries = setting.device.configure, iter((True, True))

    async def configure_at_the_third_try(own: IPv4Interface) -> None:
        if next(tries, False):
            raise AddressTaken("192.168.202.7 is already an address of eth0: remove it there")
        await configure(own)

    monkeypatch.setattr(setting.device, "configure", configure_at_the_third_try)
    setting.start(address=address)
    for _ in range(2 if address is None else 0):
        visitor = await setting.relay.member()
        await visitor.messages(2)
        await visitor.grant(GRANTED)
        assert await visitor.receive() == (aiohttp.WSMsgType.CLOSE, 1001)
        visitor.hang_up()
    visitor = await setting.relay.member()
    await (log_in(visitor) if address is None else visitor.messages(3))
    await packets_pass(setting, visitor)
    # Said once.
    assert journal.warnings == ["192.168.202.7 is already an address of eth0: remove it there; trying again in 1.0 s"]
    assert setting.delays == [1.0, 2.0]


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
            await loop.sock_recv(setting.device.kernel, 2000)

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
    setting.member.log_counters()
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
    def relay_tls(self, server_tls: ssl.SSLContext) -> ssl.SSLContext:
        return server_tls

    async def test_all_of_it(self, setting: Setting, ca_file: Path, journal: Journal) -> None:
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
