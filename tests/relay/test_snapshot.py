"""What a relay shows of its networks, from sessions in memory: who is meant, how far they are, how log-ins end."""

import struct
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any

import pytest
from kit.keyed import Keyed
from kit.login import PASSWORD, by_password
from kit.talk import ONE, TWO, Talk, ip

from candy._fastpath import MEMBER_FORMAT
from candy.control.model import Member
from candy.errors import RequestError
from candy.protocol.actions import Close, Log
from candy.protocol.closing import CloseCode
from candy.protocol.hello import Hello
from candy.protocol.login import Asked, Asks
from candy.relay import snapshot
from candy.relay.session import Unbind
from candy.relay.snapshot import AllCounters, Counters, Found

COUNTED = Counters(1, 2, 3, 4, 5, 6, 7, 8_500_000, 1, 0)


def members(talk: Talk, path: str = "/") -> Iterator[Found]:
    return (Found(path, session) for session in talk.network.sessions if session.is_member)


def name(talk: Talk, connection: int, text: str) -> None:
    for session in talk.network.sessions:
        if session.connection == connection:
            session.hello = Hello("linux", "1", text)


def found(talk: Talk, wanted: str, *more: Found) -> str:
    return str(snapshot.find(wanted, [*members(talk), *more]).session.ip)


def test_who_is_meant(talk: Talk) -> None:
    first, second = talk.member(ip(2), ONE), talk.member(ip(3), TWO)
    name(talk, first, "Laptop")
    name(talk, second, "laptop 2")
    assert found(talk, "192.168.202.2") == found(talk, "laptop") == found(talk, f"vmac:{ONE.decode()}") == str(ip(2))
    assert found(talk, "LAPTOP 2") == str(ip(3))
    for wanted in ("192.168.202.4", "lap", "", f"vmac:{ONE.decode()}1", ONE.decode()):
        with pytest.raises(RequestError, match=r"^no member is '.*': the command members lists them$") as caught:
            found(talk, wanted)
        assert caught.value.status == 404


def test_a_name_never_counts_as_an_address_or_a_vmac(talk: Talk) -> None:
    victim, other = talk.member(ip(2), ONE), talk.member(ip(3), TWO)
    for pretended in (str(ip(2)), f"vmac:{ONE.decode()}"):
        name(talk, other, pretended)
        assert found(talk, pretended) == str(ip(2))
    talk.close(victim)
    for pretended in (str(ip(2)), f"vmac:{ONE.decode()}"):
        name(talk, other, pretended)
        with pytest.raises(RequestError):
            found(talk, pretended)


def test_several_that_could_be_meant(talk: Talk) -> None:
    """The error lists them; nobody who has not said a name has one in common."""
    home = Talk()
    home.member(ip(2), ONE)
    talk.member(ip(2), ONE)
    with pytest.raises(RequestError) as caught:
        found(talk, str(ip(2)), *members(home, "/home"))
    assert caught.value.status == 409
    assert str(caught.value) == (
        "2 members are '192.168.202.2': 192.168.202.2 in /, 192.168.202.2 in /home: name one by its address and network"
    )


def test_counters_of_all() -> None:
    other = Counters(1 << 63, *[(1 << 64) - 1] * 9)
    counters = AllCounters(b"".join(struct.pack(MEMBER_FORMAT, *one) for one in (COUNTED, other)), MEMBER_FORMAT)
    assert counters.get(COUNTED.connection) == COUNTED
    assert counters.get(other.connection) == other
    assert counters.get(2) is None
    assert AllCounters(b"", MEMBER_FORMAT).get(1) is None


def test_a_member(talk: Talk) -> None:
    connection = talk.member(ip(2), ONE, extended=True)
    [one] = members(talk)
    shown = snapshot.member(one, COUNTED, 1000.5, 250)
    assert shown == Member(
        network="/",
        address=str(ip(2)),
        name=None,
        os=None,
        version=None,
        vmac=ONE.decode(),
        path="relay",
        extension=True,
        seal=None,
        since=1000.5,
        source="203.0.113.1",
        round_trip_ms=0.25,
        packets_in=2,
        bytes_in=3,
        packets_out=4,
        bytes_out=5,
        drops=6,
        queued_bytes=7,
        queue_delay_ms=8.5,
        limit_down=None,
        limit_up=None,
        held="down",
        quota=None,
        quota_left=None,
    )
    shown.set_rates(Counters(connection, 1, 1, 1, 1, 0, 0, 0, 0, 0)._asdict(), 2.0)
    rates = (shown.packets_in_per_s, shown.bytes_in_per_s, shown.packets_out_per_s, shown.bytes_out_per_s)
    assert rates == (0.5, 1.0, 1.5, 2.0)
    detail = snapshot.detailed(shown, {"no_route": 6, "delay": 0})
    assert (detail.address, detail.drops_by_reason) == (str(ip(2)), {"no_route": 6})


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (Asks(0), "prefer"),
        (Asks.HAS_AES | Asks.REQUIRES_SEALING, "require"),
        (Asks.SEALS_NOTHING, "off"),
        (Asks.SEALS_NOTHING | Asks.REQUIRES_SEALING, "off"),
    ],
)
def test_with_whom_a_member_with_a_key_seals(flags: Asks, shown: str) -> None:
    keyed = Keyed()
    keyed.member(by_password(PASSWORD), asked=Asked(flags=flags))
    [session] = keyed.network.sessions
    assert snapshot.member(Found("/", session), COUNTED, 1000.5).seal == shown


