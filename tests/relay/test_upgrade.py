"""The upgrade, byte by byte on a raw socket, at a relay as users start it; and what stays behind of it in Python."""

import asyncio
import gc
import re
import socket
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from unittest.mock import Mock

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from aiohttp.web_protocol import RequestHandler
from kit.peer import BINARY, PING, PONG, TEXT
from lab.member import Member, Speaker, frame, upgrade_request
from lab.programs import PATIENCE_S, RelayProgram, connect

from candy._fastpath import Engine
from candy.protocol import wire
from candy.relay.networksettings import NetworkSettings
from candy.relay.relay import Relay as Adapter
from candy.relay.settings import RelaySettings

pytestmark = [pytest.mark.carriers, pytest.mark.usefixtures("nobody_else_is_disturbed")]

KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
"""16 zero bytes."""
ACCEPT = "ICX+Yqv66kxgM0FcWaLWlFLwTAI="
"""base64(SHA-1(KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")), from openssl."""


def answer(relay: RelayProgram, request: bytes) -> bytes:
    """A whole response, or all there is up to the end of the connection."""
    with connect(relay.address) as opened:
        opened.sendall(request)
        received = b""
        while data := opened.recv(65536):
            received += data
            head, end, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"\r\nContent-Length: (\d+)", head)
            # aiohttp waits a while for a body that it was promised before it closes.
            if end and length and len(body) >= int(length[1]):
                break
        return received


def test_the_answer_is_the_one_of_rfc_6455(relay: RelayProgram) -> None:
    with Member.connect(relay.address) as member:
        assert sorted(member.head.split("\r\n")) == [
            "Connection: Upgrade",
            "HTTP/1.1 101 Switching Protocols",
            f"Sec-WebSocket-Accept: {ACCEPT}",
            "Upgrade: websocket",
        ]


def test_the_extension_is_chosen_where_it_is_offered(relay: RelayProgram) -> None:
    with Member.connect(relay.address, extended=True) as member:
        assert "Sec-WebSocket-Protocol: candy.2" in member.head.split("\r\n")


@pytest.mark.parametrize(
    ("headers", "chosen"),
    [
        (["Sec-WebSocket-Protocol: chat"], False),
        (["Sec-WebSocket-Protocol: chat, candy.2"], True),
        (["Sec-WebSocket-Protocol: candy.20"], False),
        (["Sec-WebSocket-Extensions: permessage-deflate"], False),
    ],
)
def test_what_else_a_peer_may_offer(relay: RelayProgram, headers: list[str], chosen: bool) -> None:
    with connect(relay.address) as opened:
        opened.sendall(upgrade_request(*headers))
        head = opened.recv(65536)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert (b"Sec-WebSocket-Protocol: candy.2" in head) is chosen
    assert b"Sec-WebSocket-Extensions" not in head


def test_any_path_and_header_names_in_any_case(relay: RelayProgram) -> None:
    request = upgrade_request().replace(b"GET / ", b"GET /some/path?query=1 ").replace(b"Upgrade: web", b"uPGRADE: Web")
    request = request.replace(b"Connection: Upgrade", b"connection: keep-alive, UPGRADE")
    with connect(relay.address) as opened:
        opened.sendall(request)
        assert opened.recv(65536).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("extended", [False, True])
def test_bytes_that_come_with_the_request_reach_the_engine(relay: RelayProgram, extended: bool) -> None:
    """One send() with the request, a whole login, a ping and the first half of another."""
    ip = "192.168.202.30" if extended else "192.168.202.31"
    speaker = Speaker()
    whole = [
        frame(speaker.greeting()),
        frame(speaker.request(f"{ip}/24")),
        frame(speaker.auth(ip)),
        frame(b"first", PING),
    ]
    last = frame(b"last", PING)
    opened = connect(relay.address)
    with Member(opened, ahead=b"".join(whole) + last[:5], extended=extended) as member:
        opened.sendall(last[5:])
        answers = [member.receive() for _ in range(3)]
        assert [payload for opcode, payload in answers if opcode == PONG] == [b"first", b"last"]
        [granted] = [wire.decode(payload) for opcode, payload in answers if opcode == BINARY]
        assert isinstance(granted, wire.Expttun)
        assert granted.address == IPv4Interface(f"{ip}/24")
        member.ip = IPv4Address(ip)
        member.settle()


