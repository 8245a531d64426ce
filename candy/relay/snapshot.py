"""What a relay shows of itself: the shapes of the control interface, filled from what it knows at one moment.

    sessions, counters, pools, the engine's totals ─▶ Member, Network, RelayStatus, Figures

Rules: nothing here waits, reads a clock or asks the engine; all comes as arguments. Who an operator means is decided
here, too: what looks like an address, or begins with `vmac:` or `key:`, is never a name, so that no device can pass
for another by the name that it gives itself.

This module does not know who asks.
"""

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from ipaddress import IPv4Address, IPv4Interface
from typing import NamedTuple

from candy.control.model import DeviceLimits, HeldBy, Lease, Member, MemberDetail, Network, Reservation, WhyEnd
from candy.errors import RequestError
from candy.relay.leases import LeaseStatus, shown_vmac
from candy.relay.limits import Allowed
from candy.relay.network import Network as ServedNetwork
from candy.relay.reservations import Reservation as KeptReservation
from candy.relay.reservations import is_meant
from candy.relay.session import Session
from candy.relay.why import End


class Counters(NamedTuple):
    """Of one connection, in the order of Engine.members()."""

    connection: int
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    drops: int
    queued_bytes: int
    queue_delay_ns: int
    held_down: int
    held_up: int


SHARED_COUNTERS = tuple(name for name in Counters._fields if name not in ("connection", "queue_delay_ns"))
"""Those that Engine.connection_stats() has under the same names."""


class AllCounters:
    """Those of all members at one moment, as Engine.members() has packed them; `row` is the struct format of its rows.

    Unpacked when they are asked for: the objects of ten thousand members are three megabytes.
    """

    def __init__(self, packed: bytes, row: str) -> None:
        self._packed = packed
        self._row = struct.Struct(row)
        connections = (connection for connection, *_ in self._row.iter_unpack(packed))
        self._at = dict(zip(connections, range(0, len(packed), self._row.size), strict=True))

    def get(self, connection: int) -> Counters | None:
        """Of a connection, which may have left by then."""
        at = self._at.get(connection)
        return None if at is None else Counters._make(self._row.unpack_from(self._packed, at))


class Found(NamedTuple):
    """A member, and the path of its network."""

    path: str
    session: Session


def member(
    found: Found,
    counters: Counters,
    since: float,
    round_trip_us: int | None = None,
    used: int | None = None,
    relay: str | None = None,
) -> Member:
    """One member.

    Args:
        since: Unix seconds.
        used: bytes that it has carried in this month; None: nobody counts.
        relay: this one's name; None: it is alone.
    """
    session = found.session
    figures = counters._asdict()
    del figures["connection"]
    delay_ns = figures.pop("queue_delay_ns")
    held = _HELD[bool(figures.pop("held_down")), bool(figures.pop("held_up"))]
    may = session.allowed
    return Member(
        network=found.path,
        address=str(session.ip),
        name=session.hello.name or None,
        os=session.hello.os or None,
        version=session.hello.version or None,
        vmac=None if session.vmac is None else shown_vmac(session.vmac),
        path="relay",
        extension=session.extended,
        seal=session.seal,
        since=since,
        source=session.source,
        round_trip_ms=None if round_trip_us is None else round_trip_us / 1e3,
        queue_delay_ms=delay_ns / 1e6,
        limit_down=may.down or None,
        limit_up=may.up or None,
        held=held,
        quota=may.quota or None,
        relay=relay,
        quota_left=max(0, may.quota - used) if may.quota and used is not None else None,
        **figures,
    )


_HELD: Mapping[tuple[bool, bool], HeldBy] = {
    (False, False): None,
    (True, False): "down",
    (False, True): "up",
    (True, True): "both",
}


def limits(path: str, address: IPv4Address, may: Allowed, used: int) -> DeviceLimits:
    """What one device may carry, and has carried in this month."""
    return DeviceLimits(
        network=path,
        address=str(address),
        down=may.down or None,
        up=may.up or None,
        quota=may.quota or None,
        used=used,
        spent=may.is_spent,
    )


