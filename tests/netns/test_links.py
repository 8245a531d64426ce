"""Direct links between programs: in one LAN, through NATs, while networks change, and while the relay is away."""

import re
import signal
from collections.abc import Iterable
from itertools import pairwise

import pytest
from lab.control import asked
from lab.laboratory import Client, Laboratory
from lab.namespaces import Host
from lab.nats import FULL_CONE, RESTRICTED, SYMMETRIC, Router
from lab.programs import Program, environment
from lab.traffic import ping

pytestmark = pytest.mark.netns

EACH_S = 0.05
ROUNDS = 600
"""Lines of a ping, 30 s."""


class Pair:
    """Two members, of which the first one pings the other without a pause."""

    def __init__(self, laboratory: Laboratory, hosts: Iterable[Host], *flags: str) -> None:
        self._laboratory = laboratory
        one, other = hosts
        flags = flags if "--no-direct" in flags else ("--direct", *flags)
        self.one, self.other = laboratory.client(*flags, host=one), laboratory.client("--direct", host=other)
        self.address, self.its = self.one.connected(), self.other.connected()
        self.ping: Program

    def start(self) -> None:
        argv = ["ping", "-n", "-i", str(EACH_S), self.its]
        with self.one.host:
            self.ping = self._laboratory.enter(Program("ping", argv, environment(self._laboratory.folder)))

    @property
    def links(self) -> tuple[dict[str, object], dict[str, object]]:
        """How each reaches the other."""
        return link(self.one, self.its), link(self.other, self.address)

    def until(self, **wanted: object) -> tuple[dict[str, object], dict[str, object]]:
        """Wait until both links are like this."""
        for _ in range(ROUNDS):
            found = self.links
            if all(each[key] == value for each in found for key, value in wanted.items()):
                return found
            self.wait(1)
        raise AssertionError(f"not {wanted}: {self.links}")

    def wait(self, answers: int) -> None:
        """Wait for so many answers."""
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
    return found[0] if found else {"path": None, "why": None, "mtu": None}


def test_in_one_lan(laboratory: Laboratory) -> None:
    laboratory.relay()
    pair = Pair(laboratory, (laboratory.host(), laboratory.host()))
    pair.start()
    there, back = pair.until(path="direct", mtu=1500)
    for found, client in ((there, pair.other), (back, pair.one)):
        assert str(found["endpoint"]).startswith(f"{client.host.address}:")
        assert found["why"] is None
    assert " 0% packet loss" in ping(pair.one.host, pair.its, "-s", "1372", "-M", "do")
    [peer] = asked(pair.one.control, "/v1/members")["members"]
    assert (peer["path"], peer["sealing"]) == ("direct", "sealed")


@pytest.mark.parametrize(
    ("near", "far"),
    [(RESTRICTED, RESTRICTED), (FULL_CONE, SYMMETRIC), (None, SYMMETRIC), (RESTRICTED, None)],
)
def test_through_nats(laboratory: Laboratory, near: str | None, far: str | None) -> None:
    laboratory.relay()
    hosts = [
        laboratory.host() if nat is None else Router(laboratory, number, nat).host()
        for number, nat in ((1, near), (2, far))
    ]
    pair = Pair(laboratory, hosts)
    pair.start()
    pair.until(path="direct", mtu=1500)


def test_symmetric_on_both_ends(laboratory: Laboratory) -> None:
    """The relay stays, and why is said."""
    laboratory.relay()
    pair = Pair(laboratory, (Router(laboratory, number, SYMMETRIC).host() for number in (1, 2)))
    pair.start()
    pair.until(path="relay", why="symmetric NAT on both ends")
    assert " 0% packet loss" in ping(pair.one.host, pair.its)


def test_behind_one_router(laboratory: Laboratory) -> None:
    """Which leads nothing back in."""
    laboratory.relay()
    router = Router(laboratory, 1)
    pair = Pair(laboratory, (router.host(), router.host()))
    pair.start()
    there, _ = pair.until(path="direct")
    assert str(there["endpoint"]).startswith(f"{pair.other.host.address}:")


def test_a_nat_that_forgets_under_traffic(laboratory: Laboratory) -> None:
    laboratory.relay()
    routers = [Router(laboratory, number) for number in (1, 2)]
    pair = Pair(laboratory, (router.host() for router in routers))
    pair.start()
    _, before = pair.until(path="direct")
    since = len(pair.answered())
    routers[0].forget(40000)
    for _ in range(ROUNDS):
        _, back = pair.links
        if back["path"] == "direct" and back["endpoint"] != before["endpoint"]:
            break
        pair.wait(1)
    assert str(back["endpoint"]).startswith(f"{routers[0].address}:40")
    pair.until(path="direct")
    print(f"longest gap: {pair.longest_gap(since):.2f} s")
    assert pair.longest_gap(since) < 5


def test_udp_is_blocked_after_a_while(laboratory: Laboratory) -> None:
    laboratory.relay()
    routers = [Router(laboratory, number) for number in (1, 2)]
    pair = Pair(laboratory, (router.host() for router in routers))
    pair.start()
    pair.until(path="direct")
    since = len(pair.answered())
    routers[0].block()
    pair.until(path="relay")
    pair.wait(40)
    print(f"longest gap: {pair.longest_gap(since):.2f} s")
    assert pair.longest_gap(since) < 5
    routers[0].unblock()
    pair.until(path="direct")


def test_the_relay_is_gone_under_a_ping(laboratory: Laboratory) -> None:
    """For longer than a session lasts."""
    relay = laboratory.relay()
    pair = Pair(laboratory, (laboratory.host(), laboratory.host()))
    pair.start()
    pair.until(path="direct")
    since = len(pair.answered())
    relay.signal(signal.SIGKILL)
    relay.wait()
    pair.one.wait_for("connection refused")
    pair.wait(round(200 / EACH_S))
    assert pair.longest_gap(since) < 5
    pair.until(path="direct")
    lines = [len(client.lines) for client in (pair.one, pair.other)]
    laboratory.relay()
    for client, after in zip((pair.one, pair.other), lines, strict=True):
        client.connected(after)
    pair.wait(60)
    pair.until(path="direct")
    print(f"longest gap: {pair.longest_gap(since):.2f} s")
    assert pair.longest_gap(since) < 5


@pytest.mark.parametrize(
    ("relay", "client", "here", "there"),
    [
        ((), ("--no-direct",), "switched off", "switched off there"),
        (("--no-direct",), (), "switched off for the network", "switched off for the network"),
    ],
)
def test_switched_off(
    laboratory: Laboratory, relay: tuple[str, ...], client: tuple[str, ...], here: str, there: str
) -> None:
    laboratory.relay(*relay)
    pair = Pair(laboratory, (laboratory.host(), laboratory.host()), *client)
    pair.start()
    for _ in range(ROUNDS):
        if [each["why"] for each in pair.links] == [here, there]:
            break
        pair.wait(1)
    assert [(each["path"], each["why"]) for each in pair.links] == [("relay", here), ("relay", there)]


def test_a_port_that_is_taken(laboratory: Laboratory) -> None:
    laboratory.relay()
    host = laboratory.host()
    one = laboratory.client("--direct", "--port", "5000", "-n", "one", host=host)
    one.connected()
    other = laboratory.client("--direct", "--port", "5000", "-n", "other", host=host)
    other.wait_for("cannot use UDP port 5000 for direct links: Address already in use: choose another with --port")
    assert other.wait() == 1
