"""SD-WAN rules: which networks lie behind which members, and which members are told so.

    device, destination, next hop        192.168.202.0/24,172.17.0.0/16,192.168.202.2
      │          │           └─ behind this member
      │          └─ there is this network,
      └─ and members with these addresses are to use it, except the next hop itself

    rules ─▶ Rules ─▶ entries(member): what it is told ─▶ messages(): ROUTE, in batches
                  ├─▶ lans(member): what is behind it
                  └─▶ placements: all of it, to which the engine holds members, and messages() a gateway: BEHIND

Rules about rules:
 1. A member never gets two rules whose destinations overlap: existing peers take the first match, kernels the
    longest, so no order would mean the same to all.
 2. A rule that can never do what it says is a mistake, and is refused (`why_impossible`): a next hop or a device that
    no member can be, a destination without hosts, or one among the members.
 3. Host bits of device and destination don't count, as with a pool.

This module knows neither sessions nor connections. The caller that refuses a rule names it and the place it stands at.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Self, TypeVar

from candy.protocol.addresses import is_unicast
from candy.protocol.control import BEHIND_VERSION, PLACEMENTS_MAX
from candy.protocol.wire import MAX_PLACEMENTS, MAX_ROUTE_ENTRIES, Behind, Placement, Route, RouteEntry

_Entry = TypeVar("_Entry", RouteEntry, Placement)

MAX_RULES = 1000
"""Rules of one network: as many destinations as our member takes."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; its text is the original's."""

    device: IPv4Network
    destination: IPv4Network
    next_hop: IPv4Address

    @classmethod
    def parse(cls, text: str) -> Self:
        """The rule of a text like `192.168.202.0/24,172.17.0.0/16,192.168.202.2`.

        Raises:
            ValueError: it is not a rule; the message completes the sentence "<text> …".
        """
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 3:
            raise ValueError("is not a rule: write it like 192.168.202.0/24,172.17.0.0/16,192.168.202.2")
        return cls(_network("device", parts[0]), _network("destination", parts[1]), _address("next hop", parts[2]))

    def __str__(self) -> str:
        return f"{self.device},{self.destination},{self.next_hop}"


def split_rules(text: str) -> list[str]:
    """The rules of an `--sdwan "rule;rule;…"`, as text."""
    return [rule for rule in (part.strip() for part in text.split(";")) if rule]


def why_impossible(rule: Rule, pool: IPv4Network | None, allow_outside_pool: bool = False) -> str | None:
    """Why a rule can't do what it says, as the end of the sentence "<rule> …"; None if it can.

    Args:
        pool: the members' addresses are granted from it; None: they may be any.
        allow_outside_pool: a member's address may be outside of the pool.
    """
    device, destination, next_hop = rule.device, rule.destination, rule.next_hop
    first, last = int(device[0]), int(device[-1])
    strict = pool is not None and not allow_outside_pool
    if pool is not None and strict:
        lowest, highest = int(pool[1]), int(pool[-2])
        if not lowest <= int(next_hop) <= highest:
            return f"has a next hop that is not a member's address in the pool {pool}"
        first, last = max(first, lowest), min(last, highest)
        if first > last:
            return f"is for devices that have no member's address in the pool {pool}"
    if not is_unicast(next_hop):
        return "has a next hop that no member can be"
    if _has_no_hosts(device):
        return "is for devices that no member can be"
    if first == last == int(next_hop):
        return "is for its own next hop alone"
    if _has_no_hosts(destination):
        return "leads to where no member can be"
    if pool is not None and destination.overlaps(pool):
        return f"is a route into the pool {pool}: members are reached without one"
    if next_hop in destination:
        return "has a destination that its own next hop is part of"
    return None


def first_overlap(rules: Sequence[Rule]) -> tuple[int, int] | None:
    """The first rule that gives some member a destination which overlaps another rule's, and that earlier rule: their
    places in the sequence, or None."""
    # As integers, because there are many pairs: two networks overlap when they agree in the bits that both masks cover.
    spans = [(int(rule.destination[0]), int(rule.destination.netmask)) for rule in rules]
    for place, (first, mask) in enumerate(spans):
        for earlier in range(place):
            other, other_mask = spans[earlier]
            if not (first ^ other) & mask & other_mask and _share_a_member(rules[place], rules[earlier]):
                return place, earlier
    return None


