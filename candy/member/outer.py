"""The outer connection: TCP to the relay, or to the proxy before it, and never through the tunnel.

    look-up ─▶ addresses ─▶ the way to each, beside the tunnel ─▶ raced as in RFC 8305, each bound to its way
       └─ no answer: the addresses of last time

Rules:
 1. A name that is not found may be so because the tunnel has swallowed the name server. Then the addresses by which the
    host was last reached are tried. With such at hand a look-up has `LOOK_UP_S`, without them as long as the attempt.
 2. An address that only the tunnel leads to is not tried: what went in there would come out of this very connection.

This module does not know what is spoken on the connection, nor who keeps the addresses.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, ip_address

from aiohappyeyeballs import AddrInfoType, start_connection

from candy.errors import OperationalError
from candy.host.underlay import Underlay, Way, bind
from candy.member.resolve import literal, resolve, text_of
from candy.settings import host_port

NEXT_ADDRESS_S = 0.25
"""Head start of one address before the next is tried as well: RFC 8305's Connection Attempt Delay."""
LOOK_UP_S = 3.0

_log = logging.getLogger(__name__)


class Outer:
    """Connections to one host, over all attempts.

    Args:
        what: "the relay" or "the proxy", for messages.
        host: a name or an address.
        port: TCP.
        underlay: this machine beside the tunnel; None: nothing is bound.
    """

    def __init__(self, what: str, host: str, port: int, underlay: Underlay | None = None) -> None:
        self._what = what
        self._host = host
        self._port = port
        self._underlay = underlay
        self.name = None if _is_address(host) else host
        """The host, if it is a name that has to be looked up."""
        self.addresses: frozenset[IPv4Address] = frozenset()
        """Those that connections last went to, or would have."""
        self.ways: dict[IPv4Address, Way] = {}
        """To these, as far as there are any."""
        self.good: tuple[str, ...] = ()
        """By which the host was last reached, the one that answered first."""
        self._is_lost = False
        """The name is not found, which was said."""

    @property
    def exposed(self) -> frozenset[IPv4Address]:
        """The addresses that no route may lead into the tunnel, because connections there can't be kept out of it."""
        return frozenset(
            address for address in self.addresses if address not in self.ways or not self.ways[address].is_apart
        )

    async def connect(self, known: Sequence[str], begin: Callable[[str], None]) -> socket.socket:
        """A connected socket, owned by the caller.

        Args:
            known: addresses to try if the name is not found.
            begin: told of each step, as what the attempt is at.

        Raises:
            OperationalError: there is none; the text says why and what to do.
        """
        begin(f"looking up {self._host}")
        addresses = await self._look_up(known)
        where = host_port(self._host, self._port)
        begin(f"connecting to {self._what} {where}")
        reachable = await self._without_tunnel(addresses)
        if not reachable:
            raise OperationalError(
                f"no way to {self._what} at {where} but through this network itself: is this machine online?"
            )
        try:
            opened = await start_connection(
                reachable, happy_eyeballs_delay=NEXT_ADDRESS_S, socket_factory=self._open_socket
            )
        except OSError as error:
            match error.errno:
                case errno.ECONNREFUSED:
                    why = "connection refused: is it running there, and is the port right?"
                case errno.ENETUNREACH | errno.EHOSTUNREACH:
                    why = "no route to it: is this machine online, and the address right?"
                case _:
                    why = str(error)
            raise OperationalError(f"cannot connect to {self._what} at {where}: {why}") from error
        self.good = tuple(dict.fromkeys(map(text_of, [opened.getpeername(), *(address[4] for address in addresses)])))
        return opened

    async def _look_up(self, known: Sequence[str]) -> list[AddrInfoType]:
        if not known:
            return await resolve(self._host, self._port)
        try:
            async with asyncio.timeout(LOOK_UP_S):
                addresses = await resolve(self._host, self._port)
        except TimeoutError:
            why = f"{self._host}: the name server does not answer within {LOOK_UP_S:g} s"
        except OperationalError as error:
            why = str(error)
        else:
            self._is_lost = False
            return addresses
        level = logging.DEBUG if self._is_lost else logging.WARNING
        self._is_lost = True
        _log.log(level, "%s; trying the addresses of last time: %s", why, ", ".join(known))
        return literal(known, self._port)

    async def _without_tunnel(self, addresses: list[AddrInfoType]) -> list[AddrInfoType]:
        """Those that something else leads to. There is no IPv6 in the tunnel."""
        ipv4 = {IPv4Address(to[0]) for family, *_, to in addresses if family == socket.AF_INET}
        found = await self._underlay.find(ipv4) if self._underlay is not None else {}
        # A machine that is offline for a moment shall not change its routes.
        self.ways = {address: way for address, way in (self.ways | found).items() if address in ipv4}
        self.addresses = frozenset(ipv4) or self.addresses
        if self._underlay is None:
            return addresses
        return [address for address in addresses if address[0] != socket.AF_INET or IPv4Address(address[4][0]) in found]

    def _open_socket(self, address: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, to = address
        opened = socket.socket(family, kind, protocol)
        try:
            bind(opened, self.ways.get(IPv4Address(to[0])) if family == socket.AF_INET else None)
        except OSError:
            opened.close()
            raise
        return opened


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
