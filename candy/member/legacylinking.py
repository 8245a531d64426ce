"""Carries out what LegacyLinks decides: direct links with the original's clients, on the socket of all direct links.

    Member ── joined(), told(), routed() ─▶ LegacyLinking ─▶ LegacyLinks ─▶ engine: send_old(), set_old_path(), …
    Sealer ── follow() ───────────────────▶   │       ▲             └─────▶ relay: UDP4CONN, GENERAL, and DISCOVERY
    events of the engine ── on_event() ───▶   │       └── mapped(): what STUN servers say
    the clock ── go_on() ─────────────────▶ ──┘

Rules:
 1. Only a member that holds the password of the network's old clients has such links, because their key is made of it;
    none that seals for all or nobody.
 2. Never with one of ours. Where members seal, a peer is one that the relay has said does not, and that has no key; who
    it says nothing of yet is asked about, and what that one said waits. Elsewhere nobody seals, and all are alike.
 3. Nothing is sent to, nor believed from, an endpoint within the tunnel, or to which the way leads through one of our
    devices. What goes to endpoints that have not answered is limited for all peers together.
 4. A packet is no longer than fits the way, as far as the kernel knows it: nothing is fragmented. Longer ones go by the
    relay: whether fragments arrive no challenge proves. The original's own come in fragments, and are taken.
 5. Members route for each other only where their users say so (`cost`). By a path on which less than ROUTED_LEAST fits
    nobody is told of: nothing says to a sender that its packets are too long for a way that it does not see.
 6. SEALED_MOST datagrams are all that are sealed under random IVs with one password, in all runs of the program, for
    the keys that are made of it stay the same. Beyond that the relay has all packets. What is kept of the count is
    ahead of it, so a killed program does not begin again where it began.

This module decides nothing about states of links, and knows no STUN.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from math import inf
from typing import Final, Protocol, assert_never

from candy._fastpath import EVENT_MET, EVENT_OLD, Engine
from candy.errors import WireError
from candy.host.candidates import mtu_to
from candy.member import peers
from candy.member.legacylinks import (
    Action,
    AskStun,
    ClearPath,
    LegacyLinks,
    Link,
    SendDatagram,
    SetPath,
    State,
    TakeFrom,
    Tell,
)
from candy.member.legacyroutes import Announce, LegacyRoutes, SetHops
from candy.member.linkstate import LinkState
from candy.protocol import datagram, wire
from candy.protocol.linking import Endpoint
from candy.sealing.bucket import Bucket
from candy.sealing.seals import ForgetPeer, Install, Remove, SetPeer, Way

SEALED_MOST: Final = 1 << 32
"""Of random IVs under one key (NIST SP 800-38D, 8.3)."""
COUNT_AHEAD: Final = 1 << 22
"""By so many the count that is kept is ahead of what was sealed, at most. A killed program loses this thousandth."""
LONGEST: Final = 1471
"""Bytes of a packet in the longest datagram that an original client receives."""
OVER: Final = 20 + 8 + datagram.IV_BYTES + datagram.TAG_BYTES + 1
"""Bytes around a packet: IPv4, UDP, IV, tag, kind."""
ROUTED_LEAST: Final = 1400
"""Bytes of a packet: the MTU that interfaces have unless their users say otherwise."""
REVIEW_S: Final = 5.0
"""Between two looks at what fits on the ways to peers, and whether these still lead around the tunnel."""
PROBES_RATE: Final = 40.0
PROBES_SAVED: Final = 100.0
HELD_MOST: Final = 64
"""Peers whose messages wait until it is known who they are."""

_log = logging.getLogger(__name__)
_WHY: Final = {
    State.PREPARING: "no UDP",
    State.SYNCHRONIZING: "no answer",
    State.CONNECTING: "no path found",
    State.CONNECTED: "no answer",
}
"""What is said of a link that came to nothing there."""


class Ground(Protocol):
    """What these links have in common with those between our own (candy.member.linking)."""

    @property
    def link4(self) -> tuple[int, int] | None:
        """The engine's link of IPv4, and its port; None: there is none."""

    @property
    def address4(self) -> IPv4Address | None:
        """This machine's, in its LAN."""

    def may_use(self, endpoint: Endpoint) -> bool:
        """Rule 3."""

    def ask_stun(self) -> None:
        """Have mapped() called, if a server answers."""


@dataclass(slots=True)
class _Path:
    endpoint: Endpoint
    rtt_s: float
    since: float
    mtu: int = 0


