"""Messages and packets at a relay as users start it: what is passed on, and what is dropped and under which name."""

import time
from ipaddress import IPv4Address, IPv4Interface

import pytest
from kit.peer import TEXT
from lab.member import Member, Speaker, echo, packet
from lab.pair import Pair
from lab.programs import RelayProgram
from lab.relay import POOL, Count

from candy.protocol import auth, wire

pytestmark = [pytest.mark.carriers, pytest.mark.usefixtures("nobody_else_is_disturbed")]

EVENTS = 16
"""Messages sent before the relay is waited for: of one connection's only so many may wait for Python."""


class TestMessages:
    def messages(self, speaker: Speaker, ip: str) -> list[bytes]:
        own, other = IPv4Address(ip), IPv4Address("192.168.202.201")
        return [
            speaker.greeting(),
            speaker.request(),
            speaker.auth(ip),
            wire.Udp4Conn(own, other, own, 7).encode(),
            wire.Discovery(own, other).encode(),
            wire.General(1, 0, own, other, b"").encode(),
            wire.Route(()).encode(),
        ]

    def test_cut_short_at_every_byte(self, relay: RelayProgram, member: Member, counted: Count) -> None:
        """By several members, because each has Python's time for a few messages only."""
        cut = [m[:size] for m in self.messages(member, "192.168.202.100") for size in range(1, len(m))]
        pieces = [cut[at : at + EVENTS] for at in range(0, len(cut), EVENTS)]
        for number, piece in enumerate(pieces):
            with Member.connect(relay.address) as one:
                for message in piece:
                    one.send(message)
                one.ask()
                one.log_in(f"192.168.202.{130 + number}")
                for message in piece:
                    one.send(message)
                one.settle()
        assert counted("too_short") == 2 * len(cut)

    def test_a_packet_cut_short_at_every_byte(self, member: Member, counted: Count) -> None:
        """An IPv4 header has 20 bytes; what is behind it is the members' affair."""
        member.log_in("192.168.202.101")
        whole = bytes([wire.Kind.FORWARD]) + packet("192.168.202.101", "192.168.202.101", b"data")
        for size in range(1, 21):
            member.send(whole[:size])
        for size in range(21, len(whole) + 1):
            member.send(whole[:size])
            assert member.receive_message() == whole[:size]
        member.settle()
        assert counted("too_short") == 20

    def test_unknown_kinds(self, relay: RelayProgram, counted: Count) -> None:
        unknown = [kind for kind in range(256) if kind not in set(wire.Kind)]
        for at in range(0, len(unknown), EVENTS):
            with Member.connect(relay.address) as one:
                for kind in unknown[at : at + EVENTS]:
                    one.send(bytes([kind]))
                    one.send(bytes([kind]) * 100)
                one.ask()
        assert counted("unknown_kind") == 2 * len(unknown)

    def test_an_empty_message(self, member: Member, counted: Count) -> None:
        member.send(b"")
        member.log_in(str(member.ask().ip))
        member.send(b"")
        member.settle()
        assert counted("empty_message") == 2

    def test_text(self, member: Member, counted: Count) -> None:
        """Also one that would be a valid message if it were not text."""
        member.send(b"hello", TEXT)
        member.send(member.auth("192.168.202.102"), TEXT)
        member.log_in(str(member.ask().ip))
        assert counted("text") == 2

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"192.168.202.5",
            b"192.168.202.5/",
            b"192.168.202.5/33",
            b"192.168.202.5/100000",
            b"192.168.202.5/-1",
            b"192.168.202.5/24 ",
            b"192.168.202.5/255.255.255.0",
            b"192.168.202.256/24",
            b"1.2.3/24",
            b"/24",
            b"::1/64",
            b"\xff\xfe/24",
            "192.168.202.\u0665/24".encode(),
            "192.168.202.5/2\u0664".encode(),
            b"1" * 32,
            b"192.168.202.5/" + b"0" * 16 + b"24",
        ],
    )
    def test_bad_addresses_in_a_request(self, member: Member, counted: Count, text: bytes) -> None:
        """Dropped, and the connection goes on: the hash does not cover the text."""
        now = int(time.time())
        digest = auth.expttun_digest(member.password, now)
        member.send(wire.Expttun.LAYOUT.pack(wire.Kind.EXPTTUN, now, text, digest))
        assert member.ask().network == IPv4Interface(POOL).network
        assert counted("bad_cidr") == 1

    def test_everything_before_auth(self, member: Member, counted: Count, pair: Pair) -> None:
        ip, other = "192.168.202.103", pair.ips[0]
        for message in self.messages(member, ip)[3:6]:
            member.send(message)
        member.forward(echo(ip, other, 1))
        member.forward(echo(other, pair.ips[1], 1))
        member.forward(packet("0.0.0.0", other))
        member.forward(packet(ip, "255.255.255.255"))
        member.log_in(str(member.ask().ip))
        assert counted("not_authenticated") == 7

    def test_spoofed_sources(self, member: Member, counted: Count, pair: Pair) -> None:
        member.log_in("192.168.202.104")
        for source in (pair.ips[0], "192.168.202.105", "0.0.0.0", "8.8.8.8", "255.255.255.255", "192.168.202.255"):
            member.forward(echo(source, pair.ips[1], 1))
        stranger, other = IPv4Address(pair.ips[0]), IPv4Address(pair.ips[1])
        member.send(wire.Udp4Conn(stranger, other, stranger, 7).encode())
        member.send(wire.Discovery(stranger, other).encode())
        member.send(wire.General(1, 0, stranger, other, b"").encode())
        member.settle()
        assert counted("spoofed_source") == 9

    def test_nobody_has_this_address(self, member: Member, counted: Count) -> None:
        member.log_in("192.168.202.106")
        for destination in ("192.168.202.107", "8.8.8.8", "0.0.0.0", "192.168.202.0"):
            member.forward(packet("192.168.202.106", destination))
        own, nobody = IPv4Address("192.168.202.106"), IPv4Address("192.168.202.107")
        member.send(wire.Discovery(own, nobody).encode())
        member.settle()
        assert counted("no_route") == 5

    def test_a_route_from_a_member(self, member: Member, counted: Count) -> None:
        member.send(wire.Route(()).encode())
        member.ask()
        assert counted("unexpected_kind") == 1

    def test_a_header_that_is_all_zero_but_for_its_addresses(self, relay: RelayProgram, member: Member) -> None:
        """Old clients' SD-WAN packets: passed on unchanged."""
        member.log_in("192.168.202.108")
        with Member.connect(relay.address).log_in("192.168.202.109") as other:
            inner = echo("192.168.202.108", "192.168.202.109", 1)
            odd = bytes(9) + b"\x04" + bytes(2) + inner[12:20] + inner
            member.forward(odd)
            assert other.receive_packet() == odd

    @pytest.mark.parametrize("destination", ["255.255.255.255", "192.168.202.255", "224.0.0.251"])
    def test_to_everybody_else(self, relay: RelayProgram, member: Member, destination: str) -> None:
        ips = {"255.255.255.255": (110, 111), "192.168.202.255": (112, 113), "224.0.0.251": (114, 115)}[destination]
        own, second = (f"192.168.202.{number}" for number in ips)
        member.log_in(own)
        with Member.connect(relay.address).log_in(second) as other:
            sent = packet(own, destination, b"to all")
            member.forward(sent)
            assert other.receive_packet() == sent
        # Not to its sender: settle() would tell.
        member.forward(packet(own, own, b"behind it"))
        assert member.receive_packet() == packet(own, own, b"behind it")
