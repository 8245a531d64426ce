"""candy.member.pathfinder: which of several addresses that answer is the path. NATs and loss are in test_links.py."""

from collections.abc import Callable
from ipaddress import ip_address
from itertools import count

import pytest

from candy.member.budget import Budget
from candy.member.pathfinder import FRESH_MOST, OBSERVED_MOST, Doubt, Leave, Pathfinder, Probe, Step, Use
from candy.member.trial import MTU_LEAST, SELDOM_S, Trial
from candy.protocol.linking import CANDIDATES_MOST, HEADERS, ID_BYTES, OVERHEAD, Answer, Candidate, Endpoint, Kind

NATIVE, TUNNEL, NEARER = (Endpoint(ip_address(f"10.0.{net}.2"), 26900) for net in range(3))
STEP_S = 0.02


class Ways:
    """A peer that answers behind a round trip of each address's own, `round_trip_s`, what fits there, `mtu`."""

    def __init__(self, *candidates: Candidate, budget: Budget | None = None) -> None:
        self.now = 1000.0
        numbers = count()
        self.budget = budget or Budget()
        self.heard_at = 0.0
        """By the path, other than answers."""
        self.unusable: set[Endpoint] = set()
        self.finder = Pathfinder(
            self.budget,
            lambda endpoint: endpoint not in self.unusable,
            lambda size: next(numbers).to_bytes(size, "big"),
            lambda: self.heard_at,
            self.now,
        )
        self.round_trip_s: dict[Endpoint, Callable[[], float]] = {}
        self.mtu: dict[Endpoint, int] = {}
        self.taken: list[Endpoint] = []
        """Each path, in turn."""
        self.went: list[Step] = []
        """All steps but probes."""
        self.sent: list[Endpoint] = []
        """To where each probe went."""
        self._under_way: list[tuple[float, Endpoint, Answer]] = []
        self.finder.offered(candidates, self.now)

    def answer_after(self, round_trips_s: tuple[float, float]) -> None:
        """By NATIVE and by NEARER."""
        native, nearer = round_trips_s
        self.round_trip_s = {NATIVE: lambda: native, NEARER: lambda: nearer}

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += STEP_S
            self.finder.active(self.now)
            for at, source, answer in [each for each in self._under_way if each[0] <= self.now]:
                self._under_way.remove((at, source, answer))
                self.finder.answered(answer, source, self.now)
            for step in self.finder.tick(self.now):
                if isinstance(step, Probe):
                    self._send(step)
                else:
                    self.went.append(step)
            path = self.finder.path
            if path is not None and self.taken[-1:] != [path.endpoint]:
                self.taken.append(path.endpoint)

    def probes_in(self, seconds: float) -> int:
        """How many are sent."""
        self.sent.clear()
        self.run(seconds)
        return len(self.sent)

    def _send(self, sent: Probe) -> None:
        self.sent.append(sent.endpoint)
        length = len(sent.content) + OVERHEAD
        if length + HEADERS[sent.endpoint.family] <= self.mtu[sent.endpoint]:
            answer = Answer(sent.content[1 : 1 + ID_BYTES], sent.endpoint, length)
            self._under_way.append((self.now + self.round_trip_s[sent.endpoint](), sent.endpoint, answer))


def test_of_two_as_fast_the_wider_is_the_path() -> None:
    """The narrower one leads through a tunnel of another program's, and is known first."""
    ways = Ways(Candidate(Kind.LAN, TUNNEL), Candidate(Kind.REFLEXIVE, NATIVE))
    ways.round_trip_s = {TUNNEL: lambda: 0.0011, NATIVE: lambda: 0.0004}
    ways.mtu = {TUNNEL: 1420, NATIVE: 1500}
    ways.run(5.0)
    assert ways.taken[-1] == NATIVE
    ways.taken.clear()
    ways.run(30.0)
    assert ways.taken == [NATIVE]


def test_of_two_as_wide_the_nearer_is_the_path() -> None:
    ways = Ways(Candidate(Kind.REFLEXIVE, NATIVE), Candidate(Kind.LAN, NEARER))
    ways.round_trip_s = {NATIVE: lambda: 0.0004, NEARER: lambda: 0.0004}
    ways.mtu = {NATIVE: 1500, NEARER: 1500}
    ways.run(5.0)
    assert ways.taken[-1] == NEARER


