"""What other programs take away from a running client, or relay, is there again: F4, F5, F6 and their siblings."""

import signal
import time
from contextlib import ExitStack

import pytest
from lab.laboratory import Client, Laboratory
from lab.lans import Site, routed
from lab.programs import PATIENCE_S, Program

pytestmark = pytest.mark.netns

LAN = "192.168.50.0/24"
RULE = f"192.168.202.0/24,{LAN},192.168.202.2"
CHANGED = r"WARNING candy was changed from outside, setting it right: "


def state(client: Client) -> str:
    """Of its interface, as `ip` shows it."""
    there = client.host
    shown = there.run("ip", "-4", "-o", "address", "show", "dev", "candy") + there.run(
        "ip", "-o", "link", "show", "dev", "candy"
    )
    return shown + there.run("ip", "route", "show", "dev", "candy")


@pytest.fixture
def relay(laboratory: Laboratory) -> Program:
    return laboratory.relay("--sdwan", RULE)


@pytest.fixture
def client(laboratory: Laboratory, relay: Program) -> Client:
    client = laboratory.client()
    assert client.connected() == "192.168.202.1"
    routed(client, LAN)
    return client


@pytest.mark.parametrize(
    ("commands", "what"),
    [
        (["address flush dev candy"], r"address 192\.168\.202\.1/24, route to .*192\.168\.50\.0/24"),
        (["link set candy down", "link set candy up"], r"route to 192\.168\.50\.0/24$"),
        (["link set candy down"], r"state up, .*route to 192\.168\.50\.0/24"),
        (["route flush dev candy"], r"route to 192\.168\.202\.0/24, route to 192\.168\.50\.0/24$"),
        (["link set candy mtu 1280"], r"MTU 1400$"),
    ],
)
def test_the_interface_is_as_it_was(client: Client, relay: Program, commands: list[str], what: str) -> None:
    """F4 and F5, "gone for good", or until the next reconnect."""
    before = state(client)
    for command in commands:
        client.host.run("ip", *command.split())
    client.wait_for(CHANGED + what)
    assert sorted(state(client).splitlines()) == sorted(before.splitlines())
    # The connection went on, and nothing else was said.
    assert len([line for line in client.lines if "WARNING" in line]) == 1
    assert not [line for line in relay.lines if "logged out" in line]


def test_an_interface_that_is_taken_away_while_there_is_no_connection(client: Client, relay: Program) -> None:
    relay.close()
    client.wait_for("cannot connect to the relay.*trying again")
    client.host.run("ip", "link", "del", "candy")
    client.wait_for("candy-client: interface candy was removed from outside: start again")
    assert client.wait() == 1


def test_an_address_comes_back_while_there_is_no_connection(client: Client, relay: Program) -> None:
    before = state(client)
    relay.close()
    client.wait_for("cannot connect to the relay.*trying again")
    client.host.run("ip", "address", "flush", "dev", "candy")
    client.wait_for(CHANGED + r"address 192\.168\.202\.1/24")
    assert sorted(state(client).splitlines()) == sorted(before.splitlines())


def test_rules_are_flushed_on_a_gateway(laboratory: Laboratory, stack: ExitStack) -> None:
    """F6: "no table, no word"."""
    laboratory.relay("--sdwan", RULE)
    site = Site(laboratory, stack, 2, route=False)
    client = laboratory.client("-t", f"{site.own}/24", "--masquerade", host=site.gateway)
    client.connected()
    before = site.gateway.run("nft", "list", "ruleset")
    site.gateway.run("nft", "flush", "ruleset")
    client.wait_for(CHANGED + "nftables table candy-ip-forward-was-off, nftables table candy-masquerade$")
    assert sorted(site.gateway.run("nft", "list", "ruleset").splitlines()) == sorted(before.splitlines())
    with site.gateway:
        site.gateway.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
    client.wait_for(CHANGED + r"net\.ipv4\.ip_forward 1$")
    assert site.forwards() == "1"
    client.signal(signal.SIGTERM)
    assert client.wait() == 0
    assert site.forwards() == "0"
    assert site.gateway.run("nft", "list", "ruleset") == ""


def test_the_relays_own_interface(laboratory: Laboratory) -> None:
    relay = laboratory.relay("-t", "192.168.202.2/24")
    relay.wait_for("this machine is .* on interface candy-server")
    laboratory.hub.run("ip", "address", "flush", "dev", "candy-server")
    relay.wait_for(
        r"WARNING candy-server was changed from outside, setting it right: address 192\.168\.202\.2/24, "
        r"route to 192\.168\.202\.0/24$"
    )
    # Said before it is done.
    deadline = time.monotonic() + PATIENCE_S
    while "inet 192.168.202.2/24 " not in laboratory.hub.run("ip", "-4", "address", "show", "dev", "candy-server"):
        assert time.monotonic() < deadline
    laboratory.hub.run("ip", "link", "del", "candy-server")
    relay.wait_for("interface candy-server was removed from outside: restart to have it back")
    relay.signal(signal.SIGTERM)
    assert relay.wait() == 0
