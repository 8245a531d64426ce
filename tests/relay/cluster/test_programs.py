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
_seconds = itertools.count()


class Relays:
    """Configuration files and state folders of relays, and those that run."""

    def __init__(self, folder: Path, servers: Servers, stack: ExitStack) -> None:
        self._folder = folder
        self._servers = servers
        self._stack = stack

    def state(self, name: str) -> Path:
        return self._folder / f"state-{name}"

    def program(self, name: str, pool: str = "10.9.0.0/24") -> Program:
        self.configure(name, pool)
        argv = server("-c", str(self._folder / f"{name}.toml"))
        return self._stack.enter_context(Program(name, argv, environment(self.state(name), None)))

    def configure(self, name: str, pool: str = "10.9.0.0/24", more: str = "") -> None:
        """Its configuration file; `more` goes to its end."""
        settings = self._servers.settings(name)
        listed = ", ".join(f'"{url}"' for url in settings.nats)
        for file in (settings.credentials, settings.secret_file):
            assert file is not None
            file.chmod(0o600)
        (self._folder / f"{name}.toml").write_text(
            f'websocket = "ws://127.0.0.1:0"\ndhcp = "{pool}"\nno_timestamp = true\npassword = "pw"\n'
            f'control_socket = "{self._folder}/{name}.sock"\n[cluster]\nnats = [{listed}]\nname = "{name}"\n'
            f'url = "ws://{name}"\ncredentials = "{settings.credentials}"\nreplicas = 3\n'
            f'secret_file = "{settings.secret_file}"\n{more}'
        )

    def listening(self, name: str) -> tuple[Program, tuple[str, int]]:
        relay = self.program(name)
        return relay, ("127.0.0.1", int(relay.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1]))

    def done(self, name: str, *command: str) -> "subprocess.CompletedProcess[str]":
        """A command to a relay."""
        argv = server(*command, "--control-socket", f"{self._folder}/{name}.sock")
        return subprocess.run(argv, capture_output=True, text=True, env=environment(self.state(name), None))

    def ask(self, name: str, *command: str) -> Any:
        """The answer to one, which it takes."""
        done = self.done(name, *command, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def status(self, name: str) -> Any:
        return self.ask(name, "status")["cluster"]

    def two(self) -> list[tuple[Program, tuple[str, int]]]:
        """Two of them, the second with the first one's key, as docs/cluster.md says."""
        first = self.listening("eu")
        [key] = self.state("eu").glob("keys/*/network.key")
        folder = self.state("us") / "keys" / key.parent.name
        folder.mkdir(mode=0o700, parents=True)
        (folder / "network.key").write_bytes(key.read_bytes())
        (folder / "network.key").chmod(0o600)
        second = self.listening("us")
        first[0].wait_for("cluster: the relay us is there")
        return [first, second]


@pytest.fixture
def relays(tmp_path: Path, servers: Servers) -> Iterator[Relays]:
    with ExitStack() as stack:
        yield Relays(tmp_path, servers, stack)


def logged_in(relay: Program, address: tuple[str, int]) -> tuple[Member, str]:
    """One that has the same VMAC each time, and the address that it got. Each comes at another second: an AUTH for one
    address is a replay within one."""
    timestamp = int(time.time()) + next(_seconds)
    member = Member.connect(address, vmac=VMAC, password="pw")
    member.send(member.greeting())
    ip = str(member.ask().ip)
    member.send(member.auth(ip, timestamp))
    relay.wait_for(f"logged in as {ip}")
    member.ip = IPv4Address(ip)
    return member, ip


def test_two_relays_are_one(relays: Relays, servers: Servers) -> None:
    [(eu, at_eu), (us, at_us)] = relays.two()
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


def test_another_key(relays: Relays) -> None:
    relays.listening("eu")
    refused = relays.program("us")
    refused.wait_for(
        r"cluster: network /: the network's key is another one at eu: copy its network\.key of the network's folder"
    )
    assert refused.wait() == 1


def test_operators_ask_any_relay(relays: Relays, servers: Servers) -> None:
    [(eu, at_eu), (us, _)] = relays.two()
    member, ip = logged_in(eu, at_eu)
    with member:
        answer = relays.ask("us", "members")
        assert [(each["address"], each["relay"]) for each in answer["members"]] == [(ip, "eu")]
        assert answer["unreached"] == []
        shown = relays.done("us", "members").stdout
        assert "RELAY" in shown
        assert relays.ask("us", "member", ip)["relay"] == "eu"
        assert relays.ask("us", "kick", ip) == {"network": "/", "address": ip, "relay": "eu"}
        assert member.end() is not None
    eu.wait_for(f"{ip} logged out")
    # What is reserved at one is at the other, and a member in the way leaves.
    member, ip = logged_in(eu, at_eu)
    with member:
        relays.ask("us", "reserve", ip, "printer")
        assert member.end() is not None
    metrics = relays.done("us", "status", "--json")
    assert json.loads(metrics.stdout)["cluster"]["relays"] == {"eu": 0}
    # A network that a reload adds has to be the others', too.
    for name, relay in (("eu", eu), ("us", us)):
        relays.configure(name, more='[network."/home"]\npassword = "pw"\ndhcp = "10.10.0.0/24"\n')
        relay.signal(signal.SIGHUP)
        relay.wait_for(r"network /home: |network /home is not served: ")
    said = "network /home is not served: cluster: network /home: the network's key is another one at eu"
    assert us.wait_for(r"network /home is not served: .*")[0].startswith(said)
    assert len(relays.ask("eu", "networks")["networks"]) == 2
    # NATS away: what can't be reached is named.
    servers.kill()
    us.wait_for("NATS is away")
    assert relays.ask("us", "members")["unreached"] == ["eu"]
    assert "without the members of eu: not reached" in relays.done("us", "members").stderr
    refused = relays.done("us", "kick", ip)
    assert refused.returncode == 1
    assert "and the relays eu were not reached" in refused.stderr
    for relay in (eu, us):
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0
