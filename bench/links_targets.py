"""What links.py measured, as a table, and held against what direct links must reach."""

import statistics
from collections.abc import Iterator, Mapping

from rich.table import Table
from target import Target
from tunnel_report import ROWS, Figures, Found
from tunnel_sealed import Rounds, ratio
from wireguard import FAST_SINCE

__all__ = ["Figures", "links_table", "links_targets"]

OF_WIREGUARD = {(3, 0): 1.5, (3, 5): 1.9}
OF_UNCIPHERED = {(3, 0): 0.65, (3, 5): 0.80}
"""In the original's format, of one stream without AES-GCM."""
FLOOD_PER_S = 250.0
PING_MORE_US = 150.0
CHANGE_LOW_S = 1.5
FLOOD_SHARE = 0.25
FLOOD_LOST = 0.01
MORE_ROWS = (
    ("a path that changes, Gbit/s: direct", ("change direct",), "{:.2f}"),
    ("  by the relay, direct again", ("change relayed", "change again"), "{:.2f}, {:.2f}"),
    ("  below half of that, longest, s", ("change low",), "{:.1f}"),
    ("a stranger's flood: of a core, lost beside", ("flood share", "flood lost"), "{:.0%}, {:.1%}"),
)


def links_table(found: Mapping[str, Found]) -> Table:
    drawn = Table(title="from left to right; medians of the rounds", title_justify="left")
    drawn.add_column("", no_wrap=True)
    for one in found.values():
        drawn.add_column(one.title, justify="right", no_wrap=True)
    for title, names, form in (*ROWS, *MORE_ROWS):
        cells = []
        for one in found.values():
            figures = [one.median(name) for name in names]
            cells.append(form.format(*figures) if None not in figures else "-")
        if set(cells) != {"-"}:
            drawn.add_row(title, *cells)
    return drawn


def of_release(least: Mapping[tuple[int, int], float], openssl: str) -> float:
    """What has to be reached with this OpenSSL (see tunnel_sealed.of_plain)."""
    words = openssl.split()
    release = tuple(int(part) for part in words[1].split(".")[:2]) if len(words) > 1 else (3, 0)
    return max(each for since, each in least.items() if since <= release)


def links_targets(found: Mapping[str, Found], openssl: str, released: int | None) -> Iterator[Target]:
    """Line by line, as far as it was measured; `released` is the day of wireguard-go's release, None: it is not
    there."""
    yield from _wireguard(found, openssl, released)
    plain = ratio(found, "original", "uncipher", "tcp1 to")
    if plain is None:
        yield Target("(the original's format: not judged without --without-cipher)")
    else:
        least = of_release(OF_UNCIPHERED, openssl)
        text = f"1 TCP stream in the original's format: {plain.shown('.0%')} of that without its cipher"
        yield Target(f"{text} (must be ≥ {least:.0%} with {openssl})", plain.median >= least)
    relayed = ratio(found, "direct", "relayed", "tcp1 to")
    if relayed is not None:
        yield Target(f"1 TCP stream: {relayed.shown('.2f')} times that by the relay")
    bare = ratio(found, "direct", "kernel", "tcp1 to")
    if bare is not None:
        yield Target(f"1 TCP stream: {bare.shown('.0%')} of the bare path's")
    direct = found["direct"].samples
    if "udp100" in direct:
        rate = statistics.median(direct["udp100"])
        shown = f"{rate:.0f} ({min(direct['udp100']):.0f}..{max(direct['udp100']):.0f})"
        yield Target(f"UDP of 100 bytes, 1000/s delivered: {shown} (must be ≥ {FLOOD_PER_S:g})", rate >= FLOOD_PER_S)
        lost = statistics.median(direct.get("ping udp100 lost", [1.0]))
        yield Target(f"  pings lost beside it: {lost:.0%} (ping goes on)", lost < 1)
    more = Rounds.of(found, ("direct", "kernel"), "ping idle p50", lambda a, b: (a - b) * 1000)
    if more is not None:
        text = f"idle ping: {more.shown('+.0f')} µs beside the bare path by medians"
        yield Target(f"{text} (must be ≤ {PING_MORE_US:g})", more.median <= PING_MORE_US)
    if "change low" in direct:
        low = max(direct["change low"])
        yield Target(
            f"direct, relay, direct under one stream: at most {low:.1f} s below half (must be < {CHANGE_LOW_S:g})",
            low < CHANGE_LOW_S,
        )
    if "flood share" in direct:
        share, lost = (statistics.median(direct[name]) for name in ("flood share", "flood lost"))
        yield Target(f"a stranger's flood: {share:.0%} of a core (must be < {FLOOD_SHARE:.0%})", share < FLOOD_SHARE)
        yield Target(f"  lost beside it: {lost:.2%} (must be < {FLOOD_LOST:.0%})", lost < FLOOD_LOST)


def _wireguard(found: Mapping[str, Found], openssl: str, released: int | None) -> Iterator[Target]:
    times = ratio(found, "direct", "wireguard", "tcp1 to")
    if times is None or released is None:
        yield Target("(without wireguard-go: Debian's package wireguard-go has it, with offloads from 0.0.20250522 on)")
        return
    text = f"1 TCP stream: {times.shown('.2f')} times wireguard-go of {released}, point to point"
    if released < FAST_SINCE:
        yield Target(f"({text}, not judged: before {FAST_SINCE} it had no offloads)")
    else:
        least = of_release(OF_WIREGUARD, openssl)
        yield Target(f"{text} (must be ≥ {least:g} with {openssl})", times.median >= least)
