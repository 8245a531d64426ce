"""A relay of a few lines on loopback, which answers an upgrade with what a test wants, and attempts to reach it.

    async with listening(answer) as relay ─▶ Dialer(…).dial(), or failure(Dialer(…)) ─▶ echo(upgraded, relay)
    with securing() as (engine, secure)   ─▶ Dialer(…).dial(secure=secure) ─▶ frames_pass(upgraded, engine, relay)

`answer` gets the request's head and returns the bytes to send; what was asked is in `Answering.heads`.
"""

import asyncio
import base64
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from candy._fastpath import Engine
from candy.carrier.secure import Secure
from candy.errors import OperationalError
from candy.member.dial import Dialer, Plain, Upgraded

Answer = Callable[[str], bytes]
SOON_S = 0.5
"""How long an attempt may take that gets no answer, in seconds."""


@pytest.fixture
def no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def header(head: str, name: str) -> str | None:
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(": ")
        if key.lower() == name.lower():
            return value
    return None


def switching(head: str, *extra: str, leave_out: str = "", accept: str | None = None) -> bytes:
    key = header(head, "Sec-WebSocket-Key") or ""
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    lines = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode() if accept is None else accept}",
        *extra,
    ]
    kept = [line for line in lines if not leave_out or not line.startswith(leave_out)]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *kept, "", ""]).encode()


def http(status: str, *headers: str) -> Answer:
    return lambda head: "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 0", *headers, "", ""]).encode()


class Answering:
    """A server that reads the head of a request and sends an answer; the connection stays open."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.heads: list[str] = []
        self.port = 0
        self.alpn: str | None = None
        self.writers: list[asyncio.StreamWriter] = []
        self.peers: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            writer.close()
            return
        self.heads.append(head)
        if tls := writer.get_extra_info("ssl_object"):
            self.alpn = tls.selected_alpn_protocol()
        writer.write(self.answer(head))
        await self.peers.put((reader, writer))


@asynccontextmanager
async def listening(answer: Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[Answering]:
    relay = Answering(answer)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", 0, ssl=context) as server:
        relay.port = server.sockets[0].getsockname()[1]
        yield relay
        for writer in relay.writers:
            writer.transport.abort()


@contextmanager
def securing() -> Iterator[tuple[Engine, Secure]]:
    """An engine for attempts over TLS, whose events are read while the loop runs."""
    engine = Engine(max_guests=8)
    engine.add_network()
    secure = Secure(engine)
    loop = asyncio.get_running_loop()
    loop.add_reader(engine.fileno(), lambda: [secure.on_event(*event) for event in engine.events()])
    try:
        yield engine, secure
    finally:
        loop.remove_reader(engine.fileno())
        engine.stop()


async def failure(dialer: Dialer, attempt_s: float = 10.0) -> str:
    """Why the attempt fails, without the URL."""
    with securing() as (_, secure), pytest.raises(OperationalError) as caught:
        await dialer.dial(attempt_s, secure=secure)
    text = str(caught.value)
    assert text.startswith(f"{dialer.relay}: ")
    assert "\n" not in text
    return text.removeprefix(f"{dialer.relay}: ")


def plain(upgraded: Upgraded) -> Plain:
    assert isinstance(upgraded.carrier, Plain)
    return upgraded.carrier


async def frames_pass(upgraded: Upgraded, engine: Engine, relay: Answering) -> None:
    """A connection with TLS, once the engine has it."""
    reader, writer = await relay.peers.get()
    with upgraded.outer:
        connection = upgraded.hand_over(engine, None)
        assert engine.ping(connection, b"ping")
        assert (await reader.readexactly(2 + 4 + 4))[:2] == b"\x89\x84"
        assert engine.close(connection)
        assert await reader.read() == b""
    writer.close()


async def echo(upgraded: Upgraded, relay: Answering) -> None:
    """Bytes pass both ways, and no end was sent: neither by us nor by what aiohttp closed."""
    loop = asyncio.get_running_loop()
    reader, writer = await relay.peers.get()
    with upgraded.outer, socket.socket(fileno=plain(upgraded).fd) as mine:
        mine.setblocking(False)
        await loop.sock_sendall(mine, b"ping")
        assert await reader.readexactly(4) == b"ping"
        writer.write(b"pong")
        assert await loop.sock_recv(mine, 100) == b"pong"
        assert not reader.at_eof()
    assert await reader.read() == b""
    writer.close()
