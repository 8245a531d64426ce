"""Routes in the kernel: what is refused, by rule alone; and what is changed, in a fresh network namespace."""

import asyncio
import logging
import subprocess
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest
from lab.namespaces import in_new_namespace

from candy.errors import OperationalError
from candy.host.kernelroutes import KernelRoutes, refusal
from candy.host.tun import Tun
from candy.host.underlay import Connected
from candy.protocol.wire import RouteEntry

OWN = IPv4Interface("192.168.202.7/24")
OTHER = IPv4Interface("10.9.0.1/16")
NEAR, FAR = IPv4Address("192.168.202.1"), IPv4Address("192.168.202.2")
RELAY = IPv4Address("203.0.113.5")
DEFAULT, LAN = IPv4Network("0.0.0.0/0"), IPv4Network("198.51.100.0/24")
CONNECTED = [
    Connected(IPv4Network("127.0.0.0/8"), "lo"),
    Connected(LAN, "eth0"),
    Connected(OWN.network, "candy"),
]


@pytest.mark.parametrize(
    ("destination", "way", "why"),
    [
        ("10.1.0.0/16", DEFAULT, None),
        ("10.0.0.0/8", DEFAULT, None),
        ("192.168.1.5/32", DEFAULT, None),
        # What is longer wins in the kernel, so a shorter one may enclose this machine's networks.
        ("198.51.0.0/16", DEFAULT, None),
        ("192.168.0.0/16", DEFAULT, None),
        # A network behind a member may lie within the members' own.
        ("192.168.202.128/25", DEFAULT, None),
        ("192.168.202.0/24", DEFAULT, "this machine is part of 192.168.202.0/24 by candy"),
        ("198.51.100.0/24", DEFAULT, "this machine is part of 198.51.100.0/24 by eth0"),
        ("198.51.100.64/26", DEFAULT, "this machine is part of 198.51.100.0/24 by eth0"),
        ("0.0.0.0/0", DEFAULT, "it is more than a /8, which is more than a network behind a member"),
        ("128.0.0.0/1", DEFAULT, "it is more than a /8, which is more than a network behind a member"),
        ("10.0.0.0/7", DEFAULT, "it is more than a /8, which is more than a network behind a member"),
        ("0.1.0.0/16", DEFAULT, "it is not a network of hosts"),
        ("127.1.0.0/16", DEFAULT, "it is not a network of hosts"),
        ("224.0.0.0/8", DEFAULT, "it is not a network of hosts"),
        ("255.255.255.255/32", DEFAULT, "it is not a network of hosts"),
        ("203.0.113.0/24", DEFAULT, "the relay is reached at 203.0.113.5, and so would be reached through itself"),
        ("203.0.113.5/32", DEFAULT, "the relay is reached at 203.0.113.5, and so would be reached through itself"),
        ("203.0.0.0/8", None, "the relay is reached at 203.0.113.5, and so would be reached through itself"),
        (
            "203.0.113.0/24",
            "203.0.112.0/23",
            "the relay is reached at 203.0.113.5, and so would be reached through itself",
        ),
        (
            "203.0.113.0/24",
            "203.0.113.0/24",
            "the relay is reached at 203.0.113.5, and so would be reached through itself",
        ),
        ("203.0.113.0/24", "203.0.113.5/32", None),
        ("203.0.0.0/8", "203.0.113.0/24", None),
    ],
)
def test_refusal(destination: str, way: str | IPv4Network | None, why: str | None) -> None:
    ways = {RELAY: IPv4Network(way) if way is not None else None}
    assert refusal(IPv4Network(destination), "candy", CONNECTED, ways) == why


class Machine:
    """A network namespace with a LAN on eth0 and a default route, and a candy interface."""

    def __init__(self, tun: Tun) -> None:
        self.tun = tun
        self.kernel = KernelRoutes(tun.name)

    @staticmethod
    def ip(*arguments: str) -> str:
        return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout

    def shown(self) -> list[str]:
        """Our routes."""
        return [" ".join(line.split()) for line in self.ip("route", "show", "proto", "202").splitlines()]

    async def install(self, *entries: RouteEntry, own: IPv4Interface = OWN, relay: IPv4Address = RELAY) -> list[str]:
        """The destinations that were not refused."""
        return [str(e.destination) for e in await self.kernel.install(entries, own, {relay})]


def entry(destination: str, next_hop: IPv4Address = NEAR) -> RouteEntry:
    return RouteEntry(IPv4Network(destination), next_hop)


