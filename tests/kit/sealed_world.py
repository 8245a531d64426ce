"""Members with sealed sessions in memory: true Sessions, an engine and a relay that do what theirs promise, no more.

    World ─┬─ Node: Sessions ◀──▶ Engine          sends(a, b, packet) ─▶ wire ─▶ deliver() ─▶ Node.got
           └─ Relay: whose an address is, who has asked

What is under way lies in `World.wire`, in order; tests take from it, repeat and shuffle it. A sealed packet is opened
if number, source, key and cipher are right; no cipher is at work.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from ipaddress import IPv4Address
from random import Random

from kit.primitives import PRIMITIVES, pair

from candy.protocol import control
from candy.protocol.actions import Drop, Log, Send
from candy.protocol.control import Peer, State
from candy.protocol.handshake import ALL_CIPHERS, HANDSHAKE
from candy.protocol.login import Asks
from candy.sealing.handshakes import KeepStamp
from candy.sealing.joined import Joined, Own
from candy.sealing.pins import Pins
from candy.sealing.seals import (
    Clear,
    CloseGroup,
    Confirmed,
    EngineEvent,
    ForgetPeer,
    Install,
    Noted,
    OpenGroup,
    Remove,
    Seal,
    SealGroups,
    Seen,
    SendSealed,
    SetPeer,
    SetSealing,
    Unknown,
    Wanted,
    Way,
)
from candy.sealing.sessions import Action, KeepPins, Sessions
from candy.sealing.stamps import Moment, Stamps

WALL = 1_800_000_000 * 10**9
NETWORK = bytes([0x21]) * 32
A, B, C = (IPv4Address(f"10.0.0.{last}") for last in (1, 2, 3))


@dataclass(frozen=True)
class Sealed:
    """A SEALED."""

    source: IPv4Address
    destination: IPv4Address
    remote: int
    counter: int
    key: bytes
    cipher: int
    body: bytes


@dataclass(frozen=True)
class Plain:
    """A packet in the clear."""

    source: IPv4Address
    destination: IPv4Address
    body: bytes


@dataclass(frozen=True)
class Shake:
    """A HANDSHAKE."""

    source: IPv4Address
    destination: IPv4Address
    payload: bytes


Datagram = Sealed | Plain | Shake


@dataclass
class Opened:
    """A session in the engine."""

    install: Install
    is_confirmed: bool
    counter: int = 0
    window: set[int] = field(default_factory=set)
    seen: Seen = field(default_factory=lambda: Seen(0))


class Engine:
    """What candy.sealing.seals asks of one."""

    def __init__(self, node: "Node") -> None:
        self.node = node
        self.setting: SetSealing | None = None
        self.sessions: dict[int, Opened] = {}
        self.peers: dict[IPv4Address, SetPeer] = {}
        self.waiting: dict[IPv4Address, list[bytes]] = {}
        self.raised: set[tuple[type, IPv4Address]] = set()
        self.drops: list[str] = []
        self.groups: SealGroups | None = None
        self.opened: list[OpenGroup] = []

    def carry_out(self, action: Action) -> None:
        match action:
            case SetSealing():
                self.setting = action
            case Install():
                assert action.local not in self.sessions
                assert action.local != 0
                assert action.sends not in self.node.world.keys
                self.node.world.keys.add(action.sends)
                seen = Seen(action.local)
                self.sessions[action.local] = Opened(action, action.is_confirmed, seen=seen)
            case Remove():
                del self.sessions[action.local]
            case SetPeer():
                assert action.longest >= 1500
                self.peers[action.address] = action
                self.raised -= {(Wanted, action.address), (Clear, action.address)}
                for packet in self.waiting.pop(action.address, []):
                    self.send(action.address, packet)
            case ForgetPeer():
                del self.peers[action.address]
                self.raised -= {(Wanted, action.address), (Clear, action.address)}
                self.drops += ["no_session"] * len(self.waiting.pop(action.address, []))
            case SendSealed():
                self.seal(action.local, action.body, is_packet=False)
            case SealGroups():
                self.groups = action
            case OpenGroup():
                self.opened.append(action)
            case CloseGroup():
                self.opened = [
                    each for each in self.opened if (each.source, each.epoch) != (action.source, action.epoch)
                ]

    def send(self, address: IPv4Address, packet: bytes) -> None:
        if self.setting is None or self.setting.seal is Seal.OFF:
            self.node.world.wire.append(Plain(self.node.address, address, packet))
            return
        entry = self.peers.get(address)
        way = Way.WAIT if entry is None else entry.way
        if entry is not None and entry.tells_wanted:
            self.tell(Wanted(address), address)
        if way is Way.SEAL:
            assert entry is not None
            if self.seal(entry.session, packet, is_packet=True):
                return
            way = Way.WAIT
        match way:
            case Way.WAIT:
                self.waiting.setdefault(address, []).append(packet)
                self.tell(Wanted(address), address)
            case Way.CLEAR:
                self.node.world.wire.append(Plain(self.node.address, address, packet))
            case _:
                names = {Way.NO_ROUTE: "no_route", Way.KEY_REFUSED: "key_refused", Way.NOT_SEALING: "peer_not_sealing"}
                self.drops.append(names[way])

    def seal(self, local: int, body: bytes, *, is_packet: bool) -> bool:
        session, now = self.sessions.get(local), self.node.world.now
        if session is None or now >= session.install.sends_until:
            return False
        install, seen = session.install, session.seen
        own = (self.node.address, install.peer, install.remote, session.counter, install.sends, install.cipher)
        self.node.world.wire.append(Sealed(*own, body))
        session.counter += 1
        session.seen = replace(
            seen,
            bytes_sent=seen.bytes_sent + len(body),
            packet_sent_at=now if is_packet else seen.packet_sent_at,
            unanswered_since=seen.unanswered_since or (now if is_packet else 0.0),
            owes_since=0.0,
        )
        return True

    def tell(self, event: EngineEvent, address: IPv4Address) -> None:
        if (type(event), address) not in self.raised:
            self.raised.add((type(event), address))
            self.node.happened(event)

    def open(self, sealed: Sealed) -> None:
        session, now = self.sessions.get(sealed.remote), self.node.world.now
        if session is None:
            self.drops.append("unknown_session")
            self.node.happened(Unknown(sealed.source))
            return
        install = session.install
        right = (install.peer, install.receives, install.cipher)
        if now >= install.opens_until or right != (sealed.source, sealed.key, sealed.cipher):
            self.drops.append("bad_seal")
            return
        if sealed.counter in session.window:
            self.drops.append("replayed")
            return
        session.window.add(sealed.counter)
        is_packet = bool(sealed.body) and sealed.body[0] != 0x80
        owes = session.seen.owes_since or (now if is_packet else 0.0)
        session.seen = replace(session.seen, unanswered_since=0.0, received_at=now, owes_since=owes)
        if not session.is_confirmed:
            session.is_confirmed = True
            self.node.happened(Confirmed(sealed.remote))
        if is_packet:
            self.node.got.append(sealed.body)
        elif sealed.body:
            self.node.happened(Noted(sealed.remote, sealed.body))

    def take(self, plain: Plain) -> None:
        assert self.setting is not None
        entry = self.peers.get(plain.source)
        if entry is None:
            takes = self.setting.seal is not Seal.REQUIRE
        else:
            takes = entry.takes_clear or self.setting.seal is Seal.OFF
        if self.setting.seal is not Seal.OFF and (entry is None or entry.tells_clear):
            self.tell(Clear(plain.source), plain.source)
        if takes:
            self.node.got.append(plain.body)
        else:
            self.drops.append("not_sealed")


class Node:
    """A member."""

    def __init__(
        self,
        world: "World",
        address: IPv4Address,
        number: int,
        *,
        seal: Seal = Seal.PREFER,
        secret: bytes | None = None,
        flags: Asks = Asks.HAS_AES,
        commit_bytes: int = 65535,
        ciphers: int = ALL_CIPHERS,
    ) -> None:
        self.world = world
        self.address = address
        self.number = number
        self.lease = address.packed + number.to_bytes(4, "big")
        self.secret = secret
        self.seal = seal
        self.random = Random(number)
        self.device = pair(sha256(bytes([number]) + address.packed).digest())
        self.own = Own(
            device=self.device,
            flags=flags,
            commit_bytes=commit_bytes,
            ciphers=ciphers,
            primitives=PRIMITIVES,
            key_pair=pair,
            randbytes=self.random.randbytes,
        )
        self.pins, self.stamp = b"", None
        self.connection = 0
        self.got: list[bytes] = []
        self.logs: list[str] = []
        self.dropped: list[str] = []
        self.sent: list[bytes] = []
        """To the relay: HANDSHAKE and CONTROL."""
        self.start()

    pins: bytes
    stamp: bytes | None

    def start(self) -> None:
        """The program begins, or begins anew."""
        self.engine = Engine(self)
        self.sessions = Sessions(self.own, self.seal, Pins(self.pins), Stamps(self.stamp))

    @property
    def peer(self) -> Peer:
        """As the relay tells of it."""
        key, flags = self.device.public, int(self.own.flags)
        return Peer(self.address, State.SEALS, flags, self.lease, self.own.commit_bytes, key, self.number)

    @property
    def at(self) -> Moment:
        return Moment(self.world.now, self.world.wall)

    def join(self) -> None:
        """Log in."""
        self.connection += 1
        joined = Joined(
            connection=self.connection,
            address=self.address,
            lease=self.lease,
            network=NETWORK,
            secret=self.secret,
        )
        self.do(self.sessions.joined(joined, self.at))
        self.world.relay.enters(self)

    def lose(self) -> None:
        """The connection is lost."""
        self.sessions.lost(self.world.now)
        self.world.relay.leaves(self)

    def happened(self, event: EngineEvent) -> None:
        self.world.events.append((self, event))

    def tick(self) -> None:
        self.do(self.sessions.tick([session.seen for session in self.engine.sessions.values()], self.at))

    def do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send():
                    assert action.connection == self.connection
                    self.sent.append(action.payload)
                    self.world.relay.received(self, action.payload)
                case Log():
                    self.logs.append(action.text)
                case Drop():
                    self.dropped.append(action.reason)
                case KeepPins():
                    self.pins = action.content
                case KeepStamp():
                    self.stamp = action.content
                case _:
                    self.engine.carry_out(action)


class Relay:
    """Tells what it is asked, and of changes."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.peers: dict[IPv4Address, Peer] = {}
        self.interests: set[tuple[IPv4Address, IPv4Address]] = set()
        """Who has asked, or was asked about; of whom."""
        self.lies: dict[tuple[IPv4Address, IPv4Address], Peer] = {}
        """To whom, of whom, what."""
        self.asks = 0

    def enters(self, node: Node) -> None:
        self.change(node.peer)

    def leaves(self, node: Node) -> None:
        self.interests = {(who, whom) for who, whom in self.interests if who != node.address}
        self.change(replace(self.peers[node.address], state=State.AWAY))

    def change(self, peer: Peer) -> None:
        """Something is another at this address."""
        self.peers[peer.address] = peer
        for who, whom in sorted(self.interests):
            if whom == peer.address:
                self.tell(who, whom)

    def revoke(self, address: IPv4Address) -> None:
        """Told to all."""
        self.peers[address] = replace(self.peers[address], state=State.REVOKED)
        for who in self.world.nodes:
            self.tell(who, address)

    def tell(self, who: IPv4Address, whom: IPv4Address, flags: int = 0) -> None:
        peer = self.lies.get((who, whom), self.peers.get(whom, Peer(whom, State.NOBODY)))
        node = self.world.nodes[who]
        message = control.decode(control.Tell((replace(peer, flags=peer.flags | flags),)).encode())
        assert isinstance(message, control.Tell)
        self.world.later(lambda: node.do(node.sessions.told(message, node.at)))

    def received(self, node: Node, payload: bytes) -> None:
        if payload[0] == HANDSHAKE:
            source, destination = IPv4Address(payload[4:8]), IPv4Address(payload[8:12])
            assert source == node.address
            self.world.wire.append(Shake(source, destination, payload))
            return
        ask = control.decode(payload)
        assert isinstance(ask, control.Ask)
        for address in ask.addresses:
            self.asks += 1
            self.interests.add((node.address, address))
            self.tell(node.address, address)
            asked = self.world.nodes.get(address)
            if asked is not None and (address, node.address) not in self.interests:
                self.interests.add((address, node.address))
                if self.peers[address].state is State.SEALS:
                    self.tell(address, node.address, Peer.UNASKED)


