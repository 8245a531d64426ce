"""The relay's half of the WebSocket handshake (RFC 6455, section 4.2), and the way out of aiohttp for its socket.

    request ──check──▶ refusal, foreign, no_such_network, not_alone: an ordinary response
               └─────▶ hand_over(): bytes read ahead, a duplicate of the descriptor ──▶ Engine.adopt ──▶ 101
                                    of a guest of the engine's, with TLS, nothing ──▶ Engine.upgrade ──▶ 101

Rules:
 1. From set_parser() to the return of hand_over() nothing awaits, so no byte can arrive in between.
 2. The engine writes the 101, so that no frame can reach the peer before it.
 3. aiohttp closes its own descriptor. The duplicate lives on, so no FIN is sent. A guest's was a socket to the engine,
    which has held back what follows the request.

It knows neither sessions nor passwords.
"""

import base64
import binascii
import os
import re
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from candy._fastpath import CANDY3, Engine
from candy.carrier.handover import (
    INSTANCE,
    KEYS_ALONE,
    OLD_HTTP,
    RELAY_DEAD_AFTER_S,
    RELAY_FULL,
    RELAY_PING_AFTER_S,
    RELAY_SUBPROTOCOL,
    accept_for,
)
from candy.protocol.wire import SEALING_SUBPROTOCOL, SUBPROTOCOL
from candy.relay.login import LogIn


def refusal(request: web.BaseRequest) -> web.Response | None:
    """Why this request is not upgraded, as the response to send, or None for a sound one."""
    headers = request.headers
    if not _has_token(request, "Upgrade", "websocket") or not _has_token(request, "Connection", "upgrade"):
        return _refuse(426, "This is a candy relay: join it with a candy client.", Upgrade="websocket")
    if headers.get("Sec-WebSocket-Version") != "13":
        return _refuse(426, "Only WebSocket version 13 is spoken here.", **{"Sec-WebSocket-Version": "13"})
    if request.method != "GET" or request.version < (1, 1):
        return _refuse(400, OLD_HTTP.removesuffix("\n"))
    # A body would be taken for frames, and a 100 would be sent between the request and the 101.
    if request.body_exists or "Transfer-Encoding" in headers or "Expect" in headers:
        return _refuse(400, "An upgrade has no body and no Expect.")
    if not _is_key(headers.get("Sec-WebSocket-Key", "")):
        return _refuse(400, "Sec-WebSocket-Key is not the base64 of 16 bytes.")
    return None


def foreign_origin(request: web.BaseRequest, allowed: Collection[str]) -> str | None:
    """The Origin of a request that a web page makes, unless it is allowed; None without one. A browser lets any page
    connect anywhere, to this machine and its neighbours too, and names the page here. candy's members name nothing."""
    origins = request.headers.getall("Origin", ())
    return None if all(origin in allowed for origin in origins) else ", ".join(origins)


def foreign() -> web.Response:
    """The response to a request with a foreign Origin."""
    return _refuse(403, "A web page may join only if --allow-origin names its origin.")


def no_such_network() -> web.Response:
    """The response to a sound request for a path without a network."""
    return _refuse(404, "There is no network at this path.")


def offered(request: web.BaseRequest) -> tuple[str, ...]:
    """The subprotocols of a request, in its order."""
    headers = request.headers.getall("Sec-WebSocket-Protocol", ())
    return tuple(token for header in headers for word in header.split(",") if (token := word.strip()))


def is_link(request: web.BaseRequest) -> bool:
    """Whether another relay of a cluster dials this one."""
    return RELAY_SUBPROTOCOL in offered(request)


def too_old() -> web.Response:
    """The response to a sound request of an old client, where those are not admitted."""
    return _refuse(403, KEYS_ALONE.removesuffix("\n"))


def full() -> web.Response:
    """The response to a sound request for which the engine has no connection left. It ends the HTTP connection: its
    parser is gone, so a further request would be swallowed."""
    return _refuse(503, RELAY_FULL.removesuffix("\n"))


def not_alone() -> web.Response:
    """The response to a request whose connection has ended, or has answers to earlier requests left to write."""
    return _refuse(400, "An upgrade waits for the answers to earlier requests.")


