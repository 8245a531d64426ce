"""Attempts through a proxy, on loopback: which one is asked, what it is told, and how each refusal reads."""

import asyncio
import base64
import fcntl
import re
import socket
import ssl
import termios
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from lab.answering import SOON_S, echo, failure, frames_pass, header, listening, securing, switching
from lab.proxy import carry
from yarl import URL

from candy.carrier.tls import Trust
from candy.errors import ConfigError, OperationalError
from candy.member.dial import Dialer
from candy.member.proxy import proxy_for, tunnel

pytestmark = pytest.mark.usefixtures("no_proxy_of_the_machine")


class Proxy:
    """A CONNECT proxy; `refusal` is its answer instead, when it has any."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.refusal = b""
        self.answer = b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n"
        self.port = 0
        self.carrying: list[asyncio.Future[tuple[None, None]]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, target, _ = head.split(" ", 2)
        if self.refusal or method != "CONNECT":
            writer.write(self.refusal or b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
            writer.close()
            return
        port = target.rpartition(":")[2]
        # Everything is on this machine.
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(self.answer)
        self.carrying.append(asyncio.gather(carry(reader, far_writer), carry(far_reader, writer)))
        await self.carrying[-1]


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy
        await asyncio.gather(*proxy.carrying)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
async def test_ws_through_a_proxy(monkeypatch: pytest.MonkeyPatch, proxy: Proxy, variable: str) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
    async with listening(switching) as relay:
        # The name is the proxy's to resolve.
        upgraded = await Dialer(f"ws://relay.test:{relay.port}/path").dial()
        await echo(upgraded, relay)
        assert proxy.heads == [f"CONNECT relay.test:{relay.port} HTTP/1.1\r\nHost: relay.test:{relay.port}\r\n\r\n"]
        assert relay.heads[0].startswith("GET /path HTTP/1.1\r\n")


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
async def test_wss_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, server_tls: ssl.SSLContext, ca_file: Path, variable: str
) -> None:
    monkeypatch.setenv(variable, f"127.0.0.1:{proxy.port}")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with listening(switching, server_tls) as relay:
        with securing() as (engine, secure):
            upgraded = await Dialer(f"wss://relay.test:{relay.port}", trust=Trust(ca_file)).dial(secure=secure)
            await frames_pass(upgraded, engine, relay)
        assert len(proxy.heads) == 1


async def test_credentials_of_a_proxy(monkeypatch: pytest.MonkeyPatch, proxy: Proxy) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me%40here:p%3Aw@127.0.0.1:{proxy.port}")
    async with listening(switching) as relay:
        await echo(await Dialer(f"ws://127.0.0.1:{relay.port}").dial(), relay)
    credentials = base64.b64encode(b"me@here:p:w").decode()
    assert header(proxy.heads[0], "Proxy-Authorization") == f"Basic {credentials}"


async def test_an_interface_means_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch, proxy: Proxy) -> None:
    """RFC 6874: a client "MUST remove any ZoneID attached to an outgoing URI"."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    async with listening(switching) as relay:
        dialer = Dialer(f"ws://[fe80::1%25eth0]:{relay.port}")
        await echo(await dialer.dial(), relay)
        assert proxy.heads[0].startswith(f"CONNECT [fe80::1]:{relay.port} HTTP/1.1\r\n")
        assert header(relay.heads[0], "Host") == f"[fe80::1]:{relay.port}"
        assert dialer.relay == f"ws://[fe80::1%25eth0]:{relay.port}"


async def test_an_ipv6_address_through_a_proxy(monkeypatch: pytest.MonkeyPatch, proxy: Proxy) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    async with listening(switching) as relay:
        await echo(await Dialer(f"ws://[::1]:{relay.port}").dial(), relay)
        assert proxy.heads[0].startswith(f"CONNECT [::1]:{relay.port} HTTP/1.1\r\n")


