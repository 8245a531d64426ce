"""Whom members believe to be who: revoked devices, other devices, and relays that lie."""

from dataclasses import replace

import pytest
from kit.primitives import pair
from kit.sealed_pair import (
    ONE,
    OTHER_SECRET,
    SECRET,
    TWO,
    met,
    old_client,
    passes,
    talked,
    way,
)
from kit.sealed_world import A, B, C, Node, Plain, World

from candy.protocol import control
from candy.protocol.control import State
from candy.protocol.keys import fingerprint
from candy.protocol.login import Asks
from candy.sealing.seals import (
    Way,
)


def test_a_revoked_device_is_out_at_once() -> None:
    world, a, b = talked()
    world.relay.revoke(B)
    world.settle()
    assert a.engine.sessions == {}
    world.send(a, B, ONE)
    assert a.engine.drops == ["no_route"]
    # Whatever the relay says of that key later, it gets no session any more.
    world.send(b, A, TWO)
    world.run()
    world.pass_time(20)
    world.relay.change(replace(b.peer, address=C))
    world.send(a, C, ONE)
    world.relay.change(b.peer)
    world.settle()
    world.send(a, B, ONE)
    world.pass_time(20)
    assert a.engine.sessions == {}
    assert a.engine.drops[-2:] == ["no_route", "no_route"]


def test_a_revocation_counts_by_its_key_and_not_by_the_address() -> None:
    world, a, b = talked()
    stranger = replace(b.peer, key=pair(bytes([9]) * 32).public, lease=b"another!", state=State.REVOKED)
    a.do(a.sessions.told(control.Tell((stranger,)), a.at))
    passes(world, a, b)
    elsewhere = replace(b.peer, address=C, state=State.REVOKED)
    a.do(a.sessions.told(control.Tell((elsewhere,)), a.at))
    assert a.engine.sessions == {}


def test_an_address_that_goes_to_another_device_ends_the_session_and_warns() -> None:
    world, a, b = talked()
    del world.nodes[B]
    other = Node(world, B, 77)
    world.nodes[B] = other
    other.join()
    world.settle()
    assert a.engine.sessions == {}
    now, before = (fingerprint(each.device.public) for each in (other, b))
    assert a.logs == [
        f"10.0.0.2 is another device now: number 77 with the key {now}, before it was number 2 with the key {before}"
    ]
    passes(world, a, other)


def test_the_same_device_under_another_lease_has_another_session() -> None:
    world, a, b = talked()
    b.lease = b"another!"
    world.relay.change(b.peer)
    world.settle()
    assert a.engine.sessions == {}
    assert a.logs == []


def test_an_address_that_goes_to_an_old_client_is_in_the_clear_with_a_warning() -> None:
    world, a, b = talked()
    world.relay.change(replace(old_client(B), device=9))
    world.settle()
    assert a.engine.sessions == {}
    assert a.logs == [
        "10.0.0.2 is another device now, which does not seal: number 9; before it was number 2 with the key "
        + fingerprint(b.device.public)
    ]
    world.send(a, B, ONE)
    assert world.wire == [Plain(A, B, ONE)]
    world.deliver(Plain(B, A, TWO))
    assert a.got == [ONE, TWO]


def test_another_key_for_the_same_lease_is_refused_until_the_user_forgets_it() -> None:
    world, a, b = talked()
    false = pair(bytes([9]) * 32).public
    world.relay.lies[A, B] = replace(b.peer, key=false)
    world.relay.change(b.peer)
    world.settle()
    assert len(a.logs) == 1
    assert fingerprint(false) in a.logs[0]
    assert fingerprint(b.device.public) in a.logs[0]
    assert "candy-client forget 10.0.0.2" in a.logs[0]
    assert a.engine.sessions == {}
    before = world.relay.asks
    for _ in range(62):
        world.send(a, B, ONE)
        world.pass_time(1)
    assert set(a.engine.drops) == {"key_refused"}
    # It asks again, and says nothing twice.
    assert world.relay.asks == before + 1
    assert len(a.logs) == 1
    assert a.sessions.forget(C, a.at) is None
    a.do(a.sessions.forget(B, a.at) or [])
    world.send(a, B, ONE)
    world.settle()
    assert world.wire != []
    assert a.sessions.forget(B, a.at) is None


def test_that_a_lease_which_has_sealed_does_not_is_refused_also_behind_a_new_start() -> None:
    world, a, b = talked()
    world.pass_time(2)
    a.start()
    a.join()
    world.relay.change(replace(b.peer, state=State.CLEAR, flags=Asks.SEALS_NOTHING))
    world.send(a, B, ONE)
    assert a.engine.drops == ["key_refused"]
    assert fingerprint(b.device.public) in a.logs[0]
    a.do(a.sessions.forget(B, a.at) or [])
    world.send(a, B, ONE)
    assert world.wire == [Plain(A, B, ONE)]


def test_a_key_that_is_ones_own_is_refused() -> None:
    world, a, b = met()
    world.relay.lies[A, B] = replace(b.peer, key=a.device.public)
    world.send(a, B, ONE)
    assert way(a, B) is Way.KEY_REFUSED
    assert "this member's own" in a.logs[0]


@pytest.mark.parametrize("missing", [{"key": bytes(32)}, {"lease": bytes(8)}])
def test_who_seals_has_a_key_and_a_lease(missing: dict[str, bytes]) -> None:
    world, a, b = met()
    world.relay.lies[A, B] = replace(b.peer, **missing)  # type: ignore[arg-type]
    world.send(a, B, ONE)
    assert way(a, B) is Way.KEY_REFUSED


def false_peer(world: World, secret: bytes | None) -> tuple[Node, Node]:
    """A at a relay which lies to it that another's key is B's, and hands over what is for B to that one."""
    a = world.add(A, secret=secret)
    world.relay.peers[B] = Node(world, B, 9).peer
    false = world.add(B)
    return a, false


def test_a_relay_that_lies_from_the_beginning_is_in_between_without_a_secret() -> None:
    world = World()
    a, false = false_peer(world, None)
    passes(world, a, false)
    assert a.logs == []


def test_with_a_secret_a_false_key_leads_to_no_session() -> None:
    world = World()
    a, false = false_peer(world, SECRET)
    world.send(a, B, ONE)
    world.run()
    world.pass_time(200)
    assert false.got == []
    assert a.engine.sessions == {}
    assert len(a.logs) == 1
    assert "secret" in a.logs[0]
    assert a.engine.waiting == {B: [ONE]}


def test_one_secret_for_both() -> None:
    world, a, b = met({"secret": SECRET}, {"secret": SECRET})
    passes(world, a, b)
    passes(world, b, a)


def test_the_warning_of_another_secret_comes_once_an_hour_for_each_peer() -> None:
    world, a, b = met({"secret": SECRET}, {"secret": OTHER_SECRET})
    c = world.add(C)
    for seconds, lines in ((0, 1), (3500, 1), (200, 2)):
        world.now += seconds
        world.send(a, B, ONE)
        world.pass_time(30)
        assert len(a.logs) == lines
    world.send(a, C, ONE)
    world.run()
    assert len(a.logs) == 3
    assert b.got == c.got == []
