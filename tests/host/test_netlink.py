"""candy.host.netlink against what pyroute2 says of the same machine, and against the kernel's refusals."""

import asyncio
import errno
import socket
import subprocess
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address

import pytest
from lab.namespaces import in_new_namespace

from candy.host.netlink import RTN_LOCAL, Link, Netlink, Refused

PROTOCOL = 202


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def machine() -> None:
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "eth0", "mtu", "1400", "type", "bridge")
    run("ip", "link", "set", "eth0", "up", "txqueuelen", "7")
    run("ip", "address", "add", "10.1.2.3/24", "dev", "eth0")
    run("ip", "address", "add", "10.9.0.1", "peer", "10.9.0.2/32", "dev", "eth0")
    run("ip", "-6", "address", "add", "fd00::1/64", "dev", "eth0", "nodad")
    run("ip", "route", "add", "default", "via", "10.1.2.1", "metric", "50")
    run("ip", "route", "add", "blackhole", "10.66.0.0/16")


Of = tuple[list[Link], list[tuple[int, str, int, str]], set[tuple[int, str]]]


def of_pyroute2() -> Of:
    from pyroute2 import AsyncIPRoute

    async def ask() -> Of:
        async with AsyncIPRoute() as netlink:
            links = [
                Link(
                    link["index"],
                    link.get("IFLA_IFNAME"),
                    bool(link["flags"] & 1),
                    bool(link["flags"] & 8),
                    link.get("IFLA_MTU"),
                    link.get("IFLA_TXQLEN"),
                    link.get("IFLA_GSO_MAX_SEGS"),
                    info.get("IFLA_INFO_KIND") if (info := link.get("IFLA_LINKINFO")) is not None else "",
                )
                async for link in await netlink.get_links()
            ]
            addresses = [
                (its["index"], its.get("IFA_LOCAL"), its["prefixlen"], its.get("IFA_LABEL"))
                async for its in await netlink.get_addr(family=socket.AF_INET)
            ]
            owned = {
                (its["index"], its.get("IFA_LOCAL") or its.get("IFA_ADDRESS"))
                for family in (socket.AF_INET, socket.AF_INET6)
                async for its in await netlink.get_addr(family=family)
            }
            return links, addresses, owned

    return asyncio.run(ask())


@pytest.mark.netns
def test_what_another_library_says_too() -> None:
    def test() -> None:
        machine()
        links, addresses, owned = of_pyroute2()
        with Netlink() as kernel:
            assert {(each.ifindex, str(each.ip)) for each in kernel.owned()} == owned
            assert "fd00::1" in {str(each.ip) for each in kernel.owned()}
            assert kernel.links() == links
            assert [
                (a.ifindex, str(a.own.ip), a.own.network.prefixlen, a.label) for a in kernel.addresses()
            ] == addresses
            index = socket.if_nametoindex("eth0")
            assert kernel.link(index) == next(link for link in links if link.name == "eth0")
            assert {a.own for a in kernel.addresses(index)} == {
                IPv4Interface("10.1.2.3/24"),
                IPv4Interface("10.9.0.1/32"),
            }
            assert IPv4Network("10.9.0.2/32") in {a.network for a in kernel.addresses(index)}

    in_new_namespace(test)


@pytest.mark.netns
def test_the_way_to_an_address() -> None:
    def test() -> None:
        machine()
        index = socket.if_nametoindex("eth0")
        with Netlink() as kernel:
            away = kernel.lookup(IPv4Address("8.8.8.8"))
            assert (away.ifindex, away.gateway, away.source) == (index, "10.1.2.1", "10.1.2.3")
            its = kernel.match(IPv4Address("8.8.8.8"))
            assert (its.destination, its.metric) == (IPv4Network("0.0.0.0/0"), 50)
            assert kernel.match(IPv4Address("10.1.2.77"), index).destination == IPv4Network("10.1.2.0/24")
            assert kernel.lookup(IPv4Address("10.1.2.3")).kind == RTN_LOCAL
            near = kernel.lookup(IPv6Address("fd00::2"))
            assert (near.ifindex, near.gateway, near.source) == (index, None, "fd00::1")
            for unreachable in (IPv4Address("10.66.1.1"), IPv6Address("2001:db8::1")):
                with pytest.raises(Refused):
                    kernel.lookup(unreachable)

    in_new_namespace(test)


@pytest.mark.netns
@pytest.mark.parametrize("is_strict", [True, False])
def test_routes_by_one_interface(monkeypatch: pytest.MonkeyPatch, is_strict: bool) -> None:
    if not is_strict:
        monkeypatch.setattr("candy.host.netlink.NETLINK_GET_STRICT_CHK", 9999)

    def test() -> None:
        machine()
        index, network, own = socket.if_nametoindex("eth0"), IPv4Network("10.5.0.0/16"), IPv4Address("10.1.2.3")
        with Netlink() as kernel:
            kernel.add_route(network, index, own, PROTOCOL)
            [ours] = kernel.routes(index, PROTOCOL)
            assert (ours.destination, ours.source, ours.protocol) == (network, str(own), PROTOCOL)
            assert {str(route.destination) for route in kernel.routes(index)} == {
                "0.0.0.0/0",
                "10.1.2.0/24",
                "10.5.0.0/16",
                "10.9.0.2/32",
            }
            with pytest.raises(Refused) as refused:
                kernel.add_route(network, index, own, PROTOCOL)
            assert refused.value.errno == errno.EEXIST
            kernel.delete_route(network, index, PROTOCOL)
            assert kernel.routes(index, PROTOCOL) == []
            with pytest.raises(Refused) as refused:
                kernel.delete_route(network, index, PROTOCOL)
            assert refused.value.errno == errno.ESRCH

    in_new_namespace(test)


@pytest.mark.netns
def test_an_interface_is_changed() -> None:
    def test() -> None:
        machine()
        index, address = socket.if_nametoindex("eth0"), IPv4Interface("10.7.0.1/16")
        with Netlink() as kernel:
            kernel.set_link(index, mtu=1300, queue=9, segments=64)
            link = kernel.link(index)
            assert (link.mtu, link.queue, link.segments, link.is_up) == (1300, 9, 64, True)
            kernel.add_address(index, address)
            with pytest.raises(Refused) as refused:
                kernel.add_address(index, address)
            assert refused.value.errno == errno.EEXIST
            kernel.delete_address(index, address)
            assert address not in {its.own for its in kernel.addresses()}
            run("ip", "link", "set", "eth0", "down")
            assert not kernel.link(index).is_up
            kernel.set_link(index, is_up=True)
            assert kernel.link(index).is_up
            with pytest.raises(Refused) as refused:
                kernel.link(4711)
            assert refused.value.errno == errno.ENODEV

    in_new_namespace(test)


@pytest.mark.netns
def test_a_list_of_many_answers() -> None:
    """Longer than one answer of the kernel's."""

    def test() -> None:
        machine()
        index = socket.if_nametoindex("eth0")
        wanted = {IPv4Network((0x0B000000 + (number << 8), 24)) for number in range(2000)}
        with Netlink() as kernel:
            for network in wanted:
                kernel.add_route(network, index, IPv4Address("10.1.2.3"), PROTOCOL)
            assert {route.destination for route in kernel.routes(index, PROTOCOL)} == wanted

    in_new_namespace(test)
