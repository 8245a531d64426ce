"""Heads of HTTP/1.1 in literal bytes, whole and byte by byte, and what is none."""

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence

import pytest
from lab.programs import PATIENCE_S

from candy.carrier import http1
from candy.carrier.http1 import HEAD_BYTES, HEADS_MOST, Answer, Ended, NotHttp

Pair = tuple[socket.socket, socket.socket]
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Ours doesn't block."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(PATIENCE_S)
    with ours, theirs:
        yield ours, theirs


def whole(sent: bytes) -> Sequence[bytes]:
    return [sent]


def byte_by_byte(sent: bytes) -> Sequence[bytes]:
    return [sent[at : at + 1] for at in range(len(sent))]


async def say(peer: socket.socket, pieces: Sequence[bytes]) -> None:
    """Each is read before the next is sent."""
    for piece in pieces:
        peer.send(piece)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def ask(pair: Pair, pieces: Sequence[bytes], fields: dict[str, str] | None = None) -> Answer:
    ours, theirs = pair
    asked = asyncio.create_task(http1.ask(ours, "relay.test", "/a?b=c", fields or {"Upgrade": "websocket"}))
    await say(theirs, pieces)
    return await asyncio.wait_for(asked, PATIENCE_S)


async def test_the_request(pair: Pair) -> None:
    await ask(pair, [SWITCHING], {"Upgrade": "websocket", "X-Name": "a value"})
    assert pair[1].recv(4096) == (
        b"GET /a?b=c HTTP/1.1\r\nHost: relay.test\r\nUpgrade: websocket\r\nX-Name: a value\r\n\r\n"
    )


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@pytest.mark.parametrize(
    "interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"]
)
async def test_a_101_and_what_follows(pair: Pair, interim: bytes, cut: Callable[[bytes], Sequence[bytes]]) -> None:
    answer = await ask(pair, [*cut(interim + SWITCHING)[:-1], cut(interim + SWITCHING)[-1] + b"\x82\x00behind"])
    assert (answer.status, answer.line) == (101, "101 Switching Protocols")
    assert answer.behind == b"\x82\x00behind"
    # What comes later stays in the socket.
    pair[1].send(b"later")
    assert pair[0].recv(100) == b"later"


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nhello, this is more", b"hello"),
        (b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nno number\r\n", b"hello"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 304 Forbidden\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n" + b"x" * 5000, b"x" * 4096),
    ],
)
async def test_bodies(pair: Pair, sent: bytes, body: bytes, cut: Callable[[bytes], Sequence[bytes]]) -> None:
    head, end, rest = sent.partition(b"\r\n\r\n")
    answer = await ask(pair, cut(head + end))
    assert (answer.status, answer.line) == (int(head[9:12]), head[9:].decode().partition("\r")[0])
    reading = asyncio.create_task(answer.body(4096, PATIENCE_S))
    pair[1].sendall(rest)
    pair[1].shutdown(socket.SHUT_WR)
    assert await reading == body


async def test_a_body_that_does_not_end(pair: Pair) -> None:
    answer = await ask(pair, [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nhello"])
    assert await answer.body(4096, 0.05) == b"hello"


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTPS",
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"HTTP/1.1 x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * HEADS_MOST,
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_BYTES,
    ],
)
async def test_answers_that_are_not_http(pair: Pair, sent: bytes, cut: Callable[[bytes], Sequence[bytes]]) -> None:
    """Known at once: the peer says no more, and doesn't hang up."""
    with pytest.raises(NotHttp):
        await ask(pair, cut(sent))


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nX", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_an_end_instead_of_an_answer(pair: Pair, sent: bytes) -> None:
    pair[1].sendall(sent)
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(Ended):
        await ask(pair, [])


@pytest.mark.parametrize(("sent", "status"), [(b"HTTP/1.1 200 OK", 200), (b"HTTP/1.0 204", 204)])
async def test_a_tunnel(pair: Pair, sent: bytes, status: int) -> None:
    """What follows a 2xx is not of HTTP, whatever its fields say."""
    ours, theirs = pair
    theirs.send(sent + b"\r\nContent-Length: 5\r\n\r\nbytes")
    answer = await http1.ask(ours, "relay.test:80", "relay.test:80", {}, method="CONNECT")
    assert theirs.recv(4096) == b"CONNECT relay.test:80 HTTP/1.1\r\nHost: relay.test:80\r\n\r\n"
    assert (answer.status, answer.behind) == (status, b"bytes")
