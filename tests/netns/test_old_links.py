"""Direct links with the original's clients, between programs: two of ours as such, and ours with one played by hand."""

import re
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from lab import stunserver
from lab.control import asked
from lab.laboratory import Client, Laboratory
from lab.linked import Pinging, link
from lab.namespaces import Ethernet, Host
from lab.nats import Router
from lab.originalpeer import OriginalPeer
from lab.programs import Program, RelayProgram, environment
from lab.traffic import ping

pytestmark = pytest.mark.netns

ROUNDS = 1500
"""Lines of a ping, 75 s: what has failed is tried again after 30 s."""
OLD = "192.168.202.77"
AS_OLD = ("--direct", "--no-extension")


def pinging(laboratory: Laboratory, one: Client, its: str, others: Iterable[tuple[Client, str]] = ()) -> Pinging:
    found = Pinging(laboratory, one, its, others, rounds=ROUNDS)
    found.start()
    return found


def both(laboratory: Laboratory, hosts: Iterable[Host], *flags: str) -> Pinging:
    """Two of ours, as original clients."""
    one, other = (laboratory.client(*AS_OLD, *flags, host=host) for host in hosts)
    address, its = one.connected(), other.connected()
    return pinging(laboratory, one, its, [(other, address)])


def acknowledged(pair: Pinging, original: OriginalPeer) -> None:
    """Wait until it is. Its way may be proven before the next heartbeat tells it that it was heard."""
    for _ in range(ROUNDS):
        if original.is_connected:
            return
        pair.wait(1)
    raise AssertionError("not acknowledged")


def packets(relay: RelayProgram) -> int:
    return relay.counters()["packets_in"]


def test_in_one_lan(laboratory: Laboratory) -> None:
    """By their addresses there; the relay has nothing to do any more."""
    relay = laboratory.relay()
    pair = both(laboratory, (laboratory.host(), laboratory.host()))
    links = pair.until(path="direct", format="original", mtu=1500)
    assert all(re.match(r"10\.0\.0\.[23]:\d+$", str(each["endpoint"])) for each in links)
    pair.wait(2)
    before = packets(relay)
    pair.wait(40)
    assert packets(relay) - before < 5
    assert " 0% packet loss" in ping(pair.one.host, pair.its, "-s", "1372", "-M", "do")
    assert [each["address"] for each in asked(pair.one.control, "/v1/members")["members"]] == [pair.its]


def test_through_nats_until_udp_is_blocked(laboratory: Laboratory) -> None:
    laboratory.relay()
    routers = [Router(laboratory, number) for number in (1, 2)]
    pair = both(laboratory, (router.host() for router in routers))
    links = pair.until(path="direct", format="original")
    assert [str(each["endpoint"]).partition(":")[0] for each in links] == [routers[1].address, routers[0].address]
    since = len(pair.answered())
    routers[0].block()
    pair.until(path="relay")
    pair.wait(40)
    print(f"longest gap: {pair.longest_gap(since):.2f} s")
    assert pair.longest_gap(since) < 8
    routers[0].unblock()
    pair.until(path="direct")


@pytest.mark.parametrize("cost", ["5", "0"])
def test_by_another_one_while_the_relay_is_away(laboratory: Laboratory, cost: str) -> None:
    """A and C have no way to each other, and B has one to both: which sends on, if its user wants that."""
    relay = laboratory.relay()
    hosts = [laboratory.host() for _ in range(3)]
    for host, other in ((hosts[0], hosts[2]), (hosts[2], hosts[0])):
        host.run("ip", "route", "add", "blackhole", f"{other.address}/32")
    costs = ("5", cost, "5")
    a, b, c = (laboratory.client(*AS_OLD, "--route", each, host=host) for each, host in zip(costs, hosts, strict=True))
    at_a, at_b, at_c = (each.connected() for each in (a, b, c))
    first, second = pinging(laboratory, a, at_b), pinging(laboratory, c, at_b)
    for pair in (first, second):
        pair.until(path="direct", format="original")
    third = pinging(laboratory, a, at_c, [(c, at_a)])
    if cost == "0":
        third.wait(1)
        relay.signal(signal.SIGKILL)
        first.wait(40)
        assert {each["path"] for each in third.links} == {"relay"}
        assert " 100% packet loss" in ping(a.host, at_c, "-W", "1")
        return
    links = third.until(path="peer", format="original", by=at_b)
    assert all(5 < int(str(each["cost_ms"])) < 1000 for each in links)
    relay.signal(signal.SIGKILL)
    third.wait(40)
    # A link of B's ends, and with it what goes by it.
    b.host.run("ip", "route", "add", "blackhole", f"{c.host.address}/32")
    for _ in range(ROUNDS):
        if {each["path"] for each in third.links} == {"relay"}:
            break
        first.wait(1)
    assert {each["path"] for each in third.links} == {"relay"}


