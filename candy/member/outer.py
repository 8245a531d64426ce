"""The outer connection: TCP to the relay, or to the proxy before it, and never through the tunnel.

    look-up ─▶ addresses ─▶ the way to each, beside the tunnel ─▶ raced as in RFC 8305, each bound to its way
       └─ no answer: the addresses of last time
    end of a connection ─▶ judge() ─▶ shorter segments on the next one ─▶ succeed() ─▶ on all that follow

Rules:
 1. A name that is not found may be so because the tunnel has swallowed the name server. Then the addresses by which the
    host was last reached are tried. With such at hand a look-up has `LOOK_UP_S`, without them as long as the attempt.
 2. An address that only the tunnel leads to is not tried: what went in there would come out of this very connection.
 3. Whether the way has changed is judged by the addresses of the last look-up, and before there are any by those of the
    documentation, which are anywhere. Of the connection in use it is judged by that one's own source and interface
    too: it may hold, and go on, where another interface has become the way.

This module does not know what is spoken on the connection, nor who keeps the addresses.
"""

import array
import asyncio
import errno
import fcntl
import logging
import socket
import struct
import termios
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

from aiohappyeyeballs import AddrInfoType, start_connection

from candy.errors import OperationalError
from candy.host.underlay import Egress, Target, Underlay, Way, bind
from candy.member.resolve import literal, resolve, text_of
from candy.member.segments import Seen, shorter
from candy.member.steps import Begin, Step
from candy.settings import host_port

