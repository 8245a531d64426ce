"""Configuration files: *.toml is TOML, any other file is in the original's grammar.

    TOML        websocket = "wss://example.org"      strict: an unknown key or a wrong type is an error
                mtu = 1400
    original    websocket = "wss://example.org";     lenient: all values are text; an unknown key and a line
                mtu = 1400                           that is no `key = value` are passed over with a warning

This module knows the options' names and kinds; candy.config judges the values.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from candy.cli.options import OPTIONS, ORIGINAL_KEYS, Side, other_side
from candy.config import Given
from candy.errors import ConfigError

_KINDS = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}


def read_file(path: Path, side: Side) -> tuple[dict[str, Given], list[str]]:
    """A configuration file's values by option name, and warnings for what was passed over.

    Raises:
        ConfigError: the file can't be read or, being TOML, not be understood; it names file, line and key.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}: give -c the path of a readable file") from None
    if path.suffix == ".toml":
        return _read_toml(path, content, side), []
    return _read_original(path, content)


def _read_toml(path: Path, content: bytes, side: Side) -> dict[str, Given]:
    try:
        text = content.decode("utf-8")
        table = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8: save the file as UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        # "Invalid value (at line 3, column 7)", or "(at end of document)"
        message, _, place = str(error).partition(" (at ")
        number = re.search(r"line (\d+)", place)
        line = int(number[1]) if number else len(text.splitlines())
        raise ConfigError(f"{path}:{line}: not TOML: {message}") from None
    options = {option.key: option for option in OPTIONS[side]}
    given = {}
    for key, value in table.items():
        origin = f"{path}:{_toml_line(text, key)}: {key}"
        option = options.get(key)
        if option is None:
            raise ConfigError(f"{origin}: {_unknown(key, side)}")
        # bool is an int to Python, but not to TOML; a whole number is a number.
        if type(value) is not option.kind and (option.kind, type(value)) != (float, int):
            raise ConfigError(f"{origin}: is of the wrong type: write {_KINDS[option.kind]}")
        given[key] = Given(value, origin)
    return given


def _toml_line(text: str, key: str) -> int:
    """The line of a top-level key or table; tomllib keeps no positions."""
    assignment = rf"""^[ \t]*\[*[ \t]*(["']?){re.escape(key)}\1[ \t]*[]=.]"""
    found = re.search(assignment, text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _unknown(key: str, side: Side) -> str:
    if any(option.key == key for option in OPTIONS[other_side(side)]):
        return f"is a setting of candy-{other_side(side)}, not of candy-{side}: remove it"
    return f"is no setting of candy-{side}: see candy-{side} --help for their names"


def _read_original(path: Path, content: bytes) -> tuple[dict[str, Given], list[str]]:
    given, warnings = {}, []
    for line, key, value in _original_lines(content):
        if not key or value is None:
            warnings.append(f"{path}:{line}: passed over: not of the form key = value")
        elif key not in ORIGINAL_KEYS:
            warnings.append(f"{path}:{line}: {key}: passed over: unknown in this kind of file")
        else:
            given[key] = Given(value, f"{path}:{line}: {key}")
    return given, warnings


def _original_lines(content: bytes) -> Iterator[tuple[int, str, str | None]]:
    """(line number, key, value) of each line that says something; value None where there is no "=".

    Blanks and semicolons at the end are cut off, then the outer quotes; between these nothing is special.
    Bytes that are not UTF-8 are kept, for a password may hold any.
    """
    blank = " \t\r\v\f"
    for number, line in enumerate(content.decode("utf-8", "surrogateescape").split("\n"), 1):
        line = line.strip(blank).rstrip(blank + ";")
        if not line or line.startswith("#"):
            continue
        key, equals, value = (part.strip(blank) for part in line.partition("="))
        if len(value) >= 2 and value[0] == value[-1] == '"':
            value = value[1:-1]
        yield number, key, value if equals else None
