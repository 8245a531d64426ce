"""Networks behind members: hosts of two LANs reach each other through gateways that are members.

near 10.1.0.5 ── lan0 10.1.0.1  gateway  192.168.202.1 ══ relay ══ 192.168.202.2  gateway  lan0 10.2.0.1 ── far 10.2.0.5
"""

import hashlib
import random
import re
import signal
import socket
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab.member import packet
from lab.namespaces import Ethernet, Host, Namespace
from lab.original import OriginalRelay, entry
from lab.programs import PATIENCE_S
from netns.conftest import PORT, Client, Laboratory

pytestmark = pytest.mark.netns

ONE, TWO = "192.168.202.1", "192.168.202.2"
NEAR_LAN, FAR_LAN = "10.1.0.0/16", "10.2.0.0/16"
NEAR, FAR = "10.1.0.5", "10.2.0.5"
RULES = f"{ONE}/32,{FAR_LAN},{TWO};{TWO}/32,{NEAR_LAN},{ONE}"
MEGABYTES = 2


class Site:
    """A gateway, and a host on the LAN behind it.

    Args:
        number: the LAN is 10.<number>.0.0/16, the gateway's address in the network 192.168.202.<number>.
        route: the host has a default route by the gateway.
    """

    def __init__(self, laboratory: Laboratory, stack: ExitStack, number: int, *, route: bool = True) -> None:
        self.own = f"192.168.202.{number}"
        self.address = f"10.{number}.0.5"
        self.lan = f"10.{number}.0.0/16"
        self.gateway: Host = laboratory.host()
        self.host = Namespace(f"host of LAN {number}")
        stack.callback(self.host.close)
        peer = ["peer", "name", "eth0", "netns", self.host.path]
        self.gateway.run("ip", "link", "add", "lan0", "type", "veth", *peer)
        self.gateway.run("ip", "address", "add", f"10.{number}.0.1/16", "dev", "lan0")
        self.gateway.run("ip", "link", "set", "lan0", "up")
        self.host.run("ip", "address", "add", f"{self.address}/16", "dev", "eth0")
        self.host.run("ip", "link", "set", "eth0", "up")
        if route:
            self.host.run("ip", "route", "add", "default", "via", f"10.{number}.0.1")

    def forward(self) -> None:
        with self.gateway:
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def forwards(self) -> str:
        with self.gateway:
            return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()

    def routes(self) -> list[str]:
        """The destinations that go through candy."""
        return re.findall(r"^(\S+)", self.gateway.run("ip", "route", "show", "proto", "202"), re.MULTILINE)


class Lans:
    """Two sites or more, whose gateways forward, and the relay between them."""

    def __init__(self, laboratory: Laboratory, stack: ExitStack, count: int = 2) -> None:
        self.laboratory = laboratory
        self._stack = stack
        self.sites = [Site(laboratory, stack, number) for number in range(1, count + 1)]
        self.near, self.far = self.sites[:2]
        for site in self.sites:
            site.forward()

    def original(self, *, extended: bool = False) -> OriginalRelay:
        """A relay that tells each gateway the other one's LAN."""
        relay = OriginalRelay(self.laboratory.hub, (Ethernet.ADDRESS, PORT), extended=extended)
        if not extended:
            relay.rules = {ONE: [[entry(FAR_LAN, TWO)]], TWO: [[entry(NEAR_LAN, ONE)]]}
        return self._stack.enter_context(relay)

    def connect(self, *flags: str) -> tuple[Client, Client]:
        """Both gateways, logged in."""
        clients = [self.join(site, *flags) for site in (self.near, self.far)]
        for one in clients:
            one.connected()
        return clients[0], clients[1]

    def join(self, site: Site, *flags: str) -> Client:
        return self.laboratory.client("-t", f"{site.own}/24", *flags, host=site.gateway)


@pytest.fixture
def lans(laboratory: Laboratory, stack: ExitStack) -> Lans:
    return Lans(laboratory, stack)


