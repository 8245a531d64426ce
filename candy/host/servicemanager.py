"""What the service manager is told of this process, by sd_notify(3): that it serves, reloads, ends, and lives.

    ServiceManager(environ) ─▶ ready ─▶ watch(): STATUS=…, WATCHDOG=1 ─▶ reloading() … ready() ─▶ stopping()

Rules:
 1. Without NOTIFY_SOCKET nothing is said. A manager that does not read is no reason to wait, nor to fail.
 2. WATCHDOG=1 is said by the event loop, and only when each worker of the engine has come round since the last time:
    so whichever of them hangs, the manager ends the process and starts another.

This module does not know what is served.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

LOOK_S = 5.0
"""Between two looks at workers and status, at most; three fit into the watchdog's time."""
ROUND_S = 1.5
"""At least so much: a worker with nothing to do comes round once a second."""

_log = logging.getLogger(__name__)


class ServiceManager:
    """The one that has started this process, if one has.

    Args:
        environ: NOTIFY_SOCKET, a path or an abstract name, WATCHDOG_USEC and WATCHDOG_PID.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = path.replace("@", "\0", 1) if path.startswith("@") else path
        microseconds = environ.get("WATCHDOG_USEC", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_s = int(microseconds) / 1e6 if microseconds.isdigit() and is_ours else 0.0
        self._said = ""

    def ready(self) -> None:
        """It serves; after reloading() again."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """It reads its settings again; ready() follows."""
        # By the clock that the manager knows, so that it tells this reload from the one before.
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It ends."""
        self._tell("STOPPING=1")

    async def watch(self, rounds: Callable[[], Sequence[int]], status: Callable[[], str]) -> None:
        """Say that it lives, and how it is, until cancelled.

        Args:
            rounds: how often each worker has come round.
            status: a line for who asks the manager.
        """
        if not self._address:
            await asyncio.get_running_loop().create_future()
        period = max(ROUND_S, min(LOOK_S, self._watchdog_s / 3 or LOOK_S))
        before: Sequence[int] = ()
        while True:
            self._tell_status(status())
            now = rounds()
            stuck = [number for number, (old, new) in enumerate(zip(before, now, strict=False)) if old == new]
            if not stuck:
                if self._watchdog_s:
                    self._tell("WATCHDOG=1")
            else:
                _log.error("worker %s of the engine does nothing any more", ", ".join(map(str, stuck)))
            before = now
            await asyncio.sleep(period)

    def _tell_status(self, status: str) -> None:
        if status != self._said:
            self._said = status
            self._tell(f"STATUS={' '.join(status.split())}")

    def _tell(self, what: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as opened:
            opened.sendto(what.encode(), self._address)
