"""Sealed sessions between members, in memory: what becomes of packets, whatever relay, peer and time do."""

from dataclasses import replace
from ipaddress import IPv4Address
from math import inf
from typing import Any

import pytest
from kit.primitives import PRIMITIVES
from kit.sealed_pair import (
    ONE,
    SECRET,
    THREE,
    TWO,
    kinds,
    met,
    old_client,
    passes,
    talked,
    way,
)
from kit.sealed_world import NETWORK, A, B, C, Node, Plain, Sealed, Shake, World

from candy.protocol import control
from candy.protocol.control import Peer, State
from candy.protocol.login import Asks
from candy.sealing.joined import Joined
from candy.sealing.sealer import FLAGS
from candy.sealing.seals import (
    ForgetPeer,
    Grouped,
    Install,
    Remove,
    Seal,
    SealGroups,
    SetPeer,
    SetSealing,
    Unknown,
    Wanted,
    Way,
)


def test_a_packet_waits_for_a_session_and_is_sealed() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    assert way(a, B) is Way.WAIT
    world.run()
    assert b.got == [ONE]
    passes(world, b, a, TWO)
    assert kinds(world) == [Shake, Shake, Sealed, Sealed, Sealed]
    assert not a.logs + b.logs + a.dropped + b.dropped + a.engine.drops + b.engine.drops
    # The other is told of who asks, so it need not ask.
    assert world.relay.asks == 1


def test_no_first_packet_waits_for_the_disk() -> None:
    """What the file has to hold for times of handshakes is written at the log-in."""
    world, a, _ = met()
    kept, a.stamp = a.stamp, b""
    assert kept
    world.send(a, B, ONE)
    world.run()
    assert Shake in kinds(world)
    assert a.stamp == b""


def test_the_responder_sends_nothing_before_it_has_opened_a_packet() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    world.deliver(world.wire.pop(0))
    assert [type(datagram) for datagram in world.wire] == [Shake]
    world.send(b, A, TWO)
    assert [type(datagram) for datagram in world.wire] == [Shake]
    world.run()
    assert (a.got, b.got) == ([TWO], [ONE])


def test_what_waited_for_the_others_handshake_begins_none() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    world.deliver(world.wire.pop(0))
    world.send(b, A, TWO)
    world.run()
    world.pass_time(9)
    assert a.got == [TWO]
    assert kinds(world).count(Shake) == 2
    assert world.relay.asks == 1


def test_a_responder_whose_session_is_not_confirmed_begins_one_itself_after_a_while() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    world.deliver(world.wire.pop(0))
    world.wire.clear()
    a.sessions.lost(a.world.now)
    world.send(b, A, TWO)
    world.pass_time(0.9, run=False)
    assert world.wire == []
    world.pass_time(1, run=False)
    assert [type(datagram) for datagram in world.wire] == [Shake]


def test_without_a_packet_that_waits_an_empty_one_confirms() -> None:
    world, a, b = talked()
    local = next(iter(a.engine.sessions))
    a.do([Remove(local)])
    b.happened(Unknown(A))
    world.run()
    assert kinds(world) == [Shake, Shake, Sealed]
    assert world.trace[-1].body == b""  # type: ignore[union-attr]
    assert way(a, B) is Way.SEAL


def test_to_and_from_an_old_client_it_goes_in_the_clear() -> None:
    world = World()
    a = world.add(A)
    world.relay.change(old_client(B))
    world.send(a, B, ONE)
    world.run()
    assert world.trace == [Plain(A, B, ONE)]
    world.deliver(Plain(B, A, TWO))
    assert a.got == [TWO]


def test_what_the_relay_does_not_seal_is_asked_again_once_in_a_minute() -> None:
    world = World()
    a = world.add(A)
    world.relay.change(old_client(B))
    for _ in range(125):
        world.send(a, B, ONE)
        world.pass_time(1)
    assert world.relay.asks == 3


def test_require_sends_nothing_in_the_clear_and_takes_nothing() -> None:
    world = World()
    a = world.add(A, seal=Seal.REQUIRE)
    world.relay.change(old_client(B))
    world.deliver(Plain(B, A, TWO))
    world.send(a, B, ONE)
    world.deliver(Plain(B, A, TWO))
    assert a.engine.drops == ["not_sealed", "peer_not_sealing", "not_sealed"]
    assert (a.got, world.wire) == ([], [])


