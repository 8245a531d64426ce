"""Log-ins a second, and resident memory for each idle member, up to 10,000 of them.

    python bench/members.py

A candy-server process of its own with a /16 pool, and its members, all in this process. Three times: with members that
are granted an address (VMAC, EXPTTUN, AUTH), with members that claim one (VMAC, AUTH), and with new devices that log in
by a key and a password (bench/keyed.py). Then with leases that last, and control calls: see bench/lasting.py and
bench/README.md. First of all how soon commands start, and how large idle programs are: bench/starting.py.
"""

import json
import resource
import selectors
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Literal, get_args

import checkout  # noqa: F401
import click
import keyed
from flows import ACK_SIZE, PING_PORT, frame
from lasting import lasting_targets, measure_lasting
from machine import Bystanders, describe
from relayprogram import PASSWORD, RelayProgram
from rich.console import Console
from rich.table import Table
from starting import measure_commands, measure_sizes, starting_targets, table_of_commands, table_of_sizes
from target import Target, missed

from candy.protocol import auth, wire
from candy.protocol.hello import Hello

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from kit.peer import BINARY, PING, Frame, build_frame, read_frame

POOL = "10.64.0.0/16"
FIRST = int(IPv4Address("10.64.0.1"))
AT_ONCE = 128
"""Log-ins that are under way at a time."""
PATIENCE_S = 30.0
"""Without a byte for so long, the relay has failed."""
SPARE_DESCRIPTORS = 64
MEMORY_MB_MAX = 80.0
LOGINS_MIN = 1500.0
KEYED_MEMORY_MB_MAX = 100.0
KEYED_LOGINS_MIN = 1000.0
MOST = 10000
"""What the targets are for."""
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: %s\r\n\r\n"
)
How = Literal["granted", "claimed", "keys"]
"""How members come by their addresses."""
CLOSED_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER's: no thousands of ports in TIME_WAIT."""


class RelayError(Exception):
    """The relay did not do what it must; says what."""


@dataclass(frozen=True)
class Row:
    """Once so many members are logged in and idle."""

    how: How
    members: int
    logins_per_second: float
    """Of those since the row before."""
    cpu_us: float
    """The relay's CPU time for each of those log-ins, all its threads."""
    resident_mb: float
    per_member_kb: float
    """Over the relay without members."""


@dataclass(frozen=True)
class Forwarding:
    """A packet of every member to its neighbour."""

    how: How
    packets: int
    delivered: int
    seconds: float
    resident_mb: float


Connect = Callable[[int], socket.socket]
"""Makes the connection of the member of that number, which does not block."""


def straight(relay: tuple[str, int]) -> Connect:
    """To the relay itself."""
    return lambda number: unblocked(socket.create_connection(relay))


