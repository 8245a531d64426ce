"""Handshakes that cross, and those by which a session gets another key before its end."""

from dataclasses import replace
from itertools import product

import pytest
from kit.sealed_pair import ONE, TWO, both_pass, is_note, met, passes, rekeying, shakes, talked, way
from kit.sealed_world import WALL, A, B, C, Sealed, Shake

from candy.sealing.seals import Noted, Unknown, Way

# Crossing.


def orders(one: int, other: int) -> list[str]:
    return ["".join(order) for order in product("ab", repeat=one + other) if order.count("a") == one]


@pytest.mark.parametrize("order", orders(4, 4))
def test_both_begin_at_once(order: str) -> None:
    """Whatever comes first at each end: `a` delivers what goes to A."""
    world, a, b = met()
    # Neither knows of the other when it begins.
    a.engine.send(B, ONE)
    b.engine.send(A, TWO)
    world.settle()
    assert [type(datagram) for datagram in world.wire] == [Shake, Shake]
    for turn in order:
        towards = A if turn == "a" else B
        found = next((datagram for datagram in world.wire if datagram.destination == towards), None)
        if found is not None:
            world.wire.remove(found)
            world.deliver(found)
    world.run()
    assert (a.got, b.got) == ([TWO], [ONE])
    both_pass(world, a, b)
    both_pass(world, a, b)
    # One of the two was given up, by the smaller key's owner.
    assert shakes(a, 2) + shakes(b, 2) == 1
    assert (shakes(a, 2) == 1) == (a.device.public > b.device.public)
    assert {len(node.engine.sessions) for node in (a, b)} == {1}
    # Nor does the other go on with its own.
    world.pass_time(6)
    assert shakes(a, 1) + shakes(b, 1) == 2


def test_both_complete_when_one_begins_while_its_answer_is_on_the_way() -> None:
    world, a, b = met()
    small, large = sorted((a, b), key=lambda node: node.device.public)
    world.send(large, small.address, ONE)
    world.deliver(world.wire.pop(0))
    [answer] = world.wire
    world.wire.clear()
    world.send(small, large.address, TWO)
    world.pass_time(1.5, run=False)
    assert shakes(small, 1) == 1
    world.deliver(world.wire.pop(0))
    world.deliver(answer)
    world.run()
    assert (small.got, large.got) == ([ONE], [TWO])
    assert (len(small.engine.sessions), len(large.engine.sessions)) == (2, 2)
    both_pass(world, small, large)
    # Whatever is on the way, in whatever order.
    for node, other in ((small, large), (large, small)):
        for packet in (ONE, TWO):
            node.engine.send(other.address, packet)
    small.got.clear()
    large.got.clear()
    world.wire.reverse()
    world.run()
    assert sorted(small.got) == sorted(large.got) == [ONE, TWO]
    assert shakes(small, 1) + shakes(large, 1) == 2


def test_after_five_seconds_either_answers_any() -> None:
    world, a, b = met()
    small, large = sorted((a, b), key=lambda node: node.device.public)
    small.engine.send(large.address, ONE)
    world.settle()
    world.wire.clear()
    world.now += 5.0
    large.engine.send(small.address, TWO)
    world.settle()
    world.run()
    assert (small.got, large.got) == ([TWO], [ONE])


def test_the_initiator_rekeys_when_it_sends_after_120_seconds() -> None:
    world, a, b = talked()
    for second in range(400):
        both_pass(world, b, a)
        world.pass_time(1)
        if second == 117:
            assert not any(map(is_note, world.trace))
    notes = [datagram for datagram in world.trace if is_note(datagram)]
    assert [note.source for note in notes] == [A, B] * 3
    # No HANDSHAKE is needed any more, and no packet was lost.
    assert shakes(a, 1) + shakes(b, 1) == 1
    assert {len(node.engine.sessions) for node in (a, b)} <= {1, 2}
    assert not a.engine.drops + b.engine.drops + a.dropped + b.dropped


def test_the_initiator_rekeys_when_it_receives_after_165_seconds() -> None:
    world, a, b = talked()
    world.pass_time(164)
    passes(world, b, a)
    world.pass_time(0.5)
    assert not any(map(is_note, world.trace))
    world.pass_time(1)
    passes(world, b, a)
    world.pass_time(1)
    assert sum(map(is_note, world.trace)) == 2
    both_pass(world, a, b)


