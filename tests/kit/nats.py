"""Servers of NATS on loopback, configured as docs/cluster.md shows it."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from candy.checked import checked
from candy.relay.clustersettings import ClusterSettings

PROGRAM = Path(sys.executable).with_name("nats-server")
DOCUMENT = Path(__file__).parents[2] / "docs" / "cluster.md"
NAMES = ("eu", "us", "ap")
"""Of relays."""
SECRET = b"the relays' own secret, of 32 and more"


def documented() -> str:
    """The configuration in the document."""
    [found] = re.findall(r"```text\n(server_name: .*?)```", DOCUMENT.read_text(), re.DOTALL)
    return str(found)


def with_users(text: str, relays: Sequence[str]) -> str:
    """A configuration in which each of these relays is a user."""
    [user] = re.findall(r"users: \[\n(.*?)\n    \]\n", text, re.DOTALL)
    users = "\n".join(
        user.replace('"eu"', f'"{name}"').replace("_eu", f"_{name}").replace(".eu", f".{name}") for name in relays
    )
    return text.replace(user, users)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Servers:
    """Some servers, 1 or 3; killed and started again as a test likes."""

    def __init__(self, folder: Path, count: int = 3, relays: Sequence[str] = NAMES) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        ports = free_ports(2 * count)
        self.clients, self._routes = ports[:count], ports[count:]
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        for number in range(count):
            (folder / f"{number}.conf").write_text(self._configuration(number, relays))
        for name in relays:
            (folder / name).write_text(f"{name}:PASSWORD_OF_{name}\n")
        (folder / "secret").write_bytes(SECRET)

    def _configuration(self, number: int, relays: Sequence[str]) -> str:
        text = documented()
        text = text.replace("server_name: a", f"server_name: n{number}")
        text = text.replace("0.0.0.0:4222", f"127.0.0.1:{self.clients[number]}")
        text = text.replace("0.0.0.0:6222", f"127.0.0.1:{self._routes[number]}")
        text = text.replace("/var/lib/nats", str(self._folder / f"data{number}"))
        for other, port in enumerate(self._routes):
            text = text.replace(f"10.0.0.{5 + other}:6222", f"127.0.0.1:{port}")
        text = re.sub(r'\n.*@10\.0\.0\.\d:6222"', "", text)
        text = with_users(text, relays)
        if len(self.clients) == 1:
            text = re.sub(r"\ncluster \{.*?\n\}\n", "\n", text, flags=re.DOTALL)
        return text

    def start(self, *numbers: int) -> None:
        for number in numbers or range(len(self.clients)):
            with (self._folder / f"{number}.log").open("ab") as output:
                command = [str(PROGRAM), "-c", str(self._folder / f"{number}.conf")]
                self._running[number] = subprocess.Popen(command, stdout=output, stderr=output)

    def kill(self, *numbers: int) -> None:
        for number in numbers or list(self._running):
            process = self._running.pop(number)
            process.kill()
            process.wait()

    def hold(self, *numbers: int) -> None:
        """Stop them as a machine does that hangs."""
        for number in numbers:
            os.kill(self._running[number].pid, signal.SIGSTOP)

    def go_on(self, *numbers: int) -> None:
        for number in numbers:
            os.kill(self._running[number].pid, signal.SIGCONT)

    async def ready(self) -> None:
        """All that run are reached."""
        for number in self._running:
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.clients[number])
                    writer.close()
                    break
                await asyncio.sleep(0.02)

    def settings(self, name: str = "eu", **changed: object) -> ClusterSettings:
        given = {
            "nats": [f"nats://127.0.0.1:{port}" for port in self.clients],
            "credentials": self._folder / name,
            "name": name,
            "url": f"ws://{name}.example.org",
            "replicas": len(self.clients),
            "secret_file": self._folder / "secret",
        }
        return checked(ClusterSettings, given | changed)
