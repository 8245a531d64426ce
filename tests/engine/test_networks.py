"""Networks of one engine: one that is removed, its number, and what is known of connections that have ended."""

import pytest
from kit.peer import FORWARD, EngineRelay, numbered, packet

from candy import _fastpath

pytestmark = pytest.mark.engine

A, B, C = (0x0A000001 + n for n in range(3))
ALL = 0xFFFFFFFF


def two_in(relay: EngineRelay, network: int) -> list[int]:
    """The connections of two members of a network that exchange a packet."""
    one, other = relay.member(A, network=network), relay.member(B, network=network)
    one.forward(numbered(A, B, 1))
    assert other.receive().payload == numbered(A, B, 1)
    return [one.connection, other.connection]


def test_it_is_gone_with_its_last_connection() -> None:
    with EngineRelay() as relay:
        bystanders = two_in(relay, 0)
        number = relay.engine.add_network()
        relay.engine.set_rules(number, [(0xC0A80000, 0xFFFF0000, A, 0, 0)])
        first, last = two_in(relay, number)
        relay.engine.remove_network(number)
        relay.engine.close(first)
        assert relay.cause(first) == "local"
        assert _fastpath.kept_networks(relay.engine) == 2
        relay.engine.close(last)
        assert relay.cause(last) == "local"
        assert _fastpath.kept_networks(relay.engine) == 1
        relay.peers[0].forward(numbered(A, B, 2))
        assert relay.peers[1].receive().payload == numbered(A, B, 2)
        assert all(relay.engine.received_ns(connection) for connection in bystanders)


def test_one_without_connections_is_gone_at_once() -> None:
    with EngineRelay() as relay:
        relay.engine.remove_network(relay.engine.add_network())
        assert _fastpath.kept_networks(relay.engine) == 1


def test_who_is_in_it_goes_on_and_nobody_joins_any_more() -> None:
    with EngineRelay() as relay:
        number = relay.engine.add_network()
        one, other = (relay.member(address, network=number) for address in (A, B))
        relay.engine.remove_network(number)
        one.forward(numbered(A, B, 1))
        assert other.receive().payload == numbered(A, B, 1)
        for refused in (
            lambda: relay.adopt(network=number),
            lambda: relay.engine.set_rules(number, []),
            lambda: relay.engine.set_broadcast(number, 1),
            lambda: relay.engine.remove_network(number),
            lambda: relay.engine.remove_network(7),
            lambda: relay.engine.remove_network(-1),
        ):
            with pytest.raises(ValueError, match="no network"):
                refused()


def test_its_number_is_used_again_and_nothing_of_it() -> None:
    with EngineRelay() as relay:
        number = relay.engine.add_network(0x0A0000FF, check_source=False)
        relay.engine.set_rules(number, [(0xC0A80000, 0xFFFF0000, A, 0, 0)])
        for connection in two_in(relay, number):
            relay.engine.close(connection)
            relay.cause(connection)
        relay.engine.remove_network(number)
        assert relay.engine.add_network() == number
        assert relay.engine.add_network() == number + 1
        one, other = (relay.member(address, network=number) for address in (A, C))
        one.forward(numbered(A, B, 1), numbered(0xC0A80001, C, 2), numbered(B, C, 3), numbered(A, 0x0A0000FF, 4))
        assert one.sync() == other.sync() == []
        assert relay.dropped() == {"no_route": 2, "spoofed_source": 2}


def test_another_broadcast_address() -> None:
    with EngineRelay() as relay:
        one, other = relay.member(A), relay.member(B)
        relay.engine.set_broadcast(0, 0x0A00FFFF)
        before, after = (FORWARD + packet(A, address, b"all") for address in (0x0A0000FF, 0x0A00FFFF))
        one.forward(before, after)
        assert [frame.payload for frame in other.sync()] in ([], [after])
        assert relay.dropped() == {"no_route": 1}


def test_what_an_ended_connection_came_to() -> None:
    with EngineRelay() as relay:
        one, other = relay.member(A), relay.member(B)
        one.forward(numbered(A, B, 1, 100), numbered(A, B, 2, 200))
        assert [frame.payload for frame in (other.receive(), other.receive())] == [
            numbered(A, B, 1, 100),
            numbered(A, B, 2, 200),
        ]
        running = relay.engine.connection_stats(one.connection)
        assert running is not None
        relay.engine.close(one.connection)
        relay.cause(one.connection)
        assert relay.engine.connection_stats(one.connection) == running
        assert running["packets_in"] == 2
        again = relay.adopt()
        assert again.connection & 0xFFFFFFFF == one.connection & 0xFFFFFFFF
        assert relay.engine.connection_stats(one.connection) is None
