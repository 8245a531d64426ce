"""Between networks and store: what is given back, what is written when, and what follows from a failure."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kit.talk import ONE, TWO, Talk, ip

from candy.relay import keeper as module
from candy.relay import leases
from candy.relay.keeper import Keeper
from candy.relay.recording import Outcome
from candy.relay.register import Kept, Register
from candy.relay.store import Store, StoreError

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.001)
    monkeypatch.setattr(module, "RETRY_S", 0.001)


def talk_now() -> Talk:
    """By the clock that the keeper reads."""
    talk = Talk()
    talk.wall = int(time.time())
    return talk


@pytest.fixture
def talk() -> Talk:
    return talk_now()


class Disk(Store):
    """A store in memory that fails as often as it is told to."""

    def __init__(self, content: Mapping[str, Kept] | None = None) -> None:
        super().__init__(Path("/nowhere"))
        self.content = dict(content or {})
        self.opening: list[StoreError] = []
        """What the next calls of open() raise."""
        self.writing: list[StoreError] = []
        self.may_open = threading.Event()
        self.may_open.set()
        self.calls: list[str] = []
        self.batches: list[dict[str, Kept]] = []
        self._loop = asyncio.get_running_loop()
        self._written = asyncio.Event()

    def open(self) -> dict[str, Kept]:
        self.calls.append("open")
        assert self.may_open.wait(60)
        if self.opening:
            raise self.opening.pop(0)
        return self.content

    def write(self, batch: Mapping[str, Kept]) -> None:
        self.calls.append("write")
        if self.writing:
            raise self.writing.pop(0)
        self.batches.append(dict(batch))
        self._loop.call_soon_threadsafe(self._written.set)

    def close(self) -> None:
        self.calls.append("close")

    async def write_comes(self) -> dict[str, Kept]:
        """The next batch that is written."""
        while not self.batches:
            self._written.clear()
            await asyncio.wait_for(self._written.wait(), 60)
        return self.batches.pop(0)


@asynccontextmanager
async def kept_by(disk: Store, registers: Mapping[str, Register]) -> AsyncIterator[Keeper]:
    keeper = Keeper(disk, lambda: registers)
    await keeper.start()
    try:
        yield keeper
    finally:
        await keeper.stop()


def content(last: int = 9) -> Kept:
    """What a network had of one device that has left."""
    talk = talk_now()
    talk.close(talk.member(ip(last), ONE))
    return talk.network.register.everything()


def leased(talk: Talk) -> list[str]:
    return [str(lease.address) for lease in talk.network.register.leases(talk.wall)]


async def test_what_was_kept_is_there_before_anything_else(talk: Talk) -> None:
    async with kept_by(Disk({"/": content()}), {"/": talk.network.register}):
        assert leased(talk) == ["192.168.202.9"]


async def test_what_is_new_is_written_once(talk: Talk) -> None:
    disk = Disk()
    async with kept_by(disk, {"/": talk.network.register, "/home": talk_now().network.register}):
        talk.member(ip(7), ONE)
        batch = await disk.write_comes()
        assert batch.keys() == {"/"}
        assert batch["/"].leases.keys() == {int(ip(7))}
        assert not batch["/"].is_whole
        talk.member(ip(8), TWO)
        assert (await disk.write_comes())["/"].leases.keys() == {int(ip(8))}


async def test_the_end_writes_what_is_left_and_closes(talk: Talk) -> None:
    disk = Disk()
    async with kept_by(disk, {"/": talk.network.register}):
        talk.member(ip(7), ONE)
    assert (await disk.write_comes())["/"].leases.keys() == {int(ip(7))}
    assert disk.calls[-2:] == ["write", "close"]


async def test_what_is_not_told_is_asked_for_before_each_write(talk: Talk) -> None:
    disk = Disk()

    def look() -> None:
        if not leased(talk):
            talk.member(ip(7), ONE)

    keeper = Keeper(disk, lambda: {"/": talk.network.register}, look)
    await keeper.start()
    assert (await disk.write_comes())["/"].leases.keys() == {int(ip(7))}
    await keeper.stop()


async def test_much_is_written_in_several_batches_and_nothing_is_left(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "CHANGES_MOST", 2)
    disk = Disk()
    keeper = Keeper(disk, lambda: {"/": talk.network.register})
    await keeper.start()
    for last in (5, 6, 7):
        talk.member(ip(last), ONE)
    await keeper.stop()
    assert [len(batch["/"].leases) for batch in disk.batches] == [2, 1]


async def test_a_fault_of_ours_is_logged_and_the_end_is_in_order(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    def look() -> None:
        raise KeyError(7)

    keeper = Keeper(Disk(), lambda: {"/": talk.network.register}, look)
    await keeper.start()
    await keeper.stop()
    [record] = caplog.records
    assert record.message == "leases are in memory alone from now on: a fault in this program"
    assert "KeyError: 7" in caplog.text


async def test_after_a_failure_everything_is_written_and_one_warning_says_why(
    talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    disk = Disk({"/": content(9)})
    async with kept_by(disk, {"/": talk.network.register}):
        talk.member(ip(7), ONE)
        await disk.write_comes()
        disk.opening = [StoreError("still full"), StoreError("still full")]
        disk.writing = [StoreError("leases.db is full")]
        talk.member(ip(8), TWO)
        batch = await disk.write_comes()
        assert batch["/"].is_whole
        assert batch["/"].leases.keys() == {int(ip(last)) for last in (7, 8, 9)}
        assert len(batch["/"].digests) == 3
    assert caplog.messages == ["leases are in memory alone: leases.db is full", "leases are written again"]


async def test_a_store_that_opens_late_gives_what_it_has_and_gets_the_rest(
    talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    disk = Disk({"/": content(9)})
    disk.opening = [StoreError("leases.db is locked")]
    async with kept_by(disk, {"/": talk.network.register}):
        talk.member(ip(7), TWO)
        batch = await disk.write_comes()
        assert batch["/"].is_whole
        assert batch["/"].leases.keys() == {int(ip(7)), int(ip(9))}
    assert leased(talk) == ["192.168.202.7", "192.168.202.9"]
    assert caplog.messages == ["leases are in memory alone: leases.db is locked", "leases are written again"]


async def test_what_can_only_be_read_is_given_all_the_same(talk: Talk) -> None:
    disk = Disk()
    disk.opening = [StoreError("read-only", {"/": content(9)})]
    async with kept_by(disk, {"/": talk.network.register}):
        assert leased(talk) == ["192.168.202.9"]


async def test_a_disk_that_takes_long_holds_up_nobody(
    talk: Talk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_S", 0.001)
    disk = Disk({"/": content(9)})
    disk.may_open.clear()
    async with kept_by(disk, {"/": talk.network.register}):
        assert "the disk takes longer than 0.001 s" in caplog.text
        assert leased(talk) == []
        talk.member(ip(7), TWO)
        disk.may_open.set()
        await disk.write_comes()
        assert leased(talk) == ["192.168.202.7", "192.168.202.9"]


async def test_a_network_that_is_added_gets_what_was_kept_and_one_that_is_removed_leaves_all(talk: Talk) -> None:
    disk = Disk({"/": content(9), "/home": content(5)})
    registers = {"/": talk.network.register}
    home, again = talk_now(), talk_now()
    async with kept_by(disk, registers):
        registers["/home"] = home.network.register
        batch = await disk.write_comes()
        assert batch.keys() == {"/home"}
        assert leased(home) == ["192.168.202.5"]
        home.member(ip(6), TWO)
        del registers["/home"]
        batch = await disk.write_comes()
        assert batch["/home"].is_whole
        assert batch["/home"].leases.keys() == {int(ip(5)), int(ip(6))}
        registers["/home"] = again.network.register
        await disk.write_comes()
        assert leased(again) == ["192.168.202.5", "192.168.202.6"]


async def test_with_a_real_file_a_restart_knows_everybody(tmp_path: Path) -> None:
    before, after = talk_now(), talk_now()
    async with kept_by(Store(tmp_path), {"/": before.network.register}):
        before.member(ip(9), ONE)
    async with kept_by(Store(tmp_path), {"/": after.network.register}):
        assert leased(after) == ["192.168.202.9"]
        replay = after.open()
        after.wall = before.wall
        assert after.auth(replay, ip(9)) != []
        assert after.logged("is a replay")


async def test_who_asks_has_it_written_at_once(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing comes by itself.
    monkeypatch.setattr(module, "FLUSH_S", 3600.0)
    disk = Disk()
    async with kept_by(disk, {"/": talk.network.register}) as keeper:
        for last in (7, 8):
            talk.member(ip(last), ONE)
            recorded = keeper.record()
            assert (await disk.write_comes())["/"].leases.keys() == {int(ip(last))}
            assert await recorded is Outcome.KEPT
        # Of several at once the first write may be the only one.
        talk.member(ip(9), TWO)
        assert list(await asyncio.gather(keeper.record(), keeper.record())) == [Outcome.KEPT] * 2


async def test_who_asks_during_a_write_is_of_the_next_one(talk: Talk) -> None:
    disk = Disk()
    write, begun, may_write = disk.write, asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(batch: Mapping[str, Kept]) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert may_write.wait(60)
        write(batch)

    disk.write = slow  # type: ignore[method-assign]
    async with kept_by(disk, {"/": talk.network.register}) as keeper:
        talk.member(ip(7), ONE)
        await asyncio.wait_for(begun.wait(), 60)
        talk.member(ip(8), TWO)
        recorded = keeper.record()
        may_write.set()
        assert await recorded is Outcome.KEPT
        assert [batch["/"].leases.keys() for batch in disk.batches] == [{int(ip(7))}, {int(ip(8))}]


async def test_what_can_not_be_written_is_not_recorded(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 3600.0)
    disk = Disk()
    disk.writing.append(StoreError("full"))
    async with kept_by(disk, {"/": talk.network.register}) as keeper:
        talk.member(ip(7), ONE)
        assert await keeper.record() is Outcome.UNKEPT
        # At once, while it waits for the next try.
        assert await asyncio.wait_for(keeper.record(), 60) is Outcome.UNKEPT
    assert await keeper.record() is Outcome.UNKEPT


async def test_before_the_store_is_open_nothing_is_recorded(talk: Talk) -> None:
    keeper = Keeper(Disk(), lambda: {"/": talk.network.register})
    assert await keeper.record() is Outcome.UNKEPT
    await keeper.stop()
