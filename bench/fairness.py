"""How long a bystander's packet takes while one connection does the worst it can to the relay, and what waiting costs.

    python bench/fairness.py                    # the whole table, about half an hour
    python bench/fairness.py --load pings --load "to nobody" --runs 1 --probes 2000

An engine with one worker in a process of its own, the load in another, and the bystander in this one. See
bench/README.md.
"""

import json
import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import checkout  # noqa: F401
import click
from fairness_loads import LOADS, Load
from fairness_probe import INTERVAL_S, may_be_urgent
from fairness_run import CPU_MAX, IDLE_MS_MAX, P99_MS_MAX, BenchError, Row, Run, measure, needs_descriptors
from machine import Bystanders, Cores, describe
from rich.console import Console
from rich.table import Table
from target import Target, missed


def table(rows: Sequence[Row]) -> Table:
    drawn = Table(title="A bystander's packet, ms; the run with the median p99", title_justify="left")
    drawn.add_column("load of one connection")
    for name in (
        "runs\n+ void",
        "idle\np99",
        "p50",
        "p99",
        "max",
        "lost",
        "worker\nbusy",
        "frames/s",
        "returns\n/s",
        "",
    ):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        drawn.add_row(row.load.name, *cells(row))
    return drawn


def cells(row: Row) -> Sequence[str]:
    void = len(row.runs) - len(row.valid)
    runs = f"{len(row.valid)}" + (f" + {void}" if void else "")
    run = row.median
    if run is None:
        return [runs, f"{min(one.idle_ms for one in row.runs):.2f}", *[""] * 7, "void"]
    delays = ["", "", "", ""]
    if not row.load.waits:
        delays = [f"{run.p50_ms:.2f}", f"{run.p99_ms:.2f}", f"{run.most_ms:.2f}", str(run.lost) if run.lost else ""]
    return [
        runs,
        f"{run.idle_ms:.2f}",
        *delays,
        f"{run.busy:.1%}",
        rate(run.frames_per_second),
        rate(run.returns_per_second),
        "reached" if row.reached else "missed",
    ]


def rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second else ""


def targets(rows: Sequence[Row]) -> list[Target]:
    """One line: which loads keep the relay from what must be reached."""
    short = [f"{row.load.name} ({shortfall(row, row.median)})" for row in rows if not row.reached]
    goal = f"p99 ≤ {P99_MS_MAX:g} ms, a worker that waits ≤ {CPU_MAX:.0%} of a core"
    if not short:
        return [Target(f"{goal}, with each of {len(rows)} loads", True)]
    return [Target(f"{goal}: not with {len(short)} of {len(rows)} loads: {'; '.join(short)}", False)]


def shortfall(row: Row, run: Run | None) -> str:
    if run is None:
        return "every run was void"
    return f"{run.busy:.1%}" if row.load.waits else f"{run.p99_ms:.1f} ms"


def chosen(names: Sequence[str]) -> list[Load]:
    """The loads whose names contain one of these; all, if there are none.

    Raises:
        BadParameter: one is in no name.
    """
    for name in names:
        if not any(name in known for known in LOADS):
            raise click.BadParameter(f"no load has {name!r} in its name; there are:\n" + "\n".join(LOADS))
    return [load for load in LOADS.values() if not names or any(name in load.name for name in names)]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--probes", type=click.IntRange(10), default=10000, show_default=True, help="Packets beside each load.")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="That must count, of each load.")
@click.option("--load", "names", multiple=True, metavar="NAME", help="Only the loads with this in their names.")
@click.option("--pin/--no-pin", default=True, help="The worker on the first core, all else on the others.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures to this file."
)
def main(probes: int, runs: int, names: tuple[str, ...], pin: bool, json_file: Path | None) -> None:
    """Measure how long a bystander's packet takes beside every load that one connection can make."""
    loads = chosen(names)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    needed = max(map(needs_descriptors, loads))
    if most < needed:
        sys.exit(f"fairness: {most} descriptors are allowed and {needed} needed: raise the limit with ulimit -n")
    cores = Cores(pinned=pin)
    os.sched_setaffinity(0, cores.members)
    errors = Console(stderr=True)
    rows: list[Row] = []
    bystanders = Bystanders()
    try:
        for load in loads:
            for number, row in enumerate(measure(load, cores, probes=probes, runs=runs), 1):
                last = row.runs[-1]
                note = ", void" if last.void else ""
                figure = f"{last.busy:.1%} busy" if load.waits else f"p99 {last.p99_ms:.2f} ms"
                errors.print(f"{load.name}, {number}: {figure}, idle {last.idle_ms:.2f} ms{note}", style="dim")
            rows.append(row)
    except (BenchError, OSError) as error:
        sys.exit(f"fairness: {loads[len(rows)].name}: {error}")
    finally:
        cores.release()
    head = [
        describe(),
        f"worker on core {min(cores.relay)}, all else on the others" if cores.pinned else "placed by the kernel",
        f"{probes} packets a run, one each {INTERVAL_S * 1e3:g} ms; {runs} runs whose idle p99 is ≤ {IDLE_MS_MAX:g} ms"
        + (
            ""
            if may_be_urgent()
            else "; without root's rights worker and bystander wait for other users of their cores"
        ),
        f"others used {bystanders.share():.0%} of the machine meanwhile",
    ]
    console = Console()
    judged = targets(rows)
    Console(width=console.width if console.is_terminal else 150).print(*head, table(rows), sep="\n")
    # In one line, however long.
    print(*judged, sep="\n")
    if json_file is not None:
        json_file.write_text(json.dumps({"head": head, "rows": [as_figures(row) for row in rows]}, indent=1))
    if missed(judged):
        sys.exit(1)


def as_figures(row: Row) -> dict[str, object]:
    return {
        "load": row.load.name,
        "waits": row.load.waits,
        "reached": row.reached,
        "median": asdict(row.median) if row.median else None,
        "runs": [{**asdict(run), "void": run.void} for run in row.runs],
    }


if __name__ == "__main__":
    main()