def test_off_sends_and_takes_everything_in_the_clear() -> None:
    world, a, b = met({"seal": Seal.OFF})
    world.relay.change(replace(a.peer, state=State.CLEAR, flags=Asks.SEALS_NOTHING))
    passes(world, a, b)
    passes(world, b, a)
    assert kinds(world) == [Plain, Plain]
    # It answers nobody.
    world.relay.change(a.peer)
    world.settle()
    world.send(b, A, ONE)
    world.run()
    assert a.dropped == ["bad_handshake"]
    assert a.sent == []


def test_of_whom_it_knows_nothing_it_takes_a_packet_and_asks() -> None:
    world, a, b = met()
    world.deliver(Plain(B, A, TWO))
    assert a.got == [TWO]
    assert world.relay.asks == 1
    # Now the relay has said that it seals.
    world.deliver(Plain(B, A, TWO))
    assert a.engine.drops == ["not_sealed"]
    assert b.got == []


def test_in_the_clear_nothing_is_taken_from_who_has_sealed() -> None:
    world, a, b = talked()
    world.deliver(Plain(B, A, TWO))
    assert a.engine.drops == ["not_sealed"]
    # Nor when it is away, nor behind a new start of both.
    b.lose()
    world.settle()
    world.deliver(Plain(B, A, TWO))
    world.pass_time(6)
    a.start()
    a.join()
    world.deliver(Plain(B, A, TWO))
    world.deliver(Plain(B, A, THREE))
    assert a.got == [ONE, TWO]
    assert a.engine.drops == ["not_sealed"]


def test_who_drops_what_comes_in_the_clear_asks_about_it_once_in_five_seconds() -> None:
    world, _, b = talked()
    before = world.relay.asks
    for _ in range(12):
        world.deliver(Plain(A, B, TWO))
        world.pass_time(1)
    assert world.relay.asks - before == 3
    assert b.engine.drops == ["not_sealed"] * 12


def test_to_nobody_nothing_goes_until_that_changes() -> None:
    world = World()
    a = world.add(A)
    world.send(a, B, ONE)
    world.send(a, B, ONE)
    assert a.engine.drops == ["no_route", "no_route"]
    b = world.add(B)
    world.settle()
    passes(world, a, b)


def test_who_is_away_comes_back_to_its_session() -> None:
    world, a, b = talked()
    b.lose()
    world.settle()
    world.send(a, B, ONE)
    assert a.engine.drops == ["no_route"]
    b.join()
    world.settle()
    passes(world, a, b)
    passes(world, b, a)
    assert kinds(world) == [Sealed, Sealed]


def test_the_smallest_commit_size_counts_for_a_while() -> None:
    world, a, b = met({}, {"commit_bytes": 9000})
    passes(world, a, b)
    assert a.engine.peers[B].longest == 9000
    passes(world, b, a)
    assert b.engine.peers[A].longest == 65535
    a.do(a.sessions.told(control.Commit(B, 4000), a.at))
    assert a.engine.peers[B].longest == 4000
    world.pass_time(4)
    a.do(a.sessions.told(control.Commit(B, 0), a.at))
    assert a.engine.peers[B].longest == 1500
    world.pass_time(4)
    assert a.engine.peers[B].longest == 1500
    world.pass_time(1)
    assert a.engine.peers[B].longest == 9000
    a.do(a.sessions.told(control.Commit(B, 20000), a.at))
    assert a.engine.peers[B].longest == 9000
    # Of whom nothing is known nothing is kept.
    assert a.sessions.told(control.Commit(C, 4000), a.at) == []


def test_not_sealing_has_the_member_ask_and_never_send_in_the_clear() -> None:
    world, a, b = talked()
    asks = world.relay.asks
    a.do(a.sessions.told(control.NotSealing(B), a.at))
    a.do(a.sessions.told(control.NotSealing(C), a.at))
    world.settle()
    assert world.relay.asks == asks + 1
    passes(world, a, b)
    assert kinds(world) == [Sealed]


