"""The relay's settings: its own, and those of each of its networks.

    given, password ─▶ the network `/` ┐
    GivenNetwork … ──▶ further networks ├─▶ RelaySettings
    given ───────────▶ the relay's own ┘

Rules:
 1. Networks share nothing and inherit nothing: what a table does not say has its default, not another network's value.
 2. What two settings say together is checked here as well: rules against each other and the pool, a path or an
    interface that two networks want.

This module does not know where values come from, nor what a setting does.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from ipaddress import IPv4Network, ip_address
from typing import Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, FilePath, model_validator

from candy.errors import ConfigError
from candy.options import DEFAULT_POOL, DEFAULT_PORT, NETWORK_OPTIONS, OPTIONS, by_key
from candy.relay.pool import Pool
from candy.relay.rules import MAX_RULES, Rule, first_overlap, split_rules, why_impossible
from candy.settings import (
    INTERFACE_BYTES,
    Frozen,
    Given,
    OwnAddress,
    Settings,
    by_field,
    complaint,
    setting,
    split_url,
    validated,
)

_OPTIONS = by_key("server")
MAX_NETWORKS = 1000
RULE_KEYS = ("device", "destination", "via")
"""Of a rule in a TOML file, in the original's order."""


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
    try:
        Pool(pool)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix(f"pool {pool} ")) from None
    return pool


def _spare_cores() -> int:
    """All cores that the process may use but one, which Python and the kernel need."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _canonical_host(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        return host


class NetworkSettings(Frozen):
    """One network of a relay. Nothing in it is shared with, or inherited by, another."""

    path: str = "/"
    """Of its URL, as canonical_path() has it."""
    password: bytes = Field(repr=False)
    """Raw bytes, as they go into every digest."""
    password_is_generated: bool = False
    """Made by us: its user has to be told."""
    pool: Annotated[IPv4Network | None, BeforeValidator(_parse_pool), AfterValidator(_check_pool)] = setting(
        _OPTIONS["dhcp"]
    )
    """None: dynamic requests are refused, and a member may claim any address."""
    allow_outside_pool: bool = setting(_OPTIONS["allow_outside_pool"])
    rules: tuple[Rule, ...] = ()
    """SD-WAN."""
    tun: OwnAddress = None
    """The address of an interface of the relay's own; None: it has none."""
    check_source: bool = setting(_OPTIONS["no_source_check"])
    """Members send from their own addresses, and from the networks behind them, only."""
    forward_broadcast: bool = setting(_OPTIONS["no_broadcast"])
    """To everybody: packets and messages."""
    auth_timeout: float = setting(_OPTIONS["auth_timeout"])
    """Seconds."""
    clock_tolerance: int = setting(_OPTIONS["clock_tolerance"])
    """Seconds, to both sides."""
    max_members: int = setting(_OPTIONS["max_members"])
    """0: as many as there are connections."""

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

    host: Annotated[str, AfterValidator(_canonical_host)] = "0.0.0.0"
    """A name, or an address in its shortest form; `::` is IPv4's addresses as well."""
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    """0: one that is free."""
    tls_certificate: FilePath | None = None
    """None: ws://; else wss://, with tls_key."""
    tls_key: FilePath | None = None
    unauthenticated_per_source: int = setting(_OPTIONS["unauthenticated_per_source"])
    failures_per_minute: int = setting(_OPTIONS["failures_per_minute"])
    workers: int = Field(default_factory=_spare_cores, ge=_OPTIONS["workers"].least, le=_OPTIONS["workers"].most)
    queue_bytes: int = setting(_OPTIONS["queue_bytes"])
    """Per member."""
    max_connections: int = setting(_OPTIONS["max_connections"])

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("--tls-certificate and --tls-key need each other: give both or none")
        return self


class GivenNetwork(NamedTuple):
    """A network beside `/`, as the user wrote it."""

    path: Given
    given: Mapping[str, Given]
    """By the options' names, without its password's."""
    password: Given | None
    """Bytes."""


def canonical_path(path: str) -> str:
    """The path of a URL as networks are known by it: without a slash at its end."""
    return path.rstrip("/") or "/"


