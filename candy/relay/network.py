"""One network: all its sessions, and what concerns more than one of them. The adapter's single entry.

The adapter calls `opened` once per connection, then `received`, `ponged` and `closed` as the engine reports
them, and `expired` when `next_deadline` has come. Each returns actions to be carried out in order. A
connection that was closed here is forgotten at once: what is still reported of it is ignored.

The relay may have an interface of its own in the network (`host`). It holds its address as a member does, but has no
session: it can't be asked whether it is there, for it is.

Who gets an address that an AUTH claims, in this order:
 0. It is the relay's own: the newcomer is refused.
 1. Reserved for another connection with another VMAC (or none): the newcomer is refused.
 2. Held by nobody: the newcomer has it.
 3. Held by a member with the same VMAC: it is one installation that came back, and replaces its old
    connection at once. (So do two clients of one host that share a VMAC and insist on one address.)
 4. Held by a member with another VMAC, or none: the holder is pinged while the newcomer waits, which nobody
    notices, for an AUTH is never answered. A pong within the probe's time refuses the newcomer, silence
    replaces the holder. A holder that goes meanwhile leaves the address to the one who waits.
 5. While one waits, a third is refused at once, unless it has the VMAC of the one waiting: then it takes that
    one's place, and its remaining time.

A replaced holder is closed with code 4001 (`CLOSE_REPLACED`), a refused newcomer without a word. One for whom the
network has no room is closed with 1013, as is one for whom there is no address.

When the rules change (`set_routes`), whoever is told something else from now on is told so: by a new set with candy.2,
else by being closed with 1012, for "ROUTE of the original has no way to withdraw or replace".
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from math import inf

from candy.protocol.auth import TOLERANCE_S, FailureLimiter, ReplayMemory
from candy.relay.pool import Pool
from candy.relay.rules import Routes, messages
from candy.relay.session import (
    CLOSE_REPLACED,
    CLOSE_ROUTES_CHANGED,
    CLOSE_TRY_LATER,
    Action,
    AllowSources,
    Bind,
    Log,
    Ping,
    Realm,
    Send,
    Session,
    State,
)

AUTHENTICATION_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 3.0
PROBE_PREFIX = b"candy-probe:"
"""What a probe's payload begins with; 8 random bytes follow, so that a late pong answers no later probe."""


@dataclass(slots=True)
class _Probe:
    """The question to the holder of an address whether it is still there; `waiting` wants the address."""

    holder: Session
    waiting: Session
    payload: bytes


