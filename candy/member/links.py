"""A member's direct links with others: what comes in from sessions, engine and network, actions for all go out.

    Install, SetPeer, …, of sessions ─┐                                            ┌─▶ engine   SendNote, SendProbe
    OFFER, ANSWER, quiet, of engine ──┼─▶ Links ─┬─ a Pathfinder for each peer ────┼─▶ engine   SetPath, ClearPath
    own addresses, of this machine ───┤          └─ offers: told, heard, repeated  └─▶ status   state()
    traffic, Wanted, time ────────────┘

Rules:
 1. With a session for a peer there are offers: each end sends its own and asks for the other's, until it is there, in
    OFFERS_S. One that says nothing by then is too old. Behind that offers go out when addresses change, and when there
    is traffic again.
 2. A greater sequence replaces what an offer said before. Sequences begin with the time of the program's start, so that
    they exceed those of the program before it.
 3. Without direct links a member answers offers by one that says so, and does nothing else.
 4. A peer is forgotten with its last session: what its device was reached by is nothing for another one's. Until then
    its link is looked for, also where the relay calls it away, and nothing is sealed for it unless the link is found.
 5. Addresses that are inside of the network, or of what it leads to, are not used, nor those that no other machine can
    have for an address. What else is not, says `may_use`.
 6. All peers share a Budget. An idle peer costs nothing, and one with nothing due is not looked at.

No I/O, no clock: randomness is an argument, `now` is in seconds of CLOCK_BOOTTIME. Actions are to be carried out in
order.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from itertools import islice
from math import inf
from typing import Final

from candy.errors import WireError
from candy.member.budget import Budget, tick_of
from candy.member.linkstate import LinkState, why_by_relay
from candy.member.pathfinder import Doubt, Leave, Pathfinder, Probe, Step, Use
from candy.protocol.addresses import may_be_elsewhere
from candy.protocol.linking import CANDIDATES_MOST, Answer, Candidate, Endpoint, Offer, Reason, Says
from candy.protocol.wire import DropReason
from candy.sealing.seals import ForgetPeer, Install, Remove, SetPeer, Way

AGAIN_S: Final = 1.5
TIMES_MOST: Final = 3
OFFERS_S: Final = 5.0
START_MOST: Final = (1 << 32) - (1 << 24)
"""Of sequences, which have 32 bits: so much is left to count up, whatever a clock says."""
POLL_S: Final = 1.0
"""How often the engine is asked about traffic."""


@dataclass(frozen=True, slots=True)
class SendNote:
    """Send a note in a session, by whichever way."""

    session: int
    body: bytes


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Seal this in a session, and send it to exactly this address."""

    session: int
    endpoint: Endpoint
    content: bytes


@dataclass(frozen=True, slots=True)
class SetPath:
    """Packets for a peer leave for this address, if they have at most `longest` bytes."""

    peer: IPv4Address
    endpoint: Endpoint
    longest: int


@dataclass(frozen=True, slots=True)
class ClearPath:
    """Packets for a peer go by the relay."""

    peer: IPv4Address


Action = SendNote | SendProbe | SetPath | ClearPath | Doubt | DropReason
"""A reason: something of a peer's was dropped for it."""


@dataclass(slots=True)
class _Peer:
    finder: Pathfinder
    met_at: float
    session: int = 0
    """The one that seals, or did so last; 0: it is gone, or there was none."""
    is_sealed_for: bool = False
    """By what the engine was told."""
    sessions: list[int] = field(default_factory=list)
    """All that open."""
    newest: int = 0
    """Of these, the one that was made last."""
    heard: Offer | None = None
    heard_by: int = 0
    """The session that it came in."""
    told: int = 0
    """Sequence of the last offer that went there."""
    again_at: float = inf
    """When it goes there once more, unless one has come."""
    times: int = 0


