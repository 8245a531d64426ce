"""What the user wrote becomes the relay's settings; and what --check says of sound settings that are perhaps not meant.

Gathered ─▶ configure() ─▶ RelaySettings ─▶ doubts() ─▶ lines
"""

import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

from candy.cli.gathering import Gathered
from candy.errors import ConfigError
from candy.options import DEFAULT_POOL, DEFAULT_PORT
from candy.relay.settings import RelaySettings, relay_settings
from candy.relay.state import kept_password
from candy.settings import Given

PRIVILEGED_BELOW = 1024
FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
INTERFACES = Path("/sys/class/net")
CAP_NET_BIND_SERVICE = 10
"""From <linux/capability.h>."""


def configure(gathered: Gathered, check: bool) -> RelaySettings:
    """The relay's settings. If no password is given for the network `/`, in no form, one is generated, and kept unless
    this is a check.

    Raises:
        ConfigError: a value can't be right.
        OperationalError: the password that was kept can't be read.
    """
    password = gathered.password
    if password is not None and not password.value:
        raise ConfigError(f"{password.origin}: an empty password lets every machine in: leave it out to have one made")
    for network in gathered.networks:
        if network.password is not None and not network.password.value:
            raise ConfigError(f"{network.password.origin}: an empty password lets every machine in: write one")
    # As with the original, a file has a pool only if it says so.
    given = _without_pool(gathered.given) if gathered.from_file else gathered.given
    is_generated = password is None and not gathered.passwords
    networks = [network._replace(given=_without_pool(network.given)) for network in gathered.networks]
    settings = relay_settings(
        given,
        password=password.value if password else b"",
        password_is_generated=is_generated,
        passwords=gathered.passwords,
        networks=networks,
    )
    if is_generated and not check:
        made = kept_password(settings.state_dir, secrets.token_urlsafe)
        main, *others = settings.networks
        main = replace(main, password=made)
        settings = replace(settings, networks=(main, *others))
    return settings


def doubts(gathered: Gathered, settings: RelaySettings) -> list[str]:
    """Networks whose old clients have no password of their own. Of a file those without a pool, too, unless it says so:
    as with the original, their members need addresses. Those whose passwords have all come to their ends. And what
    this machine does not let work."""
    shared = [] if settings.doubt_of_shared is None else [settings.doubt_of_shared]
    of_file = _doubts_of_file(gathered) if gathered.from_file else []
    return [*of_file, *shared, *_doubts_of_machine(settings)]


def _doubts_of_machine(settings: RelaySettings) -> Iterator[str]:
    """What will not work here, now."""
    for option, port in settings.ports.items():
        if 0 < port < _first_free_port() and not _may_bind():
            yield (
                f"{option}: this user may not listen on port {port}: run as root, give the unit "
                f"AmbientCapabilities=CAP_NET_BIND_SERVICE (candy-server service install does), or take {DEFAULT_PORT}"
            )
    if settings.tls_certificate:
        # It takes ten megabytes, and a relay without TLS needs it not.
        from candy.carrier import certificates

        yield from certificates.doubts([certificates.examine(path) for path in settings.tls_certificate], time.time())
    for network in settings.networks:
        label = "" if network.path == "/" else f"{network.path}: "
        for lan, interface in _lans():
            if network.pool is not None and network.pool.overlaps(lan):
                yield (
                    f"{label}--dhcp: the pool {network.pool} overlaps {lan}, which this machine is part of by "
                    f"{interface}: of members and hosts there one alone can be reached: take another pool"
                )


def _lans() -> Iterator[tuple[IPv4Network, str]]:
    """Networks of this machine, and by which interface; those of tunnels, candy's own among them, are none."""
    from candy.host.netlink import Netlink

    try:
        with Netlink() as kernel:
            for address in kernel.addresses():
                name = socket.if_indextoname(address.ifindex)
                if not address.own.is_loopback and not Path(INTERFACES, name, "tun_flags").exists():
                    yield address.network, name
    except OSError:
        # A sandbox without netlink: a doubt is no more than that.
        return


def _first_free_port() -> int:
    """Of those that everybody may listen on."""
    try:
        return int(FIRST_FREE_PORT.read_text())
    except (OSError, ValueError):
        return PRIVILEGED_BELOW


def _may_bind() -> bool:
    """By CAP_NET_BIND_SERVICE, which root has."""
    status = Path("/proc/self/status").read_text()
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> CAP_NET_BIND_SERVICE & 1)


def _doubts_of_file(gathered: Gathered) -> list[str]:
    networks = [("", gathered.given), *((f"{network.path.value}: ", network.given) for network in gathered.networks)]
    lists = [("", gathered.password, gathered.passwords)]
    lists += [(f"{each.path.value}: ", each.password, tuple(each.passwords)) for each in gathered.networks]
    return [
        f"{label}no password holds any more, so nobody can log in"
        for label, short, listed in lists
        if short is None and listed and not any(each.value.holds(time.time()) for each in listed)
    ] + [
        f"{label}the file has no dhcp, so members without an address of their own (--tun) are refused: "
        f'write dhcp = "{DEFAULT_POOL}", or dhcp = "" if that is meant'
        for label, given in networks
        if "dhcp" not in given
    ]


def _without_pool(given: Mapping[str, Given]) -> Mapping[str, Given]:
    return {"dhcp": Given("", "--dhcp"), **given}