def test_sessions_outlive_a_connection_and_are_asked_about_anew() -> None:
    world, a, b = talked()
    a.lose()
    asks = world.relay.asks
    a.join()
    world.settle()
    assert world.relay.asks == asks + 1
    passes(world, a, b)
    assert kinds(world) == [Sealed]
    # It is told of changes again.
    world.relay.revoke(B)
    world.settle()
    assert a.engine.sessions == {}


def test_a_handshake_that_was_under_way_with_the_connection_begins_anew() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    world.wire.clear()
    a.lose()
    a.join()
    world.run()
    assert b.got == [ONE]


def test_what_was_told_on_a_connection_before_is_asked_again_when_it_is_wanted() -> None:
    world = World()
    a = world.add(A)
    world.relay.change(old_client(B))
    world.send(a, B, ONE)
    world.run()
    a.lose()
    a.join()
    asks = world.relay.asks
    world.relay.peers[B] = replace(old_client(B), state=State.NOBODY)
    world.send(a, B, ONE)
    world.run()
    assert world.relay.asks == asks + 1
    assert a.engine.drops == ["no_route"]


@pytest.mark.parametrize("other", [{"lease": b"anotherl"}, {"address": IPv4Address("10.0.0.9")}])
def test_another_lease_or_address_of_ones_own_ends_all_sessions(other: dict[str, Any]) -> None:
    _, a, _ = talked()
    a.lose()
    joined = Joined(connection=2, address=A, lease=a.lease, network=NETWORK, secret=None)
    actions = a.sessions.joined(replace(joined, **other), a.at)
    assert {type(action) for action in actions} >= {Remove, ForgetPeer}
    a.do(actions)
    assert a.engine.sessions == {}
    assert a.engine.peers == {}


def test_the_setting_can_change() -> None:
    world, a, b = talked()
    a.do(a.sessions.set_seal(Seal.OFF, FLAGS[Seal.OFF], a.at))
    assert (a.engine.sessions, a.engine.peers) == ({}, {})
    assert a.sessions.happened(Wanted(B), a.at) == []
    assert a.sessions.deadline == inf
    a.do(a.sessions.set_seal(Seal.REQUIRE, FLAGS[Seal.REQUIRE], a.at))
    world.pass_time(6)
    passes(world, a, b)
    world.relay.change(old_client(C))
    world.send(a, C, ONE)
    assert way(a, C) is Way.NOT_SEALING
    a.do(a.sessions.set_seal(Seal.PREFER, FLAGS[Seal.PREFER], a.at))
    assert way(a, C) is Way.CLEAR
    a.do(a.sessions.set_seal(Seal.REQUIRE, FLAGS[Seal.REQUIRE], a.at))
    assert way(a, C) is Way.NOT_SEALING


def test_before_the_first_log_in_there_is_nothing_to_tell() -> None:
    world = World()
    node = Node(world, A, 1)
    assert node.sessions.set_seal(Seal.REQUIRE, FLAGS[Seal.REQUIRE], node.at) == []
    assert node.sessions.received(b"\x14", node.at) == []
    assert node.sessions.told(control.Commit(B, 9000), node.at) == []
    node.join()
    assert node.engine.setting == SetSealing(Seal.REQUIRE, A, True)


def test_another_key_of_the_network_counts_for_the_next_handshake() -> None:
    world, a, b = talked(secret=SECRET)
    for node in (a, b):
        joined = Joined(connection=1, address=node.address, lease=node.lease, network=bytes(32), secret=SECRET)
        node.do(node.sessions.changed(joined, node.at))
        passes(world, a, b)
        passes(world, b, a)
    assert kinds(world) == [Sealed] * 4
    world.pass_time(200)
    passes(world, a, b)


def test_members_of_which_one_has_not_heard_of_the_networks_key_have_no_session() -> None:
    world, a, b = met()
    joined = Joined(connection=1, address=A, lease=a.lease, network=bytes(32), secret=None)
    a.do(a.sessions.changed(joined, a.at))
    world.send(a, B, ONE)
    world.run()
    assert b.dropped == ["bad_handshake"]


