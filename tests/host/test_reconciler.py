"""When to look, what to put right, what is said of it, and when another program has its way."""

from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network
from math import inf

import pytest

from candy.host.reconciler import FIGHT_S, LATEST_S, PAUSE_S, SETTLE_S, TRIES, Fact, Part, Reconciler, Verdict
from candy.protocol.actions import Log

ADDRESS = Fact(Part.ADDRESS, IPv4Interface("192.168.202.7/24"))
MTU = Fact(Part.MTU, 1400)
UP = Fact(Part.STATE, "up")
ROUTES = [Fact(Part.ROUTE, IPv4Network(f"10.{number}.0.0/16")) for number in range(1, 10)]
EVERYTHING = {MTU, Fact(Part.QUEUE, 500), ADDRESS, UP, *ROUTES}


@pytest.fixture
def reconciler() -> Reconciler:
    return Reconciler("candy")


def lines(verdict: Verdict) -> list[tuple[str, str]]:
    return [(line.level, line.text) for line in verdict.lines]


def without(*missing: Fact) -> set[Fact]:
    """What is found."""
    return EVERYTHING - set(missing)


# When to look


def test_nothing_changes(reconciler: Reconciler) -> None:
    assert reconciler.deadline == inf


def test_a_look_comes_once_all_is_quiet(reconciler: Reconciler) -> None:
    reconciler.notified(10.0)
    assert reconciler.deadline == 10.0 + SETTLE_S
    reconciler.notified(10.1)
    assert reconciler.deadline == 10.1 + SETTLE_S


def test_and_soon_where_it_is_never_quiet(reconciler: Reconciler) -> None:
    for tenth in range(50):
        reconciler.notified(10.0 + tenth / 10)
    assert reconciler.deadline == 10.0 + LATEST_S


def test_what_changes_during_a_look_is_for_the_next_one(reconciler: Reconciler) -> None:
    reconciler.notified(10.0)
    reconciler.begin(10.2)
    assert reconciler.deadline == inf
    reconciler.notified(10.3)
    reconciler.judge(EVERYTHING, EVERYTHING, 10.4)
    assert reconciler.deadline == 10.3 + SETTLE_S


def test_looks_without_notifications() -> None:
    reconciler = Reconciler("candy", 30.0)
    reconciler.notified(10.0)
    reconciler.begin(10.2)
    assert reconciler.deadline == 40.2
    reconciler.notified(20.0)
    assert reconciler.deadline == 20.0 + SETTLE_S


# What to put right


@pytest.mark.parametrize("others", [(), (Fact(Part.MTU, 1280), Fact(Part.ROUTE, IPv4Network("0.0.0.0/0")))])
def test_all_is_as_it_shall_be(reconciler: Reconciler, others: Iterable[Fact]) -> None:
    assert reconciler.judge(EVERYTHING, EVERYTHING | set(others), 10.0) == Verdict()


def test_what_is_missing_is_put_right_in_order_and_named_once(reconciler: Reconciler) -> None:
    found = without(ROUTES[0], UP, MTU, ADDRESS) | {Fact(Part.MTU, 1280), Fact(Part.STATE, "down")}
    verdict = reconciler.judge(EVERYTHING, found, 10.0)
    assert verdict.facts == (MTU, ADDRESS, UP, ROUTES[0])
    text = (
        "candy was changed from outside, setting it right: "
        "MTU 1400, address 192.168.202.7/24, state up, route to 10.1.0.0/16"
    )
    assert verdict.lines == (Log("warning", text),)


def test_a_line_names_no_more_than_a_few(reconciler: Reconciler) -> None:
    verdict = reconciler.judge(EVERYTHING, without(*ROUTES), 10.0)
    assert verdict.facts == tuple(ROUTES)
    named = ", ".join(f"route to 10.{number}.0.0/16" for number in range(1, 5))
    assert lines(verdict) == [("warning", f"candy was changed from outside, setting it right: {named} and 5 more")]


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (Fact(Part.QUEUE, 500), "queue length 500"),
        (Fact(Part.TABLE, "candy-masquerade"), "nftables table candy-masquerade"),
        (Fact(Part.FORWARDING, 1), "net.ipv4.ip_forward 1"),
    ],
)
def test_words(fact: Fact, words: str) -> None:
    assert str(fact) == words


