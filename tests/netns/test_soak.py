"""The soak in its short form: too short to judge what grows, long enough for all that happens to happen once."""

import subprocess
import sys
from pathlib import Path

import pytest
from lab.programs import Program, environment
from soak import Watched

pytestmark = pytest.mark.netns

SOAK = Path(__file__).parents[1] / "soak.py"


def test_a_program_that_ended_is_told_from_one_that_runs(tmp_path: Path) -> None:
    with Program("relay", ["sh", "-c", "kill -SEGV $$"], environment(tmp_path)) as program:
        program.wait()
        watched = Watched(program)
        watched.sample()
    assert (watched.ended, watched.resident_kb, watched.descriptors) == (-11, [], [])


def test_a_minute_of_it() -> None:
    command = [sys.executable, str(SOAK), "--minutes", "1", "--members", "40"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    assert "whole again within" in ran.stdout
    assert "missed" not in ran.stdout
