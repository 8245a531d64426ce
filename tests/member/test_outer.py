"""The outer connection: which addresses are tried, in what order, by which way, and what is known afterwards."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import cast

import pytest
from lab.setting import Journal

from candy.errors import OperationalError
from candy.host.underlay import Underlay, Way
from candy.member import outer
from candy.member.outer import Outer

Resolve = Callable[..., list[object]]
LOCAL, OTHER = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")


class Ways:
    """What an Outer uses of an Underlay."""

    def __init__(self, *found: IPv4Address, can_bind: bool = True, is_strict: bool = False) -> None:
        self.found = {address: Way("lo", can_bind, is_strict) for address in found}
        self.asked: list[set[IPv4Address]] = []

    async def find(self, addresses: Iterable[IPv4Address]) -> dict[IPv4Address, Way]:
        self.asked.append(set(addresses))
        return {address: way for address, way in self.found.items() if address in self.asked[-1]}


def made(host: str, port: int, ways: Ways | None = None) -> Outer:
    return Outer("the relay", host, port, cast("Underlay | None", ways))


@asynccontextmanager
async def listening(host: str = "127.0.0.1") -> AsyncIterator[int]:
    async with await asyncio.start_server(lambda reader, writer: writer.close(), host, 0) as server:
        yield server.sockets[0].getsockname()[1]


def refuse(*_: object, **__: object) -> list[object]:
    raise socket.gaierror(socket.EAI_AGAIN, "try again")


def resolve_to(*addresses: str) -> Resolve:
    def resolve(host: str, port: int, **_: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return resolve


async def reach(to: Outer, *known: str) -> list[str]:
    """Connect, and hang up; the steps."""
    steps: list[str] = []
    (await to.connect(known, steps.append)).close()
    return steps


async def test_what_is_reached_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as port:
        monkeypatch.setattr(socket, "getaddrinfo", resolve_to("127.0.0.2", "127.0.0.1"))
        to = made("relay.test", port)
        assert (to.name, to.good, to.exposed) == ("relay.test", (), frozenset())
        assert await reach(to) == ["looking up relay.test", f"connecting to the relay relay.test:{port}"]
        # The one that answered comes first.
        assert to.good == ("127.0.0.1", "127.0.0.2")
        # Without an underlay no route may lead to any of them.
        assert to.exposed == {LOCAL, OTHER}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_is_not_looked_up(host: str) -> None:
    assert made(host, 1).name is None


async def test_the_addresses_of_last_time_are_tried_if_there_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    async with listening() as port:
        to = made("relay.test", port)
        with pytest.raises(OperationalError, match="the name server does not answer"):
            await reach(to)
        for _ in range(2):
            await reach(to, "127.0.0.2", "127.0.0.1", "::1")
        assert list(to.good) == ["127.0.0.1", "127.0.0.2", "::1"]
        said = (
            "relay.test: the name server does not answer: is this machine online?; "
            "trying the addresses of last time: 127.0.0.2, 127.0.0.1, ::1"
        )
        # Said once, until the name is found again.
        assert journal.warnings == [said]
        monkeypatch.setattr(socket, "getaddrinfo", resolve_to("127.0.0.1"))
        await reach(to, "127.0.0.2")
        assert list(to.good) == ["127.0.0.1"]
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        await reach(to, "127.0.0.1")
        assert len(journal.warnings) == 2


async def test_a_look_up_is_not_waited_for_long_where_there_are_such(
    monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    """A name server in the tunnel does not even refuse, and the resolver gives up later than the attempt."""
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait(*_: object, **__: object) -> list[object]:
        asyncio.run_coroutine_threadsafe(answered.wait(), loop).result()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    monkeypatch.setattr(outer, "LOOK_UP_S", 0.0)
    async with listening() as port:
        await reach(made("relay.test", port), "127.0.0.1")
    answered.set()
    assert journal.warnings == [
        "relay.test: the name server does not answer within 0 s; trying the addresses of last time: 127.0.0.1"
    ]


async def test_each_connection_is_bound_to_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[Way | None] = []
    monkeypatch.setattr(outer, "bind", lambda opened, way: bound.append(way))
    async with listening() as port:
        to = made("127.0.0.1", port, ways := Ways(LOCAL))
        await reach(to)
        assert bound == [Way("lo", True)]
        assert ways.asked == [{LOCAL}]
        # So routes may lead where they will.
        assert to.exposed == frozenset()


async def test_an_address_that_only_the_tunnel_leads_to_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as port:
        monkeypatch.setattr(socket, "getaddrinfo", resolve_to("127.0.0.1", "127.0.0.2"))
        to = made("relay.test", port, Ways(OTHER))
        with pytest.raises(OperationalError, match=r"relay\.test:\d+: connection refused"):
            await reach(to)
        assert to.exposed == {LOCAL}
        to = made("relay.test", port, Ways())
        with pytest.raises(OperationalError) as caught:
            await reach(to)
        assert str(caught.value) == (
            f"no way to the relay at relay.test:{port} but through this network itself: is this machine online?"
        )


async def test_ipv6_is_never_in_the_tunnel() -> None:
    async with listening("::1") as port:
        to = made("::1", port, ways := Ways())
        await reach(to)
        assert (ways.asked, to.exposed, to.good) == ([set()], frozenset(), ("::1",))


@pytest.mark.parametrize(("can_bind", "is_strict"), [(False, False), (True, True)])
async def test_where_binding_does_not_do_routes_have_to_stay_away(can_bind: bool, is_strict: bool) -> None:
    async with listening() as port:
        to = made("127.0.0.1", port, Ways(LOCAL, can_bind=can_bind and not is_strict, is_strict=is_strict))
        await reach(to)
        assert to.exposed == {LOCAL}


async def test_a_machine_that_is_offline_changes_nothing() -> None:
    async with listening() as port:
        ways = Ways(LOCAL)
        to = made("127.0.0.1", port, ways)
        await reach(to)
        ways.found = {}
        with pytest.raises(OperationalError, match="no way to the relay"):
            await reach(to)
        assert to.exposed == frozenset()


async def test_an_interface_that_has_gone_since_costs_the_attempt_alone() -> None:
    async with listening() as port:
        ways = Ways(LOCAL)
        ways.found = {LOCAL: Way("gone0", True)}
        with pytest.raises(OperationalError, match="cannot connect to the relay at"):
            await reach(made("127.0.0.1", port, ways))
