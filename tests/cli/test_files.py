"""Configuration files in both forms: what is read, and what is answered to what can't be."""

from pathlib import Path

import pytest

from candy.cli.files import Written, is_exposed, read_file
from candy.errors import ConfigError
from candy.settings import Given


def read_cfg(folder: Path, content: str | bytes) -> tuple[dict[str, Given], list[str]]:
    path = folder / "candy.cfg"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    written = read_file(path, "client")
    assert written.networks == []
    return written.given, written.warnings


def read_toml(folder: Path, content: str | bytes) -> Written:
    path = folder / "candy.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    written = read_file(path, "server")
    assert written.warnings == []
    return written


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('name = "home"', "home"),
        ("name=home", "home"),
        ("  name\t=  home  ", "home"),
        ('name = "home";', "home"),
        ("name = home ; ;", "home"),
        ('name = "home" \r', "home"),
        ('name = "home";\r', "home"),
        ('name = " home "', " home "),
        ('name = "a"b"', 'a"b'),
        ('name = "a\\n#b;"', "a\\n#b;"),
        ("name = 'home'", "'home'"),
        ('name = "', '"'),
        ('name = ""', ""),
        ("name =", ""),
        ("name = a = b", "a = b"),
        ("name = a # b", "a # b"),
    ],
)
def test_original_value(tmp_path: Path, line: str, value: str) -> None:
    given, warnings = read_cfg(tmp_path, f"# first\n\n{line}\n")
    assert given == {"name": Given(value, f"{tmp_path}/candy.cfg:3: name")}
    assert warnings == []


def test_original_keys(tmp_path: Path) -> None:
    keys = ["mode", "websocket", "password", "dhcp", "sdwan", "name", "tun"]
    keys += ["stun", "discovery", "route", "port", "localhost", "mtu", "debug"]
    given, warnings = read_cfg(tmp_path, "".join(f"{key} = {key[::-1]}\n" for key in keys))
    assert {key: value.value for key, value in given.items()} == {key: key[::-1] for key in keys}
    assert warnings == []


def test_original_last_one_counts(tmp_path: Path) -> None:
    given, _ = read_cfg(tmp_path, "mtu = 1400\nmtu = 1300")
    assert given == {"mtu": Given("1300", f"{tmp_path}/candy.cfg:2: mtu")}


def test_original_passes_over_what_it_does_not_know(tmp_path: Path) -> None:
    given, warnings = read_cfg(tmp_path, "workers=0\n[client]\n   # name = home\n;\nmtu = 1400\n = 5\n")
    assert list(given) == ["mtu"]
    assert warnings == [
        f"{tmp_path}/candy.cfg:1: workers: passed over: unknown in this kind of file",
        f"{tmp_path}/candy.cfg:2: passed over: not of the form key = value",
        f"{tmp_path}/candy.cfg:6: passed over: not of the form key = value",
    ]


def test_original_password_of_any_bytes(tmp_path: Path) -> None:
    given, _ = read_cfg(tmp_path, b'password = "\xff\xfe"')
    assert given["password"].value.encode("utf-8", "surrogateescape") == b"\xff\xfe"


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """F9: "warning, then a relay with a *new* password"."""
    mark = b"\xef\xbb\xbf"
    given, warnings = read_cfg(tmp_path, mark + b'password = "secret"\r\nname = "x"\r\n')
    assert {key: value.value for key, value in given.items()} == {"password": "secret", "name": "x"}
    assert warnings == []
    written = read_toml(tmp_path, mark + b'password = "secret"\r\ndebug = true\r\n')
    assert written.given == {
        "password": Given("secret", f"{tmp_path}/candy.toml:1: password"),
        "debug": Given(True, f"{tmp_path}/candy.toml:2: debug"),
    }


