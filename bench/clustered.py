"""Relays of one cluster beside servers of NATS, as programs of this machine, for the benchmarks.

    Clustered(stack, folder, servers=3) ─▶ relay("eu"), relay("us") … ─▶ the stack is closed

What runs is begun where the caller is: within a network namespace it is there.
"""

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from relayprogram import RelayProgram

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from kit.nats import Servers, free_ports
from lab.cluster import all_but_network_keys

CONFIGURATION = """
websocket = "ws://{host}:{port}"
dhcp = "{pool}"
clock_tolerance = 3600
[cluster]
nats = [{nats}]
name = "{name}"
url = "ws://127.0.0.1:{port}"
credentials = "{credentials}"
secret_file = "{secret}"
replicas = {replicas}
"""


class Clustered:
    """See above.

    Args:
        folder: empty, the caller's.
        pool: of the network.
        host: on which the relays listen.
        servers: of NATS, 1 or 3.
    """

    def __init__(self, stack: ExitStack, folder: Path, pool: str, *, host: str = "127.0.0.1", servers: int = 3) -> None:
        self._stack = stack
        self._folder = folder
        self._pool = pool
        self._host = host
        self._servers = Servers(folder / "nats", servers)
        self._servers.start()
        stack.callback(self._servers.kill)
        self._first: Path | None = None

    def relay(self, name: str) -> RelayProgram:
        """One more, which listens."""
        settings = self._servers.settings(name)
        for file in (settings.credentials, settings.secret_file):
            assert file is not None
            file.chmod(0o600)
        state, [port] = self._folder / name, free_ports(1)
        state.mkdir(mode=0o700)
        if self._first is None:
            self._first = state
        else:
            # The network's key is one, as docs/cluster.md says.
            shutil.copytree(self._first / "keys", state / "keys", ignore=all_but_network_keys)
        text = CONFIGURATION.format(
            host=self._host,
            port=port,
            pool=self._pool,
            name=name,
            nats=", ".join(f'"{url}"' for url in settings.nats),
            credentials=settings.credentials,
            secret=settings.secret_file,
            replicas=settings.replicas,
        )
        file = self._folder / f"{name}.toml"
        file.write_text(text)
        return self._stack.enter_context(RelayProgram(state, self._pool, file))