class Network:
    """The sessions of one network.

    `password` is the raw bytes, `pool` None means that addresses are not granted and any unicast address may
    be claimed, `randbytes(n)` returns n random bytes. `failures` may be shared between networks. `max_members` None
    means as many as come; `forward_broadcast` lets members send messages to everybody.
    """

    def __init__(
        self,
        password: bytes,
        pool: Pool | None,
        *,
        randbytes: Callable[[int], bytes],
        failures: FailureLimiter | None = None,
        tolerance: int = TOLERANCE_S,
        allow_outside_pool: bool = False,
        forward_broadcast: bool = True,
        routes: Routes | None = None,
        max_members: int | None = None,
        authentication_timeout: float = AUTHENTICATION_TIMEOUT_S,
        probe_timeout: float = PROBE_TIMEOUT_S,
    ) -> None:
        pool = pool if pool is not None else Pool(None)
        self._realm = Realm(
            password=password,
            pool=pool,
            replays=ReplayMemory(tolerance),
            failures=failures if failures is not None else FailureLimiter(),
            randbytes=randbytes,
            tolerance=tolerance,
            allow_outside_pool=allow_outside_pool or pool.network is None,
            forward_broadcast=forward_broadcast,
            routes=routes if routes is not None else Routes(),
        )
        self._max_members = inf if max_members is None else max_members
        self._members = 0
        self._host_ip: IPv4Address | None = None
        self._authentication_timeout = authentication_timeout
        self._probe_timeout = probe_timeout
        self._sessions: dict[int, Session] = {}
        self._probes: dict[IPv4Address, _Probe] = {}
        # A heap of (when, connection); an entry counts only while it is still its session's deadline.
        self._deadlines: list[tuple[float, int]] = []

    def host(self, connection: int, ip: IPv4Address) -> list[Action]:
        """Give the relay's own interface its address, before anybody else comes."""
        self._realm.host = connection
        self._host_ip = ip
        self._realm.pool.claim(ip, None, connection)
        return [Bind(connection, int(ip)), *self._allow_sources(connection, ip)]

    def opened(self, connection: int, source: str, now: float, *, extended: bool = False) -> list[Action]:
        """A connection was upgraded; `source` is its peer's IP address as text, `extended`: it has candy.2."""
        session = Session(self._realm, connection, source, extended)
        self._sessions[connection] = session
        self._set_deadline(session, now + self._authentication_timeout)
        return []

    def received(self, connection: int, message: bytes, now: float, wall: int) -> list[Action]:
        """A whole message, kind byte first, that is none of the engine's."""
        session = self._sessions.get(connection)
        if session is None:
            return []
        actions = session.received(message, now, wall)
        if session.state is State.CLOSED:
            self._forget(session)
        elif session.state is State.CLAIMING:
            actions += self._settle(session, now)
        return actions

    def ponged(self, connection: int, payload: bytes, now: float, wall: int) -> list[Action]:
        """A PONG; only the one that answers a probe means anything here."""
        holder = self._sessions.get(connection)
        probe = self._probes.get(holder.ip) if holder is not None else None
        if probe is None or probe.holder is not holder or probe.payload != payload:
            return []
        del self._probes[holder.ip]
        return self._refuse(probe.waiting, f"{holder.ip} is held by {holder.source}, which answers")

    def closed(self, connection: int, now: float) -> list[Action]:
        """The connection is gone, whoever ended it."""
        session = self._sessions.get(connection)
        if session is None:
            return []
        self._forget(session)
        if session.state is State.MEMBER:
            log = Log("info", f"{session.source}: {session.ip} logged out")
            return [log, *self._leave_address(session.ip, now)]
        # Only the holder of an address and the one who waits for it have it: it was the latter.
        self._probes.pop(session.ip, None)
        return [Log("debug", f"{session.source}: gone before it was logged in")]

    def expired(self, now: float, wall: int) -> list[Action]:
        """Act on every deadline up to `now`."""
        actions: list[Action] = []
        while (when := self.next_deadline()) is not None and when <= now:
            session = self._sessions[heapq.heappop(self._deadlines)[1]]
            if session.state is State.WAITING:
                holder = self._probes.pop(session.ip).holder
                actions += self._replace(holder, f"by {session.source}, for it did not answer a ping")
                actions += self._settle(session, now)
            else:
                actions.append(Log("debug", f"{session.source}: did not authenticate in time"))
                actions += session.end(None, "authentication timed out")
                self._forget(session)
        return actions

    def set_routes(self, routes: Routes, now: float) -> list[Action]:
        """Have these rules instead of those before, and see to it that every member follows them."""
        before, self._realm.routes = self._realm.routes, routes
        actions: list[Action] = []
        if self._realm.host is not None and self._host_ip is not None:
            actions += self._allow_sources(self._realm.host, self._host_ip, before)
        told = closed = 0
        # Whoever is let in below, because somebody had to go, has the new rules already.
        for session in [session for session in self._sessions.values() if session.state is State.MEMBER]:
            actions += self._allow_sources(session.connection, session.ip, before)
            entries = routes.entries(session.ip)
            # As sets: no two that a member is told overlap, so their order means nothing.
            if set(entries) == set(before.entries(session.ip)):
                continue
            if session.extended:
                told += 1
                actions += [Send(session.connection, message) for message in messages(entries, extended=True)]
            else:
                closed += 1
                self._forget(session)
                actions += session.end(CLOSE_ROUTES_CHANGED, "the routes have changed")
                actions += self._leave_address(session.ip, now)
        log = f"{len(routes.rules)} SD-WAN rules from now on; members told: {told}, closed to come back: {closed}"
        return [*actions, Log("info", log)]

    def next_deadline(self) -> float | None:
        """When `expired` has to be called next, in the seconds of `now`; None when nothing is due ever."""
        while self._deadlines:
            when, connection = self._deadlines[0]
            session = self._sessions.get(connection)
            if session is not None and session.deadline == when:
                return when
            heapq.heappop(self._deadlines)
        return None

    def _settle(self, session: Session, now: float) -> list[Action]:
        """Decide a claim by the rules at the top of this file, which the numbers refer to."""
        ip = session.ip
        pool = self._realm.pool
        if pool.is_reserved_against(ip, session.vmac, session.connection):  # 1
            return self._refuse(session, f"{ip} is reserved for another member that is about to log in")
        connection = pool.holder(ip)
        if connection is None:  # 2
            return self._admit(session)
        if connection == self._realm.host:  # 0
            return self._refuse(session, f"{ip} is this relay's own")
        holder = self._sessions[connection]
        probe = self._probes.get(ip)
        if _is_same_installation(session, holder):  # 3
            actions: list[Action] = []
            if probe is not None:
                del self._probes[ip]
                actions += self._refuse(probe.waiting, f"{ip} was taken back by its holder")
            actions += self._replace(holder, f"by {session.source}, which has the same VMAC")
            return actions + self._admit(session)
        if probe is None:  # 4
            payload = PROBE_PREFIX + self._realm.randbytes(8)
            self._probes[ip] = _Probe(holder, session, payload)
            self._wait(session, now + self._probe_timeout)
            log = Log(
                "debug",
                f"{session.source}: {ip} is held by {holder.source}: asking whether it is still there",
            )
            return [Ping(holder.connection, payload), log]
        if not _is_same_installation(session, probe.waiting):  # 5
            return self._refuse(session, f"another newcomer waits for {ip} already")
        older, probe.waiting = probe.waiting, session
        self._wait(session, older.deadline)
        return self._refuse(older, f"the same member waits for {ip} on a newer connection")

    def _admit(self, session: Session) -> list[Action]:
        if self._members >= self._max_members:
            self._forget(session)
            full = f"the network is full: {self._max_members} members are in"
            log = Log("warning", f"{session.source}: not let in as {session.ip}: {full}")
            return [log, *session.end(CLOSE_TRY_LATER, full)]
        self._members += 1
        self._realm.pool.claim(session.ip, session.vmac, session.connection)
        session.state = State.MEMBER
        session.deadline = inf
        entries = self._realm.routes.entries(session.ip)
        # "ROUTE messages follow if SD-WAN rules concern this address", which needs no set to withdraw others.
        told = messages(entries, session.extended) if entries else []
        return [
            Bind(session.connection, int(session.ip)),
            *self._allow_sources(session.connection, session.ip),
            *(Send(session.connection, message) for message in told),
            Log("info", f"{session.source}: logged in as {session.ip}"),
        ]

    def _allow_sources(self, connection: int, ip: IPv4Address, before: Routes | None = None) -> list[Action]:
        """Let a member send from the LANs behind it, if these are others than they were."""
        lans = self._realm.routes.lans(ip)
        known = before.lans(ip) if before is not None else ()
        return [AllowSources(connection, lans)] if set(lans) != set(known) else []

    def _leave_address(self, ip: IPv4Address, now: float) -> list[Action]:
        """Its holder is gone: whoever waits for it may have it."""
        probe = self._probes.pop(ip, None)
        return self._settle(probe.waiting, now) if probe is not None else []

    def _wait(self, session: Session, deadline: float) -> None:
        session.state = State.WAITING
        self._set_deadline(session, deadline)

    def _refuse(self, session: Session, why: str) -> list[Action]:
        self._forget(session)
        return session.refuse(why)

    def _replace(self, holder: Session, why: str) -> list[Action]:
        self._forget(holder)
        log = Log("info", f"{holder.source}: replaced at {holder.ip} {why}")
        return [log, *holder.end(CLOSE_REPLACED, "another login took over the address")]

    def _forget(self, session: Session) -> None:
        """Before it is ended, for only a member counts as one."""
        self._members -= session.state is State.MEMBER
        del self._sessions[session.connection]
        self._realm.pool.release(session.connection)

    def _set_deadline(self, session: Session, when: float) -> None:
        session.deadline = when
        heapq.heappush(self._deadlines, (when, session.connection))


def _is_same_installation(one: Session, other: Session) -> bool:
    return one.vmac is not None and one.vmac == other.vmac