def test_one_slow_answer_does_not_change_the_path() -> None:
    """A machine is busy now and then."""
    ways = Ways(Candidate(Kind.LAN, NATIVE), Candidate(Kind.LAN, NEARER))
    slow = iter(range(1, 10_000))
    ways.round_trip_s = {NATIVE: lambda: 0.1 if next(slow) % 4 == 0 else 0.0004, NEARER: lambda: 0.0006}
    ways.mtu = {NATIVE: 1500, NEARER: 1500}
    ways.run(5.0)
    (path,) = set(ways.taken)
    ways.run(300.0)
    assert set(ways.taken) == {path}


def test_a_path_that_is_slow_while_it_is_used_does_not_change_for_ever() -> None:
    """Whichever carries the stream has its queue: each time the other one looks faster."""
    ways = Ways(Candidate(Kind.LAN, NATIVE), Candidate(Kind.LAN, NEARER))

    def loaded(endpoint: Endpoint) -> Callable[[], float]:
        return lambda: 0.05 if ways.taken[-1:] == [endpoint] else 0.005

    ways.round_trip_s = {NATIVE: loaded(NATIVE), NEARER: loaded(NEARER)}
    ways.mtu = {NATIVE: 1500, NEARER: 1500}
    ways.run(600.0)
    assert 1 < len(ways.taken) < 60


def test_a_path_that_was_held_off_is_taken_when_the_other_is_lost() -> None:
    ways = Ways(Candidate(Kind.LAN, NATIVE), Candidate(Kind.LAN, NEARER))
    ways.round_trip_s = {NATIVE: lambda: 0.005, NEARER: lambda: 0.05}
    ways.mtu = {NATIVE: 1500, NEARER: 1500}
    ways.run(10.0)
    ways.round_trip_s[NATIVE] = lambda: 0.2
    ways.run(20.0)
    assert ways.taken[-1] == NEARER
    ways.mtu[NEARER] = 0
    ways.run(4.0)
    assert ways.taken[-1] == NATIVE


def test_one_that_was_left_for_a_wider_one_is_taken_again_soon() -> None:
    """It was not slow."""
    ways = Ways(Candidate(Kind.LAN, NATIVE), Candidate(Kind.LAN, TUNNEL))
    ways.round_trip_s = {NATIVE: lambda: 0.04, TUNNEL: lambda: 0.02}
    ways.mtu = {NATIVE: 1500, TUNNEL: 1420}
    ways.run(0.3)
    ways.round_trip_s[TUNNEL] = lambda: 0.04
    ways.run(1.5)
    assert ways.taken == [TUNNEL, NATIVE]
    ways.run(1.5)
    ways.round_trip_s[NATIVE] = lambda: 0.2
    ways.run(2.0)
    assert ways.taken[-1] == TUNNEL


def test_an_address_that_never_answers_is_probed_ever_more_seldom() -> None:
    """For a day."""
    trial = Trial(Candidate(Kind.LAN, NATIVE), 0.0)
    for _ in range(2000):
        trial.sent(0.0, None)
    assert trial.next_at == SELDOM_S


def test_an_address_that_answered_for_an_hour_is_lost() -> None:
    """It is not the path: nothing begins anew for it."""
    ways = Ways(Candidate(Kind.LAN, NATIVE), Candidate(Kind.LAN, NEARER))
    ways.round_trip_s = {NATIVE: lambda: 0.005, NEARER: lambda: 0.05}
    ways.mtu = {NATIVE: 1500, NEARER: 1500}
    ways.run(2000.0)
    ways.mtu[NEARER] = 0
    ways.run(10.0)
    assert set(ways.taken) == {NATIVE}


def two(budget: Budget | None = None, round_trips_s: tuple[float, float] = (0.02, 0.06)) -> Ways:
    ways = Ways(Candidate(Kind.LAN, NATIVE), Candidate(Kind.LAN, NEARER), budget=budget)
    ways.answer_after(round_trips_s)
    ways.mtu = {NATIVE: 1500, NEARER: 1500}
    ways.run(8.0)
    assert ways.taken[-1] == NATIVE
    ways.went.clear()
    return ways