class LegacyLinking:
    """See above.

    Args:
        localhost: what peers are told in place of this machine's own address; None: that one.
        discovery_s: seconds between two DISCOVERYs to all; 0: none.
        engine: has the device, `tun`.
        randbytes: n random bytes.
        now: seconds of CLOCK_BOOTTIME.
        cost: milliseconds that this member adds, for those who reach each other by it; 0: they do not, nor does it by
            them.
        mtu_to: of candy.host.candidates.
    """

    def __init__(
        self,
        localhost: IPv4Address | None,
        discovery_s: float,
        engine: Engine,
        tun: int,
        randbytes: Callable[[int], bytes],
        now: Callable[[], float],
        ground: Ground,
        *,
        cost: int = 0,
        mtu_to: Callable[[IPv4Address], int] = mtu_to,
    ) -> None:
        self._localhost = localhost
        self._discovery_s = discovery_s
        self._engine = engine
        self._tun = tun
        self._randbytes = randbytes
        self._now = now
        self._ground = ground
        self._cost = cost
        self._mtu_to = mtu_to
        self._links: LegacyLinks | None = None
        """None: there are none."""
        self._routes: LegacyRoutes | None = None
        """None: members do not route for each other."""
        self._network: IPv4Network | None = None
        self._password = b""
        self._is_strict = True
        """Members seal here."""
        self._is_routed = False
        self._is_allowed = True
        self._is_used_up = False
        """Rule 6."""
        self._counted = 0
        """What is kept of the count, or would be."""
        self._ways: dict[IPv4Address, Way] = {}
        """As the engine has them, where members seal."""
        self._held: dict[IPv4Address, dict[type, wire.Udp4Conn | wire.General | wire.Discovery]] = {}
        """By peer, the last message of each kind."""
        self._paths: dict[IPv4Address, _Path] = {}
        self._probes = Bucket(PROBES_RATE, PROBES_SAVED)
        self._first: IPv4Address | None = None
        """Who had to wait for that first in the last second, and so has its turn first in the next."""
        self._discover_at = inf
        self._review_at = inf
        self.counted: Callable[[bytes], int] = lambda password: 0
        """What was kept of a password's count."""
        self.keep_count: Callable[[bytes, int], object] = lambda password, count: None
        self.say: Callable[[bytes], object] = lambda message: None
        """Sends a message through the relay, if there is one."""
        self.ask_about: Callable[[IPv4Address], object] = lambda address: None
        """Has the relay say who that is."""
        self.has_key: Callable[[IPv4Address], bool] = lambda address: False
        """Whether the relay has said so, of one that does not seal."""

    def __iter__(self) -> Iterator[IPv4Address]:
        """Those that are known as old clients."""
        known = [] if self._links is None else [peer for peer, _ in self._links]
        return iter(dict.fromkeys([*known, *(peer for peer, way in self._ways.items() if way is Way.CLEAR)]))

    @property
    def resent(self) -> int:
        """Packets of old clients that were sent on to others."""
        return 0 if self._routes is None else self._engine.old_resent(self._tun)

    @property
    def delay(self) -> float:
        """Seconds until go_on() has to be called; inf: not at all."""
        if self._links is None:
            return inf
        return max(0.0, min(self._links.deadline, self._discover_at, self._review_at) - self._now())

    def joined(self, own: IPv4Address, password: bytes, *, is_strict: bool, network: IPv4Network | None = None) -> None:
        """A member as this, on a connection to the relay. What is there goes on, if that is so already.

        Args:
            password: that of old clients; empty: this member does not hold it, or must not use it.
            is_strict: members seal here.
            network: where members are; None: nobody is reached by another one.
        """
        before = None if self._links is None else self._links.own
        if (before, self._password, self._is_strict, self._network) != (own, password, is_strict, network):
            self.end()
            if password != self._password:
                self._is_used_up = False
            self._password, self._is_strict, self._network = password, is_strict, network
        self._begin(own)

    def allow(self, allows: bool) -> None:
        """The network allows direct links, or does not."""
        self._is_allowed = allows
        if not allows:
            self.end()

    def routed(self, is_routed: bool) -> None:
        """The relay has told routes: then peers are not looked for in this LAN."""
        self._is_routed = is_routed
        if self._links is not None:
            self._links.uses_lan = not is_routed

    def follow(self, action: Install | Remove | SetPeer | ForgetPeer) -> None:
        """The engine was told this of members that seal, or do not."""
        if isinstance(action, Install | Remove):
            return
        address = action.address
        if isinstance(action, ForgetPeer):
            self._ways.pop(address, None)
        else:
            before, self._ways[address] = self._ways.get(address), action.way
            if action.way is Way.WAIT or before is action.way:
                # While it waits for the relay's word nothing leaves, and what there is may stay.
                return
        if self._links is None:
            return
        held = self._held.pop(address, {})
        if not self._is_old(address):
            self._do(self._links.forget(address))
            self._engine.set_old_hops(self._tun, int(address), ())
            return
        if self._routes is not None:
            self._set_hops(address, self._routes.hops(address))
        self._do(self._links.met(address, self._now()))
        for message in held.values():
            self.told(message)

    def told(self, message: wire.Udp4Conn | wire.General | wire.Discovery) -> None:
        """What a member says of itself through the relay."""
        if self._links is None:
            return
        peer = message.src
        if not self._is_old(peer):
            self._hold(message)
        elif isinstance(message, wire.Discovery):
            self._do(self._links.met(peer, self._now()))
        else:
            self._do(self._links.told(message, self._now()))

    def mapped(self, seen: Endpoint) -> None:
        """A STUN server sees this member there."""
        if self._links is not None and isinstance(seen.address, IPv4Address):
            self._place()
            self._do(self._links.mapped(peers.Endpoint(seen.address, seen.port), self._now()))

    def on_event(self, kind: int, detail: bytes) -> bool:
        """Act on an event of the engine's about the device; False: it is none about these links."""
        if kind not in (EVENT_OLD, EVENT_MET):
            return False
        if self._links is None:
            return True
        if kind == EVENT_MET:
            peer = IPv4Address(detail)
            self._do(self._links.met(peer, self._now()) if self._is_old(peer) else [])
        else:
            self._arrived(self._links, Endpoint.of(detail[8], detail[9:25], _number(detail[25:27])), detail[27:])
        return True

    def silenced(self, peer: IPv4Address) -> bool:
        """The engine has left the path to a peer; False: it is none of these."""
        if peer not in self._paths or self._links is None:
            return False
        self._do(self._links.silenced(peer))
        self._look_at_count()
        return True

    def state(self, address: IPv4Address) -> LinkState | None:
        """How a peer is reached; None: that is not known as an old client."""
        path = self._paths.get(address)
        if path is not None:
            return LinkState(path.endpoint, path.rtt_s, path.mtu, path.since, is_old=True)
        if self._links is None:
            return LinkState(None, why=self._why_none(), is_old=True) if self._is_known(address) else None
        link = self._links.get(address)
        hop = None if self._routes is None or not self._is_old(address) else self._routes.by(address)
        if hop is not None:
            return LinkState(None, why=_why(link or Link()), is_old=True, by=hop.peer, cost_ms=hop.cost_ms)
        if link is None and not self._is_known(address):
            return None
        return LinkState(None, why=_why(link or Link()), is_old=True)

    def go_on(self) -> None:
        """Act on what time has brought, if that is due."""
        links, now = self._links, self._now()
        if links is None:
            return
        if now >= self._discover_at:
            self._discover_at = now + self._discovery_s
            self.say(wire.Discovery(links.own, wire.BROADCAST).encode())
        if now >= self._review_at:
            self.review()
        if now >= links.deadline:
            self._look_at_count()
            self._first = self._do(links.tick(now, self._first))
            if self._routes is not None:
                self._route(self._routes.tick(now))

    def review(self) -> None:
        """Leave paths that lead through the tunnel now, and have packets fit the others."""
        for peer, path in list(self._paths.items()):
            if self._links is not None and not self._ground.may_use(path.endpoint):
                self._do(self._links.forget(peer))
            elif path.mtu != self._mtu(path.endpoint):
                self._set_path(peer, path)
        self._review_at = self._now() + REVIEW_S if self._paths else inf

    def _begin(self, own: IPv4Address) -> None:
        if self._links is not None or not self._password or not self._is_allowed or self._is_used_up:
            return
        if self._ground.link4 is None:
            return
        self._counted = self.counted(self._password)
        if self._counted >= SEALED_MOST:
            self._use_up()
            return
        self._links = LegacyLinks(own, self._randbytes, measures=self._cost > 0, uses_lan=not self._is_routed)
        key = datagram.recipient_key(self._password, own)
        self._engine.set_old_key(self._tun, int(own), key, sealed=self._counted)
        if self._cost and self._network is not None:
            self._routes = LegacyRoutes(own, self._cost, self._may_be_member)
            self._engine.resend_old(self._tun, True)
        self._discover_at = self._now() if self._discovery_s else inf

    def end(self) -> None:
        """No links any more, until joined() is called again."""
        links, self._links = self._links, None
        self._held.clear()
        self._discover_at = self._review_at = inf
        if links is not None:
            self._do(links.end())
            if self._routes is not None:
                self._route(self._routes.end())
                self._routes = None
                self._engine.resend_old(self._tun, False)
            self._engine.set_old_key(self._tun, int(links.own))
            self._count(self._engine.old_sealed(self._tun))

    def _is_known(self, address: IPv4Address) -> bool:
        return self._is_strict and self._is_old(address)

    def _is_old(self, address: IPv4Address) -> bool:
        """Rule 2."""
        return not self._is_strict or (self._ways.get(address) is Way.CLEAR and not self.has_key(address))

    def _hold(self, message: wire.Udp4Conn | wire.General | wire.Discovery) -> None:
        peer = message.src
        if self._ways.get(peer, Way.WAIT) is not Way.WAIT:
            _log.debug("%s is no old client, and speaks of a link as one", peer)
            return
        held = self._held.pop(peer, {})
        if len(self._held) == HELD_MOST:
            del self._held[next(iter(self._held))]
        self._held[peer] = held | {type(message): message}
        self.ask_about(peer)

    def _place(self) -> None:
        """Where this member is in its LAN."""
        assert self._links is not None
        address, link = self._localhost or self._ground.address4, self._ground.link4
        self._links.lan = None if address is None or link is None else peers.Endpoint(address, link[1])

    def _arrived(self, links: LegacyLinks, source: Endpoint, content: bytes) -> None:
        """A message that opened."""
        try:
            message = datagram.decode(content)
        except WireError as error:
            _log.debug("what an old client sent is none of its messages: %s", error.reason)
            return
        if not isinstance(source.address, IPv4Address) or not self._ground.may_use(source):
            return
        came_from = peers.Endpoint(source.address, source.port)
        match message:
            case datagram.Heartbeat():
                self._do(links.heard(message, came_from, self._now()))
            case datagram.Delay():
                self._do(links.delayed(message, came_from, self._now()))
            case datagram.PeerRoute():
                self._announced(links, message, source)
            case _:
                assert_never(message)

    def _look_at_count(self) -> None:
        """Rule 6."""
        if self._is_used_up:
            return
        sealed = self._engine.old_sealed(self._tun)
        if sealed >= SEALED_MOST:
            self._use_up()
            self.end()
        elif sealed > self._counted - COUNT_AHEAD // 2:
            self._count(sealed + COUNT_AHEAD)

    def _use_up(self) -> None:
        self._is_used_up = True
        _log.warning(
            "no direct links with old clients any more: 2^32 datagrams are what their format can keep apart. Packets "
            "for them go by the relay; another password has links again"
        )

    def _count(self, count: int) -> None:
        if count != self._counted:
            self._counted = count
            self.keep_count(self._password, count)

    def _why_none(self) -> str:
        if self._ground.link4 is None or not self._is_allowed:
            return "switched off"
        return "too many packets" if self._is_used_up else "no password of old clients"

    def _mtu(self, endpoint: Endpoint) -> int:
        assert isinstance(endpoint.address, IPv4Address)
        return self._mtu_to(endpoint.address)

    def _set_path(self, peer: IPv4Address, path: _Path) -> None:
        path.mtu = self._mtu(path.endpoint)
        longest = max(0, min(LONGEST, path.mtu - OVER))
        self._tell_engine(peer, path.endpoint, longest)
        self._paths[peer] = path
        if self._routes is not None:
            fits = longest >= ROUTED_LEAST
            self._route(self._routes.linked(peer, path.rtt_s) if fits else self._routes.unlinked(peer))

    def _tell_engine(self, peer: IPv4Address, endpoint: Endpoint, longest: int) -> None:
        """Raises MemoryError: there are too many members."""
        link = self._ground.link4
        assert link is not None
        key = datagram.recipient_key(self._password, peer)
        self._engine.set_old_path(self._tun, int(peer), link[0], endpoint.address.packed, endpoint.port, key, longest)

    def _send(self, action: SendDatagram) -> bool:
        """False: not now, for the limit."""
        link, endpoint = self._ground.link4, Endpoint(*action.endpoint)
        is_proven = action.peer in self._paths and self._paths[action.peer].endpoint == endpoint
        if link is None or not self._ground.may_use(endpoint):
            return True
        if not is_proven and not self._probes.take(self._now()):
            return False
        key = datagram.recipient_key(self._password, action.peer)
        content = action.message.encode()
        self._engine.send_old(self._tun, link[0], action.endpoint.ip.packed, action.endpoint.port, key, content)
        return True

    def _may_be_member(self, address: IPv4Address) -> bool:
        network = self._network
        return (
            network is not None
            and address in network
            and address not in (network.network_address, network.broadcast_address)
        )

    def _announced(self, links: LegacyLinks, message: datagram.PeerRoute, source: Endpoint) -> None:
        """A ROUTE: of the peer whose link it came by."""
        path = self._paths.get(message.next_hop)
        if self._routes is None or path is None or path.endpoint != source:
            _log.debug("%s is said to reach %s", message.next_hop, message.dst)
            return
        self._route(self._routes.heard(message.next_hop, message, self._now()))
        if self._routes.hops(message.dst) and self._is_old(message.dst):
            # No packet of its comes by the relay any more, which would be the reason to try for a direct link.
            self._do(links.met(message.dst, self._now()))

    def _route(self, actions: Iterable[SetHops | Announce]) -> None:
        for action in actions:
            match action:
                case SetHops():
                    self._set_hops(action.peer, action.hops)
                case Announce():
                    self._announce(action)
                case _:
                    assert_never(action)

    def _set_hops(self, peer: IPv4Address, hops: Sequence[IPv4Address]) -> None:
        """Rule 2 holds for who is reached by another one, too."""
        if hops and not self._is_old(peer):
            if self._ways.get(peer, Way.WAIT) is Way.WAIT:
                self.ask_about(peer)
            return
        try:
            self._engine.set_old_hops(self._tun, int(peer), [int(hop) for hop in hops])
        except MemoryError:
            _log.debug("no path to %s: there are too many members", peer)
            return
        _log.debug("%s, an old client, is reached by %s", peer, ", ".join(map(str, hops)) or "the relay")

    def _announce(self, action: Announce) -> None:
        link, path = self._ground.link4, self._paths.get(action.peer)
        if link is not None and path is not None:
            key, (address, port) = datagram.recipient_key(self._password, action.peer), path.endpoint
            self._engine.send_old(self._tun, link[0], address.packed, port, key, action.message.encode())

    def _do(self, actions: Iterable[Action]) -> IPv4Address | None:
        """Carry these out.

        Returns:
            the first peer to whom something was not sent for the limit; None: all was.
        """
        first: IPv4Address | None = None
        without_room: set[IPv4Address] = set()
        for action in actions:
            match action:
                case AskStun():
                    self._ground.ask_stun()
                case Tell():
                    self.say(action.message.encode())
                case SendDatagram():
                    # Who were acknowledged would send packets, which nobody takes.
                    if action.peer not in without_room and not self._send(action):
                        first = first or action.peer
                case TakeFrom():
                    self._paths.pop(action.peer, None)
                    if self._routes is not None:
                        self._route(self._routes.unlinked(action.peer))
                    if not self._take_from(action):
                        without_room.add(action.peer)
                case SetPath():
                    since = self._paths[action.peer].since if action.peer in self._paths else self._now()
                    try:
                        self._set_path(action.peer, _Path(Endpoint(*action.endpoint), action.rtt_s, since))
                    except MemoryError:
                        _log.debug("no path to %s: there is no memory", action.peer)
                        continue
                    self._review_at = min(self._review_at, self._now() + REVIEW_S)
                    _log.debug("%s, an old client, is reached directly, at %s", action.peer, action.endpoint)
                case ClearPath():
                    self._paths.pop(action.peer, None)
                    self._engine.clear_old_path(self._tun, int(action.peer))
                    if self._routes is not None:
                        self._route(self._routes.unlinked(action.peer))
                    _log.debug("%s, an old client, is reached by the relay", action.peer)
                case _:
                    assert_never(action)
        return first

    def _take_from(self, action: TakeFrom) -> bool:
        """False: there is no room, and so no link."""
        try:
            self._tell_engine(action.peer, Endpoint(*action.endpoint), 0)
        except MemoryError:
            _log.debug("no link with %s: there are too many members", action.peer)
            if self._links is not None:
                self._do(self._links.refused(action.peer, self._now()))
            return False
        return True


def _why(link: Link) -> str:
    """Why packets for a peer go by the relay."""
    if link.state is State.INIT:
        return _WHY.get(link.ended_in, "not tried")
    return _WHY[link.ended_in] if link.state in (State.WAITING, State.FAILED) else "being tried"


def _number(detail: bytes) -> int:
    return int.from_bytes(detail, "big")
