"""Orders of events about links between relays, made to happen every time: as in test_interleavings.py."""

from collections.abc import Iterator

import pytest
from kit.held import Held, let_go
from kit.peer import BINARY, numbered
from kit.trunks import by_network, trunk

from candy import _fastpath
from candy._fastpath import hold_at, release, wait_held

pytestmark = pytest.mark.engine

A, B, C = (0x0A000001 + n for n in range(3))


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    yield
    let_go()


def test_two_networks_at_one_trunk_at_once() -> None:
    """What a thread leaves for the holder of the send lock is of its own network."""
    with Held(2) as relay:
        second = relay.engine.add_network()
        a, b = relay.member(A), relay.member(B, network=second)
        end = trunk(relay, 1, [second, 0])
        relay.engine.lead(0, C, 1)
        relay.engine.lead(second, C, 1)
        hold_at("compared")
        a.forward(numbered(A, C, 1), numbered(A, C, 2))
        assert wait_held("compared")
        b.forward(numbered(B, C, 3), numbered(B, C, 4))
        assert b.sync() == []
        release("compared")
        assert a.sync() == []
        came = [frame.payload for frame in end.sync() if frame.opcode == BINARY]
        assert by_network(came) == [
            (1, numbered(A, C, 1)),
            (1, numbered(A, C, 2)),
            (0, numbered(B, C, 3)),
            (0, numbered(B, C, 4)),
        ]
        assert relay.dropped() == {}


@pytest.mark.parametrize("point", ["table", "chosen"])
def test_a_trunk_ends_with_a_packet_on_its_way_there(point: str) -> None:
    """A worker has what its relays have agreed on in its hands, or has chosen it. What it has stays as it was, and the
    packet is nothing for the trunk in the same slot afterwards."""
    with Held(2) as relay:
        a = relay.member(A)
        old = trunk(relay, 1, [0])
        relay.engine.lead(0, C, 1)
        hold_at(point)
        a.forward(numbered(A, C, 1))
        assert wait_held(point)
        relay.engine.close(old.connection)
        relay.cause(old.connection)
        assert _fastpath.replaced_tables(relay.engine) == 1
        new = relay.adopt(trunk=True)
        assert new.connection & 0xFFFFFFFF == old.connection & 0xFFFFFFFF, "the test is about one slot"
        assert relay.engine.agree(new.connection, 2, [0])
        release(point)
        assert a.sync() == new.sync() == []
        assert relay.dropped() == {"no_relay_link" if point == "table" else "stale": 1}


def test_a_network_outlives_a_trunk_that_reads_it() -> None:
    """A worker has a packet of it in its hands when Python removes it."""
    with Held(2) as relay:
        number = relay.engine.add_network()
        relay.engine.set_rules(number, [(0xC0A80100, 0xFFFFFF00, C, B, 0xFFFFFFFF)])
        relay.adopt()
        end = trunk(relay, 1, [number])
        hold_at("table")
        end.forward(b"\x18\0\0", numbered(A, B, 1))
        assert wait_held("table")
        relay.engine.remove_network(number)
        assert _fastpath.kept_networks(relay.engine) == 2
        release("table")
        assert end.sync() == []
        assert relay.dropped() == {"relay_source": 1}
        relay.engine.close(end.connection)
        relay.cause(end.connection)
        assert _fastpath.kept_networks(relay.engine) == 1
