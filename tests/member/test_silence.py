"""When a relay that says nothing is asked, and when it is in doubt."""

import pytest

from candy.member.silence import ASK_S, DOUBT_S, SOON_S, SPREAD_S, Look, Silence


def looks(silence: Silence, until: float) -> list[tuple[float, Look]]:
    """Each that asks or doubts, in a silence of so many seconds, looked at when it says."""
    found: list[tuple[float, Look]] = []
    silent = 0.0
    while silent <= until:
        if (look := silence.look(silent)) is not Look.NOTHING:
            found.append((round(silent, 6), look))
        assert silence.delay >= SOON_S
        silent += silence.delay
    return found


@pytest.mark.parametrize("drawn", [0.0, 0.5])
def test_asked_and_then_in_doubt_once(drawn: float) -> None:
    doubt = DOUBT_S + drawn * SPREAD_S
    found = looks(Silence(lambda: drawn), 4 * ASK_S)
    assert found[:2] == [(ASK_S, Look.ASK), (doubt, Look.DOUBT)]
    assert [look for _, look in found].count(Look.DOUBT) == 1
    # It goes on being asked: it may come back.
    assert sum(look is Look.ASK for _, look in found) >= 3


def test_who_is_heard_is_asked_no_more() -> None:
    silence = Silence(lambda: 0.0)
    assert silence.look(ASK_S) is Look.ASK
    assert silence.look(0.5) is Look.NOTHING
    assert silence.delay == ASK_S - 0.5
    assert silence.look(ASK_S) is Look.ASK
    assert silence.look(DOUBT_S) is Look.DOUBT
    assert silence.look(0.0) is Look.NOTHING
    assert silence.look(DOUBT_S) is Look.DOUBT


def test_within_what_the_issue_allows() -> None:
    """A kernel before 6.5 may take 4 s more, and a log-in one."""
    assert DOUBT_S + SPREAD_S + 5.0 < 15.0
