"""Accepts TCP connections, a few at a time, and waits when the machine has no room for another.

    listening sockets ─▶ readable ─▶ accept, at most ACCEPTS_PER_TURN ─▶ accepted(socket, address of the peer)
                                          └── no descriptor, no memory: said once, and nothing accepted for PAUSE_S

Rules:
 1. The last RESERVE descriptors are never taken for a connection: the relay opens files, and makes a descriptor or two
    for each connection that it hands over.
 2. Peers that find no room wait in the kernel's queue.

asyncio's own servers try again 4,096 times on end and log each (python/cpython#151615). This module does not know who
connects.
"""

import asyncio
import errno
import logging
import os
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

RESERVE = 16
"""Descriptors."""
ACCEPTS_PER_TURN = 64
"""Of each listening socket, before the loop's timers and other connections have their turn."""
PAUSE_S = 1.0
QUIET_S = 60.0
"""A shortage is told once, and again when there was none for this long."""

log = logging.getLogger("candy.relay")


class Acceptor:
    """Accepts from these sockets, which it owns, until it is closed.

    Args:
        listeners: listening sockets that don't block.
        accepted: takes each connection, with the peer's IP address as text.
    """

    def __init__(self, listeners: Sequence[socket.socket], accepted: Callable[[socket.socket, str], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners = listeners
        self._accepted = accepted
        self._pause: asyncio.TimerHandle | None = None
        self._last_short = -QUIET_S
        self._resume()

    def close(self) -> None:
        """Listen no more. Idempotent."""
        self._stop()
        for listener in self._listeners:
            listener.close()
        self._listeners = ()

    def short(self, error: OSError) -> None:
        """The machine has no room for another connection: say so, and wait."""
        self._stop()
        self._pause = self._loop.call_later(PAUSE_S, self._resume)
        now = self._loop.time()
        if now - self._last_short >= QUIET_S:
            log.warning("%s; until then connections wait", _remedy(error))
        self._last_short = now

    def _resume(self) -> None:
        self._pause = None
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)

    def _stop(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        accepted: list[tuple[socket.socket, str]] = []
        try:
            with _reserve(listener):
                _take(listener, accepted)
        except OSError as error:
            if not is_shortage(error):
                raise
            self.short(error)
        for connection, peer in accepted:
            self._accepted(connection, peer)


def _take(listener: socket.socket, accepted: list[tuple[socket.socket, str]]) -> None:
    for _ in range(ACCEPTS_PER_TURN):
        try:
            connection, peer = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if is_shortage(error):
                raise
            # "Linux accept() passes already-pending network errors on the new socket as an error code": that one's.
            continue
        accepted.append((connection, peer[0]))


def is_shortage(error: OSError) -> bool:
    """Whether an error says that the machine has no room, rather than that something is wrong with a connection."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@contextmanager
def _reserve(listener: socket.socket) -> Iterator[None]:
    """Take as many descriptors as have to be left, for as long as connections are accepted."""
    held: list[int] = []
    try:
        held.extend(os.dup(listener.fileno()) for _ in range(RESERVE))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def _remedy(error: OSError) -> str:
    match error.errno:
        case errno.EMFILE:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return (
                f"no descriptor is left for another connection: the limit is {limit}: "
                "raise LimitNOFILE= in the systemd unit, or ulimit -n"
            )
        case errno.ENFILE:
            return "this machine has no descriptor left for another connection: raise the sysctl fs.file-max"
        case errno.EUSERS:
            return "there is no room for more connections that have TLS and no upgrade yet"
        case _:
            return "the kernel has no memory for another connection: add some, or raise the sysctl net.ipv4.tcp_mem"
