"""Two relays of one cluster on the hub of a laboratory, before a real server of NATS there.

    Clustered(laboratory) ─▶ both() ─▶ clients at URLS ─▶ relays["eu"] is killed or held, or cut("eu")

All of it ends with the laboratory.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from kit.nats import Servers
from lab.laboratory import PORT, Laboratory
from lab.namespaces import Ethernet, Host
from lab.programs import PASSWORD, PATIENCE_S, Program, environment, server

ADDRESSES = {"eu": Ethernet.ADDRESS, "us": "10.98.7.1"}
URLS = {name: f"ws://{address}:{PORT}" for name, address in ADDRESSES.items()}


class Clustered:
    """See above.

    Args:
        public: whether members are told of the other relay.
    """

    def __init__(self, laboratory: Laboratory, *, public: bool = True) -> None:
        self._laboratory = laboratory
        self._public = public
        self.hub = laboratory.hub
        self.hub.run("ip", "address", "add", f"{ADDRESSES['us']}/32", "dev", "lo")
        self._servers = Servers(laboratory.folder / "nats", 1, tuple(ADDRESSES))
        laboratory.stack.callback(self._servers.kill)
        with self.hub:
            self._servers.start()
        self.relays: dict[str, Program] = {}

    def both(self) -> None:
        """Start them, and wait until each has heard of the other."""
        self.start("eu")
        [key] = self.state("eu").glob("keys/*/network.key")
        folder = self.state("us") / "keys" / key.parent.name
        folder.mkdir(mode=0o700, parents=True)
        (folder / "network.key").write_bytes(key.read_bytes())
        (folder / "network.key").chmod(0o600)
        self.start("us")
        for name, other in (("eu", "us"), ("us", "eu")):
            self.relays[name].wait_for(f"cluster: linked with the relay {other}")

    def start(self, name: str) -> Program:
        settings, url = self._servers.settings(name), URLS[name]
        listed = ", ".join(f'"{each}"' for each in settings.nats)
        file = self._laboratory.folder / f"{name}.toml"
        file.write_text(
            f'websocket = "{url}"\npassword = "{PASSWORD}"\ndhcp = "10.9.0.0/24"\nworkers = 2\ndebug = true\n'
            + (f'public_url = "{url}"\n' if self._public else "")
            + f'control_socket = "{self._socket(name)}"\n[cluster]\nnats = [{listed}]\nname = "{name}"\nurl = "{url}"\n'
            f'credentials = "{settings.credentials}"\nsecret_file = "{settings.secret_file}"\n'
        )
        with self.hub:
            relay = Program(name, server("-c", str(file)), environment(self.state(name), None))
        self.relays[name] = self._laboratory.stack.enter_context(relay)
        relay.wait_for(rf"listening on {ADDRESSES[name]}:{PORT}")
        return relay

    def state(self, name: str) -> Path:
        return self._laboratory.folder / f"state-{name}"

    def _socket(self, name: str) -> Path:
        return self._laboratory.folder / f"{name}.sock"

    def status(self, name: str) -> Any:
        return json.loads(self.shown(name, "--json"))

    def shown(self, name: str, *flags: str) -> str:
        """What `candy-server status` prints."""
        argv = server("status", *flags, "--control-socket", str(self._socket(name)))
        environ = environment(self.state(name))
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=PATIENCE_S, env=environ).stdout

    def host(self) -> Host:
        """One that reaches both."""
        made = self._laboratory.host()
        made.run("ip", "route", "add", "default", "via", Ethernet.ADDRESS)
        return made

    def cut(self, name: str) -> None:
        """Have nothing of a relay's reach its members any more, nor theirs reach it, without a word."""
        run, address = self.hub.run, ADDRESSES[name]
        run("nft", "add table ip cut; add chain ip cut in { type filter hook input priority 0; }")
        run("nft", f"add rule ip cut in iifname bridge0 ip daddr {address} tcp dport {PORT} drop")
        run("nft", "add chain ip cut out { type filter hook output priority 0; }")
        run("nft", f"add rule ip cut out oifname bridge0 ip saddr {address} tcp sport {PORT} drop")
