"""Networks and rules that enclose what the connection itself depends on: the relay, its proxy, a name server, a LAN.

hub: relay and name servers in 10.98.0.0/16, on its loopback ── 10.0.0.1 ── eth0, host: default route by 10.0.0.1
"""

import signal
import sys
from pathlib import Path

import pytest
from lab import nameserver, proxy
from lab.laboratory import PORT, Client, Laboratory
from lab.lans import routed
from lab.namespaces import Ethernet, Host
from lab.programs import Program, environment

pytestmark = pytest.mark.netns

FAR, NAME_SERVER = "10.98.7.1", "10.98.0.53"
"""Of the relay or the proxy, and of a name server: both are reached by the default route."""
POOL = "10.98.0.0/16"
FAR_URL = f"ws://{FAR}:{PORT}"


@pytest.fixture
def far(laboratory: Laboratory) -> Laboratory:
    """Its hub has both addresses."""
    for address in (FAR, NAME_SERVER):
        laboratory.hub.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    return laboratory


def host(laboratory: Laboratory) -> Host:
    """A host with a default route by the hub."""
    made = laboratory.host()
    made.run("ip", "route", "add", "default", "via", Ethernet.ADDRESS)
    return made


def is_swallowed(client: Client, address: str) -> bool:
    """Whether the kernel leads packets for this address into the tunnel."""
    return " dev candy " in client.host.run("ip", "route", "get", address)


def stays(client: Client, interface: str = "eth0", network: str = POOL, after: int = 0) -> None:
    """Wait until the client has told where its connection goes."""
    client.wait_for(
        rf"WARNING {network} of the tunnel encloses {FAR}, where the connection to the relay goes: "
        rf"it stays outside, on {interface}$",
        after,
    )


@pytest.mark.parametrize("flags", [[], ["-t", "10.98.0.9/16"]])
def test_the_own_network_encloses_the_relay(far: Laboratory, flags: list[str]) -> None:
    """F3: "cut off for ever": with an address of its own not even the first attempt arrived."""
    relay = far.relay("--dhcp", POOL, host=FAR)
    client = far.client(*flags, host=host(far), url=FAR_URL)
    address = client.connected()
    stays(client)
    assert is_swallowed(client, FAR)
    # It comes back, too, while the interface is there.
    lines = len(client.lines)
    relay.signal(signal.SIGKILL)
    relay.wait()
    client.wait_for("connection refused", lines)
    far.relay("--dhcp", POOL, host=FAR)
    assert client.connected(lines) == address
    other = far.client(host=host(far), url=FAR_URL)
    client.host.run("ping", "-c", "1", "-W", "20", other.connected())


def test_a_proxy_is_enclosed(far: Laboratory, tmp_path: Path) -> None:
    far.relay("--dhcp", POOL)
    with far.hub:
        program = Program("proxy", [sys.executable, proxy.__file__, FAR, "3128"], environment(tmp_path))
    far.enter(program).wait_for("listening")
    client = far.client(host=host(far), HTTP_PROXY=f"http://{FAR}:3128")
    client.connected()
    stays(client)
    assert is_swallowed(client, FAR)
    client.host.run("ping", "-c", "1", "-W", "20", far.client().connected())


def test_a_rule_encloses_the_relay(far: Laboratory) -> None:
    """It was refused, for the connection's sake; now both are had."""
    far.relay("--sdwan", f"192.168.202.0/24,{POOL},192.168.202.2", host=FAR)
    client = far.client("-t", "192.168.202.7/24", host=host(far), url=FAR_URL)
    client.connected()
    routed(client, POOL)
    stays(client)
    assert is_swallowed(client, FAR)
    client.host.run("ping", "-c", "1", "-W", "20", far.client(host=host(far), url=FAR_URL).connected())


