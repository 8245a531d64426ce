"""Handshakes between members, when messages are lost, repeated, changed, late, too many, or cross."""

from dataclasses import replace
from hmac import compare_digest
from types import ModuleType

import pytest
from kit.sealed_pair import ONE, TWO, both_pass, changed, first_of, is_note, met, passes, rekeying, shakes, talked, way
from kit.sealed_world import A, B, C, Sealed, Shake

from candy.protocol.control import State
from candy.sealing import agreement, directory, handshakes, pins
from candy.sealing.seals import Confirmed, Noted, Wanted, Way

# Lost, and tried again.


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_message_is_repeated_after_five_seconds(lost: int) -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    for _ in range(lost):
        world.deliver(world.wire.pop(0))
    world.wire.clear()
    world.pass_time(4)
    assert shakes(a, 1) == 1
    world.pass_time(2)
    assert shakes(a, 1) == 2
    assert b.got == [ONE]
    both_pass(world, a, b)


def test_it_is_another_message_each_time() -> None:
    world, a, _ = met()
    world.send(a, B, ONE)
    world.pass_time(30, run=False)
    sent = [datagram.payload for datagram in world.wire if isinstance(datagram, Shake)]
    assert 5 <= len(sent) <= 6
    # Session number, ephemeral key.
    assert len({payload[12:16] for payload in sent}) == len(sent)
    assert len({payload[20:52] for payload in sent}) == len(sent)


def test_it_gives_up_after_a_while_and_begins_with_the_next_packet() -> None:
    world, a, _ = met()
    del world.nodes[B]
    world.send(a, B, ONE)
    a.engine.waiting.clear()
    world.pass_time(300)
    sent = shakes(a, 1)
    assert 90 / 5.334 <= sent <= 90 / 5 + 1
    asks = world.relay.asks
    world.send(a, B, ONE)
    world.run()
    assert shakes(a, 1) == sent + 1
    # Before a first handshake the relay is asked.
    assert world.relay.asks == asks + 1


def test_a_late_answer_to_a_message_that_was_repeated_is_refused() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    world.deliver(world.wire.pop(0))
    [late] = world.wire
    world.wire.clear()
    world.pass_time(6, run=False)
    world.deliver(late)
    assert a.dropped == ["bad_handshake"]
    world.run()
    assert b.got == [ONE]


def test_an_answer_that_comes_when_the_session_is_over_does_not_leave_packets_waiting() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    world.deliver(world.wire.pop(0))
    world.now += 200
    # The engine has what is said of it then, and has raised its event.
    a.happened(Wanted(B))
    world.settle()
    world.run()
    assert way(a, B) is Way.SEAL
    assert b.got == [ONE]


def test_a_first_packet_that_is_lost_is_followed_by_another_that_confirms() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    for _ in range(2):
        world.deliver(world.wire.pop(0))
    assert [type(datagram) for datagram in world.wire] == [Sealed, Sealed]
    world.deliver(world.wire.pop())
    world.wire.clear()
    passes(world, b, a)


# Repeated.


def test_a_message_1_that_is_repeated_disturbs_nothing() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    first = world.wire[0]
    world.run()
    for _ in range(5):
        world.deliver(first)
        world.pass_time(1)
    assert set(b.dropped) == {"bad_handshake"}
    assert len(b.engine.sessions) == 1
    both_pass(world, a, b)


def test_one_that_is_repeated_before_the_session_is_confirmed_does_not_displace_it() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    first = world.wire[0]
    world.deliver(world.wire.pop(0))
    world.deliver(first)
    assert b.dropped == ["bad_handshake"]
    world.run()
    assert b.got == [ONE]


def test_one_that_is_repeated_to_a_responder_that_began_anew_costs_it_an_answer() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    first = world.wire[0]
    world.run()
    b.start()
    b.join()
    world.deliver(first)
    assert shakes(b, 2) == 2
    # It gets no packet for that, and nothing of what runs later is disturbed.
    world.send(b, A, TWO)
    world.pass_time(2)
    assert a.got == [TWO]
    world.deliver(first)
    both_pass(world, a, b)
    assert way(b, A) is Way.SEAL


def test_after_a_new_start_an_older_message_1_does_not_displace_a_fresh_session() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    old = world.wire[0]
    world.wire.clear()
    world.pass_time(6, run=False)
    b.start()
    b.join()
    newer = world.wire.pop()
    assert isinstance(newer, Shake)
    world.wire.clear()
    world.deliver(newer)
    world.deliver(old)
    assert b.dropped == ["bad_handshake"]
    world.run()
    assert b.got == [ONE]


def test_an_unconfirmed_session_is_displaced_by_a_newer_one_alone() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    for _ in range(4):
        for datagram in list(world.wire):
            world.deliver(datagram)
        world.wire.clear()
        world.pass_time(6, run=False)
        assert len(b.engine.sessions) <= 1
    world.run()
    assert b.got == [ONE]


def test_an_answer_that_is_repeated_is_refused() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    world.deliver(world.wire.pop(0))
    answer = world.wire[0]
    world.run()
    world.deliver(answer)
    assert a.dropped == ["bad_handshake"]
    both_pass(world, a, b)


def test_message_1_with_one_bit_changed_is_refused() -> None:
    for at in range(148):
        world, a, b = met()
        world.send(a, B, ONE)
        first = world.wire.pop(0)
        assert isinstance(first, Shake)
        b.do(b.sessions.received(changed(first.payload, at), b.at))
        world.settle()
        assert b.engine.sessions == {}
        assert shakes(b, 2) == 0
        # And the true one is taken.
        world.deliver(first)
        world.run()
        assert b.got == [ONE]


