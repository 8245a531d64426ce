"""What an installed candy can do doesn't break: relays and members of this tree work with those of an older one.

Each test is one network with two members, which are the gateways of two LANs as well (lab/lans.py draws them).
"""

import re
import signal
from contextlib import ExitStack
from itertools import product

import pytest
from lab.builds import NEW, Build
from lab.laboratory import Client, Laboratory
from lab.lans import FAR, FAR_LAN, NEAR, NEAR_LAN, Lans, routed, unrouted
from lab.programs import Program
from lab.traffic import MEGABYTE, checksum_errors, connect, exchange_datagrams, ping, segmented_datagrams, transfer

pytestmark = pytest.mark.netns

MEMBERS = [("old", "old"), ("new", "new"), ("old", "new")]
PAIRINGS = [
    pytest.param(relay, (one, other), id=f"{relay} relay: {one}, {other}")
    for relay, (one, other) in product(("old", "new"), MEMBERS)
]


class Network:
    """A relay of one build, and a member on the gateway of each LAN. The relay's pool chooses their addresses."""

    def __init__(self, laboratory: Laboratory, stack: ExitStack, relay: Build, members: list[Build]) -> None:
        self.laboratory = laboratory
        self.build = relay
        self.file = laboratory.folder / "relay.toml"
        self.lans = Lans(laboratory, stack)
        self.write()
        self.relay = self.start()
        sites = self.lans.near, self.lans.far
        self.near, self.far = (
            build.client(laboratory, host=site.gateway) for build, site in zip(members, sites, strict=True)
        )
        self.addresses = self.near.connected(), self.far.connected()
        for build, client in zip(members, (self.near, self.far), strict=True):
            build.check(client)

    def write(self, *rules: str) -> None:
        """Write the relay's settings, with these SD-WAN rules."""
        self.file.write_text(f'dhcp = "192.168.202.0/24"\nsdwan = "{";".join(rules)}"\n')

    def start(self) -> Program:
        return self.build.relay(self.laboratory, "-c", str(self.file))

    def reload(self, *rules: str) -> None:
        """Have the running relay read these rules."""
        self.write(*rules)
        self.relay.signal(signal.SIGHUP)


@pytest.fixture
def network(
    laboratory: Laboratory, stack: ExitStack, reference: Build, relay: str, members: tuple[str, str]
) -> Network:
    builds = {"old": reference, "new": NEW}
    return Network(laboratory, stack, builds[relay], [builds[name] for name in members])


def log_ins(client: Client) -> int:
    return sum(" connected as " in line for line in client.lines)


def packets_pass(network: Network) -> None:
    """Pings, a stream by TCP and datagrams by UDP between the two members."""
    near, far = network.near.host, network.far.host
    own, other = network.addresses
    for host, address in ((near, other), (far, own)):
        # A short one, the longest that the MTU of 1400 takes, and one in fragments.
        for size in ("56", "1372", "3000"):
            assert " 0% packet loss" in ping(host, address, "-c", "1", "-s", size)
    before = network.relay.counters()
    assert transfer(near, far, other, 8 * MEGABYTE) == own
    counted = network.relay.counters() - before
    # No packet of one segment is longer than 1500 bytes, so super-packets came, and went on whole.
    assert counted["bytes_in"] > 1500 * counted["packets_in"]
    assert counted["bytes_out"] > 1500 * counted["packets_out"]
    # Also datagrams larger than the MTU, of up to 64 KB.
    exchange_datagrams(near, far, own, other)
    segmented_datagrams(near, far, own, other)


def lans_follow_rules(network: Network) -> None:
    """Rules are told and changed at a running relay; hosts reach each other behind the members, by IPIP."""
    lans, near, far = network.lans, network.near, network.far
    own, other = network.addresses
    rules = f"{own}/32,{FAR_LAN},{other}", f"{other}/32,{NEAR_LAN},{own}"
    network.reload(*rules)
    routed(near, FAR_LAN)
    routed(far, NEAR_LAN)
    assert (lans.near.routes(), lans.far.routes()) == ([FAR_LAN], [NEAR_LAN])
    assert " 0% packet loss" in ping(lans.near.host, FAR, "-c", "1")
    assert transfer(lans.near.host, lans.far.host, FAR, 4 * MEGABYTE) == NEAR
    assert transfer(lans.far.host, lans.near.host, NEAR, 2 * MEGABYTE) == FAR
    exchange_datagrams(lans.near.host, lans.far.host, NEAR, FAR, df=False)
    here, there = connect(lans.near.host, lans.far.host, FAR)
    with here, there:
        here.sendall(b"before")
        assert there.recv(100) == b"before"
        network.reload(*rules, f"{own}/32,10.50.0.0/16,{other}")
        routed(near, "10.50.0.0/16")
        assert lans.near.routes() == [FAR_LAN, "10.50.0.0/16"]
        network.reload(rules[0], f"{other}/32,10.60.0.0/16,{own}", rules[1])
        unrouted(near, "10.50.0.0/16")
        routed(far, "10.60.0.0/16")
        assert (lans.near.routes(), lans.far.routes()) == ([FAR_LAN], [NEAR_LAN, "10.60.0.0/16"])
        here.sendall(b"after")
        assert there.recv(100) == b"after"
    # candy.2 was agreed on: a member without it would have had to log in anew.
    assert (log_ins(near), log_ins(far)) == (1, 1)


def members_come_back(network: Network) -> None:
    """The relay restarts: both members log in again, with their addresses, and what is open survives."""
    lans, clients = network.lans, (network.near, network.far)
    here, there = connect(lans.near.host, lans.far.host, FAR)
    with here, there:
        here.sendall(b"before")
        assert there.recv(100) == b"before"
        starts = [len(client.lines) for client in clients]
        network.relay.signal(signal.SIGTERM)
        assert network.relay.wait() == 0
        network.relay = network.start()
        again = [client.connected(start) for client, start in zip(clients, starts, strict=True)]
        assert tuple(again) == network.addresses
        assert " 0% packet loss" in ping(network.near.host, network.addresses[1], "-c", "1")
        here.sendall(b"after")
        assert there.recv(100) == b"after"


@pytest.mark.parametrize(("relay", "members"), PAIRINGS)
def test_relay_and_members(network: Network) -> None:
    own, other = network.addresses
    assert own != other
    for client, address in zip((network.near, network.far), network.addresses, strict=True):
        network.relay.wait_for(f"logged in as {re.escape(address)}")
        assert f" inet {address}/24 " in client.host.run("ip", "-4", "address", "show", "candy")
    packets_pass(network)
    lans_follow_rules(network)
    # While the relay is away, and then only one member is back, packets are dropped rightly.
    drops = network.relay.counters()
    assert (drops["dropped spoofed_source"], drops["dropped no_route"], drops["dropped bad_super"]) == (0, 0, 0)
    members_come_back(network)
    for host in (network.near.host, network.far.host, network.lans.near.host, network.lans.far.host):
        assert set(checksum_errors(host).values()) == {0}
