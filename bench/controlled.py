"""What control calls cost a relay that forwards at full speed, and how long one takes then: throughput.py --control.

A candy-server as users start it carries packets between two members, in rounds with and without somebody who
asks it for all its members, CALLS_PER_S times a second. Rounds are taken in turn; the cost is that of the workers' CPU
time for each packet, as --against has it.
"""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

import _endpoints
from against import Interval
from contestant import close_all, connect_to, endpoints, log_in
from machine import Cores
from relayprogram import PASSWORD, RelayProgram
from target import Target
from topology import WINDOW_BYTES, Topology

from candy.control.client import Asking
from candy.control.paths import VERSION

SIZE = 1300
CALLS_PER_S = 10
ROUNDS, SECONDS = 16, 0.5
MOST_COST = 0.01
MOST_S = 0.05
BOTH_WAYS = Topology("1↔1", [[1], [0]], WINDOW_BYTES)
"""A member that says nothing is given up after 45 s, and these answer no ping."""
POOL = "10.64.0.0/16"
"""Of the members' addresses, which begin at _endpoints.MEMBER_BASE."""


class Asker:
    """Asks again and again, while it is to."""

    def __init__(self, socket: Path) -> None:
        self._asking = Asking("relay", socket)
        self.taken_s: list[float] = []
        """How long each call took."""

    @contextmanager
    def at_work(self) -> Iterator[None]:
        ended = threading.Event()
        thread = threading.Thread(target=self._ask, args=(ended,))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _ask(self, ended: threading.Event) -> None:
        while True:
            began = time.perf_counter()
            self._asking.ask("GET", f"{VERSION}/members", round_trip=True)
            self.taken_s.append(time.perf_counter() - began)
            if ended.wait(1 / CALLS_PER_S):
                return

    def workers_ns(self) -> float:
        """CPU time that the relay's workers have used."""
        return float(sum(self._asking.ask("GET", f"{VERSION}/status")["worker_cpu_s"])) * 1e9

    def close(self) -> None:
        self._asking.close()


def two_members(stack: ExitStack, cores: Cores, size: int) -> tuple[RelayProgram, _endpoints.Endpoints]:
    """A relay, and two members that send each other packets of so many bytes through it.

    Raises:
        ConnectionError: the relay did not start, or let nobody in.
    """
    state = Path(stack.enter_context(TemporaryDirectory()))
    with cores.for_relay():
        relay = stack.enter_context(RelayProgram(state, POOL))
    members = [connect_to(relay.address) for _ in range(2)]
    stack.callback(close_all, members)
    for number, member in enumerate(members):
        log_in(member, relay.address, IPv4Address(_endpoints.MEMBER_BASE + number), PASSWORD)
    return relay, endpoints(members, BOTH_WAYS, size)


def measure_control(cores: Cores, rounds: int, seconds: float) -> list[Target]:
    """All of it; what was found.

    Raises:
        ConnectionError: the relay did not start, or let nobody in.
    """
    with ExitStack() as stack:
        relay, carried = two_members(stack, cores, SIZE)
        asker = Asker(relay.control)
        stack.callback(asker.close)

        python_ns = 0.0

        def cost(with_calls: bool) -> float:
            """Nanoseconds of the workers' CPU time for each packet."""
            nonlocal python_ns
            all_before, before = relay.cpu_ns(), asker.workers_ns()
            with asker.at_work() if with_calls else ExitStack():
                delivered = carried.run(seconds=seconds)["delivered"]
            used = asker.workers_ns() - before
            python_ns += (relay.cpu_ns() - all_before - used) * with_calls
            return used / delivered

        cost(with_calls=False)
        ratios = []
        for number in range(rounds):
            # Each goes first as often.
            found = {with_calls: cost(with_calls) for with_calls in ((False, True), (True, False))[number % 2]}
            ratios.append(found[True] / found[False])
    interval = Interval.of(ratios)
    taken_ms = [taken * 1000 for taken in sorted(asker.taken_s)]
    return [
        Target(
            f"{CALLS_PER_S} calls a second cost {statistics.median(ratios) - 1:+.1%} of the workers' CPU time for a "
            f"packet ({interval.least - 1:+.1%} to {interval.most - 1:+.1%}): at most {MOST_COST:.0%}",
            statistics.median(ratios) <= 1 + MOST_COST,
        ),
        Target(
            f"{len(taken_ms)} calls took {statistics.median(taken_ms):.1f} ms, at most {taken_ms[-1]:.1f}: "
            f"less than {MOST_S * 1000:.0f} each; {python_ns / len(taken_ms) / 1e6:.1f} ms of Python's CPU time",
            taken_ms[-1] < MOST_S * 1000,
        ),
    ]
