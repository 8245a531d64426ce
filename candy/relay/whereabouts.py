"""Where the two ends of a question are: which addresses are meant, in which network, and what the relay knows of them.

    texts, networks ─▶ meet() ─▶ Place, Place ─▶ source(), destination() ─▶ End of candy.relay.why

Rules:
 1. What looks like an address is one. A name, or what stands behind `vmac:` or `key:`, is that of members, or else of
    leases.
 2. Both ends are taken to be in one network, unless one is known in another alone.

No I/O, no clock; what the engine counts comes as an argument.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from ipaddress import IPv4Address
from itertools import product
from typing import NamedTuple

from candy.errors import RequestError
from candy.protocol.addresses import broadcast_of
from candy.protocol.login import Asks
from candy.protocol.wire import BROADCAST
from candy.relay.enrolment import Standing
from candy.relay.keyed import KeyedSession
from candy.relay.limits import UNLIMITED
from candy.relay.network import Network
from candy.relay.reservations import is_meant
from candy.relay.rules import Rule
from candy.relay.session import Session
from candy.relay.snapshot import Counters, meaning
from candy.relay.why import End, Terms


class Nearness(IntEnum):
    """How much a network knows of an address."""

    NOTHING = 0
    IN_POOL = 1
    BEHIND = 2
    LEASED = 3
    HERE = 4


class Place(NamedTuple):
    """An address in a network."""

    path: str
    ip: IPv4Address
    nearness: Nearness


@dataclass(frozen=True, slots=True)
class Counted:
    """What the engine says of a member's connection."""

    counters: Counters | None = None
    """None: it is not connected."""
    heard_s: float | None = None
    drops: Mapping[str, int] = field(default_factory=dict)
    """Since it logged in."""
    drops_now: Mapping[str, int] = field(default_factory=dict)

    def since(self, before: "Counted") -> "Counted":
        """The same, with what was dropped since an earlier look; nothing if that was at another connection."""
        if self.counters is None or before.counters is None:
            return self
        if self.counters.connection != before.counters.connection:
            return self
        now = {reason: count - before.drops.get(reason, 0) for reason, count in self.drops.items()}
        return replace(self, drops_now={reason: count for reason, count in now.items() if count})


class Carrier(NamedTuple):
    """The member that has an address, or that it lies behind by a rule."""

    ip: IPv4Address
    session: Session | None
    rule: Rule | None = None


def meet(source: str, destination: str, networks: Mapping[str, Network]) -> tuple[Place, Place]:
    """The ends that are meant by these texts.

    Raises:
        RequestError: a name is nobody's, or several have it.
    """
    pairs = product(_places(source, networks), _places(destination, networks))
    # One network where both are known as well as anywhere; the first one where nothing is known.
    return max(pairs, key=lambda pair: 2 * (pair[0].nearness + pair[1].nearness) + (pair[0].path == pair[1].path))


def carrier_of_source(ip: IPv4Address, network: Network) -> Carrier | None:
    """Who may send with this source."""
    if network.member_at(ip) is not None or network.pool.leases.get(int(ip)) is not None:
        return Carrier(ip, network.member_at(ip))
    return _nearest(network, [rule for rule in network.rules.rules if ip in rule.destination])


def carrier_of_destination(ip: IPv4Address, asker: Carrier | None, network: Network) -> Carrier | None:
    """To whom packets for this address go, for the member that sends them."""
    if network.member_at(ip) is not None or network.pool.leases.get(int(ip)) is not None:
        return Carrier(ip, network.member_at(ip))
    if asker is None:
        return None
    led = [rule for rule in network.rules.rules if asker.ip in rule.device and asker.ip != rule.next_hop]
    return _nearest(network, [rule for rule in led if ip in rule.destination])