def test_message_2_with_one_bit_changed_is_refused() -> None:
    for at in range(100):
        world, a, b = met()
        world.send(a, B, ONE)
        world.deliver(world.wire.pop(0))
        second = world.wire.pop(0)
        assert isinstance(second, Shake)
        a.do(a.sessions.received(changed(second.payload, at), a.at))
        world.settle()
        assert a.engine.sessions == {}
        assert a.dropped == ["bad_handshake"]
        world.deliver(second)
        world.run()
        assert b.got == [ONE]


def test_forged_answers_cost_no_more_than_some_tries() -> None:
    world, a, _ = met()
    world.send(a, B, ONE)
    world.deliver(world.wire.pop(0))
    second = world.wire.pop(0)
    assert isinstance(second, Shake)
    for _ in range(16):
        a.do(a.sessions.received(changed(second.payload, 99), a.at))
    world.deliver(second)
    assert a.engine.sessions == {}
    world.pass_time(6)
    assert len(a.engine.sessions) == 1


def test_answers_of_another_number_are_not_tried() -> None:
    world, a, _ = met()
    world.send(a, B, ONE)
    world.deliver(world.wire.pop(0))
    second = world.wire.pop(0)
    assert isinstance(second, Shake)
    for _ in range(16):
        a.do(a.sessions.received(changed(second.payload, 19), a.at))
    world.deliver(second)
    assert len(a.engine.sessions) == 1


def test_note_1_with_one_bit_changed_is_refused() -> None:
    for at in range(138):
        world, a, b = talked()
        note = rekeying(world, a)
        b.happened(Noted(note.remote, changed(note.body, at)))
        world.settle()
        assert len(b.engine.sessions) == 1
        world.deliver(note)
        world.run()
        assert len(b.engine.sessions) == 2


def test_note_2_with_one_bit_changed_is_refused() -> None:
    for at in range(90):
        world, a, _ = talked()
        world.deliver(rekeying(world, a))
        [note] = [datagram for datagram in world.wire if is_note(datagram)]
        assert isinstance(note, Sealed)
        world.wire.clear()
        a.happened(Noted(note.remote, changed(note.body, at)))
        world.settle()
        assert len(a.engine.sessions) == 1
        assert a.dropped == ["bad_handshake"]
        world.deliver(note)
        world.run()
        assert len(a.engine.sessions) == 2


# Who may.


def test_who_is_not_told_is_asked_about_and_its_message_kept() -> None:
    world, a, b = met()
    world.relay.interests.add((B, A))
    world.send(a, B, ONE)
    asks = world.relay.asks
    world.deliver(world.wire.pop(0))
    world.run()
    assert world.relay.asks == asks + 1
    assert b.got == [ONE]


def test_a_message_is_kept_for_a_second() -> None:
    world, a, b = met()
    world.relay.interests.add((B, A))
    world.send(a, B, ONE)
    b.do(b.sessions.received(first_of(world), b.at))
    world.now += 1.0
    world.settle()
    assert b.engine.sessions == {}


@pytest.mark.parametrize("state", [State.CLEAR, State.NOBODY, State.AWAY])
def test_whom_the_relay_does_not_say_to_seal_gets_no_session(state: State) -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    first = world.wire[0]
    world.relay.lies[B, A] = replace(a.peer, state=state)
    world.relay.change(a.peer)
    world.run()
    assert b.engine.sessions == {}
    assert b.dropped == ["bad_handshake"]
    # The relay may have forgotten to tell of a change: it is asked again, but not each time.
    asks = world.relay.asks
    world.now += 1
    world.deliver(first)
    assert world.relay.asks == asks
    del world.relay.lies[B, A]
    world.pass_time(14)
    assert world.relay.asks == asks + 1
    assert b.got == [ONE]


def test_another_key_than_the_one_that_was_told_is_refused() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    world.relay.lies[B, A] = replace(a.peer, key=world.add(C).device.public, lease=b"another!")
    world.relay.change(a.peer)
    world.run()
    assert b.dropped == ["bad_handshake"]
    assert b.engine.sessions == {}


@pytest.mark.parametrize("module", [agreement, directory, handshakes, pins])
def test_what_shows_who_somebody_is_is_compared_in_constant_time(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr(module, "compare_digest", compare)
    world, a, b = met()
    passes(world, a, b)
    a.lose()
    a.join()
    world.run()
    assert any(one == other for one, other in compared) or (b.device.public, a.device.public) in compared


def test_what_is_for_another_or_from_oneself_is_refused() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    payload = first_of(world)
    for changed_ends in (payload[:8] + C.packed + payload[12:], payload[:4] + B.packed + payload[8:]):
        b.do(b.sessions.received(changed_ends, b.at))
    assert b.dropped == ["bad_handshake"] * 2
    assert b.sessions.received(b"", b.at) != []


def test_a_message_that_comes_back_to_its_sender_is_refused() -> None:
    world, a, _ = met()
    world.send(a, B, ONE)
    a.do(a.sessions.received(first_of(world), a.at))
    assert a.dropped == ["bad_handshake"]


def test_events_of_sessions_that_are_gone_mean_nothing() -> None:
    world, _, b = talked()
    for event in (Confirmed(1), Noted(1, bytes(90)), Confirmed(next(iter(b.engine.sessions)))):
        b.happened(event)
    world.settle()
    assert (b.dropped, len(b.engine.sessions)) == ([], 1)