@pytest.mark.parametrize("name", ["candy.cfg", "candy.toml"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_file_in_utf_16(tmp_path: Path, name: str, encoding: str) -> None:
    """As PowerShell's `>` writes it. Its lines would be passed over, and the relay make itself a password."""
    path = tmp_path / name
    path.write_bytes("\ufeffpassword = 'secret'\r\n".encode(encoding))
    with pytest.raises(ConfigError) as refused:
        read_file(path, "server")
    assert str(refused.value) == f"{path} is UTF-16: save it as UTF-8 text"


@pytest.mark.parametrize(("mode", "exposed"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_files_that_every_user_can_read(tmp_path: Path, mode: int, exposed: bool) -> None:
    path = tmp_path / "password"
    path.touch()
    path.chmod(mode)
    assert is_exposed(path) is exposed
    (tmp_path / "link").symlink_to(path)
    assert is_exposed(tmp_path / "link") is exposed


def test_what_is_no_file_of_the_users() -> None:
    assert not is_exposed(Path("/dev/null"))
    assert not is_exposed(Path("/nowhere"))


def test_original_empty(tmp_path: Path) -> None:
    assert read_cfg(tmp_path, "") == ({}, [])


def test_toml(tmp_path: Path) -> None:
    written = read_toml(tmp_path, '# first\ndhcp = "10.0.0.0/8"\n"auth_timeout" = 3\n\n  debug=true\nworkers = 2\n')
    assert written.networks == []
    assert written.given == {
        "dhcp": Given("10.0.0.0/8", f"{tmp_path}/candy.toml:2: dhcp"),
        "auth_timeout": Given(3, f"{tmp_path}/candy.toml:3: auth_timeout"),
        "debug": Given(True, f"{tmp_path}/candy.toml:5: debug"),
        "workers": Given(2, f"{tmp_path}/candy.toml:6: workers"),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("debug = true\nfoo = 1", ":2: foo: is not a setting of candy-server: see candy-server --help for their names"),
        ("auth-timeout = 1", ":1: auth-timeout: is not a setting of candy-server"),
        ("\n[pool]\nsize = 1", ":2: pool: is not a setting"),
        ("\n\n[[pool]]\nsize = 1", ":3: pool: is not a setting"),
        ("pool.size = 1", ":1: pool: is not a setting"),
        ("\n[network]\ndhcp = ''", ':3: dhcp: is of the wrong type: write a table like [network."/home"] for each'),
        ("\n[[network]]\ndhcp = ''", ":2: network: is of the wrong type: write a table like"),
        ("network = '/home'", ":1: network: is of the wrong type: write a table like"),
        ("[network.'/a']\n\npool = 1", ":3: pool: is not a setting of candy-server"),
        ("[network.'/a']\ndhcp = 1", ":2: dhcp: is of the wrong type: write text in quotes"),
        ("[network.'/a']\nworkers = 1", ":2: workers: is a setting of the whole relay, not of one network: write it"),
        ("[network.'/a'.network.'/b']", ":1: network: is a setting of the whole relay"),
        ("[network.'/a']\nmtu = 1", ":2: mtu: is a setting of candy-client, not of candy-server: remove it"),
        ("[network.'/a']\n[network.'/b']\n[network.'/a']", ":3: not TOML: Cannot declare ('network', '/a') twice"),
        ("routes = 'a,b,c'", ":1: routes: is of the wrong type: write a list like [{ device = …, destination = …, via"),
        ("\nroutes = [\n'a,b,c',\n]", ":2: routes: is of the wrong type: write a list like"),
        ("mtu = 1400", ":1: mtu: is a setting of candy-client, not of candy-server: remove it"),
        ("workers = '2'", ":1: workers: is of the wrong type: write a whole number"),
        ("workers = true", ":1: workers: is of the wrong type: write a whole number"),
        ("workers = 2.0", ":1: workers: is of the wrong type: write a whole number"),
        ("auth_timeout = true", ":1: auth_timeout: is of the wrong type: write a number"),
        ("dhcp = false", ":1: dhcp: is of the wrong type: write text in quotes"),
        ("password = 1234", ":1: password: is of the wrong type: write text in quotes"),
        ("debug = 1", ":1: debug: is of the wrong type: write true or false"),
        ("debug = true\nworkers =\n", ":2: not TOML: Invalid value"),
        ("debug = true\ndebug = true", ":2: not TOML: Cannot overwrite a value"),
        ('dhcp = "10.0.0.0/8\n', ":1: not TOML: Illegal character"),
        ('\n\ndhcp = """10.0.0.0/8\n', ":3: not TOML: Unterminated string"),
        (b"debug = true\ndhcp = '\xff'", ":2: not UTF-8: save the file as UTF-8 text"),
    ],
)
def test_toml_refuses(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_toml(tmp_path, content)
    assert str(refused.value).startswith(f"{tmp_path}/candy.toml{message}")
    assert "\n" not in str(refused.value)


RULE = """{ device = "a", destination = 'b', via = "c" }"""


def test_toml_networks_and_rules(tmp_path: Path) -> None:
    content = f"""dhcp = ""
routes = [      # of /
    {RULE},
    {RULE}, {RULE},
]
[network."/home"]
password = "x"
[network.'/office/eu']
max_members = 5
[[network."/office/eu".routes]]
via = "d"
[[network."/office/eu".routes]]
"""
    written = read_toml(tmp_path, content)
    file = f"{tmp_path}/candy.toml"
    rule = {"device": "a", "destination": "b", "via": "c"}
    assert written.given == {
        "dhcp": Given("", f"{file}:1: dhcp"),
        "routes": Given([Given(rule, f"{file}:{line}: routes") for line in (3, 4, 4)], f"{file}:2: routes"),
    }
    assert written.networks == [
        (Given("/home", f"{file}:6: network"), {"password": Given("x", f"{file}:7: password")}),
        (
            Given("/office/eu", f"{file}:8: network"),
            {
                "max_members": Given(5, f"{file}:9: max_members"),
                "routes": Given(
                    [Given({"via": "d"}, f"{file}:10: routes"), Given({}, f"{file}:12: routes")], f"{file}:10: routes"
                ),
            },
        ),
    ]


def test_networks_are_no_member_s(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text("[network.'/home']")
    with pytest.raises(ConfigError, match=r":1: network: is a setting of candy-server, not of candy-client: remove it"):
        read_file(path, "client")


@pytest.mark.parametrize(("name", "why"), [("missing.toml", "No such file or directory"), (".", "Is a directory")])
def test_file_that_cannot_be_read(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"^cannot read .*: {why}: give -c the path of a readable file$"):
        read_file(tmp_path / name, "server")
