"""TUN to TUN, from one machine's interface through the relay to another's, against the machine's own limits.

    python bench/tunnel.py                       # as root; three minutes
    python bench/tunnel.py --mode ext --seconds 5 --rounds 3 --json figures.json
    python bench/tunnel.py --sealed              # what sealing costs, and wireguard-go beside it

iperf3 and ping between three network namespaces, for each mode of candy, and in the same run for the kernel forwarding
without any VPN and for a proxy that copies bytes. All take turns, figure by figure: absolute figures drift from minute
to minute, what is held against each other was measured within seconds.

What arrives of a flood is counted at the far interface: iperf3's receiver drops at its socket.
"""

import contextlib
import io
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import checkout  # noqa: F401
import click
import wireguard
from machine import CONGESTION, Bystanders, describe
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from target import missed
from tunnel_lab import IPERF_PORT, MODES, PLAIN, PROXY_PORT, SEALED, TunnelLab, Way
from tunnel_report import Figures, Found, table, targets
from tunnel_sealed import sealed_targets

from candy._fastpath import openssl_version

PING_S = 0.01
UDP_HEADERS = 28
ETHERNET_HEADER = 14
PACED = "1G"
ROUNDS_SEALED = 7


class Failed(Exception):
    """A measurement came to nothing."""


def machine_busy_s() -> float:
    """CPU seconds that the whole machine has worked so far."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


class Iperf:
    """iperf3 from left to right, with a server for each run, so that a broken run costs no other."""

    def __init__(self, lab: TunnelLab, way: Way, seconds: int) -> None:
        self._lab = lab
        self._way = way
        self._seconds = seconds

    def run(self, *options: str) -> dict[str, dict[str, float]]:
        """What iperf3 says at the end."""
        with self._lab.right:
            server = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "iperf3", "-s", "-1", "-p", str(IPERF_PORT), "--forceflush"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        with server:
            assert server.stdout is not None
            for line in server.stdout:
                if "listening" in line:
                    break
            # Its output is small, but nobody may have to wait for its reader.
            threading.Thread(target=server.stdout.read, daemon=True).start()
            port = PROXY_PORT if self._way.name == "proxy" else IPERF_PORT
            argv = ["iperf3", "-c", self._way.to, "-p", str(port), "-t", str(self._seconds), "-J", *options]
            try:
                with self._lab.left:
                    done = subprocess.run(argv, capture_output=True, text=True, timeout=self._seconds + 30, check=False)
            except subprocess.TimeoutExpired as error:
                raise Failed(f"{self._way.name}: iperf3 {' '.join(options)} did not end") from error
            finally:
                server.terminate()
        report = json.loads(done.stdout or "{}")
        if done.returncode or "error" in report:
            raise Failed(f"{self._way.name}: iperf3 {' '.join(options)}: {report.get('error', done.stderr)}")
        return report["end"]  # type: ignore[no-any-return]


class Pings:
    """Round trips from left to right while the `with` block runs."""

    def __init__(self, lab: TunnelLab, to: str) -> None:
        with lab.left:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "ping", "-n", "-i", str(PING_S), "-W", "1", to],
                stdout=subprocess.PIPE,
                text=True,
            )
        self._text = ""
        self._reader = threading.Thread(target=self._read)

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._text = self._process.stdout.read()

    def __enter__(self) -> "Pings":
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._reader.join()
        self._process.wait()

    def figures(self, name: str) -> Figures:
        times = [float(time) for time in re.findall(r"time=([0-9.]+) ms", self._text)]
        sent = re.search(r"(\d+) packets transmitted", self._text)
        # The last one may still be on its way.
        return round_trips(name, times, int(sent[1]) - 1 if sent else 0)


def round_trips(name: str, times_ms: list[float], sent: int) -> Figures:
    """Median, average, 99th percentile and maximum, ms, and the share that was lost."""
    if not times_ms:
        return {f"{name} lost": 1.0}
    times_ms.sort()
    return {
        f"{name} p50": statistics.median(times_ms),
        f"{name} avg": sum(times_ms) / len(times_ms),
        f"{name} p99": times_ms[len(times_ms) * 99 // 100],
        f"{name} max": times_ms[-1],
        f"{name} lost": max(0.0, 1 - len(times_ms) / sent) if sent else 0.0,
    }


class Cost:
    """CPU time from its making on."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._start = self._now()

    def _now(self) -> tuple[float, float, float, float]:
        relay, clients, times = self._way.relay_cpu_ns() / 1e9, self._way.clients_cpu_ns() / 1e9, os.times()
        # iperf3 and ping have ended by then, so they are among the children.
        own = relay + clients + times.user + times.system + times.children_user + times.children_system
        return machine_busy_s(), own, relay, clients

    def per_gigabyte(self, name: str, size: float) -> Figures:
        """CPU seconds per 10⁹ bytes: of the whole machine with all that others do on it, of our processes with iperf3
        among them, of the relay (or proxy), of both clients."""
        used = (now - before for now, before in zip(self._now(), self._start, strict=True))
        whole, own, relay, clients = (one / (size / 1e9) for one in used)
        return {f"{name} machine": whole, f"{name} own": own, f"{name} relay": relay, f"{name} clients": clients}


