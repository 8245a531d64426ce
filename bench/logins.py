"""How long a log-in takes beside those who take Python's time: members that talk, and strangers that knock.

    python bench/logins.py

A candy-server process of its own; the load in another process, and the newcomers, one at a time, in this one. See
bench/README.md.
"""

import json
import multiprocessing
import resource
import select
import socket
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from multiprocessing.connection import Connection
from pathlib import Path

import checkout  # noqa: F401
import click
from machine import Bystanders, describe
from members import PATIENCE_S, POOL, Newcomer, RelayError, straight
from relayprogram import RelayProgram
from rich.console import Console
from rich.table import Table
from target import Target, missed

from candy.protocol import wire

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from kit.peer import BINARY, PONG, build_frame

MEDIAN_MS_MAX = 10.0
WORST_MS_MAX = 100.0
FIRST_NEWCOMER = 1000
"""Numbers below are the load's."""
MEMBERS = 40
STRANGERS = 60
BURST_BYTES = 65536

LOADS = ("idle", "40 members: UDP4CONN", "40 members: DISCOVERY to all", "40 members: unknown kinds", "60 strangers")


@dataclass(frozen=True)
class Row:
    """Log-ins beside one load, in milliseconds."""

    load: str
    logins: int
    median_ms: float
    p99_ms: float
    worst_ms: float
    relay_busy: float
    """Cores that the relay used."""

    @property
    def reached(self) -> bool:
        return self.median_ms <= MEDIAN_MS_MAX and self.worst_ms <= WORST_MS_MAX


def said(load: str, ip: IPv4Address) -> bytes:
    """What one connection of the load says without end."""
    if "UDP4CONN" in load:
        payload = wire.Udp4Conn(ip, IPv4Address(int(ip) ^ 1), ip, 4000).encode()
    elif "DISCOVERY" in load:
        payload = wire.Discovery(ip, wire.BROADCAST).encode()
    else:
        payload = b"\xfe" + bytes(30)
    return build_frame(BINARY, payload, mask=b"abcd")


def be_load(load: str, relay: tuple[str, int], tell: Connection) -> None:
    """The load's process: log in or knock, say so, then flood until it is killed."""
    strangers = load.endswith("strangers")
    crowd = [
        Newcomer(n, straight(relay), "claimed", int(time.time())) for n in range(STRANGERS if strangers else MEMBERS)
    ]
    # All of them before the first floods: beside it, on a slow machine, the next would be late for their log-ins.
    for one in () if strangers else crowd:
        log_in(one)
    for one in crowd:
        one.connection.setblocking(True)
        frames = said(load, one.ip) + (build_frame(PONG, b"unasked", mask=b"abcd") if strangers else b"")
        data = frames * (BURST_BYTES // len(frames))
        threading.Thread(target=flood, args=(one, data, relay if strangers else None), daemon=True).start()
        threading.Thread(target=drain, args=(one.connection,), daemon=True).start()
    tell.send("ready")
    threading.Event().wait()


def flood(one: Newcomer, data: bytes, again: tuple[str, int] | None) -> None:
    """Say it without end; a stranger whose connection is closed comes again."""
    connection = one.connection
    while True:
        try:
            connection.sendall(data)
        except OSError:
            if again is None:
                raise
            connection.close()
            connection = Newcomer(0, straight(again), "claimed", int(time.time())).connection
            connection.setblocking(True)


def drain(connection: socket.socket) -> None:
    try:
        while connection.recv(BURST_BYTES):
            pass
    except OSError:
        return


def log_in(one: Newcomer) -> None:
    """Up to the moment in which the relay passes on what it says.

    Raises:
        RelayError: it does not.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        if not select.select([one.connection], [], [], max(0.0, until - time.monotonic()))[0]:
            raise RelayError(f"said nothing for {PATIENCE_S:g} s")
        if one.receive():
            return


def measure(load: str, logins: int) -> Row:
    """So many log-ins, one after the other."""
    with tempfile.TemporaryDirectory() as state, RelayProgram(Path(state), POOL) as relay:
        process = None
        if load != "idle":
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(
                target=be_load, args=(load, relay.address, theirs), daemon=True
            )
            process.start()
            theirs.close()
            ours.recv()
        try:
            taken = []
            start, cpu = time.monotonic(), relay.cpu_ns()
            for number in range(logins):
                before = time.monotonic()
                one = Newcomer(FIRST_NEWCOMER + number, straight(relay.address), "granted", int(time.time()))
                log_in(one)
                taken.append((time.monotonic() - before) * 1e3)
                one.connection.close()
            busy = (relay.cpu_ns() - cpu) / 1e9 / (time.monotonic() - start)
        finally:
            if process is not None:
                process.kill()
                process.join()
    taken.sort()
    return Row(load, logins, statistics.median(taken), taken[(logins * 99 - 1) // 100], taken[-1], busy)


def table(rows: list[Row]) -> Table:
    drawn = Table(title="A log-in, ms", title_justify="left")
    drawn.add_column("beside")
    for name in ("log-ins", "median", "p99", "worst", "relay's\ncores", ""):
        drawn.add_column(name, justify="right")
    for row in rows:
        figures = [f"{row.median_ms:.1f}", f"{row.p99_ms:.1f}", f"{row.worst_ms:.1f}", f"{row.relay_busy:.2f}"]
        drawn.add_row(row.load, str(row.logins), *figures, "reached" if row.reached else "missed")
    return drawn


def target(rows: list[Row]) -> Target:
    goal = f"a log-in's median ≤ {MEDIAN_MS_MAX:g} ms, its worst ≤ {WORST_MS_MAX:g} ms"
    short = [row.load for row in rows if not row.reached]
    return Target(f"{goal}: not beside {', '.join(short)}" if short else f"{goal}, beside each load", not short)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--logins", type=click.IntRange(1), default=300, show_default=True, help="Beside each load.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures there.")
def main(logins: int, json_file: Path | None) -> None:
    """Measure how long a log-in takes beside those who take the relay's time."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    bystanders = Bystanders()
    rows = []
    try:
        for load in LOADS:
            rows.append(measure(load, logins))
    except (RelayError, OSError) as error:
        sys.exit(f"logins: {LOADS[len(rows)]}: {error}")
    head = [describe(), f"others used {bystanders.share():.0%} of the machine meanwhile"]
    judged = target(rows)
    console = Console()
    Console(width=console.width if console.is_terminal else 120).print(*head, table(rows), sep="\n")
    print(judged)
    if json_file is not None:
        json_file.write_text(json.dumps({"head": head, "rows": [asdict(row) for row in rows]}, indent=1))
    if missed([judged]):
        sys.exit(1)


if __name__ == "__main__":
    main()
