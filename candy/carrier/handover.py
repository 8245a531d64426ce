"""What both halves of the WebSocket handshake (RFC 6455, section 4) have in common, and need to take a socket out of
aiohttp's hands.

It knows neither requests nor the engine: upgrade.py is the server's half, dial.py the client's.
"""

import base64
from hashlib import sha1

RELAY_FULL = "The relay is full; try again later.\n"
"""Body of the relay's own 503, by which a client tells it from that of a web server in front: bodies pass through."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_for(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key."""
    return base64.b64encode(sha1(key.strip().encode() + _GUID, usedforsecurity=False).digest()).decode()


class Tail:
    """Stands in for aiohttp's WebSocket parser: keeps the bytes that arrived behind the handshake."""

    def __init__(self) -> None:
        self._received = bytearray()

    @property
    def received(self) -> bytes:
        return bytes(self._received)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._received += data
        return False, b""

    def feed_eof(self) -> None:
        """An end is told to whoever reads the socket next."""
