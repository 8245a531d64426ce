"""Sessions while the relay is away: what goes over them goes by another way, as direct links have it."""

import pytest
from kit.sealed_pair import ONE, TWO, both_pass, old_client, shakes, talked, way
from kit.sealed_world import A, B, Sealed, World

from candy.protocol.control import Peer, State
from candy.protocol.linking import Offer
from candy.sealing.handshakes import AWAY_MOST_S
from candy.sealing.seals import Noted, Wanted, Way


def chat(world: World, seconds: float, each_s: float = 10.0) -> None:
    """Packets both ways, for so long."""
    a, b = world.nodes[A], world.nodes[B]
    until = world.now + seconds
    while world.now < until:
        for node, peer, packet in ((a, B, ONE), (b, A, TWO)):
            node.engine.send(peer, packet)
        world.run()
        world.pass_time(each_s)


@pytest.mark.parametrize("losers", ["ab", "a", "b"])
def test_they_go_on_for_hours_with_other_keys_all_the_time(losers: str) -> None:
    world, a, b = talked()
    a.do(a.sessions.linked(B, True, a.at))
    b.do(b.sessions.linked(A, True, b.at))
    for node, name in ((a, "a"), (b, "b")):
        if name in losers:
            node.lose()
    world.settle()
    world.trace.clear()
    b.got.clear()
    sent, keys = len(a.sent) + len(b.sent), len(world.keys)
    chat(world, 3600)
    assert len(b.got) == 360
    assert way(a, B) is way(b, A) is Way.SEAL
    assert all(isinstance(datagram, Sealed) for datagram in world.trace)
    assert len(a.sent) + len(b.sent) == sent
    # Of each session two keys are installed, each at both ends; one lasts for two minutes.
    assert len(world.keys) - keys >= 2 * 3600 // 180
    for node in (a, b):
        node.join()
    world.run()
    both_pass(world, a, b)


@pytest.mark.parametrize("losers", ["ab", "a", "b"])
def test_a_note_that_is_lost_is_repeated_as_one(losers: str) -> None:
    world, a, b = talked()
    a.do(a.sessions.linked(B, True, a.at))
    b.do(b.sessions.linked(A, True, b.at))
    for node, name in ((a, "a"), (b, "b")):
        if name in losers:
            node.lose()
    world.settle()
    keys = len(world.keys)
    for _ in range(20):
        for node, peer, packet in ((a, B, ONE), (b, A, TWO)):
            node.engine.send(peer, packet)
        # Every second note is lost.
        notes = [each for each in world.wire if isinstance(each, Sealed) and each.body[:1] == b"\x80"]
        for lost in notes[::2]:
            world.wire.remove(lost)
        world.run()
        world.pass_time(10, run=False)
    world.run()
    chat(world, 300)
    assert len(world.keys) > keys
    assert way(a, B) is way(b, A) is Way.SEAL


def test_a_silent_pair_has_none_after_three_minutes() -> None:
    """It gets none without the relay."""
    world, a, b = talked()
    a.lose()
    b.lose()
    world.pass_time(181)
    a.engine.send(B, ONE)
    world.run()
    assert way(a, B) is not Way.SEAL
    assert not a.engine.sessions
    assert shakes(a, 1) + shakes(b, 1) == 1


def test_who_is_away_and_has_no_link_is_away() -> None:
    world, a, b = talked()
    a.do(a.sessions.linked(B, True, a.at))
    b.lose()
    world.settle()
    assert way(a, B) is Way.SEAL
    a.do(a.sessions.linked(B, False, a.at))
    assert way(a, B) is Way.NO_ROUTE
    a.do(a.sessions.linked(B, True, a.at))
    world.relay.revoke(B)
    world.settle()
    assert way(a, B) is Way.NO_ROUTE
    assert not a.engine.sessions


def test_an_offer_of_addresses_is_nothing_for_who_has_no_links() -> None:
    world, a, b = talked()
    [local] = a.engine.sessions
    a.happened(Noted(local, Offer(1).encode()))
    world.run()
    assert (a.dropped, b.dropped) == ([], [])
    both_pass(world, a, b)


def test_no_longer_than_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay might have told of a revocation since."""
    assert AWAY_MOST_S == 86400
    monkeypatch.setattr("candy.sealing.handshakes.AWAY_MOST_S", 600.0)
    world, a, b = talked()
    a.lose()
    b.lose()
    chat(world, 600)
    assert way(a, B) is Way.SEAL
    chat(world, 200)
    assert way(a, B) is not Way.SEAL
    assert way(b, A) is not Way.SEAL
    assert not a.engine.sessions


def test_an_old_client_is_one_as_long_as_no_relay_says_otherwise() -> None:
    """Its direct link leads there, whatever the time. The next relay is asked before a packet goes by it."""
    world = World()
    a = world.add(A)
    world.relay.change(old_client(B))
    world.send(a, B, ONE)
    world.run()
    a.lose()
    for _ in range(300):
        world.pass_time(1)
        assert way(a, B) is Way.CLEAR
    # Meanwhile somebody else is there.
    world.relay.peers[B] = Peer(B, State.NOBODY)
    world.trace.clear()
    a.join()
    assert way(a, B) is Way.WAIT
    world.send(a, B, TWO)
    world.run()
    assert world.trace == []
    assert a.engine.drops == ["no_route"]


def test_what_there_is_nobody_to_ask_about_makes_nothing_busy() -> None:
    world, a, b = talked()
    b.lose()
    world.settle()
    a.lose()
    for _ in range(20):
        # A packet for it has no way, so the engine says.
        a.happened(Wanted(B))
        world.pass_time(1)
        assert a.sessions.deadline == world.now + 1
    assert way(a, B) is Way.NO_ROUTE
    # It is not told with every packet that it is wanted.
    assert a.engine.peers[B].tells_wanted is False
    world.pass_time(5)
    assert a.engine.peers[B].tells_wanted is True