def test_when_the_program_ends_all_is_overwritten_and_kept() -> None:
    _, a, _ = talked()
    a.do(a.sessions.ended(a.at))
    assert a.engine.sessions == {}
    assert a.pins.count(b"\n") == 1
    assert a.sessions.ended(a.at) == []


def test_what_the_engine_is_told_of_keys_is_shown_by_no_repr() -> None:
    _, a, _ = talked()
    install = next(iter(a.engine.sessions.values())).install
    assert str(install.sends) not in repr(install)
    assert str(install.receives) not in repr(install)
    assert str(a.engine.peers[B].label_key) not in repr(a.engine.peers[B])


def test_a_flow_label_outlasts_rekeying_and_differs_between_peers() -> None:
    world, a, b = talked()
    label = a.engine.peers[B].label_key
    assert label != bytes(16)
    world.pass_time(200)
    passes(world, a, b)
    assert a.engine.peers[B].label_key == label
    c = world.add(C)
    passes(world, a, c)
    assert a.engine.peers[C].label_key != label


def test_of_an_address_that_was_not_asked_about_nothing_is_heard() -> None:
    _, a, b = met()
    assert a.sessions.told(control.Tell((b.peer,)), a.at) == []
    assert a.sessions.told(control.Tell((replace(a.peer, flags=Peer.UNASKED),)), a.at) == []
    assert a.engine.peers == {}
    a.do(a.sessions.told(control.Tell((replace(b.peer, flags=Peer.UNASKED),)), a.at))
    assert way(a, B) is Way.WAIT


def test_for_members_of_whom_it_knows() -> None:
    world, a, b = talked()
    world.relay.change(old_client(C))
    world.send(a, C, ONE)
    listed = [(address, how, identity and identity.key) for address, how, identity in a.sessions.members(world.now)]
    assert listed == [(B, Way.SEAL, b.device.public), (C, Way.CLEAR, None)]


def test_both_ends_have_the_same_keys_crosswise() -> None:
    world, a, b = talked()
    (one,), (other,) = (node.engine.sessions.values() for node in (a, b))
    mine, its = one.install, other.install
    assert (mine.sends, mine.receives) == (its.receives, its.sends)
    assert (mine.local, mine.remote) == (its.remote, its.local)
    assert (mine.is_confirmed, its.is_confirmed) == (True, False)
    assert mine.sends_until - world.now == 175.0
    assert mine.opens_until - world.now == 180.0
    assert isinstance(mine, Install)
    assert isinstance(a.engine.peers[B], SetPeer)


def group_message(sender: Node) -> bytes:
    assert sender.engine.groups is not None
    epoch, key = sender.engine.groups.epoch, sender.engine.groups.key
    head = b"\x13\0\0\0" + sender.address.packed + IPv4Address("224.0.0.1").packed + epoch + bytes(8)
    return head + PRIMITIVES.seal(key, bytes(12), head, b"a packet")


def test_groups_are_sealed_under_a_secret() -> None:
    world, a, b = met({"secret": SECRET, "seal": Seal.REQUIRE}, {"secret": SECRET, "seal": Seal.REQUIRE})
    message = group_message(a)
    # Of a sender it knows nothing: the relay is asked.
    b.happened(Grouped(message))
    assert world.relay.asks == 0
    world.settle()
    assert world.relay.asks == 1
    assert [(opened.source, opened.message) for opened in b.engine.opened] == [(A, message)]
    assert a.engine.groups is not None
    assert b.engine.opened[0].key == a.engine.groups.key
    # Another epoch, when it is time.
    before = a.engine.groups.epoch
    world.pass_time(121)
    assert a.engine.groups.epoch != before
    # A device that is revoked is heard no more.
    world.relay.revoke(A)
    world.settle()
    assert b.engine.opened == []
    b.happened(Grouped(group_message(a)))
    world.settle()
    assert b.dropped == ["bad_seal"]


def test_without_a_secret_groups_are_not_sealed() -> None:
    world, a, b = met()
    assert a.engine.groups == SealGroups()
    b.happened(Grouped(b""))
    world.settle()
    assert b.dropped == ["too_short"]
    assert b.sessions.deadline == inf
