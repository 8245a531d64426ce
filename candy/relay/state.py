"""What the relay keeps between runs: the password that it generated.

password              in the state folder; one line
"""

from collections.abc import Callable
from pathlib import Path

from candy.errors import OperationalError
from candy.host import files


def kept_password(folder: Path, token: Callable[[], str]) -> bytes:
    """The password, made from token() at the first call.

    Raises:
        OperationalError: the folder can't be used, or the file is empty.
    """
    path = folder / "password"
    kept = files.read(path)
    if kept is None:
        kept = files.create(folder, path, token().encode() + b"\n")
    password = kept.rstrip(b"\r\n")
    if not password:
        raise OperationalError(f"{path} is empty: remove it to have a new password made")
    return password
