"""What other members said of themselves, kept for direct links: where each can be reached, and which asked for one.

    UDP4CONN ──▶ public endpoint ┐
    GENERAL ───▶ LAN endpoint    ├─ Peer, by its address in the network
    DISCOVERY ─▶ asks            ┘

Rules: only a peer's last message of a kind counts; the peer that was silent for longest makes room for another; a
message's source is believed, because the relay lets members send from their own addresses alone. This module knows
neither connections nor links.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import NamedTuple

from candy.protocol import wire

MAX_PEERS = 4096


class Endpoint(NamedTuple):
    """Where UDP arrives."""

    ip: IPv4Address
    port: int

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Peer:
    """All that is known of one member; None is unknown."""

    public: Endpoint | None = None
    """From outside its LAN."""
    lan: Endpoint | None = None
    """From within."""
    asks: bool = False
    """It looked for others to link with."""

    def __str__(self) -> str:
        known = [f"public {self.public}"] if self.public else []
        known += [f"LAN {self.lan}"] if self.lan else []
        return ", ".join(known + (["asks for a link"] if self.asks else []))


class Peers:
    """At most MAX_PEERS, by address; iterating gives (address, peer), the one silent for longest first."""

    def __init__(self) -> None:
        self._peers: dict[IPv4Address, Peer] = {}

    def __iter__(self) -> Iterator[tuple[IPv4Address, Peer]]:
        return iter(self._peers.items())

    def learn(self, message: wire.Udp4Conn | wire.Discovery | wire.General) -> Peer:
        """Take in what a member says; returns all that is known of that member now.

        Raises:
            WireError: a GENERAL that is not about a LAN endpoint.
        """
        peer = self._peers.get(message.src, Peer())
        match message:
            case wire.Udp4Conn():
                peer = replace(peer, public=Endpoint(message.ip, message.port))
            case wire.General():
                peer = replace(peer, lan=Endpoint(*message.lan_endpoint))
            case wire.Discovery():
                peer = replace(peer, asks=True)
        self._peers.pop(message.src, None)
        if len(self._peers) == MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        self._peers[message.src] = peer
        return peer
