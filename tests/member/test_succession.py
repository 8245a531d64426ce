"""Which connection leads when the way to the relay changes, and what is dialed: in memory, `now` an argument."""

from ipaddress import IPv4Interface

import pytest
from kit.joining import LAN_A, answer, conversation, route
from kit.recorded import GRANTED, WALL

from candy.member.conversation import ANSWER_S, CONFIRM_S, Conversation, Ending, Join, SetPlacements, SetRoutes
from candy.member.routeset import RouteSet
from candy.member.succession import (
    AGAIN_S,
    ATTEMPT_S,
    PROBE_PREFIX,
    SUCCESSOR_ATTEMPT_S,
    Abandon,
    Action,
    Dial,
    Judge,
    Succession,
)
from candy.protocol import wire
from candy.protocol.actions import Close, Log, Ping, Send
from candy.protocol.closing import CloseCode

OLD, NEW, NEWER = 3, 4, 5
WAY, ASLEEP = "the way to the relay has changed", "this machine was asleep for 600 s"
TAKEN = CloseCode.REPLACED.to_bytes(2, "big") + b"another connection with the same VMAC took 192.168.202.7 over"


class Lives:
    """A member's connections; `now` stands still unless a test moves it.

    Each method returns the actions without lines of the log, which gather in `log`.
    """

    def __init__(self, address: IPv4Interface | None = GRANTED) -> None:
        self.address = address
        self.now = 100.0
        self.log: list[tuple[str, str]] = []
        self.routes = RouteSet()
        self.probes = 0
        self.succession = Succession(self._randbytes)
        assert self.keep(self.succession.begin()) == [Dial(ATTEMPT_S)]

    def _randbytes(self, n: int) -> bytes:
        self.probes += 1
        return bytes([self.probes]) * n

    @property
    def probe(self) -> bytes:
        """The payload of the last PING."""
        return PROBE_PREFIX + bytes([self.probes]) * 8

    def keep(self, actions: list[Action]) -> list[Action]:
        self.log += [(action.level, action.text) for action in actions if isinstance(action, Log)]
        return [action for action in actions if not isinstance(action, Log)]

    def talk(self, connection: int) -> Conversation:
        return conversation(
            address=self.address, last=GRANTED, routes=self.routes, extended=True, connection=connection
        )

    def open(self, connection: int) -> list[Action]:
        return self.keep(self.succession.opened(self.talk(connection), self.now))

    def change(self, why: str = WAY) -> list[Action]:
        return self.keep(self.succession.changed(why, self.now))

    def receive(self, connection: int, payload: bytes) -> list[Action]:
        return self.keep(self.succession.received(connection, payload, self.now, WALL))

    def pong(self, connection: int, payload: bytes = b"hello") -> list[Action]:
        return self.keep(self.succession.ponged(connection, payload, self.now))

    def fail(self, text: str = "no route") -> list[Action]:
        return self.keep(self.succession.failed(text, self.now))

    def close(self, connection: int, cause: str = "reset") -> list[Action]:
        return self.keep(self.succession.closed(connection, cause, self.now))

    def expire(self) -> list[Action]:
        self.now = max(self.now, self.succession.deadline)
        return self.keep(self.succession.expired(self.now))


def joins(actions: list[Action]) -> list[int]:
    return [action.connection for action in actions if isinstance(action, Join)]


@pytest.fixture
def lives() -> Lives:
    """A member with an address of its own, confirmed on connection OLD."""
    made = Lives()
    assert joins(made.open(OLD)) == [OLD]
    assert made.pong(OLD) == []
    made.now += CONFIRM_S
    assert made.keep(made.succession.expired(made.now)) == []
    made.log.clear()
    return made


@pytest.mark.parametrize("why", [WAY, ASLEEP])
def test_a_change_asks_the_connection_and_dials_at_once(lives: Lives, why: str) -> None:
    """ "makes the client ping at once and dial anew in parallel"."""
    assert lives.change(why) == [Ping(OLD, lives.probe), Dial(SUCCESSOR_ATTEMPT_S)]
    assert lives.log == [("info", f"{why}: asking whether the connection holds")]
    assert lives.succession.ending is None


