"""A relay as users start it: whole sessions, frames that break the protocol, its end and its start.

Who is let in is in test_relay_auth.py, what members send in test_relay_messages.py.
"""

import signal
import struct
import subprocess
import time
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from kit.peer import CLOSE, CONTINUATION, PING, PONG
from lab.member import Member, frame, packet
from lab.pair import Pair
from lab.programs import PATIENCE_S, Program, RelayProgram, connect, environment, server
from lab.relay import POOL, Count

from candy.protocol import wire

pytestmark = [pytest.mark.carriers, pytest.mark.usefixtures("nobody_else_is_disturbed")]


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

    def test_the_same_installation_gets_its_address_again(self, relay: RelayProgram) -> None:
        vmac = b"00000000feedbeef"
        with Member.connect(relay.address, vmac=vmac) as member:
            member.send(member.greeting())
            first = member.ask("192.168.202.91/24")
            member.log_in(str(first.ip))
            start = len(relay.lines)
        relay.wait_for(f"{first.ip} logged out", start)
        with Member.connect(relay.address, vmac=vmac) as member:
            member.send(member.greeting())
            assert member.ask() == first

    def test_the_same_installation_replaces_itself_at_once(self, relay: RelayProgram) -> None:
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


VIOLATIONS = {
    "unmasked": (frame(b"unmasked", masked=False), 1002),
    "RSV1": (bytes([0xC2]) + frame(b"")[1:], 1002),
    "opcode 3": (frame(b"", 3), 1002),
    "opcode 11": (frame(b"", 11), 1002),
    "fragmented ping": (frame(b"", PING, final=False), 1002),
    "ping of 126": (frame(bytes(126), PING), 1002),
    "stray continuation": (frame(b"", CONTINUATION), 1002),
    "65547 bytes": (bytes([0x82, 0xFF]) + (65547).to_bytes(8, "big") + bytes(4), 1009),
    "length 2^63 - 1": (bytes([0x82, 0xFF]) + (2**63 - 1).to_bytes(8, "big") + bytes(4), 1009),
    "length 2^63": (bytes([0x82, 0xFF]) + (2**63).to_bytes(8, "big") + bytes(4), 1002),
}


class TestFrames:
    """Protocol violations close with the right code. All of them are tried at the engine itself; these at the relay."""

    @pytest.mark.parametrize("logged_in", [False, True])
    @pytest.mark.parametrize("name", VIOLATIONS)
    def test_violations(self, relay: RelayProgram, name: str, logged_in: bool) -> None:
        sent, code = VIOLATIONS[name]
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
        """1001 to all, also to unauthenticated connections; exit status 0, also when a member does not answer."""
        with RelayProgram(tmp_path) as relay:
            polite = Member.connect(relay.address).log_in("192.168.202.5")
            upgraded = Member.connect(relay.address)
            upgraded.ask()
            rude = Member.connect(relay.address).log_in("192.168.202.6")
            half_open = connect(relay.address)
            relay.signal(number)
            for member in (polite, upgraded):
                opcode, payload = member.receive()
                assert (opcode, payload[:2]) == (CLOSE, struct.pack(">H", 1001))
                member.send(payload[:2], CLOSE)
            # `rude` does not answer.
            assert relay.wait() == 0
            assert rude.end() == 1001
            assert half_open.recv(100) == b""
            for end in (polite, upgraded, rude, half_open):
                end.close()

    def test_a_restart_at_once_on_the_same_port(self, tmp_path: Path) -> None:
        with RelayProgram(tmp_path) as relay, Member.connect(relay.address) as member:
            member.log_in("192.168.202.5")
            relay.signal(signal.SIGTERM)
            assert member.end() == 1001
            assert relay.wait() == 0
            with RelayProgram(tmp_path, port=relay.address[1]) as again, Member.connect(again.address) as late:
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

    def test_the_port_is_in_use(self, relay: RelayProgram, tmp_path: Path) -> None:
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
        pem.chmod(0o600)
        flags = ["--tls-certificate", str(pem), "--tls-key", str(pem)]
        status, line = self.fails(tmp_path, "-w", "wss://127.0.0.1:0", *flags)
        assert status == 1
        assert line.startswith(f"candy-server: cannot use {pem} with {pem}: {pem} has no certificate in it: give ")

    def test_a_password_is_made_once_and_printed(self, tmp_path: Path) -> None:
        lines = []
        for _ in range(2):
            with Program("relay", server("-w", "ws://127.0.0.1:0"), environment(tmp_path, None)) as program:
                found = program.wait_for(r"CANDY_PASSWORD='([^']+)' candy-client -w 'ws://127\.0\.0\.1:\d+#\S+'$")
            lines.append(found[1])
        assert lines[0] == lines[1]
        assert (tmp_path / "password").stat().st_mode & 0o777 == 0o600
