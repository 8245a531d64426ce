"""What becomes of values by the annotations of their fields, and what each that can't be right is answered with."""

from dataclasses import FrozenInstanceError, dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from candy.checked import After, Before, FilePath, Frozen, Wrong, bounded, checked


def _refuse_thirteen(value: int) -> int:
    if value == 13:
        raise ValueError("is unlucky")
    return value


@dataclass(frozen=True, kw_only=True)
class Inner(Frozen):
    name: str = "inner"


@dataclass(frozen=True, kw_only=True)
class Example(Frozen):
    switch: bool = False
    whole: int = bounded(5, least=2, most=9)
    real: float = bounded(1.0, above=0)
    text: str = ""
    raw: bytes = b""
    where: Path = Path("/")
    file: FilePath | None = None
    which: Literal["a", "b", "c"] = "a"
    address: IPv4Address | None = None
    several: tuple[Annotated[int, After(_refuse_thirteen)], ...] = ()
    two: tuple[str, int] | None = None
    doubled: Annotated[int, Before(lambda value: value * 2), After(_refuse_thirteen)] = 0
    either: int | None = bounded(None, most=7)
    inner: Inner = Inner()
    made: int = bounded(factory=lambda: 3, least=1)

    def check(self) -> None:
        if self.switch and self.whole == 9:
            raise ValueError("switch and 9 exclude each other: give one of them")


def example(**values: Any) -> Example:
    return checked(Example, values)


def test_defaults() -> None:
    made = example()
    assert made == Example()
    assert (made.whole, made.made, made.either, made.inner.name) == (5, 3, None, "inner")


@pytest.mark.parametrize(
    ("field", "written", "value"),
    [
        ("switch", True, True),
        ("switch", "true", True),
        ("switch", "Off", False),
        ("switch", "1", True),
        ("whole", "7", 7),
        ("whole", 2, 2),
        ("real", "0.5", 0.5),
        ("real", 3, 3.0),
        ("text", "äöü", "äöü"),
        ("raw", b"\xff", b"\xff"),
        ("where", "/a", Path("/a")),
        # Names of files are bytes to Linux.
        ("where", "/\udcff", Path("/\udcff")),
        ("file", __file__, Path(__file__)),
        ("file", None, None),
        ("which", "c", "c"),
        ("address", "10.0.0.1", IPv4Address("10.0.0.1")),
        ("several", (), ()),
        ("several", ["1", 2], (1, 2)),
        ("two", ("a", "2"), ("a", 2)),
        ("doubled", 4, 8),
        ("either", "7", 7),
        ("either", None, None),
        ("inner", Inner(name="x"), Inner(name="x")),
    ],
)
def test_values(field: str, written: object, value: object) -> None:
    made = getattr(example(**{field: written}), field)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("field", "written", "words"),
    [
        ("switch", "perhaps", "is neither true nor false"),
        ("switch", 2, "is neither true nor false"),
        ("switch", None, "is neither true nor false"),
        ("whole", "seven", "is not a whole number"),
        ("whole", "", "is not a whole number"),
        ("whole", 2.5, "is not a whole number"),
        ("whole", True, "is not a whole number"),
        ("whole", "1", "is too small: use 2 or more"),
        ("whole", 10, "is too large: use 9 or less"),
        ("whole", "1" * 5000, "is too large"),
        ("whole", "\udcff", "is not UTF-8 text"),
        ("real", "x", "is not a number"),
        ("real", "nan", "is not a number"),
        ("real", "inf", "is not a number"),
        ("real", 10**400, "is not a number"),
        ("real", False, "is not a number"),
        ("real", (), "is not a number"),
        ("real", 0, "is too small: it must be more than 0"),
        ("text", 5, "is not text"),
        ("text", "a\udc80", "is not UTF-8 text"),
        ("raw", "text", "is of the wrong type"),
        ("where", 5, "is not a path"),
        ("file", "/does/not/exist", "is not a file: give the path of one that exists"),
        ("file", "/", "is not a file: give the path of one that exists"),
        ("which", "d", "is not one of 'a', 'b' or 'c'"),
        ("address", "10.0.0", "is not an IPv4 address: write it like 192.168.1.5"),
        ("address", "fe80::1", "is not an IPv4 address: write it like 192.168.1.5"),
        ("several", 5, "is of the wrong type"),
        ("several", "12", "is of the wrong type"),
        ("two", ("a",), "is of the wrong type"),
        ("either", 8, "is too large: use 7 or less"),
        ("inner", {"name": "x"}, "is of the wrong type"),
    ],
)
def test_what_cannot_be_right(field: str, written: object, words: str) -> None:
    with pytest.raises(Wrong) as caught:
        example(**{field: written})
    assert (caught.value.field, caught.value.item, str(caught.value)) == (field, None, words)


@pytest.mark.parametrize(("items", "item", "words"), [((1, "x"), 1, "is not a whole number"), ((13,), 0, "is unlucky")])
def test_one_of_several(items: tuple[object, ...], item: int, words: str) -> None:
    with pytest.raises(Wrong) as caught:
        example(several=items)
    assert (caught.value.field, caught.value.item, str(caught.value)) == ("several", item, words)


def test_the_first_in_the_order_of_fields_is_told() -> None:
    with pytest.raises(Wrong) as caught:
        example(real="x", whole="x")
    assert caught.value.field == "whole"


def test_fields_beside_each_other() -> None:
    with pytest.raises(Wrong, match=r"^switch and 9 exclude each other") as caught:
        example(switch=True, whole=9)
    assert caught.value.field is None
    # Of what was checked, others are made as they are.
    assert replace(example(switch=True), whole=9).whole == 9


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        example().whole = 7  # type: ignore[misc]


def test_a_field_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        example(nonsense=1)
