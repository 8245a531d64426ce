"""throughput.py --against: what it makes of series of ratios, and the command itself, for an instant."""

import json
import math
import random
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from candy import _fastpath

BENCH = Path(__file__).parents[2] / "bench"
CHECKOUT = Path(_fastpath.__file__).parent.parent


@pytest.fixture
def against(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return import_module("against")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "throughput.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def around(ratio: float, spread: float, count: int = 15) -> list[float]:
    """So many ratios, evenly to both sides."""
    return [ratio * (1 + spread * (2 * i / (count - 1) - 1)) for i in range(count)]


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        (around(1.10, 0.05), "slower by > 3 %"),
        (around(1.00, 0.02), "within 3 %"),
        (around(1.02, 0.01), "within 3 %"),
        (around(1.03, 0.05), "not settled"),
        (around(1.00, 0.10), "not settled"),
        (around(0.98, 0.03), "not settled"),
        (around(0.90, 0.05), "faster by > 3 %"),
        # Three rounds that somebody disturbed say nothing of the rest.
        ([*around(1.00, 0.02, 12), 1.5, 2.0, 4.0], "within 3 %"),
        # So few rounds can't settle anything.
        ([1.5] * 5, "not settled"),
        ([1.5] * 6, "slower by > 3 %"),
    ],
)
def test_a_row_is_judged_by_the_whole_interval(against: ModuleType, ratios: list[float], verdict: str) -> None:
    random.Random(1).shuffle(ratios)
    assert against.judge(against.Interval.of(ratios)) == verdict


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (9, 2), (15, 4), (30, 10), (60, 22)])
def test_the_interval_goes_from_rank_to_rank(against: ModuleType, count: int, rank: int) -> None:
    """The ranks of the sign test's tables, 5 % on both sides together."""
    interval = against.Interval.of([float(i) for i in range(1, count + 1)])
    assert (interval.least, interval.most) == (rank, count + 1 - rank)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_rounds_have_no_interval(against: ModuleType, count: int) -> None:
    interval = against.Interval.of([1.0] * count)
    assert (interval.least, interval.most) == (0, math.inf)


def test_the_interval_has_the_median_as_often_as_it_says(against: ModuleType) -> None:
    draw = random.Random(1)
    series = ([draw.lognormvariate(0.02, 0.05) for _ in range(15)] for _ in range(2000))
    intervals = [against.Interval.of(ratios) for ratios in series]
    held = sum(interval.least <= math.exp(0.02) <= interval.most for interval in intervals)
    assert held / len(intervals) >= 0.95


def test_rounds_are_paired(against: ModuleType) -> None:
    def turn(cpu_ns: int) -> object:
        return against.Round(10, 10, 10, 1, 1000, cpu_ns, 0, 1, {})

    match = against.Match(against.Topology("1→1", [[1], []], 0), 100)
    row = against.Row(match, [turn(100), turn(300)], [turn(200), turn(200)])
    assert row.ratios == [0.5, 1.5]
    assert row.figures()["ratio"] == 1


@pytest.mark.parametrize("folder", ["", "candy", "missing"])
def test_a_checkout_without_a_build_is_told_in_one_line(tmp_path: Path, folder: str) -> None:
    (tmp_path / "candy").mkdir()
    ran = run("--against", str(tmp_path / folder))
    assert ran.returncode == 1
    assert ran.stderr == f"throughput: {tmp_path / folder} has no candy/_fastpath*.so: run 'make build' there\n"
    assert ran.stdout == ""


def test_a_build_that_cannot_be_loaded_is_told_in_one_line(tmp_path: Path) -> None:
    """As one for another Python: its process finds another build, or none."""
    (tmp_path / "candy").mkdir()
    (tmp_path / "candy" / "__init__.py").touch()
    (tmp_path / "candy" / "_fastpath.cpython-30-none.so").touch()
    ran = run("--against", str(tmp_path), "--topology", "1-1", "--size", "100")
    assert ran.returncode == 1
    [line] = ran.stderr.strip().splitlines()
    assert line.startswith(f"throughput: {tmp_path}: ")


def test_a_build_is_held_against_itself(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--size", "100", "--pairs", "2", "--rounds", "1", "--seconds", "0.02", "--json", str(figures)]
    ran = run("--against", str(CHECKOUT), *arguments)
    # So few rounds settle nothing.
    assert ran.returncode == 0, ran.stderr
    assert "0 of 7 rows slower by > 3 %" in ran.stdout
    rows = json.loads(figures.read_text())["rows"]
    assert [(row["topology"], row["relay"]) for row in rows] == [
        ("1→1", "candy"),
        ("1→1", "candy, no candy.2"),
        ("2→2", "candy"),
        ("2→1", "candy"),
        ("1→2", "candy"),
        ("500 single", "candy"),
        ("8→8", "candy, one stalled"),
    ]
    for row in rows:
        assert row["relay"] in ran.stdout
        assert row["verdict"] == "not settled"
        assert len(row["own"]) == len(row["other"]) == 4
        assert all(turn["cpu_ns"] > 0 and turn["sends"] > 0 for turn in row["own"] + row["other"])


def test_a_profile_is_not_for_a_comparison(tmp_path: Path) -> None:
    ran = run("--against", str(CHECKOUT), "--profile", str(tmp_path))
    assert ran.returncode == 2
    assert "--profile" in ran.stderr
