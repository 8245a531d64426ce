"""Files with keys: made once, for their owner alone, and never written over."""

from base64 import b64encode
from pathlib import Path

import pytest

from candy.errors import OperationalError
from candy.host import keyfiles

WHAT = "test's key"


def made(folder: Path, byte: int = 7) -> bytes:
    return keyfiles.make(folder, folder / "keys" / "a" / "key", 32, WHAT, lambda length: bytes([byte]) * length)


def test_a_key_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert made(folder) == made(folder, byte=8) == bytes([7]) * 32
    path = folder / "keys" / "a" / "key"
    assert path.read_bytes() == b64encode(bytes([7]) * 32) + b"\n"
    modes = [each.stat().st_mode & 0o777 for each in (path, path.parent, path.parent.parent, folder)]
    assert modes == [0o600, 0o700, 0o700, 0o700]


def test_one_of_another_process_counts(tmp_path: Path) -> None:
    def draw(length: int) -> bytes:
        # Just before this one writes.
        keyfiles.replace(tmp_path, tmp_path / "key", bytes(length))
        return bytes([7]) * length

    assert keyfiles.make(tmp_path, tmp_path / "key", 32, WHAT, draw) == bytes(32)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_one_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    made(tmp_path)
    path = tmp_path / "keys" / "a" / "key"
    path.chmod(mode)
    with pytest.raises(OperationalError, match="chmod 600 it"):
        made(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n", b"key", b64encode(bytes(31)), b64encode(bytes(33)), b"\xff" * 44])
def test_a_damaged_one_is_refused_and_stays(tmp_path: Path, content: bytes) -> None:
    made(tmp_path)
    path = tmp_path / "keys" / "a" / "key"
    path.write_bytes(content)
    with pytest.raises(OperationalError, match="it holds no test's key"):
        made(tmp_path)
    assert path.read_bytes() == content


def test_one_of_several_lengths(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert keyfiles.read(path, (1, 2), WHAT) is None
    for length in (1, 2):
        keyfiles.replace(tmp_path, path, bytes(length))
        assert keyfiles.read(path, (1, 2), WHAT) == bytes(length)


def test_a_folder_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(OperationalError, match="cannot"):
        made(tmp_path / "state")
