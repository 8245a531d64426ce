"""How well limits are kept, TUN to TUN, and what a ping has to wait for beside what they hold.

    python bench/limits.py                              # as root; two minutes
    python bench/limits.py --mode wss --seconds 8 --json figures.json

Three members in network namespaces: bulk from left to right by iperf3, pings by a third one, so that they share nothing
with the bulk but the member that is held. Limits are set at run time, as an operator would. What arrives is counted at
the receiving interface; the first second, in which flows find their pace, does not count.

Limits count packets as the relay passes them. A client joins segments of a stream before its interface, which has their
headers once then: with `--mode old`, where each came by itself, one stream shows 3 % less than the relay lets pass.
"""

import contextlib
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import checkout  # noqa: F401
import click
from machine import CONGESTION, Bystanders, describe
from rich.console import Console
from rich.table import Table
from target import Target, missed

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import trustme
from lab.control import Control
from lab.laboratory import Laboratory
from lab.namespaces import Ethernet, Namespace
from lab.tls import flags_for

RATE, SLOW = 100_000_000, 10_000_000
"""Bits a second."""
KEPT = 0.03
"""How far a rate may be off."""
PING_MS, PING_LOST = 20.0, 0.01
PING_S = 0.01
SETTLE_S = 1.0
LEFT, RIGHT, THIRD = "10.20.0.2", "10.20.0.3", "10.20.0.4"
PORT = 5201
MODES = {
    "sealed": (),
    "clear": ("--seal", "off"),
    "old": ("--seal", "off", "--no-extension"),
    "wss": ("--seal", "off"),
}
LOADS = {
    "1 TCP stream": ("-C", CONGESTION.decode()),
    "16 TCP streams": ("-P", "16", "-C", CONGESTION.decode()),
    "UDP flood": ("-u", "-b", "0", "-l", "1300", "-w", "4M"),
}


@dataclass(frozen=True)
class Found:
    """One measurement."""

    what: str
    rate: float
    """Bits a second that arrived."""
    pings: tuple[float, float, float] | None = None
    """Median and 99th percentile, ms, and the share that was lost; None where nobody pinged."""


