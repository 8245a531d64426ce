"""What a network of ours needs of this machine, against what the kernel has: what to put right, when, and when not to.

    notified(now) … ─▶ deadline ─▶ begin(now) ─▶ judge(wanted, found, now) ─▶ Verdict: facts to put right, lines to log
    something changed  wait        look at the kernel                                                      afterwards

Rules:
 1. Both states are sets of facts, and what is missing is their difference. What the kernel has beside them is others'.
 2. A look comes once nothing has changed for SETTLE_S, LATEST_S after the first change at the latest: what belongs
    together, such as an interface that goes down and up, is one look, and a flood of changes costs one a second.
 3. A program that takes the same fact away again within FIGHT_S, after it was put right TRIES times, means it. That is
    said once, and the fact is left alone for PAUSE_S; then there is one more try at a time, without a word, until one
    has held for FIGHT_S.
 4. One line names all that was missing. What this process changed itself is wanted by then, and so never missing.

No I/O, no clock. This module does not know where facts come from, nor how one is put right.
"""

import enum
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network
from math import inf
from typing import Literal, NamedTuple

from candy.protocol.actions import Log

SETTLE_S = 0.2
LATEST_S = 1.0
TRIES = 5
FIGHT_S = 60.0
PAUSE_S = 60.0
NAMED_MAX = 4
"""Of the facts that one line is about."""


class Part(enum.Enum):
    """What a fact is about, in the order in which parts are put right: its words, with a place for the value."""

    MTU = "MTU {}"
    QUEUE = "queue length {}"
    ADDRESS = "address {}"
    STATE = "state {}"
    ROUTE = "route to {}"
    TABLE = "nftables table {}"
    FORWARDING = "net.ipv4.ip_forward {}"


_ORDER = {part: number for number, part in enumerate(Part)}


class Fact(NamedTuple):
    """One thing that is so, or shall be."""

    part: Part
    value: int | str | IPv4Interface | IPv4Network

    def __str__(self) -> str:
        return self.part.value.format(self.value)


class Verdict(NamedTuple):
    """What follows from a look."""

    facts: tuple[Fact, ...] = ()
    """To put right, in this order."""
    lines: tuple[Log, ...] = ()


Judge = Callable[[AbstractSet[Fact], AbstractSet[Fact]], tuple[Fact, ...]]
"""Of a look: what is wanted, what was found; and what to put right."""


@dataclass(slots=True)
class _Contest:
    """Over one fact, with the program that takes it away."""

    tries: list[float] = field(default_factory=list)
    """When it was put right, of the last FIGHT_S."""
    paused_until: float = -inf
    is_fight: bool = False
    """It was given up, and has not held since."""

    def is_over(self, now: float) -> bool:
        """Nothing is left of it to be remembered."""
        self.tries = [tried for tried in self.tries if now - tried < FIGHT_S]
        return not self.tries

    def try_again(self, now: float) -> bool:
        """Whether to put it right once more."""
        if len(self.tries) < TRIES:
            self.tries.append(now)
            return True
        self.is_fight = True
        self.paused_until = now + PAUSE_S
        # After the pause there is room for one.
        self.tries = [self.paused_until] * (TRIES - 1)
        return False


class Reconciler:
    """Of one interface, or of another thing that is looked at as a whole.

    Args:
        name: in its lines.
        every: seconds from one look to the next although nothing is heard of a change.
    """

    def __init__(self, name: str, every: float = inf) -> None:
        self._name = name
        self._every = every
        self._first: float | None = None
        """When the first change came that was not looked at."""
        self._due = inf
        self._resume = inf
        """When the first of the facts that are missing and left alone may be tried again."""
        self._contests: dict[Fact, _Contest] = {}

    def notified(self, now: float) -> None:
        """Something may have changed."""
        if self._first is None:
            self._first = now
        self._due = min(now + SETTLE_S, self._first + LATEST_S)

    @property
    def deadline(self) -> float:
        """When to look; inf: not before something changes."""
        return min(self._due, self._resume)

    def begin(self, now: float) -> None:
        """A look begins: what changes from here on is for the next one."""
        self._first = None
        self._due = now + self._every
        self._resume = inf

    def judge(self, wanted: AbstractSet[Fact], found: AbstractSet[Fact], now: float) -> Verdict:
        """What to put right of what is missing."""
        missing = sorted(wanted - found, key=lambda fact: (_ORDER[fact.part], str(fact.value)))
        self._contests = {fact: contest for fact, contest in self._contests.items() if not contest.is_over(now)}
        facts, news, old, given_up = list[Fact](), list[Fact](), list[Fact](), list[Fact]()
        for fact in missing:
            contest = self._contests.setdefault(fact, _Contest())
            was_fight = contest.is_fight
            if now >= contest.paused_until and contest.try_again(now):
                facts.append(fact)
                (old if was_fight else news).append(fact)
                continue
            self._resume = min(self._resume, contest.paused_until)
            if not was_fight:
                given_up.append(fact)
        lines = [
            *self._line("warning", "was changed from outside, setting it right", news),
            *self._line("debug", "was changed from outside again, setting it right", old),
            *self._line(
                "warning", f"is changed from outside again and again, leaving it so for {PAUSE_S:.0f} s", given_up
            ),
        ]
        return Verdict(tuple(facts), tuple(lines))

    def _line(self, level: Literal["debug", "warning"], what: str, facts: list[Fact]) -> Iterable[Log]:
        if facts:
            named = ", ".join(str(fact) for fact in facts[:NAMED_MAX])
            more = f" and {len(facts) - NAMED_MAX} more" if len(facts) > NAMED_MAX else ""
            yield Log(level, f"{self._name} {what}: {named}{more}")
