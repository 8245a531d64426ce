"""What the fast build of the engine can't show is shown by others: see CANDY_BUILD in setup.py."""

import os
import subprocess
from pathlib import Path

import pytest

from candy import _fastpath

ROOT = Path(__file__).parents[2]
SKIP = 77
"""sanitize.sh's status when the compiler lacks the sanitizer."""


def sanitize(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/sanitize.sh", *arguments],
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("variant", "tests"),
    [
        ("debug", sorted(path.name for path in Path(__file__).parent.glob("test_*interleavings.py"))),
        ("asan", ["test_stress.py"]),
        ("asan", ["test_old_link_stress.py"]),
        ("tsan", ["test_stress.py"]),
        ("tsan", ["test_old_link_stress.py"]),
    ],
    ids=["interleavings-debug", "stress-asan", "old-links-asan", "stress-tsan", "old-links-tsan"],
)
def test_with_another_build(variant: str, tests: list[str]) -> None:
    """The fast build holds no thread anywhere; and a race or a step too far may do no harm that a test could see.

    The stress is short here; `make asan tsan` make it longer, and run all of the engine's tests.
    """
    done = sanitize(variant, *(f"tests/engine/{name}" for name in tests), CANDY_STRESS="0.3")
    if done.returncode == SKIP:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("variant", "library"), [("asan", "libasan.so"), ("tsan", "libtsan.so")])
def test_a_compiler_without_the_sanitizer(variant: str, library: str, tmp_path: Path) -> None:
    """gcc answers with the bare name when it has no such file."""
    gcc = tmp_path / "gcc"
    gcc.write_text('#!/bin/sh\necho "${1#*=}"\n')
    gcc.chmod(0o755)
    done = sanitize(variant, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == SKIP
    assert done.stdout.splitlines() == [f"sanitize.sh: gcc lacks {library}: install the whole of gcc"]


@pytest.mark.parametrize("point", _fastpath.POINTS)
def test_the_fast_build_has_no_points(point: str) -> None:
    for call in (_fastpath.hold_at, _fastpath.wait_held, _fastpath.release):
        with pytest.raises(RuntimeError, match="no points"):
            call(point)
