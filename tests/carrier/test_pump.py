"""Real TLS on loopback for what has to arrive, and a transport that only takes notes for when it may be read.

`peer` is the far end of the TLS connection, `inner` the socket that an engine would get.
"""

import asyncio
import contextlib
import errno
import random
import select
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trustme
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from kit.peer import PATIENCE

from candy._fastpath import Engine
from candy.carrier import pump
from candy.relay import upgrade


class Former(BaseProtocol):
    """The former protocol of the transport."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self.losses: list[BaseException | None] = []

    def connection_lost(self, exc: BaseException | None) -> None:
        self.losses.append(exc)
        # As aiohttp's server does.
        if self.transport is not None:
            self.transport.close()
        super().connection_lost(exc)


@pytest.fixture(scope="module")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


class Joined:
    """A TLS connection with a pump at our end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.transport: asyncio.Transport
        self.former: Former
        self.inner: socket.socket

    def join(self, tail: bytes) -> None:
        self.inner = socket.socket(fileno=pump.join(self.transport, tail))

    async def read_inner(self, count: int) -> bytes:
        """Exactly count bytes, or less at the end of the stream."""
        loop, received = asyncio.get_running_loop(), bytearray()
        while len(received) < count:
            data = await loop.sock_recv(self.inner, count - len(received))
            if not data:
                break
            received += data
        return bytes(received)


@asynccontextmanager
async def connected(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, tail: bytes = b"") -> AsyncIterator[Joined]:
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = loop.create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result((reader, writer))

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=server_tls) as server:
        host, port = server.sockets[0].getsockname()
        transport, former = await loop.create_connection(Former, host, port, ssl=client_tls, ssl_shutdown_timeout=1.0)
        joined = Joined(*await accepted)
        joined.transport, joined.former = transport, former
        joined.join(tail)
        yield joined
        joined.inner.close()
        joined.writer.transport.abort()
        # Both ends notice; what is still open now would be a ResourceWarning.
        while not transport.is_closing() or transport.get_extra_info("socket") is not None:
            await asyncio.sleep(0)


