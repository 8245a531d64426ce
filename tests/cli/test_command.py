"""The two commands: options and their sources, notices, the one line of an error, and exit statuses.

Configuration files are in test_command_files.py.
"""

import os
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from lab.commands import RELAY, Ran, call, join, refuse, serve, serve_one

from candy import __version__
from candy.cli import client as client_command
from candy.cli import server as server_command
from candy.cli.command import Command
from candy.errors import ConfigError, OperationalError
from candy.options import OPTIONS
from candy.relay.rules import Rule
from candy.relay.settings import RelaySettings

pytestmark = pytest.mark.usefixtures("state", "log_level")

ROOT = Path(__file__).parents[2]
VISIBLE = "warning: --password: every user of this machine can see it: better CANDY_PASSWORD or --password-file\n"


# The embedded default


def test_server_default(ran: Ran, state: Path) -> None:
    settings, said = serve(ran)
    assert said == ""
    [network] = settings.networks
    assert (settings.host, settings.port, network.pool) == (None, 26816, IPv4Network("192.168.202.0/24"))
    assert network.password_is_generated
    assert len(network.password) >= 40
    assert (state / "password").read_bytes() == network.password + b"\n"
    assert serve(ran)[0] == settings
    assert ran.reread is None


def test_options_reach_the_server(ran: Ran) -> None:
    line = ["-m", "server", "-w", "ws://127.0.0.1:7", "-p", "pw", "-d", "10.0.0.0/8", "--no-timestamp", "--debug"]
    limits = ["--auth-timeout", "3", "--workers=2", "--queue-bytes", "200000", "--allow-outside-pool"]
    ours = ["--no-source-check", "--no-broadcast", "--max-members", "5", "-t", "10.0.0.9/8"]
    proxies = ["--trusted-proxy", "127.0.0.1", "--trusted-proxy", "10.9.0.0/16"]
    settings, said = serve(ran, *line, *limits, *ours, *proxies, "--sdwan", "10.0.0.1,172.16.0.0/12,10.0.0.2;")
    assert said == f"candy-server: {VISIBLE}"
    [network] = settings.networks
    assert (settings.host, settings.port, network.password) == ("127.0.0.1", 7, b"pw")
    assert network.pool == IPv4Network("10.0.0.0/8")
    assert (settings.timestamps, settings.debug, network.allow_outside_pool) == (False, True, True)
    assert (network.auth_timeout, settings.workers, settings.queue_bytes) == (3.0, 2, 200000)
    assert (network.check_source, network.forward_broadcast, network.max_members) == (False, False, 5)
    assert str(network.tun) == "10.0.0.9/8"
    assert [str(proxy) for proxy in settings.trusted_proxies] == ["127.0.0.1/32", "10.9.0.0/16"]
    assert network.rules == (Rule.parse("10.0.0.1/32,172.16.0.0/12,10.0.0.2"),)
    assert not network.password_is_generated


def test_options_reach_the_client(ran: Ran) -> None:
    line = ["-m", "client", *RELAY, "-p", "pw", "-n", "home", "-t", "192.168.202.5/24", "--mtu", "1300", "--insecure"]
    settings, said = join(ran, *line)
    assert said == f"candy-client: {VISIBLE}"
    assert (settings.url, settings.password, settings.interface) == ("ws://relay:26816/", b"pw", "candy-home")
    assert (str(settings.tun), settings.mtu, settings.insecure) == ("192.168.202.5/24", 1300, True)


# What is the other command's


def test_server_takes_the_clients_options(ran: Ran) -> None:
    line = ["-n", "x", "-s", "x", "--port", "x", "--mtu", "1", "-r", "5", "--discovery", "300", "--localhost", "x"]
    _, said = serve(ran, *line)
    assert sorted(said.splitlines()) == sorted(
        f"candy-server: warning: --{key}: is an option of candy-client: ignored"
        for key in ("name", "stun", "port", "mtu", "route", "discovery", "localhost")
    )