class World:
    """Members, and what is under way between them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = WALL
        self.nodes: dict[IPv4Address, Node] = {}
        self.relay = Relay(self)
        self.wire: list[Datagram] = []
        self.events: list[tuple[Node, EngineEvent]] = []
        self.control: list[Callable[[], None]] = []
        """What the relay says and has not arrived: it is neither lost nor reordered."""
        self.trace: list[Datagram] = []
        """All that was delivered."""
        self.keys: set[bytes] = set()
        """Under which was sealed: none is installed twice."""

    def add(self, address: IPv4Address, **options: object) -> Node:
        node = self.nodes[address] = Node(self, address, int(address) & 0xFF, **options)  # type: ignore[arg-type]
        node.join()
        return node

    def later(self, act: Callable[[], None]) -> None:
        self.control.append(act)

    def settle(self) -> None:
        """Let the relay's words and the engines' events arrive, but nothing of the wire."""
        for _ in range(10_000):
            if self.events:
                node, event = self.events.pop(0)
                node.do(node.sessions.happened(event, node.at))
            elif self.control:
                self.control.pop(0)()
            else:
                return
        raise AssertionError("there is no end of it")

    def deliver(self, datagram: Datagram) -> None:
        self.trace.append(datagram)
        node = self.nodes.get(datagram.destination)
        if node is not None:
            match datagram:
                case Sealed():
                    node.engine.open(datagram)
                case Plain():
                    node.engine.take(datagram)
                case Shake():
                    node.do(node.sessions.received(datagram.payload, node.at))
        self.settle()

    def run(self) -> None:
        """Until nothing is under way."""
        self.settle()
        for _ in range(10_000):
            if not self.wire:
                return
            self.deliver(self.wire.pop(0))
        raise AssertionError("there is no end of it")

    def send(self, source: Node, destination: IPv4Address, packet: bytes) -> None:
        source.engine.send(destination, packet)
        self.settle()

    def pass_time(self, seconds: float, *, run: bool = True) -> None:
        """With ticks when they are due."""
        until = self.now + seconds
        while self.now < until:
            step = min([until, *(node.sessions.deadline for node in self.nodes.values())]) - self.now
            self.now += max(step, 0.0)
            self.wall += int(max(step, 0.0) * 10**9)
            for node in self.nodes.values():
                if node.sessions.deadline <= self.now:
                    node.tick()
            self.settle()
            if run:
                self.run()