class Lab:
    """Relay and members, made and let go by an ExitStack."""

    def __init__(self, stack: ExitStack, folder: Path, mode: str, *more: str) -> None:
        laboratory = Laboratory(stack, folder)
        self._stack = stack
        flags = list(more)
        url: str | None = None
        trust: tuple[str, ...] = ()
        if mode == "wss":
            authority = trustme.CA()
            flags += flags_for(authority, folder, Ethernet.ADDRESS)
            authority.cert_pem.write_to_path(folder / "ca.pem")
            url, trust = laboratory.url.replace("ws:", "wss:"), ("--ca-file", str(folder / "ca.pem"))
        relay = laboratory.relay("-d", "10.20.0.0/24", *flags, scheme="wss" if mode == "wss" else "ws")
        hosts: dict[str, Namespace] = {}
        for address in (LEFT, RIGHT, THIRD):
            one = laboratory.client("-t", f"{address}/24", *MODES[mode], *trust, url=url)
            one.connected()
            hosts[address] = one.host
        self.hosts = hosts
        self._control = stack.enter_context(Control("relay", relay.control))

    def limit(self, address: str, *, down: int = 0, up: int = 0) -> None:
        """As `candy-server limit` does."""
        body = {"down": down, "up": up, "network": "/"}
        self._control.ask("POST", f"/v1/leases/{address}/limits", body)

    def measure(self, what: str, load: Sequence[str], seconds: float, way: tuple[str, str] = (THIRD, RIGHT)) -> Found:
        """The load from left to right for so long, and pings between two members beside it."""
        with self._iperf(load, seconds), Pings(self.hosts[way[0]], way[1]) as pings:
            time.sleep(SETTLE_S)
            pings.begin()
            before, began = self._arrived(), time.monotonic()
            time.sleep(seconds)
            arrived, took = self._arrived() - before, time.monotonic() - began
            pings.end()
        return Found(what, arrived * 8 / took, pings.figures())

    def shared(self, what: str, seconds: float) -> Found:
        """A stream from left to each of the others; what arrives at both together."""
        with self._iperf(LOADS["1 TCP stream"], seconds), self._iperf(LOADS["1 TCP stream"], seconds, THIRD):
            time.sleep(SETTLE_S)
            before, began = [self._arrived(RIGHT), self._arrived(THIRD)], time.monotonic()
            time.sleep(seconds)
            arrived, took = self._arrived(RIGHT) + self._arrived(THIRD) - sum(before), time.monotonic() - began
        return Found(what, arrived * 8 / took)

    def _arrived(self, address: str = RIGHT) -> int:
        """Bytes."""
        [link] = json.loads(self.hosts[address].run("ip", "-j", "-s", "link", "show", "dev", "candy"))
        return int(link["stats64"]["rx"]["bytes"])

    @contextmanager
    def _iperf(self, load: Sequence[str], seconds: float, to: str = RIGHT) -> Iterator[None]:
        dying = ["setpriv", "--pdeathsig", "KILL"]
        with self.hosts[to]:
            server = subprocess.Popen(
                [*dying, "iperf3", "-s", "-1", "-p", str(PORT), "--forceflush"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            pass
        threading.Thread(target=server.stdout.read, daemon=True).start()
        length = ["-t", str(int(seconds + SETTLE_S) + 30)]
        with self.hosts[LEFT]:
            client = subprocess.Popen(
                [*dying, "iperf3", "-c", to, "-p", str(PORT), *length, "--forceflush", *load],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        assert client.stdout is not None
        # The first report: all streams are there.
        while " sec " not in (line := client.stdout.readline()):
            if not line:
                raise click.ClickException("iperf3 ended early")
        threading.Thread(target=client.stdout.read, daemon=True).start()
        try:
            yield
        finally:
            for process in (client, server):
                process.kill()
                process.wait()


class Pings:
    """Round trips from a host while the `with` block runs; those between begin() and end() count."""

    def __init__(self, host: Namespace, to: str) -> None:
        with host:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "ping", "-n", "-D", "-i", str(PING_S), "-W", "1", to],
                stdout=subprocess.PIPE,
                text=True,
            )
        self._text = ""
        self._span = (0.0, 0.0)
        self._reader = threading.Thread(target=self._read)

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._text = self._process.stdout.read()

    def __enter__(self) -> "Pings":
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        # What is on its way still counts.
        time.sleep(0.3)
        self._process.send_signal(signal.SIGINT)
        self._reader.join()
        self._process.wait()

    def begin(self) -> None:
        self._span = (time.time(), 0.0)

    def end(self) -> None:
        self._span = (self._span[0], time.time())

    def figures(self) -> tuple[float, float, float]:
        """Median and 99th percentile, ms, and the share that was lost."""
        found = re.findall(r"\[([0-9.]+)\].*icmp_seq=(\d+) .*time=([0-9.]+) ms", self._text)
        within = [(int(number), float(ms)) for at, number, ms in found if self._span[0] <= float(at) <= self._span[1]]
        if len(within) < 2:
            return 0.0, 0.0, 1.0
        numbers, times = [number for number, _ in within], sorted(ms for _, ms in within)
        sent = max(numbers) - min(numbers) + 1
        return statistics.median(times), times[len(times) * 99 // 100], 1 - len(set(numbers)) / sent


def run(lab: Lab, seconds: float) -> tuple[list[Found], list[Target]]:
    """All measurements, and what is to be said of them."""
    found: list[Found] = []
    targets: list[Target] = []
    for direction, address in (("down", RIGHT), ("up", LEFT)):
        lab.limit(address, **{direction: RATE})
        for name, load in LOADS.items():
            found.append(lab.measure(f"{direction} 100M, {name}", load, seconds))
            targets.append(kept(found[-1], RATE))
        lab.limit(address, **{direction: SLOW})
        # The flood would fill the sender's own interface, and those who ping by it: that is no matter of the limit.
        for name, way in (
            ("1 TCP stream", (THIRD, RIGHT)),
            ("UDP flood", (THIRD, RIGHT)),
            ("1 TCP stream", (LEFT, THIRD)),
        ):
            if direction == "down" and way[0] == LEFT:
                continue
            what = f"{direction} 10M, {name}{', ping by the same' if way[0] == LEFT else ''}"
            found.append(lab.measure(what, LOADS[name], seconds, way))
            targets.append(kept(found[-1], SLOW))
            targets += pinged(found[-1], is_promised=way[0] != LEFT)
        lab.limit(address)
    return found, targets


def run_network(lab: Lab, seconds: float) -> tuple[Found, Target]:
    """Where a network is held to RATE down, and none of its members."""
    found = lab.shared("a network's 100M, 1 TCP stream to each of two", seconds)
    return found, kept(found, RATE)


def kept(one: Found, rate: int) -> Target:
    """Whether a rate was kept."""
    off = one.rate / rate - 1
    return Target(f"{one.what}: {off:+.1%} off (±{KEPT:.0%})", abs(off) <= KEPT)


def pinged(one: Found, *, is_promised: bool) -> Iterator[Target]:
    """Whether pings were quick and whole."""
    assert one.pings is not None
    _, late, lost = one.pings
    text = f"{one.what}: ping p99 {late:.1f} ms, {lost:.1%} lost"
    if is_promised:
        yield Target(f"{text} (≤ {PING_MS:.0f} ms, < {PING_LOST:.0%})", late <= PING_MS and lost < PING_LOST)
    else:
        yield Target(text)


def table(found: Sequence[Found]) -> Table:
    made = Table("", "Mbit/s", "ping p50, ms", "p99", "lost")
    for one in found:
        pings = [] if one.pings is None else [f"{one.pings[0]:.1f}", f"{one.pings[1]:.1f}", f"{one.pings[2]:.1%}"]
        made.add_row(one.what, f"{one.rate / 1e6:.2f}", *pings)
    return made


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--mode", type=click.Choice(list(MODES)), default="sealed", show_default=True, help="How members connect."
)
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=5, show_default=True, help="Of each measurement.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures to this file."
)
def main(mode: str, seconds: float, json_file: Path | None) -> None:
    """Measure how well limits of members are kept."""
    if os.geteuid() != 0:
        sys.exit("limits: run as root: it makes network namespaces and TUN devices")
    logs = io.StringIO()
    bystanders = Bystanders()
    try:
        with contextlib.redirect_stdout(logs), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            found, targets = run(Lab(stack, Path(folder), mode), seconds)
        with contextlib.redirect_stdout(logs), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            shared, target = run_network(Lab(stack, Path(folder), mode, "--network-limit-down", str(RATE)), seconds)
            found.append(shared)
            targets.append(target)
    except BaseException:
        sys.stderr.write(logs.getvalue())
        raise
    head = [
        describe(),
        f"{mode}; three namespaces on a bridge, TUN with an MTU of 1400; {seconds:g} s for each figure; others, and "
        f"the kernel on its own, used {bystanders.share():.0%} of the machine",
    ]
    Console(width=120).print(*head, table(found), *map(str, targets), sep="\n", highlight=False)
    if json_file is not None:
        figures = [{"what": one.what, "rate": one.rate, "pings": one.pings} for one in found]
        json_file.write_text(json.dumps({"head": head, "found": figures}, indent=1))
    if missed(targets):
        sys.exit(1)


if __name__ == "__main__":
    main()
