"""Makes the upgraded connection to a relay.

    1 proxy      candy.member.proxy: which one the environment names
    2 TCP        candy.member.outer: to the relay or the proxy, resolved anew at each attempt, beside the tunnel
    3 CONNECT    candy.member.proxy: through the proxy, for both schemes
    4 TLS        for wss://, by candy.carrier.secure: in the engine, which has the connection from here on
    5 upgrade    candy.carrier.upgraded: the request; the answer checked as RFC 6455 section 4.1 asks
    6 hand-over  the socket and the bytes read behind the answer, or the engine's connection

Rules: a failure is an OperationalError of one line that says what the user can do; all steps together have one
deadline; a failed attempt leaves no descriptor behind. This module knows neither messages nor when to try again.
"""

import asyncio
import errno
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from yarl import URL

from candy._fastpath import CANDY3, Engine, TlsContext
from candy.carrier import upgraded
from candy.carrier.handover import INSTANCE
from candy.carrier.http1 import Answer as Http
from candy.carrier.http1 import Ended, NotHttp
from candy.carrier.secure import Secure, TlsFailed
from candy.carrier.tls import BY_SYSTEM, HANDSHAKE_S, Trust, trusting
from candy.errors import ConfigError, OperationalError, TookTooLong, TrustError
from candy.host.underlay import Target, Underlay
from candy.member import refusal
from candy.member.authorization import basic
from candy.member.outer import Outer
from candy.member.proxy import proxy_for, tunnel
from candy.member.refusal import Answer
from candy.member.resolve import endpoints, resolve
from candy.member.steps import Step
from candy.protocol.keys import Shown
from candy.protocol.linking import Endpoint
from candy.protocol.login import OFFERED
from candy.protocol.wire import SEALING_SUBPROTOCOL
from candy.settings import host_port, plain_host, without_credentials

ATTEMPT_S = 10.0
PADDING = "Candy-Padding"
"""A header without a meaning: it makes a request as long as is wanted."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A connection behind its WebSocket upgrade, owned by the caller that it is returned to.

    `extended` says whether the relay chose `candy.2` or `candy.3`, and `shown` is what it showed for the latter.
    `outer` is a duplicate of the TCP connection, for Outer.judge() at its end; it keeps the connection open. `target`,
    what the connection takes, is to be said to `Dialer.outer` once it is used.
    """

    carrier: "Plain | Tls"
    extended: bool
    outer: socket.socket
    target: Target | None = None
    shown: Shown | None = None

    def hand_over(self, engine: Engine, ping_after: float | None) -> int:
        """Give it to the engine; returns the engine's connection.

        Raises:
            OSError: the engine can't take it; it is still the caller's.
        """
        return self.carrier.hand_over(engine, int(self.extended) if self.shown is None else CANDY3, ping_after)

    def close(self) -> None:
        """End it, if the engine has not taken it over."""
        self.carrier.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Let go of what the engine did not take over."""
        self.outer.close()


@dataclass(frozen=True, slots=True)
class Plain:
    """A descriptor, and the bytes read behind the relay's answer."""

    fd: int
    tail: bytes

    def hand_over(self, engine: Engine, extended: int, ping_after: float | None) -> int:
        return engine.adopt(self.fd, client=True, extended=extended, tail=self.tail, ping_after=ping_after)

    def close(self) -> None:
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Tls:
    """A connection that the engine has, and our socket to it, whose end would be the connection's."""

    secure: Secure
    connection: int
    plaintext: socket.socket

    def hand_over(self, engine: Engine, extended: int, ping_after: float | None) -> int:
        if not engine.upgrade(self.connection, extended=extended, ping_after=ping_after):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        self.secure.release(self.connection)
        self.plaintext.close()
        return self.connection

    def close(self) -> None:
        self.secure.close(self.connection)
        self.plaintext.close()


