"""What the fuzzers started from and what they found, replayed through the ordinary engine, against the slow models."""

from pathlib import Path

import pytest
from fuzz.frames import check_engine, check_parser
from fuzz.linked import check_linked
from fuzz.offload import check_device, check_ipip, check_supers
from fuzz.old import check_old
from fuzz.opened import check_opened
from fuzz.passing import check_passing
from fuzz.sealed import check_sealed
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.engine

CORPUS = Path(__file__).parent / "corpus"
TARGETS = ("device", "frames", "ipip", "linked", "old", "opened", "passing", "sealed", "supers")


def inputs(target: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", sorted((CORPUS / target).iterdir()), ids=lambda path: path.name)


@inputs("frames")
def test_parser(path: Path) -> None:
    check_parser(path.read_bytes())


@inputs("frames")
def test_engine(path: Path) -> None:
    check_engine(path.read_bytes())


@inputs("linked")
def test_linked(path: Path) -> None:
    check_linked(path.read_bytes())


@inputs("old")
def test_old(path: Path) -> None:
    check_old(path.read_bytes())


@inputs("opened")
def test_opened(path: Path) -> None:
    check_opened(path.read_bytes())


@inputs("passing")
def test_passing(path: Path) -> None:
    check_passing(path.read_bytes())


@inputs("sealed")
def test_sealed(path: Path) -> None:
    check_sealed(path.read_bytes())


@given(st.binary(max_size=200))
def test_anything_sealed(data: bytes) -> None:
    """No fuzzer of _targets.pyx has OpenSSL."""
    check_sealed(data)


@inputs("supers")
def test_supers(path: Path) -> None:
    check_supers(path.read_bytes())


@inputs("ipip")
def test_ipip(path: Path) -> None:
    check_ipip(path.read_bytes())


@inputs("device")
def test_device(path: Path) -> None:
    check_device(path.read_bytes())


def test_it_stays_small() -> None:
    """It is there to be replayed each time; a fuzzer finds the rest again in a minute."""
    assert sorted(path.name for path in CORPUS.iterdir()) == list(TARGETS)
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert len(files) < 280
    assert sum(path.stat().st_size for path in files) < 200_000
