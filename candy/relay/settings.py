"""The relay's settings: its own, and those of each of its networks.

    given, passwords ─▶ the network `/` ┐
    GivenNetwork … ───▶ further networks ├─▶ RelaySettings
    given ────────────▶ the relay's own ┘

Rules:
 1. Networks share nothing and inherit nothing: a key that a table does not have has its default, not another network's
    value.
 2. Settings are also checked against each other: rules against rules and the pool, a path or an interface that two
    networks want.

This module does not know where values come from, nor what a setting does.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, FilePath, model_validator

from candy.errors import ConfigError
from candy.options import DEFAULT_HOST, DEFAULT_POOL, DEFAULT_PORT, NETWORK_OPTIONS, OPTIONS, by_key
from candy.protocol.addresses import SHORTEST_PREFIX, is_unicast
from candy.relay.enrolment import Admit
from candy.relay.passwords import NAME_MAX, PASSWORDS_MAX, Password
from candy.relay.pool import LONGEST_PREFIX, Pool
from candy.relay.reservations import RESERVATIONS_MAX, Reservation
from candy.relay.rules import MAX_RULES, Rule, first_overlap, split_rules, why_impossible
from candy.sealing.seals import Seal
from candy.settings import (
    INTERFACE_BYTES,
    Endpoint,
    Frozen,
    Given,
    OwnAddress,
    Settings,
    by_field,
    complaint,
    plain_host,
    setting,
    several,
    split_url,
    validated,
)

_OPTIONS = by_key("server")
MAX_NETWORKS = 1000
HEALTH_PATH = "/healthz"
"""Of health checks, not of a network."""
SHARED = (
    "old clients and members with keys log in by the same password, which can be guessed from a recorded log-in of the "
    "former: give those one of their own (legacy = true in its entry of passwords), or write legacy = false"
)
RULE_KEYS = ("device", "destination", "via")
"""Of a rule in a TOML file, in the original's order."""


def _parse_pool(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        pool = IPv4Network(value, strict=False) if value else None
    except ValueError:
        raise ValueError(f"is not an IPv4 network: write it like {DEFAULT_POOL}") from None
    if value and "/" not in value:
        raise ValueError(f"has no prefix length: write it like {value}/24")
    return pool


def _check_pool(pool: IPv4Network | None) -> IPv4Network | None:
    if pool is not None and not SHORTEST_PREFIX <= pool.prefixlen <= LONGEST_PREFIX:
        raise ValueError(f"is not a size for a pool: use a /{SHORTEST_PREFIX} to a /{LONGEST_PREFIX}")
    try:
        Pool(pool)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix(f"pool {pool} ")) from None
    return pool


def _spare_cores() -> int:
    """All cores that the process may use but one, which Python and the kernel need, as far as the engine has use."""
    cores = len(os.sched_getaffinity(0))
    return min(max(1, cores - 1), _OPTIONS["workers"].most or cores)


