"""A gateway that hides its LAN behind its own address: what works through it, and that nothing is left of it."""

import signal
from contextlib import ExitStack

import pytest
from lab.laboratory import PORT, Laboratory
from lab.lans import FAR, FAR_LAN, NEAR_LAN, ONE, RULES, TWO, Site, routed
from lab.namespaces import Ethernet
from lab.original import OriginalRelay, entry
from lab.traffic import MEGABYTE, ping, transfer

pytestmark = pytest.mark.netns


QUIET = """
table ip quiet {
    chain input {
        type filter hook input priority 0;
        meta l4proto icmp drop
    }
}
"""


@pytest.fixture
def gateway(laboratory: Laboratory, stack: ExitStack) -> Site:
    """One whose LAN knows nothing of other networks, and which does not forward."""
    site = Site(laboratory, stack, 2, route=False)
    assert site.forwards() == "0"
    return site


def test_a_gateway_with_masquerade(laboratory: Laboratory, gateway: Site) -> None:
    relay = OriginalRelay(laboratory.hub, (Ethernet.ADDRESS, PORT), extended=True)
    with relay:
        client = laboratory.client("-t", f"{TWO}/24", "--masquerade", host=gateway.gateway)
        client.connected()
        member = laboratory.client("-t", f"{ONE}/24")
        member.connected()
        relay.tell_set(ONE, entry(FAR_LAN, TWO))
        routed(member, FAR_LAN)
        assert gateway.forwards() == "1"
        # The LAN sees its own gateway, which it can answer to.
        assert transfer(member.host, gateway.host, FAR, 2 * MEGABYTE) == "10.2.0.1"
        assert " 0% packet loss" in ping(member.host, FAR)
        # From the LAN, once that knows where the network is, members see the gateway.
        gateway.host.run("ip", "route", "add", "192.168.202.0/24", "via", "10.2.0.1")
        assert transfer(gateway.host, member.host, ONE, 2 * MEGABYTE) == TWO
        client.signal(signal.SIGTERM)
        assert client.wait() == 0
    nothing_left(gateway)


@pytest.mark.parametrize("sender", ["near", "far"])
def test_a_lan_that_lets_no_icmp_in(laboratory: Laboratory, stack: ExitStack, sender: str) -> None:
    """F16: site to site by two gateways, "0 bytes; with an MSS clamp in both gateways all is well"."""
    sites = {"near": Site(laboratory, stack, 1), "far": Site(laboratory, stack, 2)}
    laboratory.relay("--sdwan", RULES)
    for site, lan in zip(sites.values(), (FAR_LAN, NEAR_LAN), strict=True):
        routed(laboratory.client("-t", f"{site.own}/24", "--masquerade", host=site.gateway), lan)
        site.host.run("nft", QUIET)
    here = sites.pop(sender)
    [there] = sites.values()
    transfer(here.host, there.host, there.address, 2 * MEGABYTE)


def nothing_left(site: Site) -> None:
    """No interface, route, rule or setting of the client's."""
    assert site.gateway.run("nft", "list", "ruleset") == ""
    assert site.forwards() == "0"
    assert "candy" not in site.gateway.run("ip", "link") + site.gateway.run("ip", "route", "show", "table", "all")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_gateway_leaves_nothing(laboratory: Laboratory, gateway: Site, number: int) -> None:
    with OriginalRelay(laboratory.hub, (Ethernet.ADDRESS, PORT)) as relay:
        relay.rules = {TWO: [[entry(NEAR_LAN, ONE)]]}
        client = laboratory.client("-t", f"{TWO}/24", "--masquerade", host=gateway.gateway)
        routed(client, NEAR_LAN)
        assert "candy-masquerade" in gateway.gateway.run("nft", "list", "ruleset")
        client.signal(number)
        assert client.wait() == 0
        nothing_left(gateway)


def test_a_killed_gateway_starts_again(laboratory: Laboratory, gateway: Site) -> None:
    client = laboratory.client("-t", f"{TWO}/24", "--masquerade", host=gateway.gateway)
    client.wait_for("refused.*trying again")
    client.signal(signal.SIGKILL)
    client.wait()
    assert gateway.forwards() == "1"
    again = laboratory.client("-t", f"{TWO}/24", "--masquerade", host=gateway.gateway)
    again.wait_for("refused.*trying again")
    rules = gateway.gateway.run("nft", "list", "ruleset")
    assert rules.count("table") == 2
    assert rules.count(" masquerade\n") == 2
    again.signal(signal.SIGTERM)
    assert again.wait() == 0
    nothing_left(gateway)


def test_a_gateway_that_ends_with_an_error_leaves_nothing(laboratory: Laboratory, gateway: Site) -> None:
    with OriginalRelay(laboratory.hub, (Ethernet.ADDRESS, PORT)):
        client = laboratory.client("-t", f"{TWO}/24", "--masquerade", host=gateway.gateway)
        client.connected()
        gateway.gateway.run("ip", "link", "del", "candy")
        client.wait_for("candy-client: interface candy was removed from outside: start again")
        assert client.wait() == 1
    nothing_left(gateway)
