"""What the relay keeps between runs: the password that it generated.

password              in the state folder; one line

Rule: a password that can't be read is an error, for members have it already; one that can't be written yet is in
memory until it can (candy.host.files).
"""

import functools
from collections.abc import Callable
from pathlib import Path

from candy.errors import OperationalError
from candy.host import files

folder_at = functools.cache(files.Folder)
"""This process's one Folder at a path: what it could not write yet is nowhere else."""


def kept_password(folder: Path, token: Callable[[], str]) -> bytes:
    """The password, made from token() at the first call.

    Raises:
        OperationalError: the file can't be read, or is empty.
    """
    path = folder / "password"
    kept = files.read(path)
    if kept is None:
        kept = folder_at(folder).create(path, token().encode() + b"\n")
    password = kept.rstrip(b"\r\n")
    if not password:
        raise OperationalError(f"{path} is empty: remove it to have a new password made")
    return password
