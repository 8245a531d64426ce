"""Connections with TLS from the first byte of the handshake on, which a test may hold, change or break at any point.

kit.peer has them behind their handshakes, where nothing tells them from plain ones.
"""

import socket
import ssl
from pathlib import Path

from kit.peer import PING, EngineRelay, Peer, tcp_pair
from kit.secure import APPLICATION_DATA, Secured, sealer_of

from candy import _fastpath
from candy._fastpath import TlsContext


class Meeting:
    """One connection with TLS, or on its way there: the engine's end is a server, or the client."""

    def __init__(
        self,
        relay: EngineRelay,
        secured: Secured,
        *,
        client: bool = False,
        context: TlsContext | None = None,
        extended: bool = True,
        version: ssl.TLSVersion | None = None,
        ciphers: str | None = None,
        preamble: bytes = b"",
        tcp: bool = False,
    ) -> None:
        self.relay = relay
        self.raw, theirs = tcp_pair() if tcp else socket.socketpair()
        self.tls = secured.peer(self.raw, client=client, version=version, ciphers=ciphers)
        self.peer = Peer(self.tls, masking=not client)
        relay.peers.append(self.peer)
        self.peer.connection = relay.engine.adopt(
            theirs.detach(),
            extended=extended,
            client=client,
            preamble=preamble,
            tls=context or secured.context(client=client),
        )

    @property
    def connection(self) -> int:
        return self.peer.connection

    def cause(self) -> str:
        return self.relay.cause(self.connection)

    def words(self) -> tuple[int, str]:
        """What was told of it: the verdict on the certificate, and OpenSSL's words."""
        [detail] = self.relay.details(self.connection, _fastpath.EVENT_TLS)
        return int.from_bytes(detail[:2], "big"), detail[2:].decode()

    def await_end(self) -> None:
        """The peer's view of a clean end."""
        assert self.peer.receive_all() == []


def member(relay: EngineRelay, secured: Secured, address: int, **options: object) -> Meeting:
    meeting = Meeting(relay, secured, **options)  # type: ignore[arg-type]
    meeting.tls.handshake()
    assert relay.engine.bind(meeting.connection, address)
    return meeting


class Insider(Meeting):
    """A peer that seals its own records, of any content."""

    def __init__(self, relay: EngineRelay, secured: Secured, folder: Path) -> None:
        super().__init__(relay, secured, version=ssl.TLSVersion.TLSv1_3)
        self.sealer = sealer_of(self.tls, folder / "keys")

    def arrive(self) -> None:
        """Return when its worker has it."""
        self.raw.sendall(self.sealer.seal(self.peer.frame(PING, b"here"), APPLICATION_DATA))
        assert self.peer.receive().payload == b"here"