def relay_settings(
    given: Mapping[str, Given],
    *,
    password: bytes,
    password_is_generated: bool = False,
    networks: Sequence[GivenNetwork] = (),
) -> RelaySettings:
    """Validate what was given to candy-server.

    Args:
        given: values by the options' names, for the relay and for its network `/`.
        password: of that network, as chosen among its sources.
        networks: the others.

    Raises:
        ConfigError: a value can't be meant; the text names its origin.
    """
    keys = {option.key for option in NETWORK_OPTIONS}
    of_network = {key: value for key, value in given.items() if key in keys}
    fields = by_field(OPTIONS["server"], {key: value for key, value in given.items() if key not in keys})
    own = {"password": password, "password_is_generated": password_is_generated}
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
    fields |= {"host": Given(url.hostname, websocket.origin), "port": Given(port, websocket.origin)}
    settings = validated(RelaySettings, fields, fixed)
    if url.scheme == "wss" and not settings.tls_certificate:
        raise complaint(websocket, "needs --tls-certificate and --tls-key, or write ws://")
    if url.scheme == "ws" and settings.tls_certificate:
        raise complaint(websocket, "is without TLS, but a certificate is given: write wss://")
    return settings


def _further_networks(networks: Sequence[GivenNetwork]) -> Iterable[NetworkSettings]:
    known = {"/"}
    for path, given, password in networks:
        if not re.fullmatch(r"/|(/[A-Za-z0-9._~-]+)+/?", path.value) or {".", ".."} & set(path.value.split("/")):
            raise complaint(path, "is no path: write it like /home or /office/eu, of letters, digits and ._~-")
        canonical = canonical_path(path.value)
        if canonical == "/":
            raise complaint(path, "is the network that stands at the top of the file, before all tables")
        if canonical in known:
            raise complaint(path, f"is the second network at {canonical}: give each a path of its own")
        known.add(canonical)
        if len(known) > MAX_NETWORKS:
            raise complaint(path, f"is one network too many: a relay has at most {MAX_NETWORKS}")
        if password is None:
            raise complaint(path, "has no password: add password or password_file to its table")
        yield _network_settings(given, {"path": canonical, "password": password.value})


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
    if overlap := first_overlap(rules):
        later, earlier = overlap
        raise complaint(written[later], f"overlaps {written[earlier].value!r}: no member can have both")
    tun, pool = network.tun, network.pool
    if tun and pool and not network.allow_outside_pool and not int(pool[1]) <= int(tun.ip) <= int(pool[-2]):
        raise complaint(fields["tun"], f"is no member's address in the pool {pool}")
    return network


def _split_sdwan(sdwan: Given | None) -> Iterable[Given]:
    if sdwan is None:
        return ()
    rules = enumerate(split_rules(sdwan.value), 1)
    return (Given(rule, f"{sdwan.origin}: rule {number}") for number, rule in rules)


def _join_routes(routes: Given | None) -> Iterable[Given]:
    """Rules of a TOML file in the original's form, by which they are named."""
    for table, origin in routes.value if routes is not None else ():
        for key in RULE_KEYS:
            if not isinstance(table.get(key), str):
                raise ConfigError(f"{origin}: {key} is missing, or no text in quotes")
        if unknown := table.keys() - set(RULE_KEYS):
            raise ConfigError(f"{origin}: {min(unknown)} is no part of a rule: write {', '.join(RULE_KEYS)}")
        yield Given(",".join(table[key] for key in RULE_KEYS), origin)


def _parse_rule(given: Given) -> Rule:
    try:
        return Rule.parse(given.value)
    except ValueError as error:
        raise complaint(given, str(error)) from None


def _check_tuns(networks: Sequence[NetworkSettings], given: Sequence[Mapping[str, Given]]) -> None:
    """A machine can't tell equal networks on two of its interfaces apart."""
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


def needs_restart(running: RelaySettings, wanted: RelaySettings) -> list[str]:
    """The names of all that is different and that a running relay can't change."""
    changed = _differences(running, wanted, {"networks"})
    before = {network.path: network for network in running.networks}
    after = {network.path: network for network in wanted.networks}
    changed += [f"network {path}" for path in sorted(before.keys() ^ after.keys())]
    for path in sorted(before.keys() & after.keys()):
        old, new = before[path], after[path]
        # A password that was generated is read from the state folder again, so it is not a change.
        except_for = {"password"} if old.password_is_generated and new.password_is_generated else set()
        prefix = "" if path == "/" else f"network {path}: "
        changed += [prefix + name for name in _differences(old, new, except_for)]
    return list(dict.fromkeys(changed))


def _differences(one: Frozen, other: Frozen, except_for: set[str]) -> list[str]:
    """The options whose settings are different, but for those that a reload applies."""
    fields = type(one).model_fields.keys() - except_for - _RELOADED
    return [_NAMES.get(name, name) for name in sorted(fields) if getattr(one, name) != getattr(other, name)]


_NAMES = {field: option.key for option in reversed(OPTIONS["server"]) for field in option.decides}
"""Of the option that decides a field: the first one where several do."""
_RELOADED = {field for option in OPTIONS["server"] if option.reloads for field in option.decides}
