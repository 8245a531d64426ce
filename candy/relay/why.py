"""Why a packet from one address to another arrives or not: the judgement, by what a relay knows at one moment.

    candy.relay.whereabouts ─▶ End, End, Terms ─▶ judge() ─▶ Verdict: a word, and the answer in words

Rules:
 1. What is certain comes first: who is not there, what no rule allows, what can't be sealed, who is silent. Then what
    a limit holds, and what was dropped while the relay looked. What was dropped before that is a hint, and no answer.
 2. The engine counts by connection, not by pair: what was dropped of one end may have been for another one, and the
    answer says no more than that.
 3. Names are as their devices gave them: escaped.

No I/O, no clock. What members drop themselves is not known here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Final, NamedTuple

from candy.control.escape import shown
from candy.control.model import WhyVerdict
from candy.relay.limits import UNLIMITED, Allowed
from candy.relay.rules import Rule, Rules

SILENT_S: Final = 25.0
"""The relay pings who says nothing for 15 s. Who has not answered that for so long is hardly there."""
STALLED_MS: Final = 250.0
"""The engine holds that who took nothing for so long is stalled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of the way, as far as the relay knows it."""

    path: str
    """Of its network."""
    ip: IPv4Address
    name: str = ""
    """Of the device that has the address, or had it last."""
    through: IPv4Address | None = None
    """The member that has the address, or that it lies behind; None: nobody has it."""
    is_here: bool = False
    """That member is connected, or it is the relay itself."""
    is_relay: bool = False
    is_group: bool = False
    """A broadcast's or a multicast's address."""
    is_revoked: bool = False
    """The device that had the address last was shut out."""
    last_seen: float | None = None
    """When that member was; Unix seconds."""
    rule: Rule | None = None
    """By which it lies behind that member."""
    takes_sealed: bool = False
    takes_clear: bool = True
    heard_s: float | None = None
    """For so long nothing has come from it, if it is connected."""
    queued_bytes: int = 0
    queue_delay_ms: float = 0.0
    held_down: bool = False
    """Within the last second something for it had to wait for a limit."""
    held_up: bool = False
    """And something that it sends."""
    allowed: Allowed = UNLIMITED
    """What it may carry."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """While the relay looked, by reason."""
    dropped_before: Mapping[str, int] = field(default_factory=dict)
    """Since it logged in."""

    def __str__(self) -> str:
        return f"{self.ip} ({shown(self.name)})" if self.name else str(self.ip)


class Terms(NamedTuple):
    """Of a network."""

    pool: IPv4Network | None
    rules: Rules
    checks_source: bool = True
    forwards_broadcast: bool = True


class Verdict(NamedTuple):
    """The answer."""

    verdict: WhyVerdict
    answer: str
    rule: Rule | None = None
    """That leads there."""


class _Reason(NamedTuple):
    """What the engine's name for a drop means here: a verdict, and what to say of so many packets."""

    verdict: WhyVerdict
    says: str


