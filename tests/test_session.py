"""Whole conversations of one network in memory: no socket, no clock, no chance."""

import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from talk import FAILED, PASSWORD, TAKEN_OVER, WALL, Conversation, ip

from candy import auth, wire
from candy.addresses import Pool
from candy.network import Network
from candy.session import Action, Bind, Close, Drop, Log, Ping, Send, Unbind
from candy.wire import DropReason

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())
ONE = b"1111111111111111"
TWO = b"2222222222222222"


@pytest.fixture
def talk() -> Conversation:
    return Conversation()


# The recorded conversation


def test_the_recorded_conversation_byte_for_byte() -> None:
    password = VECTORS["password"].encode()
    pool = Pool(IPv4Network("192.168.202.0/24"), first=ip(7))
    network = Network(password, pool, randbytes=bytes)
    network.opened(1, "203.0.113.5", 0.0)
    sent: list[bytes] = []
    bound: list[int] = []
    messages = [step for step in VECTORS["transcript"] if step["opcode"] == 2]
    for step in messages:
        payload = bytes.fromhex(step["hex"])
        if step["from"] == "server":
            assert sent.pop(0) == payload
            continue
        for action in network.received(1, payload, 0.0, step["timestamp"]):
            match action:
                case Send():
                    sent.append(action.payload)
                case Bind():
                    bound.append(action.ip)
                case Log():
                    pass
                case _:
                    pytest.fail(f"unexpected: {action}")
    assert [step["from"] for step in messages] == ["client", "client", "server", "client"]
    assert sent == []
    assert bound == [int(ip(7))]


def test_the_computed_auth_logs_in(talk: Conversation) -> None:
    (entry,) = [entry for entry in VECTORS["computed"] if entry["kind"] == "AUTH"]
    talk.wall = entry["timestamp"]
    connection = talk.open()
    assert talk.receive(connection, bytes.fromhex(entry["hex"])) == [Bind(connection, int(ip(1)))]


# Logging in


def test_a_static_member_without_vmac(talk: Conversation) -> None:
    connection = talk.open("198.51.100.1")
    assert talk.auth(connection, ip(5)) == [Bind(connection, int(ip(5)))]
    assert talk.log == [("info", "198.51.100.1: logged in as 192.168.202.5")]


def test_a_dynamic_member_with_vmac_comes_back_to_its_address(talk: Conversation) -> None:
    first = talk.open()
    assert talk.vmac(first, ONE) == []
    assert talk.granted(first) == "192.168.202.1/24"
    assert talk.auth(first, ip(1)) == [Bind(first, int(ip(1)))]
    assert talk.close(first) == []
    second = talk.open()
    assert talk.granted(second) == "192.168.202.2/24"
    third = talk.open()
    assert talk.vmac(third, ONE) == []
    assert talk.granted(third) == "192.168.202.1/24"


def test_the_asked_address_is_granted(talk: Conversation) -> None:
    assert talk.granted(talk.open(), "192.168.202.77/24") == "192.168.202.77/24"
    assert talk.granted(talk.open(), "192.168.202.77/24") == "192.168.202.1/24"
    assert talk.granted(talk.open(), "10.0.0.1/8") == "192.168.202.2/24"


def test_an_all_zero_vmac_is_none(talk: Conversation) -> None:
    holder = talk.member(ip(7), bytes(16))
    talk.contest(ip(7), holder, bytes(16))


def test_an_answer_carries_confusion_from_the_given_randomness() -> None:
    talk = Conversation(randbytes=lambda count: b"\x40" * count)
    connection = talk.open()
    (send,) = talk.expttun(connection)
    assert isinstance(send, Send)
    assert len(send.payload) == 73 + 64
    assert send.payload[73:] == b"\x40" * 64


def test_two_members_may_send_the_same_expttun_in_the_same_second(talk: Conversation) -> None:
    assert talk.granted(talk.open()) == "192.168.202.1/24"
    assert talk.granted(talk.open()) == "192.168.202.2/24"


def test_confusion_on_what_a_member_sends_is_ignored(talk: Conversation) -> None:
    connection = talk.open()
    digest = auth.auth_digest(PASSWORD, ip(5), WALL)
    message = wire.Auth(ip(5), WALL, digest).encode(b"\xff" * 64)
    assert talk.receive(connection, message) == [Bind(connection, int(ip(5)))]


