"""Several networks on one relay, at the wire: what each has for itself, that nothing crosses, and rules that change."""

import itertools
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
from lab.programs import PASSWORD, PATIENCE_S, Relay
from lab.relay import Count

from candy import wire

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
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    folder = tmp_path_factory.mktemp("relay")
    file = folder / "server.toml"
    file.write_text(NETWORKS)
    with Relay(folder, "-c", str(file)) as relay:
        yield relay


def join(
    relay: Relay, path: str, *, password: str = PASSWORD, vmac: bytes | None = None, extended: bool = False
) -> Member:
    """A connection to the network at this path."""
    opened = socket.create_connection(relay.address, PATIENCE_S)
    return Member(opened, path=path, password=password, vmac=vmac, extended=extended)


def meanwhile(member: Member) -> list[bytes]:
    """What a member was sent until all that was sent so far was acted upon, in the engine and in Python."""
    assert member.ip is not None
    data = b"token %d" % next(_tokens)
    tokens = [
        wire.General(7, 0, member.ip, member.ip, data).encode(),
        bytes([wire.Kind.FORWARD]) + packet(str(member.ip), str(member.ip), data),
    ]
    received = []
    for token in tokens:
        member.send(token)
        while (message := member.receive_message()) != token:
            received.append(message)
    return received


def routes_of(messages: list[bytes]) -> list[tuple[int, list[str]]]:
    """Flags, and `destination via next hop` of each entry."""
    found = [wire.decode(message) for message in messages]
    assert all(isinstance(message, wire.Route) for message in found)
    return [
        (message.flags, [f"{entry.destination} via {entry.next_hop}" for entry in message.entries])
        for message in found
        if isinstance(message, wire.Route)
    ]


class TestPath:
    @pytest.mark.parametrize("path", ["/", "/home", "/home/", "/home?query=1", "/home/?/office/eu", "//"])
    def test_it_names_the_network(self, relay: Relay, stack: ExitStack, path: str) -> None:
        """field: query string dropped by old clients."""
        member = stack.enter_context(join(relay, path)).log_in(f"192.168.202.{20 + next(_tokens)}")
        start = len(relay.lines)
        member.close()
        label = "/home: " if "home" in path else ""
        relay.wait_for(rf"INFO {label}127\.0\.0\.1: {member.ip} logged out$", start)

    @pytest.mark.parametrize("path", ["/hom", "/home2", "/HOME", "/home/eu", "/office", "/..", "/home%20"])
    def test_a_path_that_is_none(self, relay: Relay, path: str) -> None:
        with socket.create_connection(relay.address, PATIENCE_S) as opened:
            opened.sendall(upgrade_request(path=path))
            received = everything(opened)
        assert received.startswith(b"HTTP/1.1 404 "), received
        assert received.endswith(b"\r\n\r\nThere is no network at this path.\n")

    def test_what_is_printed(self, relay: Relay) -> None:
        host, port = relay.address
        for path in ("", "/home", "/office/eu"):
            relay.wait_for(rf"^  CANDY_PASSWORD='<your password>' candy-client -w ws://{host}:{port}{path}$")
        relay.wait_for(r"listening on 127\.0\.0\.1:\d+, addresses from 192\.168\.202\.0/24$")
        relay.wait_for(r"INFO network /home: addresses from 192\.168\.202\.0/24$")
        relay.wait_for(r"INFO network /lax: no pool: members bring their addresses$")


