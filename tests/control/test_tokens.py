"""The file of tokens: whose a token is, files that are no use, and changes while the program runs."""

import logging
from pathlib import Path

import pytest

from candy.control.tokens import Tokens
from candy.errors import OperationalError

ONE, TWO = "0123456789abcdef", "fedcba9876543210"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    # A new file each time, as an editor makes one: no change is too quick to be seen.
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.chmod(mode)
    beside.rename(path)
    return path


def name_of(tokens: Tokens, secret: bytes) -> str | None:
    found = tokens.find(lambda known: known == secret)
    return None if found is None else found.name


def test_names(tmp_path: Path) -> None:
    tokens = Tokens(write(tmp_path / "tokens", f"# who may ask\n\ngrafana {ONE}\nadmin\t{TWO}\n", 0o640))
    assert [name_of(tokens, token.encode()) for token in (ONE, TWO)] == ["grafana", "admin"]
    assert [name_of(tokens, token) for token in (b"", ONE.upper().encode(), ONE[:-1].encode(), b"\xff")] == [None] * 4


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("", 0o600, "has no token: write a name and a token into it"),
        ("# admin 0123456789abcdef\n", 0o600, "has no token: "),
        ("0123456789abcdef\n", 0o600, ":1: write a name and a token, with a space between"),
        ("\nadmin short\n", 0o600, ":2: the token of 'admin' is short: use 16 characters or more"),
        (f"a {ONE}\na {TWO}\n", 0o600, ":2: 'a' has a token already"),
        (f"a {ONE}\n", 0o644, "every user of this machine can read the tokens in "),
    ],
)
def test_files_that_are_no_use(tmp_path: Path, text: str, mode: int, said: str) -> None:
    path = write(tmp_path / "tokens", text, mode)
    with pytest.raises(OperationalError) as caught:
        Tokens(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OperationalError, match=r"^cannot read .*/tokens: No such file or directory: name a"):
        Tokens(tmp_path / "tokens")


def test_it_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A token that was taken out counts no more, and none does while the file is no use; that is said once."""
    path = write(tmp_path / "tokens", f"a {ONE}\n")
    tokens = Tokens(path)
    write(path, f"b {TWO}\n")
    assert (name_of(tokens, ONE.encode()), name_of(tokens, TWO.encode())) == (None, "b")
    with caplog.at_level(logging.ERROR):
        write(path, "b\n")
        assert [name_of(tokens, TWO.encode()) for _ in range(2)] == [None, None]
        assert [record.getMessage() for record in caplog.records] == [
            f"{path}:1: write a name and a token, with a space between: no token counts"
        ]
        write(path, f"b {TWO}\n")
        assert name_of(tokens, TWO.encode()) == "b"
        path.unlink()
        assert name_of(tokens, TWO.encode()) is None
        assert caplog.records[-1].getMessage().endswith("No such file or directory: no token counts")