# Failing to


Speak = Callable[[Conversation, int, bytes, int], list[Action]]
HASHED: dict[str, Speak] = {
    "VMAC": lambda talk, connection, password, skew: talk.vmac(connection, ONE, password, skew),
    "EXPTTUN": lambda talk, connection, password, skew: talk.expttun(connection, "0.0.0.0/0", password, skew),
    "AUTH": lambda talk, connection, password, skew: talk.auth(connection, ip(5), password, skew),
}


@pytest.mark.parametrize("kind", HASHED)
def test_a_wrong_hash_is_closed_without_a_word(talk: Conversation, kind: str) -> None:
    connection = talk.open("198.51.100.1")
    assert HASHED[kind](talk, connection, b"wrong", 0) == [Close(connection, None, FAILED)]
    assert talk.log == [("warning", f"198.51.100.1: refused: wrong password in {kind}")]
    assert talk.auth(connection, ip(5)) == []


@pytest.mark.parametrize("kind", HASHED)
@pytest.mark.parametrize("skew", [301, -301, 10**9, 2**63 - 1 - WALL, -(2**63) - WALL])
def test_a_timestamp_outside_the_window_is_closed_without_a_word(talk: Conversation, kind: str, skew: int) -> None:
    connection = talk.open("198.51.100.1")
    assert HASHED[kind](talk, connection, PASSWORD, skew) == [Close(connection, None, FAILED)]
    assert talk.log == [
        ("warning", f"198.51.100.1: refused: {kind} is {skew:+d} s off this clock, 300 s are tolerated")
    ]


@pytest.mark.parametrize("kind", HASHED)
@pytest.mark.parametrize("skew", [300, -300])
def test_a_timestamp_at_the_edge_of_the_window_is_fine(talk: Conversation, kind: str, skew: int) -> None:
    actions = HASHED[kind](talk, talk.open(), PASSWORD, skew)
    assert not [action for action in actions if isinstance(action, Close)]


def test_the_window_is_an_option() -> None:
    talk = Conversation(tolerance=5)
    assert talk.auth(talk.open(), ip(5), skew=6) == [Close(1, None, FAILED)]
    assert talk.auth(talk.open(), ip(5), skew=5) == [Bind(2, int(ip(5)))]


def test_an_auth_that_was_refused_for_its_address_is_a_replay_the_second_time(talk: Conversation) -> None:
    holder = talk.member(ip(7))
    newcomer, payload = talk.contest(ip(7), holder)
    assert talk.pong(holder, payload) == [Close(newcomer, None, FAILED)]
    talk.close(holder)
    assert talk.auth(talk.open(), ip(7)) == [Close(3, None, FAILED)]
    assert talk.logged("AUTH for 192.168.202.7 is a replay")


def test_a_hash_over_the_limit_delays_the_closing_and_a_right_one_is_admitted(talk: Conversation) -> None:
    office = "198.51.100.1"
    for _ in range(60):
        connection = talk.open(office)
        assert talk.auth(connection, ip(5), b"wrong") == [Close(connection, None, FAILED)]
    connection = talk.open(office)
    assert talk.auth(connection, ip(5), b"wrong") == [Close(connection, None, FAILED, delay=2.0)]
    assert talk.log[-1][0] == "debug"
    assert talk.auth(connection, ip(5)) == []
    connection = talk.open(office)
    assert talk.auth(connection, ip(5)) == [Bind(connection, int(ip(5)))]
    connection = talk.open("198.51.100.2")
    assert talk.auth(connection, ip(6), b"wrong") == [Close(connection, None, FAILED)]


def test_only_wrong_hashes_count_as_failures(talk: Conversation) -> None:
    office = "198.51.100.1"
    for _ in range(100):
        connection = talk.open(office)
        assert talk.auth(connection, ip(5), skew=400) == [Close(connection, None, FAILED)]
    connection = talk.open(office)
    assert talk.auth(connection, ip(5), b"wrong") == [Close(connection, None, FAILED)]


