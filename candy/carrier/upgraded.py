"""An upgrade, at who asks for it: the request, whether the 101 is the right one, and its socket, from aiohttp's client.

    session(connector) ─▶ ask() ─▶ wrong_in() ─▶ taken()

member/dial.py and relay/cluster/linkdial.py make the connection; neither knows the other.
"""

import base64
import os
import secrets
from collections.abc import Mapping, Sequence

import aiohttp
from yarl import URL

from candy import __version__
from candy.carrier.handover import Tail, accept_for
from candy.errors import OperationalError


def session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    """For one request: no cookies, and no time but the caller's."""
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
    )


async def ask(
    session: aiohttp.ClientSession, url: str | URL, headers: Mapping[str, str]
) -> tuple[str, aiohttp.ClientResponse]:
    """Ask for the upgrade, with these headers beside its own; returns its key, and the answer, of any status."""
    key = base64.b64encode(secrets.token_bytes(16)).decode("ascii")
    own = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "User-Agent": f"candy/{__version__}",
    }
    skipped = ("Accept", "Accept-Encoding")
    return key, await session.get(url, headers={**own, **headers}, skip_auto_headers=skipped, allow_redirects=False)


def wrong_in(headers: Mapping[str, str], key: str, offered: Sequence[str]) -> str:
    """Headers of a 101 that are not those of the upgrade that was asked for with this key, by their names."""
    tokens = {token.strip().lower() for token in headers.get("Connection", "").split(",")}
    checks = {
        "Upgrade": headers.get("Upgrade", "").lower() == "websocket",
        "Connection": "upgrade" in tokens,
        "Sec-WebSocket-Accept": headers.get("Sec-WebSocket-Accept") == accept_for(key),
        # "permessage-deflate must never be agreed", and nothing else was offered either.
        "Sec-WebSocket-Extensions": "Sec-WebSocket-Extensions" not in headers,
        "Sec-WebSocket-Protocol": headers.get("Sec-WebSocket-Protocol") in (None, *offered),
    }
    return ", ".join(name for name, is_right in checks.items() if not is_right)


def taken(response: aiohttp.ClientResponse) -> tuple[int, bytes]:
    """Take the connection of a 101 from aiohttp: a descriptor, the caller's, and the bytes read behind the answer.
    Nothing in here awaits, so that no byte is read in between.

    Raises:
        OperationalError: it has ended, or this machine has no descriptor.
    """
    connection = response.connection
    transport = connection.transport if connection is not None else None
    if connection is None or connection.protocol is None or transport is None or transport.is_closing():
        raise OperationalError("the server closed the connection right behind its answer")
    tail = Tail()
    connection.protocol.set_parser(tail, None)
    # Only now: set_parser() resumes a transport that was paused because many bytes came behind the answer.
    transport.pause_reading()
    if transport.get_write_buffer_size():
        raise OperationalError("the server answered before it had read the request")
    try:
        # aiohttp closes its descriptor; that sends no FIN while this one is open.
        return os.dup(transport.get_extra_info("socket").fileno()), tail.received
    except OSError as error:
        raise no_descriptor(error) from error


def no_descriptor(error: OSError) -> OperationalError:
    return OperationalError(f"no descriptor for the connection: {error.strerror}")
