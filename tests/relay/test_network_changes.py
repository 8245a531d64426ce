"""What becomes of a network's members when its settings change, and what the log says of their ends."""

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from kit.talk import FAILED, ONE, PASSWORD, TWO, WALL, Talk, ip

from candy.protocol import auth, wire
from candy.protocol.actions import Close, Log, Ping, Send
from candy.protocol.closing import CloseCode
from candy.protocol.hello import Hello
from candy.relay.leases import Traffic
from candy.relay.passwords import LOOK_S, Password, Passwords
from candy.relay.session import Bind, Unbind

NEW = b"the new one"
WRONG = "the password by which this member logged in holds no more"
BOTH = Passwords([Password(PASSWORD, "old", WALL + 1000.0), Password(NEW, "new")])


class Changing(Talk):
    """Members of either password."""

    def set_passwords(self, *passwords: Password) -> list[Any]:
        return self.keep(self.network.set_passwords(Passwords(passwords), self.now, self.wall))

    def member_by(self, password: bytes, last: int, *, extended: bool = False) -> int:
        self.wall += 1
        connection = self.open(extended=extended)
        circle = self.network.circles.of(Password(password))
        assert self.auth(connection, ip(last), password) == [Bind(connection, int(ip(last)), circle=circle)]
        return connection


@pytest.fixture
def changing() -> Changing:
    talk = Changing()
    talk.keep(talk.network.set_passwords(BOTH, talk.now, talk.wall))
    talk.log.clear()
    return talk


class TestPasswords:
    def test_both_hold(self, changing: Changing) -> None:
        changing.member_by(PASSWORD, 5)
        changing.member_by(NEW, 6)
        assert [text for _, text in changing.log] == [
            "203.0.113.1: logged in as 192.168.202.5 by the password old",
            "203.0.113.2: logged in as 192.168.202.6 by the password new",
        ]

    @pytest.mark.parametrize("password", [PASSWORD, NEW])
    def test_an_address_is_granted_in_the_members_own(self, changing: Changing, password: bytes) -> None:
        connection = changing.open()
        (send,) = changing.expttun(connection, password=password)
        assert isinstance(send, Send)
        answer = wire.decode(send.payload)
        assert isinstance(answer, wire.Expttun)
        assert answer.digest == auth.expttun_digest(password, changing.wall)

    def test_a_session_has_one(self, changing: Changing) -> None:
        """What was sniffed of two members does not make a third."""
        connection = changing.open()
        assert changing.vmac(connection, ONE, PASSWORD) == []
        assert changing.auth(connection, ip(5), NEW) == [Close(connection, None, FAILED)]
        assert changing.logged("wrong password in AUTH")

    def test_an_answer_in_one_is_no_sighting_of_the_other(self, changing: Changing) -> None:
        """Within one second the relay answers a member of the old password, and one of the new asks: its address is
        kept for it."""
        changing.expttun(changing.open(), password=PASSWORD)
        asking, other = changing.open(), changing.open()
        (send,) = changing.expttun(asking, "192.168.202.9/24", password=NEW)
        assert isinstance(send, Send)
        assert changing.auth(other, ip(9), NEW) == [Close(other, None, FAILED)]
        assert changing.logged("192.168.202.9 was granted to another member")

    def test_at_its_end_it_lets_nobody_in_and_nobody_stay(self, changing: Changing) -> None:
        """The end is by the machine's clock, which is set meanwhile."""
        old, new = changing.member_by(PASSWORD, 5, extended=True), changing.member_by(NEW, 6)
        assert changing.network.next_deadline() == changing.now + LOOK_S
        changing.wall = WALL + 999
        changing.now += LOOK_S
        assert changing.expire() == []
        assert changing.network.next_deadline() == changing.now + 1.0
        changing.now += 1.0
        changing.wall += 1
        assert changing.expire() == [Unbind(old), Close(old, CloseCode.PASSWORD_ENDED, WRONG)]
        assert changing.log[-1] == ("info", "passwords that hold from now on: 1; closed who came by another one: 1")
        assert changing.network.next_deadline() is None
        late = changing.open()
        assert changing.auth(late, ip(5), PASSWORD) == [Close(late, None, FAILED)]
        assert changing.log[-1] == ("warning", f"203.0.113.{late}: refused: password that holds no more (old) in AUTH")
        assert changing.close(new) == []
        assert changing.logged("192.168.202.6 logged out")

    def test_one_that_is_taken_away_ends_who_came_by_it(self, changing: Changing) -> None:
        old, new = changing.member_by(PASSWORD, 5), changing.member_by(NEW, 6)
        greeted, silent = changing.open(), changing.open()
        assert changing.vmac(greeted, ONE, PASSWORD) == []
        assert changing.set_passwords(Password(NEW)) == [
            Close(greeted, None, WRONG),
            Unbind(old),
            Close(old, CloseCode.SERVICE_RESTART, WRONG),
        ]
        assert changing.auth(silent, ip(7), NEW) == [Bind(silent, int(ip(7)), circle=2)]
        assert changing.close(new) == []

    def test_one_that_is_renamed_or_prolonged_concerns_nobody(self, changing: Changing) -> None:
        changing.member_by(PASSWORD, 5)
        assert changing.set_passwords(Password(NEW), Password(PASSWORD, "older", WALL + 5000.0)) == []
        assert changing.set_passwords(Password(PASSWORD)) == []
        assert changing.network.next_deadline() is None

    def test_who_waits_for_the_address_of_one_gets_it_or_goes_too(self, changing: Changing) -> None:
        holder, other = changing.member_by(PASSWORD, 5), changing.member_by(PASSWORD, 6)
        changing.wall += 1
        waiting, gone = changing.open(), changing.open()
        for connection, password, last in ((waiting, NEW, 5), (gone, PASSWORD, 6)):
            (ping,) = changing.auth(connection, ip(last), password)
            assert isinstance(ping, Ping)
        assert changing.set_passwords(Password(NEW)) == [
            Close(gone, None, WRONG),
            Unbind(holder),
            Close(holder, CloseCode.SERVICE_RESTART, WRONG),
            Bind(waiting, int(ip(5)), circle=2),
            Unbind(other),
            Close(other, CloseCode.SERVICE_RESTART, WRONG),
        ]

    def test_none_that_holds_is_a_warning(self, changing: Changing) -> None:
        assert changing.set_passwords(Password(PASSWORD, until=WALL - 1.0)) == []
        assert changing.log == [("warning", "passwords that hold from now on: 0; closed who came by another one: 0")]

    def test_an_end_that_is_known_at_the_start(self) -> None:
        talk = Talk(password=PASSWORD)
        assert talk.network.next_deadline() is None
        ending = Changing(until=WALL + 30.0)
        assert ending.network.next_deadline() == 0.0
        assert ending.expire() == []
        assert ending.network.next_deadline() == ending.now + 30.0


