"""What sealing costs from TUN to TUN, and wireguard-go beside it: ratios of figures of the same round."""

import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from target import Target
from tunnel_report import Found
from wireguard import FAST_SINCE

OF_PLAIN = {(3, 0): 0.68, (3, 5): 0.85}
"""Of what one TCP stream reaches in the clear, from this release of OpenSSL on: AES-256-GCM became faster."""
OF_PLAIN_UDP = 0.85
OF_WIREGUARD = 4.0
PING_MORE_US = 30.0
FIRST_TRIPS, FIRST_MORE_MS = 2, 5.0


@dataclass(frozen=True)
class Rounds:
    """One figure of two ways, compared round by round."""

    median: float
    least: float
    most: float

    @classmethod
    def of(
        cls, found: Mapping[str, Found], names: tuple[str, str], figure: str, compare: Callable[[float, float], float]
    ) -> "Rounds | None":
        """None where either was not measured in every round."""
        one, other = (found[name].samples.get(figure, []) if name in found else [] for name in names)
        if not one or len(one) != len(other):
            return None
        compared = [compare(a, b) for a, b in zip(one, other, strict=True)]
        return cls(statistics.median(compared), min(compared), max(compared))

    def shown(self, form: str) -> str:
        return f"{self.median:{form}} ({self.least:{form}}..{self.most:{form}})"


def ratio(found: Mapping[str, Found], name: str, reference: str, figure: str) -> Rounds | None:
    return Rounds.of(found, (name, reference), figure, lambda a, b: a / b)


def of_plain(openssl: str) -> float:
    """What a stream has to reach with this OpenSSL, as it calls itself: OpenSSL 3.0.16 11 Feb 2025."""
    found = re.search(r"(\d+)\.(\d+)", openssl)
    release = (int(found[1]), int(found[2])) if found else (3, 0)
    return max((share for since, share in OF_PLAIN.items() if since <= release), default=OF_PLAIN[3, 0])


def sealed_targets(found: Mapping[str, Found], openssl: str, released: int | None) -> Iterator[Target]:
    """What must be reached, as far as it was measured; `released` is the day of wireguard-go's release, None: it is not
    there."""
    stream = ratio(found, "sealed", "ext", "tcp1 to")
    if stream is not None:
        least = of_plain(openssl)
        text = f"sealed, 1 TCP stream →: {stream.shown('.1%')} of what it has in the clear"
        yield Target(f"{text} (must be ≥ {least:.0%} with {openssl})", stream.median >= least)
    small = ratio(found, "sealed", "ext", "udp100")
    if small is not None:
        text = f"sealed, UDP of 100 bytes delivered: {small.shown('.1%')} of that in the clear"
        yield Target(f"{text} (must be ≥ {OF_PLAIN_UDP:.0%})", small.median >= OF_PLAIN_UDP)
    more = Rounds.of(found, ("sealed", "ext"), "ping idle p50", lambda a, b: (a - b) * 1000)
    if more is not None:
        text = f"sealed, idle ping: {more.shown('+.0f')} µs by medians"
        yield Target(f"{text} (must be ≤ {PING_MORE_US:g})", more.median <= PING_MORE_US)
    yield from first_targets(found)
    yield from wireguard_targets(found, released)


def first_targets(found: Mapping[str, Found]) -> Iterator[Target]:
    if "sealed" not in found:
        return
    first, usual = (found["sealed"].samples.get(name, []) for name in ("ping first", "ping second"))
    if not first or len(first) != len(usual):
        return
    over = [one - (1 + FIRST_TRIPS) * other for one, other in zip(first, usual, strict=True)]
    all_of_it = f"{statistics.median(first):.1f} ms ({min(first):.1f}..{max(first):.1f})"
    yield Target(
        f"sealed, the first ping of a new pair: {all_of_it}, "
        f"{statistics.median(over):+.1f} beside its own round trip and {FIRST_TRIPS} before that "
        f"(must be ≤ {FIRST_MORE_MS:g})",
        statistics.median(over) <= FIRST_MORE_MS,
    )


def wireguard_targets(found: Mapping[str, Found], released: int | None) -> Iterator[Target]:
    times = ratio(found, "sealed", "wireguard", "tcp1 to")
    if times is None or released is None:
        yield Target("(without wireguard-go: Debian's package wireguard-go has it)")
        return
    text = f"sealed, 1 TCP stream →: {times.shown('.1f')} times wireguard-go of {released}"
    if released < FAST_SINCE:
        yield Target(f"({text} through its hub, not judged: before {FAST_SINCE} it had no offloads)")
    else:
        yield Target(f"{text} through its hub (must be ≥ {OF_WIREGUARD:g})", times.median >= OF_WIREGUARD)
