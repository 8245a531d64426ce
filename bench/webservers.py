"""As many members as descriptors allow, 10,000 at most, through nginx or haproxy with the files of contrib/.

    python bench/webservers.py [nginx] [haproxy]      root; network namespaces

    members, 50 of each address ══ wss ══▶ web server ──▶ relay

All log in by TLS, then each sends a packet to its neighbour. What is judged is that all are in and all packets arrive;
what is shown beside it are the web server's descriptors and memory. In a sandbox that lets nobody raise limits, the
server has those of this process in place of the ones that its file asks for.
"""

import os
import resource
import socket
import ssl
import sys
import tempfile
import time
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import checkout  # noqa: F401
import click
from machine import describe
from members import Crowd, unblocked
from relayprogram import resident_mb
from target import Target, missed

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from lab.laboratory import Laboratory
from lab.namespaces import Ethernet
from lab.webservers import AUTHORITY, NAME, installed

MOST = 10000
OF_AN_ADDRESS = 50
"""Fewer than a relay lets be unauthenticated of one source at a time, or takes for new devices in a minute."""
SOURCES = "10.128.0.0/16"
PATIENCE_S = 30.0
DESCRIPTORS_OF_A_MEMBER = 2
DESCRIPTORS_BESIDE = 100
COMPLAINTS = ("worker_connections are not enough", "Too many open files", "limiting ", "no free space")
"""Of nginx's, in its log."""


class Sealed(ssl.SSLSocket):
    """A member's connection by TLS."""

    def recv(self, buflen: int = 4096, flags: int = 0) -> bytes:
        """All that there is: nothing tells of what OpenSSL has read already."""
        came = []
        try:
            while more := super().recv(buflen, flags):
                came.append(more)
        except ssl.SSLWantReadError:
            if not came:
                raise BlockingIOError from None
        return b"".join(came)


@dataclass(frozen=True)
class Outcome:
    """Of one web server's run."""

    members: int
    delivered: int
    seconds: float
    descriptors: list[int]
    """Of each of its processes."""
    resident_mb: float
    """Of all of them."""
    complaints: list[str]


def measure(name: str, members: int) -> Outcome:
    """Have them all log in, and send."""
    with redirect_stdout(StringIO()), tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        # The server's own user reads and writes in it.
        folder.chmod(0o755)
        laboratory = Laboratory(stack, folder)
        relay = installed(laboratory, folder, name, pool="10.64.0.0/16")
        laboratory.hub.run("ip", "route", "add", "local", SOURCES, "dev", "lo")
        context = ssl.create_default_context(cafile=str(folder / AUTHORITY))
        context.sslsocket_class = Sealed

        def connect(number: int) -> socket.socket:
            high, low = divmod(number // OF_AN_ADDRESS, 250)
            opened = socket.create_connection((Ethernet.ADDRESS, 443), PATIENCE_S, (f"10.128.{high}.{low + 1}", 0))
            return unblocked(context.wrap_socket(opened, server_hostname=NAME))

        with laboratory.hub:
            _wait_for(Ethernet.ADDRESS)
            start = time.monotonic()
            crowd = Crowd(stack, connect, "granted")
            crowd.grow(members)
            seconds = time.monotonic() - start
            delivered = crowd.forward()
        processes = _processes(name, relay.pid)
        complaints = (
            [
                line
                for line in (folder / "log/nginx/error.log").read_text().splitlines()
                if any(words in line for words in COMPLAINTS)
            ]
            if name == "nginx"
            else []
        )
        descriptors = [len(os.listdir(f"/proc/{pid}/fd")) for pid in processes]
        return Outcome(members, delivered, seconds, descriptors, sum(map(resident_mb, processes)), complaints)


def _wait_for(host: str) -> None:
    """Until the web server listens."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with socket.socket() as trying:
            if trying.connect_ex((host, 443)) == 0:
                return
            time.sleep(0.05)
    raise ConnectionError("the web server does not listen")


def _processes(name: str, beside: int) -> list[int]:
    """The web server's, which have the network of the relay."""
    network = os.readlink(f"/proc/{beside}/ns/net")
    found = []
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        try:
            is_one = Path(f"/proc/{pid}/comm").read_text().strip() == name
            if is_one and os.readlink(f"/proc/{pid}/ns/net") == network:
                found.append(pid)
        except OSError:
            # It has ended meanwhile.
            continue
    return sorted(found)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(["nginx", "haproxy"]))
@click.option("--members", type=click.IntRange(2, MOST), help="So many, instead of all that descriptors allow.")
def main(names: tuple[str, ...], members: int | None) -> None:
    """Have thousands of members log in through a web server."""
    if os.geteuid() != 0:
        sys.exit("webservers: only root can make network namespaces")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # All of them may fall to one process.
    possible = min(MOST, (hard - DESCRIPTORS_BESIDE) // DESCRIPTORS_OF_A_MEMBER)
    print(describe(), f"{hard} descriptors are allowed, which is {possible} members", sep="\n")
    judged = []
    for name in names or ("nginx", "haproxy"):
        got = measure(name, members or possible)
        said = f"{name}: {got.members} members in, after {got.seconds:.0f} s, and {got.delivered} packets among them"
        judged.append(Target(said, got.delivered == got.members and not got.complaints))
        shown = " and ".join(map(str, got.descriptors))
        judged.append(Target(f"descriptors of its processes: {shown}; {got.resident_mb:.0f} MB resident"))
        judged += [Target(line) for line in got.complaints[:3]]
    print(*judged, sep="\n")
    if missed(judged):
        sys.exit(1)


if __name__ == "__main__":
    main()