def routed(client: Client, destination: str, after: int = 0) -> None:
    """Wait until this client routes there."""
    client.wait_for(rf"{re.escape(destination)} is reached through", after)


def unrouted(client: Client, destination: str, after: int = 0) -> None:
    client.wait_for(rf"{re.escape(destination)} is not reached through the network any more", after)


def ping(host: Namespace, destination: str, *options: str) -> str:
    return host.run("ping", "-c", "3", "-i", "0.1", "-W", "10", *options, destination, check=False)


def transfer(source: Namespace, destination: Namespace, address: str, size: int = MEGABYTES << 20) -> str:
    """Send bytes by TCP both ways at once, and compare; returns where the connection seems to come from."""
    with destination:
        listener = socket.create_server((address, 0))
    with listener:
        with source:
            near = socket.create_connection(listener.getsockname(), PATIENCE_S)
        far, (seen, _) = listener.accept()
    digests: dict[str, str] = {}

    def send(opened: socket.socket, seed: int) -> None:
        data = random.Random(seed).randbytes(size)
        digests[f"sent {seed}"] = hashlib.sha256(data).hexdigest()
        opened.sendall(data)
        opened.shutdown(socket.SHUT_WR)

    def receive(opened: socket.socket, seed: int) -> None:
        digest = hashlib.sha256()
        while data := opened.recv(1 << 20):
            digest.update(data)
        digests[f"received {seed}"] = digest.hexdigest()

    with near, far:
        work = [(send, near, 1), (receive, far, 1), (send, far, 2), (receive, near, 2)]
        threads = [threading.Thread(target=run, args=(opened, seed)) for run, opened, seed in work]
        for opened in (near, far):
            opened.settimeout(PATIENCE_S)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert digests["received 1"] == digests["sent 1"]
    assert digests["received 2"] == digests["sent 2"]
    return str(seen)


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
    assert transfer(near.host, far.host, FAR) == NEAR
    assert transfer(far.host, near.host, NEAR) == FAR


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
        assert transfer(one.host, other.host, other.address, 1 << 20) == one.address


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
    with lans.far.host:
        listener = socket.create_server((FAR, 5000))
    with listener:
        with lans.near.host:
            here = socket.create_connection((FAR, 5000), PATIENCE_S)
        there, _ = listener.accept()
    with here, there:
        there.settimeout(PATIENCE_S)
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
    transfer(lans.near.host, lans.far.host, FAR, 1 << 20)
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
    transfer(lans.near.host, lans.far.host, FAR, 1 << 20)
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
    with lans.far.host:
        listener = socket.create_server((FAR, 5000))
    with listener:
        with lans.near.host:
            here = socket.create_connection((FAR, 5000), PATIENCE_S)
        there, _ = listener.accept()
    with here, there:
        there.settimeout(PATIENCE_S)
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
        here.settimeout(PATIENCE_S)
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
        near.wait_for(f"WARNING {re.escape(destination)} is not reached through the network: {re.escape(why)}")
    assert lans.near.routes() == [FAR_LAN]
    # Around the network that the relay is in a longer prefix is in force.
    relay.tell_set(ONE, entry("10.0.0.0/8", TWO))
    routed(near, "10.0.0.0/8")
    assert lans.near.routes() == ["10.0.0.0/8"]
    assert " 0% packet loss" in ping(lans.near.gateway, TWO)
    assert " 0% packet loss" in ping(lans.near.gateway, FAR)


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
        assert transfer(member.host, gateway.host, FAR) == "10.2.0.1"
        assert " 0% packet loss" in ping(member.host, FAR)
        # From the LAN, once that knows where the network is, members see the gateway.
        gateway.host.run("ip", "route", "add", "192.168.202.0/24", "via", "10.2.0.1")
        assert transfer(gateway.host, member.host, ONE) == TWO
        client.signal(signal.SIGTERM)
        assert client.wait() == 0
    nothing_left(gateway)


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
