"""SIGHUP at a member that was started with -c: what a new connection applies, and what is left for a restart."""

import signal
from pathlib import Path

import pytest
from lab.laboratory import PORT, Client, Laboratory
from lab.namespaces import Ethernet
from lab.traffic import ping

pytestmark = pytest.mark.netns


def test_settings_are_read_again(laboratory: Laboratory, tmp_path: Path) -> None:
    """field: SIGHUP ended it, as if there were nothing to read."""
    laboratory.relay()
    neighbour = laboratory.client()
    neighbour.connected()
    file, password = tmp_path / "client.toml", tmp_path / "client.password"
    password.write_text("a password\n")
    password.chmod(0o600)
    file.write_text(f'websocket = "{laboratory.url}"\n')
    host = laboratory.host()
    client = Client(host, laboratory.state(host), "-c", str(file), "--password-file", str(password), "--debug")
    laboratory.enter(client)
    client.connected()
    link = host.run("ip", "-o", "link", "show", "candy").split()[0]

    def reread(text: str, expected: str) -> int:
        """The number of the first line about it."""
        file.write_text(text)
        lines = len(client.lines)
        client.signal(signal.SIGHUP)
        client.wait_for(expected, lines)
        return lines

    # Nothing has changed, and the connection stays.
    reread(file.read_text(), "INFO the settings are read again$")
    reread("websocket = 1", rf"ERROR not read again, nothing changes: {file}:1: websocket: is of the wrong type")
    assert " 0% packet loss" in ping(neighbour.host, client.connected())
    assert sum("connected as" in line for line in client.lines) == 1

    own = f'websocket = "{laboratory.url}"\ntun = "192.168.202.9/24"\nmtu = 1200\n'
    lines = reread(own, "WARNING changed, which needs a restart: mtu$")
    client.wait_for("INFO changed: tun$", lines)
    client.wait_for("INFO connecting anew to ws://10.0.0.1:26816/$", lines)
    assert client.connected(lines) == "192.168.202.9"
    assert " 0% packet loss" in ping(neighbour.host, "192.168.202.9")

    # To another relay, with another password. That one does not know the device, so its user has the password count.
    (laboratory.state(host) / "credential" / "__noname__").unlink()
    relay = laboratory.relay("-p", "another password", port=PORT + 1)
    password.write_text("another password\n")
    other = f"ws://{Ethernet.ADDRESS}:{PORT + 1}"
    lines = reread(f'websocket = "{other}"\n', "INFO changed: password, tun, websocket$")
    client.wait_for(f"INFO connecting anew to {other}/$", lines)
    # It asks for the address that it had.
    assert client.connected(lines) == "192.168.202.9"
    relay.wait_for("logged in as 192.168.202.9 ")
    assert host.run("ip", "-o", "link", "show", "candy").split()[0] == link
    client.signal(signal.SIGTERM)
    assert client.wait() == 0
    assert client.lines[-1].endswith("INFO ending")
