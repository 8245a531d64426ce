"""Makes the upgraded connection to a relay, and takes its socket away from aiohttp.

    1 proxy      HTTP_PROXY for ws://, HTTPS_PROXY for wss://, none for NO_PROXY
    2 name       the relay's or the proxy's, resolved anew at each attempt
    3 TCP        its addresses raced as in RFC 8305
    4 CONNECT    through the proxy, for both schemes
    5 TLS        for wss://
    6 upgrade    aiohttp's request; the answer checked as RFC 6455 section 4.1 asks
    7 hand-over  a duplicate of the socket and the bytes read behind the answer; TLS through candy.carrier.pump

Rules: whatever fails is an OperationalError of one line that says what the user can do; all steps together
have one deadline; a failed attempt leaves no descriptor behind. This module knows neither messages nor when
to try again.

aiohttp's own use of proxies would not do: it looks for WS_PROXY, and asks a proxy for ws:// URLs instead of
for a tunnel.
"""

import asyncio
import base64
import errno
import os
import secrets
import socket
import ssl
import threading
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import unquote

import aiohttp
from aiohappyeyeballs import AddrInfoType, start_connection
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace
from yarl import URL

from candy import __version__
from candy.carrier import pump
from candy.carrier.handover import RELAY_FULL, Tail, accept_for
from candy.errors import ConfigError, OperationalError
from candy.protocol.wire import SUBPROTOCOL
from candy.settings import host_port, without_credentials

ATTEMPT_S = 10.0
NEXT_ADDRESS_S = 0.25
"""Head start of one address before the next is tried as well: RFC 8305's Connection Attempt Delay."""
TLS_SHUTDOWN_S = 3.0
"""How long a relay may take to answer our close_notify."""
MAX_PROXY_ANSWER = 16384
MAX_QUOTE = 200
"""Characters of a stranger's text in a message."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A connection behind its WebSocket upgrade, owned by whoever got it.

    `fd` is for Engine.adopt(), `extended` says whether the relay chose `candy.2`, `tail` are the bytes read
    behind its answer. `transport` is the TLS transport that ends when fd is closed; None when fd is the
    connection itself.
    """

    fd: int
    extended: bool
    tail: bytes
    transport: asyncio.Transport | None


