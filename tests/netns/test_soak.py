"""The soak in its short form: too short to judge what grows, long enough for all that happens to happen once."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.netns

SOAK = Path(__file__).parents[1] / "soak.py"


def test_a_minute_of_it() -> None:
    command = [sys.executable, str(SOAK), "--minutes", "1", "--members", "40"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    assert "whole again within" in ran.stdout
    assert "missed" not in ran.stdout
