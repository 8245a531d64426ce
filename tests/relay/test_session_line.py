"""The line in which log-ins of a source wait that has failed too often, in memory: who waits, for how long, and that
nothing tells a right guess from a wrong one before its turn."""

from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from kit.talk import FAILED, ONE, PASSWORD, TWO, WALL, Talk, ip, network

from candy.protocol import auth, wire
from candy.protocol.actions import Close, Drop, Log, Ping, Send
from candy.protocol.wire import DropReason
from candy.relay.devices import TRUSTED_FAILURES
from candy.relay.guessing import LONGEST_WAIT_S, TURNS_PER_S, FailureLimiter
from candy.relay.network import Network
from candy.relay.session import HELD_MAX, Action, Bind

OFFICE = "198.51.100.1"
TURN_S = 1 / TURNS_PER_S
PLACES = int(LONGEST_WAIT_S * TURNS_PER_S)
Speak = Callable[[Talk, int, bytes], list[Action]]
HASHED: dict[str, Speak] = {
    "VMAC": lambda talk, connection, password: talk.vmac(connection, ONE, password),
    "EXPTTUN": lambda talk, connection, password: talk.expttun(connection, "0.0.0.0/0", password),
    "AUTH": lambda talk, connection, password: talk.auth(connection, ip(5), password),
}


@pytest.fixture
def guessed(talk: Talk) -> Talk:
    """Somebody at the office has guessed up to the limit."""
    for _ in range(60):
        assert guess(talk) == [Close(talk.connections, None, FAILED)]
    talk.log.clear()
    return talk


def guess(talk: Talk, address: IPv4Address | None = None, source: str = OFFICE) -> list[Action]:
    return talk.auth(talk.open(source), address or ip(250), b"wrong")


def next_turn(talk: Talk) -> list[Action]:
    when = talk.network.next_deadline()
    assert when is not None
    talk.now = when
    return talk.expire()


def test_the_failure_that_reaches_the_limit_is_logged_and_those_in_line_are_for_debugging(talk: Talk) -> None:
    for _ in range(60):
        guess(talk)
    assert talk.log[-2:] == [
        ("warning", f"{OFFICE}: refused: wrong password in AUTH"),
        (
            "warning",
            f"{OFFICE}: too many wrong passwords within a minute: log-ins from its address wait in line from now on",
        ),
    ]
    guess(talk)
    next_turn(talk)
    assert talk.log[60:][-1] == ("warning", f"{OFFICE}: refused: wrong password in AUTH")


@pytest.mark.parametrize("kind", HASHED)
def test_right_and_wrong_wait_alike(guessed: Talk, kind: str) -> None:
    for password in (PASSWORD, b"wrong"):
        assert HASHED[kind](guessed, guessed.open(OFFICE), password) == []
    assert guessed.log == []
    guessed.now += TURN_S * 0.99
    assert guessed.expire() == []


def test_of_sixteen_guesses_at_once_one_shows_a_turn_in_the_order_of_their_coming(guessed: Talk) -> None:
    connections = [guessed.open(OFFICE) for _ in range(16)]
    for number, connection in enumerate(connections):
        assert guessed.auth(connection, ip(number + 1), PASSWORD if number % 2 else b"wrong") == []
    start = guessed.now
    for number, connection in enumerate(connections):
        shown: Action = Bind(connection, int(ip(number + 1))) if number % 2 else Close(connection, None, FAILED)
        assert next_turn(guessed) == [shown]
        assert guessed.now == start + (number + 1) * TURN_S


def test_the_line_is_bounded_and_what_is_over_is_closed(guessed: Talk) -> None:
    outcomes = [guess(guessed) for _ in range(PLACES + 3)]
    surplus = [
        [Close(connection, None, FAILED)] for connection in range(guessed.connections - 2, guessed.connections + 1)
    ]
    assert outcomes == [[]] * PLACES + surplus
    assert guessed.log == [("warning", f"{OFFICE}: refused: too many log-ins from its address wait in line")] * 3
    # They are forgotten, and who waits is not.
    assert guessed.auth(guessed.connections, ip(5)) == []
    assert next_turn(guessed) == [Close(61, None, FAILED)]


def test_another_source_does_not_wait(guessed: Talk) -> None:
    guess(guessed)
    other = guessed.open("198.51.100.2")
    assert guessed.auth(other, ip(5)) == [Bind(other, int(ip(5)))]


