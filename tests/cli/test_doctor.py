"""candy-client doctor as a command: whose settings it takes, which client it asks, what it prints and how it ends."""

import json
import logging
import os
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from lab.commands import call, refuse

from candy.cli import client as client_command
from candy.cli import doctor as doctor_command
from candy.control import sockets
from candy.errors import OperationalError
from candy.member import doctor
from candy.member.findings import Finding, State
from candy.member.machine import Running
from candy.member.settings import MemberSettings

pytestmark = pytest.mark.usefixtures("state", "log_level")

URL = "ws://relay.example/"
STATUS: dict[str, Any] = {
    "interface": "candy",
    "state": "connected",
    "address": "192.168.202.7/24",
    "routes": [
        {"destination": "10.1.0.0/16", "next_hop": "192.168.202.2", "state": "installed", "reason": None},
        {"destination": "10.2.0.0/16", "next_hop": "192.168.202.2", "state": "refused", "reason": "it is not private"},
    ],
    "last_end": {"at": 1.0, "reason": "the relay fell silent"},
}


class Examined(list[tuple[MemberSettings, Running | None]]):
    """What was to be examined, and what is found."""

    found = (Finding("name", State.OK, 0.0123, "relay.example is at 203.0.113.5"),)

    def examine(self, settings: MemberSettings, client: Running | None) -> list[Finding]:
        self.append((settings, client))
        for _ in range(2):
            logging.getLogger("candy.member.state").warning("what a part would log")
        return list(self.found)


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Examined:
    examined = Examined()
    monkeypatch.setattr(doctor, "examine", examined.examine)
    return examined


class Programs(dict[Path, dict[str, Any]]):
    """Clients that run, by their sockets."""

    def asking(self, what: str, path: Path) -> "Client":
        return Client(self, path)


class Client:
    def __init__(self, programs: Programs, path: Path) -> None:
        self._programs = programs
        self._path = path

    def ask(self, method: str, path: str) -> dict[str, Any]:
        assert (method, path) == ("GET", "/v1/status")
        if self._path not in self._programs:
            raise OperationalError(f"no member runs at {self._path}")
        return self._programs[self._path]

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in place of /run/candy."""
    monkeypatch.setattr(sockets, "RUN", tmp_path / "run")
    monkeypatch.setattr(sockets, "UNITS", {"relay": tmp_path / "unit", "member": tmp_path / "unit"})
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs()
    monkeypatch.setattr(doctor_command, "Asking", programs.asking)
    return programs


def test_all_is_well(examined: Examined) -> None:
    result = call(client_command.main, "-w", URL, "doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "STEP  STATE    TIME  FOUND",
        "name  ok     12.300  relay.example is at 203.0.113.5",
        "note: what a part would log",
    ]
    [(settings, client)] = examined
    assert (settings.url, settings.password, client) == (URL, None, None)


def test_all_is_not_well(examined: Examined) -> None:
    examined.found = (Finding("TCP", State.FAILED, None, "connection refused: is it running there?"),)
    result = call(client_command.main, "-w", URL, "doctor", "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    assert json.loads(result.stdout) == {
        "well": False,
        "steps": [{"step": "TCP", "state": "failed", "ms": None, "text": "connection refused: is it running there?"}],
        "notes": ["what a part would log"],
    }


def test_the_settings_of_the_client(examined: Examined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a file, whose warnings are notes; without any the usual file's."""
    file = tmp_path / "client.toml"
    file.write_text(f'\ufeffwebsocket = "{URL}"\npassword = "from the file"\n')
    file.chmod(0o644)
    result = call(client_command.main, "-c", str(file), "doctor")
    assert f"note: {file}: every user of this machine can read" in result.stdout
    monkeypatch.setattr(doctor_command, "usual_file", lambda name: file)
    call(client_command.main, "doctor")
    assert [settings.password for settings, _ in examined] == [b"from the file"] * 2
    monkeypatch.setattr(doctor_command, "usual_file", lambda name: tmp_path / "none.toml")
    assert "no relay given: add -w" in refuse(client_command.main, "doctor")
    # F8
    assert "has a colon in the user" in refuse(client_command.main, "-w", "ws://a%3Ab:x@relay.example", "doctor")


def test_the_client_that_runs(examined: Examined, programs: Programs, run: Path) -> None:
    """Of several the one with this interface."""
    for name in ("member-candy-home.sock", "member-candy.sock"):
        (run / name).touch()
    programs[run / "member-candy-home.sock"] = STATUS | {"interface": "candy-home"}
    programs[run / "member-candy.sock"] = STATUS
    call(client_command.main, "-w", URL, "doctor")
    [(_, client)] = examined
    assert client == Running(
        state="connected",
        address=IPv4Interface("192.168.202.7/24"),
        installed=frozenset({IPv4Network("10.1.0.0/16")}),
        refused={"10.2.0.0/16": "it is not private"},
    )
    programs[run / "member-candy.sock"] = STATUS | {"state": "waiting", "address": None}
    call(client_command.main, "-w", URL, "doctor")
    waiting = examined[-1][1]
    assert waiting is not None
    assert (waiting.is_connected, waiting.address, waiting.last_end) == (False, None, "the relay fell silent")


def test_a_socket_of_its_own(examined: Examined, programs: Programs, tmp_path: Path) -> None:
    programs[tmp_path / "mine"] = STATUS
    call(client_command.main, "--control-socket", str(tmp_path / "mine"), "-w", URL, "doctor")
    assert examined[-1][1] is not None


def test_a_client_that_may_not_be_asked(examined: Examined, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "member-candy.sock").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    result = call(client_command.main, "-w", URL, "doctor")
    assert f"note: no member runs at {run / 'member-candy.sock'}" in result.stdout
    assert examined[-1][1] is None
