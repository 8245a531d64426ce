"""The relay's answers to its control interface: what candy.control.calls.RELAY lists, one method each.

    candy.control.server ─▶ RelayControl ─▶ Relay, Engine ─▶ candy.relay.snapshot ─▶ an answer

Rules:
 1. All members' counters are one call of the engine's, which holds up no worker.
 2. Who asks for rates is waited for, and nobody else.
 3. What is done here is done as the relay does it by itself: the same actions, the same log.

This module does not know how it is asked, nor by whom.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import cached_property

from candy import __version__
from candy._fastpath import DELAY_BOUNDS_S, MEMBER_FORMAT, Engine
from candy.control.escape import shown
from candy.control.lag import Lag
from candy.control.lists import Lists
from candy.control.metrics import Exposition, Figures, Histogram
from candy.control.model import (
    DeviceLimits,
    History,
    Kicked,
    Leases,
    Member,
    MemberDetail,
    Members,
    Network,
    Networks,
    RelayStatus,
    Released,
    Reloaded,
    Reservation,
    Reserve,
    SetLimits,
    Why,
    WhyEnd,
)
from candy.control.paths import SNAP_MOST
from candy.control.samples import Samples, Totals
from candy.errors import RequestError
from candy.relay import snapshot, whereabouts
from candy.relay.abroad import Abroad, Where
from candy.relay.captures import Captures, MemberCapture
from candy.relay.devicecontrol import DeviceControl, paths
from candy.relay.limits import NO_OWN, QUOTA_MOST, RATE_LEAST, RATE_MOST, OwnLimits, allowed
from candy.relay.relay import Relay
from candy.relay.reservations import Reservation as KeptReservation
from candy.relay.served import Served
from candy.relay.snapshot import SHARED_COUNTERS, AllCounters, Counters, Found
from candy.relay.whereabouts import Carrier, Counted, Place
from candy.relay.why import End, hints, judge


class RelayControl(DeviceControl):
    """What an operator may ask of a relay.

    Args:
        listening: where it does, host:port each.
        url_of: as for DeviceControl.
        reload: reads the settings again; None: there is nothing to read.
    """

    def __init__(
        self,
        relay: Relay,
        engine: Engine,
        listening: list[str],
        url_of: Callable[[Served], tuple[str, str | None]],
        reload: Callable[[], Awaitable[Reloaded]] | None,
    ) -> None:
        super().__init__(relay, url_of)
        self._engine = engine
        self._listening = listening
        self._reload = reload
        self._since = time.time()
        self._lag = Lag(asyncio.get_running_loop())
        self._samples = Samples(asyncio.get_running_loop(), self._totals)
        self._abroad = Abroad(self, lambda: relay.cluster)
        if relay.cluster is not None:
            relay.cluster.answer_by(self._abroad.answers)
        self._captures = Captures(engine, lambda: relay.is_ending)

    def stop(self) -> None:
        """Leave the event loop."""
        self._lag.stop()
        self._samples.stop()

    async def status(self) -> RelayStatus:
        """The relay as a whole."""
        totals = self._engine.stats()
        networks = self._relay.served.values()
        return RelayStatus(
            version=__version__,
            pid=os.getpid(),
            since=self._since,
            listening=self._listening,
            public_url=self._relay.settings.public_url,
            networks=len(networks),
            members=self._members_now(),
            connections=totals["connections"],
            connections_most=self._relay.settings.slots,
            packets_in=totals["packets_in"],
            bytes_in=totals["bytes_in"],
            packets_out=totals["packets_out"],
            bytes_out=totals["bytes_out"],
            drops={reason: count for reason, count in self._relay.drops().items() if count},
            queued_bytes=totals["queued_bytes"],
            logins=snapshot.logins(served.network for served in networks),
            worker_cpu_s=[used / 1e9 for used in self._engine.worker_cpu_ns()],
            cluster=None if self._relay.cluster is None else await self._relay.cluster.status(),
        )

    async def history(self) -> History:
        """What it carried in the last hour."""
        return self._samples.history()

    async def members(
        self, *, network: str | None = None, round_trip: bool = False, over: float | None = None
    ) -> Lists:
        """All that are logged in, at all relays."""
        paths(self._relay, network)
        members, unreached = await self._abroad.members(network, round_trip, over)
        return Lists(Members, members=members, unreached=unreached)

    async def members_here(self, network: str | None, round_trip: bool, over: float | None) -> Iterator[Member]:
        """Those of this relay."""
        sessions = {path: list(self._relay.served[path].network.sessions) for path in paths(self._relay, network)}
        before, seconds = await self._look_before(over)
        counters = self._look()
        return (
            self._member(Found(path, one), counted, before.get(one.connection), seconds, round_trip)
            for path, there in sessions.items()
            for one in there
            # Who has left meanwhile is left out.
            if one.is_member and (counted := counters.get(one.connection)) is not None
        )

    async def member(self, *, member: str, network: str | None = None, over: float | None = None) -> MemberDetail:
        """One of them."""
        paths(self._relay, network)
        return await self._abroad.member(member, network, over)

    def meant_here(self, member: str, network: str | None) -> list[Where]:
        """Members of this relay that an operator may mean."""
        is_meant = snapshot.meaning(member)
        return [Where(path, str(its.ip)) for path, its in self._found(network) if is_meant(its)]

    async def member_here(self, member: str, network: str | None, over: float | None) -> MemberDetail:
        """One of this relay's."""
        one = snapshot.find(member, self._found(network))
        connection = one.session.connection
        before, began = self._counters_of(connection), time.monotonic()
        if over is not None:
            await asyncio.sleep(over)
        counters, drops = self._counters_of(connection), self._engine.connection_drops(connection)
        if before is None or counters is None or drops is None:
            raise RequestError(f"the member {one.session.ip} has left just now", 404)
        earlier = None if over is None else before
        shown = self._member(one, counters, earlier, time.monotonic() - began, round_trip=True)
        return snapshot.detailed(shown, drops)

    async def why(self, *, source: str, destination: str, network: str | None = None, over: float | None = None) -> Why:
        """Why packets from one address to another arrive, or do not."""
        networks = {path: self._relay.network(path) for path in paths(self._relay, network)}
        places = whereabouts.meet(source, destination, networks)
        before = [self._counted(carrier) for carrier in self._carriers(places)]
        began = time.monotonic()
        if over is not None:
            await asyncio.sleep(over)
        looked_s = time.monotonic() - began
        carriers = self._carriers(places)
        counted = [self._counted(carrier) for carrier in carriers]
        if over is not None:
            counted = [now.since(then) for now, then in zip(counted, before, strict=True)]
        ends = [
            whereabouts.end(place, carrier, self._relay.network(place.path), figures)
            for place, carrier, figures in zip(places, carriers, counted, strict=True)
        ]
        judged = judge(ends[0], ends[1], whereabouts.terms(self._relay.network(places[0].path)))
        shown = [
            self._why_end(end, place, carrier, then if over is not None else None, looked_s)
            for end, place, carrier, then in zip(ends, places, carriers, before, strict=True)
        ]
        return Why(
            verdict=judged.verdict,
            answer=judged.answer,
            rule=None if judged.rule is None else str(judged.rule),
            hints=hints(ends[0], ends[1]),
            looked_s=0.0 if over is None else looked_s,
            source=shown[0],
            destination=shown[1],
        )

    async def kick(self, *, member: str, network: str | None = None) -> Kicked:
        """End a member's connection, wherever it is."""
        paths(self._relay, network)
        return await self._abroad.kick(member, network)

    def kick_here(self, member: str, network: str | None) -> Kicked:
        """End the connection of a member of this relay."""
        path, session = snapshot.find(member, self._found(network))
        self._relay.decide(self._relay.served[path], lambda network, now, wall: network.kick(session.connection, now))
        return Kicked(network=path, address=str(session.ip), relay=self._relay.name)

    async def capture(
        self, *, member: str, network: str | None = None, drops: bool = False, snaplen: int = SNAP_MOST
    ) -> MemberCapture:
        """A member's packets."""
        path, session = snapshot.find(member, self._found(network))
        who = f"{session.ip} in {path}"
        if session.hello.name:
            who = f"{shown(session.hello.name)}, {who}"
        return self._captures.open(session.connection, f"candy {session.ip}", who, drops=drops, snap=snaplen)

    async def leases(self, *, network: str | None = None) -> Lists:
        """Who has which address, and what is reserved."""
        registers = {path: self._relay.network(path).register for path in paths(self._relay, network)}
        wall = int(time.time())
        return Lists(
            Leases,
            leases=(snapshot.lease(path, one) for path, kept in registers.items() for one in kept.leases(wall)),
            reservations=(
                snapshot.reservation(path, one, kept.is_configured(one))
                for path, kept in registers.items()
                for one in kept.reservations()
            ),
        )

    async def reserve(self, *, body: Reserve) -> Reservation:
        """Reserve an address for a device."""
        try:
            reserved = KeptReservation.of(body.address, body.device)
        except ValueError as error:
            raise RequestError(f"{body.device!r} {error}", 400) from None
        [path] = paths(self._relay, body.network)
        self._relay.reserve(path, reserved)
        return snapshot.reservation(path, reserved, is_configured=False)

    async def release(self, *, device: str, network: str | None = None) -> Released:
        """End reservation and lease of an address."""
        [path] = paths(self._relay, network if network is not None else "/")
        address = self._relay.network(path).register.find(device)
        self._relay.release(path, address)
        return Released(network=path, address=str(address))

    async def limit(self, *, device: str, body: SetLimits) -> DeviceLimits:
        """Say what a device may carry from now on."""
        for name, rate in (("down", body.down), ("up", body.up)):
            if rate and not RATE_LEAST <= rate <= RATE_MOST:
                raise RequestError(f"{name}: {rate} is not from {RATE_LEAST} to {RATE_MOST} bits a second, nor 0", 400)
        if not 0 <= (body.quota or 0) <= QUOTA_MOST or (body.down or 0) < 0 or (body.up or 0) < 0:
            raise RequestError(f"a limit is 0 or more, and a quota at most {QUOTA_MOST} bytes", 400)
        [path] = paths(self._relay, body.network)
        network, wall = self._relay.network(path), int(time.time())
        address = network.register.find(device)
        own = network.register.own_limits(address) if not body.as_network else NO_OWN
        given = OwnLimits(body.down, body.up, body.quota)
        wanted = OwnLimits(*(before if new is None else new for new, before in zip(given, own, strict=True)))
        forgive = body.forgive
        if forgive and self._relay.cluster is not None:
            await self._relay.cluster.forgive(path, int(address))
        self._relay.limit(path, address, wanted, is_forgiven=forgive)
        used = network.register.used(address, wall)
        return snapshot.limits(path, address, allowed(network.limits, wanted, used), used)

    async def networks(self) -> Networks:
        """All of the relay's."""
        return Networks(networks=list(self._networks()))

    async def reload(self) -> Reloaded:
        """Read the settings again."""
        if self._reload is None:
            raise RequestError("the relay has no file to read again: start it with -c FILE")
        return await self._reload()

    def metrics(self) -> bytes:
        """In Prometheus' text format."""
        return self._exposition.text()

    @cached_property
    def _exposition(self) -> Exposition:
        return Exposition(self._figures)

    def _figures(self) -> Figures:
        engine, relay = self._engine, self._relay
        certificates = relay.showing.certificates
        totals = engine.stats()
        counts, delay_ns = engine.delays()
        networks = {path: served.network for path, served in relay.served.items()}
        pools = {path: network.pool for path, network in networks.items() if network.pool.network is not None}
        return Figures(
            version=__version__,
            members={path: network.members for path, network in networks.items()},
            connections=snapshot.states(networks.values(), relay.door.guests),
            connections_most=relay.settings.slots,
            logins=snapshot.logins(networks.values()),
            packets_in=totals["packets_in"],
            bytes_in=totals["bytes_in"],
            packets_out=totals["packets_out"],
            bytes_out=totals["bytes_out"],
            copies=totals["copies"],
            drops=relay.drops(),
            holds={"down": totals["held_down"], "up": totals["held_up"]},
            over_quota={path: snapshot.over_quota(network) for path, network in networks.items()},
            queued_bytes=totals["queued_bytes"],
            queue_delay=Histogram(bounds=DELAY_BOUNDS_S, counts=counts, sum=delay_ns / 1e9),
            worker_cpu_s=[used / 1e9 for used in engine.worker_cpu_ns()],
            loop_lag=self._lag.histogram(),
            leases_used={path: pool.used for path, pool in pools.items()},
            leases_free={path: pool.free for path, pool in pools.items()},
            certificate_expiry=None if certificates is None else certificates.expiry(),
            nats_up=None if relay.cluster is None else relay.cluster.is_up,
            relays=None if relay.cluster is None else len(relay.cluster.presence.there) + 1,
            relay_members=self._relay_members(),
        )

    def _relay_members(self) -> dict[str, int]:
        """Of all relays, by name; empty for one that is alone."""
        cluster = self._relay.cluster
        return {} if cluster is None else {**cluster.directory.counts(), cluster.name: self._members_now()}

    def _totals(self) -> Totals:
        totals = self._engine.stats()
        return Totals(
            bytes_in=totals["bytes_in"],
            bytes_out=totals["bytes_out"],
            packets_in=totals["packets_in"],
            packets_out=totals["packets_out"],
            drops=sum(self._relay.drops().values()),
            members=self._members_now(),
        )

    def _members_now(self) -> int:
        return sum(served.network.members for served in self._relay.served.values())

    def _networks(self) -> Iterator[Network]:
        for path, served in self._relay.served.items():
            interface = served.interface
            yield snapshot.network(
                path,
                served.network,
                None if interface is None else interface.name,
                None if interface is None else interface.address,
                (served.settings.network_limit_down, served.settings.network_limit_up),
            )

    def _found(self, network: str | None) -> Iterator[Found]:
        """The members of one network, or of all."""
        for path in paths(self._relay, network):
            for session in self._relay.served[path].network.sessions:
                if session.is_member:
                    yield Found(path, session)

    def _counters_of(self, connection: int) -> Counters | None:
        """Of one connection alone, which takes its send lock."""
        found = self._engine.connection_stats(connection)
        if found is None:
            return None
        age_ns = found.pop("queue_age_ns")
        return Counters(connection, queue_delay_ns=age_ns, **{name: found[name] for name in SHARED_COUNTERS})

    def _carriers(self, places: tuple[Place, Place]) -> list[Carrier | None]:
        source, destination = places
        sender = whereabouts.carrier_of_source(source.ip, self._relay.network(source.path))
        asker = sender if source.path == destination.path else None
        return [
            sender,
            whereabouts.carrier_of_destination(destination.ip, asker, self._relay.network(destination.path)),
        ]

    def _counted(self, carrier: Carrier | None) -> Counted:
        """What the engine says of one that is connected."""
        connection = None if carrier is None or carrier.session is None else carrier.session.connection
        counters = None if connection is None else self._counters_of(connection)
        if connection is None or counters is None:
            return Counted()
        heard_ns = self._engine.received_ns(connection)
        return Counted(
            counters=counters,
            heard_s=None if heard_ns is None else (time.monotonic_ns() - heard_ns) / 1e9,
            drops=self._engine.connection_drops(connection) or {},
        )

    def _why_end(
        self, end: End, place: Place, carrier: Carrier | None, before: Counted | None, seconds: float
    ) -> WhyEnd:
        session = None if carrier is None else carrier.session
        member = None
        if session is not None and (counters := self._counters_of(session.connection)) is not None:
            earlier = None if before is None else before.counters
            whole = self._member(Found(place.path, session), counters, earlier, seconds, round_trip=True)
            member = snapshot.detailed(whole, self._engine.connection_drops(session.connection) or {})
        return snapshot.why_end(end, member, time.time())

    def _look(self) -> AllCounters:
        return AllCounters(self._engine.members(), MEMBER_FORMAT)

    async def _look_before(self, over: float | None) -> tuple[AllCounters, float]:
        """The counters of a while ago, and how long ago that is; none unless rates are asked for."""
        if over is None:
            return AllCounters(b"", MEMBER_FORMAT), 0.0
        counters, began = self._look(), time.monotonic()
        await asyncio.sleep(over)
        return counters, time.monotonic() - began

    def _member(
        self, one: Found, counters: Counters, before: Counters | None, seconds: float, round_trip: bool
    ) -> Member:
        since = time.time() - self._relay.seconds_since(one.session.since)
        asked = self._engine.round_trip_us(one.session.connection) if round_trip else None
        lease, register = one.session.lease, self._relay.network(one.path).register
        used = None if lease is None else register.used_by(lease, int(time.time()))
        member = snapshot.member(one, counters, since, asked, used, self._relay.name)
        if before is not None:
            member.set_rates(before._asdict(), seconds)
        return member