class TestOwn:
    """What each network has for itself."""

    def test_password(self, relay: Relay) -> None:
        start = len(relay.lines)
        for path, password in (("/office/eu", PASSWORD), ("/home", OTHER), ("/", OTHER)):
            with join(relay, path, password=password) as member:
                member.send(member.greeting())
                assert member.end() is None
        relay.wait_for(r"WARNING /office/eu: 127\.0\.0\.1: refused: wrong password in VMAC$", start)
        relay.wait_for(r"WARNING /home: 127\.0\.0\.1: refused: wrong password in VMAC$", start)
        relay.wait_for(r"WARNING 127\.0\.0\.1: refused: wrong password in VMAC$", start)

    def test_addresses_leases_and_replay(self, relay: Relay, stack: ExitStack) -> None:
        """One VMAC, one address, and the very same AUTH, at the same time in two networks."""
        vmac = b"00000000feedbee5"
        members = [stack.enter_context(join(relay, path, vmac=vmac)) for path in ("/", "/home")]
        now = int(time.time())
        for member in members:
            member.send(member.greeting(now))
            assert str(member.ask("192.168.202.60/24")) == "192.168.202.60/24"
        for member in members:
            member.log_in("192.168.202.60", now)
        for member in members:
            assert meanwhile(member) == []

    def test_no_pool(self, relay: Relay) -> None:
        with join(relay, "/lax") as member:
            member.send(member.request())
            assert member.end() == 1013

    def test_limit(self, relay: Relay, stack: ExitStack) -> None:
        members = [stack.enter_context(join(relay, "/office/eu", password=OTHER)) for _ in range(3)]
        for number, member in enumerate(members[:2]):
            member.log_in(f"192.168.202.{61 + number}")
        members[2].send(members[2].auth("192.168.202.63"))
        assert members[2].end() == 1013
        assert stack.enter_context(join(relay, "/home")).log_in("192.168.202.63")

    def test_source_check_and_broadcast(self, relay: Relay, stack: ExitStack, counted: Count) -> None:
        one = stack.enter_context(join(relay, "/lax")).log_in("10.1.1.1")
        other = stack.enter_context(join(relay, "/lax")).log_in("10.1.1.2")
        foreign = packet("172.20.0.9", "10.1.1.2", b"from elsewhere")
        one.forward(foreign)
        assert other.receive_packet() == foreign
        one.forward(packet("10.1.1.1", "255.255.255.255"))
        one.forward(packet("10.1.1.1", "224.0.0.251"))
        one.send(wire.Discovery(IPv4Address("10.1.1.1"), wire.BROADCAST).encode())
        assert meanwhile(one) == []
        assert meanwhile(other) == []
        assert counted("no_route") == 2
        assert counted("no_such_member") == 1


def test_nothing_crosses(relay: Relay, stack: ExitStack, counted: Count) -> None:
    """Equal addresses in three networks: each packet and each message stays in its own, to one and to everybody."""
    own, peer, only_there = "192.168.202.5", "192.168.202.6", "192.168.202.7"
    networks = {"/": PASSWORD, "/home": PASSWORD, "/office/eu": OTHER}
    members = {
        (path, ip): stack.enter_context(join(relay, path, password=password, extended=ip == own)).log_in(ip)
        for path, password in networks.items()
        for ip in (own, peer)
    }
    lonely = stack.enter_context(join(relay, "/")).log_in(only_there)

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
        assert meanwhile(sender) == []
        for (other_path, ip), member in members.items():
            # Messages and packets take different ways.
            got = sorted(meanwhile(member))
            assert got == (sorted(expected) if (other_path, ip) == (path, peer) else []), (path, other_path, ip)
        assert sorted(meanwhile(lonely)) == (sorted(expected[4:]) if path == "/" else [])
    # What is there in one network alone is not there in the others.
    for path in ("/home", "/office/eu"):
        for message in messages(only_there, b"to whom?"):
            members[path, own].send(message)
        assert meanwhile(members[path, own]) == []
    assert meanwhile(lonely) == []
    assert counted("no_route") == 2
    assert counted("no_such_member") == 6
    # The network's own broadcast address, and multicast.
    for destination in ("192.168.202.255", "239.1.2.3"):
        to_all = packet(own, destination, b"all")
        members["/home", own].forward(to_all)
        assert members["/home", peer].receive_packet() == to_all
    for at, member in members.items():
        assert meanwhile(member) == [], at
    assert meanwhile(lonely) == []


GATEWAY, DEVICE = "192.168.202.2", "192.168.202.3"
RULE = '{{ device = "192.168.202.0/24", destination = "172.{}.0.0/16", via = "192.168.202.2" }}'


def write_rules(file: Path, *lans: int, home: tuple[int, ...] = (), more: str = "") -> None:
    rules, home_rules = (", ".join(RULE.format(lan) for lan in some) for some in (lans, home))
    file.write_text(
        f"""dhcp = "192.168.202.0/24"
{more}
routes = [{rules}]
[network."/home"]
password = "{PASSWORD}"
dhcp = "192.168.202.0/24"
routes = [{home_rules}]
"""
    )


