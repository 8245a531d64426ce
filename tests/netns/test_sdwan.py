"""Networks behind members: hosts of two LANs reach each other through gateways that are members.

lab/lans.py draws them; gateways that hide their LAN are in test_masquerade.py.
"""

import re
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab.laboratory import Laboratory
from lab.lans import FAR, FAR_LAN, NEAR, NEAR_LAN, ONE, RULES, TWO, Lans, routed, unrouted
from lab.member import packet
from lab.namespaces import Ethernet, Namespace
from lab.original import entry
from lab.programs import PATIENCE_S
from lab.traffic import MEGABYTE, connect, ping, transfer

pytestmark = pytest.mark.netns


@pytest.fixture
def lans(laboratory: Laboratory, stack: ExitStack) -> Lans:
    return Lans(laboratory, stack)


def hops(host: Namespace, destination: str) -> list[str]:
    """Who answers to packets that live for one hop, two, …, up to the destination: as traceroute shows it."""
    found = []
    for ttl in range(1, 9):
        answer = ping(host, destination, "-t", str(ttl), "-c", "1")
        if expired := re.search(r"From (\S+) .*Time to live exceeded", answer):
            found.append(expired[1])
        else:
            assert f"bytes from {destination}" in answer, answer
            return [*found, destination]
    raise AssertionError(f"{destination} is more than 8 hops away: {found}")


def reach_each_other(lans: Lans) -> None:
    near, far = lans.near, lans.far
    for one, other in ((near, far), (far, near)):
        assert " 0% packet loss" in ping(one.host, other.address)
        # The longest that fits, one that the gateway's kernel has to refuse, and one in fragments.
        assert " 0% packet loss" in ping(one.host, other.address, "-M", "do", "-s", "1372")
        assert re.search("mtu ?= ?1400", ping(one.host, other.address, "-M", "do", "-s", "1373"))
        assert " 0% packet loss" in ping(one.host, other.address, "-s", "3000")
        # The gateways themselves as well.
        assert " 0% packet loss" in ping(one.gateway, other.address)
    # Each gateway's kernel takes one off the TTL, the relay and the network nothing.
    assert hops(near.host, FAR) == ["10.1.0.1", TWO, FAR]
    assert hops(far.host, NEAR) == ["10.2.0.1", ONE, NEAR]
    # The addresses are the hosts' own.
    assert transfer(near.host, far.host, FAR, 2 * MEGABYTE) == NEAR
    assert transfer(far.host, near.host, NEAR, 2 * MEGABYTE) == FAR


def test_hosts_of_two_lans_at_our_relay(lans: Lans) -> None:
    relay = lans.laboratory.relay("--sdwan", RULES)
    near, far = lans.connect()
    routed(near, FAR_LAN)
    routed(far, NEAR_LAN)
    reach_each_other(lans)
    drops = relay.counters()
    assert (drops["dropped spoofed_source"], drops["dropped no_route"]) == (0, 0)


def test_three_lans(laboratory: Laboratory, stack: ExitStack) -> None:
    """Each is told the other two: one by a rule for everybody, of which the next hop itself is excepted."""
    lans = Lans(laboratory, stack, 3)
    laboratory.relay("--sdwan", ";".join(f"192.168.202.0/24,10.{n}.0.0/16,192.168.202.{n}" for n in (1, 2, 3)))
    clients = [lans.join(site) for site in lans.sites]
    for one, client in zip(lans.sites, clients, strict=True):
        others = [site for site in lans.sites if site is not one]
        for other in others:
            routed(client, other.lan)
        assert one.routes() == [other.lan for other in others]
    for one in lans.sites:
        for other in lans.sites:
            assert " 0% packet loss" in ping(one.host, other.address)
    for one, other in zip(lans.sites, lans.sites[1:] + lans.sites[:1], strict=True):
        assert transfer(one.host, other.host, other.address, MEGABYTE) == one.address


def test_rules_of_our_relay_change_while_traffic_flows(lans: Lans, tmp_path: Path) -> None:
    """A member with candy.2 gets the new set; one without is closed with 1012, comes back, and gets it then. What is
    open over the gateways survives both."""
    file = tmp_path / "relay.toml"

    def write(*rules: str) -> None:
        file.write_text(f'dhcp = "192.168.202.0/24"\nsdwan = "{";".join((RULES, *rules))}"\n')

    write()
    relay = lans.laboratory.relay("-c", str(file))
    near, far = lans.join(lans.near), lans.join(lans.far, "--no-extension")
    routed(near, FAR_LAN)
    routed(far, NEAR_LAN)
    here, there = connect(lans.near.host, lans.far.host, FAR)
    with here, there:
        for number in range(3):
            start = len(near.lines), len(far.lines)
            here.sendall(b"before")
            if number < 2:
                write(f"{ONE}/32,10.{50 + number}.0.0/16,{TWO}")
            else:
                write(f"{TWO}/32,10.60.0.0/16,{ONE}")
            relay.signal(signal.SIGHUP)
            if number < 2:
                routed(near, f"10.{50 + number}.0.0/16", start[0])
                assert lans.near.routes() == [FAR_LAN, f"10.{50 + number}.0.0/16"]
            else:
                unrouted(near, "10.51.0.0/16", start[0])
                routed(far, "10.60.0.0/16", start[1])
                assert lans.far.routes() == [NEAR_LAN, "10.60.0.0/16"]
            here.sendall(b"after!")
            received = there.recv(100)
            while len(received) < len(b"beforeafter!"):
                received += there.recv(100)
            assert received == b"beforeafter!"
    # Other people's debugging is not shown.
    assert not any("RTM_" in line for line in near.lines)
    # The one that gets sets never lost its connection.
    assert not any("trying again" in line for line in near.lines)


