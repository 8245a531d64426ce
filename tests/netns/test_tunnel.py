"""Packets between two hosts, through interfaces of the real clients and the real relay."""

import signal

import pytest
from lab.laboratory import Client, Laboratory
from lab.programs import RelayProgram
from lab.traffic import MEGABYTE, exchange_datagrams, ping, transfer

pytestmark = pytest.mark.netns

BYTES = 200 * MEGABYTE


@pytest.fixture
def relay(laboratory: Laboratory) -> RelayProgram:
    return laboratory.relay()


@pytest.fixture
def clients(relay: RelayProgram, laboratory: Laboratory) -> tuple[Client, Client]:
    """Two, connected, with dynamic addresses."""
    # What the relay carries is counted.
    pair = laboratory.client(), laboratory.client()
    for one in pair:
        one.connected()
    return pair


def test_ping_both_ways(clients: tuple[Client, Client]) -> None:
    here, there = clients
    for one, other in ((here, there), (there, here)):
        assert " 0% packet loss" in ping(one.host, other.connected())
        # The longest that the interface's MTU of 1400 takes, and one in two fragments.
        assert " 0% packet loss" in ping(one.host, other.connected(), "-M", "do", "-s", "1372")
        assert " 0% packet loss" in ping(one.host, other.connected(), "-s", "2000")


def test_200_megabytes_in_both_directions_at_once(relay: RelayProgram, clients: tuple[Client, Client]) -> None:
    here, there = clients
    transfer(here.host, there.host, there.connected(), BYTES)
    assert relay.counters()["bytes_in"] > 2 * BYTES


def test_udp_of_all_sizes(clients: tuple[Client, Client]) -> None:
    here, there = clients
    exchange_datagrams(here.host, there.host, here.connected(), there.connected())


def test_static_and_dynamic_addresses(laboratory: Laboratory) -> None:
    relay = laboratory.relay()
    static = laboratory.client("-t", "192.168.202.77/24", "--mtu", "1200")
    assert static.connected() == "192.168.202.77"
    link = static.host.run("ip", "-4", "address", "show", "candy")
    assert " inet 192.168.202.77/24 " in link
    assert " mtu 1200 " in link
    dynamic = laboratory.client("-n", "home")
    own = dynamic.connected()
    assert f" inet {own}/24 " in dynamic.host.run("ip", "-4", "address", "show", "candy-home")
    assert " 0% packet loss" in ping(dynamic.host, "192.168.202.77")
    # It asks for the same one again.
    dynamic.signal(signal.SIGTERM)
    assert dynamic.wait() == 0
    start = len(relay.lines)
    other = laboratory.client()
    assert other.connected() != own
    assert laboratory.client("-n", "home", host=dynamic.host).connected() == own
    relay.wait_for(f"logged in as {own}", start)


def test_a_second_client_on_one_host(laboratory: Laboratory) -> None:
    """field: with one VMAC both asked for one address, and each replaced the other."""
    relay = laboratory.relay()
    first = laboratory.client()
    own = first.connected()
    second = laboratory.client("-n", "b", host=first.host)
    other = second.connected()
    # It comes back as the same.
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    third = laboratory.client()
    assert len({own, other, third.connected()}) == 3
    assert laboratory.client("-n", "b", host=first.host).connected() == other
    assert not any("replaced" in line for line in (*relay.lines, *first.lines))
    assert " 0% packet loss" in ping(third.host, own)


def test_forty_clients_at_once(laboratory: Laboratory) -> None:
    relay = laboratory.relay()
    hosts = [laboratory.host() for _ in range(40)]
    clients = [laboratory.client(host=host) for host in hosts]
    addresses = [client.connected() for client in clients]
    assert len(set(addresses)) == 40
    for client, neighbour in zip(clients, addresses[1:] + addresses[:1], strict=True):
        assert " 0% packet loss" in ping(client.host, neighbour, "-c", "1")
    for client in clients:
        client.signal(signal.SIGTERM)
    assert [client.wait() for client in clients] == [0] * 40
    assert relay.counters()["connections"] == 0