@pytest.mark.parametrize("exception", ["127.0.0.1", "other.test, 127.0.0.1", "*"])
async def test_no_proxy(monkeypatch: pytest.MonkeyPatch, exception: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", exception)
    async with listening(switching) as relay:
        await echo(await Dialer(f"ws://127.0.0.1:{relay.port}").dial(), relay)


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("ws://relay.test", "", "http://ws.proxy:3128"),
        ("wss://relay.test", "", "http://wss.proxy"),
        ("ws://relay.test", "test", None),
        ("ws://relay.test", ".relay.test", None),
        ("ws://relay.test:81", "relay.test:81", None),
        ("ws://relay.test:81", "relay.test:82", "http://ws.proxy:3128"),
        ("ws://relay.test", "elay.test", "http://ws.proxy:3128"),
        ("ws://[::1]:81", "::1", None),
        ("ws://[::1]:81", "[::1]:81", None),
        ("ws://[::1]:81", "[::1]:82", "http://ws.proxy:3128"),
        ("ws://[2001:db8::0:1]", "2001:0db8::1", None),
        ("ws://198.51.100.1", "198.51.100.0/24", None),
        ("ws://198.51.101.1", "198.51.100.0/24", "http://ws.proxy:3128"),
        ("ws://198.51.100.1", "10.0.0.0/8 198.51.100.77/24", None),
        ("ws://[2001:db8::7]", "2001:db8::/32", None),
        ("ws://[fe80::1%25eth0]", "fe80::/10", None),
        ("ws://[::ffff:198.51.100.1]", "0.0.0.0/0", "http://ws.proxy:3128"),
        # A name is not looked up for it.
        ("ws://localhost", "127.0.0.0/8", "http://ws.proxy:3128"),
        ("ws://relay.corp.example", "*.corp.example", None),
        ("wss://relay.corp.example", "*.corp.example", None),
        ("ws://corp.example", "*.corp.example", None),
        ("ws://relaycorp.example", "*.corp.example", "http://ws.proxy:3128"),
        ("ws://relay.corp.example:81", "*.corp.example:81", None),
        ("ws://RELAY.Corp.example.", "other,\t*.CORP.Example", None),
        ("ws://relay.test", "*.", "http://ws.proxy:3128"),
        ("ws://relay.test", "other, *", None),
        ("ws://10.0.0.5", "0.0.5", "http://ws.proxy:3128"),
        ("ws://relay.test", "10.0.0.0/99,[,/,:", "http://ws.proxy:3128"),
    ],
)
def test_which_proxy(monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str, expected: str | None) -> None:
    monkeypatch.setenv("http_proxy", "http://ws.proxy:3128")
    monkeypatch.setenv("https_proxy", "wss.proxy")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert proxy_for(URL(url)) == (URL(expected) if expected else None)


def test_a_colon_in_the_user_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://a%3Ab:secret@proxy.test:3128")
    with pytest.raises(ConfigError) as caught:
        Dialer("wss://relay.test")
    assert str(caught.value) == (
        "https_proxy has a colon in the user, which HTTP takes for the user's end: choose one without"
    )


@pytest.mark.parametrize(
    ("upper", "lower", "expected"),
    [
        ("http://upper.proxy:1", "http://lower.proxy:1", "http://lower.proxy:1"),
        ("http://upper.proxy:1", "", None),
        ("http://upper.proxy:1", None, "http://upper.proxy:1"),
        ("", None, None),
    ],
)
def test_lower_case_wins(monkeypatch: pytest.MonkeyPatch, upper: str, lower: str | None, expected: str | None) -> None:
    """Also if it is empty, as curl and Python have it."""
    monkeypatch.setenv("HTTP_PROXY", upper)
    if lower is not None:
        monkeypatch.setenv("http_proxy", lower)
    assert proxy_for(URL("ws://relay.test")) == (URL(expected) if expected else None)


