"""The member's settings, and what both commands' have in common: validated once, immutable afterwards.

    command line, file ─▶ dict of Given (value, origin) ─▶ client_settings, server_settings ─▶ a frozen model

Rules:
 1. Every value comes with its origin (an option, or a file's line), so that an error names the place to mend.
 2. A number may come as text, as it stands on a command line.
 3. The password is in no message and no repr, nor are those of URLs.

The relay's are in candy.relay.settings. This module does not know where values come from, nor what a setting does.
"""

import os
import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    ValidationError,
)

from candy.errors import ConfigError
from candy.host.files import state_folder

DEFAULT_PORT = 26816
INTERFACE_BYTES = 15
"""Longest name of an interface: Linux's IFNAMSIZ less the NUL."""
DEFAULT_MTU = 1400


# The ValueError of a validator completes the sentence "<origin>: <value> …".


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _parse_tun(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value and "/" not in value:
        raise ValueError(f"has no prefix length: write it like {value}/24")
    try:
        return IPv4Interface(value) if value else None
    except ValueError:
        raise ValueError("is no address with prefix length: write it like 192.168.202.5/24") from None


def _check_tun(tun: IPv4Interface | None) -> IPv4Interface | None:
    if tun is None:
        return None
    if not tun.network.prefixlen or tun.is_unspecified or tun.is_loopback or tun.is_multicast or tun.is_reserved:
        raise ValueError("is no address for a member: use one like 192.168.202.5/24")
    if tun.network.prefixlen <= 30 and tun.ip in (tun.network[0], tun.network[-1]):
        raise ValueError(f"is the network's own or its broadcast address: choose another in {tun.network}")
    return tun


OwnAddress = Annotated[IPv4Interface | None, BeforeValidator(_parse_tun), AfterValidator(_check_tun)]
"""The address and prefix of an interface of ours."""


def _check_name(name: str | None) -> str | None:
    # It becomes part of an interface's and the whole of a file's name; "%" would be a pattern to Linux.
    if name is None:
        return None
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or name in (".", ".."):
        raise ValueError("is no name for an interface: use letters and digits")
    if len(f"candy-{name}") > INTERFACE_BYTES:
        raise ValueError(f"is too long: candy-NAME may have {INTERFACE_BYTES} letters, so NAME 9")
    return name


def split_url(value: str) -> SplitResult:
    """A WebSocket URL in parts, its port checked."""
    example = f"write it like ws://host:{DEFAULT_PORT} or wss://host"
    if re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError(f"is no URL: {example}")
    try:
        url = urlsplit(value)
    except ValueError:
        raise ValueError(f"is no URL: {example}") from None
    try:
        _ = url.port
    except ValueError:
        # Its own words would repeat what it takes for a port, which may be a password.
        raise ValueError(f"has no port from 0 to 65535: {example}") from None
    if url.scheme not in ("ws", "wss") or not url.hostname:
        raise ValueError(f"is no WebSocket URL: {example}")
    return url


def host_port(host: str, port: int) -> str:
    """Host and port in one, as in a URL: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_url(value: str) -> str:
    url = split_url(value)
    if url.port == 0:
        raise ValueError("has port 0: give the port that the relay listens on")
    # The original asks for "/" when there is no path.
    return url._replace(path=url.path or "/", fragment="").geturl()


def _check_stun(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        url = urlsplit(value)
        usable = url.scheme == "stun" and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("is no STUN server: write it like stun://stun.example.org")
    return value


class Frozen(BaseModel):
    """What can't be changed any more."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class Settings(Frozen):
    """Of either command."""

    state_dir: Path = Field(default_factory=lambda: state_folder(os.environ, os.geteuid()))
    debug: bool = False
    timestamps: bool = True
    """In the log."""


class ClientSettings(Settings):
    """What `candy.member.member.run` is told."""

    password: bytes = Field(repr=False)
    """Raw bytes, as they go into every digest."""
    url: Annotated[str, AfterValidator(_check_url)]
    """The relay, ws:// or wss://, with a path."""
    name: Annotated[str | None, BeforeValidator(_none_if_empty), AfterValidator(_check_name)] = None
    tun: OwnAddress = None
    """None: the relay grants an address."""
    mtu: int = Field(default=DEFAULT_MTU, ge=576, le=1479)
    """Bytes. 1479 + 20 of IPIP + the kind byte = 1500, the most that any peer takes."""
    insecure: bool = False
    """Take any certificate."""
    ca_file: FilePath | None = None
    offload: bool = True
    """Let the kernel hand over and take packets of up to 64 KB."""
    extension: bool = True
    """Offer candy.2."""
    masquerade: bool = False
    """Be a gateway for the networks of this machine."""

    # Of direct links.
    stun: Annotated[str | None, BeforeValidator(_none_if_empty), AfterValidator(_check_stun)] = None
    port: int = Field(default=0, ge=0, le=65535)
    """UDP; 0: one that is free."""
    localhost: Annotated[IPv4Address | None, BeforeValidator(_none_if_empty)] = None
    discovery: int = Field(default=0, ge=0, le=86400)
    """Seconds between searches; 0 off."""
    route: int = Field(default=0, ge=0, le=1000)
    """Cost; 0 off."""

    @property
    def interface(self) -> str:
        """The TUN device's name."""
        return f"candy-{self.name}" if self.name else "candy"


class Given(NamedTuple):
    """A value as the user wrote it, and where: `--mtu`, or `/etc/candy.toml:12: mtu`."""

    value: Any
    origin: str


def client_settings(given: Mapping[str, Given], *, password: bytes, **fixed: Any) -> ClientSettings:
    """Validate what was given to candy-client.

    Args:
        given: values by the options' names.
        password: as chosen among its sources.
        fixed: further fields of the model.

    Raises:
        ConfigError: a value can't be meant; the text names its origin.
    """
    fields = dict(given)
    websocket = fields.pop("websocket", None)
    if websocket is None or not websocket.value:
        raise ConfigError(f"no relay given: add -w ws://host:{DEFAULT_PORT} (or wss://host)")
    fields["url"] = websocket
    return validated(ClientSettings, fields, fixed | {"password": password})


_Model = TypeVar("_Model", bound=Frozen)

_COMPLAINTS = {
    "bool_parsing": "is neither true nor false",
    "finite_number": "is no number",
    "float_parsing": "is no number",
    "greater_than": "is too small: it must be more than {gt}",
    "greater_than_equal": "is too small: use {ge} or more",
    "int_parsing": "is no whole number",
    "int_parsing_size": "is too large",
    "ip_v4_address": "is no IPv4 address: write it like 192.168.1.5",
    "less_than_equal": "is too large: use {le} or less",
    "path_not_file": "is no file: give the path of one that exists",
    "string_unicode": "is no UTF-8 text",
    "value_error": "{error}",
}
"""pydantic's kinds of error in our words."""


def validated(model: type[_Model], fields: Mapping[str, Given], fixed: Mapping[str, Any]) -> _Model:
    """The model, or the first of its complaints in one line."""
    try:
        return model(**{field: given.value for field, given in fields.items()}, **fixed)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        words = _COMPLAINTS.get(first["type"], first["msg"]).format(**first.get("ctx", {}))
        if first["loc"]:
            raise complaint(fields[str(first["loc"][0])], words) from None
        raise ConfigError(words) from None


def complaint(given: Given, words: str) -> ConfigError:
    """The error of a value that can't be meant; `words` complete the sentence "<value> …"."""
    value = without_credentials(given.value) if isinstance(given.value, str) else given.value
    return ConfigError(f"{given.origin}: {value!r} {words}")


def without_credentials(url: str) -> str:
    """What may be a URL, with "…" for user and password."""
    return re.sub(r"^(.*?//)?.*@", r"\1…@", url, flags=re.DOTALL)
