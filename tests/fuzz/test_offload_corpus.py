"""What the fuzzer of super-packets started from and what it found, replayed."""

from pathlib import Path

import pytest
from fuzz.offload import check

pytestmark = pytest.mark.engine

CORPUS = sorted((Path(__file__).parent / "offload_corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_invariant_holds(path: Path) -> None:
    check(path.read_bytes())