def _canonical_host(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        return host


def _check_origin(origin: str) -> str:
    if not _ORIGIN.fullmatch(origin):
        raise ValueError("is not an origin as browsers write it, like https://example.org or http://10.0.0.1:8080")
    return origin


_ORIGIN = re.compile(r"null|(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+")
"""RFC 6454, section 6.2: in lower case, without a port that the scheme implies; null stands for pages of no origin."""


def _parse_admit(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return Admit(value)
    except ValueError:
        raise ValueError(f"is not one of {', '.join(admit.value for admit in Admit)}") from None


def _parse_proxy(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value, strict=False)
    except ValueError:
        raise ValueError("is not an address or network of a proxy: write it like 10.0.0.5 or 10.0.0.0/24") from None


def _parse_reservation(value: object) -> object:
    return Reservation.parse(value) if isinstance(value, str) else value


def _parse_public_url(value: object) -> object:
    if not isinstance(value, str):
        return value
    url = split_url(value)
    if url.username is not None or url.query or url.fragment:
        raise ValueError("is more than scheme, host, port and path: write it like wss://vpn.example.org")
    return value.rstrip("/")


class NetworkSettings(Frozen):
    """One network of a relay. Nothing in it is shared with, or inherited by, another."""

    path: str = "/"
    """Of its URL, as canonical_path() has it."""
    password: bytes = Field(default=b"", repr=False)
    """Raw bytes, as they go into every digest. Empty: those of the list are all there are."""
    passwords: tuple[Password, ...] = ()
    password_is_generated: bool = False
    """Generated by the relay, which has to show it to the user."""
    admit: Annotated[Admit, BeforeValidator(_parse_admit)] = Admit.PASSWORD
    """Whom a password lets in that comes with a key."""
    legacy: bool = setting(_OPTIONS["legacy"])
    """Old clients may join, and members without a key."""
    pool: Annotated[IPv4Network | None, BeforeValidator(_parse_pool), AfterValidator(_check_pool)] = setting(
        _OPTIONS["dhcp"]
    )
    """None: requests for an address are refused, and a member may claim any."""
    allow_outside_pool: bool = setting(_OPTIONS["allow_outside_pool"])
    rules: tuple[Rule, ...] = ()
    """SD-WAN."""
    tun: OwnAddress = None
    """The address of an interface of the relay's own; None: it has none."""
    seal: Literal["prefer", "require", "off"] = setting(_OPTIONS["seal"])
    """With whom packets of that interface are sealed: all who can, all or nobody, nobody."""
    check_source: bool = setting(_OPTIONS["no_source_check"])
    """Members send from their own addresses, and from the networks behind them, only."""
    forward_broadcast: bool = setting(_OPTIONS["no_broadcast"])
    """Packets and messages to all members."""
    lease_days: int = setting(_OPTIONS["lease_days"])
    """How long an address is kept for a device that is not seen; 0: for ever."""
    reservations: Annotated[
        tuple[Annotated[Reservation, BeforeValidator(_parse_reservation)], ...], BeforeValidator(several)
    ] = ()
    """Addresses that are kept for one device."""
    auth_timeout: float = setting(_OPTIONS["auth_timeout"])
    """Seconds."""
    clock_tolerance: int = setting(_OPTIONS["clock_tolerance"])
    """Seconds, to both sides."""
    max_members: int = setting(_OPTIONS["max_members"])
    """0: as many as connections."""
    new_devices_per_minute: int = setting(_OPTIONS["new_devices_per_minute"])
    """Of one source; 0: any number."""

    @property
    def every_password(self) -> tuple[Password, ...]:
        """Those of the list, and `password` as one of them, without name and end."""
        return (*([Password(self.password)] if self.password else []), *self.passwords)

    @property
    def seals(self) -> Seal:
        """The same."""
        return Seal(self.seal)

    @property
    def shares_passwords(self) -> bool:
        """Old clients log in by a password that lets in who has a key, too."""
        return self.legacy and self.admit is not Admit.INVITE and not any(each.legacy for each in self.every_password)

    @property
    def interface(self) -> str:
        """The name of the relay's own interface: candy-server, cs-home for /home, else a number that is always the
        same."""
        if self.path == "/":
            return "candy-server"
        name = "cs" + self.path.replace("/", "-")
        return name if len(name) <= INTERFACE_BYTES else "cs-" + sha256(self.path.encode()).hexdigest()[:12]


class RelaySettings(Settings):
    """What `candy.relay.lifecycle.run` is given."""

    networks: tuple[NetworkSettings, ...] = Field(min_length=1)
    """The first one is `/`."""

    host: Annotated[str, AfterValidator(_canonical_host)] = DEFAULT_HOST
    """A name, or an address in its shortest form; `::` includes IPv4."""
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    """0: any free one."""
    public_url: Annotated[str | None, BeforeValidator(_parse_public_url)] = None
    """How others reach this relay, without a slash at its end; None: by the address at which it listens."""
    tls_certificate: Annotated[tuple[FilePath, ...], BeforeValidator(several)] = ()
    """wss:// with these chains, and as many of tls_key. Empty: ws://, unless tls_self_signed says otherwise."""
    tls_key: Annotated[tuple[FilePath, ...], BeforeValidator(several)] = ()
    tls_self_signed: bool = setting(_OPTIONS["tls_self_signed"])
    """wss:// with a certificate that the relay makes and keeps."""
    ml_kem: bool = setting(_OPTIONS["ml_kem"])
    """Let members exchange TLS' keys by X25519MLKEM768."""
    allow_origin: Annotated[tuple[Annotated[str, AfterValidator(_check_origin)], ...], BeforeValidator(several)] = ()
    """Of web pages that may connect."""
    trusted_proxies: Annotated[
        tuple[Annotated[IPv4Network | IPv6Network, BeforeValidator(_parse_proxy)], ...], BeforeValidator(several)
    ] = ()
    """Whose word on where requests come from counts."""
    unauthenticated_per_source: int = setting(_OPTIONS["unauthenticated_per_source"])
    failures_per_minute: int = setting(_OPTIONS["failures_per_minute"])
    workers: int = Field(default_factory=_spare_cores, ge=_OPTIONS["workers"].least, le=_OPTIONS["workers"].most)
    queue_bytes: int = setting(_OPTIONS["queue_bytes"])
    """Per member."""
    max_connections: int = setting(_OPTIONS["max_connections"])
    metrics: Endpoint | None = None
    """Where Prometheus' metrics are given alone."""

    @property
    def slots(self) -> int:
        """Of the engine, to which this machine's interfaces are connections, too."""
        return self.max_connections + sum(network.tun is not None for network in self.networks)

    @property
    def doubt_of_shared(self) -> str | None:
        """What is to be said if old clients have no password of their own."""
        paths = [network.path for network in self.networks if network.shares_passwords]
        if not paths:
            return None
        return SHARED if paths == ["/"] else f"{SHARED} (networks {', '.join(paths)})"

    @property
    def has_tls(self) -> bool:
        return bool(self.tls_certificate) or self.tls_self_signed

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("--tls-certificate and --tls-key need each other: give both or none")
        if len(self.tls_certificate) != len(self.tls_key):
            raise ValueError(
                f"{len(self.tls_certificate)} of --tls-certificate and {len(self.tls_key)} of --tls-key: "
                "give as many keys as certificates, in the same order"
            )
        if self.tls_certificate and self.tls_self_signed:
            raise ValueError("--tls-self-signed and --tls-certificate exclude each other: remove one of them")
        return self


class GivenNetwork(NamedTuple):
    """A network beside `/`, as the user wrote it."""

    path: Given
    given: Mapping[str, Given]
    """By the options' names, without its passwords'."""
    password: Given | None
    """Bytes."""
    passwords: Sequence[Given] = ()
    """Of its list, each a Password."""


def canonical_path(path: str) -> str:
    """The path of a URL in the form by which networks are looked up: without a slash at its end."""
    return path.rstrip("/") or "/"


def relay_settings(
    given: Mapping[str, Given],
    *,
    password: bytes,
    password_is_generated: bool = False,
    passwords: Sequence[Given] = (),
    networks: Sequence[GivenNetwork] = (),
) -> RelaySettings:
    """Validate what was given to candy-server.

    Args:
        given: values by the options' names, for the relay and for its network `/`.
        password: of that network, as chosen among its sources; empty: it has those of its list alone.
        passwords: of its list, each a Password.
        networks: the others.

    Raises:
        ConfigError: a value can't be right; the text names its origin.
    """
    keys = {option.key for option in NETWORK_OPTIONS}
    of_network = {key: value for key, value in given.items() if key in keys}
    fields = by_field(OPTIONS["server"], {key: value for key, value in given.items() if key not in keys})
    own = {
        "password": password,
        "password_is_generated": password_is_generated,
        "passwords": _check_passwords(password, passwords),
    }
    all_networks = (_network_settings(of_network, own), *_further_networks(networks))
    _check_tuns(all_networks, (of_network, *(network.given for network in networks)))
    fixed = {"networks": all_networks}
    websocket = fields.pop("websocket", None)
    if websocket is None:
        return validated(RelaySettings, fields, fixed)
    try:
        url = split_url(websocket.value)
    except ValueError as error:
        raise complaint(websocket, str(error)) from None
    port = url.port if url.port is not None else {"ws": 80, "wss": 443}[url.scheme]
    host = plain_host(url.hostname or "")
    fields |= {"host": Given(host, websocket.origin), "port": Given(port, websocket.origin)}
    settings = validated(RelaySettings, fields, fixed)
    if url.scheme == "wss" and not settings.has_tls:
        raise complaint(websocket, "needs --tls-certificate and --tls-key, or --tls-self-signed, or write ws://")
    if url.scheme == "ws" and settings.has_tls:
        raise complaint(websocket, "is without TLS, but a certificate is given, or asked for: write wss://")
    return settings


def _further_networks(networks: Sequence[GivenNetwork]) -> Iterable[NetworkSettings]:
    known = {"/"}
    for path, given, password, passwords in networks:
        if not re.fullmatch(r"/|(/[A-Za-z0-9._~-]+)+/?", path.value) or {".", ".."} & set(path.value.split("/")):
            raise complaint(path, "is not a path: write it like /home or /office/eu, of letters, digits and ._~-")
        canonical = canonical_path(path.value)
        if canonical == "/":
            raise complaint(path, "is the network that stands at the top of the file, before all tables")
        if canonical == HEALTH_PATH:
            raise complaint(path, "is where the relay answers health checks: choose another path")
        if canonical in known:
            raise complaint(path, f"is the second network at {canonical}: give each a path of its own")
        known.add(canonical)
        if len(known) > MAX_NETWORKS:
            raise complaint(path, f"is one network too many: a relay has at most {MAX_NETWORKS}")
        if password is None and not passwords:
            raise complaint(path, "has no password: add password or password_file to its table")
        short = password.value if password is not None else b""
        fixed = {"path": canonical, "password": short, "passwords": _check_passwords(short, passwords)}
        yield _network_settings(given, fixed)


def _check_passwords(short: bytes, given: Sequence[Given]) -> tuple[Password, ...]:
    """The passwords of a list beside that of the short form."""
    secrets, names = {short}, {""}
    for number, (password, origin) in enumerate(given, 1):
        if password.secret in secrets:
            raise ConfigError(f"{origin}: is the same password a second time: remove one of them")
        if password.name and password.name in names:
            raise ConfigError(f"{origin}: {password.name!r} is the name of another password too: choose another")
        if len(password.name) > NAME_MAX:
            raise ConfigError(f"{origin}: {password.name!r} is too long a name: use {NAME_MAX} characters or less")
        if number + bool(short) > PASSWORDS_MAX:
            raise ConfigError(f"{origin}: is one password too many: a network has at most {PASSWORDS_MAX}")
        secrets.add(password.secret)
        names.add(password.name)
    return tuple(password for password, _ in given)


def _network_settings(given: Mapping[str, Given], fixed: Mapping[str, Any]) -> NetworkSettings:
    fields = by_field(NETWORK_OPTIONS, {key: given[key] for key in given.keys() - {"sdwan", "routes"}})
    written = [*_split_sdwan(given.get("sdwan")), *_join_routes(given.get("routes"))]
    if len(written) > MAX_RULES:
        raise complaint(written[MAX_RULES], f"is one rule too many: a network has at most {MAX_RULES}")
    rules = [_parse_rule(rule) for rule in written]
    network = validated(NetworkSettings, fields, {**fixed, "rules": tuple(rules)})
    for rule, as_written in zip(rules, written, strict=True):
        if why := why_impossible(rule, network.pool, network.allow_outside_pool):
            raise complaint(as_written, why)
        if network.tun and rule.destination.overlaps(network.tun.network):
            raise complaint(as_written, f"is a route into {network.tun.network}, where this machine is")
    if network.reservations:
        _check_reservations(network, _items(fields["reservations"]))
    if overlap := first_overlap(rules):
        later, earlier = overlap
        raise complaint(written[later], f"overlaps {written[earlier].value!r}: no member can have both")
    tun, pool = network.tun, network.pool
    if tun and pool and not network.allow_outside_pool and not int(pool[1]) <= int(tun.ip) <= int(pool[-2]):
        raise complaint(fields["tun"], f"is not a member's address in the pool {pool}")
    return network


def _items(given: Given) -> Sequence[Given]:
    """The values of an option that repeats."""
    values = (given.value,) if isinstance(given.value, str) else given.value
    return [given._replace(value=value) for value in values]


def _check_reservations(network: NetworkSettings, written: Sequence[Given]) -> None:
    if len(written) > RESERVATIONS_MAX:
        raise complaint(written[RESERVATIONS_MAX], f"is one too many: a network has at most {RESERVATIONS_MAX}")
    seen: set[IPv4Address] = set()
    pool = Pool(network.pool)
    is_anywhere = network.allow_outside_pool or network.pool is None
    for reservation, as_written in zip(network.reservations, written, strict=True):
        ip = reservation.address
        if not is_unicast(ip):
            raise complaint(as_written, "is not an address that a member can have")
        if not is_anywhere and not pool.contains(ip):
            raise complaint(as_written, f"is not a member's address in the pool {network.pool}")
        if network.tun is not None and ip == network.tun.ip:
            raise complaint(as_written, "is the address of this machine, by tun")
        if ip in seen:
            raise complaint(as_written, "is the second device for this address: an address has one")
        seen.add(ip)


def _split_sdwan(sdwan: Given | None) -> Iterable[Given]:
    if sdwan is None:
        return ()
    rules = enumerate(split_rules(sdwan.value), 1)
    return (Given(rule, f"{sdwan.origin}: rule {number}") for number, rule in rules)


def _join_routes(routes: Given | None) -> Iterable[Given]:
    """Rules of a TOML file in the original's form, which errors show."""
    for table, origin in routes.value if routes is not None else ():
        for key in RULE_KEYS:
            if not isinstance(table.get(key), str):
                raise ConfigError(f"{origin}: {key} is missing, or not text in quotes")
        if unknown := table.keys() - set(RULE_KEYS):
            raise ConfigError(f"{origin}: {min(unknown)} is not a part of a rule: write {', '.join(RULE_KEYS)}")
        yield Given(",".join(table[key] for key in RULE_KEYS), origin)


def _parse_rule(given: Given) -> Rule:
    try:
        return Rule.parse(given.value)
    except ValueError as error:
        raise complaint(given, str(error)) from None


def _check_tuns(networks: Sequence[NetworkSettings], given: Sequence[Mapping[str, Given]]) -> None:
    """A machine can't route to equal networks on two of its interfaces."""
    made: list[NetworkSettings] = []
    for network, fields in zip(networks, given, strict=True):
        if network.tun is None:
            continue
        for other in made:
            if other.tun is not None and other.tun.network.overlaps(network.tun.network):
                raise complaint(
                    fields["tun"], f"overlaps {other.tun}, this machine's interface in the network {other.path}"
                )
            if other.interface == network.interface:
                raise complaint(
                    fields["tun"], f"needs an interface {other.interface}, as {other.path} does: choose another path"
                )
        made.append(network)
