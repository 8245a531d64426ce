"""How a peer is reached, and why by the relay where there is no direct link: what its user is shown."""

from ipaddress import IPv4Address
from typing import Final, NamedTuple

from candy.member.pathfinder import Pathfinder
from candy.protocol.linking import Endpoint, Offer, Reason, Says

_OFF: Final = {
    Reason.NONE: "switched off",
    Reason.SWITCHED_OFF: "switched off",
    Reason.NETWORK: "switched off for the network",
    Reason.NO_UDP: "no UDP",
}


class LinkState(NamedTuple):
    """How a peer is reached."""

    endpoint: Endpoint | None
    """None: by the relay, or by another member."""
    round_trip_s: float = 0.0
    mtu: int = 0
    """Bytes of an IP packet on the way there."""
    since: float = 0.0
    why: str = ""
    """Why not directly."""
    is_old: bool = False
    """An original client: by datagrams of its format."""
    by: IPv4Address | None = None
    """That other member."""
    cost_ms: int = 0
    """Of the way by it, as members say."""


def why_by_relay(own: Offer, heard: Offer | None, finder: Pathfinder | None, now: float) -> str:
    """Why packets for a peer go by the relay.

    Args:
        own: this member's offer.
        heard: the peer's; None: there is none.
        finder: looks for a path to it; None: there was no time for offers yet.
    """
    if own.flags & Says.IS_OFF:
        return _OFF[own.reason]
    if finder is None:
        return "not tried"
    if heard is None:
        return "peer too old"
    if heard.flags & Says.IS_OFF:
        return "switched off there" if heard.reason is Reason.SWITCHED_OFF else _OFF[heard.reason]
    if finder.is_idle:
        return "idle"
    if not finder.has_tried(now):
        return "being tried"
    if own.flags & heard.flags & Says.IS_SYMMETRIC:
        return "symmetric NAT on both ends"
    if Reason.NO_UDP in (own.reason, heard.reason):
        return "no UDP"
    return "MTU below 1280" if finder.is_narrow else "no path found"
