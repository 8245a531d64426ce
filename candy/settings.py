"""What the settings of both sides share: how a value is checked, how an error names it, and where state is kept.

    command line, file ─▶ dict of Given (value, origin) ─▶ relay_settings, member_settings ─▶ a frozen dataclass

Rules:
 1. Every value comes with its origin (an option, or a file's line), so that an error names the place to mend.
 2. The password is in no message and no repr, nor are those of URLs.
 3. Defaults and bounds stand in candy.options, and nowhere else.

Each side's own settings are in candy.relay.settings and candy.member.settings. This module does not know where values
come from, nor what a setting does.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from urllib.parse import SplitResult, urlsplit

from candy.checked import After, Before, FilePath, Frozen, Wrong, bounded, checked
from candy.errors import ConfigError
from candy.options import DEFAULT_PORT, Option

INTERFACE_BYTES = 15
"""Longest name of an interface: Linux's IFNAMSIZ less the NUL."""


# The ValueError of a validator completes the sentence "<origin>: <value> …".


def _parse_tun(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value and "/" not in value:
        raise ValueError(f"has no prefix length: write it like {value}/24")
    try:
        return IPv4Interface(value) if value else None
    except ValueError:
        raise ValueError("is not an address with prefix length: write it like 192.168.202.5/24") from None


def _check_tun(tun: IPv4Interface | None) -> IPv4Interface | None:
    if tun is None:
        return None
    if not tun.network.prefixlen or tun.is_unspecified or tun.is_loopback or tun.is_multicast or tun.is_reserved:
        raise ValueError("is not an address for a member: use one like 192.168.202.5/24")
    if tun.network.prefixlen <= 30 and tun.ip in (tun.network[0], tun.network[-1]):
        raise ValueError(f"is the network's own or its broadcast address: choose another in {tun.network}")
    return tun


OwnAddress = Annotated[IPv4Interface | None, Before(_parse_tun), After(_check_tun)]
"""The address and prefix of an interface of ours."""


def split_url(value: str) -> SplitResult:
    """A WebSocket URL in parts, its port and an IPv6 address in it checked."""
    example = f"write it like ws://host:{DEFAULT_PORT} or wss://host"
    if re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError(f"is not a URL: {example}")
    try:
        url = urlsplit(value)
    except ValueError:
        raise ValueError(f"is not a URL: {example}") from None
    try:
        _ = url.port
    except ValueError:
        # Not urlsplit's text: it repeats what stands in the port's place, which may be a password.
        raise ValueError(f"has no port from 0 to 65535: {example}") from None
    if url.scheme not in ("ws", "wss") or not url.hostname:
        raise ValueError(f"is not a WebSocket URL: {example}")
    _check_address(plain_host(url.hostname), example)
    return url


def _check_address(host: str, example: str) -> None:
    if ":" not in host:
        return
    try:
        address = IPv6Address(host)
    except ValueError:
        raise ValueError(f"is not a URL: {example}") from None
    # Each of this machine's interfaces may lead to another host of this address.
    if address.is_link_local and address.scope_id is None:
        raise ValueError(f"is without the interface: write it like ws://[{address}%25eth0]:{DEFAULT_PORT}")


def plain_host(host: str) -> str:
    """The host of a URL as the system writes it. The interface of a link-local address stands behind %25 in a URL, and
    behind % elsewhere (RFC 6874)."""
    address, _, zone = host.partition("%")
    return f"{address}%{zone.removeprefix('25')}" if ":" in address and zone else host


def host_port(host: str, port: int) -> str:
    """Host and port in one, as in a URL: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def state_folder(environ: Mapping[str, str], uid: int) -> Path:
    """Where state lives: CANDY_STATE_DIR, else systemd's STATE_DIRECTORY (the first of several), else
    /var/lib/candy for root, else the XDG state folder. Nothing is made or looked at.

    Raises:
        ConfigError: nothing says where the user's home is.
    """
    if chosen := environ.get("CANDY_STATE_DIR") or environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(chosen).absolute()
    if uid == 0:
        return Path("/var/lib/candy")
    # XDG: "If an implementation encounters a relative path in any of these variables it should consider
    # the path invalid and ignore it."
    xdg = environ.get("XDG_STATE_HOME", "")
    if xdg.startswith("/"):
        return Path(xdg, "candy")
    if home := environ.get("HOME"):
        return Path(home, ".local/state/candy")
    raise ConfigError("no HOME to keep state in: set CANDY_STATE_DIR to a folder")


def setting(option: Option) -> Any:
    """The field that an option decides, with the option's default and bounds."""
    default = not option.default if option.is_opposite else option.default
    return bounded(default, least=option.least, most=option.most, above=option.above)


def several(value: object) -> object:
    """A validator of settings that are tuples: what stands alone is one of them."""
    return (value,) if isinstance(value, str | bytes | Path) else value


def _parse_endpoint(value: object) -> object:
    if not isinstance(value, str):
        return value
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    example = "write it like 127.0.0.1:26817"
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"has no port from 0 to 65535: {example}")
    try:
        return str(ip_address(host)), int(port)
    except ValueError:
        raise ValueError(f"is not an address and a port: {example}") from None


