"""Settings: defaults, what every wrong value is answered with, and the line for a member."""

import os
import socket
import subprocess
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pydantic
import pytest

from candy import config
from candy.config import ClientSettings, Given, ServerSettings, client_settings, server_settings
from candy.errors import ConfigError


def on_line(**values: Any) -> dict[str, Given]:
    return {key: Given(value, f"--{key}") for key, value in values.items()}


def server(**values: Any) -> ServerSettings:
    return server_settings(on_line(**values), password=b"secret")


def client(**values: Any) -> ClientSettings:
    return client_settings(on_line(**{"websocket": "ws://relay:26816"} | values), password=b"secret")


@pytest.fixture
def pem(tmp_path: Path) -> str:
    path = tmp_path / "file.pem"
    path.touch()
    return str(path)


def test_server_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDY_STATE_DIR", "/somewhere")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert server().model_dump() == {
        "password": b"secret",
        "state_dir": Path("/somewhere"),
        "debug": False,
        "timestamps": True,
        "pool": IPv4Network("192.168.202.0/24"),
        "allow_outside_pool": False,
        "password_is_generated": False,
        "host": "0.0.0.0",
        "port": 26816,
        "tls_certificate": None,
        "tls_key": None,
        "auth_timeout": 10.0,
        "clock_tolerance": 300,
        "unauthenticated_per_source": 64,
        "failures_per_minute": 60,
        "workers": 7,
        "queue_bytes": 4 * 1024 * 1024,
        "max_connections": 65536,
    }


def test_client_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDY_STATE_DIR", "/somewhere")
    assert client().model_dump() == {
        "password": b"secret",
        "state_dir": Path("/somewhere"),
        "debug": False,
        "timestamps": True,
        "url": "ws://relay:26816/",
        "name": None,
        "tun": None,
        "mtu": 1400,
        "extension": True,
        "offload": True,
        "insecure": False,
        "ca_file": None,
        "stun": None,
        "port": 0,
        "localhost": None,
        "discovery": 0,
        "route": 0,
    }


def test_one_core_has_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert server().workers == 1


@pytest.mark.parametrize("settings", [server(), client()])
def test_settings_are_immutable(settings: ServerSettings | ClientSettings) -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.debug = True  # type: ignore[misc]


@pytest.mark.parametrize("settings", [server(), client()])
def test_password_is_in_no_repr(settings: ServerSettings | ClientSettings) -> None:
    assert settings.password == b"secret"
    assert "secret" not in f"{settings} {settings!r}"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("ws://0.0.0.0:26816", "0.0.0.0", 26816),
        ("ws://127.0.0.1:0/any/path", "127.0.0.1", 0),
        ("ws://relay.example.org", "relay.example.org", 80),
        ("ws://[::1]:8080/", "::1", 8080),
    ],
)
def test_server_listens(url: str, host: str, port: int) -> None:
    settings = server(websocket=url)
    assert (settings.host, settings.port, settings.tls_certificate) == (host, port, None)


def test_server_with_tls(pem: str) -> None:
    settings = server(websocket="wss://0.0.0.0", tls_certificate=pem, tls_key=pem)
    assert (settings.port, settings.tls_certificate, settings.tls_key) == (443, Path(pem), Path(pem))
    assert server(tls_certificate=pem, tls_key=pem).port == 26816


@pytest.mark.parametrize(
    ("written", "pool"),
    [
        ("192.168.202.0/24", "192.168.202.0/24"),
        ("192.168.202.17/24", "192.168.202.0/24"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/255.255.255.252", "10.0.0.0/30"),
    ],
)
def test_pool(written: str, pool: str) -> None:
    assert server(dhcp=written).pool == IPv4Network(pool)


def test_no_pool() -> None:
    assert server(dhcp="").pool is None


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("ws://relay", "ws://relay/"),
        ("wss://relay.example.org", "wss://relay.example.org/"),
        ("ws://127.0.0.1:26816/office/eu", "ws://127.0.0.1:26816/office/eu"),
        ("wss://relay:1/?a=b", "wss://relay:1/?a=b"),
        ("ws://[::1]:26816", "ws://[::1]:26816/"),
    ],
)
def test_client_url(written: str, url: str) -> None:
    assert client(websocket=written).url == url


