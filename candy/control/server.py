"""The control interface: HTTP with JSON, over a UNIX socket and over TCP, in front of a side that answers.

    UNIX socket ── who: its peer's uid ─┐                        ┌─▶ a method of the side ─▶ JSON
    TCP ────────── who: a token's name ─┼─▶ call, parameters ────┼─▶ GET /v1/openapi.json
    --metrics ──── nobody in particular ┘                        ├─▶ GET /metrics
                                                                 └─▶ GET /: the page (candy.control.webpage), over TCP

Rules:
 1. Who may open the UNIX socket may ask; over TCP a request needs a token, but for the page's files. Metrics at an
    address of their own need none, and nothing else is answered there.
 2. What changes something is logged with who asked, also when it is refused.
 3. An answer is a shape of candy.control.model, or Lists of one, or a Stream; a refusal is a Problem.

This module does not know what a call does, nor where it is asked: candy.control.serving does.
"""

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, closing, suppress
from contextvars import ContextVar
from dataclasses import asdict
from functools import cache, partial
from typing import Any

from aiohttp import web
from aiohttp.log import server_logger
from aiohttp.typedefs import Handler
from pydantic import TypeAdapter, ValidationError

from candy.control.calls import MEMBER, RELAY, Call, Parameter
from candy.control.document import document
from candy.control.escape import shown
from candy.control.lists import Lists
from candy.control.model import Problem
from candy.control.paths import VERSION
from candy.control.serving import Answering
from candy.control.sockets import SERVER, Side
from candy.control.streams import Stream
from candy.control.visitors import Visitors
from candy.control.webpage import Page
from candy.errors import RequestError

METRICS_PATH = "/metrics"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""
ENDING_S = 1.0
"""How long requests may take once the program ends."""
BODY_BYTES = 65536

CALLS: Mapping[Side, Sequence[Call]] = {"relay": RELAY, "member": MEMBER}

_WHO: ContextVar[str] = ContextVar("who")
"""Who asks, for the log."""

log = logging.getLogger("candy.control")


async def serve(stack: AsyncExitStack, application: web.Application, opened: socket.socket) -> None:
    """Serve an application on a socket, which is closed with the stack."""
    stack.callback(opened.close)
    # aiohttp's own logger is silent here, for strangers can make it speak; who may open the UNIX socket may see a bug.
    logger = log if opened.family == socket.AF_UNIX else server_logger
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=ENDING_S, logger=logger)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, opened).start()


