"""Every option of both commands, once: its name, kind, default, bounds, unit, help and effect.

    OPTIONS ─┬─▶ candy.relay.settings, candy.member.settings   default and bounds of each field
             ├─▶ candy.cli                                     command line, --help, keys of files
             └─▶ tests                                         candy/examples and docs/ say the same

Rules:
 1. A setting has one name: `auth_timeout` in a file is `--auth-timeout` on the command line.
 2. Both commands take every option of the original. One that is the other command's says so once and changes
    nothing.
 3. Data only: nothing here reads a file, checks a value or imports a library.
"""

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any, Literal, NamedTuple

from candy.protocol.auth import TOLERANCE_S

Side = Literal["server", "client"]
"""The command that takes an option."""

DEFAULT_HOST = "0.0.0.0"
DEFAULT_PORT = 26816
"""TCP, of a relay."""
DEFAULT_POOL = IPv4Network("192.168.202.0/24")
DEFAULT_MTU = 1400
"""Of an interface, bytes."""


class Option(NamedTuple):
    """One setting as users write it."""

    key: str
    kind: type[str] | type[int] | type[float] | type[bool] | type[list[object]] | type[dict[str, object]]
    """A list or dict stands in TOML files alone."""
    meaning: str
    """For --help; {default}, {least} and {most} are the values below."""
    metavar: str | None = None
    """Of a number its unit, of a list what it looks like in a TOML file."""
    short: str | None = None
    default: Any = None
    """As the settings hold it. None: there is none, or it depends on the machine."""
    least: int | None = None
    most: int | None = None
    above: int | None = None
    """Bounds: the value is at least `least`, at most `most`, and more than `above`."""
    fields: tuple[str, ...] = ()
    """The settings that it decides, where they have other names."""
    is_opposite: bool = False
    """A switch that turns its setting off."""
    is_original: bool = False
    """The original has it too."""
    repeats: bool = False
    """It may be written several times, and in TOML as a list."""
    is_quantity: bool = False
    """In TOML it may be a whole number as well as text like 10M."""
    reloads: bool = False
    """SIGHUP applies a change; any other needs a restart."""

    @property
    def is_flag(self) -> bool:
        """Whether it can be written on a command line."""
        return self.kind not in (list, dict)

    @property
    def flag(self) -> str:
        return "--" + self.key.replace("_", "-")

    @property
    def help(self) -> str:
        return self.meaning.format(default=self.default, least=self.least, most=self.most)

    @property
    def decides(self) -> tuple[str, ...]:
        """The names of the settings that it decides."""
        return self.fields or (self.key,)


def _switch(key: str, meaning: str, **more: Any) -> Option:
    return Option(key, bool, meaning, default=False, **more)


def _switch_off(key: str, field: str, meaning: str, **more: Any) -> Option:
    return _switch(key, meaning, fields=(field,), is_opposite=True, **more)


def _rate(key: str, meaning: str, default: int = 0) -> Option:
    bounds: dict[str, Any] = {"least": 0, "most": 10**12}
    return Option(key, str, meaning, "BITS/S", default=default, **bounds, is_quantity=True, reloads=True)


_PASSWORD = Option(
    "password",
    str,
    "the network's password; better in CANDY_PASSWORD or a file",
    "TEXT",
    "-p",
    is_original=True,
    reloads=True,
)
_PASSWORD_FILE = Option(
    "password_file", str, "read the password from this file", "FILE", fields=("password",), reloads=True
)
_CONTROL = (
    Option("control_group", str, "let this group use the control socket, too", "GROUP"),
    Option("control", str, "answer over TCP as well, to requests with a token, like 127.0.0.1:26817", "HOST:PORT"),
    Option("control_token_file", str, "the tokens, a name and a token on each line", "FILE"),
)
_ML_KEM = _switch(
    "ml_kem", "exchange TLS' keys by X25519MLKEM768 where both sides can; needs OpenSSL 3.5", reloads=True
)
_LOG = (
    _switch("debug", "log more", is_original=True, reloads=True),
    _switch_off("no_timestamp", "timestamps", "log without the time of day"),
    Option(
        "log_format",
        str,
        "text, or json: an object a line  [{default}]",
        "FORMAT",
        default="text",
    ),
)

