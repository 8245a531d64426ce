"""How long digests of log-ins are known: a round deletes what nobody believes any more, and nothing else."""

import os

import pytest
from kit.ledger import ModelLedger
from kit.nats import SECRET
from kit.primitives import PRIMITIVES

from candy.relay.cluster import digests
from candy.relay.cluster.agreement import Agreement, RepeatedError
from candy.relay.cluster.digests import FRESH_S, PASSED_OVER_MOST, SPARE_S, WAIT_S, Digests
from candy.relay.cluster.ledger import AwayError, Bucket
from candy.relay.cluster.records import SLOT_S, Envelope

WALL = 1_800_000_000
TOLERANCE = 300
OLD = WALL - TOLERANCE - SPARE_S - SLOT_S
"""The first second that is not believed any more, and the slot with it."""


class World:
    """Some relays, their clocks and NATS'."""

    def __init__(self) -> None:
        self.ledger = ModelLedger()
        self.ledger.wall = WALL
        self.now = 1000.0

    def relay(self, name: str) -> Digests:
        made = Agreement(self.ledger, Envelope(SECRET, PRIMITIVES, os.urandom), name)
        return Digests(self.ledger, made, lambda: self.now)

    @property
    def left(self) -> int:
        return len(self.ledger.keys(Bucket.DIGESTS))

    async def tidied(self, relay: Digests, wall: int = WALL) -> None:
        """Two rounds, as far apart as they have to be."""
        await relay.tidy("/", TOLERANCE, wall)
        self.now += WAIT_S
        await relay.tidy("/", TOLERANCE, wall)


@pytest.fixture
def world() -> World:
    return World()


async def test_what_is_too_old_goes_and_the_rest_stays(world: World) -> None:
    eu = world.relay("eu")
    for number, timestamp in enumerate((OLD - 1000, OLD, OLD + SLOT_S, WALL - TOLERANCE, WALL + TOLERANCE)):
        await eu.spend("/", timestamp, b"%015d" % number)
    await eu.spend("/home", OLD, b"d" * 15)
    await world.tidied(eu)
    assert world.left == 4
    for timestamp, number in ((OLD + SLOT_S, 2), (WALL - TOLERANCE, 3), (WALL + TOLERANCE, 4)):
        with pytest.raises(RepeatedError):
            await world.relay("us").spend("/", timestamp, b"%015d" % number)


@pytest.mark.parametrize("passed", [0.0, WAIT_S - 1])
async def test_nothing_goes_before_all_know(world: World, passed: float) -> None:
    eu = world.relay("eu")
    await eu.spend("/", OLD, b"d" * 15)
    await eu.tidy("/", TOLERANCE, WALL)
    world.now += passed
    await eu.tidy("/", TOLERANCE, WALL)
    assert world.left == 1


async def test_what_was_deleted_is_not_believed_again(world: World) -> None:
    """Not even by a relay that had looked just before, nor by one whose clock is behind."""
    eu, us = world.relay("eu"), world.relay("us")
    await eu.spend("/", OLD, b"d" * 15)
    await us.spend("/", WALL, b"other".ljust(15))
    await eu.tidy("/", TOLERANCE, WALL)
    # The last moment in which nobody need know.
    await us.spend("/", WALL, b"a third".ljust(15))
    world.now += WAIT_S
    await eu.tidy("/", TOLERANCE, WALL)
    for relay in (eu, us, world.relay("ap")):
        with pytest.raises(RepeatedError):
            await relay.spend("/", OLD, b"d" * 15)
        await relay.spend("/", WALL, os.urandom(15))


async def test_a_relay_looks_again_in_time(world: World) -> None:
    us = world.relay("us")
    await us.spend("/", OLD, b"d" * 15)
    await world.relay("eu")._agreement.forget("/", OLD)
    world.now += FRESH_S
    await us.spend("/", OLD, b"e" * 15)
    world.now += 1
    with pytest.raises(RepeatedError):
        await us.spend("/", OLD, b"f" * 15)
    assert FRESH_S + 10 < WAIT_S


async def test_one_clock_that_runs_ahead_forgets_nothing(world: World) -> None:
    eu = world.relay("eu")
    await eu.spend("/", WALL, b"d" * 15)
    await world.tidied(eu, WALL + 86400)
    world.ledger.wall = WALL + 86400
    await world.tidied(eu)
    assert world.left == 1
    await eu.spend("/", WALL - TOLERANCE, b"e" * 15)


async def test_digests_of_clocks_that_run_ahead_hide_nothing(world: World) -> None:
    eu = world.relay("eu")
    for number in range(PASSED_OVER_MOST - 1):
        await eu.spend("/", WALL + TOLERANCE, b"%015d" % number)
    for number in range(3):
        await eu.spend("/", OLD - number * SLOT_S, b"old".ljust(15))
    await world.tidied(eu)
    assert world.left == PASSED_OVER_MOST - 1


async def test_one_that_is_away_goes_on_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    eu = world.relay("eu")
    await eu.spend("/", OLD, b"d" * 15)
    await eu.tidy("/", TOLERANCE, WALL)
    world.now += WAIT_S
    world.ledger.is_away = True
    with pytest.raises(AwayError):
        await eu.tidy("/", TOLERANCE, WALL)
    world.ledger.is_away = False
    await eu.tidy("/", TOLERANCE, WALL)
    assert world.left == 0
    # And who can't look does not believe.
    monkeypatch.setattr(digests, "FRESH_S", -1.0)
    spend = eu._agreement.spend

    async def spent(path: str, timestamp: int, digest: bytes) -> None:
        await spend(path, timestamp, digest)
        world.ledger.is_away = True

    monkeypatch.setattr(eu._agreement, "spend", spent)
    with pytest.raises(AwayError):
        await eu.spend("/", WALL, b"d" * 15)


async def test_what_it_has_of_a_network_goes_with_that(world: World) -> None:
    eu = world.relay("eu")
    await eu.spend("/", OLD, b"d" * 15)
    await eu.tidy("/", TOLERANCE, WALL)
    eu.leave("/")
    assert not eu._seen
    assert not eu._agreed
