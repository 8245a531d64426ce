"""Places in TOML files: every one that a file has, whatever is written around it."""

from pathlib import Path

import pytest

from candy.cli.lines import Lines, Place

TEXT = """# a = 1
a = "x = [" # [ {
"b c" . d = 1979-05-27 07:32:00Z
s = \"""
a = 1
\""\"""
list = [ # ]
   { x = "}" , y = ']'},
   { x = [ { z = 1 } ] }, {},
]
numbers = [[1, 2],
  [3]]
  [ table."/home" ] # [no]
t = '''
[no]
x=''''
inner.u = '\'
[[table."/home".list]]
v = {w = {x = [{}]}}
[[table."/home".list]]

v = true
["table"]
last = ""
"""
HOME: Place = ("table", "/home")


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("a",), 2),
        (("b c", "d"), 3),
        (("s",), 4),
        (("list",), 7),
        (("list", 0), 8),
        (("list", 1), 9),
        (("list", 2), 9),
        (("list", 1, "x"), 9),
        (("numbers",), 11),
        (("numbers", 1), 11),
        (HOME, 13),
        ((*HOME, "t"), 14),
        ((*HOME, "inner", "u"), 17),
        ((*HOME, "list"), 18),
        ((*HOME, "list", 0), 18),
        ((*HOME, "list", 0, "v"), 19),
        ((*HOME, "list", 0, "v", "w"), 19),
        ((*HOME, "list", 1), 20),
        ((*HOME, "list", 1, "v"), 22),
        (("table",), 23),
        (("table", "last"), 24),
        (("nowhere",), 1),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_places(place: Place, line: int, end: str) -> None:
    name = [key for key in place if isinstance(key, str)][-1]
    lines = Lines(Path("file.toml"), TEXT.replace("\n", end))
    assert lines.origin(place) == f"file.toml:{line}: {name}"
    assert lines.origin(place, "name") == f"file.toml:{line}: name"


@pytest.mark.parametrize("text", ["", "\n", "# only this", "a = 1"])
def test_short_files(text: str) -> None:
    assert Lines(Path("file.toml"), text).origin(("a",)) == "file.toml:1: a"
