"""The outer connection: which addresses are tried, in what order, by which way, and what is known afterwards."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, ip_address
from typing import cast

import pytest
from aiohappyeyeballs import AddrInfoType
from lab.answering import SOON_S
from lab.setting import Journal

from candy.errors import OperationalError
from candy.host.underlay import Egress, Target, Underlay, Way
from candy.member import outer
from candy.member.outer import ANYWHERE, Outer

Resolve = Callable[..., list[object]]
LOCAL, OTHER = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")


class Ways:
    """What an Outer uses of an Underlay."""

    def __init__(self, *found: IPv4Address, can_bind: bool = True, is_strict: bool = False) -> None:
        self.found = {address: Way("lo", can_bind, is_strict) for address in found}
        self.asked: list[set[IPv4Address]] = []
        self.egresses: dict[Target, Egress | None] = {}
        self.looked_for: list[tuple[Target, ...]] = []

    async def egress(self, targets: Iterable[Target]) -> dict[Target, Egress | None]:
        self.looked_for.append(tuple(targets))
        return {target: self.egresses.get(target) for target in self.looked_for[-1]}

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
    (await to.connect(known, lambda step, words: steps.append(words))).close()
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


async def length_to(to: Outer, *, gave_up: bool = False) -> int:
    """Of the segments on one connection to it, less what the kernel takes for timestamps."""
    with await to.connect((), lambda step, words: None) as opened:
        if gave_up:
            to.judge(opened, gave_up=True)
        return opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)


async def test_segments_are_no_longer_than_the_way_takes() -> None:
    async with listening() as port:
        to = made("127.0.0.1", port)
        assert await length_to(to) > 1448
        to.segment = 1220
        assert await length_to(to) == 1208


async def test_shorter_segments_are_tried_once_and_stay_if_they_are_of_use(journal: Journal) -> None:
    async with listening() as port:
        to = made("127.0.0.1", port)
        await length_to(to, gave_up=True)
        assert await length_to(to) == 1428
        # That attempt failed, so it is another fault.
        assert await length_to(to, gave_up=True) > 1448
        assert (to.segment, journal.lines) == (None, [])
        assert await length_to(to) == 1428
        to.succeed()
        to.succeed()
        assert await length_to(to) == 1428
    assert to.segment == 1440
    assert journal.warnings == [
        f"long TCP segments vanish on the way to 127.0.0.1:{port}, and nothing says so: "
        "from now on they have at most 1440 bytes"
    ]


async def test_an_end_like_any_other_teaches_nothing(journal: Journal) -> None:
    async with listening() as port:
        to = made("127.0.0.1", port)
        with await to.connect((), lambda step, words: None) as opened:
            to.judge(opened, gave_up=False)
        await length_to(to)
        to.succeed()
    assert (to.segment, journal.lines) == (None, [])


def test_what_the_kernel_does_not_tell_teaches_nothing() -> None:
    one, other = socket.socketpair()
    with one, other:
        made("127.0.0.1", 1).judge(one, gave_up=True)


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


CHANGES = [
    Egress("wlan0", "10.0.0.1", "10.0.0.2"),
    Egress("wlan0", "10.0.0.254", "10.0.0.2"),
    Egress("wlan0", "10.0.0.254", "10.0.0.3"),
    None,
    Egress("wlan0", "10.0.0.254", "10.0.0.3"),
]


async def changes(to: Outer, ways: Ways, target: Target) -> None:
    """Each change is seen, and once."""
    assert not await to.look()
    for egress in CHANGES:
        ways.egresses[target] = egress
        assert await to.look()
        assert not await to.look()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_change_of_the_way_is_seen(host: str) -> None:
    """ "A change of the route or source address towards the relay"."""
    target = Target(ip_address(host))
    async with listening(host) as port:
        to = made(host, port, ways := Ways(LOCAL))
        ways.egresses[target] = Egress("eth0", "10.0.0.1", "10.0.0.2")
        await reach(to)
        await changes(to, ways, target)
        # A way elsewhere is none of its own.
        ways.egresses[Target(OTHER)] = Egress("eth1")
        assert not await to.look()


@pytest.mark.parametrize(("host", "interface"), [("127.0.0.1", "lo"), ("::1", None)])
async def test_so_is_one_of_the_connection_in_use(host: str, interface: str | None) -> None:
    """It held when another interface became the way, and now its own goes."""
    async with listening(host) as port:
        to = made(host, port, ways := Ways(LOCAL))
        used = Target(ip_address(host), host, interface)
        ways.egresses[used] = Egress("eth0", "10.0.0.1", "10.0.0.2")
        await reach(to)
        assert to.made == used
        to.used, to.made = to.made, None
        await changes(to, ways, used)
        # It is used no more.
        to.used, ways.egresses[used] = None, None
        assert not await to.look()


async def test_an_attempt_looks_as_well() -> None:
    """What changed before it is nothing for its connection."""
    async with listening() as port:
        to = made("127.0.0.1", port, ways := Ways(LOCAL))
        await reach(to)
        ways.egresses[Target(LOCAL)] = Egress("eth0")
        await reach(to)
        assert not await to.look()


async def test_before_there_are_addresses_the_way_to_anywhere_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started offline: a default route is what a look-up waits for."""
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    to = made("relay.test", 1, ways := Ways())
    with pytest.raises(OperationalError, match="the name server does not answer"):
        await reach(to)
    assert not await to.look()
    ways.egresses[Target(ANYWHERE[0])] = Egress("eth0", "10.0.0.1", "10.0.0.2")
    assert await to.look()
    assert set(ways.looked_for) == {tuple(Target(address) for address in ANYWHERE)}


async def test_an_attempt_that_is_given_up_as_it_looks_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way has changed once more, just when the relay was reached by the one before."""
    async with listening() as port:
        to = made("127.0.0.1", port, ways := Ways(LOCAL))
        opened: list[socket.socket] = []
        open_socket = to._open_socket

        def note(address: AddrInfoType) -> socket.socket:
            opened.append(open_socket(address))
            return opened[-1]

        async def wait_once_it_is_made(targets: Iterable[Target]) -> dict[Target, Egress | None]:
            if to.made is not None:
                await asyncio.Event().wait()
            return {}

        monkeypatch.setattr(to, "_open_socket", note)
        monkeypatch.setattr(ways, "egress", wait_once_it_is_made)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SOON_S):
                await reach(to)
        assert [each.fileno() for each in opened] == [-1]


async def test_an_address_on_the_link_itself_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to("169.254.1.1"))
    to = made("relay.test", 1, ways := Ways())
    with pytest.raises(OperationalError):
        await reach(to)
    assert ways.looked_for[1:] == [()]


async def test_without_an_underlay_nothing_changes() -> None:
    assert not await made("127.0.0.1", 1).look()