_OF_SOURCE: Final[Mapping[str, _Reason]] = {
    "spoofed_source": _Reason(
        "source refused",
        "had a source that is not its own: it routes a LAN into the network for which there is no rule: add one with "
        "--sdwan, or masquerade there",
    ),
    "inner_source": _Reason(
        "source refused",
        "were wrapped by SD-WAN and had a source that does not lie behind it: add a rule for that LAN with --sdwan",
    ),
    "inner_destination": _Reason(
        "rule",
        "were wrapped by SD-WAN for a destination that no rule lets it reach: compare the rules of --sdwan",
    ),
    "no_route": _Reason("no member there", "were for addresses that no member has"),
    "too_large": _Reason("too large", "were longer than a member takes: lower the MTU of its interface with --mtu"),
    "broadcast_limit": _Reason("limit", "were broadcasts beyond its allowance of copies"),
    "handshake_limit": _Reason("limit", "were handshakes for sealing beyond its allowance: it has too many peers anew"),
    "not_sealing": _Reason("sealing", "were sealed, and their destination takes nothing sealed"),
    "bad_super": _Reason("malformed", "were not what their headers say"),
    "too_short": _Reason("malformed", "had no room for an IPv4 header"),
    "memory": _Reason("limit", "found no memory in the relay: see `candy-server status` for what waits"),
}
"""Drops that are counted with who sent."""
_OF_DESTINATION: Final[Mapping[str, _Reason]] = {
    "stalled": _Reason(
        "stalled",
        "came while it took nothing and its queue was full: its link or its machine stands still",
    ),
    "queue_full": _Reason("limit", "found its queue full: more is sent to it than its link carries (--queue-bytes)"),
    "delay": _Reason(
        "limit", "had waited too long in its queue: its link carries less than it is sent, which slows the senders down"
    ),
    "too_large": _Reason(
        "too large",
        "were over 1500 bytes, which a member without candy.2 does not take: lower the MTU of who sends with --mtu",
    ),
    "memory": _Reason("limit", "found no memory in the relay: see `candy-server status` for what waits"),
    "closed": _Reason("no member there", "came while its connection was ending"),
}
"""And with who they were for."""


def judge(source: End, destination: End, terms: Terms) -> Verdict:
    """By the rules at the top of this file. `terms` are of the network in which both are, or the source is."""
    certain = (
        _apart(source, destination)
        or _from(source, terms)
        or _to(source, destination, terms)
        or _unsealable(source, destination)
        or _standing_still(source, destination)
    )
    if certain is not None:
        return certain._replace(rule=certain.rule or destination.rule)
    return (_held(source, destination) or _counted(source, destination))._replace(rule=destination.rule)


def hints(source: End, destination: End) -> list[str]:
    """What was dropped since both logged in, a sentence each."""
    return [
        *_sentences(source, _OF_SOURCE, source.dropped_before),
        *_sentences(destination, _OF_DESTINATION, destination.dropped_before),
    ]


def _apart(source: End, destination: End) -> Verdict | None:
    if source.path == destination.path:
        return None
    told = f"{source} is in the network {source.path}, {destination} in {destination.path}: no packet passes between"
    return Verdict("not in this network", f"{told} networks, so have one of them join the other's")


def _from(source: End, terms: Terms) -> Verdict | None:
    """Whether anything can come from there."""
    if source.is_group:
        return Verdict("source refused", f"{source} is no host's address, so nothing may come from it")
    if source.is_here:
        return None
    if source.through is not None:
        return _away(source)
    if terms.pool is not None and source.ip in terms.pool:
        return _nobody(source)
    if terms.checks_source:
        why = f"{source} is no member's address and, by no rule, behind a member: what has this source is dropped"
        return Verdict("source refused", f"{why}; add a rule for its LAN with --sdwan, or masquerade at its gateway")
    return None


def _to(source: End, destination: End, terms: Terms) -> Verdict | None:
    """Whether anybody is there, and may be reached."""
    if destination.is_group:
        if terms.forwards_broadcast:
            return None
        return Verdict("rule", f"{destination} is for all members, and the relay passes no such on (--no-broadcast)")
    if destination.is_here:
        return None
    if destination.through is not None:
        return _away(destination)
    if (rule := next((rule for rule in terms.rules.rules if destination.ip in rule.destination), None)) is not None:
        told = f"{destination} is reached by the rule {rule}, which is for members in {rule.device} and not for"
        return Verdict("rule", f"{told} {source.through or source.ip}: add a rule for that one", rule)
    if terms.pool is not None and destination.ip in terms.pool:
        return _nobody(destination)
    within = "" if terms.pool is None else f" {terms.pool}"
    told = f"{destination} is no member's address, not in the pool{within}, and no rule leads there"
    return Verdict("not in this network", f"{told}: add one with --sdwan if it lies behind a member")


def _nobody(end: End) -> Verdict:
    """An address of the pool that no member has, nor had lately."""
    return Verdict("no member there", f"no member is at {end}, and none is known to have been there")


