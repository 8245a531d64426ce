"""What users write into files: settings, and passwords. *.toml is TOML, any other file of settings is in the original's
grammar.

    TOML        websocket = "wss://example.org"      strict: an unknown key or a wrong type is an error;
                mtu = 1400                           a relay's further networks are tables [network."/path"]
    original    websocket = "wss://example.org";     lenient: all values are text; an unknown key and a line
                mtu = 1400                           that is not `key = value` are skipped with a warning

This module knows the options' names and kinds; the settings of both sides judge the values.
"""

import codecs
import errno
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from candy.cli.lines import Lines, Place
from candy.errors import ConfigError
from candy.options import CLUSTER_OPTIONS, NETWORK_OPTIONS, OPTIONS, ORIGINAL_KEYS, Option, Side, by_key, other_side
from candy.settings import Given

_KINDS: Mapping[type, str] = {
    str: "text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


@dataclass(frozen=True)
class Written:
    """The content of a file."""

    given: dict[str, Given] = field(default_factory=dict)
    """Values by option name. That of a list is a list of Given, that of [cluster] again such a dict."""
    networks: list[tuple[Given, dict[str, Given]]] = field(default_factory=list)
    """Further networks: the path, and the same."""
    warnings: list[str] = field(default_factory=list)
    """For skipped lines."""


def read_bytes(path: Path) -> bytes:
    """The content of a file, without the byte order mark that editors on Windows write before UTF-8.

    Raises:
        OSError: the file can't be read.
        ConfigError: it is UTF-16, in which no ASCII is found.
    """
    try:
        content = path.read_bytes()
    except ValueError:
        raise OSError(errno.EINVAL, "a path has no NUL byte") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{path} is UTF-16: save it as UTF-8 text")
    return content.removeprefix(codecs.BOM_UTF8)


def is_exposed(path: Path) -> bool:
    """Whether every user of this machine may read a file."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        # Of a path with a NUL byte, too: who reads the file says so.
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


def read_file(path: Path, side: Side) -> Written:
    """Read a configuration file.

    Raises:
        ConfigError: the file can't be read or, being TOML, not be understood; it names file, line and key.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}: give -c the path of a readable file") from None
    return _read_toml(path, content, side) if path.suffix == ".toml" else _read_original(path, content)


def _read_toml(path: Path, content: bytes, side: Side) -> Written:
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
    lines = Lines(path, text)
    given = _read_table(table, (), OPTIONS[side], side, lines)
    if (cluster := given.get("cluster")) is not None:
        settings = _read_table(cluster.value, ("cluster",), CLUSTER_OPTIONS, side, lines)
        given["cluster"] = cluster._replace(value=settings)
    networks = given.pop("network", None)
    if networks is None:
        return Written(given)
    further = []
    for name, settings in networks.value.items():
        here = ("network", name)
        if not isinstance(settings, dict):
            raise ConfigError(f"{lines.origin(here)}: is of the wrong type: write {_kind(by_key(side)['network'])}")
        given_path = Given(name, lines.origin(here, "network"))
        further.append((given_path, _read_table(settings, here, NETWORK_OPTIONS, side, lines)))
    return Written(given, further)


def _read_table(
    table: Mapping[str, Any], here: Place, allowed: Sequence[Option], side: Side, lines: Lines
) -> dict[str, Given]:
    options = {option.key: option for option in allowed}
    given = {}
    for key, value in table.items():
        origin = lines.origin((*here, key))
        option = options.get(key)
        if option is None:
            raise ConfigError(f"{origin}: {_unknown(key, side, here)}")
        if option.repeats and isinstance(value, list) and all(isinstance(item, str) for item in value):
            given[key] = Given(tuple(value), origin)
            continue
        # bool is an int to Python, but not to TOML; a whole number is a number.
        is_number = type(value) is int and (option.kind is float or option.is_quantity)
        if type(value) is not option.kind and not is_number:
            raise ConfigError(f"{origin}: is of the wrong type: write {_kind(option)}")
        if isinstance(value, list):
            value = [Given(item, lines.origin((*here, key, number))) for number, item in enumerate(value)]
            if any(not isinstance(item.value, dict) for item in value):
                raise ConfigError(f"{origin}: is of the wrong type: write {_kind(option)}")
        given[key] = Given(value, origin)
    return given


def _kind(option: Option) -> str:
    """What an option's value has to be."""
    if option.is_quantity:
        return 'a whole number, or text like "10M"'
    if option.kind in (list, dict):
        return f"a {'list' if option.kind is list else 'table'} like {option.metavar}"
    return _KINDS[option.kind]


def _unknown(key: str, side: Side, here: Place) -> str:
    if here == ("cluster",):
        return f"is not a setting of a cluster: write {', '.join(option.key for option in CLUSTER_OPTIONS)}"
    if here and any(option.key == key for option in OPTIONS[side]):
        return "is a setting of the whole relay, not of one network: write it before all tables"
    if any(option.key == key for option in OPTIONS[other_side(side)]):
        return f"is a setting of candy-{other_side(side)}, not of candy-{side}: remove it"
    return f"is not a setting of candy-{side}: see candy-{side} --help for their names"


def _read_original(path: Path, content: bytes) -> Written:
    given, warnings = {}, []
    for line, key, value in _original_lines(content):
        if not key or value is None:
            warnings.append(f"{path}:{line}: passed over: not of the form key = value")
        elif key not in ORIGINAL_KEYS:
            warnings.append(f"{path}:{line}: {key}: passed over: unknown in this kind of file")
        else:
            given[key] = Given(value, f"{path}:{line}: {key}")
    return Written(given, warnings=warnings)


def _original_lines(content: bytes) -> Iterator[tuple[int, str, str | None]]:
    """(line number, key, value) of each line but blanks and comments; value None where there is no "=".

    Blanks and semicolons at the end are cut off, then the outer quotes; between these nothing is special.
    Bytes that are not UTF-8 are kept, because a password may hold any.
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
