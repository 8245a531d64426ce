"""Direct links of members that have two ways to each other, while the one in use goes, comes back, narrows or slows."""

import pytest
from lab.cables import Cable
from lab.laboratory import Laboratory
from lab.linked import EACH_S, Pair
from lab.traffic import Stream, ping
from lab.ways import DETOUR, HUB, Detour

from candy.member.trial import HELD_S

pytestmark = pytest.mark.netns

HUB6 = "2a00:98::/64"
"""Global addresses of the same hosts: not as near as those of their LAN."""


def test_a_family_is_cut(laboratory: Laboratory) -> None:
    """Of two that both members have: the other one takes over, until it is back."""
    laboratory.relay()
    hosts = [laboratory.host() for _ in range(2)]
    for number, host in enumerate(hosts, 2):
        host.run("ip", "address", "add", f"2a00:98::{number}/64", "dev", "eth0", "nodad")
        host.run("nft", "add table inet cut; add chain inet cut in { type filter hook input priority 0; }")
    pair = Pair(laboratory, hosts)
    pair.start()
    pair.until_at(HUB)
    with Stream(hosts[0], hosts[1], pair.its) as stream:
        since = len(pair.answered())
        for host in hosts:
            host.run("nft", "add rule inet cut in meta nfproto ipv4 meta l4proto udp drop")
        pair.until_at(HUB6)
        stream.wait(20)
        for host in hosts:
            host.run("nft", "flush chain inet cut in")
        pair.until_at(HUB)
        stream.wait(20)
    print(f"longest gap: {pair.longest_gap(since):.2f} s")
    assert pair.longest_gap(since) < 5


def test_a_network_card_goes(laboratory: Laboratory) -> None:
    """By which its member reaches the relay as well: the link goes on by another one, until it is back."""
    laboratory.relay()
    hosts = [laboratory.host() for _ in range(2)]
    detour = Detour(laboratory, *hosts)
    detour.narrow(1420)
    pair = Pair(laboratory, hosts)
    pair.start()
    pair.until_at(HUB)
    with Stream(hosts[0], hosts[1], pair.its) as stream:
        since, lines = len(pair.answered()), len(pair.other.lines)
        hosts[1].run("ip", "link", "set", "eth0", "down")
        pair.until_at(DETOUR)
        pair.until(path="direct", mtu=1420)
        stream.wait(20)
        pair.other.wait_for("no success|trying again", lines)
        pair.wait(20)
        hosts[1].run("ip", "link", "set", "eth0", "up")
        pair.other.connected(lines)
        pair.until_at(HUB)
        pair.until(path="direct", mtu=1500)
        stream.wait(20)
    print(f"longest gap: {pair.longest_gap(since):.2f} s")
    assert pair.longest_gap(since) < 5


def test_a_way_becomes_slow(laboratory: Laboratory) -> None:
    """A worse one is better than that, for as long as it is slow."""
    laboratory.relay()
    hosts = [laboratory.host() for _ in range(2)]
    Detour(laboratory, *hosts).narrow(1420)
    with Cable(laboratory.hub, hosts[1]) as cable:
        pair = Pair(laboratory, hosts)
        pair.start()
        pair.until_at(HUB)
        with Stream(hosts[0], hosts[1], pair.its) as stream:
            # The detour was the path at first, perhaps, and was left for this one.
            pair.wait(round(HELD_S[0] / EACH_S))
            pair.until_at(HUB)
            lines, since = len(pair.one.lines), len(pair.answered())
            cable.delay_s = 0.03
            pair.until_at(DETOUR)
            print(f"taken after {(len(pair.answered()) - since) * EACH_S:.2f} s")
            stream.wait(20)
            cable.delay_s = 0
            pair.until_at(HUB)
            stream.wait(20)
        assert not pair.left(lines)
        pair.one.close()
        pair.other.close()


def test_a_way_becomes_narrow_under_a_stream(laboratory: Laboratory) -> None:
    """And no router says so."""
    laboratory.relay()
    hosts = [laboratory.host() for _ in range(2)]
    detour = Detour(laboratory, *hosts)
    detour.silence()
    for host in hosts:
        laboratory.hub.run("bridge", "link", "set", "dev", host.port, "isolated", "on")
    pair = Pair(laboratory, hosts)
    pair.start()
    pair.until_at(DETOUR)
    pair.until(path="direct", mtu=1500)
    with Stream(hosts[0], hosts[1], pair.its) as stream:
        detour.narrow(1280)
        pair.until(path="direct", mtu=1280)
        stream.wait(20)
        # What is too long for the link now goes by the relay.
        assert " 0% packet loss" in ping(hosts[0], pair.its, "-s", "1372", "-M", "do")
    pair.until_at(DETOUR)
