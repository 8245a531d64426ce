"""Files that are written whole, in a folder of the user's own.

    read(path) ─▶ bytes, None     replace(folder, path, content)     create(folder, path, content) ─▶ what path holds
    Folder: the same, and in memory what its folder does not take

Rules:
 1. A file is written beside, synced, then renamed or linked: a reader finds the old or the new content, never a part.
    It is readable by its owner alone.
 2. create() is exclusive: two processes that start together end up with the same content.
 3. A folder that can't be used is an OperationalError of one line that says how to mend it. A Folder has it in its log
    instead, once, and ends nothing: what it holds is written when that works again.

This module does not know what a file holds.
"""

import errno
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from candy.errors import OperationalError, UnwritableError

AGAIN_S = 60.0
"""Between two tries to write what a folder did not take. Each may wear out a card."""

_Write = Callable[[Path, Path, bytes], bytes]
"""replace() or create()."""

_log = logging.getLogger(__name__)


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
        raise OperationalError(_unusable("read", path, error)) from error


def replace(folder: Path, path: Path, content: bytes) -> bytes:
    """Write the content whole: a reader of path finds the old or the new one. Returns the new one.

    Raises:
        UnwritableError: the folder can't be written.
    """
    try:
        os.replace(_write_beside(folder, path, content), path)
    except OSError as error:
        raise UnwritableError(_unusable("write", path, error)) from error
    return content


def create(folder: Path, path: Path, content: bytes) -> bytes:
    """Write the content unless path exists; returns what path holds afterwards, another process's if that was first.

    Raises:
        UnwritableError: the folder can't be written.
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
        raise UnwritableError(_unusable("write", path, error)) from error
    return content


def probe(folder: Path) -> None:
    """Whether the folder can be written: by a file that is gone again.

    Raises:
        UnwritableError: it can't.
    """
    path = folder / "probe"
    try:
        os.unlink(_write_beside(folder, path, b"?"))
    except OSError as error:
        raise UnwritableError(_unusable("write", path, error)) from error


class Folder:
    """Small files in one folder, each read once at most, and in memory what the folder does not take: a full disk, a
    read-only one, missing rights.

    Args:
        path: made when something is first written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._contents: dict[Path, bytes | None] = {}
        """As read, or as they shall be."""
        self._unwritten: dict[Path, tuple[_Write, bytes]] = {}
        """What is in memory alone, and how it is to be written."""
        self._is_behind = False
        """The last try to write failed."""
        self._is_said = False

    def read(self, path: Path) -> bytes | None:
        """The content; None when there is no such file, or it can't be read."""
        if path not in self._contents:
            try:
                self._contents[path] = read(path)
            except OperationalError as error:
                self._contents[path] = None
                self._say(f"{error}; going on without")
        return self._contents[path]

    def replace(self, path: Path, content: bytes) -> None:
        """Have path hold this content."""
        self._keep(path, content, replace)

    def create(self, path: Path, content: bytes) -> bytes:
        """Have path hold this content unless it has one; returns which."""
        if self.read(path) is None:
            self._keep(path, content, create)
        kept = self.read(path)
        return content if kept is None else kept

    def write(self) -> None:
        """Try to write what is in memory alone."""
        for path, (write, content) in list(self._unwritten.items()):
            try:
                self._contents[path] = write(self.path, path, content)
            except OperationalError as error:
                self._is_behind = True
                self._say(f"{error}; going on in memory until that works")
            else:
                del self._unwritten[path]
        if self._is_behind and not self._unwritten:
            self._is_behind = self._is_said = False
            _log.info("%s holds all of the state again", self.path)

    async def keep_writing(self) -> None:
        """Try again now and then, until cancelled; then a last time."""
        # Not for a command that only checks its settings.
        import asyncio

        try:
            while True:
                await asyncio.sleep(AGAIN_S)
                self.write()
        finally:
            self.write()

    def _keep(self, path: Path, content: bytes, write: _Write) -> None:
        self._contents[path] = content
        self._unwritten[path] = (write, content)
        self.write()

    def _say(self, text: str) -> None:
        if not self._is_said:
            _log.warning("%s", text)
        self._is_said = True


def _write_beside(folder: Path, path: Path, content: bytes) -> str:
    """A complete, synced file of mode 0600 in path's folder, which is made if it is missing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # One by one: parents that mkdir() makes are for others to read.
    for parent in reversed([parent for parent in path.parents if folder in parent.parents]):
        parent.mkdir(mode=0o700, exist_ok=True)
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


def _unusable(verb: str, path: Path, error: OSError) -> str:
    cure = "make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "give this user access"
    return f"cannot {verb} {path}: {error.strerror}: {cure}, or set CANDY_STATE_DIR to another folder"
