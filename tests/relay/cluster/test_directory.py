"""Who is where: numbers, gaps, comparisons, and relays that begin anew."""

import random
from collections.abc import Callable

import pytest
from cluster_directory import Simulation

from candy.relay.cluster.directory import (
    AGAIN_S,
    CHANGES_MOST,
    JITTER_S,
    WAITING_MOST,
    Beat,
    Change,
    Directory,
    Place,
    Update,
    decode,
)
from candy.relay.cluster.records import FormatError

ONE, TWO, THREE = (("=2F", ip) for ip in (1, 2, 3))
HERE = Place(7, 1, 1300, b"l" * 8, 9, b"k" * 32)


def directory(name: str = "eu", epoch: int = 1, jitter: float = 0.5) -> Directory:
    return Directory(name, epoch, lambda: jitter)


def say(author: Directory) -> bytes:
    message = author.flush()
    assert message is not None
    assert author.flush() is None
    return message


def beat(author: Directory) -> bytes:
    message = author.beat()
    assert message is not None
    return message


def copy(author: Directory, reader: Directory, now: float = 0.0) -> list[Change]:
    """What one learns from all parts of another."""
    return [change for part in list(author.parts()) for change in reader.take(author.name, part, now)]


def test_literal_bytes() -> None:
    update = Update(2, 3, [(("=2F", 0x0A000001), HERE.packed()), (("=2Fx", 2), b"")])
    message = (
        b"\1\1" + b"\0" * 7 + b"\2" + b"\0" * 7 + b"\3" + b"\0\0\0\0" + b"\0\2\3=2F\4=2Fx" + b"\0\0\0\2"
        b"\0\0\x0a\0\0\1\x3b" + b"\0" * 7 + b"\7\1\x05\x14" + b"l" * 8 + b"\0" * 7 + b"\x09" + b"k" * 32
        + b"\0\1\0\0\0\2\0"
    )  # fmt: skip
    assert update.encode() == message
    assert decode(message) == update
    beat = Beat(1, 2, 3, 4)
    assert beat.encode() == b"\1\3" + bytes([0] * 7 + [1] + [0] * 7 + [2] + [0] * 3 + [3] + [0] * 7 + [4])
    assert decode(beat.encode()) == beat
    assert Place.unpacked(HERE.packed()) == HERE


def test_what_is_no_message() -> None:
    whole = Update(2, 3, [(ONE, HERE.packed()), (TWO, b"")], 0, 1).encode()
    for message in (
        *(whole[:size] for size in range(len(whole))),
        whole + b"\0",
        b"\2" + whole[1:],
        b"\1\7" + whole[2:],
    ):
        with pytest.raises(FormatError):
            decode(message)
    for length in (1, 26, 60, 255):
        with pytest.raises(FormatError):
            decode(Update(1, 1, [(ONE, b"x" * length)]).encode())
    with pytest.raises(FormatError):
        decode(Update(1, 1, [], 1, 1).encode())


def test_a_member_comes_and_leaves() -> None:
    eu, us = directory(), directory("us")
    eu.set(ONE, HERE)
    assert us.take("eu", say(eu), 0) == [Change(ONE, "eu", True)]
    assert us.find(ONE) == us.elsewhere(ONE) == ("eu", HERE)
    assert (eu.find(ONE), eu.elsewhere(ONE)) == (("eu", HERE), None)
    assert us.counts() == {"eu": 1}
    eu.set(ONE, None)
    assert us.take("eu", say(eu), 0) == [Change(ONE, "eu", False)]
    assert us.find(ONE) is None
    assert us.due(100) == []


def test_what_changes_nothing_is_not_said() -> None:
    eu = directory()
    eu.set(ONE, None)
    assert not eu.has_news
    eu.set(ONE, HERE)
    say(eu)
    eu.set(ONE, HERE)
    assert eu.flush() is None


def test_its_own_words_are_not_taken() -> None:
    eu = directory()
    eu.set(ONE, HERE)
    assert eu.take("eu", say(eu), 0) == []
    assert eu.counts() == {}


def test_many_changes_are_several_updates() -> None:
    eu, us = directory(), directory("us")
    for ip in range(1, CHANGES_MOST + 2):
        eu.set(("=2F", ip), HERE)
    assert eu.beat() is None
    messages = [eu.flush(), eu.flush()]
    assert eu.flush() is None
    for message in messages:
        assert message is not None
        us.take("eu", message, 0)
    assert us.counts() == {"eu": CHANGES_MOST + 1}


