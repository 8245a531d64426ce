"""Configuration files given to the two commands: which line is wrong, several networks, reading again, the examples."""

import tomllib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import trustme
from lab.commands import Ran, call, join, refuse, serve, serve_one

from candy.cli import client as client_command
from candy.cli import judging
from candy.cli import server as server_command
from candy.cli.command import Command
from candy.errors import ConfigError
from candy.host.netlink import Address, Netlink
from candy.options import NETWORK_OPTIONS, OPTIONS, ORIGINAL_KEYS
from candy.relay.networksettings import NetworkSettings
from candy.relay.rules import Rule
from candy.relay.settings import SHARED

pytestmark = pytest.mark.usefixtures("state", "log_level")


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


def test_an_option_of_several_values(ran: Ran, tmp_path: Path) -> None:
    """Written several times, or a list. As with every option, those of the command line replace those of the file."""
    file = tmp_path / "server.toml"
    file.write_text('allow_origin = ["https://a.example", "null"]')
    assert serve(ran)[0].allow_origin == ()
    assert serve(ran, "-c", str(file))[0].allow_origin == ("https://a.example", "null")
    line = ["--allow-origin", "https://b.example", "--allow-origin=https://c.example"]
    assert serve(ran, "-c", str(file), *line)[0].allow_origin == ("https://b.example", "https://c.example")
    said = refuse(server_command.main, *line, "--allow-origin", "*")
    assert "--allow-origin: '*' is not an origin as browsers write it, like https://example.org" in said
    file.write_text('debug = true\nallow_origin = ["null",\n"HTTPS://x"]')
    assert f"{file}:2: allow_origin: 'HTTPS://x' is not an origin" in refuse(server_command.main, "-c", str(file))
    file.write_text('allow_origin = "null"')
    assert serve(ran, "-c", str(file))[0].allow_origin == ("null",)
    for wrong in ("1", "[1]", '[["null"]]'):
        file.write_text(f"allow_origin = {wrong}")
        said = refuse(server_command.main, "-c", str(file))
        assert f"{file}:1: allow_origin: is of the wrong type: write text in quotes" in said


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
        ("[network.'/home']\npassword = ''", "4: password: an empty password lets every machine in: write one"),
        ("[network.'/home']\npassword_file = '/no'", "4: password_file: cannot read /no: No such file or directory"),
        ('[network."/home"]\npassword_file = "a\\u0000b"', "4: password_file: cannot read a\\x00b: a path has no NUL"),
        ('tls_certificate = "a\\u0000b"\ntls_key = "a\\u0000b"', "3: tls_certificate: 'a\\x00b' is not a file: "),
        ("[network.home]\npassword = 'x'", "3: network: 'home' is not a path: write it like /home"),
        ("[network.'/']\npassword = 'x'", "3: network: '/' is the network that stands at the top of the file"),
        (
            "[network.'/home']\npassword = 'x'\n[network.'/home/']\npassword = 'x'",
            "5: network: '/home/' is the second network at /home: give each a path of its own",
        ),
        ("[network.'/home']\npassword = 'x'\ndhcp = '10.0.0.0/31'", "5: dhcp: '10.0.0.0/31' is not a size for a pool"),
        ("routes = [\n{ device = '10.0.0.1' },\n]", "4: routes: destination is missing, or not text in quotes"),
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


@pytest.mark.parametrize("check", [True, False])
def test_two_networks_with_one_password(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: bool) -> None:
    monkeypatch.setenv("CANDY_PASSWORD", "one")
    (tmp_path / "written").write_bytes(b"two\n")
    file = tmp_path / "server.toml"
    tables = [
        'dhcp = ""',
        '[network."/a"]\npassword = "one"\ndhcp = ""',
        '[network."/b"]\npassword = "two"\ndhcp = ""',
        f'[network."/c"]\npassword_file = "{tmp_path}/written"\ndhcp = ""',
        '[network."/d"]\npassword = "three"\ndhcp = ""',
    ]
    file.write_text("\n".join(tables))
    result = call(server_command.main, "-c", str(file), *(["--check"] if check else []))
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        f"candy-server: warning: {file}:{line}: is the password of the network {other} too: give each one of its own"
        for line, other in (("3: password", "/"), ("9: password_file", "/b"))
    ] + ([f"candy-server: warning: {SHARED} (networks /, /a, /b, /c, /d)"] if check else [])


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


# Who else can read them


READABLE = "every user of this machine can read"


def test_a_password_file_that_every_user_can_read(ran: Ran, tmp_path: Path) -> None:
    """It is used, and one line says what to do."""
    path = tmp_path / "password"
    path.write_bytes(b"secret\n")
    path.chmod(0o644)
    settings, said = join(ran, "-w", "ws://relay", "--password-file", str(path))
    assert settings.password == b"secret"
    assert said == f"candy-client: warning: --password-file: {READABLE} {path}: chmod 600 {path}\n"
    path.chmod(0o640)
    assert join(ran, "-w", "ws://relay", "--password-file", str(path))[1] == ""


