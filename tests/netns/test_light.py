"""What programs do without: modules that cost time or memory, and that they must not import before they are used.

Each is told by its own process: a signal has it write the names of what it has imported.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lab.laboratory import Laboratory
from lab.programs import Program, environment, server

import candy

pytestmark = pytest.mark.netns

TELLING = """
import os, signal, sys
def tell(*_):
    os.write(2, ("modules: " + " ".join(sorted(sys.modules)) + chr(10)).encode())
signal.signal(signal.SIGUSR2, tell)
"""
NEVER = {"pyroute2", "cryptography", "pydantic", "prometheus_client", "rich"}
"""Of an idle program whose optional parts nobody uses."""
OF_RELAY = NEVER | {
    *("candy.member", "candy.control.server", "candy.control.document", "candy.control.webpage"),
    *("candy.host.interface", "candy.host.netlink", "candy.relay.sealing", "candy.relay.cluster", "pytun"),
    "nats",
}
OF_MEMBER = NEVER | {
    *("candy.relay.network", "candy.relay.pool", "candy.control.server", "sqlite3"),
    *("aiohttp", "http.client", "urllib.request", "email", "html.entities"),
}
AT_ONCE = NEVER | {
    *("aiohttp", "h11", "asyncio", "ssl", "sqlite3", "tomllib", "subprocess"),
    *("candy._fastpath", "candy.settings", "candy.cli.files", "candy.cli.gathering", "candy.control.model"),
    *("candy.relay", "candy.member", "candy.carrier"),
}
"""Of --version and --help, which are there at once."""


@pytest.fixture
def telling(tmp_path: Path) -> dict[str, str]:
    """The environment of a program that tells its modules on SIGUSR2."""
    (tmp_path / "telling").mkdir()
    (tmp_path / "telling" / "sitecustomize.py").write_text(TELLING)
    return {"PYTHONPATH": f"{tmp_path / 'telling'}:{Path(candy.__file__).parent.parent}"}


def modules(program: Program) -> set[str]:
    at = len(program.lines)
    program.signal(signal.SIGUSR2)
    return set(program.wait_for("^modules: (.*)", at)[1].split())


def test_idle_programs(laboratory: Laboratory, telling: dict[str, str]) -> None:
    with laboratory.hub:
        argv = server("-w", f"{laboratory.url}")
        relay = laboratory.enter(Program("relay", argv, environment(laboratory.folder / "relay") | telling))
    relay.wait_for("listening on")
    client = laboratory.client(PYTHONPATH=telling["PYTHONPATH"])
    client.connected()
    has_relay, has_client = modules(relay), modules(client)
    assert {"aiohttp.web", "candy.relay.network"} <= has_relay
    assert {"h11", "candy.host.netlink"} <= has_client
    assert (has_relay & OF_RELAY, has_client & OF_MEMBER) == (set(), set())
    # What is used is imported then.
    asked = [sys.executable, "-c", "from candy.cli.client import main; main()", "status"]
    line = [*asked, "--control-socket", str(client.control)]
    ran = subprocess.run(line, env=dict(os.environ) | telling, capture_output=True, text=True, check=True)
    assert "connected" in ran.stdout
    assert {"candy.control.server", "aiohttp.web"} <= modules(client)


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("line", ["--help", "--version"])
def test_help_and_version(side: str, line: str) -> None:
    code = f"import sys\nfrom candy.cli.{side} import main\ntry:\n    main()\nfinally:\n    print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code, line], capture_output=True, text=True, check=True)
    assert set(ran.stdout.splitlines()[-1].split()) & AT_ONCE == set()