# Fights


def fight(reconciler: Reconciler, start: float) -> float:
    """Have the MTU put right as often as it may be, a second apart; the time of the next loss."""
    for number in range(TRIES):
        verdict = reconciler.judge(EVERYTHING, without(MTU), start + number)
        assert verdict.facts == (MTU,)
        assert lines(verdict) == [("warning", "candy was changed from outside, setting it right: MTU 1400")]
    return start + TRIES


GIVEN_UP = "candy is changed from outside again and again, leaving it so for 60 s: MTU 1400"


def test_a_fight_is_given_up_for_a_while(reconciler: Reconciler) -> None:
    now = fight(reconciler, 10.0)
    verdict = reconciler.judge(EVERYTHING, without(MTU), now)
    assert verdict == Verdict((), (Log("warning", GIVEN_UP),))
    assert reconciler.deadline == now + PAUSE_S
    # Nothing more is said, and the pause does not grow.
    for later in (1.0, PAUSE_S / 2, PAUSE_S - 1):
        reconciler.begin(now + later)
        assert reconciler.judge(EVERYTHING, without(MTU), now + later) == Verdict()
        assert reconciler.deadline == now + PAUSE_S


def test_another_fact_is_put_right_meanwhile(reconciler: Reconciler) -> None:
    now = fight(reconciler, 10.0)
    verdict = reconciler.judge(EVERYTHING, without(MTU, ADDRESS), now)
    assert verdict.facts == (ADDRESS,)
    assert lines(verdict) == [
        ("warning", "candy was changed from outside, setting it right: address 192.168.202.7/24"),
        ("warning", GIVEN_UP),
    ]


def test_nothing_is_waited_for_once_the_fact_is_there(reconciler: Reconciler) -> None:
    now = fight(reconciler, 10.0)
    reconciler.judge(EVERYTHING, without(MTU), now)
    reconciler.begin(now + 1)
    assert reconciler.judge(EVERYTHING, EVERYTHING, now + 1) == Verdict()
    assert reconciler.deadline == inf


def test_after_the_pause_there_is_one_more_try_without_a_warning(reconciler: Reconciler) -> None:
    now = fight(reconciler, 10.0)
    reconciler.judge(EVERYTHING, without(MTU), now)
    now += PAUSE_S
    verdict = reconciler.judge(EVERYTHING, without(MTU), now)
    assert verdict.facts == (MTU,)
    assert lines(verdict) == [("debug", "candy was changed from outside again, setting it right: MTU 1400")]
    reconciler.begin(now + 1)
    assert reconciler.judge(EVERYTHING, without(MTU), now + 1) == Verdict()
    assert reconciler.deadline == now + 1 + PAUSE_S


def test_a_try_that_holds_ends_the_fight(reconciler: Reconciler) -> None:
    now = fight(reconciler, 10.0)
    reconciler.judge(EVERYTHING, without(MTU), now)
    now += PAUSE_S
    reconciler.judge(EVERYTHING, without(MTU), now)
    now = fight(reconciler, now + FIGHT_S)
    assert lines(reconciler.judge(EVERYTHING, without(MTU), now)) == [("warning", GIVEN_UP)]


def test_a_program_that_never_stops(reconciler: Reconciler) -> None:
    """Over an hour it costs a try a minute, and six warnings."""
    tries, warnings = 0, 0
    for second in range(3600):
        verdict = reconciler.judge(EVERYTHING, without(MTU), float(second))
        tries += len(verdict.facts)
        warnings += sum(line.level == "warning" for line in verdict.lines)
    assert tries == TRIES + 58
    assert warnings == TRIES + 1


def test_what_happens_now_and_then_is_no_fight(reconciler: Reconciler) -> None:
    for number in range(10):
        now = 10.0 + number * FIGHT_S
        assert reconciler.judge(EVERYTHING, without(MTU), now).facts == (MTU,)