def test_a_key_that_every_user_can_read(ran: Ran, tmp_path: Path) -> None:
    chain, key, file = tmp_path / "relay.pem", tmp_path / "relay.key", tmp_path / "server.toml"
    for path in (chain, key):
        path.touch()
        path.chmod(0o644)
    line = ["-w", "wss://127.0.0.1:0", "-p", "x", "--tls-certificate", str(chain)]
    said = serve(ran, *line, "--tls-key", str(key))[1]
    assert said.splitlines()[1:] == [f"candy-server: warning: --tls-key: {READABLE} {key}: chmod 600 {key}"]
    file.write_text(f'tls_key = "{key}"\n')
    result = call(server_command.main, *line, "-c", str(file), "--check", "-d", "")
    assert result.stderr.splitlines()[1:] == [
        f"candy-server: warning: {file}:1: tls_key: {READABLE} {key}: chmod 600 {key}",
        f"candy-server: warning: {SHARED}",
    ]
    key.chmod(0o600)
    assert len(serve(ran, *line, "--tls-key", str(key))[1].splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        ('password = "x"', True),
        ('dhcp = ""\n[network."/home"]\npassword = "x"', True),
        ('dhcp = ""', False),
    ],
)
def test_settings_with_a_password_that_every_user_can_read(
    ran: Ran, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, holds: bool
) -> None:
    file = tmp_path / "server.toml"
    file.write_text(content)
    file.chmod(0o644)
    said = serve(ran, "-c", str(file))[1]
    line = f"candy-server: warning: {file}: {READABLE} the password in it: chmod 600 {file}\n"
    assert said == (line if holds else "")
    # It was said.
    assert ran.reread is not None
    ran.reread()
    assert caplog.messages == []


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
    assert again.networks[0] == replace(settings.networks[0], password=b"")
    assert again.timestamps is False
    file.write_text('dhcp = "10.0.0.0/24"\nsdwan = "10.0.0.1,172.17.0.0/16,10.0.0.2"\nrestart = 2')
    assert ran.reread().networks[0].rules == (Rule.parse("10.0.0.1/32,172.17.0.0/16,10.0.0.2"),)
    assert [record.message for record in caplog.records] == [
        f"{file}:3: restart: passed over: unknown in this kind of file"
    ]
    file.write_text("sdwan = nonsense")
    with pytest.raises(ConfigError, match=rf"^{file}:1: sdwan: rule 1: 'nonsense' is not a rule"):
        ran.reread()
    file.unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        ran.reread()


