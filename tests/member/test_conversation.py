"""Whole conversations in memory: the recorded one byte for byte, right and wrong answers, and every way to end.

What a member is told after its log-in is in test_conversation_told.py.
"""

from ipaddress import IPv4Interface
from math import inf

import pytest
from kit.joining import CONNECTION, answer, conversation, sent
from kit.recorded import GRANTED, PASSWORD, STEPS, WALL

from candy.member.conversation import (
    ANSWER_S,
    CONFIRM_S,
    SILENCE_S,
    VERDICT_S,
    Configure,
    Ending,
    Join,
    Keep,
    SetRoutes,
)
from candy.protocol import auth, wire
from candy.protocol.actions import Close, Drop, Log, Ping, Send
from candy.protocol.wire import DropReason


def test_the_recorded_conversation() -> None:
    talk = conversation()
    opened = talk.opened(100.0)
    assert sent(opened) == [STEPS[0]["hex"], STEPS[1]["hex"]]
    actions = talk.received(bytes.fromhex(STEPS[2]["hex"]), 100.1, WALL)
    assert actions == [
        Configure(GRANTED),
        SetRoutes(()),
        Send(CONNECTION, bytes.fromhex(STEPS[3]["hex"])),
        Join(CONNECTION),
        Ping(CONNECTION, b"candy::linux::6.1.8::vm"),
    ]
    assert talk.ponged(100.2) == []
    assert talk.expired(100.2) == []
    assert talk.deadline == 100.1 + CONFIRM_S
    assert talk.expired(talk.deadline) == [
        Keep(GRANTED),
        Log("info", "connected as 192.168.202.7/24 (the relay answers)"),
    ]
    assert talk.deadline == inf
    assert talk.closed("eof", 100.1 + VERDICT_S) == Ending("the connection was lost", held=True)


def test_an_own_address_is_claimed_at_once_and_not_kept() -> None:
    talk = conversation(address=GRANTED)
    actions = talk.opened(100.0)
    assert sent(actions) == [STEPS[0]["hex"], STEPS[3]["hex"], STEPS[4]["hex"]]
    assert actions[1:] == [
        Configure(GRANTED),
        SetRoutes(()),
        Send(CONNECTION, bytes.fromhex(STEPS[3]["hex"])),
        Join(CONNECTION),
        Ping(CONNECTION, b"candy::linux::6.1.8::vm"),
    ]
    assert talk.deadline == inf
    assert talk.ponged(101.5) == [Log("info", "connected as 192.168.202.7/24 (the relay answers)")]


def test_the_last_address_is_asked_for() -> None:
    talk = conversation(last=IPv4Interface("10.1.2.3/16"))
    [_, request] = talk.opened(0.0)
    assert isinstance(request, Send)
    assert wire.decode(request.payload) == wire.Expttun(
        WALL, IPv4Interface("10.1.2.3/16"), auth.expttun_digest(PASSWORD, WALL)
    )
    actions = talk.received(answer("10.1.2.3/16"), 0.1, WALL)
    assert actions[0] == Configure(IPv4Interface("10.1.2.3/16"))


def test_another_address_than_asked_for_is_told() -> None:
    talk = conversation(last=IPv4Interface("192.168.202.5/24"))
    talk.opened(0.0)
    actions = talk.received(answer(), 0.1, WALL)
    assert actions[:2] == [
        Log("warning", "the relay granted 192.168.202.7/24 in place of 192.168.202.5/24"),
        Configure(GRANTED),
    ]


@pytest.mark.parametrize("confusion", [0, 1, 64])
def test_hashed_messages_end_in_confusion(confusion: int) -> None:
    talk = conversation(confusion=confusion)
    actions = talk.opened(0.0) + talk.received(answer(), 0.1, WALL)
    messages = [action.payload for action in actions if isinstance(action, Send)]
    assert [len(message) for message in messages] == [57 + confusion, 73 + confusion, 45 + confusion]
    assert all(message.endswith(bytes([confusion]) * confusion) for message in messages)
    assert sent(actions)[-1] == STEPS[4]["hex"]


