"""One load after another, each against a relay of its own, in runs that are void when the machine was not quiet."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fairness_loads import Load, Way
from fairness_probe import INTERVAL_S, Bystander, Delays
from machine import Cores

IDLE_MS_MAX = 1.0
"""The p99 without a load, before and after; a run with more says nothing."""
P99_MS_MAX = 3.0
CPU_MAX = 0.02
VOID_MAX = 2
"""Runs that may be void for each that is asked for."""
IDLE_SHARE = 5
"""One idle packet before and one after, for so many beside the load."""
IDLE_LEAST = 20
WARM_UP_S = 0.3
"""Of the load before anything is measured; nothing where it only waits, for then buffers have to be full."""
SETTLING_S = 1.0
PATIENCE_S = 60.0
"""For the relay to adopt a crowd, or to see it gone."""
LOOK_S = 0.02


class BenchError(Exception):
    """The relay or the load did not do what it must; says what."""


@dataclass(frozen=True)
class Run:
    """One load, once."""

    idle_before_ms: float
    idle_after_ms: float
    """p99 without the load."""
    p50_ms: float
    p99_ms: float
    most_ms: float
    """0 where the relay waits and no packet was sent."""
    probes: int
    lost: int
    busy: float
    """CPU time of the worker over the time of the measurement."""
    frames_per_second: float
    """Of the load, as far as the kernel took them."""
    returns_per_second: float
    drops: dict[str, int]
    """Packets and messages that the engine dropped meanwhile, by reason."""

    @property
    def idle_ms(self) -> float:
        return max(self.idle_before_ms, self.idle_after_ms)

    @property
    def void(self) -> bool:
        return self.idle_ms > IDLE_MS_MAX


@dataclass(frozen=True)
class Row:
    """All runs of a load."""

    load: Load
    runs: list[Run] = field(default_factory=list)

    @property
    def valid(self) -> list[Run]:
        return [run for run in self.runs if not run.void]

    def figure(self, run: Run) -> float:
        return run.busy if self.load.waits else run.p99_ms

    @property
    def median(self) -> Run | None:
        """The run whose figure is the median of those that count, the upper one of two; None: all were void."""
        ordered = sorted(self.valid, key=self.figure)
        return ordered[len(ordered) // 2] if ordered else None

    @property
    def reached(self) -> bool:
        median = self.median
        return median is not None and self.figure(median) <= (CPU_MAX if self.load.waits else P99_MS_MAX)


class Child:
    """A program of the bench that answers lines of JSON. It ends with the context.

    Args:
        order: its first line.
    """

    def __init__(self, program: str, order: Mapping[str, object]) -> None:
        self._program = program
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(program))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with ExitStack() as undo:
            undo.callback(self._end)
            self.first = self.ask(order)
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        self._end()

    def ask(self, question: Mapping[str, object] | None = None) -> Any:
        """The answer to a line.

        Raises:
            BenchError: it ended instead.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question or {}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise BenchError(f"{self._program} ended")
        return json.loads(answer)

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()


def measure(load: Load, cores: Cores, *, probes: int, runs: int) -> Iterator[Row]:
    """The row of one load, after each of its runs: until `runs` of them count, or too many were void.

    Raises:
        BenchError: a process of the bench ended, or the relay did not adopt or let go of the members.
        OSError: the relay ended a bystander's connection.
    """
    row = Row(load)
    while len(row.valid) < runs and len(row.runs) < runs * (1 + VOID_MAX):
        row.runs.append(run_once(load, cores, probes))
        yield row


def run_once(load: Load, cores: Cores, probes: int) -> Run:
    others = sorted(cores.all - cores.relay - cores.members or cores.members)
    order = {"worker_cores": sorted(cores.relay), "other_cores": others, "engine": load.engine, "device": load.device}
    idle = max(IDLE_LEAST, probes // IDLE_SHARE)
    with Child("fairness_relay.py", order) as relay, Bystander(relay.first["port"]) as bystander:
        await_members(relay, 2)
        before = bystander.probe(idle)
        task = {"load": load.name, "port": relay.first["port"], "cores": others}
        with Child("fairness_members.py", task) as members:
            await_members(relay, 2 + load.crowd.count)
            members.ask()
            time.sleep(SETTLING_S if load.waits else WARM_UP_S)
            at_first, sent_at_first, start = relay.ask(), members.ask(), time.perf_counter()
            delays = None
            if load.waits:
                time.sleep(probes * INTERVAL_S)
            else:
                delays = bystander.probe(probes)
            at_last, sent_at_last, elapsed = relay.ask(), members.ask(), time.perf_counter() - start
        await_members(relay, 2)
        time.sleep(WARM_UP_S)
        after = bystander.probe(idle)
    return Run(
        idle_before_ms=before.percentile_ms(99),
        idle_after_ms=after.percentile_ms(99),
        **figures(delays),
        busy=(at_last["cpu_ns"] - at_first["cpu_ns"]) / 1e9 / elapsed,
        frames_per_second=(sent_at_last["sent"] - sent_at_first["sent"]) / elapsed,
        returns_per_second=(sent_at_last["returns"] - sent_at_first["returns"]) / elapsed,
        drops={
            name: count - at_first["drops"][name]
            for name, count in at_last["drops"].items()
            if count != at_first["drops"][name]
        },
    )


def figures(delays: Delays | None) -> dict[str, Any]:
    """The fields of a Run that speak of packets; None: none were sent."""
    if delays is None:
        return {"p50_ms": 0.0, "p99_ms": 0.0, "most_ms": 0.0, "probes": 0, "lost": 0}
    return {
        "p50_ms": delays.percentile_ms(50),
        "p99_ms": delays.percentile_ms(99),
        "most_ms": delays.percentile_ms(100),
        "probes": delays.sent,
        "lost": delays.lost,
    }


def await_members(relay: Child, count: int) -> None:
    """Wait until the relay has just so many connections.

    Raises:
        BenchError: it has not, in the end.
    """
    end = time.monotonic() + PATIENCE_S
    while (there := (now := relay.ask())["adopted"] - now["gone"]) != count:
        if time.monotonic() > end:
            raise BenchError(f"the relay has {there} connections instead of {count}")
        time.sleep(LOOK_S)


def needs_descriptors(load: Load) -> int:
    """How many a process of this load opens at most."""
    return load.crowd.count + (128 if load.way in (Way.RETURN, Way.LINGER) else 0) + 64
