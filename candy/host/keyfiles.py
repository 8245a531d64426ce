"""Files with keys: one line of base64 each, for their owner alone.

    read(path, lengths) ─▶ bytes, None      make(folder, path, content) ─▶ what path holds      replace(…)

Rules:
 1. A file that others can read, or that does not hold what it should, is an OperationalError of one line. It is never
    written over: what it held may be in a copy, and a new key would make another device, or another network, of this.
 2. Written whole, 0600, in folders of 0700 (candy.host.files). Unlike other state a key that can't be written is an
    error at once: who goes on without would be somebody else after the next start.

This module does not know what a key is for.
"""

import os
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable, Container
from pathlib import Path

from candy.errors import OperationalError
from candy.host import files

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read(path: Path, lengths: Container[int], what: str) -> bytes | None:
    """What the file holds; None when there is no such file.

    Args:
        lengths: in bytes, each of which is right.
        what: it should hold, for the error.

    Raises:
        OperationalError: see rule 1.
    """
    try:
        text = files.read(path)
    except OperationalError as error:
        if not isinstance(error.__cause__, NotADirectoryError):
            raise
        # Nothing is in a folder that is none; who writes there will be told.
        return None
    if text is None:
        return None
    mode = os.stat(path).st_mode
    if mode & _OTHERS:
        raise OperationalError(
            f"{path} can be read or written by others: chmod 600 it, and replace this {what} if any did"
        )
    try:
        held = b64decode(text.strip(), validate=True)
    except ValueError:
        held = b""
    if not held or len(held) not in lengths:
        raise damaged(path, what)
    return held


def damaged(path: Path, what: str) -> OperationalError:
    """The error of a file that does not hold what it should."""
    return OperationalError(f"{path} is damaged, it holds no {what}: put a copy back, or move it away for a new one")


def make(folder: Path, path: Path, length: int, what: str, draw: Callable[[int], bytes]) -> bytes:
    """What the file holds; draw(length), if there is no such file yet.

    Raises:
        OperationalError: see rule 1.
        UnwritableError: see rule 2.
    """
    held = read(path, (length,), what)
    if held is not None:
        return held
    files.create(folder, path, _line(draw(length)))
    # Another process may have been first.
    made = read(path, (length,), what)
    assert made is not None
    return made


def replace(folder: Path, path: Path, content: bytes) -> None:
    """Have the file hold this.

    Raises:
        UnwritableError: it can't be written.
    """
    files.replace(folder, path, _line(content))


def _line(content: bytes) -> bytes:
    return b64encode(content) + b"\n"
