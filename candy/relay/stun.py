"""The relay's STUN responder: by its answers members behind NATs learn at which address others reach them.

    settings, listeners ─▶ places() ─▶ serve(): UDP on each address and port, and another port beside it ─▶ engine

Members ask where they connect to. Behind a web server that is another port than the relay's own, of which the relay is
told. Two ports tell a symmetric NAT. Rule: without UDP the relay goes on; what can't be had is a warning. This module
answers nothing itself.
"""

import logging
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from candy._fastpath import Engine
from candy.settings import host_port

SERVED_MOST: Final = 2
"""Addresses; the engine has sockets for as many."""

_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """One to answer at."""

    family: socket.AddressFamily
    own: tuple[Any, ...]
    """The sockaddr, as Python has it."""


def places(wanted: tuple[str, int] | None, listeners: Iterable[socket.socket]) -> list[Place]:
    """Where the settings say, an IP address and a port, or else beside each of the listeners."""
    if wanted is None:
        return [Place(listener.family, listener.getsockname()) for listener in listeners]
    family = socket.AF_INET if ip_address(wanted[0]).version == 4 else socket.AF_INET6
    return [Place(family, wanted)]


def serve(places: Sequence[Place], engine: Engine) -> None:
    """Answer at the first of these."""
    for family, own in places[:SERVED_MOST]:
        where = host_port(own[0], own[1])
        try:
            with ExitStack() as undo:
                first = undo.enter_context(_bound(family, own, own[1]))
                second = undo.enter_context(_beside(family, own))
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


def _beside(family: socket.AddressFamily, own: tuple[Any, ...]) -> socket.socket:
    """On the next port, or on any."""
    try:
        return _bound(family, own, own[1] + 1)
    except (OSError, OverflowError):
        return _bound(family, own, 0)


def _bound(family: socket.AddressFamily, own: tuple[Any, ...], port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((own[0], port, *own[2:]))
    except (OSError, OverflowError):
        opened.close()
        raise
    return opened
