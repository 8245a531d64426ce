"""What outlives a run: the state folder and the small files in it.

    password              the relay's, generated once
    vmac/<name>           the client's VMAC, 16 ASCII hex characters
    address/<name>        the client's last address, CIDR text: 192.168.202.7/24
    timestamp/<name>      the last timestamp put into an AUTH, decimal Unix seconds

`<name>` is the client's --name, or `__noname__` without one; vmac and address are the original client's
files, so that a machine that migrates keeps its address. Rules:
 1. A file is replaced whole (written beside, then renamed) and readable by its owner alone.
 2. What is made once is made exclusively: two processes that start together end up with the same content.
 3. Garbage in a file costs what it held and a warning, not the start; a folder of no use is an error.

Time and randomness are arguments. This module knows neither the protocol nor the settings.
"""

import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Interface
from pathlib import Path

from candy.errors import ConfigError, OperationalError
from candy.protocol.auth import TOLERANCE_S

NONAME = "__noname__"
_VMAC = re.compile(rb"[0-9A-Fa-f]{16}")

_log = logging.getLogger(__name__)


def state_folder(environ: Mapping[str, str], uid: int) -> Path:
    """Where state lives: CANDY_STATE_DIR, else systemd's STATE_DIRECTORY (the first of several), else
    /var/lib/candy for root, else the XDG state folder. Nothing is made or looked at.

    Raises:
        ConfigError: nothing says where the user's home is.
    """
    if chosen := environ.get("CANDY_STATE_DIR") or environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(chosen).absolute()
    if uid == 0:
        return Path("/var/lib/candy")
    # XDG: "If an implementation encounters a relative path in any of these variables it should consider
    # the path invalid and ignore it."
    xdg = environ.get("XDG_STATE_HOME", "")
    if xdg.startswith("/"):
        return Path(xdg, "candy")
    if home := environ.get("HOME"):
        return Path(home, ".local/state/candy")
    raise ConfigError("no HOME to keep state in: set CANDY_STATE_DIR to a folder")


def server_password(folder: Path, token: Callable[[], str]) -> bytes:
    """The relay's kept password, made from token() at the first call.

    Raises:
        OperationalError: the folder can't be used, or the file is empty.
    """
    path = folder / "password"
    kept = _read(path)
    if kept is None:
        kept = _create(folder, path, token().encode() + b"\n")
    password = kept.rstrip(b"\r\n")
    if not password:
        raise OperationalError(f"{path} is empty: remove it to have a new password made")
    return password


class ClientState:
    """The files of one client.

    Args:
        folder: from state_folder(); made when something is first kept.
        name: the client's --name.

    Raises:
        ConfigError: the name can't be a file's name.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        if name and ("/" in name or "\0" in name or name in (".", "..")):
            raise ConfigError(f"the name {name!r} can't be used as a file name: choose letters and digits")
        self._folder = folder
        self._name = name or NONAME
        self._last_timestamp: int | None = None

    def vmac(self, randomness: Callable[[int], bytes]) -> bytes:
        """This installation's VMAC, 16 ASCII hex characters; made from randomness(8) at the first call.

        A named client without a file of its own uses the nameless one, as the original does.

        Raises:
            OperationalError: the folder can't be used.
        """
        paths = self._paths("vmac")
        for path in paths:
            kept = _read(path)
            if kept is not None and _VMAC.fullmatch(kept.strip()):
                return kept.strip()
            if kept is not None:
                _log.warning("%s holds no VMAC (16 hex characters): not used", path)
        vmac = randomness(8).hex().encode("ascii")
        if paths[0].exists():
            _replace(self._folder, paths[0], vmac)
            return vmac
        return _create(self._folder, paths[0], vmac).strip()

    def address(self) -> IPv4Interface | None:
        """The address and prefix of last time, or None; the nameless client's where this one never had any.

        Raises:
            OperationalError: the file is there and can't be read.
        """
        for path in self._paths("address"):
            kept = _read(path)
            if kept is None:
                continue
            try:
                address = IPv4Interface(kept.decode("ascii").strip())
            except ValueError:
                _log.warning("%s holds no address: not used", path)
                continue
            if not address.ip.is_unspecified:
                return address
        return None

    def keep_address(self, address: IPv4Interface) -> None:
        """Remember the address for next time.

        Raises:
            OperationalError: the folder can't be written.
        """
        _replace(self._folder, self._paths("address")[0], address.with_prefixlen.encode("ascii"))

    def next_timestamp(self, now: int) -> int:
        """A timestamp for an AUTH that was never used before, also across restarts: max(now, last + 1), kept.

        A last one further ahead than relays tolerate is from a clock that was wrong, and is not held to: else this
        client could not log in again before that time.

        Args:
            now: Unix seconds.

        Raises:
            OperationalError: the folder can't be used.
        """
        path = self._paths("timestamp")[0]
        last = self._last_timestamp if self._last_timestamp is not None else _read_timestamp(path)
        if last - now > TOLERANCE_S:
            _log.warning("%s is %d s ahead of the clock: not used", path, last - now)
            last = 0
        timestamp = max(now, last + 1)
        _replace(self._folder, path, b"%d" % timestamp)
        self._last_timestamp = timestamp
        return timestamp

    def _paths(self, kind: str) -> list[Path]:
        """The client's own file, and the nameless one that may stand in for it."""
        return [self._folder / kind / name for name in dict.fromkeys((self._name, NONAME))]


def _read_timestamp(path: Path) -> int:
    kept = _read(path)
    if kept is None:
        return 0
    # 2**63 has 19 digits, and so has every timestamp at most.
    if not re.fullmatch(rb"[0-9]{1,19}", kept.strip()):
        _log.warning("%s holds no timestamp: not used", path)
        return 0
    return int(kept)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable("read", path, error) from error


def _replace(folder: Path, path: Path, content: bytes) -> None:
    """Rule 1: whoever reads path finds the old or the new content, whole."""
    try:
        os.replace(_write_beside(folder, path, content), path)
    except OSError as error:
        raise _unusable("write", path, error) from error


def _create(folder: Path, path: Path, content: bytes) -> bytes:
    """Rule 2: what path holds afterwards, which is somebody else's content if theirs was there first."""
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
    """A complete, synced file of mode 0600 in path's folder, which is made when it is missing."""
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