@pytest.mark.parametrize("flags", [(), ("--no-offload",)])
def test_hosts_of_two_lans_at_an_original_server(lans: Lans, flags: tuple[str, ...]) -> None:
    """field: "existing peers hold at most 1500 bytes of payload per frame", wrapped packets and TCP's super-packets of
    64 KB included."""
    relay = lans.original()
    near, far = lans.connect(*flags)
    routed(near, FAR_LAN)
    routed(far, NEAR_LAN)
    reach_each_other(lans)
    # "Ours writes a complete, valid outer header": version, length, TTL, protocol, checksum.
    assert relay.wrapped
    for outer in relay.wrapped:
        total = sum(int.from_bytes(outer[at : at + 2], "big") for at in range(0, 20, 2))
        assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
        assert (outer[0], outer[9]) == (0x45, 4)
        assert outer[8] >= 64
    assert relay.longest == 1 + 20 + 1400


def test_the_longest_packet_fits_an_original_server(lans: Lans) -> None:
    """field: 1500 bytes of payload are the most; so "client MTU 576-1479 (so that 20 bytes of IPIP and the kind still
    fit 1500)"."""
    relay = lans.original()
    near, far = lans.connect("--mtu", "1479")
    routed(near, FAR_LAN)
    routed(far, NEAR_LAN)
    assert " 0% packet loss" in ping(lans.near.host, FAR, "-M", "do", "-s", str(1479 - 28))
    transfer(lans.near.host, lans.far.host, FAR, MEGABYTE)
    assert relay.longest == 1500


def test_a_packet_of_an_old_gateway(lans: Lans) -> None:
    """field: "SD-WAN packets of old clients have an outer header that is all zero but for protocol 4, source and
    destination": the next hop strips it, and its kernel forwards what is within."""
    relay = lans.original()
    _, far = lans.connect()
    routed(far, NEAR_LAN)
    with lans.far.host:
        host = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with host:
        host.bind((FAR, 5000))
        host.settimeout(PATIENCE_S)
        # A UDP checksum of 0 is none.
        inner = packet(NEAR, FAR, bytes.fromhex("1389 1388 000d 0000") + b"hello")
        relay.forward(bytes(9) + b"\x04" + bytes(2) + socket.inet_aton(ONE) + socket.inet_aton(TWO) + inner)
        assert host.recvfrom(100) == (b"hello", (NEAR, 5001))


def test_rules_change_while_traffic_flows(lans: Lans) -> None:
    relay = lans.original(extended=True)
    near, far = lans.connect()
    relay.tell_set(ONE, entry(FAR_LAN, TWO))
    relay.tell_set(TWO, entry(NEAR_LAN, ONE))
    routed(near, FAR_LAN)
    routed(far, NEAR_LAN)
    with lans.near.host:
        arguments = ["ping", "-i", "0.01", "-c", "100", "-W", "10", FAR]
        pinging = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    with pinging:
        assert pinging.stdout is not None
        while " bytes from " not in pinging.stdout.readline():
            assert pinging.poll() is None
        for number in range(5):
            start = len(near.lines)
            # A new one before the old ones, a set in two messages, and one less again.
            extra = f"10.{100 + number}.0.0/16"
            relay.tell(ONE, [entry(extra, TWO)], flags=1)
            relay.tell(ONE, [entry(FAR_LAN, TWO)], flags=2)
            routed(near, extra, start)
            assert lans.near.routes() == [FAR_LAN, extra]
            relay.tell_set(ONE, entry(FAR_LAN, TWO))
            unrouted(near, extra, start)
        rest = pinging.stdout.read()
    assert " 0% packet loss" in rest
    transfer(lans.near.host, lans.far.host, FAR, MEGABYTE)
    # Withdrawn, an own next hop, and told again.
    relay.tell_set(ONE)
    unrouted(near, FAR_LAN)
    assert lans.near.routes() == []
    start = len(near.lines)
    relay.tell_set(ONE, entry("10.3.0.0/16", ONE), entry("10.4.0.0/16", TWO))
    routed(near, "10.4.0.0/16", start)
    assert lans.near.routes() == ["10.4.0.0/16"]
    assert "Network is unreachable" in lans.near.gateway.run("ip", "route", "get", FAR, check=False)
    relay.tell_set(ONE, entry(FAR_LAN, TWO))
    routed(near, FAR_LAN, start)
    assert " 0% packet loss" in ping(lans.near.host, FAR)


