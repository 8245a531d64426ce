"""The round trip of a small packet, idle and beside bulk flows to the same member behind a slow link.

    python bench/latency.py          # as root: it makes network namespaces of its own

One engine, three members: one behind the link, one that pings it, one that sends it all that goes through. All members
are in this thread; the engine has its own. See bench/README.md.
"""

import json
import os
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import checkout  # noqa: F401
import click
import flows
from flows import BULK, MEMBER, PINGER, Bulk, ClosedLoop, Frames, OpenLoop, Ping
from machine import Bystanders, describe
from rich.console import Console
from rich.table import Table
from shapedlink import BURST, LATENCY, MTU, RATE_MBIT, ShapedLink
from target import Target, missed

from candy import _fastpath

WARM_UP_S = 2.0
"""Of each row, at most as long as the row: slow start, and queues that fill."""
PING_INTERVAL_S = 0.005
READ_BYTES = 65536
P99_MS_MAX = 15.0
"""Over the idle round trip."""
SHARE_MIN = 0.9
LOADS: dict[str, Callable[[], list[Bulk]]] = {
    "idle": list,
    "closed loop": lambda: [ClosedLoop()],
    "16 closed loops": lambda: [ClosedLoop(flows.BULK_PORT + i) for i in range(16)],
    "twice the link": lambda: [OpenLoop(2e6 * RATE_MBIT)],
}


@dataclass(frozen=True)
class Row:
    """One load, with or without candy.2."""

    extended: bool
    load: str
    trial: int
    """From 1 on; each has an engine, and so a key of the flow hash, of its own."""
    pings: int
    lost: int
    p50_ms: float
    p99_ms: float
    most_ms: float
    share: float
    """Of the link's rate: the bulk's packets that arrived, without any header of the relay's making or below."""
    link_drops: int
    """Segments that the link had no room for."""
    drops: dict[str, int]
    """Packets that the engine dropped, by reason."""


