"""Which old clients are reached by another one, where members route for each other (--route), and what is told.

    heard(ROUTE) ─▶ destination ─▶ announcers ─▶ SetHops: the cheapest one first        by(destination), for status
    linked(peer, round trip), unlinked(peer) ─▶ what others are told of it ─ tick() ─▶ Announce, a few at a time

Rules:
 1. A ROUTE counts only from the direct link of its announcer, of which it says no more than how the announcer itself
    reaches the destination. A peer that knows the password can announce anything: this member never leaves a direct
    link for that.
 2. What this member tells of are its direct links alone, and no peer is told of itself (split horizon). So a packet is
    sent on once: by who is linked with both ends.
 3. Times are of the original: an announcement has the round trip and this member's cost; one below 0, or above
    ROUTE_RTT_MAX, withdraws. What is not said again for EXPIRE_S is over, for a withdrawal may be lost.
 4. At most DESTINATIONS_MOST, of them HOPS_MOST announcers each, and EACH_MOST of one announcer. When a destination has
    more, the dearest is left out.
 5. All that is told goes out at TELLS_RATE, and to each peer at TELLS_EACH: withdrawals first. What waits for that is a
    set of addresses, not a list of messages.
 6. The first LINKS_MOST peers alone are told, and told of: of more, routes would be over before they are told again.
    When the link of one ends, the next one takes its place.

No I/O, no clock: `now` is in seconds of CLOCK_BOOTTIME. Costs are in milliseconds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from candy.protocol.datagram import ROUTE_RTT_MAX, PeerRoute
from candy.sealing.bucket import Bucket

DESTINATIONS_MOST: Final = 1024
EACH_MOST: Final = 256
HOPS_MOST: Final = 4
"""The engine's OLD_HOPS."""
EXPIRE_S: Final = 200.0
"""Three of the original's announcements, one a minute, and some time for these to come."""
TELLS_RATE: Final = 40.0
TELLS_SAVED: Final = 100.0
LINKS_MOST: Final = 50
"""Of whom TELLS_RATE has all told of all others as often as they are measured, each minute."""
TELLS_EACH: Final = 4
"""A tick, which is a second: an engine gives Python few messages of one peer's."""
WITHDRAWN: Final = -1


@dataclass(frozen=True, slots=True)
class SetHops:
    """Packets of this peer come by these others, and those for it go by the first one. Empty: by none."""

    peer: IPv4Address
    hops: tuple[IPv4Address, ...]


@dataclass(frozen=True, slots=True)
class Announce:
    """Send this to a peer by its link."""

    peer: IPv4Address
    message: PeerRoute


class Hop(NamedTuple):
    """By whom a destination is reached."""

    peer: IPv4Address
    cost_ms: int
    """To there and on."""


@dataclass(slots=True)
class _Said:
    rtt_ms: int
    at: float


@dataclass(slots=True)
class _Peer:
    """One of rule 6."""

    waiting: dict[IPv4Address, None] = field(default_factory=dict)
    """Of whom it is to be told, in this order."""
    told: set[IPv4Address] = field(default_factory=set)
    """Who it takes to be reached by this member."""


