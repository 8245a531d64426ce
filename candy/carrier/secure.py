"""A member's connection with TLS in the engine, up to its upgrade: the handshake, and a socket for HTTP.

    connected socket ─▶ open(): Engine.begin_tls ─▶ EVENT_SECURED ─▶ our end of a socketpair, for HTTP
                                                └─▶ EVENT_CERTIFICATE, EVENT_TLS, EVENT_CLOSED ─▶ TlsFailed
    upgraded ─▶ release() ─▶ Engine.upgrade

This module does not know HTTP, nor who reads the engine's events.
"""

import asyncio
import socket
from contextlib import ExitStack

from candy._fastpath import EVENT_CERTIFICATE, EVENT_CLOSED, EVENT_SECURED, EVENT_TLS, Engine, TlsContext


class TlsFailed(Exception):
    """There is no TLS on a connection.

    Attributes:
        cause: of the engine's CAUSES.
        verdict: what X509_verify_cert() says of the peer's certificate; 0 if that is not the reason.
        words: OpenSSL's; none when the connection was reset.
        certificate: the peer's that will not do, DER; None if that is not the reason, or nobody has it. Without a
            verdict its key is none of those that were pinned.
    """

    def __init__(self, cause: str, verdict: int, words: str, certificate: bytes | None) -> None:
        super().__init__(words or cause)
        self.cause = cause
        self.verdict = verdict
        self.words = words
        self.certificate = certificate


class Secure:
    """The connections of one engine that are on their way."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[int, asyncio.Future[None]] = {}
        """Of each the handshake."""
        self._said: dict[int, bytes] = {}
        """What was wrong."""
        self._shown: dict[int, bytes] = {}
        """With which certificate."""

    async def open(self, connected: socket.socket, context: TlsContext) -> tuple[int, socket.socket]:
        """Make a handshake, and have HTTP behind it.

        Args:
            connected: its descriptor is the engine's from here on.

        Returns:
            the engine's connection, and a socket that doesn't block, owned by the caller. The connection ends with
            close(), or when that socket and its duplicates are closed, and not before.

        Raises:
            TlsFailed: there was no TLS.
            OSError: the engine or the kernel refused.
        """
        with connected:
            connection = self._engine.begin_tls(connected.fileno(), tls=context, client=True)
            connected.detach()
        self._waiting[connection] = asyncio.get_running_loop().create_future()
        with ExitStack() as undo:
            undo.callback(self.close, connection)
            await self._waiting[connection]
            opened = plaintext(self._engine, connection)
            undo.pop_all()
        return connection, opened

    def close(self, connection: int) -> None:
        """End a connection that open() has returned."""
        self._engine.close(connection)

    def release(self, connection: int) -> None:
        """It is not ours any more: what is told of it is somebody else's matter."""
        del self._waiting[connection]

    def on_event(self, connection: int, kind: int, detail: bytes) -> bool:
        """Take an event of the engine's; False: it is none of ours."""
        handshake = self._waiting.get(connection)
        if handshake is None:
            return False
        if kind == EVENT_CERTIFICATE:
            self._shown[connection] = detail
        elif kind == EVENT_TLS:
            self._said[connection] = detail
        elif kind == EVENT_SECURED and not handshake.done():
            handshake.set_result(None)
        elif kind == EVENT_CLOSED:
            del self._waiting[connection]
            said = self._said.pop(connection, b"\0\0")
            shown = self._shown.pop(connection, None)
            if not handshake.done():
                verdict, words = int.from_bytes(said[:2], "big"), said[2:].decode("ascii")
                cause = detail.decode("ascii").split()[0]
                handshake.set_exception(TlsFailed(cause, verdict, words, shown))
        return True


def plaintext(engine: Engine, connection: int) -> socket.socket:
    """A socket for the HTTP of a guest of the engine's; it doesn't block, and is owned by the caller.

    Raises:
        ConnectionError: the guest is gone.
        OSError: a socketpair could not be created.
    """
    with ExitStack() as undo:
        ours, theirs = map(undo.enter_context, socket.socketpair())
        ours.setblocking(False)
        if not engine.open_http(connection, theirs.fileno()):
            raise ConnectionError("the connection is gone")
        theirs.detach()
        undo.pop_all()
    return ours