@pytest.fixture
async def joined(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> AsyncIterator[Joined]:
    async with connected(server_tls, client_tls) as joined:
        yield joined


async def test_bytes_pass_both_ways(joined: Joined) -> None:
    joined.writer.write(b"from the peer")
    assert await joined.read_inner(13) == b"from the peer"
    joined.inner.send(b"to the peer")
    assert await joined.reader.readexactly(11) == b"to the peer"


async def test_the_former_owner_is_out(joined: Joined) -> None:
    assert joined.former.losses == [None]
    assert joined.former.transport is None
    assert not joined.transport.is_closing()


async def test_options_of_the_outer_socket(joined: Joined) -> None:
    outer = joined.transport.get_extra_info("socket")
    assert outer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert outer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert outer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 45_000


async def test_much_in_both_directions_at_once(joined: Joined) -> None:
    loop = asyncio.get_running_loop()
    size = 8 << 20
    inwards, outwards = random.Random(1).randbytes(size), random.Random(2).randbytes(size)

    async def peer_writes() -> None:
        joined.writer.write(inwards)
        await joined.writer.drain()

    _, _, got_inner, got_peer = await asyncio.gather(
        peer_writes(),
        loop.sock_sendall(joined.inner, outwards),
        joined.read_inner(size),
        joined.reader.readexactly(size),
    )
    assert got_inner == inwards
    assert got_peer == outwards


async def test_the_end_comes_after_everything_from_the_peer(joined: Joined) -> None:
    sent = random.Random(3).randbytes(2 << 20)
    joined.writer.write(sent)
    joined.writer.close()
    # One byte more than there is: reading stops at the end of the stream.
    assert await joined.read_inner(len(sent) + 1) == sent


async def test_the_end_comes_after_everything_from_the_engine(joined: Joined) -> None:
    sent = random.Random(4).randbytes(2 << 20)
    received = asyncio.create_task(joined.reader.read())
    await asyncio.get_running_loop().sock_sendall(joined.inner, sent)
    joined.inner.close()
    assert await received == sent


async def test_the_engine_ends_its_writing_only(joined: Joined) -> None:
    joined.inner.send(b"last words")
    joined.inner.shutdown(socket.SHUT_WR)
    assert await joined.reader.read() == b"last words"
    joined.writer.close()
    assert await joined.read_inner(1) == b""


async def test_the_engine_closes_with_bytes_unread(joined: Joined) -> None:
    loop = asyncio.get_running_loop()
    joined.writer.write(b"never read")
    while not select.select([joined.inner], [], [], 0)[0]:
        await asyncio.sleep(0)
    await loop.sock_sendall(joined.inner, b"last words")
    joined.inner.close()
    assert await joined.reader.read() == b"last words"


async def test_the_engine_closes_while_bytes_wait_for_it(joined: Joined) -> None:
    joined.writer.write(bytes(4 << 20))
    while joined.transport.is_reading():
        await asyncio.sleep(0)
    joined.inner.close()
    ended = asyncio.create_task(joined.reader.read())
    await asyncio.wait([ended])
    # Closing with bytes unread is a reset to TCP.
    assert isinstance(ended.exception(), ConnectionResetError) or ended.result() == b""


async def test_a_reset_ends_the_engine_side(joined: Joined) -> None:
    joined.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    joined.writer.transport.abort()
    assert await joined.read_inner(1) == b""


async def test_the_tail_goes_first(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with connected(server_tls, client_tls, tail=b"read before, ") as joined:
        joined.writer.write(b"read after")
        assert await joined.read_inner(23) == b"read before, read after"


async def test_aiohttp_server(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """The other side's use: behind the request of an aiohttp server, which then stops without waiting for it."""
    inner = socket.socket()

    class Taker:
        def adopt(self, fd: int, *, preamble: bytes, tail: bytes, **_: object) -> int:
            nonlocal inner
            inner.close()
            inner = socket.socket(fileno=fd)
            inner.send(preamble)
            assert tail == b""
            return 1

    async def handle(request: web.Request) -> web.StreamResponse:
        assert upgrade.refusal(request) is None
        return upgrade.hand_over(request, cast(Engine, Taker()), 0)[1]

    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    reader, writer = await asyncio.open_connection(host, port, ssl=client_tls)
    request = (
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    writer.write(request.encode() + b"behind")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    loop = asyncio.get_running_loop()
    assert await loop.sock_recv(inner, 100) == b"behind"
    await runner.cleanup()
    await loop.sock_sendall(inner, b"still there")
    assert await reader.readexactly(11) == b"still there"
    inner.close()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


class Notes(asyncio.Transport):
    """A transport that takes notes of what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.BaseProtocol = Former()
        self.reading = True
        self.closing = False
        self.aborted = asyncio.Event()
        self.written = b""
        self.lost = False

    def lose(self, exc: Exception | None) -> None:
        self.lost = True
        pump_of(self).connection_lost(exc)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == pump.HIGH_WATER_BYTES

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        assert not self.closing
        self.closing = True

    def abort(self) -> None:
        self.aborted.set()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data


@pytest.fixture
async def notes() -> Notes:
    return Notes()


@pytest.fixture
async def inner(notes: Notes) -> AsyncIterator[socket.socket]:
    with socket.socket(fileno=pump.join(notes)) as inner:
        yield inner
        if not notes.lost:
            notes.lose(OSError())


def pump_of(notes: Notes) -> pump.Pump:
    assert isinstance(notes.protocol, pump.Pump)
    return notes.protocol


async def fill(notes: Notes) -> bytes:
    """Feed it until it says stop; what it was fed."""
    fed = b""
    while notes.reading:
        chunk = bytes([len(fed) % 251]) * 10_000
        pump_of(notes).data_received(chunk)
        fed += chunk
    return fed


async def test_reading_stops_when_the_engine_is_slow_and_goes_on_later(notes: Notes, inner: socket.socket) -> None:
    fed = await fill(notes)
    # What asyncio had decrypted already still comes.
    pump_of(notes).data_received(b"more")
    fed += b"more"
    received = b""
    while not notes.reading:
        received += await asyncio.get_running_loop().sock_recv(inner, 1000)
    inner.setblocking(False)
    while len(received) < len(fed):
        received += inner.recv(len(fed))
    assert received == fed


async def test_the_engine_is_not_read_while_writing_is_paused(notes: Notes, inner: socket.socket) -> None:
    pump_of(notes).pause_writing()
    inner.setblocking(False)
    while select.select([], [inner], [], 0)[1]:
        inner.send(bytes(10_000))
    for _ in range(3):
        await asyncio.sleep(0)
    assert notes.written == b""
    pump_of(notes).resume_writing()
    while not notes.written:
        await asyncio.sleep(0)
    assert len(notes.written) <= pump.READ_BYTES


async def test_what_waits_is_delivered_after_a_clean_loss(notes: Notes, inner: socket.socket) -> None:
    fed = await fill(notes)
    pump_of(notes).eof_received()
    notes.lose(None)
    received = b""
    while data := await asyncio.get_running_loop().sock_recv(inner, 65536):
        received += data
    assert received == fed


async def test_what_waits_is_dropped_after_an_error(notes: Notes, inner: socket.socket) -> None:
    fed = await fill(notes)
    notes.lose(OSError(errno.ETIMEDOUT, "timed out"))
    received = 0
    while data := inner.recv(65536):
        received += len(data)
    assert received < len(fed)


async def test_an_engine_that_is_gone_frees_what_waits(notes: Notes, inner: socket.socket) -> None:
    await fill(notes)
    inner.shutdown(socket.SHUT_RDWR)
    while not (notes.reading and notes.closing):
        await asyncio.sleep(0)


async def test_no_socketpair_leaves_the_transport_as_it_was(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", refuse)
    former = notes.protocol
    with pytest.raises(OSError, match="Too many"):
        pump.join(notes)
    assert notes.protocol is former
    assert isinstance(former, Former)
    assert former.losses == []


async def test_an_engine_that_ends_while_writing_is_paused(notes: Notes, inner: socket.socket) -> None:
    """The peer reads nothing: what the engine said last is passed on, and the rest of the time is short."""
    pump_of(notes).pause_writing()
    inner.send(b"last words")
    inner.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(PATIENCE):
        while not notes.closing:
            await asyncio.sleep(0)
    assert notes.written == b"last words"


async def test_an_engine_that_ends_later_while_writing_is_paused(
    notes: Notes, inner: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "LOOK_S", 0.0)
    pump_of(notes).pause_writing()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not notes.closing
    inner.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(PATIENCE):
        while not notes.closing:
            await asyncio.sleep(0)


async def test_nothing_is_looked_at_once_the_transport_is_lost(notes: Notes, inner: socket.socket) -> None:
    pump_of(notes).pause_writing()
    looking = pump_of(notes)._looking
    assert looking is not None
    notes.lose(None)
    assert looking.cancelled()


@pytest.mark.parametrize("side", ["engine", "peer"])
async def test_a_transport_that_does_not_end_is_aborted(
    notes: Notes, inner: socket.socket, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "SHUTDOWN_S", 0.0)
    if side == "engine":
        inner.shutdown(socket.SHUT_WR)
    else:
        pump_of(notes).eof_received()
    await asyncio.wait_for(notes.aborted.wait(), PATIENCE)


async def test_a_peer_that_reads_nothing_does_not_outlive_the_engine(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over real TLS, with all buffers full."""
    monkeypatch.setattr(pump, "SHUTDOWN_S", 0.0)
    peer = joined.writer.transport
    assert isinstance(peer, asyncio.Transport)
    peer.pause_reading()
    joining = joined.transport.get_protocol()
    assert isinstance(joining, pump.Pump)
    while joining._looking is None:
        with contextlib.suppress(BlockingIOError):
            joined.inner.send(bytes(10_000))
        await asyncio.sleep(0)
    joined.inner.close()
    async with asyncio.timeout(PATIENCE):
        while not joining._transport_is_lost:
            await asyncio.sleep(0)