def test_one_that_comes_later_asks() -> None:
    eu, us = directory(), directory("us")
    for key in (ONE, TWO):
        eu.set(key, HERE)
        say(eu)
    assert us.take("eu", beat(eu), 10) == []
    assert us.missing == ["eu"]
    wait = 0.5 * JITTER_S
    assert us.next_due == 10 + wait
    assert us.due(10 + wait - 0.01) == []
    assert us.due(10 + wait) == ["eu"]
    # Until it answers, not at once again.
    assert us.due(10 + wait + AGAIN_S - 0.01) == []
    assert us.due(10 + wait + AGAIN_S + wait) == ["eu"]
    assert set(copy(eu, us)) == {Change(ONE, "eu", True), Change(TWO, "eu", True)}
    assert us.missing == []
    assert us.next_due is None
    us.take("eu", beat(eu), 11)
    assert us.missing == []


def test_a_gap() -> None:
    eu, us = directory(), directory("us")
    messages = []
    for key in (ONE, TWO, THREE):
        eu.set(key, HERE)
        messages.append(say(eu))
    us.take("eu", messages[0], 0)
    # Behind the gap it waits, and is there once that is filled.
    assert us.take("eu", messages[2], 0) == []
    assert us.missing == ["eu"]
    eu.set(ONE, None)
    assert us.take("eu", say(eu), 0) == []
    assert copy(eu, us) == [Change(ONE, "eu", False), Change(TWO, "eu", True), Change(THREE, "eu", True)]
    assert us.missing == []
    eu.set(ONE, HERE)
    assert us.take("eu", say(eu), 0) == [Change(ONE, "eu", True)]
    # What is older is nothing.
    assert us.take("eu", messages[1], 0) == []
    assert us.fingerprint() == eu.fingerprint()


def test_updates_that_came_between_the_parts() -> None:
    eu, us = directory(), directory("us")
    for ip in range(1, CHANGES_MOST + 6):
        eu.set(("=2F", ip), HERE)
    while eu.flush() is not None:
        pass
    us.take("eu", beat(eu), 0)
    first, second = list(eu.parts())
    assert us.take("eu", second, 0) == []
    eu.set(ONE, None)
    assert us.take("eu", say(eu), 0) == []
    changes = us.take("eu", first, 0)
    assert len(changes) == CHANGES_MOST + 6
    assert changes[-1] == Change(ONE, "eu", False)
    assert us.fingerprint() == eu.fingerprint()


def test_parts_of_two_answers_are_not_one() -> None:
    eu, us = directory(), directory("us")
    for ip in range(1, CHANGES_MOST + 6):
        eu.set(("=2F", ip), HERE)
    while eu.flush() is not None:
        pass
    us.take("eu", beat(eu), 0)
    older = list(eu.parts())
    eu.set(ONE, None)
    say(eu)
    newer = list(eu.parts())
    for part in (older[0], newer[1]):
        assert us.take("eu", part, 0) == []
    assert us.missing == ["eu"]
    us.take("eu", newer[0], 0)
    assert us.fingerprint() == eu.fingerprint()


def test_parts_that_nobody_asked_for() -> None:
    eu, us = directory(), directory("us")
    eu.set(ONE, HERE)
    us.take("eu", say(eu), 0)
    eu.set(ONE, None)
    say(eu)
    assert copy(eu, us) == []
    assert us.find(ONE) is not None


def test_too_much_waits() -> None:
    eu, us = directory(), directory("us")
    say_all = []
    for number in range(WAITING_MOST + 3):
        eu.set(ONE, HERE if number % 2 == 0 else None)
        say_all.append(say(eu))
    early = list(eu.parts())
    for message in say_all[1:]:
        us.take("eu", message, 0)
    for part in early:
        us.take("eu", part, 0)
    assert us.fingerprint() == eu.fingerprint()


def test_a_beat_finds_what_numbers_do_not() -> None:
    """The same number, and another content."""
    eu, us = directory(), directory("us")
    eu.set(ONE, HERE)
    us.take("eu", say(eu), 0)
    read = decode(beat(eu))
    assert isinstance(read, Beat)
    us.take("eu", read._replace(digest=read.digest ^ 1).encode(), 0)
    assert us.missing == ["eu"]


def test_a_relay_that_begins_anew() -> None:
    us, before, eu = directory("us"), directory(epoch=1), directory(epoch=2)
    before.set(ONE, HERE)
    stale = say(before)
    us.take("eu", stale, 0)
    eu.set(TWO, HERE)
    assert us.take("eu", say(eu), 0) == [Change(ONE, "eu", False), Change(TWO, "eu", True)]
    # What was on its way from its former life.
    assert us.take("eu", stale, 0) == []
    assert us.take("eu", beat(before), 0) == []
    assert us.missing == []


