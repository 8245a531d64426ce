"""Relays that serve one network together: what one has decided holds at all of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from secrets import token_hex
from typing import Any

import pytest
from kit.keyed import link_of
from kit.login import DEVICE, NETWORK, OTHER, PASSWORD, WALL, by_password
from kit.nats import Servers
from kit.sharing import Site, _Host, begin, fixed, made_for
from kit.talk import ONE, TWO, ip

from candy.checked import checked
from candy.errors import OperationalError, RequestError
from candy.member.login import Credentials
from candy.protocol.actions import Ping, Send
from candy.protocol.closing import CloseCode
from candy.relay.cluster import cluster
from candy.relay.cluster.records import Common, settings_key
from candy.relay.cluster.shared import CONFIRM_S
from candy.relay.enrolment import Standing
from candy.relay.leases import LeaseRow, Traffic
from candy.relay.limits import Limits, OwnLimits
from candy.relay.networksettings import NetworkSettings
from candy.relay.recording import TELL_AWAY, Outcome, Sharing, Wanted
from candy.relay.reservations import Reservation
from candy.relay.session import Bind, Limit, Unbind

Start = Callable[..., Awaitable[Site]]


@pytest.fixture
async def start(three: Servers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Begin a relay of a name."""
    monkeypatch.setattr(cluster, "LISTEN_S", 0.3)
    monkeypatch.setattr(cluster, "BEAT_S", 0.1)
    path = f"/{token_hex(4)}"
    made: list[Site] = []

    async def start(name: str, servers: Servers = three, changed: dict[str, Any] | None = None) -> Site:
        made.append(made_for(servers, path, name))
        return await begin(made[-1], **(changed or {}))

    yield start
    for site in made:
        assert site.end is not None
        await site.end()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what other relays bring about."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def _elsewhere(shared: Sharing, ip: IPv4Address) -> tuple[str, bytes] | None:
    """The relay that has a member at an address, and which device that is."""
    found = shared.elsewhere(int(ip))
    return None if found is None else (found.relay, found.identity)


def codes(site: Site) -> list[object]:
    return [getattr(action, "code", None) for action in site.did]


