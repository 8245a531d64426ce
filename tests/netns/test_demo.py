"""`make demo`: it shows what it says, and leaves nothing behind when it is interrupted anywhere."""

import os
import signal
import sys
from pathlib import Path

import pytest
from lab.programs import Program

pytestmark = pytest.mark.netns

DEMO = Path(__file__).parents[2] / "scripts" / "demo.py"


def start(folder: Path) -> Program:
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    return Program("demo", [sys.executable, str(DEMO)], environ)


def left_behind(folder: Path) -> list[str]:
    """Processes that work in the demo's folder, and what is in it. Its nameless namespaces end with these."""
    found = [str(path) for path in folder.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            working = os.readlink(process / "cwd")
            if working.startswith(str(folder)):
                found.append(f"{process.name}: {(process / 'cmdline').read_bytes()!r}")
        except OSError:
            continue
    return found


def test_the_demo(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        assert demo.wait() == 0
    assert any("ping, 20 packets" in line and "none lost" in line for line in demo.lines)
    assert sum("Gbit/s" in line for line in demo.lines) == 3
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("line", ["three network namespaces", "^relay", "^left", "^right"])
def test_an_interrupted_demo(tmp_path: Path, line: str, number: int) -> None:
    with start(tmp_path) as demo:
        demo.wait_for(line)
        demo.signal(number)
        assert demo.wait() == 130
    assert left_behind(tmp_path) == []


def test_a_demo_without_a_program_that_it_needs(tmp_path: Path) -> None:
    for name in ("ip", "sysctl", "setpriv", "ping"):
        real = next(Path(folder, name) for folder in os.environ["PATH"].split(":") if Path(folder, name).exists())
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(real)
    folder = tmp_path / "empty"
    folder.mkdir()
    environ = {"PATH": str(tmp_path / "bin"), "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with Program("demo", [sys.executable, str(DEMO)], environ) as demo:
        assert demo.wait() == 1
    assert left_behind(folder) == []