@pytest.mark.parametrize("kind", HASHED)
def test_every_hashed_message_cut_short_is_dropped_and_the_login_goes_on(talk: Conversation, kind: str) -> None:
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
def test_what_means_nothing_is_dropped_before_and_after_login(
    talk: Conversation, message: bytes, reason: DropReason
) -> None:
    connection = talk.open()
    assert talk.receive(connection, message) == [Drop(connection, reason)]
    member = talk.member(ip(5))
    assert talk.receive(member, message) == [Drop(member, reason)]


def test_a_replayed_auth_is_refused_on_another_connection(talk: Conversation) -> None:
    message = wire.Auth(ip(5), WALL, auth.auth_digest(PASSWORD, ip(5), WALL)).encode()
    first = talk.open()
    assert talk.receive(first, message) == [Bind(first, int(ip(5)))]
    talk.close(first)
    for talk.wall in (WALL, WALL + 300, WALL - 300):
        thief = talk.open("198.51.100.1")
        assert talk.receive(thief, message) == [Close(thief, None, FAILED)]
        assert talk.log[-1] == ("warning", "198.51.100.1: refused: AUTH for 192.168.202.5 is a replay")


def test_a_replay_is_refused_also_when_only_the_confusion_differs(talk: Conversation) -> None:
    message = wire.Auth(ip(5), WALL, auth.auth_digest(PASSWORD, ip(5), WALL))
    assert talk.receive(talk.open(), message.encode()) == [Bind(1, int(ip(5)))]
    assert talk.receive(talk.open(), message.encode(b"\x00")) == [Close(2, None, FAILED)]


@pytest.mark.parametrize("second", [ip(5), ip(6)])
@pytest.mark.parametrize("password", [PASSWORD, b"wrong"])
def test_the_first_auth_of_a_connection_stands(talk: Conversation, second: IPv4Address, password: bytes) -> None:
    connection = talk.member(ip(5))
    assert talk.auth(connection, second, password) == [Drop(connection, DropReason.SECOND_AUTH)]
    other = talk.member(ip(9))
    message = wire.Discovery(ip(9), ip(5)).encode()
    assert talk.receive(other, message) == [Send(connection, message)]


def test_what_belongs_before_auth_is_dropped_after_it(talk: Conversation) -> None:
    connection = talk.member(ip(5))
    assert talk.vmac(connection, ONE) == [Drop(connection, DropReason.VMAC_AFTER_AUTH)]
    assert talk.expttun(connection) == [Drop(connection, DropReason.EXPTTUN_AFTER_AUTH)]
    waiting, _ = talk.contest(ip(5), connection)
    assert talk.auth(waiting, ip(6)) == [Drop(waiting, DropReason.SECOND_AUTH)]
    assert talk.vmac(waiting, ONE) == [Drop(waiting, DropReason.VMAC_AFTER_AUTH)]
    assert talk.expttun(waiting) == [Drop(waiting, DropReason.EXPTTUN_AFTER_AUTH)]


def test_a_vmac_after_expttun_still_counts(talk: Conversation) -> None:
    first = talk.open()
    talk.granted(first)
    assert talk.vmac(first, ONE) == []
    assert talk.auth(first, ip(1)) == [Bind(first, int(ip(1)))]
    second, actions = talk.newcomer(ip(1), ONE)
    assert actions == [Unbind(first), Close(first, 4001, TAKEN_OVER), Bind(second, int(ip(1)))]


def test_whoever_does_not_authenticate_in_time_is_closed_without_a_word(talk: Conversation) -> None:
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
    talk = Conversation(authentication_timeout=1.5)
    talk.open()
    assert talk.network.next_deadline() == 1001.5


def test_many_connections_expire_together_in_order(talk: Conversation) -> None:
    connections = [talk.open() for _ in range(50)]
    talk.close(connections[10])
    talk.auth(connections[20], ip(5))
    talk.now += 10
    expired = [action.connection for action in talk.expire() if isinstance(action, Close)]
    assert expired == connections[:10] + connections[11:20] + connections[21:]


def test_what_is_reported_of_an_unknown_connection_is_ignored(talk: Conversation) -> None:
    assert talk.auth(99, ip(5)) == []
    assert talk.pong(99, b"candy-probe:") == []
    assert talk.close(99) == []
    connection = talk.open()
    assert talk.close(connection) == []
    assert talk.close(connection) == []
    assert talk.auth(connection, ip(5)) == []


