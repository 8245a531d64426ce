"""The relay as a member of its networks: real interfaces, in network namespaces of the tests' own."""

import re
import signal
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from lab.laboratory import PORT, Laboratory
from lab.member import Member, echo, packet
from lab.namespaces import Ethernet
from lab.programs import PASSWORD, PATIENCE_S, Program, environment, server

from candy.protocol import wire

pytestmark = pytest.mark.netns

MEMBER, GATEWAY = "192.168.202.5", "192.168.202.9"
LAN = "172.17.0.0/16"


class MembersLaboratory(Laboratory):
    """Members that the test plays, on a host of their own."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        super().__init__(stack, folder)
        self.outside = self.host()

    def member(self, ip: str | None = None, *, extended: bool = False) -> Member:
        with self.outside:
            opened = socket.create_connection((Ethernet.ADDRESS, PORT), PATIENCE_S)
        member = self.stack.enter_context(Member(opened, extended=extended))
        return member if ip is None else member.log_in(ip)

    def interfaces(self) -> dict[str, str]:
        """The hub's interfaces with an IPv4 address."""
        lines = self.hub.run("ip", "-4", "-brief", "address").splitlines()
        return {line.split()[0]: line.split()[2] for line in lines if len(line.split()) > 2}


@pytest.fixture
def laboratory(tmp_path: Path, stack: ExitStack) -> MembersLaboratory:
    return MembersLaboratory(stack, tmp_path)


def receive_from(member: Member, source: str) -> bytes:
    """The next packet from this address; an interface that comes up has others to send. With candy.2 it may come with a
    virtio header, for its checksum is still to be made."""
    while True:
        message = member.receive_message()
        got = message[11:] if message[0] == wire.Kind.SUPER else message[1:]
        if got[12:16] == IPv4Address(source).packed:
            return got


def test_members_reach_the_machine_and_it_reaches_them(laboratory: MembersLaboratory) -> None:
    relay = laboratory.relay("-t", "192.168.202.1/24")
    relay.wait_for(r"INFO this machine is 192\.168\.202\.1/24 on interface candy-server$")
    assert laboratory.interfaces()["candy-server"] == "192.168.202.1/24"
    assert " mtu 1400 " in laboratory.hub.run("ip", "link", "show", "candy-server")
    for extended, ip in ((False, MEMBER), (True, "192.168.202.6")):
        member = laboratory.member(ip, extended=extended)
        member.forward(echo(ip, "192.168.202.1", 1, bytes(1300)))
        answer = receive_from(member, "192.168.202.1")
        assert (answer[9], answer[20], answer[28:]) == (1, 0, bytes(1300))
        with laboratory.hub, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.sendto(b"hello", (ip, 9))
            got = receive_from(member, "192.168.202.1")
        assert (got[16:20], got[28:]) == (IPv4Address(ip).packed, b"hello")


def test_its_address_is_its_own(laboratory: MembersLaboratory) -> None:
    relay = laboratory.relay("-t", "192.168.202.1/24")
    dynamic = laboratory.member()
    assert str(dynamic.ask()) == "192.168.202.2/24"
    assert str(dynamic.ask("192.168.202.1/24")) == "192.168.202.2/24"
    thief = laboratory.member()
    thief.send(thief.auth("192.168.202.1"))
    assert thief.end() is None
    relay.wait_for(r"refused: 192\.168\.202\.1 is this relay's own$")
    # To everybody: packets reach it, messages have no use there.
    member = laboratory.member(MEMBER)
    member.send(wire.Discovery(IPv4Address(MEMBER), wire.BROADCAST).encode())
    member.forward(echo(MEMBER, "192.168.202.1", 2))
    assert receive_from(member, "192.168.202.1")[20] == 0
    member.settle()


