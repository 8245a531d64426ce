"""The member's settings: validated once, immutable afterwards.

This module does not know where values come from, nor what a setting does.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from candy.carrier import pin
from candy.checked import After, Before, FilePath
from candy.errors import ConfigError
from candy.member.acceptance import ALL
from candy.options import DEFAULT_PORT, OPTIONS, by_key
from candy.protocol import stun
from candy.protocol.addresses import may_be_elsewhere
from candy.protocol.control import RELAYS_MAX
from candy.protocol.link import Link
from candy.protocol.linking import Endpoint
from candy.protocol.secret import Secret
from candy.sealing.seals import Seal
from candy.settings import (
    INTERFACE_BYTES,
    Given,
    OwnAddress,
    Settings,
    by_field,
    complaint,
    setting,
    several,
    split_url,
    validated,
)

_OPTIONS = by_key("client")


# The ValueError of a validator completes the sentence "<origin>: <value> …".


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _check_name(name: str | None) -> str | None:
    # The name becomes part of an interface's name and the whole of a file's; Linux takes "%" for a pattern.
    if name is None:
        return None
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or name in (".", ".."):
        raise ValueError("is not a name for an interface: use letters and digits")
    if len(f"candy-{name}") > INTERFACE_BYTES:
        raise ValueError(f"is too long: candy-NAME may have {INTERFACE_BYTES} letters, so NAME 9")
    return name


def check_url(value: str) -> str:
    """The URL of a relay, as it is asked for. Raises ValueError."""
    url = split_url(value)
    if url.port == 0:
        raise ValueError("has port 0: give the port that the relay listens on")
    if ":" in unquote(url.username or ""):
        raise ValueError("has a colon in the user, which HTTP takes for the user's end: choose one without")
    # The original asks for "/" when there is not a path.
    return url._replace(path=url.path or "/", fragment="").geturl()


def _parse_stun(value: object) -> object:
    if not isinstance(value, str) or not value:
        return value or None
    try:
        url = urlsplit(value)
        usable = url.scheme == "stun" and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("is not a STUN server: write it like stun://stun.example.org")
    return url.hostname, url.port or stun.PORT


def _parse_endpoint(value: object) -> object:
    if not isinstance(value, str):
        return value
    host, _, port = value.rpartition(":")
    example = "write it like 198.51.100.7:5000"
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 1 << 16:
        raise ValueError(f"has no port from 1 to 65535: {example}")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError(f"is not an address and a port: {example}") from None
    if not may_be_elsewhere(address):
        raise ValueError("is not an address by which other machines reach this one")
    return Endpoint(address, int(port))


def _parse_accepted(value: object) -> object:
    value = several(value)
    if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
        return value
    if "none" in value or "all" in value:
        if len(value) > 1:
            raise ValueError("says more than one thing: name networks, or write all or none alone")
        return None if value == ("none",) else (ALL,)
    try:
        return tuple(IPv4Network(item) for item in value)
    except ValueError:
        raise ValueError("is not a network: write it like 203.0.113.0/24, or all, or none") from None


def _parse_pin(value: object) -> object:
    return pin.parse(value) if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True)
class MemberSettings(Settings):
    """What `candy.member.lifecycle.run` is given."""

    password: bytes | None = field(repr=False)
    """Raw bytes, as they go into every digest; None: the member has a credential of its own."""
    urls: Annotated[tuple[Annotated[str, After(check_url)], ...], Before(several)]
    """Of relays, ws:// or wss://, with a path: the first to go to comes first."""
    network_key: bytes | None = None
    """Of their network, from behind # in a URL."""
    link_pins: tuple[bytes | None, ...] = ()
    """A pin from there, for each URL; None: it has none."""
    name: Annotated[str | None, Before(_none_if_empty), After(_check_name)] = None
    tun: OwnAddress = None
    """None: the relay grants an address."""
    accept_routes: Annotated[tuple[IPv4Network, ...] | None, Before(_parse_accepted)] = ()
    """Beside private networks; None: no routes at all."""
    mtu: int = setting(_OPTIONS["mtu"])
    """Bytes."""
    insecure: bool = setting(_OPTIONS["insecure"])
    """Accept any certificate."""
    ca_file: FilePath | None = None
    pins: Annotated[tuple[Annotated[bytes, Before(_parse_pin)], ...], Before(several)] = ()
    """SHA-256 of keys, of which the relay's has to be one."""
    ml_kem: bool = setting(_OPTIONS["ml_kem"])
    """Exchange TLS' keys by X25519MLKEM768, if the relay can."""
    offload: bool = setting(_OPTIONS["no_offload"])
    """Let the kernel hand over and take packets of up to 64 KB."""
    extension: bool = setting(_OPTIONS["no_extension"])
    """Offer candy.2."""
    seal: Literal["prefer", "require", "off"] = setting(_OPTIONS["seal"])
    """With whom packets are sealed: all who can, all or nobody, nobody."""
    secret: Secret | None = field(default=None, repr=False)
    """Of the members; with one they seal for all or nobody."""
    masquerade: bool = setting(_OPTIONS["masquerade"])
    """Be a gateway for the networks of this machine."""

    # Of direct links.
    direct: bool = setting(_OPTIONS["direct"])
    """Have them where that can be."""
    stun: Annotated[tuple[str, int] | None, Before(_parse_stun)] = None
    """Host and port of a server; None: the relay."""
    port: int = setting(_OPTIONS["port"])
    """UDP; 0: any free one."""
    endpoints: Annotated[tuple[Annotated[Endpoint, Before(_parse_endpoint)], ...], Before(several)] = ()
    """By which others reach that port."""
    localhost: Annotated[IPv4Address | None, Before(_none_if_empty)] = None
    """What original clients are told; None: this machine's first address."""
    discovery: int = setting(_OPTIONS["discovery"])
    """Seconds between searches for these; 0 off."""
    route: int = setting(_OPTIONS["route"])
    """Cost; 0 off."""

    def check(self) -> None:
        super().check()
        if len(self.urls) > RELAYS_MAX:
            raise ValueError(f"{len(self.urls)} of --websocket: use {RELAYS_MAX} or less")
        places = [urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]) for url in self.urls]
        if twice := next((place for at, place in enumerate(places) if place in places[:at]), None):
            raise ValueError(f"--websocket names {twice.geturl()} twice: remove one of them")
        if self.insecure and self.pins:
            raise ValueError("--insecure and --pin exclude each other: a pin needs no authority, so remove --insecure")
        if self.insecure and any(self.link_pins):
            raise ValueError("--insecure takes any certificate, but the URL pins the relay's: remove --insecure")
        if self.secret is not None and self.seal == "off":
            raise ValueError('a secret asks for sealed packets, and seal = "off" for none: remove one of them')
        if self.network_key is not None and not self.extension:
            raise ValueError(
                "--no-extension logs in as old clients do, but the URL has a network's key, which asks for more: "
                "remove --no-extension, or what stands behind # in the URL"
            )

    @property
    def url(self) -> str:
        """The first one."""
        return self.urls[0]

    def pins_of(self, url: str) -> tuple[bytes, ...]:
        """Also the URL's own."""
        own = dict(zip(self.urls, self.link_pins, strict=False)).get(url)
        return self.pins if own is None else (*self.pins, own)

    @property
    def seals(self) -> Seal:
        """How, by both options."""
        return Seal.REQUIRE if self.secret is not None else Seal(self.seal)

    @property
    def interface(self) -> str:
        """The TUN device's name."""
        return f"candy-{self.name}" if self.name else "candy"


