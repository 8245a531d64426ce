"""The lines of keys and tables in a TOML file, because tomllib keeps no positions.

    routes = [                             ("routes",)                        line 1
        { device = "10.0.0.0/24", … },     ("routes", 0)                      line 2
    ]
    [network."/home"]                      ("network", "/home")               line 4
    dhcp = "10.1.0.0/24"                   ("network", "/home", "dhcp")       line 5

Rules: only for text that tomllib has accepted, so nothing is checked here. Keys are read by tomllib itself. A place
without a line of its own has the line of the place around it.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Place = tuple[str | int, ...]
"""Keys, and numbers in lists, from the outside in."""

_TOKEN = re.compile(
    r'''
      """(?:\\.|[^\\])*?"""(?!")     # text of several lines; up to two quotes may stand at its end
    | \'{3}.*?\'{3}(?!\')
    | "(?:\\.|[^"\\\n])*"
    | '[^'\n]*'
    | \#[^\n]*
    | [][{}=\n]
    | [^][{}="'\#\n]+
    ''',
    re.VERBOSE | re.DOTALL,
)


class Lines:
    """The places of a file.

    Args:
        path: the file, as errors name it.
        text: what it holds.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines: dict[Place, int] = {}
        for place, line in _places(text):
            # Of a table the first header counts; a key has one line only.
            self._lines.setdefault(place, line)

    def origin(self, place: Place, name: str | None = None) -> str:
        """A place as errors name it, `/etc/candy.toml:12: mtu`; by default with the last of its keys."""
        shown = name or next(key for key in reversed(place) if isinstance(key, str))
        while place and place not in self._lines:
            place = place[:-1]
        return f"{self._path}:{self._lines.get(place, 1)}: {shown}"


def _places(text: str) -> Iterator[tuple[Place, int]]:
    """Every place with a line of its own."""
    table: Place = ()
    numbers: Counter[Place] = Counter()
    for tokens in _statements(text):
        line = tokens[0][1]
        words = [token for token, _ in tokens]
        if words[0] != "[":
            end = words.index("=")
            place = (*table, *_keys("".join(words[:end]) + "= 0")[0])
            yield place, line
            yield from _items(place, tokens[end + 1 :])
            continue
        table, is_list = _keys("".join(words))
        yield table, line
        if is_list:
            numbers[table] += 1
            table = (*table, numbers[table] - 1)
            yield table, line


def _items(place: Place, value: list[tuple[str, int]]) -> Iterator[tuple[Place, int]]:
    """The tables in a list."""
    depth = number = 0
    for token, line in value:
        if token == "{" and depth == 1 and value[0][0] == "[":
            yield (*place, number), line
            number += 1
        depth += (token in "[{") - (token in "]}")


def _statements(text: str) -> Iterator[list[tuple[str, int]]]:
    """A header or a key with its value, as tokens and their lines; without blanks around tokens, and comments."""
    statement: list[tuple[str, int]] = []
    depth, line = 0, 1
    for token in _TOKEN.findall(text):
        depth += (token in "[{") - (token in "]}")
        if token == "\n" and depth == 0 and statement:
            yield statement
            statement = []
        if token.strip() and not token.startswith("#"):
            statement.append((token.strip(), line))
        line += token.count("\n")
    if statement:
        yield statement


def _keys(statement: str) -> tuple[Place, bool]:
    """The keys of a header or an assignment of 0, and whether it is a header of a list."""
    value: Any = tomllib.loads(statement)
    keys: Place = ()
    while isinstance(value, dict) and value:
        [(key, value)] = value.items()
        keys = (*keys, key)
    return keys, isinstance(value, list)