NETWORK_OPTIONS = (
    _PASSWORD._replace(fields=("password", "password_is_generated")),
    _PASSWORD_FILE,
    Option(
        "passwords",
        list,
        "further passwords, each with a name and perhaps an end",
        "[{ name = …, password = …, until = … }]",
        reloads=True,
    ),
    Option(
        "admit",
        str,
        "whom a password lets in that is new and has a key: password, invite (nobody), approval  [{default}]",
        "WHOM",
        default="password",
        reloads=True,
    ),
    Option(
        "legacy",
        bool,
        "let clients without a key join, too; --no-legacy: nobody without  [on]",
        default=True,
        reloads=True,
    ),
    Option(
        "direct",
        bool,
        "let members reach each other without the relay; --no-direct: never  [on]",
        default=True,
        reloads=True,
    ),
    Option(
        "dhcp",
        str,
        "grant addresses of this pool, '' for none  [{default}]",
        "CIDR",
        "-d",
        default=DEFAULT_POOL,
        fields=("pool",),
        is_original=True,
    ),
    _switch("allow_outside_pool", "let members claim addresses outside of the pool"),
    Option(
        "sdwan",
        str,
        "networks behind members: device,destination,next hop;…",
        "RULES",
        fields=("rules",),
        is_original=True,
        reloads=True,
    ),
    Option(
        "routes",
        list,
        "the same as a list of tables",
        "[{ device = …, destination = …, via = … }]",
        fields=("rules",),
        reloads=True,
    ),
    Option(
        "tun",
        str,
        "give this machine an interface in the network, like 192.168.202.1/24",
        "CIDR",
        "-t",
        is_original=True,
    ),
    Option(
        "seal",
        str,
        "seal packets of that interface: prefer (where both can), require, or off  [{default}]",
        "MODE",
        default="prefer",
        reloads=True,
    ),
    _switch_off("no_source_check", "check_source", "let members send from any address, in outer headers too"),
    _switch_off("no_broadcast", "forward_broadcast", "send nothing to everybody"),
    Option(
        "max_members",
        int,
        "members at once, 0 for no limit  [{default}]",
        "COUNT",
        default=0,
        least=0,
        most=1 << 20,
        reloads=True,
    ),
    Option(
        "new_devices_per_minute",
        int,
        "new devices per address, 0 for no limit  [{default}]",
        "COUNT",
        default=100,
        least=0,
        most=1_000_000,
    ),
    _rate("limit_down", "send each member no more than this, like 10M; 0 for no limit  [{default}]"),
    _rate("limit_up", "take no more than this from each member  [{default}]"),
    _rate("network_limit_down", "send all members together no more than this  [{default}]"),
    _rate("network_limit_up", "take no more than this from all members together  [{default}]"),
    Option(
        "quota",
        str,
        "what each member may carry in a month, like 200G, before quota_rate holds it; 0 for no limit  [{default}]",
        "BYTES",
        default=0,
        least=0,
        most=10**17,
        is_quantity=True,
        reloads=True,
    ),
    _rate("quota_rate", "what is left of both rates when a quota is used up  [{default}]", 1_000_000),
    Option(
        "lease_days",
        int,
        "keep an absent device's address for it, 0 for ever  [{default}]",
        "DAYS",
        default=30,
        least=0,
        most=36500,
        reloads=True,
    ),
    Option(
        "reserve",
        str,
        "keep an address, like 192.168.202.9=laptop, =key:FINGERPRINT or =vmac:VMAC; may be repeated",
        "IP=DEVICE",
        fields=("reservations",),
        repeats=True,
        reloads=True,
    ),
    Option(
        "auth_timeout",
        float,
        "time a connection has to authenticate  [{default:g}]",
        "SECONDS",
        default=10.0,
        above=0,
        most=3600,
    ),
    Option(
        "clock_tolerance",
        int,
        "how far a member's clock may be off  [{default}]",
        "SECONDS",
        default=TOLERANCE_S,
        least=1,
        most=86400,
    ),
)
"""What each of a relay's networks has for itself; on the command line these are the network `/`'s."""

