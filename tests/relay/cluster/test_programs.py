"""Two relays as users start them, before three servers of NATS."""

import itertools
import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from kit.nats import Servers
from lab.member import Member
from lab.programs import Program, environment, server

VMAC = b"0123456789abcdef"
STAMPS = itertools.count(int(time.time()))
"""Of AUTHs: another one of the same second is a repetition."""


class Relays:
    """Configuration files and state folders of relays, and those that run."""

    def __init__(self, folder: Path, servers: Servers, stack: ExitStack) -> None:
        self._folder = folder
        self._servers = servers
        self._stack = stack

    def state(self, name: str) -> Path:
        return self._folder / f"state-{name}"

    def program(self, name: str, pool: str = "10.9.0.0/24") -> Program:
        settings = self._servers.settings(name)
        file = self._folder / f"{name}.toml"
        listed = ", ".join(f'"{url}"' for url in settings.nats)
        file.write_text(
            f'websocket = "ws://127.0.0.1:0"\ndhcp = "{pool}"\nno_timestamp = true\npassword = "pw"\n'
            f'control_socket = "{self._folder}/{name}.sock"\n[cluster]\nnats = [{listed}]\nname = "{name}"\n'
            f'url = "ws://{name}"\ncredentials = "{settings.credentials}"\nreplicas = 3\n'
            f'secret_file = "{settings.secret_file}"\n'
        )
        argv = server("-c", str(file))
        return self._stack.enter_context(Program(name, argv, environment(self.state(name), None)))

    def listening(self, name: str) -> tuple[Program, tuple[str, int]]:
        relay = self.program(name)
        return relay, ("127.0.0.1", int(relay.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1]))

    def status(self, name: str) -> Any:
        argv = server("status", "--json", "--control-socket", f"{self._folder}/{name}.sock")
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment(self.state(name), None))
        return json.loads(done.stdout)["cluster"]


@pytest.fixture
def relays(tmp_path: Path, servers: Servers) -> Iterator[Relays]:
    with ExitStack() as stack:
        yield Relays(tmp_path, servers, stack)


def logged_in(relay: Program, address: tuple[str, int]) -> tuple[Member, str]:
    """One that has the same VMAC each time, and the address that it got."""
    member = Member.connect(address, vmac=VMAC, password="pw")
    member.send(member.greeting())
    ip = str(member.ask().ip)
    member.send(member.auth(ip, next(STAMPS)))
    relay.wait_for(f"logged in as {ip}")
    member.ip = IPv4Address(ip)
    return member, ip


def test_two_relays_are_one(relays: Relays, servers: Servers) -> None:
    eu, at_eu = relays.listening("eu")
    refused = relays.program("us")
    said = r"cluster: network /: the network's key is another one at eu: copy its network\.key of the network's folder"
    refused.wait_for(said)
    assert refused.wait() == 1
    # As docs/cluster.md says.
    [key] = relays.state("eu").glob("keys/*/network.key")
    [folder] = relays.state("us").glob("keys/*")
    for file in folder.iterdir():
        file.unlink()
    (folder / "network.key").write_bytes(key.read_bytes())
    (folder / "network.key").chmod(0o600)
    us, at_us = relays.listening("us")
    eu.wait_for("cluster: the relay us is there")
    first, ip = logged_in(eu, at_eu)
    with first:
        # Its lease is a lease there as well.
        second, same = logged_in(us, at_us)
        assert same == ip
        # It is sent away where it was.
        assert first.end() is not None
    with second:
        status = relays.status("us")
        assert (status["name"], status["nats"], status["relays"]) == ("us", True, {"eu": 0})
        servers.kill()
        us.wait_for("WARNING cluster: NATS is away: members stay, known devices log in, new ones have to wait")
        assert relays.status("us")["nats"] is False
        with urllib.request.urlopen(f"http://127.0.0.1:{at_us[1]}/healthz") as answer:
            assert answer.status == 200
        # It is still in.
        second.settle()
    for relay in (eu, us):
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0