def unblocked(opened: socket.socket) -> socket.socket:
    """One that neither waits nor leaves anything behind."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSED_AT_ONCE)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.setblocking(False)
    return opened


class Newcomer:
    """One connection, through its log-in.

    The relay answers an AUTH with nothing; but it passes on a DISCOVERY to its own sender, and only a member's.
    """

    def __init__(self, number: int, connect: Connect, how: How, now: int, before: "Newcomer | None" = None) -> None:
        """`before`: the same member at another time, whose address it wants."""
        self.number = number
        self.connection = connect(number)
        self._before = before
        self._now = now
        self._how = how
        self._keyed: keyed.LogIn | None = None
        self._upgraded = False
        self._got = b""
        self.ip: IPv4Address = IPv4Address(FIRST + number) if before is None else before.ip
        # Zeros are none.
        self._vmac = f"{number + 1:016x}".encode()
        self.connection.send(REQUEST % (keyed.OFFERED if how == "keys" else wire.SUBPROTOCOL.encode()))

    def receive(self) -> bool:
        """Take the next step; whether it is logged in."""
        try:
            more = self.connection.recv(4096)
        except BlockingIOError:
            # A record of TLS alone.
            return False
        if not more:
            raise RelayError(f"ended the connection of {self.ip}")
        self._got += more
        if not self._upgraded:
            head, found, rest = self._got.partition(b"\r\n\r\n")
            if not found:
                return False
            if not head.startswith(b"HTTP/1.1 101 "):
                raise RelayError(f"did not upgrade: {head.splitlines()[0]!r}")
            self._upgraded, self._got = True, rest
            if self._how == "keys":
                self._keyed = keyed.LogIn(head, PASSWORD, None if self._before is None else self._before._keyed)
                self._send(self._keyed.message_1)
                return False
            self._send(wire.Vmac(self._vmac, self._now, auth.vmac_digest(PASSWORD, self._vmac, self._now)).encode())
            if self._how == "granted":
                digest = auth.expttun_digest(PASSWORD, self._now)
                self._send(wire.Expttun(self._now, IPv4Interface("0.0.0.0/0"), digest).encode())
            else:
                self._claim()
        while (payload := self._payload()) is not None:
            if self._keyed is not None:
                if self._keyed.is_told(payload):
                    return True
                self.ip = self._keyed.ip
                for confirming in self._keyed.confirmed():
                    self._send(confirming)
                continue
            match wire.decode(payload):
                case wire.Expttun() as answer:
                    self.ip = answer.address.ip
                    self._claim()
                case wire.Discovery():
                    return True
        return False

    def _claim(self) -> None:
        self._send(wire.Auth(self.ip, self._now, auth.auth_digest(PASSWORD, self.ip, self._now)).encode())
        self._send(wire.Discovery(self.ip, self.ip).encode())

    def _send(self, message: bytes) -> None:
        """A binary frame; the relay takes any mask, so 0 as well."""
        self.connection.send(build_frame(BINARY, message, mask=bytes(4)))

    @property
    def rest(self) -> bytes:
        """What has come behind that."""
        return self._got

    def _payload(self) -> bytes | None:
        """The next message of the relay, if it is whole. A ping comes as well, to one that waits for long."""
        while (read := read_frame(self._got)) != 0:
            if not isinstance(read, Frame):
                raise RelayError(f"sent {self.ip} bytes that deserve close code {read}")
            self._got = self._got[read.size :]
            if read.opcode == BINARY:
                return read.payload
        return None


class Crowd:
    """All members of one relay."""

    def __init__(self, stack: ExitStack, connect: Connect, how: How) -> None:
        self._stack = stack
        self._connect = connect
        self._how: How = how
        self._selector = stack.enter_context(selectors.EpollSelector())
        self.members: list[Newcomer] = []

    def grow(self, size: int) -> None:
        """Log in until there are so many."""
        under_way = 0
        now = int(time.time())
        while under_way or len(self.members) < size:
            while under_way < AT_ONCE and len(self.members) < size:
                member = Newcomer(len(self.members), self._connect, self._how, now)
                self._stack.callback(member.connection.close)
                self._selector.register(member.connection, selectors.EVENT_READ, member)
                self.members.append(member)
                under_way += 1
            for member in self._readable():
                if member.receive():
                    self._selector.unregister(member.connection)
                    under_way -= 1

    def introduce(self) -> None:
        """Each says its name, as clients do."""
        for number, member in enumerate(self.members):
            hello = Hello("linux", "0.1.0", f"host-{number:05d}-of-the-office")
            member.connection.send(build_frame(PING, hello.encode(), mask=bytes(4)))

    def forward(self) -> int:
        """Each sends a packet to its neighbour; returns how many arrived."""
        expected: dict[Newcomer, bytes] = {}
        for i, member in enumerate(self.members):
            to = self.members[i ^ 1] if i ^ 1 < len(self.members) else member
            sent = frame(member.ip.packed, to.ip.packed, PING_PORT, i, ACK_SIZE)
            # Unmasked, the rest is the same.
            expected[to] = sent[6:]
            self._selector.register(member.connection, selectors.EVENT_READ, member)
            member.connection.send(sent)
        while expected:
            for member in self._readable():
                # A ping comes as well, to one that has been silent for long.
                try:
                    came = member.connection.recv(4096)
                except BlockingIOError:
                    continue
                if member in expected and expected[member] in came:
                    del expected[member]
        return len(self.members) - len(expected)

    def _readable(self) -> Iterator[Newcomer]:
        ready = self._selector.select(PATIENCE_S)
        if not ready:
            raise RelayError(f"said nothing for {PATIENCE_S:g} s")
        return (key.data for key, _ in ready)


def measure(sizes: list[int], how: How) -> tuple[float, list[Row], Forwarding]:
    """One relay, growing; its resident memory without members in MB, a row for each size, and what it forwarded."""
    with ExitStack() as stack:
        state = stack.enter_context(tempfile.TemporaryDirectory())
        relay = stack.enter_context(RelayProgram(Path(state), POOL))
        baseline = relay.resident_mb()
        crowd = Crowd(stack, straight(relay.address), how)
        rows = []
        for size in sizes:
            if how == "keys":
                keyed.make_keys(size - len(crowd.members))
            before, cpu_ns, start = len(crowd.members), relay.cpu_ns(), time.monotonic()
            crowd.grow(size)
            elapsed, cpu_ns = time.monotonic() - start, relay.cpu_ns() - cpu_ns
            resident = relay.resident_mb()
            rows.append(
                Row(
                    how=how,
                    members=size,
                    logins_per_second=(size - before) / elapsed,
                    cpu_us=cpu_ns / (size - before) / 1000,
                    resident_mb=resident,
                    per_member_kb=(resident - baseline) * 1024 / size,
                )
            )
        start = time.monotonic()
        delivered = crowd.forward()
        elapsed = time.monotonic() - start
        return baseline, rows, Forwarding(how, len(crowd.members), delivered, elapsed, relay.resident_mb())


def log_in_with_names(stack: ExitStack, relay: tuple[str, int], members: int) -> int:
    """All of them; how many."""
    crowd = Crowd(stack, straight(relay), "granted")
    crowd.grow(members)
    crowd.introduce()
    return len(crowd.members)


def table(rows: list[Row]) -> Table:
    drawn = Table(title="Idle members", title_justify="left")
    drawn.add_column("addresses")
    for name in ("members", "log-ins/s", "relay CPU\nµs/log-in", "resident\nMB", "KB/member"):
        drawn.add_column(name, justify="right")
    for i, row in enumerate(rows):
        drawn.add_row(
            row.how,
            str(row.members),
            f"{row.logins_per_second:.0f}",
            f"{row.cpu_us:.0f}",
            f"{row.resident_mb:.1f}",
            f"{row.per_member_kb:.2f}",
            end_section=i + 1 == len(rows) or rows[i + 1].how != row.how,
        )
    return drawn


def targets(rows: list[Row], forwardings: list[Forwarding]) -> Iterator[Target]:
    """What must be reached: with all members there, in memory; over all of them, in time."""
    for forwarding in forwardings:
        own = [row for row in rows if row.how == forwarding.how]
        which, has_keys = forwarding.how, forwarding.how == "keys"
        fastest, most = (KEYED_LOGINS_MIN, KEYED_MEMORY_MB_MAX) if has_keys else (LOGINS_MIN, MEMORY_MB_MAX)
        counts = [row.members - before for row, before in zip(own, [0, *(row.members for row in own)], strict=False)]
        seconds = sum(n / row.logins_per_second for n, row in zip(counts, own, strict=True))
        rate = forwarding.packets / seconds
        yield Target(f"{which}: {rate:.0f} log-ins/s over all (must be ≥ {fastest:g})", rate >= fastest)
        memory = own[-1].resident_mb
        yield Target(
            f"{which}: {memory:.1f} MB resident with {forwarding.packets} members (must be ≤ {most:g} with {MOST})",
            memory <= most,
        )
        yield Target(
            f"{which}: {forwarding.delivered} of {forwarding.packets} packets among them arrived in "
            f"{forwarding.seconds * 1000:.0f} ms, {forwarding.resident_mb:.1f} MB resident afterwards",
            forwarding.delivered == forwarding.packets,
        )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--members", type=click.IntRange(2, 60000), default=MOST, show_default=True, help="How many at most.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures to this file."
)
@click.option("--how", type=click.Choice(get_args(How)), multiple=True, help="Only so; may be repeated.")
@click.option(
    "--without-parts", is_flag=True, help="Measure idle programs alone, not what a part of them adds once it is used."
)
def main(members: int, how: tuple[How, ...], json_file: Path | None, without_parts: bool) -> None:
    """Measure log-ins a second and resident memory of candy-server with idle members."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < members + SPARE_DESCRIPTORS:
        sys.exit(f"members: {most} descriptors are allowed: ask for fewer members, or raise the limit with ulimit -n")
    # Quarters, for what a member costs changes where tables grow.
    sizes = sorted({max(2, members * part // 4) for part in (1, 2, 3, 4)})
    rows, forwardings, baselines = [], [], []
    bystanders = Bystanders()
    commands, programs = ([], []) if how else (measure_commands(), measure_sizes(with_parts=not without_parts))
    try:
        for each in how or get_args(How):
            baseline, found, forwarding = measure(sizes, each)
            baselines.append(baseline)
            rows += found
            forwardings.append(forwarding)
        lasting = [] if how else measure_lasting(POOL, partial(log_in_with_names, members=members))
    except (RelayError, OSError) as error:
        sys.exit(f"members: the relay: {error}")
    head = [
        describe(),
        f"candy-server with the pool {POOL}, {AT_ONCE} log-ins at a time over 127.0.0.1; "
        f"{min(baselines):.1f} MB resident without members",
        f"others used {bystanders.share():.0%} of the machine meanwhile; over 10 % the log-ins/s are too low",
    ]
    console = Console()
    width = console.width if console.is_terminal else 120
    judged = [
        *starting_targets(commands, programs),
        *targets(rows, forwardings),
        *lasting_targets(lasting, MEMORY_MB_MAX, MOST),
    ]
    starting = [] if how else [table_of_commands(commands), table_of_sizes(programs)]
    Console(width=width).print(*head, *starting, table(rows), *map(str, judged), sep="\n")
    if json_file is not None:
        figures = {
            "commands": [asdict(one) for one in commands],
            "sizes": [asdict(one) for one in programs],
            "rows": [asdict(row) for row in rows],
            "forwarding": [asdict(one) for one in forwardings],
            "lasting": [asdict(one) for one in lasting],
        }
        json_file.write_text(json.dumps({"head": head, "baseline_mb": baselines, **figures}, indent=1))
    if missed(judged):
        sys.exit(1)


if __name__ == "__main__":
    main()
