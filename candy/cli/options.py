"""What users may write: every option of both commands, once.

Rules:
 1. A setting has one name: `auth_timeout` in a file is `--auth-timeout` on the command line.
 2. Both commands take every option of the original. One that is the other command's, or is without effect so
    far, says so once and changes nothing.

This module reads nothing (command.py and files.py do) and judges nothing (candy.relay.settings and
candy.settings do).
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from candy.protocol.auth import TOLERANCE_S
from candy.relay.settings import DEFAULT_POOL
from candy.settings import DEFAULT_PORT

Side = Literal["server", "client"]


class Option(NamedTuple):
    """One setting as users write it."""

    key: str
    kind: type[str] | type[int] | type[float] | type[bool] | type[list[object]] | type[dict[str, object]]
    """A list or dict stands in TOML files alone."""
    meaning: str
    metavar: str | None = None
    short: str | None = None
    idle: bool = False
    """Accepted, and without effect so far."""

    @property
    def is_flag(self) -> bool:
        """Whether it can be written on a command line."""
        return self.kind not in (list, dict)

    @property
    def flag(self) -> str:
        return "--" + self.key.replace("_", "-")


_PASSWORD = (
    Option("password", str, "the network's password; better in CANDY_PASSWORD or a file", "TEXT", "-p"),
    Option("password_file", str, "read the password from this file", "FILE"),
)
_LOG = (
    Option("debug", bool, "log more"),
    Option("no_timestamp", bool, "log without the time of day"),
)
NETWORK_OPTIONS = (
    *_PASSWORD,
    Option("dhcp", str, f"grant addresses of this pool, '' for none  [{DEFAULT_POOL}]", "CIDR", "-d"),
    Option("allow_outside_pool", bool, "let members claim addresses outside of the pool"),
    Option("sdwan", str, "networks behind members: device,destination,next hop;…", "RULES"),
    Option("routes", list, "the same as a list of tables"),
    Option("tun", str, "give this machine an interface in the network, like 192.168.202.1/24", "CIDR", "-t"),
    Option("no_source_check", bool, "let members send from any address"),
    Option("no_broadcast", bool, "send nothing to everybody"),
    Option("max_members", int, "members at once, 0 for no limit  [0]", "COUNT"),
    Option("auth_timeout", float, "time a connection has to authenticate  [10]", "SECONDS"),
    Option("clock_tolerance", int, f"how far a member's clock may be off  [{TOLERANCE_S}]", "SECONDS"),
)
"""What each of a relay's networks has for itself; on the command line these are the network `/`'s."""
OPTIONS: Mapping[Side, tuple[Option, ...]] = {
    "server": (
        Option("websocket", str, f"listen here  [ws://0.0.0.0:{DEFAULT_PORT}]", "URL", "-w"),
        *NETWORK_OPTIONS,
        Option("network", dict, "further networks by their paths, with settings of their own"),
        Option("tls_certificate", str, "serve wss:// with this certificate chain (PEM)", "FILE"),
        Option("tls_key", str, "the certificate's private key (PEM)", "FILE"),
        Option("unauthenticated_per_source", int, "unauthenticated connections per address  [64]", "COUNT"),
        Option("failures_per_minute", int, "wrong passwords per address before answers slow down  [60]", "COUNT"),
        Option("workers", int, "threads that forward packets  [cores - 1]", "COUNT"),
        Option("queue_bytes", int, "what may wait for one slow member  [4194304]", "BYTES"),
        Option("max_connections", int, "connections at once  [65536]", "COUNT"),
        *_LOG,
    ),
    "client": (
        Option("websocket", str, "the relay, ws://host:port or wss://host", "URL", "-w"),
        Option("name", str, "name the interface candy-NAME instead of candy", "NAME", "-n"),
        Option("tun", str, "own address, like 192.168.202.5/24, instead of one of the pool", "CIDR", "-t"),
        Option("mtu", int, "MTU of the interface, 576 to 1479  [1400]", "BYTES"),
        Option("insecure", bool, "do not verify the relay's certificate"),
        Option("ca_file", str, "trust this certificate authority (PEM), not the system's", "FILE"),
        Option("no_offload", bool, "exchange packets with the kernel one by one"),
        Option("no_extension", bool, "speak as the original's clients do, even with a relay that can do more"),
        Option("masquerade", bool, "forward between the network and this machine's others, with NAT (nftables)"),
        Option("stun", str, "STUN server for direct links", "URL", "-s", idle=True),
        Option("port", int, "local UDP port for direct links", "PORT", idle=True),
        Option("localhost", str, "local address for direct links", "IP", idle=True),
        Option("discovery", int, "time between searches for direct links", "SECONDS", idle=True),
        Option("route", int, "cost of relaying for other members", "COST", "-r", idle=True),
        *_PASSWORD,
        *_LOG,
    ),
}

SWITCHES_OFF = {
    "no_timestamp": "timestamps",
    "no_source_check": "check_source",
    "no_broadcast": "forward_broadcast",
    "no_offload": "offload",
    "no_extension": "extension",
}
"""Options that switch something off, and the settings that they negate."""

ORIGINAL_KEYS = frozenset(
    {
        "mode",
        "websocket",
        "password",
        "dhcp",
        "sdwan",
        "name",
        "tun",
        "stun",
        "discovery",
        "route",
        "port",
        "localhost",
        "mtu",
        "debug",
    }
)
"""What a file in the original's grammar may set."""


def other_side(side: Side) -> Side:
    return "client" if side == "server" else "server"


def options_of_other_side(side: Side) -> list[Option]:
    """The original's options that mean something to the other command alone."""
    own = {option.key for option in OPTIONS[side]}
    return [o for o in OPTIONS[other_side(side)] if o.key in ORIGINAL_KEYS and o.key not in own]
