"""The way to one peer without the relay: which of its addresses answer, which of these is the path, and what fits.

    offered(), observed() ─▶ Trials ─ Probe ─▶ …… answered() ─▶ measured, compared ─▶ Use        the path
                                                 └─ lost ─▶ another one, or Leave ◀── silenced(), by the engine

Rules:
 1. An address is used only when an answer to a probe of this member's has come from it. What is authentic, but comes
    from another address, is a reason to probe that one.
 2. A path is left for one that is better (Trial.is_better), within 2 s. Where an answer makes another one seem so, both
    have a few probes at once, but only once each COMPARE_S: a busy machine makes all seem so. It is left for the relay
    when two of its probes in a row are lost and nothing else is heard by it, and then for any that has answered since:
    others may have died with it.
 3. Probes of the path are as long as its MTU, so that one which has become narrower is found out.
 4. ACTIVE: all addresses are probed. WARM: the path alone, to hold it open. IDLE: nothing is; the path is left, because
    a NAT may have forgotten it.
 5. Routine probes, and their losses, have their times on ticks, which all peers have in common (candy.member.budget).
    Of those that wait for a turn the one has it whose address was probed longest ago.
 6. At most CANDIDATES_MOST addresses that were offered, and OBSERVED_MOST others. A peer may name FRESH_MOST new
    addresses, and one more each FRESH_S, and has at most two turns of routine probes before it, however many addresses
    it has: what one does costs no other its probes.

No I/O, no clock: randomness is an argument, `now` is in seconds of CLOCK_BOOTTIME.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from candy.member.budget import Budget, tick_of
from candy.member.trial import FIRST_S, MTU_LEAST, SIZES, Trial, longest
from candy.member.underway import Sent, UnderWay
from candy.protocol.linking import (
    CANDIDATES_MOST,
    HEADERS,
    ID_BYTES,
    OVERHEAD,
    Answer,
    Candidate,
    Endpoint,
    Kind,
    probe,
)

ACTIVE_S: Final = 10.0
"""After the last packet of either."""
WARM_S: Final = 60.0
HOLD_S: Final = 15.0
"""Between two probes of a warm path: NATs forget UDP after 30 s."""
MEASURE_S: Final = 600.0
AGAIN_S: Final = 5.0
"""From a round in which not even the least was answered to another one."""
OBSERVED_MOST: Final = 4
COMPARE_S: Final = 5.0
OTHERS_S: Final = 0.1
"""Behind a path that answered: in another network the paths of all peers are probed first."""
DOUBTS: Final = 2
"""Probes that are lost together, of a path that is dead."""
FRESH_MOST: Final = 16
FRESH_S: Final = 1.5
TRIED_S: Final = 5.0
"""After so long without an answer no path was found."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Send this, sealed, to exactly this address."""

    endpoint: Endpoint
    content: bytes


@dataclass(frozen=True, slots=True)
class Use:
    """Send packets there, if they have at most `longest` bytes."""

    endpoint: Endpoint
    longest: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Send packets by the relay."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """The path does not answer any more: perhaps this member's own addresses are others now."""

    is_ours: bool
    """The peer does not know of it yet."""


Step = Probe | Use | Leave | Doubt


