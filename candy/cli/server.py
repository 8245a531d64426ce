"""candy-server: the relay's command."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from candy.cli.command import Command, service_group

if TYPE_CHECKING:
    from candy.cli.gathering import Gathered
    from candy.relay.settings import RelaySettings


def configure(gathered: "Gathered", check: bool) -> "RelaySettings":
    from candy.cli import judging

    return judging.configure(gathered, check)


def doubts(gathered: "Gathered", settings: "RelaySettings") -> list[str]:
    from candy.cli import judging

    return judging.doubts(gathered, settings)


def _install(root: str) -> int:
    from candy.cli import service

    parent = click.get_current_context().find_root()
    return service.install_server(parent.params.get("config"), root)


def _uninstall(root: str) -> int:
    from candy.cli import service

    return service.uninstall("candy-server", root)


def _service() -> click.Group:
    about = "Have systemd run the relay, with the settings of -c, or /etc/candy/server.toml."
    return service_group(about, _install, _uninstall)


@contextmanager
def _without_trusted_certificates() -> Iterator[None]:
    """Have OpenSSL find none meanwhile. aiohttp loads all of the system's when it is imported, for its client: two
    megabytes that nobody has a use for, because the engine does TLS."""
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = os.devnull
    try:
        yield
    finally:
        del os.environ["SSL_CERT_FILE"]
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before


def run(settings: "RelaySettings", reread: "Callable[[], RelaySettings] | None") -> int:
    """Serve until a signal ends the program; returns the exit status."""
    with _without_trusted_certificates():
        from candy.relay import lifecycle

    return lifecycle.run(settings, reread)


main: "Command[RelaySettings]" = Command(
    "server",
    "Relay a candy network: accept its members over WebSocket, hand out addresses, forward packets.",
    configure,
    run,
    doubts,
    more=[_service()],
)