# Which addresses


@pytest.mark.parametrize("address", ["192.168.202.0", "192.168.202.255", "192.168.203.1", "10.0.0.1"])
def test_an_address_that_is_not_of_the_pool_is_refused_unless_allowed(address: str) -> None:
    talk = Conversation()
    assert talk.auth(talk.open("198.51.100.1"), IPv4Address(address)) == [Close(1, None, FAILED)]
    ((level, text),) = talk.log
    assert level == "warning"
    assert address in text
    assert "192.168.202.0/24" in text
    assert "--allow-outside-pool" in text
    lax = Conversation(allow_outside_pool=True)
    assert lax.auth(lax.open(), IPv4Address(address)) == [Bind(1, int(IPv4Address(address)))]


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"])
@pytest.mark.parametrize("pool", ["192.168.202.0/24", None])
def test_an_address_that_no_member_can_have_is_refused_always(address: str, pool: str | None) -> None:
    talk = Conversation(pool, allow_outside_pool=True)
    assert talk.auth(talk.open(), IPv4Address(address)) == [Close(1, None, FAILED)]
    assert talk.logged("not an address that a member can have")


def test_without_a_pool_requests_are_refused_and_any_unicast_address_is_had() -> None:
    talk = Conversation(pool=None)
    reason = "the network has no address pool: a member needs a fixed address"
    assert talk.expttun(talk.open()) == [Close(1, 1013, reason)]
    assert talk.logged(reason)
    assert talk.auth(talk.open(), IPv4Address("10.9.8.255")) == [Bind(2, int(IPv4Address("10.9.8.255")))]


def test_a_full_pool_says_so_and_closes() -> None:
    talk = Conversation("192.168.202.0/30")
    talk.member(ip(1))
    talk.member(ip(2))
    connection = talk.open("198.51.100.1")
    reason = "the pool 192.168.202.0/30 is full: all 2 addresses are in use"
    assert talk.expttun(connection) == [Close(connection, 1013, reason)]
    assert talk.log[-1] == ("warning", f"198.51.100.1: no address granted: {reason}")
    assert talk.auth(connection, ip(1)) == []


def test_reservations_fill_the_pool_until_they_end() -> None:
    talk = Conversation("192.168.202.0/30")
    first = talk.open()
    assert talk.granted(first) == "192.168.202.1/30"
    talk.now += 5
    second = talk.open()
    assert talk.granted(second) == "192.168.202.2/30"
    assert talk.expttun(talk.open())[0] == Close(
        3, 1013, "the pool 192.168.202.0/30 is full: all 2 addresses are in use"
    )
    talk.now += 5
    talk.expire()
    assert talk.granted(talk.open()) == "192.168.202.1/30"
    talk.close(second)
    assert talk.granted(talk.open()) == "192.168.202.2/30"


def test_a_reserved_address_is_refused_to_others(talk: Conversation) -> None:
    owner = talk.open()
    assert talk.granted(owner) == "192.168.202.1/24"
    thief, actions = talk.newcomer(ip(1))
    assert actions == [Close(thief, None, FAILED)]
    assert talk.logged("192.168.202.1 is reserved for another member")
    talk.wall += 1
    assert talk.auth(owner, ip(1)) == [Bind(owner, int(ip(1)))]


def test_a_reservation_ends_with_the_auth_for_another_address(talk: Conversation) -> None:
    owner = talk.open()
    assert talk.granted(owner) == "192.168.202.1/24"
    assert talk.auth(owner, ip(50)) == [Bind(owner, int(ip(50)))]
    assert talk.member(ip(1))


def test_a_reservation_ends_also_when_the_auth_has_to_wait(talk: Conversation) -> None:
    holder = talk.member(ip(50))
    waiting = talk.open()
    assert talk.granted(waiting) == "192.168.202.1/24"
    talk.wall += 1
    (ping,) = talk.auth(waiting, ip(50))
    assert isinstance(ping, Ping)
    assert ping.connection == holder
    assert talk.member(ip(1))


