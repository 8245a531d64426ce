"""Members with direct links, of which the first one pings another without a pause.

    Pair(laboratory, hosts) ─▶ start() ─▶ until(path="direct") ─▶ … what happens to them … ─▶ wait(), longest_gap()
                                      └─▶ until_at("10.7.0.0/16")
    Pinging(…): the same with members that there are

Rule: time passes by answers; so a test waits no longer than it has to, and none passes without traffic.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import pairwise

from lab.control import asked
from lab.laboratory import Client, Laboratory
from lab.namespaces import Host
from lab.programs import Program, environment

EACH_S = 0.05
ROUNDS = 600
"""Lines of a ping, 30 s."""


class Pinging:
    """A member that pings.

    Args:
        its: the address that it pings.
        others: further ends of links: a member, and the address at the other end.
        rounds: lines of the ping that until() waits for at most.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        one: Client,
        its: str,
        others: Iterable[tuple[Client, str]] = (),
        *,
        rounds: int = ROUNDS,
    ) -> None:
        self._laboratory = laboratory
        self.one, self.its = one, its
        self._ends = [(one, its), *others]
        self._rounds = rounds
        self.ping: Program

    def start(self) -> None:
        argv = ["ping", "-n", "-i", str(EACH_S), self.its]
        with self.one.host:
            self.ping = self._laboratory.enter(Program("ping", argv, environment(self._laboratory.folder)))

    @property
    def links(self) -> list[dict[str, object]]:
        """How each end reaches the other."""
        return [link(client, address) for client, address in self._ends]

    def until(self, **wanted: object) -> list[dict[str, object]]:
        """Wait until the links are like this."""
        return self._until(lambda each: all(each[key] == value for key, value in wanted.items()), str(wanted))

    def until_at(self, network: str) -> list[dict[str, object]]:
        """Wait until each end sends directly to an address of this network."""
        return self._until(lambda each: _address(each) in ip_network(network), f"in {network}")

    def _until(self, is_wanted: Callable[[dict[str, object]], bool], what: str) -> list[dict[str, object]]:
        for _ in range(self._rounds):
            found = self.links
            if all(map(is_wanted, found)):
                return found
            self.wait(1)
        raise AssertionError(f"not {what}: {self.links}")

    def wait(self, answers: int) -> None:
        """Wait for so many answers."""
        end = len(self.answered()) + answers
        while len(self.answered()) < end:
            self.ping.wait_for(r"icmp_seq=", len(self.ping.lines))

    def answered(self) -> list[int]:
        found = (re.search(r"bytes from .*icmp_seq=(\d+) ", line) for line in list(self.ping.lines))
        return [int(match[1]) for match in found if match]

    def left(self, after: int) -> bool:
        """Whether the first one has had no path since its line of this number."""
        return any("is reached by the relay" in line for line in self.one.lines[after:])

    def longest_gap(self, since: int) -> float:
        """Seconds without an answer, of those behind the first so many."""
        numbers = self.answered()[max(since - 1, 0) :]
        return max((later - earlier for earlier, later in pairwise(numbers)), default=0) * EACH_S


class Pair(Pinging):
    """Two members on these hosts.

    Args:
        flags, others: of the first one's client, and of the second one's.
        url, environ: of both.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        hosts: Iterable[Host],
        *flags: str,
        others: Sequence[str] = (),
        url: str | None = None,
        **environ: str,
    ) -> None:
        one, other = hosts
        flags = flags if "--no-direct" in flags else ("--direct", *flags)
        first = laboratory.client(*flags, host=one, url=url, **environ)
        self.other = laboratory.client("--direct", *others, host=other, url=url, **environ)
        self.address, its = first.connected(), self.other.connected()
        super().__init__(laboratory, first, its, [(self.other, self.address)])


def link(client: Client, address: str) -> dict[str, object]:
    found = [each for each in asked(client.control, "/v1/status")["links"] if each["address"] == address]
    return found[0] if found else {"path": None, "why": None, "format": None, "mtu": None}


def _address(found: dict[str, object]) -> IPv4Address | IPv6Address:
    """Where packets go directly; 0.0.0.0 where they don't."""
    host = str(found["endpoint"] if found["path"] == "direct" else "0.0.0.0:0").rpartition(":")[0]
    return ip_address(host.strip("[]"))
