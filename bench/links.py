"""Direct links, TUN to TUN: against the bare path, the relay, and wireguard-go point to point.

    python bench/links.py                       # as root; four minutes
    python bench/links.py --rounds 3 --seconds 2 --json figures.json
    python bench/links.py --without-cipher DIR  # judges the original's format, too: see bench/uncipher.py

Left and right reach each other through a hub that forwards, where the relay runs as well. The bare path is what the
kernel does there without any VPN. All take turns, figure by figure, as in bench/tunnel.py. A path that changes under a
stream is cut in the hub, by nftables; a stranger's flood comes from there.
"""

import contextlib
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import checkout  # noqa: F401
import click
import wireguard
from _endpoints import process_cpu_ns
from lab.control import asked
from links_targets import links_table, links_targets
from machine import CONGESTION, Bystanders, describe
from rich.console import Console
from target import missed
from tunnel import Failed, Iperf, Pings, arrived, idle, tcp
from tunnel_lab import Mode, TunnelLab, Way
from tunnel_report import Figures, Found
from udp_flood import LENGTH

from candy._fastpath import openssl_version

PORT = 26900
DIRECT = Mode("direct", "candy,\ndirect", ("--direct", "--port", str(PORT)), ("--direct", "--port", str(PORT)))
RELAYED = Mode("relayed", "candy,\nby relay", ("--no-direct",), ("--no-direct",))
AS_ORIGINAL = ("--direct", "--no-extension")
ORIGINAL = Mode("original", "candy, direct,\nthe original's", AS_ORIGINAL, AS_ORIGINAL)
UNCIPHERED = Mode("uncipher", "that without\nits cipher", AS_ORIGINAL, AS_ORIGINAL)
LINKED = frozenset({DIRECT.name, ORIGINAL.name, UNCIPHERED.name})
PHASE_S = 4
"""Of each of the three paths under the stream whose path changes."""
INTERVAL_S = 0.1
SETTLED_S = 1.0
"""Behind a change, what the path carries then is measured."""
FLOOD_PER_S = 100_000
OWN_PER_S = 300_000
"""Packets of 100 bytes that are sent through the tunnel. iperf3 takes a core for so many, and another one to read them,
which on two cores leaves none to what is measured."""
SINK_PORT = 9
BESIDE = "50M"
"""What the link carries beside a flood."""
LINK_S = 10.0


def linked(lab: TunnelLab, way: Way) -> None:
    """Wait until both ends say that the link is direct."""
    until = time.monotonic() + LINK_S
    while not all(is_direct(each) for each in way.controls):
        if time.monotonic() > until:
            raise Failed(f"{way.name}: no direct link within {LINK_S:g} s")
        lab.left.run("ping", "-n", "-c", "3", "-i", "0.05", way.to, check=False)


def is_direct(control: Path) -> bool:
    """Whether the client with this control socket reaches the other one directly, on a path that is measured."""
    return [each["path"] for each in asked(control, "/v1/status")["links"]] == ["direct"]


def path_change(lab: TunnelLab, way: Way, seconds: int) -> Figures:
    """Under one stream: direct, by the relay, and direct again. Seconds below half of what each path carries, the
    longest time in one piece, and whether the stream ended well."""
    if way.name != "direct":
        return {}
    changes = (
        (
            "add table ip cut; add chain ip cut forward { type filter hook forward priority 0; };"
            " add rule ip cut forward meta l4proto udp drop"
        ),
        "delete table ip cut",
    )
    timers = [
        threading.Timer(PHASE_S * (number + 1), partial(lab.hub.run, "nft", change))
        for number, change in enumerate(changes)
    ]
    meter = Meter(lab, way)
    for timer in timers:
        timer.start()
    try:
        with meter:
            Iperf(lab, way, 3 * PHASE_S).run("-C", CONGESTION.decode())
    finally:
        for timer in timers:
            timer.join()
        lab.hub.run("nft", "delete", "table", "ip", "cut", check=False)
    return change_figures(meter.rates, INTERVAL_S)


class Meter:
    """What arrives on the right while the `with` block runs: `rates`, bit/s of each INTERVAL_S."""

    def __init__(self, lab: TunnelLab, way: Way) -> None:
        self.rates: list[float] = []
        self._lab = lab
        self._way = way
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure)

    def _measure(self) -> None:
        with self._lab.right:
            before = self._bytes()
            at = due = time.monotonic()
            while not self._ended.wait(max(0.0, (due := due + INTERVAL_S) - time.monotonic())):
                count, now = self._bytes(), time.monotonic()
                self.rates.append((count - before) * 8 / (now - at))
                before, at = count, now

    def _bytes(self) -> int:
        for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
            name, _, figures = line.strip().partition(":")
            if name == self._way.interface:
                return int(figures.split()[0])
        raise Failed(f"{self._way.name}: no interface {self._way.interface}")

    def __enter__(self) -> "Meter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def change_figures(rates: list[float], interval_s: float) -> Figures:
    """`rates`: bit/s, one for each interval, over three phases of the same length."""
    # iperf3 takes a moment to begin and to end.
    per_phase = round(PHASE_S / interval_s)
    settled = round(SETTLED_S / interval_s)
    phases = [rates[at : at + per_phase] for at in range(0, 3 * per_phase, per_phase)]
    usual = [statistics.median(phase[settled:]) for phase in phases]
    # Where one path carries next to nothing that is no rate of its own.
    levels = [max(level, max(usual) / 2) for level in usual]
    low = [rate < level / 2 for phase, level in zip(phases, levels, strict=True) for rate in phase]
    longest = run = 0
    for is_low in low:
        run = run + 1 if is_low else 0
        longest = max(longest, run)
    return {
        "change direct": usual[0] / 1e9,
        "change relayed": usual[1] / 1e9,
        "change again": usual[2] / 1e9,
        "change low": longest * interval_s,
    }


