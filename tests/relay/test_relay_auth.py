"""Authentication at a relay as users start it: who is let in, with which address, and that nobody else notices."""

import time
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from kit.peer import PING
from lab.member import Member, Speaker, packet
from lab.programs import RelayProgram
from lab.relay import Count

pytestmark = [pytest.mark.carriers, pytest.mark.usefixtures("nobody_else_is_disturbed")]


class TestAuthentication:
    def test_a_wrong_password(self, relay: RelayProgram) -> None:
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
    def test_a_timestamp_that_is_off(self, relay: RelayProgram, member: Member, skew: int, name: str) -> None:
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

    def test_a_replay(self, relay: RelayProgram) -> None:
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
    def test_an_address_that_no_member_can_have(self, relay: RelayProgram, member: Member, ip: str) -> None:
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

    def test_an_address_whose_holder_answers(self, relay: RelayProgram) -> None:
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

    def test_an_address_whose_holder_is_silent(self, relay: RelayProgram) -> None:
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
        with RelayProgram(tmp_path, "-d", "10.9.9.0/30") as relay:
            members = [Member.connect(relay.address) for _ in range(3)]
            assert {str(member.ask()) for member in members[:2]} == {"10.9.9.1/30", "10.9.9.2/30"}
            members[2].send(members[2].request())
            assert members[2].end() == 1013
            relay.wait_for(r"WARNING 127\.0\.0\.1: no address granted: ")
            # An address that was granted and is not taken goes back at the end of its connection.
            members[0].close()
            relay.wait_for("left before it was logged in")
            with Member.connect(relay.address) as late:
                assert str(late.ask()) in {"10.9.9.1/30", "10.9.9.2/30"}
            for member in members:
                member.close()

    def test_outside_of_the_pool_where_that_is_allowed(self, tmp_path: Path) -> None:
        with RelayProgram(tmp_path, "--allow-outside-pool") as relay, Member.connect(relay.address) as member:
            member.log_in("172.20.0.5")

    def test_a_pool_with_host_bits(self, tmp_path: Path) -> None:
        with RelayProgram(tmp_path, "-d", "10.9.9.77/24") as relay, Member.connect(relay.address) as member:
            assert member.ask().network == IPv4Interface("10.9.9.0/24").network

    def test_without_a_pool(self, tmp_path: Path) -> None:
        with RelayProgram(tmp_path, "-d", "") as relay:
            with Member.connect(relay.address) as member:
                member.log_in("172.20.0.5")
            with Member.connect(relay.address) as member:
                member.send(member.request())
                assert member.end() == 1013
