"""The two commands up to the point where they would run, with their settings instead: fixtures, known to every test.

    serve(ran, flags), join(ran, flags) ─▶ settings, what stderr got; refuse(command, flags) ─▶ the line of an error

Rule: modules of tests of commands use `state` and `log_level` throughout, so that nothing of the user's plays a part.
"""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from candy.cli import client as client_command
from candy.cli import server as server_command
from candy.cli.command import Command
from candy.member.settings import MemberSettings
from candy.relay.networksettings import NetworkSettings
from candy.relay.settings import RelaySettings

RELAY = ["-w", "ws://relay:26816"]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of the test's own, and no password from outside. Files are for their owner alone, as they should
    be."""
    monkeypatch.setenv("CANDY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("CANDY_PASSWORD", raising=False)
    before = os.umask(0o077)
    yield tmp_path / "state"
    os.umask(before)


@pytest.fixture
def log_level() -> Iterator[None]:
    """Restored at the end, for commands set it."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)


class Ran(list[Any]):
    """The settings that commands were started with."""

    reread: Callable[[], Any] | None = None
    """Gives those of the last one anew."""

    def start(self, settings: RelaySettings | MemberSettings, reread: Callable[[], Any] | None) -> int:
        self.append(settings)
        self.reread = reread
        return 0


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    settings = Ran()
    for command in (server_command.main, client_command.main):
        monkeypatch.setattr(command, "run", settings.start)
    return settings


def call(command: Command[Any], *line: str) -> Result:
    return CliRunner().invoke(command, line)


def serve(ran: Ran, *line: str) -> tuple[RelaySettings, str]:
    result = call(server_command.main, *line)
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    assert isinstance(ran[-1], RelaySettings)
    return ran[-1], result.stderr


def serve_one(ran: Ran, *line: str) -> NetworkSettings:
    """A relay with one network, and what that is like."""
    [network] = serve(ran, *line)[0].networks
    assert network.path == "/"
    return network


def join(ran: Ran, *line: str) -> tuple[MemberSettings, str]:
    result = call(client_command.main, *line)
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    assert isinstance(ran[-1], MemberSettings)
    return ran[-1], result.stderr


def refuse(command: Command[Any], *line: str) -> str:
    result = call(command, *line)
    assert (result.exit_code, result.stdout) == (2, "")
    said = result.stderr.splitlines()[-1]
    assert said.startswith(f"{command.name}: ")
    assert "warning" not in said
    return said