def test_client_values_as_text(pem: str) -> None:
    settings = client(
        name="home",
        tun="192.168.202.5/24",
        mtu="1479",
        ca_file=pem,
        stun="stun://stun.example.org:3478",
        port="26817",
        localhost="192.168.1.5",
        discovery="300",
        route="5",
        debug="true",
    )
    assert settings.tun == IPv4Interface("192.168.202.5/24")
    assert settings.localhost == IPv4Address("192.168.1.5")
    assert (settings.mtu, settings.port, settings.discovery, settings.route) == (1479, 26817, 300, 5)
    assert (settings.ca_file, settings.debug) == (Path(pem), True)


@pytest.mark.parametrize("key", ["name", "tun", "stun", "localhost"])
def test_empty_text_is_nothing(key: str) -> None:
    assert getattr(client(**{key: ""}), key) is None


@pytest.mark.parametrize(
    ("name", "interface"), [(None, "candy"), ("home", "candy-home"), ("123456789", "candy-123456789")]
)
def test_interface(name: str | None, interface: str) -> None:
    assert client(**({"name": name} if name else {})).interface == interface


URL = "write it like ws://host:26816 or wss://host"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("websocket", "", f"'' is no WebSocket URL: {URL}"),
        ("websocket", "0.0.0.0:26816", f"'0.0.0.0:26816' is no WebSocket URL: {URL}"),
        ("websocket", "http://0.0.0.0", f"'http://0.0.0.0' is no WebSocket URL: {URL}"),
        ("websocket", "ws://:26816", f"'ws://:26816' is no WebSocket URL: {URL}"),
        ("websocket", "ws://0.0.0.0:65536", "'ws://0.0.0.0:65536' is no URL (Port out of range 0-65535)"),
        ("websocket", "ws://0.0.0.0:http", "'ws://0.0.0.0:http' is no URL ("),
        ("websocket", "ws://[::1", "'ws://[::1' is no URL (Invalid IPv6 URL)"),
        ("websocket", "wss://0.0.0.0", "'wss://0.0.0.0' needs --tls-certificate and --tls-key, or write ws://"),
        ("dhcp", "192.168.202.0", "'192.168.202.0' is no size for a pool: use a /8 to a /30"),
        ("dhcp", "192.168.202.0/31", "'192.168.202.0/31' is no size for a pool"),
        ("dhcp", "0.0.0.0/0", "'0.0.0.0/0' is no size for a pool"),
        ("dhcp", "192.168.202.0/33", "is no IPv4 network: write it like 192.168.202.0/24"),
        ("dhcp", "fd00::/64", "is no IPv4 network"),
        ("tls_certificate", "/nowhere.pem", "'/nowhere.pem' is no file: give the path of one that exists"),
        ("auth_timeout", "0", "'0' is too small: it must be more than 0"),
        ("auth_timeout", "nan", "'nan' is no number"),
        ("auth_timeout", "soon", "'soon' is no number"),
        ("auth_timeout", "3601", "'3601' is too large: use 3600"),
        ("clock_tolerance", "-1", "'-1' is too small: use 1 or more"),
        ("unauthenticated_per_source", "0", "'0' is too small: use 1 or more"),
        ("failures_per_minute", "many", "'many' is no whole number"),
        ("workers", "65", "'65' is too large: use 64 or less"),
        ("queue_bytes", "1500", "'1500' is too small: use 131072 or more"),
        ("max_connections", "9" * 5000, "is too large"),
    ],
)
def test_server_refuses(key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        server(**{key: value})
    assert str(refused.value).startswith(f"--{key}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("websocket", "relay.example.org", f"'relay.example.org' is no WebSocket URL: {URL}"),
        ("websocket", "ws://relay:0", "'ws://relay:0' has port 0: give the port that the relay listens on"),
        ("websocket", "ws://re lay", f"'ws://re lay' is no URL: {URL}"),
        ("websocket", "ws://relay\n", f"'ws://relay\\n' is no URL: {URL}"),
        ("name", "1234567890", "'1234567890' is too long: candy-NAME may have 15 letters, so NAME 9"),
        ("name", "a/b", "'a/b' is no name for an interface: use letters and digits"),
        ("name", "..", "'..' is no name for an interface"),
        ("name", "%d", "'%d' is no name for an interface"),
        ("tun", "192.168.202.5", "'192.168.202.5' has no prefix length: write it like 192.168.202.5/24"),
        ("tun", "192.168.202.5/33", "is no address with prefix length: write it like 192.168.202.5/24"),
        ("tun", "192.168.202.256/24", "is no address with prefix length"),
        ("tun", "192.168.202.0/24", "broadcast address: choose another in 192.168.202.0/24"),
        ("tun", "192.168.202.255/24", "broadcast address: choose another in 192.168.202.0/24"),
        ("tun", "0.0.0.0/0", "is no address for a member"),
        ("tun", "127.0.0.1/8", "is no address for a member"),
        ("tun", "224.0.0.1/24", "is no address for a member"),
        ("mtu", "575", "'575' is too small: use 576 or more"),
        ("mtu", "1480", "'1480' is too large: use 1479 or less"),
        ("mtu", "", "'' is no whole number"),
        ("ca_file", "/", "'/' is no file: give the path of one that exists"),
        ("stun", "stun.example.org", "is no STUN server: write it like stun://stun.example.org"),
        ("port", "65536", "'65536' is too large: use 65535 or less"),
        ("localhost", "::1", "'::1' is no IPv4 address: write it like 192.168.1.5"),
        ("discovery", "-1", "'-1' is too small: use 0 or more"),
        ("route", "1001", "'1001' is too large: use 1000 or less"),
        ("debug", "perhaps", "'perhaps' is neither true nor false"),
    ],
)
def test_client_refuses(key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        client(**{key: value})
    assert str(refused.value).startswith(f"--{key}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("given", [{}, {"websocket": Given("", "candy.cfg:3: websocket")}])
def test_client_needs_a_relay(given: dict[str, Given]) -> None:
    with pytest.raises(ConfigError, match=r"^no relay given: add -w ws"):
        client_settings(given, password=b"secret")


def test_certificate_and_key_need_each_other(pem: str) -> None:
    for half in ("tls_certificate", "tls_key"):
        with pytest.raises(ConfigError, match=r"^--tls-certificate and --tls-key need each other: give"):
            server(**{half: pem})


def test_certificate_and_ws_contradict_each_other(pem: str) -> None:
    with pytest.raises(ConfigError, match=r"is without TLS, but a certificate is given: write wss://"):
        server(websocket="ws://0.0.0.0", tls_certificate=pem, tls_key=pem)


@pytest.mark.parametrize("password", [b"simple", b'it\'s "quoted" $HOME `id` \\n', "schlüssel".encode()])
def test_member_line_is_shell(password: bytes, tmp_path: Path) -> None:
    line = config.member_line(ServerSettings(password=password, password_is_generated=True), "192.0.2.7")
    command = tmp_path / "candy-client"
    command.write_text('#!/bin/sh\nprintf %s "$CANDY_PASSWORD" "$@"\n')
    command.chmod(0o700)
    said = subprocess.run(
        ["sh", "-c", line], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, check=True
    )
    assert said.stdout == password + b"-wws://192.0.2.7:26816"


def test_member_line(pem: str) -> None:
    generated = ServerSettings(password=b"x", password_is_generated=True)
    assert config.member_line(generated, "relay") == "CANDY_PASSWORD='x' candy-client -w ws://relay:26816"
    assert config.member_line(generated, "::1", 99) == "CANDY_PASSWORD='x' candy-client -w ws://[::1]:99"
    secure = server(websocket="wss://0.0.0.0", tls_certificate=pem, tls_key=pem)
    assert config.member_line(secure, "relay").endswith("-w wss://relay:443")


def test_member_line_keeps_a_password_of_the_users_own() -> None:
    assert config.member_line(server(), "relay").startswith("CANDY_PASSWORD='<your password>' candy-client ")


def test_member_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "default_route_address", lambda: "198.51.100.9")
    assert config.member_address("0.0.0.0") == config.member_address("::") == "198.51.100.9"
    assert config.member_address("127.0.0.1") == "127.0.0.1"


class Unrouted(socket.socket):
    def connect(self, address: Any) -> None:
        raise OSError(101, "Network is unreachable")


class Routed(socket.socket):
    def connect(self, address: Any) -> None:
        assert self.type == socket.SOCK_DGRAM
        # Loopback is the one route that every machine has.
        super().connect(("127.0.0.1", address[1]))


def test_default_route_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", Routed)
    assert config.default_route_address() == "127.0.0.1"
    monkeypatch.setattr(socket, "socket", Unrouted)
    assert config.default_route_address() is None
    assert config.member_address("0.0.0.0") == socket.gethostname()
