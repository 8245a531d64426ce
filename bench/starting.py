"""How soon --version and --help are there, how large idle programs are, and what a part adds once it is used.

Relay and member are started as users do, in network namespaces of their own, which takes root: without it only the
commands are measured.
"""

import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

import checkout  # noqa: F401
from clustered import Clustered
from relayprogram import proportional_mb, resident_mb
from rich.table import Table
from target import Target

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from lab.laboratory import Client, Laboratory
from lab.namespaces import Ethernet
from lab.programs import Program, environment

from candy.control.client import Asking
from candy.control.paths import VERSION
from candy.relay.captures import RING_BYTES

RUNS = 5
START_MS_MAX = 100.0
RELAY_MB_MAX = 42.0
MEMBER_MB_MAX = 40.0
"""Of these Python with click, asyncio and OpenSSL takes 22; at a relay aiohttp and its server 14, SQLite 1; at a member
yarl 1.5, h11 0.5. The rest is candy: 1 its engine. A relay whose door spoke HTTP by h11 as well had 36."""
COMMANDS: Mapping[str, str] = {
    f"candy-{side} {line}": f"import sys; sys.argv = ['', '{line}']; from candy.cli.{side} import main; main()"
    for side in ("server", "client")
    for line in ("--version", "--help")
}
METRICS = "127.0.0.1:26818"
POOL = "192.168.202.0/24"
PEERS = 8
DATAGRAM_BYTES = 1300
AT_ONCE = 100
Use = Callable[[Laboratory, Path, Client], None]
"""Uses a part of a program whose control socket is given; a member is there."""


@dataclass(frozen=True)
class Command:
    """The quickest of RUNS runs; others on the machine only slow it down."""

    name: str
    cpu_ms: float
    ms: float


@dataclass(frozen=True)
class Size:
    """Resident memory of a program, its part of what it shares with others, and how much of the former one part of the
    program is the cause of."""

    name: str
    resident_mb: float
    proportional_mb: float
    more_mb: float = 0.0


def measure_commands() -> list[Command]:
    """Python's own start, and the commands."""
    return [_fastest("python -c pass", "pass"), *(_fastest(name, code) for name, code in COMMANDS.items())]


def _fastest(name: str, code: str) -> Command:
    runs = []
    for _ in range(RUNS):
        before, start = _children_s(), time.monotonic()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        runs.append(((_children_s() - before) * 1e3, (time.monotonic() - start) * 1e3))
    cpu, wall = (min(each) for each in zip(*runs, strict=True))
    return Command(name, cpu, wall)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_sizes(*, with_parts: bool = True) -> list[Size]:
    """Idle programs, and the same with one part more in use; nothing without root."""
    if os.geteuid() != 0:
        return []
    relay, member = Size("relay, idle with one member", *_relay()), Size("member, idle", *_member())
    return [relay, *_relays(relay), member, *_members(member)] if with_parts else [relay, member]


def _relays(idle: Size) -> Iterator[Size]:
    scrape = partial(_scrape, METRICS)
    for name, size in (
        ("relay: --tun", _relay("--tun", "192.168.202.200/24")),
        ("relay: wss, --tls-self-signed", _relay("--tls-self-signed", scheme="wss")),
        ("relay: asked for its status", _relay(use=partial(_ask, "server"))),
        ("relay: --metrics, read once", _relay("--metrics", METRICS, use=scrape)),
        ("relay: captures a member", _relay(use=_capture)),
        ("relay: one of two of a cluster", _clustered()),
    ):
        yield Size(name, *size, size[0] - idle.resident_mb)


def _members(idle: Size) -> Iterator[Size]:
    for name, size in (
        ("member: --masquerade", _member("--masquerade")),
        ("member: asked for its status", _member(use=partial(_ask, "client"))),
        (f"member: {PEERS} direct links", _member("--direct", use=_link)),
    ):
        yield Size(name, *size, size[0] - idle.resident_mb)


