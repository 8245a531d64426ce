"""Two builds of candy in one laboratory: this tree's, and the reference of kit/reference.py. A plugin of pytest.

    NEW, or the fixture `reference` ─▶ relay(laboratory, flags), client(laboratory, flags)

Rules:
 1. A program runs the code of its own build. That is seen in the running process: which engine it has mapped.
 2. A test with the fixture `reference` is deselected where git's history lacks the commit, and the summary says why.
    It isn't skipped, because a skip is a failure in CI (skips.py), and CI may have a shallow clone.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
from kit.reference import ReferenceFailed, build, why_absent
from lab.laboratory import PORT, Client, Laboratory
from lab.namespaces import Ethernet, Host
from lab.programs import Program, environment, server

import candy


@dataclass(frozen=True)
class Build:
    """A candy that programs can be started with.

    Args:
        name: in test ids and logs.
        folder: holds the package `candy`.
    """

    name: str
    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        # Without PYTHONSAFEPATH the current folder, which is this checkout, would come before PYTHONPATH.
        return {"PYTHONPATH": str(self.folder), "PYTHONSAFEPATH": "1"}

    def relay(self, laboratory: Laboratory, *flags: str) -> Program:
        """Start a candy-server on the hub, with the state of the one before; wait until it listens."""
        environ = environment(laboratory.folder / "relay") | self.environ
        with laboratory.hub:
            relay = Program(f"{self.name} relay", server("-w", laboratory.url, "--debug", *flags), environ)
        laboratory.enter(relay)
        relay.wait_for(rf"listening on {Ethernet.ADDRESS}:{PORT}")
        self.check(relay)
        return relay

    def client(self, laboratory: Laboratory, *flags: str, host: Host | None = None) -> Client:
        """Start a candy-client on a host, or on a new one."""
        by_relay = ("--no-direct",) if self.name == "new" else ()
        return laboratory.client(*flags, host=host, by_relay=by_relay, **self.environ)

    def check(self, program: Program) -> None:
        """Rule 1, for a program that has logged something, and so has loaded what it runs."""
        lines = Path(f"/proc/{program.pid}/maps").read_text().splitlines()
        mapped = {Path(line.split(maxsplit=5)[-1]) for line in lines}
        engines = {path for path in mapped if path.name.startswith("_fastpath.")}
        assert {path.parent for path in engines} == {self.folder / "candy"}, f"{program.name} runs {engines}"


NEW = Build("new", Path(candy.__file__).resolve().parent.parent)


@pytest.fixture(scope="session")
def reference() -> Build:
    """The older build, made at its first use; that takes about a minute."""
    old = Build("old", build().resolve())
    # That tree has no folders by side, so it can't be this tree's code under another name.
    assert (old.folder / "candy" / "server.py").exists()
    assert not (NEW.folder / "candy" / "server.py").exists()
    return old


PASSED_OVER = pytest.StashKey[tuple[int, str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Rule 2."""
    concerned = [item for item in items if "reference" in getattr(item, "fixturenames", ())]
    if not concerned:
        return
    try:
        why = why_absent()
    except ReferenceFailed:
        # The fixture fails for the same reason, and shows it with a test.
        return
    if why is not None:
        config.stash[PASSED_OVER] = len(concerned), why
        config.hook.pytest_deselected(items=concerned)
        items[:] = [item for item in items if item not in concerned]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if PASSED_OVER in config.stash:
        count, why = config.stash[PASSED_OVER]
        tests = "1 test with an older candy is" if count == 1 else f"{count} tests with an older candy are"
        terminalreporter.write_line(f"{tests} passed over: {why}", yellow=True)
