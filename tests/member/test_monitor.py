"""When a connection may not hold any more: what is a change of the way, and what a suspend, by clocks of a test's."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from lab.programs import PATIENCE_S
from lab.setting import Journal

from candy.host.notifications import Kind, Notifications
from candy.member import monitor
from candy.member.monitor import SETTLE_S, Monitor, boottime


class Machine:
    """Its clocks, its way to the relay, and what a monitor tells of them."""

    def __init__(self) -> None:
        self.is_dumb = False
        """It tells of no changes."""
        self.notify: Callable[[Kind], object]
        self.monotonic = 1000.0
        self.boottime = 5000.0
        self.has_changed = True
        self.looks = 0
        self.refusal: OSError | None = None
        self.settled: list[float] = []
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self._looked = asyncio.Event()
        self.monitor = Monitor(
            self._look,
            self.told.put_nowait,
            monotonic=lambda: self.monotonic,
            boottime=lambda: self.boottime,
            sleep=self._sleep,
        )

    def subscribe(self, kinds: Iterable[Kind], listener: Callable[[Kind], object]) -> None:
        """As Notifications do."""
        if self.is_dumb:
            raise OSError(93, "Protocol not supported")
        assert set(kinds) == {Kind.LINK, Kind.ADDRESS, Kind.ROUTE}
        self.notify = listener

    async def _look(self) -> bool:
        self.looks += 1
        self._looked.set()
        if self.refusal is not None:
            raise self.refusal
        return self.has_changed

    async def _sleep(self, seconds: float) -> None:
        self.settled.append(seconds)

    def pass_by(self, seconds: float, asleep: float = 0.0) -> None:
        self.monotonic += seconds
        self.boottime += seconds + asleep

    async def looked(self) -> None:
        """Wait until it looks again."""
        self._looked.clear()
        await asyncio.wait_for(self._looked.wait(), PATIENCE_S)

    async def tells(self) -> str:
        return await asyncio.wait_for(self.told.get(), PATIENCE_S)


@asynccontextmanager
async def watched(made: Machine) -> AsyncIterator[Machine]:
    watching = asyncio.create_task(made.monitor.watch(cast(Notifications, made)))
    # It has read the clocks.
    await asyncio.sleep(0)
    yield made
    assert not watching.done()
    watching.cancel()
    await asyncio.wait([watching])


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    async with watched(Machine()) as made:
        yield made


async def test_a_notification_is_looked_into(machine: Machine) -> None:
    machine.notify(Kind.ROUTE)
    assert await machine.tells() == "the way to the relay has changed"
    # After a moment: an address comes before its routes.
    assert machine.settled == [SETTLE_S]
    assert machine.looks == 1


async def test_many_at_once_are_one_look(machine: Machine) -> None:
    for kind in (Kind.LINK, Kind.ADDRESS, Kind.ROUTE):
        machine.notify(kind)
    await machine.tells()
    assert machine.looks == 1


async def test_what_is_not_on_the_way_is_no_matter(machine: Machine) -> None:
    machine.has_changed = False
    machine.notify(Kind.ROUTE)
    await machine.looked()
    machine.has_changed = True
    machine.notify(Kind.ROUTE)
    await machine.tells()
    assert machine.looks == 2
    assert machine.told.empty()


async def test_a_kernel_that_cannot_be_asked_is_asked_next_time(machine: Machine) -> None:
    machine.refusal = OSError(24, "Too many open files")
    machine.notify(Kind.LINK)
    await machine.looked()
    machine.refusal = None
    machine.notify(Kind.LINK)
    assert await machine.tells() == "the way to the relay has changed"


async def test_where_the_kernel_tells_of_nothing_it_looks_all_the_same(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "TICK_S", 0.0)
    made = Machine()
    made.is_dumb = True
    async with watched(made):
        assert await made.tells() == "the way to the relay has changed"
    assert journal.lines == [
        "the way to the relay is looked at each second, for the kernel tells of no changes: Protocol not supported"
    ]


async def test_a_suspend_is_told_at_the_next_tick(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "a jump of CLOCK_BOOTTIME against CLOCK_MONOTONIC"."""
    monkeypatch.setattr(monitor, "TICK_S", 0.0)
    machine.pass_by(1.0, asleep=600.0)
    # Ends the tick that has begun.
    machine.has_changed = False
    machine.notify(Kind.LINK)
    assert await machine.tells() == "this machine was asleep for 600 s"
    machine.pass_by(1.0, asleep=5.0)
    assert await machine.tells() == "this machine was asleep for 5 s"
    assert machine.told.empty()


async def test_a_process_that_stands_still_was_not_asleep(machine: Machine) -> None:
    """Nor does it add up, if it does so often between one clock and the other."""
    machine.has_changed = False
    for _ in range(5):
        machine.pass_by(3600.0, asleep=0.9)
        machine.notify(Kind.LINK)
        await machine.looked()
    assert machine.told.empty()


def test_the_real_clock_goes_on() -> None:
    before = boottime()
    assert 0 < before <= boottime()