def test_many_bytes_that_come_with_the_request(relay: RelayProgram) -> None:
    """More than aiohttp reads at once, and than it keeps before it pauses the transport: none is lost."""
    before = relay.counters()["dropped text"]
    opened = connect(relay.address)
    with Member(opened, ahead=frame(bytes(1000), TEXT) * 500 + frame(b"the end", PING)) as member:
        assert member.receive() == (PONG, b"the end")
    assert relay.counters()["dropped text"] - before == 500


def test_a_request_in_pieces(relay: RelayProgram) -> None:
    with connect(relay.address) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in upgrade_request() + frame(b"hello", PING):
            opened.send(bytes([byte]))
        received = b""
        while not received.endswith(frame(b"hello", PONG, masked=False)):
            data = opened.recv(65536)
            assert data, received
            received += data
    assert received.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("header", "rest"),
    [
        ("Content-Length: 5", b"hello"),
        ("Content-Length: 5", b""),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b""),
        ("Expect: 100-continue", b""),
        ("Expect: something", b""),
    ],
)
def test_an_upgrade_with_a_body_is_refused(relay: RelayProgram, header: str, rest: bytes) -> None:
    received = answer(relay, upgrade_request(header) + rest)
    assert received.startswith(b"HTTP/1.1 400 "), received
    assert b"HTTP/1.1 101" not in received
    assert b"100 Continue" not in received


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Sec-WebSocket-Version: 13\r\n", b"", 426),
        (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8", 426),
        (f"Sec-WebSocket-Key: {KEY}\r\n".encode(), b"", 400),
        (KEY.encode(), b"", 400),
        (KEY.encode(), b"AAAA", 400),
        (KEY.encode(), b"AAAAAAAAAAAAAAAAAAAAAAAA", 400),
        (KEY.encode(), b"AAAAAAAAAAAAAAAAAAAAAA=", 400),
        (KEY.encode(), b"******AAAAAAAAAAAAAAAA==", 400),
        (KEY.encode(), b"\xff\xfe\xfd", 400),
        (b"GET ", b"POST ", 400),
        (b"GET ", b"HEAD ", 400),
        (b"HTTP/1.1", b"HTTP/1.0", 400),
        (b"Upgrade: websocket\r\n", b"", 426),
        (b"Upgrade: websocket", b"Upgrade: h2c", 426),
        (b"Connection: Upgrade\r\n", b"", 426),
        (b"Connection: Upgrade", b"Connection: keep-alive", 426),
    ],
)
def test_bad_upgrades_are_refused(relay: RelayProgram, old: bytes, new: bytes, status: int) -> None:
    request = upgrade_request()
    assert old in request
    received = answer(relay, request.replace(old, new, 1))
    assert received.startswith((b"HTTP/1.1 %d " % status, b"HTTP/1.0 %d " % status)), received
    if status == 426:
        assert b"\r\nUpgrade: websocket\r\n" in received or b"\r\nSec-WebSocket-Version: 13\r\n" in received


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1", "null", "", "HTTPS://EVIL.EXAMPLE\xff"])
def test_a_web_page_is_refused(relay: RelayProgram, origin: str) -> None:
    """Its browser connects anywhere, to loopback too, and names the page in Origin."""
    start = len(relay.lines)
    received = answer(relay, upgrade_request(f"Origin: {origin}"))
    assert received.startswith(b"HTTP/1.1 403 ")
    assert received.endswith(b"A web page may join only if --allow-origin names its origin.\n")
    shown = re.escape(repr(origin.encode("latin-1").decode("utf-8", "surrogateescape")))
    relay.wait_for(rf"127\.0\.0\.1: not let in: a web page of {shown}, which no --allow-origin names$", start)


