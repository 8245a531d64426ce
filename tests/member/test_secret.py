"""The file of a secret: what is one, and what is a mistake of its user."""

import re

import pytest

from candy.member.secret import Secret, fresh


def test_one_that_is_made_is_read() -> None:
    line = fresh(lambda length: bytes(range(length)))
    assert re.fullmatch(r"candy-secret-1:[A-Za-z0-9_-]{43}", line)
    assert Secret.parse(line.encode()) == Secret(bytes(range(32)), is_text=False)


def test_any_other_line_is_a_text() -> None:
    assert Secret.parse(b"correct horse") == Secret(b"correct horse", is_text=True)
    assert b"horse" not in repr(Secret.parse(b"correct horse")).encode()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "is empty"),
        (b"one\ntwo", "more than one line"),
        (b"candy-secret-1:", "is cut off"),
        (b"candy-secret-1:" + b"A" * 42, "is cut off"),
        (b"candy-secret-1:" + b"A" * 44, "is cut off"),
        (b"candy-secret-1:" + b"A" * 42 + b"=", "is cut off"),
    ],
)
def test_mistakes(line: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Secret.parse(line)
