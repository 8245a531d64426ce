"""How much a member remembers of others, asks about them, and writes down."""

from ipaddress import IPv4Address

import pytest
from kit.sealed_pair import (
    ONE,
    met,
    passes,
)
from kit.sealed_world import A, B, C, Plain, World

from candy.protocol import control
from candy.protocol.control import Peer, State
from candy.sealing import directory
from candy.sealing.seals import (
    ForgetPeer,
)


def test_pins_are_kept_a_while_after_they_change() -> None:
    world, a, b = met()
    passes(world, a, b)
    world.pass_time(1)
    first = a.pins
    assert first.count(b"\n") == 1
    world.add(C)
    world.send(a, C, ONE)
    world.run()
    world.pass_time(3.5)
    assert a.pins == first
    world.pass_time(1.5)
    assert a.pins.count(b"\n") == 2


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> int:
    """For contacts: less than there is."""
    assert directory.CONTACTS_MOST == 4096
    monkeypatch.setattr(directory, "CONTACTS_MOST", 32)
    return 32


def test_only_as_many_are_known_as_there_is_room(room: int) -> None:
    world = World()
    a, b = world.add(A), world.add(B)
    passes(world, a, b)
    far = IPv4Address("10.1.0.0")
    for number in range(2 * room):
        world.send(a, far + number, ONE)
        if number % 20 == 0:
            # It is of use: packets come from it.
            passes(world, b, a)
            world.pass_time(1)
    assert len(a.engine.peers) == room
    assert B in a.engine.peers
    assert far not in a.engine.peers
    passes(world, a, b)


def test_who_is_told_of_and_makes_room_at_once_is_forgotten_once(room: int) -> None:
    world = World()
    a = world.add(A)
    told = [Peer(IPv4Address("10.1.0.0") + number, State.CLEAR, Peer.UNASKED) for number in range(room + 5)]
    actions = a.sessions.told(control.Tell(tuple(told)), a.at)
    assert [action.address for action in actions if isinstance(action, ForgetPeer)] == []
    a.do(actions)
    assert len(a.engine.peers) == room


def test_the_relay_is_asked_within_its_allowance() -> None:
    world = World()
    a = world.add(A)
    for number in range(1500):
        world.send(a, IPv4Address("10.1.0.0") + number, ONE)
    assert world.relay.asks == 1000
    assert a.sessions.deadline <= world.now + 0.1
    world.pass_time(1.001)
    assert world.relay.asks in (1199, 1200)
    world.pass_time(5)
    assert world.relay.asks == 1500
    assert a.sessions.deadline > world.now + 0.5


def test_forged_sources_have_no_session_forgotten(room: int) -> None:
    """On ws:// anybody on the way can make up packets in the clear."""
    world, a, b = met()
    passes(world, a, b)
    for number in range(2 * room):
        world.deliver(Plain(IPv4Address("10.1.0.0") + number, A, ONE))
    assert len(a.engine.peers) == room
    a.got.clear()
    world.deliver(Plain(B, A, ONE))
    assert (a.got, a.engine.drops[-1]) == ([], "not_sealed")
    passes(world, a, b)
    passes(world, b, a)


def test_who_makes_room_loses_its_session(room: int) -> None:
    """Where all seal, the one of use longest ago."""
    world = World()
    a = world.add(A)
    for number in range(room + 1):
        passes(world, a, world.add(B + number))
    assert B not in a.engine.peers
    assert len(a.engine.sessions) == room
