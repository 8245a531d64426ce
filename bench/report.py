"""What was measured, as a table, and held against what the engine must reach."""

from collections.abc import Iterator, Sequence

from measurement import Ratio, Round, Series
from rich.table import Table
from stages import Stages
from target import Target

COLUMNS = (
    ("pattern", "left"),
    ("bytes", "right"),
    ("relay", "left"),
    ("M\npackets/s", "right"),
    ("Gbit/s", "right"),
    ("CPU ns\n/packet", "right"),
    ("CPU ns\n/byte", "right"),
    ("sends\n/packet", "right"),
    ("lost", "right"),
    ("relay\nbusy", "right"),
    ("of the limit,\nper CPU second", "right"),
    ("of the limit,\npackets/s", "right"),
)

LEGACY, PASSED, SEALED = "candy, no candy.2", "candy, candy.3", "candy, sealed"
LIMITS = {LEGACY: "limit, segments", SEALED: "limit, sealed"}
"""Of those that do more than others: what they are held against."""
PASSED_SHARES = {1300: 0.94, 65000: 0.98}
"""Of the limit per CPU second, between members with candy.3, by the size of a packet."""


def per_second(one: Round) -> float:
    return one.packets_per_second


def per_cpu_second(one: Round) -> float:
    return one.packets_per_cpu_second


def table(found: Sequence[Series]) -> Table:
    """One row for each series, a section for each pattern."""
    drawn = Table(title="Medians; ratios round by round: median (least..most)", title_justify="left")
    for name, side in COLUMNS:
        drawn.add_column(name, justify="right" if side == "right" else "left", no_wrap=name != "lost")
    for i, series in enumerate(found):
        last = i + 1 == len(found) or found[i + 1].topology != series.topology
        drawn.add_row(*row(series, reference(found, series)), end_section=last)
    return drawn


def stages_table(profiles: Sequence[tuple[str, int, Stages]]) -> Table:
    """Where the engine's time goes, for each (pattern, packet size)."""
    drawn = Table(title="The engine's CPU time by stage", title_justify="left")
    for name in ("pattern", "bytes", "samples", "stages", "functions", "perf report -i"):
        drawn.add_column(name, justify="right" if name in ("bytes", "samples") else "left")
    for topology, size, stages in profiles:
        drawn.add_row(
            topology,
            str(size),
            str(stages.samples) if stages.samples else "no perf",
            shares(stages.shares),
            shares(stages.hottest),
            str(stages.file or ""),
            end_section=True,
        )
    return drawn


def shares(parts: dict[str, float]) -> str:
    return "\n".join(f"{share:6.1%} {name}" for name, share in parts.items())


def reference(found: Sequence[Series], series: Series) -> Series | None:
    """The limit in the same cell, of those that do what this relay has to."""
    return find(found, series.topology, series.size, LIMITS.get(series.relay, "limit"))


def find(found: Sequence[Series], topology: str, size: int, relay: str) -> Series | None:
    for series in found:
        if (series.topology, series.size, series.relay) == (topology, size, relay):
            return series
    return None


def row(series: Series, limit: Series | None) -> Iterator[str]:
    rate = series.median(per_second)
    yield series.topology
    yield str(series.size)
    yield series.relay
    yield f"{rate / 1e6:.3f}"
    yield f"{rate * series.size * 8 / 1e9:.2f}"
    yield f"{series.median(lambda one: one.cpu_ns / one.delivered):.1f}"
    yield f"{series.median(lambda one: one.cpu_ns / one.delivered) / series.size:.3f}"
    sends = [one.sends / one.delivered for one in series.rounds if one.sends is not None]
    yield f"{sum(sends) / len(sends):.5f}" if sends else "-"
    yield loss(series)
    yield f"{series.median(lambda one: one.cpu_ns / one.elapsed_ns):.0%}"
    if limit is None or limit is series:
        yield from ("", "")
    else:
        yield spread(Ratio.of(per_cpu_second, series, limit))
        yield spread(Ratio.of(per_second, series, limit))


def loss(series: Series) -> str:
    reasons = ", ".join(f"{name} {count}" for name, count in series.drops.items())
    return " ".join(filter(None, ("0" if series.lost == 0 else f"{series.lost:.2%}", reasons)))


