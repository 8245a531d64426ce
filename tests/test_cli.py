"""The two commands: sources and their order, notices, the one line of an error, and exit statuses."""

import logging
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import resources
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from candy import __version__
from candy.cli import client as client_command
from candy.cli import server as server_command
from candy.cli.command import Command
from candy.cli.options import NETWORK_OPTIONS, OPTIONS, ORIGINAL_KEYS
from candy.config import ClientSettings
from candy.errors import ConfigError, OperationalError
from candy.relayconfig import NetworkSettings, ServerSettings
from candy.routes import Rule

ROOT = Path(__file__).parent.parent
RELAY = ["-w", "ws://relay:26816"]
VISIBLE = "warning: --password: every user of this machine can see it: better CANDY_PASSWORD or --password-file\n"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own, and no password from outside."""
    monkeypatch.setenv("CANDY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("CANDY_PASSWORD", raising=False)
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    level = logging.root.level
    yield
    logging.root.setLevel(level)


class Ran(list[Any]):
    """The settings that commands were started with."""

    reread: Callable[[], Any] | None = None
    """Gives those of the last one anew."""

    def start(self, settings: ServerSettings | ClientSettings, reread: Callable[[], Any] | None) -> int:
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


def serve(ran: Ran, *line: str) -> tuple[ServerSettings, str]:
    result = call(server_command.main, *line)
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    assert isinstance(ran[-1], ServerSettings)
    return ran[-1], result.stderr


def serve_one(ran: Ran, *line: str) -> NetworkSettings:
    """A relay with one network, and what that is like."""
    [network] = serve(ran, *line)[0].networks
    assert network.path == "/"
    return network


def join(ran: Ran, *line: str) -> tuple[ClientSettings, str]:
    result = call(client_command.main, *line)
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    assert isinstance(ran[-1], ClientSettings)
    return ran[-1], result.stderr


def refuse(command: Command[Any], *line: str) -> str:
    result = call(command, *line)
    assert (result.exit_code, result.stdout) == (2, "")
    said = result.stderr.splitlines()[-1]
    assert said.startswith(f"{command.name}: ")
    assert "warning" not in said
    return said


# The embedded default


def test_server_default(ran: Ran, state: Path) -> None:
    settings, said = serve(ran)
    assert said == ""
    [network] = settings.networks
    assert (settings.host, settings.port, network.pool) == ("0.0.0.0", 26816, IPv4Network("192.168.202.0/24"))
    assert network.password_is_generated
    assert len(network.password) >= 40
    assert (state / "password").read_bytes() == network.password + b"\n"
    assert serve(ran)[0] == settings
    assert ran.reread is None


def test_options_reach_the_server(ran: Ran) -> None:
    line = ["-m", "server", "-w", "ws://127.0.0.1:7", "-p", "pw", "-d", "10.0.0.0/8", "--no-timestamp", "--debug"]
    limits = ["--auth-timeout", "3", "--workers=2", "--queue-bytes", "200000", "--allow-outside-pool"]
    ours = ["--no-source-check", "--no-broadcast", "--max-members", "5", "-t", "10.0.0.9/8"]
    settings, said = serve(ran, *line, *limits, *ours, "--sdwan", "10.0.0.1,172.16.0.0/12,10.0.0.2;")
    assert said == f"candy-server: {VISIBLE}"
    [network] = settings.networks
    assert (settings.host, settings.port, network.password) == ("127.0.0.1", 7, b"pw")
    assert network.pool == IPv4Network("10.0.0.0/8")
    assert (settings.timestamps, settings.debug, network.allow_outside_pool) == (False, True, True)
    assert (network.auth_timeout, settings.workers, settings.queue_bytes) == (3.0, 2, 200000)
    assert (network.check_source, network.forward_broadcast, network.max_members) == (False, False, 5)
    assert str(network.tun) == "10.0.0.9/8"
    assert network.rules == (Rule.parse("10.0.0.1/32,172.16.0.0/12,10.0.0.2"),)
    assert not network.password_is_generated


def test_options_reach_the_client(ran: Ran) -> None:
    line = ["-m", "client", *RELAY, "-p", "pw", "-n", "home", "-t", "192.168.202.5/24", "--mtu", "1300", "--insecure"]
    settings, said = join(ran, *line)
    assert said == f"candy-client: {VISIBLE}"
    assert (settings.url, settings.password, settings.interface) == ("ws://relay:26816/", b"pw", "candy-home")
    assert (str(settings.tun), settings.mtu, settings.insecure) == ("192.168.202.5/24", 1300, True)


# What has no effect, and what is the other command's


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
    idle = [
        f"candy-client: warning: --{key}: has no effect yet"
        for key in ("stun", "port", "localhost", "discovery", "route")
    ]
    assert sorted(said.splitlines()) == sorted(other + idle)
    assert (settings.stun, settings.port, settings.discovery, settings.route) == ("stun://x", 1, 2, 3)


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
    assert "--mode: 'relay' is no mode: use client or server" in refuse(server_command.main, "-m", "relay")


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


def test_client_needs_a_password(ran: Ran) -> None:
    assert "no password given: set CANDY_PASSWORD" in refuse(client_command.main, *RELAY)
    assert join(ran, *RELAY, "-p", "")[0].password == b""


def test_server_refuses_an_empty_password(state: Path) -> None:
    assert "--password: an empty password lets everybody in" in refuse(server_command.main, "-p", "")
    assert not state.exists()


def test_server_with_a_password_keeps_none(ran: Ran, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDY_PASSWORD", "pw")
    network = serve_one(ran)
    assert (network.password, network.password_is_generated) == (b"pw", False)
    assert not state.exists()


# Files


def test_file_of_the_original(ran: Ran, tmp_path: Path) -> None:
    file = tmp_path / "candy.conf"
    file.write_text(
        'mode = "client"\nwebsocket = "wss://relay";\npassword = "a b"\nmtu=1300\ndiscovery = 300\nworkers=0\ndhcp = x'
    )
    settings, said = join(ran, "-c", str(file), "--mtu", "1200")
    assert (settings.url, settings.password, settings.mtu) == ("wss://relay/", b"a b", 1200)
    assert said.splitlines() == [
        f"candy-client: warning: {file}:6: workers: passed over: unknown in this kind of file",
        f"candy-client: warning: {file}:5: discovery: has no effect yet",
        f"candy-client: warning: {file}:7: dhcp: is an option of candy-server: ignored",
    ]


def test_file_names_the_line_of_a_wrong_value(tmp_path: Path) -> None:
    file = tmp_path / "candy.cfg"
    file.write_text("websocket = ws://relay\npassword = pw\n\nmtu = 9000\n")
    assert f"{file}:4: mtu: '9000' is too large" in refuse(client_command.main, "-c", str(file))


@pytest.mark.parametrize("name", ["server.toml", "server.cfg"])
def test_server_file_without_dhcp_has_no_pool(ran: Ran, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text('websocket = "ws://127.0.0.1:26816"\n')
    assert serve_one(ran, "-c", str(file)).pool is None
    assert serve_one(ran, "-c", str(file), "-d", "10.0.0.0/24").pool == IPv4Network("10.0.0.0/24")
    file.write_text('dhcp = "10.0.1.0/24"\n')
    assert serve_one(ran, "-c", str(file)).pool == IPv4Network("10.0.1.0/24")
    assert serve_one(ran, "-d", "").pool is None


def test_file_switches_the_time_off(ran: Ran, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("no_timestamp = true")
    assert not serve(ran, "-c", str(file))[0].timestamps


# Several networks


def test_networks_of_a_file(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDY_PASSWORD", "of the environment")
    (tmp_path / "written").write_bytes(b"of its file\n")
    file = tmp_path / "server.toml"
    file.write_text(
        f"""dhcp = "10.0.0.0/24"
