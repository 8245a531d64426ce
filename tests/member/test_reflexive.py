"""What STUN servers say of this member's addresses, and what it makes of answers, outages and lies."""

from ipaddress import ip_address
from itertools import count

import pytest

from candy.errors import WireError
from candy.member.reflexive import AGAIN_S, FRESH_S, Reflexive
from candy.protocol.linking import Endpoint


def endpoint(text: str) -> Endpoint:
    host, port = text.rsplit(":", 1)
    return Endpoint(ip_address(host), int(port))


SERVER, OTHER = endpoint("198.51.100.1:26816"), endpoint("198.51.100.1:26817")
SEEN, MOVED = endpoint("203.0.113.5:4001"), endpoint("203.0.113.5:4002")


def attribute(kind: bytes, value: Endpoint) -> bytes:
    packed = value.address.packed
    family = b"\0\1" if len(packed) == 4 else b"\0\2"
    return kind + (4 + len(packed)).to_bytes(2, "big") + family + value.port.to_bytes(2, "big") + packed


def answer(id: bytes, mapped: Endpoint, other: Endpoint | None = None) -> bytes:
    body = attribute(b"\0\1", mapped)
    if other is not None:
        body += attribute(b"\x80\x2c", other)
    return b"\1\1" + len(body).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + id + body


def asking(*servers: Endpoint) -> Reflexive:
    numbers = count()
    reflexive = Reflexive(lambda n: next(numbers).to_bytes(n, "big"))
    reflexive.use(servers or (SERVER,))
    reflexive.ask(0.0)
    return reflexive


def sent(reflexive: Reflexive, now: float) -> list[Endpoint]:
    return [request.endpoint for request in reflexive.tick(now)]


@pytest.mark.parametrize(("second", "is_symmetric"), [(SEEN, False), (MOVED, True)])
@pytest.mark.parametrize("other", ["198.51.100.1:26817", "0.0.0.0:26817"])
def test_a_second_address_tells_a_symmetric_nat(second: Endpoint, is_symmetric: bool, other: str) -> None:
    reflexive = asking()
    assert sent(reflexive, 0.0) == [SERVER]
    [id] = reflexive.ids
    assert reflexive.answered(SERVER, answer(id, SEEN, endpoint(other)), 0.1)
    assert sent(reflexive, 0.1) == [OTHER]
    [id] = reflexive.ids
    assert reflexive.answered(OTHER, answer(id, second), 0.2) == is_symmetric
    assert (reflexive.seen, reflexive.is_symmetric, reflexive.ids) == ({4: SEEN}, is_symmetric, [])


def test_an_outage_is_said_and_ends() -> None:
    reflexive = asking()
    times, now = 0, 0.0
    while reflexive.deadline < float("inf"):
        now = reflexive.deadline
        times += len(sent(reflexive, now))
    assert (times, now, reflexive.is_mute) == (len(AGAIN_S), sum(AGAIN_S), True)
    reflexive.ask(now)
    assert reflexive.ids == []
    reflexive.ask(FRESH_S)
    sent(reflexive, FRESH_S)
    assert reflexive.answered(SERVER, answer(reflexive.ids[0], SEEN), FRESH_S)
    assert (reflexive.is_mute, reflexive.seen) == (False, {4: SEEN})


def test_one_server_of_two_is_enough() -> None:
    second = endpoint("198.51.100.2:3478")
    reflexive = asking(SERVER, second)
    assert sent(reflexive, 0.0) == [SERVER, second]
    assert reflexive.answered(second, answer(reflexive.ids[1], SEEN), 0.1)
    for at in (0.5, 1.5, 3.5, 5.0):
        sent(reflexive, at)
    assert (reflexive.ids, reflexive.is_mute) == ([], False)


def test_with_a_change_it_asks_at_once() -> None:
    reflexive = asking()
    sent(reflexive, 0.0)
    reflexive.answered(SERVER, answer(reflexive.ids[0], SEEN), 0.1)
    reflexive.ask(1.0)
    assert reflexive.ids == []
    reflexive.ask(1.0, is_changed=True)
    assert sent(reflexive, 1.0) == [SERVER]
    assert reflexive.answered(SERVER, answer(reflexive.ids[0], MOVED), 1.1)
    assert reflexive.seen == {4: MOVED}


def test_another_nat_is_not_judged_by_the_last_one() -> None:
    """The second port of the server is silent there."""
    reflexive = asking()
    sent(reflexive, 0.0)
    reflexive.answered(SERVER, answer(reflexive.ids[0], SEEN, OTHER), 0.1)
    sent(reflexive, 0.1)
    reflexive.answered(OTHER, answer(reflexive.ids[0], MOVED), 0.2)
    assert reflexive.is_symmetric
    reflexive.ask(10.0, is_changed=True)
    sent(reflexive, 10.0)
    assert reflexive.answered(SERVER, answer(reflexive.ids[0], endpoint("203.0.113.77:4001"), OTHER), 10.1)
    assert not reflexive.is_symmetric


def test_what_was_not_asked_for_counts_for_nothing() -> None:
    reflexive = asking()
    sent(reflexive, 0.0)
    [id] = reflexive.ids
    assert not reflexive.answered(SERVER, answer(bytes(12)[::-1] if id != bytes(12) else b"x" * 12, SEEN), 0.1)
    assert not reflexive.answered(OTHER, answer(id, SEEN), 0.1)
    with pytest.raises(WireError, match="bad_stun"):
        reflexive.answered(SERVER, answer(id, SEEN)[:-4], 0.1)
    assert (reflexive.seen, reflexive.ids) == ({}, [id])


@pytest.mark.parametrize("other", ["127.0.0.1:22", "192.168.0.1:53", "224.0.0.1:9", "198.51.100.1:0"])
def test_an_answer_aims_no_request_at_a_local_address(other: str) -> None:
    reflexive = asking()
    sent(reflexive, 0.0)
    reflexive.answered(SERVER, answer(reflexive.ids[0], SEEN, endpoint(other)), 0.1)
    assert reflexive.ids == []


def test_a_nat_of_ipv4_is_not_judged_by_ipv6() -> None:
    """Which has none, and whose answers come behind."""
    server6, other6, seen6 = (Endpoint(ip_address(f"2001:db8::{end}"), port) for end, port in ((1, 9), (1, 10), (5, 9)))
    reflexive = asking(SERVER, server6)
    first, first6 = reflexive.ids
    sent(reflexive, 0.0)
    reflexive.answered(SERVER, answer(first, SEEN, OTHER), 0.1)
    reflexive.answered(server6, answer(first6, seen6, other6), 0.1)
    second, second6 = reflexive.ids
    reflexive.answered(OTHER, answer(second, MOVED), 0.2)
    reflexive.answered(other6, answer(second6, seen6), 0.2)
    assert reflexive.is_symmetric
