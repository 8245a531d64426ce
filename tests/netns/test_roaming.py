"""The way to the relay changes under a member that has traffic, or its machine was asleep: the traffic goes on.

    peer 10.0.0.x ────────────────────── 10.0.0.1  hub: the relay, 10.98.7.1 and 2001:db8:98::1 on its loopback
    host: cable eth0 10.0.0.x ────────── 10.0.0.1
          air   wlan0 10.7.0.2 ───────── 10.7.0.1

It was 40 s until the member knew, and then it began anew. How long the traffic stops is shown (pytest -rP); that it is
far less than those 40 s is what can't depend on the machine.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from lab.laboratory import PORT, Client, Laboratory
from lab.linked import ROUNDS, Pinging
from lab.namespaces import Ethernet, Host
from lab.programs import Program, RelayProgram, environment
from lab.traffic import Stream

pytestmark = pytest.mark.netns

FAR, FAR6 = "10.98.7.1", "2001:db8:98::1"
EACH_S = 0.05
LONG_S = 20.0
"""Half of the 40 s."""
WAY = r"INFO the way to the relay has changed: asking whether the connection holds$"

ASLEEP = """
import os, time
read = time.clock_gettime
def clock_gettime(clock):
    # What a resume does to the one clock; nothing else in this process can tell.
    return read(clock) + (600 if clock == time.CLOCK_BOOTTIME and os.path.exists({path!r}) else 0)
time.clock_gettime = clock_gettime
"""


class Roamer:
    """A member with two uplinks, the cable's in use, and a peer that pings it without a pause.

    Args:
        flags: of the peer's client.
    """

    def __init__(self, laboratory: Laboratory, *flags: str, host: str = FAR) -> None:
        self.laboratory = laboratory
        self.hub = laboratory.hub
        for address in (f"{FAR}/32", f"{FAR6}/128"):
            self.hub.run("ip", "address", "add", address, "dev", "lo")
        self.hub.run("ip", "address", "add", "2001:db8:1::1/64", "dev", "bridge0", "nodad")
        # Who is not its router does not find it on the cable.
        self.hub.run("sysctl", "-w", "net.ipv4.conf.all.arp_ignore=1")
        there = f"[{host}]" if ":" in host else host
        self.relay: RelayProgram = laboratory.relay(host=there)
        self.url = f"ws://{there}:{PORT}"
        self.host = self._with_two_uplinks()
        peer = laboratory.host()
        peer.run("ip", "route", "add", "default", "via", Ethernet.ADDRESS)
        peer.run("ip", "address", "add", "2001:db8:1::5/64", "dev", "eth0", "nodad")
        peer.run("ip", "route", "add", "default", "via", "2001:db8:1::1")
        self.peer = laboratory.client(*flags, host=peer, url=self.url)
        self.client: Client

    def _with_two_uplinks(self) -> Host:
        made = self.laboratory.host()
        self.hub.run("ip", "link", "add", "air0", "type", "veth", "peer", "name", "wlan0", "netns", made.path)
        self.hub.run("ip", "address", "add", "10.7.0.1/24", "dev", "air0")
        self.hub.run("ip", "link", "set", "air0", "up")
        made.run("ip", "address", "add", "10.7.0.2/24", "dev", "wlan0")
        made.run("ip", "link", "set", "wlan0", "up")
        made.run("ip", "route", "add", "default", "via", Ethernet.ADDRESS)
        made.run("ip", "address", "add", "2001:db8:1::9/64", "dev", "eth0", "nodad")
        made.run("ip", "route", "add", "default", "via", "2001:db8:1::1")
        return made

    def start(self, *flags: str, **environ: str) -> None:
        self.client = self.laboratory.client(*flags, host=self.host, url=self.url, **environ)
        self.address = self.client.connected()
        self.its = self.peer.connected()

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Have the peer ping it, while something happens and until it has answered for two seconds after; the longest
        gap is not as long as it was."""
        argv = ["ping", "-n", "-i", str(EACH_S), self.address]
        with self.peer.host:
            ping = Program("ping", argv, environment(self.laboratory.folder))
        with ping:
            ping.wait_for(r"icmp_seq=5 ")
            yield
            # A gap is over once there are answers to later pings again: what follows is as many as two seconds have.
            start = self._answered(ping)[-1]
            while True:
                answered = self._answered(ping)
                if len([seq for seq in answered if seq > start]) >= 2 / EACH_S:
                    break
                ping.wait_for("icmp_seq=", len(ping.lines))
        gap = max(later - earlier for earlier, later in pairwise(answered)) * EACH_S
        print(f"longest gap: {gap:.2f} s")
        assert gap < LONG_S

    @staticmethod
    def _answered(ping: Program) -> list[int]:
        found = (re.search(r"bytes from .*icmp_seq=(\d+) ", line) for line in list(ping.lines))
        return [int(match[1]) for match in found if match]