CLUSTER_OPTIONS = (
    Option("nats", str, "servers of NATS, like nats://10.0.0.5:4222 or tls://nats.example.org", "URL", repeats=True),
    Option("credentials", str, "by which NATS knows this relay: user:password, or what nsc has made", "FILE"),
    Option("ca_file", str, "trust this certificate authority (PEM) for NATS, not the system's", "FILE"),
    Option("name", str, "of this relay: another one than any other's", "NAME"),
    Option("url", str, "by which the other relays reach this one, like wss://eu.example.org", "URL"),
    Option(
        "replicas",
        int,
        "servers of NATS that keep each thing  [{default}]",
        "COUNT",
        default=1,
        least=1,
        most=5,
    ),
    Option("secret_file", str, "the relays' secret, at least 32 bytes and the same for all of them", "FILE"),
)
"""Of the table [cluster], in TOML files alone."""

OPTIONS: Mapping[Side, tuple[Option, ...]] = {
    "server": (
        Option(
            "websocket",
            str,
            "listen here  [{default}]",
            "URL",
            "-w",
            default=f"ws://{DEFAULT_HOST}:{DEFAULT_PORT}",
            fields=("host", "port"),
            is_original=True,
        ),
        Option(
            "public_url",
            str,
            "how members reach this relay, like wss://vpn.example.org, if not by its own address",
            "URL",
            reloads=True,
        ),
        *NETWORK_OPTIONS,
        Option(
            "network",
            dict,
            "further networks by their paths, with settings of their own",
            '[network."/home"] for each',
            fields=("networks",),
            reloads=True,
        ),
        Option(
            "tls_certificate",
            str,
            "serve wss:// with this certificate chain (PEM); may be repeated, each with its key",
            "FILE",
            repeats=True,
            reloads=True,
        ),
        Option(
            "tls_key",
            str,
            "the certificate's private key (PEM); may be repeated",
            "FILE",
            repeats=True,
            reloads=True,
        ),
        _switch(
            "tls_self_signed",
            "serve wss:// with a certificate made at the first start, which members know by its pin",
            reloads=True,
        ),
        _ML_KEM,
        Option(
            "allow_origin",
            str,
            "let web pages of this origin connect, like https://example.org; may be repeated",
            "ORIGIN",
            repeats=True,
            reloads=True,
        ),
        Option(
            "trusted_proxy",
            str,
            "believe this proxy's Forwarded or X-Forwarded-For; may be repeated",
            "CIDR",
            fields=("trusted_proxies",),
            repeats=True,
            reloads=True,
        ),
        Option(
            "unauthenticated_per_source",
            int,
            "unauthenticated connections per source  [{default}]",
            "COUNT",
            default=64,
            least=1,
            most=1_000_000,
        ),
        Option(
            "failures_per_minute",
            int,
            "wrong passwords per address before log-ins wait in line  [{default}]",
            "COUNT",
            default=60,
            least=1,
            most=1_000_000,
        ),
        _switch_off("no_stun", "stun", "answer no STUN, by which members behind NATs find each other (UDP, two ports)"),
        Option(
            "stun_listen",
            str,
            "answer STUN on this UDP port and another, like 0.0.0.0:443 behind a web server  [each address of -w]",
            "HOST:PORT",
        ),
        Option("workers", int, "threads that forward packets  [cores - 1]", "COUNT", least=1, most=64),
        Option(
            "queue_bytes",
            int,
            "what may wait for one slow member  [{default}]",
            "BYTES",
            default=4 << 20,
            least=128 << 10,
            most=1 << 30,
        ),
        Option(
            "max_connections", int, "connections at once  [{default}]", "COUNT", default=65536, least=1, most=1 << 20
        ),
        Option(
            "control_socket", str, "where commands ask this relay, '' for nowhere  [/run/candy/relay-PORT.sock]", "PATH"
        ),
        *_CONTROL,
        Option("metrics", str, "give Prometheus its metrics here, without a token, like 127.0.0.1:26818", "HOST:PORT"),
        Option("cluster", dict, "serve the networks together with other relays", "[cluster]"),
        *_LOG,
    ),
    "client": (
        Option(
            "websocket",
            str,
            "the relay, ws://host:port or wss://host; with the network's key behind #, as the relay prints it; may be "
            "repeated, for where to go when one is lost",
            "URL",
            "-w",
            fields=("urls", "network_key", "link_pins"),
            is_original=True,
            repeats=True,
            reloads=True,
        ),
        Option("name", str, "name the interface candy-NAME instead of candy", "NAME", "-n", is_original=True),
        Option(
            "tun",
            str,
            "own address, like 192.168.202.5/24, instead of one of the pool",
            "CIDR",
            "-t",
            is_original=True,
            reloads=True,
        ),
        Option(
            "accept_routes",
            str,
            "take routes to this public network too, or to all, or to none at all; may be repeated",
            "CIDR",
            repeats=True,
            reloads=True,
        ),
        # 1479 + 20 of IPIP + the kind byte = 1500, the longest message that any peer takes.
        Option(
            "mtu",
            int,
            "MTU of the interface, {least} to {most}  [{default}]",
            "BYTES",
            default=DEFAULT_MTU,
            least=576,
            most=1479,
            is_original=True,
        ),
        _switch("insecure", "do not verify the relay's certificate", reloads=True),
        Option("ca_file", str, "trust this certificate authority (PEM), not the system's", "FILE", reloads=True),
        Option(
            "pin",
            str,
            "trust the relay with this key, whatever its certificate says; may be repeated",
            "sha256/…",
            fields=("pins",),
            repeats=True,
            reloads=True,
        ),
        _ML_KEM,
        _switch_off("no_offload", "offload", "exchange packets with the kernel one by one"),
        _switch_off(
            "no_extension",
            "extension",
            "speak as the original's clients do, even with a relay that can do more",
            reloads=True,
        ),
        Option(
            "seal",
            str,
            "seal packets for members: prefer (where both can, by default), require, or off",
            "MODE",
            default="prefer",
            reloads=True,
        ),
        Option(
            "secret", str, "the secret of the network's members, from this file: all or nobody", "FILE", reloads=True
        ),
        _switch("masquerade", "forward between the network and this machine's others, with NAT (nftables)"),
        Option(
            "direct",
            bool,
            "reach members without the relay where that can be; --no-direct: never  [on]",
            default=True,
        ),
        Option(
            "stun",
            str,
            "the STUN server for direct links, like stun://stun.example.org  [the relay]",
            "URL",
            "-s",
            is_original=True,
        ),
        Option(
            "port",
            int,
            "local UDP port for direct links, 0 for any  [{default}]",
            "PORT",
            default=0,
            least=0,
            most=65535,
            is_original=True,
        ),
        Option(
            "endpoint",
            str,
            "be reached here, too, where a router forwards UDP to --port, like 198.51.100.7:5000; may be repeated",
            "ADDRESS:PORT",
            fields=("endpoints",),
            repeats=True,
        ),
        Option(
            "localhost",
            str,
            "what original clients in this LAN reach this machine by, for direct links  [its first address]",
            "IP",
            is_original=True,
        ),
        Option(
            "discovery",
            int,
            "look for original clients to link with directly, again after so long; 0: when packets come  [{default}]",
            "SECONDS",
            default=0,
            least=0,
            most=86400,
            is_original=True,
        ),
        Option(
            "route",
            int,
            "have original clients reach each other by this one, and it them, at so many ms; 0: not  [{default}]",
            "COST",
            "-r",
            default=0,
            least=0,
            most=1000,
            is_original=True,
        ),
        Option(
            "control_socket",
            str,
            "where commands ask this member, '' for nowhere  [/run/candy/member-INTERFACE.sock]",
            "PATH",
        ),
        *_CONTROL,
        _PASSWORD,
        _PASSWORD_FILE,
        *_LOG,
    ),
}

ORIGINAL_KEYS = frozenset(option.key for options in OPTIONS.values() for option in options if option.is_original) | {
    "mode"
}
"""What a file in the original's grammar may set."""


def by_key(side: Side) -> Mapping[str, Option]:
    """The options of one command by their names."""
    return {option.key: option for option in OPTIONS[side]}


def other_side(side: Side) -> Side:
    return "client" if side == "server" else "server"


def options_of_other_side(side: Side) -> list[Option]:
    """The original's options that mean something to the other command alone."""
    own = by_key(side)
    return [option for option in OPTIONS[other_side(side)] if option.is_original and option.key not in own]
