"""Tells when a connection to the relay may not hold any more: the way there has changed, or this machine was asleep.

    the kernel's notifications ─▶ SETTLE_S ─▶ has the way changed? ──▶ tell("the way to the relay has changed")
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, each TICK_S ─▶ do they differ? ─▶ tell("this machine was asleep for N s")

Rules:
 1. A notification is a reason to look, and nothing more: most are of other routes and addresses.
 2. Changes come in rows, such as an address and then its routes. So it looks a moment later, and no more often than
    that, however many come.
 3. CLOCK_MONOTONIC stands still in a suspend, and CLOCK_BOOTTIME goes on. Nothing tells of a resume, so the two are
    compared again and again; a timer that was set before goes off at most TICK_S after it.

This module does not know what follows.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

from candy.host.notifications import Kind, Notifications

KINDS = (Kind.LINK, Kind.ADDRESS, Kind.ROUTE)
"""What the way can change with."""
SETTLE_S = 0.2
TICK_S = 1.0
ASLEEP_S = 1.0
"""What the clocks differ by less is no suspend: a process may stand still between reading one and the other."""

_log = logging.getLogger(__name__)


def boottime() -> float:
    """Seconds since the machine was started, those of suspends included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Monitor:
    """Watches, until cancelled.

    Args:
        look: whether the way to the relay has changed since the last look.
        tell: called with a sentence for the log.
        monotonic, boottime: seconds, without and with those of suspends.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[bool]],
        tell: Callable[[str], object],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        boottime: Callable[[], float] = boottime,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._look = look
        self._tell = tell
        self._monotonic = monotonic
        self._boottime = boottime
        self._sleep = sleep
        self._notified = asyncio.Event()

    async def watch(self, notifications: Notifications) -> NoReturn:
        """Tell of all that changes from now on."""
        is_notified = True
        try:
            notifications.subscribe(KINDS, self._hear)
        except OSError as error:
            told = "the way to the relay is looked at each second, for the kernel tells of no changes: %s"
            _log.info(told, error.strerror)
            is_notified = False
        ahead = self._ahead()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._notified.wait()
            before, ahead = ahead, self._ahead()
            if ahead - before > ASLEEP_S:
                self._tell(f"this machine was asleep for {ahead - before:.0f} s")
            if self._notified.is_set() or not is_notified:
                await self._sleep(SETTLE_S)
                self._notified.clear()
                if await self._has_changed():
                    self._tell("the way to the relay has changed")

    def _hear(self, _: Kind) -> None:
        self._notified.set()

    def _ahead(self) -> float:
        return self._boottime() - self._monotonic()

    async def _has_changed(self) -> bool:
        try:
            return await self._look()
        except OSError as error:
            _log.debug("the way to the relay can't be looked at: %s", error.strerror)
            return False
