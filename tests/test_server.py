"""The relay as users start it, and members that behave badly: what each costs them, and that it costs nobody else."""

import signal
import socket
import struct
import subprocess
import time
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from lab.member import Member, Speaker, echo, frame, packet
from lab.pair import Pair
from lab.programs import PATIENCE_S, Program, Relay, environment, server
from lab.relay import Count
from peer import CLOSE, CONTINUATION, PING, PONG, TEXT

from candy import auth, wire

pytestmark = pytest.mark.usefixtures("nobody_else_is_disturbed")

POOL = "192.168.202.0/24"
EVENTS = 16
"""Messages sent before the relay is waited for: of one connection's only so many may wait for Python."""


class TestSession:
    def test_a_dynamic_address(self, member: Member) -> None:
        member.send(member.greeting())
        granted = member.ask()
        assert granted.network == IPv4Interface(POOL).network
        member.log_in(str(granted.ip))

    def test_the_address_that_was_asked_for(self, member: Member) -> None:
        assert member.ask("192.168.202.90/24") == IPv4Interface("192.168.202.90/24")

    def test_an_address_in_use_is_not_granted(self, member: Member, pair: Pair) -> None:
        assert str(member.ask(f"{pair.ips[0]}/24").ip) not in pair.ips

    def test_the_same_installation_gets_its_address_again(self, relay: Relay) -> None:
        vmac = b"00000000feedbeef"
        with Member.connect(relay.address, vmac=vmac) as member:
            member.send(member.greeting())
            first = member.ask("192.168.202.91/24")
            member.log_in(str(first.ip))
        with Member.connect(relay.address, vmac=vmac) as member:
            member.send(member.greeting())
            assert member.ask() == first

    def test_the_same_installation_replaces_itself_at_once(self, relay: Relay) -> None:
        vmac = b"00000000feedbee0"
        now = int(time.time())
        with Member.connect(relay.address, vmac=vmac) as old, Member.connect(relay.address, vmac=vmac) as new:
            old.send(old.greeting())
            old.log_in("192.168.202.92", now)
            new.send(new.greeting())
            new.log_in("192.168.202.92", now + 1)
            assert old.end() == 4001

    def test_a_ping_is_answered_before_auth(self, member: Member) -> None:
        member.send(b"candy::linux::6.1.8::vm", PING)
        assert member.receive() == (PONG, b"candy::linux::6.1.8::vm")

    def test_a_close_is_answered(self, member: Member) -> None:
        member.send(struct.pack(">H", 1000), CLOSE)
        assert member.end() == 1000


