"""Several networks on one relay, at the wire: what each has for itself, and that nothing crosses.

Rules that change are in test_relay_rules.py.
"""

import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address

import pytest
from lab.member import Member, everything, packet, upgrade_request
from lab.programs import PASSWORD, PATIENCE_S, RelayProgram
from lab.relay import Count

from candy.protocol import wire

OTHER = "another password"
NETWORKS = f"""
dhcp = "192.168.202.0/24"

[network."/home"]
password = "{PASSWORD}"
dhcp = "192.168.202.0/24"

[network."/office/eu"]
password = "{OTHER}"
dhcp = "192.168.202.0/24"
max_members = 2

[network."/lax"]
password = "{PASSWORD}"
no_source_check = true
no_broadcast = true
"""
_tokens = itertools.count(1)


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProgram]:
    folder = tmp_path_factory.mktemp("relay")
    file = folder / "server.toml"
    file.write_text(NETWORKS)
    with RelayProgram(folder, "-c", str(file)) as relay:
        yield relay


class TestPath:
    @pytest.mark.parametrize("path", ["/", "/home", "/home/", "/home?query=1", "/home/?/office/eu", "//"])
    def test_it_names_the_network(self, relay: RelayProgram, stack: ExitStack, path: str) -> None:
        """field: query string dropped by old clients."""
        member = stack.enter_context(Member.connect(relay.address, path=path))
        # As a device of its own: the lines of one are limited.
        member.send(member.greeting())
        member.log_in(f"192.168.202.{20 + next(_tokens)}")
        start = len(relay.lines)
        member.close()
        label = "/home: " if "home" in path else ""
        relay.wait_for(rf"INFO {label}127\.0\.0\.1: {member.ip} logged out after ", start)

    @pytest.mark.parametrize("path", ["/hom", "/home2", "/HOME", "/home/eu", "/office", "/..", "/home%20"])
    def test_a_path_that_is_none(self, relay: RelayProgram, path: str) -> None:
        with socket.create_connection(relay.address, PATIENCE_S) as opened:
            opened.sendall(upgrade_request(path=path))
            received = everything(opened)
        assert received.startswith(b"HTTP/1.1 404 "), received
        assert received.endswith(b"\r\n\r\nThere is no network at this path.\n")

    def test_what_is_printed(self, relay: RelayProgram) -> None:
        host, port = relay.address
        for path in ("", "/home", "/office/eu"):
            relay.wait_for(rf"^  sudo env CANDY_PASSWORD='<your password>' candy-client -w 'ws://{host}:{port}{path}#")
        relay.wait_for(r"listening on 127\.0\.0\.1:\d+, addresses from 192\.168\.202\.0/24$")
        relay.wait_for(r"INFO network /home: addresses from 192\.168\.202\.0/24$")
        relay.wait_for(r"INFO network /lax: no pool: members bring their addresses$")


