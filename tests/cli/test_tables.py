"""Answers as a person reads them: units and markup on a terminal, one word a column in a pipe."""

import io
import time
from typing import Any

import pytest
from rich.console import Console

from candy.cli import tables
from candy.cli.tables import Column, Kind, Row, cell, show, show_one

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


def test_a_terminal_gets_a_table() -> None:
    """Without the network where there is but one, and with a name as it is, not as markup."""
    shown = io.StringIO()
    Console(file=shown, force_terminal=True, width=80, color_system=None).print(tables.table(COLUMNS, ROWS))
    said = shown.getvalue()
    assert "NETWORK" not in said
    assert r"a [red]b\x1b[2J\u202e" in said
    assert "1.5 MB" in said
    shown = io.StringIO()
    Console(file=shown, width=80).print(
        tables.table(COLUMNS, [*ROWS, {"network": "/home", "name": "x", "bytes_in": 0}])
    )
    assert "/home" in shown.getvalue()


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