def test_a_network_that_comes_by_a_reload_has_one_and_needs_a_restart_to_go(laboratory: MembersLaboratory) -> None:
    file = laboratory.folder / "server.toml"
    file.write_text("")
    relay = laboratory.relay("-c", str(file))
    lab = '[network."/lab"]\npassword = "of the lab"\ndhcp = "10.9.0.0/24"\ntun = "10.9.0.1/24"\n'
    file.write_text(lab)
    relay.signal(signal.SIGHUP)
    relay.wait_for("INFO /lab: this machine is 10.9.0.1/24 on interface cs-lab$")
    relay.wait_for("INFO changed: network /lab$")
    assert laboratory.interfaces()["cs-lab"] == "10.9.0.1/24"
    with laboratory.outside:
        opened = socket.create_connection((Ethernet.ADDRESS, PORT), PATIENCE_S)
    member = laboratory.stack.enter_context(Member(opened, path="/lab", password="of the lab")).log_in("10.9.0.5")
    member.forward(echo("10.9.0.5", "10.9.0.1", 1))
    assert receive_from(member, "10.9.0.1")[20] == 0
    file.write_text("")
    relay.signal(signal.SIGHUP)
    relay.wait_for("WARNING changed, which needs a restart: network /lab$")
    member.settle()


def test_it_is_gone_with_the_relay(laboratory: MembersLaboratory) -> None:
    relay = laboratory.relay("-t", "192.168.202.1/24")
    assert "candy-server" in laboratory.interfaces()
    relay.signal(signal.SIGTERM)
    assert relay.wait() == 0
    assert set(laboratory.interfaces()) == {"lo", "bridge0"}


def test_it_is_gone_when_the_relay_cannot_listen(laboratory: MembersLaboratory) -> None:
    with laboratory.hub, socket.create_server((Ethernet.ADDRESS, PORT)):
        flags = ["-w", f"ws://{Ethernet.ADDRESS}:{PORT}", "-t", "192.168.202.1/24"]
        with Program("relay", server(*flags), environment(laboratory.folder)) as failing:
            assert failing.wait() == 1
        assert re.search(r"^candy-server: 10\.0\.0\.1:26816 is in use: ", failing.lines[-1])
    assert set(laboratory.interfaces()) == {"lo", "bridge0"}


def test_each_network_has_its_own(laboratory: MembersLaboratory) -> None:
    file = laboratory.folder / "server.toml"
    file.write_text(
        f"""dhcp = "192.168.202.0/24"
tun = "192.168.202.1/24"
[network."/home"]
password = "{PASSWORD}"
dhcp = "192.168.202.0/24"
[network."/office/eu"]
password = "{PASSWORD}"
dhcp = "192.168.203.0/24"
tun = "192.168.203.1/24"
"""
    )
    relay = laboratory.relay("-c", str(file))
    relay.wait_for(r"INFO /office/eu: this machine is 192\.168\.203\.1/24 on interface cs-office-eu$")
    found = laboratory.interfaces()
    assert (found["candy-server"], found["cs-office-eu"]) == ("192.168.202.1/24", "192.168.203.1/24")
    member = laboratory.member(MEMBER)
    # The other network's interface is no member of this one.
    before = relay.counters()["dropped no_route"]
    member.forward(echo(MEMBER, "192.168.203.1", 1))
    member.settle()
    assert relay.counters()["dropped no_route"] - before == 1


def test_one_that_was_removed_costs_nobody_else_anything(laboratory: MembersLaboratory) -> None:
    relay = laboratory.relay("-t", "192.168.202.1/24")
    one, other = laboratory.member(MEMBER), laboratory.member(GATEWAY)
    laboratory.hub.run("ip", "link", "delete", "candy-server")
    relay.wait_for(r"ERROR interface candy-server was removed from outside: restart to have it back$")
    sent = echo(MEMBER, GATEWAY, 1)
    one.forward(sent)
    assert other.receive_packet() == sent
    relay.signal(signal.SIGTERM)
    assert relay.wait() == 0


def wrapped(source: str, destination: str, inner: bytes) -> bytes:
    """IPIP as old clients write it."""
    return bytes(9) + b"\x04" + bytes(2) + IPv4Address(source).packed + IPv4Address(destination).packed + inner


