"""The line that joins a member: what the relay prints when it listens.

This module opens nothing and knows neither sessions nor the engine.
"""

import socket

from candy.carrier import pin as pins
from candy.protocol.link import Link
from candy.relay.networksettings import NetworkSettings
from candy.relay.settings import RelaySettings
from candy.settings import host_port


def member_url(settings: RelaySettings, network: NetworkSettings, address: str, port: int | None = None) -> str:
    """Where members reach a network: below `public_url`, if there is one.

    Args:
        address, port: as for member_line.
    """
    path = "" if network.path == "/" else network.path
    if settings.public_url is not None:
        return settings.public_url + path
    scheme = "wss" if settings.has_tls else "ws"
    # A URL has the interface of a link-local address behind %25.
    return f"{scheme}://{host_port(address.replace('%', '%25'), port or settings.port)}{path}"


def member_line(
    settings: RelaySettings,
    network: NetworkSettings,
    address: str,
    port: int | None = None,
    pin: str | None = None,
    key: bytes | None = None,
) -> str:
    """The command that joins a member, for a POSIX shell. It takes root, for the interface, and sudo passes no variable
    on but by env.

    A password that the user chose is not printed, because the relay's output ends up in logs.

    Args:
        address: host name or IP address at which members reach the relay, see member_address; --public-url wins.
        port: the relay's, where the settings leave it open.
        pin: of its key, if that is all that members can know it by.
        key: the network's; None: nobody logs in with one.
    """
    password = network.password.decode() if network.password_is_generated else "<your password>"
    quoted = password.replace("'", "'\\''")
    url = member_url(settings, network, address, port)
    if not url.startswith("wss:"):
        pin = None
    if key is not None:
        fragment = Link(key, pin=None if pin is None else pins.parse(pin)).encode()
        where = f"'{url}#{fragment}'"
    else:
        where = url if pin is None else f"{url} --pin {pin}"
    # Without a pool each member brings its address.
    own = "" if network.pool is not None else " -t ADDRESS"
    return f"sudo env CANDY_PASSWORD='{quoted}' candy-client -w {where}{own}"


def describe_pool(network: NetworkSettings) -> str:
    """Where a network's addresses come from, for the log."""
    return f"addresses from {network.pool}" if network.pool else "no pool: members bring their addresses"


def member_address(host: str) -> str:
    """Where members reach a relay that listens on this host: there, or, for any address, on the default
    route; on a machine without one the host's name is the best guess."""
    if host not in ("0.0.0.0", "::"):
        return host
    found = default_route_address()
    if found is None and host == "::":
        found = default_route_address("2001:db8::1")
    return found or socket.gethostname()


def default_route_address(towards: str = "203.0.113.1") -> str | None:
    """This machine's address towards the default route of IPv4, or IPv6, None without one. Nothing is sent.

    Args:
        towards: an address that belongs to no host (RFC 5737, RFC 3849).
    """
    with socket.socket(socket.AF_INET6 if ":" in towards else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a UDP socket only chooses its source address.
            probe.connect((towards, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])
