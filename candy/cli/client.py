"""candy-client: the member's command."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from candy.cli.command import Command, service_group

if TYPE_CHECKING:
    from candy.cli.gathering import Gathered
    from candy.member.settings import MemberSettings


def configure(gathered: "Gathered", check: bool) -> "MemberSettings":
    """The member's settings. Nothing is written, with or without check.

    Raises:
        ConfigError: a value can't be right, or there is neither a password nor a credential of an earlier log-in.
        OperationalError: that is damaged.
    """
    from candy.errors import ConfigError
    from candy.member.keys import MemberKeys
    from candy.member.login import NO_CREDENTIAL
    from candy.member.settings import member_settings

    # An empty password counts as one: networks of the original may have it.
    password = gathered.password
    settings = member_settings(gathered.given, password=None if password is None else password.value)
    if password is None and MemberKeys(settings.state_dir, settings.name).ticket() is None:
        raise ConfigError(NO_CREDENTIAL)
    return settings


def run(settings: "MemberSettings", reread: "Callable[[], MemberSettings] | None") -> int:
    """Stay in the network until a signal ends the program; returns the exit status."""
    from candy.member import lifecycle

    return lifecycle.run(settings, reread)


def _join(link: str) -> int:
    from candy.cli import device

    return device.join(link)


def _accept(key: str) -> int:
    from candy.cli import device

    return device.accept(key)


def _secret_new(file: str | None) -> int:
    from candy.cli import device

    return device.secret_new(file)


def _doctor(is_json: bool) -> int:
    from candy.cli import doctor

    return doctor.doctor(is_json)


def _install(name: str, root: str) -> int:
    from candy.cli import service

    return service.install_client(name, root)


def _uninstall(name: str, root: str) -> int:
    from candy.cli import service

    return service.uninstall(f"candy-client@{name}", root)


def commands() -> list[click.Command]:
    """Those that ask no program: what they do is candy.cli.device's and candy.cli.doctor's."""
    common: dict[str, Any] = {"context_settings": {"help_option_names": ["-h", "--help"]}}
    secret = click.Group("secret", help="A secret for the members of a network, which no relay gets.", **common)
    secret.add_command(
        click.Command(
            "new",
            params=[click.Argument(["file"], required=False)],
            callback=_secret_new,
            help="Make a secret: into FILE, which must not be there yet, or else print it.",
            **common,
        )
    )
    join = click.Command(
        "join",
        params=[click.Argument(["link"], metavar="LINK|-")],
        callback=_join,
        help="Redeem an invitation, and write the file of -c to start with. With - the link is on standard input.",
        **common,
    )
    accept = click.Command(
        "accept",
        params=[click.Argument(["key"])],
        callback=_accept,
        help="Believe a key of the network or the relay that was refused, as that line names it.",
        **common,
    )
    doctor = click.Command(
        "doctor",
        params=[click.Option(["--json", "is_json"], is_flag=True, help="print what is found as JSON")],
        callback=_doctor,
        help="Look for what is wrong between this machine and its network, whether or not a client runs.",
        **common,
    )
    about = "Have systemd run a client, with the settings of /etc/candy/NAME.toml."
    service = service_group(about, _install, _uninstall, click.Argument(["name"]))
    return [join, accept, secret, doctor, service]


main: "Command[MemberSettings]" = Command(
    "client",
    "Join this machine to a candy network: a TUN interface whose packets travel through the relay.",
    configure,
    run,
    more=commands(),
)
