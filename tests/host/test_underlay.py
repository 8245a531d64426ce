"""The way to an address beside an interface, in a fresh network namespace; overlaps and name servers by rule alone."""

import asyncio
import logging
import socket
import subprocess
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from lab.namespaces import in_new_namespace

from candy.host import underlay
from candy.host.tun import Tun
from candy.host.underlay import (
    Egress,
    Holding,
    Target,
    Underlay,
    Way,
    bind,
    collision,
    enclosing,
    holding,
    name_servers,
)

OWN = IPv4Interface("10.98.0.1/16")
RELAY = IPv4Address("10.98.7.1")


@pytest.mark.parametrize(
    ("address", "network"),
    [("10.98.7.1", "10.98.0.0/16"), ("10.98.7.130", "10.98.7.128/25"), ("10.99.0.1", None)],
)
def test_the_longest_network_that_encloses(address: str, network: str | None) -> None:
    networks = [IPv4Network(text) for text in ("10.98.0.0/16", "10.98.7.128/25", "10.98.0.0/24")]
    assert enclosing(networks, IPv4Address(address)) == (IPv4Network(network) if network is not None else None)


@pytest.mark.parametrize(
    ("network", "victims"),
    [
        ("192.168.202.0/24", "members or hosts on eth0 are not reached"),
        ("192.168.202.64/26", "members with addresses in 192.168.202.64/26 are not reached"),
        ("192.168.0.0/16", "hosts on eth0 with addresses in 192.168.202.0/24 are not reached"),
    ],
)
def test_who_is_not_reached_where_networks_overlap(network: str, victims: str) -> None:
    """ "the longest prefix wins", and of two that are as long either."""
    assert collision(IPv4Network("192.168.202.0/24"), "eth0", IPv4Network(network)) == (
        f"the network 192.168.202.0/24 overlaps {network} of eth0: {victims}: give the relay another pool with --dhcp"
    )


@pytest.mark.parametrize(
    ("content", "servers"),
    [
        (b"nameserver 10.98.0.53\n nameserver\t9.9.9.9 \noptions edns0\n", ["10.98.0.53", "9.9.9.9"]),
        (b"#nameserver 10.0.0.1\nnameserver ::1\nnameserver 300.1.1.1\nnameserver 1.1.1.1 x\n\xff\xfe", []),
        (b"", []),
        (b"nameserver 10.98.0.53\n" + b"#" * underlay.RESOLV_CONF_BYTES + b"\nnameserver 9.9.9.9", ["10.98.0.53"]),
    ],
)
def test_name_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, servers: list[str]) -> None:
    (tmp_path / "second").write_bytes(content)
    (tmp_path / "third").write_bytes(b"nameserver 8.8.8.8\n")
    monkeypatch.setattr(underlay, "RESOLV_CONFS", [tmp_path / name for name in ("first", "second", "third")])
    assert name_servers() == [IPv4Address(server) for server in servers]


def test_a_machine_without_a_file_of_name_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(underlay, "RESOLV_CONFS", [tmp_path / "none"])
    assert name_servers() == []


@pytest.mark.parametrize(
    ("way", "is_apart"),
    [(Way("eth0", True), True), (Way("eth0", False), False), (Way("eth0", True, is_strict=True), False)],
)
def test_when_no_route_can_be_in_the_way(way: Way, is_apart: bool) -> None:
    assert way.is_apart == is_apart


class Machine:
    """A network namespace with cable and air, a default route by the cable, and a tunnel that encloses the relay."""

    def __init__(self, tun: Tun) -> None:
        self.tun = tun
        self.underlay = Underlay(tun.name)

    @staticmethod
    def ip(*arguments: str) -> str:
        return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout

    def add(self, interface: str, address: str) -> None:
        self.ip("link", "add", interface, "type", "bridge")
        self.ip("address", "add", address, "dev", interface)
        self.ip("link", "set", interface, "up")

    async def way(self, address: IPv4Address = RELAY) -> Way | None:
        return (await self.underlay.find([address])).get(address)

    async def egress(
        self, address: IPv4Address | IPv6Address = RELAY, source: str | None = None, interface: str | None = None
    ) -> Egress | None:
        target = Target(address, source, interface)
        return (await self.underlay.egress([target]))[target]


