"""Packets between members of two relays, as users start them, before a server of NATS."""

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kit.nats import Servers, free_ports
from lab.member import Member, packet
from lab.programs import Program, environment, server


class Linked:
    """Two relays, `eu` and `us`, of one cluster: state folders and configuration files, and those that run."""

    def __init__(self, folder: Path, servers: Servers, stack: ExitStack) -> None:
        self._folder = folder
        self._servers = servers
        self._stack = stack
        # An AUTH of a second in which there was one is a repetition.
        self._stamps = itertools.count(int(time.time()))
        self.ports = dict(zip(("eu", "us"), free_ports(2), strict=True))

    def start(self, name: str) -> Program:
        settings = self._servers.settings(name)
        url = f"ws://127.0.0.1:{self.ports[name]}"
        file = self._folder / f"{name}.toml"
        listed = ", ".join(f'"{each}"' for each in settings.nats)
        file.write_text(
            f'websocket = "{url}"\ndhcp = "10.9.0.0/24"\nno_timestamp = true\npassword = "pw"\nworkers = 2\n'
            f'control_socket = "{self._folder}/{name}.sock"\n[cluster]\nnats = [{listed}]\nname = "{name}"\n'
            f'url = "{url}"\ncredentials = "{settings.credentials}"\nsecret_file = "{settings.secret_file}"\n'
        )
        relay = self._stack.enter_context(
            Program(name, server("-c", str(file)), environment(self._folder / f"state-{name}", None))
        )
        relay.wait_for(r"listening on 127\.0\.0\.1")
        return relay

    def share_the_key(self) -> None:
        """Of the network: from the first relay to the second, before that has started."""
        [key] = (self._folder / "state-eu").glob("keys/*/network.key")
        folder = self._folder / "state-us" / "keys" / key.parent.name
        for made in (folder.parent.parent, folder.parent, folder):
            made.mkdir(mode=0o700)
        (folder / "network.key").write_bytes(key.read_bytes())
        (folder / "network.key").chmod(0o600)

    def status(self, name: str) -> Any:
        argv = server("status", "--json", "--control-socket", f"{self._folder}/{name}.sock")
        done = subprocess.run(
            argv, capture_output=True, text=True, check=True, env=environment(self._folder / f"state-{name}", None)
        )
        return json.loads(done.stdout)["cluster"]

    def member(self, relay: Program, vmac: bytes) -> tuple[Member, str]:
        """One that has logged in, and its address."""
        member = Member.connect(("127.0.0.1", self.ports[relay.name]), vmac=vmac, password="pw")
        self._stack.enter_context(member)
        seen = len(relay.lines)
        member.send(member.greeting())
        ip = str(member.ask().ip)
        member.send(member.auth(ip, next(self._stamps)))
        relay.wait_for(f"logged in as {ip}", after=seen)
        return member, ip

    def known(self, name: str, other: str, count: int) -> None:
        """So many members of another relay are known at one."""
        for _ in range(50):
            if self.status(name)["relays"].get(other) == count:
                return
        pytest.fail(f"{name} does not know {count} members of {other}: {self.status(name)}")


@pytest.fixture
def linked(tmp_path: Path, one_server: Servers) -> Iterator[Linked]:
    with ExitStack() as stack:
        yield Linked(tmp_path, one_server, stack)


def test_members_of_two_relays_reach_each_other(linked: Linked) -> None:
    eu = linked.start("eu")
    linked.share_the_key()
    us = linked.start("us")
    # The one whose name is higher dials.
    us.wait_for("cluster: linked with the relay eu")
    eu.wait_for("cluster: linked with the relay us")
    (one, here), (other, there) = linked.member(eu, b"1" * 16), linked.member(us, b"2" * 16)
    linked.known("eu", "us", 1)
    linked.known("us", "eu", 1)
    one.forward(packet(here, there, b"to the other relay"))
    assert other.receive_packet() == packet(here, there, b"to the other relay")
    other.forward(packet(there, here, b"and back"))
    assert one.receive_packet() == packet(there, here, b"and back")
    one.forward(packet(here, "255.255.255.255", b"to all"))
    assert other.receive_packet() == packet(here, "255.255.255.255", b"to all")
    # A member that moves is reached where it is, by those of the relay that it has left.
    moved, same = linked.member(eu, b"2" * 16)
    assert same == there
    one.forward(packet(here, there, b"here now"))
    assert moved.receive_packet() == packet(here, there, b"here now")
    us.wait_for(f"{there} was taken over at another relay")
    back, same = linked.member(us, b"2" * 16)
    assert same == there
    eu.wait_for(f"{there} was taken over at another relay")
    linked.known("us", "eu", 1)
    back.forward(packet(there, here, b"there again"))
    assert one.receive_packet() == packet(there, here, b"there again")
    one.forward(packet(here, there, b"so I see"))
    assert back.receive_packet() == packet(here, there, b"so I see")
    # One that is killed is noticed by its links at once, and a new one is dialed again.
    os.kill(us.pid, signal.SIGKILL)
    eu.wait_for("cluster: no link with the relay us any more")
    eu.wait_for("cluster: the relay us is gone")
    seen = len(eu.lines)
    us = linked.start("us")
    eu.wait_for("cluster: linked with the relay us", after=seen)
    again, same = linked.member(us, b"2" * 16)
    assert same == there
    linked.known("eu", "us", 1)
    linked.known("us", "eu", 1)
    one.forward(packet(here, there, b"as before"))
    assert again.receive_packet() == packet(here, there, b"as before")
    for relay in (eu, us):
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0