@pytest.fixture
def roamer(laboratory: Laboratory) -> Roamer:
    made = Roamer(laboratory)
    made.start()
    return made


def test_from_the_cable_to_the_air(roamer: Roamer) -> None:
    """And back: each time the one goes, and a moment later there is a default route by the other."""
    for gone, gateway, source in (("eth0", "10.7.0.1", "10.7.0.2"), ("wlan0", Ethernet.ADDRESS, roamer.host.address)):
        with roamer.traffic():
            lines = len(roamer.client.lines)
            roamer.host.run("ip", "link", "set", gone, "down")
            roamer.client.wait_for(WAY, lines)
            roamer.host.run("ip", "link", "set", "wlan0" if gone == "eth0" else "eth0", "up")
            roamer.host.run("ip", "route", "add", "default", "via", gateway)
            assert roamer.client.connected(lines) == roamer.address
        roamer.relay.wait_for(rf"replaced at {roamer.address} by {source}, which has the same key")
    # To the relay that is one member, and no conflict. On a busy machine an attempt may fail before one succeeds.
    warnings = [line for line in [*roamer.client.lines, *roamer.relay.lines] if " WARNING " in line]
    assert all(re.search("log in by the same password|: no success within", line) for line in warnings)


def test_the_default_route_goes_while_the_cable_stays(roamer: Roamer) -> None:
    with roamer.traffic():
        lines = len(roamer.client.lines)
        roamer.host.run("ip", "route", "del", "default", "via", Ethernet.ADDRESS)
        roamer.client.wait_for(WAY, lines)
        roamer.host.run("ip", "route", "add", "default", "via", "10.7.0.1")
        assert roamer.client.connected(lines) == roamer.address
    roamer.relay.wait_for(rf"10\.7\.0\.2: logged in as {roamer.address}")


def test_another_local_address(roamer: Roamer) -> None:
    """A lease is not renewed, or the router gives out other addresses now."""
    with roamer.traffic():
        lines = len(roamer.client.lines)
        roamer.host.run("ip", "address", "add", "10.0.0.99/24", "dev", "eth0")
        roamer.host.run("ip", "address", "del", f"{roamer.host.address}/24", "dev", "eth0")
        roamer.host.run("ip", "address", "replace", "10.0.0.99/24", "dev", "eth0")
        roamer.host.run("ip", "route", "replace", "default", "via", Ethernet.ADDRESS)
        assert roamer.client.connected(lines) == roamer.address
    roamer.relay.wait_for(rf"10\.0\.0\.99: logged in as {roamer.address}")


def test_a_better_way_beside_one_that_works_changes_nothing(roamer: Roamer) -> None:
    """ "If the old connection answers, the new dial is abandoned"; and when that connection's own way goes, though the
    better one has not changed, it is noticed."""
    with roamer.traffic():
        lines = len(roamer.client.lines)
        roamer.host.run("ip", "route", "add", "10.98.0.0/16", "via", "10.7.0.1")
        roamer.client.wait_for("INFO the connection holds$", lines)
    assert not [line for line in roamer.relay.lines if "replaced" in line]
    with roamer.traffic():
        lines = len(roamer.client.lines)
        roamer.host.run("ip", "link", "set", "eth0", "down")
        assert roamer.client.connected(lines) == roamer.address
    roamer.relay.wait_for(rf"10\.7\.0\.2: logged in as {roamer.address}")


