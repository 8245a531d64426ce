"""What is written down holds, also after a start: in the relay's own file, and in NATS."""

from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import IPv4Address
from pathlib import Path
from secrets import token_hex

import pytest
from kit.keyed import link_of
from kit.login import DEVICE, OTHER, WALL, by_password
from kit.sharing import Site, begin, fixed, made_for, with_store
from kit.talk import ONE, TWO, ip

from candy.member.login import Credentials
from candy.protocol.closing import CloseCode
from candy.relay.cluster import cluster
from candy.relay.recording import Outcome
from candy.relay.session import Bind

Start = Callable[[], Awaitable[Site]]


@pytest.fixture(params=["store", "nats"])
async def start(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Start]:
    """Begin a relay, which ends the one before; each finds what was written down, and nothing else."""
    monkeypatch.setattr(cluster, "LISTEN_S", 0.1)
    path = f"/{token_hex(4)}"
    running: list[Site] = []

    async def end() -> None:
        while running:
            ending = running.pop().end
            assert ending is not None
            await ending()

    async def start() -> Site:
        await end()
        if request.param == "store":
            running.append(await with_store(tmp_path))
        else:
            running.append(await begin(made_for(request.getfixturevalue("three"), path)))
        return running[0]

    yield start
    await end()


async def recorded(site: Site) -> Outcome:
    """As commands do it."""
    assert site.recorder is not None
    return await site.recorder.record()


async def test_a_device_comes_back_to_its_address(start: Start) -> None:
    site = await start()
    _, first = await site.come(by_password())
    assert first.ticket is not None
    site = await start()
    _, again = await site.come(Credentials(ticket=first.ticket))
    assert again.is_in
    assert (again.told.address, again.ticket) == (first.told.address, None)


async def test_an_address_is_one_devices(start: Start) -> None:
    site = await start()
    _, first = await site.come(by_password(), asked=fixed(9))
    assert first.is_in
    site = await start()
    _, other = await site.come(by_password(), OTHER, fixed(9))
    assert other.told.code == CloseCode.ADDRESS_HELD
    _, own = await site.come(Credentials(ticket=first.ticket), asked=fixed(9))
    assert own.is_in


async def test_an_invitation_lets_in_one(start: Start) -> None:
    site = await start()
    made = site.network.enrolment.invite("guest", None, 1, WALL + 1000, WALL)
    assert await recorded(site) is Outcome.KEPT
    site = await start()
    invitation = Credentials(invitation=link_of(made))
    _, first = await site.come(invitation)
    assert first.is_in
    for _ in range(2):
        _, second = await site.come(invitation, OTHER)
        assert second.told.code == CloseCode.INVITATION_ENDED
        site = await start()
    _, again = await site.come(Credentials(ticket=first.ticket))
    assert again.is_in


async def test_a_revoked_device_stays_out(start: Start) -> None:
    site = await start()
    await site.come(by_password())
    site.network.revoke(DEVICE.public, site.now, WALL)
    assert await recorded(site) is Outcome.KEPT
    site = await start()
    _, again = await site.come(by_password())
    assert again.told.code == CloseCode.DEVICE_REVOKED


async def test_a_log_in_comes_once(start: Start) -> None:
    site = await start()
    connection, actions = await site.old_comes(ip(7), ONE)
    assert Bind(connection, int(ip(7))) in actions
    site.close(connection)
    site = await start()
    _, actions = await site.old_comes(ip(7), ONE)
    assert not any(isinstance(action, Bind) for action in actions)
    assert "AUTH for 192.168.202.7 is a replay" in site.log[-1]
    connection, actions = await site.old_comes(ip(7), ONE, WALL + 1)
    assert Bind(connection, int(ip(7))) in actions


async def test_who_claims_a_free_address_of_an_old_client_gets_it(start: Start) -> None:
    """As ever: its lease goes with it."""
    site = await start()
    connection, _ = await site.old_comes(ip(7), ONE)
    site.close(connection)
    connection, actions = await site.old_comes(ip(7), TWO, WALL + 1)
    assert Bind(connection, int(ip(7))) in actions
    site = await start()
    [lease] = site.network.register.leases(WALL)
    assert (lease.address, lease.vmac) == (ip(7), TWO)


async def test_what_is_released_is_free(start: Start) -> None:
    site = await start()
    connection, _ = await site.come(by_password(), asked=fixed(9))
    site.close(connection)
    site.network.register.release(IPv4Address("192.168.202.9"))
    if site.cluster is not None:
        await site.cluster.decisions.write(site.cluster.shares[site.path])
    site = await start()
    _, other = await site.come(by_password(), OTHER, fixed(9))
    assert other.is_in
