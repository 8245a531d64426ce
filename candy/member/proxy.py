"""The HTTP proxy between a member and its relay: which one, and the way through.

    HTTP_PROXY for ws://, HTTPS_PROXY for wss://, none for NO_PROXY ─▶ proxy_for(url) ─▶ connect to it ─▶ tunnel()

NO_PROXY is a list, of

    *                                              everything
    example.org  .example.org  *.example.org       a domain, and all within it; each also with :port
    10.0.0.5  [fe80::1]:26816                      an address, also with :port
    10.0.0.0/8  fd00::/8                           a network, for hosts that are written as addresses

aiohttp's own use of proxies would not do: it looks for WS_PROXY, and asks a proxy for ws:// URLs instead of for a
tunnel. This module does not know what goes through the tunnel.
"""

import asyncio
import re
import socket
import urllib.request
from contextlib import suppress
from ipaddress import ip_address, ip_network
from urllib.parse import unquote

from yarl import URL

from candy.errors import ConfigError, OperationalError
from candy.member import refusal
from candy.member.authorization import basic
from candy.member.refusal import Answer
from candy.settings import host_port, plain_host, without_credentials

MAX_ANSWER = 16384
"""Bytes in which the head of a proxy's answer has to end."""


def proxy_for(url: URL) -> URL | None:
    """The proxy that the environment names for this URL, or None.

    Raises:
        ConfigError: it is not an http:// proxy, or its user has a colon.
    """
    variable = "https_proxy" if url.scheme == "wss" else "http_proxy"
    proxies = urllib.request.getproxies()
    text = proxies.get(variable.removesuffix("_proxy"))
    if not text or goes_without(plain_host(url.raw_host or ""), url.port or 0, proxies.get("no", "")):
        return None
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        proxy = URL()
    if proxy.scheme != "http" or not proxy.raw_host or not proxy.port:
        raise ConfigError(
            f"{variable} is {without_credentials(text)!r}: candy knows http://[user:password@]host:port proxies only"
        )
    if ":" in unquote(proxy.raw_user or ""):
        raise ConfigError(
            f"{variable} has a colon in the user, which HTTP takes for the user's end: choose one without"
        )
    return proxy


def goes_without(host: str, port: int, no_proxy: str) -> bool:
    """Whether a host goes without a proxy, by the text of NO_PROXY."""
    host = host.rstrip(".").lower()
    names = {host, f"{host}:{port}", host_port(host, port)}
    return any(_covers(item, host, names) for item in re.split(r"[\s,]+", no_proxy.lower()) if item)


def _covers(item: str, host: str, names: set[str]) -> bool:
    if item == "*" or item in names:
        return True
    try:
        address = ip_address(host)
    except ValueError:
        domain = item.removeprefix("*").removeprefix(".")
        return domain != "" and any(f".{name}".endswith(f".{domain}") for name in names)
    try:
        return address in ip_network(item.strip("[]"), strict=False)
    except ValueError:
        return False


async def tunnel(opened: socket.socket, target: str, proxy: URL) -> None:
    """Have the proxy connect this socket to the target (RFC 9110 section 9.3.6).

    Args:
        opened: connected to the proxy; non-blocking.
        target: host:port.

    Raises:
        OperationalError: the proxy refused, or is not one.
    """
    loop = asyncio.get_running_loop()
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    authorization = basic(proxy)
    if authorization is not None:
        request += f"Proxy-Authorization: {authorization}\r\n"
    answer = b""
    try:
        await loop.sock_sendall(opened, f"{request}\r\n".encode("ascii"))
        while b"\r\n\r\n" not in answer and len(answer) < MAX_ANSWER:
            received = await loop.sock_recv(opened, 4096)
            if not received:
                break
            answer += received
    except OSError as error:
        raise OperationalError(f"the connection to the proxy was lost ({error.strerror})") from error
    head, end, rest = answer.partition(b"\r\n\r\n")
    status_line, *fields = head.decode("latin-1").split("\r\n")
    version, _, status = status_line.partition(" ")
    # The relay sends nothing before a request, so bytes behind the head are not the relay's.
    if not end or not version.startswith("HTTP/1.") or (status.startswith("2") and rest):
        raise OperationalError("the proxy's answer is not HTTP: does the variable name a proxy?")
    if not status.startswith("2"):
        said = Answer(status, _values(fields, "Proxy-Authenticate"), await _body(opened, fields, rest))
        raise OperationalError(refusal.by_proxy(said, target=target, had_credentials=authorization is not None))


def _values(fields: list[str], name: str) -> list[str]:
    """Of a header that may come several times."""
    pairs = (field.partition(":") for field in fields)
    return [value.strip() for key, _, value in pairs if key.lower() == name.lower()]


async def _body(opened: socket.socket, fields: list[str], body: bytes) -> bytes:
    """The beginning of an answer's body, as much as comes soon; without a length it lasts until the proxy hangs up."""
    if _values(fields, "Transfer-Encoding"):
        return b""
    lengths = [int(value) for value in _values(fields, "Content-Length") if re.fullmatch("[0-9]{1,9}", value)]
    length = min([refusal.BODY_BYTES, *lengths])
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        async with asyncio.timeout(refusal.BODY_S):
            while len(body) < length and (received := await loop.sock_recv(opened, length - len(body))):
                body += received
    return body[:length]