@pytest.mark.parametrize("phase_s", [round(0.1 * number, 1) for number in range(10)])
@pytest.mark.parametrize(
    ("before", "after"),
    [((0.1, 0.2), (0.1, 0.04)), ((0.02, 0.06), (0.2, 0.06))],
    ids=["other-improves", "path-worsens"],
)
def test_a_better_path_that_was_known_before_is_taken_soon(
    before: tuple[float, float], after: tuple[float, float], phase_s: float
) -> None:
    """At whatever time between its probes it becomes better."""
    ways = two(round_trips_s=before)
    ways.run(phase_s)
    ways.answer_after(after)
    ways.run(2.0)
    assert ways.taken[-1] == NEARER


def test_round_trips_that_only_seem_to_change_cost_few_probes() -> None:
    """Each second answer of the path is as slow as if the other one were better."""
    ways = two()
    quiet, noisy = ways.probes_in(60.0), iter(range(10_000))
    ways.round_trip_s[NATIVE] = lambda: 0.2 if next(noisy) % 2 else 0.02
    assert ways.probes_in(60.0) < 2 * quiet
    assert set(ways.taken) == {NATIVE}


def test_all_peers_together_compare_no_more_than_their_rate() -> None:
    budget = Budget()
    assert sum(budget.may_compare(0.1 * number) for number in range(600)) <= 61


def test_an_address_that_dies_with_the_path_is_not_tried_with_packets() -> None:
    """Both are of one machine, which is gone."""
    ways = two()
    ways.mtu = {NATIVE: 0, NEARER: 0}
    ways.run(4.0)
    assert ways.went == [Leave(), Doubt(is_ours=True)]


def test_a_path_that_dies_alone_has_the_other_in_its_place() -> None:
    ways = two()
    ways.mtu[NATIVE] = 0
    ways.run(4.0)
    assert [type(step) for step in ways.went] == [Leave, Doubt, Use]
    assert ways.taken[-1] == NEARER


def test_the_best_is_taken_again_when_all_are_back() -> None:
    """The other one happens to be probed first."""
    ways = two()
    ways.mtu = {NATIVE: 0, NEARER: 0}
    ways.run(60.0)
    ways.taken.clear()
    ways.mtu = {NATIVE: 1500, NEARER: 1500}
    ways.finder.observed(NEARER, ways.now)
    ways.run(2.0)
    assert ways.taken[-1] == NATIVE


def test_a_narrower_one_is_not_the_path_when_all_are_back() -> None:
    """A tunnel of another program's, whose size is known from before, while the path's is not."""
    ways = Ways(Candidate(Kind.LAN, NATIVE), Candidate(Kind.LAN, TUNNEL))
    ways.round_trip_s = {NATIVE: lambda: 0.02, TUNNEL: lambda: 0.02}
    ways.mtu = {NATIVE: 1500, TUNNEL: 1420}
    ways.run(12.0)
    assert ways.taken[-1] == NATIVE
    ways.mtu = {NATIVE: 0, TUNNEL: 0}
    ways.run(4.0)
    ways.mtu = {NATIVE: 1500, TUNNEL: 1420}
    ways.finder.observed(TUNNEL, ways.now)
    ways.run(2.0)
    assert ways.taken[-1] == NATIVE


def test_a_path_in_doubt_is_left_before_a_stream_asks_once_more() -> None:
    """TCP's second retransmission comes 0.4 s behind its first."""
    ways = two()
    ways.mtu = {NATIVE: 0, NEARER: 0}
    ways.finder.doubted(ways.now)
    ways.run(0.4)
    assert ways.went == [Leave(), Doubt(is_ours=True)]


def test_a_doubt_without_reason_changes_nothing() -> None:
    ways = two()
    ways.finder.doubted(ways.now)
    ways.run(4.0)
    assert ways.went == []


def test_the_peer_that_says_so_is_not_told() -> None:
    ways = two()
    ways.finder.silenced(ways.now, by_peer=True)
    ways.run(4.0)
    assert [type(step) for step in ways.went] == [Doubt, Use]
    assert ways.went[0] == Doubt(is_ours=False)


