"""What the user wrote becomes the relay's settings; and what --check says of sound settings that are perhaps not meant.

Gathered ─▶ configure() ─▶ RelaySettings ─▶ doubts() ─▶ lines
"""

import secrets
import time
from collections.abc import Mapping

from candy.cli.gathering import Gathered
from candy.errors import ConfigError
from candy.options import DEFAULT_POOL
from candy.relay.settings import RelaySettings, relay_settings
from candy.relay.state import kept_password
from candy.settings import Given


def configure(gathered: Gathered, check: bool) -> RelaySettings:
    """The relay's settings. If no password is given for the network `/`, in no form, one is generated, and kept unless
    this is a check.

    Raises:
        ConfigError: a value can't be right.
        OperationalError: the password that was kept can't be read.
    """
    password = gathered.password
    if password is not None and not password.value:
        raise ConfigError(f"{password.origin}: an empty password lets every machine in: leave it out to have one made")
    for network in gathered.networks:
        if network.password is not None and not network.password.value:
            raise ConfigError(f"{network.password.origin}: an empty password lets every machine in: write one")
    # As with the original, a file has a pool only if it says so.
    given = _without_pool(gathered.given) if gathered.from_file else gathered.given
    is_generated = password is None and not gathered.passwords
    networks = [network._replace(given=_without_pool(network.given)) for network in gathered.networks]
    settings = relay_settings(
        given,
        password=password.value if password else b"",
        password_is_generated=is_generated,
        passwords=gathered.passwords,
        networks=networks,
    )
    if is_generated and not check:
        made = kept_password(settings.state_dir, secrets.token_urlsafe)
        main, *others = settings.networks
        main = main.model_copy(update={"password": made})
        settings = settings.model_copy(update={"networks": (main, *others)})
    return settings


def doubts(gathered: Gathered, settings: RelaySettings) -> list[str]:
    """Networks whose old clients have no password of their own. Of a file those without a pool, too, unless it says so:
    as with the original, their members need addresses. And those whose passwords have all come to their ends."""
    shared = [] if settings.doubt_of_shared is None else [settings.doubt_of_shared]
    return [*_doubts_of_file(gathered), *shared] if gathered.from_file else shared


def _doubts_of_file(gathered: Gathered) -> list[str]:
    networks = [("", gathered.given), *((f"{network.path.value}: ", network.given) for network in gathered.networks)]
    lists = [("", gathered.password, gathered.passwords)]
    lists += [(f"{each.path.value}: ", each.password, tuple(each.passwords)) for each in gathered.networks]
    return [
        f"{label}no password holds any more, so nobody can log in"
        for label, short, listed in lists
        if short is None and listed and not any(each.value.holds(time.time()) for each in listed)
    ] + [
        f"{label}the file has no dhcp, so members without an address of their own (--tun) are refused: "
        f'write dhcp = "{DEFAULT_POOL}", or dhcp = "" if that is meant'
        for label, given in networks
        if "dhcp" not in given
    ]


def _without_pool(given: Mapping[str, Given]) -> Mapping[str, Given]:
    return {"dhcp": Given("", "--dhcp"), **given}