@pytest.mark.parametrize("tail", [b"", b"x", bytes(64)])
def test_an_answer_with_confusion(tail: bytes) -> None:
    talk = conversation()
    talk.opened(0.0)
    assert Configure(GRANTED) in talk.received(answer() + tail, 0.1, WALL)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (answer(password=b"other"), "the relay's hash is wrong: it has another password, or is not your relay"),
        (
            answer(timestamp=WALL + 301),
            "the relay's clock is 301 s ahead of this machine's: set the one that is wrong, for example by NTP",
        ),
        (
            answer(timestamp=WALL - 4000),
            "the relay's clock is 4000 s behind this machine's: set the one that is wrong, for example by NTP",
        ),
        (answer(timestamp=-(2**63)), f"the relay's clock is {2**63 + WALL} s behind this machine's: "),
        (answer("192.168.202.0/24"), "the relay granted 192.168.202.0/24, which no member can have"),
        (answer("192.168.202.255/24"), "the relay granted 192.168.202.255/24, which no member can have"),
        (answer("0.0.0.0/0"), "the relay granted 0.0.0.0/0, which no member can have"),
        (answer("127.0.0.1/24"), "the relay granted 127.0.0.1/24, which no member can have"),
        (answer("224.0.0.5/24"), "the relay granted 224.0.0.5/24, which no member can have"),
        (answer("10.0.0.5/7"), "the relay granted 10.0.0.5/7, which no member can have"),
    ],
)
def test_a_wrong_answer_ends_it(payload: bytes, text: str) -> None:
    """field: "old clients don't check that hash; ours does"."""
    talk = conversation()
    talk.opened(0.0)
    assert talk.received(payload, 0.1, WALL) == [Close(CONNECTION, 1008, "")]
    assert talk.deadline == inf
    # What still arrives is too late.
    assert talk.received(answer(), 0.2, WALL) == []
    assert talk.ponged(0.2) == []
    ending = talk.closed("local", 1.0)
    assert ending.text.startswith(text)
    assert (ending.refused, ending.held) == (True, False)


@pytest.mark.parametrize("timestamp", [WALL - 300, WALL + 300])
@pytest.mark.parametrize("address", ["10.0.0.5/8", "10.0.0.4/31", "10.0.0.5/31", "10.0.0.5/32"])
def test_answers_at_the_bounds(timestamp: int, address: str) -> None:
    talk = conversation()
    talk.opened(0.0)
    assert Configure(IPv4Interface(address)) in talk.received(answer(address, timestamp=timestamp), 0.1, WALL)


def test_no_answer_in_time() -> None:
    talk = conversation()
    talk.opened(5.0)
    assert talk.deadline == 5.0 + ANSWER_S
    assert talk.expired(5.0 + ANSWER_S - 0.01) == []
    assert talk.expired(5.0 + ANSWER_S) == [Close(CONNECTION, 1008, "")]
    assert talk.closed("local", 16.0) == Ending("the relay granted no address within 10 s: has it a pool?")


def test_only_the_first_answer_counts() -> None:
    """field: a second AUTH on one connection makes the original server disconnect, or crash. So there is none, whatever
    the relay says."""
    talk = conversation()
    talk.opened(0.0)
    talk.received(answer(), 0.1, WALL)
    assert talk.received(answer("192.168.202.9/24"), 0.2, WALL) == [Drop(CONNECTION, DropReason.UNEXPECTED_KIND)]


def test_an_unasked_answer_is_ignored() -> None:
    talk = conversation(address=GRANTED)
    talk.opened(0.0)
    assert talk.received(answer("192.168.202.9/24"), 0.1, WALL) == [Drop(CONNECTION, DropReason.UNEXPECTED_KIND)]


def test_any_pong_counts_once() -> None:
    """field: "the old server answers PING with a 1500-byte PONG", so its payload is not looked at."""
    talk = conversation(address=GRANTED)
    talk.opened(0.0)
    assert talk.ponged(0.5) == []
    assert talk.deadline == CONFIRM_S
    assert len(talk.expired(1.0)) == 1
    assert talk.ponged(2.0) == []
    assert talk.deadline == inf


