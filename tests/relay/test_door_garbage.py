"""What a guest of the door leaves in memory: nothing that waits for the collector of garbage."""

import asyncio
import gc
import socket
import weakref
from collections.abc import Iterator

import pytest
from aiohttp import web

from candy._fastpath import Engine
from candy.relay.clock import Clock
from candy.relay.door import Door
from candy.relay.proxies import TrustedProxies


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
async def test_a_transport_is_gone_with_its_connection() -> None:
    transports: list[weakref.ref[asyncio.BaseTransport]] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        transports.append(weakref.ref(request.transport))
        response = web.Response()
        response.force_close()
        return response

    engine, clock = Engine(1), Clock(asyncio.get_running_loop())
    door = Door(answer, engine=engine, clock=clock, timeout_s=5.0, limit_per_source=8, proxies=TrustedProxies(()))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        door.accepted(theirs, "127.0.0.1")
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(ours, b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
        while await loop.sock_recv(ours, 4096):
            pass
    await door.shutdown(1.0)
    await asyncio.sleep(0)
    assert [transport() for transport in transports] == [None]
    clock.stop()
    engine.stop()
