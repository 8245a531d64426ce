"""What the relay keeps: its password, made once, also by two that start together."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from candy.errors import OperationalError
from candy.relay.networksettings import NetworkSettings
from candy.relay.settings import RelaySettings
from candy.relay.state import certificate_files, folder_at, kept_password


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_password_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "candy"
    assert kept_password(folder, lambda: "first") == b"first"
    assert kept_password(folder, lambda: "second") == b"first"
    assert mode_of(folder) == 0o700
    assert mode_of(folder / "password") == 0o600
    assert [path.name for path in folder.iterdir()] == ["password"]


def test_password_of_two_that_start_together(tmp_path: Path) -> None:
    # The other one is done between our looking and our writing.
    assert kept_password(tmp_path, lambda: kept_password(tmp_path, lambda: "theirs").decode() + "!") == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["password"]


def test_password_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b" with blanks \r\n")
    assert kept_password(tmp_path, str) == b" with blanks "


def test_password_file_that_is_empty(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"\n")
    with pytest.raises(OperationalError, match="password is empty: remove it"):
        kept_password(tmp_path, lambda: "new")


def test_password_that_cannot_be_written_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patches:
        patches.setattr(os, "fsync", full)
        assert kept_password(tmp_path, lambda: "first") == b"first"
        assert kept_password(tmp_path, lambda: "second") == b"first"
    [warning] = caplog.messages
    assert warning.startswith(f"cannot write {tmp_path}/password: No space left on device: make room there")
    assert list(tmp_path.iterdir()) == []
    folder_at(tmp_path).write()
    assert (tmp_path / "password").read_bytes() == b"first\n"


def test_password_that_cannot_be_read(tmp_path: Path) -> None:
    """Members have it: another one would lock them out."""
    (tmp_path / "file").touch()
    with pytest.raises(OperationalError, match=r"^cannot .*Not a directory.*CANDY_STATE_DIR[^\n]*$"):
        kept_password(tmp_path / "file" / "candy", lambda: "x")


def settings(folder: Path, **more: Any) -> RelaySettings:
    return RelaySettings(networks=(NetworkSettings(password=b"x"),), state_dir=folder, **more)


def test_a_certificate_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "candy"
    relay = settings(folder, tls_self_signed=True)
    path = folder / "self-signed.pem"
    assert certificate_files(relay) == ((path, path),)
    assert mode_of(path) == 0o600
    content = path.read_bytes()
    assert certificate_files(relay) == ((path, path),)
    assert path.read_bytes() == content
    assert [each.name for each in folder.iterdir()] == ["self-signed.pem"]


def test_certificates_of_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.touch()
    relay = settings(tmp_path / "state", tls_certificate=(one, other), tls_key=(other, one))
    assert certificate_files(relay) == ((one, other), (other, one))
    assert certificate_files(settings(tmp_path / "state")) == ()
    assert not (tmp_path / "state").exists()


def test_a_certificate_that_can_not_be_kept(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    with pytest.raises(
        OperationalError, match=r"^cannot (read|write) .*self-signed\.pem: .*, or set CANDY_STATE_DIR to"
    ):
        certificate_files(settings(tmp_path / "state", tls_self_signed=True))
