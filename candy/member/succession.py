"""The connections of a member from a first attempt on: the one that leads, and the one that is to succeed it.

    Dial ─▶ opened ─▶ LEADING ──the way has changed: PING, Dial──▶ IN DOUBT ──PONG: Abandon──▶ LEADING
                          ▲                                        │   │  ▲
                          └──────a successor claims the address────┘   └──┘ the dial failed: Dial, a moment later

Rules:
 1. Make before break: packets go by the connection in doubt until its successor claims the address. From then on they
    go by the successor, and what comes by the older one is still taken, until the relay has answered the newer one.
 2. Only a PONG to the very PING shows that the connection in doubt still holds: both directions work. An original relay
    answers with bytes of its own, so its connection is always succeeded.
 3. The relay ends a member's older connection once it believes the newer one's AUTH (candy.relay.claims, rule 3). That
    is this member's own doing, no double's: an older connection isn't heard any more once its successor has claimed.
 4. If the connection in doubt ends first, what is being dialed goes on without a pause; unless another machine has
    replaced this one.
 5. A change of the way makes whatever is not a leading connection begin anew: it was made by the way before.

No I/O, no clock, no random numbers: `now` is monotonic seconds, `wall` Unix seconds, randomness an argument. This
module does not know how the way to the relay is watched, nor what follows when no connection is left.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

from candy.member.conversation import Action as Said
from candy.member.conversation import Conversation, Ending, SetPlacements
from candy.protocol.actions import Close, Log, Ping
from candy.protocol.closing import CloseCode

PROBE_PREFIX = b"candy-probe:"
"""As the relay's own; 8 random bytes follow, so that a late PONG answers no later probe."""
ATTEMPT_S = 10.0
SUCCESSOR_ATTEMPT_S = 4.0
"""An attempt beside a connection in doubt: a kernel before 6.5 sends its SYN after 0, 1, 3 and 7 s, and the new way may
carry packets only after the first ones."""
AGAIN_S = 1.0
"""From a failed attempt beside a connection in doubt to the next one."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Make a connection: failed() or opened() follows, unless an Abandon comes first."""

    attempt_s: float


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give up the connection that is being made."""


@dataclass(frozen=True, slots=True)
class Judge:
    """See what became of the segments of a connection that has ended."""

    connection: int
    gave_up: bool


Action = Said | Dial | Abandon | Judge


class Succession:
    """From a first attempt to the end of the last connection that came of it.

    Args:
        randbytes: returns that many random bytes.
    """

    def __init__(self, randbytes: Callable[[int], bytes]) -> None:
        self._randbytes = randbytes
        self._leading: Conversation | None = None
        self._coming: Conversation | None = None
        """A successor that has not claimed the address yet."""
        self._retired: int | None = None
        """A connection whose successor has claimed, but was not answered yet."""
        self._is_dialing = False
        self._probe: bytes | None = None
        """In doubt: the PING's payload."""
        self._again_at = inf
        """In doubt: when to dial again."""
        self._held = False
        """One of those that have ended was confirmed."""
        self.ending: Ending | None = None
        """Set when nothing is left."""

    @property
    def connections(self) -> list[int]:
        """Those that are heard: the one that leads, and the one that comes."""
        return [talk.connection for talk in self._talks]

    @property
    def leading(self) -> Conversation | None:
        """The one by which packets go."""
        return self._leading

    @property
    def is_in_doubt(self) -> bool:
        """That one was asked whether it holds, and has not answered."""
        return self._probe is not None

    @property
    def at_hand(self) -> Conversation | None:
        """The one that leads; before there is one, the one that comes."""
        return next(iter(self._talks), None)

    @property
    def deadline(self) -> float:
        """When expired() has to be called."""
        return min(self._again_at, *(talk.deadline for talk in self._talks), inf)

    def begin(self) -> list[Action]:
        """The first attempt."""
        return self._dial(ATTEMPT_S)

    def failed(self, text: str, now: float, *, refused: bool = False) -> list[Action]:
        """What was dialed did not come to a connection, or to one that may not be used."""
        self._is_dialing = False
        return self._lack(Ending(text, refused=refused), now)

    def opened(self, conversation: Conversation, now: float) -> list[Action]:
        """What was dialed has come to a connection: this is its conversation, not begun yet."""
        self._is_dialing = False
        self._coming = conversation
        return self._settle(conversation.opened(now))

    def changed(self, why: str, now: float) -> list[Action]:
        """The way to the relay has changed, or this machine was asleep; `why` is a sentence for the user."""
        leading = self._leading
        if leading is None:
            return [Log("debug", f"{why}: connecting anew"), *self._give_up(), *self._dial(ATTEMPT_S)]
        log = Log("info" if self._probe is None else "debug", f"{why}: asking whether the connection holds")
        self._probe = PROBE_PREFIX + self._randbytes(8)
        return [log, Ping(leading.connection, self._probe), *self._give_up(), *self._dial(SUCCESSOR_ATTEMPT_S)]

    def received(self, connection: int, payload: bytes, now: float, wall: int) -> list[Action]:
        """A message other than a packet."""
        talk = self._talk(connection)
        return self._settle(talk.received(payload, now, wall)) if talk is not None else []

    def ponged(self, connection: int, payload: bytes, now: float) -> list[Action]:
        """A PONG with a payload."""
        talk = self._talk(connection)
        if talk is None:
            return []
        actions: list[Action] = [*talk.ponged(now)]
        if talk is self._leading:
            actions += self._end_retired()
            if payload == self._probe:
                self._probe = None
                actions += [Log("info", "the connection holds"), *self._give_up()]
        return actions

    def closing(self, connection: int, payload: bytes) -> None:
        """The relay's close frame: at least the two bytes of a code."""
        talk = self._talk(connection)
        if talk is not None:
            talk.closing(payload)

    def closed(self, connection: int, cause: str, now: float, silence: float | None = None) -> list[Action]:
        """A connection is gone; `cause` is one of the engine's CAUSES, behind `silence` seconds without a byte."""
        talk = self._talk(connection)
        if talk is None:
            return []
        ending = talk.closed(cause, now, silence)
        # Not of one in doubt: what is on its way there is lost with the way.
        is_judged = (ending.gave_up or ending.silence is not None) and self._probe is None
        judging: list[Action] = [Judge(connection, ending.gave_up)] if is_judged else []
        if talk is self._coming:
            self._coming = None
            return judging + self._lack(ending, now)
        self._leading = None
        self._probe = None
        self._again_at = inf
        if ending.replaced:
            self.ending = ending
            return self._give_up()
        self._held |= ending.held
        if self._is_dialing or self._coming is not None:
            return [Log("warning", f"{ending.text}; another connection is being made already")]
        self.ending = ending
        return judging

    def expired(self, now: float) -> list[Action]:
        """Act on the deadlines up to `now`."""
        actions: list[Action] = []
        for talk in self._talks:
            actions += talk.expired(now)
        if now >= self._again_at:
            actions += self._dial(SUCCESSOR_ATTEMPT_S)
        return actions

    @property
    def _talks(self) -> list[Conversation]:
        return [talk for talk in (self._leading, self._coming) if talk is not None]

    def _talk(self, connection: int) -> Conversation | None:
        return next((talk for talk in self._talks if talk.connection == connection), None)

    def end(self) -> list[Action]:
        """This member leaves, or nothing is left: end whatever there is, with a goodbye where it is heard."""
        return [
            *(Close(connection, CloseCode.GOING_AWAY, "") for connection in self.connections),
            *self._end_retired(),
            *([Abandon()] if self._is_dialing else []),
        ]

    def _settle(self, actions: list[Said]) -> list[Action]:
        """Have the successor lead, if it has claimed the address by these actions of the conversations'."""
        coming = self._coming
        if coming is None or not coming.has_claimed:
            return [*actions]
        ended = self._end_retired()
        if self._leading is not None:
            self._retired = self._leading.connection
        self._leading, self._coming = coming, None
        self._probe = None
        self._again_at = inf
        # What the connection before was told is nothing for this one, whose relay may be another.
        return [*ended, SetPlacements(()), *actions]

    def _lack(self, ending: Ending, now: float) -> list[Action]:
        """An attempt has failed, or what came of it ended before it led."""
        if self._leading is None:
            self.ending = replace(ending, held=ending.held or self._held)
            return []
        self._again_at = now + AGAIN_S
        return [Log("debug", f"{ending.text}; trying again in {AGAIN_S:.1f} s")]

    def _dial(self, attempt_s: float) -> list[Action]:
        self._is_dialing = True
        self._again_at = inf
        return [Dial(attempt_s)]

    def _give_up(self) -> list[Action]:
        """Have no successor, nor one that is being dialed."""
        self._again_at = inf
        actions: list[Action] = []
        if self._coming is not None:
            actions.append(Close(self._coming.connection, CloseCode.GOING_AWAY, ""))
            self._coming = None
        if self._is_dialing:
            self._is_dialing = False
            actions.append(Abandon())
        return actions

    def _end_retired(self) -> list[Action]:
        retired, self._retired = self._retired, None
        return [Close(retired, None, "")] if retired is not None else []
