"""The member seals with the real engine, at a relay by hand: what it asks and sends, and what its user is told."""

import asyncio
from ipaddress import IPv4Address

import pytest
from kit.counterpart import Counterpart
from kit.login import NETWORK
from kit.peer import packet
from kit.primitives import pair
from kit.recorded import GRANTED
from lab.keyedrelay import KeyedRelay, KeyedVisitor
from lab.programs import PATIENCE_S
from lab.setting import OTHER, PACKET, Journal, Setting

from candy.errors import RequestError
from candy.member.control import MemberControl
from candy.protocol import control
from candy.protocol.control import Peer, State
from candy.protocol.handshake import HANDSHAKE
from candy.protocol.keys import fingerprint
from candy.sealing.seals import Seal

KEY, NEW_KEY = (pair(bytes([at]) * 32).public for at in (0x51, 0x52))
LEASE = bytes([5]) * 8
BACK = packet(int(OTHER.ip), int(GRANTED.ip), b"back")


async def wants(setting: Setting, relay: KeyedRelay | None = None) -> KeyedVisitor:
    """A member that is in, has a packet for another one, and has asked about that."""
    relay = relay or KeyedRelay(setting)
    setting.seal = setting.seal or Seal.PREFER
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    send(setting)
    assert await visitor.hear() == control.Ask((OTHER.ip,))
    return visitor


def send(setting: Setting) -> None:
    setting.device.kernel.setblocking(False)
    setting.device.kernel.send(PACKET)


def told(state: State, key: bytes = bytes(32)) -> bytes:
    return control.Tell((Peer(OTHER.ip, state, 0, LEASE, 65535, key, 3),)).encode()


def shown(setting: Setting) -> MemberControl:
    return MemberControl(setting.member, setting.engine, setting.interface)


async def test_for_who_does_not_seal_it_goes_in_the_clear(setting: Setting) -> None:
    visitor = await wants(setting)
    await visitor.tell(told(State.CLEAR))
    assert await visitor.visitor.binary() == b"\x01" + PACKET
    [peer] = (await shown(setting).members()).members
    assert (peer.address, peer.sealing, peer.key) == (str(OTHER.ip), "clear", None)
    assert (await shown(setting).status()).seal == "prefer"


async def test_what_is_for_all_in_the_network_is_for_no_member(setting: Setting) -> None:
    """field: a machine is woken, and others are found, by packets to the network's broadcast address."""
    relay = KeyedRelay(setting)
    setting.seal = Seal.PREFER
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    for_all = PACKET[:16] + OTHER.network.broadcast_address.packed + PACKET[20:]
    setting.device.kernel.send(for_all)
    assert await visitor.visitor.binary() == b"\x01" + for_all
    from_all = PACKET[:12] + OTHER.ip.packed + for_all[16:]
    await visitor.tell(told(State.SEALS, KEY))
    await visitor.visitor.socket.send_bytes(b"\x01" + from_all)
    assert await asyncio.get_running_loop().sock_recv(setting.device.kernel, 1500) == from_all


async def test_with_who_seals_a_handshake_comes_first(setting: Setting) -> None:
    visitor = await wants(setting)
    [peer] = (await shown(setting).members()).members
    assert (peer.sealing, peer.key) == ("waiting", None)
    await visitor.tell(told(State.SEALS, KEY))
    message = await visitor.visitor.binary()
    assert (message[0], message[8:12]) == (HANDSHAKE, OTHER.ip.packed)
    [peer] = (await shown(setting).members()).members
    assert (peer.sealing, peer.key) == ("waiting", fingerprint(KEY))


async def test_another_key_is_refused_until_its_user_says_otherwise(setting: Setting, journal: Journal) -> None:
    visitor = await wants(setting)
    await visitor.tell(told(State.SEALS, KEY))
    await visitor.visitor.binary()
    await visitor.tell(told(State.SEALS, NEW_KEY))
    line = await journal.said(f"candy-client forget {OTHER.ip}")
    assert fingerprint(KEY) in line
    assert fingerprint(NEW_KEY) in line
    [peer] = (await shown(setting).members()).members
    assert peer.sealing == "key refused"
    assert (await shown(setting).forget(address=OTHER.ip)).address == str(OTHER.ip)
    [peer] = (await shown(setting).members()).members
    assert (peer.sealing, peer.key) == ("waiting", fingerprint(NEW_KEY))
    with pytest.raises(RequestError, match="nothing was refused of"):
        await shown(setting).forget(address=IPv4Address("192.168.202.99"))


async def test_who_sends_nothing_in_the_clear_wants_no_old_relay(setting: Setting, journal: Journal) -> None:
    setting.seal = Seal.REQUIRE
    setting.start()
    await setting.relay.member()
    await journal.said("the relay does not speak candy.3, so nothing can be sealed")


async def test_a_packet_that_waits_outlives_its_connection(setting: Setting) -> None:
    relay = KeyedRelay(setting)
    visitor = await wants(setting, relay)
    visitor.visitor.hang_up()
    visitor = await relay.visitor()
    await visitor.let_in()
    assert await visitor.hear() == control.Ask((OTHER.ip,))
    await visitor.tell(told(State.CLEAR))
    assert await visitor.visitor.binary() == b"\x01" + PACKET


async def test_with_a_revoked_device_it_is_over_at_once(setting: Setting) -> None:
    """Its packets open no more, and nothing is sent to it."""
    loop = asyncio.get_running_loop()
    key = pair(bytes([0x51]) * 32)
    visitor = await wants(setting)
    await visitor.tell(told(State.SEALS, KEY))
    other = Counterpart(key, OTHER.ip, LEASE, NETWORK)
    await visitor.visitor.socket.send_bytes(other.answer(await visitor.visitor.binary()))
    carried = [other.opened(await visitor.visitor.binary()) for _ in range(2)]
    assert sorted(sealed.plain for sealed in carried) == [b"", bytes(10) + PACKET]
    await visitor.visitor.socket.send_bytes(other.sealed(BACK))
    assert await loop.sock_recv(setting.device.kernel, 2000) == BACK
    await visitor.tell(told(State.REVOKED, KEY))
    async with asyncio.timeout(PATIENCE_S):
        while (await shown(setting).members()).members[0].sealing != "no route":
            await asyncio.sleep(0)
        await visitor.visitor.socket.send_bytes(other.sealed(BACK))
        send(setting)
        while not all(setting.member.drops()[reason] for reason in ("unknown_session", "no_route")):
            await asyncio.sleep(0)
    with pytest.raises(BlockingIOError):
        setting.device.kernel.recv(1)
