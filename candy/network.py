"""One network: all its sessions, and what concerns more than one of them. The adapter's single entry.

The adapter calls `opened` once per connection, then `received`, `ponged` and `closed` as the engine reports
them, and `expired` when `next_deadline` has come. Each returns actions to be carried out in order. A
connection that was closed here is forgotten at once: what is still reported of it is ignored.

Who gets an address that an AUTH claims, in this order:
 1. Reserved for another connection with another VMAC (or none): the newcomer is refused.
 2. Held by nobody: the newcomer has it.
 3. Held by a member with the same VMAC: it is one installation that came back, and replaces its old
    connection at once. (So do two clients of one host that share a VMAC and insist on one address.)
 4. Held by a member with another VMAC, or none: the holder is pinged while the newcomer waits, which nobody
    notices, for an AUTH is never answered. A pong within the probe's time refuses the newcomer, silence
    replaces the holder. A holder that goes meanwhile leaves the address to the one who waits.
 5. While one waits, a third is refused at once, unless it has the VMAC of the one waiting: then it takes that
    one's place, and its remaining time.

A replaced holder is closed with code 4001 (`CLOSE_REPLACED`), a refused newcomer without a word.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from math import inf

from candy.addresses import Pool
from candy.auth import TOLERANCE_S, FailureLimiter, ReplayMemory
from candy.session import CLOSE_REPLACED, Action, Bind, Log, Ping, Realm, Session, State

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
    be claimed, `randbytes(n)` returns n random bytes. `failures` may be shared between networks.
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
        )
        self._authentication_timeout = authentication_timeout
        self._probe_timeout = probe_timeout
        self._sessions: dict[int, Session] = {}
        self._probes: dict[IPv4Address, _Probe] = {}
        # A heap of (when, connection); an entry counts only while it is still its session's deadline.
        self._deadlines: list[tuple[float, int]] = []

    def opened(self, connection: int, source: str, now: float) -> list[Action]:
        """A connection was upgraded; `source` is its peer's IP address as text."""
        session = Session(self._realm, connection, source)
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
        # Only the holder of an address and the one who waits for it have it: one of the two is gone.
        probe = self._probes.pop(session.ip, None)
        if session.state is not State.MEMBER:
            return [Log("debug", f"{session.source}: gone before it was logged in")]
        actions: list[Action] = [Log("info", f"{session.source}: {session.ip} logged out")]
        if probe is not None:
            actions += self._settle(probe.waiting, now)
        return actions

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
        self._realm.pool.claim(session.ip, session.vmac, session.connection)
        session.state = State.MEMBER
        session.deadline = inf
        log = Log("info", f"{session.source}: logged in as {session.ip}")
        return [Bind(session.connection, int(session.ip)), log]

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
        del self._sessions[session.connection]
        self._realm.pool.release(session.connection)

    def _set_deadline(self, session: Session, when: float) -> None:
        session.deadline = when
        heapq.heappush(self._deadlines, (when, session.connection))


def _is_same_installation(one: Session, other: Session) -> bool:
    return one.vmac is not None and one.vmac == other.vmac
