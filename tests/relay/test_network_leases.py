"""Leases in a network, in memory: who keeps an address, who takes it over, what follows at once from a reservation."""

from ipaddress import IPv4Address

import pytest
from kit.talk import ONE, TWO, WALL, Talk, ip

from candy.errors import RequestError
from candy.protocol.actions import Close, Ping
from candy.protocol.closing import CloseCode
from candy.relay.leases import Traffic
from candy.relay.reservations import Reservation
from candy.relay.session import Action, Bind, Unbind

LAPTOP = b"candy::linux::6.1::laptop"
THREE = b"3" * 16


def granted_member(
    talk: Talk, vmac: bytes, *, extended: bool = True, asked: str = "0.0.0.0/0"
) -> tuple[int, IPv4Address]:
    """A member that takes the address that it is granted."""
    talk.wall += 1
    connection = talk.open(extended=extended)
    talk.vmac(connection, vmac)
    address = IPv4Address(talk.granted(connection, asked).partition("/")[0])
    assert talk.auth(connection, address) == [Bind(connection, int(address))]
    return connection, address


def say(talk: Talk, connection: int, payload: bytes = LAPTOP) -> list[Action]:
    return talk.keep(talk.network.pinged(connection, payload, talk.now, talk.wall))


def reserve(talk: Talk, text: str) -> list[Action]:
    return talk.keep(talk.network.reserve(Reservation.parse(text), talk.now))


def come_back(connection: int, why: str, *, extended: bool = True) -> list[Action]:
    return [Unbind(connection), Close(connection, CloseCode.SERVICE_RESTART, why)]


# Who keeps an address


def test_an_address_stays_with_a_device_that_is_away(talk: Talk) -> None:
    connection, mine = granted_member(talk, ONE)
    talk.close(connection)
    assert granted_member(talk, TWO, asked=f"{mine}/24")[1] != mine
    assert granted_member(talk, ONE)[1] == mine


def test_a_fixed_claim_takes_the_lease_of_a_device_that_is_away_and_the_log_says_so(talk: Talk) -> None:
    first = talk.member(ip(9), ONE)
    say(talk, first)
    talk.close(first)
    second = talk.member(ip(9), TWO)
    assert (
        "info",
        f"203.0.113.2: 192.168.202.9 was leased to 'laptop', and is not any more (VMAC {TWO.decode()})",
    ) in talk.log
    talk.close(second)
    talk.member(ip(9), TWO)
    assert len(talk.logged("was leased to")) == 1
    assert [lease.vmac for lease in talk.network.register.leases(talk.wall)] == [TWO]


def test_a_fixed_claim_of_a_connected_device_s_address_is_a_conflict(talk: Talk) -> None:
    holder = talk.member(ip(9), ONE)
    newcomer, payload = talk.contest(ip(9), holder, TWO)
    assert talk.pong(holder, payload) == [Close(newcomer, None, "authentication failed")]
    assert [lease.vmac for lease in talk.network.register.leases(talk.wall)] == [ONE]


@pytest.mark.parametrize("extended", [True, False])
def test_a_reserved_address_is_refused_to_any_other_device(talk: Talk, extended: bool) -> None:
    reserve(talk, "192.168.202.9=vmac:1111111111111111")
    for vmac in (TWO, None):
        connection, actions = talk.newcomer(ip(9), vmac, extended=extended)
        why = "192.168.202.9 is reserved for another device"
        told = (CloseCode.ADDRESS_HELD, why) if extended else (None, "authentication failed")
        assert actions == [Close(connection, *told)]
        assert talk.logged(f"refused: {why}")
    talk.member(ip(9), ONE)


# Names


@pytest.mark.parametrize("is_late", [True, False])
def test_a_name_is_known_from_the_first_ping_on(talk: Talk, is_late: bool) -> None:
    """Which comes before the log-in is through if that has to wait."""
    if is_late:
        say(talk, talk.member(ip(9), ONE))
    else:
        holder = talk.member(ip(9), TWO)
        newcomer, _ = talk.contest(ip(9), holder, ONE)
        assert say(talk, newcomer) == []
        talk.close(holder)
    [lease] = talk.network.register.leases(talk.wall)
    assert (lease.vmac, lease.name, lease.os, lease.version) == (ONE, "laptop", "linux", "6.1")


@pytest.mark.parametrize("payload", [b"", b"candy-probe:12345678", b"candy::"])
def test_another_ping_says_nothing(talk: Talk, payload: bytes) -> None:
    connection = talk.member(ip(9), ONE)
    say(talk, connection)
    assert say(talk, connection, payload) == []
    assert next(talk.network.register.leases(talk.wall)).name == "laptop"