def test_several_clients_of_one_host_share_a_vmac(talk: Conversation) -> None:
    first, second = talk.open(), talk.open()
    for connection, address in ((first, "192.168.202.1/24"), (second, "192.168.202.2/24")):
        assert talk.vmac(connection, ONE) == []
        assert talk.granted(connection) == address
        assert talk.auth(connection, IPv4Interface(address).ip) == [Bind(connection, int(IPv4Interface(address).ip))]
    talk.close(first)
    again = talk.open()
    assert talk.vmac(again, ONE) == []
    assert talk.granted(again, "192.168.202.1/24") == "192.168.202.1/24"


# Conflicts


def test_the_same_vmac_replaces_the_holder_at_once(talk: Conversation) -> None:
    holder = talk.member(ip(7), ONE)
    newcomer, actions = talk.newcomer(ip(7), ONE)
    assert actions == [Unbind(holder), Close(holder, 4001, TAKEN_OVER), Bind(newcomer, int(ip(7)))]
    assert talk.logged("replaced at 192.168.202.7 by 203.0.113.2, which has the same VMAC")
    assert talk.close(holder) == []
    sender = talk.member(ip(8))
    message = wire.Discovery(ip(8), ip(7)).encode()
    assert talk.receive(sender, message) == [Send(newcomer, message)]


def test_a_dynamic_member_that_comes_back_before_its_old_connection_is_found_dead(talk: Conversation) -> None:
    old = talk.member(ip(7), ONE)
    new = talk.open()
    assert talk.vmac(new, ONE) == []
    assert talk.granted(new, "192.168.202.7/24") == "192.168.202.7/24"
    talk.wall += 1
    assert talk.auth(new, ip(7)) == [Unbind(old), Close(old, 4001, TAKEN_OVER), Bind(new, int(ip(7)))]


@pytest.mark.parametrize(("one", "other"), [(None, None), (ONE, None), (None, ONE), (ONE, TWO)])
def test_a_holder_that_answers_stays(talk: Conversation, one: bytes | None, other: bytes | None) -> None:
    holder = talk.member(ip(7), one)
    newcomer, payload = talk.contest(ip(7), holder, other)
    assert payload.startswith(b"candy-probe:")
    assert talk.network.next_deadline() == 1003.0
    talk.now += 2.9
    assert talk.pong(holder, payload) == [Close(newcomer, None, FAILED)]
    assert talk.logged("refused: 192.168.202.7 is held by 203.0.113.1, which answers")
    assert talk.network.next_deadline() is None
    assert talk.auth(newcomer, ip(8)) == []
    assert talk.pong(holder, payload) == []


@pytest.mark.parametrize(("one", "other"), [(None, None), (ONE, None), (None, ONE), (ONE, TWO)])
def test_a_holder_that_is_silent_is_replaced(talk: Conversation, one: bytes | None, other: bytes | None) -> None:
    holder = talk.member(ip(7), one)
    newcomer, payload = talk.contest(ip(7), holder, other)
    talk.now += 2.999
    assert talk.expire() == []
    talk.now = 1003.0
    assert talk.expire() == [
        Unbind(holder),
        Close(holder, 4001, TAKEN_OVER),
        Bind(newcomer, int(ip(7))),
    ]
    assert talk.logged("replaced at 192.168.202.7 by 203.0.113.2, for it did not answer a ping")
    assert talk.pong(holder, payload) == []
    assert talk.network.next_deadline() is None


def test_the_probe_time_is_an_option_and_may_end_after_the_authentication_deadline() -> None:
    talk = Conversation(probe_timeout=20.0)
    holder = talk.member(ip(7))
    newcomer, _ = talk.contest(ip(7), holder)
    talk.now += 19.9
    assert talk.expire() == []
    talk.now += 0.1
    assert Bind(newcomer, int(ip(7))) in talk.expire()


def test_only_the_probe_s_own_pong_from_its_holder_is_an_answer() -> None:
    counter = iter(range(1000))
    talk = Conversation(randbytes=lambda count: next(counter).to_bytes(count))
    holder = talk.member(ip(7))
    newcomer, payload = talk.contest(ip(7), holder)
    bystander = talk.member(ip(8))
    assert talk.pong(holder, b"") == []
    assert talk.pong(holder, payload + b"\0") == []
    assert talk.pong(bystander, payload) == []
    assert talk.pong(newcomer, payload) == []
    assert talk.close(newcomer) == []
    second, later = talk.contest(ip(7), holder)
    assert later != payload
    assert talk.pong(holder, payload) == []
    assert talk.pong(holder, later) == [Close(second, None, FAILED)]


