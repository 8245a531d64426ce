"""What a member makes of the end of a connection by a relay with candy.2: of its reasons, and of having none."""

import struct
from collections.abc import Callable

import pytest
from kit.joining import answer, conversation
from kit.recorded import GRANTED, WALL

from candy.member.conversation import CONFIRM_S, VERDICT_S, Conversation, Ending

TAKEN = "another connection with the same VMAC took 192.168.202.7 over"


def close(code: int, text: str = "") -> bytes:
    return struct.pack(">H", code) + text.encode()


def asking(*, extended: bool = True) -> Conversation:
    """It has asked for an address."""
    talk = conversation(extended=extended)
    talk.opened(0.0)
    return talk


def granted(*, confirmed: bool, extended: bool = True) -> Conversation:
    """It was granted an address, and has sent its AUTH."""
    talk = asking(extended=extended)
    talk.received(answer(), 0.0, WALL)
    if confirmed:
        talk.ponged(0.1)
        talk.expired(CONFIRM_S)
    return talk


def fixed(*, confirmed: bool, extended: bool = True) -> Conversation:
    """It has sent its AUTH, for an address of its own."""
    talk = conversation(address=GRANTED, extended=extended)
    talk.opened(0.0)
    if confirmed:
        talk.ponged(0.1)
        talk.expired(CONFIRM_S)
    return talk


REASONS = [
    (1013, "the network is full: 2 members are in", "wait, or raise the limit there"),
    (
        4002,
        "192.168.202.7 is held by another member, which answers",
        "end the member that has it, or choose another address with --tun",
    ),
    (
        4003,
        "the network has no address pool: a member needs a fixed address",
        "choose one with --tun, or give the relay a pool with --dhcp",
    ),
    (
        4004,
        "the pool 192.168.202.0/30 is full: all 2 addresses are in use",
        "wait until a member leaves, or give the relay a larger pool with --dhcp",
    ),
    (
        4005,
        "10.9.0.5 is not a member's address in the pool 192.168.202.0/24",
        "choose another with --tun, or start the relay with --allow-outside-pool",
    ),
    (
        4006,
        "the member's clock is 900 s behind the relay's, which tolerates 300 s",
        "set the one that is wrong, for example by NTP",
    ),
    (4008, "the password by which this member logged in holds no more", "give this member one that holds"),
]


@pytest.mark.parametrize(("code", "told", "cure"), REASONS)
def test_a_refusal_is_told_with_its_cure(code: int, told: str, cure: str) -> None:
    for talk in (asking(), granted(confirmed=False), fixed(confirmed=True)):
        talk.closing(close(code, told))
        assert talk.closed("peer", 0.5) == Ending(f"refused by the relay: {told}: {cure}", refused=True)


def test_a_refusal_of_which_nothing_is_told_is_told_by_its_number() -> None:
    talk = asking()
    talk.closing(close(4004))
    assert talk.closed("peer", 0.5).text.startswith("refused by the relay: code 4004: wait until a member leaves")


@pytest.mark.parametrize("talk", [granted(confirmed=True), fixed(confirmed=True)])
def test_a_replaced_holder_is_told_of_its_double(talk: Conversation) -> None:
    talk.closing(close(4001, TAKEN))
    assert talk.closed("peer", 100.0) == Ending(
        f"replaced: {TAKEN}: is there a copy of this machine, or of its state folder? "
        "If so, remove the file in the vmac folder of one of them",
        replaced=True,
    )


def test_a_connection_that_answered_no_ping_was_not_replaced_by_a_double() -> None:
    talk = granted(confirmed=False)
    talk.closing(close(4001, TAKEN))
    assert talk.closed("peer", 100.0) == Ending(f"closed by the relay: {TAKEN}")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (1001, "the relay ends"),
        (1012, "the routes have changed"),
        (4007, "another member got 192.168.202.7, because this one did not answer a ping"),
        # From a relay that knows more reasons.
        (4999, "something new"),
    ],
)
def test_any_other_end_is_told_as_it_is(code: int, told: str) -> None:
    for make in (granted, fixed):
        for confirmed in (False, True):
            talk = make(confirmed=confirmed)
            talk.closing(close(code, told))
            assert talk.closed("peer", 2.0) == Ending(f"closed by the relay: {told}", held=confirmed)


def test_what_the_relay_writes_can_do_nothing_to_a_terminal() -> None:
    talk = asking()
    talk.closing(close(4002) + b"\x1b[2J\r\nERROR \xff")
    text = talk.closed("peer", 0.5).text
    assert text.isprintable()
    assert text.isascii()


def test_codes_of_a_relay_without_the_extension_mean_nothing() -> None:
    """It may use them for something else."""
    for make in (granted, fixed):
        for code in (1013, 4001, 4002):
            talk, other = make(confirmed=True, extended=False), make(confirmed=True, extended=False)
            talk.closing(close(code, "some reason"))
            assert talk.closed("peer", 2.0) == other.closed("peer", 2.0)


def test_what_the_member_ended_itself_has_its_own_reason() -> None:
    talk = asking()
    talk.received(answer(password=b"other"), 0.1, WALL)
    talk.closing(close(1008, "gotcha"))
    assert talk.closed("local", 0.5).text.startswith("the relay's hash is wrong")


# Without a reason

PASSWORD = Ending("the relay closed without a reason right after the handshake: is the password right?", refused=True)
LOG = Ending("the relay closed without a reason right after the handshake: its log may say why", refused=True)
LOST = Ending("the connection was lost", held=True)


@pytest.mark.parametrize("cause", ["peer", "eof", "reset"])
@pytest.mark.parametrize(
    ("talk", "when", "ending"),
    [
        # "A wrong password, a missing pool and a wrong clock no longer share one sentence."
        (asking, 0.2, PASSWORD),
        (lambda: fixed(confirmed=False), 0.2, PASSWORD),
        # Late, because there were many wrong ones from here.
        (lambda: fixed(confirmed=True), VERDICT_S - 0.1, PASSWORD),
        # The relay's answer has shown that the passwords are the same.
        (lambda: granted(confirmed=False), 0.2, LOG),
        (lambda: granted(confirmed=True), 2.0, LOST),
        (lambda: granted(confirmed=True), VERDICT_S, LOST),
        (lambda: fixed(confirmed=False), VERDICT_S, LOST),
        (lambda: fixed(confirmed=True), VERDICT_S, LOST),
    ],
)
def test_an_end_without_a_reason(talk: Callable[[], Conversation], when: float, ending: Ending, cause: str) -> None:
    assert talk().closed(cause, when) == ending