def test_client_takes_the_servers_options(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDY_PASSWORD", "pw")
    line = ["-d", "nonsense", "--sdwan", "x", "-s", "stun://x", "--port", "1", "--localhost", "1.2.3.4"]
    settings, said = join(ran, *RELAY, *line, "--discovery", "2", "-r", "3")
    other = [f"candy-client: warning: --{key}: is an option of candy-server: ignored" for key in ("dhcp", "sdwan")]
    assert sorted(said.splitlines()) == sorted(other)
    assert (settings.stun, settings.port, settings.discovery, settings.route) == (("x", 3478), 1, 2, 3)


def test_every_flag_of_the_original_is_taken_by_both() -> None:
    known = "-c --config -m --mode -w --websocket -p --password -d --dhcp --sdwan -n --name -t --tun -s --stun --port"
    known += " --mtu -r --route --discovery --localhost --debug --no-timestamp --version"
    for command in (server_command.main, client_command.main):
        flags = {flag for option in command.params for flag in option.opts}
        assert set(known.split()) <= flags


@pytest.mark.parametrize(
    ("command", "mode", "right"),
    [(server_command.main, "client", "candy-client"), (client_command.main, "server", "candy-server")],
)
def test_mode_of_the_other_command(command: Command[Any], mode: str, right: str, tmp_path: Path) -> None:
    assert f"--mode: this is {command.name}: run {right} " in refuse(command, "-m", mode)
    file = tmp_path / "candy.cfg"
    file.write_text(f"\nmode = {mode}")
    assert f"{file}:2: mode: this is {command.name}: run {right} " in refuse(command, "-c", str(file))


def test_mode_that_is_none() -> None:
    assert "--mode: 'relay' is not a mode: use client or server" in refuse(server_command.main, "-m", "relay")


# The password and its sources


def test_password_sources_in_order(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "written").write_bytes(b"of the file\r\n")
    (tmp_path / "named").write_bytes(b"of the file's file")
    config = tmp_path / "client.toml"
    config.write_text(f'password_file = "{tmp_path}/named"')
    line = [*RELAY, "-c", str(config)]
    assert join(ran, *line)[0].password == b"of the file's file"
    config.write_text(f'password = "of the configuration"\npassword_file = "{tmp_path}/named"')
    assert join(ran, *line)[0].password == b"of the configuration"
    monkeypatch.setenv("CANDY_PASSWORD", "")
    assert join(ran, *line)[0].password == b"of the configuration"
    monkeypatch.setenv("CANDY_PASSWORD", os.fsdecode(b"of the \xff environment"))
    assert join(ran, *line)[0].password == b"of the \xff environment"
    line += ["--password-file", f"{tmp_path}/written"]
    assert join(ran, *line)[0].password == b"of the file"
    settings, said = join(ran, *line, "-p", "of the command line")
    assert settings.password == b"of the command line"
    assert said == f"candy-client: {VISIBLE}"


def test_password_file_that_is_no_use(tmp_path: Path) -> None:
    path = tmp_path / "password"
    said = refuse(client_command.main, *RELAY, "--password-file", str(path))
    assert said.endswith(f"--password-file: cannot read {path}: No such file or directory: name a readable file")
    path.write_text("\n")
    said = refuse(client_command.main, *RELAY, "--password-file", str(path))
    assert said.endswith(f"--password-file: {path} is empty: write the password into it")


@pytest.mark.parametrize("content", [b"secret", b"secret\n\n\n", b"\xef\xbb\xbfsecret\r\n\r\n", b"secret\n\r\n"])
def test_what_is_around_a_password_in_a_file(ran: Ran, tmp_path: Path, content: bytes) -> None:
    """As $(cat FILE) has it; and F9: "the three bytes are part of the password"."""
    path = tmp_path / "password"
    path.write_bytes(content)
    assert join(ran, *RELAY, "--password-file", str(path))[0].password == b"secret"


@pytest.mark.parametrize("content", [b" secret \n", b"a\n\nb\n", b"\n\xef\xbb\xbf", b"\x00\xff\xfe"])
def test_what_is_in_a_password_of_a_file(ran: Ran, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    assert join(ran, *RELAY, "--password-file", str(path))[0].password == content.rstrip(b"\n")


def test_a_password_file_in_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes("\ufeffsecret\r\n".encode("utf-16-le"))
    said = refuse(client_command.main, *RELAY, "--password-file", str(path))
    assert said == f"candy-client: {path} is UTF-16: save it as UTF-8 text"


def test_client_needs_a_password(ran: Ran) -> None:
    assert "no password given: set CANDY_PASSWORD" in refuse(client_command.main, *RELAY)
    assert join(ran, *RELAY, "-p", "")[0].password == b""


def test_server_refuses_an_empty_password(state: Path) -> None:
    assert "--password: an empty password lets every machine in" in refuse(server_command.main, "-p", "")
    assert not state.exists()


def test_server_with_a_password_keeps_none(ran: Ran, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDY_PASSWORD", "pw")
    network = serve_one(ran)
    assert (network.password, network.password_is_generated) == (b"pw", False)
    assert not state.exists()


# Errors and exit statuses


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--nope"], "--nope"),
        (["stray"], "stray"),
        (["--mtu"], "--mtu"),
        (["-c", "/nowhere.cfg"], "cannot read /nowhere.cfg: No such file or directory: give -c the path"),
        (["--auth-timeout", "1"], "--auth-timeout"),
        ([*RELAY, "-p", "x", "--mtu", "9000"], "--mtu: '9000' is too large: use 1479 or less"),
        ([*RELAY, "-p", "x", "-t", "192.168.202.0/24"], "--tun: '192.168.202.0/24' is the network's own"),
        ([*RELAY, "-p", "x", "--ca-file", "/nowhere"], "--ca-file: '/nowhere' is not a file"),
        (["-w", "relay:26816", "-p", "x"], "--websocket: 'relay:26816' is not a WebSocket URL"),
        (["-w", "ws://a%3Ab:x@relay", "-p", "x"], "--websocket: 'ws://…@relay' has a colon in the user"),
    ],
)
def test_usage_error(line: list[str], said: str) -> None:
    assert said in refuse(client_command.main, *line)


@pytest.mark.parametrize(
    ("error", "status"),
    [(OperationalError("port 26816 is in use"), 1), (ConfigError("no such pool"), 2), (KeyboardInterrupt(), 130)],
)
def test_errors_of_the_run(error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: RelaySettings, reread: object) -> int:
        raise error

    monkeypatch.setattr(server_command.main, "run", fail)
    result = call(server_command.main)
    assert result.exit_code == status
    assert result.stderr.strip() == (f"candy-server: {error}" if str(error) else "")


def test_status_of_the_run_is_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_command.main, "run", lambda settings, reread: 7)
    assert call(server_command.main).exit_code == 7


