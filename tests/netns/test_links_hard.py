"""Direct links where the way is hard: a hairpin, IPv6 alone, a narrow way, loss, a peer or a direction that is gone."""

import signal
from pathlib import Path

import pytest
from lab.cables import Cable
from lab.laboratory import PORT, Laboratory
from lab.linked import Pair, Pinging
from lab.nats import Router
from lab.shifted import Clock, built
from lab.traffic import MEGABYTE, ping, transfer

pytestmark = pytest.mark.netns


def test_a_hairpin(laboratory: Laboratory) -> None:
    """Two behind one router that reach each other at its outside alone."""
    laboratory.relay()
    router = Router(laboratory, 1)
    hosts = [router.host(), router.host()]
    for port, host in zip((5001, 5002), hosts, strict=True):
        router.forward(port, host)
    router.part(*hosts)
    pair = Pair(laboratory, hosts, "--port", "5001", others=("--port", "5002"))
    pair.start()
    there, back = pair.until(path="direct")
    assert (there["endpoint"], back["endpoint"]) == (f"{router.address}:5002", f"{router.address}:5001")


def test_ipv6_alone(laboratory: Laboratory) -> None:
    laboratory.hub.run("ip", "address", "add", "fd00:98::1/64", "dev", "bridge0", "nodad")
    laboratory.relay(host="[fd00:98::1]")
    hosts = [laboratory.host() for _ in range(2)]
    for number, host in enumerate(hosts, 2):
        host.run("ip", "-4", "address", "flush", "dev", "eth0")
        host.run("ip", "address", "add", f"fd00:98::{number}/64", "dev", "eth0", "nodad")
    pair = Pair(laboratory, hosts, url=f"ws://[fd00:98::1]:{PORT}")
    pair.start()
    there, back = pair.until(path="direct", mtu=1500)
    assert str(there["endpoint"]).startswith("[fd00:98::3]:")
    assert str(back["endpoint"]).startswith("[fd00:98::2]:")
    # The longest that a device sends: by the link, or by the relay.
    assert " 0% packet loss" in ping(pair.one.host, pair.its, "-s", "1372", "-M", "do")
    transfer(pair.one.host, pair.other.host, pair.its, MEGABYTE)


def test_the_way_becomes_narrow(laboratory: Laboratory) -> None:
    """What does not fit any more goes by the relay."""
    laboratory.relay()
    router = Router(laboratory, 1)
    pair = Pair(laboratory, (router.host(), laboratory.host()))
    pair.start()
    pair.until(path="direct", mtu=1500)
    router.narrow(1280)
    pair.until(path="direct", mtu=1280)
    assert " 0% packet loss" in ping(pair.one.host, pair.its, "-s", "1192", "-M", "do")
    assert " 0% packet loss" in ping(pair.one.host, pair.its, "-s", "1372", "-M", "do")
    transfer(pair.one.host, pair.other.host, pair.its, MEGABYTE)
    router.narrow(1500)


def test_loss_and_reordering(laboratory: Laboratory) -> None:
    """The link stays, and takes nothing that overtook for a replay."""
    laboratory.relay()
    hosts = [laboratory.host() for _ in range(2)]
    with Cable(laboratory.hub, hosts[1], loss=0.02, held=0.05) as cable:
        pair = Pair(laboratory, hosts)
        pair.start()
        pair.until(path="direct")
        lines = len(pair.one.lines)
        transfer(pair.one.host, pair.other.host, pair.its, 2 * MEGABYTE)
        pair.wait(60)
        pair.until(path="direct")
        assert not pair.left(lines)
        assert cable.lost > 20
        assert cable.reordered > 50
        for client in (pair.one, pair.other):
            found = client.counters()
            assert found["packets_in"] > 1000
            assert [name for name in found if "replay" in name] == []
        pair.one.close()
        pair.other.close()


@pytest.mark.parametrize("asleep_s", [0, 600])
def test_a_peer_that_stands_still(laboratory: Laboratory, tmp_path: Path, asleep_s: int) -> None:
    """Or whose machine is asleep: sessions are over by its clock then, and its NAT has forgotten it."""
    laboratory.relay()
    clock = Clock(built(tmp_path), tmp_path / "clock")
    router = Router(laboratory, 1)
    one = laboratory.client("--direct", host=laboratory.host())
    other = laboratory.client("--direct", host=router.host(), **clock.environment())
    address, its = one.connected(), other.connected()
    pair = Pinging(laboratory, one, its, [(other, address)])
    pair.start()
    pair.until(path="direct")
    lines, its_lines = len(one.lines), len(other.lines)
    other.signal(signal.SIGSTOP)
    one.wait_for(f"{its} is reached by the relay", lines)
    if asleep_s:
        router.forget(40000)
        clock.sleep(asleep_s)
    other.signal(signal.SIGCONT)
    if asleep_s:
        other.wait_for(f"this machine was asleep for {asleep_s} s", its_lines)
    one.wait_for(f"{its} is reached directly", lines)
    there, _ = pair.until(path="direct")
    assert str(there["endpoint"]).startswith(f"{router.address}:40") is (asleep_s > 0)
    pair.wait(20)


@pytest.mark.parametrize("mute", [0, 1])
def test_one_direction_is_blocked(laboratory: Laboratory, mute: int) -> None:
    """Packets go by the relay in both directions, until it is open again."""
    laboratory.relay()
    pair = Pair(laboratory, (laboratory.host(), laboratory.host()))
    pair.start()
    pair.until(path="direct")
    host = (pair.one, pair.other)[mute].host
    since = len(pair.answered())
    host.run("nft", "add table ip cut; add chain ip cut out { type filter hook output priority 0; }")
    host.run("nft", "add rule ip cut out ip protocol udp drop")
    pair.until(path="relay")
    pair.wait(40)
    print(f"longest gap: {pair.longest_gap(since):.2f} s")
    assert pair.longest_gap(since) < 5
    host.run("nft", "delete table ip cut")
    pair.until(path="direct")