def test_a_stun_server_that_comes_late(laboratory: Laboratory) -> None:
    """Packets go by the relay, and nobody ends for it."""
    laboratory.relay("--no-stun")
    pair = both(laboratory, (laboratory.host(), laboratory.host()), "--stun", f"stun://{Ethernet.ADDRESS}:3478")
    pair.until(path="relay", why="no UDP")
    with laboratory.hub:
        argv = [sys.executable, str(Path(stunserver.__file__)), Ethernet.ADDRESS, "3478"]
        laboratory.enter(Program("STUN server", argv, environment(laboratory.folder)))
    pair.until(path="direct", format="original")


def test_a_stun_server_without_an_address(laboratory: Laboratory) -> None:
    laboratory.relay()
    pair = both(laboratory, (laboratory.host(), laboratory.host()), "--stun", "stun://nowhere.invalid")
    pair.until(path="relay", why="no UDP")
    pair.wait(10)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_with_the_original(laboratory: Laboratory, first: str) -> None:
    """A member that seals for others, and one that can't: who begins, ends up the same."""
    relay = laboratory.relay()
    one = laboratory.client("--direct")
    address = one.connected()
    with OriginalPeer(laboratory.host(), OLD, address, begins=False) as original:
        if first == "theirs":
            original.begin()
            for _ in range(600):
                if link(one, OLD)["path"] == "direct":
                    break
                one.host.run("sleep", "0.1")
        pair = pinging(laboratory, one, OLD)
        pair.until(path="direct", format="original")
        acknowledged(pair, original)
        before, by_relay, by_udp = packets(relay), original.by_relay, original.by_udp
        pair.wait(40)
        assert packets(relay) - before < 5
        assert original.by_relay == by_relay
        # One of them may have been on its way back.
        assert original.by_udp >= by_udp + 39
        [peer] = asked(one.control, "/v1/members")["members"]
        assert (peer["path"], peer["format"], peer["sealing"]) == ("direct", "original", "clear")


@pytest.mark.parametrize(
    ("relay", "client", "why"),
    [
        ((), ("--direct", "--no-direct"), "switched off"),
        (("--no-direct",), ("--direct",), "switched off for the network"),
    ],
)
def test_switched_off(laboratory: Laboratory, relay: tuple[str, ...], client: tuple[str, ...], why: str) -> None:
    laboratory.relay(*relay)
    one = laboratory.client(*client)
    with OriginalPeer(laboratory.host(), OLD, one.connected()) as original:
        pair = pinging(laboratory, one, OLD)
        pair.wait(60)
        assert pair.links[0]["why"] == why
        assert original.by_udp == 0


def test_never_by_who_seals_for_all(laboratory: Laboratory) -> None:
    laboratory.relay()
    one = laboratory.client("--direct", "--seal", "require")
    with OriginalPeer(laboratory.host(), OLD, one.connected()) as original:
        original.begin()
        assert " 100% packet loss" in ping(one.host, OLD, "-W", "2")
        assert not original.is_connected
        assert link(one, OLD)["path"] != "direct"


def test_packets_that_a_path_takes_in_fragments_alone(laboratory: Laboratory) -> None:
    """The longest datagram of an original client has 1,528 bytes with its headers. Where the way takes 1,500, its own
    come in two fragments, and are taken; ours go by the relay, for no DELAY shows that fragments arrive."""
    relay = laboratory.relay()
    one = laboratory.client("--direct", "--mtu", "1471")
    with OriginalPeer(laboratory.host(), OLD, one.connected(), begins=False) as original:
        pair = pinging(laboratory, one, OLD)
        pair.until(path="direct", format="original", mtu=1500)
        acknowledged(pair, original)
        count = 20
        for length, goes_directly in ((1443, True), (1444, False), (1471, False)):
            before = packets(relay), original.by_relay, reassembled(one.host)
            said = ping(one.host, OLD, "-c", str(count), "-i", "0.02", "-s", str(length - 28), "-M", "do")
            assert f"{count} received" in said
            assert original.by_relay - before[1] == (0 if goes_directly else count)
            # No answer came by the relay.
            assert packets(relay) - before[0] < (0 if goes_directly else count) + 5
            assert reassembled(one.host) - before[2] == (0 if goes_directly else count)


def reassembled(host: Host) -> int:
    """Packets that have come to a host in fragments."""
    names, numbers = (line.split() for line in host.run("grep", "^Ip:", "/proc/net/snmp").splitlines())
    return int(numbers[names.index("ReasmOKs")])