def own_flood(lab: TunnelLab, way: Way, seconds: int) -> Figures:
    """A flood of packets with 100 bytes through the tunnel, to a socket that nobody reads, and pings beside it."""
    with lab.right:
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sink:
        sink.bind(("0.0.0.0", SINK_PORT))
        before = arrived(lab, way, LENGTH)
        argv = [sys.executable, str(Path(__file__).parent / "udp_flood.py"), way.to, str(SINK_PORT)]
        with Pings(lab, way.to) as pings:
            said = lab.left.run(*argv, "--rate", str(OWN_PER_S), "--seconds", str(seconds))
        count, sent = arrived(lab, way, LENGTH) - before, int(said.split()[0])
    return {
        "udp100": count / seconds / 1e3,
        "udp100 sent": sent / seconds / 1e3,
        "udp100 lost": max(0.0, 1 - count / sent),
        **pings.figures("ping udp100"),
    }


def flooded(lab: TunnelLab, way: Way, seconds: int) -> Figures:
    """A stranger floods the UDP port of the right while the link carries little: what that costs its client, as a share
    of a core beyond what it needs without the flood, and what the link loses."""
    if way.name != "direct":
        return {}
    quiet, _ = beside(lab, way, seconds, is_flooded=False)
    busy, lost = beside(lab, way, seconds, is_flooded=True)
    return {"flood share": busy - quiet, "flood lost": lost}


def beside(lab: TunnelLab, way: Way, seconds: int, *, is_flooded: bool) -> tuple[float, float]:
    """The share of a core that the right client takes while the link carries BESIDE, and what is lost of that."""
    right = way.clients[1]
    with ExitStack() as stack:
        if is_flooded:
            stack.enter_context(Flood(lab, seconds + 1))
        before, start = process_cpu_ns(right.pid), time.monotonic()
        end = Iperf(lab, way, seconds).run("-u", "-b", BESIDE, "-l", "1000")["sum"]
        share = (process_cpu_ns(right.pid) - before) / 1e9 / (time.monotonic() - start)
    return share, end["lost_percent"] / 100


class Flood:
    """udp_flood.py in the hub while the `with` block runs, and for so long at most."""

    def __init__(self, lab: TunnelLab, seconds: int) -> None:
        argv = [sys.executable, str(Path(__file__).parent / "udp_flood.py"), "10.0.2.2", str(PORT)]
        argv += ["--rate", str(FLOOD_PER_S), "--seconds", str(seconds)]
        with lab.hub:
            self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *argv], stdout=subprocess.DEVNULL)

    def __enter__(self) -> "Flood":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


Step = tuple[str, Callable[[TunnelLab, Way, int], Figures]]
STEPS: tuple[Step, ...] = (
    ("idle ping", idle),
    ("1 TCP stream", partial(tcp, streams=1, options=())),
    ("UDP, 100 bytes", own_flood),
    ("a path that changes", path_change),
    ("a stranger's flood", flooded),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.IntRange(1, 60), default=2, show_default=True, help="Length of a measurement.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Of everything, in turn.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures to this file."
)
@click.option(
    "--without-cipher",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="What bench/uncipher.py has built there, for comparison.",
)
def main(seconds: int, rounds: int, json_file: Path | None, without_cipher: Path | None) -> None:
    """Measure direct links from TUN to TUN."""
    if os.geteuid() != 0:
        sys.exit("links: run as root: it makes network namespaces and TUN devices")
    console, errors = Console(), Console(stderr=True)
    rival = wireguard.released()
    modes = [DIRECT, RELAYED, ORIGINAL]
    if without_cipher is not None:
        modes.append(replace(UNCIPHERED, candy=without_cipher))
    failed = False
    logs = io.StringIO()
    with contextlib.redirect_stdout(logs), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bystanders = Bystanders()
        lab = TunnelLab(
            stack, Path(folder), modes, limits=True, has_wireguard=rival is not None, is_point_to_point=True
        )
        lab.ways = [way for way in lab.ways if way.name != "proxy"]
        found = {way.name: Found(way.title) for way in lab.ways}
        for number in range(rounds):
            for title, step in STEPS:
                for way in lab.ways[:: -1 if number % 2 else 1]:
                    try:
                        if way.name in LINKED:
                            linked(lab, way)
                        found[way.name].add(step(lab, way, seconds))
                    except Failed as error:
                        errors.print(f"links: {title}: {error}")
                        failed = True
    if failed:
        errors.print(logs.getvalue(), markup=False, highlight=False)
    head = [
        describe(),
        f"three namespaces, veth with an MTU of 1500; {CONGESTION.decode()}; {rounds} times {seconds} s, in turn",
        f"others, and the kernel on its own, used {bystanders.share():.0%} of the machine",
    ]
    judged = list(links_targets(found, openssl_version(), rival))
    Console(width=console.width if console.is_terminal else 150).print(
        *head, links_table(found), *map(str, judged), sep="\n"
    )
    if json_file is not None:
        samples = {name: one.samples for name, one in found.items()}
        json_file.write_text(json.dumps({"head": head, "samples": samples}, indent=1))
    if failed or missed(judged):
        sys.exit(1)


if __name__ == "__main__":
    main()
