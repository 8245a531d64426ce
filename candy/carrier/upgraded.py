"""An upgrade at who asks for it: the request, and whether the 101 is the right one.

    connected socket ─▶ ask() ─▶ wrong_in() ─▶ the caller's socket and Answer.behind, for the engine

member/dial.py and relay/cluster/linkdial.py make the connection; neither knows the other.
"""

import base64
import secrets
import socket
from collections.abc import Mapping, Sequence

from yarl import URL

from candy import __version__
from candy.carrier import http1
from candy.carrier.handover import accept_for
from candy.carrier.http1 import Answer, Fields


async def ask(opened: socket.socket, url: URL, fields: Mapping[str, str]) -> tuple[str, Answer]:
    """Ask for the upgrade, with these fields beside its own; returns its key, and the answer, of any status. It raises
    what http1.ask() does."""
    key = base64.b64encode(secrets.token_bytes(16)).decode("ascii")
    own = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "User-Agent": f"candy/{__version__}",
    }
    return key, await http1.ask(opened, _host(url), url.raw_path_qs, {**own, **fields})


def _host(url: URL) -> str:
    """Host and port, without a user; a dot that ends the name is the resolver's alone."""
    host = (url.raw_host or "").removesuffix(".")
    shown = f"[{host}]" if ":" in host else host
    return shown if url.is_default_port() else f"{shown}:{url.port}"


def wrong_in(fields: Fields, key: str, offered: Sequence[str]) -> str:
    """Fields of a 101 that are not those of the upgrade that was asked for with this key, by their names."""
    tokens = {token.strip().lower() for token in (fields.get("Connection") or "").split(",")}
    checks = {
        "Upgrade": (fields.get("Upgrade") or "").lower() == "websocket",
        "Connection": "upgrade" in tokens,
        "Sec-WebSocket-Accept": fields.get("Sec-WebSocket-Accept") == accept_for(key),
        # "permessage-deflate must never be agreed", and nothing else was offered either.
        "Sec-WebSocket-Extensions": "Sec-WebSocket-Extensions" not in fields,
        "Sec-WebSocket-Protocol": fields.get("Sec-WebSocket-Protocol") in (None, *offered),
    }
    return ", ".join(name for name, is_right in checks.items() if not is_right)