def _away(end: End) -> Verdict:
    """The member is known, and not connected."""
    who = str(end) if end.rule is None else f"{end.through}, and by the rule {end.rule} {end.ip} lies behind it"
    seen = (
        "none is known to have been there" if end.last_seen is None else f"it was last there {_moment(end.last_seen)}"
    )
    cure = "its device was revoked" if end.is_revoked else "run candy-client doctor on that machine"
    return Verdict("no member there", f"no member is at {who}; {seen}: {cure}")


def _unsealable(source: End, destination: End) -> Verdict | None:
    """Whether both seal, or both need not."""
    if destination.is_group:
        return None
    for one, other in ((source, destination), (destination, source)):
        if not one.takes_clear and not other.takes_sealed:
            told = f"{one} takes part in sealed traffic alone (--seal require, or --secret), and {other} does not seal"
            return Verdict("sealing", f"{told}: update that one, or remove its --seal off or --no-extension")
    return None


def _standing_still(source: End, destination: End) -> Verdict | None:
    # What waits for a limit is no sign of anything else.
    if destination.queued_bytes and destination.queue_delay_ms >= STALLED_MS and not destination.held_down:
        waits = f"{destination.queued_bytes} bytes wait for {destination}, since {destination.queue_delay_ms:.0f} ms"
        return Verdict("stalled", f"{waits}: its link, or its machine, takes little or nothing now")
    for end in (destination, source):
        if end.heard_s is not None and end.heard_s >= SILENT_S:
            told = f"nothing has come from {end} for {end.heard_s:.0f} s, although the relay pings it"
            return Verdict("stalled", f"{told}: the way there is probably dead, and it will be given up soon")
    return None


def _held(source: End, destination: End) -> Verdict | None:
    """Whether a limit holds one of them now. What does not fit is dropped, or stays with the sender."""
    found = []
    if destination.held_down:
        told = "what is sent to it waits, and what has waited too long is dropped"
        found.append(f"{destination.through or destination.ip} is sent {_rate(destination.allowed.down)}: {told}")
    if source.held_up:
        told = "it is read no faster, so packets wait in its own machine"
        found.append(f"{source.through or source.ip} may send {_rate(source.allowed.up)}: {told}")
    if not found:
        return None
    spent = [end for end in (destination, source) if end.allowed.is_spent]
    cure = "see candy-server limit, limit_down and limit_up"
    if spent:
        cure = f"the quota of {spent[0].through or spent[0].ip} is used up: see candy-server limit, and quota"
    return Verdict("limit", f"{'; '.join(found)}; {cure} (held just now)")


def _rate(bits: int) -> str:
    """Of a member's own limit; else its network's holds it."""
    return f"no more than {bits} bits/s" if bits else "no more than its network's limit leaves it"


def _counted(source: End, destination: End) -> Verdict:
    """By what was dropped while the relay looked."""
    for end, reasons in ((destination, _OF_DESTINATION), (source, _OF_SOURCE)):
        if said := _sentences(end, reasons, end.dropped):
            worst = max((each for each in end.dropped if each in reasons), key=lambda each: end.dropped[each])
            return Verdict(reasons[worst].verdict, f"{'; '.join(said)} (counted just now)")
    way = f" through {destination.through}" if destination.rule is not None else ""
    return Verdict(
        "passes",
        f"the relay lets packets from {source} to {destination} pass{way}: what is lost is lost at a member, where "
        "candy-client status counts it",
    )


def _sentences(end: End, reasons: Mapping[str, _Reason], dropped: Mapping[str, int]) -> list[str]:
    """The most frequent first."""
    which = "to" if reasons is _OF_DESTINATION else "from"
    counted = sorted(((count, name) for name, count in dropped.items() if count and name in reasons), reverse=True)
    who = end.through or end.ip
    return [f"{count} packets {which} {who} {reasons[name].says}" for count, name in counted]


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