def test_an_original_server_adds_and_a_reconnect_starts_afresh(lans: Lans) -> None:
    """field: "within one connection entries accumulate, first match wins, and only a reconnect starts afresh". What is
    open through the gateways survives it."""
    relay = lans.original()
    near, far = lans.connect()
    routed(near, FAR_LAN)
    routed(far, NEAR_LAN)
    relay.tell(ONE, [entry("10.3.0.0/16", TWO)])
    relay.tell(ONE, [entry(FAR_LAN, "192.168.202.9"), entry("10.4.0.0/16", TWO)])
    routed(near, "10.4.0.0/16")
    assert lans.near.routes() == [FAR_LAN, "10.3.0.0/16", "10.4.0.0/16"]
    here, there = connect(lans.near.host, lans.far.host, FAR)
    with here, there:
        here.sendall(b"before")
        assert there.recv(100) == b"before"
        relay.rules[ONE] = [[entry(FAR_LAN, TWO)], [entry("10.5.0.0/16", TWO)]]
        relay.hang_up(ONE)
        here.sendall(b"meanwhile")
        # The routes stay meanwhile, so that nothing goes astray.
        assert lans.near.routes() == [FAR_LAN, "10.3.0.0/16", "10.4.0.0/16"]
        routed(near, "10.5.0.0/16")
        unrouted(near, "10.4.0.0/16")
        assert lans.near.routes() == [FAR_LAN, "10.5.0.0/16"]
        assert there.recv(100) == b"meanwhile"
        there.sendall(b"after")
        assert here.recv(100) == b"after"


def test_a_dynamic_address_changes(lans: Lans) -> None:
    """The kernel's routes, their source, the outer header and what is unwrapped follow."""
    relay = lans.original(extended=True)
    near, far = lans.laboratory.client(host=lans.near.gateway), lans.join(lans.far)
    for own in ("192.168.202.77", "192.168.202.78"):
        start = len(near.lines), len(far.lines)
        if own != relay.grant.partition("/")[0]:
            relay.grant = f"{own}/24"
            relay.hang_up("192.168.202.77")
            near.wait_for(f"granted {own}/24 in place of 192.168.202.77/24", start[0])
        relay.tell_set(own, entry(FAR_LAN, TWO))
        relay.tell_set(TWO, entry(NEAR_LAN, own))
        routed(near, FAR_LAN, start[0])
        far.wait_for(f"{NEAR_LAN} is reached through {own}", start[1])
        shown = near.host.run("ip", "route", "show", FAR_LAN)
        assert shown.split() == [FAR_LAN, "dev", "candy", "proto", "202", "scope", "link", "src", own]
        assert " 0% packet loss" in ping(lans.near.host, FAR)
        assert " 0% packet loss" in ping(lans.near.gateway, FAR)
    unrouted(near, FAR_LAN)


def test_what_would_cut_the_relay_off_is_refused(lans: Lans) -> None:
    relay = lans.original(extended=True)
    near, _ = lans.connect()
    lans.near.gateway.run("ip", "route", "add", "172.16.0.0/12", "via", Ethernet.ADDRESS)
    refused = {
        "0.0.0.0/0": "it is more than a /8",
        "10.0.0.0/24": "this machine is part of 10.0.0.0/24 by eth0",
        "10.0.0.1/32": "this machine is part of 10.0.0.0/24 by eth0",
        "10.1.0.0/16": "this machine is part of 10.1.0.0/16 by lan0",
        "172.16.0.0/12": "there is a route already",
        "192.168.202.0/24": "this machine is part of 192.168.202.0/24 by candy",
    }
    relay.tell_set(ONE, *(entry(destination, TWO) for destination in (*refused, FAR_LAN)))
    routed(near, FAR_LAN)
    for destination, why in refused.items():
        # Those with one reason are in one line.
        near.wait_for(rf"WARNING .*\b{re.escape(destination)}\b.* not reached through the network: {re.escape(why)}")
    assert lans.near.routes() == [FAR_LAN]
    # Around the network that the relay is in a longer prefix is in force.
    relay.tell_set(ONE, entry("10.0.0.0/8", TWO))
    routed(near, "10.0.0.0/8")
    assert lans.near.routes() == ["10.0.0.0/8"]
    assert " 0% packet loss" in ping(lans.near.gateway, TWO)
    assert " 0% packet loss" in ping(lans.near.gateway, FAR)
