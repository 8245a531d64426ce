"""Which relays are there: only who is missed while NATS works, and without a link, is gone."""

from candy.relay.cluster.presence import BEAT_S, GONE_S, MISSED, Presence


def beats(presence: Presence, begin: float, count: int) -> float:
    """So many of this relay's own come back; when the last did."""
    for number in range(count):
        presence.echoed(begin + number * BEAT_S)
    return begin + (count - 1) * BEAT_S


def test_one_that_is_missed() -> None:
    presence = Presence()
    assert presence.heard("us", 100)
    assert not presence.heard("us", 100.5)
    assert presence.there == ["us"]
    last = beats(presence, 101, MISSED)
    assert presence.gone(last) == []
    assert presence.gone(100.5 + GONE_S) == ["us"]
    assert presence.there == []
    assert presence.gone(200) == []
    assert presence.heard("us", 201)


def test_many_beats_within_no_time() -> None:
    """As after this machine has slept."""
    presence = Presence()
    presence.heard("us", 100)
    for _ in range(10):
        presence.echoed(100.1)
    assert presence.gone(100.2) == []


def test_while_nats_does_not_work_nobody_is_missed() -> None:
    presence = Presence()
    presence.heard("us", 100)
    presence.echoed(100.5)
    assert presence.works(100.6)
    assert not presence.works(101 + MISSED * BEAT_S)
    assert presence.gone(10_000) == []
    # It works again, and the other is heard in time.
    presence.echoed(10_001)
    presence.heard("us", 10_001.5)
    assert presence.gone(10_002) == []


def test_one_that_is_linked_is_there() -> None:
    presence = Presence()
    presence.heard("us", 100)
    presence.linked("us", True)
    presence.linked("nobody", True)
    last = beats(presence, 101, 10)
    assert presence.gone(last) == []
    presence.linked("us", False)
    assert presence.gone(last) == ["us"]


def test_at_first_nothing_is_known_to_work() -> None:
    assert not Presence().works(0)
