"""Attempts to reach a relay, on loopback: the upgrade and what passes for one, the way there, and no descriptor lost.

TLS is in test_dial_tls.py, proxies in test_dial_proxy.py.
"""

import asyncio
import base64
import os
import re
import select
import socket
import ssl
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from lab.answering import (
    SOON_S,
    Answer,
    echo,
    failure,
    frames_pass,
    header,
    http,
    listening,
    plain,
    securing,
    switching,
)
from lab.programs import PATIENCE_S

from candy import __version__
from candy.carrier import http1, upgraded
from candy.carrier.tls import Trust
from candy.errors import ConfigError
from candy.member import dial, refusal
from candy.member.dial import PADDING, Dialer
from candy.member.outer import Outer
from candy.member.steps import Step

pytestmark = pytest.mark.usefixtures("no_proxy_of_the_machine")

RELAY_QUESTION = "is this the address of a candy relay?"
WS_QUESTION = "is this the address of a candy relay, and one of ws://, not wss://?"


# The upgrade.


async def test_the_request_and_the_hand_over() -> None:
    async with listening(switching) as relay:
        made = await Dialer(f"ws://127.0.0.1:{relay.port}/a/path?x=1").dial()
        assert not made.extended
        assert plain(made).tail == b""
        await echo(made, relay)
    [head] = relay.heads
    assert head.startswith("GET /a/path?x=1 HTTP/1.1\r\n")
    key = header(head, "Sec-WebSocket-Key")
    assert key is not None
    assert len(base64.b64decode(key, validate=True)) == 16
    instance = header(head, "Candy-Instance")
    assert re.fullmatch(r"[0-9a-f]{16}", instance or "")
    assert {line.split(": ")[0]: header(head, line.split(": ")[0]) for line in head.split("\r\n")[1:-2]} == {
        "Host": f"127.0.0.1:{relay.port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": "candy.3, candy.2",
        "Candy-Instance": instance,
        "User-Agent": f"candy/{__version__}",
    }


