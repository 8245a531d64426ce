"""Who may tell whom where it is: members who came by one password, wherever direct links and old clients may be."""

from ipaddress import IPv4Address

import pytest
from kit.keyed import Keyed, link_of
from kit.login import WALL, by_password
from kit.talk import PASSWORD, Talk, ip

from candy.member.login import Credentials
from candy.protocol import wire
from candy.protocol.actions import Drop, Send
from candy.protocol.wire import DropReason
from candy.relay.passwords import Circles, Password, Passwords
from candy.relay.session import Bind

OTHER = b"the other one"
UDP4CONN = wire.Udp4Conn(ip(5), ip(6), IPv4Address("203.0.113.5"), 4000).encode()
DISCOVERY = wire.Discovery(ip(5), ip(6)).encode()


def test_a_circle_is_a_password() -> None:
    circles = Circles()
    assert [circles.of(each) for each in (Password(b"a"), Password(b"b"), Password(b"a", "renamed"))] == [1, 2, 1]
    assert circles.of(None) == 0
    circles.keep(Passwords([Password(b"b")]))
    assert [circles.of(each) for each in (Password(b"b"), Password(b"a"))] == [2, 3]


@pytest.fixture
def both() -> Talk:
    talk = Talk()
    talk.network.set_passwords(Passwords([Password(PASSWORD), Password(OTHER)]), talk.now, talk.wall)
    return talk


def bound(talk: Talk, last: int, password: bytes = PASSWORD) -> Bind:
    [bind] = talk.auth(talk.open(), ip(last), password)
    assert isinstance(bind, Bind)
    return bind


def test_members_of_two_passwords_are_in_two(both: Talk) -> None:
    five, six, seven = bound(both, 5), bound(both, 6, OTHER), bound(both, 7)
    assert (five.circle, six.circle, seven.circle) == (1, 2, 1)
    # Before the engine has heard that the sender is a member, Python sees what it says.
    assert both.receive(five.connection, UDP4CONN) == [Drop(five.connection, DropReason.NO_ACQUAINTANCE)]
    assert both.receive(five.connection, DISCOVERY) == [Send(six.connection, DISCOVERY)]
    to_seven = wire.Udp4Conn(ip(5), ip(7), ip(5), 1).encode()
    assert both.receive(five.connection, to_seven) == [Send(seven.connection, to_seven)]


def test_a_network_without_links_has_none() -> None:
    talk = Talk(direct=False)
    five, six = bound(talk, 5), bound(talk, 6)
    assert (five.circle, six.circle) == (0, 0)
    assert talk.receive(five.connection, UDP4CONN) == [Drop(five.connection, DropReason.NO_ACQUAINTANCE)]


def circle_of(keyed: Keyed) -> int:
    """Of its last member."""
    assert keyed.bound is not None
    return keyed.bound.circle


def test_who_has_a_key_is_in_that_of_its_password() -> None:
    """Also when it comes by the credential that it was given for it."""
    keyed = Keyed()
    _, outcome = keyed.member(by_password())
    assert circle_of(keyed) == 1
    keyed.member(Credentials(ticket=outcome.ticket))
    assert circle_of(keyed) == 1


def test_who_was_invited_is_in_none() -> None:
    keyed = Keyed()
    its = keyed.talk.enrolment.invite("phone", None, 1, WALL + 60, WALL)
    keyed.member(Credentials(invitation=link_of(its)))
    assert circle_of(keyed) == 0


def test_without_old_clients_there_is_none() -> None:
    keyed = Keyed(options={"legacy": False})
    keyed.member(by_password())
    assert circle_of(keyed) == 0
