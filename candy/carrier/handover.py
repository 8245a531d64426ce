"""What both halves of the WebSocket handshake (RFC 6455, section 4) share.

It knows neither requests nor the engine: relay/upgrade.py is the half of who is asked, member/dial.py and
relay/cluster/linkdial.py, with carrier/upgraded.py, are those of who asks.
"""

import base64
from hashlib import sha1

RELAY_FULL = "The relay is full; try again later.\n"
"""Body of the relay's own 503, by which a member tells it from a web server's: proxies pass bodies on."""
OLD_HTTP = "An upgrade is a GET of HTTP/1.1.\n"
"""Body of the relay's 400 that a web server which speaks HTTP/1.0 to it passes on."""
KEYS_ALONE = "This network admits clients with candy.3 alone: update candy.\n"
"""Body of the relay's 403 for who does not offer that."""
INSTANCE = "Candy-Instance"
"""A header of the member's request: 16 hex digits, drawn when the program starts. By it the relay tells a member that
makes a newer connection from a copy of its machine. It proves nothing."""
RELAY_SUBPROTOCOL = "candy.relay.1"
"""Of links between the relays of a cluster. No end masks."""
RELAY_PING_AFTER_S = 1.0
"""A silence after which an end of one pings the other."""
RELAY_DEAD_AFTER_S = 4.0
"""And after which it is given up. Members' packets go by the other links then, so a relay is not as patient as with a
member; an answer has three more seconds and as many more pings."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_for(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key."""
    return base64.b64encode(sha1(key.strip().encode() + _GUID, usedforsecurity=False).digest()).decode()
