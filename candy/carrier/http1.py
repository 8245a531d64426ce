"""A request of HTTP/1.1 and its answer, up to an upgrade, over a socket that does not block. What a head is, h11 says.

    ask() ─▶ Answer, with what came behind a 101 │ of any other Answer.body()

Rules:
 1. One request to a connection: behind an answer that is not a 101 it ends.
 2. A head has HEAD_BYTES at most. Of a body no more is read than is asked for.
 3. Nothing is read unless it is asked for: what follows an upgrade is in `behind`, or in the socket still.

This module knows no WebSocket. A relay's half is aiohttp's (candy.relay.upgrade).
"""

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import h11

HEAD_BYTES: Final = 16384
"""Of a head, with all of its fields."""
HEADS_MOST: Final = 8
"""Of an answer, with the interim ones before it."""
_READ_BYTES: Final = 16384
_BEGINS: Final = b"HTTP/"


class Ended(Exception):
    """The peer has ended the connection before its head was there."""


class NotHttp(Exception):
    """What came is no head of HTTP/1."""


class Fields:
    """The fields of a head, by names in any case. Values are text in UTF-8, with surrogates for what is none."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            values = self._values.setdefault(name.decode("ascii").lower(), [])
            values.append(value.decode("utf-8", "surrogateescape"))

    def all(self, name: str) -> Sequence[str]:
        """The values of a field that may come several times, in their order."""
        return self._values.get(name.lower(), ())

    def get(self, name: str) -> str | None:
        """The first value; None: there is no such field."""
        return next(iter(self.all(name)), None)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values


class Answer:
    """The head of an answer, of any final status or 101, and what follows."""

    def __init__(self, opened: socket.socket, parser: h11.Connection, head: h11.Response | h11.InformationalResponse):
        self._opened = opened
        self._parser = parser
        self.status = head.status_code
        self.line = f"{head.status_code} {head.reason.decode('latin-1')}".rstrip()
        """Status and reason: `404 Not Found`."""
        self.fields = Fields(head.headers)

    @property
    def behind(self) -> bytes:
        """The bytes that came with a 101, or with the 2xx of a CONNECT."""
        return self._parser.trailing_data[0]

    async def body(self, size: int, within_s: float) -> bytes:
        """The beginning of a body: `size` bytes, or what comes within that many seconds before it ends in any way."""
        body = b""
        try:
            async with asyncio.timeout(within_s):
                while len(body) < size and not isinstance(event := await _next(self._opened, self._parser), _OVER):
                    body += event.data if isinstance(event, h11.Data) else b""
        except (OSError, h11.RemoteProtocolError):
            # Also a TimeoutError, which is an OSError.
            pass
        return body[:size]


_OVER: Final = (h11.EndOfMessage, h11.ConnectionClosed)


async def ask(opened: socket.socket, host: str, target: str, fields: Mapping[str, str], method: str = "GET") -> Answer:
    """Send a request, and await its answer; interim ones other than 101 are passed over.

    Args:
        host: as in the URL, with the port unless that is the scheme's.
        target: path and query; of a CONNECT host and port.

    Raises:
        Ended: the peer hung up.
        NotHttp: it said something else.
        OSError: the connection was lost.
    """
    parser = h11.Connection(h11.CLIENT, HEAD_BYTES)
    head = h11.Request(method=method, target=target, headers=[("Host", host), *fields.items()])
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(opened, (parser.send(head) or b"") + (parser.send(h11.EndOfMessage()) or b""))
    try:
        for _ in range(HEADS_MOST):
            event = await _next(opened, parser, _BEGINS)
            assert isinstance(event, h11.Response | h11.InformationalResponse)
            if event.status_code >= 200 or event.status_code == 101:
                return Answer(opened, parser, event)
    except h11.RemoteProtocolError as error:
        if parser.trailing_data[1]:
            # What it complains of is the end.
            raise Ended from error
        raise NotHttp(str(error)) from error
    raise NotHttp("interim answers alone")


async def _next(opened: socket.socket, parser: h11.Connection, begins: bytes = b"") -> h11.Event:
    """Raises RemoteProtocolError: that is no HTTP, or what comes first does not begin like this."""
    while (event := parser.next_event()) is h11.NEED_DATA:
        received = await asyncio.get_running_loop().sock_recv(opened, _READ_BYTES)
        if begins and received and not begins.startswith((parser.trailing_data[0] + received)[: len(begins)]):
            # h11 waits for the end of a head, which another protocol may never send.
            raise h11.RemoteProtocolError("another protocol")
        parser.receive_data(received)
    assert isinstance(event, h11.Event)
    return event
