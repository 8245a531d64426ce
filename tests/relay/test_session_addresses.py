"""Who has which address, in memory: what may be asked for, what is reserved, and two members that want the same one."""

from ipaddress import IPv4Address, IPv4Interface

import pytest
from kit.talk import FAILED, ONE, PASSWORD, TAKEN_OVER, TWO, Talk, ip

from candy.protocol import auth, wire
from candy.protocol.actions import Close, Ping, Send
from candy.relay.pool import OFFERS_PER_SOURCE
from candy.relay.session import Bind, Unbind

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


# Conflicts


def test_the_same_vmac_replaces_the_holder_at_once(talk: Talk) -> None:
    holder = talk.member(ip(7), ONE)
    newcomer, actions = talk.newcomer(ip(7), ONE)
    assert actions == [Unbind(holder), Close(holder, 4001, TAKEN_OVER), Bind(newcomer, int(ip(7)))]
    assert talk.logged("replaced at 192.168.202.7 by 203.0.113.2, which has the same VMAC")
    assert talk.close(holder) == []
    sender = talk.member(ip(8))
    message = wire.Discovery(ip(8), ip(7)).encode()
    assert talk.receive(sender, message) == [Send(newcomer, message)]


def test_a_dynamic_member_that_comes_back_before_its_old_connection_is_found_dead(talk: Talk) -> None:
    old = talk.member(ip(7), ONE)
    new = talk.open()
    assert talk.vmac(new, ONE) == []
    assert talk.granted(new, "192.168.202.7/24") == "192.168.202.7/24"
    talk.wall += 1
    assert talk.auth(new, ip(7)) == [Unbind(old), Close(old, 4001, TAKEN_OVER), Bind(new, int(ip(7)))]


@pytest.mark.parametrize(("one", "other"), [(None, None), (ONE, None), (None, ONE), (ONE, TWO)])
def test_a_holder_that_answers_stays(talk: Talk, one: bytes | None, other: bytes | None) -> None:
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
def test_a_holder_that_is_silent_is_replaced(talk: Talk, one: bytes | None, other: bytes | None) -> None:
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
    assert talk.logged("replaced at 192.168.202.7 by 203.0.113.2, because it did not answer a ping")
    assert talk.pong(holder, payload) == []
    assert talk.network.next_deadline() is None


def test_the_probe_time_is_an_option_and_may_end_after_the_authentication_deadline() -> None:
    talk = Talk(probe_timeout=20.0)
    holder = talk.member(ip(7))
    newcomer, _ = talk.contest(ip(7), holder)
    talk.now += 19.9
    assert talk.expire() == []
    talk.now += 0.1
    assert Bind(newcomer, int(ip(7))) in talk.expire()


def test_only_the_probe_s_own_pong_from_its_holder_is_an_answer() -> None:
    counter = iter(range(1000))
    talk = Talk(randbytes=lambda count: next(counter).to_bytes(count))
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


def test_a_newcomer_that_gives_up_leaves_the_holder_alone(talk: Talk) -> None:
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


def test_a_holder_that_goes_leaves_the_address_to_the_one_who_waits(talk: Talk) -> None:
    holder = talk.member(ip(7))
    newcomer, _ = talk.contest(ip(7), holder)
    assert talk.close(holder) == [Bind(newcomer, int(ip(7)))]
    assert talk.network.next_deadline() is None


def test_a_third_is_refused_while_one_waits(talk: Talk) -> None:
    holder = talk.member(ip(7), ONE)
    newcomer, payload = talk.contest(ip(7), holder, TWO)
    third, actions = talk.newcomer(ip(7))
    assert actions == [Close(third, None, FAILED)]
    assert talk.logged("another newcomer waits for 192.168.202.7 already")
    assert talk.pong(holder, payload) == [Close(newcomer, None, FAILED)]


def test_a_third_with_the_vmac_of_the_one_waiting_takes_its_place_and_its_time(talk: Talk) -> None:
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


def test_a_third_with_the_vmac_of_the_holder_replaces_it_and_ends_the_wait(talk: Talk) -> None:
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


def test_a_silent_holder_that_came_back_by_expttun_keeps_its_address(talk: Talk) -> None:
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
    talk = Talk(randbytes=lambda count: next(counter).to_bytes(count))
    seven, eight = talk.member(ip(7)), talk.member(ip(8))
    wants_seven, payload = talk.contest(ip(7), seven)
    talk.now += 1
    wants_eight, _ = talk.contest(ip(8), eight)
    assert talk.pong(eight, payload) == []
    assert talk.pong(seven, payload) == [Close(wants_seven, None, FAILED)]
    assert talk.network.next_deadline() == 1004.0
    talk.now = 1004.0
    assert talk.expire() == [Unbind(eight), Close(eight, 4001, TAKEN_OVER), Bind(wants_eight, int(ip(8)))]
