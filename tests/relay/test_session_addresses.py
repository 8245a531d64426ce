"""Who has which address, in memory: what may be asked for, and what is reserved."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from kit.talk import FAILED, ONE, PASSWORD, TWO, Talk, ip

from candy.protocol import auth, wire
from candy.protocol.actions import Close, Ping, Send
from candy.protocol.closing import CloseCode
from candy.relay.passwords import Password, Passwords
from candy.relay.pool import OFFER_S, OFFERS_PER_SOURCE
from candy.relay.session import Bind

# Which addresses


@pytest.mark.parametrize("address", ["192.168.202.0", "192.168.202.255", "192.168.203.1", "10.0.0.1"])
def test_an_address_that_is_not_of_the_pool_is_refused_unless_allowed(address: str) -> None:
    talk = Talk()
    assert talk.auth(talk.open("198.51.100.1"), IPv4Address(address)) == [Close(1, None, FAILED)]
    ((level, text),) = talk.log
    assert level == "warning"
    assert address in text
    assert "192.168.202.0/24" in text
    assert "--allow-outside-pool" in text
    lax = Talk(allow_outside_pool=True)
    assert lax.auth(lax.open(), IPv4Address(address)) == [Bind(1, int(IPv4Address(address)))]


def test_the_addresses_of_a_password_bind_whoever_came_by_it() -> None:
    talk = Talk()
    bound = Password(PASSWORD, "guests", addresses=IPv4Network("192.168.202.64/31"))
    talk.network.set_passwords(Passwords([bound, Password(b"other")]), talk.now, talk.wall)
    assert talk.granted(talk.open(), "192.168.202.7/24") == "192.168.202.64/24"
    assert talk.granted(talk.open()) == "192.168.202.65/24"
    third = talk.open(extended=True)
    full = "no address of 192.168.202.64/31 is left in the pool 192.168.202.0/24"
    assert talk.expttun(third) == [Close(third, CloseCode.POOL_FULL, full)]
    talk.now += OFFER_S
    connection = talk.open(extended=True)
    told = "192.168.202.7 is not one of 192.168.202.64/31, to which this member is bound"
    assert talk.auth(connection, ip(7)) == [Close(connection, CloseCode.OUTSIDE_POOL, told)]
    talk.member(ip(65))
    other = talk.open()
    assert talk.auth(other, ip(7), b"other") == [Bind(other, int(ip(7)), circle=2)]


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"])
@pytest.mark.parametrize("pool", ["192.168.202.0/24", None])
def test_an_address_that_no_member_can_have_is_refused_always(address: str, pool: str | None) -> None:
    talk = Talk(pool, allow_outside_pool=True)
    assert talk.auth(talk.open(), IPv4Address(address)) == [Close(1, None, FAILED)]
    assert talk.logged("not an address that a member can have")


def test_without_a_pool_requests_are_refused_and_any_unicast_address_is_had() -> None:
    talk = Talk(pool=None)
    reason = "the network has no address pool: a member needs a fixed address"
    assert talk.expttun(talk.open()) == [Close(1, 1013, reason)]
    assert talk.logged(reason)
    assert talk.auth(talk.open(), IPv4Address("10.9.8.255")) == [Bind(2, int(IPv4Address("10.9.8.255")))]


def test_a_full_pool_says_so_and_closes() -> None:
    talk = Talk("192.168.202.0/30")
    talk.member(ip(1))
    talk.member(ip(2))
    connection = talk.open("198.51.100.1")
    reason = "the pool 192.168.202.0/30 is full: all 2 addresses are in use"
    assert talk.expttun(connection) == [Close(connection, 1013, reason)]
    assert talk.log[-1] == ("warning", f"198.51.100.1: no address granted: {reason}")
    assert talk.auth(connection, ip(1)) == []


def test_reservations_fill_the_pool_until_they_end() -> None:
    talk = Talk("192.168.202.0/30")
    first = talk.open()
    assert talk.granted(first) == "192.168.202.1/30"
    talk.now += 3
    second = talk.open()
    assert talk.granted(second) == "192.168.202.2/30"
    assert talk.expttun(talk.open())[0] == Close(
        3, 1013, "the pool 192.168.202.0/30 is full: all 2 addresses are in use"
    )
    # Long before the deadline of the log-in.
    talk.now += 2
    talk.wall += 1
    assert talk.granted(talk.open()) == "192.168.202.1/30"
    talk.close(second)
    assert talk.granted(talk.open()) == "192.168.202.2/30"


def test_a_reserved_address_is_refused_to_others(talk: Talk) -> None:
    owner = talk.open()
    assert talk.granted(owner) == "192.168.202.1/24"
    thief, actions = talk.newcomer(ip(1))
    assert actions == [Close(thief, None, FAILED)]
    assert talk.logged("192.168.202.1 was granted to another member")
    talk.wall += 1
    assert talk.auth(owner, ip(1)) == [Bind(owner, int(ip(1)))]


def test_a_reservation_ends_with_the_auth_for_another_address(talk: Talk) -> None:
    owner = talk.open()
    assert talk.granted(owner) == "192.168.202.1/24"
    assert talk.auth(owner, ip(50)) == [Bind(owner, int(ip(50)))]
    assert talk.member(ip(1))


def test_a_reservation_ends_also_when_the_auth_has_to_wait(talk: Talk) -> None:
    holder = talk.member(ip(50))
    waiting = talk.open()
    assert talk.granted(waiting) == "192.168.202.1/24"
    talk.wall += 1
    (ping,) = talk.auth(waiting, ip(50))
    assert isinstance(ping, Ping)
    assert ping.connection == holder
    assert talk.member(ip(1))


# What is sniffed


@pytest.mark.parametrize(("later", "reserved"), [(5.0, 5 * OFFERS_PER_SOURCE), (5.1, 0)])
def test_a_sniffed_expttun_takes_no_address_from_others(talk: Talk, later: float, reserved: int) -> None:
    """Within 5 s members of five sources might have sent the same. Afterwards none of them did."""
    sniffed = wire.Expttun(talk.wall, IPv4Interface("0.0.0.0/0"), auth.expttun_digest(PASSWORD, talk.wall))
    member = talk.open()
    talk.receive(member, sniffed.encode())
    assert talk.auth(member, ip(1)) == [Bind(member, int(ip(1)))]
    talk.now += later
    talk.wall += int(later)
    for source in range(5):
        for last in range(1, 61):
            # The digest covers neither what is asked for nor the confusion.
            asked = IPv4Interface(f"192.168.202.{last}/24")
            message = wire.Expttun(sniffed.timestamp, asked, sniffed.digest).encode(bytes([last]))
            (answer,) = talk.receive(talk.open(f"198.51.100.{source}"), message)
            assert isinstance(answer, Send)
    logins = [talk.newcomer(ip(last)) for last in range(2, 255)]
    refused = [actions for connection, actions in logins if actions == [Close(connection, None, FAILED)]]
    assert len(refused) == reserved


def test_the_relay_s_own_answers_give_nobody_a_fresh_request(talk: Talk) -> None:
    """Else who sniffed one EXPTTUN would be sent the next with each answer."""
    talk.granted(talk.open())
    talk.now += 6
    talk.wall += 6
    thief = talk.open("198.51.100.1")
    (answer,) = talk.expttun(thief, "192.168.202.50/24", skew=-6)
    assert isinstance(answer, Send)
    fresh = wire.decode(answer.payload)
    assert isinstance(fresh, wire.Expttun)
    assert fresh.timestamp == talk.wall
    talk.receive(thief, wire.Expttun(fresh.timestamp, IPv4Interface("192.168.202.50/24"), fresh.digest).encode())
    assert talk.member(ip(50))


@pytest.mark.parametrize("asks", [True, False])
def test_the_lease_of_another_is_not_reserved_against_its_owner(talk: Talk, asks: bool) -> None:
    talk = Talk("192.168.202.0/30")
    owner = talk.member(ip(1), ONE)
    talk.member(ip(2), TWO)
    talk.close(owner)
    thief = talk.open("198.51.100.1")
    # It is the only one left.
    assert talk.granted(thief, "192.168.202.1/30") == "192.168.202.1/30"
    assert talk.newcomer(ip(1))[1] == [Close(talk.connections, None, FAILED)]
    back = talk.open()
    talk.vmac(back, ONE)
    if asks:
        assert talk.granted(back, "192.168.202.1/30") == "192.168.202.1/30"
    talk.wall += 1
    assert talk.auth(back, ip(1)) == [Bind(back, int(ip(1)))]


def test_the_lease_of_another_is_not_granted_while_there_are_others(talk: Talk) -> None:
    talk.close(talk.member(ip(7), ONE))
    assert talk.granted(talk.open("198.51.100.1"), "192.168.202.7/24") == "192.168.202.1/24"


def test_a_network_of_ipv6_addresses_is_one_source(talk: Talk) -> None:
    for number in range(20):
        talk.granted(talk.open(f"2001:db8:0:1::{number:x}"))
    held = [last for last in range(1, 21) if talk.newcomer(ip(last))[1] == [Close(talk.connections, None, FAILED)]]
    assert len(held) == OFFERS_PER_SOURCE


def test_several_clients_of_one_host_share_a_vmac(talk: Talk) -> None:
    first, second = talk.open(), talk.open()
    for connection, address in ((first, "192.168.202.1/24"), (second, "192.168.202.2/24")):
        assert talk.vmac(connection, ONE) == []
        assert talk.granted(connection) == address
        assert talk.auth(connection, IPv4Interface(address).ip) == [Bind(connection, int(IPv4Interface(address).ip))]
    talk.close(first)
    again = talk.open()
    assert talk.vmac(again, ONE) == []
    assert talk.granted(again, "192.168.202.1/24") == "192.168.202.1/24"
