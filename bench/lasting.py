"""What leases cost that last, and what asking costs: a relay with members that have said their names, then started
again with their leases, then asked for everything.

    a fresh state ─▶ log-ins, names ─▶ questions ─▶ a restart ─▶ the same
"""

import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from relayprogram import RelayProgram
from target import Target

from candy.control.client import Asking
from candy.control.paths import VERSION

SCRAPE_MS_MAX = 100.0
SETTLE_S = 0.5
"""Between two looks at whether all names are known."""


@dataclass(frozen=True)
class Lasting:
    """One start of the relay."""

    restarted: bool
    """With the leases of the start before."""
    members: int
    baseline_mb: float
    """Resident, before the first member."""
    named_mb: float
    asked_mb: float
    """After all members and all leases were listed, and figures scraped, twice."""
    list_ms: float
    """The relay's CPU time for the list of all members, the longer of two."""
    scrape_ms: float
    """And for the figures; the first scrape imports what it needs."""


def measure_lasting(pool: str, log_in: Callable[[ExitStack, tuple[str, int]], int]) -> list[Lasting]:
    """Both starts.

    Args:
        log_in: has members log in and say their names; returns how many.
    """
    with tempfile.TemporaryDirectory() as state:
        return [_measure(RelayProgram(Path(state), pool), log_in, restarted) for restarted in (False, True)]


def lasting_targets(found: list[Lasting], memory_mb: float, members: int) -> Iterator[Target]:
    """What must be reached with so many members."""
    for one in found:
        which = "restarted with leases" if one.restarted else "fresh, with leases"
        yield Target(
            f"{which}: {one.baseline_mb:.1f} MB resident without members, {one.named_mb:.1f} with {one.members} that "
            f"have names, {one.asked_mb:.1f} after control calls (must be ≤ {memory_mb:g} with {members})",
            max(one.named_mb, one.asked_mb) <= memory_mb,
        )
        yield Target(
            f"{which}: a scrape takes {one.scrape_ms:.0f} ms of CPU time (must be < {SCRAPE_MS_MAX:g}), "
            f"a list of all members {one.list_ms:.0f} in pieces",
            one.scrape_ms < SCRAPE_MS_MAX,
        )


def _measure(program: RelayProgram, log_in: Callable[[ExitStack, tuple[str, int]], int], restarted: bool) -> Lasting:
    with ExitStack() as stack:
        relay = stack.enter_context(program)
        baseline = relay.resident_mb()
        asking = stack.enter_context(closing(Asking("relay", relay.control)))
        members = log_in(stack, relay.address)
        while any(lease["name"] is None for lease in asking.ask("GET", f"{VERSION}/leases")["leases"]):
            time.sleep(SETTLE_S)
        named = relay.resident_mb()
        lists, scrapes = [], []
        for _ in range(2):
            lists.append(_cost_ms(relay, lambda: asking.ask("GET", f"{VERSION}/members", round_trip=True)))
            scrapes.append(_cost_ms(relay, lambda: _scrape(relay.control)))
            asking.ask("GET", f"{VERSION}/leases")
        return Lasting(restarted, members, baseline, named, relay.resident_mb(), max(lists), max(scrapes))


def _cost_ms(relay: RelayProgram, call: Callable[[], object]) -> float:
    before = relay.cpu_ns()
    call()
    return (relay.cpu_ns() - before) / 1e6


def _scrape(control: Path) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.connect(str(control))
        asking.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: asking.recv(65536), b""))
