"""A frozen dataclass of values as people wrote them: each becomes what the annotation of its field says.

    values ─▶ checked() ─▶ Before ─▶ type ─▶ After ─▶ bounds ─▶ the field;  all of them ─▶ Frozen.check()

Rules:
 1. Numbers and switches may come as text, as they stand on a command line.
 2. The first value that can't be right is a Wrong: whose it is, and words that complete the sentence "<value> …".
 3. A type that is not below is a class, of which the value is one already.

pydantic would do this as well, in 14 MB that stay for as long as the program runs; who asks the control interface gets
it then.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from ipaddress import IPv4Address
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
"""Of switches."""
_INT_DIGITS_MAX = 4300
"""Python reads no longer ones (sys.get_int_max_str_digits)."""


class Wrong(ValueError):
    """A value that can't be right.

    Args:
        words: they complete the sentence "<value> …".
    """

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.field: str | None = None
        """None: it is a matter of several, and the words are the whole sentence."""
        self.item: int | None = None
        """Which of a field's values; None: the only one, or all of them."""


class Before(NamedTuple):
    """In an annotation: what makes its type of what was written, or leaves that as it is. It may raise ValueError."""

    make: Callable[[Any], Any]


class After(NamedTuple):
    """In an annotation: what becomes of a value of its type. It may raise ValueError."""

    make: Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What checked() makes; it can't be changed any more, and dataclasses.replace() makes another."""

    def check(self) -> None:
        """Look at fields beside each other. Raises ValueError with a whole sentence."""


def bounded(
    default: Any = MISSING,
    *,
    factory: Any = MISSING,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
) -> Any:
    """A field whose value is at least `least`, at most `most`, and more than `above`."""
    bounds = {"least": least, "most": most, "above": above}
    return field(default=default, default_factory=factory, metadata=bounds)


def _check_file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError("is not a file: give the path of one that exists")
    return path


FilePath = Annotated[Path, After(_check_file)]
"""Of a file that exists."""

_Made = TypeVar("_Made", bound=Frozen)


def checked(kind: type[_Made], values: Mapping[str, Any]) -> _Made:
    """Make one of what was written.

    Args:
        values: by the names of fields; those left out have their defaults.

    Raises:
        Wrong: a value can't be right.
    """
    read = dict(values)
    hints = get_type_hints(kind, include_extras=True)
    for own in fields(kind):
        if own.name not in values:
            continue
        try:
            read[own.name] = _within(own, _read(hints[own.name], values[own.name]))
        except ValueError as error:
            wrong = error if isinstance(error, Wrong) else Wrong(str(error))
            wrong.field = own.name
            raise wrong from None
    made = kind(**read)
    try:
        made.check()
    except ValueError as error:
        raise Wrong(str(error)) from None
    return made


def _within(own: Field[Any], value: Any) -> Any:
    bounds = own.metadata
    if value is None:
        return None
    if bounds.get("least") is not None and value < bounds["least"]:
        raise ValueError(f"is too small: use {bounds['least']} or more")
    if bounds.get("above") is not None and value <= bounds["above"]:
        raise ValueError(f"is too small: it must be more than {bounds['above']}")
    if bounds.get("most") is not None and value > bounds["most"]:
        raise ValueError(f"is too large: use {bounds['most']} or less")
    return value


def _read(hint: Any, value: Any) -> Any:
    """The value by its annotation. Raises ValueError."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner, *more = parts
        for each in more:
            value = each.make(value) if isinstance(each, Before) else value
        value = _read(inner, value)
        for each in more:
            value = each.make(value) if isinstance(each, After) else value
        return value
    if origin in (Union, UnionType):
        return _read_either(parts, value)
    if origin is tuple:
        return _read_items(parts, value)
    if origin is Literal:
        if value not in parts:
            *first, last = map(repr, parts)
            raise ValueError(f"is not one of {', '.join(first)} or {last}")
        return value
    if (reader := _READERS.get(hint)) is not None:
        # What the command line had and is no UTF-8 stands in text as halves of surrogates.
        if hint is not Path and isinstance(value, str) and value.encode(errors="ignore").decode() != value:
            raise ValueError("is not UTF-8 text")
        return reader(value)
    if not isinstance(value, hint):
        raise ValueError("is of the wrong type")
    return value


def _read_either(kinds: tuple[Any, ...], value: Any) -> Any:
    """None, or of the one type beside it; or a class of several."""
    if value is None and NoneType in kinds:
        return None
    others = [kind for kind in kinds if kind is not NoneType]
    if len(others) == 1:
        return _read(others[0], value)
    if not isinstance(value, tuple(others)):
        raise ValueError("is of the wrong type")
    return value


def _read_items(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise ValueError("is of the wrong type")
    each = kinds[:1] * len(value) if kinds[1:] == (...,) else kinds
    if len(each) != len(value):
        raise ValueError("is of the wrong type")
    items = []
    for number, (kind, item) in enumerate(zip(each, value, strict=True)):
        try:
            items.append(_read(kind, item))
        except ValueError as error:
            wrong = Wrong(str(error))
            wrong.item = number
            raise wrong from None
    return tuple(items)


def _bool(value: Any) -> bool:
    said = _WORDS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(said, bool):
        raise ValueError("is neither true nor false")
    return said


def _int(value: Any) -> int:
    if isinstance(value, str):
        if len(value) > _INT_DIGITS_MAX:
            raise ValueError("is too large")
        try:
            return int(value)
        except ValueError:
            raise ValueError("is not a whole number") from None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("is not a whole number")
    return value


def _float(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("is not a number")
    return number


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is not text")
    return value


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError("is not a path")
    return Path(value)


def _ipv4(value: Any) -> IPv4Address:
    try:
        return IPv4Address(value)
    except ValueError:
        raise ValueError("is not an IPv4 address: write it like 192.168.1.5") from None


_READERS: Mapping[Any, Callable[[Any], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    Path: _path,
    IPv4Address: _ipv4,
}
