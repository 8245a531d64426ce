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
 5. Members route for each other only where their users say so, by a `cost` (candy.member.legacyrouting).
 6. Once a password has sealed what it may (candy.member.sealedcount) the relay has all packets.

This module decides nothing about states of links, and knows no STUN.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
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
from candy.member.legacyrouting import LegacyRouting
from candy.member.linkstate import LinkState
from candy.member.sealedcount import SealedCount
from candy.protocol import datagram, wire
from candy.protocol.linking import Endpoint
from candy.sealing.bucket import Bucket
from candy.sealing.seals import ForgetPeer, Install, Remove, SetPeer, Way

LONGEST: Final = 1471
"""Bytes of a packet in the longest datagram that an original client receives."""
OVER: Final = 20 + 8 + datagram.IV_BYTES + datagram.TAG_BYTES + 1
"""Bytes around a packet: IPv4, UDP, IV, tag, kind."""
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
        self._routing: LegacyRouting | None = None
        """None: members do not route for each other."""
        self._network: IPv4Network | None = None
        self._password = b""
        self._is_strict = True
        """Members seal here."""
        self._is_routed = False
        self._is_allowed = True
        self.count = SealedCount()
        """Rule 6."""
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
        return 0 if self._routing is None else self._routing.resent

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
        if not self.is_old(address):
            self._do(self._links.forget(address))
            self._engine.set_old_hops(self._tun, int(address), ())
            return
        if self._routing is not None:
            self._routing.met(address)
        self._do(self._links.met(address, self._now()))
        for message in held.values():
            self.told(message)

    def told(self, message: wire.Udp4Conn | wire.General | wire.Discovery) -> None:
        """What a member says of itself through the relay."""
        if self._links is None:
            return
        peer = message.src
        if not self.is_old(peer):
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
            self._do(self._links.met(peer, self._now()) if self.is_old(peer) else [])
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
        hop = None if self._routing is None else self._routing.by(address)
        if hop is not None:
            return LinkState(None, why=_why(link or Link()), is_old=True, by=hop.peer, cost_ms=hop.cost_ms)
        if link is None and not self._is_known(address):
            return None
        return LinkState(None, why=_why(link or Link()), is_old=True)

    def is_old(self, address: IPv4Address) -> bool:
        """Rule 2."""
        return not self._is_strict or (self._ways.get(address) is Way.CLEAR and not self.has_key(address))

    def look_up(self, address: IPv4Address) -> None:
        """Have the relay say who that is, if it has not."""
        if self._ways.get(address, Way.WAIT) is Way.WAIT:
            self.ask_about(address)

    def endpoint(self, address: IPv4Address) -> Endpoint | None:
        """Where its direct link leads; None: it has none."""
        path = self._paths.get(address)
        return None if path is None else path.endpoint

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
            if self._routing is not None:
                self._routing.go_on(now)

    def review(self) -> None:
        """Leave paths that lead through the tunnel now, and have packets fit the others."""
        for peer, path in list(self._paths.items()):
            if self._links is not None and not self._ground.may_use(path.endpoint):
                self._do(self._links.forget(peer))
            elif path.mtu != self._mtu(path.endpoint):
                self._set_path(peer, path)
        self._review_at = self._now() + REVIEW_S if self._paths else inf

    def _begin(self, own: IPv4Address) -> None:
        if self._links is not None or not self._password or not self._is_allowed or self._ground.link4 is None:
            return
        sealed = self.count.begin(self._password)
        if self.count.is_used_up:
            return
        self._links = LegacyLinks(own, self._randbytes, measures=self._cost > 0, uses_lan=not self._is_routed)
        key = datagram.recipient_key(self._password, own)
        self._engine.set_old_key(self._tun, int(own), key, sealed=sealed)
        if self._cost and self._network is not None:
            self._routing = LegacyRouting(
                self._cost, own, self._network, self._engine, self._tun, self, self._send_by_link
            )
        self._discover_at = self._now() if self._discovery_s else inf

    def end(self) -> None:
        """No links any more, until joined() is called again."""
        links, self._links = self._links, None
        self._held.clear()
        self._discover_at = self._review_at = inf
        if links is not None:
            self._do(links.end())
            if self._routing is not None:
                self._routing.end()
                self._routing = None
            self._engine.set_old_key(self._tun, int(links.own))
            self.count.end(self._engine.old_sealed(self._tun))

    def _is_known(self, address: IPv4Address) -> bool:
        return self._is_strict and self.is_old(address)

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
                is_reached = self._routing is not None and self._routing.heard(message, source, self._now())
                # No packet of its comes by the relay any more, which would be the reason to try for a direct link.
                self._do(links.met(message.dst, self._now()) if is_reached else [])
            case _:
                assert_never(message)

    def _look_at_count(self) -> None:
        """Rule 6."""
        self.count.look(self._engine.old_sealed(self._tun))
        if self.count.is_used_up:
            self.end()

    def _why_none(self) -> str:
        if self._ground.link4 is None or not self._is_allowed:
            return "switched off"
        return "too many packets" if self.count.is_used_up else "no password of old clients"

    def _mtu(self, endpoint: Endpoint) -> int:
        assert isinstance(endpoint.address, IPv4Address)
        return self._mtu_to(endpoint.address)

    def _set_path(self, peer: IPv4Address, path: _Path) -> None:
        path.mtu = self._mtu(path.endpoint)
        longest = max(0, min(LONGEST, path.mtu - OVER))
        self._tell_engine(peer, path.endpoint, longest)
        self._paths[peer] = path
        if self._routing is not None:
            self._routing.linked(peer, path.rtt_s, longest)

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

    def _send_by_link(self, peer: IPv4Address, message: datagram.PeerRoute) -> None:
        link, path = self._ground.link4, self._paths.get(peer)
        if link is not None and path is not None:
            key, (address, port) = datagram.recipient_key(self._password, peer), path.endpoint
            self._engine.send_old(self._tun, link[0], address.packed, port, key, message.encode())

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
                    if self._routing is not None:
                        self._routing.unlinked(action.peer)
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
                    if self._routing is not None:
                        self._routing.unlinked(action.peer)
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
