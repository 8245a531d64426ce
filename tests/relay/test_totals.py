"""What connections have carried: the engine is asked once a pass, and few are told at a time."""

import struct

from candy._fastpath import MEMBER_FORMAT
from candy.relay.leases import Traffic
from candy.relay.totals import LOOKS, PASS_S, URGENT, Totals


def rows(connections: range) -> bytes:
    """As Engine.members() has them."""
    return b"".join(struct.pack(MEMBER_FORMAT, n, n + 1, n + 2, n + 3, n + 4, 5, 6, 7, 0, 0) for n in connections)


def test_all_are_told_once_in_a_pass_and_few_at_a_time() -> None:
    asked: list[None] = []
    told: list[tuple[int, Traffic]] = []
    connections = range(10 * LOOKS)

    def read() -> bytes:
        asked.append(None)
        return rows(connections)

    totals = Totals(read, MEMBER_FORMAT, lambda connection, traffic: told.append((connection, traffic)))
    sizes = []
    for _ in range(2 * LOOKS):
        before = len(told)
        totals.look(100.0)
        sizes.append(len(told) - before)
    assert told == [(n, Traffic(n + 1, n + 2, n + 3, n + 4)) for n in connections]
    assert max(sizes) == 11
    totals.look(100.0 + PASS_S - 0.1)
    assert len(asked) == 1
    totals.look(100.0 + PASS_S)
    assert len(asked) == 2
    assert len(told) == len(connections) + 11


def test_a_pass_comes_sooner_where_quotas_depend_on_it() -> None:
    asked: list[None] = []
    urgent = [False]

    def read() -> bytes:
        asked.append(None)
        return rows(range(20))

    totals = Totals(read, MEMBER_FORMAT, lambda connection, traffic: None, lambda: urgent[0])
    for expected, is_urgent, seconds in ((1, True, 0.0), (2, False, PASS_S / URGENT), (2, False, PASS_S / 2)):
        urgent[0] = is_urgent
        for _ in range(LOOKS):
            totals.look(seconds)
        assert len(asked) == expected


def test_without_connections_nothing_is_told() -> None:
    told: list[int] = []
    totals = Totals(lambda: b"", MEMBER_FORMAT, lambda connection, traffic: told.append(connection))
    totals.look(0.0)
    totals.look(PASS_S)
    assert told == []
