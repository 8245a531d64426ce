"""Which sub-queue a packet waits in: flows are kept apart, and nobody without the key knows which of them meet."""

import random
import subprocess
import sys

import pytest
from kit.codel import KEY, MS, payload_of
from kit.peer import FORWARD
from kit.superpacket import A, B, ip_header

from candy._fastpath import Backlog, Engine, flow_key

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

SETS, WAYS = 32, 8
PING = FORWARD + ip_header(8, 1, A, B) + bytes(8)
Key = tuple[int, int, int]


def packet(flow: int, size: int = 100) -> bytes:
    return payload_of(flow, 0, size, 0)


def set_of(flow: int, key: Key = KEY) -> int:
    """The set of places that a flow hashes to."""
    backlog = Backlog(key=key)
    backlog.append(packet(flow), MS)
    [place] = backlog.places
    return place // WAYS


def keys(number: int) -> list[Key]:
    """The same in each run."""
    draw = random.Random(0).getrandbits
    return [(draw(64), draw(64), draw(64)) for _ in range(number)]


def test_each_engine_draws_a_key_of_its_own() -> None:
    program = "from candy._fastpath import Engine, flow_key; print(*flow_key(Engine()))"
    elsewhere = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    drawn = [flow_key(Engine()), flow_key(Engine()), tuple(map(int, elsewhere.stdout.split()))]
    assert len({word for key in drawn for word in key}) == 9


@pytest.mark.parametrize("word", [0, 1, 2])
def test_every_word_of_the_key_decides_where_flows_meet(word: int) -> None:
    other = list(KEY)
    other[word] ^= 1 << 40 | 1
    moved = sum(set_of(flow) != set_of(flow, (other[0], other[1], other[2])) for flow in range(200))
    # Of a hundred one in 32 is to be expected where it was.
    assert moved > 170


@pytest.mark.parametrize("masked", [False, True])
def test_sixteen_flows_and_a_ping_have_a_sub_queue_each(masked: bool) -> None:
    """With 200 keys, as with any: more than eight of 17 in one set are one in millions."""
    for key in keys(200):
        backlog = Backlog(key=key, masked=masked)
        for flow in range(16):
            backlog.append(packet(40_000 + flow), MS)
            backlog.append(packet(40_000 + flow), MS)
        backlog.append(PING, MS)
        assert len(backlog.places) == 17


def test_flows_share_only_where_a_set_is_full() -> None:
    backlog = Backlog(key=KEY)
    members: dict[int, int] = {}
    for flow in range(300):
        members[set_of(flow)] = members.get(set_of(flow), 0) + 1
        backlog.append(packet(flow), MS)
    found = dict.fromkeys(members, 0)
    for place in backlog.places:
        found[place // WAYS] += 1
    assert found == {one: min(number, WAYS) for one, number in members.items()}
    assert max(members.values()) > WAYS
    assert len(members) == SETS


@pytest.mark.parametrize("n", [8, 9, 11])
def test_flows_that_share_stay_in_order_when_a_place_gets_free(n: int) -> None:
    """One more than a set has ways: when the first of them is done, its place is not for those who share another's."""
    found = [flow for flow in range(1000) if set_of(flow) == 0]
    last = found[n]
    backlog = Backlog(key=KEY)
    backlog.append(packet(found[0]), MS)
    for flow in (*found[1:WAYS], last):
        for number in range(40):
            backlog.append(payload_of(flow, number, 100, 0), MS)
    assert backlog.take(MS) == packet(found[0])
    assert backlog.take(MS) is not None  # and the round finds the first one's place empty
    assert len(backlog.places) == WAYS - 1
    backlog.append(payload_of(last, 40, 100, 0), MS)
    left = list(iter(lambda: backlog.take(MS), None))
    # All that is left of it, and that in order.
    of_last = [payload for payload in left if payload[21:23] == last.to_bytes(2, "big")]
    assert of_last == [payload_of(last, number, 100, 0) for number in range(41 - len(of_last), 41)]
    assert len(of_last) > 10


def test_a_sub_queue_that_was_shared_is_for_one_flow_again() -> None:
    """Once it is empty, also where it stays for what CoDel knows of it."""
    found = [flow for flow in range(1000) if set_of(flow) == 0][: WAYS + 1]
    backlog = Backlog(key=KEY)
    places: dict[int, int] = {}
    for flow in found:
        before = backlog.places
        backlog.append(packet(flow), MS)
        [places[flow]] = [place for place, size in backlog.places.items() if size != before.get(place)]
    sharer = found[-1]
    [owner] = [flow for flow in found[:-1] if places[flow] == places[sharer]]
    for _ in range(100):
        backlog.append(packet(owner), MS)
    now = 200 * MS
    while backlog.take(now) is not None:
        now += 10 * MS
    assert backlog.drops["delay"] > 0
    backlog.append(packet(sharer), now)
    backlog.append(packet(owner), now)
    assert len(backlog.places) == 2


def test_those_that_share_are_spread_over_the_set() -> None:
    backlog = Backlog(key=KEY)
    for flow in range(10_000):
        backlog.append(packet(flow), MS)
    assert len(backlog.places) == SETS * WAYS
    average = sum(backlog.places.values()) / (SETS * WAYS)
    assert max(backlog.places.values()) < 2 * average


def test_a_flow_keeps_its_sub_queue_while_others_come_and_go() -> None:
    first, second = [flow for flow in range(1000) if set_of(flow) == 0][:2]
    backlog = Backlog(key=KEY)
    backlog.append(packet(first), MS)
    backlog.append(packet(second), MS)
    backlog.append(packet(second, 200), MS)
    place_of_first, place_of_second = sorted(backlog.places)
    # The first leaves, and its place is free again when the round finds it empty.
    assert backlog.take(MS) == packet(first)
    assert backlog.take(MS) == packet(second)
    backlog.append(packet(second, 300), MS)
    assert list(backlog.places) == [place_of_second]
    backlog.append(packet(first), MS)
    assert sorted(backlog.places) == [place_of_first, place_of_second]
