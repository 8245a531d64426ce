"""Direct links with the original's clients: which state each peer is in, and what follows from what comes. Pure.

    INIT ── met, or asked ──▶ PREPARING ── own public endpoint ──▶ SYNCHRONIZING ── the peer's ──▶ CONNECTING ─┐
     ▲ ▲                          │                                     │                            │ 10 s   │ ack
     │ └─ 30 s … 1 h ─ WAITING ◀──┼─────────────────────────────────────┼────────────────────────────┘        ▼
     └──── 3 s without an ack ────┼─────────────────────────────────────┼──────────────────────────────── CONNECTED
                                  └────────────────▶ FAILED ◀───────────┘   (which waits as WAITING does)

Rules:
 1. Nothing that a datagram says counts unless it opened under this member's key; who calls this has seen to that.
 2. That key is static and shared by all who have the password, so what was recorded opens again, from any address.
    Packets therefore go to an address only once a DELAY with a random token came back from it, and again after each
    change: what the original sends back as it is serves as a challenge. It comes again and again, because heartbeats
    that somebody has recorded would keep a dead link alive. While a link is connected a heartbeat from elsewhere
    changes nothing: a peer whose NAT has rebound is found anew 3 s later.
 3. An address in the peer's LAN wins over others, unless the relay told routes: then LAN endpoints are not used.
 4. INIT, WAITING and FAILED know no endpoints, and hear no heartbeats.
 5. Where the original says its LAN endpoint only to who asked first, this member says it in any case; and a peer that
    begins again while the link still counts as connected is met half way once it has been silent.
 6. Where the original leaves FAILED by the peer's UDP4CONN alone, this member does so by time, too: two ends that
    failed together, in an outage of a STUN server, would fail for ever.
 7. A member with the password can forge any peer's heartbeats; it can't have the relay pass on a message under that
    peer's address. So a heartbeat counts if it comes from an IP that the peer's own messages named. Behind one NAT any
    private address counts: the original names its LAN endpoint only to a peer that asked first.
 8. A peer that was acknowledged sends packets at once. So they are taken from where its heartbeats come before it is.

The wire and its times: protocol.md, "Peer to peer". This module knows no sockets; `now` is monotonic seconds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address
from math import inf
from typing import Final

from candy.member.peers import MAX_PEERS, Endpoint
from candy.protocol import wire
from candy.protocol.datagram import Delay, Heartbeat

BEAT_S: Final = 1.0
PREPARING_S: Final = 10.0
SYNCHRONIZING_S: Final = 10.0
CONNECTING_S: Final = 10.0
SILENT_S: Final = 3.0
"""A connected peer that has not acknowledged for so long is gone."""
WAIT_S: Final = 30.0
WAIT_MOST_S: Final = 3600.0
MEASURE_S: Final = 60.0
"""Between two round trips that are told where members route for each other."""
TOKEN_BYTES: Final = 8
CHALLENGE_S: Final = 10.0
"""How long an answer to a DELAY counts. One goes out each second at most, so there are as many tokens, and one more."""
PROVE_S: Final = 5.0
"""From a path's last answer to its next DELAY."""
LAPSE_S: Final = PROVE_S + CHALLENGE_S
"""A path that has answered none for so long is dead, whatever is heard from there."""


class State(Enum):
    """Of a peer, as the protocol names them."""

    INIT = "init"
    PREPARING = "preparing"
    SYNCHRONIZING = "synchronizing"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    FAILED = "failed"


_DEAF: Final = frozenset({State.INIT, State.WAITING, State.FAILED})
"""Rule 4."""
_YIELDS: Final = frozenset({State.INIT, State.FAILED})
"""Makes room for another peer."""
_WAITS: Final = frozenset({State.WAITING, State.FAILED})
_LIMITS: Final = {
    State.PREPARING: (PREPARING_S, State.FAILED),
    State.SYNCHRONIZING: (SYNCHRONIZING_S, State.FAILED),
    State.CONNECTING: (CONNECTING_S, State.WAITING),
}
"""How long a state lasts at most, and what is next."""


