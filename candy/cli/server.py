"""candy-server: the relay's command."""

import secrets

from candy.cli.command import Command, Gathered
from candy.config import Given, ServerSettings, server_settings
from candy.errors import ConfigError
from candy.state import server_password


def configure(gathered: Gathered, check: bool) -> ServerSettings:
    """The relay's settings. Without a password one is made, and kept unless this is a check.

    Raises:
        ConfigError: a value can't be meant.
        OperationalError: the state folder can't be used.
    """
    given = dict(gathered.given)
    given.pop("sdwan", None)
    if gathered.from_file and "dhcp" not in given:
        # As with the original, a file has a pool only if it says so.
        given["dhcp"] = Given("", "--config")
    password = gathered.password
    if password is not None and not password.value:
        raise ConfigError(f"{password.origin}: an empty password lets everybody in: leave it out to have one made")
    settings = server_settings(
        given, password=password.value if password else b"", password_is_generated=password is None
    )
    if password is None and not check:
        settings = settings.model_copy(update={"password": server_password(settings.state_dir, secrets.token_urlsafe)})
    return settings


def run(settings: ServerSettings) -> int:
    """Serve until a signal ends it; returns the exit status."""
    from candy import server

    return server.run(settings)


main = Command(
    "server",
    "Relay a candy network: accept its members over WebSocket, hand out addresses, forward packets.",
    configure,
    run,
)
