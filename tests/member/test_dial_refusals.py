"""Who refused: the relay itself, a web server in front of it, or the proxy on the way; and how it is quoted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from lab.member import Member
from lab.programs import RelayProgram

from candy.carrier.handover import RELAY_FULL
from candy.errors import OperationalError
from candy.member.dial import Dialer

NO_WAY_ON = "there is a web server in front, but it does not reach candy-server"
FULL = "the relay is full (HTTP 503): wait until a member leaves, or raise --max-connections there"


@pytest.fixture(autouse=True)
def no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """A server, by its port, that says this to everybody and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def refusal(port: int) -> str:
    """Why the attempt fails, without the URL."""
    dialer = Dialer(f"ws://127.0.0.1:{port}")
    with pytest.raises(OperationalError) as caught:
        await dialer.dial()
    return str(caught.value).removeprefix(f"{dialer.relay}: ")


async def test_a_full_relay_says_so_itself(tmp_path: Path) -> None:
    with RelayProgram(tmp_path, "--max-connections", "1") as relay, Member.connect(relay.address):
        assert await refusal(relay.address[1]) == FULL
        relay.wait_for("not let in: all 1 connections are taken")


def unavailable(body: bytes, length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return b"HTTP/1.1 503 Service Unavailable\r\nServer: nginx\r\nContent-Length: %d\r\n\r\n%b" % (length, body)


async def test_a_full_relay_behind_a_web_server() -> None:
    async with answering(unavailable(RELAY_FULL.encode())) as port:
        assert await refusal(port) == FULL


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (unavailable(b""), ""),
        (unavailable(b"<html>503 Service Temporarily Unavailable</html>" * 1000), ""),
        (unavailable(RELAY_FULL.encode() + b"<!-- -->"), ' ("The relay is full; try again later.")'),
        (unavailable(b"cut", 1000), ' ("cut")'),
    ],
)
async def test_a_web_server_without_the_relay(answer: bytes, said: str) -> None:
    async with answering(answer) as port:
        assert await refusal(port) == f"the server answered HTTP 503 Service Unavailable{said}: {NO_WAY_ON}"


async def test_a_web_server_that_passes_no_upgrade_on() -> None:
    async with answering(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n") as port:
        assert await refusal(port) == (
            "the server answered HTTP 426 Upgrade Required: "
            "a web server in front of the relay has to pass Upgrade and Connection on"
        )


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 no\x1b[31m\xe9\xff\xc2\x85\x7f\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 " + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://\x1b]0;\xe9\xff\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /" + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_what_a_server_says_is_quoted(answer: bytes) -> None:
    async with answering(answer) as port:
        text = await refusal(port)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 400


@pytest.mark.parametrize("status", [b"403 \x1b[31m\xff", b"403 " + b"x" * 10_000])
async def test_what_a_proxy_says_is_quoted(monkeypatch: pytest.MonkeyPatch, status: bytes) -> None:
    async with answering(b"HTTP/1.1 " + status + b"\r\n\r\n") as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        text = await refusal(26816)
    assert text.startswith("the proxy refused to connect to 127.0.0.1:26816: HTTP 403 ")
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 450