class TestOwn:
    """What each network has for itself."""

    def test_password(self, relay: RelayProgram) -> None:
        start = len(relay.lines)
        for path, password in (("/office/eu", PASSWORD), ("/home", OTHER), ("/", OTHER)):
            with Member.connect(relay.address, path=path, password=password) as member:
                member.send(member.greeting())
                assert member.end() is None
        relay.wait_for(r"WARNING /office/eu: 127\.0\.0\.1: refused: wrong password in VMAC$", start)
        relay.wait_for(r"WARNING /home: 127\.0\.0\.1: refused: wrong password in VMAC$", start)
        relay.wait_for(r"WARNING 127\.0\.0\.1: refused: wrong password in VMAC$", start)

    def test_addresses_leases_and_replay(self, relay: RelayProgram, stack: ExitStack) -> None:
        """One VMAC, one address, and the very same AUTH, at the same time in two networks."""
        vmac = b"00000000feedbee5"
        members = [stack.enter_context(Member.connect(relay.address, path=path, vmac=vmac)) for path in ("/", "/home")]
        now = int(time.time())
        for member in members:
            member.send(member.greeting(now))
            assert str(member.ask("192.168.202.60/24")) == "192.168.202.60/24"
        for member in members:
            member.log_in("192.168.202.60", now)
        for member in members:
            assert member.settle() == []

    def test_no_pool(self, relay: RelayProgram) -> None:
        with Member.connect(relay.address, path="/lax") as member:
            member.send(member.request())
            assert member.end() == 1013

    def test_limit(self, relay: RelayProgram, stack: ExitStack) -> None:
        members = [
            stack.enter_context(Member.connect(relay.address, path="/office/eu", password=OTHER)) for _ in range(3)
        ]
        for number, member in enumerate(members[:2]):
            member.log_in(f"192.168.202.{61 + number}")
        members[2].send(members[2].auth("192.168.202.63"))
        assert members[2].end() == 1013
        assert stack.enter_context(Member.connect(relay.address, path="/home")).log_in("192.168.202.63")

    def test_source_check_and_broadcast(self, relay: RelayProgram, stack: ExitStack, counted: Count) -> None:
        one = stack.enter_context(Member.connect(relay.address, path="/lax")).log_in("10.1.1.1")
        other = stack.enter_context(Member.connect(relay.address, path="/lax")).log_in("10.1.1.2")
        foreign = packet("172.20.0.9", "10.1.1.2", b"from elsewhere")
        one.forward(foreign)
        assert other.receive_packet() == foreign
        one.forward(packet("10.1.1.1", "255.255.255.255"))
        one.forward(packet("10.1.1.1", "224.0.0.251"))
        one.send(wire.Discovery(IPv4Address("10.1.1.1"), wire.BROADCAST).encode())
        assert one.settle() == []
        assert other.settle() == []
        assert counted("no_route") == 3


def test_nothing_crosses(relay: RelayProgram, stack: ExitStack, counted: Count) -> None:
    """Equal addresses in three networks: each packet and each message stays in its own, to one and to everybody."""
    own, peer, only_there = "192.168.202.5", "192.168.202.6", "192.168.202.7"
    networks = {"/": PASSWORD, "/home": PASSWORD, "/office/eu": OTHER}
    members = {
        (path, ip): stack.enter_context(
            Member.connect(relay.address, path=path, password=password, extended=ip == own)
        ).log_in(ip)
        for path, password in networks.items()
        for ip in (own, peer)
    }
    lonely = stack.enter_context(Member.connect(relay.address, path="/")).log_in(only_there)

    def messages(destination: str, data: bytes) -> list[bytes]:
        source, to = IPv4Address(own), IPv4Address(destination)
        return [
            bytes([wire.Kind.FORWARD]) + packet(own, destination, data),
            wire.Discovery(source, to).encode() + data,
            wire.General(0, 0, source, to, data).encode(),
            *([] if to == wire.BROADCAST else [wire.Udp4Conn(source, to, source, 7).encode() + data]),
        ]

    for path in networks:
        sender = members[path, own]
        expected: list[bytes] = []
        for destination in (peer, "255.255.255.255"):
            sent = messages(destination, f"{path} to {destination}".encode())
            for message in sent:
                sender.send(message)
            expected += sent
        assert sender.settle() == []
        for (other_path, ip), member in members.items():
            # Messages and packets take different ways.
            got = sorted(member.settle())
            assert got == (sorted(expected) if (other_path, ip) == (path, peer) else []), (path, other_path, ip)
        assert sorted(lonely.settle()) == (sorted(expected[4:]) if path == "/" else [])
    # What is there in one network alone is not there in the others.
    for path in ("/home", "/office/eu"):
        for message in messages(only_there, b"to whom?"):
            members[path, own].send(message)
        assert members[path, own].settle() == []
    assert lonely.settle() == []
    assert counted("no_route") == 8
    # The network's own broadcast address, and multicast.
    for destination in ("192.168.202.255", "239.1.2.3"):
        to_all = packet(own, destination, b"all")
        members["/home", own].forward(to_all)
        assert members["/home", peer].receive_packet() == to_all
    for at, member in members.items():
        assert member.settle() == [], at
    assert lonely.settle() == []