def test_networks_behind_members_and_behind_it(laboratory: MembersLaboratory) -> None:
    """It is told rules as members are, follows them when they change, and is a gateway to what lies behind it."""
    file = laboratory.folder / "server.toml"

    def write(*rules: str, more: str = "") -> None:
        keys = ("device", "destination", "via")
        tables = (zip(keys, rule.split(","), strict=True) for rule in rules)
        lists = ", ".join("{ " + ", ".join(f'{key} = "{text}"' for key, text in table) + " }" for table in tables)
        file.write_text(f'dhcp = "192.168.202.0/24"\ntun = "192.168.202.1/24"\nroutes = [{lists}]\n{more}')

    to_gateway = f"192.168.202.0/24,{LAN},{GATEWAY}"
    to_it = "192.168.202.0/24,10.0.0.0/24,192.168.202.1"
    write(to_gateway, to_it)
    relay = laboratory.relay("-c", str(file))
    gateway = laboratory.member(GATEWAY)
    member = laboratory.member(MEMBER)
    assert LAN in laboratory.hub.run("ip", "route", "show", "dev", "candy-server")
    # Out: what the machine sends there arrives wrapped, with a whole header.
    with laboratory.hub, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.sendto(b"to the LAN", ("172.17.0.5", 9))
    got = receive_from(gateway, "192.168.202.1")
    assert (got[0], got[9], got[16:20]) == (0x45, 4, IPv4Address(GATEWAY).packed)
    assert (got[36:40], got[48:]) == (IPv4Address("172.17.0.5").packed, b"to the LAN")
    # Back: a LAN behind a gateway may send.
    with laboratory.hub, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiving:
        receiving.settimeout(PATIENCE_S)
        receiving.bind(("192.168.202.1", 0))
        datagram = struct.pack(">HHHH", 9, receiving.getsockname()[1], 8 + 4, 0) + b"back"
        gateway.forward(packet("172.17.0.5", "192.168.202.1", datagram))
        assert receiving.recv(100) == b"back"
    # Behind it: 10.0.0.1 is the machine's own address on its Ethernet.
    gateway.forward(wrapped(GATEWAY, "192.168.202.1", echo(GATEWAY, Ethernet.ADDRESS, 3, b"unwrap")))
    answer = receive_from(gateway, Ethernet.ADDRESS)
    assert (answer[20], answer[28:]) == (0, b"unwrap")
    member.settle()
    # Rules that change reach it as well. What is left for a restart comes last.
    start = len(relay.lines)
    write(f"192.168.202.0/24,172.18.0.0/16,{GATEWAY}", more="clock_tolerance = 9\n")
    relay.signal(signal.SIGHUP)
    last = relay.wait_for(r"WARNING changed, which needs a restart: clock_tolerance$", start)
    lines = relay.lines[start : relay.lines.index(last.string)]
    assert any(line.endswith("172.17.0.0/16 is not reached through the network any more") for line in lines)
    shown = laboratory.hub.run("ip", "route", "show", "dev", "candy-server")
    assert LAN not in shown
    assert "172.18.0.0/16" in shown


class TestErrors:
    """One line, and nothing is left."""

    def fails(self, laboratory: MembersLaboratory, *flags: str, drop: str | None = None) -> str:
        argv = [sys.executable, "-c", "from candy.cli.server import main; main()", "-w", "ws://127.0.0.1:0", *flags]
        if drop is not None:
            argv = ["setpriv", f"--bounding-set=-{drop}", "--", *argv]
        with laboratory.hub:
            done = subprocess.run(
                argv,
                env=environment(laboratory.folder),
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        return done.stderr.strip()

    def test_without_the_right_to(self, laboratory: MembersLaboratory) -> None:
        said = self.fails(laboratory, "-t", "192.168.202.1/24", drop="net_admin")
        assert said.startswith("candy-server: cannot make interface candy-server: the capability CAP_NET_ADMIN")

    def test_a_name_that_is_taken(self, laboratory: MembersLaboratory) -> None:
        laboratory.hub.run("ip", "tuntap", "add", "dev", "candy-server", "mode", "tun")
        said = self.fails(laboratory, "-t", "192.168.202.1/24")
        assert said.startswith("candy-server: interface candy-server exists already: ")

    def test_an_address_that_is_taken(self, laboratory: MembersLaboratory) -> None:
        said = self.fails(laboratory, "-d", "10.0.0.0/24", "-t", f"{Ethernet.ADDRESS}/24")
        assert said.startswith("candy-server: 10.0.0.1 is already an address of bridge0: ")
        assert set(laboratory.interfaces()) == {"lo", "bridge0"}
