"""Answers as a person reads them: units and markup on a terminal, one word a column in a pipe."""

import io
import time
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from candy.cli import tables
from candy.cli.tables import MEMBERS, Column, Kind, Row, cell, show, show_one

EVIL = "a [red]b\x1b[2J\u202e"


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()


@pytest.mark.parametrize(
    ("kind", "value", "person", "word"),
    [
        ("text", None, "-", "-"),
        ("text", "", "-", "-"),
        ("text", EVIL, r"a [red]b\x1b[2J\u202e", r"a\x20[red]b\x1b[2J\u202e"),
        ("flag", True, "yes", "yes"),
        ("flag", False, "no", "no"),
        ("count", 1234567, "1234567", "1234567"),
        ("bytes", 999, "999 B", "999"),
        ("bytes", 1_234_567, "1.2 MB", "1234567"),
        ("bytes", 1e18, "1000000.0 TB", "1000000000000000000"),
        ("rate", 1500.4, "1.5 kB/s", "1500"),
        ("ms", 0.25, "0.2 ms", "0.250"),
        ("sentence", EVIL, r"a [red]b\x1b[2J\u202e", r"a [red]b\x1b[2J\u202e"),
        ("time", 1_700_000_000.9, "2023-11-15 00:13:20", "2023-11-14T22:13:20Z"),
    ],
)
def test_cell(kind: Kind, value: Any, person: str, word: str) -> None:
    assert cell(kind, value, for_person=True) == person
    assert cell(kind, value, for_person=False) == word


COLUMNS = (
    Column("NETWORK", "network", only_in_several=True),
    Column("NAME", "name"),
    Column("IN", "bytes_in", "bytes"),
)
ROWS: list[Row] = [
    {"network": "/", "name": EVIL, "bytes_in": 5},
    {"network": "/", "name": None, "bytes_in": 1_500_000},
]


def test_a_pipe_gets_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show(COLUMNS, ROWS)
    said = capsys.readouterr().out
    assert said.splitlines() == [
        r"NETWORK  NAME                           IN",
        r"/        a\x20[red]b\x1b[2J\u202e        5",
        r"/        -                         1500000",
    ]
    assert [len(line.split()) for line in said.splitlines()] == [3, 3, 3]


def test_an_empty_table_has_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    show(COLUMNS, [])
    assert capsys.readouterr().out == "NETWORK  NAME  IN\n"


def on_terminal(columns: Sequence[Column], rows: list[Row], width: int = 80, marked: Column | None = None) -> list[str]:
    shown = io.StringIO()
    made = tables.table(columns, rows, width, marked)
    Console(file=shown, force_terminal=True, width=width, color_system=None).print(made)
    return [line.rstrip() for line in shown.getvalue().splitlines()]


def test_a_terminal_gets_a_table() -> None:
    """Without the network where there is but one, and with a name as it is, not as markup."""
    said = "\n".join(on_terminal(COLUMNS, ROWS))
    assert "NETWORK" not in said
    assert r"a [red]b\x1b[2J\u202e" in said
    assert "1.5 MB" in said
    assert "/home" in "\n".join(on_terminal(COLUMNS, [*ROWS, {"network": "/home", "name": "x", "bytes_in": 0}]))


A, B, C = Column("A", "a"), Column("B", "b", spare=2), Column("C", "c", "count", spare=1)
WIDE: Row = {"a": "12345", "b": "12345", "c": 12345}


@pytest.mark.parametrize(
    ("width", "marked", "shown"),
    [
        (19, None, ["A B C", ["12345", "12345", "12345"]]),
        (18, None, ["A C", ["12345", "12345"]]),
        (12, None, ["A C", ["12345", "12345"]]),
        (11, None, ["A", ["12345"]]),
        (5, None, ["A", ["12345"]]),
        (18, B, ["A B", ["12345", "12345"]]),
        (18, C, ["A C", ["12345", "12345"]]),
        (4, None, ["A", ["123…"]]),
    ],
)
def test_a_narrow_terminal_goes_without_columns(width: int, marked: Column | None, shown: list[Any]) -> None:
    """Whole columns are read, and not the first letters of all."""
    titles, row = shown
    said = on_terminal([A, B, C], [WIDE], width, marked)
    assert said[0].split() == titles.split()
    assert said[2].split() == row
    left_out = sorted({"A", "B", "C"} - set(titles.split()))
    assert " ".join(said[3:]) == (f"no room for {', '.join(left_out)}" if left_out else "")