def test_either_rekeys_when_it_sends_after_170_seconds() -> None:
    world, a, b = talked()
    world.pass_time(169)
    b.engine.send(A, ONE)
    world.wire.clear()
    b.tick()
    assert world.wire == []
    world.now += 1
    b.engine.send(A, ONE)
    world.wire.clear()
    b.tick()
    assert [is_note(datagram) for datagram in world.wire] == [True]
    world.run()
    both_pass(world, a, b)


def test_either_rekeys_after_so_many_bytes() -> None:
    world, _, b = talked()
    [session] = b.engine.sessions.values()
    for sent, is_due in ((2**36 - 1, False), (2**36, True)):
        session.seen = replace(session.seen, bytes_sent=sent)
        b.tick()
        assert any(map(is_note, world.wire)) == is_due


def test_a_message_of_rekeying_that_is_lost_is_repeated_as_a_handshake() -> None:
    world, a, b = talked()
    rekeying(world, a)
    world.wire.clear()
    for _ in range(6):
        # What runs goes on.
        both_pass(world, a, b)
        world.pass_time(1)
    assert shakes(a, 1) == 2
    assert len(a.engine.sessions) == 2
    both_pass(world, a, b)


@pytest.mark.parametrize("lost", range(6))
def test_rekeying_with_any_one_message_lost_loses_no_packet(lost: int) -> None:
    """Of those that are no packets of the user's: notes, HANDSHAKEs, empty ones."""
    world, a, b = talked()
    count = 0
    sent = 0
    a.got.clear()
    b.got.clear()
    for _ in range(150):
        a.engine.send(B, ONE)
        b.engine.send(A, TWO)
        sent += 1
        world.settle()
        while world.wire:
            datagram = world.wire.pop(0)
            if isinstance(datagram, Shake) or datagram.body[:1] not in (b"o", b"t"):
                count += 1
                if count == lost + 1:
                    continue
            world.deliver(datagram)
        world.pass_time(1, run=False)
    world.run()
    assert (len(a.got), len(b.got)) == (sent, sent)
    assert not a.engine.drops + b.engine.drops
    assert count > 2


def test_rekeying_with_all_its_messages_lost_once_loses_no_packet() -> None:
    world, a, b = talked()
    seen: set[bytes] = set()
    a.got.clear()
    b.got.clear()
    for _ in range(170):
        a.engine.send(B, ONE)
        b.engine.send(A, TWO)
        world.settle()
        while world.wire:
            datagram = world.wire.pop(0)
            body = datagram.payload if isinstance(datagram, Shake) else datagram.body
            if body[:1] not in (b"o", b"t") and body[:2] not in seen:
                seen.add(body[:2])
                continue
            world.deliver(datagram)
        world.pass_time(1, run=False)
    world.run()
    # Note 1, HANDSHAKE 1, HANDSHAKE 2, and the empty packet.
    assert seen == {b"\x80\1", b"\x14\1", b"\x14\2", b""}
    assert (len(a.got), len(b.got)) == (170, 170)
    assert not a.engine.drops + b.engine.drops


def test_both_rekey_at_once() -> None:
    world, a, b = talked()
    world.now += 170
    world.wall += 170 * 10**9
    a.engine.send(B, ONE)
    b.engine.send(A, TWO)
    world.run()
    a.tick()
    b.tick()
    assert [is_note(datagram) for datagram in world.wire] == [True, True]
    world.run()
    both_pass(world, a, b)
    assert sum(map(is_note, world.trace)) == 3
    assert {len(node.engine.sessions) for node in (a, b)} == {2}


def test_a_note_that_comes_when_nothing_is_sealed_any_more_is_answered_by_handshake() -> None:
    world, a, b = talked()
    note = rekeying(world, a)
    world.now += 56
    world.deliver(note)
    assert [type(datagram) for datagram in world.wire] == [Shake]
    world.run()
    assert len(b.engine.sessions) == 2
    both_pass(world, a, b)


def test_a_note_in_a_session_that_has_just_gone_is_refused() -> None:
    world, a, b = talked()
    note = rekeying(world, a)
    b.happened(Noted(note.remote, note.body))
    b.do(b.sessions.tick([], b.at._replace(now=world.now + 60)))
    world.settle()
    assert b.engine.sessions == {}