def test_a_network(talk: Talk) -> None:
    talk.member(ip(2), ONE)
    talk.open()
    shown = snapshot.network("/", talk.network, None, None, (10_000_000, 0))
    assert (shown.limit_down, shown.limit_up) == (10_000_000, None)
    assert (shown.pool, shown.members, shown.addresses_used, shown.addresses_free) == ("192.168.202.0/24", 1, 1, 253)
    without = snapshot.network("/x", Talk(None).network, None, None, (0, 0))
    assert (without.pool, without.addresses_used, without.addresses_free) == (None, 0, 0)
    assert IPv4Network(shown.pool or "").num_addresses == shown.addresses_used + shown.addresses_free + 2


def test_states(talk: Talk) -> None:
    holder = talk.member(ip(2))
    talk.open()
    talk.contest(ip(2), holder)
    assert snapshot.states([talk.network, Talk().network], guests=4) == {
        "guest": 4,
        "greeting": 1,
        "in_line": 0,
        "waiting": 1,
        "member": 1,
    }


def admit(talk: Talk) -> None:
    talk.member(ip(2))


def wrong_password(talk: Talk) -> None:
    talk.auth(talk.open(), ip(3), b"wrong")


def wrong_clock(talk: Talk) -> None:
    talk.auth(talk.open(), ip(3), skew=1000)


def replay(talk: Talk) -> None:
    for _ in range(2):
        talk.auth(talk.open(), ip(3))


def not_a_members(talk: Talk) -> None:
    talk.auth(talk.open(), ip(255))


def no_address(talk: Talk) -> None:
    talk.expttun(talk.open())


def time_out(talk: Talk) -> None:
    talk.open()
    talk.now += 100
    talk.expire()


@pytest.mark.parametrize(
    ("happens", "pool", "options", "counted"),
    [
        (admit, "192.168.202.0/24", {}, {"admitted": 1}),
        (wrong_password, "192.168.202.0/24", {}, {"password": 1}),
        (wrong_clock, "192.168.202.0/24", {}, {"clock": 1}),
        (replay, "192.168.202.0/24", {}, {"admitted": 1, "replay": 1}),
        (not_a_members, "192.168.202.0/24", {}, {"refused": 1}),
        (no_address, None, {}, {"no_address": 1}),
        (admit, "192.168.202.0/24", {"max_members": 0}, {"full": 1}),
        (time_out, "192.168.202.0/24", {}, {"timeout": 1}),
    ],
)
def test_logins(happens: Any, pool: str | None, options: dict[str, Any], counted: dict[str, int]) -> None:
    talk = Talk(pool, **options)
    if options:
        talk.auth(talk.open(), ip(2))
    else:
        happens(talk)
    assert snapshot.logins([talk.network, Talk().network]) == counted


def test_new_devices_are_counted() -> None:
    talk = Talk(new_devices_per_minute=1)
    for last in (2, 3):
        talk.auth(talk.open("203.0.113.1"), ip(last))
    assert snapshot.logins([talk.network]) == {"admitted": 1, "new_devices": 1}


def test_since(talk: Talk) -> None:
    talk.member(ip(2))
    talk.now += 5
    talk.member(ip(3))
    assert [one.session.since for one in members(talk)] == [1000.0, 1005.0]


def test_kick(talk: Talk) -> None:
    """The address is free at once, also for one who waits for it."""
    holder = talk.member(ip(2), ONE, extended=True)
    waiting, _ = talk.contest(ip(2), holder, TWO)
    actions = talk.network.kick(holder, talk.now)
    told = "an operator of the relay ended the connection"
    [line] = [action for action in actions if isinstance(action, Log) and action.level == "info"][:1]
    assert line.text == f"203.0.113.1: {ip(2)} logged out after 0 s, 0 bytes in, 0 out: {told} (VMAC {ONE.decode()})"
    assert line.about["cause"] == told
    closed = Close(holder, CloseCode.POLICY_VIOLATION, told)
    assert actions.index(Unbind(holder)) < actions.index(closed)
    assert [one.session.connection for one in members(talk)] == [waiting]
    assert talk.close(holder) == []