def test_addresses_that_only_answers_come_from_are_few() -> None:
    """An insider answers from as many as it likes, and its own path is one of them now and then."""
    ways = two()
    for number in range(400):
        ways.finder.observed(Endpoint(ip_address(f"10.9.{number % 250}.2"), 1000 + number), ways.now)
        if number % 50 == 0:
            ways.mtu[NATIVE] = 1500 - ways.mtu[NATIVE]
            ways.mtu.update(dict.fromkeys(ways.finder._trials.keys() - ways.mtu.keys(), 0))
            ways.run(3.0)
    assert len(ways.finder._trials) <= CANDIDATES_MOST + OBSERVED_MOST


def test_a_peer_has_few_probes_sent_where_it_says() -> None:
    """Offers come one after another, each with other addresses, or with the same."""
    ways = two()
    ways.sent.clear()
    for number in range(400):
        named = [Candidate(Kind.FIXED, Endpoint(ip_address("10.66.0.1"), 8 * number + port)) for port in range(1, 9)]
        ways.mtu.update((each.endpoint, 0) for each in named)
        ways.finder.offered(named, ways.now)
        ways.run(0.25)
    aimed = sum(endpoint.address == ip_address("10.66.0.1") for endpoint in ways.sent)
    assert aimed < 200


def test_what_one_peer_names_costs_no_other_its_turns() -> None:
    ways = two()
    other = two(ways.budget)
    for number in range(300):
        ways.finder.observed(Endpoint(ip_address(f"10.8.{number % 250}.2"), 1000 + number), ways.now)
        ways.mtu.update(dict.fromkeys(ways.finder._trials.keys() - ways.mtu.keys(), 0))
        ways.run(0.04)
    other.now = ways.now
    other.sent.clear()
    other.run(12.0)
    assert other.sent.count(other.taken[-1]) >= 4


def test_in_another_network_the_paths_of_all_peers_are_probed_first() -> None:
    """Their other addresses, and what fits, may take the budget's time."""
    budget = Budget()
    many = [Ways(*(Candidate(Kind.LAN, each) for each in (TUNNEL, NEARER, NATIVE)), budget=budget) for _ in range(50)]
    for ways in many:
        ways.round_trip_s = {TUNNEL: lambda: 0.06, NEARER: lambda: 0.06, NATIVE: lambda: 0.02}
        ways.mtu = dict.fromkeys(ways.round_trip_s, 1500)
    for _ in range(450):
        for ways in many:
            ways.run(0.1)
    assert {ways.taken[-1] for ways in many} == {NATIVE}
    for ways in many:
        ways.sent.clear()
        ways.finder.restart(ways.now)
    for ways in many:
        ways.run(STEP_S)
    assert [ways.sent for ways in many] == [[NATIVE]] * 50
    for _ in range(200):
        for ways in many:
            ways.run(0.1)
    assert all({TUNNEL, NEARER} <= set(ways.sent) for ways in many)


def test_behind_a_pause_a_path_is_one_that_answers_again() -> None:
    """NATs may have forgotten it meanwhile, or another machine has the address."""
    ways = two()
    ways.finder.rest()
    ways.now += 100.0
    ways.mtu = {NATIVE: 0, NEARER: 0}
    ways.run(5.0)
    assert ways.went == []
    ways.mtu = {NATIVE: 1500, NEARER: 1500}
    ways.run(4.0)
    assert ways.went == [Use(NATIVE, 1440)]


def test_what_a_peer_is_seen_to_answer_from_has_few_probes() -> None:
    """It names others' addresses as the source of what it sends."""
    ways = two()
    ways.sent.clear()
    for number in range(400):
        aimed = Endpoint(ip_address("10.66.0.1"), 1000 + number)
        ways.mtu[aimed] = 0
        ways.finder.observed(aimed, ways.now)
        ways.finder.observed(Endpoint(ip_address("10.66.0.1"), 1000), ways.now)
        ways.run(0.25)
    aimed_at = sum(endpoint.address == ip_address("10.66.0.1") for endpoint in ways.sent)
    assert aimed_at < 340