class Dialer:
    """Makes connections to one relay.

    Args:
        url: ws:// or wss:// with a host; user:password@ becomes Basic authorization.
        trust: by what the relay's certificate is believed.
        extension: offer candy.3 and candy.2.
        underlay: this machine beside the tunnel; None: there is no tunnel to stay out of.
        instance: what the member calls itself, to all relays: 16 hex digits; None: at random.

    Raises:
        ConfigError: the URL, the CA file or a proxy variable of the environment can't be used.
        OperationalError: this machine has no OpenSSL that will do.
    """

    def __init__(
        self,
        url: str,
        *,
        trust: Trust = BY_SYSTEM,
        extension: bool = True,
        underlay: Underlay | None = None,
        instance: str | None = None,
    ) -> None:
        self.extension = extension
        self.instance = instance or secrets.token_hex(8)
        """What it calls itself."""
        try:
            self._url = URL(url)
            self.relay = shown_url(url)
        except ValueError as error:
            # yarl repeats what stands before the host.
            raise ConfigError(f"the relay's URL can't be used: {without_credentials(str(error))}") from error
        self._authorization = basic(self._url)
        shown = self._url.with_user(None)
        """The URL without credentials, for messages."""
        host, _, zone = plain_host(self._url.raw_host or "").partition("%")
        # "An HTTP client … MUST remove any ZoneID attached to an outgoing URI" (RFC 6874): it says nothing over there.
        self._asked = shown.with_host(host) if zone else shown
        self._proxy = proxy_for(self._url)
        self.proxy = None if self._proxy is None else host_port(*_host_and_port(self._proxy))
        """host:port of it, if there is one on the way."""
        first = self._proxy or self._url
        what = "the relay" if self._proxy is None else "the proxy"
        self.outer = Outer(what, *_host_and_port(first), underlay)
        """Where connections go to first."""
        self._tls = trusting(host, trust) if self._url.scheme == "wss" else None
        self._doubt = "is this the address of a candy relay" + ("?" if self._tls else ", and one of ws://, not wss://?")

    async def relay_endpoints(self) -> list[Endpoint]:
        """The relay's host and port, for UDP: the address that connections go to, where no proxy is on the way.

        Raises:
            OperationalError: the name is not found.
        """
        host, port = _host_and_port(self._url)
        made = self.outer.made
        if self._proxy is None and made is not None:
            return [Endpoint(made.address, port)]
        return endpoints(await resolve(host, port))

    async def dial(
        self,
        attempt_s: float = ATTEMPT_S,
        *,
        secure: Secure | None = None,
        known: Sequence[str] = (),
        told: Callable[[Step], None] = lambda step: None,
        padding: int = 0,
    ) -> Upgraded:
        """Make one attempt of at most attempt_s seconds.

        Args:
            secure: does TLS; for wss:// alone.
            known: addresses to try if the name of `outer` is not found.
            told: hears of each step as it begins.
            padding: bytes by which the request is longer.

        Raises:
            TookTooLong: the time is over; the text is as follows.
            OperationalError: there is no connection; the text begins with the URL and says why and what to
            do.
        """
        way = _Way(self.outer, known, self._tls, secure, self._proxy, told)
        try:
            async with asyncio.timeout(attempt_s):
                try:
                    made = await self._upgrade(way, padding)
                except asyncio.CancelledError:
                    # Its time is over.
                    way.judge()
                    raise
                finally:
                    way.forget()
            self.outer.succeed()
            return made
        except TimeoutError:
            why = f"no success within {attempt_s:g} s, while {way.stage}"
            raise TookTooLong(f"{self.relay}: {why}") from None
        except (OperationalError, TrustError) as error:
            raise OperationalError(f"{self.relay}: {error}") from error

    async def _upgrade(self, way: "_Way", padding: int) -> Upgraded:
        fields = {
            **({"Sec-WebSocket-Protocol": ", ".join(OFFERED), INSTANCE: self.instance} if self.extension else {}),
            **({"Authorization": self._authorization} if self._authorization is not None else {}),
            **({PADDING: "x" * padding} if padding else {}),
        }
        with await way.connect(_host_and_port(self._asked)) as opened:
            key, answer = await self._ask(opened, fields)
            if answer.status != 101:
                raise OperationalError(
                    refusal.by_server(
                        await _told(answer),
                        location=answer.fields.get("Location"),
                        had_credentials=self._authorization is not None,
                    )
                )
            chosen = _check(answer, key, OFFERED if self.extension else ())
            if not answer.behind and _has_ended(opened):
                raise OperationalError("the server closed the connection right behind its answer")
            shown = Shown.parse(answer.fields.get) if chosen == SEALING_SUBPROTOCOL else None
            carrier = way.carrier(opened, answer.behind)
            return Upgraded(carrier, chosen is not None, way.take(), self.outer.made, shown)

    async def _ask(self, opened: socket.socket, fields: Mapping[str, str]) -> tuple[str, Http]:
        """Step 5, without the check."""
        try:
            return await upgraded.ask(opened, self._asked, fields)
        except Ended:
            why = f"the server closed the connection instead of answering: {self._doubt}"
        except NotHttp:
            why = f"the answer is not HTTP: {self._doubt}"
        except OSError as error:
            why = f"the connection was lost before the answer ({error.strerror or error})"
        raise OperationalError(why)


