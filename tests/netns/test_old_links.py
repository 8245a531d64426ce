"""Direct links with the original's clients, between programs: two of ours as such, and ours with one played by hand."""

import re
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from lab import stunserver
from lab.control import asked
from lab.laboratory import Client, Laboratory
from lab.namespaces import Ethernet, Host
from lab.nats import Router
from lab.originalpeer import OriginalPeer
from lab.programs import Program, RelayProgram, environment
from lab.traffic import ping

pytestmark = pytest.mark.netns

EACH_S = 0.05
ROUNDS = 1500
"""Answers to a ping, 75 s: what has failed is tried again after 30 s."""
OLD = "192.168.202.77"
AS_OLD = ("--direct", "--no-extension")


class Pair:
    """A member that pings another without a pause."""

    def __init__(
        self, laboratory: Laboratory, one: Client, its: str, others: Iterable[tuple[Client, str]] = ()
    ) -> None:
        self.one, self.its = one, its
        self._ends = [(one, its), *others]
        argv = ["ping", "-n", "-i", str(EACH_S), its]
        with one.host:
            self.ping = laboratory.enter(Program("ping", argv, environment(laboratory.folder)))

    @classmethod
    def of(cls, laboratory: Laboratory, hosts: Iterable[Host], *flags: str) -> "Pair":
        """Two of ours, as original clients."""
        one, other = (laboratory.client(*AS_OLD, *flags, host=host) for host in hosts)
        address, its = one.connected(), other.connected()
        return cls(laboratory, one, its, [(other, address)])

    @property
    def links(self) -> list[dict[str, object]]:
        return [link(client, address) for client, address in self._ends]

    def until(self, **wanted: object) -> list[dict[str, object]]:
        """Wait until the links are like this."""
        for _ in range(ROUNDS):
            found = self.links
            if all(each[key] == value for each in found for key, value in wanted.items()):
                return found
            self.wait(1)
        raise AssertionError(f"not {wanted}: {self.links}")

    def wait(self, answers: int) -> None:
        end = len(self.answered()) + answers
        while len(self.answered()) < end:
            self.ping.wait_for(r"icmp_seq=", len(self.ping.lines))

    def answered(self) -> list[int]:
        found = (re.search(r"bytes from .*icmp_seq=(\d+) ", line) for line in list(self.ping.lines))
        return [int(match[1]) for match in found if match]

    def longest_gap(self, since: int) -> float:
        """Seconds without an answer, of those behind the first so many."""
        numbers = self.answered()[max(since - 1, 0) :]
        return max((later - earlier for earlier, later in pairwise(numbers)), default=0) * EACH_S


def link(client: Client, address: str) -> dict[str, object]:
    found = [each for each in asked(client.control, "/v1/status")["links"] if each["address"] == address]
    return found[0] if found else {"path": None, "why": None, "format": None, "mtu": None}


def packets(relay: RelayProgram) -> int:
    return relay.counters()["packets_in"]


def test_in_one_lan(laboratory: Laboratory) -> None:
    """By their addresses there; the relay has nothing to do any more."""
    relay = laboratory.relay()
    pair = Pair.of(laboratory, (laboratory.host(), laboratory.host()))
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
    pair = Pair.of(laboratory, (router.host() for router in routers))
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


def test_a_stun_server_that_comes_late(laboratory: Laboratory) -> None:
    """Packets go by the relay, and nobody ends for it."""
    laboratory.relay("--no-stun")
    pair = Pair.of(laboratory, (laboratory.host(), laboratory.host()), "--stun", f"stun://{Ethernet.ADDRESS}:3478")
    pair.until(path="relay", why="no UDP")
    with laboratory.hub:
        argv = [sys.executable, str(Path(stunserver.__file__)), Ethernet.ADDRESS, "3478"]
        laboratory.enter(Program("STUN server", argv, environment(laboratory.folder)))
    pair.until(path="direct", format="original")


def test_a_stun_server_without_an_address(laboratory: Laboratory) -> None:
    laboratory.relay()
    pair = Pair.of(laboratory, (laboratory.host(), laboratory.host()), "--stun", "stun://nowhere.invalid")
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
        pair = Pair(laboratory, one, OLD)
        pair.until(path="direct", format="original")
        # Its way is proven before the next heartbeat tells it that it was heard.
        for _ in range(ROUNDS):
            if original.is_connected:
                break
            pair.wait(1)
        assert original.is_connected
        before, by_relay, by_udp = packets(relay), original.by_relay, original.by_udp
        pair.wait(40)
        assert packets(relay) - before < 5
        assert original.by_relay == by_relay
        assert original.by_udp >= by_udp + 40
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
        pair = Pair(laboratory, one, OLD)
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