class TestAuthentication:
    def test_a_wrong_password(self, relay: Relay) -> None:
        start = len(relay.lines)
        stranger = Speaker(password="another password")
        for message in (stranger.greeting(), stranger.request(), stranger.auth("192.168.202.70")):
            with Member.connect(relay.address) as member:
                member.send(message)
                assert member.end() is None
        for name in ("VMAC", "EXPTTUN", "AUTH"):
            relay.wait_for(rf"127\.0\.0\.1: refused: wrong password in {name}$", start)

    @pytest.mark.parametrize("skew", [-302, 302, -(2**63), 2**63 - 1, 2**63 - 2, -(2**62)])
    @pytest.mark.parametrize("name", ["VMAC", "EXPTTUN", "AUTH"])
    def test_a_timestamp_that_is_off(self, relay: Relay, member: Member, skew: int, name: str) -> None:
        start = len(relay.lines)
        timestamp = int(time.time()) + skew if abs(skew) < 1000 else skew
        messages = {
            "VMAC": member.greeting(timestamp),
            "EXPTTUN": member.request(timestamp=timestamp),
            "AUTH": member.auth("192.168.202.71", timestamp),
        }
        member.send(messages[name])
        assert member.end() is None
        relay.wait_for(rf"refused: {name} is [+-]\d+ s off this clock, 300 s are tolerated", start)

    @pytest.mark.parametrize("skew", [-290, 290])
    def test_a_timestamp_within_the_tolerance(self, member: Member, skew: int) -> None:
        member.log_in(f"192.168.202.{72 + (skew > 0)}", int(time.time()) + skew)

    def test_a_replay(self, relay: Relay) -> None:
        recorded = Speaker().auth("192.168.202.74")
        with Member.connect(relay.address) as member:
            member.send(recorded)
            member.ip = IPv4Address("192.168.202.74")
            member.settle()
            start = len(relay.lines)
            with Member.connect(relay.address) as thief:
                thief.send(recorded)
                assert thief.end() is None
            relay.wait_for(r"refused: AUTH for 192\.168\.202\.74 is a replay", start)
            member.settle()
        # Neither when the member is gone.
        with Member.connect(relay.address) as thief:
            thief.send(recorded + b"confusion")
            assert thief.end() is None

    @pytest.mark.parametrize(
        "ip",
        ["192.168.202.0", "192.168.202.255", "192.168.203.1", "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"],
    )
    def test_an_address_that_no_member_can_have(self, relay: Relay, member: Member, ip: str) -> None:
        start = len(relay.lines)
        member.send(member.auth(ip))
        assert member.end() is None
        line = relay.wait_for(rf"refused: {ip} is not", start)
        if ip.startswith("192.168."):
            assert "--allow-outside-pool" in line.string

    def test_two_auths_on_one_connection(self, member: Member, counted: Count) -> None:
        """ "The first binding stays, the second is dropped and counted.\""""
        now = int(time.time())
        member.log_in("192.168.202.75", now)
        member.send(member.auth("192.168.202.75", now + 1))
        member.send(member.auth("192.168.202.76", now + 1))
        member.send(member.auth("192.168.202.75", now))
        member.send(Speaker(password="another password").auth("192.168.202.75"))
        member.send(member.greeting())
        member.send(member.request())
        member.settle()
        member.forward(packet("192.168.202.76", "192.168.202.75"))
        member.settle()
        assert counted("second_auth") == 4
        assert counted("vmac_after_auth") == 1
        assert counted("expttun_after_auth") == 1
        assert counted("spoofed_source") == 1

    def test_an_address_whose_holder_answers(self, relay: Relay) -> None:
        with Member.connect(relay.address) as holder, Member.connect(relay.address) as newcomer:
            now = int(time.time())
            holder.log_in("192.168.202.80", now)
            start = len(relay.lines)
            newcomer.send(newcomer.auth("192.168.202.80", now + 1))
            opcode, payload = holder.receive()
            assert (opcode, payload[:12]) == (PING, b"candy-probe:")
            assert newcomer.end() is None
            relay.wait_for("192.168.202.80 is held by 127.0.0.1, which answers", start)
            holder.settle()

    def test_an_address_whose_holder_is_silent(self, relay: Relay) -> None:
        """The relay's 3 s are awaited."""
        with Member.connect(relay.address) as holder, Member.connect(relay.address) as newcomer:
            now = int(time.time())
            holder.log_in("192.168.202.81", now)
            holder.answers_pings = False
            newcomer.send(newcomer.auth("192.168.202.81", now + 1))
            assert holder.end() == 4001
            newcomer.ip = IPv4Address("192.168.202.81")
            newcomer.settle()

    def test_a_full_pool(self, tmp_path: Path) -> None:
        with Relay(tmp_path, "-d", "10.9.9.0/30") as relay:
            members = [Member.connect(relay.address) for _ in range(3)]
            assert {str(member.ask()) for member in members[:2]} == {"10.9.9.1/30", "10.9.9.2/30"}
            members[2].send(members[2].request())
            assert members[2].end() == 1013
            relay.wait_for(r"WARNING 127\.0\.0\.1: no address granted: ")
            # An address that was granted and is not taken goes back at the end of its connection.
            members[0].close()
            relay.wait_for("gone before it was logged in")
            with Member.connect(relay.address) as late:
                assert str(late.ask()) in {"10.9.9.1/30", "10.9.9.2/30"}
            for member in members:
                member.close()

    def test_outside_of_the_pool_where_that_is_allowed(self, tmp_path: Path) -> None:
        with Relay(tmp_path, "--allow-outside-pool") as relay, Member.connect(relay.address) as member:
            member.log_in("172.20.0.5")

    def test_a_pool_with_host_bits(self, tmp_path: Path) -> None:
        with Relay(tmp_path, "-d", "10.9.9.77/24") as relay, Member.connect(relay.address) as member:
            assert member.ask().network == IPv4Interface("10.9.9.0/24").network

    def test_without_a_pool(self, tmp_path: Path) -> None:
        with Relay(tmp_path, "-d", "") as relay:
            with Member.connect(relay.address) as member:
                member.log_in("172.20.0.5")
            with Member.connect(relay.address) as member:
                member.send(member.request())
                assert member.end() == 1013


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

    def test_cut_short_at_every_byte(self, member: Member, counted: Count) -> None:
        cut = [m[:size] for m in self.messages(member, "192.168.202.100") for size in range(1, len(m))]
        for number, message in enumerate(cut, 1):
            member.send(message)
            if number % EVENTS == 0:
                member.ask()
        member.send(member.greeting())
        member.log_in(str(member.ask().ip))
        assert counted("too_short") == len(cut)
        for number, message in enumerate(cut, 1):
            member.send(message)
            if number % EVENTS == 0:
                member.settle()
        member.settle()
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

    def test_unknown_kinds(self, member: Member, counted: Count) -> None:
        unknown = [kind for kind in range(256) if kind not in set(wire.Kind)]
        for kind in unknown:
            member.send(bytes([kind]))
            member.send(bytes([kind]) * 100)
            if kind % EVENTS == 0:
                member.ask()
        member.log_in(str(member.ask().ip))
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
        assert counted("spoofed_source") == 6
        assert counted("foreign_source") == 3

    def test_nobody_has_this_address(self, member: Member, counted: Count) -> None:
        member.log_in("192.168.202.106")
        for destination in ("192.168.202.107", "8.8.8.8", "0.0.0.0", "192.168.202.0"):
            member.forward(packet("192.168.202.106", destination))
        own, nobody = IPv4Address("192.168.202.106"), IPv4Address("192.168.202.107")
        member.send(wire.Discovery(own, nobody).encode())
        member.settle()
        assert counted("no_route") == 4
        assert counted("no_such_member") == 1

    def test_a_route_from_a_member(self, member: Member, counted: Count) -> None:
        member.send(wire.Route(()).encode())
        member.ask()
        assert counted("unexpected_kind") == 1

    def test_a_header_that_is_all_zero_but_for_its_addresses(self, relay: Relay, member: Member) -> None:
        """Old clients' SD-WAN packets: passed on unchanged."""
        member.log_in("192.168.202.108")
        with Member.connect(relay.address).log_in("192.168.202.109") as other:
            odd = bytes(9) + b"\x04" + bytes(2) + bytes([192, 168, 202, 108, 192, 168, 202, 109]) + bytes(40)
            member.forward(odd)
            assert other.receive_packet() == odd

    @pytest.mark.parametrize("destination", ["255.255.255.255", "192.168.202.255", "224.0.0.251"])
    def test_to_everybody_else(self, relay: Relay, member: Member, destination: str) -> None:
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


