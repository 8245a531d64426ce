"""The devices of a network: which are new, and how many of these a source brings."""

from ipaddress import IPv4Address

import pytest

from candy.relay.devices import Devices

OFFICE = "203.0.113.5"
ONE, TWO = b"1" * 16, b"2" * 16


def ip(number: int) -> IPv4Address:
    return IPv4Address("10.0.0.0") + number


@pytest.mark.parametrize("vmac", [None, ONE, "each its own"])
def test_a_source_brings_so_many_new_devices_a_minute(vmac: bytes | str | None) -> None:
    """By many VMACs, by one, and without any."""
    devices = Devices(100)

    def come(number: int, source: str, now: float) -> bool:
        return devices.let_in(number.to_bytes(16) if isinstance(vmac, str) else vmac, ip(number), source, now)

    assert [come(number, OFFICE, 0.0) for number in range(254)] == [True] * 100 + [False] * 154
    assert come(1000, "203.0.113.6", 0.0)
    assert not come(100, OFFICE, 59.9)
    assert [come(number, OFFICE, 60.0) for number in range(100, 254)] == [True] * 100 + [False] * 54


def test_devices_that_are_known_come_back_at_any_rate() -> None:
    devices = Devices(3)
    members = [(ONE, ip(1)), (TWO, ip(2)), (None, ip(3))]
    for _ in range(10):
        assert all(devices.let_in(vmac, address, OFFICE, 0.0) for vmac, address in members)
    # A VMAC also from elsewhere; one without is somebody else there.
    other = "203.0.113.6"
    assert not devices.let_in(TWO, ip(4), OFFICE, 0.0)
    assert all(devices.let_in(TWO, ip(number), other, 0.0) for number in (2, 4, 5))
    assert devices.let_in(None, ip(3), other, 0.0)
    assert not devices.let_in(None, ip(6), other, 0.0)
    assert devices.let_in(ONE, ip(1), other, 0.0)


@pytest.mark.parametrize(("limit", "source"), [(0, OFFICE), (1, "127.0.0.1")])
def test_without_a_limit_and_from_loopback_any_number_comes(limit: int, source: str) -> None:
    devices = Devices(limit)
    assert all(devices.let_in(ONE, ip(number), source, 0.0) for number in range(1000))


def test_what_is_known_is_bounded_and_the_one_that_came_longest_ago_is_forgotten() -> None:
    devices = Devices(4, limit=3)
    for number in (1, 2, 3, 1, 4):
        assert devices.let_in(ONE, ip(number), OFFICE, 0.0)
    assert len(devices) == 3
    assert [devices.let_in(ONE, ip(number), OFFICE, 0.0) for number in (1, 3, 4, 2)] == [True, True, True, False]
