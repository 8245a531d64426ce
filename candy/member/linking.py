"""Carries out what Links and Reflexive decide: UDP sockets, the engine's links, this machine's addresses.

    Sealer ── follow() ──▶ Linking ─▶ Links, Reflexive ─▶ engine: set_path(), send_by(), send_sealed(), send_stun(), …
    Member ── lead(), allow(), changed() ─▶ │   ▲  └────▶ LegacyLinking: links with the original's clients
    events of the engine ─ on_event() ────▶ │   └── look(): a task, a moment after something has changed
    the clock ──────────── go_on() ───────▶ ┘

Rules:
 1. One socket of each family, for all peers. It is bound to a port and to no interface: the kernel chooses the way, and
    where that is a device of ours nothing is sent.
 2. Where no socket can be made there are no direct links, and the member goes on. A port that its user names has to be
    free.
 3. What STUN servers see is asked for with offers, and when paths fail; each FRESH_S while there is traffic, and none
    answers. Nothing waits for a name server.

This module decides nothing about paths.
"""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from math import inf
from typing import Final, NamedTuple, assert_never

from candy._fastpath import (
    EVENT_DOUBT,
    EVENT_LINK,
    EVENT_NOTED,
    EVENT_QUIET,
    EVENT_STUN,
    EVENT_WANTED,
    Engine,
)
from candy.errors import OperationalError, WireError
from candy.host.candidates import Machine, look, reaches
from candy.member.legacylinking import LegacyLinking
from candy.member.links import Action, ClearPath, Links, SendNote, SendProbe, SetPath
from candy.member.linkstate import LinkState
from candy.member.pathfinder import Doubt
from candy.member.reflexive import FRESH_S, Reflexive
from candy.member.resolve import endpoints, resolve
from candy.protocol.linking import OFFER, Candidate, Endpoint, Kind, Reason
from candy.protocol.wire import DropReason
from candy.sealing.seals import ForgetPeer, Install, Remove, SetPeer

SETTLE_S: Final = 0.2
"""Changes come in rows."""
BUFFER_BYTES: Final = 4 << 20
"""Of a socket, where the kernel lets it."""
# From <linux/in.h>, <linux/in6.h> and <asm-generic/socket.h>.
IP_MTU_DISCOVER: Final = 10
IPV6_MTU_DISCOVER: Final = 23
PMTUDISC_PROBE: Final = 3
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33

_log = logging.getLogger(__name__)


class LinkSettings(NamedTuple):
    """What a member's settings say of direct links."""

    is_on: bool = True
    port: int = 0
    stun: tuple[str, int] | None = None
    """Host and port of a server; None: the relay."""
    endpoints: tuple[Endpoint, ...] = ()
    """Where forwarded ports are."""
    localhost: IPv4Address | None = None
    """What old clients are told as this machine's address in its LAN; None: that."""
    discovery_s: float = 0
    """Between two searches for old clients; 0: none."""
    cost: int = 0
    """Of this member, in milliseconds, for old clients that reach each other by it; 0: they do not."""


def open_sockets(port: int) -> dict[int, socket.socket]:
    """Of each family that this machine has, by 4 and 6; on one port, if that can be.

    Raises:
        OperationalError: the port is not 0, and can't be had.
    """
    opened: dict[int, socket.socket] = {}
    for family in (4, 6):
        wanted = port or (opened[4].getsockname()[1] if 4 in opened else 0)
        for number in dict.fromkeys((wanted, port)):
            try:
                opened[family] = _bound(family, number)
                break
            except OSError as error:
                if port and error.errno in (errno.EADDRINUSE, errno.EACCES):
                    for each in opened.values():
                        each.close()
                    raise OperationalError(
                        f"cannot use UDP port {port} for direct links: {error.strerror}: choose another with --port"
                    ) from None
                _log.debug("no UDP over IPv%d: %s", family, error.strerror)
    return opened


