"""Passwords, from the places where they may be written: the command line, the environment, a file's keys and its list.

    password, password_file, CANDY_PASSWORD ─▶ password_of(), password_of_environment(): one, the first there is
    passwords = [{ name, password | file, until, legacy, addresses }] ─▶ list_of(): all of it
    secret, the members' own file                          ─▶ secret_of()

Rules:
 1. What was read is bytes, each with its origin, and in no message.
 2. An entry of the list has a password or a file. An `until` without a time of day is the end of that day, and without
    an offset it is by this machine's clock.
    `legacy` and `addresses` candy.relay.passwords explains.
 3. That one is an empty password is judged where it is used.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from ipaddress import IPv4Network
from math import inf
from pathlib import Path

from candy.cli.files import Written, is_exposed, read_bytes
from candy.errors import ConfigError
from candy.protocol.secret import Secret
from candy.relay.passwords import Password
from candy.settings import Given, GivenNetwork

PASSWORD_OPTIONS = frozenset({"password", "password_file", "passwords"})
ENTRY_KEYS = ("name", "password", "file", "until", "legacy", "addresses")
"""Of an entry of the list."""


def without_passwords(given: Mapping[str, Given]) -> dict[str, Given]:
    """They have more sources, and are gathered for themselves."""
    return {key: value for key, value in given.items() if key not in PASSWORD_OPTIONS}


def password_of(source: Mapping[str, Given], warn: Callable[[str], None]) -> Given | None:
    """The password of one source, bytes.

    Raises:
        ConfigError: its file can't be read, or is empty.
    """
    if password := source.get("password"):
        return Given(_bytes(password.value), password.origin)
    file = source.get("password_file")
    return None if file is None else Given(_content(file, warn), file.origin)


def password_of_environment(environ: Mapping[str, str]) -> Given | None:
    password = environ.get("CANDY_PASSWORD")
    return Given(os.fsencode(password), "CANDY_PASSWORD") if password else None


def secret_of(source: Mapping[str, Given], warn: Callable[[str], None]) -> dict[str, Given]:
    """The members' secret, from its file; nothing if none is named.

    Raises:
        ConfigError: the file can't be read, or holds none.
    """
    file = source.get("secret")
    if file is None:
        return {}
    path = Path(file.value)
    try:
        secret = Secret.parse(read_bytes(path))
    except OSError as error:
        raise ConfigError(f"{file.origin}: cannot read {path}: {error.strerror}: name a readable file") from None
    except ValueError as error:
        raise ConfigError(f"{file.origin}: {path} {error}") from None
    if is_exposed(path):
        warn(f"{file.origin}: {exposed(file.value)}")
    return {"secret": Given(secret, file.origin)}


def list_of(source: Mapping[str, Given], warn: Callable[[str], None]) -> tuple[Given, ...]:
    """The entries of a list, each a Password.

    Raises:
        ConfigError: one is not as it should be.
    """
    given = source.get("passwords")
    return () if given is None else tuple(Given(_entry(each, warn), each.origin) for each in given.value)


def warn_of_shared(networks: Sequence[GivenNetwork], warn: Callable[[str], None]) -> None:
    """Warn of each password that two networks have; the first network is `/`."""
    known: dict[bytes, str] = {}
    for network in networks:
        short = [] if network.password is None else [network.password]
        listed = [Given(each.value.secret, each.origin) for each in network.passwords]
        for secret, origin in (*short, *listed):
            other = known.setdefault(secret, network.path.value)
            if other != network.path.value:
                # A digest covers the password and no network, so what is sniffed at one opens the other.
                warn(f"{origin}: is the password of the network {other} too: give each one of its own")


def holds_password(file: Written) -> bool:
    """Whether a password itself stands in a file of settings."""
    tables = (file.given, *(table for _, table in file.networks))
    listed = (each.value for table in tables if "passwords" in table for each in table["passwords"].value)
    return any("password" in table for table in (*tables, *listed))


def exposed(file: str, what: str = "") -> str:
    """The words of a warning about a file that is_exposed()."""
    return f"every user of this machine can read {what or file}: chmod 600 {file}"


def _entry(given: Given, warn: Callable[[str], None]) -> Password:
    table, origin = given
    if unknown := table.keys() - set(ENTRY_KEYS):
        raise ConfigError(f"{origin}: {min(unknown)} is not a part of a password: write {', '.join(ENTRY_KEYS)}")
    for key in ("name", "password", "file"):
        if not isinstance(table.get(key, ""), str):
            raise ConfigError(f"{origin}: {key} is not text in quotes")
    if ("password" in table) == ("file" in table):
        raise ConfigError(f"{origin}: needs a password, or a file to read it from, and not both")
    secret = _bytes(table["password"]) if "password" in table else _content(Given(table["file"], origin), warn)
    if not secret:
        raise ConfigError(f"{origin}: an empty password lets every machine in: write one")
    if not isinstance(legacy := table.get("legacy", False), bool):
        raise ConfigError(f"{origin}: legacy is neither true nor false: write one of them, without quotes")
    addresses = _addresses(table.get("addresses"), origin)
    return Password(secret, table.get("name", ""), _end(table.get("until"), origin), legacy, addresses)


def _addresses(text: object, origin: str) -> IPv4Network | None:
    if text is None:
        return None
    try:
        return IPv4Network(text if isinstance(text, str) else "")
    except ValueError:
        raise ConfigError(f"{origin}: addresses is not a network: write it like 192.168.202.64/28") from None


def _end(until: object, origin: str) -> float:
    """Unix seconds."""
    match until:
        case None:
            return inf
        case datetime():
            return until.timestamp()
        case date():
            return datetime.combine(until + timedelta(days=1), time()).timestamp()
        case _:
            raise ConfigError(f"{origin}: until is not a time: write it like 2026-12-31 or 2026-12-31T18:00:00+01:00")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _content(file: Given, warn: Callable[[str], None]) -> bytes:
    """The password in a file."""
    if not file.value:
        raise ConfigError(f"{file.origin}: no file is named: give the path of one, or leave it out")
    try:
        content = read_bytes(Path(file.value))
    except OSError as error:
        raise ConfigError(f"{file.origin}: cannot read {file.value}: {error.strerror}: name a readable file") from None
    # Ends of lines are not part of the password: an editor adds them, and a shell's $(cat FILE) takes them away.
    password = content.rstrip(b"\r\n")
    if is_exposed(Path(file.value)):
        warn(f"{file.origin}: {exposed(file.value)}")
    if not password:
        raise ConfigError(f"{file.origin}: {file.value} is empty: write the password into it")
    return password
