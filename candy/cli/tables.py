"""Answers of the control interface as a person reads them: tables on a terminal, plain columns in a pipe.

    rows of JSON, COLUMNS ─▶ show() ─┬─▶ a terminal: rich, with units            NAME     IN
                                     │                                           laptop   1.2 MB
                                     └─▶ a pipe: one word a column, for awk      laptop   1200000

Rules:
 1. Names are strangers' words: escaped, and never markup.
 2. In a pipe a column is one word: what is unknown is `-`, spaces are escaped, bytes and seconds are bare numbers, and
    times are in UTC (RFC 3339). A sentence is the last column, and keeps its spaces.

rich is imported for a terminal alone. This module does not know who answers.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from candy.control.escape import shown

if TYPE_CHECKING:
    from rich.table import Table

Row = dict[str, Any]
Kind = Literal["text", "sentence", "state", "count", "bytes", "rate", "bits", "ms", "time", "flag"]
UNKNOWN = "-"
GAP = 2
"""Characters between two columns."""


class Column(NamedTuple):
    """One column."""

    title: str
    key: str
    kind: Kind = "text"
    only_in_several: bool = False
    """Left out on a terminal where all rows have the same."""
    spare: int = 0
    """A terminal that is too narrow goes without those with the largest first, and never without those with 0."""

    @property
    def is_number(self) -> bool:
        return self.kind not in ("text", "sentence", "state", "flag", "time")


NETWORK = Column("NETWORK", "network", only_in_several=True)
_TRAFFIC = (
    Column("RTT", "round_trip_ms", "ms", spare=1),
    Column("IN", "bytes_in", "bytes", spare=4),
    Column("OUT", "bytes_out", "bytes", spare=4),
    Column("PKTS-IN", "packets_in", "count", spare=9),
    Column("PKTS-OUT", "packets_out", "count", spare=9),
    Column("IN/S", "bytes_in_per_s", "rate"),
    Column("OUT/S", "bytes_out_per_s", "rate"),
    Column("QUEUE", "queued_bytes", "bytes", spare=3),
    Column("DELAY", "queue_delay_ms", "ms", spare=2),
    Column("DROPS", "drops", "count", spare=1),
)
_LIMITS = (
    Column("DOWN-MOST", "limit_down", "bits", spare=6),
    Column("UP-MOST", "limit_up", "bits", spare=6),
    Column("HELD", "held", spare=3),
    Column("QUOTA-LEFT", "quota_left", "bytes", spare=7),
)
MEMBERS = (
    NETWORK,
    Column("ADDRESS", "address"),
    Column("NAME", "name"),
    Column("OS", "os", spare=7),
    Column("VERSION", "version", spare=8),
    Column("PATH", "path", spare=6),
    Column("SEAL", "seal", spare=5),
    Column("SINCE", "since", "time", spare=6),
    Column("SOURCE", "source", spare=5),
    *_TRAFFIC,
    *_LIMITS,
)
RELAY = Column("RELAY", "relay")
"""Of a member, where there are several."""
RELAYS = (
    Column("RELAY", "relay"),
    Column("THERE", "there", "flag"),
    Column("KNOWN", "known", "flag", spare=2),
    Column("MEMBERS", "members", "count"),
    Column("LINKS", "links", "count"),
    Column("RTT", "round_trip_ms", "ms"),
    Column("URL", "url", spare=1),
    Column("PUBLIC-URL", "public_url"),
)
LEASES = (
    NETWORK,
    Column("ADDRESS", "address"),
    Column("NAME", "name"),
    Column("OS", "os", spare=6),
    Column("VERSION", "version", spare=7),
    Column("VMAC", "vmac", spare=4),
    Column("CONNECTED", "connected", "flag"),
    Column("RESERVED", "reserved", "flag", spare=1),
    Column("FIRST-SEEN", "first_seen", "time", spare=5),
    Column("LAST-SEEN", "last_seen", "time"),
    Column("SOURCE", "source", spare=3),
    Column("IN", "bytes_in", "bytes", spare=2),
    Column("OUT", "bytes_out", "bytes", spare=2),
)
RESERVATIONS = (
    NETWORK,
    Column("ADDRESS", "address"),
    Column("RESERVED-FOR", "device"),
    Column("CONFIGURED", "configured", "flag"),
)
DEVICE_LIMITS = (
    NETWORK,
    Column("ADDRESS", "address"),
    Column("DOWN-MOST", "down", "bits"),
    Column("UP-MOST", "up", "bits"),
    Column("QUOTA", "quota", "bytes"),
    Column("USED", "used", "bytes"),
    Column("SPENT", "spent", "flag"),
)
DEVICES = (
    NETWORK,
    Column("NAME", "name"),
    Column("STANDING", "standing"),
    Column("ADDRESS", "address"),
    Column("CONNECTED", "connected", "flag"),
    Column("CAME-BY", "came_by"),
    Column("INVITED", "invited", "flag"),
    Column("BOUND-TO", "addresses"),
    Column("SINCE", "since", "time"),
    Column("NUMBER", "number"),
    Column("FINGERPRINT", "fingerprint"),
)
NETWORKS = (
    Column("PATH", "path"),
    Column("POOL", "pool"),
    Column("MEMBERS", "members", "count"),
    Column("USED", "addresses_used", "count"),
    Column("FREE", "addresses_free", "count"),
    Column("RULES", "rules", "count"),
    Column("INTERFACE", "interface"),
    Column("OWN-ADDRESS", "own_address"),
    Column("DOWN-MOST", "limit_down", "bits", spare=1),
    Column("UP-MOST", "limit_up", "bits", spare=1),
)
ENDS = (
    Column("END", "end"),
    NETWORK,
    Column("ADDRESS", "address"),
    Column("NAME", "name"),
    Column("THROUGH", "through", spare=1),
    Column("CONNECTED", "connected", "flag"),
    Column("LAST-SEEN", "last_seen", "time", spare=3),
    Column("HEARD", "heard_ms", "ms"),
    Column("SEALS", "seals", "flag", spare=5),
    Column("RTT", "round_trip_ms", "ms", spare=4),
    Column("PKTS-IN/S", "packets_in_per_s", "count", spare=2),
    Column("PKTS-OUT/S", "packets_out_per_s", "count", spare=2),
    Column("QUEUE", "queued_bytes", "bytes"),
    Column("DELAY", "queue_delay_ms", "ms"),
    Column("DROPS", "drops", "count"),
)
LINKS = (
    Column("ADDRESS", "address"),
    Column("PATH", "path"),
    Column("FORMAT", "format", spare=3),
    Column("ENDPOINT", "endpoint"),
    Column("RTT", "round_trip_ms", "ms"),
    Column("MTU", "mtu", "count", spare=2),
    Column("SINCE", "since", "time", spare=1),
    Column("WHY-RELAY", "why", "sentence"),
)
PEERS = (
    *LINKS,
    Column("SEALING", "sealing"),
    Column("KEY", "key"),
    Column("PUBLIC", "public"),
    Column("LAN", "lan"),
    Column("ASKS", "asks", "flag"),
)
FINDINGS = (
    Column("STEP", "step"),
    Column("STATE", "state", "state"),
    Column("TIME", "ms", "ms"),
    Column("FOUND", "text", "sentence"),
)
ROUTES = (
    Column("DESTINATION", "destination"),
    Column("NEXT-HOP", "next_hop"),
    Column("STATE", "state"),
    Column("REASON", "reason"),
)
_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}
"""Of states."""
SENTENCE_LEAST = 40
"""Characters of a line that a sentence is broken into, where there is room for them."""
_UNITS: dict[str, Kind] = {column.key: column.kind for column in (*MEMBERS, *LEASES)} | {
    "last_end_at": "time",
    "packets_in_per_s": "count",
    "packets_out_per_s": "count",
}


def ends(answer: Mapping[str, Any]) -> list[Row]:
    """The rows of ENDS, of an answer to why."""
    rows = []
    for which, end in (("from", answer["source"]), ("to", answer["destination"])):
        heard = None if end["heard_s"] is None else end["heard_s"] * 1e3
        unknown = {column.key: None for column in ENDS}
        rows.append(unknown | (end["member"] or {}) | end | {"end": which, "heard_ms": heard})
    return rows


def links(rows: Iterable[Row]) -> list[Row]:
    """The rows of LINKS, or PEERS, of an answer's."""
    return [
        row | {"path": f"by {row['by']} ({row['cost_ms']} ms)"} if row["path"] == "peer" else dict(row) for row in rows
    ]


