"""Between the networks, which remember, and the store, which has a thread of its own because a disk may take long.

    open ─▶ every FLUSH_S: what is new ─▶ one write ─▶ …            record(): a write at once    stop(): the last one
      ▲                                     │ failed: one warning
      └─────────────── RETRY_S ─────────────┘ from memory meanwhile; then everything is written

Rules:
 1. Nobody waits for the store but start(), and that at most START_S, and who asks for record(): a device's credential
    is not given away before it is kept.
 2. One write is under way at a time; meanwhile the networks note what is new themselves, each thing once.
 3. What was kept is given to a network once, whenever that works. It never replaces what happened since.
 4. After a failure everything is written anew, because nobody notes what was missed.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from candy.relay.recording import Outcome, Wanted
from candy.relay.register import Kept, Register
from candy.relay.store import Store, StoreError

FLUSH_S = 0.5
"""So much may be lost when the relay is killed, and what the write itself takes."""
RETRY_S = 5.0
START_S = 5.0
STOP_S = 2.0

log = logging.getLogger("candy.relay")

Result = TypeVar("Result")


class Keeper:
    """See the rules above.

    Args:
        store: closed.
        registers: asked each time for the networks that there are, by path.
        look: called before each write, for what is not told by itself.
    """

    def __init__(
        self, store: Store, registers: Callable[[], Mapping[str, Register]], look: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._registers = registers
        self._look = look
        self._thread = ThreadPoolExecutor(1, "store")
        self._known: Mapping[str, Register] = {}
        self._waiting: dict[str, Kept] | None = None
        """What was kept of networks that there are not at present; None: the store was not read yet."""
        self._has_failed = False
        self._started = asyncio.Event()
        """It was tried to open the store."""
        self._ending = asyncio.Event()
        self._stirred = asyncio.Event()
        """There is something to do before the time."""
        self._is_open = False
        self._asked: list[asyncio.Future[Outcome]] = []
        """By record(), for what is not written yet."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Give the networks what was kept, before any member comes."""
        self._task = asyncio.get_running_loop().create_task(self._keep())
        self._task.add_done_callback(self._on_end)
        started = asyncio.ensure_future(self._started.wait())
        await asyncio.wait({started, self._task}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            log.warning("leases: the disk takes longer than %g s: going on without what was kept", START_S)

    def record(self, path: str = "", wanted: Wanted | None = None) -> "asyncio.Future[Outcome]":
        """Write at once what is new of devices and invitations: KEPT or UNKEPT, whatever is wanted. With a store that
        fails the answer is there at once."""
        asked = asyncio.get_running_loop().create_future()
        if self._is_open and not self._ending.is_set():
            self._asked.append(asked)
            self._stirred.set()
        else:
            asked.set_result(Outcome.UNKEPT)
        return asked

    async def stop(self) -> None:
        """Write what is new, and close the store."""
        self._ending.set()
        self._stirred.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_S)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _on_end(self, task: "asyncio.Task[None]") -> None:
        self._is_open = False
        self._answer(False)
        # A fault of ours is shown when it happens, and keeps nobody from ending in order.
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("leases are in memory alone from now on: a fault in this program", exc_info=fault)

    async def _keep(self) -> None:
        while True:
            try:
                self._was_read(await self._call(self._store.open))
                self._is_open = True
                self._started.set()
                await self._write_until_end()
                await self._call(self._store.close)
                return
            except StoreError as error:
                if error.kept is not None:
                    self._was_read(error.kept)
                if not self._has_failed:
                    log.warning("leases are in memory alone: %s", error)
                self._has_failed = True
                self._is_open = False
                self._answer(False)
                await self._call(self._store.close)
            self._started.set()
            if await self._ends_within(RETRY_S):
                return

    async def _write_until_end(self) -> None:
        while True:
            is_last = self._ending.is_set()
            self._look()
            # A few at a time, until nothing is left.
            while True:
                # Who asks during the write is of the next one.
                asked_until = len(self._asked)
                batch = {path: kept for path, kept in self._batch().items() if kept}
                if batch:
                    await self._call(self._store.write, batch)
                self._answer(True, asked_until)
                if self._has_failed or not batch:
                    break
            if self._has_failed:
                log.info("leases are written again")
                self._has_failed = False
            if is_last:
                return
            await self._ends_within(FLUSH_S)

    def _batch(self) -> dict[str, Kept]:
        """What is new of each network, and all of one that was removed or came back."""
        registers = dict(self._registers())
        gone = {path: register for path, register in self._known.items() if registers.get(path) is not register}
        batch = {path: register.everything() for path, register in gone.items()}
        assert self._waiting is not None
        self._waiting |= batch
        self._known = registers
        for path, register in registers.items():
            is_whole = self._give(path, register) or self._has_failed
            batch[path] = register.everything() if is_whole else register.changes()
        return batch

    def _was_read(self, kept: dict[str, Kept]) -> None:
        if self._waiting is None:
            self._waiting = kept
            self._known = dict(self._registers())
            for path, register in self._known.items():
                self._give(path, register)

    def _give(self, path: str, register: Register) -> bool:
        """Give a network what was kept of it; whether something was."""
        assert self._waiting is not None
        kept = self._waiting.pop(path, None)
        if kept is not None:
            register.restore(kept, int(time.time()))
        return kept is not None

    async def _ends_within(self, seconds: float) -> bool:
        """Wait so long, but not longer than to the end, or until something is to be recorded; whether the end has
        come."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stirred.wait(), seconds)
        if not self._ending.is_set():
            self._stirred.clear()
        return self._ending.is_set()

    def _answer(self, is_written: bool, until: int | None = None) -> None:
        """Tell those who asked first."""
        answered, self._asked[:until] = self._asked[:until], []
        for asked in answered:
            if not asked.done():
                asked.set_result(Outcome.KEPT if is_written else Outcome.UNKEPT)

    async def _call(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