def test_if_the_connection_answers_the_dial_is_given_up(lives: Lives) -> None:
    lives.change()
    assert lives.pong(OLD, lives.probe) == [Abandon()]
    assert lives.log[-1] == ("info", "the connection holds")
    # As if nothing had been.
    assert lives.pong(OLD, lives.probe) == []
    assert lives.close(OLD, "silent") == [Judge(OLD, gave_up=True)]
    assert lives.succession.ending == Ending("the relay fell silent", held=True, gave_up=True)


def test_another_pong_is_no_answer(lives: Lives) -> None:
    """One that was on its way came by the way before; and an original relay's says nothing of the PING."""
    lives.change()
    first = lives.probe
    lives.change()
    for payload in (b"hello", first, bytes(1500)):
        assert lives.pong(OLD, payload) == []
    assert lives.pong(OLD, lives.probe) == [Abandon()]


def test_the_successor_takes_over_with_its_claim(lives: Lives) -> None:
    lives.change()
    actions = lives.open(NEW)
    assert actions[0] == SetPlacements(())
    # Packets go by the new one once AUTH is out, and not sooner; the old one is still taken from.
    assert joins(actions) == [NEW]
    kinds = [wire.decode(action.payload) for action in actions if isinstance(action, Send)]
    assert [type(kind) for kind in kinds] == [wire.Vmac, wire.Auth]
    assert not any(isinstance(action, Close) for action in actions)
    # The relay's answer on the new one ends the old one, without a word: the relay may have closed it already.
    assert lives.pong(NEW) == [Close(OLD, None, "")]
    assert lives.pong(NEW) == []
    assert lives.succession.connections == [NEW]


def test_what_the_relay_says_on_the_replaced_connection_is_not_heard(lives: Lives) -> None:
    """4001 is this member's own doing: no pause, no other address, no other VMAC, no word of a double."""
    lives.change()
    lives.open(NEW)
    lives.succession.closing(OLD, TAKEN)
    assert lives.receive(OLD, route(LAN_A, flags=3)) == []
    assert lives.pong(OLD, lives.probe) == []
    assert lives.close(OLD, "peer") == []
    assert lives.succession.ending is None
    assert [level for level, _ in lives.log if level == "warning"] == []
    assert SetRoutes((LAN_A,)) in lives.receive(NEW, route(LAN_A, flags=3))


def test_a_granted_address_is_asked_for_before_the_successor_takes_over() -> None:
    lives = Lives(address=None)
    assert joins(lives.open(OLD)) == []
    assert joins(lives.receive(OLD, answer())) == [OLD]
    lives.pong(OLD)
    lives.change()
    assert [type(action) for action in lives.open(NEW)] == [Send, Send]
    # Until the relay grants it the old one is heard.
    assert SetRoutes((LAN_A,)) in lives.receive(OLD, route(LAN_A, flags=3))
    assert joins(lives.receive(NEW, answer())) == [NEW]
    assert lives.receive(OLD, route(flags=3)) == []


def test_if_the_connection_answers_later_the_successor_ends() -> None:
    lives = Lives(address=None)
    lives.open(OLD)
    lives.receive(OLD, answer())
    lives.change()
    lives.open(NEW)
    assert lives.pong(OLD, lives.probe) == [Close(NEW, CloseCode.GOING_AWAY, "")]
    assert lives.receive(NEW, answer()) == []
    assert lives.close(NEW, "local") == []
    assert lives.succession.connections == [OLD]
    assert lives.succession.ending is None


def test_a_failed_dial_is_repeated_as_long_as_there_is_doubt(lives: Lives) -> None:
    lives.change()
    start = lives.now
    for n in range(1, 4):
        assert lives.fail() == []
        assert lives.expire() == [Dial(SUCCESSOR_ATTEMPT_S)]
        assert lives.now == start + n * AGAIN_S
    assert lives.fail() == []
    assert lives.pong(OLD, lives.probe) == []
    assert lives.succession.deadline > lives.now + AGAIN_S


def test_so_is_one_whose_connection_ended_before_its_claim() -> None:
    lives = Lives(address=None)
    lives.open(OLD)
    lives.receive(OLD, answer())
    lives.change()
    lives.open(NEW)
    assert lives.close(NEW, "eof") == []
    assert lives.expire() == [Dial(SUCCESSOR_ATTEMPT_S)]
    lives.open(NEWER)
    assert joins(lives.receive(NEWER, answer())) == [NEWER]


