"""Unauthenticated connections per source: the oldest goes, and nothing is kept of those who left."""

from candy.relay.admission import Admission


def test_up_to_the_limit_nobody_goes() -> None:
    admission = Admission(limit_per_source=64)
    assert [admission.arrived(connection, "203.0.113.5") for connection in range(64)] == [None] * 64
    assert len(admission) == 64


def test_beyond_the_limit_the_oldest_goes() -> None:
    admission = Admission(limit_per_source=3)
    closed = [admission.arrived(connection, "203.0.113.5") for connection in range(6)]
    assert closed == [None, None, None, 0, 1, 2]
    assert len(admission) == 3


def test_whoever_left_is_not_counted_and_not_named() -> None:
    admission = Admission(limit_per_source=3)
    for connection in range(3):
        admission.arrived(connection, "203.0.113.5")
    admission.left(0)
    assert admission.arrived(3, "203.0.113.5") is None
    assert admission.arrived(4, "203.0.113.5") == 1


def test_sources_do_not_share_a_limit() -> None:
    admission = Admission(limit_per_source=1)
    assert admission.arrived(1, "203.0.113.5") is None
    assert admission.arrived(2, "203.0.113.6") is None
    assert admission.arrived(3, "203.0.113.5") == 1
    assert admission.arrived(4, "203.0.113.6") == 2


def test_leaving_twice_or_never_having_come_does_nothing() -> None:
    admission = Admission(limit_per_source=1)
    admission.left(1)
    admission.arrived(1, "203.0.113.5")
    assert admission.arrived(2, "203.0.113.5") == 1
    admission.left(1)
    assert len(admission) == 1
    admission.left(2)
    admission.left(2)
    assert len(admission) == 0
    assert admission.arrived(3, "203.0.113.5") is None
