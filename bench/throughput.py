"""The relay against the limit of the machine, and against what a user would write instead.

    python bench/throughput.py
    python bench/throughput.py --against DIR     # or this build against another checkout's
    python bench/throughput.py --control         # or what control calls cost meanwhile
    python bench/throughput.py --capture         # or what a capture costs
    python bench/throughput.py --topology candy.3   # what passes between members with candy.3, sealed and not

One table: packets of several sizes, in several patterns, through candy's engine, through a thread that receives and
sends the same bytes without looking at them (the limit), and through plain aiohttp and picows relays. See
bench/README.md.
"""

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import against
import checkout  # noqa: F401
import click
import controlled
from capturing import measure_capture
from contestant import Aiohttp, Candy, Contestant, Limit, Picows, congestion
from engineprocess import OWN, check_built
from machine import Bystanders, Cores, describe
from measurement import WARM_UP_SECONDS, CheckError, Series, measure
from report import left_out, stages_table, table, targets
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from stages import Stages, observe
from target import Target, missed
from topology import TOPOLOGIES, Topology, pairwise, passed, single_packets, with_stalled_receiver

from candy._fastpath import CANDY3

SIZES = (64, 100, 256, 512, 1300, 4096, 65000)
LARGE_MIN = 1300
"""From here on what each byte costs counts for more than what each packet does."""
PROGRAMS_MAX = 1300
"""The largest packet for relays without the extension, and for aiohttp and picows."""
PASSED_SIZES = (100, 1300, 65000)
"""Of packets between members with candy.3: none that they would have to pad."""
SINGLE_SIZES = (100,)
STALLED_SIZES = (100, 1300)
STALLED_PAIRS = 8
PATTERNS = (*TOPOLOGIES, "candy.3", "single", "stalled")
ROUNDS, SECONDS = 5, 0.15
PROFILE_SECONDS = 1.0
"""Under observation, once for each pattern and size: some thousand samples."""

Maker = Callable[[Topology, int, Cores], Contestant]


@dataclass(frozen=True)
class Cell:
    """One pattern, one packet size, and who takes part: the first is candy, the second the limit."""

    topology: Topology
    size: int
    contestants: list[Maker]


def cells(
    patterns: Sequence[str], sizes: Sequence[int], pairs: int, workers: int, programs: Sequence[Maker]
) -> Iterator[Cell]:
    """Everything that was asked for, programs only where a row of theirs says something new."""
    candy = partial(Candy, workers=workers)
    for name, make in TOPOLOGIES.items():
        if name not in patterns:
            continue
        for size in sizes or SIZES:
            contestants: list[Maker] = [candy, Limit]
            if size >= LARGE_MIN and name.startswith("1-"):
                contestants.append(partial(Limit, unmasks=True))
            if size <= PROGRAMS_MAX and name == "1-1":
                contestants += [partial(candy, extended=False), partial(Limit, segments=True)]
                contestants += programs
            yield Cell(make(pairs), size, contestants)
    if "candy.3" in patterns:
        passing = partial(candy, extended=CANDY3)
        for size in PASSED_SIZES:
            if not sizes or size in sizes:
                contestants = [candy, Limit, passing, partial(passing, sealed=True), partial(Limit, sealed=True)]
                yield Cell(passed(), size, contestants)
    if "single" in patterns:
        for size in sizes or SINGLE_SIZES:
            yield Cell(single_packets(), size, [candy, Limit, *programs])
    if "stalled" in patterns:
        for size in sizes or STALLED_SIZES:
            yield Cell(pairwise(STALLED_PAIRS), size, [candy, lambda t, s, c: candy(with_stalled_receiver(t), s, c)])


def matches(patterns: Sequence[str], sizes: Sequence[int], pairs: int) -> Iterator[against.Match]:
    """Candy's rows of all that was asked for."""
    for name, make in TOPOLOGIES.items():
        if name not in patterns:
            continue
        for size in sizes or SIZES:
            yield against.Match(make(pairs), size)
            if size <= PROGRAMS_MAX and name == "1-1":
                yield against.Match(make(pairs), size, extended=False)
    if "single" in patterns:
        for size in sizes or SINGLE_SIZES:
            yield against.Match(single_packets(), size)
    if "stalled" in patterns:
        for size in sizes or STALLED_SIZES:
            yield against.Match(with_stalled_receiver(pairwise(STALLED_PAIRS)), size)


