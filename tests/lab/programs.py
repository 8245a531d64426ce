"""The real programs, as a user starts them, and a test's way to wait for what they log.

    Program("relay", server("-w", "ws://127.0.0.1:0")) ─▶ wait_for("listening on …") ─▶ … ─▶ close()

Rules: a program runs with the candy that the test itself imports, in an environment without the user's settings and
proxies; it dies with the test run, however that ends; what it logged is printed when it is closed, so that pytest shows
it with a failure; a traceback in it is a failure by itself.
"""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme
from lab.tls import flags_for

import candy

PASSWORD = "a password"
PATIENCE_S = 60.0
"""After this long something that has to happen is said not to have happened. Nothing is measured by it."""


def server(*arguments: str) -> list[str]:
    """candy-server's command line."""
    return [sys.executable, "-c", "from candy.cli.server import main; main()", *arguments]


def client(*arguments: str) -> list[str]:
    """candy-client's command line."""
    return [sys.executable, "-c", "from candy.cli.client import main; main()", *arguments]


def control_of(state: Path) -> Path:
    """The control socket of a program with this state folder, beside which it lies."""
    return state.with_name(f"{state.name}.run") / "control"


def environment(state: Path, password: str | None = PASSWORD) -> dict[str, str]:
    """Everything that a program gets to see of this process's environment."""
    # As systemd does: with a control socket in a folder of its own, no two programs meet.
    with suppress(NotADirectoryError):
        control_of(state).parent.mkdir(parents=True, exist_ok=True)
    given = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(candy.__file__).parent.parent),
        "PYTHONUNBUFFERED": "1",
        "CANDY_STATE_DIR": str(state),
        "RUNTIME_DIRECTORY": str(control_of(state).parent),
    }
    return given if password is None else given | {"CANDY_PASSWORD": password}


class Program:
    """A process and its log: stdout and stderr together, line by line.

    Args:
        name: in what is printed.
        argv: the command line.
        environ: the whole environment.
    """

    def __init__(self, name: str, argv: list[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        # Even when pytest is killed nothing may stay behind.
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # The terminal's ^C is for pytest, which ends us.
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._follower = threading.Thread(target=self._follow, name=f"log of {name}", daemon=True)
        self._follower.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """The first line with this regular expression, from line number `after` on."""
        deadline = time.monotonic() + PATIENCE_S
        at = after
        with self._changed:
            while True:
                for line in self.lines[at:]:
                    if found := re.search(pattern, line):
                        return found
                at = max(at, len(self.lines))
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = "ended without" if self._ended else "did not log"
                    raise AssertionError(f"{self.name} {why} {pattern!r}:\n" + "\n".join(self.lines))
                self._changed.wait(left)

    def counters(self) -> Counter[str]:
        """The relay's counters."""
        start = len(self.lines)
        self.signal(signal.SIGUSR1)
        self.wait_for(r"INFO packets_in: ", start)
        # Once it begins with the second list, the first one is complete.
        end = len(self.lines)
        self.signal(signal.SIGUSR1)
        self.wait_for(r"INFO packets_in: ", end)
        found = (re.search(r"INFO ([a-z_ 0-9]+): (\d+)$", line) for line in self.lines[start:])
        return Counter({match[1]: int(match[2]) for match in found if match})

    def signal(self, number: int) -> None:
        """Send a signal, to this process alone."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """The exit status; the log is complete then."""
        status = self._process.wait(timeout_s)
        self._follower.join(PATIENCE_S)
        return status

    @property
    def status(self) -> int | None:
        """Its exit status, minus a signal's number; None while it runs."""
        return self._process.poll()

    def close(self) -> None:
        """End it, if it still runs, and print its log. Idempotent."""
        if self._process.stdout is None or self._process.stdout.closed:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.wait()
        self._process.stdout.close()
        print(f"--- {self.name} (exit status {self._process.returncode})", *self.lines, sep="\n")
        assert not any(line.startswith("Traceback") for line in self.lines), f"{self.name}: a traceback, see its log"

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Address(tuple[str, int]):
    """Host and port of a relay, and what who comes there trusts; None: no TLS."""

    trust: ssl.SSLContext | None = None


def connect(address: tuple[str, int]) -> socket.socket:
    """A connection to a relay, with TLS if it has that."""
    opened = socket.create_connection(address, PATIENCE_S)
    if not isinstance(address, Address) or address.trust is None:
        return opened
    return address.trust.wrap_socket(opened, server_hostname=address[0])


class RelayProgram(Program):
    """A candy-server that listens.

    Args:
        state: its state folder.
        flags: beside -w.
        host: listened on.
        port: 0 for one that is free.
        authority: of its certificate, which it is given; None: the flags are to have one, or it has no TLS.
    """

    def __init__(
        self,
        state: Path,
        *flags: str,
        host: str = "127.0.0.1",
        port: int = 0,
        scheme: str = "ws",
        authority: trustme.CA | None = None,
    ) -> None:
        if authority is not None:
            scheme, flags = "wss", (*flags, *flags_for(authority, state, host))
        argv = server("-w", f"{scheme}://{host}:{port}", "--debug", *flags)
        super().__init__("relay", argv, environment(state))
        try:
            found = self.wait_for(rf"listening on {re.escape(host)}:(\d+)")
        except BaseException:
            self.close()
            raise
        self.address = Address((host, int(found[1])))
        if authority is not None:
            self.address.trust = ssl.create_default_context()
            authority.configure_trust(self.address.trust)
        self.control = control_of(state)
        """Its control socket."""
