"""Files that are written whole, in a folder of the user's own.

    read(path) ─▶ bytes, None     replace(folder, path, content)     create(folder, path, content) ─▶ what path holds

Rules:
 1. A file is written beside, synced, then renamed or linked: a reader finds the old or the new content, never a part.
    It is readable by its owner alone.
 2. create() is exclusive: two processes that start together end up with the same content.
 3. A folder that can't be used is an OperationalError of one line that says how to mend it.

This module does not know what a file holds.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from candy.errors import OperationalError


def read(path: Path) -> bytes | None:
    """The content; None when there is no such file.

    Raises:
        OperationalError: the file is there and can't be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable("read", path, error) from error


def replace(folder: Path, path: Path, content: bytes) -> None:
    """Write the content whole: a reader of path finds the old or the new one.

    Raises:
        OperationalError: the folder can't be written.
    """
    try:
        os.replace(_write_beside(folder, path, content), path)
    except OSError as error:
        raise _unusable("write", path, error) from error


def create(folder: Path, path: Path, content: bytes) -> bytes:
    """Write the content unless path exists; returns what path holds afterwards, another process's if that was first.

    Raises:
        OperationalError: the folder can't be written.
    """
    try:
        written = _write_beside(folder, path, content)
        try:
            # Unlike a rename, a link never replaces: O_EXCL for a file that is already complete.
            os.link(written, path)
        except FileExistsError:
            return path.read_bytes()
        finally:
            os.unlink(written)
    except OSError as error:
        raise _unusable("write", path, error) from error
    return content


def _write_beside(folder: Path, path: Path, content: bytes) -> str:
    """A complete, synced file of mode 0600 in path's folder, which is made if it is missing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor, written = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            os.unlink(written)
        raise
    return written


def _unusable(verb: str, path: Path, error: OSError) -> OperationalError:
    return OperationalError(
        f"cannot {verb} {path}: {error.strerror}: give this user access, or set CANDY_STATE_DIR to a folder"
    )