@dataclass(frozen=True, slots=True)
class AskStun:
    """Ask for this member's public endpoint; mapped() has the answer."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Send this through the relay."""

    message: wire.Udp4Conn | wire.General


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send this to a peer, sealed under its key."""

    peer: IPv4Address
    endpoint: Endpoint
    message: Heartbeat | Delay


@dataclass(frozen=True, slots=True)
class TakeFrom:
    """The peer's packets are taken from this endpoint; those for it go through the relay."""

    peer: IPv4Address
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class SetPath:
    """Packets for the peer go to this endpoint from now on, from which its own are taken; this is its round trip."""

    peer: IPv4Address
    endpoint: Endpoint
    rtt_s: float


@dataclass(frozen=True, slots=True)
class ClearPath:
    """Packets for the peer go through the relay, and its own are taken from nowhere else."""

    peer: IPv4Address


Action = AskStun | Tell | SendDatagram | TakeFrom | SetPath | ClearPath


@dataclass(slots=True)
class Link:
    """What is known of one peer."""

    state: State = State.INIT
    since: float = 0.0
    """When it came into its state."""
    public: Endpoint | None = None
    lan: Endpoint | None = None
    heard: Endpoint | None = None
    """From where its heartbeats come, and its packets are taken."""
    acked_at: float = -inf
    begun_again_at: float = -inf
    """When a connected peer said where it is: it has lost the link, and knows so."""
    has_told_lan: bool = False
    wait_s: float = WAIT_S
    ended_in: State = State.INIT
    """Which state came to nothing last."""
    challenges: dict[bytes, float] = field(default_factory=dict)
    """When the DELAYs under way were sent, by their tokens."""
    proven_at: float = -inf
    """When one came back last."""
    measured_at: float = -inf
    """When its round trip was told last."""
    rtt_s: float | None = None
    """Of the path that packets take; None: they take none."""

    def forget(self) -> None:
        self.public = self.lan = self.heard = self.rtt_s = None
        self.challenges = {}
        self.has_told_lan = False


