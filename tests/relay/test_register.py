"""What a network remembers: for who asks, and for the store."""

from ipaddress import IPv4Address
from typing import Any

import pytest
from kit.talk import ONE, TWO, WALL, Talk, ip, network

from candy.errors import RequestError
from candy.relay.devices import TRUSTED_FAILURES
from candy.relay.leases import DAY_S, Leases
from candy.relay.pool import Pool
from candy.relay.register import Kept
from candy.relay.reservations import Reservation


def named(talk: Talk, last: int, vmac: bytes, name: str) -> int:
    """A member whose client says its name."""
    connection = talk.member(ip(last), vmac)
    talk.network.pinged(connection, f"candy::linux::6.1::{name}".encode(), talk.now, talk.wall)
    return connection


def after_restart(kept: Kept, **options: Any) -> Talk:
    talk = Talk(**options)
    talk.wall = WALL + 100
    talk.network.register.restore(kept, talk.wall)
    return talk


def test_leases_are_listed_by_address(talk: Talk) -> None:
    named(talk, 9, TWO, "desktop")
    talk.close(named(talk, 3, ONE, "laptop"))
    talk.keep(talk.network.reserve(Reservation(ip(3), name="laptop"), talk.now))
    laptop, desktop = talk.network.register.leases(WALL + 50)
    assert (str(laptop.address), laptop.name, laptop.os, laptop.version) == ("192.168.202.3", "laptop", "linux", "6.1")
    assert (laptop.is_connected, laptop.is_reserved, laptop.last_seen) == (False, True, WALL + 2)
    assert (laptop.vmac, laptop.source) == (ONE, "203.0.113.2")
    assert (desktop.address, desktop.is_connected, desktop.is_reserved) == (ip(9), True, False)
    assert (desktop.first_seen, desktop.last_seen) == (WALL + 1, WALL + 50)


def test_a_device_is_found_by_name_vmac_and_address(talk: Talk) -> None:
    named(talk, 9, ONE, "Laptop")
    find = talk.network.register.find
    assert find("laptop") == find("vmac:1111111111111111") == find("192.168.202.9") == ip(9)
    # An address need not be leased: it may be reserved, or belong to a member without a VMAC.
    assert find("192.168.202.77") == ip(77)


def test_a_name_that_several_devices_have_lists_their_addresses(talk: Talk) -> None:
    for last, vmac in ((12, TWO), (9, ONE)):
        named(talk, last, vmac, "laptop")
    with pytest.raises(RequestError) as caught:
        talk.network.register.find("LAPTOP")
    why = "'LAPTOP' is more than one device: give one of the addresses 192.168.202.9, 192.168.202.12"
    assert str(caught.value) == why


@pytest.mark.parametrize("device", ["nobody", "", "vmac:2222222222222222", "192.168.202"])
def test_who_is_not_there_is_an_error(talk: Talk, device: str) -> None:
    named(talk, 9, ONE, "laptop")
    with pytest.raises(RequestError, match="is no device that has a lease"):
        talk.network.register.find(device)


@pytest.mark.parametrize(("device", "wanted"), [("printer", "PRINTER"), ("vmac:2222222222222222",) * 2])
def test_a_reservation_is_found_by_who_it_is_for_before_that_has_a_lease(talk: Talk, device: str, wanted: str) -> None:
    talk.network.register.reserve(Reservation.of(ip(20), device))
    assert talk.network.register.find(wanted) == ip(20)
    named(talk, 9, TWO, "printer")
    assert talk.network.register.find(wanted) == ip(9)


def test_a_restart_changes_nothing_for_who_has_a_lease(talk: Talk) -> None:
    talk.close(named(talk, 9, ONE, "laptop"))
    later = after_restart(talk.network.register.everything())
    assert [lease.name for lease in later.network.register.leases(later.wall)] == ["laptop"]
    other = later.open()
    later.vmac(other, TWO)
    assert later.granted(other, "192.168.202.9/24") == "192.168.202.1/24"
    back = later.open()
    later.vmac(back, ONE)
    assert later.granted(back) == "192.168.202.9/24"