def on_a_machine(test: Callable[[Machine], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function on a thread of its own, in a network namespace of its own."""

    async def body() -> None:
        with Tun("candy", 1400) as tun:
            machine = Machine(tun)
            machine.ip("link", "set", "lo", "up")
            machine.ip("link", "add", "eth0", "type", "bridge")
            machine.ip("address", "add", "198.51.100.9/24", "dev", "eth0")
            machine.ip("link", "set", "eth0", "up")
            machine.ip("route", "add", "default", "via", "198.51.100.1")
            await tun.configure(OWN)
            await test(machine)

    in_new_namespace(lambda: asyncio.run(body()))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Its messages are what the user was told."""
    caplog.set_level(logging.INFO, "candy.host.kernelroutes")
    return caplog


@pytest.mark.netns
def test_changed_by_difference(told: pytest.LogCaptureFixture) -> None:
    async def test(machine: Machine) -> None:
        assert await machine.install() == []
        assert await machine.install(entry("10.1.0.0/16"), entry("10.2.0.0/16", FAR)) == ["10.1.0.0/16", "10.2.0.0/16"]
        assert machine.shown() == [
            "10.1.0.0/16 dev candy scope link src 192.168.202.7",
            "10.2.0.0/16 dev candy scope link src 192.168.202.7",
        ]
        assert told.messages == [
            "10.1.0.0/16 is reached through 192.168.202.1",
            "10.2.0.0/16 is reached through 192.168.202.2",
        ]
        told.clear()
        watching = subprocess.Popen(["ip", "monitor", "route"], stdout=subprocess.PIPE, text=True)
        with watching:
            assert watching.stdout is not None
            # It is there when it shows a change of somebody else's.
            machine.ip("route", "add", "10.99.0.0/16", "dev", "candy")
            machine.ip("route", "del", "10.99.0.0/16", "dev", "candy")
            while "10.99.0.0/16" not in watching.stdout.readline():
                machine.ip("route", "add", "10.99.0.0/16", "dev", "candy")
                machine.ip("route", "del", "10.99.0.0/16", "dev", "candy")
            # Another next hop is the engine's affair alone.
            assert await machine.install(entry("10.1.0.0/16", FAR), entry("10.3.0.0/16")) == [
                "10.1.0.0/16",
                "10.3.0.0/16",
            ]
            machine.ip("route", "add", "10.98.0.0/16", "dev", "candy")
            changes = []
            while "10.98.0.0/16" not in (line := watching.stdout.readline()):
                changes.append(" ".join(line.split()))
            watching.terminate()
        assert [change for change in changes if "10.99.0.0/16" not in change] == [
            "10.3.0.0/16 dev candy proto 202 scope link src 192.168.202.7",
            "Deleted 10.2.0.0/16 dev candy proto 202 scope link src 192.168.202.7",
        ]
        assert told.messages == [
            "10.1.0.0/16 is reached through 192.168.202.2",
            "10.3.0.0/16 is reached through 192.168.202.1",
            "10.2.0.0/16 is not reached through the network any more",
        ]
        told.clear()
        assert await machine.install() == []
        assert machine.shown() == []
        # Somebody else's stays.
        assert "10.98.0.0/16 dev candy" in machine.ip("route")
        assert len(told.messages) == 2
        assert machine.kernel.installed == {}

    on_a_machine(test)


@pytest.mark.netns
def test_what_would_do_harm_is_refused_and_told_once(told: pytest.LogCaptureFixture) -> None:
    async def test(machine: Machine) -> None:
        machine.ip("route", "add", "10.5.0.0/16", "via", "198.51.100.2")
        entries = [
            entry(text)
            for text in (
                "0.0.0.0/0",
                "203.0.113.0/24",
                "198.51.100.0/24",
                "10.5.0.0/16",
                "192.168.202.0/24",
                "10.1.0.0/16",
            )
        ]
        for _ in range(2):
            assert await machine.install(*entries) == ["10.1.0.0/16"]
        assert machine.shown() == ["10.1.0.0/16 dev candy scope link src 192.168.202.7"]
        assert sorted(told.messages) == sorted(
            [
                "0.0.0.0/0 is not reached through the network: "
                "it is more than a /8, which is more than a network behind a member",
                "203.0.113.0/24 is not reached through the network: "
                "the relay is reached at 203.0.113.5, and so would be reached through itself",
                "198.51.100.0/24 is not reached through the network: this machine is part of 198.51.100.0/24 by eth0",
                "10.5.0.0/16 is not reached through the network: "
                "there is a route already, see `ip route show 10.5.0.0/16`",
                "192.168.202.0/24 is not reached through the network: "
                "this machine is part of 192.168.202.0/24 by candy",
                "10.1.0.0/16 is reached through 192.168.202.1",
            ]
        )
        # Once it is gone the way is free.
        machine.ip("route", "del", "10.5.0.0/16")
        assert await machine.install(*entries) == ["10.5.0.0/16", "10.1.0.0/16"]

    on_a_machine(test)


@pytest.mark.netns
def test_a_relay_on_the_lan_may_be_enclosed() -> None:
    async def test(machine: Machine) -> None:
        on_lan = IPv4Address("198.51.100.77")
        assert await machine.install(entry("198.51.0.0/16"), relay=on_lan) == ["198.51.0.0/16"]
        # This machine itself as well.
        assert await machine.install(entry("198.51.0.0/16"), relay=IPv4Address("198.51.100.9")) == ["198.51.0.0/16"]
        # The cable is pulled: there is no other way to the relay left.
        machine.ip("link", "set", "eth0", "down")
        assert await machine.install(entry("198.51.0.0/16"), relay=on_lan) == []
        assert machine.shown() == []

    on_a_machine(test)


@pytest.mark.netns
def test_a_relay_that_moves_to_where_a_route_leads() -> None:
    async def test(machine: Machine) -> None:
        entries = entry("203.0.0.0/16"), entry("10.1.0.0/16")
        assert await machine.install(*entries, relay=IPv4Address("192.0.2.1")) == ["203.0.0.0/16", "10.1.0.0/16"]
        assert await machine.install(*entries) == ["10.1.0.0/16"]
        assert "dev eth0" in machine.ip("route", "get", str(RELAY))

    on_a_machine(test)


@pytest.mark.netns
def test_a_machine_that_moves_into_a_network_behind_a_member() -> None:
    async def test(machine: Machine) -> None:
        assert await machine.install(entry("10.1.0.0/16")) == ["10.1.0.0/16"]
        machine.ip("address", "add", "10.1.0.9/16", "dev", "eth0")
        assert await machine.install(entry("10.1.0.0/16")) == []
        assert "dev eth0" in machine.ip("route", "get", "10.1.0.5")

    on_a_machine(test)


@pytest.mark.netns
def test_another_address_takes_the_routes_along() -> None:
    async def test(machine: Machine) -> None:
        await machine.install(entry("10.1.0.0/16"))
        await machine.tun.configure(OTHER)
        assert machine.shown() == []
        assert await machine.install(entry("10.1.0.0/16"), own=OTHER) == ["10.1.0.0/16"]
        assert machine.shown() == ["10.1.0.0/16 dev candy scope link src 10.9.0.1"]

    on_a_machine(test)


@pytest.mark.netns
def test_what_somebody_deleted_comes_back() -> None:
    async def test(machine: Machine) -> None:
        await machine.install(entry("10.1.0.0/16"))
        machine.ip("route", "del", "10.1.0.0/16")
        await machine.install(entry("10.1.0.0/16"))
        assert len(machine.shown()) == 1

    on_a_machine(test)


@pytest.mark.netns
def test_another_client_of_this_machine_keeps_its_own() -> None:
    async def test(machine: Machine) -> None:
        with Tun("candy-b", 1400) as tun:
            await tun.configure(OTHER)
            second = KernelRoutes("candy-b")
            await machine.install(entry("10.1.0.0/16"))
            assert await second.install([entry("10.1.0.0/16"), entry("10.2.0.0/16")], OTHER, {RELAY}) == (
                entry("10.2.0.0/16"),
            )
            assert len(machine.shown()) == 2
            await second.install([], OTHER, {RELAY})
            assert machine.shown() == ["10.1.0.0/16 dev candy scope link src 192.168.202.7"]
            # A relay that is reached through the other one's network is not reached through ours.
            assert await second.install([entry("10.0.0.0/8")], OTHER, {IPv4Address("10.1.0.5")}) == (
                entry("10.0.0.0/8"),
            )

    on_a_machine(test)


@pytest.mark.netns
def test_they_go_with_the_interface() -> None:
    async def test(machine: Machine) -> None:
        await machine.install(entry("10.1.0.0/16"))
        machine.tun.close()
        assert machine.shown() == []
        with pytest.raises(OperationalError, match=r"^interface candy was removed from outside: start again$"):
            await machine.install(entry("10.1.0.0/16"))

    on_a_machine(test)


@pytest.mark.netns
def test_an_interface_that_is_down(told: pytest.LogCaptureFixture) -> None:
    async def test(machine: Machine) -> None:
        machine.ip("link", "set", "candy", "down")
        assert await machine.install(entry("10.1.0.0/16")) == []
        assert told.messages == ["10.1.0.0/16 is not reached through the network: the kernel refuses (Network is down)"]

    on_a_machine(test)