class TestFrames:
    """Protocol violations close with the right code. All of them are tried at the engine itself; these at the relay."""

    @pytest.mark.parametrize("logged_in", [False, True])
    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            (frame(b"unmasked", masked=False), 1002),
            (bytes([0xC2]) + frame(b"")[1:], 1002),
            (frame(b"", 3), 1002),
            (frame(b"", 11), 1002),
            (frame(b"", PING, final=False), 1002),
            (frame(bytes(126), PING), 1002),
            (frame(b"", CONTINUATION), 1002),
            (bytes([0x82, 0xFF]) + (65547).to_bytes(8, "big") + bytes(4), 1009),
            (bytes([0x82, 0xFF]) + (2**63 - 1).to_bytes(8, "big") + bytes(4), 1009),
            (bytes([0x82, 0xFF]) + (2**63).to_bytes(8, "big") + bytes(4), 1002),
        ],
    )
    def test_violations(self, relay: Relay, sent: bytes, code: int, logged_in: bool) -> None:
        with Member.connect(relay.address) as member:
            granted = member.ask()
            if logged_in:
                member.log_in(str(granted.ip))
            member.socket.sendall(sent)
            assert member.end() == code

    def test_the_longest_payload(self, member: Member, counted: Count) -> None:
        """65,546 bytes are accepted from anyone; no one here may be sent as much."""
        member.log_in("192.168.202.120")
        big = packet("192.168.202.120", "192.168.202.120", bytes(65535 - 20))
        member.forward(big)
        member.send(bytes([wire.Kind.FORWARD]) + big + bytes(10))
        member.settle()
        assert counted("too_large") == 2

    def test_a_message_in_fragments(self, member: Member) -> None:
        message = member.request()
        member.send(message[:10], final=False)
        member.send(b"between", PING)
        member.send(message[10:40], CONTINUATION, final=False)
        member.send(message[40:], CONTINUATION)
        assert member.receive() == (PONG, b"between")
        assert isinstance(wire.decode(member.receive_message()), wire.Expttun)

    def test_byte_by_byte(self, member: Member) -> None:
        for byte in frame(member.request()):
            member.socket.send(bytes([byte]))
        assert isinstance(wire.decode(member.receive_message()), wire.Expttun)


