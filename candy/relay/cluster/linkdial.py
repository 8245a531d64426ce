"""Makes the upgraded connection to another relay, and gives its socket to the engine as a link.

    1 TCP        to the host of its URL
    2 TLS        for wss://, by candy.carrier.secure: in the engine, which has the connection from here on
    3 upgrade    candy.carrier.upgraded, with the links' own subprotocol
    4 hand-over  the socket and the bytes read behind the answer, or the engine's connection

Rules: a failure is an OperationalError of one line; a failed attempt leaves no descriptor behind. This module knows
neither messages nor when to try again.
"""

import asyncio
import socket
from contextlib import ExitStack
from typing import Final

from yarl import URL

from candy._fastpath import Engine, TlsContext
from candy.carrier import upgraded
from candy.carrier.handover import RELAY_DEAD_AFTER_S, RELAY_PING_AFTER_S, RELAY_SUBPROTOCOL
from candy.carrier.http1 import Answer, Ended, NotHttp
from candy.carrier.secure import Secure, TlsFailed
from candy.errors import OperationalError

ATTEMPT_S: Final = 4.0
"""The kernel asks again after 1 s and 3 s, and then not before 7: a new attempt asks sooner."""


async def dial(url: str, engine: Engine, secure: Secure, tls: TlsContext | None) -> int:
    """Make one attempt of at most ATTEMPT_S.

    Args:
        tls: for wss:// alone.

    Returns:
        the engine's connection.

    Raises:
        OperationalError: there is none; the text begins with the URL.
    """
    to = URL(url)
    try:
        async with asyncio.timeout(ATTEMPT_S):
            return await _dial(to, engine, secure, tls)
    except TimeoutError:
        why = f"no success within {ATTEMPT_S:g} s"
    except TlsFailed as error:
        why = _no_tls(to.raw_host or "", error)
    except Ended:
        why = "no relay answers there (it closed the connection)"
    except NotHttp:
        why = "no relay answers there (it speaks no HTTP)"
    except OSError as error:
        why = error.strerror or str(error)
    except OperationalError as error:
        why = str(error)
    raise OperationalError(f"{url}: {why}")


async def _dial(to: URL, engine: Engine, secure: Secure, tls: TlsContext | None) -> int:
    with ExitStack() as undo:
        opened = undo.enter_context(await _connected(to.raw_host or "", to.port or 0))
        secured: int | None = None
        if tls is not None:
            secured, opened = await secure.open(opened, tls)
            undo.callback(secure.close, secured)
            undo.enter_context(opened)
        key, answer = await upgraded.ask(opened, to, {"Sec-WebSocket-Protocol": RELAY_SUBPROTOCOL})
        _check(answer, key)
        if secured is None:
            connection = engine.adopt(
                opened.fileno(),
                trunk=True,
                tail=answer.behind,
                ping_after=RELAY_PING_AFTER_S,
                dead_after=RELAY_DEAD_AFTER_S,
            )
            opened.detach()
            return connection
        if not engine.upgrade(secured, trunk=True, ping_after=RELAY_PING_AFTER_S, dead_after=RELAY_DEAD_AFTER_S):
            raise OperationalError("the connection was lost")
        undo.pop_all()
        opened.close()
        secure.release(secured)
        return secured


def _check(answer: Answer, key: str) -> None:
    """Raises OperationalError: it is not the upgrade that was asked for."""
    if answer.status != 101:
        raise OperationalError(f"it answers {answer.status}: is it a relay of this cluster?")
    if wrong := upgraded.wrong_in(answer.fields, key, (RELAY_SUBPROTOCOL,)):
        raise OperationalError(f"its upgrade is not a valid one ({wrong})")
    if answer.fields.get("Sec-WebSocket-Protocol") != RELAY_SUBPROTOCOL:
        raise OperationalError("it is no relay of a cluster, or of an older version")


def _no_tls(host: str, error: TlsFailed) -> str:
    """Why there is none, and what to do."""
    if not error.verdict:
        return f"TLS failed ({error}): is it a wss:// port, or rather ws://?"
    # It takes ten megabytes.
    from candy.carrier.distrust import OTHER_HOST, other_host

    if error.verdict in OTHER_HOST:
        its = other_host(error.certificate, host)
        return f"{its}: have {host} added to it, or give that relay the url that it is for"
    return f"its TLS certificate is not trusted ({error}): name its authority with ca_file in [cluster]"


async def _connected(host: str, port: int) -> socket.socket:
    """Raises OSError."""
    loop = asyncio.get_running_loop()
    failed: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with ExitStack() as undo:
            sock = undo.enter_context(socket.socket(family, kind, protocol))
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, address)
            except OSError as error:
                failed = error
                continue
            undo.pop_all()
            return sock
    raise failed