def test_a_relay_that_is_gone_and_heard_again() -> None:
    eu, us = directory(), directory("us")
    eu.set(ONE, HERE)
    us.take("eu", say(eu), 0)
    assert us.gone("eu") == [Change(ONE, "eu", False)]
    assert us.gone("ap") == []
    assert us.missing == []
    us.take("eu", beat(eu), 0)
    assert us.due(JITTER_S) == ["eu"]
    assert copy(eu, us) == [Change(ONE, "eu", True)]


def test_the_higher_generation_counts_and_all_see_the_same() -> None:
    eu, us, ap = directory(), directory("us"), directory("ap")
    for relay, generation in ((eu, 5), (us, 6)):
        relay.set(ONE, HERE._replace(generation=generation))
    said = {relay.name: say(relay) for relay in (eu, us)}
    for reader in (eu, us, ap):
        for name, message in said.items():
            reader.take(name, message, 0)
        found = reader.find(ONE)
        assert found is not None
        assert found[0] == "us"
    assert eu.elsewhere(ONE) is not None
    assert us.elsewhere(ONE) is None
    assert [key for key, _ in ap.of("us")] == [ONE]
    assert list(ap.of("nobody")) == []


@pytest.mark.parametrize("seed", range(20))
def test_against_a_dict(seed: int) -> None:
    """Messages get lost: what beats bring about is what the author has."""
    draw = random.Random(seed)
    eu, us = Directory("eu", 1, draw.random), Directory("us", 1, draw.random)
    model: dict[int, int] = {}
    told: dict[int, bool] = {}
    for step in range(400):
        ip = 1 + draw.randrange(12)
        if draw.random() < 0.4:
            model.pop(ip, None)
            eu.set(("=2F", ip), None)
        else:
            model[ip] = step
            eu.set(("=2F", ip), HERE._replace(generation=step))
        changes: list[Change] = []
        if draw.random() < 0.5 and (message := eu.flush()) is not None and draw.random() < 0.8:
            changes += us.take("eu", message, step)
        if draw.random() < 0.2 and (message := eu.beat()) is not None:
            changes += us.take("eu", message, step)
        for _ in us.due(step):
            while (message := eu.flush()) is not None:
                changes += us.take("eu", message, step)
            if draw.random() < 0.7:
                changes += copy(eu, us, step)
        told |= {change.key[1]: change.is_there for change in changes}
    for step in range(400, 500):
        while (message := eu.flush()) is not None:
            told |= {change.key[1]: change.is_there for change in us.take("eu", message, step)}
        us.take("eu", beat(eu), step)
        if us.due(step):
            told |= {change.key[1]: change.is_there for change in copy(eu, us, step)}
    assert {key[1]: place.generation for key, place in us.of("eu")} == model
    assert {ip for ip, is_there in told.items() if is_there} == model.keys()


@pytest.mark.parametrize("has_links", [False, True])
def test_a_cluster_by_simulation(has_links: bool) -> None:
    """The short form of bench/cluster_directory.py."""
    world = Simulation(4, 400, 0, seed=3)
    world.fill()
    world.run(30, world.is_of_one_mind)
    assert world.is_of_one_mind()
    world.rate = 200
    world.run(3)
    assert world.snapshots == 0
    world.cut(world.relays[3:], links=has_links)
    world.run(6)
    assert not world.is_of_one_mind()
    world.heal()
    world.rate = 0
    healed: Callable[[], bool] = world.is_of_one_mind
    # A beat, the jitter, and the answer.
    assert world.run(30, healed) < 1 + JITTER_S + 1
    assert healed()


@pytest.mark.parametrize("address", [0, 0xE0000000, 0xEFFFFFFF, 0xFFFFFFFF])
def test_an_address_that_no_member_can_have(address: int) -> None:
    """The engine would refuse it, or send a group's packets to that relay. Nothing of such a message is taken."""
    reader = directory("us")
    for place in (HERE.packed(), b""):
        message = Update(1, 1, [(ONE, HERE.packed()), (("=2F", address), place)]).encode()
        with pytest.raises(FormatError, match=r"has a member at (0|2\d\d)[.\d]+, where none can be"):
            reader.take("eu", message, 0.0)
    assert reader.elsewhere(ONE) is None
    assert reader.take("eu", Update(1, 1, [(("=2F", 0xDFFFFFFF), HERE.packed())]).encode(), 0.0) != []