class Desk:
    """The calls of one side, for those who come by one kind of socket.

    Args:
        visitors: who may ask; None: everybody who could open the socket.
    """

    def __init__(self, answering: Answering, visitors: Visitors | None = None) -> None:
        self._methods = answering.methods
        self._visitors = visitors
        self._page = None if visitors is None or not answering.has_page else Page()
        self._server = SERVER.format(answering.side)
        self.application = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES)
        self.application.on_response_prepare.append(self._sign)
        add = self.application.router.add_route
        for call in CALLS[answering.side]:
            add(call.method, call.path, partial(self._answer, call))
        add("GET", f"{VERSION}/openapi.json", partial(_document, answering))
        if answering.metrics is not None:
            add("GET", METRICS_PATH, partial(_scrape, answering.metrics))
        if visitors is not None and self._page is not None:
            visitors.add_to(self.application.router)
            self._page.add_to(self.application.router)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in who may ask, and have every refusal be a Problem."""
        try:
            if self._page is None or request.path not in self._page:
                _WHO.set(self._who(request))
            return await handler(request)
        except RequestError as error:
            return _problem(str(error), error.status)
        except web.HTTPException as error:
            return _problem(_explain(error), error.status)

    async def _sign(self, request: web.Request, response: web.StreamResponse) -> None:
        """Name the side, and no versions."""
        response.headers["Server"] = self._server
        if self._page is not None:
            self._page.sign(response)

    def _who(self, request: web.Request) -> str:
        """Who asks, for the log. Raises RequestError: he may not."""
        if self._visitors is None:
            assert request.transport is not None
            return _peer(request.transport.get_extra_info("socket"))
        return f"token {shown(self._visitors.whose(request).name)}"

    async def _answer(self, call: Call, request: web.Request) -> web.StreamResponse:
        if not call.changes:
            answer = await self._do(call, await _given(call, request))
            return await _stream(answer, request) if isinstance(answer, Lists) else _json(call.answer, answer)
        given = await _given(call, request)
        asked = f"{_told(call, given)}, asked for by {_WHO.get()}"
        try:
            answer = await self._do(call, given)
        except RequestError as error:
            log.warning("%s: not done: %s", asked, error)
            raise
        log.info("%s: done", asked)
        return await _pour(answer, request) if isinstance(answer, Stream) else _json(call.answer, answer)

    async def _do(self, call: Call, given: Mapping[str, Any]) -> object:
        method: Callable[..., Awaitable[object]] = getattr(self._methods, call.name)
        return await method(**given)


def metrics_alone(metrics: Callable[[], bytes]) -> web.Application:
    application = web.Application()
    application.on_response_prepare.append(_hide_versions)
    application.router.add_get(METRICS_PATH, partial(_scrape, metrics))
    return application


async def _scrape(metrics: Callable[[], bytes], request: web.Request) -> web.Response:
    # aiohttp takes the charset apart from the type.
    return web.Response(body=metrics(), headers={"Content-Type": METRICS_TYPE})


async def _document(answering: Answering, request: web.Request) -> web.Response:
    # Made when it is asked for, which it seldom is: it takes a megabyte. And it takes a while, hence the thread.
    written = await asyncio.to_thread(document, answering.side, CALLS[answering.side])
    return web.Response(body=json.dumps(written).encode(), content_type="application/json")


async def _hide_versions(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)


def _peer(connected: socket.socket) -> str:
    """The process at the other end (SO_PEERCRED, unix(7)): as it was when it connected."""
    pid, uid, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"uid {uid} (pid {pid})"


async def _given(call: Call, request: web.Request) -> dict[str, Any]:
    """What a request says, by the names of the method's arguments.

    Raises:
        RequestError: it says what it can't, or not what it has to.
    """
    known = {parameter.name: parameter for parameter in call.parameters}
    if unknown := request.query.keys() - known.keys():
        raise RequestError(f"{shown(min(unknown))} is not a parameter of {call.name}", 400)
    given: dict[str, Any] = {}
    for name, parameter in known.items():
        text = (request.match_info if parameter.place == "path" else request.query).get(name)
        if text is not None:
            given[name] = _parsed(parameter, text)
        elif parameter.default is not None:
            given[name] = parameter.default
    if call.body is not None:
        given["body"] = _validated(call.body, await _body(request), "the body")
    return given


async def _body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except ConnectionError:
        raise RequestError("the request was cut off", 400) from None


def _told(call: Call, given: Mapping[str, Any]) -> str:
    """What was asked, for the log: `kick laptop, network /home`."""
    said = dict(given)
    if (body := said.pop("body", None)) is not None:
        said |= {name: value for name, value in asdict(body).items() if value is not None}
    in_path = [said.pop(parameter.name) for parameter in call.parameters if parameter.place == "path"]
    more = [f"{name} {value}" for name, value in said.items()]
    return ", ".join([" ".join([call.name, *(shown(str(value)) for value in in_path)]), *map(shown, more)])


def _parsed(parameter: Parameter, text: str) -> Any:
    try:
        return TypeAdapter(parameter.kind).validate_python(text)
    except ValidationError as error:
        raise RequestError(f"{parameter.name}: {_first(error)}", 400) from None


def _validated(kind: type, body: bytes, what: str) -> object:
    try:
        return TypeAdapter(kind).validate_json(body)
    except ValidationError as error:
        raise RequestError(f"{what}: {_first(error)}", 400) from None


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def _explain(error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPNotFound):
        return f"there is no such call: {VERSION}/openapi.json lists them"
    return error.reason


def _problem(why: str, status: int) -> web.Response:
    response = _json(Problem, Problem(error=why), status)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def _stream(answer: Lists, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = "application/json"
    # Who has asked may be gone.
    with suppress(ConnectionError):
        await response.prepare(request)
        for piece in answer.pieces():
            await response.write(piece)
            await asyncio.sleep(0)
        await response.write_eof()
    return response


async def _pour(answer: Stream, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = answer.media_type
    with closing(answer), suppress(ConnectionError):
        await response.prepare(request)
        # Who has asked may be gone while there is nothing to write.
        while request.transport is not None and (piece := await answer.piece()) is not None:
            if piece:
                await response.write(piece)
        await response.write_eof()
    return response


@cache
def _adapter(shape: type) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _json(shape: type, answer: object, status: int = 200) -> web.Response:
    return web.Response(body=_adapter(shape).dump_json(answer), status=status, content_type="application/json")
