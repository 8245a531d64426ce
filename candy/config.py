"""The settings of both commands: validated once, immutable afterwards.

    command line, file ─▶ dict of Given (value, origin) ─▶ server_settings / client_settings ─▶ a frozen model

Rules:
 1. Every value comes with its origin (an option, or a file's line), so that an error names the place to mend.
 2. A number may come as text, as it stands on a command line.
 3. The password is in no message and no repr.

This module does not know where values come from, nor what a setting does.
"""

import os
import re
import socket
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    ValidationError,
    model_validator,
)

from candy.auth import TOLERANCE_S
from candy.errors import ConfigError
from candy.state import state_folder

DEFAULT_PORT = 26816
DEFAULT_POOL = IPv4Network("192.168.202.0/24")
INTERFACE_BYTES = 15
"""Longest name of an interface: Linux's IFNAMSIZ less the NUL."""


# The ValueError of a validator completes the sentence "<origin>: <value> …".


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _parse_pool(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return IPv4Network(value, strict=False) if value else None
    except ValueError:
        raise ValueError(f"is no IPv4 network: write it like {DEFAULT_POOL}") from None


def _check_pool(pool: IPv4Network | None) -> IPv4Network | None:
    if pool is not None and not 8 <= pool.prefixlen <= 30:
        raise ValueError("is no size for a pool: use a /8 to a /30")
    return pool


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


def _check_name(name: str | None) -> str | None:
    # It becomes part of an interface's and the whole of a file's name; "%" would be a pattern to Linux.
    if name is None:
        return None
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or name in (".", ".."):
        raise ValueError("is no name for an interface: use letters and digits")
    if len(f"candy-{name}") > INTERFACE_BYTES:
        raise ValueError(f"is too long: candy-NAME may have {INTERFACE_BYTES} letters, so NAME 9")
    return name


def _split_url(value: str) -> SplitResult:
    """A WebSocket URL in parts, its port checked."""
    example = f"write it like ws://host:{DEFAULT_PORT} or wss://host"
    if re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError(f"is no URL: {example}")
    try:
        url = urlsplit(value)
        out_of_range = url.port is not None and not 0 <= url.port <= 65535
    except ValueError as error:
        raise ValueError(f"is no URL ({error}): {example}") from None
    if out_of_range or url.scheme not in ("ws", "wss") or not url.hostname:
        raise ValueError(f"is no WebSocket URL: {example}")
    return url


def _check_url(value: str) -> str:
    url = _split_url(value)
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


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    password: bytes = Field(repr=False)
    """Raw bytes, as they go into every digest."""
    state_dir: Path = Field(default_factory=lambda: state_folder(os.environ, os.geteuid()))
    debug: bool = False
    timestamps: bool = True
    """In the log."""


class ServerSettings(_Settings):
    """What `candy.server.run` is told."""

    # Of the network.
    pool: Annotated[IPv4Network | None, BeforeValidator(_parse_pool), AfterValidator(_check_pool)] = DEFAULT_POOL
    """None: dynamic requests are refused, and a member may claim any address."""
    allow_outside_pool: bool = False
    password_is_generated: bool = False
    """Made by us: its user has to be told."""

    # Of the relay.
    host: str = "0.0.0.0"
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    """0: one that is free."""
    tls_certificate: FilePath | None = None
    """None: ws://; else wss://, with tls_key."""
    tls_key: FilePath | None = None
    auth_timeout: float = Field(default=10.0, gt=0, le=3600)
    """Seconds."""
    clock_tolerance: int = Field(default=TOLERANCE_S, ge=1, le=86400)
    """Seconds, to both sides."""
    unauthenticated_per_source: int = Field(default=64, ge=1, le=1_000_000)
    failures_per_minute: int = Field(default=60, ge=1, le=1_000_000)
    workers: int = Field(default_factory=lambda: max(1, len(os.sched_getaffinity(0)) - 1), ge=1, le=64)
    queue_bytes: int = Field(default=4 << 20, ge=128 << 10, le=1 << 30)
    """Per member."""
    max_connections: int = Field(default=65536, ge=1, le=1 << 20)

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("--tls-certificate and --tls-key need each other: give both or none")
        return self


class ClientSettings(_Settings):
    """What `candy.client.run` is told."""

    url: Annotated[str, AfterValidator(_check_url)]
    """The relay, ws:// or wss://, with a path."""
    name: Annotated[str | None, BeforeValidator(_none_if_empty), AfterValidator(_check_name)] = None
    tun: Annotated[IPv4Interface | None, BeforeValidator(_parse_tun), AfterValidator(_check_tun)] = None
    """None: the relay grants an address."""
    mtu: int = Field(default=1400, ge=576, le=1479)
    """Bytes. 1479 + 20 of IPIP + the kind byte = 1500, the most that any peer takes."""
    insecure: bool = False
    """Take any certificate."""
    ca_file: FilePath | None = None
    offload: bool = True
    """Let the kernel hand over and take packets of up to 64 KB."""
    extension: bool = True
    """Offer candy.2."""

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


def server_settings(given: Mapping[str, Given], *, password: bytes, **fixed: Any) -> ServerSettings:
    """Validate what was given to candy-server.

    Args:
        given: values by the options' names (`websocket` and `dhcp`, not `host` and `pool`).
        password: as chosen among its sources.
        fixed: further fields of the model.

    Raises:
        ConfigError: a value can't be meant; the text names its origin.
    """
    fields = dict(given)
    if dhcp := fields.pop("dhcp", None):
        fields["pool"] = dhcp
    websocket = fields.pop("websocket", None)
    if websocket is None:
        return _validated(ServerSettings, fields, fixed | {"password": password})
    try:
        url = _split_url(websocket.value)
    except ValueError as error:
        raise _complaint(websocket, str(error)) from None
    port = url.port if url.port is not None else {"ws": 80, "wss": 443}[url.scheme]
    fields |= {"host": Given(url.hostname, websocket.origin), "port": Given(port, websocket.origin)}
    settings = _validated(ServerSettings, fields, fixed | {"password": password})
    if url.scheme == "wss" and not settings.tls_certificate:
        raise _complaint(websocket, "needs --tls-certificate and --tls-key, or write ws://")
    if url.scheme == "ws" and settings.tls_certificate:
        raise _complaint(websocket, "is without TLS, but a certificate is given: write wss://")
    return settings


def client_settings(given: Mapping[str, Given], *, password: bytes, **fixed: Any) -> ClientSettings:
    """Validate what was given to candy-client; arguments and errors as in server_settings."""
    fields = dict(given)
    websocket = fields.pop("websocket", None)
    if websocket is None or not websocket.value:
        raise ConfigError(f"no relay given: add -w ws://host:{DEFAULT_PORT} (or wss://host)")
    fields["url"] = websocket
    return _validated(ClientSettings, fields, fixed | {"password": password})


_Model = TypeVar("_Model", ServerSettings, ClientSettings)

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


def _validated(model: type[_Model], fields: Mapping[str, Given], fixed: Mapping[str, Any]) -> _Model:
    """The model, or the first of its complaints in one line."""
    try:
        return model(**{field: given.value for field, given in fields.items()}, **fixed)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        words = _COMPLAINTS.get(first["type"], first["msg"]).format(**first.get("ctx", {}))
        if first["loc"]:
            raise _complaint(fields[str(first["loc"][0])], words) from None
        raise ConfigError(words) from None


def _complaint(given: Given, words: str) -> ConfigError:
    return ConfigError(f"{given.origin}: {given.value!r} {words}")


def member_line(settings: ServerSettings, address: str, port: int | None = None) -> str:
    """The command that joins a member, for a POSIX shell.

    A password of the user's own is not repeated: what the relay prints ends up in logs.

    Args:
        address: host name or IP address at which members reach the relay, see member_address.
        port: the one listened on, where the settings leave it open.
    """
    scheme = "wss" if settings.tls_certificate else "ws"
    host = f"[{address}]" if ":" in address else address
    password = settings.password.decode() if settings.password_is_generated else "<your password>"
    quoted = password.replace("'", "'\\''")
    return f"CANDY_PASSWORD='{quoted}' candy-client -w {scheme}://{host}:{port or settings.port}"


def member_address(host: str) -> str:
    """Where members reach a relay that listens on this host: there, or, for any address, on the default
    route; on a machine without one its name is the best guess."""
    if host not in ("0.0.0.0", "::"):
        return host
    return default_route_address() or socket.gethostname()


def default_route_address() -> str | None:
    """This machine's address towards the default route, None without one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a UDP socket only chooses its source address; 203.0.113.1 is nobody's (RFC 5737).
            probe.connect(("203.0.113.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])
