"""Rounds of contestants in turn, and the figures that follow from them. Knows neither tables nor command lines."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from contestant import Contestant

WARM_UP_SECONDS = 0.05
"""Before the first round: the kernel's buffers grow to what the connections carry."""


class CheckError(Exception):
    """A relay delivered something else than it was given."""


@dataclass(frozen=True)
class Round:
    """One contestant, once."""

    sent: int
    delivered: int
    """Packets, of those that were sent to members that read."""
    looked: int
    compared: int
    """Of the delivered ones: checked for header, addresses and order; compared byte for byte."""
    elapsed_ns: int
    cpu_ns: int
    """Of the relay."""
    idle_ns: int
    """Of elapsed_ns: the members had nothing to do."""
    sends: int | None
    drops: dict[str, int]

    @property
    def packets_per_second(self) -> float:
        return self.delivered / self.elapsed_ns * 1e9

    @property
    def packets_per_cpu_second(self) -> float:
        return self.delivered / self.cpu_ns * 1e9


@dataclass(frozen=True)
class Series:
    """All rounds of one contestant with one pattern and packet size."""

    topology: str
    size: int
    relay: str
    receivers: int
    """Members that packets went to and that read them."""
    rounds: list[Round] = field(default_factory=list)

    def median(self, figure: Callable[[Round], float]) -> float:
        return statistics.median(figure(one) for one in self.rounds)

    @property
    def lost(self) -> float:
        """Share of the packets sent, 0 to 1."""
        sent = sum(one.sent for one in self.rounds)
        return 1 - sum(one.delivered for one in self.rounds) / sent

    @property
    def drops(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for one in self.rounds:
            for reason, count in one.drops.items():
                total[reason] = total.get(reason, 0) + count
        return total


@dataclass(frozen=True)
class Ratio:
    """What one contestant reaches of another's figure, round by round, so that both had the same machine."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figure: Callable[[Round], float], series: Series, reference: Series) -> "Ratio":
        ratios = [figure(a) / figure(b) for a, b in zip(series.rounds, reference.rounds, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))


def run_once(contestant: Contestant, seconds: float) -> Round:
    """Let the members talk for so long, and see that what arrives is what was sent."""
    cpu_ns, sends, drops = contestant.cpu_ns(), contestant.sends(), contestant.drops()
    tally = contestant.endpoints.run(seconds=seconds)
    cpu_ns = contestant.cpu_ns() - cpu_ns
    sends_after = contestant.sends()
    faults = {name: tally[name] for name in ("corrupt", "misdelivered", "reordered") if tally[name]}
    if faults:
        raise CheckError(f"{contestant.name}: {faults} of {tally['looked']} packets looked at")
    if tally["delivered"] == 0:
        raise CheckError(f"{contestant.name}: nothing arrived")
    return Round(
        sent=tally["sent"],
        delivered=tally["delivered"],
        looked=tally["looked"],
        compared=tally["compared"],
        elapsed_ns=tally["elapsed_ns"],
        cpu_ns=cpu_ns,
        idle_ns=tally["idle_ns"],
        sends=None if sends is None or sends_after is None else sends_after - sends,
        drops={
            name: count - drops.get(name, 0)
            for name, count in contestant.drops().items()
            if count != drops.get(name, 0)
        },
    )


def measure(
    topology: str, size: int, contestants: Sequence[Contestant], *, rounds: int, seconds: float
) -> Iterator[list[Series]]:
    """Let contestants take turns: A B C, A B C, … Yields the series so far after each run, to show the progress."""
    found = [Series(topology, size, contestant.name, contestant.topology.receivers) for contestant in contestants]
    for contestant in contestants:
        run_once(contestant, WARM_UP_SECONDS)
    for _ in range(rounds):
        for contestant, series in zip(contestants, found, strict=True):
            series.rounds.append(run_once(contestant, seconds))
            yield found
