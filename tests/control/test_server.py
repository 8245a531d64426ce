"""The server of the control interface, with a side of the test's own: who may ask, what is said, what is logged."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kit.openapi import Document

from candy.checked import checked
from candy.control.model import Kicked, Leases, Networks, Reloaded, Reservation, Reserve
from candy.control.serving import Answering, serving
from candy.errors import OperationalError, RequestError
from candy.settings import Settings

TOKEN = "0123456789abcdef"


class Side:
    """Answers a few calls, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def networks(self) -> Networks:
        return Networks(networks=[])

    async def leases(self, **given: Any) -> Leases:
        self.asked.append(("leases", given))
        return Leases(leases=[], reservations=[])

    async def members(self, **given: Any) -> object:
        self.asked.append(("members", given))
        raise RequestError("there is no such network", 404)

    async def kick(self, *, member: str, network: str | None = None) -> Kicked:
        if member == "nobody":
            raise RequestError("no member is 'nobody'", 404)
        return Kicked(network=network or "/", address="10.0.0.2")

    async def reserve(self, *, body: Reserve) -> Reservation:
        return Reservation(network=body.network, address=str(body.address), device=body.device, configured=False)

    async def reload(self) -> Reloaded:
        raise ZeroDivisionError


class Asked:
    """One session, over one kind of socket."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self.session = session
        self.base = base

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        async with self.session.request(method, self.base + path, **more) as response:
            assert response.headers["Server"] == "candy-relay"
            return response.status, await response.json()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def side() -> Side:
    return Side()


async def serve(stack: AsyncExitStack, side: Side, default: Path, metrics: Any = None, **given: Any) -> list[str]:
    settings = checked(Settings, {"state_dir": default.parent, **given})
    answering = Answering("relay", side, lambda: b"candy_up 1\n")
    return await stack.enter_async_context(serving(settings, answering, default, metrics))


@pytest.fixture
async def unix(stack: AsyncExitStack, side: Side, tmp_path: Path) -> Asked:
    path = tmp_path / "control"
    assert await serve(stack, side, path) == [f"control socket {path}"]
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))))
    return Asked(session, "http://localhost")


@pytest.fixture
async def tcp(stack: AsyncExitStack, side: Side, tmp_path: Path) -> Asked:
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"admin {TOKEN}\n")
    more = {"control_socket": "", "control": "127.0.0.1:0", "control_token_file": tokens}
    [line] = await serve(stack, side, tmp_path / "control", **more)
    assert not (tmp_path / "control").exists()
    session = await stack.enter_async_context(aiohttp.ClientSession())
    return Asked(session, "http://" + line.removeprefix("control on "))


async def test_answers_and_refusals_are_the_documents(unix: Asked) -> None:
    status, content = await unix.ask("GET", "/v1/openapi.json")
    assert status == 200
    document = Document(content)
    for method, path, more, expected in (
        ("GET", "/v1/networks", {}, 200),
        ("GET", "/v1/leases?network=/home", {}, 200),
        ("GET", "/v1/leases?nonsense=1", {}, 400),
        ("GET", "/v1/members", {}, 404),
        ("GET", "/v1/members?over=99", {}, 400),
        ("GET", "/v1/members?round_trip=perhaps", {}, 400),
        ("POST", "/v1/members/laptop/kick", {}, 200),
        ("POST", "/v1/members/nobody/kick", {}, 404),
        ("POST", "/v1/reservations", {"json": {"address": "10.0.0.2", "device": "laptop"}}, 200),
        ("POST", "/v1/reservations", {"json": {"address": "10.0.0", "device": "laptop"}}, 400),
        ("POST", "/v1/reservations", {"data": b"\xff"}, 400),
    ):
        status, answer = await unix.ask(method, path, **more)
        assert status == expected, answer
        document.check(method, path.partition("?")[0], status, answer)


async def test_what_is_no_call(unix: Asked) -> None:
    assert await unix.ask("GET", "/v1/nonsense") == (
        404,
        {"error": "there is no such call: /v1/openapi.json lists them"},
    )
    assert await unix.ask("GET", "/") == (404, {"error": "there is no such call: /v1/openapi.json lists them"})
    assert await unix.ask("DELETE", "/v1/networks") == (405, {"error": "Method Not Allowed"})
    status, answer = await unix.ask("GET", "/v1/networks?%1b=1")
    assert (status, answer) == (400, {"error": "\\x1b is not a parameter of networks"})


async def test_parameters_reach_the_side(unix: Asked, side: Side) -> None:
    await unix.ask("GET", "/v1/members?network=%2Fhome&round_trip=true&over=2")
    await unix.ask("GET", "/v1/members")
    assert side.asked == [
        ("members", {"network": "/home", "round_trip": True, "over": 2.0}),
        ("members", {"round_trip": False}),
    ]


async def test_changes_are_logged_with_who_asked(unix: Asked, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    who = f"uid {os.geteuid()} (pid {os.getpid()})"
    await unix.ask("POST", "/v1/members/lap%0Atop/kick?network=%2Fhome")
    await unix.ask("POST", "/v1/members/nobody/kick")
    await unix.ask("GET", "/v1/networks")
    assert [record.getMessage() for record in caplog.records if record.name == "candy.control"] == [
        f"kick lap\\ntop, network /home, asked for by {who}: done",
        f"kick nobody, asked for by {who}: not done: no member is 'nobody'",
    ]


async def test_a_bug_shows_itself(unix: Asked, caplog: pytest.LogCaptureFixture) -> None:
    async with unix.session.post(f"{unix.base}/v1/reload") as response:
        assert (response.status, response.headers["Server"]) == (500, "candy-relay")
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_one_who_leaves_within_a_body(
    side: Side, tmp_path: Path, caplog: pytest.LogCaptureFixture, framing: str
) -> None:
    path = tmp_path / "control"
    async with AsyncExitStack() as stack:
        await serve(stack, side, path)
        reader, writer = await asyncio.open_unix_connection(path)
        head = f"POST /v1/reservations HTTP/1.1\r\nHost: x\r\n{framing}\r\nExpect: 100-continue\r\n\r\n"
        writer.write(head.encode())
        # It reads the body now.
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'4\r\n{"ad')
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    assert caplog.records == []


async def test_over_tcp_a_token_is_needed(tcp: Asked, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for headers in (
        {},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
    ):
        for path in ("/v1/networks", "/v1/openapi.json", "/metrics", "/nonsense"):
            status, answer = await tcp.ask("GET", path, headers=headers)
            assert (status, answer["error"]) == (401, "a token of --control-token-file is missing, or not known")
        status, _ = await tcp.ask("POST", "/v1/members/laptop/kick", headers=headers)
        assert status == 401
    assert caplog.records == []
    headers = {"Authorization": f"bearer {TOKEN}"}
    assert await tcp.ask("GET", "/v1/networks", headers=headers) == (200, {"networks": []})
    await tcp.ask("POST", "/v1/members/laptop/kick", headers=headers)
    assert caplog.records[-1].getMessage() == "kick laptop, asked for by token admin: done"


async def test_who_has_asked_is_who_was_let_in(tcp: Asked, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also if the token is withdrawn before the whole of the body is there."""
    caplog.set_level(logging.INFO)
    host, _, port = tcp.base.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = b'{"address": "10.0.0.2", "device": "laptop"}'
    head = f"POST /v1/reservations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    (tmp_path / "tokens").write_text(f"another {TOKEN[::-1]}\n")
    writer.write(body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert caplog.records[-1].getMessage().endswith(", asked for by token admin: done")


async def test_metrics_alone(stack: AsyncExitStack, side: Side, tmp_path: Path) -> None:
    """They need no token where nothing else is answered."""
    [line] = await serve(stack, side, tmp_path / "control", ("127.0.0.1", 0), control_socket="")
    base = "http://" + line.removeprefix("metrics on ")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/metrics") as response:
            assert (response.status, await response.read()) == (200, b"candy_up 1\n")
            assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        async with session.get(f"{base}/v1/networks") as response:
            assert response.status == 404


async def test_metrics_beside_the_calls(unix: Asked) -> None:
    async with unix.session.get(f"{unix.base}/metrics") as response:
        assert await response.text() == "candy_up 1\n"


async def test_a_default_that_cannot_be_is_a_warning(
    stack: AsyncExitStack, side: Side, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert await serve(stack, side, tmp_path / "missing" / "folder" / "control") == []
    assert "No such file or directory: no command can ask this program" in caplog.text
    with pytest.raises(OperationalError):
        await serve(stack, side, tmp_path / "x", control_socket=f"{tmp_path}/missing/folder/control")


async def test_its_socket_goes_with_it(side: Side, tmp_path: Path) -> None:
    """Also while somebody asks."""
    path = tmp_path / "control"
    async with AsyncExitStack() as stack:
        await serve(stack, side, path)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /v1/networks HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(await reader.readexactly(len(b'{"networks":[]}'))) == {"networks": []}
    assert list(tmp_path.iterdir()) == []
    assert await reader.read() == b""
    writer.close()
