"""candy-server: the relay's command."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from candy.cli.command import Command, without_trusted_certificates

if TYPE_CHECKING:
    from candy.cli.gathering import Gathered
    from candy.relay.settings import RelaySettings


def configure(gathered: "Gathered", check: bool) -> "RelaySettings":
    from candy.cli import judging

    return judging.configure(gathered, check)


def doubts(gathered: "Gathered", settings: "RelaySettings") -> list[str]:
    from candy.cli import judging

    return judging.doubts(gathered, settings)


def run(settings: "RelaySettings", reread: "Callable[[], RelaySettings] | None") -> int:
    """Serve until a signal ends the program; returns the exit status."""
    with without_trusted_certificates():
        from candy.relay import lifecycle

    return lifecycle.run(settings, reread)


main: "Command[RelaySettings]" = Command(
    "server",
    "Relay a candy network: accept its members over WebSocket, hand out addresses, forward packets.",
    configure,
    run,
    doubts,
)
