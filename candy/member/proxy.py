"""The HTTP proxy between a member and its relay: which one, and the way through.

    HTTP_PROXY for ws://, HTTPS_PROXY for wss://, none for NO_PROXY ─▶ proxy_for(url) ─▶ connect to it ─▶ tunnel()

aiohttp's own use of proxies would not do: it looks for WS_PROXY, and asks a proxy for ws:// URLs instead of for a
tunnel. This module does not know what goes through the tunnel.
"""

import asyncio
import base64
import socket
import urllib.request
from urllib.parse import unquote

from yarl import URL

from candy.errors import ConfigError, OperationalError
from candy.settings import without_credentials

MAX_ANSWER = 16384
"""Bytes of a proxy's answer that are read."""
MAX_QUOTE = 200
"""Characters of a peer's text in a message."""


def proxy_for(url: URL) -> URL | None:
    """The proxy that the environment names for this URL, or None.

    Raises:
        ConfigError: it is not an http:// proxy.
    """
    variable = "https_proxy" if url.scheme == "wss" else "http_proxy"
    text = urllib.request.getproxies().get(variable.removesuffix("_proxy"))
    if not text:
        return None
    host = url.raw_host or ""
    # NO_PROXY may name the host with or without its port.
    if urllib.request.proxy_bypass(host) or urllib.request.proxy_bypass(f"{host}:{url.port}"):
        return None
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        proxy = URL()
    if proxy.scheme != "http" or not proxy.raw_host or not proxy.port:
        raise ConfigError(
            f"{variable} is {without_credentials(text)!r}: candy knows http://[user:password@]host:port proxies only"
        )
    return proxy


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
    if proxy.raw_user is not None:
        credentials = f"{unquote(proxy.raw_user)}:{unquote(proxy.raw_password or '')}"
        request += f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode('ascii')}\r\n"
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
    status_line = head.partition(b"\r\n")[0].decode("ascii", "replace")
    version, _, status = status_line.partition(" ")
    # The relay sends nothing before a request, so bytes behind the head are not the relay's.
    if not end or not version.startswith("HTTP/1.") or (status.startswith("2") and rest):
        raise OperationalError("the proxy's answer is not HTTP: does the variable name a proxy?")
    if status.startswith("407"):
        raise OperationalError(
            "the proxy asks for a user and password: put http://user:password@host:port in the variable"
        )
    if not status.startswith("2"):
        raise OperationalError(
            f"the proxy refused to connect to {target}: HTTP {quoted(status)}: "
            "have it allowed there, or name the relay's host in NO_PROXY to go without"
        )


def quoted(text: str) -> str:
    """A peer's text, fit for a log: of bounded length, in printable ASCII."""
    return text[:MAX_QUOTE].encode("unicode_escape").decode("ascii")
