"""The units that service install writes: what they have by the settings, and what systemd says of them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab.commands import call, refuse

from candy.cli import client as client_command
from candy.cli import server as server_command
from candy.cli import service

pytestmark = pytest.mark.usefixtures("state", "log_level")

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
INTERFACE, LOW_PORT = 'tun = "192.168.202.200/24"\n', 'websocket = "ws://0.0.0.0:443"\n'


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image's root, whose configuration is in etc/candy; this checkout is nowhere hidden."""
    etc = tmp_path / "etc/candy"
    etc.mkdir(parents=True)
    monkeypatch.setattr(service, "HIDDEN", ())
    return tmp_path


@pytest.fixture
def everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may read every file: pytest's folders are one user's alone."""
    monkeypatch.setattr(service, "_is_open", lambda file: True)


def install(root: Path, text: str) -> dict[str, list[str]]:
    """The relay's unit, by its keys."""
    (root / "etc/candy/server.toml").write_text(text)
    result = call(server_command.main, "service", "install", "--root", str(root))
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("start it with systemctl enable --now candy-server\n")
    return read(root / "etc/systemd/system/candy-server.service")


def read(file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.usefixtures("everybody")
def test_a_relay_without_rights(root: Path) -> None:
    unit = install(root, 'password = "x"\n')
    program = Path(sys.executable).parent / "candy-server"
    assert unit["ExecStart"] == [f"{program} -c /etc/candy/server.toml --no-timestamp"]
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == [""]
    assert unit["DynamicUser"] == unit["PrivateDevices"] == unit["PrivateUsers"] == ["yes"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert "LoadCredential" not in unit


@pytest.mark.usefixtures("everybody")
@pytest.mark.parametrize(
    ("text", "capabilities"),
    [
        ('websocket = "ws://0.0.0.0:80"', "CAP_NET_BIND_SERVICE"),
        ('websocket = "ws://127.0.0.1:26816"\nstun_listen = "0.0.0.0:443"', "CAP_NET_BIND_SERVICE"),
        ('metrics = "127.0.0.1:80"', "CAP_NET_BIND_SERVICE"),
        ('tun = "192.168.202.200/24"\nwebsocket = "ws://0.0.0.0:443"', "CAP_NET_ADMIN CAP_NET_BIND_SERVICE"),
        ('[network."/a"]\npassword = "y"\ntun = "10.0.0.1/24"\ndhcp = "10.0.0.0/24"', "CAP_NET_ADMIN"),
    ],
)
def test_a_relay_has_what_its_settings_need(root: Path, text: str, capabilities: str) -> None:
    unit = install(root, text)
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == [capabilities]
    assert "PrivateUsers" not in unit
    assert ("DeviceAllow" in unit) is ("NET_ADMIN" in capabilities) is ("PrivateDevices" not in unit)


@pytest.mark.usefixtures("everybody")
def test_a_password_beside_the_settings(root: Path) -> None:
    (root / "etc/candy/password").write_text("secret")
    unit = install(root, "")
    assert unit["LoadCredential"] == ["password:/etc/candy/password"]
    assert unit["ExecStart"][0].endswith(" --password-file ${CREDENTIALS_DIRECTORY}/password")
    assert "LoadCredential" not in install(root, 'password = "another"')


def test_files_of_root_alone(root: Path) -> None:
    """Then there is no dynamic user, who could not read them."""
    config = root / "etc/candy/server.toml"
    config.write_text('password = "x"')
    result = call(server_command.main, "service", "install", "--root", str(root))
    assert "it runs as root, with no capability, because others can't read /etc/candy/server.toml\n" in result.stdout
    unit = read(root / "etc/systemd/system/candy-server.service")
    assert "DynamicUser" not in unit
    assert unit["CapabilityBoundingSet"] == [""]
    config.write_text('password = "x"\ntun = "192.168.202.200/24"')
    result = call(server_command.main, "service", "install", "--root", str(root))
    assert "it runs as root, with CAP_NET_ADMIN, because others can't read" in result.stdout


def test_a_group_of_the_control_socket(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is no member of it can't give the socket to it, and a user namespace knows none."""
    monkeypatch.setattr(service, "_is_open", lambda file: True)
    unit = install(root, 'password = "x"\ncontrol_group = "adm"')
    assert unit["SupplementaryGroups"] == ["adm"]
    assert "PrivateUsers" not in unit


def test_named_files(root: Path) -> None:
    text = 'password_file = "/p"\npasswords = [{ name = "a", file = "/q" }]\n[network."/a"]\npassword_file = "/r"\n'
    text += '[cluster]\nsecret_file = "/s"\ncredentials = "/t"\nca_file = "/u"\n'
    (config := root / "server.toml").write_text(text)
    assert sorted(map(str, service._named_in(config))) == ["/p", "/q", "/r", "/s", "/t", "/u"]


def test_a_client(root: Path) -> None:
    missing = refuse(client_command.main, "service", "install", "home", "--root", str(root))
    assert "/etc/candy/home.toml is missing" in missing
    (root / "etc/candy/home.toml").write_text("")
    result = call(client_command.main, "service", "install", "home", "--root", str(root))
    assert result.stdout.endswith("start it with systemctl enable --now candy-client@home\n")
    unit = read(root / "etc/systemd/system/candy-client@.service")
    assert unit["ExecStart"] == [f"{Path(sys.executable).parent / 'candy-client'} -c /etc/candy/%i.toml --no-timestamp"]
    for name in ("", "a/b", "a b", ".x", "a-b", "ä"):
        assert "is none for a unit" in refuse(client_command.main, "service", "install", name, "--root", str(root))


@pytest.mark.parametrize(
    ("said", "kind", "reload"),
    [
        ("systemd 252 (252.38-1~deb12u1)\n+PAM", "notify", ["/bin/sh -c 'kill -HUP $MAINPID'"]),
        ("systemd 253 (253-1)", "notify-reload", None),
        (None, "notify", ["/bin/sh -c 'kill -HUP $MAINPID'"]),
    ],
)
@pytest.mark.usefixtures("everybody")
def test_how_it_reloads(
    root: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, kind: str, reload: list[str] | None
) -> None:
    answer = subprocess.CompletedProcess([], 0, said, "")
    monkeypatch.setattr(service, "_has", lambda: said is not None)
    monkeypatch.setattr(subprocess, "run", lambda *command, **more: answer)
    unit = install(root, 'password = "x"')
    assert (unit["Type"], unit.get("ExecReload")) == ([kind], reload)


@pytest.mark.usefixtures("everybody")
def test_uninstall(root: Path) -> None:
    install(root, 'password = "x"')
    assert call(server_command.main, "service", "uninstall", "--root", str(root)).exit_code == 0
    assert not (root / "etc/systemd/system/candy-server.service").exists()
    again = call(server_command.main, "service", "uninstall", "--root", str(root))
    assert (again.exit_code, again.stderr.endswith("is not there: nothing is installed\n")) == (1, True)
    assert (root / "etc/candy/server.toml").exists()


def test_a_template_stays_for_others(root: Path) -> None:
    folder = root / "etc/systemd/system"
    wants = folder / "multi-user.target.wants"
    wants.mkdir(parents=True)
    (folder / "candy-client@.service").touch()
    (wants / "candy-client@office.service").symlink_to(folder / "candy-client@.service")
    said = call(client_command.main, "service", "uninstall", "home", "--root", str(root)).stdout
    assert said.endswith("stays for candy-client@office.service\n")
    (wants / "candy-client@office.service").unlink()
    assert call(client_command.main, "service", "uninstall", "home", "--root", str(root)).exit_code == 0
    assert not (folder / "candy-client@.service").exists()


def test_a_program_where_no_unit_sees_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "etc/candy/server.toml").write_text('password = "x"')
    monkeypatch.setattr(service, "HIDDEN", (Path(sys.executable).parent,))
    said = call(server_command.main, "service", "install", "--root", str(root)).stderr
    assert "is where a unit can't see it: install candy-vpn into /opt/candy, say" in said


@needs_systemd
@pytest.mark.parametrize(
    ("text", "is_root", "relay_most"),
    [
        ("", False, 2.0),
        (INTERFACE, False, 2.0),
        (INTERFACE + LOW_PORT, False, 2.0),
        ("", True, 2.0),
        (LOW_PORT, True, 2.0),
        (INTERFACE + LOW_PORT, True, 2.3),
    ],
)
def test_what_systemd_says(
    root: Path, monkeypatch: pytest.MonkeyPatch, text: str, is_root: bool, relay_most: float
) -> None:
    monkeypatch.setattr(service, "_is_open", lambda file: not is_root)
    install(root, text)
    (root / "etc/candy/home.toml").write_text("")
    assert call(client_command.main, "service", "install", "home", "--root", str(root)).exit_code == 0
    folder = root / "etc/systemd/system"
    for name, most in {"candy-server.service": relay_most, "candy-client@.service": 4.0}.items():
        instance = name.replace("@.", "@home.")
        verified = subprocess.run(
            ["systemd-analyze", "verify", str(folder / instance)], capture_output=True, text=True, check=False
        )
        assert (verified.returncode, "candy" in verified.stderr) == (0, False), verified.stderr
        judged = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(folder / name)],
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ, LC_ALL="C.UTF-8"),
        ).stdout
        found = re.search(r"Overall exposure level for \S+: ([\d.]+)", judged)
        assert found is not None, judged
        assert float(found[1]) <= most, judged