@pytest.mark.parametrize("url", ["ws://host\\x/", "ws://" + "é" * 70 + "/"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^the relay's URL can't be used: "):
        Dialer(url)


@pytest.mark.parametrize(
    ("user", "credentials"), [("alice:p%C3%A9", "alice:pé"), ("alice:%E2%82%AC", "alice:€"), ("a", "a:")]
)
async def test_user_and_password_of_the_url(user: str, credentials: str) -> None:
    """F8: in UTF-8, as towards a proxy, and in no message."""
    async with listening(http("404 Not Found")) as relay:
        dialer = Dialer(f"ws://{user}@127.0.0.1:{relay.port}")
        await failure(dialer)
    assert header(relay.heads[0], "Authorization") == f"Basic {base64.b64encode(credentials.encode()).decode()}"
    assert header(relay.heads[0], "Host") == f"127.0.0.1:{relay.port}"
    assert dialer.relay == f"ws://127.0.0.1:{relay.port}"


def test_a_url_that_is_none_is_not_repeated_with_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        # To yarl alone this sign is a "%" in disguise.
        Dialer("ws://user:secret\N{FULLWIDTH PERCENT SIGN}@relay.test/")
    assert "secret" not in str(caught.value)


async def test_keys_are_not_repeated() -> None:
    async with listening(http("404 Not Found")) as relay:
        dialer = Dialer(f"ws://127.0.0.1:{relay.port}")
        await failure(dialer)
        await failure(dialer)
    first, second = (header(head, "Sec-WebSocket-Key") for head in relay.heads)
    assert first != second
    # What tells it from a copy of its machine is.
    assert len({header(head, "Candy-Instance") for head in relay.heads}) == 1


async def test_the_extension() -> None:
    async with listening(lambda head: switching(head, "Sec-WebSocket-Protocol: candy.2")) as relay:
        made = await Dialer(f"ws://127.0.0.1:{relay.port}").dial()
        assert made.extended
        await echo(made, relay)


@pytest.mark.parametrize("count", [1, 1000, 300_000])
async def test_bytes_behind_the_answer(count: int) -> None:
    behind = bytes(range(250)) * (count // 250) + bytes(range(count % 250))
    async with listening(lambda head: switching(head) + behind) as relay:
        made = await Dialer(f"ws://127.0.0.1:{relay.port}").dial()
        # What nobody has read is still in the socket.
        received = plain(made).tail
        with made.outer, socket.socket(fileno=plain(made).fd) as mine:
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
        (
            lambda head: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 9\r\n\r\nno\r\nmore!",
            f'the server answered HTTP 400 Bad Request ("no"): {RELAY_QUESTION}',
        ),
        (
            http("401 Unauthorized", "WWW-Authenticate: Negotiate", "WWW-Authenticate: NTLM"),
            "the server answered HTTP 401 Unauthorized: "
            "a web server in front asks for Negotiate or NTLM authorization, and candy knows Basic alone",
        ),
    ],
)
async def test_answers_that_are_no_upgrade(answer: Answer, text: str) -> None:
    async with listening(answer) as relay:
        assert await failure(Dialer(f"ws://127.0.0.1:{relay.port}")) == text
        assert len(relay.heads) == 1


@pytest.mark.parametrize(
    ("user", "hint"),
    [("", "asks for a user and password: put them into the URL"), ("alice:x@", "does not take the user and password")],
)
async def test_a_web_server_that_wants_a_password(user: str, hint: str) -> None:
    async with listening(http("401 Unauthorized", 'WWW-Authenticate: Basic realm="x"')) as relay:
        assert hint in await failure(Dialer(f"ws://{user}127.0.0.1:{relay.port}"))


async def test_a_body_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come by then is told, and the answer is no time-out."""
    monkeypatch.setattr(refusal, "BODY_S", 0.05)
    async with listening(lambda head: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 99\r\n\r\nthe reason\n") as relay:
        why = await failure(Dialer(f"ws://127.0.0.1:{relay.port}"))
    assert why.startswith('the server answered HTTP 403 Forbidden ("the reason"): ')


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
    there, here = socket.socketpair()
    there.setblocking(False)

    async def connect(*_: object) -> socket.socket:
        return there

    def switch_and_end() -> None:
        with here:
            here.sendall(switching(here.recv(4096).decode()))

    def check_once_it_has_ended(answer: http1.Answer, key: str, offered: Sequence[str]) -> str | None:
        ended = select.poll()
        ended.register(there, select.POLLRDHUP)
        assert ended.poll(PATIENCE_S * 1000)
        return check(answer, key, offered)

    monkeypatch.setattr(Outer, "connect", connect)
    monkeypatch.setattr(dial, "_check", check_once_it_has_ended)
    why, _ = await asyncio.gather(failure(Dialer("ws://relay.test")), asyncio.to_thread(switch_and_end))
    assert why == "the server closed the connection right behind its answer"


async def test_each_step_is_told_as_it_begins() -> None:
    steps: list[Step] = []
    async with listening(switching) as relay:
        (await Dialer(f"ws://127.0.0.1:{relay.port}").dial(told=steps.append)).close()
        assert steps == [Step.NAME, Step.TCP, Step.UPGRADE]
        assert header(relay.heads[0], PADDING) is None


async def test_a_request_may_be_longer() -> None:
    async with listening(switching) as relay:
        (await Dialer(f"ws://127.0.0.1:{relay.port}").dial(padding=3000)).close()
        assert header(relay.heads[0], PADDING) == "x" * 3000


async def test_no_answer_in_time() -> None:
    async with listening(lambda head: b"") as relay:
        why = await failure(Dialer(f"ws://127.0.0.1:{relay.port}"), attempt_s=SOON_S)
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
    assert dialer.outer.exposed == frozenset()
    for _ in range(2):
        await failure(dialer)
        assert dialer.outer.exposed == {IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")}


# Descriptors.


@pytest.fixture
def same_descriptors() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.usefixtures("same_descriptors")
def test_no_attempt_leaves_a_descriptor(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    async def attempts() -> None:
        for context, scheme in ((None, "ws"), (server_tls, "wss")):
            for answer in (
                http("404 Not Found"),
                lambda head: switching(head, accept="AAAA"),
                lambda head: b"?\r\n\r\n",
            ):
                async with listening(answer, context) as relay:
                    await failure(Dialer(f"{scheme}://127.0.0.1:{relay.port}", trust=Trust(ca_file)))
            async with listening(lambda head: b"", context) as relay:
                await failure(Dialer(f"{scheme}://127.0.0.1:{relay.port}", trust=Trust(ca_file)), attempt_s=SOON_S)
            async with listening(switching, context) as relay:
                with securing() as (engine, secure):
                    dialer = Dialer(f"{scheme}://127.0.0.1:{relay.port}", trust=Trust(ca_file))
                    made = await dialer.dial(secure=secure)
                    if scheme == "ws":
                        await echo(made, relay)
                    else:
                        await frames_pass(made, engine, relay)
                    made = await dialer.dial(secure=secure)
                    made.close()
        async with listening(switching, server_tls) as relay:
            await failure(Dialer(f"wss://127.0.0.1:{relay.port}"))

    asyncio.run(attempts())


@pytest.fixture
def hesitation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is there, and nothing comes of it."""
    ask = upgraded.ask

    async def ask_for_ever(*arguments: Any) -> Any:
        await ask(*arguments)
        await asyncio.Event().wait()

    monkeypatch.setattr(upgraded, "ask", ask_for_ever)


@pytest.mark.usefixtures("hesitation")
async def test_a_deadline_behind_the_answer_closes_the_connection() -> None:
    """So does who gives the attempt up, because the way to the relay has changed."""
    async with listening(switching) as relay:
        await failure(Dialer(f"ws://127.0.0.1:{relay.port}"), attempt_s=SOON_S)
        reader, _ = await relay.peers.get()
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""


@pytest.mark.usefixtures("same_descriptors", "hesitation")
def test_nor_one_whose_time_is_over_behind_the_answer(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    async def attempts() -> None:
        for context, scheme in ((None, "ws"), (server_tls, "wss")):
            async with listening(switching, context) as relay:
                dialer = Dialer(f"{scheme}://127.0.0.1:{relay.port}", trust=Trust(ca_file))
                await failure(dialer, attempt_s=SOON_S)

    asyncio.run(attempts())


async def test_no_descriptor_left_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: socket.socket) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket.socket, "dup", refuse)
    async with listening(switching) as relay:
        why = await failure(Dialer(f"ws://127.0.0.1:{relay.port}"))
    assert why == "no descriptor for the connection: Too many open files"


async def test_an_ipv6_address_stands_in_brackets() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as closed:
        port = closed.getsockname()[1]
    assert (await failure(Dialer(f"ws://[::1]:{port}"))).startswith(f"cannot connect to the relay at [::1]:{port}: ")


async def test_ws_to_a_port_with_tls(server_tls: ssl.SSLContext) -> None:
    async with listening(http("200 OK"), server_tls) as relay:
        why = await failure(Dialer(f"ws://127.0.0.1:{relay.port}"))
    assert why.endswith(f": {WS_QUESTION}")
