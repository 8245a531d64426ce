"""Who sends to whom: the patterns that the relays are measured with. Knows nothing of relays and sockets."""

from dataclasses import dataclass, field, replace

WINDOW_BYTES = 1 << 20
"""What all senders of a pattern together have on their way: about what a relay with full buffers sees."""


@dataclass(frozen=True)
class Topology:
    """Members are numbered from 0; the first one sends."""

    name: str
    routes: list[list[int]]
    """For each member the members that its packets go to, in turn; empty: it sends nothing."""
    window_bytes: int
    """What one sender may have on its way, bytes; 0: one packet."""
    stalled: frozenset[int] = field(default=frozenset())
    """Members that don't read."""

    @property
    def receivers(self) -> int:
        """Members that packets go to and that read them."""
        return len({to for destinations in self.routes for to in destinations} - self.stalled)

    @property
    def mixes(self) -> bool:
        """Streams are joined or divided, which even a relay that doesn't look can only do between frames."""
        to = [destination for destinations in self.routes for destination in destinations]
        return len(set(to)) < len(to) or any(len(destinations) > 1 for destinations in self.routes)


def one_to_one(pairs: int) -> Topology:
    return Topology("1→1", [[1], []], WINDOW_BYTES)


def pairwise(pairs: int) -> Topology:
    return Topology(
        f"{pairs}→{pairs}", [[pairs + i] for i in range(pairs)] + [[]] * pairs, max(WINDOW_BYTES // pairs, 131072)
    )


def many_to_one(pairs: int) -> Topology:
    return Topology(f"{pairs}→1", [[pairs]] * pairs + [[]], WINDOW_BYTES // pairs)


def one_to_many(pairs: int) -> Topology:
    """Each packet goes to another member than the one before."""
    return Topology(f"1→{pairs}", [list(range(1, pairs + 1))] + [[]] * pairs, WINDOW_BYTES)


def single_packets(members: int = 500) -> Topology:
    """Neighbours talk to each other. Nobody sends before its last packet arrived: each is alone in the read."""
    return Topology(f"{members} single", [[i ^ 1] for i in range(members)], 0)


def passed() -> Topology:
    """One to one, for members that have candy.3 and for those that it is held against."""
    return replace(one_to_one(1), name="candy.3")


def with_stalled_receiver(topology: Topology) -> Topology:
    """The same, but the last member doesn't read."""
    return Topology(
        topology.name,
        topology.routes,
        topology.window_bytes,
        frozenset({len(topology.routes) - 1}),
    )


TOPOLOGIES = {"1-1": one_to_one, "n-n": pairwise, "n-1": many_to_one, "1-n": one_to_many}