def end(place: Place, carrier: Carrier | None, network: Network, counted: Counted) -> End:
    """One end."""
    is_relay = network.host_ip == place.ip
    session = None if carrier is None else carrier.session
    lease = network.pool.leases.get(int(place.ip if carrier is None else carrier.ip))
    name = "" if lease is None or (carrier is not None and carrier.rule is not None) else lease.hello.name
    pool = network.pool.network
    flags = network.host_flags if is_relay else Asks.SEALS_NOTHING
    if isinstance(session, KeyedSession):
        flags = session.flags
    device = None if lease is None else network.enrolment.get(lease.vmac)
    return End(
        path=place.path,
        ip=place.ip,
        name=session.hello.name if session is not None and carrier is not None and carrier.rule is None else name,
        through=place.ip if is_relay else None if carrier is None else carrier.ip,
        is_here=is_relay or session is not None,
        is_relay=is_relay,
        is_group=place.ip.is_multicast or place.ip in (BROADCAST, BROADCAST if pool is None else broadcast_of(pool)),
        is_revoked=device is not None and device.standing is Standing.REVOKED,
        last_seen=None if lease is None else lease.last_seen,
        rule=None if carrier is None else carrier.rule,
        takes_sealed=not flags & Asks.SEALS_NOTHING,
        takes_clear=not flags & Asks.REQUIRES_SEALING,
        heard_s=counted.heard_s,
        queued_bytes=0 if counted.counters is None else counted.counters.queued_bytes,
        queue_delay_ms=0.0 if counted.counters is None else counted.counters.queue_delay_ns / 1e6,
        held_down=counted.counters is not None and bool(counted.counters.held_down),
        held_up=counted.counters is not None and bool(counted.counters.held_up),
        allowed=UNLIMITED if session is None else session.allowed,
        dropped=counted.drops_now,
        dropped_before=counted.drops,
    )


def terms(network: Network) -> Terms:
    """What holds in a network."""
    return Terms(network.pool.network, network.rules, network.checks_source, network.forwards_broadcast)


def _places(wanted: str, networks: Mapping[str, Network]) -> list[Place]:
    try:
        ip = IPv4Address(wanted)
    except ValueError:
        return [_named(wanted, networks)]
    return [Place(path, ip, _nearness(ip, network)) for path, network in networks.items()]


def _named(wanted: str, networks: Mapping[str, Network]) -> Place:
    means = meaning(wanted)
    found = [
        Place(path, session.ip, Nearness.HERE)
        for path, network in networks.items()
        for session in network.sessions
        if session.is_member and means(session)
    ] or [Place(path, ip, Nearness.LEASED) for path, network in networks.items() for ip in _leased(wanted, network)]
    if not found:
        raise RequestError(f"{wanted!r} is no address, nor the name of a member or of a lease: leases lists them", 404)
    if len(found) > 1:
        where = ", ".join(f"{place.ip} in {place.path}" for place in found)
        raise RequestError(f"{len(found)} devices are {wanted!r}: {where}: name one by its address and network")
    return found[0]


def _leased(wanted: str, network: Network) -> Iterator[IPv4Address]:
    for lease in network.pool.leases:
        if is_meant(wanted, lease.vmac, lease.hello.name):
            yield IPv4Address(lease.ip)


def _nearness(ip: IPv4Address, network: Network) -> Nearness:
    if network.member_at(ip) is not None or network.host_ip == ip:
        return Nearness.HERE
    if network.pool.leases.get(int(ip)) is not None:
        return Nearness.LEASED
    if any(ip in rule.destination for rule in network.rules.rules):
        return Nearness.BEHIND
    return Nearness.IN_POOL if network.pool.contains(ip) else Nearness.NOTHING


def _nearest(network: Network, rules: list[Rule]) -> Carrier | None:
    """One that is connected goes before others."""
    carriers = [Carrier(rule.next_hop, network.member_at(rule.next_hop), rule) for rule in rules]
    return next((carrier for carrier in carriers if carrier.session is not None), carriers[0] if carriers else None)