def test_a_members_settings_are_read_again(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, password = tmp_path / "client.toml", tmp_path / "password"
    password.write_text("one")
    file.write_text(f'websocket = "ws://relay"\npassword_file = "{password}"\n')
    settings, _ = join(ran, "-c", str(file), "--mtu", "1300")
    assert ran.reread is not None
    assert ran.reread() == settings
    password.write_text("two")
    assert ran.reread() == replace(settings, password=b"two")
    file.write_text("mtu = 1200")
    with pytest.raises(ConfigError, match=r"^no relay given"):
        ran.reread()
    monkeypatch.setenv("CANDY_PASSWORD", "x")
    join(ran, "-w", "ws://relay")
    assert ran.reread is None


# The examples


def examples() -> list[tuple[str, str]]:
    folder = resources.files("candy") / "examples"
    files = (file for file in folder.iterdir() if not file.name.startswith("fail2ban-"))
    return sorted((file.name, file.read_text()) for file in files)


def test_there_is_an_example_of_each_file() -> None:
    assert [name for name, _ in examples()] == ["client.cfg", "client.toml", "server.cfg", "server.toml"]


def is_setting(line: str) -> bool:
    """Whether a comment would be a line of the file: it begins right behind the sign, or goes on with a list."""
    return line.startswith("#") and (line[1:2].strip() != "" or line.startswith("#    "))


def in_force(content: str, folder: Path) -> list[str]:
    """All lines of a file, comments that show a setting included, with files that are there."""
    lines = [line.removeprefix("#") if is_setting(line) else line for line in content.splitlines()]
    files = ("password-new", "password", "relay.pem", "relay.key", "ca.pem", "tokens", "secret")
    for name in (*files, "nats-credentials", "cluster-secret"):
        (folder / name).write_text("x")
        lines = [line.replace(f"/etc/candy/{name}", str(folder / name)) for line in lines]
    if "tls_key" in content:
        lines = [line.replace('websocket = "ws:', 'websocket = "wss:') for line in lines]
    return lines


NO_DHCP = (
    "the file has no dhcp, so members without an address of their own (--tun) are refused: "
    'write dhcp = "192.168.202.0/24", or dhcp = "" if that is meant'
)


@pytest.mark.parametrize(
    ("name", "content", "flags", "doubts"),
    [
        ("candy.cfg", "mode = server", [], [NO_DHCP]),
        ("candy.cfg", "dhcp = 10.1.0.0/16", [], []),
        ("server.toml", "max_members = 5", [], [NO_DHCP]),
        ("server.toml", "max_members = 5", ["-d", ""], []),
        ("server.toml", 'dhcp = ""', [], []),
        ("server.toml", 'dhcp = ""\n[network."/home"]\npassword = "x"\nlegacy = false', [], [f"/home: {NO_DHCP}"]),
    ],
)
def test_a_check_warns_of_a_relays_file_without_a_pool(
    name: str, content: str, flags: list[str], doubts: list[str], tmp_path: Path, ran: Ran
) -> None:
    """As with the original such a relay grants no addresses, and its members find out one by one."""
    file = tmp_path / name
    file.write_text(content)
    result = call(server_command.main, "-c", str(file), "--check", *flags)
    assert (result.exit_code, result.stdout) == (0, "candy-server: the settings are sound\n")
    assert result.stderr.splitlines() == [f"candy-server: warning: {doubt}" for doubt in (*doubts, SHARED)]
    # Somebody meant it that starts it.
    assert "dhcp" not in serve(ran, "-c", str(file), *flags)[1]


def test_a_check_names_what_this_machine_does_not_let_work(
    tmp_path: Path, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    now = datetime.now(UTC)
    certificate = authority.issue_cert("a.test", not_before=now - timedelta(9), not_after=now + timedelta(1))
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    lan = Address(1, IPv4Interface("192.168.202.9/28"), IPv4Network("192.168.202.0/28"), "lo")
    monkeypatch.setattr(Netlink, "addresses", lambda kernel: [lan])
    monkeypatch.setattr(judging, "_may_bind", lambda: False)
    flags = ["--no-legacy", "-w", "wss://0.0.0.0:443", "--tls-certificate", str(chain), "--tls-key", str(key)]
    flags += ["--stun-listen", "0.0.0.0:444"]
    said = call(server_command.main, "--check", *flags).stderr.splitlines()
    assert [line.removeprefix("candy-server: warning: ") for line in said] == [
        "--websocket: this user may not listen on port 443: run as root, give the unit "
        "AmbientCapabilities=CAP_NET_BIND_SERVICE (candy-server service install does), or take 26816",
        "--stun-listen: this user may not listen on port 444: run as root, give the unit "
        "AmbientCapabilities=CAP_NET_BIND_SERVICE (candy-server service install does), or take 26816",
        f"{chain} ends soon, at {now + timedelta(1):%Y-%m-%d %H:%M} UTC: renew it",
        "--dhcp: the pool 192.168.202.0/24 overlaps 192.168.202.0/28, which this machine is part of by lo: "
        "of members and hosts there one alone can be reached: take another pool",
    ]
    monkeypatch.setattr(judging, "_may_bind", lambda: True)
    flags = ["--no-legacy", "-w", "ws://0.0.0.0:80", "-d", "10.1.0.0/16"]
    assert call(server_command.main, "--check", *flags).stderr == ""


def test_a_check_without_a_file(ran: Ran) -> None:
    assert call(server_command.main, "--check").stderr == f"candy-server: warning: {SHARED}\n"
    assert call(server_command.main, "--check", "--no-legacy").stderr == ""
    # A password lets nobody in there who has a key.
    assert call(server_command.main, "--check", "--admit", "invite").stderr == ""


def test_a_check_of_a_password_for_old_clients(tmp_path: Path, ran: Ran) -> None:
    file = tmp_path / "server.toml"
    file.write_text('dhcp = ""\npasswords = [{ password = "new" }, { password = "old", legacy = true }]\n')
    file.chmod(0o600)
    assert call(server_command.main, "-c", str(file), "--check").stderr == ""


@pytest.mark.parametrize(("name", "content"), examples())
def test_example(name: str, content: str, tmp_path: Path, ran: Ran) -> None:
    """Every example is sound, as it is and with all of its lines in force, and shows every setting its form has."""
    side, _, form = name.partition(".")
    assert side in ("server", "client")
    command: Command[Any] = server_command.main if side == "server" else client_command.main
    file = tmp_path / name
    file.write_text(content)
    doubt = f"candy-server: warning: {SHARED}\n" if side == "server" else ""
    assert call(command, "-c", str(file), "--check").stderr == doubt
    lines = in_force(content, tmp_path)
    file.write_text("\n".join(lines))
    result = call(command, "-c", str(file), "--check")
    assert (result.exit_code, result.stdout) == (0, f"candy-{side}: the settings are sound\n"), result.stderr
    assert all(SHARED in line for line in result.stderr.splitlines())
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
    made_up = ("example", "/etc/candy", "192.168.", "198.51.100.", '"127.0.0.1:', '"0.0.0.0:', '"home"', "workers")
    defaults = [line for line in shown if not any(word in line for word in made_up)]
    assert len(defaults) >= 6
    written = [line for line in lines if line and not line.startswith("#")]
    file = tmp_path / name
    file.write_text("\n".join(written))
    as_it_is = start(ran, "-c", str(file))[0]
    file.write_text("\n".join(written + defaults))
    assert start(ran, "-c", str(file))[0] == as_it_is