class Linking:
    """See above.

    Args:
        engine: has the device, `tun`.
        randbytes: n random bytes.
        now: seconds of CLOCK_BOOTTIME.
        look, reaches: of candy.host.candidates.
    """

    def __init__(
        self,
        settings: LinkSettings,
        engine: Engine,
        tun: int,
        randbytes: Callable[[int], bytes],
        now: Callable[[], float],
        *,
        look: Callable[[], Awaitable[Machine]] = look,
        reaches: Callable[..., bool] = reaches,
    ) -> None:
        self._engine = engine
        self._tun = tun
        self._now = now
        self._look = look
        self._reaches = reaches
        self._endpoints = settings.endpoints
        self._stun = settings.stun
        self._links = Links(self._may_use, randbytes, self._heard_at, int(time.time()))
        self._reflexive = Reflexive(randbytes)
        self._machine = Machine()
        self._looking: asyncio.Task[None] | None = None
        self._seeking: asyncio.Task[None] | None = None
        self._has_changed = False
        """There is something to look at that was not seen yet."""
        self._is_on = settings.is_on
        self._sockets: dict[int, tuple[int, int]] = {}
        """The engine's link and the port, by family."""
        self._inside: tuple[IPv4Network, ...] = ()
        self._polled_at = -inf
        self._ask_again_at = -inf
        """Not before, if no server answers."""
        self._packets: dict[int, int] = {}
        """By peer, what its path has carried."""
        self.relay: Callable[[], Awaitable[Sequence[Endpoint]]] | None = None
        """Gives the relay's addresses, which the Member knows. Raises OperationalError."""
        self.linked: Callable[[IPv4Address, bool], object] = lambda peer, is_linked: None
        """Told when a peer answers by a link, and when it does so no more."""
        self.wake: Callable[[], object] = lambda: None
        """Called when `delay` may be another outside of the calls below."""
        self.legacy = LegacyLinking(
            settings.localhost, settings.discovery_s, engine, tun, randbytes, now, self, cost=settings.cost
        )
        if settings.is_on:
            self._open(settings.port)
        self.allow(True)

    @property
    def prefix(self) -> int:
        """The upper 16 bits of this member's session numbers; 0: any."""
        return self._engine.link_prefix(self._tun) if self._sockets else 0

    @property
    def delay(self) -> float:
        """Seconds until go_on() has to be called; inf: not at all."""
        due = min(self._links.deadline, self._links.poll_at, self._reflexive.deadline, self._stun_at) - self._now()
        return min(max(0.0, due), self.legacy.delay)

    @property
    def _knows_no_server(self) -> bool:
        """That answers."""
        return self._reflexive.is_mute or not self._reflexive.has_servers

    @property
    def _stun_at(self) -> float:
        """When servers are asked although nothing gives reason to; inf: not at all (rule 3)."""
        return self._ask_again_at if self._links.is_busy and self._knows_no_server else inf

    @property
    def link4(self) -> tuple[int, int] | None:
        """The engine's link of IPv4, and its port."""
        return self._sockets.get(4)

    @property
    def address4(self) -> IPv4Address | None:
        """This machine's first one that others may have a way to."""
        addresses = (each for each in self._machine.addresses if isinstance(each, IPv4Address))
        return next((each for each in addresses if self._links.is_outside(each)), None)

    def may_use(self, endpoint: Endpoint) -> bool:
        """Whether a peer may be reached there: beside the tunnel, and beside all of ours."""
        return self._links.may_use(endpoint)

    def ask_stun(self) -> None:
        """Ask the servers, unless they are being asked. Where none is known, or none answers, look for them again."""
        now = self._now()
        self._ask_again_at = now + FRESH_S
        if self._knows_no_server:
            self._seek()
        self._reflexive.ask(now, is_changed=not self._reflexive.ids)
        self._ask(now)

    def state(self, address: IPv4Address) -> LinkState:
        """How a peer is reached."""
        state = self._links.state(address, self._now())
        old = None if state.endpoint is not None or self._links.is_off else self.legacy.state(address)
        return old or state

    def age(self, since: float) -> float:
        """Seconds since then."""
        return self._now() - since

    def allow(self, allows: bool) -> None:
        """The network allows direct links, or does not."""
        reason = Reason.NONE if allows else Reason.NETWORK
        if not self._sockets:
            reason = Reason.NO_UDP if self._is_on else Reason.SWITCHED_OFF
        if self._sockets:
            # Peers may not have heard of it, or not obey.
            self._engine.allow_links(self._tun, allows)
        self._do(self._links.switch_off(reason, self._now()))
        self.legacy.allow(allows)
        if reason is Reason.NONE:
            self._tell()

    def lead(self, inside: Collection[IPv4Network]) -> None:
        """The tunnel leads to these networks from now on."""
        if self._inside != tuple(inside):
            self._inside = tuple(inside)
            self._do(self._links.changed(self._inside, self._now()))
            self.legacy.review()
            self.changed()

    def changed(self) -> None:
        """Something of this machine's network is another: look, a moment later. Any number of calls are one."""
        self._has_changed = True
        if self._sockets and self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look_again())
            self._looking.add_done_callback(lambda _: self.wake())

    def follow(self, action: Install | Remove | SetPeer | ForgetPeer) -> None:
        """The engine was told this of sessions."""
        self._do(self._links.followed(action, self._now()))
        self.legacy.follow(action)

    def on_event(self, source: int, kind: int, detail: bytes) -> bool:
        """Act on an event of the engine's; False: it is none about direct links alone."""
        if any(source == link for link, _ in self._sockets.values()):
            if kind == EVENT_STUN:
                self._on_stun(detail)
            return True
        if source != self._tun:
            return False
        now = self._now()
        if kind == EVENT_NOTED and detail[5] == OFFER:
            self._do(self._links.noted(_number(detail), detail[4:], now))
        elif kind == EVENT_LINK:
            self._do(self._links.arrived(_number(detail), _endpoint(detail[12:31]), detail[31:], now))
        elif kind == EVENT_WANTED:
            self._do(self._links.wanted(IPv4Address(detail), now))
            return False
        elif kind == EVENT_DOUBT:
            self._do(self._links.doubted(IPv4Address(detail), now))
        elif kind == EVENT_QUIET:
            peer = IPv4Address(detail[:4])
            if not self.legacy.silenced(peer):
                _log.debug("nothing comes back by the link of %s", peer)
                self._do(self._links.silenced(peer, now))
        else:
            return self.legacy.on_event(kind, detail)
        return True

    def go_on(self) -> None:
        """Act on what time and traffic have brought, if that is due."""
        now = self._now()
        if now >= self._links.poll_at:
            self._do(self._links.polled(self._busy(now), now))
        if now >= self._links.deadline:
            self._do(self._links.tick(now))
        if now >= self._reflexive.deadline:
            self._ask(now)
        if now >= self._stun_at:
            self.ask_stun()
        self.legacy.go_on()

    async def end(self) -> None:
        """The program ends."""
        tasks = [task for task in (self._looking, self._seeking) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _open(self, port: int) -> None:
        for family, opened in open_sockets(port).items():
            number = opened.getsockname()[1]
            try:
                # The engine has links for a device that seals: nothing for anybody, until a log-in has said as whom.
                self._engine.set_sealing(self._tun, 0, 0)
                link = self._engine.open_link(self._tun, opened.fileno())
            except OSError as error:
                _log.warning("no direct links over IPv%d: %s", family, error.strerror)
                opened.close()
                continue
            opened.detach()
            self._sockets[family] = link, number

    async def _look_again(self) -> None:
        try:
            while self._has_changed:
                await asyncio.sleep(SETTLE_S)
                self._has_changed = False
                await self._look_once()
        finally:
            self._looking = None

    async def _look_once(self) -> None:
        try:
            machine = await self._look()
        except OSError as error:
            _log.debug("this machine's addresses can't be asked for: %s", error.strerror)
            return
        is_another, self._machine = machine != self._machine, machine
        now = self._now()
        self._do(self._links.changed(self._inside, now))
        self._reflexive.ask(now, is_changed=is_another)
        self._ask(now)
        self._tell()
        self._seek()

    def _seek(self) -> None:
        """Look for the servers, which may take a name server's time, and ask others than before at once."""
        if self._seeking is None:
            self._seeking = asyncio.get_running_loop().create_task(self._find_servers())
            self._seeking.add_done_callback(lambda _: self.wake())

    async def _find_servers(self) -> None:
        try:
            servers = await self._servers()
        except OperationalError as error:
            _log.debug("no STUN server is known: %s", error)
            return
        finally:
            self._seeking = None
        machine, now = self._machine, self._now()
        usable = [each for each in servers if each.family in self._sockets and self._reaches(each.address, machine)]
        if usable and self._reflexive.use(usable):
            self._reflexive.ask(now, is_changed=True)
            self._ask(now)

    async def _servers(self) -> Sequence[Endpoint]:
        if self._stun is not None:
            return endpoints(await resolve(*self._stun))
        return () if self.relay is None else await self.relay()

    def _may_use(self, endpoint: Endpoint) -> bool:
        link = self._sockets.get(endpoint.family)
        is_own = link is not None and endpoint.port == link[1] and endpoint.address in self._machine.addresses
        return link is not None and not is_own and self._reaches(endpoint.address, self._machine)

    def _tell(self) -> None:
        """What is known of this member's addresses."""
        found = [Candidate(Kind.FIXED, endpoint) for endpoint in self._endpoints]
        found += [Candidate(Kind.REFLEXIVE, endpoint) for endpoint in self._reflexive.seen.values()]
        for address in self._machine.addresses:
            if address.version in self._sockets:
                kind = Kind.GLOBAL6 if address.version == 6 and address.is_global else Kind.LAN
                found.append(Candidate(kind, Endpoint(address, self._sockets[address.version][1])))
        # The first reason counts, but an address of this machine's is its own, even if a server sees it as well.
        first: dict[Endpoint, Candidate] = {}
        for each in found:
            if each.endpoint not in first or first[each.endpoint].kind is Kind.REFLEXIVE:
                first[each.endpoint] = each
        own = list(first.values())
        reflexive = self._reflexive
        self._do(
            self._links.gathered(own, self._now(), is_symmetric=reflexive.is_symmetric, has_udp=not reflexive.is_mute)
        )

    def _on_stun(self, detail: bytes) -> None:
        server, now = _endpoint(detail[:19]), self._now()
        try:
            is_news = self._reflexive.answered(server, detail[19:], now)
        except WireError as error:
            _log.debug("the answer of a STUN server is none: %s", error.reason)
            return
        self._ask(now)
        if is_news:
            self._tell()
        # What IPv6 answers says nothing of whether the last one by IPv4 still holds.
        if server.family == 4 and (seen := self._reflexive.seen.get(4)) is not None:
            self.legacy.mapped(seen)

    def _ask(self, now: float) -> None:
        """Send what is due to STUN servers."""
        was_mute = self._reflexive.is_mute
        requests = list(self._reflexive.tick(now))
        for family, (link, _) in self._sockets.items():
            self._engine.expect_stun(link, self._reflexive.ids)
            for request in requests:
                if request.endpoint.family == family:
                    address, port = request.endpoint
                    self._engine.send_stun(link, address.packed, port, request.datagram)
        if self._reflexive.is_mute != was_mute:
            self._tell()

    def _heard_at(self, peer: IPv4Address) -> float:
        """As Links asks for it."""
        rows = (row for row in self._engine.paths(self._tun) if row[0] == int(peer))
        return next((heard for _, _, heard, *_ in rows), -inf)

    def _busy(self, now: float) -> set[IPv4Address]:
        """Peers with whom there was traffic since the last time."""
        busy: set[IPv4Address] = set()
        since, self._polled_at = self._polled_at, now
        for local, _, packet_sent_at, _, _, owes_since in self._engine.seen(self._tun):
            if packet_sent_at >= since or owes_since >= since:
                peer = self._links.peer_of(local)
                if peer is not None:
                    busy.add(peer)
        before, self._packets = self._packets, {}
        for number, _, _, packets_in, _, packets_out, *_ in self._engine.paths(self._tun):
            carried = self._packets[number] = packets_in + packets_out
            if before.get(number, carried) != carried:
                busy.add(IPv4Address(number))
        return busy

    def _do(self, actions: Iterable[Action]) -> None:
        engine, tun = self._engine, self._tun
        for action in actions:
            match action:
                case SendNote():
                    engine.send_sealed(tun, action.session, action.body)
                    self._reflexive.ask(self._now())
                case SendProbe():
                    address, port = action.endpoint
                    link, _ = self._sockets[action.endpoint.family]
                    engine.send_by(tun, action.session, link, address.packed, port, action.content)
                case SetPath():
                    address, port = action.endpoint
                    link, _ = self._sockets[action.endpoint.family]
                    # Its table may be full of addresses that it met itself, and not have this one.
                    with suppress(ValueError):
                        engine.set_path(tun, int(action.peer), link, address.packed, port, action.longest)
                        self.linked(action.peer, True)
                    _log.debug("%s is reached directly, at %s", action.peer, action.endpoint)
                case ClearPath():
                    engine.clear_path(tun, int(action.peer))
                    self.linked(action.peer, False)
                    _log.debug("%s is reached by the relay", action.peer)
                case Doubt():
                    self._reflexive.ask(self._now(), is_changed=True)
                case DropReason():
                    _log.debug("dropped: %s", action.value)
                case _:
                    assert_never(action)


def _bound(family: int, port: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == 4:
            opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        else:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        for force, plain in ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF)):
            try:
                opened.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
            except PermissionError:
                opened.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)
        opened.bind(("", port))
    except OSError:
        opened.close()
        raise
    return opened


def _number(detail: bytes) -> int:
    return int.from_bytes(detail[:4], "big")


def _endpoint(detail: bytes) -> Endpoint:
    """Family 1, address 16, port 2."""
    return Endpoint.of(detail[0], detail[1:17], int.from_bytes(detail[17:19], "big"))
