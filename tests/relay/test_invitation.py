"""The line for a member: right for a shell, and with an address at which the relay can be reached."""

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from candy.carrier.pin import shown
from candy.checked import checked
from candy.protocol.link import Link
from candy.relay import invitation
from candy.relay.networksettings import NetworkSettings
from candy.relay.settings import RelaySettings


def line(
    address: str, port: int | None = None, *, generated: bytes | None = b"x", path: str = "/", **relay: Any
) -> str:
    password = b"a user's own" if generated is None else generated
    network = NetworkSettings(path=path, password=password, password_is_generated=generated is not None)
    return invitation.member_line(checked(RelaySettings, {"networks": (network,), **relay}), network, address, port)


@pytest.mark.parametrize("password", [b"simple", b'it\'s "quoted" $HOME `id` \\n', "schlüssel".encode()])
def test_it_is_shell(password: bytes, tmp_path: Path) -> None:
    command = tmp_path / "candy-client"
    command.write_text('#!/bin/sh\nprintf %s "$CANDY_PASSWORD" "$@"\n')
    command.chmod(0o700)
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\nexec env -u CANDY_PASSWORD "$@"\n')
    sudo.chmod(0o700)
    said = subprocess.run(
        ["sh", "-c", line("192.0.2.7", generated=password)],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    assert said.stdout == password + b"-wws://192.0.2.7:26816"


def test_line(tmp_path: Path) -> None:
    assert line("relay") == "sudo env CANDY_PASSWORD='x' candy-client -w ws://relay:26816"
    assert line("fe80::1%eth0") == "sudo env CANDY_PASSWORD='x' candy-client -w ws://[fe80::1%25eth0]:26816"
    assert line("::1", 99) == "sudo env CANDY_PASSWORD='x' candy-client -w ws://[::1]:99"
    assert line("relay", path="/office/eu").endswith(" -w ws://relay:26816/office/eu")
    pem = tmp_path / "file.pem"
    pem.touch()
    assert line("relay", port=443, tls_certificate=pem, tls_key=pem).endswith(" -w wss://relay:443")


def test_pin() -> None:
    """Where TLS ends at the relay itself."""
    network = NetworkSettings(password=b"x", password_is_generated=True)
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "-w wss://relay:26816 --pin sha256/x"),
        ({"public_url": "wss://vpn.example.org"}, "-w wss://vpn.example.org --pin sha256/x"),
        ({"public_url": "ws://vpn.example.org"}, "-w ws://vpn.example.org"),
    )
    for settings, end in cases:
        relay = RelaySettings(networks=(network,), tls_self_signed=True, **settings)
        assert invitation.member_line(relay, network, "relay", pin="sha256/x").endswith(f" candy-client {end}")


def test_a_network_without_a_pool() -> None:
    """Its members bring their addresses."""
    network = NetworkSettings(password=b"x", password_is_generated=True, pool=None)
    relay = RelaySettings(networks=(network,))
    assert invitation.member_line(relay, network, "relay").endswith(" -w ws://relay:26816 -t ADDRESS")


def test_public_url() -> None:
    assert line("127.0.0.1", public_url="wss://vpn.example.org").endswith(" -w wss://vpn.example.org")
    assert line("127.0.0.1", 99, path="/home", public_url="wss://h/vpn/").endswith(" -w wss://h/vpn/home")


def test_a_password_of_the_users_own_is_not_repeated() -> None:
    assert line("relay", generated=None).startswith("sudo env CANDY_PASSWORD='<your password>' candy-client ")


def test_member_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invitation, "default_route_address", lambda: "198.51.100.9")
    assert invitation.member_address("0.0.0.0") == invitation.member_address("::") == "198.51.100.9"
    assert invitation.member_address("127.0.0.1") == "127.0.0.1"


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
    assert invitation.default_route_address() == "127.0.0.1"
    monkeypatch.setattr(socket, "socket", Unrouted)
    assert invitation.default_route_address() is None
    assert invitation.member_address("0.0.0.0") == socket.gethostname()


class RoutedByIpv6(socket.socket):
    def connect(self, address: Any) -> None:
        if self.family == socket.AF_INET:
            raise OSError(101, "Network is unreachable")
        super().connect(("::1", address[1]))


def test_default_route_of_ipv6_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", RoutedByIpv6)
    assert invitation.member_address("::") == "::1"
    # Nobody listens there.
    assert invitation.member_address("0.0.0.0") == socket.gethostname()


def test_a_line_has_the_networks_key_and_the_pin() -> None:
    network = NetworkSettings(password=b"x", password_is_generated=True)
    key, digest = bytes(range(32)), bytes([7]) * 32
    cases: tuple[tuple[dict[str, Any], str, bytes | None], ...] = (
        ({}, "wss://relay:26816", digest),
        ({"public_url": "ws://vpn.example.org"}, "ws://vpn.example.org", None),
    )
    for settings, url, pin in cases:
        relay = RelaySettings(networks=(network,), tls_self_signed=True, **settings)
        said = invitation.member_line(relay, network, "relay", pin=shown(digest), key=key)
        before, _, fragment = said.rstrip("'").partition("#")
        assert before == f"sudo env CANDY_PASSWORD='x' candy-client -w '{url}"
        assert Link.parse(fragment) == Link(key, None, pin)
