"""Passwords from all their places: the short forms, lists, and files that both may name."""

from datetime import UTC, datetime
from ipaddress import IPv4Network
from math import inf
from pathlib import Path

import pytest
from lab.commands import Ran, call, refuse, serve, serve_one

from candy.cli import server as server_command
from candy.relay.passwords import Password

pytestmark = pytest.mark.usefixtures("state", "log_level")


def listed(ran: Ran, file: Path, entries: str) -> tuple[Password, ...]:
    file.write_text(f"passwords = [{entries}]")
    return serve_one(ran, "-c", str(file)).every_password


def test_a_list(ran: Ran, tmp_path: Path, state: Path) -> None:
    (tmp_path / "written").write_bytes(b"of its file\n")
    file = tmp_path / "server.toml"
    entries = (
        '{ name = "old", password = "gone soon", until = 2030-05-01T12:00:00+02:00 },\n'
        f'{{ name = "new", file = "{tmp_path}/written" }}, {{ password = "nameless" }}'
    )
    assert listed(ran, file, entries) == (
        Password(b"gone soon", "old", datetime(2030, 5, 1, 10, tzinfo=UTC).timestamp()),
        Password(b"of its file", "new", inf),
        Password(b"nameless"),
    )
    # None was made.
    assert not (state / "password").exists()


def test_of_old_clients_and_within_addresses(ran: Ran, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    (password,) = listed(ran, file, '{ password = "x", legacy = true, addresses = "192.168.202.64/28" }')
    assert password == Password(b"x", legacy=True, addresses=IPv4Network("192.168.202.64/28"))


def test_the_short_form_is_one_more(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it comes from: the command line does not take the list's place."""
    monkeypatch.setenv("CANDY_PASSWORD", "short")
    file = tmp_path / "server.toml"
    assert listed(ran, file, '{ password = "long" }') == (Password(b"short"), Password(b"long"))


def test_of_a_further_network(ran: Ran, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('password = "x"\n[[network."/home".passwords]]\nname = "one"\npassword = "of home"\n')
    _, home = serve(ran, "-c", str(file))[0].networks
    assert home.every_password == (Password(b"of home", "one"),)


@pytest.mark.parametrize(
    ("until", "ends"),
    [
        ("2030-05-01", datetime(2030, 5, 2)),
        ("2030-05-01T09:30:00", datetime(2030, 5, 1, 9, 30)),
        ("2030-05-01T09:30:00Z", datetime(2030, 5, 1, 9, 30, tzinfo=UTC)),
    ],
)
def test_until(ran: Ran, tmp_path: Path, until: str, ends: datetime) -> None:
    """A day is over at its midnight; without an offset it is by this machine's clock."""
    (password,) = listed(ran, tmp_path / "server.toml", f'{{ password = "x", until = {until} }}')
    assert password.until == ends.timestamp()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('{ name = "x" }', "needs a password, or a file to read it from, and not both"),
        ('{ password = "x", file = "/x" }', "needs a password, or a file to read it from, and not both"),
        ('{ password = "" }', "an empty password lets every machine in: write one"),
        ("{ password = 7 }", "password is not text in quotes"),
        ('{ password = "x", name = 7 }', "name is not text in quotes"),
        ('{ file = "/no" }', "cannot read /no: No such file or directory: name a readable file"),
        ('{ file = "" }', "no file is named: give the path of one, or leave it out"),
        ('{ password = "x", until = "tomorrow" }', "until is not a time: write it like 2026-12-31 or 2026-12-31T18"),
        ('{ password = "x", until = 12:00:00 }', "until is not a time: write it like 2026-12-31 or 2026-12-31T18"),
        ('{ password = "x", legacy = "yes" }', "legacy is neither true nor false: write one of them, without quotes"),
        ('{ password = "x", addresses = "here" }', "addresses is not a network: write it like 192.168.202.64/28"),
        ('{ password = "x", addresses = 7 }', "addresses is not a network: write it like 192.168.202.64/28"),
        ('{ password = "x", addresses = "10.0.0.1/24" }', "addresses is not a network: write it like 192.168.202.64"),
        ('{ password = "x", untill = 2030-01-01 }', "untill is not a part of a password: write name, password, file"),
    ],
)
def test_an_entry_that_can_not_be(tmp_path: Path, entry: str, said: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f"passwords = [\n{entry}]")
    refused = refuse(server_command.main, "-c", str(file))
    assert f"{file}:2: passwords: {said}" in refused


@pytest.mark.parametrize("value", ['"x"', '["x"]', '{ password = "x" }'])
def test_what_is_no_list(tmp_path: Path, value: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f"passwords = {value}")
    said = "is of the wrong type: write a list like [{ name = …, password = …, until = … }]"
    assert f"{file}:1: passwords: {said}" in refuse(server_command.main, "-c", str(file))


def test_one_of_two_networks_is_warned_of(ran: Ran, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('password = "x"\n[network."/home"]\npasswords = [{ password = "y" },\n{ password = "x" }]\n')
    assert serve(ran, "-c", str(file))[1] == (
        f"candy-server: warning: {file}:4: passwords: is the password of the network / too: give each one of its own\n"
    )


def test_check_says_when_none_holds_any_more(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('dhcp = ""\npasswords = [{ password = "x", until = 2020-01-01 }]')
    doubt = "warning: no password holds any more, so nobody can log in"
    assert doubt in call(server_command.main, "-c", str(file), "--check").stderr
    file.write_text('dhcp = ""\npasswords = [{ password = "x", until = 2020-01-01 }, { password = "y" }]')
    assert doubt not in call(server_command.main, "-c", str(file), "--check").stderr
