"""Members with direct links, the NATs before them, and what stands in for their engines; the clock is the test's.

    World ─ add(address, nat=Nat(…)) ─▶ Host ─ meet() ─▶ offers, probes … ─▶ path_to(), state()

Rules:
 1. A host behind a NAT has a LAN of its own, or shares that of others with the same NAT. What goes from a LAN to
    elsewhere is translated, and what comes from there is filtered, as the NAT does it.
 2. The engine of a host answers probes, tells of what comes from where no path leads, asks to hear of a path by which
    something goes and nothing comes, and leaves it after PATIENCE_S. Neither a probe, nor what asks while something is
    on its way there, says that what goes arrives. So does the real one (candy/engine/link.pxi).
 3. A packet goes by the path, or else by the relay, which loses nothing. Who has lost the relay is away for the others:
    they seal nothing for it but what goes by a path. What goes neither way raises Wanted: of who is away once in
    ASK_SOON_S, without a relay once a second. So do the real ones (candy.sealing.ways, candy/engine/sessions.pxi).
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, ip_address
from itertools import count
from math import inf
from random import Random
from typing import NamedTuple

from candy.member import links
from candy.member.links import ClearPath, Links, SendNote, SendProbe, SetPath
from candy.member.linkstate import LinkState
from candy.member.pathfinder import Doubt
from candy.protocol.linking import PROBE, Answer, Candidate, Endpoint, Kind
from candy.protocol.wire import DropReason
from candy.sealing.seals import Install, Remove, SetPeer, Way
from candy.sealing.ways import ASK_SOON_S

LAN_S, WAN_S, RELAY_S = 0.0005, 0.01, 0.03
PATIENCE_S = 0.7
PORT = 5000


@dataclass
class Nat:
    """A router before a LAN.

    Args:
        address: its public one.
        is_symmetric: it has another port for each destination; else one for each of the LAN's.
        filters: by what it judges what comes: nothing, the "address" or the "port" that something was sent to.
        hairpin: it leads what comes from its LAN for its own address back in.
    """

    address: IPv4Address
    is_symmetric: bool = False
    filters: str | None = None
    hairpin: bool = False
    ports: dict[object, int] = field(default_factory=dict)
    owners: dict[int, tuple[Endpoint, set[Endpoint]]] = field(default_factory=dict)
    next_port: int = 20000

    def out(self, source: Endpoint, destination: Endpoint) -> Endpoint:
        """What is sent from within, as others see it."""
        key = (source, destination) if self.is_symmetric else source
        port = self.ports.get(key)
        if port is None:
            port = self.ports[key] = self.next_port
            self.next_port += 1
            self.owners[port] = source, set()
        self.owners[port][1].add(destination)
        return Endpoint(self.address, port)

    def inwards(self, port: int, source: Endpoint) -> Endpoint | None:
        """Who gets what is sent to a port; None: nobody."""
        owner, sent_to = self.owners.get(port, (None, set()))
        if self.filters == "address" and source.address not in {each.address for each in sent_to}:
            return None
        return None if self.filters == "port" and source not in sent_to else owner

    def flush(self) -> None:
        """It forgets all."""
        self.ports.clear()
        self.owners.clear()


class Datagram(NamedTuple):
    session: int
    """The receiver's."""
    content: bytes
    length: int
    """Of the IP packet."""
    asks: bool = False


@dataclass
class Path:
    endpoint: Endpoint
    longest: int
    heard_at: float
    asked_at: float | None = None
    sent_at: float = 0.0
    packet_at: float = 0.0
    doubted_at: float = 0.0
    is_quiet: bool = False


