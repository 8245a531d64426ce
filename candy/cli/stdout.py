"""stdout, as commands that only print write to it: what can't be written is an error like others, in one line.

    click, rich ─▶ Stdout ─▶ stdout ─┬─▶ it takes it
                                     ├─▶ EPIPE: as it is; click ends the command without a word
                                     └─▶ ENOSPC, EIO, … or no stdout at all: OperationalError

Rule: what stdout has refused is not tried again at the process's end.

This module does not know what is written.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, TextIO

from candy.errors import OperationalError


class Stdout:
    """In the place of sys.stdout.

    Args:
        stream: what was there; None: the descriptor was closed when the process began, and may be another file's by
            now.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        if isinstance(stream, TextIOWrapper):
            # What a device calls itself may have characters that the user's locale has not.
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def write(self, text: str) -> int:
        """Raises OperationalError."""
        if self._stream is None:
            raise OperationalError("cannot write to stdout: it is closed")
        with self._telling(self._stream):
            return self._stream.write(text)

    def flush(self) -> None:
        """Raises OperationalError."""
        if self._stream is not None:
            with self._telling(self._stream):
                self._stream.flush()

    @contextmanager
    def _telling(self, stream: TextIO) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Python keeps what was refused in its buffer, and would write it at the end.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise OperationalError(f"cannot write to stdout: {error.strerror}") from None
