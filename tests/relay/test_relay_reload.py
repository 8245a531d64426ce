"""A relay whose file changes while members are there, at the wire: each change concerns some, and nobody else.

Rules are in test_relay_rules.py, certificates in test_relay_tls.py.
"""

import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from lab.member import Ended, Member, everything, packet, upgrade_request
from lab.programs import PATIENCE_S, Program, RelayProgram, environment, server

from candy.protocol import wire

NEW = "the new one"


class Reloading(RelayProgram):
    """A relay whose file can be written anew."""

    def __init__(self, folder: Path, text: str, *flags: str) -> None:
        self.file = folder / "server.toml"
        self.file.write_text(text)
        super().__init__(folder, "-c", str(self.file), *flags)

    def reload(self, text: str, until: str = "INFO changed: ") -> list[str]:
        """What is logged for this new file, up to a line with this; without counters and debugging."""
        # All that was logged before stands before the counters.
        self.counters()
        start = len(self.lines)
        self.file.write_text(text)
        self.signal(signal.SIGHUP)
        self.wait_for(until, start)
        self.counters()
        lines = (line.split(" ", 2)[2] for line in self.lines[start:])
        return [line for line in lines if not re.match(r"DEBUG |INFO [a-z_ 0-9]+: \d+$", line)]


MAIN = 'dhcp = "192.168.202.0/24"\n'
HOME = '[network."/home"]\npassword = "of home"\ndhcp = "192.168.202.0/24"\n'
LAB = '[network."/lab"]\npassword = "of the lab"\ndhcp = "10.9.0.0/24"\n'


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Reloading]:
    with Reloading(tmp_path, MAIN + HOME) as relay:
        yield relay


def home(relay: RelayProgram, stack: ExitStack, *, extended: bool = False) -> Member:
    return stack.enter_context(Member.connect(relay.address, path="/home", password="of home", extended=extended))


def refused(relay: RelayProgram, *headers: str, path: str = "/") -> bytes:
    """The first line of the answer to an upgrade."""
    with socket.create_connection(relay.address, PATIENCE_S) as opened:
        opened.sendall(upgrade_request(*headers, path=path))
        return everything(opened).partition(b"\r\n")[0]


class TestNetworks:
    def test_one_comes_and_goes(self, relay: Reloading, stack: ExitStack) -> None:
        here = stack.enter_context(Member.connect(relay.address)).log_in("192.168.202.5")
        there = home(relay, stack).log_in("192.168.202.5")
        told = home(relay, stack, extended=True).log_in("192.168.202.6")
        silent = home(relay, stack)
        said = relay.reload(MAIN + LAB)
        assert [line for line in said if "logged out" not in line] == [
            "INFO the settings are read again",
            "INFO network /home: no longer served",
            "INFO network /lab: addresses from 10.9.0.0/24",
            "INFO changed: network /home, network /lab",
        ]
        assert [there.end(), told.end(), silent.end()] == [1001, 1001, None]
        relay.wait_for(r"INFO /home: 127\.0\.0\.1: 192\.168\.202\.5 logged out after .*: the relay serves this network")
        assert here.settle() == []
        assert refused(relay, path="/home") == b"HTTP/1.1 404 Not Found"
        lab = stack.enter_context(Member.connect(relay.address, path="/lab", password="of the lab"))
        assert str(lab.ask()) == "10.9.0.1/24"
        lab.log_in("10.9.0.1")
        # And the other way round, at the same path as before.
        relay.reload(MAIN + HOME)
        assert lab.end() == 1001
        assert home(relay, stack).log_in("192.168.202.5", int(time.time()) + 1)
        assert here.settle() == []

    def test_many_times_under_traffic(self, relay: Reloading, stack: ExitStack) -> None:
        one = stack.enter_context(Member.connect(relay.address)).log_in("192.168.202.5")
        other = stack.enter_context(Member.connect(relay.address)).log_in("192.168.202.6")
        for turn in range(20):
            if turn % 2 == 0:
                leaving = home(relay, stack).log_in("192.168.202.7", int(time.time()) - turn)
                leaving.forward(packet("192.168.202.7", "192.168.202.7", b"to myself"))
            relay.reload(MAIN + (LAB if turn % 2 == 0 else HOME))
            sent = packet("192.168.202.5", "192.168.202.6", b"%d" % turn)
            one.forward(sent)
            assert other.receive_packet() == sent
            if turn % 2 == 0:
                with pytest.raises(Ended, match="closed with 1001"):
                    leaving.settle()