class Dialer:
    """Makes connections to one relay.

    Args:
        url: ws:// or wss:// with a host; user:password@ becomes Basic authorization.
        ca_file: PEM certificates to trust instead of the system's.
        insecure: don't verify the certificate.
        extension: offer candy.2.

    Raises:
        ConfigError: the URL, the CA file or a proxy variable of the environment can't be used.
    """

    def __init__(
        self, url: str, *, ca_file: Path | None = None, insecure: bool = False, extension: bool = True
    ) -> None:
        self._extension = extension
        try:
            self._url = URL(url)
        except ValueError as error:
            raise ConfigError(f"the relay's URL can't be used: {error}") from error
        self.relay = str(self._url.with_user(None))
        """The URL without credentials, for messages."""
        self.addresses: frozenset[IPv4Address] = frozenset()
        """What the relay's name, or its proxy's, was last found to mean: where connections go to."""
        self._proxy = proxy_for(self._url)
        self._tls = _tls_context(ca_file, insecure) if self._url.scheme == "wss" else None
        self._doubt = "is this the address of a candy relay" + ("?" if self._tls else ", and one of ws://, not wss://?")

    async def dial(self, attempt_s: float = ATTEMPT_S) -> Upgraded:
        """Make one attempt of at most attempt_s seconds.

        Raises:
            OperationalError: there is no connection; the text begins with the URL and says why and what to
            do.
        """
        connector = _Connector(self._tls, self._proxy)
        try:
            async with (
                asyncio.timeout(attempt_s),
                aiohttp.ClientSession(
                    connector=connector,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as session,
            ):
                return await self._upgrade(session)
        except TimeoutError:
            why = f"no success within {attempt_s:g} s, while {connector.stage}"
        except aiohttp.ServerDisconnectedError:
            why = f"the server closed the connection instead of answering: {self._doubt}"
        except aiohttp.ClientResponseError:
            why = f"the answer is not HTTP: {self._doubt}"
        except aiohttp.ClientOSError as error:
            why = f"the connection was lost before the answer ({error.strerror or error})"
        except OperationalError as error:
            why = str(error)
        finally:
            # Of an attempt that failed as well: it may have failed for the way there.
            self.addresses = connector.addresses or self.addresses
        raise OperationalError(f"{self.relay}: {why}")

    async def _upgrade(self, session: aiohttp.ClientSession) -> Upgraded:
        key = base64.b64encode(secrets.token_bytes(16)).decode("ascii")
        response = await session.get(
            self._url,
            headers={
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": key,
                "User-Agent": f"candy/{__version__}",
                **({"Sec-WebSocket-Protocol": SUBPROTOCOL} if self._extension else {}),
            },
            skip_auto_headers=("Accept", "Accept-Encoding"),
            allow_redirects=False,
        )
        try:
            if await _is_full(response):
                raise OperationalError(
                    "the relay is full (HTTP 503): wait until a member leaves, or raise --max-connections there"
                )
            return _take(response, _check(response, key))
        finally:
            response.close()


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


def _tls_context(ca_file: Path | None, insecure: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise ConfigError(f"--ca-file {ca_file}: no PEM certificates in it") from error
    except OSError as error:
        raise ConfigError(f"--ca-file {ca_file}: {error.strerror}: give a file this user can read") from error
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Connector(aiohttp.BaseConnector):
    """Steps 2 to 5, for one connection."""

    def __init__(self, tls: ssl.SSLContext | None, proxy: URL | None) -> None:
        super().__init__(force_close=True)
        self._tls = tls
        self._proxy = proxy
        self._used = False
        self.stage = "starting"
        self.addresses: frozenset[IPv4Address] = frozenset()

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        if self._used:
            # aiohttp repeats a GET at once when the server hangs up on it, which is for Backoff to decide.
            raise aiohttp.ServerDisconnectedError
        self._used = True
        host, port = req.url.raw_host or "", req.url.port or 0
        with ExitStack() as cleanup:
            if self._proxy is None:
                opened = await self._connect("the relay", host, port)
                cleanup.callback(opened.close)
            else:
                via = self._proxy.raw_host or "", self._proxy.port or 0
                opened = await self._connect("the proxy", *via)
                cleanup.callback(opened.close)
                self.stage = f"waiting for the proxy {host_port(*via)}"
                await _tunnel(opened, host_port(host, port), self._proxy)
            # From here on it is the transport's, also when TLS fails.
            cleanup.pop_all()
        self.stage = "negotiating TLS" if self._tls else "waiting for the answer to the upgrade request"
        try:
            _, protocol = await self._loop.create_connection(
                self._factory,
                sock=opened,
                ssl=self._tls,
                server_hostname=host.rstrip(".") if self._tls else None,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S if self._tls else None,
            )
        except ssl.SSLCertVerificationError as error:
            raise OperationalError(
                f"its TLS certificate is not trusted ({error.verify_message}): "
                "name its CA with --ca-file, or give --insecure to accept any certificate"
            ) from error
        except ssl.SSLError as error:
            raise OperationalError(
                f"TLS failed ({error.reason or error}): is it a wss:// port, or rather ws://?"
            ) from error
        except OSError as error:
            raise OperationalError(f"the connection was lost during the TLS handshake ({error})") from error
        self.stage = "waiting for the answer to the upgrade request"
        return protocol

    async def _connect(self, what: str, host: str, port: int) -> socket.socket:
        self.stage = f"looking up {host}"
        addresses = await _resolve(host, port)
        self.addresses = frozenset(IPv4Address(to[0]) for family, *_, to in addresses if family == socket.AF_INET)
        where = host_port(host, port)
        self.stage = f"connecting to {what} {where}"
        try:
            return await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_S)
        except OSError as error:
            match error.errno:
                case errno.ECONNREFUSED:
                    why = "connection refused: is it running there, and is the port right?"
                case errno.ENETUNREACH | errno.EHOSTUNREACH:
                    why = "no route to it: is this machine online, and the address right?"
                case _:
                    why = str(error)
            raise OperationalError(f"cannot connect to {what} at {where}: {why}") from error


async def _resolve(host: str, port: int) -> list[AddrInfoType]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[AddrInfoType]] = loop.create_future()

    def settle(result: list[AddrInfoType] | OSError | UnicodeError) -> None:
        if answer.cancelled():
            return
        if isinstance(result, list):
            answer.set_result(result)
        else:
            answer.set_exception(result)

    def look_up() -> None:
        result: list[AddrInfoType] | OSError | UnicodeError
        try:
            result = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            result = error
        # The loop may be closed by now: then nobody waits for it.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result)

    # Not in the loop's executor: its threads are joined at exit, which a silent name server would delay.
    threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
    try:
        return await answer
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            why = "the name server does not answer: is this machine online?"
        else:
            why = "name not found: check the spelling, and this machine's name server"
        raise OperationalError(f"{host}: {why}") from error
    except (OSError, UnicodeError) as error:
        raise OperationalError(f"{host}: not a host name ({error})") from error


