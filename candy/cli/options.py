"""What users may write: every option of both commands, once.

Rules:
 1. A setting has one name: `auth_timeout` in a file is `--auth-timeout` on the command line.
 2. Both commands take every option of the original. One that is the other command's, or is without effect so
    far, says so once and changes nothing.

This module reads nothing (command.py and files.py do) and judges nothing (candy.config does).
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from candy.auth import TOLERANCE_S
from candy.config import DEFAULT_POOL, DEFAULT_PORT

Side = Literal["server", "client"]


class Option(NamedTuple):
    """One setting as users write it."""

    key: str
    kind: type[str] | type[int] | type[float] | type[bool]
    meaning: str
    metavar: str | None = None
    short: str | None = None
    idle: bool = False
    """Accepted, and without effect so far."""

    @property
    def flag(self) -> str:
        return "--" + self.key.replace("_", "-")


_SHARED = (
    Option("password", str, "the network's password; better in CANDY_PASSWORD or a file", "TEXT", "-p"),
    Option("password_file", str, "read the password from this file", "FILE"),
    Option("debug", bool, "log more"),
    Option("no_timestamp", bool, "log without the time of day"),
)
OPTIONS: Mapping[Side, tuple[Option, ...]] = {
    "server": (
        Option("websocket", str, f"listen here  [ws://0.0.0.0:{DEFAULT_PORT}]", "URL", "-w"),
        Option("dhcp", str, f"grant addresses of this pool, '' for none  [{DEFAULT_POOL}]", "CIDR", "-d"),
        Option("allow_outside_pool", bool, "let members claim addresses outside of the pool"),
        Option("tls_certificate", str, "serve wss:// with this certificate chain (PEM)", "FILE"),
        Option("tls_key", str, "the certificate's private key (PEM)", "FILE"),
        Option("auth_timeout", float, "time a connection has to authenticate  [10]", "SECONDS"),
        Option("clock_tolerance", int, f"how far a member's clock may be off  [{TOLERANCE_S}]", "SECONDS"),
        Option("unauthenticated_per_source", int, "unauthenticated connections per address  [64]", "COUNT"),
        Option("failures_per_minute", int, "wrong passwords per address before answers slow down  [60]", "COUNT"),
        Option("workers", int, "threads that forward packets  [cores - 1]", "COUNT"),
        Option("queue_bytes", int, "what may wait for one slow member  [4194304]", "BYTES"),
        Option("max_connections", int, "connections at once  [65536]", "COUNT"),
        Option("sdwan", str, "SD-WAN rules", "RULES", idle=True),
        *_SHARED,
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
        Option("stun", str, "STUN server for direct links", "URL", "-s", idle=True),
        Option("port", int, "local UDP port for direct links", "PORT", idle=True),
        Option("localhost", str, "local address for direct links", "IP", idle=True),
        Option("discovery", int, "time between searches for direct links", "SECONDS", idle=True),
        Option("route", int, "cost of relaying for other members", "COST", "-r", idle=True),
        *_SHARED,
    ),
}

SWITCHES_OFF = {"no_timestamp": "timestamps", "no_offload": "offload", "no_extension": "extension"}
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
