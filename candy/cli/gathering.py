"""What the user wrote, brought together from all places, before it is judged.

    command line ┐
    environment  ┼─▶ gather() ─▶ Gathered: values by option, each with its origin, and passwords
    -c FILE      ┘

The command line wins over the file. The password: -p, --password-file, CANDY_PASSWORD, then the file. One that every
user of the machine can see is used, with a warning.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from candy.cli.files import Written, is_exposed, read_file
from candy.cli.passwords import (
    exposed,
    holds_password,
    list_of,
    password_of,
    password_of_environment,
    secret_of,
    warn_of_shared,
    without_passwords,
)
from candy.errors import ConfigError
from candy.options import OPTIONS, Side, by_key, options_of_other_side, other_side
from candy.settings import Given, GivenNetwork


@dataclass(frozen=True)
class Gathered:
    """Everything the user wrote."""

    given: dict[str, Given]
    """By option name, without the passwords' options and without the other command's."""
    password: Given | None
    """Bytes."""
    passwords: tuple[Given, ...]
    """Of a file's list, each a Password."""
    networks: tuple[GivenNetwork, ...]
    """Of a file."""
    from_file: bool
    """A configuration file was read."""


def gather(
    side: Side,
    config: str | None,
    mode: str | None,
    written: Mapping[str, Any],
    environ: Mapping[str, str],
    warn: Callable[[str], None],
) -> Gathered:
    """Bring together what was written in all places.

    Args:
        config: the -c option.
        mode: the -m option.
        written: the other options by name; None where not given.
        environ: for CANDY_PASSWORD.
        warn: called with each warning.

    Raises:
        ConfigError: a file can't be read or understood, or this is the wrong command.
    """
    if config == "":
        raise ConfigError("--config: no file is named: give the path of one, or leave it out")
    file = Written() if config is None else read_file(Path(config), side)
    for warning in file.warnings:
        warn(warning)
    flags = {option.key: option.flag for option in (*OPTIONS[side], *options_of_other_side(side))}
    line = {key: Given(value, flags[key]) for key, value in written.items() if value not in (None, ())}
    _check_mode(side, Given(mode, "--mode") if mode is not None else file.given.get("mode"))

    if "password" in line:
        warn("--password: every user of this machine can see it: better CANDY_PASSWORD or --password-file")
    password = password_of(line, warn) or password_of_environment(environ) or password_of(file.given, warn)
    if config is not None and is_exposed(Path(config)) and holds_password(file):
        warn(f"{config}: {exposed(config, 'the password in it')}")

    given = file.given | line
    if (tls_key := given.get("tls_key")) is not None:
        # One in a file is text, several are a tuple.
        for key in (tls_key.value,) if isinstance(tls_key.value, str) else tls_key.value:
            if is_exposed(Path(key)):
                warn(f"{tls_key.origin}: {exposed(key)}")
    if (cluster := given.get("cluster")) is not None:
        for key in {"credentials", "secret_file"} & cluster.value.keys():
            if is_exposed(Path(cluster.value[key].value)):
                warn(f"{cluster.value[key].origin}: {exposed(cluster.value[key].value)}")
    if "sdwan" in line:
        # Rules on the command line replace the file's in either form.
        given.pop("routes", None)
    ours = by_key(side)
    for key, value in list(given.items()):
        option = ours.get(key)
        if option is None and key != "mode":
            warn(f"{value.origin}: is an option of candy-{other_side(side)}: ignored")
        if option is None:
            del given[key]
    given |= secret_of(given, warn)
    main = GivenNetwork(Given("/", ""), without_passwords(given), password, list_of(file.given, warn))
    networks = tuple(
        GivenNetwork(path, without_passwords(table), password_of(table, warn), list_of(table, warn))
        for path, table in file.networks
    )
    warn_of_shared((main, *networks), warn)
    return Gathered(dict(main.given), password, tuple(main.passwords), networks, config is not None)


def _check_mode(side: Side, mode: Given | None) -> None:
    if mode is None or mode.value == side:
        return
    if mode.value == other_side(side):
        raise ConfigError(f"{mode.origin}: this is candy-{side}: run candy-{mode.value} for mode {mode.value}")
    raise ConfigError(f"{mode.origin}: {mode.value!r} is not a mode: use client or server, or leave it out")