class TestPasswords:
    LISTED = f'passwords = [{{ name = "new", password = "{NEW}" }}]\n'

    def test_an_old_one_and_a_new_one(self, relay: Reloading, stack: ExitStack) -> None:
        old = stack.enter_context(Member.connect(relay.address)).log_in("192.168.202.5")
        assert relay.reload(MAIN + self.LISTED + HOME) == [
            "INFO the settings are read again",
            "INFO passwords that hold from now on: 2; closed who came by another one: 0",
            "INFO changed: passwords",
        ]
        new = stack.enter_context(Member.connect(relay.address, password=NEW))
        # Granted in its own: the member of the lab checks the digest by its password.
        granted = new.ask("192.168.202.9/24")
        new.log_in(str(granted.ip))
        relay.wait_for(r"INFO 127\.0\.0\.1: logged in as 192\.168\.202\.9 by the password new$")
        # Where the one is, is nothing for who has another password: by a datagram from there either could be guessed.
        new.send(wire.Udp4Conn(granted.ip, IPv4Address("192.168.202.5"), granted.ip, 7).encode())
        new.forward(packet("192.168.202.9", "192.168.202.5", b"together"))
        assert old.receive_packet() == packet("192.168.202.9", "192.168.202.5", b"together")

    def test_one_that_is_taken_away(self, relay: Reloading, stack: ExitStack) -> None:
        other = stack.enter_context(Member.connect(relay.address)).log_in("192.168.202.5")
        gone = home(relay, stack).log_in("192.168.202.5")
        changed = HOME.replace("of home", NEW)
        assert "INFO changed: network /home: password" in relay.reload(MAIN + changed)
        assert gone.end() == 1012
        late = home(relay, stack)
        late.send(late.auth("192.168.202.5", int(time.time()) + 1))
        assert late.end() is None
        assert stack.enter_context(Member.connect(relay.address, path="/home", password=NEW)).log_in("192.168.202.5")
        assert other.settle() == []

    def test_one_that_has_come_to_its_end(self, relay: Reloading, stack: ExitStack) -> None:
        member = home(relay, stack, extended=True).log_in("192.168.202.5")
        ended = '[network."/home"]\npasswords = [{ name = "old", password = "of home", until = 2020-01-01 }]\n'
        said = relay.reload(MAIN + ended)
        assert "WARNING /home: passwords that hold from now on: 0; closed who came by another one: 1" in said
        assert member.end() == 4008


class TestOthers:
    def test_direct_links_are_switched_off_and_on(self, relay: Reloading, stack: ExitStack) -> None:
        """What old clients tell each other for one passes no more, or again, also where both have been here before."""
        one, other = (
            stack.enter_context(Member.connect(relay.address)).log_in(f"192.168.202.{last}") for last in (5, 6)
        )
        ips = IPv4Address("192.168.202.5"), IPv4Address("192.168.202.6")
        endpoint = wire.Udp4Conn(*ips, IPv4Address("203.0.113.5"), 4000).encode()
        for setting, arrives in (("direct = false\n", False), ("direct = true\n", True)):
            assert relay.reload(setting + MAIN + HOME)[-1] == "INFO changed: direct"
            one.send(endpoint)
            assert one.settle() == []
            assert other.settle() == ([endpoint] if arrives else [])

    def test_a_pool_that_grows(self, relay: Reloading, stack: ExitStack) -> None:
        fixed = stack.enter_context(Member.connect(relay.address)).log_in("192.168.202.5")
        granted = stack.enter_context(Member.connect(relay.address))
        granted.log_in(str(granted.ask().ip))
        assert relay.reload(MAIN.replace("/24", "/16") + HOME)[-1] == "INFO changed: dhcp"
        assert granted.end() == 1012
        back = stack.enter_context(Member.connect(relay.address))
        assert str(back.ask("192.168.7.9/24")) == "192.168.7.9/16"
        back.log_in("192.168.7.9")
        for to, arrives in (("192.168.202.255", False), ("192.168.255.255", True)):
            fixed.forward(packet("192.168.202.5", to, to.encode()))
            assert fixed.settle() == []
            assert back.settle() == ([b"\1" + packet("192.168.202.5", to, to.encode())] if arrives else [])

    def test_the_level_of_the_log(self, tmp_path: Path) -> None:
        file = tmp_path / "server.toml"
        file.write_text(MAIN)
        # RelayProgram has --debug, which would win over the file.
        arguments = server("-w", "ws://127.0.0.1:0", "-c", str(file))
        with Program("relay", arguments, environment(tmp_path)) as relay:
            address = ("127.0.0.1", int(relay.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1]))
            now = int(time.time())
            for debug in (True, False):
                start = len(relay.lines)
                file.write_text(f"debug = {str(debug).lower()}\n{MAIN}")
                relay.signal(signal.SIGHUP)
                relay.wait_for("INFO changed: debug", start)
                start = len(relay.lines)
                with Member.connect(address) as member:
                    member.ask()
                    member.log_in("192.168.202.1", now + debug)
                relay.wait_for("192.168.202.1 logged out", start)
                assert any("DEBUG 127.0.0.1: granted" in line for line in relay.lines[start:]) == debug

    def test_origins_and_proxies(self, relay: Reloading, stack: ExitStack) -> None:
        more = 'allow_origin = "https://a.example"\ntrusted_proxy = "127.0.0.1"\n'
        assert relay.reload(more + MAIN + HOME)[-1] == "INFO changed: allow_origin, trusted_proxy"
        start = len(relay.lines)
        headers = ("Origin: https://a.example", "X-Forwarded-For: 203.0.113.8")
        member = self.connect(relay, stack, *headers).log_in("192.168.202.5")
        relay.wait_for(r"INFO 203\.0\.113\.8: logged in as 192\.168\.202\.5$", start)
        relay.reload(MAIN + HOME)
        assert refused(relay, *headers) == b"HTTP/1.1 403 Forbidden"
        assert member.settle() == []

    def connect(self, relay: RelayProgram, stack: ExitStack, *headers: str) -> Member:
        opened = socket.create_connection(relay.address, PATIENCE_S)
        return stack.enter_context(Member(opened, headers=headers))

    def test_what_needs_a_restart_is_named_each_time(self, relay: Reloading) -> None:
        text = "queue_bytes = 1000000\n" + MAIN.replace("192.168.202", "10.0.0") + HOME
        for _ in range(2):
            assert relay.reload(text, "needs a restart") == [
                "INFO the settings are read again",
                "WARNING changed, which needs a restart: queue_bytes, dhcp",
            ]