def test_a_ping_of_who_is_no_member_or_has_no_vmac_changes_nothing(talk: Talk) -> None:
    assert say(talk, 77) == []
    assert say(talk, talk.open()) == []
    assert say(talk, talk.member(ip(9))) == []
    assert list(talk.network.register.leases(talk.wall)) == []


# Traffic


@pytest.mark.parametrize("is_known", [True, False])
def test_traffic_is_added_up_over_connections_up_to_the_end_of_each(is_known: bool) -> None:
    known: dict[int, Traffic] = {}
    talk = Talk(traffic=known.get)
    network = talk.network
    first = talk.member(ip(9), ONE)
    network.carried(first, Traffic(1, 10, 2, 20), talk.wall)
    network.carried(first, Traffic(3, 30, 4, 40), talk.wall)
    if is_known:
        known[first] = Traffic(5, 50, 6, 60)
    talk.close(first)
    second = talk.member(ip(9), ONE)
    network.carried(second, Traffic(1, 1, 1, 1), talk.wall)
    # The connection has ended: it was asked for the last time.
    network.carried(first, Traffic(9, 90, 9, 90), talk.wall)
    [lease] = network.register.leases(talk.wall)
    assert lease.traffic == (Traffic(6, 51, 7, 61) if is_known else Traffic(4, 31, 5, 41))
    assert network._parting == {}


def test_the_last_traffic_of_a_connection_that_the_network_ends_counts_as_well() -> None:
    known: dict[int, Traffic] = {}
    talk = Talk(traffic=known.get)
    network = talk.network
    old = talk.member(ip(9), ONE)
    network.carried(old, Traffic(1, 10, 2, 20), talk.wall)
    new, actions = talk.newcomer(ip(9), ONE)
    assert Bind(new, int(ip(9))) in actions
    network.carried(new, Traffic(100, 100, 100, 100), talk.wall)
    known[old] = Traffic(2, 20, 3, 30)
    talk.close(old)
    [lease] = network.register.leases(talk.wall)
    assert lease.traffic == Traffic(102, 120, 103, 130)
    assert network._parting == {}


# Reservations, which count at once


@pytest.mark.parametrize("by", ["laptop", "vmac:1111111111111111"])
def test_who_was_granted_an_address_comes_back_to_the_one_that_is_reserved(talk: Talk, by: str) -> None:
    connection, mine = granted_member(talk, ONE)
    say(talk, connection)
    bystander, _ = granted_member(talk, TWO)
    why = "192.168.202.99 is reserved for it"
    assert reserve(talk, f"192.168.202.99={by}") == come_back(connection, why)
    assert talk.close(connection) == []
    back, address = granted_member(talk, ONE, asked=f"{mine}/24")
    assert address == ip(99)
    # It is where it should be.
    assert say(talk, back) == []
    assert reserve(talk, f"192.168.202.98={by}") == []
    assert talk.close(bystander) == []


def test_who_insists_on_its_address_is_left_there(talk: Talk) -> None:
    talk.member(ip(9), ONE)
    assert reserve(talk, "192.168.202.99=vmac:1111111111111111") == []


def test_a_name_that_is_learnt_later_counts_from_then_on(talk: Talk) -> None:
    reserve(talk, "192.168.202.99=laptop")
    connection, mine = granted_member(talk, ONE)
    assert mine != ip(99)
    assert say(talk, connection) == come_back(connection, "192.168.202.99 is reserved for it")
    talk.close(connection)
    back, address = granted_member(talk, ONE, asked=f"{mine}/24")
    assert address == ip(99)
    # Another one with this name finds it taken, and stays where it is.
    other, elsewhere = granted_member(talk, TWO)
    assert say(talk, other) == []
    talk.close(back)
    assert say(talk, other) == come_back(other, "192.168.202.99 is reserved for it")
    assert elsewhere != ip(99)


def test_a_device_that_has_not_said_its_name_may_claim_what_is_reserved_for_a_name_until_it_does(talk: Talk) -> None:
    """Else a new device with a fixed address could never say that it is the one."""
    reserve(talk, "192.168.202.9=laptop")
    laptop = talk.member(ip(9), ONE)
    assert say(talk, laptop) == []
    talk.close(laptop)
    other = talk.member(ip(9), TWO)
    why = "192.168.202.9 is reserved for another device"
    assert say(talk, other, b"candy::linux::6.1::") == [Unbind(other), Close(other, CloseCode.SERVICE_RESTART, why)]
    talk.close(other)
    assert talk.newcomer(ip(9), TWO)[1] == [Close(talk.connections, None, "authentication failed")]
    assert talk.newcomer(ip(9))[1] == [Close(talk.connections, None, "authentication failed")]
    talk.member(ip(9), ONE)


