"""Quotas of all relays together: what each has counted is told once, and summed."""

from typing import Any

import pytest
from kit.talk import ONE, TWO

from candy.relay.cluster import quotas
from candy.relay.cluster.quotas import Quotas, Row
from candy.relay.leases import NO_HELLO, Lease

MONTH = 24_321


def lease(ip: int, used: int, vmac: bytes = ONE, month: int = MONTH) -> Lease:
    return Lease(ip, vmac, NO_HELLO, 0, 0, "", month=month, used=used)


def test_what_is_new_is_told_once() -> None:
    own = Quotas()
    own.number += 1
    own.note("=2F", [lease(1, 10), lease(2, 0), lease(3, 30, month=MONTH - 1)], MONTH)
    assert [row.used for row in own.since(0)] == [10]
    own.number += 1
    own.note("=2F", [lease(1, 10), lease(2, 20)], MONTH)
    assert list(own.since(1)) == [Row("=2F", 2, ONE, MONTH, 20)]
    assert len(list(own.since(0))) == 2
    assert list(own.since(2)) == []
    # Forgiven, or of a month that has begun: it is told that it is 0.
    own.number += 1
    own.note("=2F", [lease(1, 0), lease(2, 20, month=MONTH)], MONTH + 1)
    assert {(row.ip, row.month, row.used) for row in own.since(2)} == {(1, MONTH + 1, 0), (2, MONTH + 1, 0)}


def test_the_sum_is_of_one_device_in_one_month() -> None:
    sums = Quotas()
    sums.share("=2F")
    sums.take("eu", [Row("=2F", 1, ONE, MONTH, 10), Row("=2F", 2, TWO, MONTH, 1)])
    sums.take("us", [Row("=2F", 1, ONE, MONTH, 5)])
    assert sums.elsewhere("=2F", 1, ONE, MONTH) == 15
    sums.take("us", [Row("=2F", 1, ONE, MONTH, 7)])
    assert sums.elsewhere("=2F", 1, ONE, MONTH) == 17
    assert sums.elsewhere("=2F", 1, TWO, MONTH) == 0
    assert sums.elsewhere("=2F", 1, ONE, MONTH + 1) == 0
    assert sums.elsewhere("=2Fhome", 1, ONE, MONTH) == 0
    sums.forgive("=2F", 1)
    assert sums.elsewhere("=2F", 1, ONE, MONTH) == 0
    assert sums.elsewhere("=2F", 2, TWO, MONTH) == 1
    sums.leave("=2F")
    assert sums.elsewhere("=2F", 2, TWO, MONTH) == 0


def test_a_row_goes_over_the_wire() -> None:
    row = Row("=2F", 1, ONE, MONTH, 10)
    assert Row.of(row.plain()) == row


def test_what_is_kept_of_others_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "ROWS_MOST", 2)
    sums = Quotas()
    sums.share("=2F")
    sums.take("eu", [Row("=2F", ip, ONE, MONTH, 10) for ip in (1, 2, 3)])
    sums.take("eu", [Row("=2F", 2, ONE, MONTH, 11), Row("=2Fother", 1, ONE, MONTH, 10)])
    sums.take("us", [Row("=2F", 3, ONE, MONTH, 5)])
    assert [sums.elsewhere("=2F", ip, ONE, MONTH) for ip in (1, 2, 3)] == [10, 11, 5]
    # What is served later is asked for anew.
    sums.share("=2Fother")
    assert sums.elsewhere("=2Fother", 1, ONE, MONTH) == 0


@pytest.mark.parametrize("plain", [["=2F", 1, "00", MONTH, -1], ["=2F", 1, "00", MONTH, float("inf")], [1], 1])
def test_a_row_that_is_none(plain: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Row.of(plain)
