"""Epochs of packets to groups: one's own, and which of others' are opened."""

from ipaddress import IPv4Address
from random import Random

import pytest
from kit.primitives import PRIMITIVES, pair

from candy.protocol import group
from candy.protocol.group import Sealed
from candy.sealing.groups import Groups, Membership, Result
from candy.sealing.seals import CloseGroup, OpenGroup, SealGroups
from candy.sealing.stamps import Moment

WALL = 1_800_000_000
SECRET, NETWORK = bytes([1]) * 32, bytes([2]) * 32
OWN, SOURCE = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
KEY, SENDER = pair(bytes([3]) * 32).public, pair(bytes([4]) * 32).public
MEMBERSHIP = Membership(secret=SECRET, network=NETWORK, address=OWN, key=KEY)


def at(seconds: float = 0.0, *, clock: float | None = None) -> Moment:
    return Moment(1000.0 + seconds, int((WALL + (seconds if clock is None else clock)) * 10**9))


def joined() -> Groups:
    groups = Groups(PRIMITIVES, Random(1).randbytes)
    assert len(groups.joined(MEMBERSHIP, at())) == 1
    return groups


def message(
    time: int = 0, random: int = 7, *, source: IPv4Address = SOURCE, counter: int = 0, sender: bytes = SENDER
) -> Sealed:
    epoch = group.make_epoch(WALL + time, bytes([random]) * 8)
    head = b"\x13\0\0\0" + source.packed + IPv4Address("224.0.0.1").packed + epoch + counter.to_bytes(8, "big")
    key = group.key(SECRET, epoch, NETWORK, source, sender)
    nonce = bytes(4) + counter.to_bytes(8, "big")
    return Sealed.decode(head + PRIMITIVES.seal(key, nonce, head, b"a packet"))


def opens(sealed: Sealed, sender: bytes = SENDER) -> OpenGroup:
    key = group.key(SECRET, sealed.epoch, NETWORK, sealed.source, sender)
    return OpenGroup(sealed.source, sealed.epoch, key, sealed.message)


def sealing(results: list[Result]) -> SealGroups:
    [result] = results
    assert isinstance(result, SealGroups)
    return result


def test_an_epoch_begins_at_the_start_and_every_two_minutes() -> None:
    groups = Groups(PRIMITIVES, Random(1).randbytes)
    assert groups.deadline == float("inf")
    first = sealing(groups.joined(MEMBERSHIP, at()))
    assert group.time_of(first.epoch) == WALL
    assert first.key == group.key(SECRET, first.epoch, NETWORK, OWN, KEY)
    assert groups.deadline == 1120.0
    assert groups.tick(at(119.9)) == []
    # A clock that is set back repeats none.
    second = sealing(groups.tick(at(120, clock=0)))
    assert group.time_of(second.epoch) == WALL
    assert len({first.epoch, second.epoch}) == len({first.key, second.key}) == 2
    assert first.label_key == second.label_key != bytes(16)
    # A connection is no reason.
    assert groups.joined(MEMBERSHIP, at(121)) == []


def test_without_a_secret_there_is_none() -> None:
    groups = joined()
    groups.came(message(), SENDER, at())
    assert groups.joined(None, at()) == [CloseGroup(SOURCE, message().epoch), SealGroups()]
    assert groups.tick(at(1000)) == []
    assert groups.joined(None, at()) == []
    assert groups.came(message(), SENDER, at()) == "no_secret"
    assert groups.keep(message(), at()) == "no_secret"


def test_what_opens_is_opened() -> None:
    groups = joined()
    assert groups.came(message(), SENDER, at()) == [opens(message())]
    # What had come before the engine heard of it.
    again = message(counter=1)
    assert groups.came(again, SENDER, at()) == [opens(again)]


@pytest.mark.parametrize("byte", range(3, 52))
def test_a_message_that_was_changed_opens_nothing(byte: int) -> None:
    groups = joined()
    data = message().message
    changed = Sealed.decode(data[:byte] + bytes([data[byte] ^ 1]) + data[byte + 1 :])
    assert groups.came(changed, SENDER, at()) in ("bad_seal", "group_clock")
    assert groups.tick(at(1)) == []


