"""Which networks a member lets the relay lead into the tunnel: what a relay says is not proof that it may say so.

    Acceptance(--accept-routes) ─▶ doubt(a ROUTE's destination), doubts_own(the network of a granted address)

Rules:
 1. A network within `PRIVATE` is taken, because nothing on the Internet has an address there. So is one that the user
    has named, or that lies within several that lie side by side. Any other is refused, one of which a part alone is
    public too: 10.0.0.0/7, 0.0.0.0/0.
 2. The network of a granted address leads into the tunnel as a route does, and is judged alike. Only `none` is about
    routes alone: a member needs an address.

This module does not know what a kernel does with a route, nor whether a network is one of hosts.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, collapse_addresses

PRIVATE = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"))
"""RFC 1918 and RFC 6598. Not link-local addresses (RFC 3927): those are on one's own cable, or one's cloud."""
ALL = IPv4Network("0.0.0.0/0")


class Acceptance:
    """What one member takes.

    Args:
        named: by the user, beside PRIVATE; None for no routes at all.
    """

    def __init__(self, named: Sequence[IPv4Network] | None = ()) -> None:
        self.change(named)

    def change(self, named: Sequence[IPv4Network] | None) -> None:
        """Judge by these from now on."""
        self._routes = _merged(named) if named is not None else ()
        self._own = _merged(named or ())
        self._takes_none = named is None

    def doubt(self, destination: IPv4Network) -> str | None:
        """Why a route to it is refused; None if it is taken."""
        if any(destination.subnet_of(network) for network in self._routes):
            return None
        return "--accept-routes is none" if self._takes_none else "not private, and not among --accept-routes"

    def doubts_own(self, network: IPv4Network) -> bool:
        """Whether an address in this network is refused when the relay grants it."""
        return not any(network.subnet_of(other) for other in self._own)


def _merged(named: Sequence[IPv4Network]) -> tuple[IPv4Network, ...]:
    return tuple(collapse_addresses([*PRIVATE, *named]))
