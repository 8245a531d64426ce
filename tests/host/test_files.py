"""Files written whole: what a reader finds, whatever happens meanwhile."""

import asyncio
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from candy.errors import OperationalError
from candy.host import files
from candy.host.files import Folder


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


def test_a_folder_is_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.probe(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OperationalError, match=r"^cannot write .*: No space left on device: make room there, or set"):
        files.probe(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


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


class Disk:
    """What every write meets: it is full, or has room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self._sync = os.fsync
        monkeypatch.setattr(os, "fsync", self.sync)

    def sync(self, descriptor: int) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        self._sync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Disk:
    caplog.set_level(logging.INFO)
    return Disk(monkeypatch)


def test_a_folder_goes_on_in_memory(tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder(tmp_path)
    one, two, three = (tmp_path / "kind" / name for name in ("one", "two", "three"))
    folder.replace(one, b"1")
    disk.is_full = True
    folder.replace(one, b"11")
    assert folder.create(two, b"2") == b"2"
    assert folder.create(two, b"22") == b"2"
    assert [folder.read(path) for path in (one, two, three)] == [b"11", b"2", None]
    assert (one.read_bytes(), two.exists()) == (b"1", False)
    # Said once.
    assert caplog.messages == [
        f"cannot write {one}: No space left on device: make room there, or set CANDY_STATE_DIR to another folder; "
        "going on in memory until that works"
    ]
    disk.is_full = False
    folder.write()
    assert (one.read_bytes(), two.read_bytes()) == (b"11", b"2")
    assert caplog.messages[1:] == [f"{tmp_path} holds all of the state again"]
    # And the next time again.
    disk.is_full = True
    folder.replace(three, b"3")
    folder.replace(three, b"33")
    assert [message.partition(":")[0] for message in caplog.messages[2:]] == [f"cannot write {three}"]


def test_what_a_folder_takes_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = Folder(tmp_path / "deep" / "candy")
    folder.replace(folder.path / "one", b"1")
    folder.write()
    assert Folder(folder.path).read(folder.path / "one") == b"1"
    assert caplog.messages == []


def test_the_next_write_takes_along_what_was_left(tmp_path: Path, disk: Disk) -> None:
    folder = Folder(tmp_path)
    disk.is_full = True
    folder.create(tmp_path / "one", b"1")
    disk.is_full = False
    folder.replace(tmp_path / "two", b"2")
    assert (tmp_path / "one").read_bytes() == b"1"


def test_what_somebody_else_created_meanwhile_stays(tmp_path: Path, disk: Disk) -> None:
    folder = Folder(tmp_path)
    disk.is_full = True
    folder.create(tmp_path / "one", b"ours")
    disk.is_full = False
    (tmp_path / "one").write_bytes(b"theirs")
    folder.write()
    assert (tmp_path / "one").read_bytes() == b"theirs"


def test_a_folder_that_takes_and_gives_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One warning for all of it, also of what can't be read."""
    (tmp_path / "file").touch()
    folder = Folder(tmp_path / "file")
    path = folder.path / "name"
    assert folder.read(path) is None
    assert folder.create(path, b"content") == b"content"
    assert folder.read(path) == b"content"
    assert caplog.messages == [
        f"cannot read {path}: Not a directory: give this user access, or set CANDY_STATE_DIR to another folder; "
        "going on without"
    ]


async def test_it_is_tried_again_until_the_end(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "AGAIN_S", 0.0)
    folder = Folder(tmp_path)
    disk.is_full = True
    folder.replace(tmp_path / "one", b"1")
    writing = asyncio.create_task(folder.keep_writing())
    # It has tried, and waits.
    await asyncio.sleep(0)
    disk.is_full = False
    while not (tmp_path / "one").exists():
        await asyncio.sleep(0)
    monkeypatch.setattr(files, "AGAIN_S", 3600.0)
    disk.is_full = True
    folder.replace(tmp_path / "two", b"2")
    disk.is_full = False
    writing.cancel()
    await asyncio.wait([writing])
    assert (tmp_path / "two").read_bytes() == b"2"
