"""Reservations: how they are written, for whom they are, and what a command may change."""

import hashlib
from ipaddress import IPv4Address

import pytest

from candy.errors import RequestError
from candy.protocol.keys import fingerprint
from candy.relay import reservations as module
from candy.relay.reservations import Reservation, Reservations, is_meant

ONE, TWO = b"1" * 16, b"2" * 16
KEY = b"k" * 32
DIGITS = fingerprint(KEY).replace(" ", "")


def ip(last: int) -> IPv4Address:
    return IPv4Address(f"192.168.202.{last}")


@pytest.mark.parametrize(
    ("text", "reservation"),
    [
        ("192.168.202.9=laptop", Reservation(ip(9), name="laptop")),
        (" 192.168.202.9 = Jürgens Büro ", Reservation(ip(9), name="Jürgens Büro")),
        ("192.168.202.9=vmac:1111111111111111", Reservation(ip(9), vmac=ONE)),
        (f"192.168.202.9=key:{fingerprint(KEY)}", Reservation(ip(9), key=DIGITS)),
        (f"192.168.202.9=key: {DIGITS.upper()}", Reservation(ip(9), key=DIGITS)),
    ],
)
def test_as_it_is_written(text: str, reservation: Reservation) -> None:
    assert Reservation.parse(text) == reservation
    assert Reservation.parse(f"{reservation.address}={reservation.device}") == reservation


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("laptop", "does not begin with an address"),
        ("192.168.202=laptop", "does not begin with an address"),
        ("192.168.202.9", "names no device"),
        ("192.168.202.9=", "names no device"),
        ("192.168.202.9=" + "x" * 64, "names no device"),
        ("192.168.202.9=a\x1bb", "names no device"),
        ("192.168.202.9=vmac:1111", "has no VMAC behind vmac:"),
        (f"192.168.202.9=key:{DIGITS[:-1]}", "has no fingerprint behind key:"),
        ("192.168.202.9=key:laptop", "has no fingerprint behind key:"),
    ],
)
def test_what_can_t_be_read_says_why(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Reservation.parse(text)


def test_for_whom_it_is() -> None:
    by_vmac, by_name = Reservation(ip(9), vmac=ONE), Reservation(ip(9), name="Laptop")
    assert by_vmac.is_for(ONE, "anything")
    assert not by_vmac.is_for(TWO, "")
    assert not by_vmac.is_for(None, "")
    assert by_name.is_for(ONE, "LAPTOP")
    assert not by_name.is_for(ONE, "laptop-2")
    # Who has no VMAC has no name either.
    assert not by_name.is_for(None, "laptop")


def test_a_key_is_its_device_s_alone() -> None:
    by_key = Reservation(ip(9), key=DIGITS)
    assert by_key.is_for(KEY, "anything")
    for other in (b"o" * 32, ONE, hashlib.sha256(KEY).digest()[:16], None):
        assert not by_key.is_for(other, by_key.device)
    reservations = Reservations()
    reservations.add(Reservation(ip(8), name="laptop"))
    reservations.add(by_key)
    assert list(reservations.of(KEY, "laptop")) == [int(ip(9)), int(ip(8))]
    assert list(reservations.of(b"o" * 32, "")) == []


def test_what_an_operator_writes() -> None:
    assert is_meant(f"key:{fingerprint(KEY)}", KEY, "laptop")
    assert not is_meant("key:", ONE, "key:")
    assert not is_meant(f"key:{DIGITS}", b"o" * 32, f"key:{DIGITS}")
    assert is_meant("Laptop", KEY, "laptop")
    assert not is_meant("", KEY, "")
    assert Reservation(ip(9), key=DIGITS).is_written(f"key:{fingerprint(KEY)}")


def test_a_device_has_those_for_its_vmac_before_those_for_its_name() -> None:
    reservations = Reservations()
    for reservation in (Reservation(ip(9), name="laptop"), Reservation(ip(8), vmac=ONE), Reservation(ip(7), vmac=TWO)):
        reservations.add(reservation)
    assert list(reservations.of(ONE, "Laptop")) == [int(ip(8)), int(ip(9))]
    assert list(reservations.of(ONE, "")) == [int(ip(8))]
    assert list(reservations.of(None, "laptop")) == []
    assert [reservation.address for reservation in reservations] == [ip(7), ip(8), ip(9)]
    assert reservations.remove(int(ip(8)))
    assert list(reservations.of(ONE, "Laptop")) == [int(ip(9))]


def test_no_command_changes_what_the_configuration_reserves() -> None:
    reservations = Reservations()
    reservations.add(Reservation(ip(9), vmac=TWO))
    reservations.configure([Reservation(ip(9), vmac=ONE)])
    with pytest.raises(RequestError, match=r"192\.168\.202\.9 is reserved in the configuration"):
        reservations.add(Reservation(ip(9), vmac=TWO))
    with pytest.raises(RequestError, match="in the configuration"):
        reservations.remove(int(ip(9)))
    assert list(reservations) == [Reservation(ip(9), vmac=ONE)]
    assert reservations.is_configured(int(ip(9)))
    assert len(reservations) == 1
    # Without it there, what the command said counts again.
    reservations.configure([])
    assert list(reservations) == [Reservation(ip(9), vmac=TWO)]


def test_commands_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESERVATIONS_MAX", 2)
    reservations = Reservations()
    reservations.add(Reservation(ip(1), vmac=ONE))
    reservations.add(Reservation(ip(2), vmac=ONE))
    reservations.add(Reservation(ip(2), vmac=TWO))
    with pytest.raises(RequestError, match="2 addresses are reserved already"):
        reservations.add(Reservation(ip(3), vmac=ONE))


def test_what_commands_change_is_told_once_and_comes_back() -> None:
    reservations = Reservations()
    reservations.configure([Reservation(ip(1), vmac=ONE)])
    laptop = Reservation(ip(9), name="laptop")
    reservations.add(laptop)
    assert reservations.changes() == {int(ip(9)): laptop}
    assert reservations.changes() == {}
    assert reservations.rows() == {int(ip(9)): laptop}
    restored = Reservations()
    restored.add(Reservation(ip(8), vmac=TWO))
    restored.restore([laptop, Reservation(ip(8), vmac=ONE)])
    assert list(restored) == [Reservation(ip(8), vmac=TWO), laptop]
    assert not reservations.remove(int(ip(8)))
    assert reservations.remove(int(ip(9)))
    assert reservations.changes() == {int(ip(9)): None}