class Host:
    """A member."""

    def __init__(self, world: "World", number: int, lan: IPv4Address, nat: Nat | None) -> None:
        self.world = world
        self.number = number
        self.address = IPv4Address(f"10.99.0.{number}")
        self.own = Endpoint(lan, PORT)
        self.nat = nat
        self.blocked = False
        self.mute = False
        self.has_relay = True
        self.mtu = 1500
        self.links = Links(lambda _: True, world.random.randbytes, self.heard_at, 1000 * number)
        self.paths: dict[IPv4Address, Path] = {}
        self.sessions: dict[IPv4Address, int] = {}
        """At the peer, by its address."""
        self.got: Counter[str] = Counter()
        self.busy: set[IPv4Address] = set()
        self.wanted_at: dict[IPv4Address, float] = {}
        self.probes: list[tuple[float, Endpoint]] = []
        self.set_paths: list[tuple[float, SetPath]] = []
        self.proven: set[Endpoint] = set()
        """From where an answer came."""
        self.notes_lost = 0
        self.woken: set[float] = set()
        """When it had something to do that was due."""
        self.dropped: list[str] = []

    def gather(self) -> None:
        """Learn its own addresses, from two STUN servers."""
        candidates = [Candidate(Kind.LAN, self.own)]
        is_symmetric = False
        if self.nat is not None:
            seen = [self.nat.out(self.own, Endpoint(ip_address("192.88.99.1"), port)) for port in (1, 2)]
            is_symmetric = seen[0] != seen[1]
            candidates.append(Candidate(Kind.REFLEXIVE, seen[0]))
        self.do(self.links.gathered(candidates, self.world.now, is_symmetric=is_symmetric, has_udp=not self.blocked))

    def heard_at(self, peer: IPv4Address) -> float:
        path = self.paths.get(peer)
        return -inf if path is None else path.heard_at

    def state(self, peer: "Host") -> LinkState:
        return self.links.state(peer.address, self.world.now)

    def send(self, peer: "Host", length: int = 100) -> None:
        """A packet of the user's, of so many bytes."""
        world, path = self.world, self.paths.get(peer.address)
        if path is None and not (self.has_relay and peer.has_relay):
            if world.now >= self.wanted_at.get(peer.address, -inf) + (ASK_SOON_S if self.has_relay else 1.0):
                self.wanted_at[peer.address] = world.now
                self.do(self.links.wanted(peer.address, world.now))
            return
        self.busy.add(peer.address)
        if path is not None and path.asked_at is not None and world.now - path.asked_at > PATIENCE_S:
            path.is_quiet, path.asked_at = True, None
            self.do(self.links.silenced(peer.address, world.now))
        if path is None or path.is_quiet or length > path.longest:
            self.by_relay(peer, lambda: peer.take("relay", self.address))
            return
        unheard = world.now - path.heard_at
        if (
            path.sent_at > path.heard_at
            and unheard > 0.15
            and world.now - path.packet_at <= 0.5 < 3 <= (world.now - path.doubted_at)
        ):
            path.doubted_at = world.now
            self.do(self.links.doubted(peer.address, world.now))
            path = self.paths.get(peer.address, path)
        asks = unheard > 0.25
        if asks and path.asked_at is None:
            path.asked_at = world.now
        path.sent_at = world.now
        world.post(self, path.endpoint, Datagram(world.local(peer, self), b"E", length + 60, asks))

    def by_relay(self, peer: "Host", arrive: Callable[[], None]) -> None:
        """Send something by the relay, if both have one."""
        if self.has_relay and peer.has_relay:
            self.world.after(RELAY_S, arrive)

    def seals_for(self, peer: "Host") -> bool:
        """Whether packets for it are sealed. Who has lost the relay is told of nobody that it were away."""
        return peer.has_relay or not self.has_relay or peer.address in self.paths

    def set_peer(self, peer: "Host") -> None:
        """Say what becomes of packets for a peer, with which there is a session."""
        is_sealed = self.seals_for(peer)
        way, local = (Way.SEAL, self.world.local(self, peer)) if is_sealed else (Way.NO_ROUTE, 0)
        self.do(self.links.followed(SetPeer(peer.address, way, local), self.world.now))

    def take(self, by: str, peer: IPv4Address) -> None:
        self.got[by] += 1
        self.busy.add(peer)

    def receive(self, source: Endpoint, datagram: Datagram) -> None:
        world = self.world
        peer = self.links.peer_of(datagram.session)
        if peer is None:
            return
        path = self.paths.get(peer)
        content = datagram.content
        contradicts = path is not None and datagram.asks and world.now - path.sent_at <= 0.25
        is_elsewhere = path is not None and content[:1] == b"\x02" and path.endpoint != source
        if path is not None and content[:1] != bytes([PROBE]) and not contradicts and not is_elsewhere:
            path.heard_at, path.asked_at = world.now, None
        if content[:1] == b"N":
            self.note(world.host(peer), content[1:])
        if content[:1] == b"E":
            if path is not None:
                path.packet_at = world.now
            self.take("direct", peer)
        back = self.sessions[peer]
        if content[:1] == bytes([PROBE]):
            answer = Answer(content[1:9], source, datagram.length - 28).encode()
            world.post(self, source, Datagram(back, answer, 90))
        elif datagram.asks and path is not None:
            world.post(self, path.endpoint, Datagram(back, b"", 60))
        if content[:1] == b"\x02":
            self.proven.add(source)
            self.do(self.links.arrived(datagram.session, source, content, world.now))
        elif path is None or path.endpoint != source:
            self.do(self.links.arrived(datagram.session, source, b"", world.now))

    def do(self, actions: list[links.Action]) -> None:
        world = self.world
        for action in actions:
            match action:
                case SendNote():
                    peer = world.host(self.links.peer_of(action.session))
                    if self.notes_lost:
                        self.notes_lost -= 1
                    elif (path := self.paths.get(peer.address)) is not None and not path.is_quiet:
                        world.post(self, path.endpoint, Datagram(world.local(peer, self), b"N" + action.body, 200))
                    else:
                        self.by_relay(peer, partial(peer.note, self, action.body))
                case SendProbe():
                    peer = world.host(self.links.peer_of(action.session))
                    self.probes.append((world.now, action.endpoint))
                    length = len(action.content) + 60
                    world.post(self, action.endpoint, Datagram(world.local(peer, self), action.content, length))
                case SetPath():
                    self.set_paths.append((world.now, action))
                    assert action.endpoint in self.proven
                    self.paths[action.peer] = Path(action.endpoint, action.longest, world.now)
                    self.set_peer(world.host(action.peer))
                case ClearPath():
                    self.paths.pop(action.peer, None)
                    self.set_peer(world.host(action.peer))
                case Doubt():
                    world.after(2 * WAN_S, self.gather)
                case DropReason():
                    self.dropped.append(action)

    def note(self, source: "Host", body: bytes) -> None:
        self.do(self.links.noted(self.world.local(self, source), body, self.world.now))