def test_where_answers_would_be_dropped_rules_stay_out_of_the_way(far: Laboratory) -> None:
    """A kernel with rp_filter 1 drops what comes in by another interface than answers would take."""
    far.relay("--sdwan", f"192.168.202.0/24,{POOL},192.168.202.2", host=FAR)
    there = host(far)
    there.run("sysctl", "-w", "net.ipv4.conf.all.rp_filter=1")
    client = far.client("-t", "192.168.202.7/24", host=there, url=FAR_URL)
    client.connected()
    client.wait_for(f"{POOL} is not reached through the network: the relay is reached at {FAR}")
    assert not is_swallowed(client, FAR)
    client.close()
    client = far.client("-t", "10.98.0.9/16", host=there, url=FAR_URL)
    client.wait_for(
        f"WARNING {POOL} of the tunnel encloses {FAR}, where the connection to the relay goes: "
        "set net.ipv4.conf.eth0.rp_filter to 2, or answers by eth0 are dropped"
    )
    there.run("sysctl", "-w", "net.ipv4.conf.all.rp_filter=2")
    client.wait_for("refused by the relay: 10.98.0.9 is not a member's address in the pool")


def test_a_killed_client_leaves_nothing_and_the_next_one_gets_in(far: Laboratory) -> None:
    far.relay("--dhcp", POOL, host=FAR)
    there = host(far)
    # IPv6 of its own accord changes with time.
    shown = [("rule",), ("-4", "route", "show", "table", "all"), ("-4", "address")]
    before = [there.run("ip", *what) for what in shown]
    for _ in range(2):
        client = far.client(host=there, url=FAR_URL)
        client.connected()
        stays(client)
        client.signal(signal.SIGKILL)
        client.wait()
        assert [there.run("ip", *what) for what in shown] == before


def test_another_interface_becomes_the_way(far: Laboratory) -> None:
    """From Wi-Fi to cable: each connection is bound to what leads there when it is made."""
    far.relay("--dhcp", POOL, host=FAR)
    there = host(far)
    far.hub.run("ip", "link", "add", "air0", "type", "veth", "peer", "name", "wlan0", "netns", there.path)
    far.hub.run("ip", "address", "add", "10.7.0.1/24", "dev", "air0")
    far.hub.run("ip", "link", "set", "air0", "up")
    there.run("ip", "address", "add", "10.7.0.2/24", "dev", "wlan0")
    there.run("ip", "link", "set", "wlan0", "up")
    there.run("ip", "route", "add", "default", "via", "10.7.0.1", "metric", "600")
    there.run("ip", "link", "set", "eth0", "down")
    client = far.client(host=there, url=FAR_URL)
    address = client.connected()
    stays(client, "wlan0")
    lines = len(client.lines)
    there.run("ip", "link", "set", "eth0", "up")
    there.run("ip", "route", "add", "default", "via", Ethernet.ADDRESS, "metric", "100")
    there.run("ip", "link", "set", "wlan0", "down")
    assert client.connected(lines) == address
    stays(client, "eth0", after=lines)


def test_a_machine_that_is_offline_says_so(far: Laboratory) -> None:
    there = host(far)
    there.run("ip", "link", "set", "eth0", "down")
    client = far.client("-t", "10.98.0.9/16", host=there, url=FAR_URL)
    client.wait_for(rf"no way to the relay at {FAR}:{PORT} but through this network itself: is this machine online\?")


class Names:
    """A relay that is called relay.test, and a name server in the network that it grants addresses of."""

    def __init__(self, laboratory: Laboratory, folder: Path) -> None:
        self._laboratory = laboratory
        self._before = nameserver.resolving_by(folder, NAME_SERVER)
        self._folder = folder
        self.url = f"ws://relay.test:{PORT}"
        self.host = host(laboratory)
        self.relay = self.start_relay()
        argv = [sys.executable, nameserver.__file__, NAME_SERVER, "relay.test", Ethernet.ADDRESS]
        with laboratory.hub:
            self.server = Program("name server", argv, environment(folder))
        laboratory.enter(self.server).wait_for("listening")

    def start_relay(self) -> Program:
        return self._laboratory.relay("--dhcp", POOL)

    def client(self) -> Client:
        return self._laboratory.client(host=self.host, url=self.url, before=self._before)


