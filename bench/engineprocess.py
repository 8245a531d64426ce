"""The engine of a checkout as a contestant, in a process of its own."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import _endpoints
from contestant import Contestant, close_all, connected_pairs, endpoints
from machine import Cores
from topology import Topology

from candy import _fastpath

OWN = Path(_fastpath.__file__).resolve().parent.parent
"""The checkout whose engine this process has."""


def check_built(checkout: Path) -> None:
    """See that a checkout has an engine to run.

    Raises:
        FileNotFoundError: it has none; says what to do.
    """
    if not any(checkout.glob("candy/_fastpath*.so")):
        raise FileNotFoundError(f"{checkout} has no candy/_fastpath*.so: run 'make build' there")


class EngineProcess(Contestant):
    """A checkout's own engine, whatever else is installed; the members are in this process.

    Args:
        checkout: its folder.
        extended: as for Candy.

    Raises:
        RuntimeError: the process did not start the checkout's own engine.
    """

    def __init__(
        self, checkout: Path, topology: Topology, size: int, cores: Cores, *, workers: int, extended: bool
    ) -> None:
        self.name = str(checkout)
        self.topology = topology
        # In front of what is installed, and of what another checkout put there.
        path = os.pathsep.join(filter(None, (str(checkout.resolve()), os.environ.get("PYTHONPATH"))))
        pairs = connected_pairs(len(topology.routes))
        self._members = [member for member, _ in pairs]
        ends = [relay for _, relay in pairs]
        try:
            with cores.for_relay():
                self._process = subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name("engine_relay.py"))],
                    env={**os.environ, "PYTHONPATH": path},
                    pass_fds=[end.fileno() for end in ends],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            addresses = {end.fileno(): _endpoints.MEMBER_BASE + number for number, end in enumerate(ends)}
        finally:
            close_all(ends)
        with ExitStack() as undo:
            undo.callback(self.close)
            started = self._ask({"workers": workers, "extended": extended, "members": addresses})
            if "error" in started:
                raise RuntimeError(f"{checkout}: {started['error']}")
            if Path(started["engine"]).resolve().parent.parent != checkout.resolve():
                raise RuntimeError(f"{checkout}: its process has the engine {started['engine']}")
            self.endpoints = endpoints(self._members, topology, size)
            undo.pop_all()

    def _ask(self, question: dict[str, object]) -> Any:
        """The answer of the process.

        Raises:
            RuntimeError: it ended instead.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # It may have ended with a last word.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name}: its engine's process ended")
        return json.loads(answer)

    def cpu_ns(self) -> int:
        found: int = self._ask({})["cpu_ns"]
        return found

    def sends(self) -> int:
        found: int = self._ask({})["sends"]
        return found

    def drops(self) -> dict[str, int]:
        found: dict[str, int] = self._ask({})["drops"]
        return found

    def close(self) -> None:
        close_all(self._members)
        self._process.kill()
        self._process.communicate()