def test_an_engine_that_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(settings: RelaySettings, reread: object) -> int:
        raise ModuleNotFoundError("No module named 'candy._fastpath'", name="candy._fastpath")

    monkeypatch.setattr(server_command.main, "run", start)
    result = call(server_command.main)
    assert result.exit_code == 1
    assert result.stderr == "candy-server: the engine is not compiled: run make build, or pip install .\n"


def test_a_bug_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(settings: RelaySettings, reread: object) -> int:
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr(server_command.main, "run", start)
    assert isinstance(call(server_command.main).exception, ModuleNotFoundError)


def test_state_folder_that_cannot_be_used(state: Path) -> None:
    state.touch()
    result = call(server_command.main)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"candy-server: cannot read {state}/password: Not a directory: ")
    assert result.stderr.count("\n") == 1


def test_state_folder_that_cannot_be_written(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc takes no folder, root's neither."""
    monkeypatch.setenv("CANDY_STATE_DIR", "/proc/candy")
    settings, stderr = serve(ran)
    assert settings.networks[0].password
    assert stderr == (
        "candy-server: warning: cannot write /proc/candy/password: No such file or directory: "
        "give this user access, or set CANDY_STATE_DIR to another folder; going on in memory until that works\n"
    )


def test_check_leaves_nothing_behind(state: Path) -> None:
    result = call(server_command.main, "--check")
    assert (result.exit_code, result.stdout) == (0, "candy-server: the settings are sound\n")
    assert not state.exists()
    assert "--workers: 'x' is not a whole number" in refuse(server_command.main, "--check", "--workers", "x")


@pytest.mark.parametrize("command", [server_command.main, client_command.main])
def test_help_and_version(command: Command[Any]) -> None:
    assert call(command, "--version").output == f"{command.name} {__version__}\n"
    shown = call(command, "-h")
    assert shown.exit_code == 0
    assert shown.output == call(command, "--help").output
    assert shown.output.startswith(f"Usage: {command.name} [OPTIONS] [COMMAND]\n")
    assert all((option.flag in shown.output.split()) is option.is_flag for option in OPTIONS[command.side])


# The real programs


def run_program(side: str, *line: str, then: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys\nfrom candy.cli.{side} import main\ntry:\n    main()\nfinally:\n    {then or 'pass'}"
    return subprocess.run([sys.executable, "-c", code, *line], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("line", ["--help", "--version", "--check"])
def test_what_works_without_the_engine(side: str, line: str) -> None:
    sides = "'candy.relay.relay', 'candy.relay.lifecycle', 'candy.member.member', 'candy.member.lifecycle'"
    heavy = f"'aiohttp', 'asyncio', 'candy._fastpath', {sides}, 'pyroute2', 'rich'"
    ran = run_program(side, line, *RELAY, "-p", "x", then=f"print({{{heavy}}} & set(sys.modules))")
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "set()"), ran.stderr


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_program_writes_no_core(side: str) -> None:
    pr_get_dumpable = 3
    ran = run_program(side, "--version", then=f"import ctypes; print(ctypes.CDLL(None).prctl({pr_get_dumpable}))")
    assert ran.stdout.splitlines()[-1] == "0"


def test_program_without_sense() -> None:
    ran = run_program("server", "-w", "nonsense")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("candy-server: --websocket: 'nonsense' is not a WebSocket URL: write it like ")
    assert ran.stderr.count("\n") == 1


def test_program_with_bytes_that_are_no_text() -> None:
    ran = run_program("server", "--workers", os.fsdecode(b"\xff\n"))
    assert ran.returncode == 2
    assert ran.stderr == "candy-server: --workers: '\\udcff\\n' is not UTF-8 text\n"
