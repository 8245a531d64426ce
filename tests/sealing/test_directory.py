"""Of whom the relay tells: what is heard, what is believed, and how it is asked."""

from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

import pytest
from kit.primitives import pair

from candy.protocol.control import Peer, State
from candy.protocol.keys import fingerprint
from candy.sealing.directory import REVOKED_MOST, Contact, Directory, Identity, Standing
from candy.sealing.pins import Pins

IP = IPv4Address("10.0.0.2")
OWN, KEY, OTHER = (pair(bytes([number]) * 32).public for number in (1, 2, 3))
LEASE, NEW = b"lease--1", b"lease--2"
SEALS = Peer(IP, State.SEALS, lease=LEASE, key=KEY, device=7)
IDENTITY = Identity(LEASE, KEY, 7)


def met() -> tuple[Directory, Contact]:
    directory = Directory(Pins(), OWN, Random(1).randbytes)
    contact, _ = directory.meet(IP)
    directory.ask(contact, 0.0)
    list(directory.asks(0.0))
    return directory, contact


def test_who_is_asked_about_is_asked_once_until_it_is_told() -> None:
    directory = Directory(Pins(), OWN, Random(1).randbytes)
    contact, _ = directory.meet(IP)
    assert not contact.is_told
    directory.ask(contact, 5.0)
    directory.ask(contact, 6.0)
    assert [ask.addresses for ask in directory.asks(6.0)] == [(IP,)]
    directory.ask(contact, 7.0)
    assert list(directory.asks(7.0)) == []
    assert contact.asked_at == 7.0
    assert directory.hear(SEALS) == (contact, [])
    assert contact.is_told
    directory.ask(contact, 8.0)
    assert not contact.is_told
    assert [ask.addresses for ask in directory.asks(8.0)] == [(IP,)]


def test_what_comes_before_it_is_asked_need_not_be_asked() -> None:
    directory = Directory(Pins(), OWN, Random(1).randbytes)
    contact, _ = directory.meet(IP)
    directory.ask(contact, 5.0)
    directory.hear(SEALS)
    assert list(directory.asks(5.0)) == []


def test_asks_are_of_64_addresses_and_within_the_allowance() -> None:
    directory = Directory(Pins(), OWN, Random(1).randbytes)
    for number in range(1100):
        directory.ask(directory.meet(IP + number)[0], 0.0)
    asked = [len(ask.addresses) for ask in directory.asks(0.0)]
    assert asked == [64] * 15 + [40]
    assert directory.has_asks
    assert [len(ask.addresses) for ask in directory.asks(0.25)] == [50]
    assert [len(ask.addresses) for ask in directory.asks(0.5)] == [50]
    assert not directory.has_asks


def test_who_seals() -> None:
    directory, contact = met()
    directory.hear(SEALS)
    assert (contact.standing, contact.identity, contact.seals) == (Standing.SEALS, IDENTITY, True)


@pytest.mark.parametrize(
    ("told", "standing", "identity", "seals"),
    [
        (Peer(IP, State.NOBODY), Standing.ABSENT, None, False),
        (replace(SEALS, state=State.AWAY), Standing.ABSENT, IDENTITY, True),
        (Peer(IP, State.AWAY, lease=LEASE), Standing.ABSENT, IDENTITY, False),
        (Peer(IP, State.AWAY, lease=NEW), Standing.ABSENT, None, False),
        (replace(SEALS, state=State.REVOKED), Standing.ABSENT, None, True),
        (Peer(IP, State.CLEAR, lease=NEW), Standing.CLEAR, None, False),
        (Peer(IP, State.CLEAR, lease=NEW, key=OTHER), Standing.CLEAR, None, False),
        (replace(SEALS, lease=NEW, key=OTHER), Standing.SEALS, Identity(NEW, OTHER, 7), True),
        (replace(SEALS, key=OTHER), Standing.REFUSED, None, True),
        (replace(SEALS, lease=NEW, key=OWN), Standing.REFUSED, None, True),
    ],
)
def test_what_follows_from_the_next_word(
    told: Peer, standing: Standing, identity: Identity | None, seals: bool
) -> None:
    directory, contact = met()
    directory.hear(SEALS)
    directory.hear(told)
    assert (contact.standing, contact.identity, contact.seals) == (standing, identity, seals)


def test_a_lease_that_has_sealed_seals() -> None:
    directory, contact = met()
    directory.pins.pin(LEASE, KEY, IP, has_sealed=True)
    directory.hear(Peer(IP, State.AWAY, lease=LEASE))
    assert contact.seals


THIEF = replace(SEALS, lease=NEW, key=OTHER, device=9)
WARNING = f"10.0.0.2 is another device now: number 9 with the key {fingerprint(OTHER)}, before it was "