class World:
    """All of them, and what is on its way between them."""

    def __init__(self, seed: int = 1, loss: float = 0.0) -> None:
        self.now = 1000.0
        self.random = Random(seed)
        self.loss = loss
        self.hosts: dict[IPv4Address, Host] = {}
        self.nats: dict[IPv4Address, Nat] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def add(self, nat: Nat | None = None, lan: str = "") -> Host:
        """A member behind this NAT; None: it has a public address."""
        number = len(self.hosts) + 1
        address = IPv4Address(lan or (f"198.51.100.{number}" if nat is None else f"192.168.{number}.2"))
        host = Host(self, number, address, nat)
        self.hosts[host.address] = host
        if nat is not None:
            self.nats[nat.address] = nat
        host.gather()
        return host

    def host(self, address: IPv4Address | None) -> Host:
        assert address is not None
        return self.hosts[address]

    @staticmethod
    def local(host: Host, peer: Host) -> int:
        """A host's number of its session with a peer."""
        return 100 * host.number + peer.number

    def meet(self, one: Host, other: Host) -> None:
        """They have a session, for the first packet."""
        for host, peer in ((one, other), (other, one)):
            local = self.local(host, peer)
            host.sessions[peer.address] = self.local(peer, host)
            host.do(host.links.followed(installed(local, peer.address), self.now))
        for host, peer in ((one, other), (other, one)):
            host.set_peer(peer)

    def lose(self, lost: Host) -> None:
        """It has lost the relay, which says so to those who have a session with it."""
        self._reach(lost, has_relay=False)

    def regain(self, host: Host) -> None:
        """It is back."""
        self._reach(host, has_relay=True)

    def _reach(self, changed: Host, *, has_relay: bool) -> None:
        changed.has_relay = has_relay
        for host in self.hosts.values():
            if host.has_relay and changed.address in host.sessions:
                host.set_peer(changed)

    def part(self, one: Host, other: Host) -> None:
        """Their session ends."""
        for host, peer in ((one, other), (other, one)):
            host.do(host.links.followed(Remove(self.local(host, peer)), self.now))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), act))

    def post(self, sender: Host, destination: Endpoint, datagram: Datagram) -> None:
        """A datagram of a host's."""
        if sender.blocked or sender.mute or datagram.length > sender.mtu or self.random.random() < self.loss:
            return
        for host in self.hosts.values():
            # In one LAN, or with public addresses both.
            if host.own == destination and host.nat is sender.nat and (host.nat is None or _is_near(host, sender)):
                self._carry(LAN_S if host.nat is not None else WAN_S, host, sender.own, datagram)
                return
        source = sender.own if sender.nat is None else sender.nat.out(sender.own, destination)
        nat = self.nats.get(destination.address)  # type: ignore[arg-type]
        if nat is None:
            for host in self.hosts.values():
                if host.nat is None and host.own == destination:
                    self._carry(WAN_S, host, source, datagram)
        elif nat is not sender.nat or nat.hairpin:
            self.after(WAN_S, lambda: self._enter(nat, destination.port, source, datagram))

    def _enter(self, nat: Nat, port: int, source: Endpoint, datagram: Datagram) -> None:
        own = nat.inwards(port, source)
        for host in self.hosts.values():
            if host.nat is nat and host.own == own:
                self._carry(LAN_S, host, source, datagram)

    def _carry(self, seconds: float, host: Host, source: Endpoint, datagram: Datagram) -> None:
        def arrive() -> None:
            if not host.blocked and datagram.length <= host.mtu:
                host.receive(source, datagram)

        self.after(seconds, arrive)

    def run(self, seconds: float, each_s: float = 0.0, *flows: tuple[Host, Host]) -> None:
        """Let time pass, with a packet of each flow again and again."""
        until, next_packet = self.now + seconds, self.now
        while True:
            due = [host.links.deadline for host in self.hosts.values()]
            polls = [host.links.poll_at for host in self.hosts.values()]
            event = self._events[0][0] if self._events else until
            step = min([until, event, *due, *polls, next_packet if flows else until])
            self.now = max(self.now, step)
            if self.now >= until:
                return
            if flows and self.now >= next_packet:
                for source, peer in flows:
                    source.send(peer)
                next_packet = self.now + each_s
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            for host in self.hosts.values():
                if self.now >= min(host.links.poll_at, host.links.deadline):
                    host.woken.add(self.now)
                if self.now >= host.links.poll_at:
                    busy, host.busy = host.busy, set()
                    host.do(host.links.polled(busy, self.now))
                if self.now >= host.links.deadline:
                    before = host.links.deadline
                    host.do(host.links.tick(self.now))
                    assert host.links.deadline > before or host.links.deadline > self.now


def _is_near(one: Host, other: Host) -> bool:
    return one.own.address.packed[:3] == other.own.address.packed[:3]


def installed(local: int, peer: IPv4Address) -> Install:
    return Install(local, peer, 1, 1, b"", b"", 0.0, 0.0, True)  # type: ignore[arg-type]
