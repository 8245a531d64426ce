"""Super-packets through real interfaces: between all kinds of members the same bytes arrive, checksums included."""

import re
import signal
from pathlib import Path

import pytest
from lab.capture import Capture, frame_length
from lab.laboratory import Client, Laboratory
from lab.namespaces import Namespace
from lab.programs import Program, environment
from lab.traffic import MEGABYTE, checksum_errors, exchange_datagrams, ping, segmented_datagrams, transfer

pytestmark = pytest.mark.netns

BYTES = 20 * MEGABYTE
OLD = "--no-extension"
PLAIN = "--no-offload"
PAIRINGS = {
    "both": ((), ()),
    "one without the extension": ((), (OLD,)),
    "both without the extension": ((OLD,), (OLD,)),
    "one without offloads": ((PLAIN,), ()),
    "both without offloads": ((PLAIN,), (PLAIN,)),
    "one without either": ((), (OLD, PLAIN)),
}


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_same_bytes_arrive(laboratory: Laboratory, tmp_path: Path, pairing: str) -> None:
    laboratory.relay()
    hosts = laboratory.host(), laboratory.host()
    here, there = (laboratory.client(*flags, host=host) for flags, host in zip(PAIRINGS[pairing], hosts, strict=True))
    own, other = here.connected(), there.connected()
    capture = Capture(hosts[1], tmp_path) if OLD in PAIRINGS[pairing][1] else None
    transfer(here.host, there.host, other, BYTES)
    exchange_datagrams(here.host, there.host, own, other, df=False)
    exchange_datagrams(there.host, here.host, other, own, df=False)
    segmented_datagrams(here.host, there.host, own, other)
    for place in hosts:
        assert set(checksum_errors(place).values()) == {0}
    if capture is not None:
        with capture.program:
            segments = capture.stop()
        frames = [(length, head[:4].hex()) for _, length, head in segments]
        assert len(frames) > BYTES // 1400
        # Each is one frame, with at most 1500 bytes of payload behind its header.
        assert [one for one in frames if one[0] > 1504] == []
        assert [
            one for one, (_, length, head) in zip(frames, segments, strict=True) if frame_length(head) != length
        ] == []


def counted_by(client: Client, name: str) -> int:
    """A counter of the client's engine."""
    at = len(client.lines)
    client.signal(signal.SIGUSR1)
    return int(client.wait_for(rf" {name}: (\d+)$", at)[1])


@pytest.mark.parametrize("mss", [88, 216, 500])
def test_small_segments_are_no_loss(laboratory: Laboratory, mss: int) -> None:
    """A super-packet stands for at most 128 packets: of segments this small the kernel would make more of 64 KB."""
    relay = laboratory.relay()
    here, there = (laboratory.client(host=laboratory.host()) for _ in range(2))
    here.connected()
    transfer(here.host, there.host, there.connected(), 2 * MEGABYTE, mss)
    assert relay.counters()["dropped bad_super"] == 0


def test_a_slow_link(laboratory: Laboratory) -> None:
    """What waits for it is cut into shorter super-packets, and the same bytes arrive."""
    laboratory.relay()
    hosts = laboratory.host(), laboratory.host()
    for host in hosts:
        shape = ["rate", "50mbit", "burst", "16k", "latency", "5ms"]
        host.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *shape)
        laboratory.hub.run("tc", "qdisc", "add", "dev", host.port, "root", "tbf", *shape)
    here, there = (laboratory.client(host=host) for host in hosts)
    own, other = here.connected(), there.connected()
    for host, address in zip(hosts, (own, other), strict=True):
        # One that does not fill queues would have nothing wait.
        host.run("ip", "route", "change", "192.168.202.0/24", "dev", "candy", "src", address, "congctl", "cubic")
    # Whether anything waits is up to the sender's pace, which on a busy machine is slower than the link now and then.
    for _ in range(10):
        transfer(here.host, there.host, other, 5 * MEGABYTE)
        if all(counted_by(client, "packets_out") > counted_by(client, "packets_in") for client in (here, there)):
            break
    else:
        pytest.fail("nothing was cut")
    for place in hosts:
        assert set(checksum_errors(place).values()) == {0}


LAN_BEHIND, LAN_HOST = "10.9.0.1", "10.9.0.2"
MEMBER = "192.168.202.10"


@pytest.fixture
def lan(laboratory: Laboratory) -> tuple[Client, Namespace]:
    """A client whose kernel forwards, and a host of its LAN, which knows of no VPN."""
    host, behind = laboratory.host(), laboratory.host()
    behind.run("ip", "link", "set", "eth0", "down")
    host.run("ip", "link", "add", "lan0", "mtu", "1500", "type", "veth", "peer", "name", "lan0", "netns", behind.path)
    for place, address in ((host, LAN_BEHIND), (behind, LAN_HOST)):
        place.run("ip", "address", "add", f"{address}/24", "dev", "lan0")
        place.run("ip", "link", "set", "lan0", "mtu", "1500", "up")
    behind.run("ip", "route", "add", "default", "via", LAN_BEHIND)
    host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    laboratory.relay("--sdwan", f"192.168.202.0/24,10.9.0.0/24,{MEMBER}")
    return laboratory.client("-t", f"{MEMBER}/24", host=host), behind


@pytest.mark.parametrize("flags", [(), (OLD,), (PLAIN,)], ids=["as it is", "without the extension", "without offloads"])
def test_a_lan_behind_a_member(laboratory: Laboratory, lan: tuple[Client, Namespace], flags: tuple[str, ...]) -> None:
    """Forwarded: from a LAN with an MTU of 1500, wrapped, into a tunnel whose MTU is 1400, and back."""
    gateway, behind = lan
    gateway.connected()
    far = laboratory.client(*flags)
    own = far.connected()
    far.wait_for("10.9.0.0/24")
    transfer(far.host, behind, LAN_HOST, BYTES)
    exchange_datagrams(far.host, behind, own, LAN_HOST, df=False)
    exchange_datagrams(behind, far.host, LAN_HOST, own, df=False)
    segmented_datagrams(far.host, behind, own, LAN_HOST)
    segmented_datagrams(behind, far.host, LAN_HOST, own)
    for place in (far.host, gateway.host, behind):
        assert set(checksum_errors(place).values()) == {0}


@pytest.mark.parametrize("flags", [(), (OLD,)], ids=["as it is", "without the extension"])
def test_a_flood_takes_no_tunnel_down(laboratory: Laboratory, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """UDP packets of 100 bytes as fast as they can be made, while a ping goes on."""
    relay = laboratory.relay()
    here, there = laboratory.client(*flags), laboratory.client(*flags)
    other = there.connected()
    here.connected()
    server = ["iperf3", "--forceflush", "-s", "-1", "-B", other]
    with there.host, Program("iperf3", server, environment(tmp_path)) as listening:
        listening.wait_for("Server listening")
        with (
            here.host,
            Program(
                "flood", ["iperf3", "-c", other, "-u", "-l", "100", "-b", "0", "-t", "3"], environment(tmp_path)
            ) as flood,
        ):
            flood.wait_for("connected to")
            # Each may be lost for want of room, but not all of them.
            assert re.search(r" [1-9]\d* received", ping(here.host, other, "-c", "100", "-i", "0.02"))
            assert flood.wait() == 0
        assert listening.wait() == 0
    assert " 0% packet loss" in ping(here.host, other)
    for client in (here, there):
        assert sum(" connected as " in line for line in client.lines) == 1
    assert relay.counters()["dropped bad_super"] == 0
