"""Who is refused by a session, in memory: wrong hashes, clocks, replays, and what is out of order or comes too late."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface

import pytest
from kit.talk import FAILED, ONE, PASSWORD, TAKEN_OVER, WALL, Talk, ip

from candy.protocol import auth, wire
from candy.protocol.actions import Close, Drop, Send
from candy.protocol.wire import DropReason
from candy.relay.session import Action, Bind, Unbind

Speak = Callable[[Talk, int, bytes, int], list[Action]]
HASHED: dict[str, Speak] = {
    "VMAC": lambda talk, connection, password, skew: talk.vmac(connection, ONE, password, skew),
    "EXPTTUN": lambda talk, connection, password, skew: talk.expttun(connection, "0.0.0.0/0", password, skew),
    "AUTH": lambda talk, connection, password, skew: talk.auth(connection, ip(5), password, skew),
}


@pytest.mark.parametrize("kind", HASHED)
def test_a_wrong_hash_is_closed_without_a_word(talk: Talk, kind: str) -> None:
    connection = talk.open("198.51.100.1")
    assert HASHED[kind](talk, connection, b"wrong", 0) == [Close(connection, None, FAILED)]
    assert talk.log == [("warning", f"198.51.100.1: refused: wrong password in {kind}")]
    assert talk.auth(connection, ip(5)) == []


@pytest.mark.parametrize("kind", HASHED)
@pytest.mark.parametrize("skew", [301, -301, 10**9, 2**63 - 1 - WALL, -(2**63) - WALL])
def test_a_timestamp_outside_the_window_is_closed_without_a_word(talk: Talk, kind: str, skew: int) -> None:
    connection = talk.open("198.51.100.1")
    assert HASHED[kind](talk, connection, PASSWORD, skew) == [Close(connection, None, FAILED)]
    assert talk.log == [
        ("warning", f"198.51.100.1: refused: {kind} is {skew:+d} s off this clock, 300 s are tolerated")
    ]


@pytest.mark.parametrize("kind", HASHED)
@pytest.mark.parametrize("skew", [300, -300])
def test_a_timestamp_at_the_edge_of_the_window_is_fine(talk: Talk, kind: str, skew: int) -> None:
    actions = HASHED[kind](talk, talk.open(), PASSWORD, skew)
    assert not [action for action in actions if isinstance(action, Close)]


def test_the_window_is_an_option() -> None:
    talk = Talk(tolerance=5)
    assert talk.auth(talk.open(), ip(5), skew=6) == [Close(1, None, FAILED)]
    assert talk.auth(talk.open(), ip(5), skew=5) == [Bind(2, int(ip(5)))]


def test_an_auth_that_was_refused_for_its_address_is_a_replay_the_second_time(talk: Talk) -> None:
    holder = talk.member(ip(7))
    newcomer, payload = talk.contest(ip(7), holder)
    assert talk.pong(holder, payload) == [Close(newcomer, None, FAILED)]
    talk.close(holder)
    assert talk.auth(talk.open(), ip(7)) == [Close(3, None, FAILED)]
    assert talk.logged("AUTH for 192.168.202.7 is a replay")


def test_only_wrong_hashes_count_as_failures(talk: Talk) -> None:
    office = "198.51.100.1"
    for _ in range(100):
        connection = talk.open(office)
        assert talk.auth(connection, ip(5), skew=400) == [Close(connection, None, FAILED)]
    connection = talk.open(office)
    assert talk.auth(connection, ip(5), b"wrong") == [Close(connection, None, FAILED)]


@pytest.mark.parametrize("kind", HASHED)
def test_every_hashed_message_cut_short_is_dropped_and_the_login_goes_on(talk: Talk, kind: str) -> None:
    whole = {
        "VMAC": wire.Vmac(ONE, WALL, auth.vmac_digest(PASSWORD, ONE, WALL)).encode(),
        "EXPTTUN": wire.Expttun(WALL, IPv4Interface("0.0.0.0/0"), auth.expttun_digest(PASSWORD, WALL)).encode(),
        "AUTH": wire.Auth(ip(5), WALL, auth.auth_digest(PASSWORD, ip(5), WALL)).encode(),
    }[kind]
    connection = talk.open()
    for length in range(1, len(whole)):
        assert talk.receive(connection, whole[:length]) == [Drop(connection, "too_short")]
    assert talk.auth(connection, ip(5)) == [Bind(connection, int(ip(5)))]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", DropReason.EMPTY_MESSAGE),
        (b"\x07" + bytes(100), DropReason.UNKNOWN_KIND),
        (b"\x01" + bytes(40), DropReason.UNKNOWN_KIND),
        (b"\x10" + bytes(40), DropReason.UNKNOWN_KIND),
        (b"\x02" + bytes(8) + b"10.0.0.1/33".ljust(32, b"\0") + bytes(32), DropReason.BAD_CIDR),
        (b"\x06\x01\0\0" + bytes.fromhex("0a000000 ff00ff00 0a000001"), DropReason.BAD_MASK),
        (wire.Route(()).encode(), DropReason.UNEXPECTED_KIND),
    ],
)
def test_what_means_nothing_is_dropped_before_and_after_login(talk: Talk, message: bytes, reason: DropReason) -> None:
    connection = talk.open()
    assert talk.receive(connection, message) == [Drop(connection, reason)]
    member = talk.member(ip(5))
    assert talk.receive(member, message) == [Drop(member, reason)]


def test_a_replayed_auth_is_refused_on_another_connection(talk: Talk) -> None:
    message = wire.Auth(ip(5), WALL, auth.auth_digest(PASSWORD, ip(5), WALL)).encode()
    first = talk.open()
    assert talk.receive(first, message) == [Bind(first, int(ip(5)))]
    talk.close(first)
    for talk.wall in (WALL, WALL + 300, WALL - 300):
        thief = talk.open("198.51.100.1")
        assert talk.receive(thief, message) == [Close(thief, None, FAILED)]
        assert talk.log[-1] == ("warning", "198.51.100.1: refused: AUTH for 192.168.202.5 is a replay")


def test_a_replay_is_refused_also_when_only_the_confusion_differs(talk: Talk) -> None:
    message = wire.Auth(ip(5), WALL, auth.auth_digest(PASSWORD, ip(5), WALL))
    assert talk.receive(talk.open(), message.encode()) == [Bind(1, int(ip(5)))]
    assert talk.receive(talk.open(), message.encode(b"\x00")) == [Close(2, None, FAILED)]


def test_a_clock_set_back_makes_no_forgotten_auth_valid(talk: Talk) -> None:
    message = wire.Auth(ip(5), WALL, auth.auth_digest(PASSWORD, ip(5), WALL)).encode()
    assert talk.receive(talk.open(), message) == [Bind(1, int(ip(5)))]
    talk.close(1)
    talk.wall = WALL + 301
    assert talk.auth(talk.open(), ip(6)) == [Bind(2, int(ip(6)))]
    talk.wall = WALL
    thief = talk.open("198.51.100.1")
    assert talk.receive(thief, message) == [Close(thief, None, FAILED)]
    ((level, text),) = talk.logged("AUTH for 192.168.202.5 may be a replay")
    assert level == "warning"
    assert "the clock was set back" in text


@pytest.mark.parametrize("second", [ip(5), ip(6)])
@pytest.mark.parametrize("password", [PASSWORD, b"wrong"])
def test_the_first_auth_of_a_connection_stands(talk: Talk, second: IPv4Address, password: bytes) -> None:
    connection = talk.member(ip(5))
    assert talk.auth(connection, second, password) == [Drop(connection, DropReason.SECOND_AUTH)]
    other = talk.member(ip(9))
    message = wire.Discovery(ip(9), ip(5)).encode()
    assert talk.receive(other, message) == [Send(connection, message)]


def test_what_belongs_before_auth_is_dropped_after_it(talk: Talk) -> None:
    connection = talk.member(ip(5))
    assert talk.vmac(connection, ONE) == [Drop(connection, DropReason.VMAC_AFTER_AUTH)]
    assert talk.expttun(connection) == [Drop(connection, DropReason.EXPTTUN_AFTER_AUTH)]
    waiting, _ = talk.contest(ip(5), connection)
    assert talk.auth(waiting, ip(6)) == [Drop(waiting, DropReason.SECOND_AUTH)]
    assert talk.vmac(waiting, ONE) == [Drop(waiting, DropReason.VMAC_AFTER_AUTH)]
    assert talk.expttun(waiting) == [Drop(waiting, DropReason.EXPTTUN_AFTER_AUTH)]


def test_a_vmac_after_expttun_still_counts(talk: Talk) -> None:
    first = talk.open()
    talk.granted(first)
    assert talk.vmac(first, ONE) == []
    assert talk.auth(first, ip(1)) == [Bind(first, int(ip(1)))]
    second, actions = talk.newcomer(ip(1), ONE)
    assert actions == [Unbind(first), Close(first, 4001, TAKEN_OVER), Bind(second, int(ip(1)))]


def test_whoever_does_not_authenticate_in_time_is_closed_without_a_word(talk: Talk) -> None:
    connection = talk.open()
    talk.now += 4
    later = talk.open()
    assert talk.network.next_deadline() == 1010.0
    talk.now = 1009.999
    assert talk.expire() == []
    talk.now = 1010.0
    assert talk.expire() == [Close(connection, None, "authentication timed out")]
    assert talk.auth(connection, ip(5)) == []
    assert talk.network.next_deadline() == 1014.0
    assert talk.auth(later, ip(5)) == [Bind(later, int(ip(5)))]
    assert talk.network.next_deadline() is None
    talk.now = 1e9
    assert talk.expire() == []


def test_the_authentication_deadline_is_an_option() -> None:
    talk = Talk(authentication_timeout=1.5)
    talk.open()
    assert talk.network.next_deadline() == 1001.5


def test_many_connections_expire_together_in_order(talk: Talk) -> None:
    connections = [talk.open() for _ in range(50)]
    talk.close(connections[10])
    talk.auth(connections[20], ip(5))
    talk.now += 10
    expired = [action.connection for action in talk.expire() if isinstance(action, Close)]
    assert expired == connections[:10] + connections[11:20] + connections[21:]


def test_what_is_reported_of_an_unknown_connection_is_ignored(talk: Talk) -> None:
    assert talk.auth(99, ip(5)) == []
    assert talk.pong(99, b"candy-probe:") == []
    assert talk.close(99) == []
    connection = talk.open()
    assert talk.close(connection) == []
    assert talk.close(connection) == []
    assert talk.auth(connection, ip(5)) == []
