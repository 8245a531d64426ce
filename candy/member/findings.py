"""What a member's doctor finds: a state for each step of the way, and the verdicts that need no look at anything.

    Walk: steps of an attempt as they begin ─▶ findings: each with its time, and where it failed why
    clock(), host's answers                 ─▶ Finding: step, state, seconds, a line with the cure

Rules:
 1. A line that names a fault names its cure, and is the one that the member itself logs: the module that knows the
    fault has it.
 2. `warning` is what may be meant so, or what the member gets over by itself; only what failed is not well.

No I/O, no clock. Times are seconds of a monotonic clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from candy.member.conversation import clocks
from candy.member.cures import CURES
from candy.member.steps import Step
from candy.protocol.auth import TOLERANCE_S
from candy.protocol.closing import CloseCode

NOT_REACHED: Final = "not looked at: the steps before it failed"
UNTOLD_CLOCK: Final = "not known: the relay says its time only to who logs in"


class State(StrEnum):
    """Of one step."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "-"
    """There was nothing to look at, or no way to."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step came to."""

    step: str
    state: State
    seconds: float | None
    """How long it took; None: nothing was done for it."""
    text: str


def is_well(findings: Sequence[Finding]) -> bool:
    """Nothing that matters has failed."""
    return all(finding.state is not State.FAILED for finding in findings)


@dataclass(slots=True)
class Walk:
    """The steps of an attempt to connect, as they begin."""

    began: dict[Step, float] = field(default_factory=dict)

    def begin(self, step: Step, now: float) -> None:
        self.began[step] = now

    @property
    def at(self) -> Step:
        """The step that is under way."""
        return list(self.began)[-1] if self.began else Step.NAME

    def findings(self, said: Mapping[Step, tuple[State, str]], now: float, failure: str | None = None) -> list[Finding]:
        """One for each step.

        Args:
            said: what to say of steps that went well, or are not on this way.
            now: the end.
            failure: why the last one failed; None: it did not.
        """
        found = []
        moments = [*self.began.values(), now]
        took = {step: end - begin for step, begin, end in zip(self.began, moments, moments[1:], strict=False)}
        has_failed = False
        for step in Step:
            state, text = said[step]
            if has_failed and state is not State.SKIPPED:
                state, text = State.SKIPPED, NOT_REACHED
            elif failure is not None and step is self.at:
                has_failed, state, text = True, State.FAILED, failure
            found.append(Finding(step, state, took.get(step), text))
        return found


def clock(relay: int | None, here: int, seconds: float | None) -> Finding:
    """By what the relay has for the time, Unix seconds, and by what this machine has."""
    if relay is None:
        return Finding("clock", State.SKIPPED, None, UNTOLD_CLOCK)
    skew = relay - here
    if abs(skew) > TOLERANCE_S:
        return Finding("clock", State.FAILED, seconds, f"{clocks(skew)}: {CURES[CloseCode.CLOCK_OFF]}")
    return Finding("clock", State.OK, seconds, clocks(skew))
