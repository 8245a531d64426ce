"""A relay's settings change while members exchange packets over their interfaces: `ping` loses none."""

import signal
import subprocess

import pytest
from lab.laboratory import Laboratory

pytestmark = pytest.mark.netns

NEW, OLD = "the new one", "the old one"
FILE = 'dhcp = "192.168.202.0/24"\n'


def test_a_password_is_replaced_without_an_hour_zero(laboratory: Laboratory) -> None:
    """Two hold at a time. When the old one is taken away the old member that still has it goes, and those with the new
    one lose nothing; nor by a network that comes and goes."""
    file = laboratory.folder / "server.toml"
    only_new = f'passwords = [{{ name = "new", password = "{NEW}" }}]\n'
    file.write_text(only_new.replace("]", f', {{ name = "old", password = "{OLD}" }}]') + FILE)
    relay = laboratory.relay("-c", str(file))
    here, there, device = (laboratory.client(CANDY_PASSWORD=password) for password in (NEW, NEW, OLD))
    old = laboratory.client("--no-extension", CANDY_PASSWORD=OLD)
    addresses = [client.connected() for client in (here, there, device, old)]
    for address in addresses[2:]:
        relay.wait_for(f"logged in as {address} by the password old")
    with here.host:
        arguments = ["ping", "-i", "0.02", "-c", "150", "-W", "10", addresses[1]]
        pinging = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    with pinging:
        assert pinging.stdout is not None
        while " bytes from " not in pinging.stdout.readline():
            assert pinging.poll() is None
        for more in ('[network."/lab"]\npassword = "x"\n', ""):
            start = len(relay.lines)
            file.write_text(only_new + FILE + more)
            relay.signal(signal.SIGHUP)
            relay.wait_for("INFO changed: ", start)
        relay.wait_for("closed who came by another one: 1$")
        relay.wait_for("refused: wrong password")
        assert " 0% packet loss" in pinging.stdout.read()
    # A device with a key has a credential of its own by then.
    assert not any("trying again" in line for client in (here, there, device) for line in client.lines)
