"""A member behind a slow link, in network namespaces of this process's own.

    senders ── lo ── relay ── veth, tbf ──▶ eth0, the member behind the link
                          ◀── veth, as fast as it goes ──

Rules: the namespaces have no names, so they are gone with this process however it ends, and no packet leaves for the
machine's own interfaces. It knows neither frames nor what is measured.
"""

import json
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from lab.namespaces import Namespace

RATE_MBIT = 50
BURST = "16kb"
LATENCY = "5ms"
MTU = 1500
_RELAY = "10.0.0.1"
_MEMBER = "10.0.0.2"
_PORT = 26817
_CLOSED_AT_ONCE = b"\x01\0\0\0\0\0\0\0"
"""SO_LINGER's: nothing of a row reaches into the next one."""


class ShapedLink:
    """The relay's host and the member's.

    Args:
        stack: closes both.
        congestion: TCP congestion control of both ends of every connection.

    Raises:
        AssertionError: a command of the system failed; it says which and why.
        OSError: namespaces are not allowed here.
    """

    def __init__(self, stack: ExitStack, congestion: bytes) -> None:
        self._congestion = congestion
        self._relay = Namespace("relay")
        stack.callback(self._relay.close)
        self._member = Namespace("member")
        stack.callback(self._member.close)
        peer = ["peer", "name", "eth0", "mtu", str(MTU), "netns", self._member.path]
        self._relay.run("ip", "link", "add", "down0", "mtu", str(MTU), "type", "veth", *peer)
        self._relay.run("ip", "address", "add", f"{_RELAY}/24", "dev", "down0")
        self._relay.run("ip", "link", "set", "down0", "up")
        self._member.run("ip", "address", "add", f"{_MEMBER}/24", "dev", "eth0")
        self._member.run("ip", "link", "set", "eth0", "up")
        shape = ["tbf", "rate", f"{RATE_MBIT}mbit", "burst", BURST, "latency", LATENCY]
        self._relay.run("tc", "qdisc", "add", "dev", "down0", "root", *shape)
        with self._relay:
            self._listener = stack.enter_context(socket.create_server(("", _PORT)))
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion)

    def connect(self, stack: ExitStack, *, shaped: bool) -> tuple[socket.socket, socket.socket]:
        """A member's end and the relay's end of a new connection, over the link or beside the relay."""
        with self._member if shaped else self._relay:
            member = stack.enter_context(socket.socket())
        member.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, self._congestion)
        member.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        member.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSED_AT_ONCE)
        member.connect((_RELAY if shaped else "127.0.0.1", _PORT))
        relay, _ = self._listener.accept()
        return member, stack.enter_context(relay)

    def counters(self) -> tuple[int, int]:
        """Bytes that the link carried, with all headers, and segments that it dropped."""
        [shaper] = json.loads(self._relay.run("tc", "-s", "-j", "qdisc", "show", "dev", "down0"))
        return shaper["bytes"], shaper["drops"]
