"""An Ethernet, a relay on its hub, clients on its hosts.

    Laboratory(stack, folder) ─▶ relay(flags), client(flags), client(flags) … ─▶ the stack is closed

Rule: everything in it is ended, or let go, in the reverse order of its making.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from lab.namespaces import Ethernet, Host
from lab.programs import Program, RelayProgram, client, control_of, environment

PORT = 26816
"""The relay's, on the hub."""


class Client(Program):
    """A candy-client on a host.

    Args:
        host: where it runs.
        state: its state folder.
        argv: its command line.
        before: what goes before it: a command that runs it.
        environ: what its environment has beside the usual.
    """

    def __init__(self, host: Host, state: Path, *argv: str, before: Sequence[str] = (), **environ: str) -> None:
        self.host = host
        self.control = control_of(state)
        """Its control socket."""
        with host:
            super().__init__(f"client on {host.name}", [*before, *client(*argv)], environment(state) | environ)

    def connected(self, after: int = 0) -> str:
        """Wait until the relay has answered; the address."""
        return self.wait_for(r"connected as ([0-9.]+)/\d+ ", after)[1]


class Laboratory:
    """What a test starts in it runs to the end of its stack."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.ethernet = Ethernet(stack)
        self.hub = self.ethernet.hub
        self.url = f"ws://{Ethernet.ADDRESS}:{PORT}"

    def relay(self, *flags: str, host: str = Ethernet.ADDRESS, port: int = PORT, scheme: str = "ws") -> RelayProgram:
        """Start a candy-server on the hub, with the state of the one before."""
        with self.hub:
            relay = RelayProgram(self.folder / "relay", *flags, host=host, port=port, scheme=scheme)
        return self.stack.enter_context(relay)

    def enter(self, program: Program) -> Program:
        """End it with the rest."""
        return self.stack.enter_context(program)

    def state(self, host: Host) -> Path:
        """The state folder of a host's clients."""
        return self.folder / host.name.replace(" ", "")

    def host(self) -> Host:
        return self.ethernet.host()

    def client(
        self,
        *flags: str,
        host: Host | None = None,
        url: str | None = None,
        before: Sequence[str] = (),
        by_relay: Sequence[str] = ("--no-direct",),
        **environ: str,
    ) -> Client:
        """Start a candy-client on a host, or on a new one; a host's clients have the same state.

        Its packets all go by the relay, unless --direct is among the flags: most tests look at what passes there, and
        within a second two members would be past it. An older candy-client has no such flag (`by_relay` is empty).
        """
        host = host or self.host()
        argv = "-w", url or self.url, "--debug", *by_relay, *flags
        return self.stack.enter_context(Client(host, self.state(host), *argv, before=before, **environ))
