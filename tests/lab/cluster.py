"""Three relays and three servers of NATS, each on a host of its own, as docs/cluster.md has them; and what goes wrong.

    hub, 10.0.0.1: members     hosts .2 .3 .4: the relays eu, us, ap     hosts .5 .6 .7: NATS' servers a, b, c

    Site(stack, folder) ─▶ start() ─▶ kill(), hold(), part(), clocks[name].shift() ─▶ heal()

Both networks have one pool, so that a packet which goes astray between them finds somebody.
"""

import shutil
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from kit.nats import DOCUMENT, NAMES, PROGRAM, SECRET, documented, with_users
from lab.namespaces import Ethernet, Host
from lab.programs import Program, environment, server
from lab.shifted import Clock, built

from candy.checked import checked
from candy.relay.clustersettings import ClusterSettings

PORT: Final = 26816
SERVERS: Final = ("a", "b", "c")
NETWORKS: Final = {"/": "pw", "/other": "another"}
"""With their passwords."""
POOL: Final = "10.9.0.0/24"
TOLERANCE_S: Final = 600
"""Members' clocks are right, and relays' up to half of it off."""
_HOOKS: Final = {"in": "input", "out": "output"}
CONFIGURATION: Final = """
websocket = "ws://{address}:{port}"
control_socket = "{folder}/{name}.sock"
dhcp = "{pool}"
password = "{password}"
clock_tolerance = {tolerance}
[network."/other"]
dhcp = "{pool}"
password = "{other_password}"
clock_tolerance = {tolerance}
[cluster]
nats = [{nats}]
name = "{name}"
url = "ws://{address}:{port}"
credentials = "{folder}/{name}"
secret_file = "{folder}/secret"
replicas = 3
"""


def all_but_network_keys(folder: str, names: list[str]) -> list[str]:
    """What copytree() leaves out of a folder with keys of networks: each relay makes a key of its own."""
    return [name for name in names if name.endswith((".key", "handshake")) and name != "network.key"]


class Site:
    """See above."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        ethernet = Ethernet(stack)
        self.hub = ethernet.hub
        self.hosts: dict[str, Host] = {name: ethernet.host() for name in (*NAMES, *SERVERS)}
        """Of relays and servers, by name."""
        self.running: dict[str, Program] = {}
        self.held: set[str] = set()
        self._parted: set[str] = set()
        library = built(folder)
        self.clocks = {name: Clock(library, folder / f"{name}.clock") for name in NAMES}
        """Of the relays."""
        listed = ", ".join(f'"nats://{self.hosts[name].address}:4222"' for name in SERVERS)
        (folder / "secret").write_bytes(SECRET)
        for name in NAMES:
            (folder / name).write_text(f"{name}:PASSWORD_OF_{name}\n")
            text = CONFIGURATION.format(
                name=name,
                address=self.hosts[name].address,
                port=PORT,
                folder=folder,
                pool=POOL,
                password=NETWORKS["/"],
                other_password=NETWORKS["/other"],
                tolerance=TOLERANCE_S,
                nats=listed,
            )
            (folder / f"{name}.toml").write_text(text)
            (folder / f"{name}.toml").chmod(0o600)
        for name in SERVERS:
            text = with_users(documented(), NAMES).replace("server_name: a", f"server_name: {name}")
            assert self.hosts[name].address in text, f"{DOCUMENT} has other addresses"
            (folder / f"{name}.conf").write_text(text.replace("/var/lib/nats", str(folder / f"data-{name}")))
        for file in ("secret", *NAMES):
            (folder / file).chmod(0o600)

    # What runs.

    def start(self) -> None:
        """All of it; the keys of the networks are the first relay's, as docs/cluster.md says."""
        for name in SERVERS:
            self.begin(name)
        self.begin("eu")
        self.listening("eu")
        for other in NAMES[1:]:
            shutil.copytree(self._state("eu") / "keys", self._state(other) / "keys", ignore=all_but_network_keys)
            self._state(other).chmod(0o700)
            self.begin(other)
        for other in NAMES[1:]:
            self.listening(other)

    def begin(self, name: str) -> None:
        """A relay or a server, as it was before."""
        if name in SERVERS:
            argv, environ = [str(PROGRAM), "-c", str(self._folder / f"{name}.conf")], {}
        else:
            argv = server("-c", str(self._folder / f"{name}.toml"), "--debug")
            environ = environment(self._state(name), None) | self.clocks[name].environment()
        with self.hosts[name]:
            self.running[name] = self._stack.enter_context(Program(name, argv, environ))

    def listening(self, name: str) -> None:
        """Wait until a relay does."""
        self.running[name].wait_for(r"listening on 10\.0\.0\.")

    def control(self, name: str) -> Path:
        """A relay's control socket."""
        return self._folder / f"{name}.sock"

    def settings(self, name: str) -> ClusterSettings:
        """Of a relay, for who looks into NATS in its place."""
        return checked(
            ClusterSettings,
            {
                "nats": [f"nats://{self.hosts[each].address}:4222" for each in SERVERS],
                "credentials": self._folder / name,
                "name": name,
                "url": "ws://nowhere",
                "replicas": 3,
                "secret_file": self._folder / "secret",
            },
        )

    def _state(self, name: str) -> Path:
        return self._folder / f"state-{name}"

    # What goes wrong.

    def kill(self, name: str) -> None:
        program = self.running.pop(name)
        program.signal(signal.SIGKILL)
        program.wait()
        self.held.discard(name)

    def hold(self, name: str) -> None:
        """Stop it as a machine does that hangs."""
        self.held.add(name)
        self.running[name].signal(signal.SIGSTOP)

    def part(self, name: str, others: tuple[str, ...], ways: tuple[str, ...] = ("in", "out")) -> None:
        """Let nothing in, or out, between a host and others; both ways stay open for what is not named."""
        if name not in self._parted:
            self._parted.add(name)
            for way, hook in _HOOKS.items():
                chain = f"add chain ip parted {way} {{ type filter hook {hook} priority 0; }}"
                self._nft(name, f"add table ip parted; {chain}")
        for way in ways:
            end = "saddr" if way == "in" else "daddr"
            for other in others:
                self._nft(name, f"add rule ip parted {way} ip {end} {self.hosts[other].address} drop")

    def heal(self) -> None:
        """Make all whole again, at once; what was killed begins."""
        for name in self._parted:
            self._nft(name, "delete table ip parted")
        self._parted.clear()
        for name in self.held:
            self.running[name].signal(signal.SIGCONT)
        self.held.clear()
        for name in (*SERVERS, *NAMES):
            if name not in self.running:
                self.begin(name)

    def _nft(self, name: str, command: str) -> None:
        self.hosts[name].run("nft", command)