async def test_a_device_goes_to_another_relay_with_its_address(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    connection, first = await eu.come(by_password())
    address = first.told.address
    shared = us.network._realm.shared
    assert shared is not None
    await until(lambda: _elsewhere(shared, address.ip) == ("eu", DEVICE.public))
    await until(lambda: us.network.enrolment.get(DEVICE.public) is not None)
    _, again = await us.come(Credentials(ticket=first.ticket))
    assert again.told.address == address
    # There it has left.
    await until(lambda: Unbind(connection) in eu.did)
    assert CloseCode.REPLACED in codes(eu)
    assert (eu.network.members, us.network.members) == (0, 1)
    await until(lambda: shared.elsewhere(int(address.ip)) is None)


async def test_no_address_is_given_twice(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    came = await asyncio.gather(eu.come(by_password(), DEVICE, fixed(9)), us.come(by_password(), OTHER, fixed(9)))
    told = [outcome.told.code for _, outcome in came]
    assert sorted(told) == [0, CloseCode.ADDRESS_HELD]


async def test_who_asks_for_any_gets_another(start: Start) -> None:
    """Both relays begin at one place: another relay's grant is seen when it is written, at the latest."""
    eu, us = await start("eu"), await start("us")
    for site in (eu, us):
        site.network.pool.begin_at(0)
    came = await asyncio.gather(eu.come(by_password(), DEVICE), us.come(by_password(), OTHER))
    assert all(outcome.is_in for _, outcome in came)
    assert len({outcome.told.address for _, outcome in came}) == 2


async def test_each_begins_at_a_place_of_its_own(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    assert eu.network.pool._cursor != us.network.pool._cursor


async def test_an_invitation_of_one_relay_at_another(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    made = eu.network.enrolment.invite("guest", None, 1, WALL + 1000, WALL)
    assert eu.recorder is not None
    assert await eu.recorder.record() is Outcome.KEPT
    await until(lambda: us.network.enrolment.invitation(made.selector) is not None)
    invitation = Credentials(invitation=link_of(made))
    came = await asyncio.gather(eu.come(invitation, DEVICE), us.come(invitation, OTHER))
    assert sorted(outcome.told.code for _, outcome in came) == [0, CloseCode.INVITATION_ENDED]


async def test_a_device_that_is_revoked_at_another_relay(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    connection, first = await eu.come(by_password())
    await until(lambda: us.network.enrolment.get(DEVICE.public) is not None)
    us.network.revoke(DEVICE.public, us.now, WALL)
    assert us.recorder is not None
    assert await us.recorder.record() is Outcome.KEPT
    await until(lambda: Unbind(connection) in eu.did)
    assert CloseCode.DEVICE_REVOKED in codes(eu)
    _, again = await eu.come(Credentials(ticket=first.ticket))
    assert again.told.code == CloseCode.DEVICE_REVOKED


async def test_a_log_in_that_was_sniffed_opens_no_other_relay(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    connection, actions = await eu.old_comes(ip(7), ONE)
    assert Bind(connection, int(ip(7))) in actions
    _, actions = await us.old_comes(ip(7), ONE)
    assert not any(isinstance(action, Bind) for action in actions)
    assert "AUTH for 192.168.202.7 is a replay, of one at another relay" in us.log[-1]
    assert eu.network.members == 1


async def test_who_has_no_vmac_is_not_let_in(start: Start) -> None:
    eu = await start("eu")
    _, actions = eu.old(ip(7))
    assert CloseCode.POLICY_VIOLATION in [getattr(action, "code", None) for action in actions]


def made_for_again(site: Site) -> Site:
    """The relay of this name, not begun."""
    assert site.cluster is not None
    settings = site.cluster.settings
    again = Site(path=site.path)
    again.cluster = cluster.Cluster(settings, _Host(again), {site.path: again.network})
    again.recorder, again.end = again.cluster, again.cluster.stop
    return again


async def held_at_eu(start: Start) -> tuple[Site, Site, int]:
    """Two relays, and an old client at the first, which has 192.168.202.7: its connection."""
    eu, us = await start("eu"), await start("us")
    connection, _ = await eu.old_comes(ip(7), ONE)
    shared = us.network._realm.shared
    assert shared is not None
    await until(lambda: shared.elsewhere(int(ip(7))) is not None)
    return eu, us, connection


async def probed(site: Site) -> Ping:
    """What its member is asked."""
    await until(lambda: any(isinstance(action, Ping) for action in site.did))
    [ping] = [action for action in site.did if isinstance(action, Ping)]
    return ping


async def test_a_member_of_another_relay_keeps_its_address(start: Start) -> None:
    """It answers."""
    eu, us, connection = await held_at_eu(start)
    newcomer, actions = await us.old_comes(ip(7), TWO, WALL + 1)
    assert actions == []
    ping = await probed(eu)
    assert ping.connection == connection
    eu.keep(eu.network.ponged(connection, ping.payload, eu.now, eu.wall))
    await until(lambda: CloseCode.ADDRESS_HELD in codes(us))
    assert any("192.168.202.7 is held by a member at the relay eu, which answers" in line for line in us.log)
    assert (eu.network.members, us.network.members) == (1, 0)
    assert newcomer not in {session.connection for session in us.network.sessions}


async def test_a_member_of_another_relay_that_is_silent_loses_its_address(start: Start) -> None:
    eu, us, connection = await held_at_eu(start)
    eu.network._claims.probe_timeout = 0.2
    newcomer, _ = await us.old_comes(ip(7), TWO, WALL + 1)
    await probed(eu)
    await until(lambda: Unbind(connection) in eu.did)
    assert CloseCode.UNANSWERED in codes(eu)
    await us.until_in(newcomer)
    assert (eu.network.members, us.network.members) == (0, 1)
    # It is granted to the newcomer at both.
    await until(lambda: (lease := eu.network.pool.leases.get(int(ip(7)))) is not None and lease.vmac == TWO)


async def test_a_relay_that_does_not_say_keeps_its_members(start: Start) -> None:
    eu, us, _ = await held_at_eu(start)
    assert eu.end is not None
    assert us.cluster is not None
    # It is there still, as far as is known.
    await us.old_comes(ip(7), TWO, WALL + 1)
    await eu.end()
    us.now += 3.0 + 2.0
    us.did += us.keep(us.network.expired(us.now, us.wall))
    assert CloseCode.ADDRESS_HELD in codes(us)
    assert "which did not say whether it is there" in us.log[-1]


@pytest.mark.parametrize("answers", [True, False])
async def test_two_holders_of_one_address(start: Start, answers: bool) -> None:
    """After a partition the one with the later grant keeps it, if it is there."""
    eu, us = await start("eu"), await start("us")
    first, _ = await eu.old_comes(ip(7), ONE)
    eu.network._claims.probe_timeout = us.network._claims.probe_timeout = 10.0 if answers else 0.2
    assert us.cluster is not None
    shared = us.cluster.shares[us.path]
    # As if neither had heard of the other, and its own write were lost.
    shared.is_settled = lambda ip, holder: True  # type: ignore[method-assign]
    shared.elsewhere = lambda ip: None  # type: ignore[method-assign]
    us.network.pool.is_elsewhere = lambda ip: False
    second, _ = await us.old_comes(ip(7), TWO, WALL + 1)
    assert us.network.members == 1
    del shared.elsewhere
    ping = await probed(eu)
    assert ping.connection == first
    if answers:
        eu.keep(eu.network.ponged(first, ping.payload, eu.now, eu.wall))
        await until(lambda: Unbind(second) in us.did)
        assert (eu.network.members, us.network.members) == (1, 0)
    else:
        await until(lambda: Unbind(first) in eu.did)
        await until(lambda: (lease := eu.network.pool.leases.get(int(ip(7)))) is not None and lease.vmac == TWO)
        assert (eu.network.members, us.network.members) == (0, 1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"password": b"another"}, "the passwords are others than at eu"),
        ({"pool": IPv4Network("192.168.0.0/16")}, "the pool is 192.168.0.0/16 here and 192.168.202.0/24 at eu"),
    ],
)
async def test_another_password_or_pool(start: Start, changed: dict[str, Any], said: str) -> None:
    await start("eu")
    with pytest.raises(OperationalError, match=rf"^cluster: network /\w+: {said}: write the same$"):
        await start("us", changed=changed)


async def test_two_relays_of_one_name(start: Start) -> None:
    """The second has the higher epoch, and is refused: the first is heard."""
    await start("eu")
    with pytest.raises(OperationalError, match="another relay that runs is called eu: give each a name of its own"):
        await start("eu")


async def test_another_secret(start: Start, three: Servers, tmp_path_factory: pytest.TempPathFactory) -> None:
    await start("eu")
    site = made_for(three, "/elsewhere", "us")
    assert site.cluster is not None
    file = tmp_path_factory.mktemp("other") / "secret"
    for content, said in (("x" * 31, "has 31 bytes, and needs 32 or more: make one with: openssl"),):
        file.write_text(content)
        with pytest.raises(OperationalError, match=said):
            cluster.Cluster(three.settings("us", secret_file=file), site.cluster._host, {})
    file.write_text("y" * 40)
    other = cluster.Cluster(three.settings("eu", secret_file=file), site.cluster._host, {})
    with pytest.raises(OperationalError, match="was written by a relay with another secret_file"):
        await other.start({})


async def test_leases_of_its_own_file_become_the_clusters_once(start: Start, three: Servers) -> None:
    eu = await start("eu")
    await eu.old_comes(ip(8), ONE)
    rows = [LeaseRow(int(ip(last)), TWO, "", "", "", WALL, WALL, "", 0, 0, 0, 0) for last in (7, 8)]

    async def begun() -> set[tuple[object, bytes]]:
        us = made_for(three, eu.path, "us")
        us.network.pool.leases.wall = WALL
        us.network.pool.leases.restore(rows)
        await begin(us)
        assert us.end is not None
        await us.end()
        return {(lease.address, lease.vmac) for lease in us.network.register.leases(WALL)}

    # What is another device's by now stays so.
    assert await begun() == {(ip(7), TWO), (ip(8), ONE)}
    await until(lambda: eu.network.pool.leases.get(int(ip(7))) is not None)
    eu.network.register.release(ip(7))
    assert eu.cluster is not None
    await eu.cluster.decisions.write(eu.cluster.shares[eu.path])
    # The file has it still, and counts no more.
    assert await begun() == {(ip(8), ONE)}


async def test_while_nats_is_away(servers: Servers, start: Start) -> None:
    """Known devices log in with their grant; who is new is told why it can't."""
    eu = await start("eu", servers)
    connection, first = await eu.come(by_password())
    eu.close(connection)
    servers.kill()
    assert eu.cluster is not None
    await until(lambda: eu.cluster is not None and not eu.cluster.is_up)
    _, again = await eu.come(Credentials(ticket=first.ticket))
    assert again.told.address == first.told.address
    _, new = await eu.come(by_password(), OTHER)
    assert (new.told.code, new.told.text) == (CloseCode.TRY_AGAIN_LATER, TELL_AWAY)
    assert eu.network.enrolment.get(OTHER.public) is None
    _, actions = await eu.old_comes(ip(7), ONE)
    assert CloseCode.TRY_AGAIN_LATER in [getattr(action, "code", None) for action in actions]
    assert eu.recorder is not None
    assert await eu.recorder.record() in (Outcome.AWAY, Outcome.KEPT)
    servers.start()

    async def new_comes() -> None:
        while not (await eu.come(by_password(), OTHER))[1].is_in:
            await asyncio.sleep(0.2)

    await asyncio.wait_for(new_comes(), 60)


async def test_a_relay_that_is_gone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("candy.relay.cluster.presence.GONE_S", 0.5)
    eu, us = await start("eu"), await start("us")
    await eu.old_comes(ip(7), ONE)
    shared = us.network._realm.shared
    assert shared is not None
    await until(lambda: shared.elsewhere(int(ip(7))) is not None)
    assert eu.end is not None
    assert us.cluster is not None
    await until(lambda: us.cluster is not None and us.cluster.directory.missing == [])
    status = await us.cluster.status()
    assert (status.name, status.nats, status.relays, status.missing) == ("us", True, {"eu": 1}, [])
    await eu.end()
    await until(lambda: shared.elsewhere(int(ip(7))) is None)
    assert us.cluster.presence.there == []
    # Its member comes here, and has its address.
    us.wall += 1
    connection, actions = await us.old_comes(ip(7), ONE)
    assert Bind(connection, int(ip(7))) in actions


async def test_what_is_reserved_at_one_relay_is_at_all(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    connection, _ = await us.old_comes(ip(7), ONE)
    eu.keep(eu.network.reserve(Reservation.of(ip(7), "printer"), eu.now))
    await until(lambda: Unbind(connection) in us.did)
    assert us.network.pool.reservations.get(int(ip(7))) == Reservation.of(ip(7), "printer")
    us.network.register.release(ip(7))
    await until(lambda: eu.network.pool.reservations.get(int(ip(7))) is None)
    # One that starts later finds it as it is.
    us.keep(us.network.reserve(Reservation.of(ip(8), "printer"), us.now))
    await until(lambda: eu.network.pool.reservations.get(int(ip(8))) is not None)
    ap = await start("ap")
    assert [each.address for each in ap.network.pool.reservations] == [ip(8)]


async def test_the_lease_of_a_member_of_another_relay_is_not_released(start: Start) -> None:
    eu, us, _ = await held_at_eu(start)
    with pytest.raises(RequestError, match="its device is connected: kick it first"):
        us.network.register.release(ip(7))
    assert us.network.pool.leases.get(int(ip(7))) is not None
    assert eu.network.members == 1


async def test_a_revocation_names_whom_it_does_not_reach(servers: Servers, start: Start) -> None:
    eu, us = await start("eu", servers), await start("us", servers)
    connection, _ = await us.come(by_password())
    await until(lambda: eu.network.enrolment.get(DEVICE.public) is not None)
    assert eu.cluster is not None
    await until(lambda: eu.cluster is not None and eu.cluster.others == ["us"])
    eu.network.revoke(DEVICE.public, eu.now, WALL)
    revoked = eu.network.enrolment.get(DEVICE.public)
    assert revoked is not None
    assert await eu.cluster.revoked(eu.path, revoked) == []
    # At once, not when it has read it.
    assert Unbind(connection) in us.did
    other, _ = await us.come(by_password(), OTHER)
    await until(lambda: eu.network.enrolment.get(OTHER.public) is not None)
    servers.kill()
    await until(lambda: eu.cluster is not None and not eu.cluster.is_up)
    eu.network.revoke(OTHER.public, eu.now, WALL)
    revoked = eu.network.enrolment.get(OTHER.public)
    assert revoked is not None
    assert await eu.cluster.revoked(eu.path, revoked) == ["us"]
    servers.start()
    # It is owed, and paid once NATS is there again.
    async with asyncio.timeout(60):
        while Unbind(other) not in us.did:
            await asyncio.sleep(0.05)


async def test_a_revocation_that_was_not_written_survives_a_start(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    await us.come(by_password())
    await until(lambda: eu.network.enrolment.get(DEVICE.public) is not None)
    device = eu.network.enrolment.get(DEVICE.public)
    assert device is not None
    assert eu.end is not None
    await eu.end()
    again = made_for_again(eu)
    # As its file has it.
    again.network.enrolment.restore([replace(device, standing=Standing.REVOKED)], [], WALL)
    await begin(again)
    assert again.network.enrolment.is_revoked(DEVICE.public)
    await until(lambda: us.network.enrolment.is_revoked(DEVICE.public))
    assert again.end is not None
    await again.end()


async def test_who_has_ended_is_not_asked(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    assert eu.cluster is not None
    assert us.end is not None
    await until(lambda: eu.cluster is not None and eu.cluster.others == ["us"])
    await us.end()
    await until(lambda: eu.cluster is not None and eu.cluster.others == [])
    assert await eu.cluster.ask_others("find", {}) == ({}, [])


async def test_an_address_whose_device_never_confirmed_is_free_again(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    connection, member, actions = eu.begin(by_password(), asked=fixed(9))
    actions = await eu.write(actions)
    assert member.read(next(each for each in actions if isinstance(each, Send)).payload).is_in
    await until(lambda: us.network.pool.leases.get(int(ip(9))) is not None)
    assert eu.cluster is not None
    shared = eu.cluster.shares[eu.path]
    later = asyncio.get_running_loop().time() + CONFIRM_S
    # It may be about to.
    assert shared.unconfirmed(later) == []
    eu.close(connection)
    await eu.come(by_password(), OTHER, fixed(10))
    assert shared.unconfirmed(later + CONFIRM_S) == [(int(ip(9)), DEVICE.public)]
    shared._unconfirmed[int(ip(9))] = DEVICE.public, 0.0
    await until(lambda: us.network.pool.leases.get(int(ip(9))) is None)
    # Who has come keeps it.
    assert us.network.pool.leases.get(int(ip(10))) is not None
    assert not shared._unconfirmed


async def test_a_known_device_while_nats_has_no_leader(servers: Servers, start: Start) -> None:
    """There is a connection, and nothing can be written: it comes in at another relay by its grant."""
    eu, us = await start("eu", servers), await start("us", servers)
    connection, first = await eu.come(by_password())
    # That it has come is written behind that it may.
    await until(lambda: us.network.enrolment.get(DEVICE.public) == eu.network.enrolment.get(DEVICE.public) is not None)
    assert us.cluster is not None
    eu.close(connection)
    shared = us.network._realm.shared
    assert shared is not None
    await until(lambda: shared.elsewhere(int(first.told.address.ip)) is None)
    at = us.cluster.server.rpartition(":")[2]
    servers.kill(*(number for number, port in enumerate(servers.clients) if str(port) != at))
    _, again = await us.come(Credentials(ticket=first.ticket))
    assert again.told.address == first.told.address
    assert us.network.members == 1
    _, new = await us.come(by_password(), OTHER)
    assert (new.told.code, new.told.text) == (CloseCode.TRY_AGAIN_LATER, TELL_AWAY)


async def joined(site: Site, path: str, **changed: Any) -> Site:
    """A network that a relay serves from now on, as by a reload."""
    added = Site(path=path)
    added.cluster, added.recorder = site.cluster, site.recorder
    assert site.cluster is not None
    site.others[path] = added
    settings = checked(NetworkSettings, {"path": path, "password": PASSWORD.secret} | changed)
    await site.cluster.join(path, added.network, 0, site.cluster.common(settings, NETWORK))
    return added


async def test_a_network_that_a_reload_adds(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    path = f"{eu.path}/home"
    home = await joined(eu, path)
    _, first = await home.come(by_password())
    home.keep(home.network.reserve(Reservation.of(ip(77), "printer"), home.now))
    await home.old_comes(ip(7), ONE)
    assert us.cluster is not None
    word = home.network._realm.shared
    assert word is not None
    # What was there before it came is there for it.
    await until(lambda: us.cluster is not None and us.cluster.directory.counts().get("eu") == 2)
    assert eu.cluster is not None
    await until(lambda: eu.cluster is not None and not eu.cluster.shares[path].reserved)
    there = await joined(us, path)
    assert there.network.enrolment.get(DEVICE.public) is not None
    assert {each.address for each in there.network.register.leases(WALL)} == {ip(7), first.told.address.ip}
    assert there.network.pool.reservations.get(int(ip(77))) is not None
    shared = there.network._realm.shared
    assert shared is not None
    assert _elsewhere(shared, ip(7)) == ("eu", ONE)
    _, again = await there.come(Credentials(ticket=first.ticket))
    assert again.told.address == first.told.address
    with pytest.raises(OperationalError, match="the passwords are others than at eu"):
        await joined(us, path, password=b"another")
    assert path not in us.cluster.shares


async def test_a_network_that_a_reload_takes_away(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    path = f"{eu.path}/home"
    home, there = await joined(eu, path), await joined(us, path)
    await home.old_comes(ip(7), ONE)
    assert eu.cluster is not None
    assert us.cluster is not None
    await until(lambda: us.cluster is not None and us.cluster.directory.counts().get("eu") == 1)
    home.keep(home.network.dissolve(home.now))
    eu.cluster.leave(path)
    assert await eu.cluster.record(path, Wanted(int(ip(7)), ONE)) is Outcome.AWAY
    await until(lambda: us.cluster is not None and us.cluster.directory.counts().get("eu") == 0)
    # What the other does there is no matter of this one's any more, and what it is neither.
    _, _ = await there.old_comes(ip(8), TWO, WALL + 1)
    key = settings_key(path)
    async with asyncio.timeout(20):
        while "eu" in (await us.cluster._agreement.read(Common, key)).record.relays:  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
    # Both go on with what they serve.
    await eu.come(by_password())
    await until(lambda: us.network.enrolment.get(DEVICE.public) is not None)


async def test_a_quota_is_of_all_relays_together(start: Start) -> None:
    eu, us = await start("eu"), await start("us")
    for site in (eu, us):
        site.network.set_limits(Limits(quota=1000, quota_rate=8000), WALL)
    connection, _ = await eu.old_comes(ip(7), ONE)
    eu.keep(eu.network.carried(connection, Traffic(bytes_in=600), WALL))
    eu.close(connection)
    assert eu.cluster is not None
    assert us.cluster is not None
    shared = us.network._realm.shared
    assert shared is not None
    await until(lambda: shared.elsewhere(int(ip(7))) is None and us.cluster is not None and us.cluster.others == ["eu"])
    connection, _ = await us.old_comes(ip(7), ONE, WALL + 1)
    us.keep(us.network.carried(connection, Traffic(bytes_in=500), WALL))
    for each in (eu.cluster, us.cluster):
        await each.exchange()
    assert Limit(connection, 8000, 8000) in us.did
    assert us.network.register.used(ip(7), WALL) == 1100
    assert eu.network.register.used(ip(7), WALL) == 600
    await eu.cluster.exchange()
    assert eu.network.register.used(ip(7), WALL) == 1100
    # It is forgiven at both.
    await eu.cluster.forgive(eu.path, int(ip(7)))
    eu.keep(eu.network.limit(ip(7), OwnLimits(), WALL, is_forgiven=True))
    for each in (eu.cluster, us.cluster, eu.cluster):
        await each.exchange()
    assert eu.network.register.used(ip(7), WALL) == us.network.register.used(ip(7), WALL) == 0
    assert Limit(connection, 0, 0) in us.did
