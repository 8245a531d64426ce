"""This build's engine against another checkout's: CPU time of the workers for each packet, in rounds taken in turn.

A round is both builds once, A B or B A in turn, each in a process that is new: two processes of one and the same build
can differ by a tenth for as long as they live, by where they happen to lie in memory, and rounds of the same two
processes would all agree on that.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engineprocess import OWN, EngineProcess
from machine import Cores
from measurement import WARM_UP_SECONDS, Round, run_once
from rich.table import Table
from topology import Topology

MARGIN = 0.03
"""What counts as slower, or as faster the other way round."""
CONFIDENCE = 0.95
ROUNDS, SECONDS = 16, 0.1
"""The first rounds of a row, and the length of one build's turn in each. An even number, so that each build goes first
as often: with 1→50 the build that does pays 2 % more."""
LOOKS = 3
"""How often a row is judged at most: while it is not settled its rounds are doubled. Few, for with every look at a row
on the very margin there is another chance of 1 in 40 to call it slower."""
MOST = 1 << LOOKS - 1
"""Times the first rounds."""
SLOWER, FASTER, WITHIN = (f"{how} {MARGIN * 100:g} %" for how in ("slower by >", "faster by >", "within"))
NOT_SETTLED = "not settled"


@dataclass(frozen=True)
class Match:
    """What both builds carry."""

    topology: Topology
    size: int
    """Of a packet, bytes."""
    extended: bool = True
    """The members agreed to candy.2."""

    @property
    def relay(self) -> str:
        """As throughput.py's table has it."""
        name = "candy" if self.extended else "candy, no candy.2"
        return f"{name}, one stalled" if self.topology.stalled else name


@dataclass(frozen=True)
class Interval:
    """Where the median of all rounds there could be lies, with a confidence of at least 95 %."""

    least: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Interval":
        """From the k-th least to the k-th most of the figures, by how often that many would lie on one side of the
        median by chance. That holds for any distribution, and one round that somebody disturbed moves nothing; a
        bootstrap of the median keeps 92 % with 15 rounds. Fewer than six figures say nothing: 0 to infinity."""
        count, k = len(figures), 0
        outside = 2 / 2**count
        while outside <= 1 - CONFIDENCE:
            k += 1
            outside += 2 * math.comb(count, k) / 2**count
        if k == 0:
            return cls(0.0, math.inf)
        ordered = sorted(figures)
        return cls(ordered[k - 1], ordered[-k])


@dataclass(frozen=True)
class Row:
    """One match, with the rounds of both builds; those of the same number belong together."""

    match: Match
    own: list[Round] = field(default_factory=list)
    other: list[Round] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """This build's CPU time for each delivered packet over the other's, round by round."""
        return [cost(own) / cost(other) for own, other in zip(self.own, self.other, strict=True)]

    @property
    def interval(self) -> Interval:
        return Interval.of(self.ratios)

    @property
    def verdict(self) -> str:
        return judge(self.interval)

    def figures(self) -> dict[str, object]:
        """For a file."""
        return {
            "topology": self.match.topology.name,
            "size": self.match.size,
            "relay": self.match.relay,
            "ratio": statistics.median(self.ratios),
            "interval": None if math.isinf(self.interval.most) else asdict(self.interval),
            "verdict": self.verdict,
            "own": [asdict(one) for one in self.own],
            "other": [asdict(one) for one in self.other],
        }


def judge(interval: Interval) -> str:
    """What an interval of ratios says: the whole of it must lie on one side of the margin, else it is not settled."""
    slower, faster = 1 + MARGIN, 1 / (1 + MARGIN)
    if interval.least > slower:
        return SLOWER
    if interval.most < faster:
        return FASTER
    if faster <= interval.least and interval.most <= slower:
        return WITHIN
    return NOT_SETTLED


def cost(one: Round) -> float:
    """The relay's CPU time for each delivered packet, ns."""
    return one.cpu_ns / one.delivered


def compare(row: Row, checkout: Path, cores: Cores, *, workers: int, rounds: int, seconds: float) -> Iterator[None]:
    """Fill a row with rounds of this build and the checkout's until it is settled, at most MOST times as many as asked
    for. Yields after each, to show the progress.

    Raises:
        CheckError: a build delivered something else than it was given.
        ConnectionError: a build ended a connection.
        RuntimeError: a build's process ended, or did not run the build's own engine.
    """
    for look in range(LOOKS):
        while len(row.own) < rounds << look:
            backwards = len(row.own) % 2 == 1
            order = (checkout, OWN) if backwards else (OWN, checkout)
            first, second = run_round(row.match, order, cores, workers=workers, seconds=seconds)
            row.own.append(second if backwards else first)
            row.other.append(first if backwards else second)
            yield
        if row.verdict != NOT_SETTLED:
            break


def run_round(match: Match, order: tuple[Path, Path], cores: Cores, *, workers: int, seconds: float) -> list[Round]:
    """The build of each checkout once, in this order; both are there from the start."""
    builds: list[EngineProcess] = []
    try:
        for checkout in order:
            builds.append(
                EngineProcess(checkout, match.topology, match.size, cores, workers=workers, extended=match.extended)
            )
        for build in builds:
            run_once(build, WARM_UP_SECONDS)
        return [run_once(build, seconds) for build in builds]
    finally:
        for build in builds:
            build.close()


def table(rows: Sequence[Row]) -> Table:
    drawn = Table(title="Medians; ratios round by round, this build's over the other's", title_justify="left")
    for name in ("pattern", "bytes", "relay"):
        drawn.add_column(f"\n{name}", justify="right" if name == "bytes" else "left", no_wrap=True)
    confidence = f"its {CONFIDENCE * 100:g} %\ninterval"
    for name in ("CPU ns/packet,\nthis build", "\nthe other", "\nratio", confidence, "\nrounds"):
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("\nverdict", no_wrap=True)
    for i, row in enumerate(rows):
        last = i + 1 == len(rows) or rows[i + 1].match.topology.name != row.match.topology.name
        drawn.add_row(*columns_of(row), end_section=last)
    return drawn


def columns_of(row: Row) -> Iterator[str]:
    interval = row.interval
    yield row.match.topology.name
    yield str(row.match.size)
    yield row.match.relay
    for rounds in (row.own, row.other):
        yield f"{statistics.median(map(cost, rounds)):.1f}"
    yield f"{statistics.median(row.ratios):.3f}"
    yield "-" if math.isinf(interval.most) else f"{interval.least:.3f}..{interval.most:.3f}"
    yield str(len(row.own))
    yield row.verdict