def test_a_newcomer_that_gives_up_leaves_the_holder_alone(talk: Conversation) -> None:
    holder = talk.member(ip(7))
    newcomer, payload = talk.contest(ip(7), holder)
    assert talk.close(newcomer) == []
    assert talk.network.next_deadline() is None
    talk.now += 3
    assert talk.expire() == []
    assert talk.pong(holder, payload) == []
    message = wire.Discovery(ip(7), ip(8)).encode()
    other = talk.member(ip(8))
    assert talk.receive(holder, message) == [Send(other, message)]


def test_a_holder_that_goes_leaves_the_address_to_the_one_who_waits(talk: Conversation) -> None:
    holder = talk.member(ip(7))
    newcomer, _ = talk.contest(ip(7), holder)
    assert talk.close(holder) == [Bind(newcomer, int(ip(7)))]
    assert talk.network.next_deadline() is None


def test_a_third_is_refused_while_one_waits(talk: Conversation) -> None:
    holder = talk.member(ip(7), ONE)
    newcomer, payload = talk.contest(ip(7), holder, TWO)
    third, actions = talk.newcomer(ip(7))
    assert actions == [Close(third, None, FAILED)]
    assert talk.logged("another newcomer waits for 192.168.202.7 already")
    assert talk.pong(holder, payload) == [Close(newcomer, None, FAILED)]


def test_a_third_with_the_vmac_of_the_one_waiting_takes_its_place_and_its_time(talk: Conversation) -> None:
    holder = talk.member(ip(7), ONE)
    newcomer, payload = talk.contest(ip(7), holder, TWO)
    talk.now += 2
    third, actions = talk.newcomer(ip(7), TWO)
    assert actions == [Close(newcomer, None, FAILED)]
    assert talk.close(newcomer) == []
    assert talk.network.next_deadline() == 1003.0
    talk.now += 1
    assert talk.expire() == [Unbind(holder), Close(holder, 4001, TAKEN_OVER), Bind(third, int(ip(7)))]
    assert talk.pong(holder, payload) == []


def test_a_third_with_the_vmac_of_the_holder_replaces_it_and_ends_the_wait(talk: Conversation) -> None:
    holder = talk.member(ip(7), ONE)
    newcomer, payload = talk.contest(ip(7), holder, TWO)
    third, actions = talk.newcomer(ip(7), ONE)
    assert actions == [
        Close(newcomer, None, FAILED),
        Unbind(holder),
        Close(holder, 4001, TAKEN_OVER),
        Bind(third, int(ip(7))),
    ]
    assert talk.network.next_deadline() is None
    assert talk.pong(third, payload) == []


def test_a_silent_holder_that_came_back_by_expttun_keeps_its_address(talk: Conversation) -> None:
    holder = talk.member(ip(7), ONE)
    newcomer, _ = talk.contest(ip(7), holder, TWO)
    back = talk.open()
    assert talk.vmac(back, ONE) == []
    assert talk.granted(back, "192.168.202.7/24") == "192.168.202.7/24"
    talk.now += 3
    assert talk.expire() == [
        Unbind(holder),
        Close(holder, 4001, TAKEN_OVER),
        Close(newcomer, None, FAILED),
    ]
    talk.wall += 1
    assert talk.auth(back, ip(7)) == [Bind(back, int(ip(7)))]


def test_conflicts_over_two_addresses_do_not_meet() -> None:
    counter = iter(range(1000))
    talk = Conversation(randbytes=lambda count: next(counter).to_bytes(count))
    seven, eight = talk.member(ip(7)), talk.member(ip(8))
    wants_seven, payload = talk.contest(ip(7), seven)
    talk.now += 1
    wants_eight, _ = talk.contest(ip(8), eight)
    assert talk.pong(eight, payload) == []
    assert talk.pong(seven, payload) == [Close(wants_seven, None, FAILED)]
    assert talk.network.next_deadline() == 1004.0
    talk.now = 1004.0
    assert talk.expire() == [Unbind(eight), Close(eight, 4001, TAKEN_OVER), Bind(wants_eight, int(ip(8)))]