@pytest.mark.parametrize("is_granted", [True, False])
def test_who_stands_in_the_way_comes_back_to_another_address(talk: Talk, is_granted: bool) -> None:
    if is_granted:
        connection, mine = granted_member(talk, TWO)
    else:
        connection, mine = talk.member(ip(9), TWO, extended=True), ip(9)
    say(talk, connection, b"candy::linux::6.1::other")
    why = f"{mine} is reserved for another device"
    assert reserve(talk, f"{mine}=laptop") == come_back(connection, why)
    talk.close(connection)
    if is_granted:
        assert granted_member(talk, TWO, asked=f"{mine}/24")[1] != mine
    else:
        newcomer, actions = talk.newcomer(mine, TWO, extended=True)
        assert actions == [Close(newcomer, CloseCode.ADDRESS_HELD, why)]


def test_who_waits_for_the_address_of_one_that_is_sent_away_gets_it(talk: Talk) -> None:
    holder = talk.member(ip(9), TWO)
    newcomer, _ = talk.contest(ip(9), holder, ONE)
    actions = reserve(talk, "192.168.202.9=vmac:1111111111111111")
    assert actions[-1] == Bind(newcomer, int(ip(9)))


def test_the_configuration_counts_at_once_as_well(talk: Talk) -> None:
    connection, mine = granted_member(talk, ONE)
    reservation = Reservation.parse("192.168.202.99=vmac:1111111111111111")
    actions = talk.keep(talk.network.set_reservations([reservation], talk.now))
    assert actions == come_back(connection, "192.168.202.99 is reserved for it")
    talk.keep(talk.network.set_reservations([], talk.now))
    assert granted_member(talk, ONE, asked=f"{mine}/24")[1] == mine


@pytest.mark.parametrize(
    ("address", "words"),
    [("10.0.0.1", "not a member's address in the pool"), ("192.168.202.1", "this relay's own")],
)
def test_what_can_t_be_reserved(talk: Talk, address: str, words: str) -> None:
    talk.network.host(1000, ip(1))
    with pytest.raises(RequestError, match=words):
        reserve(talk, f"{address}=laptop")
    assert list(talk.network.register.reservations()) == []


def test_outside_the_pool_what_may_be_claimed_may_be_reserved() -> None:
    talk = Talk(allow_outside_pool=True)
    reserve(talk, "10.0.0.1=vmac:1111111111111111")
    assert talk.newcomer(IPv4Address("10.0.0.1"), TWO)[1] != []
    assert talk.logged("is reserved for another device")
    with pytest.raises(RequestError, match="not a member's address"):
        reserve(talk, "224.0.0.1=laptop")


# Released


def test_a_released_address_is_anybody_s(talk: Talk) -> None:
    connection, mine = granted_member(talk, ONE)
    talk.close(connection)
    reserve(talk, f"{mine}=vmac:1111111111111111")
    talk.network.register.release(mine)
    assert list(talk.network.register.reservations()) == []
    assert list(talk.network.register.leases(WALL)) == []
    assert granted_member(talk, TWO, asked=f"{mine}/24")[1] == mine
    with pytest.raises(RequestError, match=f"{ip(77)} can't be released: it is neither reserved nor leased"):
        talk.network.register.release(ip(77))


def test_the_lease_of_a_connected_device_is_not_released(talk: Talk) -> None:
    _, mine = granted_member(talk, ONE)
    with pytest.raises(RequestError, match="its device is connected: kick it first"):
        talk.network.register.release(mine)
    reserve(talk, f"{mine}=vmac:1111111111111111")
    talk.network.register.release(mine)
    assert list(talk.network.register.reservations()) == []
    assert len(list(talk.network.register.leases(WALL))) == 1


def test_a_longer_lease_counts_from_now_on(talk: Talk) -> None:
    talk.close(talk.member(ip(9), ONE))
    talk.network.register.set_lease_days(0)
    talk.wall += 1000 * 86400
    assert granted_member(talk, TWO, asked="192.168.202.9/24")[1] != ip(9)
    talk.network.register.set_lease_days(10)
    assert granted_member(talk, THREE, asked="192.168.202.9/24")[1] == ip(9)


def test_a_ping_is_not_a_probe_s_answer(talk: Talk) -> None:
    holder = talk.member(ip(9), ONE)
    _, actions = talk.newcomer(ip(9), TWO)
    assert isinstance(actions[0], Ping)
    assert say(talk, holder, actions[0].payload) == []
