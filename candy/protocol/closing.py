"""Every WebSocket close code that candy sends, what each means here, and who is told the reason.

    code  sent by        when
    1000  -              a peer may send it; the engine answers a close frame with the peer's own code
    1001  relay, member  the program ends, or the relay serves the network no more
    1002  engine         the peer's bytes are not WebSocket frames
    1008  relay, member  an operator ended the connection; or the relay has another password or clock than the member,
                         or granted an address that a member can't have
    1009  engine         a payload is longer than wire.MAX_PAYLOAD
    1012  relay          the member's routes or the pool have changed, and it can be told so on a new connection alone
    1013  relay          too many: the network is full, or a source brings too many new devices
    4001  relay          another connection with the same VMAC took the member's address over
    4002  relay          another member has the address, and answers, or is about to log in with it
    4003  relay          the network has no pool to grant an address from
    4004  relay          the pool is full
    4005  relay          the address is not a member's in the pool
    4006  relay          the member's clock is off
    4007  relay          the member did not answer a ping, and another one got its address
    4008  relay          the password by which the member logged in was taken away, or came to its end
    4009  relay          the device was revoked
    4010  relay          the device waits for approval; in the answer to a log-in alone, and the connection stays open
    4011  relay          the invitation is used up or has expired
    4012  relay, member  a CONTROL is not the next, or does not open; from either side
    4013  relay          the password admits no new device

Rules:
 1. A reason is told to a peer that has proven the password, and to nobody else: any other failed log-in ends without a
    close frame, and the reason stands in the relay's log.
 2. The codes from 4002 on are candy.2's, those from 4009 on candy.3's. A peer without it gets what it got before there
    were any, often nothing.
 3. The text behind a code is a sentence for the member's user, in ASCII. A member acts on the code alone.
"""

from collections.abc import Mapping
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
    ADDRESS_HELD = 4002
    NO_POOL = 4003
    POOL_FULL = 4004
    OUTSIDE_POOL = 4005
    CLOCK_OFF = 4006
    UNANSWERED = 4007
    PASSWORD_ENDED = 4008
    DEVICE_REVOKED = 4009
    APPROVAL_AWAITED = 4010
    INVITATION_ENDED = 4011
    BROKEN_CONTROL = 4012
    INVITED_ONLY = 4013


_WITHOUT_EXTENSION: Mapping[CloseCode, CloseCode | None] = {
    CloseCode.ADDRESS_HELD: None,
    CloseCode.NO_POOL: CloseCode.TRY_AGAIN_LATER,
    CloseCode.POOL_FULL: CloseCode.TRY_AGAIN_LATER,
    CloseCode.OUTSIDE_POOL: None,
    CloseCode.CLOCK_OFF: None,
    CloseCode.UNANSWERED: CloseCode.REPLACED,
    CloseCode.PASSWORD_ENDED: CloseCode.SERVICE_RESTART,
    CloseCode.DEVICE_REVOKED: None,
    CloseCode.APPROVAL_AWAITED: None,
    CloseCode.INVITATION_ENDED: None,
    CloseCode.BROKEN_CONTROL: None,
    CloseCode.INVITED_ONLY: None,
}


def without_extension(code: CloseCode | None) -> CloseCode | None:
    """What a peer without candy.2 is sent in place of a code; None: no close frame."""
    return _WITHOUT_EXTENSION.get(code, code) if code is not None else None


def parse(payload: bytes) -> tuple[int, str]:
    """Code and text of a close frame from a peer that may have written anything: the text is printable ASCII.

    Args:
        payload: 2 to 125 bytes.
    """
    text = payload[2:].decode("utf-8", "replace")
    return int.from_bytes(payload[:2], "big"), text.encode("unicode_escape").decode("ascii")
