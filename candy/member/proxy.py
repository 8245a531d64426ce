"""The HTTP proxy between a member and its relay: which one, and the way through.

    HTTP_PROXY for ws://, HTTPS_PROXY for wss://, none for NO_PROXY ─▶ proxy_for(url) ─▶ connect to it ─▶ tunnel()

NO_PROXY is a list, of

    *                                              everything
    example.org  .example.org  *.example.org       a domain, and all within it; each also with :port
    10.0.0.5  [fe80::1]:26816                      an address, also with :port
    10.0.0.0/8  fd00::/8                           a network, for hosts that are written as addresses

A variable in lower case wins over the same in upper case, even an empty one. This module does not know what goes
through the tunnel.
"""

import os
import re
import socket
from ipaddress import ip_address, ip_network
from urllib.parse import unquote

from yarl import URL

from candy.carrier import http1
from candy.errors import ConfigError, OperationalError
from candy.member import refusal
from candy.member.authorization import basic
from candy.member.refusal import Answer
from candy.settings import host_port, plain_host, without_credentials

NOT_A_PROXY = "the proxy's answer is not HTTP: does the variable name a proxy?"


def proxy_for(url: URL) -> URL | None:
    """The proxy that the environment names for this URL, or None.

    Raises:
        ConfigError: it is not an http:// proxy, or its user has a colon.
    """
    variable = "https_proxy" if url.scheme == "wss" else "http_proxy"
    # urllib.request knows them too, and takes a megabyte. Upper case sorts before lower case.
    proxies = {name.lower(): value for name, value in sorted(os.environ.items())}
    text = proxies.get(variable)
    if not text or goes_without(plain_host(url.raw_host or ""), url.port or 0, proxies.get("no_proxy", "")):
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
    authorization = basic(proxy)
    fields = {"Proxy-Authorization": authorization} if authorization is not None else {}
    try:
        answer = await http1.ask(opened, target, target, fields, method="CONNECT")
    except OSError as error:
        raise OperationalError(f"the connection to the proxy was lost ({error.strerror})") from error
    except (http1.Ended, http1.NotHttp) as error:
        raise OperationalError(NOT_A_PROXY) from error
    if 200 <= answer.status < 300:
        # The relay sends nothing before a request, so bytes behind the head are not the relay's.
        if answer.behind:
            raise OperationalError(NOT_A_PROXY)
        return
    challenges = answer.fields.all("Proxy-Authenticate")
    said = Answer(answer.line, challenges, await answer.body(refusal.BODY_BYTES, refusal.BODY_S))
    raise OperationalError(refusal.by_proxy(said, target=target, had_credentials=authorization is not None))