async def _tunnel(opened: socket.socket, target: str, proxy: URL) -> None:
    """Have the proxy connect this socket to the target (RFC 9110 section 9.3.6)."""
    loop = asyncio.get_running_loop()
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.raw_user is not None:
        credentials = f"{unquote(proxy.raw_user)}:{unquote(proxy.raw_password or '')}"
        request += f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode('ascii')}\r\n"
    answer = b""
    try:
        await loop.sock_sendall(opened, f"{request}\r\n".encode("ascii"))
        while b"\r\n\r\n" not in answer and len(answer) < MAX_PROXY_ANSWER:
            received = await loop.sock_recv(opened, 4096)
            if not received:
                break
            answer += received
    except OSError as error:
        raise OperationalError(f"the connection to the proxy was lost ({error.strerror})") from error
    head, end, rest = answer.partition(b"\r\n\r\n")
    status_line = head.partition(b"\r\n")[0].decode("ascii", "replace")
    version, _, status = status_line.partition(" ")
    # The relay speaks only when asked, so whatever follows the head is not its.
    if not end or not version.startswith("HTTP/1.") or (status.startswith("2") and rest):
        raise OperationalError("the proxy's answer is not HTTP: does the variable name a proxy?")
    if status.startswith("407"):
        raise OperationalError(
            "the proxy asks for a user and password: put http://user:password@host:port in the variable"
        )
    if not status.startswith("2"):
        raise OperationalError(
            f"the proxy refused to connect to {target}: HTTP {_quote(status)}: "
            "have it allowed there, or name the relay's host in NO_PROXY to go without"
        )


def _quote(text: str) -> str:
    """What a stranger sent, fit for a log: of bounded length, in printable ASCII."""
    return text[:MAX_QUOTE].encode("unicode_escape").decode("ascii")


async def _is_full(response: aiohttp.ClientResponse) -> bool:
    """Whether it is the relay itself that has no room."""
    if response.status != 503:
        return False
    try:
        return await response.content.read(len(RELAY_FULL) + 1) == RELAY_FULL.encode("ascii")
    except aiohttp.ClientPayloadError:
        # It hung up within its answer, of which the head says enough.
        return False


def _check(response: aiohttp.ClientResponse, key: str) -> bool:
    """Whether the relay chose the extension; an OperationalError when the answer is not the upgrade that was
    asked for."""
    headers = response.headers
    status = response.status
    if status != 101:
        answer = f"the server answered HTTP {status} {_quote(response.reason or '')}".rstrip()
        if 300 <= status < 400 and (location := headers.get("Location")):
            raise OperationalError(
                f"{answer} to {_quote(location)}: candy follows no redirects, give the address it leads to"
            )
        if status == 404:
            raise OperationalError(f"{answer}: no relay at this path, check the end of the URL")
        if status == 426:
            raise OperationalError(
                f"{answer}: a web server in front of the relay has to pass Upgrade and Connection on"
            )
        if status in (502, 503, 504):
            raise OperationalError(f"{answer}: there is a web server in front, but it does not reach candy-server")
        raise OperationalError(f"{answer}: is this the address of a candy relay?")
    tokens = {token.strip().lower() for token in headers.get("Connection", "").split(",")}
    protocol = headers.get("Sec-WebSocket-Protocol")
    checks = {
        "Upgrade": headers.get("Upgrade", "").lower() == "websocket",
        "Connection": "upgrade" in tokens,
        "Sec-WebSocket-Accept": headers.get("Sec-WebSocket-Accept") == accept_for(key),
        # "permessage-deflate must never be agreed", and nothing else was offered either.
        "Sec-WebSocket-Extensions": "Sec-WebSocket-Extensions" not in headers,
        "Sec-WebSocket-Protocol": protocol in (None, SUBPROTOCOL),
    }
    if wrong := ", ".join(name for name, is_right in checks.items() if not is_right):
        raise OperationalError(f"the server's upgrade is not a valid one ({wrong}): is there a broken proxy between?")
    return protocol is not None


def _take(response: aiohttp.ClientResponse, extended: bool) -> Upgraded:
    """Take the connection from aiohttp. There is no await in here: no byte may come in between."""
    connection = response.connection
    transport = connection.transport if connection is not None else None
    if connection is None or connection.protocol is None or transport is None or transport.is_closing():
        raise OperationalError("the server closed the connection right behind its answer")
    tail = Tail()
    connection.protocol.set_parser(tail, None)
    # Only now: set_parser() resumes a transport that was paused because much came behind the answer.
    transport.pause_reading()
    if transport.get_write_buffer_size():
        raise OperationalError("the server answered before it had read the request")
    try:
        if transport.get_extra_info("sslcontext") is not None:
            return Upgraded(pump.join(transport, tail.received), extended, b"", transport)
        # aiohttp closes its descriptor; that sends no FIN while this one is open.
        return Upgraded(os.dup(transport.get_extra_info("socket").fileno()), extended, tail.received, None)
    except OSError as error:
        raise OperationalError(f"no descriptor for the connection: {error.strerror}") from error
