"""The engine's CoDel against the RFC's pseudo-code, over arrivals and departures of every kind."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.codel import CE, ECT_0, ECT_1, MS, NOT_CAPABLE, Trial

pytestmark = pytest.mark.engine

US = 1000


@dataclass(frozen=True)
class Phase:
    """A while in which packets of a flow come and packets leave, each in a rhythm of its own."""

    flow: int
    burst: int
    """Packets that come at its start."""
    arrivals: int
    departures: int
    arrival_us: int
    departure_us: int
    sizes: list[int]
    ecn: list[int]
    rate: int
    """At which the engine thinks that its queue drains, bytes a second; 0 unknown."""
    pause_us: int
    """Before it begins. Below 0: another thread's clock is behind."""


sizes = st.integers(134, 1600) | st.sampled_from((134, 757, 758, 1513, 1514, 1515, 9000, 60_000))
rhythms = st.integers(0, 20_000) | st.sampled_from((0, 1000, 5000))
pauses = st.just(0) | st.integers(-5000, 150_000) | st.integers(1_300_000, 1_800_000) | st.integers(0, 20_000_000)
phases = st.builds(
    Phase,
    flow=st.integers(1, 3),
    burst=st.integers(0, 60),
    arrivals=st.integers(0, 150),
    departures=st.integers(0, 250),
    arrival_us=rhythms,
    departure_us=rhythms,
    sizes=st.lists(sizes, min_size=1, max_size=4),
    ecn=st.just([NOT_CAPABLE]) | st.lists(st.sampled_from((NOT_CAPABLE, ECT_1, ECT_0, CE)), min_size=1, max_size=5),
    rate=st.just(0) | st.integers(20_000, 1_000_000) | st.just(10_000_000),
    pause_us=pauses,
)


def play(trial: Trial, phase: Phase, start: int) -> int:
    """Returns when it ends."""
    now = start + phase.pause_us * US
    trial.backlog.rate = phase.rate
    coming = [now] * phase.burst + [now + n * phase.arrival_us * US for n in range(1, phase.arrivals + 1)]
    leaving = [now + n * phase.departure_us * US for n in range(1, phase.departures + 1)]
    # At the same moment those that come are first.
    events = sorted([(at, 0) for at in coming] + [(at, 1) for at in leaving])
    for n, (now, leaves) in enumerate(events):
        if leaves:
            trial.take(now)
        else:
            size, ecn = phase.sizes[n % len(phase.sizes)], phase.ecn[n % len(phase.ecn)]
            trial.append(now, size, flow=phase.flow, ecn=ecn)
    return now


@given(st.lists(phases, min_size=1, max_size=5), st.booleans())
def test_every_decision_is_the_models(played: list[Phase], masked: bool) -> None:
    trial = Trial(masked=masked)
    now = 1000 * MS
    for phase in played:
        now = play(trial, phase, now)
    while trial.take(now):
        pass
