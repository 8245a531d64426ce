"""A member whose address another connection takes over, at a relay with candy.2: what it says, and what it does."""

import aiohttp
import pytest
from kit.recorded import GRANTED, VMAC
from lab.setting import OTHER, Journal, Setting, Visitor, log_in, packets_pass

from candy._fastpath import Engine
from candy.member.conversation import ANY_ADDRESS
from candy.protocol import wire

TAKEN = b"another connection with the same VMAC took 192.168.202.7 over"


async def next_member(setting: Setting) -> tuple[Visitor, bytes, object]:
    """The next connection, its VMAC, and the address that it asks for or claims."""
    visitor = await setting.relay.member()
    greeting, request = (wire.decode(bytes.fromhex(message)) for message in await visitor.messages(2))
    assert isinstance(greeting, wire.Vmac)
    assert isinstance(request, wire.Expttun | wire.Auth)
    return visitor, greeting.vmac, request.address if isinstance(request, wire.Expttun) else request.ip


async def answer_ping(visitor: Visitor) -> None:
    kind, data = await visitor.receive()
    assert kind == aiohttp.WSMsgType.PING
    await visitor.socket.pong(data)


@pytest.fixture
def told(setting: Setting) -> Setting:
    """The relay has candy.2."""
    setting.relay.protocols = ("candy.2",)
    return setting


async def test_three_times_and_it_makes_itself_another_vmac(told: Setting, journal: Journal) -> None:
    told.start()
    asked, vmacs = [], []
    for times in range(1, 5):
        visitor, vmac, address = await next_member(told)
        asked.append(address)
        vmacs.append(vmac)
        await visitor.grant(GRANTED)
        assert (await visitor.receive())[0] == aiohttp.WSMsgType.BINARY
        await answer_ping(visitor)
        await journal.said("connected as", times)
        await visitor.socket.close(code=4001, message=TAKEN)
    # A free one each time, not the one that the other has.
    assert asked == [ANY_ADDRESS] * 4
    assert vmacs[:3] == [VMAC] * 3
    assert vmacs[3] != VMAC
    assert told.kept("vmac") == vmacs[3].decode()
    assert told.delays[:3] == [8, 16, 32]
    assert [line.partition(":")[0] for line in journal.warnings[:4]] == [
        *["replaced"] * 3,
        "replaced again and again",
    ]
    assert journal.warnings[0].startswith(f"replaced: {TAKEN.decode()}: is there a copy of this machine")


async def test_with_an_address_of_its_own_it_keeps_its_vmac_and_waits(told: Setting, journal: Journal) -> None:
    told.start(address=GRANTED)
    for _ in range(5):
        visitor, vmac, address = await next_member(told)
        assert (vmac, address) == (VMAC, GRANTED.ip)
        await answer_ping(visitor)
        await visitor.socket.close(code=4001, message=TAKEN)
    await told.relay.member()
    assert told.delays[:5] == [8, 16, 32, 64, 128]
    assert told.kept("vmac") == VMAC.decode()
    assert not any("new VMAC" in line for line in journal.lines)


async def test_its_own_newer_connection_is_no_double(told: Setting, journal: Journal) -> None:
    """The relay replaces the connection that this process had given up: that is nobody else's doing, and not said."""
    engine = Engine(1, max_connections=8, ping_after=0.1, dead_after=0.3, ping_when_quiet=True)
    engine.add_network()
    told.engine = engine
    told.start()
    old = await told.relay.member()
    await log_in(old)
    # It says nothing any more.
    await journal.said("the relay fell silent")
    new = await told.relay.member()
    await log_in(new)
    await old.socket.close(code=4001, message=TAKEN)
    await packets_pass(told, new)
    await told.stop()
    engine.stop()
    assert not any("replaced" in line for line in journal.lines)


async def test_a_refusal_is_said_with_its_cure(told: Setting, journal: Journal) -> None:
    told.start()
    visitor, _, _ = await next_member(told)
    await visitor.socket.close(code=4003, message=b"the network has no address pool: a member needs a fixed address")
    await told.relay.member()
    assert journal.warnings == [
        "refused by the relay: the network has no address pool: a member needs a fixed address: "
        "choose one with --tun, or give the relay a pool with --dhcp; trying again in 1.0 s"
    ]


async def test_it_moves_to_the_address_that_is_free(told: Setting) -> None:
    told.start()
    visitor, _, _ = await next_member(told)
    await visitor.grant(GRANTED)
    await visitor.messages(1)
    await answer_ping(visitor)
    await visitor.socket.close(code=4001, message=TAKEN)
    visitor, _, _ = await next_member(told)
    await visitor.grant(OTHER)
    await visitor.messages(2)
    assert told.device.addresses == [GRANTED, OTHER]
