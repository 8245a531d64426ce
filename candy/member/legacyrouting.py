"""Carries out what LegacyRoutes decides, where members route for each other: hops of the engine's, and ROUTEs to peers.

    LegacyLinking ── linked(), unlinked(), heard(), go_on() ─▶ LegacyRouting ─▶ LegacyRoutes ─▶ SetHops: the engine
                                                                                     └────────▶ Announce: send()

Rules:
 1. A ROUTE counts that comes by the path of the peer that it names as its announcer.
 2. Nobody is reached by another member who is no old client (LegacyLinking, rule 2).
 3. By a path on which less than ROUTED_LEAST fits nobody is told of: nothing says to a sender that its packets are too
    long for a way that it does not see.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Protocol, assert_never

from candy._fastpath import Engine
from candy.member.legacyroutes import Announce, Hop, LegacyRoutes, SetHops
from candy.protocol.datagram import PeerRoute
from candy.protocol.linking import Endpoint

ROUTED_LEAST: Final = 1400
"""Bytes of a packet: the MTU that interfaces have unless their users say otherwise."""

_log = logging.getLogger(__name__)


class Peers(Protocol):
    """What is known of the members here."""

    def is_old(self, address: IPv4Address) -> bool:
        """That is an old client's."""

    def look_up(self, address: IPv4Address) -> None:
        """Find that out, if it is not known yet."""

    def endpoint(self, address: IPv4Address) -> Endpoint | None:
        """Where its direct link leads; None: it has none."""


class LegacyRouting:
    """See above.

    Args:
        cost: milliseconds that this member adds.
        own: its address.
        engine: has the device, `tun`.
        send: a message to a peer, by its direct link.
    """

    def __init__(
        self,
        cost: int,
        own: IPv4Address,
        network: IPv4Network,
        engine: Engine,
        tun: int,
        peers: Peers,
        send: Callable[[IPv4Address, PeerRoute], object],
    ) -> None:
        self._engine = engine
        self._tun = tun
        self._peers = peers
        self._send = send
        ends = network.network_address, network.broadcast_address
        self._routes = LegacyRoutes(own, cost, lambda address: address in network and address not in ends)
        engine.resend_old(tun, True)

    @property
    def resent(self) -> int:
        """Packets of old clients that were sent on to others."""
        return self._engine.old_resent(self._tun)

    def by(self, address: IPv4Address) -> Hop | None:
        """Who a member is reached by, unless by a direct link."""
        return self._routes.by(address) if self._peers.is_old(address) else None

    def linked(self, peer: IPv4Address, rtt_s: float, longest: int) -> None:
        """There is a direct link, with room for packets of so many bytes."""
        fits = longest >= ROUTED_LEAST
        self._do(self._routes.linked(peer, rtt_s) if fits else self._routes.unlinked(peer))

    def unlinked(self, peer: IPv4Address) -> None:
        """There is none any more, or none yet."""
        self._do(self._routes.unlinked(peer))

    def met(self, peer: IPv4Address) -> None:
        """That is an old client, as is known now."""
        self._set_hops(peer, self._routes.hops(peer))

    def heard(self, message: PeerRoute, source: Endpoint, now: float) -> bool:
        """A ROUTE came from there. True: its destination, an old client, is reached by another member."""
        if self._peers.endpoint(message.next_hop) != source:
            _log.debug("%s is said to reach %s", message.next_hop, message.dst)
            return False
        self._do(self._routes.heard(message.next_hop, message, now))
        return self.by(message.dst) is not None

    def go_on(self, now: float) -> None:
        """Act on what time has brought."""
        self._do(self._routes.tick(now))

    def end(self) -> None:
        """Withdraw what was told, and have no hops."""
        self._do(self._routes.end())
        self._engine.resend_old(self._tun, False)

    def _do(self, actions: Iterable[SetHops | Announce]) -> None:
        for action in actions:
            match action:
                case SetHops():
                    self._set_hops(action.peer, action.hops)
                case Announce():
                    self._send(action.peer, action.message)
                case _:
                    assert_never(action)

    def _set_hops(self, peer: IPv4Address, hops: Sequence[IPv4Address]) -> None:
        if hops and not self._peers.is_old(peer):
            self._peers.look_up(peer)
            return
        try:
            self._engine.set_old_hops(self._tun, int(peer), [int(hop) for hop in hops])
        except MemoryError:
            _log.debug("no path to %s: there are too many members", peer)
            return
        _log.debug("%s, an old client, is reached by %s", peer, ", ".join(map(str, hops)) or "the relay")
