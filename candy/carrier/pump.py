"""Joins a TLS transport of asyncio to the engine, which needs a descriptor: asyncio decrypts in memory.

    peer ══ TLS ══ transport ──data_received──▶ Pump ──send──▶ ┆ the engine's end
                             ◀─────write──────       ◀──recv── ┆ of a socketpair

Rules:
 1. Bounded both ways. Bytes that the engine's end does not take at once are kept, and the transport is not read
    until they are sent; while the transport's write buffer is above its high-water mark, the engine's end is
    not read.
 2. All bytes before an EOF are delivered before the EOF is. The peer's EOF reaches the engine as one; the engine's
    closes the transport, which sends close_notify to the peer. A TLS transport of asyncio can't be half closed: it
    takes nothing more once either side has ended.
 3. When a transport fails, the bytes left are dropped: the engine's end is closed at once.
 4. The engine's end is never out of sight: while it is not read, it is looked at every LOOK_S. When it has ended, what
    is left of it goes to the transport whether or not the peer reads.
 5. When one side has ended, the transport has SHUTDOWN_S for the rest: a peer that reads nothing would hold it.

It does not know WebSocket frames, and serves a member's transport as well as a relay's.
"""

import asyncio
import contextlib
import select
import socket
from typing import cast

from aiohttp.base_protocol import BaseProtocol

READ_BYTES = 65536
"""Most bytes taken from the engine in one go."""
HIGH_WATER_BYTES = 65536
"""Bytes in the transport's write buffer from which on the engine's end is not read."""
LOOK_S = 0.25
SHUTDOWN_S = 5.0
USER_TIMEOUT_MS = 45_000
"""How long sent bytes may stay unacknowledged before the kernel gives the peer up: as long as a peer of
the engine may be silent."""


def join(transport: asyncio.Transport, tail: bytes = b"") -> int:
    """Take a transport away from aiohttp's client or server, and join it to a new socket.

    aiohttp is told that its connection is lost, and can't close the transport any more.

    Args:
        transport: a TLS transport. It ends when the returned descriptor is closed.
        tail: bytes already read from the peer; they go first.

    Returns:
        a non-blocking stream socket for Engine.adopt(), owned by the caller.

    Raises:
        OSError: a socketpair could not be created; the transport is as before.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    former = cast(BaseProtocol, transport.get_protocol())
    pump = Pump(transport, ours)
    transport.set_protocol(pump)
    # In this order: on a loss aiohttp's server closes the transport that it knows of.
    former.transport = None
    former.connection_lost(None)
    pump.start(tail)
    return theirs.detach()


class Pump(asyncio.Protocol):
    """The transport's protocol since join(). The loop keeps it alive until both sides are closed."""

    def __init__(self, transport: asyncio.Transport, inner: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._inner = inner
        self._waiting = bytearray()
        """From the peer, for the engine's end. The transport is read only while this is empty."""
        self._peer_ended = False
        self._transport_is_lost = False
        self._looking: asyncio.TimerHandle | None = None
        """While the engine's end is not read."""
        self._aborting: asyncio.TimerHandle | None = None
        """Since one side has ended."""
        self._inner_is_broken = False
        """The engine's end takes nothing more; its last bytes may still wait to be read."""

    def start(self, tail: bytes) -> None:
        outer: socket.socket | None = self._transport.get_extra_info("socket")
        # A relay behind a proxy may listen on a Unix socket.
        if outer is not None and outer.family in (socket.AF_INET, socket.AF_INET6):
            outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            outer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        self._loop.add_reader(self._inner, self._read_inner)
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        # The caller of join() paused it.
        self._transport.resume_reading()
        if tail:
            self.data_received(tail)

    # From the peer to the engine.

    def data_received(self, data: bytes) -> None:
        if not self._waiting:
            data = data[self._send(data) :]
            if not data or self._inner_is_broken:
                return
            self._transport.pause_reading()
            self._loop.add_writer(self._inner, self._write_inner)
        self._waiting += data

    def eof_received(self) -> None:
        # The transport closes itself now, so connection_lost() follows.
        self._peer_ended = True
        self._stop_reading_inner()
        self._abort_later()
        if not self._waiting:
            self._end_inner()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport_is_lost = True
        self._stop_reading_inner()
        if self._aborting is not None:
            self._aborting.cancel()
        if exc is not None or not self._waiting:
            self._close_inner()

    def _write_inner(self) -> None:
        del self._waiting[: self._send(self._waiting)]
        if self._inner_is_broken:
            self._waiting.clear()
        if self._waiting:
            return
        self._loop.remove_writer(self._inner)
        if self._transport_is_lost:
            self._close_inner()
            return
        if self._peer_ended:
            self._end_inner()
        self._transport.resume_reading()

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self._inner.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._inner_is_broken = True
            return 0

    # From the engine to the peer.

    def pause_writing(self) -> None:
        self._loop.remove_reader(self._inner)
        self._look()

    def resume_writing(self) -> None:
        self._stop_reading_inner()
        if not self._transport.is_closing() and not self._peer_ended:
            self._loop.add_reader(self._inner, self._read_inner)

    def _look(self) -> None:
        """asyncio can't wait for an end alone, because it is told of it together with bytes."""
        poll = select.poll()
        poll.register(self._inner, select.POLLRDHUP)
        if not poll.poll(0):
            self._looking = self._loop.call_later(LOOK_S, self._look)
            return
        while not self._transport.is_closing():
            self._read_inner()

    def _stop_reading_inner(self) -> None:
        self._loop.remove_reader(self._inner)
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _read_inner(self) -> None:
        try:
            data = self._inner.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            # The engine closed with bytes unread: treated as an EOF.
            data = b""
        if data:
            self._transport.write(data)
            return
        self._loop.remove_reader(self._inner)
        if not self._transport.is_closing():
            self._transport.close()
            self._abort_later()

    # Ends.

    def _abort_later(self) -> None:
        if self._aborting is None:
            self._aborting = self._loop.call_later(SHUTDOWN_S, self._transport.abort)

    def _end_inner(self) -> None:
        with contextlib.suppress(OSError):
            self._inner.shutdown(socket.SHUT_WR)

    def _close_inner(self) -> None:
        self._loop.remove_writer(self._inner)
        self._inner.close()
