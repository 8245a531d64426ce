"""Who may tell whom where it is: members who came by one password, wherever direct links and old clients may be."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from kit.keyed import Keyed, link_of
from kit.login import DEVICE, WALL, by_password, psk_of
from kit.login import OTHER as OTHER_DEVICE
from kit.login import PASSWORD as KEYED_PASSWORD
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
ENDPOINT = bytes([192, 168, 1, 5, 19, 136])


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


def general(last: int, *, subtype: int = 0, extra: int = 0) -> bytes:
    to = wire.BROADCAST if last == 255 else ip(last)
    return wire.General(subtype, extra, ip(5), to, ENDPOINT).encode()


@pytest.mark.parametrize("extra", [0, 1])
def test_lan_endpoints_stay_within_one(both: Talk, extra: int) -> None:
    five, six, seven = bound(both, 5), bound(both, 6, OTHER), bound(both, 7)
    refused = [Drop(five.connection, DropReason.NO_ACQUAINTANCE)]
    assert both.receive(five.connection, general(6, extra=extra)) == refused
    for message in (general(7, extra=extra), general(255, extra=extra)):
        assert both.receive(five.connection, message) == [Send(seven.connection, message)]
    for message in (general(6, subtype=1), general(255, subtype=1)):
        assert Send(six.connection, message) in both.receive(five.connection, message)
    both.network.set_direct(False)
    for message in (general(7, extra=extra), general(255, extra=extra)):
        assert both.receive(five.connection, message) == refused


def test_what_an_operator_switches_off_and_on_counts_at_once(both: Talk) -> None:
    five, six = bound(both, 5), bound(both, 6, OTHER)
    assert both.network.set_direct(True) == []
    assert both.network.set_direct(False) == [replace(five, circle=0), replace(six, circle=0)]
    assert both.network.set_direct(False) == []
    assert both.network.set_direct(True) == [five, six]


def test_so_do_old_clients() -> None:
    """Those with keys stay, for whom there are none any more, or again."""
    keyed = Keyed()
    keyed.member(by_password())
    assert keyed.bound is not None
    assert keyed.network.set_legacy(False, keyed.now) == [replace(keyed.bound, circle=0)]
    assert keyed.network.set_legacy(True, keyed.now) == [keyed.bound]


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


def replaced(keyed: Keyed, secret: bytes = b"replaced") -> Password:
    """The network has another password under the name of the one before."""
    password = Password(secret, KEYED_PASSWORD.name)
    keyed.talk.enrolment.stretched[secret] = psk_of(secret)
    keyed.keep(keyed.network.set_passwords(Passwords([password]), keyed.now, keyed.wall))
    return password


def test_who_has_a_key_knows_no_password_that_replaced_its_own() -> None:
    keyed = Keyed()
    _, outcome = keyed.member(by_password())
    before = keyed.bound
    assert before is not None
    password = replaced(keyed)
    assert keyed.network.set_legacy(True, keyed.now) == [replace(before, circle=0)]
    keyed.member(Credentials(ticket=outcome.ticket))
    assert circle_of(keyed) == 0
    # It has shown that it knows this one.
    keyed.member(by_password(password))
    assert circle_of(keyed) == 2
    keyed.member(Credentials(ticket=outcome.ticket))
    assert circle_of(keyed) == 2
    keyed.member(by_password(password), OTHER_DEVICE)
    assert circle_of(keyed) == 2
    # And its own again, as the relay starts again without the one between.
    replaced(keyed, KEYED_PASSWORD.secret)
    keyed.member(Credentials(ticket=outcome.ticket))
    assert circle_of(keyed) == 0


def test_of_a_record_of_before_the_name_counts_once() -> None:
    keyed = Keyed()
    _, outcome = keyed.member(by_password())
    device = keyed.talk.enrolment.get(DEVICE.public)
    assert device is not None
    keyed.talk.enrolment.learn(replace(device, knows=b""))
    keyed.member(Credentials(ticket=outcome.ticket))
    assert circle_of(keyed) == 1
    assert keyed.talk.enrolment.get(DEVICE.public) == device
    replaced(keyed)
    keyed.member(Credentials(ticket=outcome.ticket))
    assert circle_of(keyed) == 0


def test_who_was_invited_is_in_none_by_a_password_that_it_shows() -> None:
    keyed = Keyed()
    its = keyed.talk.enrolment.invite("phone", None, 1, WALL + 60, WALL)
    keyed.member(Credentials(invitation=link_of(its)))
    keyed.member(by_password())
    assert circle_of(keyed) == 0


def test_who_was_invited_is_in_none() -> None:
    keyed = Keyed()
    its = keyed.talk.enrolment.invite("phone", None, 1, WALL + 60, WALL)
    keyed.member(Credentials(invitation=link_of(its)))
    assert circle_of(keyed) == 0


def test_without_old_clients_there_is_none() -> None:
    keyed = Keyed(options={"legacy": False})
    keyed.member(by_password())
    assert circle_of(keyed) == 0
