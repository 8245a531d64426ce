"""Captures of members' packets for operators: from the engine's rings to the one who asked.

    open() ─▶ MemberCapture ─▶ piece(): header · packets · … · statistics, with why it is over

Rules:
 1. The engine copies and never waits; what is read too late is lost, and is said: in statistics as soon as there is
    any, and once more at the end.
 2. A ring is looked at PAUSE_S after it was empty: workers make no system call for who reads.

This module does not know who asks, nor what is in a packet.
"""

import asyncio
import time
from collections.abc import Callable

from candy._fastpath import CAPTURE_MOST, CAPTURE_READ, Engine
from candy.control import pcapng
from candy.control.streams import Pcapng
from candy.errors import RequestError

RING_BYTES = 4 << 20
PAUSE_S = 0.05


class MemberCapture(Pcapng):
    """One member's packets.

    Args:
        number: the engine's, of the capture.
        header: what comes first.
        is_ending: whether the relay is.
    """

    def __init__(
        self, engine: Engine, number: int, header: bytes, is_ending: Callable[[], bool], closed: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._number = number
        self._header = header
        self._is_ending = is_ending
        self._closed = closed
        self._told = 0
        self._has_more = self._over = False

    async def piece(self) -> bytes | None:
        """What comes next."""
        if self._over:
            return None
        if self._header:
            piece, self._header = self._header, b""
            return piece
        await asyncio.sleep(0 if self._has_more else PAUSE_S)
        # Before the packets: what is over has no more of them behind these.
        packets, lost, has_left = self._engine.capture_stats(self._number)
        found = self._engine.read_capture(self._number)
        self._has_more = len(found) == CAPTURE_READ
        if self._has_more:
            return found  # its last block may be cut
        if has_left or self._is_ending():
            self._over = True
            why = "the relay ends" if self._is_ending() else "the member has left"
            return found + pcapng.statistics(time.time_ns(), packets, lost, why)
        if lost != self._told:
            self._told = lost
            found += pcapng.statistics(time.time_ns(), packets, lost)
        return found

    def close(self) -> None:
        """Forget it."""
        self._engine.end_capture(self._number)
        self._closed()


class Captures:
    """All that there are.

    Args:
        is_ending: whether the relay is.
    """

    def __init__(self, engine: Engine, is_ending: Callable[[], bool]) -> None:
        self._engine = engine
        self._is_ending = is_ending
        self._connections: set[int] = set()

    def open(self, connection: int, name: str, description: str, *, drops: bool, snap: int) -> MemberCapture:
        """Capture a member's packets from now on.

        Args:
            name, description: of the interface that the file shows.
            drops: those alone that are dropped.
            snap: most bytes of each, as Engine.capture() takes it.

        Raises:
            RequestError: it has left, or is captured already, or there are CAPTURE_MOST captures.
        """
        if connection in self._connections:
            raise RequestError(f"{description} is captured already: end that capture first", 409)
        if len(self._connections) == CAPTURE_MOST:
            raise RequestError(f"there are {CAPTURE_MOST} captures already: end one of them first", 409)
        ahead_ns = time.time_ns() - time.monotonic_ns()
        number = self._engine.capture(connection, ring_bytes=RING_BYTES, snap=snap, drops_only=drops, clock_ns=ahead_ns)
        if number is None:
            raise RequestError(f"{description} has left just now", 404)
        self._connections.add(connection)
        header = pcapng.begin(name, description, snap)
        return MemberCapture(
            self._engine, number, header, self._is_ending, lambda: self._connections.discard(connection)
        )