def test_a_note_opens_in_the_session_alone_in_which_it_was_sent() -> None:
    world, a, b = talked()
    note = rekeying(world, a)
    world.deliver(replace(note, counter=note.counter + 100))
    world.run()
    before = set(b.engine.sessions)
    assert len(before) == 2
    for local in before - {note.remote}:
        b.happened(Noted(local, note.body))
    world.settle()
    assert set(b.engine.sessions) == before
    assert b.dropped == ["bad_handshake"]


def test_a_session_ends_in_time() -> None:
    world, a, b = talked()
    world.pass_time(174)
    assert (way(a, B), way(b, A)) == (Way.SEAL, Way.SEAL)
    world.pass_time(1)
    assert (way(a, B), way(b, A)) == (Way.WAIT, Way.WAIT)
    assert (len(a.engine.sessions), len(b.engine.sessions)) == (1, 1)
    world.pass_time(5)
    assert (a.engine.sessions, b.engine.sessions) == ({}, {})
    both_pass(world, b, a)


def test_a_packet_near_the_end_waits_for_the_next_session() -> None:
    world, a, b = talked()
    # Python is late, the engine is not.
    world.now += 176
    a.engine.send(B, TWO)
    world.run()
    assert b.got == [ONE, TWO]


def test_a_suspended_machine_begins_anew() -> None:
    world, a, b = talked()
    for node in (a, b):
        node.engine.drops.clear()
    world.now += 3600
    world.wall += 3600 * 10**9
    both_pass(world, a, b)
    a.tick()
    b.tick()
    assert (len(a.engine.sessions), len(b.engine.sessions)) == (1, 1)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_clock_that_is_set_back_changes_nothing(restarts: bool) -> None:
    world, a, b = talked()
    world.wall = WALL - 365 * 86400 * 10**9
    if restarts:
        a.start()
        a.join()
        world.settle()
    else:
        world.now += 200
    both_pass(world, a, b)
    assert b.dropped == []


def test_without_the_file_a_clock_that_is_set_back_shuts_out() -> None:
    """As the test above would be, if nothing was kept: it is the file that mends it."""
    world, a, b = talked()
    world.wall = WALL - 365 * 86400 * 10**9
    a.stamp = None
    a.start()
    a.join()
    world.send(a, B, ONE)
    world.run()
    assert b.dropped == ["bad_handshake"]


def test_a_peer_that_lost_the_session_begins_one() -> None:
    world, a, b = talked()
    b.start()
    b.join()
    world.settle()
    world.send(a, B, TWO)
    world.run()
    assert b.engine.drops == ["unknown_session"]
    assert shakes(b, 1) == 1
    both_pass(world, a, b)


def test_unknown_sessions_have_it_begin_once_in_five_seconds() -> None:
    world, a, b = met()
    for _ in range(20):
        b.happened(Unknown(A))
    world.settle()
    assert shakes(b, 1) == 1
    world.run()
    world.pass_time(4.9)
    b.happened(Unknown(A))
    world.settle()
    assert shakes(b, 1) == 1
    world.pass_time(0.2)
    b.happened(Unknown(A))
    world.settle()
    assert shakes(b, 1) == 2
    # Of an address that does not seal there is none.
    b.happened(Unknown(C))
    world.settle()
    assert shakes(b, 1) == 2
    assert shakes(a, 1) == 0


def test_when_nothing_comes_for_15_seconds_another_session_is_begun_by_handshake() -> None:
    world, a, b = talked()
    b.start()
    world.send(a, B, TWO)
    world.wire.clear()
    world.pass_time(14, run=False)
    assert shakes(a, 1) == 1
    world.pass_time(1, run=False)
    assert shakes(a, 1) == 2
    b.join()
    world.run()
    both_pass(world, a, b)


def test_what_is_answered_needs_no_other_session() -> None:
    world, a, _ = talked()
    for _ in range(40):
        world.send(a, B, ONE)
        world.run()
        world.pass_time(1)
    # The other has nothing to send but empty packets, every ten seconds.
    empty = [datagram for datagram in world.trace if isinstance(datagram, Sealed) and datagram.body == b""]
    assert [datagram.source for datagram in empty] == [B] * len(empty)
    assert len(empty) in (3, 4)
    assert shakes(a, 1) == 1


def test_an_empty_packet_is_answered_by_none() -> None:
    world, a, _ = talked()
    world.send(a, B, ONE)
    world.run()
    world.trace.clear()
    world.pass_time(60)
    assert [(datagram.source, getattr(datagram, "body", None)) for datagram in world.trace] == [(B, b"")]
