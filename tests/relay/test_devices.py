"""The devices of a network: which are new, how many of these a source brings, and which are trusted for how long."""

from ipaddress import IPv4Address

import pytest

from candy.relay.devices import TRUSTED_FAILURES, Devices

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


# Trust


def test_a_vmac_is_trusted_from_its_first_log_in_on() -> None:
    devices = Devices(1)
    assert not devices.is_trusted(ONE)
    devices.let_in(ONE, ip(1), OFFICE, 0.0)
    devices.let_in(None, ip(1), OFFICE, 0.0)
    # It was not let in.
    devices.let_in(TWO, ip(1), OFFICE, 0.0)
    assert [devices.is_trusted(vmac) for vmac in (ONE, TWO, None)] == [True, False, False]


def test_trust_ends_with_ten_failures_within_an_hour() -> None:
    devices = Devices()
    devices.let_in(ONE, ip(1), OFFICE, 0.0)
    assert [devices.failed(ONE, float(number)) for number in range(TRUSTED_FAILURES)] == [False] * 9 + [True]
    assert not devices.is_trusted(ONE)
    assert not devices.failed(ONE, 10.0)
    # It is a new device by nothing but that.
    assert devices.let_in(ONE, ip(1), OFFICE, 11.0)


def test_trust_comes_back_with_a_log_in_that_is_later_than_the_hour() -> None:
    devices = Devices()
    devices.let_in(ONE, ip(1), OFFICE, 0.0)
    for number in range(TRUSTED_FAILURES):
        devices.failed(ONE, float(number))
    devices.let_in(ONE, ip(1), OFFICE, 3599.9)
    assert not devices.is_trusted(ONE)
    devices.let_in(ONE, ip(1), OFFICE, 3600.0)
    assert devices.is_trusted(ONE)
    # Only one of the ten has left the hour.
    assert devices.failed(ONE, 3600.0)
    assert not devices.is_trusted(ONE)


def test_nine_failures_an_hour_cost_nothing() -> None:
    devices = Devices()
    devices.let_in(ONE, ip(1), OFFICE, 0.0)
    assert not any(devices.failed(ONE, number * 400.0) for number in range(1000))
    assert devices.is_trusted(ONE)


def test_failures_under_vmacs_that_are_not_trusted_are_not_counted() -> None:
    """Anybody can name any number of them."""
    devices = Devices()
    assert not any(devices.failed(vmac, 0.0) for vmac in (ONE, None) for _ in range(100))
    devices.let_in(ONE, ip(1), OFFICE, 0.0)
    assert devices.is_trusted(ONE)


def test_trusted_vmacs_are_bounded_and_the_one_that_came_longest_ago_is_forgotten() -> None:
    devices = Devices(limit=3)
    vmacs = [bytes([number]) * 16 for number in range(5)]
    for number in (1, 2, 3, 1, 4):
        devices.let_in(vmacs[number], ip(number), OFFICE, 0.0)
    assert [devices.is_trusted(vmac) for vmac in vmacs] == [False, True, False, True, True]
