"""Files written whole: what a reader finds, whatever happens meanwhile."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from candy.errors import OperationalError
from candy.host import files


def test_no_file(tmp_path: Path) -> None:
    assert files.read(tmp_path / "none") is None


def test_create_makes_the_folder_and_a_file_of_its_owners(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "candy"
    assert files.create(folder, folder / "kind" / "name", b"first") == b"first"
    assert files.create(folder, folder / "kind" / "name", b"second") == b"first"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "kind")] == [0o700, 0o700]
    assert stat.S_IMODE((folder / "kind" / "name").stat().st_mode) == 0o600
    assert [path.name for path in (folder / "kind").iterdir()] == ["name"]


def test_replace(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        files.replace(tmp_path, tmp_path / "name", content)
        assert files.read(tmp_path / "name") == content
    assert stat.S_IMODE((tmp_path / "name").stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.replace(tmp_path, tmp_path / "name", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OperationalError, match="No space left on device"):
        files.replace(tmp_path, tmp_path / "name", b"new")
    assert files.read(tmp_path / "name") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "candy"
    uses: list[Callable[[], object]] = [
        lambda: files.read(folder / "name"),
        lambda: files.create(folder, folder / "name", b""),
        lambda: files.replace(folder, folder / "name", b""),
    ]
    for use in uses:
        with pytest.raises(OperationalError, match=r"^cannot .*Not a directory.*CANDY_STATE_DIR[^\n]*$"):
            use()
