"""wireguard-go, through its hub or point to point.

    left 10.30.0.1 ── wireguard-go ── UDP ── wireguard-go, hub 10.30.0.254 ── UDP ── wireguard-go ── 10.30.0.2 right
    left 10.30.0.1 ── wireguard-go ── UDP ── wireguard-go ── 10.30.0.2 right

With a hub there are three of them, and what a spoke sends to the other the hub opens, forwards and seals.

Configured over its own UNIX socket, so that it needs no other program. From 2023-12 on it has offloads.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from lab.namespaces import Namespace
from lab.programs import Program

PORT = 51820
NET = "10.30.0"
LEFT, RIGHT, HUB = f"{NET}.1", f"{NET}.2", f"{NET}.254"
SOCKETS = Path("/var/run/wireguard")
FAST_SINCE = 20231211
"""The first release that takes super-packets from its interface, and gives them to the kernel's UDP. That one calls
itself 20230223, as the one before does, so the ones behind it are what can be told: Debian has them from 0.0.20250522
on.
"""


def released() -> int | None:
    """The day of wireguard-go's release, as 20231211; None where it is not installed."""
    if shutil.which("wireguard-go") is None:
        return None
    shown = subprocess.run(["wireguard-go", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v0\.0\.(\d{8})", shown)
    return int(found[1]) if found else 0


@dataclass(frozen=True)
class End:
    """One of the three, and where it runs.

    Attributes:
        address: in the tunnel.
        device: its interface's name, and that of its socket, which is the machine's.
    """

    namespace: Namespace
    address: str
    device: str
    key: X25519PrivateKey

    @classmethod
    def of(cls, namespace: Namespace, address: str) -> "End":
        return cls(namespace, address, f"wg{os.getpid()}{namespace.name[0]}", X25519PrivateKey.generate())

    def start(self, stack: ExitStack) -> Program:
        with self.namespace:
            environ = {"PATH": os.environ["PATH"], "LOG_LEVEL": "verbose"}
            program = Program(f"wireguard-go {self.namespace.name}", ["wireguard-go", "-f", self.device], environ)
        stack.enter_context(program)
        program.wait_for("UAPI listener started")
        return program

    def configure(self, *peers: list[str]) -> None:
        """Give it its key and its peers, and its interface an address."""
        lines = ["set=1", f"private_key={self.key.private_bytes_raw().hex()}", f"listen_port={PORT}"]
        lines += [line for peer in peers for line in peer]
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(SOCKETS / f"{self.device}.sock"))
            asked.sendall("\n".join([*lines, "", ""]).encode())
            answer = asked.recv(4096)
        assert answer == b"errno=0\n\n", answer
        self.namespace.run("ip", "address", "add", f"{self.address}/24", "dev", self.device)
        self.namespace.run("ip", "link", "set", self.device, "up")

    def as_peer(self, allowed: str, endpoint: str | None = None) -> list[str]:
        """What another end is told of this one."""
        lines = [f"public_key={self.key.public_key().public_bytes_raw().hex()}", f"allowed_ip={allowed}"]
        return lines if endpoint is None else [*lines, f"endpoint={endpoint}:{PORT}"]


def connect(stack: ExitStack, hub: Namespace, left: Namespace, right: Namespace) -> tuple[Program, list[Program], str]:
    """Start all three on the lab's namespaces; the hub's, the spokes', and the name of the interface on the right."""
    ends = middle, first, second = End.of(hub, HUB), End.of(left, LEFT), End.of(right, RIGHT)
    programs = [end.start(stack) for end in ends]
    middle.configure(first.as_peer(f"{LEFT}/32"), second.as_peer(f"{RIGHT}/32"))
    first.configure(middle.as_peer(f"{NET}.0/24", "10.0.1.1"))
    second.configure(middle.as_peer(f"{NET}.0/24", "10.0.2.1"))
    # Both spokes are on the hub's one interface, of which it would otherwise tell them.
    hub.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv4/conf/{middle.device}/send_redirects")
    # The hub learns where a spoke is from what that sends first.
    for spoke in (left, right):
        spoke.run("ping", "-c", "1", "-W", "5", HUB)
    return programs[0], programs[1:], second.device


def point_to_point(stack: ExitStack, left: Namespace, right: Namespace) -> tuple[list[Program], str]:
    """Start two, each the other's peer; their programs, and the name of the interface on the right."""
    first, second = End.of(left, LEFT), End.of(right, RIGHT)
    programs = [end.start(stack) for end in (first, second)]
    first.configure(second.as_peer(f"{RIGHT}/32", "10.0.2.2"))
    second.configure(first.as_peer(f"{LEFT}/32", "10.0.1.2"))
    left.run("ping", "-c", "1", "-W", "5", RIGHT)
    return programs, second.device
