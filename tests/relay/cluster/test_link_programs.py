"""Packets between members of two relays, as users start them, before a server of NATS."""

import itertools
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from kit.nats import Servers, free_ports
from lab.member import Member, everything, packet, upgrade_request
from lab.programs import PATIENCE_S, Program, connect, environment, server
from lab.tls import written


class Linked:
    """Two relays, `eu` and `us`, of one cluster: state folders and configuration files, and those that run."""

    def __init__(self, folder: Path, servers: Servers, stack: ExitStack) -> None:
        self._folder = folder
        self._servers = servers
        self._stack = stack
        # An AUTH of a second in which there was one is a repetition.
        self._stamps = itertools.count(int(time.time()))
        self.ports = dict(zip(("eu", "us"), free_ports(2), strict=True))

    def start(self, name: str, more: str = "", *, cluster: str = "", url: str = "") -> Program:
        """
        Args:
            more, cluster: further lines of its file, and of the table in there.
            url: by which the other one reaches it, if that is another one than where it listens.
        """
        settings = self._servers.settings(name)
        where = f"{'wss' if 'tls_' in more else 'ws'}://127.0.0.1:{self.ports[name]}"
        url = url or where
        file = self._folder / f"{name}.toml"
        listed = ", ".join(f'"{each}"' for each in settings.nats)
        file.write_text(
            f'websocket = "{where}"\n{more}dhcp = "10.9.0.0/24"\nno_timestamp = true\npassword = "pw"\nworkers = 2\n'
            f'control_socket = "{self._folder}/{name}.sock"\n[cluster]\nnats = [{listed}]\nname = "{name}"\n'
            f'url = "{url}"\n{cluster}credentials = "{settings.credentials}"\nsecret_file = "{settings.secret_file}"\n'
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


def test_a_link_that_is_silent_ends_soon(linked: Linked) -> None:
    """Long before a member would be given up. When there is an answer again, there are links again."""
    eu = linked.start("eu")
    linked.share_the_key()
    us = linked.start("us")
    eu.wait_for("cluster: linked with the relay us")
    us.wait_for("cluster: linked with the relay eu")
    # It says nothing from here on, either.
    linked.member(eu, b"1" * 16)
    us.signal(signal.SIGSTOP)
    eu.wait_for(r"cluster: no link with the relay us any more \(silent\)")
    assert not any("nothing came from it any more" in line for line in eu.lines)
    seen = len(eu.lines)
    us.signal(signal.SIGCONT)
    eu.wait_for("cluster: linked with the relay us", after=seen)


def test_strangers_at_the_door_of_links_count_as_others_do(linked: Linked) -> None:
    """By their source, until they have proven that they are relays; and so do the lines about them."""
    flags = 'trusted_proxy = ["127.0.0.0/8"]\nunauthenticated_per_source = 2\ndebug = true\n'
    eu = linked.start("eu", flags)
    with ExitStack() as stack:

        def dial(source: str) -> Any:
            opened = stack.enter_context(connect(("127.0.0.1", linked.ports["eu"])))
            opened.sendall(upgrade_request("Sec-WebSocket-Protocol: candy.relay.1", f"X-Forwarded-For: {source}"))
            assert opened.recv(65536).startswith(b"HTTP/1.1 101 ")
            return opened

        strangers = [dial("203.0.113.1") for _ in range(3)]
        eu.wait_for("DEBUG 203.0.113.1: too many connections")
        ready = select.select(strangers, [], [], PATIENCE_S)[0]
        # A ping may be there already, behind which it ends.
        assert ready
        hello = b"\x82\x64\x16\x01" + bytes(98)
        for number in range(20):
            noisy = dial(f"203.0.113.{2 + number % 2}")
            noisy.sendall(hello)
            everything(noisy)
        eu.signal(signal.SIGTERM)
        assert eu.wait() == 0
    warned = [line for line in eu.lines if "WARNING cluster: a link with" in line]
    # Of each source the first, and at the end how many more.
    assert len(warned) == 4
    assert sum("… and 8 more" in line for line in warned) == 2


def test_a_link_by_tls(linked: Linked, tmp_path: Path) -> None:
    authority = trustme.CA()
    chain, key = written(tmp_path, "eu", authority.issue_cert("127.0.0.1"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    eu = linked.start("eu", f'tls_certificate = "{chain}"\ntls_key = "{key}"\n')
    linked.share_the_key()
    us = linked.start("us", cluster=f'ca_file = "{tmp_path}/ca.pem"\n')
    us.wait_for("cluster: linked with the relay eu")
    eu.wait_for("cluster: linked with the relay us")


@pytest.mark.parametrize("fault", ["name", "authority", "plain"])
def test_a_certificate_that_will_not_do(linked: Linked, tmp_path: Path, fault: str) -> None:
    """In one line, that says how to mend it."""
    authority = trustme.CA()
    chain, key = written(tmp_path, "eu", authority.issue_cert("eu.example.org" if fault == "name" else "127.0.0.1"))
    shown = trustme.CA() if fault == "authority" else authority
    shown.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    url = f"wss://127.0.0.1:{linked.ports['eu']}"
    tls = f'tls_certificate = "{chain}"\ntls_key = "{key}"\n'
    linked.start("eu", "" if fault == "plain" else tls, url=url)
    linked.share_the_key()
    us = linked.start("us", cluster=f'ca_file = "{tmp_path}/ca.pem"\n')
    what = {
        "name": "its TLS certificate is for eu.example.org, not for 127.0.0.1: "
        "have 127.0.0.1 added to it, or give that relay the url that it is for",
        "authority": r"its TLS certificate is not trusted \(.*\): name its authority with ca_file in \[cluster\]",
        "plain": r"TLS failed \(.*\): is it a wss:// port, or rather ws://\?",
    }
    us.wait_for(f"WARNING cluster: no link to the relay eu: {url}: {what[fault]}$")
    us.signal(signal.SIGTERM)
    assert us.wait() == 0
    assert sum("no link to the relay eu" in line for line in us.lines) == 1
