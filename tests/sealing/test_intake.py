"""Whose messages are looked at, in which order, and how many are kept."""

from ipaddress import IPv4Address

from candy.protocol.handshake import Message
from candy.sealing.intake import Arrival, Intake

OWN, FIRST = IPv4Address("10.0.0.1"), IPv4Address("10.1.0.0")
NOW = 1000.0


def arrival(source: int, at: float = NOW, sender: int = 1) -> Arrival:
    return Arrival(Message(1, FIRST + source, OWN, sender, 0), None, at)


def test_two_a_second_of_each_source() -> None:
    intake = Intake()
    assert [intake.came(arrival(1)) for _ in range(3)] == [True, True, False]
    assert intake.came(arrival(2))
    assert not intake.came(arrival(1, NOW + 0.4))
    assert intake.came(arrival(1, NOW + 0.5))


def test_200_a_second_in_all_and_of_each_source_the_last_in_its_turn() -> None:
    intake = Intake()
    for source in range(300):
        intake.came(arrival(source))
    assert [each.message.source for each in intake.ready(NOW)] == [FIRST + source for source in range(200)]
    assert intake.has_waiting
    # Who sends more gets no other turn.
    intake.came(arrival(250, sender=2))
    assert list(intake.ready(NOW)) == []
    later = list(intake.ready(NOW + 0.5))
    assert [each.message.source for each in later] == [FIRST + source for source in range(200, 300)]
    assert later[50].message.sender == 2
    assert not intake.has_waiting


def test_what_waited_for_too_long_is_gone_and_costs_nothing() -> None:
    intake = Intake()
    for source in range(250):
        intake.came(arrival(source))
    assert len(list(intake.ready(NOW))) == 200
    for source in range(300, 500):
        intake.came(arrival(source, NOW + 5))
    assert [each.message.source for each in intake.ready(NOW + 5)] == [FIRST + source for source in range(300, 500)]


def test_so_many_wait() -> None:
    intake = Intake()
    came = [intake.came(arrival(source)) for source in range(1300)]
    assert came == [True] * 1024 + [False] * 276
    assert intake.came(arrival(0))


def test_a_source_that_was_forgotten_has_its_allowance_again() -> None:
    intake = Intake()
    for _ in range(2):
        assert intake.came(arrival(0))
    for source in range(1, 4097):
        intake.came(arrival(source))
    assert len(list(intake.ready(NOW))) == 200
    assert intake.came(arrival(0, sender=3))


def test_one_of_each_source_is_kept_for_a_second() -> None:
    intake = Intake()
    assert intake.keep(arrival(1))
    assert intake.keep(arrival(1, NOW + 0.1, sender=2))
    kept = intake.kept(FIRST + 1, NOW + 1.0)
    assert kept is not None
    assert kept.message.sender == 2
    assert intake.kept(FIRST + 1, NOW + 1.0) is None
    intake.keep(arrival(1))
    assert intake.kept(FIRST + 1, NOW + 1.0) is None


def test_64_are_kept() -> None:
    intake = Intake()
    assert [intake.keep(arrival(source)) for source in range(65)] == [True] * 64 + [False]
    assert intake.keep(arrival(3))
    # Those that are too old make room.
    assert intake.keep(arrival(99, NOW + 1.0))
    assert intake.kept(FIRST + 3, NOW) is None


def test_all_can_be_forgotten() -> None:
    intake = Intake()
    intake.came(arrival(1))
    intake.keep(arrival(1))
    intake.clear()
    assert not intake.has_waiting
    assert intake.kept(FIRST + 1, NOW) is None
