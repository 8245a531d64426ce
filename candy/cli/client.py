"""candy-client: the member's command."""

from collections.abc import Callable

from candy.cli import device, doctor
from candy.cli.command import Command, Gathered
from candy.errors import ConfigError
from candy.member.keys import MemberKeys
from candy.member.login import NO_CREDENTIAL
from candy.member.settings import MemberSettings, member_settings


def configure(gathered: Gathered, check: bool) -> MemberSettings:
    """The member's settings. Nothing is written, with or without check.

    Raises:
        ConfigError: a value can't be right, or there is neither a password nor a credential of an earlier log-in.
        OperationalError: that is damaged.
    """
    # An empty password counts as one: networks of the original may have it.
    password = gathered.password
    settings = member_settings(gathered.given, password=None if password is None else password.value)
    if password is None and MemberKeys(settings.state_dir, settings.name).ticket() is None:
        raise ConfigError(NO_CREDENTIAL)
    return settings


def run(settings: MemberSettings, reread: Callable[[], MemberSettings] | None) -> int:
    """Stay in the network until a signal ends the program; returns the exit status."""
    from candy.member import lifecycle

    return lifecycle.run(settings, reread)


main = Command(
    "client",
    "Join this machine to a candy network: a TUN interface whose packets travel through the relay.",
    configure,
    run,
    more=[*device.commands(), doctor.command()],
)
