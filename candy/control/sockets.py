"""The sockets of the control interface: where they are, how one is opened, and how a command finds that of a program.

    --control-socket PATH ┐
    $RUNTIME_DIRECTORY    ├─▶ place() ─▶ open_unix() ─▶ a listening socket, mode 0660, of a group
    /run/candy/NAME.sock  ┘
                              candidates() ─▶ the sockets that there are, for a command that is told none

Rules:
 1. A socket is bound beside its place, given its mode and group, and then renamed: nobody ever finds one that is open
    to others.
 2. The socket of a program that has died is replaced, that of a living one never; nor is a file that is no socket.
 3. At the end a socket is removed if it is still the one that was made here.

This module does not know what is spoken on them.
"""

import contextlib
import errno
import grp
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from candy.errors import OperationalError
from candy.settings import host_port

Side = Literal["relay", "member"]

SERVER = "candy-{}"
"""A side's name in the header Server of its answers, by which a command knows the program."""

RUN = Path("/run/candy")
UNITS = {"relay": Path("/run/candy-server/control"), "member": Path("/run/candy-client/control")}
"""With the RuntimeDirectory of the units in docs/operation.md."""
MODE = 0o660
LONGEST = 107
"""Bytes of a socket's path: sun_path of unix(7), less the NUL."""
BACKLOG = 64


def place(side: Side, which: str, environ: Mapping[str, str], uid: int) -> Path:
    """Where the socket of a program is unless it is told otherwise.

    Args:
        which: a relay's port, a member's interface.
    """
    # systemd names several folders with colons between.
    if folder := environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return Path(folder, "control")
    return _folder(environ, uid) / f"{side}-{which}.sock"


def candidates(side: Side, environ: Mapping[str, str], uid: int) -> list[Path]:
    """The sockets of this machine's programs of that side, dead ones among them."""
    found: list[Path] = []
    for folder in dict.fromkeys((RUN, _folder(environ, uid))):
        found += sorted(folder.glob(f"{side}-*.sock"))
    if UNITS[side].exists():
        found.append(UNITS[side])
    # Of a template's instances each has a folder.
    found += sorted(UNITS[side].parent.glob("*/control"))
    return found


def _folder(environ: Mapping[str, str], uid: int) -> Path:
    """/run is root's."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime, "candy") if uid != 0 and runtime.startswith("/") else RUN


class ControlSocket:
    """A socket that listens at a path of the file system.

    Args:
        path: where; its folder is made if it is missing.
        group: a name or a number that it shall belong to, as the settings have it; None: the process's own.

    Raises:
        OperationalError: it can't be opened; the text says what to do.
    """

    def __init__(self, path: Path, group: str | None = None) -> None:
        self.path = path
        # A name of its own, so that two programs that start together don't meet there.
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        if len(os.fsencode(beside)) > LONGEST:
            raise OperationalError(f"the path of the control socket is too long: {path}: name a shorter one")
        number = _group_number(group)
        _check_free(path)
        try:
            with contextlib.ExitStack() as undo:
                self.socket = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                path.parent.mkdir(mode=0o755, exist_ok=True)
                beside.unlink(missing_ok=True)
                self.socket.bind(os.fspath(beside))
                undo.callback(beside.unlink)
                os.chmod(beside, MODE)
                if number is not None:
                    os.chown(beside, -1, number)
                self.socket.listen(BACKLOG)
                self.socket.setblocking(False)
                self._made = _identity(beside)
                os.rename(beside, path)
                undo.pop_all()
        except OSError as error:
            raise OperationalError(f"cannot make the control socket {path}: {error.strerror}") from None

    def close(self) -> None:
        """Close it, and remove it from the file system. Idempotent."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._made:
                self.path.unlink()


def _group_number(group: str | None) -> int | None:
    if group is None:
        return None
    if group.isascii() and group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise OperationalError(f"this machine has no group {group!r}: groupadd {group}, or name another") from None


def _check_free(path: Path) -> None:
    """Whether nothing is at the path but what a program that has died left behind."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OperationalError(f"cannot make the control socket {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(found.st_mode):
        raise OperationalError(f"{path} is there, and no socket: remove it, or name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # One that is alive and busy is no reason to wait.
        probe.setblocking(False)
        number = probe.connect_ex(os.fspath(path))
    if number not in (errno.ECONNREFUSED, errno.ENOENT):
        raise OperationalError(f"the control socket {path} is another program's, which runs: name another path")


def _identity(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def open_tcp(host: str, port: int, origin: str) -> socket.socket:
    """A listening socket that does not block.

    Args:
        host: an address.
        origin: the option that names it, for the error.

    Raises:
        OperationalError: it can't be listened on.
    """
    try:
        opened = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
        )
    except OSError as error:
        # Not its own text, which repeats the address.
        why = os.strerror(error.errno) if error.errno else str(error)
        raise OperationalError(f"cannot listen on {host_port(host, port)}: {why}: see {origin}") from None
    opened.setblocking(False)
    return opened