def messages(entries: Sequence[RouteEntry], extended: bool) -> list[bytes]:
    """The ROUTE messages that tell a member these entries.

    Args:
        extended: candy.2 was agreed on: the messages are a set, which replaces the one before; an empty set withdraws
            it. Otherwise they add to what the member was told since it connected; without entries no message is needed.
    """
    if not extended:
        return [Route(batch).encode() for batch in _batches(entries, MAX_ROUTE_ENTRIES) if batch]
    batches = _batches(entries, MAX_ROUTE_ENTRIES)
    return [Route(batch, flags).encode() for batch, flags in zip(batches, _set_flags(len(batches)), strict=True)]


def behind_messages(placements: Sequence[Placement], *, has_keys: bool = False) -> list[bytes]:
    """The set of BEHIND messages that tells a gateway with candy.2 what lies behind whom; of none, it takes that
    back. `has_keys`: it logged in with one, so they go within CONTROL."""
    version, most = (BEHIND_VERSION, PLACEMENTS_MAX) if has_keys else (Behind.VERSION, MAX_PLACEMENTS)
    batches = _batches(placements, most)
    flags = _set_flags(len(batches))
    return [Behind(batch, flag).encode(version) for batch, flag in zip(batches, flags, strict=True)]


class Rules:
    """The rules of one network, made ready for every member that logs in. Immutable."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)
        # As integers: IPv4Network's arithmetic is Python code, and all members may come back at once.
        self._numbers = [
            (
                int(rule.device[0]),
                int(rule.device.netmask),
                int(rule.next_hop),
                RouteEntry(rule.destination, rule.next_hop),
            )
            for rule in self.rules
        ]
        self.placements = tuple(Placement(rule.destination, rule.next_hop, rule.device) for rule in self.rules)
        """What lies behind whom, and for whom."""
        self._lans: dict[IPv4Address, tuple[IPv4Network, ...]] = {}
        for rule in self.rules:
            behind = self._lans.get(rule.next_hop, ())
            if rule.destination not in behind:
                self._lans[rule.next_hop] = (*behind, rule.destination)

    def entries(self, member: IPv4Address) -> tuple[RouteEntry, ...]:
        """What the member with this address is told, in the rules' order."""
        ip = int(member)
        return tuple(entry for device, mask, hop, entry in self._numbers if ip & mask == device and ip != hop)

    def lans(self, member: IPv4Address) -> tuple[IPv4Network, ...]:
        """The networks behind the member with this address."""
        return self._lans.get(member, ())


def _batches(entries: Sequence[_Entry], most: int) -> list[tuple[_Entry, ...]]:
    """All entries, as many at a time; one empty batch when there are none."""
    return [tuple(entries[at : at + most]) for at in range(0, len(entries), most)] or [()]


def _set_flags(count: int) -> list[int]:
    """The flags of the messages of a set."""
    flags = [0] * count
    flags[0] |= Route.FIRST
    flags[-1] |= Route.LAST
    return flags


def _share_a_member(one: Rule, other: Rule) -> bool:
    """Whether some member is a device of both, and neither's next hop."""
    if not one.device.overlaps(other.device):
        return False
    both = max(one.device, other.device, key=lambda network: network.prefixlen)
    hops = {hop for hop in (one.next_hop, other.next_hop) if hop in both}
    return both.num_addresses > len(hops)


def _has_no_hosts(network: IPv4Network) -> bool:
    if network.is_loopback or network.is_multicast or network.is_reserved:
        return True
    return network.subnet_of(IPv4Network("0.0.0.0/8"))


def _network(name: str, text: str) -> IPv4Network:
    try:
        return IPv4Network(text, strict=False)
    except ValueError:
        raise ValueError(f"has {text!r} for its {name}: write a network like 192.168.202.0/24") from None


def _address(name: str, text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise ValueError(f"has {text!r} for its {name}: write an address like 192.168.202.2") from None
