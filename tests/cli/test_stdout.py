"""Commands whose output nobody takes: one line that says why, and nothing where the reader has just left."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from lab.programs import RelayProgram, environment

from candy.options import Side

FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProgram]:
    with RelayProgram(tmp_path_factory.mktemp("relay")) as relay:
        relay.wait_for("control socket")
        yield relay


def run(
    folder: Path, stdout: IO[bytes] | int, side: Side, *line: str, before: tuple[str, ...] = ()
) -> tuple[int, list[str]]:
    """Status and lines on stderr."""
    # Buffered, as users have it: what is left in the buffer is written once more at the end.
    environ = {name: value for name, value in environment(folder).items() if name != "PYTHONUNBUFFERED"}
    command = [*before, sys.executable, "-c", f"from candy.cli.{side} import main; main()", *line]
    ran = subprocess.run(command, env=environ, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    return ran.returncode, ran.stderr.splitlines()


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("line", [["--version"], ["status", "--help"], ["check", "-w", "ws://127.0.0.1"]])
def test_a_disk_that_is_full(tmp_path: Path, side: Side, line: list[str]) -> None:
    with FULL.open("wb") as full:
        status, lines = run(tmp_path, full, side, *line)
    # `check` has a warning about its one password before that.
    assert (status, lines[-1]) == (1, f"candy-{side}: cannot write to stdout: No space left on device")


@pytest.mark.parametrize(
    "line", [["status"], ["members", "--interval=0"], ["leases", "--json"], ["top", "--interval=0.1"]]
)
def test_answers_of_a_program(relay: RelayProgram, tmp_path: Path, line: list[str]) -> None:
    with FULL.open("wb") as full:
        status, said = run(tmp_path, full, "server", *line, "--control-socket", str(relay.control))
    assert (status, said) == (1, ["candy-server: cannot write to stdout: No space left on device"])


def test_a_stdout_that_is_closed(relay: RelayProgram, tmp_path: Path) -> None:
    for line in (["--version"], ["status", "--control-socket", str(relay.control)]):
        said = run(tmp_path, subprocess.DEVNULL, "server", *line, before=("sh", "-c", 'exec "$@" >&-', "sh"))
        assert said == (1, ["candy-server: cannot write to stdout: it is closed"])


def test_a_reader_that_has_left(relay: RelayProgram, tmp_path: Path) -> None:
    for line in (["--help"], ["status", "--control-socket", str(relay.control)]):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as pipe:
            assert run(tmp_path, pipe, "server", *line) == (1, [])


def test_names_that_the_locale_cannot_spell(relay: RelayProgram, tmp_path: Path) -> None:
    code = "from candy.cli.server import main; main()"
    line = ["reserve", "192.168.202.50", "büro 日本", "--control-socket", str(relay.control)]
    environ = environment(tmp_path) | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "1"}
    ran = subprocess.run([sys.executable, "-c", code, *line], env=environ, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout == b"192.168.202.50 is reserved for b\xfcro \\u65e5\\u672c\n"