class Changing(Relay):
    """A relay whose file can be written anew."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "server.toml"
        write_rules(self.file, 17, home=(17,))
        super().__init__(folder, "-c", str(self.file))
        self.wait_for(r"candy-client -w .*/home$")

    def reread(self, expected: str = "INFO the settings are read again$") -> list[str]:
        """Send SIGHUP; what is logged then, without debugging and counters."""
        start = len(self.lines)
        self.signal(signal.SIGHUP)
        self.wait_for(expected, start)
        # Whatever it logs besides stands before the counters.
        self.counters()
        lines = (line.split(" ", 2)[2] for line in self.lines[start:])
        return [line for line in lines if not re.match(r"DEBUG |INFO [a-z_ 0-9]+: \d+$", line)]


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[Changing]:
    with Changing(tmp_path) as relay:
        yield relay


class TestRules:
    def test_they_are_told_in_each_network_for_itself(self, changing: Changing, stack: ExitStack) -> None:
        write_rules(changing.file, 17, home=(18, 19))
        changing.reread()
        for path, lans in (("/", (17,)), ("/home", (18, 19))):
            for extended in (False, True):
                member = stack.enter_context(join(changing, path, extended=extended))
                ip = "192.168.202.9" if extended else "192.168.202.10"
                member.send(member.auth(ip))
                told = [f"172.{lan}.0.0/16 via {GATEWAY}" for lan in lans]
                assert routes_of([member.receive_message()]) == [(3 if extended else 0, told)]
                member.ip = IPv4Address(ip)
                assert meanwhile(member) == []

    def test_the_next_hop_itself_is_told_nothing(self, changing: Changing, stack: ExitStack) -> None:
        gateway = stack.enter_context(join(changing, "/"))
        gateway.send(gateway.auth(GATEWAY))
        gateway.ip = IPv4Address(GATEWAY)
        assert meanwhile(gateway) == []

    def test_a_gateway_sends_from_what_lies_behind_it(self, changing: Changing, stack: ExitStack) -> None:
        """ "The source must be mapped to the sending connection, or lie in a LAN that the SD-WAN rules route to it."""
        gateway = stack.enter_context(join(changing, "/")).log_in(GATEWAY)
        device = stack.enter_context(join(changing, "/", extended=True)).log_in(DEVICE)

        def arrives(lan: int) -> bool:
            sent = packet(f"172.{lan}.255.1", DEVICE, b"%d" % next(_tokens))
            gateway.forward(sent)
            gateway.forward(packet(GATEWAY, DEVICE, b"behind it"))
            got: list[bytes] = []
            while not got or not got[-1].endswith(b"behind it"):
                got.append(device.receive_packet())
            return sent in got

        def follow(*lans: int) -> None:
            write_rules(changing.file, *lans, home=(17,))
            changing.reread()
            assert routes_of([device.receive_message()])[0][0] == 3

        assert [arrives(lan) for lan in (16, 17, 18)] == [False, True, False]
        device.forward(packet("172.17.255.1", GATEWAY))
        assert meanwhile(gateway) == []
        follow(18)
        # The gateway has no rule to be told, so it is not closed.
        assert [arrives(lan) for lan in (16, 17, 18)] == [False, False, True]
        follow()
        assert [arrives(lan) for lan in (16, 17, 18)] == [False, False, False]

    def test_a_change_while_packets_flow(self, changing: Changing, stack: ExitStack) -> None:
        """Those with candy.2 get the new set, the others are closed with 1012; whom it does not concern notices
        nothing."""
        new = stack.enter_context(join(changing, "/", extended=True)).log_in(DEVICE)
        old = stack.enter_context(join(changing, "/")).log_in("192.168.202.4")
        gateway = stack.enter_context(join(changing, "/")).log_in(GATEWAY)
        home = stack.enter_context(join(changing, "/home")).log_in("192.168.202.4")
        start = len(changing.lines)
        write_rules(changing.file, 17, 18, home=(17,))
        changing.signal(signal.SIGHUP)
        for number in range(200):
            sent = packet(DEVICE, GATEWAY, b"%d" % number)
            new.forward(sent)
            assert gateway.receive_packet() == sent
        assert old.end() == 1012
        told = meanwhile(new)
        assert routes_of(told) == [(3, [f"172.{lan}.0.0/16 via {GATEWAY}" for lan in (17, 18)])]
        assert meanwhile(gateway) == []
        assert meanwhile(home) == []
        changing.wait_for("2 SD-WAN rules from now on; members told: 1, closed to come back: 1", start)
        back = stack.enter_context(join(changing, "/"))
        back.send(back.auth("192.168.202.4", int(time.time()) + 1))
        assert routes_of([back.receive_message()]) == [(0, routes_of(told)[0][1])]
        write_rules(changing.file, home=(17,))
        changing.reread()
        assert routes_of([new.receive_message()]) == [(3, [])]
        assert back.end() == 1012
        assert meanwhile(home) == []

    def test_a_bad_file_changes_nothing(self, changing: Changing, stack: ExitStack) -> None:
        member = stack.enter_context(join(changing, "/", extended=True)).log_in(DEVICE)
        write_rules(changing.file, 17, 17)
        said = changing.reread("not read again")
        assert said == [f"ERROR not read again, nothing changes: {changing.file}:3: routes: {self.overlap()}"]
        changing.file.write_text("routes = [")
        assert changing.reread("not read again") == [
            f"ERROR not read again, nothing changes: {changing.file}:1: not TOML: Invalid value"
        ]
        changing.file.unlink()
        said = changing.reread("not read again")
        assert said[0].startswith(f"ERROR not read again, nothing changes: cannot read {changing.file}: No such file")
        assert meanwhile(member) == []
        late = stack.enter_context(join(changing, "/"))
        late.send(late.auth("192.168.202.5"))
        assert routes_of([late.receive_message()]) == [(0, [f"172.17.0.0/16 via {GATEWAY}"])]

    def overlap(self) -> str:
        rule = "192.168.202.0/24,172.17.0.0/16,192.168.202.2"
        return f"{rule!r} overlaps {rule!r}: no member can have both"

    def test_what_can_not_change_is_named(self, changing: Changing) -> None:
        write_rules(changing.file, 17, 18, home=(17,), more="max_members = 5\nqueue_bytes = 1000000\n")
        text = changing.file.read_text().replace('[network."/home"]', '[network."/homes"]')
        changing.file.write_text(text)
        assert changing.reread() == [
            "WARNING changed, which needs a restart: queue_bytes",
            "WARNING changed, which needs a restart: network /home",
            "WARNING changed, which needs a restart: network /homes",
            "WARNING changed, which needs a restart: max_members",
            "INFO the settings are read again",
            "INFO 2 SD-WAN rules from now on; members told: 0, closed to come back: 0",
        ]

    def test_a_member_that_has_no_room_for_its_rules_comes_back_to_them(
        self, changing: Changing, stack: ExitStack
    ) -> None:
        opened = stack.enter_context(socket.socket())
        # So that its kernel takes little, and that for good.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.connect(changing.address)
        stalled = Member(opened, extended=True).log_in(DEVICE)
        stalled.answers_pings = False
        sender = stack.enter_context(join(changing, "/")).log_in("192.168.202.4")
        message = wire.General(9, 0, IPv4Address("192.168.202.4"), IPv4Address(DEVICE), bytes(1400)).encode()
        batch, before, dropped = 160, 0, 0
        while dropped < batch:
            for number in range(batch):
                sender.send(message)
                if number % 16 == 15:
                    sender.settle()
            total = changing.counters()["dropped control"]
            before, dropped = total, total - before
        # One message of the set may find room, not all three.
        write_rules(changing.file, *range(250), home=(17,))
        changing.reread()
        received = []

        def receive_all() -> None:
            while True:
                received.append(stalled.receive_message())

        with pytest.raises(Ended, match="closed with 1012"):
            receive_all()
        assert len([told for told in received if told != message]) <= 1

    def test_a_holder_that_is_closed_leaves_its_address_to_the_one_who_waits(
        self, changing: Changing, stack: ExitStack
    ) -> None:
        now = int(time.time())
        holder = stack.enter_context(join(changing, "/")).log_in(DEVICE, now)
        holder.answers_pings = False
        waiting = stack.enter_context(join(changing, "/"))
        waiting.send(waiting.auth(DEVICE, now + 1))
        opcode, payload = holder.receive()
        assert payload.startswith(b"candy-probe:"), opcode
        write_rules(changing.file, 18)
        changing.signal(signal.SIGHUP)
        assert holder.end() == 1012
        assert routes_of([waiting.receive_message()]) == [(0, [f"172.18.0.0/16 via {GATEWAY}"])]
