"""What is made of an answer that is no upgrade, and no tunnel: who refused, why, and the hint."""

import pytest

from candy.carrier.handover import KEYS_ALONE, OLD_HTTP, RELAY_FULL
from candy.member.refusal import MAX_QUOTE, Answer, by_proxy, by_server

RELAY_QUESTION = "is this the address of a candy relay?"
NOT_REACHED = "there is a web server in front, but it does not reach candy-server"
PAGE = (
    b"<html>\r\n<head><title>%b</title></head>\r\n<body>\r\n<center><h1>400 Bad Request</h1></center>\r\n"
    b"<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n"
)


def server(
    status: str, body: bytes = b"", *challenges: str, location: str | None = None, had_credentials: bool = False
) -> str:
    return by_server(Answer(status, challenges, body), location=location, had_credentials=had_credentials)


def proxy(status: str, body: bytes = b"", *challenges: str, had_credentials: bool = False) -> str:
    return by_proxy(Answer(status, challenges, body), target="relay.test:26816", had_credentials=had_credentials)


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (
            "400 Bad Request",
            OLD_HTTP.encode(),
            'HTTP 400 Bad Request ("An upgrade is a GET of HTTP/1.1."): '
            "a web server in front speaks HTTP/1.0: nginx needs `proxy_http_version 1.1;`",
        ),
        (
            "400 Bad Request",
            PAGE % b"400 Request Header Or Cookie Too Large",
            f'HTTP 400 Bad Request ("400 Request Header Or Cookie Too Large"): {RELAY_QUESTION}',
        ),
        ("400 Bad Request", PAGE % b"400 Bad Request", f"HTTP 400 Bad Request: {RELAY_QUESTION}"),
        ("400 Bad Request", b"\n\n  no\r\nmore\n", f'HTTP 400 Bad Request ("no"): {RELAY_QUESTION}'),
        ("400", b"", f"HTTP 400: {RELAY_QUESTION}"),
        (
            "403 Forbidden",
            b"<!DOCTYPE html>\n<HTML><TITLE lang=en>\n Tom &amp; Jerry's\n filter</TITLE>",
            'HTTP 403 Forbidden ("Tom & Jerry\'s filter"): '
            "a web server in front, or a filter on the way, does not allow it: have it allowed there",
        ),
        (
            "403 Forbidden",
            KEYS_ALONE.encode(),
            'HTTP 403 Forbidden ("This network admits clients with candy.3 alone: update candy."): '
            "remove --no-extension, by which this member speaks as old clients do",
        ),
        ("403 Forbidden", b"<p>no title", "HTTP 403 Forbidden: a web server in front, or a filter on the way, "),
        ("404 Not Found", b"There is no network at this path.\n", "no relay at this path, check the end of the URL"),
        ("502 Bad Gateway", PAGE % b"502 Bad Gateway", f"HTTP 502 Bad Gateway: {NOT_REACHED}"),
        ("502 Bad Gateway", b"connect: refused", f'HTTP 502 Bad Gateway ("connect: refused"): {NOT_REACHED}'),
        (
            "503 Full",
            RELAY_FULL.encode() + b"!",
            f'HTTP 503 Full ("The relay is full; try again later."): {NOT_REACHED}',
        ),
        ("200 OK", b"hello", f'HTTP 200 OK ("hello"): {RELAY_QUESTION}'),
    ],
)
def test_the_first_line_of_the_body(status: str, body: bytes, text: str) -> None:
    """F13: "HTTP 400/401 whose reason the client throws away"."""
    said = server(status, body)
    assert said.startswith("the server answered HTTP ")
    assert text in said


@pytest.mark.parametrize(
    ("challenges", "had_credentials", "hint"),
    [
        (
            ('Basic realm="relay"',),
            False,
            "a web server in front asks for a user and password: put them into the URL, like wss://user:password@host",
        ),
        ((), False, "a web server in front asks for a user and password: put them into the URL"),
        (
            ("basic",),
            True,
            "a web server in front does not take the user and password of the URL: correct them",
        ),
        (
            ("Negotiate", 'Digest realm="a, b c", nonce = x, qop="auth, Basic", stale=no'),
            True,
            "a web server in front asks for Negotiate or Digest authorization, and candy knows Basic alone",
        ),
        (("Bearer abc==, BASIC realm=x",), True, "does not take the user and password"),
        (("X\x1b[31m",), False, "asks for a user and password"),
    ],
)
def test_authorization_of_a_web_server(challenges: tuple[str, ...], had_credentials: bool, hint: str) -> None:
    said = server("401 Unauthorized", b"", *challenges, had_credentials=had_credentials)
    assert said.startswith("the server answered HTTP 401 Unauthorized: ")
    assert hint in said


def test_a_redirect() -> None:
    assert server("302 Found", location="http://\x1bx/") == (
        "the server answered HTTP 302 Found to http://\\x1bx/: candy follows no redirects, give the address it leads to"
    )
    assert server("304 Not Modified").endswith(RELAY_QUESTION)


@pytest.mark.parametrize(
    ("challenges", "had_credentials", "text"),
    [
        ((), False, "the proxy asks for a user and password: put http://user:password@host:port in the variable"),
        (
            ('Basic realm="x"',),
            True,
            "the proxy does not take the user and password in the variable: correct them, "
            "and write characters like @ : / % in them as %40 %3A %2F %25",
        ),
        (
            ("NTLM", "Negotiate"),
            True,
            "the proxy asks for NTLM or Negotiate authorization, and candy knows Basic alone",
        ),
        (("NTLM", "Basic realm=x"), False, "the proxy asks for a user and password: put"),
    ],
)
def test_authorization_of_a_proxy(challenges: tuple[str, ...], had_credentials: bool, text: str) -> None:
    """ "A wrong proxy password is told apart from a missing one"."""
    assert proxy("407 Who?", b"", *challenges, had_credentials=had_credentials).startswith(text)


def test_a_proxy_that_forbids() -> None:
    assert proxy("403 Forbidden", b"<title>CONNECT to 26816 is not allowed</title>") == (
        'the proxy refused to connect to relay.test:26816: HTTP 403 Forbidden ("CONNECT to 26816 is not allowed"): '
        "have it allowed there, or name the relay's host in NO_PROXY to go without"
    )


@pytest.mark.parametrize("text", ["\x1b[2J\x07\x9b31m\x7f\N{RIGHT-TO-LEFT OVERRIDE}é", "x" * 5000])
def test_what_strangers_say_is_quoted(text: str) -> None:
    for said in (
        server(f"500 {text}", text.encode(), location=text),
        server("401", b"", f"{text} realm=x"),
        proxy(f"500 {text}", text.encode()),
    ):
        assert said.isascii()
        assert said.isprintable()
        assert len(said) < 2 * MAX_QUOTE + 300


def test_credentials_that_come_back() -> None:
    """aiohttp shows the beginning of a header that is too long."""
    said = server("400 Bad Request", b"Got more than 8190 bytes when reading: b'Basic dTpwcHBw...'.")
    assert "reading: b'Basic ***...'.\"): " in said


def test_bytes_that_are_no_text() -> None:
    assert '("\\ufffd\\x00")' in server("500", b"\xff\x00")