def spread(ratio: Ratio) -> str:
    return f"{ratio.median:.3f} ({ratio.least:.3f}..{ratio.most:.3f})"


def left_out(programs_max: int) -> str:
    return (
        "Left out: aiohttp and picows but for 1→1 and single packets, members without candy.2 but for 1→1, all three "
        f"over {programs_max} bytes; send calls of aiohttp and picows, which don't count them."
    )


def targets(found: Sequence[Series]) -> Iterator[Target]:
    """What the engine must reach, line by line, as far as it was measured."""
    for series in found:
        limit = reference(found, series)
        rate = series.median(per_second)
        where = f"{series.topology}, {series.size} bytes"
        if series.relay == LEGACY and series.size == 100 and limit is not None:
            share = Ratio.of(per_cpu_second, series, limit).median
            yield verdict(
                f"{where}, without candy.2: {share:.1%} of the limit per CPU second, {rate / 1e6:.2f} M packets/s",
                share,
                0.9,
            )
        if series.relay in (PASSED, SEALED) and limit is not None:
            yield from passed_targets(found, series, limit, where)
        if series.relay == "candy, one stalled":
            everybody = find(found, series.topology, series.size, "candy")
            if everybody is not None:
                others = Ratio.of(per_second, series, everybody)
                share = others.median / series.receivers * everybody.receivers
                yield verdict(
                    f"{where}, one receiver stalled: the others get {share:.1%} of what they had", share, 0.98
                )
        if series.relay != "candy" or limit is None:
            continue
        cpu, speed = Ratio.of(per_cpu_second, series, limit).median, Ratio.of(per_second, series, limit).median
        if series.topology == "1→1" and series.size == 100:
            yield verdict(f"{where}: {rate / 1e6:.2f} M packets/s", rate / 1e6, 12)
            yield verdict(f"{where}: {speed:.1%} of the limit's packets/s", speed, 0.5)
            aiohttp = find(found, series.topology, series.size, "aiohttp")
            if aiohttp is not None:
                times = Ratio.of(per_second, series, aiohttp).median
                yield verdict(f"{where}: {times:.0f} times the aiohttp relay", times, 75)
        if series.size >= 1300 and series.topology == "1→1":
            yield verdict(f"{where}: {cpu:.1%} of the limit per CPU second", cpu, 0.95)
            unmasking = find(found, series.topology, series.size, "limit, unmasking")
            if unmasking is not None:
                share = Ratio.of(per_cpu_second, unmasking, limit).median
                rest = Ratio.of(per_cpu_second, series, unmasking).median
                yield Target(f"(unmasking alone leaves {share:.1%} of the limit; candy reaches {rest:.1%} of that)")
        if series.size >= 1300 and series.topology.startswith("1→") and series.topology != "1→1":
            yield verdict(f"{where}, alternating: {cpu:.1%} of the limit per CPU second", cpu, 0.85)
        if series.topology.endswith("single"):
            yield verdict(f"{where}: {cpu:.1%} of the limit per CPU second, {speed:.1%} of its packets/s", cpu, 0.85)


def passed_targets(found: Sequence[Series], series: Series, limit: Series, where: str) -> Iterator[Target]:
    """What must be reached between members with candy.3."""
    kind = "sealed" if series.relay == SEALED else "in the clear"
    if series.size in PASSED_SHARES:
        share = Ratio.of(per_cpu_second, series, limit).median
        goal = PASSED_SHARES[series.size]
        yield verdict(f"{where}, {kind}: {share:.1%} of the limit per CPU second", share, goal)
    before = find(found, series.topology, series.size, "candy" if series.relay == PASSED else PASSED)
    if series.size == 100 and before is not None:
        share = Ratio.of(per_cpu_second, series, before).median
        goal = 1.0 if series.relay == PASSED else 0.85
        yield verdict(f"{where}, {kind}: {share:.1%} of {before.relay} per CPU second", share, goal)


def verdict(text: str, figure: float, target: float) -> Target:
    goal = f"{target:.0%}" if target < 1 and "%" in text else f"{target:g}"
    return Target(f"{text} (must be ≥ {goal})", figure >= target)