Endpoint = Annotated[tuple[str, int], Before(_parse_endpoint)]
"""Where to listen: an IP address, and a port of TCP, 0 for any free one."""


def _check_control_socket(path: str) -> str:
    if "\0" in path or (path and not Path(path).name):
        raise ValueError("is not the path of a socket: write it like /run/candy/control.sock")
    return path


def _check_control_group(group: str) -> str:
    is_number = group.isascii() and group.isdigit()
    # The greatest number stands for "no change" (chown(2)).
    if not group or "\0" in group or (is_number and (len(group) > 10 or int(group) >= 2**32 - 1)):
        raise ValueError("is not a group: name one, or write its number")
    return group


@dataclass(frozen=True, kw_only=True)
class Settings(Frozen):
    """Of either side."""

    state_dir: Path = field(default_factory=lambda: state_folder(os.environ, os.geteuid()))
    debug: bool = False
    timestamps: bool = True
    """In the log."""
    log_format: Literal["text", "json"] = "text"
    control_socket: Annotated[str, After(_check_control_socket)] | None = None
    """Path of the control interface's UNIX socket; None: the usual one; empty: none."""
    control_group: Annotated[str, After(_check_control_group)] | None = None
    """Of that socket: a name or a number. None: the process's own."""
    control: Endpoint | None = None
    """Of the control interface over TCP."""
    control_token_file: FilePath | None = None

    def check(self) -> None:
        if (self.control is None) != (self.control_token_file is None):
            raise ValueError("--control and --control-token-file need each other: give both or none")


class Given(NamedTuple):
    """A value as the user wrote it, and where: `--mtu`, or `/etc/candy.toml:12: mtu`."""

    value: Any
    origin: str


class GivenNetwork(NamedTuple):
    """A network of a relay, as the user wrote it."""

    path: Given
    given: Mapping[str, Given]
    """By the options' names, without its passwords'."""
    password: Given | None
    """Bytes."""
    passwords: Sequence[Given] = ()
    """Of its list, each a Password."""


def by_field(options: Iterable[Option], given: Mapping[str, Given]) -> dict[str, Given]:
    """Values by the names of the settings that options decide, instead of the options' own. The value of a switch that
    turns its setting off becomes the opposite. An option that decides several settings is left to the caller."""
    fields = dict(given)
    for option in options:
        if option.key not in fields or len(option.decides) != 1:
            continue
        value, origin = fields.pop(option.key)
        fields[option.decides[0]] = Given(not value if option.is_opposite else value, origin)
    return fields


_Model = TypeVar("_Model", bound=Frozen)


def validated(model: type[_Model], fields: Mapping[str, Given], fixed: Mapping[str, Any]) -> _Model:
    """The model. Raises ConfigError: the first value that can't be right, in one line."""
    try:
        return checked(model, {name: given.value for name, given in fields.items()} | dict(fixed))
    except Wrong as wrong:
        if wrong.field is None:
            raise ConfigError(str(wrong)) from None
        given = fields[wrong.field]
        # One of several values; what stands alone need not be in a tuple.
        if wrong.item is not None and isinstance(given.value, tuple):
            given = given._replace(value=given.value[wrong.item])
        raise complaint(given, str(wrong)) from None


def complaint(given: Given, words: str) -> ConfigError:
    """The error of a value that can't be right; `words` complete the sentence "<value> …"."""
    value = ", ".join(given.value) if isinstance(given.value, tuple) else given.value
    value = without_credentials(value) if isinstance(value, str) else value
    return ConfigError(f"{given.origin}: {value!r} {words}")


def without_credentials(url: str) -> str:
    """A text that may be a URL, with "…" for user and password, and for what stands behind its #."""
    shown = re.sub(r"^(.*?//)?.*@", r"\1…@", url, flags=re.DOTALL)
    return re.sub(r"(//.*?)#.*", r"\1#…", shown, flags=re.DOTALL)
