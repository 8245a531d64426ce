"""A backlog's memory, where many flows wait with little each: they wait together, and stay in order."""

import random

import pytest
from kit.codel import KEY, MS
from kit.peer import FORWARD
from kit.superpacket import ip_header

from candy._fastpath import Backlog

pytestmark = pytest.mark.engine

A, B = 0x0A000001, 0x0A000100
PLACES, WAYS = 256, 8
CROWD = PLACES
BESIDE = 4096


def packet(flow: int, number: int, size: int = 20) -> bytes:
    """A FORWARD with `size` bytes of IPv4; flows differ by their source, numbers by the identification."""
    return FORWARD + ip_header(size - 20, 50, A + flow, B, number=number) + bytes(size - 20)


def told(payload: bytes) -> tuple[int, int]:
    """Flow and number of a packet."""
    return int.from_bytes(payload[13:17], "big") - A, int.from_bytes(payload[5:7], "big")


def discovery(source: int) -> bytes:
    """The shortest that members tell each other."""
    return b"\x05" + (A + source).to_bytes(4, "big") + B.to_bytes(4, "big")


def within_bound(backlog: Backlog) -> bool:
    return backlog.memory <= 2 * sum(backlog.places.values()) + BESIDE


def set_of(payload: bytes) -> int:
    """The set of places that its flow hashes to."""
    backlog = Backlog(key=KEY)
    backlog.append(payload, MS)
    [place] = backlog.places
    return place // WAYS


def newcomers(backlog: Backlog, flows: range, size: int = 20) -> list[int]:
    """Append a packet of each flow; returns those that wait in the crowd."""
    found = []
    for flow in flows:
        before = backlog.places.get(CROWD, 0)
        backlog.append(packet(flow, 0, size), MS)
        if backlog.places.get(CROWD, 0) != before:
            found.append(flow)
    return found


def rest(backlog: Backlog, now: int = MS) -> list[bytes]:
    """All that wait, as they leave."""
    return list(iter(lambda: backlog.take(now), None))


@pytest.mark.parametrize("size", [20, 22, 40, 60, 83])
def test_flows_wait_together_only_where_they_do_not_pay(size: int) -> None:
    """Two dozen flows of whatever packets have a sub-queue each, and all have with 84 bytes."""
    backlog = Backlog(key=KEY)
    crowd = newcomers(backlog, range(150), size)
    assert within_bound(backlog)
    assert len(backlog.places) > 24
    assert crowd == [] or min(crowd) > 24
    assert (crowd == []) == (size == 83)
    assert sorted(told(payload) for payload in rest(backlog)) == [(flow, 0) for flow in range(150)]


def test_what_waits_beside_pays_too() -> None:
    backlog = Backlog(key=KEY)
    for number in range(10):
        backlog.append(packet(1000, number, 1400), MS)
    assert newcomers(backlog, range(100)) == []
    assert within_bound(backlog)


@pytest.mark.parametrize("leave", ["take", "shed"])
def test_flows_that_no_longer_pay_move_to_the_crowd(leave: str) -> None:
    """In order, when what paid for them has left."""
    backlog = Backlog(key=KEY)
    backlog.append(packet(1000, 0, 60_000), MS)
    for number in range(70):
        for flow in range(100):
            backlog.append(packet(flow, number), MS)
    assert CROWD not in backlog.places
    assert within_bound(backlog)
    if leave == "shed":
        backlog.shed(100 * 23 * 4)
        assert within_bound(backlog)
    left: dict[int, int] = {}
    crowded = False
    while (payload := backlog.take(MS)) is not None:
        flow, number = told(payload)
        assert number > left.get(flow, -1)
        left[flow] = number
        assert within_bound(backlog)
        crowded |= CROWD in backlog.places
    assert crowded
    assert {flow: number for flow, number in left.items() if flow < 100} == dict.fromkeys(range(100), 69)


def test_who_has_packets_in_the_crowd_waits_there() -> None:
    """Also when others have come to pay for a sub-queue."""
    backlog = Backlog(key=KEY)
    crowd = newcomers(backlog, range(100))
    backlog.append(packet(1000, 0, 60_000), MS)
    before = backlog.places[CROWD]
    for flow in crowd:
        backlog.append(packet(flow, 1), MS)
    assert backlog.places[CROWD] == 2 * before
    assert newcomers(backlog, range(2000, 2020)) != list(range(2000, 2020))
    seen = [told(payload) for payload in rest(backlog)]
    assert all(seen.index((flow, 0)) < seen.index((flow, 1)) for flow in crowd)


def test_who_waits_is_known_until_its_own_packets_have_left() -> None:
    backlog = Backlog(key=KEY)
    crowd = newcomers(backlog, range(100))
    left = 0
    while left < 3:
        payload = backlog.take(MS)
        assert payload is not None
        left += told(payload)[0] in crowd
    before = backlog.places[CROWD]
    backlog.append(packet(crowd[-1], 1), MS)
    assert backlog.places[CROWD] == before + 23