class TestPool:
    def test_who_was_granted_an_address_comes_back_for_the_prefix(self, talk: Talk) -> None:
        granted, fixed = talk.open(extended=True), talk.member(ip(200))
        assert talk.granted(granted) == "192.168.202.1/24"
        assert talk.auth(granted, ip(1)) == [Bind(granted, int(ip(1)))]
        asked = talk.open()
        assert talk.granted(asked) == "192.168.202.2/24"
        larger = IPv4Network("192.168.200.0/21")
        assert talk.keep(talk.network.enlarge(larger, talk.now)) == [
            Close(asked, None, f"the pool is {larger} from now on"),
            Unbind(granted),
            Close(granted, CloseCode.SERVICE_RESTART, f"the pool is {larger} from now on"),
        ]
        assert talk.granted(talk.open(), "192.168.202.1/24") == "192.168.202.1/21"
        assert talk.granted(talk.open(), "192.168.207.9/24") == "192.168.207.9/21"
        assert talk.close(fixed) == []
        assert talk.logged("192.168.202.200 logged out")

    def test_a_member_may_claim_what_is_new(self, talk: Talk) -> None:
        talk.keep(talk.network.enlarge(IPv4Network("192.168.0.0/16"), talk.now))
        assert talk.member(IPv4Address("192.168.3.4"))


def test_a_network_that_is_taken_away(talk: Talk) -> None:
    member, holder = talk.member(ip(5), extended=True), talk.member(ip(6))
    waiting, _ = talk.contest(ip(6), holder)
    silent = talk.open()
    gone = "the relay serves this network no more"
    assert talk.keep(talk.network.dissolve(talk.now)) == [
        Close(waiting, None, gone),
        Close(silent, None, gone),
        Unbind(member),
        Close(member, CloseCode.GOING_AWAY, gone),
        Unbind(holder),
        Close(holder, CloseCode.GOING_AWAY, gone),
    ]
    assert talk.network.next_deadline() is None
    for connection in (member, holder, waiting, silent):
        assert talk.close(connection) == []