@pytest.fixture
def names(far: Laboratory, tmp_path: Path) -> Names:
    return Names(far, tmp_path)


LAST_TIME = (
    rf"WARNING relay\.test: the name server does not answer.*; trying the addresses of last time: {Ethernet.ADDRESS}$"
)


def test_the_own_network_encloses_the_name_server(names: Names) -> None:
    """Its look-ups go into the tunnel, whose connection is what they are for."""
    client = names.client()
    address = client.connected()
    client.wait_for(
        f"WARNING {POOL} of the tunnel encloses the name server {NAME_SERVER}: while names are not found, "
        "the relay is looked for at the addresses of last time"
    )
    assert is_swallowed(client, NAME_SERVER)
    lines = len(client.lines)
    names.relay.close()
    client.wait_for(LAST_TIME, lines)
    names.start_relay()
    assert client.connected(lines) == address


def test_the_last_addresses_outlive_the_client(names: Names) -> None:
    client = names.client()
    client.connected()
    client.signal(signal.SIGKILL)
    client.wait()
    names.server.close()
    client = names.client()
    client.wait_for(LAST_TIME)
    client.connected()


# Other networks of this machine


def lan(there: Host, address: str) -> None:
    """Another interface, with this address."""
    there.run("ip", "link", "add", "lan0", "type", "bridge")
    there.run("ip", "address", "add", address, "dev", "lan0")
    there.run("ip", "link", "set", "lan0", "up")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("192.168.202.50/24", "overlaps 192.168.202.0/24 of lan0: members or hosts on lan0 are not reached"),
        (
            "192.168.202.50/28",
            "overlaps 192.168.202.48/28 of lan0: members with addresses in 192.168.202.48/28 are not reached",
        ),
        (
            "192.168.0.50/16",
            "overlaps 192.168.0.0/16 of lan0: hosts on lan0 with addresses in 192.168.202.0/24 are not reached",
        ),
    ],
)
def test_a_lan_overlaps_the_own_network(laboratory: Laboratory, address: str, words: str) -> None:
    """F11: "connected", but nobody is reachable, without a word."""
    laboratory.relay()
    there = laboratory.host()
    lan(there, address)
    client = laboratory.client(host=there)
    client.connected()
    client.wait_for(f"WARNING the network 192.168.202.0/24 {words}: give the relay another pool with --dhcp$")


def test_a_lan_beside_the_own_network_is_no_matter(laboratory: Laboratory) -> None:
    laboratory.relay()
    there = laboratory.host()
    lan(there, "192.168.203.50/24")
    client = laboratory.client(host=there)
    client.connected()
    # The review is over once the next one is, of the rules' routes.
    assert not [line for line in client.lines if "overlaps" in line]


@pytest.mark.parametrize("flags", [[], ["-t", "192.168.202.1/24"]])
def test_another_interface_has_the_address(laboratory: Laboratory, flags: list[str]) -> None:
    """F11's sister: two relays grant one address, and "the second client ends with status 1"."""
    laboratory.relay()
    laboratory.relay(port=PORT + 1)
    first = laboratory.client()
    assert first.connected() == "192.168.202.1"
    url = f"ws://{Ethernet.ADDRESS}:{PORT + 1}"
    second = laboratory.client("--name", "b", *flags, host=first.host, url=url)
    second.wait_for(
        "WARNING 192.168.202.1 is already an address of candy: remove it there, or choose another with --tun; "
        "trying again in"
    )
    first.close()
    address = second.connected()
    # One that takes what it is granted may have got another meanwhile.
    assert address == "192.168.202.1" or not flags