def test_hosts_of_one_ipv6_network_wait_in_one_line(talk: Talk) -> None:
    for number in range(60):
        guess(talk, source=f"2001:db8::{number:x}")
    assert guess(talk, source="2001:db8::ffff") == []
    assert guess(talk, source="2001:db8:0:1::1") == [Close(talk.connections, None, FAILED)]


def test_all_that_comes_before_the_turn_is_acted_on_then(guessed: Talk) -> None:
    connection = guessed.open(OFFICE)
    assert guessed.vmac(connection, ONE) == []
    assert guessed.expttun(connection) == []
    assert guessed.auth(connection, ip(1)) == []
    relayed = wire.Discovery(ip(1), wire.BROADCAST).encode()
    assert guessed.receive(connection, relayed) == [Drop(connection, DropReason.NOT_AUTHENTICATED)]
    answer, bind = next_turn(guessed)
    assert isinstance(answer, Send)
    assert bind == Bind(connection, int(ip(1)))
    assert guessed.network.next_deadline() is None


def test_what_is_kept_for_the_turn_is_bounded(guessed: Talk) -> None:
    connection = guessed.open(OFFICE)
    assert [guessed.vmac(connection, ONE) for _ in range(HELD_MAX)] == [[]] * HELD_MAX
    assert guessed.auth(connection, ip(5)) == [Drop(connection, "events")]


def test_nothing_is_acted_on_behind_a_wrong_hash(guessed: Talk) -> None:
    connection = guessed.open(OFFICE)
    for password in (b"wrong", PASSWORD):
        assert guessed.auth(connection, ip(5), password) == []
    assert next_turn(guessed) == [Close(connection, None, FAILED)]
    assert guessed.network.next_deadline() is None


def test_what_comes_behind_the_turn_does_not_wait_again_but_there_is_one_guess(guessed: Talk) -> None:
    honest, guesser = guessed.open(OFFICE), guessed.open(OFFICE)
    for connection in (honest, guesser):
        assert guessed.expttun(connection) == []
        assert isinstance(next_turn(guessed)[0], Send)
    assert guessed.auth(honest, ip(1)) == [Bind(honest, int(ip(1)))]
    assert guessed.auth(guesser, ip(2), b"wrong") == [Close(guesser, None, FAILED)]
    assert guessed.auth(guesser, ip(2)) == []


def test_a_connection_that_was_judged_before_the_limit_waits_behind_it(talk: Talk) -> None:
    """Else a sniffed VMAC on many connections would be as many guesses at once."""
    early = talk.open(OFFICE)
    assert talk.vmac(early, ONE) == []
    for _ in range(60):
        guess(talk)
    assert talk.auth(early, ip(5)) == []
    assert next_turn(talk) == [Bind(early, int(ip(5)))]


def test_the_deadline_stands_still_in_line(guessed: Talk) -> None:
    connection = guessed.open(OFFICE)
    guessed.now += 9.9
    for _ in range(PLACES - 1):
        guess(guessed)
    assert guessed.vmac(connection, ONE) == []
    guessed.now += LONGEST_WAIT_S - 0.1
    assert Close(connection, None, "authentication timed out") not in guessed.expire()
    # Behind its turn it has the tenth of a second that it had left.
    assert next_turn(guessed) == []
    assert next_turn(guessed) == [Close(connection, None, "authentication timed out")]
    assert guessed.now == pytest.approx(1000.0 + 9.9 + LONGEST_WAIT_S + 0.1)


def test_who_leaves_the_line_is_forgotten(guessed: Talk) -> None:
    gone, stays = guessed.open(OFFICE), guessed.open(OFFICE)
    for connection in (gone, stays):
        assert guessed.auth(connection, ip(connection)) == []
    assert guessed.close(gone) == []
    assert next_turn(guessed) == [Bind(stays, int(ip(stays)))]
    assert guessed.network.next_deadline() is None


def test_a_held_address_is_probed_for_behind_the_turn(guessed: Talk) -> None:
    holder = guessed.member(ip(5))
    newcomer = guessed.open(OFFICE)
    assert guessed.auth(newcomer, ip(5), skew=1) == []
    (ping,) = next_turn(guessed)
    assert isinstance(ping, Ping)
    assert guessed.pong(holder, ping.payload) == [Close(newcomer, None, FAILED)]


# A device that has been here


