"""Which ends of a connection speak of long segments that vanish, and how long they may be from then on."""

from dataclasses import replace

import pytest

from candy.member.segments import LENGTHS, Seen, shorter

UPWARDS = Seen(length=1448, retransmissions=88, unacknowledged=25_004, heard=2.0, is_missing=False)
"""What was seen at the end of a bulk transfer, after 45 s: the relay's kernel had sent a ping again and again."""
DOWNWARDS = Seen(length=1448, retransmissions=0, unacknowledged=0, heard=4.5, is_missing=False)
"""What a member that gives up sees: the relay's kernel has acknowledged its last ping."""
HANDSHAKE = Seen(length=1448, retransmissions=0, unacknowledged=0, heard=9.9, is_missing=True)
"""What is seen when a certificate does not come but for its end."""


@pytest.mark.parametrize("seen", [UPWARDS, DOWNWARDS, HANDSHAKE])
@pytest.mark.parametrize(
    ("length", "following"),
    [(65483, 1440), (8948, 1440), (1448, 1220), (1428, 1220), (1208, 536), (613, 536), (612, None), (524, None)],
)
def test_the_next_length(seen: Seen, length: int, following: int | None) -> None:
    assert shorter(replace(seen, length=length), gave_up=True) == following


def test_a_gap_is_enough() -> None:
    assert shorter(HANDSHAKE, gave_up=False) == 1220


def test_each_length_leads_to_the_next() -> None:
    """By the kernel's own reckoning, which takes 12 bytes for timestamps."""
    found = [shorter(replace(UPWARDS, length=length - 12), gave_up=False) for length in LENGTHS]
    assert found == [*LENGTHS[1:], None]


@pytest.mark.parametrize(
    ("seen", "gave_up"),
    [
        # Nothing arrives, neither way: this machine is offline, or the relay is.
        (replace(UPWARDS, heard=40.0), True),
        (replace(DOWNWARDS, heard=40.0), True),
        (replace(DOWNWARDS, retransmissions=8, unacknowledged=36), True),
        # The relay ended while something was on its way.
        (replace(UPWARDS, retransmissions=0), False),
        (replace(UPWARDS, retransmissions=4), False),
        # No more than pings are missing.
        (replace(UPWARDS, unacknowledged=536), False),
        (replace(HANDSHAKE, retransmissions=5), False),
        # Something on the way ended it, or the relay is too busy for an answer.
        (DOWNWARDS, False),
    ],
)
def test_other_ends_say_nothing_of_segments(seen: Seen, gave_up: bool) -> None:
    assert shorter(seen, gave_up=gave_up) is None
