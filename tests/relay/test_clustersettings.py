"""The table [cluster]: what it needs, and the one line that each mistake costs."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from lab.commands import Ran, refuse, serve

from candy.cli import server as server_command
from candy.options import CLUSTER_OPTIONS
from candy.relay.clustersettings import ClusterSettings

Write = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("state", "log_level")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a configuration file with such a table, whose keys may be given anew, or as None be left out."""
    secret = tmp_path / "secret"
    secret.write_text("x" * 32)
    secret.chmod(0o600)

    def write(head: str = 'password = "pw"\ndhcp = ""', **changed: str | None) -> Path:
        keys: dict[str, str | None] = {
            "nats": '["nats://127.0.0.1:4222"]',
            "name": '"eu"',
            "url": '"wss://eu.example.org/"',
            "secret_file": f'"{secret}"',
        }
        lines = [f"{key} = {value}" for key, value in (keys | changed).items() if value is not None]
        file = tmp_path / "server.toml"
        file.write_text("\n".join([head, "[cluster]", *lines]))
        file.chmod(0o600)
        return file

    return write


def test_a_table(ran: Ran, write: Write) -> None:
    cluster = serve(ran, "-c", str(write()))[0].cluster
    assert cluster is not None
    assert (cluster.nats, cluster.name, cluster.url) == (("nats://127.0.0.1:4222",), "eu", "wss://eu.example.org")
    assert (cluster.replicas, cluster.credentials, cluster.ca_file) == (1, None, None)
    assert cluster.secret_file.read_text() == "x" * 32


def test_one_server_needs_no_list(ran: Ran, write: Write) -> None:
    cluster = serve(ran, "-c", str(write(nats='"tls://nats.example.org"', replicas="3")))[0].cluster
    assert cluster is not None
    assert (cluster.nats, cluster.replicas) == (("tls://nats.example.org",), 3)


def test_without_it_a_relay_is_alone(ran: Ran) -> None:
    assert serve(ran)[0].cluster is None


@pytest.mark.parametrize(
    ("changed", "line", "said"),
    [
        ({"nats": None}, 3, "cluster: has no nats: servers of NATS, like nats://10.0.0.5:4222"),
        ({"nats": "[]"}, 3, "cluster: has no nats: "),
        ({"secret_file": None}, 3, "cluster: has no secret_file: the relays' secret, at least 32 bytes"),
        ({"name": None}, 3, "cluster: has no name: "),
        ({"url": None}, 3, "cluster: has no url: "),
        ({"nats": '"http://x"'}, 4, "nats: 'http://x' is not the URL of a server of NATS: write it like nats://"),
        ({"nats": '["nats://x:99999"]'}, 4, "nats: 'nats://x:99999' is not the URL of a server of NATS"),
        ({"nats": '"nats://u:p@x"'}, 4, "nats: 'nats://…@x' has a user in it: write user:password into a file"),
        ({"name": '"e.u"'}, 5, "name: 'e.u' is not a name for a relay: use up to 32 letters, digits, - and _"),
        ({"url": '"wss://x/home"'}, 6, "url: 'wss://x/home' is more than scheme, host and port: write it like"),
        ({"url": '"https://x"'}, 6, "url: 'https://x' is not a WebSocket URL"),
        ({"secret_file": '"/nowhere"'}, 7, "secret_file: '/nowhere' is not a file: give the path of one that exists"),
        ({"replicas": "0"}, 8, "replicas: 0 is too small: use 1 or more"),
        ({"replicas": "6"}, 8, "replicas: 6 is too large: use 5 or less"),
        ({"replicas": '"3"'}, 8, "replicas: is of the wrong type: write a whole number"),
        ({"dhcp": '""'}, 8, "dhcp: is not a setting of a cluster: write nats, credentials, ca_file, name, url, "),
    ],
)
def test_tables_that_cannot_be(write: Write, changed: dict[str, Any], line: int, said: str) -> None:
    file = write(**changed)
    assert f"{file}:{line}: {said}" in refuse(server_command.main, "-c", str(file))


def test_a_password_that_each_relay_would_make_for_itself(write: Write) -> None:
    file = write(head='\ndhcp = ""')
    said = refuse(server_command.main, "-c", str(file))
    assert f"{file}:3: cluster: needs a password for the network /, the same at all relays" in said


def test_it_is_a_table(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('cluster = "x"')
    said = refuse(server_command.main, "-c", str(file))
    assert f"{file}:1: cluster: is of the wrong type: write a table like [cluster]" in said


def test_a_secret_that_every_user_can_read(ran: Ran, write: Write) -> None:
    file = write()
    secret = file.with_name("secret")
    secret.chmod(0o644)
    warning = f"candy-server: warning: {file}:7: secret_file: every user of this machine can read {secret}: chmod 600"
    assert warning in serve(ran, "-c", str(file))[1]


def test_each_option_decides_a_setting_with_its_default() -> None:
    known = {each.name: each for each in fields(ClusterSettings)}
    assert {option.key for option in CLUSTER_OPTIONS} == known.keys()
    for option in CLUSTER_OPTIONS:
        if option.default is not None:
            assert known[option.key].default == option.default