def test_a_device_that_has_been_here_does_not_wait(guessed: Talk) -> None:
    guessed.member(ip(5), ONE)
    for _ in range(PLACES):
        guess(guessed)
    back = guessed.open(OFFICE)
    assert guessed.vmac(back, ONE) == []
    assert guessed.granted(back) == "192.168.202.1/24"
    assert guessed.auth(back, ip(1)) == [Bind(back, int(ip(1)))]


def test_a_device_that_has_not_waits(guessed: Talk) -> None:
    guessed.member(ip(5), ONE)
    new = guessed.open(OFFICE)
    assert guessed.vmac(new, TWO) == []
    assert guessed.auth(new, ip(6)) == []
    assert next_turn(guessed) == [Bind(new, int(ip(6)))]


@pytest.mark.parametrize("in_vmac", [True, False])
def test_a_sniffed_vmac_is_good_for_ten_guesses_an_hour(guessed: Talk, in_vmac: bool) -> None:
    """By guessing with the VMAC itself, or behind a VMAC that was sniffed whole."""
    guessed.member(ip(5), ONE)
    sniffed = wire.Vmac(ONE, guessed.wall, auth.vmac_digest(PASSWORD, ONE, guessed.wall)).encode()

    def attempt() -> list[Action]:
        connection = guessed.open(OFFICE)
        if in_vmac:
            return guessed.vmac(connection, ONE, b"wrong")
        return guessed.receive(connection, sniffed) + guessed.auth(connection, ip(6), b"wrong")

    outcomes = [attempt() for _ in range(TRUSTED_FAILURES + 1)]
    assert [len(actions) for actions in outcomes] == [1] * TRUSTED_FAILURES + [0]
    [(level, line)] = guessed.logged("under one VMAC")
    said = "too many wrong passwords within an hour under one VMAC: it waits in line from now on, too"
    assert (level, line.removesuffix(" (VMAC 1111111111111111)")) == ("warning", f"{OFFICE}: {said}")


def test_a_device_whose_vmac_was_sniffed_waits_until_its_first_log_in_behind_the_hour(guessed: Talk) -> None:
    guessed.member(ip(5), ONE)
    for _ in range(TRUSTED_FAILURES):
        guessed.vmac(guessed.open(OFFICE), ONE, b"wrong")
    for pause, waits in ((0.0, True), (3600.0, True), (1.0, False)):
        guessed.now += pause
        guessed.wall += 1 + int(pause)
        if pause == 3600.0:
            for _ in range(60):
                guess(guessed)
        back = guessed.open(OFFICE)
        guessed.vmac(back, ONE)
        assert (Bind(back, int(ip(5))) in guessed.auth(back, ip(5))) is not waits
        if waits:
            assert Bind(back, int(ip(5))) in next_turn(guessed)


def test_guesses_that_are_sent_at_once_under_one_vmac_are_no_more(guessed: Talk) -> None:
    guessed.member(ip(5), ONE)
    connections = [guessed.open(OFFICE) for _ in range(TRUSTED_FAILURES + 5)]
    for connection in connections:
        assert guessed.vmac(connection, ONE) == []
    outcomes = [guessed.auth(connection, ip(6), b"wrong") for connection in connections]
    assert [len(actions) for actions in outcomes] == [1] * TRUSTED_FAILURES + [0] * 5


# Over several networks


def test_failures_are_counted_over_all_networks_and_trust_is_not() -> None:
    failures = FailureLimiter(limit=1)
    one, two = (network(None, failures=failures) for _ in range(2))

    def log_in(which: Network, connection: int, password: bytes, skew: int) -> list[Action]:
        wall = WALL + skew
        messages = (
            wire.Vmac(ONE, wall, auth.vmac_digest(password, ONE, wall)),
            wire.Auth(ip(5), wall, auth.auth_digest(password, ip(5), wall)),
        )
        which.opened(connection, OFFICE, 0.0)
        actions = [action for each in messages for action in which.received(connection, each.encode(), 0.0, wall)]
        return [action for action in actions if not isinstance(action, Log)]

    assert log_in(one, 1, PASSWORD, 0) == [Bind(1, int(ip(5)))]
    assert log_in(one, 2, b"wrong", 0) == [Close(2, None, FAILED)]
    assert log_in(two, 3, PASSWORD, 0) == []
    assert two.next_deadline() == TURN_S
    assert Bind(4, int(ip(5))) in log_in(one, 4, PASSWORD, 1)