def test_a_log_in_that_was_recorded_does_not_work_again_after_a_restart(talk: Talk) -> None:
    talk.close(talk.member(ip(9), ONE))
    later = after_restart(talk.network.register.everything())
    later.wall = talk.wall
    replay = later.open()
    assert later.auth(replay, ip(9)) != []
    assert later.logged("AUTH for 192.168.202.9 is a replay")
    later.wall += 1
    assert later.member(ip(9))


def test_what_was_forgotten_is_not_believed_after_a_restart_either(talk: Talk) -> None:
    """With the clock set back."""
    talk.member(ip(9), ONE)
    talk.wall += 1000
    talk.member(ip(10), TWO)
    later = after_restart(talk.network.register.everything())
    later.wall = WALL + 1
    assert later.auth(later.open(), ip(9)) != []
    assert later.logged("may be a replay")


def test_a_device_with_a_lease_is_known_and_trusted_after_a_restart(talk: Talk) -> None:
    """It neither counts as new nor waits in the line of a source that guesses."""
    talk.member(ip(9), ONE)
    later = after_restart(talk.network.register.everything(), new_devices_per_minute=1)
    office = "203.0.113.9"

    def come(last: int, vmac: bytes) -> bool:
        later.wall += 1
        connection = later.open(office)
        later.vmac(connection, vmac)
        later.auth(connection, ip(last))
        return later.log[-1] == ("info", f"{office}: logged in as {ip(last)} (VMAC {vmac.decode()})")

    assert [come(7, TWO), come(9, ONE), come(8, TWO)] == [True, True, False]
    for _ in range(100):
        later.vmac(later.open(office), TWO, password=b"wrong")
    stranger, known = later.open(office), later.open(office)
    later.wall += 1
    later.vmac(stranger, b"3" * 16)
    later.vmac(known, ONE)
    assert later.auth(stranger, ip(7)) == []
    assert later.auth(known, ip(9)) != []
    assert TRUSTED_FAILURES < 100


def test_reservations_by_command_outlive_the_relay_and_those_of_the_configuration_come_from_there(talk: Talk) -> None:
    talk.network.set_reservations([Reservation(ip(8), vmac=TWO)], talk.now)
    talk.network.reserve(Reservation(ip(9), vmac=ONE), talk.now)
    later = after_restart(talk.network.register.everything())
    assert list(later.network.register.reservations()) == [Reservation(ip(9), vmac=ONE)]
    assert not later.network.register.is_configured(Reservation(ip(9), vmac=ONE))
    first = later.open()
    later.vmac(first, ONE)
    assert later.granted(first) == "192.168.202.9/24"


def test_what_is_new_is_told_once(talk: Talk) -> None:
    register = talk.network.register
    assert not register.changes()
    named(talk, 9, ONE, "laptop")
    new = register.changes()
    assert new.leases.keys() == {int(ip(9))}
    assert [timestamp for timestamp, _ in new.digests] == [WALL + 1]
    assert new.earliest == WALL + 1
    assert not new.is_whole
    assert not register.changes()
    whole = register.everything()
    assert whole.is_whole
    assert (whole.leases, whole.digests) == (new.leases, new.digests)


def test_more_than_can_be_noted_is_told_whole() -> None:
    few = network(Pool(None, leases=Leases(limit=1)))
    pool = few._realm.pool
    for number in range(4):
        pool.claim(IPv4Address(0x0A000001 + number), bytes([number]) * 16, number)
        pool.release(number)
    kept = few.register.changes()
    assert kept.is_whole
    assert kept.leases.keys() == {0x0A000004}


def test_a_lease_is_kept_as_long_as_the_setting_says(talk: Talk) -> None:
    talk.close(talk.member(ip(9), ONE))
    for days, left in ((1, 0), (0, 1)):
        later = Talk(lease_days=days)
        later.network.register.restore(talk.network.register.everything(), WALL + 3 * DAY_S)
        assert len(list(later.network.register.leases(WALL))) == left