def test_a_pong_before_the_address_says_nothing() -> None:
    talk = conversation()
    talk.opened(0.0)
    assert talk.ponged(0.1) == []
    assert talk.deadline == ANSWER_S


@pytest.mark.parametrize("cause", ["peer", "eof", "reset"])
@pytest.mark.parametrize("ponged", [False, True])
def test_closed_right_after_auth(cause: str, ponged: bool) -> None:
    talk = conversation(address=GRANTED)
    talk.opened(0.0)
    if ponged:
        talk.ponged(0.1)
    assert talk.closed(cause, 0.2) == Ending(
        "closed right after the handshake: wrong password, a clock off by more than 300 s, "
        "or the address 192.168.202.7 is taken or outside of the pool",
        refused=True,
    )


@pytest.mark.parametrize("cause", ["peer", "eof", "reset"])
def test_closed_soon_after_it_was_confirmed(cause: str) -> None:
    talk = conversation(address=GRANTED)
    talk.opened(0.0)
    talk.ponged(CONFIRM_S)
    assert talk.closed(cause, VERDICT_S - 0.1) == Ending(
        "closed soon after the handshake: the relay ended, or the address 192.168.202.7 is taken", refused=True
    )


@pytest.mark.parametrize("cause", ["eof", "reset"])
def test_broken_off_soon_after_it_was_confirmed_but_after_a_silence(cause: str) -> None:
    """F14: that is no talk of a taken address."""
    talk = conversation(address=GRANTED)
    talk.opened(0.0)
    talk.ponged(CONFIRM_S)
    assert talk.closed(cause, VERDICT_S - 0.1, 9.9) == Ending(
        "the connection was lost after 10 s of silence", refused=True, silence=9.9
    )


def test_the_silence_before_an_end_is_told() -> None:
    def ended(cause: str, silence: float) -> Ending:
        talk = conversation(address=GRANTED)
        talk.opened(0.0)
        talk.ponged(CONFIRM_S)
        return talk.closed(cause, 100.0, silence)

    assert ended("eof", 12.0) == Ending("the connection was lost", held=True, silence=12.0)
    # These have a reason.
    assert [ended(cause, 12.0).silence for cause in ("peer", "silent", "local", "too_large")] == [None] * 4


def test_closed_right_after_auth_whatever_the_silence() -> None:
    """Nothing shows that the relay believed the AUTH."""
    talk = conversation(address=GRANTED)
    talk.opened(0.0)
    assert "wrong password" in talk.closed("eof", SILENCE_S, SILENCE_S).text


def test_closed_late_without_a_pong() -> None:
    talk = conversation(address=GRANTED)
    talk.opened(0.0)
    assert talk.closed("eof", VERDICT_S) == Ending("the connection was lost", held=True)


@pytest.mark.parametrize("cause", ["peer", "eof", "reset"])
def test_closed_instead_of_granting(cause: str) -> None:
    talk = conversation()
    talk.opened(0.0)
    assert talk.closed(cause, 0.2) == Ending(
        "closed right after the handshake: wrong password, a clock off by more than 300 s, or no address free",
        refused=True,
    )


@pytest.mark.parametrize(
    ("cause", "text", "held"),
    [
        ("peer", "the relay closed the connection", True),
        ("eof", "the connection was lost", True),
        ("reset", "the connection was lost", True),
        ("silent", "the relay fell silent", True),
        ("protocol_error", "the relay broke the protocol (protocol_error)", False),
        ("too_large", "the relay broke the protocol (too_large)", False),
    ],
)
def test_lost_later(cause: str, text: str, held: bool) -> None:
    talk = conversation(address=GRANTED)
    talk.opened(0.0)
    talk.ponged(0.1)
    talk.expired(CONFIRM_S)
    assert talk.closed(cause, VERDICT_S) == Ending(text, held=held, gave_up=cause == "silent")


def test_silent_from_the_start() -> None:
    talk = conversation(address=GRANTED)
    talk.opened(0.0)
    assert talk.closed("silent", 40.0) == Ending("the relay fell silent", gave_up=True)