def hand_over(
    request: web.BaseRequest, engine: Engine, network: int | None, guest: int | None = None, log_in: LogIn | None = None
) -> tuple[int, "HandedOver"]:
    """Give the socket of a sound request to the engine.

    Args:
        network: the engine's number; None: it is a link of another relay's.
        guest: the engine's connection that the request came by; None: by a socket of aiohttp's own.
        log_in: with a key, which chooses candy.3; None: that is not offered, or there are no keys.

    Returns:
        the connection, and the response to return to aiohttp, which writes nothing and ends aiohttp's part.

    Raises:
        ConnectionError: the connection has ended, or is not idle: not_alone() is the answer.
        OSError: the engine or the kernel refused; nothing was written, and aiohttp still owns the socket.
    """
    extended = log_in is not None or SUBPROTOCOL in offered(request)
    transport = request.transport
    # The peer has left, or it pipelined requests and has not read the answers.
    if transport is None or transport.is_closing() or transport.get_write_buffer_size() != 0:
        raise ConnectionError("the connection is gone, or not idle")
    tail = _Tail()
    # In this order: set_parser() may resume reading.
    request.protocol.set_parser(tail)  # type: ignore[arg-type]
    transport.pause_reading()
    further = {"Sec-WebSocket-Protocol": SUBPROTOCOL} if extended else {}
    if log_in is not None:
        further = {"Sec-WebSocket-Protocol": SEALING_SUBPROTOCOL, **log_in.shown.headers()}
    if network is None:
        further = {"Sec-WebSocket-Protocol": RELAY_SUBPROTOCOL}
    preamble = _switching(request.headers["Sec-WebSocket-Key"], further)
    handed_over = HandedOver(extended, _instance(request))
    extension = int(extended) if log_in is None else CANDY3
    trunk = network is None
    ping_after, dead_after = (RELAY_PING_AFTER_S, RELAY_DEAD_AFTER_S) if trunk else (None, None)
    if guest is not None:
        if not engine.upgrade(
            guest,
            network=network or 0,
            extended=extension,
            trunk=trunk,
            preamble=preamble,
            ping_after=ping_after,
            dead_after=dead_after,
        ):
            raise ConnectionError("the connection is gone")
        return guest, handed_over
    with ExitStack() as undo:
        fd = os.dup(transport.get_extra_info("socket").fileno())
        undo.callback(os.close, fd)
        connection = engine.adopt(
            fd,
            network=network or 0,
            extended=extension,
            trunk=trunk,
            preamble=preamble,
            tail=tail.received,
            ping_after=ping_after,
            dead_after=dead_after,
        )
        undo.pop_all()
    return connection, handed_over


class HandedOver(web.StreamResponse):
    """aiohttp's response for a connection that the engine owns: it writes nothing, and ends aiohttp's part.

    Args:
        extended: candy.2 was agreed on, or candy.3, which contains it.
        instance: the number that the program has for itself; 0: none.
    """

    def __init__(self, extended: bool, instance: int) -> None:
        super().__init__(status=101)
        self.extended = extended
        self.instance = instance
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        pass


def _switching(key: str, further: Mapping[str, str]) -> bytes:
    """The 101 response, with further headers."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_for(key)}",
        *(f"{name}: {value}" for name, value in further.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _instance(request: web.BaseRequest) -> int:
    text = request.headers.get(INSTANCE, "")
    return int(text, 16) if re.fullmatch(r"[0-9a-f]{16}", text) else 0


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text.strip(), validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _has_token(request: web.BaseRequest, name: str, token: str) -> bool:
    return any(word.strip().lower() == token for value in request.headers.getall(name, ()) for word in value.split(","))


def _refuse(status: int, text: str, **headers: Any) -> web.Response:
    response = web.Response(status=status, text=text + "\n", headers=headers)
    response.force_close()
    return response


class _Tail:
    """Stands in for aiohttp's WebSocket parser: keeps the bytes that arrived behind the handshake."""

    def __init__(self) -> None:
        self._received = bytearray()

    @property
    def received(self) -> bytes:
        return bytes(self._received)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._received += data
        return False, b""

    def feed_eof(self) -> None:
        """The engine, which reads the socket next, sees the EOF itself."""