class End:
    """A member's end of a connection: what it has to send, and what it got."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self._frames = Frames()
        self._unsent = bytearray()

    def send(self, data: bytes = b"") -> None:
        """Send it, or as much as goes, and the rest with the next call."""
        self._unsent += data
        try:
            del self._unsent[: self.connection.send(self._unsent)]
        except BlockingIOError:
            return

    @property
    def behind(self) -> bool:
        return bool(self._unsent)

    def receive(self) -> Iterator[tuple[int, int, int]]:
        data = self.connection.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the relay ended a connection")
        return self._frames.feed(data)


class Exchange:
    """The members of one row, and their flows.

    Args:
        members: behind the link, the pinger, the bulk's sender.
    """

    def __init__(self, members: list[End], bulks: list[Bulk]) -> None:
        self._member, self._pinger, self._sender = members
        self._bulks = {bulk.port: bulk for bulk in bulks}
        self.ping = Ping(PING_INTERVAL_S)
        self.bulk_bytes = 0

    def run(self, seconds: float) -> None:
        with selectors.EpollSelector() as selector:
            for member in (self._member, self._pinger, self._sender):
                selector.register(member.connection, selectors.EVENT_READ, member)
            end = time.monotonic() + seconds
            while (now := time.monotonic()) < end:
                # An open loop goes by the clock, to the millisecond.
                is_open = any(isinstance(bulk, OpenLoop) for bulk in self._bulks.values())
                wait = 0.0005 if is_open else max(0.0, self.ping.due - now)
                for key, _ in selector.select(wait):
                    self._receive(key.data)
                self._send()

    def _receive(self, member: End) -> None:
        for port, sequence, size in member.receive():
            now = time.monotonic()
            if member is self._pinger:
                self.ping.answered(sequence, now)
            elif member is self._sender:
                self._bulks[port].acknowledged(sequence, now)
            elif port == flows.PING_PORT:
                self._member.send(flows.frame(MEMBER, PINGER, port, sequence, flows.PING_SIZE))
            else:
                self.bulk_bytes += size
                self._member.send(flows.frame(MEMBER, BULK, port, sequence, flows.ACK_SIZE))

    def _send(self) -> None:
        now = time.monotonic()
        if now >= self.ping.due:
            self._pinger.send(self.ping.send(now))
        if self._sender.behind:
            self._sender.send()
        else:
            packets = [bulk.send() for bulk in self._bulks.values() for _ in range(bulk.allowed(now))]
            if packets:
                self._sender.send(b"".join(packets))


def measure(link: ShapedLink, load: str, trial: int, *, extended: bool, seconds: float) -> Row:
    """One row, with an engine and connections of its own."""
    with ExitStack() as stack:
        engine = _fastpath.Engine(1, ping_after=0, dead_after=0)
        stack.callback(engine.stop)
        engine.add_network()
        members = []
        for address in (MEMBER, PINGER, BULK):
            end, relay = link.connect(stack, shaped=address is MEMBER)
            engine.bind(engine.adopt(relay.detach(), extended=extended), int.from_bytes(address, "big"))
            members.append(End(end))
        exchange = Exchange(members, LOADS[load]())
        exchange.run(min(WARM_UP_S, seconds))
        exchange.ping.restart()
        exchange.bulk_bytes = 0
        _, link_drops = link.counters()
        drops = engine.drops()
        start = time.monotonic()
        exchange.run(seconds)
        elapsed = time.monotonic() - start
        ping = exchange.ping
        if len(ping.round_trips_s) < 2:
            raise ConnectionError("no ping was answered")
        percentiles = statistics.quantiles(ping.round_trips_s, n=100)
        return Row(
            extended=extended,
            load=load,
            trial=trial,
            pings=len(ping.round_trips_s),
            lost=ping.lost(time.monotonic()),
            p50_ms=percentiles[49] * 1000,
            p99_ms=percentiles[98] * 1000,
            most_ms=max(ping.round_trips_s) * 1000,
            share=exchange.bulk_bytes * 8 / elapsed / RATE_MBIT / 1e6,
            link_drops=link.counters()[1] - link_drops,
            drops={name: count - drops[name] for name, count in engine.drops().items() if count != drops[name]},
        )


def table(rows: list[Row]) -> Table:
    drawn = Table(title="Round trip of a 100-byte packet", title_justify="left")
    for name in ("members", "load"):
        drawn.add_column(name)
    for name in ("pings", "lost", "p50 ms", "p99 ms", "max ms", "bulk, of\nthe link", "dropped by\nthe link"):
        drawn.add_column(name, justify="right")
    drawn.add_column("dropped by the engine")
    for i, row in enumerate(rows):
        drawn.add_row(
            "candy.2" if row.extended else "without candy.2",
            row.load,
            str(row.pings),
            str(row.lost),
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.most_ms:.2f}",
            "" if row.load == "idle" else f"{row.share:.1%}",
            str(row.link_drops),
            ", ".join(f"{name} {count}" for name, count in row.drops.items()),
            end_section=i + 1 == len(rows) or rows[i + 1].extended != row.extended,
        )
    return drawn


def targets(rows: list[Row]) -> Iterator[Target]:
    """What must be reached in each trial: little more than idle, and the bulk has the link."""
    idle = {row.extended: row.p50_ms for row in rows if row.load == "idle"}
    for extended, load in dict.fromkeys((row.extended, row.load) for row in rows if row.load != "idle"):
        trials = [row for row in rows if (row.extended, row.load) == (extended, load)]
        more = max(row.p99_ms for row in trials) - idle[extended]
        share = min(row.share for row in trials)
        yield Target(
            f"{'candy.2' if extended else 'without candy.2'}, {load}: p99 is idle + {more:.1f} ms at most "
            f"(must be ≤ {P99_MS_MAX:g}), the bulk has {share:.1%} at least (must be ≥ {SHARE_MIN:.0%})",
            more <= P99_MS_MAX and share >= SHARE_MIN,
        )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=10, show_default=True, help="Length of each row.")
@click.option("--load", "only", default="", metavar="NAME", help="Beside idle only loads with this in their names.")
@click.option("--trials", type=click.IntRange(1), default=1, show_default=True, help="Of each load, each a new engine.")
@click.option("--congestion", default="cubic", show_default=True, help="TCP congestion control of the connections.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures to this file."
)
def main(seconds: float, only: str, trials: int, congestion: str, json_file: Path | None) -> None:
    """Measure the round trip of a small packet beside bulk flows to the same member behind a slow link."""
    loads = [load for load in LOADS if load != "idle" and only in load]
    if not loads:
        raise click.BadParameter(f"none of {', '.join(LOADS)} has it in its name", param_hint="--load")
    if os.geteuid() != 0:
        sys.exit("latency: network namespaces need root: run it with sudo")
    head = [
        describe(),
        f"member behind tbf rate {RATE_MBIT}mbit burst {BURST} latency {LATENCY}, MTU {MTU}; {congestion}; "
        f"a ping every {PING_INTERVAL_S * 1000:g} ms; {seconds:g} s a row",
    ]
    errors = Console(stderr=True)
    rows = []
    bystanders = Bystanders()
    with ExitStack() as stack:
        try:
            link = ShapedLink(stack, congestion.encode())
            for extended in (True, False):
                for load, trial in [("idle", 1), *((load, trial) for load in loads for trial in range(1, trials + 1))]:
                    errors.print(f"{'candy.2' if extended else 'without candy.2'}, {load}, {trial} …", style="dim")
                    rows.append(measure(link, load, trial, extended=extended, seconds=seconds))
        except (AssertionError, OSError) as error:
            sys.exit(f"latency: {error}")
    head.append(
        f"others used {bystanders.share():.0%} of the machine meanwhile; over 10 % members and relay wait for them too"
    )
    console = Console()
    width = console.width if console.is_terminal else 150
    judged = list(targets(rows))
    Console(width=width).print(*head, table(rows), *map(str, judged), sep="\n")
    if json_file is not None:
        json_file.write_text(json.dumps({"head": head, "rows": [asdict(row) for row in rows]}, indent=1))
    if missed(judged):
        sys.exit(1)


if __name__ == "__main__":
    main()
