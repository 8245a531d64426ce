"""The fast build holds no thread anywhere; so the interleavings are tested with a debug build."""

import subprocess
from pathlib import Path

import pytest

from candy import _fastpath

ROOT = Path(__file__).parents[2]


def test_interleavings_with_a_debug_build() -> None:
    done = subprocess.run(
        [ROOT / "scripts/sanitize.sh", "debug", "tests/engine/test_interleavings.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("point", _fastpath.POINTS)
def test_the_fast_build_has_no_points(point: str) -> None:
    for call in (_fastpath.hold_at, _fastpath.wait_held, _fastpath.release):
        with pytest.raises(RuntimeError, match="no points"):
            call(point)