class TestEnding:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_members_are_told(self, tmp_path: Path, number: int) -> None:
        """1001 to all, also to whoever has not authenticated; exit status 0 within 3 s, whatever members do."""
        with Relay(tmp_path) as relay:
            polite = Member.connect(relay.address).log_in("192.168.202.5")
            upgraded = Member.connect(relay.address)
            upgraded.ask()
            rude = Member.connect(relay.address).log_in("192.168.202.6")
            half_open = socket.create_connection(relay.address, PATIENCE_S)
            relay.signal(number)
            for member in (polite, upgraded):
                opcode, payload = member.receive()
                assert (opcode, payload[:2]) == (CLOSE, struct.pack(">H", 1001))
                member.send(payload[:2], CLOSE)
            # `rude` does not answer.
            assert relay.wait(3) == 0
            assert rude.end() == 1001
            assert half_open.recv(100) == b""
            for end in (polite, upgraded, rude, half_open):
                end.close()

    def test_a_restart_at_once_on_the_same_port(self, tmp_path: Path) -> None:
        with Relay(tmp_path) as relay, Member.connect(relay.address) as member:
            member.log_in("192.168.202.5")
            relay.signal(signal.SIGTERM)
            assert member.end() == 1001
            assert relay.wait() == 0
            with Relay(tmp_path, port=relay.address[1]) as again, Member.connect(again.address) as late:
                late.log_in("192.168.202.6")


class TestStart:
    """What a user did wrong is one line, that says how to mend it."""

    def fails(self, folder: Path, *flags: str) -> tuple[int, str]:
        done = subprocess.run(
            server(*flags), env=environment(folder), capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stdout == ""
        return done.returncode, done.stderr.strip()

    def test_the_port_is_in_use(self, relay: Relay, tmp_path: Path) -> None:
        where = f"127.0.0.1:{relay.address[1]}"
        assert self.fails(tmp_path, "-w", f"ws://{where}") == (
            1,
            f"candy-server: {where} is in use: end what listens there, or choose another with -w",
        )

    def test_no_such_address(self, tmp_path: Path) -> None:
        status, line = self.fails(tmp_path, "-w", "ws://203.0.113.1:26816")
        assert status == 1
        assert line.startswith("candy-server: cannot listen on 203.0.113.1:26816: ")

    def test_no_such_name(self, tmp_path: Path) -> None:
        status, line = self.fails(tmp_path, "-w", "ws://relay.invalid:26816")
        assert status == 1
        assert line.startswith("candy-server: cannot listen on relay.invalid:26816: ")

    def test_a_certificate_that_is_none(self, tmp_path: Path) -> None:
        pem = tmp_path / "relay.pem"
        pem.write_text("no certificate")
        flags = ["--tls-certificate", str(pem), "--tls-key", str(pem)]
        status, line = self.fails(tmp_path, "-w", "wss://127.0.0.1:0", *flags)
        assert status == 1
        assert line.startswith(f"candy-server: cannot use {pem} with {pem}: ")
        assert line.endswith("give a PEM chain and its unencrypted key")

    def test_a_password_is_made_once_and_printed(self, tmp_path: Path) -> None:
        lines = []
        for _ in range(2):
            with Program("relay", server("-w", "ws://127.0.0.1:0"), environment(tmp_path, None)) as program:
                found = program.wait_for(r"CANDY_PASSWORD='([^']+)' candy-client -w ws://127\.0\.0\.1:\d+$")
            lines.append(found[1])
        assert lines[0] == lines[1]
        assert (tmp_path / "password").stat().st_mode & 0o777 == 0o600
