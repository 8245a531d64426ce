"""Where a side answers: its sockets are opened, and the server comes behind them once somebody asks.

    serving() ─┬─▶ UNIX socket ─▶ the first connection ─▶ candy.control.server is imported, and answers it
               └─▶ TCP, --metrics: at once

The server and what it needs take megabytes, and most programs are never asked.

This module does not know HTTP.
"""

import asyncio
import importlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from candy.control.sockets import ControlSocket, Side, open_tcp
from candy.errors import OperationalError
from candy.settings import Settings, host_port

log = logging.getLogger("candy.control")


@dataclass(frozen=True)
class Answering:
    """A side, as far as the control interface is concerned."""

    side: Side
    methods: object
    """Has an async method of each call's name, which takes its parameters by their names and returns its answer, or
    raises RequestError."""
    metrics: Callable[[], bytes] | None = None
    """In Prometheus' text format; None: the side has none."""
    has_page: bool = False
    """Whether there is a page about it, for browsers that come over TCP."""


@asynccontextmanager
async def serving(
    settings: Settings, answering: Answering, default: Path, metrics: tuple[str, int] | None = None
) -> AsyncIterator[list[str]]:
    """Answer while the context lasts; it gives a line for the log about each place where that is.

    Args:
        default: the path of the UNIX socket unless the settings have one. If it can't be opened a warning says so, and
            the program goes on without.
        metrics: where nothing but metrics is given.

    Raises:
        OperationalError: what the settings name can't be opened or read.
    """
    lines: list[str] = []
    async with AsyncExitStack() as stack:
        unix = _open_unix(settings, default)
        if unix is not None:
            stack.callback(unix.close)
            _serve_when_asked(stack, answering, unix.socket)
            lines.append(f"control socket {unix.path}")
        if settings.control is not None and settings.control_token_file is not None:
            from candy.control import server
            from candy.control.tokens import Tokens
            from candy.control.visitors import Visitors

            desk = server.Desk(answering, Visitors(Tokens(settings.control_token_file)))
            opened = open_tcp(*settings.control, "--control")
            await server.serve(stack, desk.application, opened)
            lines.append(f"control on {_where(opened)}")
        if metrics is not None and answering.metrics is not None:
            from candy.control import server

            opened = open_tcp(*metrics, "--metrics")
            await server.serve(stack, server.metrics_alone(answering.metrics), opened)
            lines.append(f"metrics on {_where(opened)}")
        yield lines


def _open_unix(settings: Settings, default: Path) -> ControlSocket | None:
    named = settings.control_socket
    if named == "":
        return None
    if named is not None:
        return ControlSocket(Path(named), settings.control_group)
    try:
        return ControlSocket(default, settings.control_group)
    except OperationalError as error:
        log.warning("%s: no command can ask this program: --control-socket names another place", error)
        return None


def _serve_when_asked(stack: AsyncExitStack, answering: Answering, opened: socket.socket) -> None:
    """Begin with the first connection to a listening socket, which waits meanwhile."""
    loop, came, serving = asyncio.get_running_loop(), asyncio.Event(), AsyncExitStack()

    def come() -> None:
        loop.remove_reader(opened)
        came.set()

    async def begin() -> None:
        await came.wait()
        # It takes a while, hence the thread.
        server = await asyncio.to_thread(importlib.import_module, "candy.control.server")
        await server.serve(serving, server.Desk(answering).application, opened)

    async def end() -> None:
        loop.remove_reader(opened)
        task.cancel()
        await asyncio.wait([task])
        await serving.aclose()
        if not task.cancelled():
            task.result()

    loop.add_reader(opened, come)
    task = loop.create_task(begin())
    stack.push_async_callback(end)


def _where(opened: socket.socket) -> str:
    host, port = opened.getsockname()[:2]
    return host_port(host, port)
