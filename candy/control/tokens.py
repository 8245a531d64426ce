"""The tokens of --control-token-file: who may ask over TCP, by name.

    # one a line: a name for the log, and the token
    grafana 8Jq0…                         ─▶ Tokens(path).find(is it b"8Jq0…"?) ─▶ Token("grafana", b"8Jq0…")

Rules:
 1. A file that can't be used is an error of one line; so is one that every user of the machine can read, and a token
    that could be guessed.
 2. The file is read again when it has changed: a token that was taken out does not count from then on. While it can't
    be used no token counts.

This module does not know what a token is good for.
"""

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from candy.errors import OperationalError

SHORTEST = 16
"""Characters of a token."""

_log = logging.getLogger(__name__)


class Token(NamedTuple):
    """One line of the file."""

    name: str
    secret: bytes


class Tokens:
    """Those of one file.

    Raises:
        OperationalError: it can't be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokens, self._version = _read(path)

    def find(self, is_it: Callable[[bytes], bool]) -> Token | None:
        """The one whose secret this holds for; None: it holds for none.

        Args:
            is_it: takes as long whatever it finds.
        """
        self._look()
        found = None
        # All are asked about, whichever it is: how long that takes tells nothing.
        for name, secret in self._tokens.items():
            if is_it(secret):
                found = Token(name, secret)
        return found

    def _look(self) -> None:
        try:
            if _version(os.stat(self._path)) == self._version:
                return
            self._tokens, self._version = _read(self._path)
        except OSError as error:
            self._forget(f"cannot read {self._path}: {error.strerror}: no token counts")
        except OperationalError as error:
            self._forget(f"{error}: no token counts")

    def _forget(self, why: str) -> None:
        if self._tokens:
            _log.error("%s", why)
        self._tokens, self._version = {}, None


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def _read(path: Path) -> tuple[dict[str, bytes], tuple[int, ...] | None]:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            lines = file.read().decode("utf-8", "surrogateescape").splitlines()
    except OSError as error:
        raise OperationalError(f"cannot read {path}: {error.strerror}: name a readable file") from None
    if found.st_mode & stat.S_IROTH:
        raise OperationalError(f"every user of this machine can read the tokens in {path}: chmod o= {path}")
    tokens: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise OperationalError(f"{path}:{number}: write a name and a token, with a space between")
        name, token = words
        if len(token) < SHORTEST:
            raise OperationalError(
                f"{path}:{number}: the token of {name!r} is short: use {SHORTEST} characters or more"
            )
        if name in tokens:
            raise OperationalError(f"{path}:{number}: {name!r} has a token already: give each a name of its own")
        tokens[name] = token.encode("utf-8", "surrogateescape")
    if not tokens:
        raise OperationalError(
            f"{path} has no token: write a name and a token into it, like: admin $(openssl rand -hex 16)"
        )
    return tokens, _version(found)
