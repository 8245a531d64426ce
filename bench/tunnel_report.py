"""What tunnel.py measured, as a table, and held against what an endpoint must reach."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rich.table import Table
from target import Target

Figures = dict[str, float]

ROWS = (
    ("1 TCP stream →, Gbit/s", ("tcp1 to",), "{:.2f}"),
    ("1 TCP stream ←", ("tcp1 back",), "{:.2f}"),
    ("4 TCP streams →", ("tcp4 to",), "{:.2f}"),
    ("4 TCP streams ←", ("tcp4 back",), "{:.2f}"),
    ("of the proxy, 1 stream →", ("share",), "{:.0%}"),
    ("CPU s/GB, 1 stream →: machine", ("cpu machine",), "{:.2f}"),
    ("  all that is measured", ("cpu own",), "{:.2f}"),
    ("  relay or proxy", ("cpu relay",), "{:.2f}"),
    ("  both clients", ("cpu clients",), "{:.2f}"),
    ("CPU s/GB at 1 Gbit/s: machine", ("paced cpu machine",), "{:.2f}"),
    ("  all that is measured", ("paced cpu own",), "{:.2f}"),
    ("  relay or proxy", ("paced cpu relay",), "{:.2f}"),
    ("  both clients", ("paced cpu clients",), "{:.2f}"),
    ("UDP of 100 bytes, 1000/s sent", ("udp100 sent",), "{:.0f}"),
    ("  delivered (lost)", ("udp100", "udp100 lost"), "{:.0f} ({:.1%})"),
    ("  iperf3 received", ("udp100 iperf",), "{:.0f}"),
    ("UDP of 1300 bytes, 1000/s sent", ("udp1300 sent",), "{:.0f}"),
    ("  delivered (lost)", ("udp1300", "udp1300 lost"), "{:.0f} ({:.1%})"),
    ("  iperf3 received", ("udp1300 iperf",), "{:.0f}"),
    ("ping, ms: idle, p50/avg", ("ping idle p50", "ping idle avg"), "{:.2f}/{:.2f}"),
    ("  p99/max", ("ping idle p99", "ping idle max"), "{:.2f}/{:.2f}"),
    ("  under 1 stream →, p50/avg", ("ping loaded p50", "ping loaded avg"), "{:.2f}/{:.2f}"),
    ("  p99/max", ("ping loaded p99", "ping loaded max"), "{:.2f}/{:.2f}"),
    ("  under UDP of 100 bytes, p50/avg", ("ping udp100 p50", "ping udp100 avg"), "{:.2f}/{:.2f}"),
    ("  p99/max", ("ping udp100 p99", "ping udp100 max"), "{:.2f}/{:.2f}"),
    ("  the first of a new pair, the second", ("ping first", "ping second"), "{:.2f}, {:.2f}"),
    ("  lost: idle, stream, UDP", ("ping idle lost", "ping loaded lost", "ping udp100 lost"), "{:.0%} {:.0%} {:.0%}"),
)


@dataclass
class Found:
    """The figures of one way from left to right, each of every round."""

    title: str
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, figures: Figures) -> None:
        for name, figure in figures.items():
            self.samples.setdefault(name, []).append(figure)

    def median(self, name: str) -> float | None:
        """None when it was never measured."""
        return statistics.median(self.samples[name]) if name in self.samples else None


def share(found: Mapping[str, Found], name: str) -> float | None:
    """What one stream reaches of the proxy's, the median of the rounds."""
    if "proxy" not in found:
        return None
    pair = found[name].samples.get("tcp1 to", []), found["proxy"].samples.get("tcp1 to", [])
    if not pair[0] or len(pair[0]) != len(pair[1]):
        return None
    return statistics.median(own / proxy for own, proxy in zip(*pair, strict=True))


def table(found: Mapping[str, Found]) -> Table:
    drawn = Table(title="→ from left to right, ← back; medians of the rounds", title_justify="left")
    drawn.add_column("", no_wrap=True)
    for one in found.values():
        drawn.add_column(one.title, justify="right", no_wrap=True)
    for title, names, form in ROWS:
        cells = []
        for way, one in found.items():
            figures = [share(found, way) if name == "share" else one.median(name) for name in names]
            cells.append(form.format(*figures) if None not in figures else "-")
        if set(cells) != {"-"}:
            drawn.add_row(title, *cells)
    return drawn


def targets(found: Mapping[str, Found]) -> Iterator[Target]:
    """What an endpoint must reach, line by line, as far as it was measured."""
    for name, least in (("ext", 6.0), ("one", 1.0), ("none", 1.0)):
        for figure, way in (("tcp1 to", "→"), ("tcp1 back", "←")):
            if name in found:
                yield from at_least(found, name, figure, f"1 TCP stream {way}, Gbit/s", least)
    if "ext" not in found:
        return
    part = share(found, "ext")
    if part is not None:
        yield Target(f"ext: 1 TCP stream →, {part:.0%} of the proxy's (must be ≥ 25 %)", part >= 0.25)
    yield from at_most(found, "ext", "cpu machine", "CPU seconds per GB, whole machine", 3)
    yield from at_least(found, "ext", "udp100", "UDP of 100 bytes, 1000/s delivered", 120)
    unloaded, reference = found["ext"].median("ping idle avg"), found["proxy"].median("ping idle avg")
    if unloaded is not None and reference is not None:
        yield from at_most(found, "ext", "ping loaded avg", "ping under the stream, average ms", unloaded + 2)
        yield from at_most(found, "ext", "ping loaded max", "ping under the stream, maximum ms", 10)
        yield from at_most(found, "ext", "ping idle avg", "idle ping, 1.5 times the proxy's, ms", 1.5 * reference)
    # One reply in two hundred that the machine was late for moves an average by a third.
    typical = found["ext"].median("ping idle p50"), found["proxy"].median("ping idle p50")
    if typical[0] is not None and typical[1] is not None:
        yield Target(f"(by medians {typical[0] / typical[1]:.2f} times the proxy's)")


def at_least(found: Mapping[str, Found], name: str, figure: str, what: str, least: float) -> Iterator[Target]:
    value = found[name].median(figure)
    if value is not None:
        yield Target(f"{name}: {what}: {value:.2f} (must be ≥ {least:g})", value >= least)


def at_most(found: Mapping[str, Found], name: str, figure: str, what: str, most: float) -> Iterator[Target]:
    value = found[name].median(figure)
    if value is not None:
        yield Target(f"{name}: {what}: {value:.2f} (must be ≤ {most:.2f})", value <= most)
