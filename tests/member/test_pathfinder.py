"""candy.member.pathfinder: which of several addresses that answer is the path. NATs and loss are in test_links.py."""

from collections.abc import Callable
from ipaddress import ip_address
from itertools import count

from candy.member.budget import Budget
from candy.member.pathfinder import Doubt, Leave, Pathfinder, Probe, Step, Use
from candy.member.trial import SELDOM_S, Trial
from candy.protocol.linking import HEADERS, ID_BYTES, OVERHEAD, Answer, Candidate, Endpoint, Kind

NATIVE, TUNNEL, NEARER = (Endpoint(ip_address(f"10.0.{net}.2"), 26900) for net in range(3))
STEP_S = 0.02


class Ways:
    """A peer that answers behind a round trip of each address's own, `round_trip_s`, what fits there, `mtu`."""

    def __init__(self, *candidates: Candidate) -> None:
        self.now = 1000.0
        numbers = count()
        self.finder = Pathfinder(Budget(), lambda _: True, lambda size: next(numbers).to_bytes(size, "big"), self.now)
        self.round_trip_s: dict[Endpoint, Callable[[], float]] = {}
        self.mtu: dict[Endpoint, int] = {}
        self.taken: list[Endpoint] = []
        """Each path, in turn."""
        self.went: list[Step] = []
        """All steps but probes."""
        self._under_way: list[tuple[float, Endpoint, Answer]] = []
        self.finder.offered(candidates, self.now)

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

    def _send(self, sent: Probe) -> None:
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
    assert 1 < len(ways.taken) < 16


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


def two() -> Ways:
    ways = Ways(Candidate(Kind.LAN, NATIVE), Candidate(Kind.LAN, NEARER))
    ways.round_trip_s = {NATIVE: lambda: 0.02, NEARER: lambda: 0.06}
    ways.mtu = {NATIVE: 1500, NEARER: 1500}
    ways.run(8.0)
    assert ways.taken[-1] == NATIVE
    ways.went.clear()
    return ways


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