def tcp(lab: TunnelLab, way: Way, seconds: int, streams: int, options: tuple[str, ...]) -> Figures:
    """One direction at full speed; with one stream also what it costs, and what a ping has to wait for."""
    name = f"tcp{streams} {'back' if '-R' in options else 'to'}"
    iperf = Iperf(lab, way, seconds)
    pinged = streams == 1 and not options
    cost = Cost(way)
    with ExitStack() as stack:
        pings = stack.enter_context(Pings(lab, way.to)) if pinged else None
        end = iperf.run("-P", str(streams), "-C", CONGESTION.decode(), *options)
    received = end["sum_received"]
    found = {name: received["bits_per_second"] / 1e9}
    if pings is not None:
        found |= cost.per_gigabyte("cpu", received["bytes"]) | pings.figures("ping loaded")
    return found


def paced(lab: TunnelLab, way: Way, seconds: int) -> Figures:
    cost = Cost(way)
    end = Iperf(lab, way, seconds).run("-C", CONGESTION.decode(), "-b", PACED)
    received = end["sum_received"]
    return {"paced": received["bits_per_second"] / 1e9} | cost.per_gigabyte("paced cpu", received["bytes"])


def arrived(lab: TunnelLab, way: Way, size: int) -> int:
    """Packets of UDP with `size` bytes that the interface on the right has taken so far."""
    # What is put together for the interface counts there as one packet, with one header.
    header = UDP_HEADERS + (ETHERNET_HEADER if way.interface == "eth0" else 0)
    [link] = json.loads(lab.right.run("ip", "-j", "-s", "link", "show", "dev", way.interface))
    came = link["stats64"]["rx"]
    return int((came["bytes"] - header * came["packets"]) // size)


def udp(lab: TunnelLab, way: Way, seconds: int, size: int) -> Figures:
    """A flood of packets with `size` bytes of payload."""
    if not way.udp:
        return {}
    before, reconnects = arrived(lab, way, size), way.reconnects()
    with Pings(lab, way.to) as pings:
        end = Iperf(lab, way, seconds).run("-u", "-b", "0", "-l", str(size), "-w", "4M")["sum"]
    count, taken = arrived(lab, way, size) - before, end["seconds"]
    if way.reconnects() > reconnects:
        raise Failed(f"{way.name}: the tunnel went down under packets of {size} bytes")
    name = f"udp{size}"
    return {
        name: count / taken / 1e3,
        f"{name} sent": end["packets"] / taken / 1e3,
        f"{name} lost": max(0.0, 1 - count / end["packets"]),
        f"{name} iperf": end["packets"] * (1 - end["lost_percent"] / 100) / taken / 1e3,
        **pings.figures(f"ping {name}"),
    }


def idle(lab: TunnelLab, way: Way, seconds: int) -> Figures:
    if way.name == "proxy":
        return proxy_round_trips(lab, way, round(seconds / PING_S))
    with Pings(lab, way.to) as pings:
        time.sleep(seconds)
    return pings.figures("ping idle")


def proxy_round_trips(lab: TunnelLab, way: Way, count: int) -> Figures:
    """A proxy carries no pings: what a ping's 64 bytes take there and back over TCP, with an echo on the right."""

    def echo(listener: socket.socket) -> None:
        opened, _ = listener.accept()
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with opened:
            while data := opened.recv(64):
                opened.sendall(data)

    with lab.right:
        listener = socket.create_server(("", IPERF_PORT))
    with listener:
        answering = threading.Thread(target=echo, args=(listener,), daemon=True)
        answering.start()
        with lab.left:
            near = socket.create_connection((way.to, PROXY_PORT), 10)
        times = []
        with near:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(count):
                start = time.perf_counter()
                near.sendall(bytes(64))
                near.recv(64, socket.MSG_WAITALL)
                times.append((time.perf_counter() - start) * 1e3)
                time.sleep(PING_S)
    return round_trips("ping idle", times, count)


def first(lab: TunnelLab, way: Way, seconds: int) -> Figures:
    """A ping between two clients that have just come and don't know each other's keys, and one after it, ms."""
    if way.restart is None:
        return {}
    way.restart()
    found = {}
    for name in ("ping first", "ping second"):
        answer = re.search(r"time=([0-9.]+) ms", lab.left.run("ping", "-n", "-c", "1", "-W", "5", way.to, check=False))
        if answer is None:
            raise Failed(f"{way.name}: {name}: nothing came back")
        found[name] = float(answer[1])
    return found


Step = tuple[str, Callable[[TunnelLab, Way, int], Figures]]
STEPS: tuple[Step, ...] = (
    ("idle ping", idle),
    ("1 TCP stream", partial(tcp, streams=1, options=())),
    ("1 TCP stream back", partial(tcp, streams=1, options=("-R",))),
    ("4 TCP streams", partial(tcp, streams=4, options=())),
    ("4 TCP streams back", partial(tcp, streams=4, options=("-R",))),
    ("1 Gbit/s", paced),
    ("UDP, 100 bytes", partial(udp, size=100)),
    ("UDP, 1300 bytes", partial(udp, size=1300)),
)
STEPS_SEALED: tuple[Step, ...] = (
    ("a new pair", first),
    ("idle ping", idle),
    ("1 TCP stream", partial(tcp, streams=1, options=())),
    ("UDP, 100 bytes", partial(udp, size=100)),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--mode", "names", type=click.Choice([mode.name for mode in MODES]), multiple=True, help="Repeat for more."
)
@click.option("--seconds", type=click.IntRange(1, 60), default=2, show_default=True, help="Length of a measurement.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    help=f"Of everything, in turn. [default: 1; {ROUNDS_SEALED} with --sealed]",
)
@click.option("--sealed", is_flag=True, help="Measure what sealing costs, and wireguard-go where it is installed.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures to this file."
)
def main(names: tuple[str, ...], seconds: int, rounds: int | None, sealed: bool, json_file: Path | None) -> None:
    """Measure candy from TUN to TUN against the kernel's own forwarding and a plain TCP proxy."""
    if sealed and names:
        raise click.UsageError("--sealed has modes of its own: leave --mode out")
    if os.geteuid() != 0:
        sys.exit("tunnel: run as root: it makes network namespaces and TUN devices")
    console, errors = Console(), Console(stderr=True)
    modes = [PLAIN, SEALED] if sealed else [mode for mode in MODES if not names or mode.name in names]
    steps = STEPS_SEALED if sealed else STEPS
    rounds = rounds or (ROUNDS_SEALED if sealed else 1)
    rival = wireguard.released() if sealed else None
    found: dict[str, Found] = {}
    failed = False
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    # The programs' logs, which the lab prints at the end, are of interest when something failed alone.
    logs = io.StringIO()
    with contextlib.redirect_stdout(logs), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bystanders = Bystanders()
        lab = TunnelLab(stack, Path(folder), modes, limits=not sealed, has_wireguard=rival is not None)
        found = {way.name: Found(way.title) for way in lab.ways}
        # Drawn between the measurements: a thread that draws would take time from them.
        with Progress(*columns, console=errors, auto_refresh=False, transient=True) as progress:
            task = progress.add_task("", total=rounds * len(steps) * len(lab.ways))
            for number in range(rounds):
                for title, step in steps:
                    # There and back again: who comes first in a round comes last in the next.
                    for way in lab.ways[:: -1 if number % 2 else 1]:
                        progress.update(task, description=f"{title}, {way.name}", refresh=True)
                        try:
                            found[way.name].add(step(lab, way, seconds))
                        except Failed as error:
                            errors.print(f"tunnel: {error}")
                            failed = True
                        progress.update(task, advance=1, refresh=True)
    if failed:
        errors.print(logs.getvalue(), markup=False, highlight=False)
    head = [
        describe(),
        "three namespaces, veth with an MTU of 1500, TUN with 1400; congestion control of every connection, iperf3's "
        f"and the carriers', {CONGESTION.decode()}; {rounds} times {seconds} s for each figure, in turn",
    ]
    head.append(
        f"others, and the kernel on its own, used {bystanders.share():.0%} of the machine; where others did, only "
        "ratios of neighbours mean anything"
    )
    width = console.width if console.is_terminal else 150
    judged = list(sealed_targets(found, openssl_version(), rival) if sealed else targets(found))
    Console(width=width).print(*head, table(found), *map(str, judged), sep="\n")
    if json_file is not None:
        samples = {name: one.samples for name, one in found.items()}
        json_file.write_text(json.dumps({"head": head, "samples": samples}, indent=1))
    if failed or missed(judged):
        sys.exit(1)


if __name__ == "__main__":
    main()
