"""What lies behind whom, as a gateway is told it: whole sets, and what breaks one."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from candy.errors import WireError
from candy.member.placements import Placements
from candy.member.routeset import MAX_ROUTES
from candy.protocol.wire import Behind, DropReason, Placement

FIRST, LAST = Behind.FIRST, Behind.LAST
HERE = IPv4Network("192.168.202.0/24")


def placed(number: int) -> Placement:
    return Placement(IPv4Network((10 << 24 | number << 8, 24)), IPv4Address("192.168.202.2"), HERE)


A, B, C = placed(1), placed(2), placed(3)


def test_a_set_replaces_the_one_before_once_it_is_whole() -> None:
    placements = Placements()
    assert not placements.told
    assert placements.received(Behind((A, B), FIRST | LAST))
    assert list(placements.told) == [A, B]
    assert not placements.received(Behind((C,), FIRST))
    assert not placements.received(Behind((A,), 0))
    assert list(placements.told) == [A, B]
    assert placements.received(Behind((B,), LAST))
    assert list(placements.told) == [C, A, B]
    assert placements.received(Behind((), FIRST | LAST))
    assert not placements.told


def test_a_set_that_begins_anew() -> None:
    placements = Placements()
    placements.received(Behind((A,), FIRST))
    placements.received(Behind((B,), FIRST))
    assert placements.received(Behind((C,), LAST))
    assert placements.told == (B, C)


@pytest.mark.parametrize("flags", [0, LAST])
def test_what_continues_no_set(flags: int) -> None:
    placements = Placements()
    placements.received(Behind((A,), FIRST | LAST))
    with pytest.raises(WireError) as refused:
        placements.received(Behind((B,), flags))
    assert refused.value.reason == DropReason.OUTSIDE_SET
    assert placements.told == (A,)


def test_a_set_with_a_message_that_could_not_be_read() -> None:
    placements = Placements()
    placements.received(Behind((A,), FIRST))
    placements.abandon()
    with pytest.raises(WireError):
        placements.received(Behind((B,), LAST))
    assert placements.told == ()


def test_as_many_as_a_relay_may_have_rules() -> None:
    placements = Placements()
    whole = tuple(placed(n) for n in range(MAX_ROUTES))
    assert placements.received(Behind(whole, FIRST | LAST))
    placements.received(Behind(whole, FIRST))
    with pytest.raises(WireError) as refused:
        placements.received(Behind((A,), LAST))
    assert refused.value.reason == DropReason.TOO_MANY_ROUTES
    assert placements.told == whole
