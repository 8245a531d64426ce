"""The settings of a relay that serves its networks together with others: its table [cluster].

    given ─▶ cluster_settings() ─▶ ClusterSettings; None in RelaySettings: it is alone

Nothing here opens a file, nor imports a library of NATS.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from candy.checked import After, Before, FilePath, Frozen
from candy.errors import ConfigError
from candy.options import CLUSTER_OPTIONS
from candy.settings import Given, setting, several, split_url, validated

_OPTIONS = {option.key: option for option in CLUSTER_OPTIONS}
LINK_SLOTS: Final = 4096
"""Of the engine, for links to other relays: beside those that members have."""
_NEEDED = ("nats", "name", "url", "secret_file")
_EXAMPLE = "write it like nats://10.0.0.5:4222 or tls://nats.example.org"


def _check_server(value: str) -> str:
    try:
        url = urlsplit(value)
        has_place = bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        has_place = False
    if not has_place or url.scheme not in ("nats", "tls") or url.path.strip("/") or url.query or url.fragment:
        raise ValueError(f"is not the URL of a server of NATS: {_EXAMPLE}")
    if url.username is not None or url.password is not None:
        # It would be in every message of a library that names the server.
        raise ValueError("has a user in it: write user:password into a file, and name that in credentials")
    return value


def _check_name(name: str) -> str:
    # A word of a subject: there a dot divides, and * and > are wildcards.
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name):
        raise ValueError("is not a name for a relay: use up to 32 letters, digits, - and _")
    return name


def _check_url(value: str) -> str:
    url = split_url(value)
    if url.username is not None or url.path.strip("/") or url.query or url.fragment:
        raise ValueError("is more than scheme, host and port: write it like wss://eu.example.org")
    return value.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(Frozen):
    """What a relay needs to know of those that it is one with."""

    nats: Annotated[tuple[Annotated[str, After(_check_server)], ...], Before(several)]
    """URLs of servers."""
    credentials: FilePath | None = None
    """None: NATS asks for none."""
    ca_file: FilePath | None = None
    """None: the system's, for tls://."""
    name: Annotated[str, After(_check_name)]
    """Of this relay; no other has it."""
    url: Annotated[str, After(_check_url)]
    """By which the others reach this one, without a slash at its end."""
    replicas: int = setting(_OPTIONS["replicas"])
    """Servers that keep each thing."""
    secret_file: FilePath
    """What all of these relays know, and NATS does not."""


def cluster_settings(table: Given) -> ClusterSettings:
    """Validate a table; its value is a dict of Given.

    Raises:
        ConfigError: a key is missing, or a value can't be right.
    """
    given: Mapping[str, Given] = table.value
    for key in _NEEDED:
        if key not in given or given[key].value == ():
            raise ConfigError(f"{table.origin}: has no {key}: {_OPTIONS[key].meaning}")
    return validated(ClusterSettings, given, {})