def test_a_path_for_which_too_little_fits_for_a_while_comes_back() -> None:
    ways = two()
    ways.mtu = {NATIVE: 1200, NEARER: 1200}
    ways.run(8.0)
    assert ways.finder.path is None
    ways.mtu = {NATIVE: 1500, NEARER: 1500}
    ways.run(12.0)
    assert ways.finder.path is not None


def test_a_wide_address_is_taken_beside_one_that_is_too_narrow() -> None:
    ways = Ways(Candidate(Kind.LAN, NATIVE), Candidate(Kind.REFLEXIVE, NEARER))
    ways.round_trip_s = {NATIVE: lambda: 0.02, NEARER: lambda: 0.06}
    ways.mtu = {NATIVE: 1200, NEARER: 1500}
    ways.run(12.0)
    assert ways.taken[-1:] == [NEARER]


def test_a_way_that_becomes_long_is_gone_by_on() -> None:
    """By a satellite, where a cable was before."""
    ways = two()
    ways.round_trip_s = {NATIVE: lambda: 0.6, NEARER: lambda: 0.7}
    ways.run(20.0)
    assert ways.finder.path is not None


def test_a_path_by_which_packets_come_is_not_dead() -> None:
    """Its probes are lost, in a queue that is full."""
    ways = two()
    ways.mtu = {NATIVE: 0, NEARER: 0}
    for _ in range(100):
        ways.heard_at = ways.now
        ways.run(0.1)
    assert not any(isinstance(step, Leave) for step in ways.went)
    ways.run(3.0)
    assert Leave() in ways.went


def test_a_path_that_becomes_narrower_under_a_stream_is_not_left() -> None:
    ways = two()
    ways.mtu = {NATIVE: 1400, NEARER: 0}
    ways.finder.doubted(ways.now)
    ways.run(3.0)
    assert [step.longest for step in ways.went if isinstance(step, Use)][-1] == MTU_LEAST - 60
    assert Leave() not in ways.went


def test_a_doubt_is_due_at_once() -> None:
    ways = two()
    ways.finder.doubted(ways.now)
    assert ways.finder.deadline <= ways.now


def test_a_way_that_was_held_off_in_another_network_is_not_in_this_one() -> None:
    ways = two()
    ways.round_trip_s[NATIVE] = lambda: 0.3
    ways.run(10.0)
    assert ways.taken[-1] == NEARER
    ways.round_trip_s = {NATIVE: lambda: 0.02, NEARER: lambda: 0.3}
    ways.finder.restart(ways.now)
    ways.run(8.0)
    assert ways.taken[-1] == NATIVE


def test_an_address_that_is_out_of_reach_for_a_moment_is_probed_again() -> None:
    """From the cable to the air: the one route has gone, and the other is not there yet."""
    ways = Ways(Candidate(Kind.LAN, NATIVE))
    ways.round_trip_s = {NATIVE: lambda: 0.005}
    ways.mtu = {NATIVE: 1500}
    ways.run(2.0)
    assert ways.taken == [NATIVE]
    ways.unusable = {NATIVE}
    ways.finder.restart(ways.now)
    assert ways.probes_in(2.0) == 0
    assert ways.finder.path is None
    ways.unusable = set()
    ways.finder.restart(ways.now)
    ways.run(2.0)
    assert ways.finder.path is not None
    assert ways.finder.path.endpoint == NATIVE


def test_but_not_more_often_than_a_peer_may_name_addresses() -> None:
    ways = Ways(Candidate(Kind.LAN, NATIVE))
    ways.mtu = {NATIVE: 0}
    probed = 0
    for number in range(4 * FRESH_MOST):
        ways.unusable = {NATIVE} if number % 2 else set()
        ways.finder.restart(ways.now)
        probed += bool(ways.probes_in(STEP_S))
    assert probed == FRESH_MOST


def test_what_a_peer_without_links_has_offered_is_nothing() -> None:
    ways = Ways(Candidate(Kind.LAN, NATIVE))
    ways.finder.forget()
    ways.finder.restart(ways.now)
    assert ways.probes_in(2.0) == 0