# Relaying between members

UDP4CONN = wire.Udp4Conn(ip(5), ip(6), IPv4Address("203.0.113.5"), 4000).encode()
DISCOVERY = wire.Discovery(ip(5), ip(6)).encode()
GENERAL = wire.General(0, 0, ip(5), ip(6), bytes(6)).encode()


@pytest.mark.parametrize("message", [UDP4CONN, DISCOVERY, GENERAL, UDP4CONN + b"~", DISCOVERY + b"~"])
def test_messages_between_members_are_relayed_unchanged(talk: Conversation, message: bytes) -> None:
    five, six = talk.member(ip(5)), talk.member(ip(6))
    talk.member(ip(7))
    assert talk.receive(five, message) == [Send(six, message)]


@pytest.mark.parametrize("message", [UDP4CONN, DISCOVERY, GENERAL])
def test_nothing_is_relayed_for_strangers_impostors_or_to_nobody(talk: Conversation, message: bytes) -> None:
    stranger = talk.open()
    assert talk.receive(stranger, message) == [Drop(stranger, DropReason.NOT_AUTHENTICATED)]
    five = talk.member(ip(5))
    assert talk.receive(five, message) == [Drop(five, DropReason.NO_SUCH_MEMBER)]
    six = talk.member(ip(6))
    assert talk.receive(six, message) == [Drop(six, DropReason.FOREIGN_SOURCE)]
    waiting, _ = talk.contest(ip(5), five)
    assert talk.receive(waiting, message) == [Drop(waiting, DropReason.NOT_AUTHENTICATED)]
    talk.close(six)
    assert talk.receive(five, message) == [Drop(five, DropReason.NO_SUCH_MEMBER)]


@pytest.mark.parametrize(
    "message",
    [
        wire.Discovery(ip(5), wire.BROADCAST).encode(),
        wire.General(9, 9, ip(5), wire.BROADCAST, b"x").encode(),
    ],
)
def test_discovery_and_general_may_go_to_everyone_else(talk: Conversation, message: bytes) -> None:
    five = talk.member(ip(5))
    assert talk.receive(five, message) == []
    others = [talk.member(ip(last)) for last in (6, 7, 8)]
    talk.open()
    talk.contest(ip(8), others[-1])
    assert talk.receive(five, message) == [Send(other, message) for other in others]


def test_udp4conn_does_not_go_to_everyone(talk: Conversation) -> None:
    five = talk.member(ip(5))
    talk.member(ip(6))
    message = wire.Udp4Conn(ip(5), wire.BROADCAST, ip(5), 1).encode()
    assert talk.receive(five, message) == [Drop(five, DropReason.NO_SUCH_MEMBER)]


def test_what_an_old_member_cannot_hold_is_not_relayed(talk: Conversation) -> None:
    five, six = talk.member(ip(5)), talk.member(ip(6))
    fits = wire.General(0, 0, ip(5), ip(6), bytes(1488)).encode()
    assert len(fits) == 1500
    assert talk.receive(five, fits) == [Send(six, fits)]
    assert talk.receive(five, fits + b"\0") == [Drop(five, DropReason.TOO_LARGE)]


# Size


def test_many_members_come_and_go_and_nothing_of_them_is_left() -> None:
    talk = Conversation("10.20.0.0/16")
    members = []
    for _ in range(2000):
        connection = talk.open("198.51.100.1")
        address = IPv4Interface(talk.granted(connection)).ip
        assert talk.auth(connection, address) == [Bind(connection, int(address))]
        members.append(address)
    assert len(set(members)) == 2000
    assert talk.network.next_deadline() is None
    for connection in range(1, 2001):
        assert talk.close(connection) == []
    lone = talk.open()
    assert talk.auth(lone, members[0], skew=1) == [Bind(lone, int(members[0]))]
    broadcast = wire.Discovery(members[0], wire.BROADCAST).encode()
    assert talk.receive(lone, broadcast) == []
