"""candy-server as a user starts it, and what the kernel says of its process."""

import os
import re
import subprocess
import sys
import threading
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from _endpoints import process_cpu_ns

import candy

PASSWORD = b"a password"
_LISTENING = re.compile(r"listening on ([\d.]+):(\d+)")


class RelayProgram:
    """A relay on a free port of 127.0.0.1; it ends with the context.

    Args:
        state: its state folder.
        pool: its network's.
        configuration: a file that says all this instead.
    """

    def __init__(self, state: Path, pool: str, configuration: Path | None = None) -> None:
        command = "from candy.cli.server import main; main()"
        own = ["-w", "ws://127.0.0.1:0", "-d", pool] if configuration is None else ["-c", str(configuration)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", command, *own],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(Path(candy.__file__).parent.parent),
                "CANDY_STATE_DIR": str(state),
                "RUNTIME_DIRECTORY": str(state),
                "CANDY_PASSWORD": PASSWORD.decode(),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._log: threading.Thread | None = None
        self.address = ("", 0)
        self.control = state / "control"
        """Its control socket, once it listens."""

    def __enter__(self) -> Self:
        """Wait until it listens.

        Raises:
            ConnectionError: it ended instead, with the last of its words.
        """
        assert self._process.stdout is not None
        line = ""
        with ExitStack() as undo:
            undo.callback(self._end)
            for line in self._process.stdout:
                found = _LISTENING.search(line)
                if found:
                    self.address = (found[1], int(found[2]))
                    break
            else:
                raise ConnectionError(f"it ended: {line.strip()}")
            undo.pop_all()
        # It writes a line for every log-in, which somebody has to read.
        self._log = threading.Thread(target=deque, args=(self._process.stdout, 0), daemon=True)
        self._log.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def kill(self) -> None:
        """As a power failure would."""
        self._process.kill()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._log is not None:
            self._log.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def resident_mb(self) -> float:
        return resident_mb(self.pid)

    def cpu_ns(self) -> int:
        """CPU time of all its threads."""
        return process_cpu_ns(self.pid)


def resident_mb(pid: int) -> float:
    """A process's VmRSS."""
    return _mb(Path(f"/proc/{pid}/status"), "VmRSS:")


def proportional_mb(pid: int) -> float:
    """A process's PSS: of what several processes share, libraries most of all, its part alone."""
    return _mb(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def _mb(file: Path, name: str) -> float:
    [kilobytes] = (int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(name))
    return kilobytes / 1024