def member_settings(given: Mapping[str, Given], *, password: bytes | None, **fixed: Any) -> MemberSettings:
    """Validate what was given to candy-client.

    Args:
        given: values by the options' names.
        password: as chosen among its sources.
        fixed: further fields.

    Raises:
        ConfigError: a value can't be right; the text names its origin.
    """
    websocket = given.get("websocket")
    if websocket is None or not websocket.value:
        raise ConfigError(f"no relay given: add -w ws://host:{DEFAULT_PORT} (or wss://host)")
    fields = by_field(OPTIONS["client"], given)
    del fields["websocket"]
    return validated(MemberSettings, fields | _of_lines(websocket), fixed | {"password": password})


def _of_lines(websocket: Given) -> dict[str, Given]:
    """What the URLs of relays decide: themselves, and what stands behind their #."""
    origin = websocket.origin
    texts: tuple[str, ...] = (websocket.value,) if isinstance(websocket.value, str) else websocket.value
    lines = [_of_line(Given(text, origin)) for text in texts]
    keys = [(text, link.network) for text, (_, link) in zip(texts, lines, strict=True) if link is not None]
    for text, key in keys[1:]:
        if key != keys[0][1]:
            raise complaint(Given(text, origin), "is of another network than the first one: a client is in one network")
    given: dict[str, Any] = {"urls": tuple(url for url, _ in lines)}
    if keys:
        given |= {"network_key": keys[0][1], "link_pins": tuple(link and link.pin for _, link in lines)}
    return {name: Given(each, origin) for name, each in given.items()}


def _of_line(given: Given) -> tuple[str, Link | None]:
    """A URL, and what stands behind its #."""
    url, has_key, fragment = given.value.partition("#")
    if not has_key:
        return url, None
    try:
        link = Link.parse(fragment)
    except ValueError as error:
        raise complaint(given, str(error)) from None
    if link.invitation is not None:
        raise complaint(given, "is an invitation, which lets in once: run candy-client join with it")
    return url, link


class Change(NamedTuple):
    """What follows from settings that were read again."""

    settings: MemberSettings
    """Those in force from now on."""
    applied: list[str]
    """Names of the options that are different."""
    takes_connection: bool
    """One of these takes a new connection."""
    left: list[str]
    """Those that a running member can't change."""


def change(running: MemberSettings, wanted: MemberSettings) -> Change:
    """Go over to other settings, as far as a running member can."""
    different = {name for name in _DECIDED_BY if getattr(running, name) != getattr(wanted, name)}
    applied = {name for name in different if _DECIDED_BY[name].reloads}
    settings = replace(running, **{name: getattr(wanted, name) for name in applied})
    return Change(settings, _names(applied), bool(applied - {"debug"}), _names(different - applied))


def _names(fields: Iterable[str]) -> list[str]:
    return sorted({_DECIDED_BY[name].key for name in fields})


_DECIDED_BY = {name: option for option in reversed(OPTIONS["client"]) for name in option.decides}
"""The option behind each field: the first one where several are."""