def _ask(side: str, laboratory: Laboratory, control: Path, member: Client) -> None:
    code = f"from candy.cli.{side} import main; main()"
    line = [sys.executable, "-c", code, "status", "--control-socket", str(control)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def _scrape(where: str, laboratory: Laboratory, control: Path, member: Client) -> None:
    with laboratory.hub, urllib.request.urlopen(f"http://{where}/metrics") as answer:
        answer.read()


def _capture(laboratory: Laboratory, control: Path, member: Client) -> None:
    """What it sends, until the ring has been written to once, and again."""
    asking = laboratory.stack.enter_context(closing(Asking("relay", control)))
    pieces = asking.stream("POST", f"{VERSION}/members/{member.connected()}/capture", drops=False)
    next(pieces)
    other = laboratory.client().connected()
    with member.host, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        came = 0
        while came < 2 * RING_BYTES:
            # No more than the member's device queues.
            for _ in range(AT_ONCE):
                sender.sendto(bytes(DATAGRAM_BYTES), (other, 9))
            came += len(next(pieces))


def _link(laboratory: Laboratory, control: Path, member: Client) -> None:
    """Direct links with all peers, which are used."""
    peers = [laboratory.client("--direct") for _ in range(PEERS)]
    for address in [peer.connected() for peer in peers]:
        with _pinging(laboratory, member, address):
            member.wait_for(f"{address} is reached directly")


def _pinging(laboratory: Laboratory, member: Client, address: str) -> Program:
    with member.host:
        return Program("ping", ["ping", "-n", "-i", "0.2", address], environment(laboratory.folder))


def _relay(*flags: str, scheme: str = "ws", use: Use | None = None) -> tuple[float, float]:
    with _laboratory() as laboratory:
        relay = laboratory.relay(*flags, scheme=scheme)
        more = ("--insecure",) if scheme == "wss" else ()
        member = laboratory.client(*more, url=laboratory.url.replace("ws:", f"{scheme}:"))
        member.connected()
        return _used(laboratory, relay.pid, relay.control, member, use)


def _clustered() -> tuple[float, float]:
    """With a link to another relay, whose member one of this one's has reached."""
    with _laboratory() as laboratory:
        folder = laboratory.folder / "cluster"
        folder.mkdir()
        with laboratory.hub:
            cluster = Clustered(laboratory.stack, folder, POOL, host="0.0.0.0", servers=1)
            relays = [cluster.relay(name) for name in ("eu", "us")]
        one, other = (laboratory.client(url=f"ws://{Ethernet.ADDRESS}:{relay.address[1]}") for relay in relays)
        one.connected()
        with _pinging(laboratory, one, other.connected()) as ping:
            ping.wait_for("bytes from")
        return resident_mb(relays[0].pid), proportional_mb(relays[0].pid)


def _member(*flags: str, use: Use | None = None) -> tuple[float, float]:
    with _laboratory() as laboratory:
        laboratory.relay()
        member = laboratory.client(*flags)
        member.connected()
        return _used(laboratory, member.pid, member.control, member, use)


@contextmanager
def _laboratory() -> Iterator[Laboratory]:
    # What its programs logged, which is for tests.
    with redirect_stdout(StringIO()), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        yield Laboratory(stack, Path(folder))


def _used(laboratory: Laboratory, pid: int, control: Path, member: Client, use: Use | None) -> tuple[float, float]:
    """Megabytes, resident and proportional, after the use."""
    if use is not None:
        use(laboratory, control, member)
    return resident_mb(pid), proportional_mb(pid)


def table_of_commands(commands: list[Command]) -> Table:
    drawn = Table(title="Commands", title_justify="left")
    drawn.add_column("command")
    for name in ("CPU ms", "ms"):
        drawn.add_column(name, justify="right")
    for one in commands:
        drawn.add_row(one.name, f"{one.cpu_ms:.0f}", f"{one.ms:.0f}")
    return drawn


def table_of_sizes(sizes: list[Size]) -> Table:
    drawn = Table(title="Programs, and what a part adds", title_justify="left")
    drawn.add_column("program")
    for name in ("resident\nMB", "PSS\nMB", "more\nMB"):
        drawn.add_column(name, justify="right")
    for one in sizes:
        more = f"{one.more_mb:+.1f}" if one.more_mb else ""
        drawn.add_row(one.name, f"{one.resident_mb:.1f}", f"{one.proportional_mb:.1f}", more)
    return drawn


def starting_targets(commands: list[Command], sizes: list[Size]) -> Iterator[Target]:
    """CPU time, because others on the machine have no part in it; and idle programs."""
    for command in commands:
        if command.name in COMMANDS:
            said = f"{command.name}: {command.cpu_ms:.0f} ms of CPU time (must be ≤ {START_MS_MAX:g})"
            yield Target(said, command.cpu_ms <= START_MS_MAX)
    for size in sizes:
        if not size.more_mb:
            most = RELAY_MB_MAX if size.name.startswith("relay") else MEMBER_MB_MAX
            yield Target(f"{size.name}: {size.resident_mb:.1f} MB (must be ≤ {most:g})", size.resident_mb <= most)