def over_quota(served: ServedNetwork) -> int:
    """How many members have used up their quotas."""
    return sum(session.allowed.is_spent for session in served.sessions if session.is_member)


def detailed(whole: Member, drops: Mapping[str, int]) -> MemberDetail:
    """The same with its drops by reason, those without any left out."""
    return MemberDetail(**asdict(whole), drops_by_reason={reason: count for reason, count in drops.items() if count})


def find(wanted: str, members: Iterable[Found]) -> Found:
    """The member that an operator means.

    Raises:
        RequestError: there is none, or there are several.
    """
    is_meant = meaning(wanted)
    matches = [found for found in members if is_meant(found.session)]
    if not matches:
        raise RequestError(f"no member is {wanted!r}: the command members lists them", 404)
    if len(matches) > 1:
        where = ", ".join(f"{found.session.ip} in {found.path}" for found in matches)
        raise RequestError(f"{len(matches)} members are {wanted!r}: {where}: name one by its address and network")
    return matches[0]


def meaning(wanted: str) -> Callable[[Session], bool]:
    """Whether a session is the one that an operator means."""
    if re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+", wanted):
        # As text, because not each that looks like one is an address.
        return lambda session: str(session.ip) == wanted
    return lambda session: is_meant(wanted, session.vmac, session.hello.name)


def lease(path: str, kept: LeaseStatus) -> Lease:
    """One lease."""
    return Lease(
        network=path,
        address=str(kept.address),
        name=kept.name or None,
        os=kept.os or None,
        version=kept.version or None,
        vmac=shown_vmac(kept.vmac),
        first_seen=kept.first_seen,
        last_seen=kept.last_seen,
        source=kept.source,
        **kept.traffic._asdict(),
        connected=kept.is_connected,
        reserved=kept.is_reserved,
    )


def reservation(path: str, kept: KeptReservation, is_configured: bool) -> Reservation:
    """One reserved address."""
    return Reservation(network=path, address=str(kept.address), device=kept.device, configured=is_configured)


def network(
    path: str,
    served: ServedNetwork,
    interface: str | None,
    own_address: IPv4Interface | None,
    limits: tuple[int, int],
) -> Network:
    """One network; `limits` are those of all members together, down and up, bits a second."""
    pool = served.pool
    return Network(
        path=path,
        pool=None if pool.network is None else str(pool.network),
        members=served.members,
        addresses_used=pool.used,
        addresses_free=pool.free,
        rules=len(served.rules.rules),
        interface=interface,
        own_address=None if own_address is None else str(own_address),
        limit_down=limits[0] or None,
        limit_up=limits[1] or None,
    )


def why_end(end: End, member: MemberDetail | None, wall: float) -> WhyEnd:
    """One end of a way that was asked about; `wall` in Unix seconds."""
    return WhyEnd(
        network=end.path,
        address=str(end.ip),
        name=end.name or None,
        through=None if end.through is None else str(end.through),
        connected=end.is_here,
        last_seen=wall if end.is_here else end.last_seen,
        heard_s=end.heard_s,
        seals=end.takes_sealed,
        requires_sealing=not end.takes_clear,
        drops_now={reason: count for reason, count in end.dropped.items() if count},
        member=member,
    )


def states(networks: Iterable[ServedNetwork], guests: int) -> dict[str, int]:
    """Connections by how far they have come; `guests` are those that have not asked for the upgrade."""
    counted = Counter(session.state for served in networks for session in served.sessions)
    named = {state.value.replace(" ", "_"): count for state, count in counted.items()}
    return {"guest": guests, "greeting": 0, "in_line": 0, "waiting": 0, "member": 0} | named


def logins(networks: Iterable[ServedNetwork]) -> dict[str, int]:
    """How log-ins ended, in all of them."""
    summed: Counter[str] = Counter()
    for served in networks:
        summed.update(served.logins)
    return dict(summed)
