"""Where a program's lines go when nobody takes them: command lines with another stderr or stdout, and a full pipe.

Rule: the reader of a FIFO reads only when the test says so; up to then the program finds the pipe full.
"""

import os
import re
from pathlib import Path
from types import TracebackType
from typing import Self


def stderr_to(path: Path | str, argv: list[str]) -> list[str]:
    """The command line with its stderr in this file; stdout stays."""
    return ["sh", "-c", 'exec "$@" 2> "$0"', str(path), *argv]


def stderr_refused(how: str, folder: Path, argv: list[str]) -> list[str]:
    """The command line with a stderr that takes nothing: on a "full" disk, with a reader that has "gone", "closed"."""
    match how:
        case "full":
            return stderr_to("/dev/full", argv)
        case "gone":
            fifo = folder / "gone"
            os.mkfifo(fifo)
            return ["sh", "-c", 'exec 3<> "$0" 2> "$0" 3>&-; exec "$@"', str(fifo), *argv]
        case _:
            return ["sh", "-c", 'exec "$@" 2>&-', "sh", *argv]


def stdout_to(path: Path | str, argv: list[str]) -> list[str]:
    """The same with stdout."""
    return ["sh", "-c", 'exec "$@" > "$0"', str(path), *argv]


class Unread:
    """A FIFO that is full."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        # For both, so that neither this nor the program's opening waits for the other.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            while True:
                os.write(self._fd, b"\n" * 4096)
        except BlockingIOError:
            os.set_blocking(self._fd, True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read_until(self, pattern: str) -> list[str]:
        """The program's lines, up to one with this regular expression."""
        received = b""
        while not re.search(pattern, received.decode().rpartition("\n")[0], re.MULTILINE):
            received += os.read(self._fd, 1 << 16)
        return received.decode().strip().splitlines()

    def close(self) -> None:
        """Go. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
