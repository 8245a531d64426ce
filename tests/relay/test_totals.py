"""What connections have carried: each is asked once a pass, and few at a time."""

from candy.relay.leases import Traffic
from candy.relay.totals import LOOKS, PASS_S, Totals


def test_all_are_asked_once_in_a_pass_and_few_at_a_time() -> None:
    asked: list[int] = []
    told: list[tuple[int, Traffic]] = []

    def read(connection: int) -> dict[str, int] | None:
        asked.append(connection)
        # An odd one has ended.
        totals = dict.fromkeys(("packets_in", "bytes_in", "packets_out", "bytes_out", "sends"), connection)
        return None if connection % 2 else totals

    totals = Totals(read, lambda connection, traffic: told.append((connection, traffic)))
    connections = range(10 * LOOKS)
    sizes = []
    for _ in range(2 * LOOKS):
        before = len(asked)
        totals.look(connections, 100.0)
        sizes.append(len(asked) - before)
    assert sorted(asked) == list(connections)
    assert max(sizes) == 11
    assert sorted(told) == [(n, Traffic(n, n, n, n)) for n in connections if n % 2 == 0]
    totals.look(connections, 100.0 + PASS_S - 0.1)
    assert len(asked) == len(connections)
    totals.look(connections, 100.0 + PASS_S)
    assert len(asked) == len(connections) + 11


def test_one_that_left_during_a_pass_is_not_asked() -> None:
    asked: list[int] = []

    def read(connection: int) -> dict[str, int]:
        # The engine still knows what an ended connection has carried.
        asked.append(connection)
        return dict.fromkeys(Traffic._fields, connection)

    told: list[int] = []
    totals = Totals(read, lambda connection, traffic: told.append(connection))
    connections = set(range(2 * LOOKS))
    totals.look(connections, 0.0)
    connections -= set(range(LOOKS))
    for _ in range(LOOKS):
        totals.look(connections, 0.0)
    assert sorted(asked) == sorted(told) == sorted(connections)


def test_without_connections_nothing_is_asked() -> None:
    totals = Totals(lambda connection: {}, lambda connection, traffic: None)
    totals.look([], 0.0)
    totals.look([], PASS_S)
