"""SD-WAN rules of a relay with two networks, at the wire: whom they are told, what they allow, and how they change."""

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
from kit.peer import PING
from lab.member import Ended, Member, frame, packet
from lab.programs import PASSWORD, RelayProgram

from candy.protocol import wire

GATEWAY, DEVICE = "192.168.202.2", "192.168.202.3"
RULE = '{{ device = "192.168.202.0/24", destination = "172.{}.0.0/16", via = "192.168.202.2" }}'
HOME_PASSWORD = "another password"
"""Of /home, because one password in two networks is warned about."""
_tokens = itertools.count(1)


def routes_of(messages: list[bytes]) -> list[tuple[int, list[str]]]:
    """Flags, and `destination via next hop` of each entry."""
    found = [wire.decode(message) for message in messages]
    assert all(isinstance(message, wire.Route) for message in found)
    return [
        (message.flags, [f"{entry.destination} via {entry.next_hop}" for entry in message.entries])
        for message in found
        if isinstance(message, wire.Route)
    ]


def write_rules(file: Path, *lans: int, home: tuple[int, ...] = (), more: str = "") -> None:
    rules, home_rules = (", ".join(RULE.format(lan) for lan in some) for some in (lans, home))
    file.write_text(
        f"""dhcp = "192.168.202.0/24"
{more}
routes = [{rules}]
[network."/home"]
password = "{HOME_PASSWORD}"
dhcp = "192.168.202.0/24"
routes = [{home_rules}]
"""
    )


class Changing(RelayProgram):
    """A relay whose file can be written anew."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "server.toml"
        write_rules(self.file, 17, home=(17,))
        super().__init__(folder, "-c", str(self.file))
        self.wait_for(r"candy-client -w .*/home#")

    def reread(self, expected: str = "INFO the settings are read again$") -> list[str]:
        """Send SIGHUP; what is logged then, without debugging and counters."""
        # All that was logged before stands before the counters.
        self.counters()
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
        for path, password, lans in (("/", PASSWORD, (17,)), ("/home", HOME_PASSWORD, (18, 19))):
            for extended in (False, True):
                member = Member.connect(changing.address, path=path, password=password, extended=extended)
                stack.enter_context(member)
                ip = "192.168.202.9" if extended else "192.168.202.10"
                member.send(member.auth(ip))
                told = [f"172.{lan}.0.0/16 via {GATEWAY}" for lan in lans]
                assert routes_of([member.receive_message()]) == [(3 if extended else 0, told)]
                member.ip = IPv4Address(ip)
                assert member.settle() == []

    def test_the_next_hop_itself_is_told_nothing(self, changing: Changing, stack: ExitStack) -> None:
        gateway = stack.enter_context(Member.connect(changing.address, path="/"))
        gateway.send(gateway.auth(GATEWAY))
        gateway.ip = IPv4Address(GATEWAY)
        assert gateway.settle() == []

    def test_a_gateway_sends_from_what_lies_behind_it(self, changing: Changing, stack: ExitStack) -> None:
        """ "The source must be mapped to the sending connection, or lie in a LAN that the SD-WAN rules route to it."""
        gateway = stack.enter_context(Member.connect(changing.address, path="/")).log_in(GATEWAY)
        device = stack.enter_context(Member.connect(changing.address, path="/", extended=True)).log_in(DEVICE)

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
        assert gateway.settle() == []
        follow(18)
        # The gateway has no rule to be told, so it is not closed.
        assert [arrives(lan) for lan in (16, 17, 18)] == [False, False, True]
        follow()
        assert [arrives(lan) for lan in (16, 17, 18)] == [False, False, False]

    def test_a_change_while_packets_flow(self, changing: Changing, stack: ExitStack) -> None:
        """Those with candy.2 get the new set, the others are closed with 1012; whom it does not concern notices
        nothing."""
        new = stack.enter_context(Member.connect(changing.address, path="/", extended=True)).log_in(DEVICE)
        old = stack.enter_context(Member.connect(changing.address, path="/")).log_in("192.168.202.4")
        gateway = stack.enter_context(Member.connect(changing.address, path="/")).log_in(GATEWAY)
        home = Member.connect(changing.address, path="/home", password=HOME_PASSWORD)
        stack.enter_context(home).log_in("192.168.202.4")
        start = len(changing.lines)
        write_rules(changing.file, 17, 18, home=(17,))
        changing.signal(signal.SIGHUP)
        for number in range(200):
            sent = packet(DEVICE, GATEWAY, b"%d" % number)
            new.forward(sent)
            assert gateway.receive_packet() == sent
        assert old.end() == 1012
        told = new.settle()
        assert routes_of(told) == [(3, [f"172.{lan}.0.0/16 via {GATEWAY}" for lan in (17, 18)])]
        assert gateway.settle() == []
        assert home.settle() == []
        changing.wait_for("2 SD-WAN rules from now on; members told: 1, closed to come back: 1", start)
        back = stack.enter_context(Member.connect(changing.address, path="/"))
        back.send(back.auth("192.168.202.4", int(time.time()) + 1))
        assert routes_of([back.receive_message()]) == [(0, routes_of(told)[0][1])]
        write_rules(changing.file, home=(17,))
        changing.reread()
        assert routes_of([new.receive_message()]) == [(3, [])]
        assert back.end() == 1012
        assert home.settle() == []

    def test_a_bad_file_changes_nothing(self, changing: Changing, stack: ExitStack) -> None:
        member = stack.enter_context(Member.connect(changing.address, path="/", extended=True)).log_in(DEVICE)
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
        assert member.settle() == []
        late = stack.enter_context(Member.connect(changing.address, path="/"))
        late.send(late.auth("192.168.202.5"))
        assert routes_of([late.receive_message()]) == [(0, [f"172.17.0.0/16 via {GATEWAY}"])]

    def overlap(self) -> str:
        rule = "192.168.202.0/24,172.17.0.0/16,192.168.202.2"
        return f"{rule!r} overlaps {rule!r}: no member can have both"

    def test_what_can_not_change_is_named(self, changing: Changing) -> None:
        write_rules(changing.file, 17, 18, home=(17,), more="clock_tolerance = 5\nqueue_bytes = 1000000\n")
        assert changing.reread() == [
            "INFO the settings are read again",
            "INFO 2 SD-WAN rules from now on; members told: 0, closed to come back: 0",
            "INFO changed: sdwan",
            "WARNING changed, which needs a restart: queue_bytes, clock_tolerance",
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
        # Answers that it does not read are in the way of all that it is told.
        pings = frame(bytes(125), PING) * 160
        before, dropped = 0, 0
        while dropped < 160:
            opened.sendall(pings)
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
        assert len(received) <= 1

    def test_a_holder_that_is_closed_leaves_its_address_to_the_one_who_waits(
        self, changing: Changing, stack: ExitStack
    ) -> None:
        now = int(time.time())
        holder = stack.enter_context(Member.connect(changing.address, path="/")).log_in(DEVICE, now)
        holder.answers_pings = False
        waiting = stack.enter_context(Member.connect(changing.address, path="/"))
        waiting.send(waiting.auth(DEVICE, now + 1))
        opcode, payload = holder.receive()
        assert payload.startswith(b"candy-probe:"), opcode
        write_rules(changing.file, 18)
        changing.signal(signal.SIGHUP)
        assert holder.end() == 1012
        assert routes_of([waiting.receive_message()]) == [(0, [f"172.18.0.0/16 via {GATEWAY}"])]