def test_fewer_members_at_once(talk: Talk) -> None:
    members = [talk.member(ip(last)) for last in (5, 6)]
    talk.network.max_members = 1
    late, actions = talk.newcomer(ip(7))
    assert actions == [Close(late, CloseCode.TRY_AGAIN_LATER, "the network is full: 2 members are in")]
    for member in members:
        talk.close(member)
    assert talk.member(ip(7))


class TestLastLine:
    """Duration, bytes and cause of a member's stay, by whatever it ended."""

    @pytest.fixture
    def talk(self) -> Talk:
        return Talk(traffic=lambda connection: Traffic(bytes_in=1000 * connection, bytes_out=connection))

    @pytest.mark.parametrize(
        ("cause", "words"),
        [("peer", "it closed"), ("silent", "nothing came from it any more"), ("local", "closed by this relay")],
    )
    def test_its_connection_ended(self, talk: Talk, cause: str, words: str) -> None:
        talk.now += 5
        member = talk.member(ip(5), ONE)
        talk.now += 61.4
        (line,) = talk.network.closed(member, talk.now, talk.wall, cause)
        assert isinstance(line, Log)
        named = "(VMAC 1111111111111111)"
        text = f"203.0.113.1: 192.168.202.5 logged out after 61 s, 1000 bytes in, 1 out: {words} {named}"
        assert line.text == text
        assert line.about == {
            "source": "203.0.113.1",
            "address": "192.168.202.5",
            "vmac": "1111111111111111",
            "seconds": 61.4,
            "bytes_in": 1000,
            "bytes_out": 1,
            "cause": cause,
        }

    def test_it_was_replaced(self, talk: Talk) -> None:
        talk.member(ip(5), TWO)
        talk.now += 30
        talk.newcomer(ip(5), TWO)
        assert talk.logged("replaced at") == [
            (
                "info",
                "203.0.113.1: replaced at 192.168.202.5 by 203.0.113.2, which has the same VMAC, "
                "after 30 s, 1000 bytes in, 1 out (VMAC 2222222222222222)",
            )
        ]

    def test_a_setting_ended_it(self, talk: Talk) -> None:
        talk.member(ip(5))
        talk.now += 2
        talk.keep(talk.network.set_passwords(Passwords([Password(NEW)]), talk.now, talk.wall))
        assert talk.logged("logged out") == [
            ("info", f"203.0.113.1: 192.168.202.5 logged out after 2 s, 1000 bytes in, 1 out: {WRONG}")
        ]

    @pytest.mark.parametrize(
        ("vmac", "source", "device"),
        [(ONE, "2001:db8::5", "1111111111111111"), (None, "2001:db8::5", "2001:db8::/64"), (None, "203.0.113.9", None)],
    )
    def test_a_device_has_a_limit_for_coming_and_one_for_going(
        self, talk: Talk, vmac: bytes | None, source: str, device: str | None
    ) -> None:
        """Else a member that logs in again and again would fill a disk."""
        connection = talk.open(source)
        if vmac is not None:
            talk.vmac(connection, vmac)
        digest = auth.auth_digest(PASSWORD, ip(5), talk.wall)
        claim = wire.Auth(ip(5), talk.wall, digest).encode()
        came = talk.network.received(connection, claim, talk.now, talk.wall)[-1]
        (went,) = talk.network.closed(connection, talk.now, talk.wall, "peer")
        assert isinstance(came, Log)
        assert isinstance(went, Log)
        for line, kind in ((came, "logged in"), (went, "logged out")):
            assert (line.kind, line.source, line.at_once, line.of_member) == (kind, device or source, 3, True)
            assert "kind" not in line.about

    def test_every_line_of_a_member_has_its_name(self, talk: Talk) -> None:
        member = talk.member(ip(5), ONE)
        assert talk.keep(talk.network.pinged(member, Hello(name="a laptop").encode(), talk.now, talk.wall)) == []
        talk.now += 2
        (line,) = talk.network.closed(member, talk.now, talk.wall, "eof")
        assert isinstance(line, Log)
        assert line.text.endswith(": its connection ended (a laptop, VMAC 1111111111111111)")
        assert line.about["name"] == "a laptop"
