"""What the fuzzer started from and what it found, replayed."""

from pathlib import Path

import pytest
from fuzz.frames import check_engine, check_parser

pytestmark = pytest.mark.engine

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_parser(path: Path) -> None:
    check_parser(path.read_bytes())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_engine(path: Path) -> None:
    check_engine(path.read_bytes())