NEXT_ADDRESS_S = 0.25
"""Head start of one address before the next is tried as well: RFC 8305's Connection Attempt Delay."""
LOOK_UP_S = 3.0
ANYWHERE = (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))
"""Rule 3's (RFC 5737, RFC 3849)."""
SO_MEMINFO = 55
"""From <asm-generic/socket.h>; its first number is the memory of what was received and not read."""

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
        self.host = host
        self._port = port
        self._underlay = underlay
        self.name = None if _is_address(host) else host
        """The host, if it is a name that has to be looked up."""
        self.addresses: frozenset[IPv4Address] = frozenset()
        """Those that connections last went to, or would have."""
        self.ways: dict[IPv4Address, Way] = {}
        """To these, as far as there are any."""
        self.found: tuple[str, ...] = ()
        """What the last look-up gave, or took instead."""
        self.good: tuple[str, ...] = ()
        """By which the host was last reached, the one that answered first."""
        self.segment: int | None = None
        """The longest TCP segment that is known to arrive, both ways; None: those that the kernel finds right."""
        self._segment_used: int | None = None
        """On the last connection."""
        self._try_next: int | None = None
        self._is_lost = False
        """The name is not found, which was said."""
        self.made: Target | None = None
        """Of the last connection that was made."""
        self.used: Target | None = None
        """Of the connection in use: the caller says which one that is."""
        self._watched: tuple[Target, ...] = tuple(Target(address) for address in ANYWHERE)
        self._egress: dict[Target, Egress | None] = {}
        """For these three, at the last look."""

    @property
    def exposed(self) -> frozenset[IPv4Address]:
        """The addresses that no route may lead into the tunnel, because connections there can't be kept out of it."""
        return frozenset(
            address for address in self.addresses if address not in self.ways or not self.ways[address].is_apart
        )

    async def look(self) -> bool:
        """Look at the way to the host; whether it has changed since the last look, or the last attempt.

        Raises:
            OSError: the kernel can't be asked.
        """
        if self._underlay is None:
            return False
        connections = [target for target in (self.made, self.used) if target is not None]
        egress = await self._underlay.egress(dict.fromkeys([*self._watched, *connections]))
        has_changed = any(self._egress.get(target, taken) != taken for target, taken in egress.items())
        self._egress = egress
        return has_changed

    async def connect(self, known: Sequence[str], begin: Begin) -> socket.socket:
        """A connected socket, owned by the caller.

        Args:
            known: addresses to try if the name is not found.
            begin: told of its steps.

        Raises:
            OperationalError: there is none; the text says why and what to do.
        """
        self._segment_used, self._try_next = self._try_next or self.segment, None
        begin(Step.NAME, f"looking up {self.host}")
        await self.look()
        addresses = await self._look_up(known)
        self.found = tuple(dict.fromkeys(text_of(address[4]) for address in addresses))
        self._watched = tuple(_targets(addresses))
        await self.look()
        where = host_port(self.host, self._port)
        begin(Step.TCP, f"connecting to {self._what} {where}")
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
        with ExitStack() as cleanup:
            cleanup.callback(opened.close)
            self.made = self._target(opened)
            await self.look()
            answered = opened.getpeername()
            cleanup.pop_all()
        self.good = tuple(dict.fromkeys((text_of(answered), *self.found)))
        return opened

    def judge(self, ended: socket.socket, *, gave_up: bool) -> None:
        """Learn from a connection that has ended whether the next one shall try shorter segments.

        Args:
            ended: a duplicate of the connection, so that it is not closed yet.
            gave_up: this member ended it, because nothing came although it pinged.
        """
        # The kernel of a sandbox may not tell.
        with suppress(OSError):
            self._try_next = shorter(_look(ended), gave_up=gave_up)

    def succeed(self) -> None:
        """The last connection was of use: so are its segments."""
        if self._segment_used == self.segment:
            return
        self.segment = self._segment_used
        _log.warning(
            "long TCP segments vanish on the way to %s, and nothing says so: from now on they have at most %d bytes",
            host_port(self.host, self._port),
            self.segment,
        )

    async def _look_up(self, known: Sequence[str]) -> list[AddrInfoType]:
        if not known:
            return await resolve(self.host, self._port)
        try:
            async with asyncio.timeout(LOOK_UP_S):
                addresses = await resolve(self.host, self._port)
        except TimeoutError:
            why = f"{self.host}: the name server does not answer within {LOOK_UP_S:g} s"
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

    def _target(self, opened: socket.socket) -> Target | None:
        address = ip_address(str(opened.getpeername()[0]))
        if address.is_link_local:
            return None
        way = self.ways.get(address) if isinstance(address, IPv4Address) else None
        bound_to = way.interface if way is not None and way.can_bind else None
        return Target(address, str(opened.getsockname()[0]), bound_to)

    def _open_socket(self, address: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, to = address
        opened = socket.socket(family, kind, protocol)
        try:
            if self._segment_used is not None:
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, self._segment_used)
            bind(opened, self.ways.get(IPv4Address(to[0])) if family == socket.AF_INET else None)
        except OSError:
            opened.close()
            raise
        return opened


def _targets(addresses: list[AddrInfoType]) -> Iterator[Target]:
    """Those that a route leads to: an address on the link itself names its interface."""
    for _, _, _, _, to in addresses:
        address = ip_address(str(to[0]))
        if not address.is_link_local:
            yield Target(address)


def _look(connection: socket.socket) -> Seen:
    # struct tcp_info of <linux/tcp.h>: tcpi_retransmits is its third byte, and behind eight there are numbers.
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
    snd_mss, last_ack_recv = (struct.unpack_from("=I", info, at)[0] for at in (16, 56))
    # What the kernel keeps although all that can be read was read lies behind a gap.
    [kept] = struct.unpack("=I", connection.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4))
    return Seen(
        length=snd_mss,
        retransmissions=info[2],
        unacknowledged=_count(connection, termios.TIOCOUTQ),
        heard=last_ack_recv / 1000,
        is_missing=kept > 0 and _count(connection, termios.FIONREAD) == 0,
    )


def _count(connection: socket.socket, request: int) -> int:
    """Bytes of a queue."""
    counted = array.array("i", [0])
    fcntl.ioctl(connection, request, counted)
    return counted[0]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