def test_a_resume(laboratory: Laboratory, tmp_path: Path) -> None:
    """The routers on the way have forgotten the connection while the machine was asleep, and say nothing."""
    flag = tmp_path / "asleep"
    (tmp_path / "sitecustomize.py").write_text(ASLEEP.format(path=str(flag)))
    roamer = Roamer(laboratory)
    path = environment(tmp_path)["PYTHONPATH"]
    roamer.start(PYTHONPATH=f"{tmp_path}:{path}")
    with roamer.traffic():
        lines = len(roamer.client.lines)
        [port] = re.findall(r":(\d+) +\S+:\d+ *$", roamer.host.run("ss", "-tnH", "state", "established"), re.MULTILINE)
        roamer.hub.run("nft", "add table ip nat0; add chain ip nat0 in { type filter hook input priority 0; }")
        roamer.hub.run("nft", f"add rule ip nat0 in tcp sport {port} drop")
        flag.touch()
        roamer.client.wait_for("INFO this machine was asleep for 600 s: asking whether the connection holds$", lines)
        assert roamer.client.connected(lines) == roamer.address
    assert not [line for line in roamer.client.lines if "fell silent" in line]


def test_by_ipv6(laboratory: Laboratory) -> None:
    roamer = Roamer(laboratory, host=FAR6)
    roamer.start()
    with roamer.traffic():
        lines = len(roamer.client.lines)
        roamer.host.run("ip", "address", "add", "2001:db8:1::99/64", "dev", "eth0", "nodad")
        roamer.host.run("ip", "address", "del", "2001:db8:1::9/64", "dev", "eth0")
        assert roamer.client.connected(lines) == roamer.address
    roamer.relay.wait_for(rf"2001:db8:1::99: logged in as {roamer.address}")


def test_a_direct_link_goes_along(laboratory: Laboratory) -> None:
    """To another address, and from the cable to the air; so does what goes by it."""
    roamer = Roamer(laboratory, "--direct")
    roamer.hub.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    # What changes is IPv4.
    roamer.host.run("ip", "-6", "address", "flush", "dev", "eth0")
    roamer.start("--direct")
    pair = Pinging(laboratory, roamer.peer, roamer.address, [(roamer.client, roamer.its)])
    pair.start()
    pair.until(path="direct")
    since = len(pair.answered())
    with Stream(roamer.host, roamer.peer.host, roamer.its) as stream:
        roamer.host.run("ip", "address", "add", "10.0.0.99/24", "dev", "eth0")
        roamer.host.run("ip", "address", "del", f"{roamer.host.address}/24", "dev", "eth0")
        roamer.host.run("ip", "address", "replace", "10.0.0.99/24", "dev", "eth0")
        roamer.host.run("ip", "route", "replace", "default", "via", Ethernet.ADDRESS)
        reached(pair, "10.0.0.99")
        stream.wait(20)
        lines = len(roamer.client.lines)
        roamer.host.run("ip", "link", "set", "eth0", "down")
        # Meanwhile it has looked for its peer, and found no way there.
        roamer.client.wait_for(f"{roamer.its} is reached by the relay", lines)
        roamer.host.run("ip", "route", "add", "default", "via", "10.7.0.1")
        reached(pair, "10.7.0.2")
        stream.wait(20)
    roamer.relay.wait_for(rf"10\.7\.0\.2: logged in as {roamer.address}")
    print(f"longest gap: {pair.longest_gap(since):.2f} s")
    assert pair.longest_gap(since) < LONG_S


def reached(pair: Pinging, address: str) -> None:
    """Wait until both ends have a link, the first one with this address."""
    for _ in range(ROUNDS):
        there, back = pair.links
        if (there["path"], back["path"]) == ("direct", "direct") and str(there["endpoint"]).startswith(f"{address}:"):
            return
        pair.wait(1)
    raise AssertionError(f"not by {address}: {pair.links}")