def test_a_sentence_is_broken_into_lines() -> None:
    row: Row = {"step": "log-in", "state": "failed", "ms": 12.3, "text": "the relay closed " * 5 + "at once"}
    said = on_terminal(tables.FINDINGS, [row], 60)
    assert said[2].startswith("log-in  failed  12.3 ms  the relay closed")
    assert len(said) == 5
    assert "…" not in "".join(said)
    assert said[4].endswith("at once")


def test_both_ends_of_why() -> None:
    """Of one that is not there nothing is known."""
    of = {**MEMBER, "packets_in_per_s": 1.0, "packets_out_per_s": 2.0}
    end = dict.fromkeys(
        ("network", "address", "name", "through", "connected", "last_seen", "heard_s", "seals", "member")
    )
    one, other = tables.ends({"source": {**end, "member": of, "heard_s": 0.25}, "destination": end})
    assert (one["end"], one["heard_ms"], one["packets_in_per_s"], one["drops"]) == ("from", 250.0, 1.0, 123_456)
    assert (other["end"], other["heard_ms"], other["drops"]) == ("to", None, None)
    assert on_terminal(tables.ENDS, [one, other], 100)


MEMBER: Row = {
    "network": "/",
    "address": "10.77.255.254",
    "name": "a-laptop-of-somebody",
    "os": "linux",
    "version": "0.1.0",
    "path": "relay",
    "seal": "require",
    "since": 0,
    "source": "203.0.113.255",
    "round_trip_ms": 123.4,
    **dict.fromkeys(("bytes_in", "bytes_out", "bytes_in_per_s", "bytes_out_per_s", "queued_bytes"), 123_456),
    **dict.fromkeys(("packets_in", "packets_out", "drops"), 123_456),
    "queue_delay_ms": 1.5,
    "limit_down": 10_000_000,
    "limit_up": None,
    "held": "down",
    "quota_left": 123_456,
}


@pytest.mark.parametrize("width", [80, 100, 132, 200])
def test_members_can_be_read_on_any_terminal(width: int) -> None:
    said = on_terminal(MEMBERS, [MEMBER], width)
    assert "…" not in "".join(said)
    assert "10.77.255.254" in said[2]
    assert "a-laptop-of-somebody" in said[2]
    assert said[2].count("123.5 kB/s") == 2


def test_one_thing_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    show_one(
        [
            ("name", EVIL),
            ("queued_bytes", 5000),
            ("public_url", None),
            ("listening", ["a:1", "b:2"]),
            ("extension", True),
            ("since", 0),
            ("drops_by_reason", {"no_route": 3, "delay": 1}),
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        r"name                      a\x20[red]b\x1b[2J\u202e",
        "queued_bytes              5000",
        "public_url                -",
        r"listening                 a:1,\x20b:2",
        "extension                 yes",
        "since                     1970-01-01T00:00:00Z",
        "drops_by_reason.delay     1",
        "drops_by_reason.no_route  3",
    ]


def test_a_member_that_is_reached_by_another_one() -> None:
    rows: list[Row] = [
        {"address": "10.0.0.2", "path": "peer", "by": "10.0.0.3", "cost_ms": 12},
        {"address": "10.0.0.3", "path": "direct", "by": None, "cost_ms": None},
    ]
    assert [row["path"] for row in tables.links(rows)] == ["by 10.0.0.3 (12 ms)", "direct"]


def test_every_column_is_a_field_of_its_answer() -> None:
    from candy.control import model

    for columns, shape in (
        (tables.MEMBERS, model.Member),
        (tables.LEASES, model.Lease),
        (tables.RESERVATIONS, model.Reservation),
        (tables.NETWORKS, model.Network),
        (tables.PEERS, model.Peer),
        (tables.ROUTES, model.Route),
    ):
        assert {column.key for column in columns} <= set(shape.__dataclass_fields__)
        assert all(" " not in column.title for column in columns)