@dataclass(slots=True)
class LegacyLinks:
    """See above.

    Args:
        own: this member's address.
        randbytes: that many random bytes.
        measures: members route for each other, so round trips are told again and again.
    """

    own: IPv4Address
    randbytes: Callable[[int], bytes]
    measures: bool = False
    lan: Endpoint | None = None
    """This member's, within its LAN."""
    uses_lan: bool = True
    """Rule 3."""
    _links: dict[IPv4Address, Link] = field(default_factory=dict)
    _public_ip: IPv4Address | None = None
    _ticked_at: float = -inf

    def __iter__(self) -> Iterator[tuple[IPv4Address, Link]]:
        return iter(self._links.items())

    @property
    def deadline(self) -> float:
        """When tick() has to be called; inf: not at all."""
        due = inf
        for link in self._links.values():
            if link.state in _WAITS:
                due = min(due, link.since + link.wait_s)
            elif link.state is not State.INIT:
                due = self._ticked_at
        return max(due, self._ticked_at + BEAT_S)

    def get(self, peer: IPv4Address) -> Link | None:
        return self._links.get(peer)

    def met(self, peer: IPv4Address, now: float) -> list[Action]:
        """A packet or a DISCOVERY of the peer's came through the relay."""
        link = self._link(peer)
        return [] if link is None or link.state is not State.INIT else self._prepare(link, now)

    def told(self, message: wire.Udp4Conn | wire.General, now: float) -> list[Action]:
        """What the peer says of its endpoints, through the relay."""
        peer = message.src
        link = self._link(peer)
        if link is None:
            return []
        if isinstance(message, wire.General):
            lan = Endpoint(*message.lan_endpoint)
            if link.state not in _DEAF and lan.port != 0:
                link.lan = lan
            return []
        public = Endpoint(message.ip, message.port)
        if public.port == 0:
            return []
        actions: list[Action] = []
        if link.state is State.CONNECTED and link.rtt_s is None and now - link.since >= SILENT_S:
            # What is heard may be recorded: nothing there answers, and the peer, for whom the relay vouches, looks for
            # a link.
            actions += self._leave(peer, link, State.INIT, now)
        match link.state:
            case State.SYNCHRONIZING:
                link.public = public
                return self._connect(peer, link, now)
            case State.CONNECTED:
                link.begun_again_at = now
                link.public = public
                return []
            case State.CONNECTING:
                link.public = public
                return []
        if link.state is not State.PREPARING:
            actions += self._prepare(link, now)
        link.public = public
        return actions + self._tell_lan(peer, link)

    def mapped(self, public: Endpoint, now: float) -> list[Action]:
        """The STUN server's answer: this member's public endpoint."""
        self._public_ip = public.ip
        actions: list[Action] = []
        for peer, link in self._links.items():
            if link.state is not State.PREPARING:
                continue
            actions.append(Tell(wire.Udp4Conn(self.own, peer, public.ip, public.port)))
            # Behind it, for a peer in INIT knows no endpoints.
            actions += self._tell_lan(peer, link)
            if link.public is not None:
                actions += self._connect(peer, link, now)
            else:
                self._enter(link, State.SYNCHRONIZING, now)
                actions += self._beat(peer, link)
        return actions

    def heard(self, heartbeat: Heartbeat, source: Endpoint, now: float) -> list[Action]:
        """A heartbeat of the peer's that opened."""
        peer = heartbeat.tun
        link = self._links.get(peer)
        if link is None or link.state in _DEAF:
            return []
        if link.state is State.CONNECTED:
            if source == link.heard and heartbeat.ack:
                link.acked_at = now
            return []
        if not self._may_learn(link, source):
            return []
        actions: list[Action] = [] if source == link.heard else [TakeFrom(peer, source)]
        link.heard = source
        if link.state is not State.CONNECTING or not heartbeat.ack:
            return actions
        self._enter(link, State.CONNECTED, now)
        link.acked_at = now
        link.wait_s = WAIT_S
        return [*actions, *self._beat(peer, link), self._challenge(peer, link, now)]

    def delayed(self, delay: Delay, source: Endpoint, now: float) -> list[Action]:
        """A DELAY that opened: the peer's own goes back, and this member's has come back."""
        if delay.dst == self.own:
            link = self._links.get(delay.src)
            # Only to where a link is: the answer is no longer than the question.
            is_linked = link is not None and link.state is State.CONNECTED and source == link.heard
            return [SendDatagram(delay.src, source, delay)] if is_linked else []
        link = self._links.get(delay.dst)
        if delay.src != self.own or link is None or link.state is not State.CONNECTED or source != link.heard:
            return []
        asked_at = link.challenges.get(delay.token)
        if asked_at is None:
            return []
        link.challenges = {}
        link.proven_at = now
        if link.rtt_s is not None and not (self.measures and now - link.measured_at >= MEASURE_S):
            return []
        link.rtt_s, link.measured_at = now - asked_at, now
        return [SetPath(delay.dst, source, link.rtt_s)]

    def tick(self, now: float, first: IPv4Address | None = None) -> list[Action]:
        """Act on what time has brought; once a second at most.

        Args:
            first: begin with this peer, and end with the one before it; None: with any.
        """
        if now < self._ticked_at + BEAT_S:
            return []
        self._ticked_at = now
        actions: list[Action] = []
        peers = list(self._links)
        at = peers.index(first) if first in self._links else 0
        for peer in peers[at:] + peers[:at]:
            actions += self._look_after(peer, self._links[peer], now)
        if any(link.state is State.PREPARING for link in self._links.values()):
            actions.append(AskStun())
        return actions

    def silenced(self, peer: IPv4Address) -> list[Action]:
        """The kernel takes no packets for the peer's endpoint: have that proven anew."""
        link = self._links.get(peer)
        if link is None or link.rtt_s is None:
            return []
        link.rtt_s = None
        assert link.heard is not None
        return [TakeFrom(peer, link.heard)]

    def refused(self, peer: IPv4Address, now: float) -> list[Action]:
        """There is no room to take the peer's packets: no link with it, until a while has passed."""
        link = self._links.get(peer)
        if link is None:
            return []
        link.ended_in = State.CONNECTING
        return self._leave(peer, link, State.WAITING, now)

    def forget(self, peer: IPv4Address) -> list[Action]:
        """No link with the peer any more: it has left, or has keys now."""
        link = self._links.pop(peer, None)
        return [] if link is None or link.heard is None else [ClearPath(peer)]

    def end(self) -> list[Action]:
        """No links any more."""
        return [action for peer in list(self._links) for action in self.forget(peer)]

    def _look_after(self, peer: IPv4Address, link: Link, now: float) -> list[Action]:
        age = now - link.since
        match link.state:
            case State.PREPARING | State.SYNCHRONIZING | State.CONNECTING:
                limit, following = _LIMITS[link.state]
                if age >= limit:
                    return self._give_up(peer, link, following, now)
                return self._beat(peer, link) if link.state is not State.PREPARING else []
            case State.CONNECTED:
                return self._keep(peer, link, now)
            case State.WAITING | State.FAILED if age >= link.wait_s:
                link.wait_s = min(2 * link.wait_s, WAIT_MOST_S)
                return self._leave(peer, link, State.INIT, now)
        return []

    def _keep(self, peer: IPv4Address, link: Link, now: float) -> list[Action]:
        has_lapsed = link.rtt_s is not None and now - link.proven_at >= LAPSE_S
        if has_lapsed or now - link.acked_at >= SILENT_S:
            public = link.public
            actions = self._give_up(peer, link, State.INIT, now)
            if now - link.begun_again_at < SYNCHRONIZING_S:
                # It waits for this member's UDP4CONN, and will not send its own again.
                actions += self._prepare(link, now)
                link.public = public
            return actions
        actions = self._beat(peer, link)
        if link.rtt_s is None or now - link.proven_at >= PROVE_S:
            actions.append(self._challenge(peer, link, now))
        return actions

    def _prepare(self, link: Link, now: float) -> list[Action]:
        self._enter(link, State.PREPARING, now)
        return [AskStun()]

    def _tell_lan(self, peer: IPv4Address, link: Link) -> list[Action]:
        if self.lan is None or not self.uses_lan or link.has_told_lan or link.state in _DEAF:
            return []
        link.has_told_lan = True
        data = wire.General.ENDPOINT.pack(int(self.lan.ip), self.lan.port)
        return [Tell(wire.General(0, 0, self.own, peer, data))]

    def _connect(self, peer: IPv4Address, link: Link, now: float) -> list[Action]:
        self._enter(link, State.CONNECTING, now)
        return self._beat(peer, link)

    def _beat(self, peer: IPv4Address, link: Link) -> list[Action]:
        """Heartbeats to where the state has them go. Each lets whom it reaches try passwords: so none before the peer's
        public endpoint has come, which no relay of ours has ever passed on between members of two.
        """
        message = Heartbeat(self.own, link.heard is not None)
        lan = link.lan if self.uses_lan and link.public is not None else None
        match link.state:
            case State.SYNCHRONIZING:
                to = [lan]
            case State.CONNECTING:
                to = [link.public, lan, link.heard]
            case _:
                to = [link.heard]
        return [SendDatagram(peer, endpoint, message) for endpoint in dict.fromkeys(to) if endpoint is not None]

    def _challenge(self, peer: IPv4Address, link: Link, now: float) -> Action:
        assert link.heard is not None
        token = self.randbytes(TOKEN_BYTES)
        under_way = {each: sent_at for each, sent_at in link.challenges.items() if now - sent_at <= CHALLENGE_S}
        link.challenges = under_way | {token: now}
        return SendDatagram(peer, link.heard, Delay(self.own, peer, token))

    def _may_learn(self, link: Link, source: Endpoint) -> bool:
        """Rules 3 and 7."""
        if link.public is None or source.port == 0:
            return False
        if source == link.lan:
            return self.uses_lan
        is_beside = link.public.ip == self._public_ip and source.ip.is_private
        if not is_beside and source.ip not in {link.public.ip, link.lan.ip if link.lan else None}:
            return False
        return link.heard is None or link.heard != link.lan

    def _enter(self, link: Link, state: State, now: float) -> None:
        link.state, link.since = state, now

    def _leave(self, peer: IPv4Address, link: Link, state: State, now: float) -> list[Action]:
        """Into a state that knows no endpoints."""
        has_path = link.heard is not None
        self._enter(link, state, now)
        link.forget()
        return [ClearPath(peer)] if has_path else []

    def _give_up(self, peer: IPv4Address, link: Link, state: State, now: float) -> list[Action]:
        """The same, because the state that it is in came to nothing."""
        link.ended_in = link.state
        return self._leave(peer, link, state, now)

    def _link(self, peer: IPv4Address) -> Link | None:
        """That of a peer, made if there is none; None: too many. An idle one makes room."""
        link = self._links.get(peer)
        if link is not None or peer == self.own:
            return link
        if len(self._links) == MAX_PEERS:
            idle = next((each for each, link in self._links.items() if link.state in _YIELDS), None)
            if idle is None:
                return None
            del self._links[idle]
        link = self._links[peer] = Link()
        return link
