"""The CONTROL messages of all connections that have logged in with a key: sealed as they leave, opened as they arrive.

    Secure ─▶ secure()      Send ─▶ leaving() ─▶ engine      engine ─▶ arrived() ─▶ network      closed ─▶ forget()

Rules:
 1. Python alone writes them, so each counter is its own: what leaves is sealed in the order in which it is sent, and
    a message that can't be sent ends the connection.
 2. What has to come within a CONTROL and does not is as bad as one that does not open.
 3. Of a connection two keys are kept, and no context of a cipher.
"""

from candy.errors import WireError
from candy.protocol import control
from candy.protocol.noise import Cipher, Primitives
from candy.protocol.wire import DropReason


class Channels:
    """See the rules above."""

    def __init__(self, primitives: Primitives) -> None:
        self._primitives = primitives
        self._ciphers: dict[int, tuple[Cipher, Cipher]] = {}
        """Of what is sent, and of what is received."""

    def secure(self, connection: int, sends: bytes, receives: bytes) -> None:
        """From here on these are its keys."""
        self._ciphers[connection] = Cipher(self._primitives, sends), Cipher(self._primitives, receives)

    def has(self, connection: int) -> bool:
        return connection in self._ciphers

    def forget(self, connection: int) -> None:
        """It has ended."""
        self._ciphers.pop(connection, None)

    def leaving(self, connection: int, message: bytes) -> bytes:
        """A message as it goes out."""
        ciphers = self._ciphers.get(connection)
        if ciphers is None or message[0] not in control.WITHIN:
            return message
        return control.seal(ciphers[0], message)

    def arrived(self, connection: int, payload: bytes) -> tuple[bytes, bool]:
        """A message that came in, and whether it was sealed.

        Raises:
            WireError: it is a CONTROL that is not the next, or does not open, or it had to be in one.
        """
        ciphers = self._ciphers.get(connection)
        if ciphers is None or not payload:
            return payload, False
        if payload[0] == control.CONTROL:
            return control.opened(ciphers[1], payload), True
        if payload[0] in control.WITHIN:
            raise WireError(DropReason.BAD_CONTROL)
        return payload, False
