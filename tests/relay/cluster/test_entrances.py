"""By which URLs members are told to reach the relays of a cluster."""

import pytest

from candy.protocol.control import RELAYS_MAX, URL_MAX
from candy.relay.cluster.entrances import KEPT_S, Entrances

PUBLIC = {"ap": "wss://ap.test", "eu": "wss://eu.test", "us": "wss://us.test", "inner": ""}


def test_those_that_are_there_and_have_one() -> None:
    entrances = Entrances("eu")
    assert entrances.look(PUBLIC, ["us", "inner", "ap"], 0.0)
    # Its own comes first, so that not all members have the same order.
    assert entrances.urls == ("wss://eu.test", "wss://us.test", "wss://ap.test")
    assert not entrances.look(PUBLIC, ["us", "inner", "ap"], 1.0)
    assert entrances.look(PUBLIC | {"eu": "wss://new.test"}, ["us", "inner", "ap"], 2.0)
    assert "wss://eu.test" not in entrances.urls


def test_one_that_has_gone_is_told_of_a_while_longer() -> None:
    entrances = Entrances("eu")
    entrances.look(PUBLIC, ["us"], 0.0)
    assert not entrances.look(PUBLIC, [], KEPT_S - 0.1)
    assert entrances.look(PUBLIC, [], KEPT_S)
    assert entrances.urls == ("wss://eu.test",)
    assert entrances.look(PUBLIC, ["us"], KEPT_S + 1)


def test_no_more_than_members_take() -> None:
    names = [f"r{number:02}" for number in range(RELAYS_MAX + 5)]
    entrances = Entrances("r10")
    entrances.look({name: f"wss://{name}" for name in names}, names, 0.0)
    assert len(entrances.urls) == RELAYS_MAX
    assert entrances.urls[:12] == (*(f"wss://r{number}" for number in range(10, 21)), "wss://r00")


@pytest.mark.parametrize("url", ["wss://é.test", "wss://x.test/" + "y" * URL_MAX])
def test_what_no_member_would_take_is_not_told(url: str) -> None:
    entrances = Entrances("eu")
    entrances.look({"eu": url, "us": "wss://us.test/candy"}, ["us"], 0.0)
    assert entrances.below("/") == ["wss://us.test/candy"]
    assert entrances.below("/home") == ["wss://us.test/candy/home"]
