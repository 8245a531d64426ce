"""`candy-server top`: the members and what they carry, again and again in place, sorted by a column.

    keys, on a terminal:   < >  the column before, the next one      r  the other way round      q  the end

Rules: the relay looks twice for each picture, so rates are of that time alone; keys are heard meanwhile. In a pipe each
picture follows the one before, behind an empty line.

This module does not know how the relay is found.
"""

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from candy.cli.tables import MEMBERS, Column, Row, show, table
from candy.control.client import Asking
from candy.control.paths import VERSION
from candy.errors import ConfigError


class Order:
    """Which rows come first.

    Raises:
        ConfigError: there is no such column.
    """

    def __init__(self, title: str, columns: Sequence[Column] = MEMBERS) -> None:
        self._columns = columns
        titles = [column.title for column in columns]
        if title.upper() not in titles:
            raise ConfigError(f"--sort: {title!r} is not a column: use one of {', '.join(titles)}")
        self._at = titles.index(title.upper())
        # Of numbers and times the largest first, of texts the first in the alphabet.
        self._is_reversed = self.column.kind not in ("text", "flag")

    @property
    def column(self) -> Column:
        """By which it is."""
        return self._columns[self._at]

    def sorted(self, rows: Sequence[Row]) -> list[Row]:
        """All rows; those without a value come last."""
        known = [row for row in rows if row[self.column.key] is not None]
        unknown = [row for row in rows if row[self.column.key] is None]
        return sorted(known, key=self._key, reverse=self._is_reversed) + unknown

    def _key(self, row: Row) -> Any:
        value = row[self.column.key]
        if self.column.key in ("address", "source"):
            # As numbers, IPv4 first.
            return (value.count(":"), [int(part) if part.isdigit() else -1 for part in value.split(".")], value)
        return value.casefold() if isinstance(value, str) else value

    def press(self, key: str) -> bool:
        """Act on a key; whether to go on."""
        if key in "<>":
            self._at = (self._at + (1 if key == ">" else -1)) % len(self._columns)
            self._is_reversed = self.column.kind not in ("text", "flag")
        elif key == "r":
            self._is_reversed = not self._is_reversed
        return key not in "q\x03\x04"


def run(asking: Asking, order: Order, network: str | None, interval: float, count: int | None) -> None:
    """Show pictures until the user has seen enough.

    Args:
        interval: seconds for each.
        count: of pictures; None: any number.
    """

    def begin() -> None:
        asking.begin("GET", f"{VERSION}/members", network=network, round_trip=True, over=interval)

    if sys.stdout.isatty() and sys.stdin.isatty():
        with _keys():
            _run_in_place(asking, order, begin, count)
        return
    shown = 0
    while count is None or shown < count:
        begin()
        if shown:
            click.echo()
        show(MEMBERS, order.sorted(asking.answer()["members"]))
        shown += 1


def _run_in_place(asking: Asking, order: Order, begin: Callable[[], None], count: int | None) -> None:
    from rich.live import Live
    from rich.text import Text

    rows: list[Row] = []
    shown = 0
    with Live(Text("…"), screen=True, auto_refresh=False) as live:
        while count is None or shown < count:
            begin()
            while True:
                ready, _, _ = select.select([asking, sys.stdin], [], [])
                if asking in ready:
                    rows = asking.answer()["members"]
                    shown += 1
                if sys.stdin in ready and not order.press(os.read(sys.stdin.fileno(), 1).decode("latin-1")):
                    return
                picture = table(MEMBERS, order.sorted(rows), live.console.width, marked=order.column)
                live.update(picture, refresh=True)
                if asking in ready:
                    break


@contextmanager
def _keys() -> Iterator[None]:
    """Have each key at once, and none shown."""
    settings = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)