def run_cell(cell: Cell, cores: Cores, rounds: int, seconds: float, advance: Callable[[], None]) -> list[Series]:
    contestants: list[Contestant] = []
    found: list[Series] = []
    try:
        for make in cell.contestants:
            contestants.append(make(cell.topology, cell.size, cores))
        for so_far in measure(cell.topology.name, cell.size, contestants, rounds=rounds, seconds=seconds):
            found = so_far
            advance()
    finally:
        for contestant in contestants:
            contestant.close()
    return found


def profile_cell(cell: Cell, cores: Cores, workers: int, folder: Path) -> Stages:
    """What the engine does in one pattern."""
    candy = Candy(cell.topology, cell.size, cores, workers=workers)
    try:
        candy.endpoints.run(seconds=WARM_UP_SECONDS)
        file = folder / f"{cell.topology.name.replace('→', '-').replace(' ', '-')}-{cell.size}"
        return observe(candy.threads, lambda: candy.endpoints.run(seconds=PROFILE_SECONDS), file)
    finally:
        candy.close()


def progress_bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    # Drawn between the runs: a thread that draws would take time from the members.
    return Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)


def compare_builds(
    chosen: Sequence[against.Match],
    rival: Path,
    cores: Cores,
    workers: int,
    rounds: int,
    seconds: float,
    json_file: Path | None,
) -> None:
    """The whole of --against; ends the program with status 1 when a row is slower."""
    try:
        check_built(rival)
    except FileNotFoundError as error:
        sys.exit(f"throughput: {error}")
    head = [
        describe(),
        f"this build: {OWN}; the other: {rival.resolve()}",
        f"TCP on 127.0.0.1, {congestion()}; {workers} worker{'s' * (workers != 1)}; {cores}; {rounds} rounds of "
        f"{seconds} s in turn, at most {rounds * against.MOST} for a row that is not settled",
    ]
    found: list[against.Row] = []
    bystanders = Bystanders()
    with progress_bar() as progress:
        task = progress.add_task("", total=len(chosen))
        try:
            for match in chosen:
                row = against.Row(match)
                found.append(row)
                for _ in against.compare(row, rival, cores, workers=workers, rounds=rounds, seconds=seconds):
                    where = f"{match.topology.name}, {match.size} bytes, {len(row.own)} rounds"
                    progress.update(task, description=where, refresh=True)
                progress.update(task, advance=1, refresh=True)
        except CheckError as error:
            sys.exit(f"throughput: {error}: a relay that does so is not measured")
        except (ConnectionError, RuntimeError) as error:
            sys.exit(f"throughput: {error}")
        finally:
            cores.release()
    head.append(f"others used {bystanders.share():.0%} of the machine meanwhile; where they do, it takes more rounds")
    slower = sum(row.verdict == against.SLOWER for row in found)
    foot = (
        "Each interval is that of the median, by order statistics; a verdict means that all of it lies there.\n"
        f"{slower} of {len(found)} rows {against.SLOWER}"
    )
    console = Console()
    width = console.width if console.is_terminal else 150
    Console(width=width).print(*head, against.table(found), foot, sep="\n")
    if json_file is not None:
        json_file.write_text(json.dumps({"head": head, "rows": [row.figures() for row in found]}, indent=1))
    if slower:
        sys.exit(1)


