"""Sessions of one network in memory: no socket, no clock, no chance. Logging in, and messages between members.

Who is refused is in test_session_refusals.py, who has which address in test_session_addresses.py.
"""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from kit import recorded
from kit.talk import ONE, PASSWORD, WALL, Talk, ip, network

from candy.protocol import auth, wire
from candy.protocol.actions import Drop, Log, Send
from candy.protocol.wire import DropReason
from candy.relay.pool import Pool
from candy.relay.session import Bind

# The recorded conversation


def test_the_recorded_conversation_byte_for_byte() -> None:
    pool = Pool(IPv4Network("192.168.202.0/24"), first=ip(7))
    net = network(pool, password=recorded.PASSWORD)
    net.opened(1, "203.0.113.5", 0.0)
    sent: list[bytes] = []
    bound: list[int] = []
    for step in recorded.MESSAGES:
        payload = bytes.fromhex(step["hex"])
        if step["from"] == "server":
            assert sent.pop(0) == payload
            continue
        for action in net.received(1, payload, 0.0, step["timestamp"]):
            match action:
                case Send():
                    sent.append(action.payload)
                case Bind():
                    bound.append(action.ip)
                case Log():
                    pass
                case _:
                    pytest.fail(f"unexpected: {action}")
    assert [step["from"] for step in recorded.MESSAGES] == ["client", "client", "server", "client"]
    assert sent == []
    assert bound == [int(ip(7))]


def test_the_computed_auth_logs_in(talk: Talk) -> None:
    (entry,) = recorded.COMPUTED
    talk.wall = entry["timestamp"]
    connection = talk.open()
    assert talk.receive(connection, bytes.fromhex(entry["hex"])) == [Bind(connection, int(ip(1)))]


# Logging in


def test_a_static_member_without_vmac(talk: Talk) -> None:
    connection = talk.open("198.51.100.1")
    assert talk.auth(connection, ip(5)) == [Bind(connection, int(ip(5)))]
    assert talk.log == [("info", "198.51.100.1: logged in as 192.168.202.5")]


def test_a_dynamic_member_with_vmac_comes_back_to_its_address(talk: Talk) -> None:
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


def test_the_asked_address_is_granted(talk: Talk) -> None:
    assert talk.granted(talk.open(), "192.168.202.77/24") == "192.168.202.77/24"
    assert talk.granted(talk.open(), "192.168.202.77/24") == "192.168.202.1/24"
    assert talk.granted(talk.open(), "10.0.0.1/8") == "192.168.202.2/24"


def test_an_all_zero_vmac_is_none(talk: Talk) -> None:
    holder = talk.member(ip(7), bytes(16))
    talk.contest(ip(7), holder, bytes(16))


def test_an_answer_carries_confusion_from_the_given_randomness() -> None:
    talk = Talk(randbytes=lambda count: b"\x40" * count)
    connection = talk.open()
    (send,) = talk.expttun(connection)
    assert isinstance(send, Send)
    assert len(send.payload) == 73 + 64
    assert send.payload[73:] == b"\x40" * 64


def test_two_members_may_send_the_same_expttun_in_the_same_second(talk: Talk) -> None:
    assert talk.granted(talk.open()) == "192.168.202.1/24"
    assert talk.granted(talk.open()) == "192.168.202.2/24"


def test_confusion_on_what_a_member_sends_is_ignored(talk: Talk) -> None:
    connection = talk.open()
    digest = auth.auth_digest(PASSWORD, ip(5), WALL)
    message = wire.Auth(ip(5), WALL, digest).encode(b"\xff" * 64)
    assert talk.receive(connection, message) == [Bind(connection, int(ip(5)))]


# Relaying between members

UDP4CONN = wire.Udp4Conn(ip(5), ip(6), IPv4Address("203.0.113.5"), 4000).encode()
DISCOVERY = wire.Discovery(ip(5), ip(6)).encode()
GENERAL = wire.General(0, 0, ip(5), ip(6), bytes(6)).encode()


@pytest.mark.parametrize("message", [UDP4CONN, DISCOVERY, GENERAL, UDP4CONN + b"~", DISCOVERY + b"~"])
def test_messages_between_members_are_relayed_unchanged(talk: Talk, message: bytes) -> None:
    five, six = talk.member(ip(5)), talk.member(ip(6))
    talk.member(ip(7))
    assert talk.receive(five, message) == [Send(six, message)]


@pytest.mark.parametrize("message", [UDP4CONN, DISCOVERY, GENERAL])
def test_nothing_is_relayed_for_strangers_impostors_or_to_nobody(talk: Talk, message: bytes) -> None:
    stranger = talk.open()
    assert talk.receive(stranger, message) == [Drop(stranger, DropReason.NOT_AUTHENTICATED)]
    five = talk.member(ip(5))
    assert talk.receive(five, message) == [Drop(five, DropReason.NO_ROUTE)]
    six = talk.member(ip(6))
    assert talk.receive(six, message) == [Drop(six, DropReason.SPOOFED_SOURCE)]
    waiting, _ = talk.contest(ip(5), five)
    assert talk.receive(waiting, message) == [Drop(waiting, DropReason.NOT_AUTHENTICATED)]
    talk.close(six)
    assert talk.receive(five, message) == [Drop(five, DropReason.NO_ROUTE)]


@pytest.mark.parametrize(
    "message",
    [
        wire.Discovery(ip(5), wire.BROADCAST).encode(),
        wire.General(9, 9, ip(5), wire.BROADCAST, b"x").encode(),
    ],
)
def test_discovery_and_general_may_go_to_everyone_else(talk: Talk, message: bytes) -> None:
    five = talk.member(ip(5))
    assert talk.receive(five, message) == []
    others = [talk.member(ip(last)) for last in (6, 7, 8)]
    talk.open()
    talk.contest(ip(8), others[-1])
    assert talk.receive(five, message) == [Send(other, message) for other in others]


def test_udp4conn_does_not_go_to_everyone(talk: Talk) -> None:
    five = talk.member(ip(5))
    talk.member(ip(6))
    message = wire.Udp4Conn(ip(5), wire.BROADCAST, ip(5), 1).encode()
    assert talk.receive(five, message) == [Drop(five, DropReason.NO_ROUTE)]


def test_what_an_old_member_cannot_hold_is_not_relayed(talk: Talk) -> None:
    five, six = talk.member(ip(5)), talk.member(ip(6))
    fits = wire.General(0, 0, ip(5), ip(6), bytes(1488)).encode()
    assert len(fits) == 1500
    assert talk.receive(five, fits) == [Send(six, fits)]
    assert talk.receive(five, fits + b"\0") == [Drop(five, DropReason.TOO_LARGE)]


# Size


def test_many_members_come_and_go_and_nothing_of_them_is_left() -> None:
    talk = Talk("10.20.0.0/16", new_devices_per_minute=0)
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