def test_who_has_none_there_any_more_has_a_place_again() -> None:
    """Though the crowd always holds somebody's."""
    backlog = Backlog(key=KEY)
    crowd = newcomers(backlog, range(100))
    stays = crowd[0]
    left: set[int] = set()
    number = 0
    while not left.issuperset(crowd):
        number += 1
        backlog.append(packet(stays, number), MS)
        payload = backlog.take(MS)
        assert payload is not None
        left.add(told(payload)[0])
    for _ in range(100):
        number += 1
        backlog.append(packet(stays, number), MS)
        assert backlog.take(MS) is not None
    assert backlog.places.keys() == {CROWD}
    assert newcomers(backlog, range(crowd[1], crowd[1] + 10)) == []


def test_an_empty_crowd_keeps_nobody() -> None:
    backlog = Backlog(key=KEY)
    crowd = newcomers(backlog, range(100))
    rest(backlog)
    assert newcomers(backlog, range(crowd[0], crowd[0] + 20)) == []


def test_room_for_control_frames_grows_within_the_bound() -> None:
    """Looked at behind each frame, so also where the room has just grown."""
    backlog = Backlog(key=KEY)
    message = b"\x06" + bytes(99)
    frame = 2 + len(message)
    for number in range(1, 600):
        backlog.append(message, MS)
        assert backlog.memory <= 2 * number * frame + BESIDE


def test_the_crowd_pays_where_it_is_the_fattest() -> None:
    backlog = Backlog(key=KEY)
    crowd = newcomers(backlog, range(100))
    backlog.shed(sum(backlog.places.values()) - 3 * 23)
    assert {told(payload)[0] for payload in rest(backlog)} == set(range(100)) - set(crowd[:3])


@pytest.mark.parametrize("senders", [1, 1000])
def test_messages_of_a_few_bytes_wait_only_where_that_is_paid_for(senders: int) -> None:
    """A record takes more than twice their bytes."""
    backlog = Backlog(key=KEY)
    for number in range(2000):
        backlog.append(discovery(number % senders), MS)
        assert within_bound(backlog)
    assert backlog.drops["queue_full"] == 2000 - len(rest(backlog)) > 1800
    backlog = Backlog(key=KEY)
    for number in range(40):
        backlog.append(packet(0, number, 1400), MS)
    for number in range(2000):
        backlog.append(discovery(number % senders), MS)
    assert within_bound(backlog)
    assert backlog.drops == {}


@pytest.mark.parametrize("senders", [1, 1000])
def test_messages_whose_payer_is_gone_are_dropped(senders: int) -> None:
    """What pays for them is sent first here, or dropped."""
    backlog = Backlog(key=KEY)
    backlog.append(packet(2000, 0, 60_000), MS)
    for number in range(4000):
        backlog.append(discovery(number % senders), MS)
    assert backlog.drops == {}
    backlog.shed(50_000)
    assert within_bound(backlog)
    left = rest(backlog)
    assert backlog.drops == {"queue_full": 4001 - len(left)}


def test_messages_that_share_with_a_packet_are_dropped_with_it() -> None:
    """Their set is full of packets, and one of those is ahead of them."""
    flows = [flow for flow in range(1000) if set_of(packet(flow, 0)) == 0][:WAYS]
    sender = next(source for source in range(1000) if set_of(discovery(source)) == 0)
    backlog = Backlog(key=KEY)
    backlog.append(packet(next(flow for flow in range(1000) if set_of(packet(flow, 0)) != 0), 0, 60_000), MS)
    for flow in flows:
        backlog.append(packet(flow, 0), MS)
    for _ in range(2000):
        backlog.append(discovery(sender), MS)
    assert len(backlog.places) == 1 + WAYS
    assert backlog.drops == {}
    backlog.shed(50_000)
    assert within_bound(backlog)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_comes_and_goes(seed: int) -> None:
    """No more memory than the bound, all flows in order, and each packet leaves or is counted."""
    draw = random.Random(seed)
    backlog = Backlog(key=KEY, masked=seed % 2 == 1)
    flows = draw.choice([5, 60, 120])
    sizes = draw.choice([[20], [20, 40], [40, 1400], [20, 60, 83, 1500], [20, 20, 20, 9000]])
    sent: dict[int, int] = {}
    left: dict[int, int] = {}
    now = MS
    taken = 0
    for _ in range(3000):
        now += draw.randrange(200_000)
        what = draw.random()
        if what < draw.choice([0.3, 0.8]):
            flow = draw.randrange(flows)
            sent[flow] = sent.get(flow, -1) + 1
            backlog.append(packet(flow, sent[flow], draw.choice(sizes)), now)
            gone = []
        elif what < 0.95:
            payload = backlog.take(now)
            gone = [] if payload is None else [payload]
        elif what < 0.99:
            gone = backlog.commit(now)
        else:
            backlog.shed(draw.randrange(30_000))
            gone = []
        for payload in gone:
            flow, number = told(payload)
            assert number > left.get(flow, -1)
            left[flow] = number
        taken += len(gone)
        assert within_bound(backlog)
    came = sum(number + 1 for number in sent.values())
    taken += len(rest(backlog, now))
    assert taken + sum(backlog.drops.values()) == came
