"""`make demo`: a relay and two clients in three network namespaces, ping and iperf3 through them.

    left ── veth ── relay ── veth ── right        10.0.1.0/24 and 10.0.2.0/24, each with an end of the relay's
      candy ═════ candy-server ═════ candy        192.168.202.0/24, the network that is shown

Rules:
 1. Nothing is left behind, however this ends. Namespaces have no names: they live as long as this process or one of
    theirs holds them. All that it starts dies with it, even when it is killed.
 2. SIGINT and SIGTERM are taken only where this waits, so that nothing is ever half made, and not while it cleans up.
"""

import asyncio
import ctypes
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
PORT = 26816
SECONDS = 4
PATIENCE_S = 30.0
"""After this long something that has to happen is said not to have happened."""
CLONE_NEWNET = 0x40000000

console = Console(highlight=False)
libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """One line for the user."""


def enter(descriptor: int) -> None:
    """Move this process to a network namespace."""
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise Failed(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")


class Namespace:
    """A network namespace and what runs in it."""

    def __init__(self, name: str, stack: ExitStack, folder: Path) -> None:
        self.name = name
        self._stack = stack
        self._folder = folder
        self._outside = os.open("/proc/self/ns/net", os.O_RDONLY)
        stack.callback(os.close, self._outside)
        if libc.unshare(CLONE_NEWNET) != 0:
            raise Failed(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}: run as root")
        try:
            self._inside = os.open("/proc/self/ns/net", os.O_RDONLY)
            stack.callback(os.close, self._inside)
        finally:
            enter(self._outside)
        self.path = f"/proc/{os.getpid()}/fd/{self._inside}"

    def start(self, *command: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start a program inside, that is ended with the demo; it writes to pipes that are collected by follow()."""
        enter(self._inside)
        try:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                cwd=self._folder,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # The terminal's ^C is for this process, which ends the others.
                start_new_session=True,
            )
        finally:
            enter(self._outside)
        self._stack.callback(end, process)
        return process

    async def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside to its end; its output."""
        process = self.start(*command)
        assert process.stdout is not None
        output = b""
        async with asyncio.timeout(PATIENCE_S):
            while data := await readable(process.stdout.fileno()):
                output += data
        status = process.wait()
        if check and status != 0:
            raise Failed(f"{self.name}: {' '.join(command)}: {output.decode(errors='replace').strip()}")
        return output.decode(errors="replace")

    async def wait_for(self, process: subprocess.Popen[bytes], pattern: str) -> re.Match[str]:
        """Read a program's log until a line matches."""
        assert process.stdout is not None
        log = ""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while data := await readable(process.stdout.fileno()):
                    log += data.decode(errors="replace")
                    if found := re.search(pattern, log):
                        return found
        except TimeoutError:
            pass
        raise Failed(f"{self.name}: waited in vain for {pattern!r}:\n{log}")


async def readable(descriptor: int) -> bytes:
    """What can be read, as soon as there is something; empty at the end."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 65536)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program, if it still runs. Rule 2: this is not interrupted."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def command(side: str) -> list[str]:
    """candy-server or candy-client, of this checkout and this interpreter."""
    return [sys.executable, "-c", f"from candy.cli.{side} import main; main()"]


async def show(stack: ExitStack, folder: Path) -> None:
    """Build, start, measure, tell."""
    relay, left, right = (Namespace(name, stack, folder) for name in ("relay", "left", "right"))
    console.print("[bold]three network namespaces[/]: left ── relay ── right")
    for number, host in enumerate((left, right), 1):
        await relay.run("ip", "link", "add", host.name, "type", "veth", "peer", "name", "eth0", "netns", host.path)
        await relay.run("ip", "address", "add", f"10.0.{number}.1/24", "dev", host.name)
        await relay.run("ip", "link", "set", host.name, "up")
        await host.run("ip", "address", "add", f"10.0.{number}.2/24", "dev", "eth0")
        await host.run("ip", "link", "set", "eth0", "up")
        await host.run("ip", "link", "set", "lo", "up")
    congestion = {await pinned(host) for host in (relay, left, right)}

    password = secrets.token_urlsafe(12)
    serving = relay.start(
        *command("server"), "-w", f"ws://0.0.0.0:{PORT}", CANDY_PASSWORD=password, CANDY_STATE_DIR=str(folder / "relay")
    )
    await relay.wait_for(serving, r"listening on \S+")
    console.print(f"[bold]relay[/]  candy-server -w ws://0.0.0.0:{PORT}")
    addresses = {}
    for number, host in enumerate((left, right), 1):
        url = f"ws://10.0.{number}.1:{PORT}"
        joining = host.start(
            *command("client"), "-w", url, CANDY_PASSWORD=password, CANDY_STATE_DIR=str(folder / host.name)
        )
        found = await host.wait_for(joining, r"connected as ([0-9.]+)/")
        addresses[host.name] = found[1]
        console.print(f"[bold]{host.name:6}[/] candy-client -w {url}  [green]{found[1]}[/]")

    there = addresses["right"]
    results = Table("left to right, through the relay", "result", title=f"TCP: {', '.join(sorted(congestion))}")
    output = await left.run("ping", "-c", "20", "-i", "0.05", "-q", there)
    loss, times = re.search(r"([\d.]+%) packet loss", output), re.search(r"= ([\d./]+) ms", output)
    if loss is None or times is None or loss[1] != "0%":
        raise Failed(f"ping: {output}")
    least, average, most, _ = times[1].split("/")
    results.add_row("ping, 20 packets", f"none lost, {average} ms ({least} to {most})")

    for what, *flags in (("TCP",), ("TCP, right to left", "-R"), ("TCP, both at once", "--bidir")):
        # A server for each run: one that still ends the run before turns the next one away.
        listening = right.start("iperf3", "--forceflush", "-s", "-1", "-B", there)
        await right.wait_for(listening, "Server listening")
        report = json.loads(await left.run("iperf3", "-J", "-c", there, "-t", str(SECONDS), *flags))
        if "error" in report:
            # Its exit status does not tell.
            raise Failed(f"iperf3 {' '.join(flags)}: {report['error']}")
        ends = ("sum_received", "sum_received_bidir_reverse") if "--bidir" in flags else ("sum_received",)
        rates = " and ".join(f"{report['end'][name]['bits_per_second'] / 1e9:.2f}" for name in ends)
        results.add_row(f"{what}, {SECONDS} s", f"{rates} Gbit/s")
        end(listening)
    console.print(results)


async def pinned(host: Namespace) -> str:
    """Which congestion control a namespace uses: cubic where the kernel lets us choose it."""
    await host.run("sysctl", "-qw", "net.ipv4.tcp_congestion_control=cubic", check=False)
    return (await host.run("sysctl", "-n", "net.ipv4.tcp_congestion_control")).strip()


async def demonstrate() -> None:
    """show(), interrupted by a signal where it waits, and what it made undone."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        folder = Path(tempfile.mkdtemp(prefix="candy-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        await show(stack, folder)


def main() -> int:
    """The exit status."""
    if os.geteuid() != 0:
        console.print("demo: needs root, for it makes network namespaces: sudo make demo", style="red")
        return 1
    try:
        asyncio.run(demonstrate())
    except asyncio.CancelledError:
        console.print("interrupted; nothing is left behind")
        return 130
    except (Failed, TimeoutError) as error:
        console.print(f"demo: {error or 'no answer in time'}", style="red", markup=False)
        return 1
    console.print("done; nothing is left behind")
    return 0


if __name__ == "__main__":
    sys.exit(main())