@pytest.mark.parametrize(
    "value", ["socks5://127.0.0.1:1080", "http://", "http://[::1", "http://host:port", "http://h:0"]
)
def test_proxies_that_are_not_understood(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("https_proxy", value)
    with pytest.raises(ConfigError) as caught:
        Dialer("wss://relay.test")
    assert str(caught.value) == (f"https_proxy is {value!r}: candy knows http://[user:password@]host:port proxies only")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
            'the proxy refused to connect to relay.test:26816: HTTP 403 Forbidden ("no"): '
            "have it allowed there, or name the relay's host in NO_PROXY to go without",
        ),
        (
            b"HTTP/1.0 407 Proxy Authentication Required\r\n\r\n",
            "the proxy asks for a user and password: put http://user:password@host:port in the variable",
        ),
        (b"SSH-2.0-x\r\n\r\n", "the proxy's answer is not HTTP: does the variable name a proxy?"),
        (b"HTTP/1.1 200 OK\r\n", "the proxy's answer is not HTTP: does the variable name a proxy?"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "the proxy's answer is not HTTP: does the variable name a proxy?"),
        (bytes(20_000), "the proxy's answer is not HTTP: does the variable name a proxy?"),
        (b"\xff\r\n\r\n", "the proxy's answer is not HTTP: does the variable name a proxy?"),
    ],
)
async def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch, proxy: Proxy, answer: bytes, text: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    proxy.refusal = answer
    assert await failure(Dialer("ws://relay.test:26816")) == text


@pytest.mark.parametrize(
    ("user", "challenge", "text"),
    [
        ("", b"Basic realm=x", "the proxy asks for a user and password: put http://user:password@host:port in the"),
        ("me:wrong@", b"Basic realm=x", "the proxy does not take the user and password in the variable: correct them"),
        ("me:wrong@", b"Negotiate", "the proxy asks for Negotiate authorization, and candy knows Basic alone"),
    ],
)
async def test_a_proxy_that_wants_a_password(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, user: str, challenge: bytes, text: str
) -> None:
    """ "A wrong proxy password is told apart from a missing one"."""
    monkeypatch.setenv("HTTP_PROXY", f"http://{user}127.0.0.1:{proxy.port}")
    proxy.refusal = b"HTTP/1.1 407 Who?\r\nproxy-authenticate: %b\r\nContent-Length: 0\r\n\r\n" % challenge
    assert (await failure(Dialer("ws://relay.test:26816"))).startswith(text)


@pytest.mark.parametrize(
    ("fields", "body", "quoted"),
    [
        (b"", b"<title>Port 26816</title>", '("Port 26816")'),
        (b"Content-Length: 4\r\n", b"whynot", '("whyn")'),
        (b"Content-Length: 9999999999999999\r\n", b"why\n", '("why")'),
        (b"Content-Length: 0\r\n", b"", ""),
        (b"Transfer-Encoding: chunked\r\n", b"3\r\nwhy\r\n0\r\n\r\n", '("why")'),
        (b"", b"<p>" * 3000 + b"<title>too far</title>", ""),
    ],
)
async def test_a_proxys_reason(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, fields: bytes, body: bytes, quoted: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    proxy.refusal = b"HTTP/1.1 403 No\r\n%b\r\n%b" % (fields, body)
    said = (await failure(Dialer("ws://relay.test:26816"))).removeprefix("the proxy refused to connect to ")
    assert said.partition(": have")[0] == f"relay.test:26816: HTTP 403 No {quoted}".rstrip()


async def test_a_proxys_reason_that_comes_in_parts() -> None:
    """Of a proxy that then waits for another request."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        asking = asyncio.create_task(tunnel(ours, "relay.test:80", URL("http://proxy.test:3128")))
        for part in (b"HTTP/1.1 403 No\r\nContent-Length: 22\r\n\r\n", b"<title>why n", b"ot</title>"):
            theirs.sendall(part)
            # Once it has read one part, or given up, the next one comes.
            while any(fcntl.ioctl(ours, termios.FIONREAD, bytes(4))) and not asking.done():
                await asyncio.sleep(0)
        with pytest.raises(OperationalError, match=re.escape('HTTP 403 No ("why not"): have it allowed there')):
            await asking


async def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    dialer = Dialer("ws://relay.test:26816")
    assert await failure(dialer) == (
        "cannot connect to the proxy at 127.0.0.1:1: connection refused: is it running there, and is the port right?"
    )
    assert dialer.outer.exposed == {IPv4Address("127.0.0.1")}


async def test_a_silent_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(lambda head: b"") as silent:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{silent.port}")
        why = await failure(Dialer("ws://relay.test"), attempt_s=SOON_S)
    assert why == f"no success within 0.5 s, while waiting for the proxy 127.0.0.1:{silent.port}"