def test_another_change_begins_anew() -> None:
    """What was dialed, or has even come to a connection, was by the way before."""
    lives = Lives(address=None)
    lives.open(OLD)
    lives.receive(OLD, answer())
    lives.change()
    assert lives.change() == [Ping(OLD, lives.probe), Abandon(), Dial(SUCCESSOR_ATTEMPT_S)]
    lives.open(NEW)
    assert lives.change() == [
        Ping(OLD, lives.probe),
        Close(NEW, CloseCode.GOING_AWAY, ""),
        Dial(SUCCESSOR_ATTEMPT_S),
    ]
    lives.fail()
    assert lives.change() == [Ping(OLD, lives.probe), Dial(SUCCESSOR_ATTEMPT_S)]
    # Said once.
    assert [level for level, text in lives.log if WAY in text] == ["info", "debug", "debug", "debug"]


def test_a_change_during_the_first_attempt_begins_it_anew() -> None:
    lives = Lives(address=None)
    assert lives.change() == [Abandon(), Dial(ATTEMPT_S)]
    lives.open(OLD)
    assert lives.change() == [Close(OLD, CloseCode.GOING_AWAY, ""), Dial(ATTEMPT_S)]
    assert lives.close(OLD, "local") == []
    assert lives.fail() == []
    assert lives.succession.ending == Ending("no route")


def test_the_connection_in_doubt_ends_first(lives: Lives) -> None:
    """A relay that has forgotten it after a suspend resets it: no pause, for the dial goes on."""
    lives.change(ASLEEP)
    assert lives.close(OLD, "reset") == []
    assert lives.succession.ending is None
    assert lives.log[-1][0] == "warning"
    assert lives.log[-1][1].endswith("; another connection is being made already")
    assert joins(lives.open(NEW)) == [NEW]
    lives.pong(NEW)
    lives.now += CONFIRM_S
    lives.expire()
    assert ("info", f"connected as {GRANTED} (the relay answers)") in lives.log


def test_and_the_dial_fails_as_well(lives: Lives) -> None:
    lives.now += 1000
    lives.change()
    lives.close(OLD, "silent")
    assert lives.fail() == []
    # The one that held counts for what follows.
    assert lives.succession.ending == Ending("no route", held=True)


def test_and_nothing_is_being_dialed_at_that_moment(lives: Lives) -> None:
    lives.change()
    lives.fail()
    # What was on its way is lost with the way, and says nothing of segments.
    assert lives.close(OLD, "silent") == []
    assert lives.succession.ending == Ending("the relay fell silent", held=True, gave_up=True)


@pytest.mark.parametrize("opened", [False, True])
def test_a_double_takes_the_address_while_there_is_doubt(opened: bool) -> None:
    """Then the dial is not to take it back at once."""
    lives = Lives(address=None)
    lives.open(OLD)
    lives.receive(OLD, answer())
    lives.pong(OLD)
    lives.change()
    if opened:
        lives.open(NEW)
    lives.succession.closing(OLD, TAKEN)
    given_up: Action = Close(NEW, CloseCode.GOING_AWAY, "") if opened else Abandon()
    assert lives.close(OLD, "peer") == [given_up]
    assert lives.succession.ending is not None
    assert lives.succession.ending.replaced


def test_at_most_one_older_connection_is_left_open(lives: Lives) -> None:
    lives.change()
    lives.open(NEW)
    lives.change()
    assert lives.open(NEWER)[0] == Close(OLD, None, "")
    assert lives.pong(NEWER) == [Close(NEW, None, "")]


def test_the_end_is_told_to_whoever_is_heard() -> None:
    lives = Lives(address=None)
    assert lives.succession.end() == [Abandon()]
    lives.open(OLD)
    lives.receive(OLD, answer())
    lives.change()
    assert lives.succession.end() == [Close(OLD, CloseCode.GOING_AWAY, ""), Abandon()]
    lives.open(NEW)
    assert lives.succession.connections == [OLD, NEW]
    lives.receive(NEW, answer())
    assert lives.succession.end() == [Close(NEW, CloseCode.GOING_AWAY, ""), Close(OLD, None, "")]


def test_deadlines_of_both_are_kept() -> None:
    lives = Lives(address=None)
    lives.open(OLD)
    assert lives.succession.deadline == lives.now + ANSWER_S
    lives.receive(OLD, answer())
    lives.pong(OLD)
    lives.now += CONFIRM_S
    lives.expire()
    lives.change()
    lives.open(NEW)
    assert lives.expire() == [Close(NEW, CloseCode.POLICY_VIOLATION, "")]
