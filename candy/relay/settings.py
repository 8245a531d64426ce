"""The relay's settings: its own, and those of each of its networks (candy.relay.networksettings).

    given, passwords ─▶ the network `/` ┐
    GivenNetwork … ───▶ further networks ├─▶ RelaySettings
    given ────────────▶ the relay's own ┘

Rule: networks are also checked against each other: a path or an interface that two of them want.

This module does not know where values come from, nor what a setting does.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any

from candy.checked import After, Before, FilePath, bounded
from candy.errors import ConfigError
from candy.options import DEFAULT_PORT, NETWORK_OPTIONS, OPTIONS, by_key
from candy.relay.clustersettings import ClusterSettings, cluster_settings
from candy.relay.networksettings import NetworkSettings, check_passwords, network_settings
from candy.settings import (
    Endpoint,
    Given,
    GivenNetwork,
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


def _parse_proxy(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value, strict=False)
    except ValueError:
        raise ValueError("is not an address or network of a proxy: write it like 10.0.0.5 or 10.0.0.0/24") from None


def _parse_public_url(value: object) -> object:
    if not isinstance(value, str):
        return value
    url = split_url(value)
    if url.username is not None or url.query or url.fragment:
        raise ValueError("is more than scheme, host, port and path: write it like wss://vpn.example.org")
    return value.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class RelaySettings(Settings):
    """What `candy.relay.lifecycle.run` is given."""

    networks: tuple[NetworkSettings, ...]
    """The first one is `/`."""

    host: Annotated[str, After(_canonical_host)] | None = None
    """A name, or an address in its shortest form; `::` includes IPv4. None: nobody has said, and all addresses."""
    port: int = bounded(DEFAULT_PORT, least=0, most=65535)
    """0: any free one."""
    public_url: Annotated[str | None, Before(_parse_public_url)] = None
    """How others reach this relay, without a slash at its end; None: by the address at which it listens."""
    tls_certificate: Annotated[tuple[FilePath, ...], Before(several)] = ()
    """wss:// with these chains, and as many of tls_key. Empty: ws://, unless tls_self_signed says otherwise."""
    tls_key: Annotated[tuple[FilePath, ...], Before(several)] = ()
    tls_self_signed: bool = setting(_OPTIONS["tls_self_signed"])
    """wss:// with a certificate that the relay makes and keeps."""
    ml_kem: bool = setting(_OPTIONS["ml_kem"])
    """Let members exchange TLS' keys by X25519MLKEM768."""
    allow_origin: Annotated[tuple[Annotated[str, After(_check_origin)], ...], Before(several)] = ()
    """Of web pages that may connect."""
    trusted_proxies: Annotated[
        tuple[Annotated[IPv4Network | IPv6Network, Before(_parse_proxy)], ...], Before(several)
    ] = ()
    """Whose word on where requests come from counts."""
    stun: bool = setting(_OPTIONS["no_stun"])
    """Answer STUN, beside each address that is listened on, or instead:"""
    stun_listen: Endpoint | None = None
    """There."""
    unauthenticated_per_source: int = setting(_OPTIONS["unauthenticated_per_source"])
    failures_per_minute: int = setting(_OPTIONS["failures_per_minute"])
    workers: int = bounded(factory=_spare_cores, least=_OPTIONS["workers"].least, most=_OPTIONS["workers"].most)
    queue_bytes: int = setting(_OPTIONS["queue_bytes"])
    """Per member."""
    max_connections: int = setting(_OPTIONS["max_connections"])
    metrics: Endpoint | None = None
    """Where Prometheus' metrics are given alone."""
    cluster: ClusterSettings | None = None
    """The other relays that serve these networks; None: there are none."""

    @property
    def slots(self) -> int:
        """Of the engine, to which this machine's interfaces are connections, too."""
        return self.max_connections + sum(network.tun is not None for network in self.networks)

    @property
    def ports(self) -> dict[str, int]:
        """On which this machine is to listen, by option."""
        wanted = {"--websocket": self.port}
        others = {"--stun-listen": self.stun_listen if self.stun else None, "--control": self.control}
        for option, endpoint in (others | {"--metrics": self.metrics}).items():
            if endpoint is not None:
                wanted[option] = endpoint[1]
        return wanted

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

    def check(self) -> None:
        super().check()
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("--tls-certificate and --tls-key need each other: give both or none")
        if len(self.tls_certificate) != len(self.tls_key):
            raise ValueError(
                f"{len(self.tls_certificate)} of --tls-certificate and {len(self.tls_key)} of --tls-key: "
                "give as many keys as certificates, in the same order"
            )
        if self.tls_certificate and self.tls_self_signed:
            raise ValueError("--tls-self-signed and --tls-certificate exclude each other: remove one of them")


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
        "passwords": check_passwords(password, passwords),
    }
    all_networks = (network_settings(of_network, own), *_further_networks(networks))
    _check_tuns(all_networks, (of_network, *(network.given for network in networks)))
    fixed: dict[str, Any] = {"networks": all_networks}
    if (cluster := fields.pop("cluster", None)) is not None:
        if password_is_generated:
            why = "needs a password for the network /, the same at all relays: write password or password_file"
            raise ConfigError(f"{cluster.origin}: {why}")
        fixed["cluster"] = cluster_settings(cluster)
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
        fixed = {"path": canonical, "password": short, "passwords": check_passwords(short, passwords)}
        yield network_settings(given, fixed)


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
