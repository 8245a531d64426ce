"""How long the TCP segments of the outer connection may be, by what the kernel knew at the end of the one before.

    Seen ──▶ shorter() ──▶ TCP_MAXSEG to try next

A router whose next link takes shorter packets says so by ICMP. Where that is dropped, long segments vanish for good,
short ones arrive, and the connection stands still until one side gives it up. Its MSS, which both sides keep to, is the
cure; a member has no other part in what the relay sends. Such an end differs from that of a path on which nothing
arrives in that the relay's kernel was heard:

 1. Upwards: a segment was sent again and again, and never acknowledged.
 2. Downwards: all that was sent was acknowledged, and nothing came for so long that the member gave the relay up; or
    bytes came, and those before them did not.

A relay whose process stands still looks like 2. So the caller believes it only if the next attempt, with shorter
segments, succeeds.

No I/O. This module does not know sockets, nor which relay it is.
"""

from dataclasses import dataclass

LENGTHS = (1440, 1220, 536)
"""To try, bytes of payload: through Ethernet by IPv6, after its jumbo frames; through the smallest MTU of IPv6, 1280;
the default of RFC 9293."""
MOST_OF_BEFORE = 7 / 8
"""A length that is hardly shorter than the one before is not worth a connection."""
RETRANSMISSIONS = 5
"""In a row. The time between them is doubled each time, unless congestion control has its own mind."""
HEARD_S = 30.0
"""The relay's kernel sends a ping again that long after the one before. Where nothing arrives, a member has given the
relay up for longer than that."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the kernel knew of a TCP connection."""

    length: int
    """Of the longest segments that it sent, bytes."""
    retransmissions: int
    """Of the first segment that is not acknowledged, in a row."""
    unacknowledged: int
    """Bytes."""
    heard: float
    """Seconds since anything came from the peer's kernel, an acknowledgement too."""
    is_missing: bool
    """Bytes came behind some that did not."""


def shorter(seen: Seen, *, gave_up: bool) -> int | None:
    """The length to try next, if long segments may have vanished and there is a shorter one; else None.

    Args:
        gave_up: this member ended the connection, because nothing came although it pinged.
    """
    is_long = seen.unacknowledged > LENGTHS[-1]
    upwards = seen.retransmissions >= RETRANSMISSIONS and is_long
    downwards = seen.retransmissions == 0 and (gave_up or seen.is_missing)
    if seen.heard >= HEARD_S or not (upwards or downwards):
        return None
    return next((length for length in LENGTHS if length <= MOST_OF_BEFORE * seen.length), None)