def test_who_has_no_key_or_another_sends_none() -> None:
    groups = joined()
    assert groups.came(message(), None, at()) == "bad_seal"
    assert groups.came(message(), KEY, at()) == "bad_seal"


@pytest.mark.parametrize(("time", "is_taken"), [(-481, False), (-480, True), (480, True), (481, False)])
def test_the_clock(time: int, is_taken: bool) -> None:
    sealed = message(time)
    assert joined().came(sealed, SENDER, at()) == ([opens(sealed)] if is_taken else "group_clock")


def test_the_two_greatest_of_a_sender_stay() -> None:
    groups = joined()
    second, third = message(10), message(20)
    groups.came(second, SENDER, at())
    groups.came(third, SENDER, at())
    # Numbers, not times alone.
    assert groups.came(message(10, 6), SENDER, at()) == "replayed"
    between = message(10, 8)
    assert groups.came(between, SENDER, at()) == [CloseGroup(SOURCE, second.epoch), opens(between)]
    assert groups.came(second, SENDER, at()) == "replayed"
    newest = message(30)
    groups = joined()
    for each in (message(0), third):
        groups.came(each, SENDER, at())
    assert groups.came(newest, SENDER, at()) == [CloseGroup(SOURCE, message(0).epoch), opens(newest)]


def test_one_that_does_not_open_displaces_none() -> None:
    groups = joined()
    for each in (message(10), message(20)):
        groups.came(each, SENDER, at())
    assert groups.came(message(30, sender=KEY), SENDER, at()) == "bad_seal"
    assert groups.came(message(10, counter=9), SENDER, at()) == [opens(message(10, counter=9))]


def test_an_epoch_whose_time_is_over_is_closed() -> None:
    groups = joined()
    for each in (message(0), message(100)):
        groups.came(each, SENDER, at())
    assert [type(result) for result in groups.tick(at(480))] == [SealGroups]
    assert groups.tick(at(481)) == [CloseGroup(SOURCE, message(0).epoch)]
    assert groups.tick(at(581)) == [CloseGroup(SOURCE, message(100).epoch)]
    assert groups.forget(SOURCE) == []


def test_so_many_senders() -> None:
    groups = joined()
    for number in range(1024):
        source = IPv4Address("10.1.0.0") + number
        assert groups.came(message(source=source), SENDER, at()) == [opens(message(source=source))]
    assert groups.came(message(), SENDER, at()) == "group_senders"
    # Those who are there go on.
    assert len(groups.came(message(5, source=source), SENDER, at())) == 1
    groups.tick(at(481))
    assert groups.came(message(400), SENDER, at(481)) == [opens(message(400))]


def test_of_one_source_so_many_are_tried() -> None:
    groups = joined()
    false = [groups.came(message(random=number, sender=KEY), SENDER, at()) for number in range(6)]
    assert false == ["bad_seal"] * 4 + ["handshake_limit"] * 2
    assert groups.came(message(), SENDER, at(0.9)) == "handshake_limit"
    assert groups.came(message(), SENDER, at(1.9)) == [opens(message())]


def test_one_of_a_sender_who_is_not_known_is_kept_for_a_second() -> None:
    groups = joined()
    assert groups.keep(message(), at()) == []
    assert groups.keep(message(counter=1), at(0.5)) == []
    assert groups.told(SOURCE, at(1.4)) == message(counter=1).message
    assert groups.told(SOURCE, at(1.4)) is None
    groups.keep(message(), at())
    assert groups.told(SOURCE, at(1.0)) is None


def test_64_are_kept() -> None:
    groups = joined()
    for number in range(64):
        assert groups.keep(message(source=OWN + 1 + number), at()) == []
    assert groups.keep(message(source=OWN + 99), at(0.9)) == "handshake_limit"
    assert groups.keep(message(source=OWN + 3), at(0.9)) == []
    assert groups.keep(message(source=OWN + 99), at(1.0)) == []


def test_who_is_another_now_is_forgotten() -> None:
    groups = joined()
    groups.came(message(), SENDER, at())
    assert groups.forget(SOURCE) == [CloseGroup(SOURCE, message().epoch)]
    assert groups.came(message(), SENDER, at()) == [opens(message())]


def test_a_secret_is_in_no_repr() -> None:
    assert str(SECRET) not in repr(MEMBERSHIP)
