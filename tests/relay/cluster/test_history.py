"""Grants are linearizable: on the recorded history of a run, in which servers of NATS are killed."""

import asyncio
import os
from math import inf
from random import Random

import pytest
from kit.linear import Operation, is_linearizable
from kit.nats import SECRET, Servers

from candy.primitives import NOISE
from candy.relay.cluster.agreement import Agreement, HeldError
from candy.relay.cluster.jetstream import connected
from candy.relay.cluster.ledger import AwayError
from candy.relay.cluster.records import Envelope, Grant

ONE, TWO = b"1" * 16, b"2" * 16
ADDRESSES = (0x0A000001, 0x0A000002)
EACH = 40
"""Operations of a relay."""


def claim(asked: float, answered: float, holder: bytes, result: bytes | None) -> Operation:
    return Operation(asked, answered, True, holder, result)


def release(asked: float, answered: float, holder: bytes, result: bool | None) -> Operation:
    return Operation(asked, answered, False, holder, result)


@pytest.mark.parametrize(
    ("operations", "holds"),
    [
        ([claim(0, 1, ONE, ONE), claim(2, 3, TWO, ONE)], True),
        ([claim(0, 1, ONE, ONE), claim(2, 3, TWO, TWO)], False),
        # At once, in either order, and never both.
        ([claim(0, 2, ONE, TWO), claim(1, 3, TWO, TWO)], True),
        ([claim(0, 2, ONE, ONE), claim(1, 3, TWO, TWO)], False),
        ([claim(0, 1, ONE, ONE), release(2, 3, ONE, True), claim(4, 5, TWO, TWO)], True),
        ([claim(0, 1, ONE, ONE), release(2, 3, TWO, True)], False),
        # What had no answer may have taken effect, then or later, or never.
        ([claim(0, inf, ONE, None), claim(1, 2, TWO, ONE)], True),
        ([claim(0, inf, ONE, None), claim(1, 2, TWO, TWO)], True),
        ([claim(0, 1, ONE, ONE), release(2, inf, ONE, None), claim(3, 4, TWO, ONE), claim(5, 6, TWO, TWO)], True),
        ([claim(3, inf, ONE, None), claim(1, 2, TWO, ONE)], False),
        # A stale read.
        ([claim(0, 1, ONE, ONE), release(2, 3, ONE, True), claim(4, 5, TWO, ONE)], False),
    ],
)
def test_the_checker(operations: list[Operation], holds: bool) -> None:
    assert is_linearizable(operations) is holds


async def test_grants_while_servers_are_killed(servers: Servers) -> None:
    history: dict[int, list[Operation]] = {ip: [] for ip in ADDRESSES}
    now = asyncio.get_running_loop().time
    count = 0
    moved_on = asyncio.Condition()

    async def note(ip: int, operation: Operation) -> None:
        nonlocal count
        history[ip].append(operation)
        async with moved_on:
            count += 1
            moved_on.notify_all()

    async def relay(name: str, holder: bytes, seed: int) -> None:
        random = Random(seed)
        nats = await connected(servers.settings(name))
        agreement = Agreement(nats, Envelope(SECRET, NOISE, os.urandom), name)
        for number in range(EACH):
            ip, is_claim, asked = random.choice(ADDRESSES), random.random() < 0.6, now()
            result: bytes | bool | None = None
            try:
                if is_claim:
                    known = await agreement.claim("/history", ip, Grant(holder, name, number), known=1)
                    assert known.record is not None
                    result = known.record.holder
                else:
                    result = await agreement.release("/history", ip, holder, number)
            except HeldError as error:
                result = error.grant.holder
            except AwayError:
                pass
            await note(ip, Operation(asked, inf if result is None else now(), is_claim, holder, result))
        await nats.close()

    async def faults() -> None:
        for at, server in ((15, 0), (45, 1), (75, 2)):
            async with moved_on:
                await moved_on.wait_for(lambda at=at: count >= at)  # type: ignore[misc]
            servers.kill(server)
            async with moved_on:
                await moved_on.wait_for(lambda at=at: count >= at + 10)  # type: ignore[misc]
            servers.start(server)

    relays = [relay(name, holder, seed) for seed, (name, holder) in enumerate((("eu", ONE), ("us", TWO), ("ap", ONE)))]
    await asyncio.gather(*relays, faults())
    assert sum(map(len, history.values())) == 3 * EACH
    answered = [each for ip in ADDRESSES for each in history[ip] if each.result is not None]
    assert len(answered) > EACH
    for ip in ADDRESSES:
        assert is_linearizable(history[ip]), sorted(history[ip], key=lambda each: each.asked)
    # Two devices wanted each of them, and each had it.
    assert {each.result for each in answered if each.is_claim} == {ONE, TWO}