class LegacyRoutes:
    """See above.

    Args:
        own: this member's address.
        cost: what it adds for itself, 1 to 1000.
        may_be: whether a member may have an address.
    """

    def __init__(self, own: IPv4Address, cost: int, may_be: Callable[[IPv4Address], bool]) -> None:
        self._own = own
        self._cost = cost
        self._may_be = may_be
        self._rtts: dict[IPv4Address, int] = {}
        """Of all with a direct link, in milliseconds."""
        self._peers: dict[IPv4Address, _Peer] = {}
        """Those of rule 6, in the order of their turns."""
        self._routes: dict[IPv4Address, dict[IPv4Address, _Said]] = {}
        """By destination and announcer."""
        self._set: dict[IPv4Address, tuple[IPv4Address, ...]] = {}
        """As the engine has it."""
        self._tells = Bucket(TELLS_RATE, TELLS_SAVED)

    def __len__(self) -> int:
        """Destinations."""
        return len(self._routes)

    def hops(self, destination: IPv4Address) -> tuple[IPv4Address, ...]:
        """By whom it is reached, the cheapest first."""
        return self._set.get(destination, ())

    def by(self, destination: IPv4Address) -> Hop | None:
        """By whom packets for it go, unless there is a direct link."""
        hops = self.hops(destination)
        return Hop(hops[0], self._cost_of(destination, hops[0])) if hops else None

    def linked(self, peer: IPv4Address, rtt_s: float) -> list[SetHops]:
        """There is a direct link, or its round trip was measured again: others are told, and a new one is told of all
        others."""
        self._rtts[peer] = max(1, round(rtt_s * 1000))
        if peer not in self._peers and len(self._peers) < LINKS_MOST:
            self._peers[peer] = _Peer(dict.fromkeys(self._peers))
        self._tell_of(peer)
        return self._settle(dst for dst, said in self._routes.items() if peer in said)

    def unlinked(self, peer: IPv4Address) -> list[SetHops]:
        """There is none any more: nor does anything go by that peer."""
        if self._rtts.pop(peer, None) is None:
            return []
        if self._peers.pop(peer, None) is not None:
            for each in self._peers.values():
                each.waiting.pop(peer, None)
                if peer in each.told:
                    each.waiting = {peer: None} | each.waiting
            following = next((other for other in self._rtts if other not in self._peers), None)
            if following is not None:
                self._peers[following] = _Peer(dict.fromkeys(self._peers))
                self._tell_of(following)
        lost = [destination for destination, said in self._routes.items() if peer in said]
        for destination in lost:
            self._forget(destination, peer)
        return self._settle(lost)

    def heard(self, peer: IPv4Address, message: PeerRoute, now: float) -> list[SetHops]:
        """A ROUTE by the direct link with a peer."""
        destination = message.dst
        if peer not in self._rtts or message.next_hop != peer or destination in (self._own, peer):
            return []
        known = self._routes.get(destination, {})
        if message.is_withdrawn:
            if peer not in known:
                return []
            self._forget(destination, peer)
        elif peer in known:
            known[peer] = _Said(message.rtt_ms, now)
        elif self._has_room(destination, peer, message.rtt_ms):
            self._routes.setdefault(destination, {})[peer] = _Said(message.rtt_ms, now)
        return self._settle([destination])

    def tick(self, now: float) -> list[SetHops | Announce]:
        """Act on time, once a second."""
        old = [(dst, by) for dst, said in self._routes.items() for by, one in said.items() if now >= one.at + EXPIRE_S]
        for destination, by in old:
            self._forget(destination, by)
        actions: list[SetHops | Announce] = [*self._settle(dst for dst, _ in old)]
        for address, peer in list(self._peers.items()):
            for destination in list(peer.waiting)[:TELLS_EACH]:
                if not self._tells.take(now):
                    return actions
                del peer.waiting[destination]
                actions += self._announce(address, peer, destination)
            # Who was told has the others go first the next time.
            self._peers[address] = self._peers.pop(address)
        return actions

    def end(self) -> list[SetHops]:
        """Nothing is routed any more."""
        self._rtts.clear()
        self._peers.clear()
        self._routes.clear()
        return self._settle(list(self._set))

    def _tell_of(self, peer: IPv4Address) -> None:
        if peer not in self._peers:
            return
        for address, each in self._peers.items():
            if address != peer:
                each.waiting.setdefault(peer)

    def _announce(self, address: IPv4Address, peer: _Peer, destination: IPv4Address) -> list[Announce]:
        """What the peer is told of a destination now: nothing, if it knows of none."""
        rtt_ms = self._rtts[destination] + self._cost if destination in self._peers else WITHDRAWN
        if rtt_ms > ROUTE_RTT_MAX:
            rtt_ms = WITHDRAWN
        if rtt_ms != WITHDRAWN:
            peer.told.add(destination)
        elif destination not in peer.told:
            return []
        else:
            peer.told.discard(destination)
        return [Announce(address, PeerRoute(destination, self._own, rtt_ms))]

    def _has_room(self, destination: IPv4Address, peer: IPv4Address, rtt_ms: int) -> bool:
        """Rule 4. Made, where the dearest of a destination yields."""
        if not self._may_be(destination) or sum(peer in said for said in self._routes.values()) >= EACH_MOST:
            return False
        said = self._routes.get(destination)
        if said is None:
            return len(self._routes) < DESTINATIONS_MOST
        if len(said) < HOPS_MOST:
            return True
        dearest = max(said, key=lambda each: self._cost_of(destination, each))
        if self._cost_of(destination, dearest) <= self._rtts[peer] + rtt_ms:
            return False
        del said[dearest]
        return True

    def _forget(self, destination: IPv4Address, by: IPv4Address) -> None:
        said = self._routes[destination]
        del said[by]
        if not said:
            del self._routes[destination]

    def _cost_of(self, destination: IPv4Address, by: IPv4Address) -> int:
        return self._rtts[by] + self._routes[destination][by].rtt_ms

    def _settle(self, destinations: Iterable[IPv4Address]) -> list[SetHops]:
        """What the engine is to be told of these."""
        actions = []
        for destination in dict.fromkeys(destinations):
            said = self._routes.get(destination, {})
            hops = tuple(sorted(said, key=lambda each: (self._cost_of(destination, each), each)))
            if hops == self._set.get(destination, ()):
                continue
            if hops:
                self._set[destination] = hops
            else:
                del self._set[destination]
            actions.append(SetHops(destination, hops))
        return actions