def test_a_web_page_that_is_allowed(tmp_path: Path, certified: trustme.CA | None) -> None:
    allowed = ["https://vpn.example.org", "null"]
    flags = [word for origin in allowed for word in ("--allow-origin", origin)]
    with RelayProgram(tmp_path, *flags, authority=certified) as relay:
        for origins, status in (
            (allowed[:1], 101),
            (allowed[1:], 101),
            (["https://vpn.example.org:8443"], 403),
            (["http://vpn.example.org"], 403),
            (["https://vpn.example.org, https://evil.example"], 403),
            ([allowed[0], "https://evil.example"], 403),
        ):
            with connect(relay.address) as opened:
                opened.sendall(upgrade_request(*(f"Origin: {origin}" for origin in origins)))
                assert opened.recv(65536).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    "request_",
    [
        upgrade_request(),
        upgrade_request("Origin: https://evil.example"),
        upgrade_request("Expect: 100-continue"),
        b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n",
        b"no HTTP\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: relay\r\nContent-Length: x\r\n\r\n",
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_no_answer_tells_what_runs_here(relay: RelayProgram, request_: bytes) -> None:
    with connect(relay.address) as opened:
        opened.sendall(request_)
        received = opened.recv(65536)
    assert received.startswith(b"HTTP/1.")
    assert not re.search(rb"server:|aiohttp|python", received, re.IGNORECASE)


def test_a_browser_gets_a_sentence(relay: RelayProgram) -> None:
    received = answer(relay, b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 426 ")
    assert received.endswith(b"join it with a candy client.\n")


async def test_no_object_of_aiohttp_stays_for_a_member() -> None:
    """Members cost the engine's slot and a session: an upgraded connection's HTTP objects go at once."""
    engine = Engine()
    adapter = Adapter(RelaySettings(networks=(NetworkSettings(password=b"a password"),)), engine)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    adapter.door.open([listener])
    before = objects_of_aiohttp()
    streams = []
    try:
        for number in range(50):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            streams.append(writer)
            writer.write(upgrade_request() + frame(b"%d" % number, PING))
            await reader.readuntil(frame(b"%d" % number, PONG, masked=False))
        assert engine.stats()["connections"] == 50
        # aiohttp ends its part of a connection in callbacks of the loop.
        async with asyncio.timeout(PATIENCE_S):
            while adapter.door.connections:
                await asyncio.sleep(0)
        gc.collect()
        assert objects_of_aiohttp() - before == 0
        # And these 50 are alive.
        assert engine.stats()["connections"] == 50
    finally:
        for writer in streams:
            writer.close()
            await writer.wait_closed()
        await adapter.door.shutdown()
        adapter.stop()
        engine.stop()


@pytest.mark.parametrize(("unsent", "closing"), [(1, False), (0, True)])
async def test_a_connection_that_is_not_idle(caplog: pytest.LogCaptureFixture, unsent: int, closing: bool) -> None:
    """Gone meanwhile, or with answers left to read: this relay is not full, nor is it worth a warning."""
    caplog.set_level("INFO")
    headers = dict(line.split(": ") for line in upgrade_request().decode().split("\r\n")[1:] if line)
    transport = Mock(spec=asyncio.Transport)
    transport.get_write_buffer_size.return_value = unsent
    transport.is_closing.return_value = closing
    transport.get_extra_info.return_value = None
    request = make_mocked_request("GET", "/", headers, transport=transport)
    engine = Engine()
    adapter = Adapter(RelaySettings(networks=(NetworkSettings(password=b"a password"),)), engine)
    try:
        response = await adapter.answer(request)
    finally:
        adapter.stop()
        engine.stop()
    assert isinstance(response, web.Response)
    assert (response.status, response.text) == (400, "An upgrade waits for the answers to earlier requests.\n")
    assert caplog.messages == []


def objects_of_aiohttp() -> int:
    return sum(isinstance(thing, RequestHandler | web.StreamResponse | web.BaseRequest) for thing in gc.get_objects())