class Links:
    """See above.

    Args:
        may_use: whether this machine reaches an address beside the network; asked again with each change.
        randbytes: n random bytes.
        heard_at: when anything came by the path to a peer last that says that it carries.
        start: Unix seconds of the program's start.
    """

    def __init__(
        self,
        may_use: Callable[[Endpoint], bool],
        randbytes: Callable[[int], bytes],
        heard_at: Callable[[IPv4Address], float],
        start: int,
    ) -> None:
        self._reaches = may_use
        self._randbytes = randbytes
        self._heard_at = heard_at
        self._budget = Budget()
        self._peers: dict[IPv4Address, _Peer] = {}
        self._by_session: dict[int, IPv4Address] = {}
        self._awake: dict[IPv4Address, float] = {}
        """Peers with something to do, and when that is due."""
        self._own = Offer(min(max(start, 1), START_MOST))
        self._inside: tuple[IPv4Network, ...] = ()
        self._poll_at = -inf

    @property
    def deadline(self) -> float:
        """When tick() has to be called; inf: not at all."""
        return min(self._awake.values(), default=inf)

    @property
    def poll_at(self) -> float:
        """When polled() has to be; inf: not at all."""
        return self._poll_at if self._by_session else inf

    @property
    def is_off(self) -> bool:
        return bool(self._own.flags & Says.IS_OFF)

    @property
    def is_busy(self) -> bool:
        """There are peers with traffic, to whom this member's addresses are of use."""
        return bool(self._awake)

    def peer_of(self, session: int) -> IPv4Address | None:
        return self._by_session.get(session)

    def state(self, address: IPv4Address, now: float) -> LinkState:
        """How a peer is reached."""
        peer = self._peers.get(address)
        if peer is None:
            return LinkState(None, why=why_by_relay(self._own, None, None, now))
        path, is_met = peer.finder.path, peer.heard is not None or now - peer.met_at >= OFFERS_S
        if path is None:
            finder = peer.finder if is_met else None
            return LinkState(None, why=why_by_relay(self._own, peer.heard, finder, now))
        return LinkState(path.endpoint, path.round_trip, path.mtu, peer.finder.since)

    def switch_off(self, reason: Reason, now: float) -> list[Action]:
        """Have no direct links, for this reason; NONE: have them."""
        flags = Says.IS_OFF if reason is not Reason.NONE else Says(0)
        if (flags, reason) == (self._own.flags & Says.IS_OFF, self._own.reason):
            return []
        return self._say(Offer(self._own.sequence + 1, flags, reason), now)

    def gathered(
        self, candidates: Iterable[Candidate], now: float, *, is_symmetric: bool = False, has_udp: bool = True
    ) -> list[Action]:
        """What is known of this member's own addresses is another now."""
        if self.is_off:
            return []
        outside = (each for each in candidates if self.is_outside(each.endpoint.address))
        usable = tuple(islice(outside, CANDIDATES_MOST))
        flags = Says.IS_SYMMETRIC if is_symmetric else Says(0)
        reason = Reason.NONE if has_udp else Reason.NO_UDP
        if (usable, flags, reason) == (self._own.candidates, self._own.flags, self._own.reason):
            return []
        return self._say(Offer(self._own.sequence + 1, flags, reason, usable), now)

    def changed(self, inside: Collection[IPv4Network], now: float) -> list[Action]:
        """The network has changed, or this machine was asleep: look at all paths at once.

        Args:
            inside: what the tunnel leads to.
        """
        self._inside = tuple(inside)
        actions: list[Action] = []
        for address in list(self._awake):
            self._peers[address].finder.restart(now)
            actions += self._step(address, now)
        return actions

    def followed(self, action: Install | Remove | SetPeer | ForgetPeer, now: float) -> list[Action]:
        """What the engine was told of sessions."""
        match action:
            case Install():
                peer = self._peers.get(action.peer)
                if peer is None:
                    heard_at = partial(self._heard_at, action.peer)
                    finder = Pathfinder(self._budget, self.may_use, self._randbytes, heard_at, now)
                    peer = self._peers[action.peer] = _Peer(finder, now)
                if action.local not in peer.sessions:
                    peer.sessions.append(action.local)
                peer.newest = action.local
                self._by_session[action.local] = action.peer
            case Remove():
                address = self._by_session.pop(action.local, None)
                if address is not None:
                    peer = self._peers[address]
                    peer.sessions.remove(action.local)
                    if peer.session == action.local:
                        peer.session = 0
                    return [] if peer.sessions else self._forget(address)
            case SetPeer():
                return self._set_peer(action, now)
            case ForgetPeer():
                return self._forget(action.address)
        return []

    def noted(self, session: int, note: bytes, now: float) -> list[Action]:
        """An OFFER has come."""
        address = self._by_session.get(session)
        if address is None:
            return []
        try:
            offer = Offer.decode(note)
        except WireError:
            return [DropReason.BAD_OFFER]
        peer, actions = self._peers[address], list[Action]()
        if offer.flags & Says.HEARS_NOTHING and peer.finder.path is not None:
            # What this member sends there may be lost, too; it would be a while before that is known here.
            peer.finder.silenced(now, by_peer=True)
            actions.append(ClearPath(address))
        if offer.flags & Says.ANSWER_ME:
            actions += self._offer(peer, Says(0))
        else:
            peer.again_at = inf
        if _replaces(peer, session, offer):
            peer.heard, peer.heard_by = offer, session
            if not self.is_off:
                self._wake(address, now)
                if offer.flags & Says.IS_OFF:
                    peer.finder.forget()
                else:
                    peer.finder.offered(offer.candidates, now)
        return [*actions, *self._step(address, now)]

    def arrived(self, session: int, source: Endpoint, content: bytes, now: float) -> list[Action]:
        """Something authentic has come by a link: an ANSWER, or, without content, from where no path leads."""
        address = self._by_session.get(session)
        if address is None or self.is_off:
            return []
        heard, finder = self._peers[address].heard, self._peers[address].finder
        if heard is not None and heard.flags & Says.IS_OFF:
            return []
        if not content:
            # Of a probe that is no traffic, or two who probe each other by several addresses would never be idle.
            finder.observed(source, now)
        else:
            try:
                answer = Answer.decode(content)
            except WireError:
                return [DropReason.BAD_ANSWER]
            finder.answered(answer, source, now)
        return self._step(address, now)

    def silenced(self, address: IPv4Address, now: float) -> list[Action]:
        """The engine has left a path on which nothing came back: perhaps the one before that which it has now. It loses
        that, too, so that it never goes by what is taken for dead here."""
        peer = self._peers.get(address)
        if peer is None:
            return []
        peer.finder.silenced(now)
        return [ClearPath(address), *self._step(address, now)]

    def doubted(self, address: IPv4Address, now: float) -> list[Action]:
        """The engine misses an answer by a path."""
        peer = self._peers.get(address)
        if peer is None:
            return []
        peer.finder.doubted(now)
        return self._step(address, now)

    def polled(self, busy: Iterable[IPv4Address], now: float) -> list[Action]:
        """There was traffic with these peers since the last time, and with no others."""
        self._poll_at = tick_of(now + POLL_S)
        return [action for address in busy for action in self._used(address, now)]

    def wanted(self, address: IPv4Address, now: float) -> list[Action]:
        """There is a packet for a peer that has no way now. A direct link would be one."""
        return self._used(address, now)

    def tick(self, now: float) -> list[Action]:
        """Act on deadlines."""
        actions: list[Action] = []
        for address in [address for address, due in self._awake.items() if now >= due]:
            peer = self._peers[address]
            if now >= peer.again_at:
                peer.again_at = inf
                if peer.times < TIMES_MOST:
                    actions += self._ask(peer, now, peer.times + 1)
            actions += self._step(address, now)
        return actions

    def _set_peer(self, action: SetPeer, now: float) -> list[Action]:
        peer = self._peers.get(action.address)
        if peer is None:
            return []
        was_sealed_for, peer.is_sealed_for = peer.is_sealed_for, action.way is Way.SEAL
        if not peer.is_sealed_for:
            return []
        peer.session = action.session
        if self.is_off:
            return []
        if peer.told == 0:
            self._wake(action.address, now)
        elif was_sealed_for or action.address not in self._awake:
            return []
        # What the two have told each other meanwhile may be lost.
        actions = self._ask(peer, now)
        self._schedule(action.address)
        return actions

    def _used(self, address: IPv4Address, now: float) -> list[Action]:
        """There is traffic with a peer."""
        peer = self._peers.get(address)
        if peer is None or not peer.session or self.is_off:
            return []
        is_news = self._wake(address, now) or peer.told != self._own.sequence
        actions = self._ask(peer, now) if is_news else []
        if is_news or self._awake[address] == now:
            self._schedule(address)
        return actions

    def _wake(self, address: IPv4Address, now: float) -> bool:
        """The caller has it scheduled; one that was active before has nothing due for it."""
        finder = self._peers[address].finder
        if address not in self._awake or not finder.is_active(now):
            self._awake[address] = now
        return finder.active(now)

    def _schedule(self, address: IPv4Address) -> None:
        peer = self._peers[address]
        self._awake[address] = min(peer.finder.deadline, peer.again_at)

    def _say(self, offer: Offer, now: float) -> list[Action]:
        """This is another own offer. Those who have traffic hear of it now, others when they have some."""
        self._own = offer
        actions: list[Action] = []
        for address in list(self._awake):
            peer = self._peers[address]
            if not self.is_off:
                # A NAT lets in who was probed from where this member is now.
                peer.finder.restart(now)
                actions += [*self._ask(peer, now), *self._step(address, now)]
                continue
            del self._awake[address]
            peer.finder.rest()
            actions += [*self._offer(peer, Says(0)), ClearPath(address)]
        return actions

    def _ask(self, peer: _Peer, now: float, times: int = 1) -> list[Action]:
        peer.times, peer.again_at = times, now + AGAIN_S
        return self._offer(peer, Says.ANSWER_ME)

    def _offer(self, peer: _Peer, flags: Says) -> list[Action]:
        if not peer.session:
            return []
        own = self._own
        peer.told = own.sequence
        offer = Offer(own.sequence, own.flags | flags, own.reason, own.candidates)
        return [SendNote(peer.session, offer.encode())]

    def _step(self, address: IPv4Address, now: float) -> list[Action]:
        """What its pathfinder wants."""
        peer = self._peers[address]
        if self.is_off:
            return []
        actions = [*self._carried(address, peer, peer.finder.tick(now))]
        if peer.finder.is_idle:
            self._awake.pop(address, None)
        elif address in self._awake:
            self._schedule(address)
        return actions

    def _carried(self, address: IPv4Address, peer: _Peer, steps: Iterable[Step]) -> Iterator[Action]:
        for step in steps:
            match step:
                case Probe():
                    if peer.session:
                        yield SendProbe(peer.session, step.endpoint, step.content)
                case Use():
                    yield SetPath(address, step.endpoint, step.longest)
                case Leave():
                    yield ClearPath(address)
                case Doubt():
                    yield from self._offer(peer, Says.HEARS_NOTHING) if step.is_ours else []
                    yield step

    def _forget(self, address: IPv4Address) -> list[Action]:
        peer = self._peers.pop(address, None)
        self._awake.pop(address, None)
        if peer is None:
            return []
        for session in peer.sessions:
            del self._by_session[session]
        return [] if peer.finder.path is None else [ClearPath(address)]

    def may_use(self, endpoint: Endpoint) -> bool:
        """Rule 5."""
        return self.is_outside(endpoint.address) and self._reaches(endpoint)

    def is_outside(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether it is an address of a machine's that the tunnel does not lead to."""
        if isinstance(address, IPv4Address) and any(address in network for network in self._inside):
            return False
        return may_be_elsewhere(address)


def _replaces(peer: _Peer, session: int, offer: Offer) -> bool:
    """Whether this is what counts now: a later one, or another one in a later session. A program that was started again
    has sessions of its own, and perhaps a clock that is behind what it was."""
    if peer.heard is None or offer.sequence > peer.heard.sequence:
        return True
    return session == peer.newest != peer.heard_by and offer.sequence != peer.heard.sequence
