"""Long answers: what they are in JSON, and how much of them there is at a time."""

import json
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from candy.control.lists import TURN, Lists
from candy.control.model import Leases, Reservation


def reserved(number: int) -> Reservation:
    return Reservation(network="/", address=f"10.0.{number // 256}.{number % 256}", device="ö", configured=False)


@pytest.mark.parametrize("count", [0, 1, TURN, TURN + 1, 3 * TURN])
def test_all_pieces_are_the_answer(count: int) -> None:
    items = [reserved(number) for number in range(count)]
    written = b"".join(Lists(Leases, leases=[], reservations=items).pieces())
    assert json.loads(written) == {"leases": [], "reservations": [asdict(item) for item in items]}


def test_items_are_made_as_they_are_sent() -> None:
    made = 0

    def making() -> Iterator[Reservation]:
        nonlocal made
        for number in range(3 * TURN):
            made += 1
            yield reserved(number)

    counts = [made for _ in Lists(Leases, leases=[], reservations=making()).pieces()]
    assert counts == [0, 0, TURN, 2 * TURN, 3 * TURN, 3 * TURN]


def test_every_list_of_the_shape_is_given() -> None:
    with pytest.raises(AssertionError):
        Lists(Leases, leases=[])
