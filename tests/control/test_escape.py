"""Names that strangers chose: what of them is escaped."""

import pytest

from candy.control.escape import shown


@pytest.mark.parametrize(
    ("text", "whole", "word"),
    [
        ("laptop", "laptop", "laptop"),
        ("büro 2", "büro 2", r"büro\x202"),
        ("a\x1b[2Jb", r"a\x1b[2Jb", r"a\x1b[2Jb"),
        ("line\nline", r"line\nline", r"line\nline"),
        ("right\u202eleft", r"right\u202eleft", r"right\u202eleft"),
        ("\\x1b", r"\\x1b", r"\\x1b"),
        ("\udcff", r"\udcff", r"\udcff"),
        ("\xa0", r"\xa0", r"\xa0"),
    ],
)
def test_shown(text: str, whole: str, word: str) -> None:
    assert shown(text) == whole
    assert shown(text, spaces=False) == word
