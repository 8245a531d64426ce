"""What error messages show of what the user wrote: no password, nothing that a terminal obeys."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from candy.cli.client import main as client
from candy.cli.server import main as server
from candy.errors import ConfigError
from candy.member.dial import Dialer
from candy.settings import without_credentials


def refuse(*line: str) -> str:
    """The one line of candy-client, which refuses the settings."""
    result = CliRunner().invoke(client, line, env={"CANDY_PASSWORD": "x"})
    assert (result.exit_code, result.stdout) == (2, "")
    [said] = result.stderr.splitlines()
    return said.removeprefix("candy-client: ")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://user:secret/x@relay", "ws://…@relay"),
        ("ws://user:secret@relay:99999", "ws://…@relay:99999"),
        ("http://user:secret@relay", "http://…@relay"),
        ("ws://user:sec@ret@relay:0", "ws://…@relay:0"),
        ("ws://user:99secret/@relay:0", "ws://…@relay:0"),
        ("user:secret@relay", "…@relay"),
        ("ws://relay:99999/", "ws://relay:99999/"),
    ],
)
def test_credentials_of_a_url(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
    said = refuse("-w", url)
    assert said.startswith(f"--websocket: {shown!r} ")
    assert "secret" not in said


@pytest.mark.parametrize("url", ["socks5://user:secret@proxy:1080", "user:secret@proxy:x", "http://user:secret/@:1"])
def test_credentials_of_a_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", url)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ConfigError) as caught:
        Dialer("wss://relay.test")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("option", ["-c", "--password-file"])
def test_a_file_without_a_name(option: str) -> None:
    said = refuse("-w", "ws://relay", option, "")
    assert said.endswith(": no file is named: give the path of one, or leave it out")


def test_an_option_that_is_none() -> None:
    assert refuse("--bogus") == "No such option '--bogus' (see candy-client --help)"


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "candy.cfg"
    path.write_bytes(b"\x1b[2J\x07key = \xff\nother\x9b31m\xc2\x85 = 1\ndhcp =\n")
    result = CliRunner().invoke(server, ["-c", str(path), "--check"], env={"CANDY_STATE_DIR": str(tmp_path)})
    assert result.exit_code == 0
    first, second, _ = result.stderr.splitlines()
    assert first == f"candy-server: warning: {path}:1: \\x1b[2J\\x07key: passed over: unknown in this kind of file"
    assert second.isascii()
    assert second.isprintable()
