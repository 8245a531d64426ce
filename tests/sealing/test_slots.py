"""Three slots, and when another session is due: at the second, one before it and one behind."""

from dataclasses import replace

import pytest

from candy.sealing.seals import Seen
from candy.sealing.slots import REKEY_BYTES, Due, Session, Slots

BEGAN = 1000.0


def session(local: int, began: float = BEGAN, *, initiator: bool = True) -> Session:
    return Session(local, bytes(32), initiator, began, 65535, seen=Seen(local))


def numbers(slots: Slots) -> tuple[int, int, int]:
    return tuple(0 if slot is None else slot.local for slot in (slots.previous, slots.current, slots.next))  # type: ignore[return-value]


def with_current(*, initiator: bool = True, **seen: float) -> Slots:
    slots = Slots()
    slots.initiated(session(1, initiator=initiator))
    assert slots.current is not None
    slots.current.seen = replace(slots.current.seen, **seen)  # type: ignore[arg-type]
    return slots


def test_the_way_through_the_slots() -> None:
    slots = Slots()
    assert slots.initiated(session(1)) == []
    assert numbers(slots) == (0, 1, 0)
    assert slots.initiated(session(2)) == []
    assert numbers(slots) == (1, 2, 0)
    assert [gone.local for gone in slots.initiated(session(3))] == [1]
    assert numbers(slots) == (2, 3, 0)
    assert slots.answered(session(4)) == []
    assert numbers(slots) == (2, 3, 4)
    assert [gone.local for gone in slots.answered(session(5))] == [4]
    # Handshakes crossed: the peer may be about to use 5.
    assert [gone.local for gone in slots.initiated(session(6))] == [2]
    assert numbers(slots) == (3, 6, 5)
    assert [gone.local for gone in slots.confirmed()] == [3]
    assert numbers(slots) == (6, 5, 0)
    assert [each.local for each in slots] == [6, 5]
    assert [gone.local for gone in slots.clear()] == [6, 5]
    assert list(slots) == []


def test_the_first_of_a_responder() -> None:
    slots = Slots()
    slots.answered(session(1))
    assert slots.sealing(BEGAN) is None
    assert slots.confirmed() == []
    assert numbers(slots) == (0, 1, 0)


def test_it_seals_for_175_seconds_and_opens_for_180() -> None:
    slots = Slots()
    slots.initiated(session(1))
    slots.initiated(session(2, BEGAN + 100))
    slots.answered(session(3, BEGAN + 200))
    sealing = slots.sealing(BEGAN + 274.9)
    assert sealing is not None
    assert sealing.local == 2
    assert slots.sealing(BEGAN + 275) is None
    assert slots.expired(BEGAN + 179.9) == []
    assert [gone.local for gone in slots.expired(BEGAN + 180)] == [1]
    assert numbers(slots) == (0, 2, 3)
    assert [gone.local for gone in slots.expired(BEGAN + 400)] == [2, 3]
    assert numbers(slots) == (0, 0, 0)


@pytest.mark.parametrize(
    ("initiator", "seen", "due"),
    [
        (True, {}, Due.NOTHING),
        (True, {"packet_sent_at": BEGAN + 119.9}, Due.NOTHING),
        (True, {"packet_sent_at": BEGAN + 120}, Due.REKEY),
        (False, {"packet_sent_at": BEGAN + 120}, Due.NOTHING),
        (False, {"packet_sent_at": BEGAN + 169.9}, Due.NOTHING),
        (False, {"packet_sent_at": BEGAN + 170}, Due.REKEY),
        (True, {"received_at": BEGAN + 164.9}, Due.NOTHING),
        (True, {"received_at": BEGAN + 165}, Due.REKEY),
        (False, {"received_at": BEGAN + 174}, Due.NOTHING),
        (True, {"bytes_sent": REKEY_BYTES - 1}, Due.NOTHING),
        (True, {"bytes_sent": REKEY_BYTES}, Due.REKEY),
        (False, {"bytes_sent": REKEY_BYTES}, Due.REKEY),
    ],
)
def test_another_session_is_due(initiator: bool, seen: dict[str, float], due: Due) -> None:
    assert with_current(initiator=initiator, **seen).due(BEGAN + 174) is due


def test_without_one_that_seals_nothing_is_due() -> None:
    assert with_current(packet_sent_at=BEGAN + 174).due(BEGAN + 175) is Due.NOTHING
    assert Slots().due(BEGAN) is Due.NOTHING


def test_what_is_not_answered_for_15_seconds() -> None:
    slots = with_current(packet_sent_at=BEGAN + 30, unanswered_since=BEGAN + 20, received_at=BEGAN + 20)
    assert slots.due(BEGAN + 34.9) is Due.NOTHING
    assert slots.due(BEGAN + 35) is Due.RENEW
    # An answer may come under another session.
    other = session(2)
    other.seen = Seen(2, received_at=BEGAN + 20.1)
    slots.answered(other)
    assert slots.due(BEGAN + 35) is Due.NOTHING


def test_who_owes_an_answer_for_10_seconds_sends_an_empty_packet() -> None:
    slots = with_current(owes_since=BEGAN + 20, received_at=BEGAN + 25, packet_sent_at=BEGAN + 20)
    assert slots.due(BEGAN + 29.9) is Due.NOTHING
    assert slots.due(BEGAN + 30) is Due.KEEPALIVE


def test_what_came_under_the_session_before_is_answered_once_under_this_one() -> None:
    slots = with_current(owes_since=BEGAN + 10)
    slots.initiated(session(2, BEGAN + 20))
    assert slots.due(BEGAN + 20) is Due.KEEPALIVE
    assert slots.due(BEGAN + 21) is Due.NOTHING
    assert slots.current is not None
    assert slots.previous is not None
    slots.previous.seen = replace(slots.previous.seen, owes_since=BEGAN + 22)
    slots.current.seen = replace(slots.current.seen, packet_sent_at=BEGAN + 23)
    assert slots.due(BEGAN + 40) is Due.NOTHING