def on_a_machine(test: Callable[[Machine], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function on a thread of its own, in a network namespace of its own."""

    async def body() -> None:
        with Tun("candy", 1400) as tun:
            machine = Machine(tun)
            machine.ip("link", "set", "lo", "up")
            machine.add("eth0", "198.51.100.9/24")
            machine.ip("route", "add", "default", "via", "198.51.100.1", "metric", "100")
            machine.add("wlan0", "203.0.113.9/24")
            await tun.configure(OWN)
            await test(machine)

    in_new_namespace(lambda: asyncio.run(body()))


@pytest.mark.netns
def test_the_way_is_what_it_would_be_without_the_tunnel() -> None:
    async def test(machine: Machine) -> None:
        assert "dev candy" in machine.ip("route", "get", str(RELAY))
        assert await machine.way() == Way("eth0", True)
        # Elsewhere the kernel is right by itself.
        assert await machine.way(IPv4Address("203.0.113.77")) == Way("wlan0", True)
        assert await machine.way(IPv4Address("192.0.2.1")) == Way("eth0", True)
        # The smaller metric, then the longer prefix.
        machine.ip("route", "add", "default", "via", "203.0.113.1", "metric", "50")
        assert await machine.way() == Way("wlan0", True)
        machine.ip("route", "add", "10.96.0.0/12", "via", "198.51.100.1", "metric", "900")
        assert await machine.way() == Way("eth0", True)
        # An interface that is down is none.
        machine.ip("link", "set", "eth0", "down")
        assert await machine.way() == Way("wlan0", True)
        machine.ip("link", "set", "wlan0", "down")
        assert await machine.way() is None

    on_a_machine(test)


@pytest.mark.netns
def test_addresses_of_this_machine_itself_are_left_to_the_kernel() -> None:
    """No route leads away from them, and a port there may be forwarded to a container."""

    async def test(machine: Machine) -> None:
        for address in ("127.0.0.1", "198.51.100.9", "10.98.0.1"):
            assert await machine.way(IPv4Address(address)) == Way("lo", False)

    on_a_machine(test)


@pytest.mark.netns
def test_an_interface_that_is_gone_is_in_nobodys_way() -> None:
    async def test(machine: Machine) -> None:
        machine.tun.close()
        assert await machine.way() == Way("eth0", True)
        await machine.underlay.review(OWN, [], {RELAY: Way("eth0", True)})

    on_a_machine(test)


@pytest.mark.netns
@pytest.mark.parametrize(
    ("of_all", "of_one", "is_strict"), [(0, 0, False), (1, 0, True), (0, 1, True), (2, 1, False), (1, 2, False)]
)
def test_what_would_drop_answers(of_all: int, of_one: int, is_strict: bool) -> None:
    """Linux, ip-sysctl: "The max value from conf/{all,interface}/rp_filter is used"."""

    async def test(machine: Machine) -> None:
        for name, value in (("all", of_all), ("eth0", of_one)):
            Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text(str(value))
        assert await machine.way() == Way("eth0", True, is_strict)

    on_a_machine(test)


@pytest.mark.netns
def test_without_the_right_to_bind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before 5.7, and a process without CAP_NET_RAW."""

    def refuse(opened: socket.socket, way: Way | None) -> None:
        raise PermissionError(1, "Operation not permitted")

    async def test(machine: Machine) -> None:
        monkeypatch.setattr(underlay, "bind", refuse)
        assert await machine.way() == Way("eth0", False)

    on_a_machine(test)


@pytest.mark.netns
def test_a_bound_socket_does_not_see_the_tunnel() -> None:
    async def test(machine: Machine) -> None:
        for way, source in (
            (None, "10.98.0.1"),
            (Way("eth0", False), "10.98.0.1"),
            (Way("eth0", True), "198.51.100.9"),
        ):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
                bind(opened, way)
                opened.connect((str(RELAY), 9))
                assert opened.getsockname()[0] == source

    on_a_machine(test)


@pytest.mark.netns
def test_overlaps_of_a_tunnel_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they would be: by the prefixes of its own network and of the routes that lead elsewhere."""
    monkeypatch.setattr(underlay, "RESOLV_CONFS", [tmp_path / "none"])

    async def test(machine: Machine) -> None:
        machine.tun.close()
        planned = Underlay("candy")
        apart = await planned.overlaps(OWN, (), {RELAY: Way("eth0", True)})
        assert (apart.networks, len(apart.inside), apart.harms) == ([], 1, False)
        assert "it stays outside, on eth0" in apart.inside[0]
        assert (await planned.overlaps(OWN, (), {RELAY: Way("eth0", False)})).harms
        # A longer route goes on leading there.
        machine.ip("route", "add", f"{RELAY}/32", "via", "198.51.100.1")
        assert (await planned.overlaps(OWN, (), {RELAY: Way("eth0", False)})).inside == []
        machine.add("lan0", "10.98.64.1/24")
        lan = collision(OWN.network, "lan0", IPv4Network("10.98.64.0/24"))
        assert (await planned.overlaps(OWN, (), {})).networks == [lan]

    on_a_machine(test)


@pytest.mark.netns
def test_what_the_kernel_has_of_an_interface() -> None:
    async def test(machine: Machine) -> None:
        machine.ip("route", "add", "10.50.0.0/24", "dev", "candy")
        has = await holding("candy", OWN.ip)
        assert (has.is_up, has.holder) == (True, "candy")
        assert has.routes >= {OWN.network, IPv4Network("10.50.0.0/24")}
        machine.ip("link", "set", "candy", "down")
        has = await holding("candy", IPv4Address("198.51.100.9"))
        assert (has.is_up, has.holder, has.routes) == (False, "eth0", frozenset())
        assert await holding("none", IPv4Address("192.0.2.1")) == Holding(None, None, frozenset())

    on_a_machine(test)


@pytest.mark.netns
def test_each_overlap_is_told_once_while_it_lasts(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "candy.host.underlay")
    (tmp_path / "resolv.conf").write_text("nameserver 10.98.0.53\nnameserver 10.50.0.53\nnameserver 127.0.0.53\n")
    monkeypatch.setattr(underlay, "RESOLV_CONFS", [tmp_path / "resolv.conf"])

    async def test(machine: Machine) -> None:
        ways = {RELAY: Way("eth0", True), IPv4Address("192.0.2.1"): Way("eth0", True)}
        apart = "10.98.0.0/16 of the tunnel encloses 10.98.7.1, where the connection to the relay goes"
        first = (
            "10.98.0.0/16 of the tunnel encloses the name server 10.98.0.53: while names are not found, "
            "the relay is looked for at the addresses of last time"
        )
        for _ in range(2):
            await machine.underlay.review(OWN, [], ways)
            assert caplog.messages == [f"{apart}: it stays outside, on eth0", first]
        caplog.clear()
        # A route, a LAN, and a way that changes.
        machine.ip("route", "add", "10.50.0.0/24", "dev", "candy")
        machine.add("lan0", "10.98.64.1/24")
        ways[RELAY] = Way("wlan0", False)
        await machine.underlay.review(OWN, [IPv4Network("10.50.0.0/24")], ways)
        assert caplog.messages == [
            collision(OWN.network, "lan0", IPv4Network("10.98.64.0/24")),
            f"{apart}, and this process may not bind it to wlan0: run as root, or add CAP_NET_RAW",
            first.replace("10.98.0.0/16", "10.50.0.0/24").replace("10.98.0.53", "10.50.0.53"),
        ]
        caplog.clear()
        ways[RELAY] = Way("wlan0", True, is_strict=True)
        await machine.underlay.review(OWN, [], ways)
        assert caplog.messages == [
            f"{apart}: set net.ipv4.conf.wlan0.rp_filter to 2, or answers by wlan0 are dropped",
            # Of somebody's own.
            first.replace("10.98.0.0/16", "a route").replace("10.98.0.53", "10.50.0.53"),
        ]
        caplog.clear()
        # What is enclosed, and has a longer route elsewhere, is in nobody's way.
        machine.ip("route", "add", "10.98.7.0/24", "via", "198.51.100.1")
        await machine.underlay.review(OWN, [], ways)
        assert caplog.messages == []

    on_a_machine(test)


@pytest.mark.netns
def test_the_egress_is_interface_gateway_and_source() -> None:
    async def test(machine: Machine) -> None:
        assert "dev candy" in machine.ip("route", "get", str(RELAY))
        assert await machine.egress() == Egress("eth0", "198.51.100.1", "198.51.100.9")
        # On the cable, and of this machine itself.
        assert await machine.egress(IPv4Address("203.0.113.77")) == Egress("wlan0", None, "203.0.113.9")
        assert await machine.egress(IPv4Address("203.0.113.9")) == Egress("lo")
        # Another gateway, another source, another interface.
        machine.ip("route", "replace", "default", "via", "198.51.100.2", "metric", "100")
        assert await machine.egress() == Egress("eth0", "198.51.100.2", "198.51.100.9")
        machine.ip("address", "add", "198.51.100.8/24", "dev", "eth0")
        machine.ip("route", "replace", "default", "via", "198.51.100.2", "metric", "100", "src", "198.51.100.8")
        assert await machine.egress() == Egress("eth0", "198.51.100.2", "198.51.100.8")
        machine.ip("route", "add", "default", "via", "203.0.113.1", "metric", "50")
        assert await machine.egress() == Egress("wlan0", "203.0.113.1", "203.0.113.9")
        machine.ip("link", "set", "wlan0", "down")
        machine.ip("link", "set", "eth0", "down")
        assert await machine.egress() is None

    on_a_machine(test)


@pytest.mark.netns
def test_the_egress_of_a_connection_that_is_bound() -> None:
    """Another interface may be the way by now."""

    async def test(machine: Machine) -> None:
        by_cable = Egress("eth0", "198.51.100.1", "198.51.100.9")
        machine.ip("route", "add", "default", "via", "203.0.113.1", "metric", "50")
        assert await machine.egress(RELAY, "198.51.100.9", "eth0") == by_cable
        # Without a route it would look for its peer on the cable.
        machine.ip("route", "del", "default", "via", "198.51.100.1")
        assert await machine.egress(RELAY, "198.51.100.9", "eth0") == by_cable._replace(gateway=None)
        machine.ip("route", "add", "default", "via", "198.51.100.1", "metric", "100")
        machine.ip("address", "add", "198.51.100.8/24", "dev", "eth0")
        assert await machine.egress(RELAY, "198.51.100.9", "eth0") == by_cable
        machine.ip("address", "del", "198.51.100.9/24", "dev", "eth0")
        assert await machine.egress(RELAY, "198.51.100.9", "eth0") is None
        machine.ip("link", "del", "eth0")
        assert await machine.egress(RELAY, "203.0.113.9", "eth0") is None
        assert await machine.egress(RELAY, "203.0.113.9", "wlan0") == Egress("wlan0", "203.0.113.1", "203.0.113.9")

    on_a_machine(test)


@pytest.mark.netns
def test_the_egress_is_the_same_whether_the_tunnel_encloses_the_address_or_not() -> None:
    async def test(machine: Machine) -> None:
        before = await machine.egress()
        machine.tun.close()
        assert "dev eth0" in machine.ip("route", "get", str(RELAY))
        assert await machine.egress() == before

    on_a_machine(test)


@pytest.mark.netns
def test_the_egress_by_ipv6() -> None:
    def add(machine: Machine, address: str) -> None:
        machine.ip("address", "add", address, "dev", "eth0", "nodad")
        # The kernel gives it free a moment later, by a task of its own.
        while machine.ip("-6", "address", "show", "dev", "eth0", "tentative"):
            pass

    async def test(machine: Machine) -> None:
        far = IPv6Address("2001:db8:7::1")
        assert await machine.egress(far) is None
        add(machine, "2001:db8:1::9/64")
        machine.ip("route", "add", "default", "via", "2001:db8:1::1")
        assert await machine.egress(far) == Egress("eth0", "2001:db8:1::1", "2001:db8:1::9")
        machine.ip("address", "del", "2001:db8:1::9/64", "dev", "eth0")
        add(machine, "2001:db8:1::8/64")
        assert await machine.egress(far) == Egress("eth0", "2001:db8:1::1", "2001:db8:1::8")
        assert await machine.egress(far, "2001:db8:1::8") == await machine.egress(far)
        assert await machine.egress(far, "2001:db8:1::9") is None

    on_a_machine(test)
