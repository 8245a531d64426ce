"""What the log says of one connection: in words, and as facts for the lines that programs read.

    line("info", "logged in as 192.168.202.7", source="203.0.113.5", vmac=…, name="laptop")

    203.0.113.5: logged in as 192.168.202.7 (laptop, VMAC 0123456789abcdef)
    203.0.113.5: 192.168.202.7 logged out after 61 s, 5120 bytes in, 890 out: it closed (laptop, VMAC 0123456789abcdef)

Rules:
 1. A line begins with the source, and ends with what its member is called: name and VMAC, as far as they are known.
 2. Text of a peer is escaped: nothing in it ends a line, or moves a terminal's cursor.
 3. `refused: wrong password in …` and `refused: AUTH for … is a replay` are what candy/examples/fail2ban-filter.conf
    looks for.

This module writes nothing, and knows neither sessions nor the engine.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Literal

from candy.control.escape import shown
from candy.protocol.actions import Log
from candy.relay.leases import Traffic, identity, shown_vmac

UNSPECIFIED = IPv4Address("0.0.0.0")

CAUSES: Mapping[str, str] = {
    "local": "closed by this relay",
    "peer": "it closed",
    "eof": "its connection ended",
    "reset": "its connection was reset",
    "silent": "nothing came from it any more",
    "protocol_error": "it broke the protocol",
    "too_large": "it sent too long a message",
}
"""Why a connection ended, by the engine's names."""


FAILURES = ("password", "replay")
"""Kinds of failed log-ins that somebody else's may be."""
FAILURES_WRITTEN = 3
"""Of them in a minute, from one source: fail2ban counts lines."""
MEMBERS_WRITTEN = 3
"""Of one kind in a minute, from one device."""


def line(
    level: Literal["debug", "info", "warning"],
    text: str,
    *,
    source: str,
    ip: IPv4Address = UNSPECIFIED,
    vmac: bytes | None = None,
    name: str = "",
    kind: str | None = None,
    counted_as: str = "",
    of_member: bool = False,
    facts: Mapping[str, str | float] | None = None,
) -> Log:
    """A line that concerns one connection.

    Args:
        text: between source and names.
        ip: the address that it claimed or has; unspecified: none yet. The text says it where it matters.
        kind, counted_as, of_member: of a line that a peer can cause at will, as Log's `kind`, `source`, `of_member`.
        facts: more than the text's, or the same in numbers.
    """
    about: dict[str, str | float] = {"source": source}
    names = []
    if ip != UNSPECIFIED:
        about["address"] = str(ip)
    if name:
        about["name"] = shown(name)
        names.append(shown(name))
    if vmac is not None:
        about[identity(vmac).lower()] = shown_vmac(vmac)
        names.append(f"{identity(vmac)} {shown_vmac(vmac)}")
    if kind is not None and not of_member:
        about["kind"] = kind
    called = f" ({', '.join(names)})" if names else ""
    at_once = MEMBERS_WRITTEN if of_member else FAILURES_WRITTEN if kind in FAILURES else 1
    return Log(level, f"{source}: {text}{called}", kind, counted_as, at_once, of_member, about | dict(facts or {}))


def stay(seconds: float, traffic: Traffic) -> str:
    """How long a member was there, and what it sent and got, in the words of its last line."""
    return f"after {seconds:.0f} s, {traffic.bytes_in} bytes in, {traffic.bytes_out} out"
