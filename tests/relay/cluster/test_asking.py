"""One relay asks another over NATS: who asks is known, a question counts once, and a long answer comes in parts."""

import asyncio
import json
import os
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from kit.nats import SECRET
from kit.primitives import PRIMITIVES

from candy.errors import RequestError
from candy.relay.cluster import asking
from candy.relay.cluster.asking import Answer, Asking, ask_all
from candy.relay.cluster.ledger import AwayError
from candy.relay.cluster.records import Envelope, FormatError


class Wire:
    """NATS between some relays; what goes over it is kept."""

    def __init__(self) -> None:
        self.serving: dict[str, Any] = {}
        self.messages: list[tuple[str, bytes]] = []
        self.epochs = {"eu": 7, "us": 8}

    def relay(self, name: str, secret: bytes = SECRET) -> Asking:
        made = Asking(Ends(self), Envelope(secret, PRIMITIVES, os.urandom), name, lambda of: self.epochs.get(of, 0))  # type: ignore[arg-type]
        made.answers = answers
        return made


class Ends:
    """One relay's end of it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def serve(self, subject: str, answer: Any, most: int) -> None:
        self.wire.serving[subject.removesuffix(".*")] = answer

    async def request(self, subject: str, message: bytes, timeout_s: float) -> bytes:
        self.wire.messages.append((subject, message))
        answer = self.wire.serving.get(subject.rpartition(".")[0])
        answered = None if answer is None else await answer(subject, message)
        if answered is None:
            raise AwayError("no answer")
        return bytes(answered)


done: list[Mapping[str, Any]] = []


async def answers(call: str, given: Mapping[str, Any]) -> AsyncIterator[bytes]:
    if call == "refuse":
        raise RequestError("not that one", 404)
    done.append(given)
    for number in range(int(given.get("lines", 1))):
        # Random, or it would be packed into nothing.
        yield json.dumps([call, number, os.urandom(500).hex()]).encode()


@pytest.fixture
def wire() -> Wire:
    done.clear()
    return Wire()


async def both(wire: Wire) -> Asking:
    await wire.relay("us").listen()
    return wire.relay("eu")


async def test_a_question_and_its_answer(wire: Wire) -> None:
    eu = await both(wire)
    answer = await eu.ask("us", "kick", {"member": "laptop"})
    assert answer.only()[:2] == ["kick", 0]
    assert done == [{"member": "laptop"}]
    [(subject, message)] = wire.messages
    assert subject == "candy.to.us.ask.eu"
    assert b"laptop" not in message
    assert b"kick" not in message


async def test_a_refusal_is_told(wire: Wire) -> None:
    eu = await both(wire)
    with pytest.raises(RequestError, match="not that one") as caught:
        await eu.ask("us", "refuse", {})
    assert caught.value.status == 404


async def test_a_long_answer_comes_in_parts(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PART_BYTES", 4096)
    eu = await both(wire)
    answer = await eu.ask("us", "members", {"lines": 100})
    assert [line[1] for line in answer.lines()] == list(range(100))
    assert 10 < len(wire.messages) < 30


async def test_an_answer_that_is_too_long(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PARTS_MOST", 1)
    eu = await both(wire)
    with pytest.raises(RequestError, match="the answer is too long"):
        await eu.ask("us", "members", {"lines": 1000})


async def test_a_question_counts_once(wire: Wire) -> None:
    eu = await both(wire)
    await eu.ask("us", "kick", {})
    [(subject, message)] = wire.messages
    us = wire.serving["candy.to.us.ask"]
    assert await us(subject, message) is None
    # Nor is it another's, nor for a later start of the relay.
    assert await us("candy.to.us.ask.ap", message) is None
    wire.epochs["us"] += 1
    await wire.relay("us").listen()
    assert await wire.serving["candy.to.us.ask"](subject, message) is None
    assert len(done) == 1
    # The asker's own start is another one.
    wire.epochs["eu"] += 1
    await wire.relay("eu").ask("us", "kick", {})
    assert len(done) == 2


async def test_questions_may_overtake_each_other(wire: Wire) -> None:
    eu = await both(wire)
    held: list[tuple[str, bytes]] = []
    request = Ends.request

    async def hold(self: Ends, subject: str, message: bytes, timeout_s: float) -> bytes:
        held.append((subject, message))
        raise AwayError("held")

    Ends.request = hold  # type: ignore[method-assign]
    try:
        for number in range(3):
            with pytest.raises(AwayError):
                await eu.ask("us", "kick", {"number": number})
    finally:
        Ends.request = request  # type: ignore[method-assign]
    us = wire.serving["candy.to.us.ask"]
    for number in (2, 0, 1):
        assert await us(*held[number]) is not None
        assert await us(*held[number]) is None
    assert [given["number"] for given in done] == [2, 0, 1]


async def test_a_number_of_any_size(wire: Wire) -> None:
    """What it is shifted by is no memory of this relay's."""
    eu = await both(wire)
    for number in (5, 2**64 - 3, 2**64 - 2):
        eu._number = number
        await eu.ask("us", "kick", {})
    for number in (2**64 - 3, 2**64 - asking.WINDOW - 2, 4, 5):
        eu._number = number
        with pytest.raises(AwayError):
            await eu.ask("us", "kick", {})
    eu._number = 2**64 - asking.WINDOW
    await eu.ask("us", "kick", {})
    assert len(done) == 4


async def test_parts_are_forgotten(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PART_BYTES", 4096)
    us = wire.relay("us")
    await us.listen()
    eu = wire.relay("eu")
    await eu.ask("us", "members", {"lines": 100})
    assert not us._kept
    # Who gives up.
    monkeypatch.setattr(asking, "KEPT_S", 0.0)
    own, _, count = await eu._ask_part("us", "members", {"lines": 100}, 1.0)
    assert count > 2
    while us._kept:
        await asyncio.sleep(0)
    with pytest.raises(AwayError):
        await eu._ask_part("us", "part", {"id": own, "part": 1}, 1.0)
    # Whose place others take.
    monkeypatch.setattr(asking, "KEPT_S", 100.0)
    for _ in range(asking.KEPT_MOST + 1):
        await eu._ask_part("us", "members", {"lines": 100}, 1.0)
    assert len(us._kept) == asking.KEPT_MOST
    for key in list(us._kept):
        us._forget(key)


@pytest.mark.parametrize("line", [b"{", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_no_json(line: bytes) -> None:
    with pytest.raises(FormatError, match="no JSON"):
        Answer(zlib.compress(line + b"\n")).only()


async def test_another_secret(wire: Wire) -> None:
    await both(wire)
    with pytest.raises(AwayError):
        await wire.relay("eu", b"y" * 40).ask("us", "kick", {})
    assert done == []


async def test_several_at_once(wire: Wire) -> None:
    eu = await both(wire)
    found, unreached = await ask_all(eu, ["us", "ap"], "kick", {})
    assert (list(found), unreached) == (["us"], ["ap"])
    assert await ask_all(eu, ["us"], "refuse", {}) == ({}, [])


@pytest.mark.parametrize("cut", [0, 1, 5, -1])
def test_a_damaged_answer(cut: int) -> None:
    async def packed() -> bytes:
        made = Wire().relay("eu")
        return b"".join(await made._parts("x", {"lines": 3}))[2:]

    whole = asyncio.run(packed())
    assert len(list(Answer(whole).lines())) == 3
    with pytest.raises(FormatError):
        list(Answer(whole[:cut]).lines())
    with pytest.raises(FormatError):
        list(Answer(b"x" + whole).lines())