class Pathfinder:
    """See above.

    Args:
        budget: of probes, shared with other peers'.
        may_use: whether an address may be used at all.
        randbytes: n random bytes.
        heard_at: when anything came by the path last that says that it carries.
    """

    def __init__(
        self,
        budget: Budget,
        may_use: Callable[[Endpoint], bool],
        randbytes: Callable[[int], bytes],
        heard_at: Callable[[], float],
        now: float,
    ) -> None:
        self._budget = budget
        self._may_use = may_use
        self._randbytes = randbytes
        self._heard_at = heard_at
        self._trials: dict[Endpoint, Trial] = {}
        self._offered: tuple[Candidate, ...] = ()
        """What the peer said last, of which not all may be used now."""
        self._under_way = UnderWay(budget)
        self._turns: list[float | None] = [None, None]
        """Among routine probes, that of all others, and that of the path: when it is; None: nobody waits for one."""
        self._fresh_at = now - FRESH_MOST * FRESH_S
        """When all new addresses that the peer has named were paid for."""
        self._path: Trial | None = None
        self._used: Use | None = None
        """What the engine has and goes by."""
        self._silent_at = -inf
        """When the path was last found dead: what answered before that says nothing."""
        self._active_at = now
        self._is_awake = True
        self._began = now
        self._doubt: Doubt | None = None
        """That is to be said."""
        self._is_doubted = False
        """By the engine."""
        self._compare_at = -inf
        """When a comparison may begin."""
        self.since = 0.0
        """When the path was taken."""

    @property
    def path(self) -> Trial | None:
        """None: packets go by the relay."""
        return None if self._used is None else self._path

    @property
    def is_idle(self) -> bool:
        return not self._is_awake

    @property
    def is_narrow(self) -> bool:
        """There is an address that answers, but too little fits."""
        return any(trial.is_narrow for trial in self._trials.values())

    def has_tried(self, now: float) -> bool:
        """Long enough to say that there is no path."""
        return now - self._began >= TRIED_S

    @property
    def deadline(self) -> float:
        """When tick() has to be called; inf: not at all."""
        if not self._is_awake:
            return inf
        due, until = -inf if self._is_doubted and self._path is not None else inf, self._active_at + WARM_S
        for trial in self._trials.values():
            due = min(due, -inf if trial.has_sizes_due else trial.next_at)
            until = min(until, trial.round_until)
        return min(until, self._under_way.lost_at, max(due, self._under_way.wait_until))

    def active(self, now: float) -> bool:
        """There is traffic. True: for the first time after a while."""
        was_active, was_awake = self.is_active(now), self._is_awake
        self._active_at, self._is_awake = now, True
        if not was_awake:
            self.restart(now)
        elif not was_active:
            for trial in self._trials.values():
                trial.hasten(now)
        return not was_awake

    def restart(self, now: float) -> None:
        """The network is another one, or nothing was looked at for long: probe all addresses at once."""
        self._began = now
        others_at = now if self._path is None or not self._answers(self._path) else now + OTHERS_S
        for endpoint, trial in list(self._trials.items()):
            if self._may_use(endpoint):
                trial.restart(now if trial is self._path else others_at)
            else:
                self._drop(endpoint)
        # What could not be used may be usable now: a default route comes a moment after another one has gone.
        for candidate in self._offered:
            endpoint = candidate.endpoint
            if endpoint not in self._trials and self._may_use(endpoint) and self._may_name(now):
                self._trials[endpoint] = Trial(candidate, others_at)

    def offered(self, candidates: Iterable[Candidate], now: float) -> None:
        """The peer says where it may be reached, in place of what it said before."""
        self._began = now
        self._offered = tuple(candidates)[:CANDIDATES_MOST]
        usable = [each for each in self._offered if self._may_use(each.endpoint)]
        wanted = {each.endpoint: each for each in usable}
        for endpoint, trial in list(self._trials.items()):
            if trial.is_offered and endpoint not in wanted:
                # A path is one as long as it carries, whatever is said.
                trial.is_offered = False
                if trial is not self._path:
                    self._drop(endpoint)
        for endpoint, candidate in wanted.items():
            known = self._trials.get(endpoint)
            if known is None:
                if self._may_name(now):
                    self._trials[endpoint] = Trial(candidate, now)
            else:
                known.kind, known.is_offered = candidate.kind, True
                known.restart(now)

    def forget(self) -> None:
        """The peer has no direct links any more."""
        self._trials.clear()
        self._offered = ()
        self._path = None

    def observed(self, endpoint: Endpoint, now: float) -> None:
        """Something authentic came from there (rule 1)."""
        trial = self._trials.get(endpoint)
        # What has never answered may be another host's: the peer can send this from any address.
        if (trial is None or not trial.answers) and not self._may_name(now):
            return
        if trial is not None:
            trial.hasten(now)
        elif self._may_use(endpoint):
            others = [each for each in self._trials.values() if not each.is_offered and each is not self._path]
            for each in others[: max(0, len(others) + 1 - OBSERVED_MOST)]:
                self._drop(each.endpoint)
            self._trials[endpoint] = Trial(Candidate(Kind.REFLEXIVE, endpoint), now, is_offered=False)
        if self._path is not None and self._path is not trial:
            self._path.hasten(now)

    def answered(self, answer: Answer, source: Endpoint, now: float) -> None:
        """A probe is answered."""
        sent = self._under_way.answered(answer, source)
        if sent is None:
            self.observed(source, now)
            return
        trial = self._trials.get(source)
        if trial is not None:
            if not trial.is_good:
                # The way to the peer is open, or open again: others that are better may be, too.
                for other in self._trials.values():
                    other.hasten(now)
            trial.answered(now - sent.at, now)
            if sent.size:
                trial.measured(sent.size)
            self._compare(now)

    def doubted(self, now: float) -> None:
        """The engine misses an answer to packets of the path: two probes say whether it is dead."""
        self._is_doubted = self._path is not None

    def silenced(self, now: float, *, by_peer: bool = False) -> None:
        """The engine sends nothing by the path any more: nothing came back, or the peer says that it hears nothing."""
        self._found_dead(now, is_ours=not by_peer)
        self._used = None

    def tick(self, now: float) -> list[Step]:
        """Act on what came, and on time."""
        if self._is_awake and now >= self._active_at + WARM_S:
            had = self._used
            self.rest()
            return [] if had is None else [Leave()]
        if not self._is_awake:
            return []
        self._expire(now)
        self._end_rounds(now)
        self._choose(now)
        self._measure(now)
        doubt, self._doubt = self._doubt, None
        return [*self._settle(now), *self._probes(now), *([] if doubt is None else [doubt])]

    def rest(self) -> None:
        """Do nothing until there is traffic. The engine has no path then: the caller sees to that."""
        self._is_awake = False
        self._under_way.clear()
        self._path = self._used = None
        self._is_doubted = False
        # Rule 4: when there is traffic again, an address is one that answers then, and what fits is found out anew.
        for trial in self._trials.values():
            self._silent_at = max(self._silent_at, trial.answered_at)
            trial.mtu = 0

    def is_active(self, now: float) -> bool:
        return now < self._active_at + ACTIVE_S

    def _may_name(self, now: float) -> bool:
        """Rule 6: whether the peer may have one more address probed, now."""
        paid_at = max(self._fresh_at, now - FRESH_MOST * FRESH_S) + FRESH_S
        if paid_at > now:
            return False
        self._fresh_at = paid_at
        return True

    def _drop(self, endpoint: Endpoint) -> None:
        if self._trials.pop(endpoint) is self._path:
            self._path = None

    def _expire(self, now: float) -> None:
        for sent in self._under_way.expired(now):
            trial = self._trials.get(sent.endpoint)
            if trial is None or sent.size:
                continue
            if trial is self._path and sent.length > MTU_LEAST - HEADERS[sent.endpoint.family]:
                # Perhaps it is too long now, and shorter ones arrive.
                trial.measured_at = -inf
            # What was answered since says more than what was lost before.
            if trial.answered_at >= sent.at:
                continue
            trial.lost(now)
            if trial is self._path and trial.lost_in_row == 2:
                if self._heard_at() >= sent.at:
                    # Packets come by it that say that others arrive.
                    trial.lost_in_row = 0
                else:
                    self._found_dead(now, is_ours=self._used is not None)

    def _found_dead(self, now: float, *, is_ours: bool) -> None:
        self._silent_at, self._doubt = now, Doubt(is_ours)
        if self._path is not None:
            # It may come back as a narrower one: what fits is found out before packets go by it.
            self._path.mtu = 0
        self.restart(now)

    def _end_rounds(self, now: float) -> None:
        for trial in self._trials.values():
            if now >= trial.round_until:
                trial.end_round(now)

    def _choose(self, now: float) -> None:
        """Rule 2, among those that were measured."""
        measured = [trial for trial in self._trials.values() if trial.mtu]
        path = self._path
        if path is None or not path.mtu or not self._answers(path):
            best = self._best(measured)
            if best is not None:
                self._path, self.since = best, now
            elif path is not None and (not path.mtu or path.lost_in_row > len(FIRST_S)):
                self._path = None
            return
        best = self._best(trial for trial in measured if trial.answers > 1 and now >= trial.held_until)
        if best is not None and best is not path and best.is_better(path):
            if best.is_much_faster(path):
                path.left(now)
            self._path, self.since = best, now

    def _compare(self, now: float) -> None:
        """Rule 2, as soon as an answer gives reason to."""
        path = self._path
        if path is None or not self._answers(path) or now < self._compare_at or not self.is_active(now):
            return
        for trial in self._trials.values():
            is_rival = trial is not path and self._answers(trial) and not trial.is_narrow and now >= trial.held_until
            if is_rival and trial.seems_faster(path) and self._budget.may_compare(now):
                self._compare_at = now + COMPARE_S
                trial.hurry(now)
                path.hurry(now)
                return

    def _best(self, trials: Iterable[Trial]) -> Trial | None:
        best = None
        for trial in trials:
            if self._answers(trial) and (best is None or trial.is_better(best)):
                best = trial
        return best

    def _answers(self, trial: Trial) -> bool:
        return trial.is_good and trial.answered_at > self._silent_at

    def _measure(self, now: float) -> None:
        """Begin a round: of the path if it is due, else of the best one without."""
        if any(trial.is_measuring for trial in self._trials.values()):
            return
        path = self._path
        # Whether it answers at all is the first thing to be known of it, where the network is another one.
        if (
            path is not None
            and self._answers(path)
            and now >= path.measured_at + MEASURE_S
            and (path.answered_at >= self._began)
        ):
            path.measure(now)
            return
        waits = [each for each in self._trials.values() if not each.mtu and now >= each.measured_at + AGAIN_S]
        best = self._best(waits)
        if best is not None and (path is None or not self._answers(path) or best.is_better(path)):
            best.measure(now)

    def _settle(self, now: float) -> list[Step]:
        """Tell the engine what is another now."""
        path = self._path
        if path is None or not path.mtu or path.answered_at <= self._silent_at:
            had, self._used = self._used, None
            return [] if had is None else [Leave()]
        use = Use(path.endpoint, longest(path.endpoint, path.mtu))
        if use == self._used:
            return []
        self._used = use
        return [use]

    def _probes(self, now: float) -> Iterable[Step]:
        """Those that are due, as far as the budget goes."""
        steps: list[Step] = []
        has_path = self._path is not None and self._answers(self._path)
        if self._is_doubted and self._path is not None and self._under_way.may_send(now, DOUBTS):
            self._is_doubted = False
            # The second one is short: the path may be no more than narrower.
            steps += [self._probe(self._path, now, is_short=short) for short in (False, True)]
        # The path first, then what was probed longest ago: else some would wait for their turns for ever.
        for trial in sorted(self._trials.values(), key=lambda each: (each is not self._path, each.sent_at)):
            if trial.has_sizes_due and self._under_way.may_send(now, len(SIZES)):
                trial.has_sizes_due = False
                steps += [self._probe(trial, now, size) for size in SIZES]
            if now < trial.next_at:
                continue
            is_path = trial is self._path
            if not (is_path or self.is_active(now)):
                trial.next_at = inf
                continue
            # What has not answered while the path does is no more urgent than the path.
            is_routine = trial.is_routine or (has_path and not trial.answers)
            if is_routine and not self._has_turn(is_path, now):
                trial.next_at = self._turns[is_path] or now
                continue
            if self._under_way.may_send(now, 1):
                if is_routine:
                    self._turns[is_path] = None
                steps.append(self._probe(trial, now, may_wait=is_routine))
                holds = is_path and not self.is_active(now) and not trial.lost_in_row
                trial.sent(now, HOLD_S if holds else None)
                if is_routine:
                    trial.next_at = tick_of(trial.next_at)
        return steps

    def _has_turn(self, is_path: bool, now: float) -> bool:
        """Whether a routine probe may be sent. If not, one of this kind may when the turn comes that it has taken."""
        turn = self._turns[is_path]
        if turn is None:
            turn = self._turns[is_path] = self._budget.turn(now)
        return now >= turn

    def _probe(
        self, trial: Trial, now: float, size: int = 0, *, may_wait: bool = False, is_short: bool = False
    ) -> Probe:
        """A probe of this size, or, of none, as long as suits the trial (rule 3).

        Args:
            may_wait: that it is lost (rule 5).
        """
        id = self._randbytes(ID_BYTES)
        fits = trial.mtu if trial is self.path and not trial.lost_in_row and not is_short else 0
        content = probe(id, max(0, (size or fits) - HEADERS[trial.endpoint.family]))
        lost_at = now + trial.patience
        lost_at = tick_of(lost_at) if may_wait else lost_at
        self._under_way.took(id, Sent(trial.endpoint, size, len(content) + OVERHEAD, now, lost_at))
        return Probe(trial.endpoint, content)