def cell(kind: Kind, value: Any, *, for_person: bool) -> str:
    """One value, escaped."""
    if value is None or value == "":
        return UNKNOWN
    match kind:
        case "flag":
            return "yes" if value else "no"
        case "time":
            return _time(value, for_person)
        case "ms":
            return f"{value:.1f} ms" if for_person else f"{value:.3f}"
        case "bytes" | "rate":
            return _size(value, kind) if for_person else f"{value:.0f}"
        case "bits":
            return _size(value, kind) if for_person else f"{value:.0f}"
        case "count":
            return f"{value:.0f}"
        case "text" | "state":
            return shown(str(value), spaces=for_person)
        case "sentence":
            return shown(str(value))


def _time(value: float, for_person: bool) -> str:
    moment = datetime.fromtimestamp(value, UTC)
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}" if for_person else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _size(value: float, kind: Literal["bytes", "rate", "bits"]) -> str:
    prefix = ""
    for larger in ("k", "M", "G", "T"):
        if value < 1000:
            break
        value /= 1000
        prefix = larger
    number = f"{value:.1f}" if prefix else f"{value:.0f}"
    return f"{number} {prefix}{'bit' if kind == 'bits' else 'B'}{'' if kind == 'bytes' else '/s'}"


def show(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Print rows to stdout."""
    if sys.stdout.isatty():
        _print_rich(columns, rows)
        return
    texts = [[column.title for column in columns]]
    texts += [[cell(column.kind, row[column.key], for_person=False) for column in columns] for row in rows]
    numbers = [column.is_number for column in columns]
    _print_plain(texts, numbers)


def show_one(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print what is known of one thing: a name and a value a line. A dict has a line for each of its own."""
    flat: list[tuple[str, Kind, Any]] = []
    for name, value in pairs:
        kind = _UNITS.get(name, "text")
        if isinstance(value, dict):
            flat += [(f"{name} {key}", "count", count) for key, count in sorted(value.items())]
        elif isinstance(value, list):
            flat.append((name, "text", ", ".join(map(str, value))))
        else:
            flat.append((name, "flag" if isinstance(value, bool) else kind, value))
    for_person = sys.stdout.isatty()
    texts = [
        [name.replace("_", " " if for_person else "_"), cell(kind, value, for_person=for_person)]
        for name, kind, value in flat
    ]
    if not for_person:
        texts = [[name.replace(" ", "."), value] for name, value in texts]
    _print_plain(texts, [False, False])


def table(columns: Sequence[Column], rows: Sequence[Row], width: int, marked: Column | None = None) -> "Table":
    """For a terminal of so many characters. What it has no room for is named below.

    Args:
        marked: a column to point at, which is not left out.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    columns = [c for c in columns if not c.only_in_several or len({row[c.key] for row in rows}) > 1]
    cells = {c: [c.title, *(cell(c.kind, row[c.key], for_person=True) for row in rows)] for c in columns}
    widths = {c: max(map(cell_len, texts)) + GAP for c, texts in cells.items()}
    widths |= {c: min(taken, SENTENCE_LEAST) for c, taken in widths.items() if c.kind == "sentence"}
    shown = _with_room(widths, width + GAP, marked)
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0))
    for column in shown:
        style = "reverse" if column == marked else ""
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        made.add_column(Text(column.title, style), justify=justify, no_wrap=column.kind != "sentence")
    for texts in zip(*(cells[column][1:] for column in shown), strict=True):
        # A Text is never read as markup.
        styles = [_STYLES.get(text, "") if c.kind == "state" else "" for c, text in zip(shown, texts, strict=True)]
        made.add_row(*map(Text, texts, styles))
    if left_out := [column.title for column in columns if column not in shown]:
        made.caption = Text(f"no room for {', '.join(left_out)}")
        made.caption_justify = "left"
    return made


def _with_room(widths: Mapping[Column, int], room: int, kept: Column | None) -> list[Column]:
    """The columns that have room beside each other."""
    shown = list(widths)
    while sum(widths[column] for column in shown) > room:
        worst = max((column.spare for column in shown if column != kept), default=0)
        if worst == 0:
            break
        shown = [column for column in shown if column.spare < worst or column == kept]
    return shown


def _print_rich(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    from rich.console import Console

    console = Console()
    console.print(table(columns, rows, console.width))


def _print_plain(texts: Sequence[Sequence[str]], are_numbers: Sequence[bool]) -> None:
    if not texts:
        return
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for line in texts:
        justified: list[Callable[[int], str]] = [
            text.rjust if is_number else text.ljust for text, is_number in zip(line, are_numbers, strict=True)
        ]
        click.echo("  ".join(justify(width) for justify, width in zip(justified, widths, strict=True)).rstrip())
