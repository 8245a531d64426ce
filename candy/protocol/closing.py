"""Every WebSocket close code that candy sends, and what each means here.

    code  sent by        when
    1000  -              a peer may send it; the engine answers a close frame with the peer's own code
    1001  relay, member  the program ends
    1002  engine         the peer's bytes are not WebSocket frames
    1008  member         the relay has another password or clock, or granted an address that a member can't have
    1009  engine         a payload is longer than wire.MAX_PAYLOAD
    1012  relay          the member's routes have changed, and it can be told so on a new connection alone
    1013  relay          the pool, or the network, is full; or too many new devices came from one source
    4001  relay          another login took the member's address over

A failed log-in has no code: the connection ends without a close frame, and the reason stands in the relay's log.
"""

from enum import IntEnum


class CloseCode(IntEnum):
    """The first two bytes of a close frame's payload. 4000 and above are for private use (RFC 6455, section 7.4.2)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    REPLACED = 4001
