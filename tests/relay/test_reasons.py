"""Who is told why its log-in failed, or its connection ends, in memory: with candy.2, and behind the right hash."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

import pytest
from kit.talk import FAILED, ONE, TAKEN_OVER, TWO, Talk, ip

from candy.protocol.actions import Close, Ping
from candy.relay.rules import Rule, Rules
from candy.relay.session import Action, Bind

HOST = 1 << 32
POOL = "192.168.202.0/30"


def clock(talk: Talk, extended: bool, skew: int = -900) -> list[Action]:
    return talk.vmac(talk.open(extended=extended), ONE, skew=skew)


def no_pool(talk: Talk, extended: bool) -> list[Action]:
    talk.network = Talk(None).network
    return talk.expttun(talk.open(extended=extended))


def pool_full(talk: Talk, extended: bool) -> list[Action]:
    talk.member(ip(1))
    talk.member(ip(2))
    return talk.expttun(talk.open(extended=extended))


def outside_pool(talk: Talk, extended: bool) -> list[Action]:
    return talk.newcomer(IPv4Address("10.9.0.5"), extended=extended)[1]


def nobody_has_it(talk: Talk, extended: bool) -> list[Action]:
    return talk.newcomer(IPv4Address("127.0.0.1"), extended=extended)[1]


def held(talk: Talk, extended: bool) -> list[Action]:
    holder = talk.member(ip(1), ONE)
    _, (ping,) = talk.newcomer(ip(1), TWO, extended=extended)
    assert isinstance(ping, Ping)
    return talk.pong(holder, ping.payload)


def contested(talk: Talk, extended: bool) -> list[Action]:
    talk.contest(ip(1), talk.member(ip(1), ONE))
    return talk.newcomer(ip(1), TWO, extended=extended)[1]


def reserved(talk: Talk, extended: bool) -> list[Action]:
    talk.granted(talk.open())
    return talk.newcomer(ip(1), TWO, extended=extended)[1]


def of_the_relay(talk: Talk, extended: bool) -> list[Action]:
    talk.network.host(HOST, ip(1))
    return talk.newcomer(ip(1), TWO, extended=extended)[1]


def replaced(talk: Talk, extended: bool) -> list[Action]:
    talk.member(ip(1), ONE, extended=extended)
    return talk.newcomer(ip(1), ONE)[1]


def unanswered(talk: Talk, extended: bool) -> list[Action]:
    talk.contest(ip(1), talk.member(ip(1), ONE, extended=extended), TWO)
    talk.now += 3
    return talk.expire()


TOLD: list[tuple[Callable[[Talk, bool], list[Action]], tuple[int, str], tuple[int | None, str]]] = [
    (clock, (4006, "the member's clock is 900 s behind the relay's, which tolerates 300 s"), (None, FAILED)),
    (
        no_pool,
        (4003, "the network has no address pool: a member needs a fixed address"),
        (1013, "the network has no address pool: a member needs a fixed address"),
    ),
    (
        pool_full,
        (4004, f"the pool {POOL} is full: all 2 addresses are in use"),
        (1013, f"the pool {POOL} is full: all 2 addresses are in use"),
    ),
    (outside_pool, (4005, f"10.9.0.5 is not a member's address in the pool {POOL}"), (None, FAILED)),
    (nobody_has_it, (4005, "127.0.0.1 is not an address that a member can have"), (None, FAILED)),
    (held, (4002, "192.168.202.1 is held by another member, which answers"), (None, FAILED)),
    (contested, (4002, "another newcomer waits for 192.168.202.1 already"), (None, FAILED)),
    (reserved, (4002, "192.168.202.1 was granted to another member that is about to log in"), (None, FAILED)),
    (of_the_relay, (4002, "192.168.202.1 is the relay's own"), (None, FAILED)),
    (replaced, (4001, "another connection with the same VMAC took 192.168.202.1 over"), (4001, TAKEN_OVER)),
    (
        unanswered,
        (4007, "another member got 192.168.202.1, because this one did not answer a ping"),
        (4001, TAKEN_OVER),
    ),
]


@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize(("cause", "new", "old"), TOLD)
def test_the_reason_is_told_with_the_extension_and_an_old_peer_gets_what_it_got(
    cause: Callable[[Talk, bool], list[Action]],
    new: tuple[int, str],
    old: tuple[int | None, str],
    extended: bool,
) -> None:
    [close] = [action for action in cause(Talk(POOL), extended) if isinstance(action, Close)]
    assert (close.code, close.reason) == (new if extended else old)
    # A close frame has room for as much, and what is cut would not be read.
    assert len(close.reason.encode("ascii")) <= 123


@pytest.mark.parametrize(("skew", "words"), [(301, "301 s ahead of"), (-(2**62), f"{2**62} s behind")])
def test_a_clock_by_as_much_as_it_is_off(skew: int, words: str) -> None:
    [close] = [action for action in clock(Talk(), True, skew) if isinstance(action, Close)]
    assert words in close.reason
    assert len(close.reason) <= 123


def silence(talk: Talk) -> list[Action]:
    """The newest connection ends without a word."""
    return [Close(talk.connections, None, FAILED)]


def test_nothing_is_told_before_the_password_is_proven() -> None:
    """A peer without it learns nothing of clocks, pools and members: neither by a wrong hash, however wrong its
    time and address are, nor by being late."""
    talk = Talk(None)
    for skew in (0, 10**6):
        assert talk.vmac(talk.open(extended=True), ONE, b"wrong", skew) == silence(talk)
        assert talk.expttun(talk.open(extended=True), "0.0.0.0/0", b"wrong", skew) == silence(talk)
        assert talk.auth(talk.open(extended=True), IPv4Address("127.0.0.1"), b"wrong", skew) == silence(talk)
    late = talk.open(extended=True)
    talk.now += 10
    assert talk.expire() == [Close(late, None, "authentication timed out")]


def test_a_replayed_auth_is_told_nothing(talk: Talk) -> None:
    """Its bytes may have been read off the wire: they prove nothing."""
    for expected in (Bind(1, int(ip(5))), Close(2, None, FAILED)):
        assert talk.auth(talk.open(extended=True), ip(5)) == [expected]


def test_changed_rules_and_a_full_network_have_one_code_for_all() -> None:
    for extended in (False, True):
        talk = Talk(max_members=1)
        talk.member(ip(1), extended=extended)
        full = Close(2, 1013, "the network is full: 1 members are in")
        assert talk.newcomer(ip(2), extended=extended)[1] == [full]
    talk = Talk()
    old = talk.member(ip(1))
    rules = Rules([Rule.parse("192.168.202.1,172.16.0.0/16,192.168.202.2")])
    assert talk.network.set_rules(rules, talk.now)[-2] == Close(old, 1012, "the routes have changed")
    assert IPv4Network("172.16.0.0/16") in [entry.destination for entry in rules.entries(ip(1))]


# One VMAC on two machines


def warned(talk: Talk) -> list[str]:
    return [text for level, text in talk.log if level == "warning"]


def test_one_vmac_that_replaces_itself_twice_within_a_minute_is_worth_a_warning(talk: Talk) -> None:
    talk.member(ip(7), ONE)
    talk.newcomer(ip(7), ONE)
    assert warned(talk) == []
    talk.now += 60
    talk.newcomer(ip(7), ONE)
    assert warned(talk) == [
        "203.0.113.3: replaced 192.168.202.7 again within 60 s: two machines use this VMAC: "
        "remove its file from the state folder of one of them (VMAC 1111111111111111)"
    ]


def test_a_program_that_replaces_connections_of_its_own_is_not(talk: Talk) -> None:
    """Its way to the relay changes again and again: it is in a train."""
    talk.member(ip(7), ONE)
    for _ in range(5):
        talk.now += 3
        _, actions = talk.newcomer(ip(7), ONE, extended=True, instance=1)
        assert Bind(talk.connections, int(ip(7))) in actions
    assert warned(talk) == []
    # A copy of its machine is another program.
    talk.newcomer(ip(7), ONE, extended=True, instance=2)
    assert len(warned(talk)) == 1


def test_a_member_that_comes_back_now_and_then_is_not(talk: Talk) -> None:
    talk.member(ip(7), ONE)
    talk.member(ip(8), TWO)
    for _ in range(5):
        talk.now += 31
        talk.newcomer(ip(7), ONE)
        talk.now += 31
        talk.newcomer(ip(8), TWO)
    assert warned(talk) == []


def test_the_vmac_in_the_log_is_printable(talk: Talk) -> None:
    for _ in range(3):
        connection, _ = talk.newcomer(ip(7), b"\x1b[2J\n\xff" + bytes(10))
        assert connection
    [line] = warned(talk)
    assert line.isprintable()
    assert line.isascii()


def test_what_is_remembered_of_replacements_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("candy.relay.replacements.REPLACED_MAX", 2)
    talk = Talk()
    for n in (1, 2, 3):
        talk.member(ip(n), b"%016d" % n)
        talk.newcomer(ip(n), b"%016d" % n)
    # The first is forgotten, the others are not.
    for n in (3, 2, 1):
        talk.newcomer(ip(n), b"%016d" % n)
    assert ["VMAC 0000000000000003" in warned(talk)[0], "VMAC 0000000000000002" in warned(talk)[1]] == [True, True]
    assert len(warned(talk)) == 2
