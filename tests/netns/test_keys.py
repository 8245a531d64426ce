"""A device from its invitation to its revocation, by the commands that people use, in namespaces of the test's own."""

import subprocess
from pathlib import Path

import pytest
from lab.control import Control
from lab.laboratory import Client, Laboratory
from lab.namespaces import Host
from lab.programs import PATIENCE_S, client, control_of, environment
from lab.traffic import ping

pytestmark = pytest.mark.netns


class Devices:
    """Machines that come to a relay by invitation."""

    def __init__(self, laboratory: Laboratory, relay: Control) -> None:
        self._laboratory = laboratory
        self._relay = relay

    def file(self, host: Host) -> Path:
        """With which a machine starts."""
        return self._laboratory.folder / f"{host.name.replace(' ', '')}.toml"

    def invitation(self, name: str) -> str:
        link = self._relay.ask("POST", "/v1/invitations", {"name": name})["link"]
        assert isinstance(link, str)
        return link

    def join(self, host: Host, link: str) -> subprocess.CompletedProcess[str]:
        argv = client("-c", str(self.file(host)), "join", "-")
        environ = environment(self._laboratory.state(host), None)
        with host:
            return subprocess.run(
                argv, env=environ, input=f"{link}\n", capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )

    def forget(self, host: Host, address: str) -> subprocess.CompletedProcess[str]:
        argv = client("forget", "--control-socket", str(control_of(self._laboratory.state(host))), address)
        return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def start(self, host: Host) -> Client:
        """By the file that joining wrote, and without a password."""
        program = Client(host, self._laboratory.state(host), "-c", str(self.file(host)), "--debug", CANDY_PASSWORD="")
        return self._laboratory.stack.enter_context(program)


def test_from_the_invitation_to_the_revocation(laboratory: Laboratory) -> None:
    """field: one password for all, for ever."""
    relay = laboratory.relay("--admit", "invite", "--no-legacy")
    asked = laboratory.stack.enter_context(Control("relay", relay.control))
    devices = Devices(laboratory, asked)
    hosts = here, there = laboratory.host(), laboratory.host()
    links = [devices.invitation(name) for name in ("laptop", "desk")]
    for host, link in zip(hosts, links, strict=True):
        joined = devices.join(host, link)
        assert (joined.returncode, joined.stderr) == (0, "")
    # Its link is used up, and its secret nowhere on the disk.
    third = laboratory.host()
    again = devices.join(third, links[0])
    assert again.returncode == 1
    assert again.stderr.startswith("candy-client: refused by the relay: ")
    assert not devices.file(third).exists()
    secret = links[0].partition("#")[2]
    assert secret not in devices.file(here).read_text()
    laptop, desk = (devices.start(host) for host in hosts)
    addresses = [laptop.connected(), desk.connected()]
    assert " 0% packet loss" in ping(here, addresses[1])
    listed = {device["name"]: device for device in asked.ask("GET", "/v1/devices")["devices"]}
    with Control("member", control_of(laboratory.state(here))) as member:
        status = member.ask("GET", "/v1/status")
        [peer] = member.ask("GET", "/v1/members")["members"]
    assert (peer["address"], peer["sealing"]) == (addresses[1], "sealed")
    assert peer["key"] == listed["desk"]["fingerprint"]
    assert devices.forget(here, addresses[1]).stderr == (
        f"candy-client: nothing was refused of {addresses[1]}: candy-client members shows who is there\n"
    )
    assert (status["log_in"], status["device_key"]) == ("device", listed["laptop"]["fingerprint"])
    revoked = asked.ask("POST", "/v1/devices/laptop/revoke")
    assert not revoked["password_admits"]
    assert laptop.wait() == 1
    assert "this device was revoked" in laptop.lines[-1]
    assert " 100% packet loss" in ping(there, addresses[0], "-W", "1")
    # Nor does it come back by its credential.
    back = devices.start(here)
    assert back.wait() == 1
    assert "this device was revoked" in back.lines[-1]