no_broadcast = true
[network."/home"]
password = "of its own"
[network."/office/eu"]
password_file = "{tmp_path}/written"
dhcp = "10.0.0.0/24"
no_source_check = true
routes = [{{ device = "10.0.0.1", destination = "172.17.0.0/16", via = "10.0.0.2" }}]
"""
    )
    settings, said = serve(ran, "-c", str(file), "-d", "10.1.0.0/24")
    assert said == ""
    main, home, office = settings.networks
    assert main == NetworkSettings(
        password=b"of the environment", pool=IPv4Network("10.1.0.0/24"), forward_broadcast=False
    )
    assert home == NetworkSettings(path="/home", password=b"of its own", pool=None)
    assert office == NetworkSettings(
        path="/office/eu",
        password=b"of its file",
        pool=IPv4Network("10.0.0.0/24"),
        check_source=False,
        rules=(Rule.parse("10.0.0.1/32,172.17.0.0/16,10.0.0.2"),),
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[network.'/home']", "3: network: '/home' has no password: add password or password_file to its table"),
        ("[network.'/home']\npassword = ''", "4: password: an empty password lets everybody in: write one"),
        ("[network.'/home']\npassword_file = '/no'", "4: password_file: cannot read /no: No such file or directory"),
        ("[network.home]\npassword = 'x'", "3: network: 'home' is no path: write it like /home"),
        ("[network.'/']\npassword = 'x'", "3: network: '/' is the network that stands at the top of the file"),
        (
            "[network.'/home']\npassword = 'x'\n[network.'/home/']\npassword = 'x'",
            "5: network: '/home/' is the second network at /home: give each a path of its own",
        ),
        ("[network.'/home']\npassword = 'x'\ndhcp = '10.0.0.0/31'", "5: dhcp: '10.0.0.0/31' is no size for a pool"),
        ("routes = [\n{ device = '10.0.0.1' },\n]", "4: routes: destination is missing, or no text in quotes"),
        (
            "routes = [\n{ device = '10.0.0.1', destination = '10.0.0.0/16', via = '10.0.0.2' },\n]",
            "4: routes: '10.0.0.1,10.0.0.0/16,10.0.0.2' is a route into the pool 10.0.0.0/24",
        ),
        (
            "[network.'/home']\npassword = 'x'\nsdwan = '10.0.0.1,10.9.0.0/16,10.0.0.2;10.0.0.1,10.9.0.0/24,10.0.0.3'",
            "5: sdwan: rule 2: '10.0.0.1,10.9.0.0/24,10.0.0.3' overlaps '10.0.0.1,10.9.0.0/16,10.0.0.2'",
        ),
    ],
)
def test_networks_that_cannot_be(tmp_path: Path, table: str, said: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f'# first\ndhcp = "10.0.0.0/24"\n{table}\n')
    assert refuse(server_command.main, "--check", "-c", str(file)).startswith(f"candy-server: {file}:{said}")


def test_rules_on_the_command_line_win(ran: Ran, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        'sdwan = "10.0.0.1,172.17.0.0/16,10.0.0.2"\n'
        'routes = [{ device = "10.0.0.1", destination = "172.18.0.0/16", via = "10.0.0.2" }]'
    )
    assert len(serve_one(ran, "-c", str(file)).rules) == 2
    rule = "10.0.0.1/32,172.19.0.0/16,10.0.0.2"
    assert serve_one(ran, "-c", str(file), "--sdwan", rule).rules == (Rule.parse(rule),)
    assert serve_one(ran, "-c", str(file), "--sdwan", "").rules == ()


def test_rules_in_a_file_of_the_original(ran: Ran, tmp_path: Path) -> None:
    file = tmp_path / "candy.cfg"
    rules = ["192.168.202.1/32,172.17.0.0/16,192.168.202.2", "192.168.202.2/32,172.16.0.0/16,192.168.202.1"]
    file.write_text(f'dhcp = "192.168.202.0/24"\nsdwan = "{";".join(rules)}";\n')
    assert serve_one(ran, "-c", str(file)).rules == tuple(Rule.parse(rule) for rule in rules)


# Reading them again


def test_settings_are_read_again(ran: Ran, state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "candy.cfg"
    file.write_text('dhcp = "10.0.0.0/24"\nworkers = 2\n')
    settings, said = serve(ran, "-c", str(file), "--no-timestamp", "-n", "x")
    assert said.count("warning") == 2
    assert ran.reread is not None
    (state / "password").unlink()
    again = ran.reread()
    assert caplog.records == []
    # As for a check: nothing is written, so a password that was made is not known.
    assert not (state / "password").exists()
    assert again.networks[0] == settings.networks[0].model_copy(update={"password": b""})
    assert again.timestamps is False
    file.write_text('dhcp = "10.0.0.0/24"\nsdwan = "10.0.0.1,172.17.0.0/16,10.0.0.2"\nrestart = 2')
    assert ran.reread().networks[0].rules == (Rule.parse("10.0.0.1/32,172.17.0.0/16,10.0.0.2"),)
    assert [record.message for record in caplog.records] == [
        f"{file}:3: restart: passed over: unknown in this kind of file"
    ]
    file.write_text("sdwan = nonsense")
    with pytest.raises(ConfigError, match=rf"^{file}:1: sdwan: rule 1: 'nonsense' is no rule"):
        ran.reread()
    file.unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        ran.reread()


# The examples


def examples() -> list[tuple[str, str]]:
    folder = resources.files("candy") / "examples"
    return sorted((file.name, file.read_text()) for file in folder.iterdir())


def test_there_is_an_example_of_each_file() -> None:
    assert [name for name, _ in examples()] == ["client.cfg", "client.toml", "server.cfg", "server.toml"]


def is_setting(line: str) -> bool:
    """Whether a comment would be a line of the file: it begins right behind the sign, or goes on with a list."""
    return line.startswith("#") and (line[1:2].strip() != "" or line.startswith("#    "))


def in_force(content: str, folder: Path) -> list[str]:
    """All lines of a file, comments that show a setting included, with files that are there."""
    lines = [line.removeprefix("#") if is_setting(line) else line for line in content.splitlines()]
    for path in ("/etc/candy/password", "/etc/candy/relay.pem", "/etc/candy/relay.key", "/etc/candy/ca.pem"):
        (folder / Path(path).name).write_text("x")
        lines = [line.replace(path, str(folder / Path(path).name)) for line in lines]
    if "tls_key" in content:
        lines = [line.replace('websocket = "ws:', 'websocket = "wss:') for line in lines]
    return lines


@pytest.mark.parametrize(("name", "content"), examples())
def test_example(name: str, content: str, tmp_path: Path, ran: Ran) -> None:
    """Every example is sound, as it is and with all of its lines in force, and shows every setting its form has."""
    side, _, form = name.partition(".")
    assert side in ("server", "client")
    command: Command[Any] = server_command.main if side == "server" else client_command.main
    file = tmp_path / name
    file.write_text(content)
    assert call(command, "-c", str(file), "--check").stderr == ""
    lines = in_force(content, tmp_path)
    file.write_text("\n".join(lines))
    result = call(command, "-c", str(file), "--check")
    assert (result.exit_code, result.stdout) == (0, f"candy-{side}: the settings are sound\n"), result.stderr
    assert all("has no effect yet" in line for line in result.stderr.splitlines())
    known = {option.key for option in OPTIONS[side]}  # type: ignore[index]
    if form == "toml":
        assert tomllib.loads("\n".join(lines)).keys() == known
    else:
        keys = {line.partition(" =")[0] for line in lines if line and not line.startswith("#")}
        assert keys == known & ORIGINAL_KEYS | {"mode"}


def test_example_of_a_further_network(tmp_path: Path, ran: Ran) -> None:
    content = dict(examples())["server.toml"]
    file = tmp_path / "server.toml"
    file.write_text("\n".join(in_force(content, tmp_path)))
    settings, _ = serve(ran, "-c", str(file))
    main, home = settings.networks
    assert (home.path, str(home.pool), str(home.tun), len(home.rules)) == ("/home", "10.77.0.0/16", "10.77.0.1/16", 2)
    assert len(main.rules) == 3
    table = tomllib.loads(file.read_text())["network"]["/home"]
    assert table.keys() <= {option.key for option in NETWORK_OPTIONS}


@pytest.mark.parametrize("name", ["server.toml", "client.toml"])
def test_example_shows_the_defaults(name: str, tmp_path: Path, ran: Ran) -> None:
    """A commented line that is not an example says what is so without it."""
    content = dict(examples())[name].partition("#[network")[0]
    start: Callable[..., tuple[Any, str]] = serve if name == "server.toml" else join
    lines = content.splitlines()
    shown = [line.removeprefix("#") for line in lines if is_setting(line)]
    made_up = ("example", "/etc/candy", "192.168.", '"home"', "workers")
    defaults = [line for line in shown if not any(word in line for word in made_up)]
    assert len(defaults) >= 6
    written = [line for line in lines if line and not line.startswith("#")]
    file = tmp_path / name
    file.write_text("\n".join(written))
    as_it_is = start(ran, "-c", str(file))[0]
    file.write_text("\n".join(written + defaults))
    assert start(ran, "-c", str(file))[0] == as_it_is


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
        ([*RELAY, "-p", "x", "--ca-file", "/nowhere"], "--ca-file: '/nowhere' is no file"),
        (["-w", "relay:26816", "-p", "x"], "--websocket: 'relay:26816' is no WebSocket URL"),
    ],
)
def test_usage_error(line: list[str], said: str) -> None:
    assert said in refuse(client_command.main, *line)


@pytest.mark.parametrize(
    ("error", "status"),
    [(OperationalError("port 26816 is in use"), 1), (ConfigError("no such pool"), 2), (KeyboardInterrupt(), 130)],
)
def test_errors_of_the_run(error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: ServerSettings, reread: object) -> int:
        raise error

    monkeypatch.setattr(server_command.main, "run", fail)
    result = call(server_command.main)
    assert result.exit_code == status
    assert result.stderr.strip() == (f"candy-server: {error}" if str(error) else "")


def test_status_of_the_run_is_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_command.main, "run", lambda settings, reread: 7)
    assert call(server_command.main).exit_code == 7


def test_an_engine_that_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(settings: ServerSettings, reread: object) -> int:
        raise ModuleNotFoundError("No module named 'candy._fastpath'", name="candy._fastpath")

    monkeypatch.setattr(server_command.main, "run", start)
    result = call(server_command.main)
    assert result.exit_code == 1
    assert result.stderr == "candy-server: the engine is not compiled: run make build, or pip install .\n"


def test_a_bug_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(settings: ServerSettings, reread: object) -> int:
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr(server_command.main, "run", start)
    assert isinstance(call(server_command.main).exception, ModuleNotFoundError)


def test_state_folder_that_cannot_be_used(state: Path) -> None:
    state.touch()
    result = call(server_command.main)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"candy-server: cannot read {state}/password: Not a directory: ")
    assert result.stderr.count("\n") == 1


def test_check_leaves_nothing_behind(state: Path) -> None:
    result = call(server_command.main, "--check")
    assert (result.exit_code, result.stdout) == (0, "candy-server: the settings are sound\n")
    assert not state.exists()
    assert "--workers: 'x' is no whole number" in refuse(server_command.main, "--check", "--workers", "x")


@pytest.mark.parametrize("command", [server_command.main, client_command.main])
def test_help_and_version(command: Command[Any]) -> None:
    assert call(command, "--version").output == f"{command.name} {__version__}\n"
    shown = call(command, "-h")
    assert shown.exit_code == 0
    assert shown.output == call(command, "--help").output
    assert shown.output.startswith(f"Usage: {command.name} [OPTIONS]\n")
    assert all((option.flag in shown.output.split()) is option.is_flag for option in OPTIONS[command.side])


# The real programs


def run_program(side: str, *line: str, then: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys\nfrom candy.cli.{side} import main\ntry:\n    main()\nfinally:\n    {then or 'pass'}"
    return subprocess.run([sys.executable, "-c", code, *line], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("line", ["--help", "--version", "--check"])
def test_what_works_without_the_engine(side: str, line: str) -> None:
    heavy = "'aiohttp', 'asyncio', 'candy._fastpath', 'candy.server', 'candy.client', 'pyroute2', 'rich'"
    ran = run_program(side, line, *RELAY, "-p", "x", then=f"print({{{heavy}}} & set(sys.modules))")
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "set()"), ran.stderr


def test_program_without_sense() -> None:
    ran = run_program("server", "-w", "nonsense")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("candy-server: --websocket: 'nonsense' is no WebSocket URL: write it like ")
    assert ran.stderr.count("\n") == 1


def test_program_with_bytes_that_are_no_text() -> None:
    ran = run_program("server", "--workers", os.fsdecode(b"\xff\n"))
    assert ran.returncode == 2
    assert ran.stderr == "candy-server: --workers: '\\udcff\\n' is no UTF-8 text\n"
