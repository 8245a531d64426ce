"""Attempts on loopback: a relay and a proxy of a few lines each, which answer what a test wants them to.

`Relay.answer` gets the request's head and returns the bytes to send; what it was asked is in `Relay.heads`.
"""

import asyncio
import base64
import hashlib
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import aiohttp
import pytest
import trustme
from yarl import URL

from candy import __version__, dial
from candy.dial import Dialer, Upgraded, proxy_for
from candy.errors import ConfigError, OperationalError

Answer = Callable[[str], bytes]
PATIENCE_S = 0.5
"""For an answer that never comes."""
RELAY_QUESTION = "is this the address of a candy relay?"
WS_QUESTION = "is this the address of a candy relay, and one of ws://, not wss://?"


@pytest.fixture(autouse=True)
def no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    return tls_for(authority, "127.0.0.1", "relay.test")


def tls_for(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert(*names).configure_cert(context)
    return context


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


class Relay:
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
async def listening(answer: Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[Relay]:
    relay = Relay(answer)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", 0, ssl=context) as server:
        relay.port = server.sockets[0].getsockname()[1]
        yield relay
        for writer in relay.writers:
            writer.transport.abort()


async def failure(dialer: Dialer, attempt_s: float = 10.0) -> str:
    """Why the attempt fails, without the URL."""
    with pytest.raises(OperationalError) as caught:
        await dialer.dial(attempt_s)
    text = str(caught.value)
    assert text.startswith(f"{dialer.relay}: ")
    assert "\n" not in text
    return text.removeprefix(f"{dialer.relay}: ")


async def echo(upgraded: Upgraded, relay: Relay) -> None:
    """Bytes pass both ways, and no end was sent: neither by us nor by what aiohttp closed."""
    loop = asyncio.get_running_loop()
    reader, writer = await relay.peers.get()
    with socket.socket(fileno=upgraded.fd) as mine:
        mine.setblocking(False)
        await loop.sock_sendall(mine, b"ping")
        assert await reader.readexactly(4) == b"ping"
        writer.write(b"pong")
        assert await loop.sock_recv(mine, 100) == b"pong"
        assert not reader.at_eof()
    assert await reader.read() == b""
    writer.close()


# The upgrade.


async def test_the_request_and_the_hand_over() -> None:
    async with listening(switching) as relay:
        upgraded = await Dialer(f"ws://127.0.0.1:{relay.port}/a/path?x=1").dial()
        assert (upgraded.extended, upgraded.tail, upgraded.transport) == (False, b"", None)
        await echo(upgraded, relay)
    [head] = relay.heads
    assert head.startswith("GET /a/path?x=1 HTTP/1.1\r\n")
    key = header(head, "Sec-WebSocket-Key")
    assert key is not None
    assert len(base64.b64decode(key, validate=True)) == 16
    assert {line.split(": ")[0]: header(head, line.split(": ")[0]) for line in head.split("\r\n")[1:-2]} == {
        "Host": f"127.0.0.1:{relay.port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": "candy.2",
        "User-Agent": f"candy/{__version__}",
    }


@pytest.mark.parametrize("url", ["ws://host\\x/", "ws://" + "é" * 70 + "/"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^the relay's URL can't be used: "):
        Dialer(url)


async def test_keys_are_not_repeated() -> None:
    async with listening(http("404 Not Found")) as relay:
        dialer = Dialer(f"ws://127.0.0.1:{relay.port}")
        await failure(dialer)
        await failure(dialer)
    first, second = (header(head, "Sec-WebSocket-Key") for head in relay.heads)
    assert first != second


async def test_the_extension() -> None:
    async with listening(lambda head: switching(head, "Sec-WebSocket-Protocol: candy.2")) as relay:
        upgraded = await Dialer(f"ws://127.0.0.1:{relay.port}").dial()
        assert upgraded.extended
        await echo(upgraded, relay)


@pytest.mark.parametrize("count", [1, 1000, 300_000])
async def test_bytes_behind_the_answer(count: int) -> None:
    behind = bytes(range(250)) * (count // 250) + bytes(range(count % 250))
    async with listening(lambda head: switching(head) + behind) as relay:
        upgraded = await Dialer(f"ws://127.0.0.1:{relay.port}").dial()
        # What aiohttp didn't read is still in the socket.
        received = upgraded.tail
        with socket.socket(fileno=upgraded.fd) as mine:
            mine.setblocking(False)
            while len(received) < count:
                received += await asyncio.get_running_loop().sock_recv(mine, 65536)
        assert received == behind


async def test_names_of_headers_and_tokens_are_case_insensitive() -> None:
    def answer(head: str) -> bytes:
        return (
            switching(head)
            .replace(b"Upgrade: websocket", b"upgrade: WebSocket")
            .replace(b"Connection: Upgrade", b"connection: keep-alive, UPGRADE")
        )

    async with listening(answer) as relay:
        await echo(await Dialer(f"ws://127.0.0.1:{relay.port}").dial(), relay)


async def test_credentials_go_into_the_request_and_into_no_message() -> None:
    async with listening(http("401 Unauthorized")) as relay:
        dialer = Dialer(f"ws://me:secret@127.0.0.1:{relay.port}/")
        assert dialer.relay == f"ws://127.0.0.1:{relay.port}/"
        assert "secret" not in await failure(dialer)
    assert header(relay.heads[0], "Authorization") == "Basic " + base64.b64encode(b"me:secret").decode()


INVALID = "the server's upgrade is not a valid one ({}): is there a broken proxy between?"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda head: switching(head, leave_out="Upgrade"), INVALID.format("Upgrade")),
        (lambda head: switching(head, leave_out="Connection"), INVALID.format("Connection")),
        (lambda head: switching(head, leave_out="Sec-WebSocket-Accept"), INVALID.format("Sec-WebSocket-Accept")),
        (lambda head: switching(head, accept="AAAA"), INVALID.format("Sec-WebSocket-Accept")),
        (
            lambda head: switching(head, "Sec-WebSocket-Extensions: permessage-deflate"),
            INVALID.format("Sec-WebSocket-Extensions"),
        ),
        (lambda head: switching(head, "Sec-WebSocket-Protocol: chat"), INVALID.format("Sec-WebSocket-Protocol")),
        (http("200 OK"), f"the server answered HTTP 200 OK: {RELAY_QUESTION}"),
        (
            http("404 Not Found"),
            "the server answered HTTP 404 Not Found: no relay at this path, check the end of the URL",
        ),
        (
            http("301 Moved", "Location: https://relay.test/"),
            "the server answered HTTP 301 Moved to https://relay.test/: "
            "candy follows no redirects, give the address it leads to",
        ),
        (http("304 Not Modified"), f"the server answered HTTP 304 Not Modified: {RELAY_QUESTION}"),
        (
            http("502 Bad Gateway"),
            "the server answered HTTP 502 Bad Gateway: "
            "there is a web server in front, but it does not reach candy-server",
        ),
        (lambda head: b"SSH-2.0-OpenSSH_9.2\r\n\r\n", f"the answer is not HTTP: {WS_QUESTION}"),
    ],
)
async def test_answers_that_are_no_upgrade(answer: Answer, text: str) -> None:
    async with listening(answer) as relay:
        assert await failure(Dialer(f"ws://127.0.0.1:{relay.port}")) == text
        assert len(relay.heads) == 1


async def test_a_server_that_hangs_up_is_asked_once() -> None:
    async with listening(lambda head: b"") as relay:

        async def hang_up() -> None:
            _, writer = await relay.peers.get()
            writer.close()

        why, _ = await asyncio.gather(failure(Dialer(f"ws://127.0.0.1:{relay.port}")), hang_up())
        assert why == f"the server closed the connection instead of answering: {WS_QUESTION}"
        assert len(relay.heads) == 1


async def test_a_server_that_ends_behind_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    check = dial._check

    def check_and_lose(response: aiohttp.ClientResponse, key: str) -> bool:
        assert response.connection is not None
        assert response.connection.transport is not None
        response.connection.transport.abort()
        return check(response, key)

    monkeypatch.setattr(dial, "_check", check_and_lose)
    async with listening(switching) as relay:
        why = await failure(Dialer(f"ws://127.0.0.1:{relay.port}"))
    assert why == "the server closed the connection right behind its answer"


async def test_no_answer_in_time() -> None:
    async with listening(lambda head: b"") as relay:
        why = await failure(Dialer(f"ws://127.0.0.1:{relay.port}"), attempt_s=PATIENCE_S)
    assert why == "no success within 0.5 s, while waiting for the answer to the upgrade request"


# The way there.


async def test_connection_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert await failure(Dialer(f"ws://127.0.0.1:{port}")) == (
        f"cannot connect to the relay at 127.0.0.1:{port}: "
        "connection refused: is it running there, and is the port right?"
    )


async def test_no_route() -> None:
    # Linux connects to no broadcast address.
    assert await failure(Dialer("ws://255.255.255.255:1")) == (
        "cannot connect to the relay at 255.255.255.255:1: "
        "no route to it: is this machine online, and the address right?"
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "relay.test: name not found: check the spelling, and this machine's name server",
        ),
        (
            socket.gaierror(socket.EAI_NODATA, "No address associated with hostname"),
            "relay.test: name not found: check the spelling, and this machine's name server",
        ),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "relay.test: the name server does not answer: is this machine online?",
        ),
        (UnicodeError("label too long"), "relay.test: not a host name (label too long)"),
    ],
)
async def test_names_that_are_not_found(monkeypatch: pytest.MonkeyPatch, error: Exception, text: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert await failure(Dialer("ws://relay.test:26816")) == text


async def test_names_are_resolved_at_each_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    async with listening(http("404 Not Found")) as relay:

        def resolve(host: str, port: int, **_: object) -> list[object]:
            asked.append((host, port))
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", relay.port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        dialer = Dialer("ws://relay.test")
        await failure(dialer)
        await failure(dialer)
        assert [header(head, "Host") for head in relay.heads] == ["relay.test", "relay.test"]
    assert asked == [("relay.test", 80)] * 2


async def test_a_silent_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    late = threading.Event()

    def wait(*_: object, **__: object) -> list[object]:
        late.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    assert (
        await failure(Dialer("ws://relay.test"), attempt_s=PATIENCE_S)
        == "no success within 0.5 s, while looking up relay.test"
    )
    late.set()


async def test_the_second_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(switching) as relay:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            dead = free.getsockname()[1]

        def resolve(*_: object, **__: object) -> list[object]:
            stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*stream, ("127.0.0.1", dead)), (*stream, ("127.0.0.1", relay.port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        await echo(await Dialer("ws://relay.test").dial(), relay)


async def test_where_an_attempt_went_to_is_known_also_when_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[list[object] | OSError] = [
        [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 1)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 1, 0, 0)),
        ],
        socket.gaierror(socket.EAI_AGAIN, "try again"),
    ]

    def resolve(*_: object, **__: object) -> list[object]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    dialer = Dialer("ws://relay.test")
    assert dialer.addresses == frozenset()
    for _ in range(2):
        await failure(dialer)
        assert dialer.addresses == {IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")}


# TLS.


async def test_tls_with_a_ca_file(tls: ssl.SSLContext, ca_file: Path) -> None:
    async with listening(switching, tls) as relay:
        upgraded = await Dialer(f"wss://127.0.0.1:{relay.port}", ca_file=ca_file).dial()
        assert upgraded.transport is not None
        assert relay.alpn == "http/1.1"
        await echo(upgraded, relay)
        while not upgraded.transport.is_closing():
            await asyncio.sleep(0)
        upgraded.transport.abort()


async def test_tls_with_bytes_behind_the_answer(tls: ssl.SSLContext, ca_file: Path) -> None:
    async with listening(lambda head: switching(head) + b"behind", tls) as relay:
        upgraded = await Dialer(f"wss://127.0.0.1:{relay.port}", ca_file=ca_file).dial()
        assert upgraded.tail == b""
        with socket.socket(fileno=upgraded.fd) as mine:
            mine.setblocking(False)
            received = b""
            while len(received) < 6:
                received += await asyncio.get_running_loop().sock_recv(mine, 6)
            assert received == b"behind"
        assert upgraded.transport is not None
        upgraded.transport.abort()


async def test_any_certificate_when_told_so(tls: ssl.SSLContext) -> None:
    async with listening(http("404 Not Found"), tls) as relay:
        assert "HTTP 404" in await failure(Dialer(f"wss://127.0.0.1:{relay.port}", insecure=True))


async def test_an_unknown_certificate(tls: ssl.SSLContext) -> None:
    async with listening(switching, tls) as relay:
        why = await failure(Dialer(f"wss://127.0.0.1:{relay.port}"))
    assert why.startswith("its TLS certificate is not trusted (")
    assert why.endswith("): name its CA with --ca-file, or give --insecure to accept any certificate")


async def test_a_certificate_for_another_name(authority: trustme.CA, ca_file: Path) -> None:
    async with listening(switching, tls_for(authority, "other.test")) as relay:
        why = await failure(Dialer(f"wss://127.0.0.1:{relay.port}", ca_file=ca_file))
    assert why.startswith("its TLS certificate is not trusted (IP address mismatch")


async def test_tls_to_a_port_without(ca_file: Path) -> None:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hello, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        why = await failure(Dialer(f"wss://127.0.0.1:{port}", ca_file=ca_file))
    assert why.startswith("TLS failed (")
    assert why.endswith("): is it a wss:// port, or rather ws://?")


async def test_a_hang_up_during_the_tls_handshake(ca_file: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        why = await failure(Dialer(f"wss://127.0.0.1:{port}", ca_file=ca_file))
    assert why.startswith("the connection was lost during the TLS handshake")


async def test_no_tls_answer_in_time(ca_file: Path) -> None:
    async with listening(lambda head: b"") as relay:
        why = await failure(Dialer(f"wss://127.0.0.1:{relay.port}", ca_file=ca_file), attempt_s=PATIENCE_S)
    assert why == "no success within 0.5 s, while negotiating TLS"


def test_ca_files_that_are_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(ConfigError, match=rf"^--ca-file {empty}: no PEM certificates in it$"):
        Dialer("wss://relay.test", ca_file=empty)
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigError, match=rf"^--ca-file {missing}: No such file or directory: "):
        Dialer("wss://relay.test", ca_file=missing)
    Dialer("ws://relay.test", ca_file=missing)


# Proxies.


class Proxy:
    """A CONNECT proxy; `refusal` is its answer instead, when it has any."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.refusal = b""
        self.answer = b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n"
        self.tasks: list[asyncio.Task[None]] = []
        self.port = 0

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
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy


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
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, tls: ssl.SSLContext, ca_file: Path, variable: str
) -> None:
    monkeypatch.setenv(variable, f"127.0.0.1:{proxy.port}")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with listening(switching, tls) as relay:
        upgraded = await Dialer(f"wss://relay.test:{relay.port}", ca_file=ca_file).dial()
        await echo(upgraded, relay)
        assert len(proxy.heads) == 1
        assert upgraded.transport is not None
        upgraded.transport.abort()


async def test_credentials_of_a_proxy(monkeypatch: pytest.MonkeyPatch, proxy: Proxy) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me%40here:p%3Aw@127.0.0.1:{proxy.port}")
    async with listening(switching) as relay:
        await echo(await Dialer(f"ws://127.0.0.1:{relay.port}").dial(), relay)
    credentials = base64.b64encode(b"me@here:p:w").decode()
    assert header(proxy.heads[0], "Proxy-Authorization") == f"Basic {credentials}"


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
    ],
)
def test_which_proxy(monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str, expected: str | None) -> None:
    monkeypatch.setenv("http_proxy", "http://ws.proxy:3128")
    monkeypatch.setenv("https_proxy", "wss.proxy")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert proxy_for(URL(url)) == (URL(expected) if expected else None)


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "")
    assert proxy_for(URL("ws://relay.test")) is None


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
            "the proxy refused to connect to relay.test:26816: HTTP 403 Forbidden: "
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


async def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    dialer = Dialer("ws://relay.test:26816")
    assert await failure(dialer) == (
        "cannot connect to the proxy at 127.0.0.1:1: connection refused: is it running there, and is the port right?"
    )
    assert dialer.addresses == {IPv4Address("127.0.0.1")}


async def test_a_silent_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(lambda head: b"") as silent:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{silent.port}")
        why = await failure(Dialer("ws://relay.test"), attempt_s=PATIENCE_S)
    assert why == f"no success within 0.5 s, while waiting for the proxy 127.0.0.1:{silent.port}"


# Descriptors.


@pytest.fixture
def same_descriptors() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.usefixtures("same_descriptors")
def test_no_attempt_leaves_a_descriptor(tls: ssl.SSLContext, ca_file: Path) -> None:
    async def attempts() -> None:
        for context, scheme in ((None, "ws"), (tls, "wss")):
            for answer in (
                http("404 Not Found"),
                lambda head: switching(head, accept="AAAA"),
                lambda head: b"?\r\n\r\n",
            ):
                async with listening(answer, context) as relay:
                    await failure(Dialer(f"{scheme}://127.0.0.1:{relay.port}", ca_file=ca_file))
            async with listening(lambda head: b"", context) as relay:
                await failure(Dialer(f"{scheme}://127.0.0.1:{relay.port}", ca_file=ca_file), attempt_s=PATIENCE_S)
            async with listening(switching, context) as relay:
                upgraded = await Dialer(f"{scheme}://127.0.0.1:{relay.port}", ca_file=ca_file).dial()
                await echo(upgraded, relay)
                if upgraded.transport is not None:
                    upgraded.transport.abort()
        async with listening(switching, tls) as relay:
            await failure(Dialer(f"wss://127.0.0.1:{relay.port}"))

    asyncio.run(attempts())


async def test_no_descriptor_left_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "dup", refuse)
    async with listening(switching) as relay:
        why = await failure(Dialer(f"ws://127.0.0.1:{relay.port}"))
    assert why == "no descriptor for the connection: Too many open files"


async def test_an_ipv6_address_stands_in_brackets() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as closed:
        port = closed.getsockname()[1]
    assert (await failure(Dialer(f"ws://[::1]:{port}"))).startswith(f"cannot connect to the relay at [::1]:{port}: ")


async def test_ws_to_a_port_with_tls(tls: ssl.SSLContext) -> None:
    async with listening(http("200 OK"), tls) as relay:
        why = await failure(Dialer(f"ws://127.0.0.1:{relay.port}"))
    assert why.endswith(f": {WS_QUESTION}")
