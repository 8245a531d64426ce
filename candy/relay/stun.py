"""The relay's STUN responder: by its answers members behind NATs learn at which address others reach them.

    listeners ─▶ serve(): on UDP, each one's address and port, and another port beside it ─▶ engine

Two ports tell a symmetric NAT. Rule: without UDP the relay goes on; what can't be had is a warning. This module answers
nothing itself.
"""

import logging
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Final

from candy._fastpath import Engine
from candy.settings import host_port

SERVED_MOST: Final = 2
"""Addresses; the engine has sockets for as many."""

_log = logging.getLogger(__name__)


def serve(listeners: Iterable[socket.socket], engine: Engine) -> None:
    """Answer beside the first of these."""
    for listener in list(listeners)[:SERVED_MOST]:
        own = listener.getsockname()
        where = host_port(own[0], own[1])
        try:
            with ExitStack() as undo:
                first = undo.enter_context(_bound(listener.family, own, own[1]))
                second = undo.enter_context(_beside(listener.family, own))
                address = ip_address(own[0].partition("%")[0]).packed
                engine.open_stun(first.fileno(), (address, second.getsockname()[1]))
                first.detach()
                engine.open_stun(second.fileno())
                second.detach()
        except OSError as error:
            _log.warning(
                "no STUN on UDP %s: %s: members behind NATs reach each other through this relay alone, unless they "
                "have another server (--stun)",
                where,
                error.strerror,
            )


def _beside(family: socket.AddressFamily, own: tuple[object, ...]) -> socket.socket:
    """On the next port, or on any."""
    port = own[1]
    assert isinstance(port, int)
    try:
        return _bound(family, own, port + 1)
    except (OSError, OverflowError):
        return _bound(family, own, 0)


def _bound(family: socket.AddressFamily, own: tuple[object, ...], port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((own[0], port, *own[2:]))
    except (OSError, OverflowError):
        opened.close()
        raise
    return opened