class _Way:
    """Steps 2 to 4, for one connection, and what it goes on as."""

    def __init__(
        self,
        outer: Outer,
        known: Sequence[str],
        tls: TlsContext | None,
        secure: Secure | None,
        proxy: URL | None,
        told: Callable[[Step], None],
    ) -> None:
        self._told = told
        self._to = outer
        self._known = known
        self._tls = tls
        self._secure = secure
        self._secured: int | None = None
        """The engine's connection."""
        self._proxy = proxy
        self.stage = "starting"
        self._duplicate: socket.socket | None = None

    async def connect(self, relay: tuple[str, int]) -> socket.socket:
        """Take them, to the relay's host and port; returns the socket for its HTTP, which is the caller's."""
        host, port = relay
        with ExitStack() as undo:
            opened = undo.enter_context(await self._to.connect(self._known, self._begin))
            try:
                self._duplicate = opened.dup()
            except OSError as error:
                raise OperationalError(f"no descriptor for the connection: {error.strerror}") from error
            if self._proxy is not None:
                self._begin(Step.PROXY, f"waiting for the proxy {host_port(*_host_and_port(self._proxy))}")
                await tunnel(opened, host_port(host, port), self._proxy)
            if self._tls is not None:
                self._begin(Step.TLS, "negotiating TLS")
                opened = await self._negotiate(opened, host, self._tls)
            undo.pop_all()
        self._begin(Step.UPGRADE, "waiting for the answer to the upgrade request")
        return opened

    async def _negotiate(self, opened: socket.socket, host: str, context: TlsContext) -> socket.socket:
        """TLS, in the engine; what goes through the socket is plaintext."""
        assert self._secure is not None
        try:
            self._secured, plaintext = await self._secure.open(opened, context)
        except TlsFailed as error:
            if error.cause == "handshake_timeout":
                self.judge()
            raise OperationalError(_no_tls(host, error)) from error
        except OSError as error:
            raise OperationalError(f"no TLS: {error.strerror}") from error
        return plaintext

    def _begin(self, step: Step, stage: str) -> None:
        self.stage = stage
        self._told(step)

    def judge(self) -> None:
        """The attempt takes too long: do long segments vanish, such as those of a certificate?"""
        if self._duplicate is not None:
            self._to.judge(self._duplicate, gave_up=False)

    def take(self) -> socket.socket:
        """A duplicate of the connection, which is the caller's from here on."""
        assert self._duplicate is not None
        taken, self._duplicate = self._duplicate, None
        return taken

    def carrier(self, opened: socket.socket, behind: bytes) -> Plain | Tls:
        """What the connection goes on as, behind HTTP on this socket, which is not the caller's any more."""
        if self._secure is None or self._secured is None:
            return Plain(opened.detach(), behind)
        return Tls(self._secure, self._secured, socket.socket(fileno=opened.detach()))

    def forget(self) -> None:
        if self._duplicate is not None:
            self._duplicate.close()


def shown_url(url: str) -> str:
    """The URL without credentials, the same for all ways to write one. Raises ValueError."""
    return str(URL(url).with_user(None))


def _host_and_port(url: URL) -> tuple[str, int]:
    return plain_host(url.raw_host or ""), url.port or 0


def _no_tls(host: str, error: TlsFailed) -> str:
    """Why there is none, and what to do."""
    if error.verdict or error.certificate is not None:
        # It takes ten megabytes.
        from candy.carrier.distrust import why

        return why(error.verdict, error.words, error.certificate, host, time.time())
    if error.cause == "handshake_timeout":
        return f"no success within {HANDSHAKE_S:g} s, while negotiating TLS"
    if error.words in ("", "unexpected eof while reading"):
        return "the connection was lost during the TLS handshake (the other side hung up)"
    return f"TLS failed ({error.words}): is it a wss:// port, or rather ws://?"


async def _told(answer: Http) -> Answer:
    """What is not an upgrade; of its body as much as comes soon, also when the connection ends within it."""
    body = await answer.body(refusal.BODY_BYTES, refusal.BODY_S)
    return Answer(answer.line, answer.fields.all("WWW-Authenticate"), body)


def _check(answer: Http, key: str, offered: Sequence[str]) -> str | None:
    """The subprotocol that the relay chose.

    Raises:
        OperationalError: the 101 is not the upgrade that was asked for.
    """
    if wrong := upgraded.wrong_in(answer.fields, key, offered):
        raise OperationalError(f"the server's upgrade is not a valid one ({wrong}): is there a broken proxy between?")
    return answer.fields.get("Sec-WebSocket-Protocol")


def _has_ended(opened: socket.socket) -> bool:
    """Whether nothing more will come."""
    try:
        return not opened.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
