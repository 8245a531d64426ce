"""All that can be asked of a side over its control interface: one list for the server, the document and the sides.

    RELAY, MEMBER ─┬─▶ routes, and what a request may say    candy.control.server
                   ├─▶ the OpenAPI document                  candy.control.document
                   └─▶ Side: a method of the call's name     candy.relay.control, candy.member.control

Rules:
 1. A path begins with VERSION. What is added within a version may be ignored by who does not know it: new calls, new
    parameters that need not be given, new fields of answers. Anything else is another version.
 2. A call that changes something is a POST or a DELETE, and its method is told who asks.

This module does not know how anything is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal

from pydantic import Field

from candy.control.model import (
    Device,
    DeviceLimits,
    Devices,
    Forgotten,
    History,
    Invite,
    Invited,
    Kicked,
    Leases,
    MemberDetail,
    Members,
    MemberStatus,
    Networks,
    Peers,
    RelayStatus,
    Released,
    Reloaded,
    Reservation,
    Reserve,
    Revoked,
    RotatedKeys,
    SetLimits,
    Why,
)
from candy.control.paths import OVER_LEAST_S, OVER_MOST_S, SNAP_LEAST, SNAP_MOST, VERSION
from candy.control.streams import Pcapng


@dataclass(frozen=True)
class Parameter:
    """What a request may say."""

    name: str
    place: Literal["path", "query"]
    kind: Any
    """A type that pydantic reads from text."""
    means: str
    default: Any = None
    """Of one in the query; not handed over if it is None."""


@dataclass(frozen=True)
class Call:
    """One thing that can be asked."""

    name: str
    """Of the side's method, and the document's operationId."""
    method: Literal["GET", "POST", "DELETE"]
    path: str
    does: str
    answer: type
    parameters: tuple[Parameter, ...] = ()
    body: type | None = None
    refusals: Mapping[int, str] = field(default_factory=dict)
    """Statuses beside those that every call may have, and when."""

    @property
    def changes(self) -> bool:
        """Whether something is different afterwards."""
        return self.method != "GET"


def _end(name: str, is_where: str) -> Parameter:
    told = f"{is_where}: an address, or a name, or a VMAC behind vmac:, or a fingerprint behind key:"
    return Parameter(name, "path", str, told)


_MEMBER = Parameter(
    "member", "path", str, "its address, its name, its VMAC behind vmac:, or its fingerprint behind key:"
)
_DEVICE = Parameter(
    "device", "path", str, "an address, or a device: its name, its VMAC behind vmac:, or its fingerprint behind key:"
)
_NETWORK = Parameter("network", "query", str, "the path of a network, where more than one is meant otherwise")
_KEYED = Parameter("device", "path", str, "its name, its number, or 8 digits or more of its key's fingerprint")
_ROUND_TRIP = Parameter("round_trip", "query", bool, "ask the kernel for round-trip times", False)
_OVER = Parameter(
    "over",
    "query",
    Annotated[float, Field(ge=OVER_LEAST_S, le=OVER_MOST_S)],
    "look twice, so many seconds apart, and answer with the rates between",
)
_LOOK = replace(_OVER, means="look twice, so many seconds apart, and answer with what was dropped between")
_DROPS = Parameter("drops", "query", bool, "only packets that are dropped; each has the reason as its comment", False)
_SNAP = Parameter(
    "snaplen", "query", Annotated[int, Field(ge=SNAP_LEAST, le=SNAP_MOST)], "bytes kept of each packet", SNAP_MOST
)
_NETWORK_KEY = Parameter("network_key", "query", bool, "make a new key of the network's as well", False)
_UNKNOWN = "there is no such network"
_ONE_KEYED = {
    404: "there is no such device, or network",
    409: "there are several such devices, or its standing does not allow it, or it can't be written down",
}
_ONE = {404: "there is no such member, or network", 409: "several members have this name: the error lists them"}

RELAY = (
    Call("status", "GET", f"{VERSION}/status", "The relay as a whole", RelayStatus),
    Call("history", "GET", f"{VERSION}/history", "What it carried in the last hour", History),
    Call(
        "members",
        "GET",
        f"{VERSION}/members",
        "All members that are logged in",
        Members,
        (_NETWORK, _ROUND_TRIP, _OVER),
        refusals={404: _UNKNOWN},
    ),
    Call(
        "member",
        "GET",
        f"{VERSION}/members/{{member}}",
        "One member",
        MemberDetail,
        (_MEMBER, _NETWORK, _OVER),
        refusals=_ONE,
    ),
    Call(
        "why",
        "GET",
        f"{VERSION}/why/{{source}}/{{destination}}",
        "Why packets from one address to another arrive, or do not",
        Why,
        (_end("source", "where they come from"), _end("destination", "where they go to"), _NETWORK, _LOOK),
        refusals={404: "there is no such device, or network", 409: "several have this name: the error lists them"},
    ),
    Call(
        "kick",
        "POST",
        f"{VERSION}/members/{{member}}/kick",
        "End a member's connection; it may come back",
        Kicked,
        (_MEMBER, _NETWORK),
        refusals=_ONE,
    ),
    Call(
        "capture",
        "POST",
        f"{VERSION}/members/{{member}}/capture",
        "The packets that a member sends and gets from now on, until either end closes the connection",
        Pcapng,
        (_MEMBER, _NETWORK, _DROPS, _SNAP),
        refusals={
            **_ONE,
            409: "several members have this name, it is captured already, or there are too many captures",
        },
    ),
    Call(
        "leases",
        "GET",
        f"{VERSION}/leases",
        "Who has which address, connected or not, and what is reserved",
        Leases,
        (_NETWORK,),
        refusals={404: _UNKNOWN},
    ),
    Call(
        "reserve",
        "POST",
        f"{VERSION}/reservations",
        "Reserve an address for a device, from now on",
        Reservation,
        body=Reserve,
        refusals={404: _UNKNOWN, 409: "the address can't be reserved"},
    ),
    Call(
        "release",
        "DELETE",
        f"{VERSION}/leases/{{device}}",
        "End the reservation of an address, and the lease of a device that is not connected",
        Released,
        (_DEVICE, _NETWORK),
        refusals={404: _UNKNOWN, 409: "there is no such device, there are several, or nothing is to be released"},
    ),
    Call(
        "limit",
        "POST",
        f"{VERSION}/leases/{{device}}/limits",
        "Say what a device may carry from now on, connected or not",
        DeviceLimits,
        (_DEVICE,),
        body=SetLimits,
        refusals={404: _UNKNOWN, 409: "there is no such device, there are several, or it has no lease"},
    ),
    Call(
        "devices",
        "GET",
        f"{VERSION}/devices",
        "All devices that log in with keys",
        Devices,
        (_NETWORK,),
        refusals={404: _UNKNOWN},
    ),
    Call(
        "approve",
        "POST",
        f"{VERSION}/devices/{{device}}/approve",
        "Let a device in that waits for it",
        Device,
        (_KEYED, _NETWORK),
        refusals=_ONE_KEYED,
    ),
    Call(
        "revoke",
        "POST",
        f"{VERSION}/devices/{{device}}/revoke",
        "Shut a device out, at once and from now on",
        Revoked,
        (_KEYED, _NETWORK),
        refusals=_ONE_KEYED,
    ),
    Call(
        "invite",
        "POST",
        f"{VERSION}/invitations",
        "Make a link that lets new devices in",
        Invited,
        body=Invite,
        refusals={404: _UNKNOWN, 409: "it can't be written down, or there are too many"},
    ),
    Call(
        "rotate",
        "POST",
        f"{VERSION}/rotate",
        "Make a new key of the relay's, and tell members",
        RotatedKeys,
        (_NETWORK, _NETWORK_KEY),
        refusals={404: _UNKNOWN, 409: "the network's key is not there to sign it, or it can't be written"},
    ),
    Call("networks", "GET", f"{VERSION}/networks", "The relay's networks", Networks),
    Call(
        "reload",
        "POST",
        f"{VERSION}/reload",
        "Read the settings again, as on SIGHUP",
        Reloaded,
        refusals={409: "the relay was started without -c, or the settings are not sound: nothing changes"},
    ),
)
"""Of a relay."""

MEMBER = (
    Call("status", "GET", f"{VERSION}/status", "The member, its connection and its routes", MemberStatus, (_OVER,)),
    Call("members", "GET", f"{VERSION}/members", "The other members that this one knows of", Peers),
    Call(
        "forget",
        "POST",
        f"{VERSION}/members/{{address}}/forget",
        "Believe what was refused of a member: another key than it had, or that it does not seal",
        Forgotten,
        (Parameter("address", "path", IPv4Address, "its address"),),
        refusals={404: "nothing was refused of it"},
    ),
)
"""Of a member."""