def test_another_device_is_warned_of_after_a_restart() -> None:
    directory, _ = met()
    directory.hear(SEALS)
    later = Directory(Pins(directory.pins.encode()), OWN, Random(1).randbytes)
    later.meet(IP)
    _, [log] = later.hear(THIEF)
    assert log.text == f"{WARNING}one with the key {fingerprint(KEY)}"
    assert later.hear(THIEF)[1] == []


def test_another_device_is_warned_of_when_one_in_the_clear_was_there_between() -> None:
    directory, _ = met()
    directory.hear(SEALS)
    assert directory.hear(Peer(IP, State.CLEAR, lease=b"between!"))[1] == []
    _, [log] = directory.hear(THIEF)
    assert log.text == f"{WARNING}number 7 with the key {fingerprint(KEY)}"


def test_the_same_device_under_another_lease_is_no_reason_to_warn() -> None:
    directory, contact = met()
    directory.hear(SEALS)
    assert directory.hear(replace(SEALS, lease=NEW)) == (contact, [])


def test_who_was_there_is_remembered_while_nobody_is() -> None:
    directory, _ = met()
    directory.hear(SEALS)
    directory.hear(Peer(IP, State.NOBODY))
    _, [line] = directory.hear(replace(SEALS, lease=NEW, key=OTHER))
    assert line.level == "warning"
    assert "another device now" in line.text


def test_a_refusal_is_said_once_for_each_lie() -> None:
    directory, contact = met()
    directory.hear(SEALS)
    lie = replace(SEALS, key=OTHER)
    assert len(directory.hear(lie)[1]) == 1
    assert directory.hear(lie) == (contact, [])
    assert directory.hear(replace(lie, commit_bytes=9, flags=128, device=8)) == (contact, [])
    assert len(directory.hear(replace(lie, key=OWN))[1]) == 1
    # The truth is believed at once.
    assert directory.hear(SEALS) == (contact, [])
    assert contact.refused is None
    assert len(directory.hear(lie)[1]) == 1


def test_what_was_refused_is_believed_when_the_user_says_so() -> None:
    directory, contact = met()
    directory.hear(SEALS)
    assert directory.forget(IP) == (None, [])
    assert directory.forget(IP + 1) == (None, [])
    directory.hear(replace(SEALS, key=OTHER))
    assert directory.forget(IP) == (contact, [])
    assert contact.identity == Identity(LEASE, OTHER, 7)
    # One's own key never is.
    directory.hear(replace(SEALS, lease=NEW, key=OWN))
    assert len(directory.forget(IP)[1]) == 1
    assert contact.standing is Standing.REFUSED


def test_a_revoked_key_is_out_under_every_address() -> None:
    directory, contact = met()
    other, _ = directory.meet(IP + 1)
    directory.hear(SEALS)
    directory.hear(replace(SEALS, address=IP + 1, lease=NEW))
    assert directory.revoke(KEY) == [contact, other]
    assert contact.identity is other.identity is None
    directory.hear(SEALS)
    assert contact.standing is Standing.ABSENT
    assert directory.revoke(bytes(32)) == []
    for number in range(REVOKED_MOST):
        directory.revoke(number.to_bytes(32, "little") + b"x")
    assert not directory.is_revoked(KEY)


def test_a_revocation_is_not_about_who_has_the_address_now() -> None:
    directory, contact = met()
    revoked = Peer(IP, State.REVOKED, lease=NEW, key=OTHER)
    directory.hear(SEALS)
    assert directory.hear(revoked) == (None, [])
    assert contact.identity == IDENTITY
    directory.hear(Peer(IP, State.CLEAR, lease=b"old-----"))
    assert directory.hear(revoked) == (None, [])
    # But it may be the answer.
    directory.ask(contact, 9.0)
    assert directory.hear(revoked) == (contact, [])
    assert contact.standing is Standing.ABSENT


def test_a_revocation_of_what_was_refused() -> None:
    directory, contact = met()
    directory.hear(SEALS)
    directory.hear(replace(SEALS, key=OTHER))
    assert directory.hear(Peer(IP, State.REVOKED, lease=LEASE, key=OTHER)) == (contact, [])
    assert contact.standing is Standing.ABSENT


def test_with_the_connection_the_answers_are_lost() -> None:
    directory, contact = met()
    directory.hear(SEALS)
    directory.ask(contact, 1.0)
    directory.lost()
    assert list(directory.asks(1.0)) == []
    assert (contact.is_told, contact.is_asking) == (True, False)
    directory.joined()
    assert not contact.is_told
    assert contact.identity == IDENTITY
    directory.ask(contact, 2.0)
    assert len(list(directory.asks(2.0))) == 1
    directory.hear(SEALS)
    assert contact.is_told