def measure_program(
    take: Callable[[Cores, int, float], list[Target]], cores: Cores, rounds: int, seconds: float
) -> None:
    """The whole of --control, or of --capture; ends the program with status 1 when a target is missed."""
    bystanders = Bystanders()
    try:
        found = take(cores, rounds, seconds)
    except ConnectionError as error:
        sys.exit(f"throughput: {error}")
    finally:
        cores.release()
    print(describe(), f"{cores}; {rounds} rounds of {seconds} s in turn", *map(str, found), sep="\n")
    print(f"others used {bystanders.share():.0%} of the machine meanwhile")
    if missed(found):
        sys.exit(1)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--size", "sizes", type=click.IntRange(24, 65500), multiple=True, help="Packet size in bytes; repeat for more."
)
@click.option("--topology", "patterns", type=click.Choice(PATTERNS), multiple=True, help="Pattern; repeat for more.")
@click.option("--pairs", type=click.IntRange(2, 1000), default=50, show_default=True, help="The N of N→N, N→1 and 1→N.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.02, 60),
    help=f"Length of a round. [default: {SECONDS}; {against.SECONDS} with --against]",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    help=f"Rounds of each contestant. [default: {ROUNDS}; {against.ROUNDS} with --against]",
)
@click.option("--workers", type=click.IntRange(1, 64), help="The engine's threads. [default: cores - 1, at least 1]")
@click.option("--pin/--no-pin", default=True, show_default=True, help="Relay on one core, members on another.")
@click.option("--programs/--no-programs", default=True, show_default=True, help="The aiohttp and picows relays too.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures to this file."
)
@click.option(
    "--profile",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    is_flag=False,
    flag_value=Path("profile"),
    help="Also show where the engine's time goes by stage; what perf recorded is written to this folder. [./profile]",
)
@click.option(
    "--against",
    "rival",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Compare this build with that of the checkout DIR instead.",
)
@click.option("--control", "asks", is_flag=True, help="Measure what control calls cost a relay at full speed instead.")
@click.option("--capture", "captures", is_flag=True, help="Measure what a capture costs a relay at full speed instead.")
def main(
    sizes: tuple[int, ...],
    patterns: tuple[str, ...],
    pairs: int,
    seconds: float | None,
    rounds: int | None,
    workers: int | None,
    pin: bool,
    programs: bool,
    json_file: Path | None,
    folder: Path | None,
    rival: Path | None,
    asks: bool,
    captures: bool,
) -> None:
    """Measure candy's engine against the limit of the machine and against aiohttp and picows.

    The exit status is 1 when a target is missed or, with --against, when a row is slower than the other build's.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    workers = workers or max(1, len(os.sched_getaffinity(0)) - 1)
    cores = Cores(pinned=pin and workers == 1)
    if rival is not None:
        if folder is not None:
            raise click.UsageError("--profile is not for --against")
        rows = list(matches(patterns or PATTERNS, sizes, pairs))
        if not rows:
            raise click.UsageError("--topology candy.3 is not for --against: what came before has none")
        compare_builds(rows, rival, cores, workers, rounds or against.ROUNDS, seconds or against.SECONDS, json_file)
        return
    if asks or captures:
        take = controlled.measure_control if asks else measure_capture
        measure_program(take, cores, rounds or controlled.ROUNDS, seconds or controlled.SECONDS)
        return
    rounds, seconds = rounds or ROUNDS, seconds or SECONDS
    rivals: list[Maker] = [Aiohttp, *([Picows] if find_spec("picows") else [])] if programs else []
    chosen = list(cells(patterns or PATTERNS, sizes, pairs, workers, rivals))
    head = [
        describe(),
        f"TCP on 127.0.0.1, {congestion()}; {workers} worker{'s' * (workers != 1)}; {cores}; "
        f"{rounds} rounds of {seconds} s in turn",
    ]
    console = Console()
    found: list[Series] = []
    profiles: list[tuple[Cell, Stages]] = []
    bystanders = Bystanders()
    with progress_bar() as progress:
        task = progress.add_task("", total=sum(len(cell.contestants) for cell in chosen) * rounds)
        try:
            for cell in chosen:
                progress.update(task, description=f"{cell.topology.name}, {cell.size} bytes", refresh=True)
                found += run_cell(cell, cores, rounds, seconds, lambda: progress.update(task, advance=1, refresh=True))
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)
                    profiles.append((cell, profile_cell(cell, cores, workers, folder)))
        except CheckError as error:
            sys.exit(f"throughput: {error}: a relay that does so is not measured")
        except RuntimeError as error:
            sys.exit(f"throughput: {error}")
        finally:
            cores.release()
    head.append(
        f"others used {bystanders.share():.0%} of the machine meanwhile; over 3 % nothing of this can be relied on"
    )
    width = console.width if console.is_terminal else 170
    judged = list(targets(found))
    Console(width=width).print(*head, table(found), left_out(PROGRAMS_MAX), *map(str, judged), sep="\n")
    by_cell = [(cell.topology.name, cell.size, stages) for cell, stages in profiles]
    if by_cell:
        Console(width=width).print(stages_table(by_cell))
    if json_file is not None:
        figures = {
            "head": head,
            "series": [asdict(series) for series in found],
            "profiles": [{"topology": name, "size": size, **asdict(stages)} for name, size, stages in by_cell],
        }
        json_file.write_text(json.dumps(figures, indent=1, default=str))
    if missed(judged):
        sys.exit(1)


if __name__ == "__main__":
    main()
