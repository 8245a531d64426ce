"""Who is in a network, and who is about to be: the sessions, from their first message to their last line.

    opened ─▶ session, deadline ─▶ _go_on() ─▶ claims its address ─▶ _settle() ─▶ Claims ─▶ _admit(): a member
                                       │                                 └─▶ _keep(): with a key, until it confirms
                                       └─▶ has ended ─▶ _forget()             _send_away(), _replace() ─▶ _forget()

Rule: a session that was closed here is forgotten at once, and the session that waits for its address gets it.

What comes in, and what an operator or a setting has changed, is candy.relay.network's.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from candy.control.escape import shown
from candy.protocol.actions import Log, Ping
from candy.protocol.closing import CloseCode
from candy.protocol.login import Asks
from candy.relay import lines
from candy.relay.claims import Admit, Ask, Claims, Refuse, Replace, Step, Wait
from candy.relay.enrolment import Enrolment
from candy.relay.keyed import KeyedSession
from candy.relay.leases import NO_HELLO, Traffic
from candy.relay.limits import NO_OWN, allowed, month_of
from candy.relay.passwords import Circles, Passwords
from candy.relay.pool import Pool
from candy.relay.realm import Realm
from candy.relay.rules import Rules
from candy.relay.session import Action, Bind, Limit, Session, State
from candy.relay.telling import Telling

TAKEN_OVER = "another login took over the address"
"""What a member without candy.2 is told that lost its address, as ever."""


class Roster:
    """See above.

    Args:
        realm: what the sessions share.
        tell_gateways, max_members, authentication_timeout, probe_timeout, traffic: as for Network.
    """

    def __init__(
        self,
        realm: Realm,
        *,
        tell_gateways: bool,
        max_members: int | None,
        authentication_timeout: float,
        probe_timeout: float,
        traffic: Callable[[int], Traffic | None],
    ) -> None:
        self._realm = realm
        self.max_members = max_members
        self._members = 0
        self._authentication_timeout = authentication_timeout
        self._traffic = traffic
        self._sessions: dict[int, Session] = {}
        self._parting: dict[int, Session] = {}
        """Of members whose connection is ending, for their last traffic."""
        realm.circle_of = self._circle_of
        self._claims = Claims(realm, self._sessions, probe_timeout)
        self._telling = Telling(realm, self._sessions, tells_gateways=tell_gateways)
        self._due: dict[int, float] = {}
        """When the network has to act on a session that is not a member yet, by connection."""
        self._left: dict[int, float] = {}
        """The seconds that a session in line has left behind its turn, by connection."""
        self._deadlines: list[tuple[float, int]] = []
        """A heap of (when, connection). An entry counts only while `_due` says the same."""

    def _circle_of(self, connection: int) -> int:
        session = self._sessions.get(connection)
        return 0 if session is None else session.circle

    def _bind(self, session: Session) -> Bind:
        session.acquainted = session.circle
        return Bind(session.connection, int(session.ip), session.takes_sealed, session.acquainted)

    def _regroup(self) -> list[Action]:
        """Have the engine know who is in another circle now."""
        members = (session for session in self._sessions.values() if session.is_member)
        return [self._bind(session) for session in members if session.circle != session.acquainted]

    def _send_all_away(self, sessions: list[Session], code: CloseCode, told: str, now: float) -> list[Action]:
        # Members last: else who waits for the address of one would get it on the way out.
        sessions.sort(key=lambda session: session.is_member)
        return [action for session in sessions for action in self._send_away(session, code, told, now)]

    def _send_away(self, session: Session, code: CloseCode, told: str, now: float) -> list[Action]:
        """End a session for the sake of a setting that has changed."""
        if not session.is_member:
            if session.is_waiting:
                self._claims.left(session.ip)
            self._forget(session)
            # One without a key has perhaps not proven that it may know why.
            return session.end(code if isinstance(session, KeyedSession) else None, told)
        # Before it is forgotten: its bytes are asked for by its connection.
        log = self._last_line(session, told, now)
        self._forget(session)
        return [log, *session.end(code, told), *self._leave_address(session.ip, now)]

    def _last_line(self, session: Session, cause: str, now: float) -> Log:
        """Of a member."""
        return self._end_line(session, f"{session.ip} logged out", f": {lines.CAUSES.get(cause, cause)}", cause, now)

    def _end_line(self, session: Session, before: str, behind: str, cause: str, now: float) -> Log:
        seconds, traffic = now - session.since, self._traffic_of(session)
        return session.did(
            "logged out",
            f"{before} {lines.stay(seconds, traffic)}{behind}",
            seconds=round(seconds, 3),
            bytes_in=traffic.bytes_in,
            bytes_out=traffic.bytes_out,
            cause=cause,
        )

    @property
    def members(self) -> int:
        """How many are in."""
        return self._members

    @property
    def pool(self) -> Pool:
        """Without a network if no addresses are granted."""
        return self._realm.pool

    @property
    def allows_outside_pool(self) -> bool:
        """Members may have addresses outside of the pool."""
        return self._realm.allow_outside_pool

    @property
    def enrolment(self) -> Enrolment:
        """Of devices with keys."""
        return self._realm.enrolment

    @property
    def passwords(self) -> Passwords:
        """Those in force."""
        return self._realm.passwords

    @property
    def circles(self) -> Circles:
        """Numbers of those, for the engine."""
        return self._realm.circles

    @property
    def rules(self) -> Rules:
        """Those in force."""
        return self._realm.rules

    @property
    def host_ip(self) -> IPv4Address | None:
        """The address of the relay's own interface."""
        return None if self._realm.host is None else self._realm.pool.address_of(self._realm.host)

    @property
    def host_flags(self) -> Asks:
        """How that interface seals."""
        return Asks.SEALS_NOTHING if self._realm.own is None else self._realm.own.flags

    @property
    def tolerance(self) -> int:
        """Seconds that a member's clock may be off."""
        return self._realm.tolerance

    @property
    def forwards_broadcast(self) -> bool:
        """Members may send messages to all others."""
        return self._realm.forward_broadcast

    def member_at(self, ip: IPv4Address) -> Session | None:
        """The member that has this address."""
        connection = self._realm.pool.holder(ip)
        return None if connection is None else self._sessions.get(connection)

    @property
    def logins(self) -> Mapping[str, int]:
        """How log-ins ended so far."""
        return self._realm.logins

    @property
    def sessions(self) -> Iterable[Session]:
        """All of them, members and others."""
        return self._sessions.values()

    def _next_due(self) -> float | None:
        """The same without passwords."""
        while self._deadlines:
            when, connection = self._deadlines[0]
            if self._due.get(connection) == when:
                return when
            heapq.heappop(self._deadlines)
        return None

    def _go_on(self, session: Session, outcome: tuple[list[Action], bool, bool], now: float) -> list[Action]:
        """What follows from what a session has made of its messages."""
        actions, claims, ended = outcome
        if claims:
            return actions + self._settle(session, now)
        if ended:
            self._forget(session)
        elif session.state is State.APPROVING and session.is_confirmed:
            # It may take the operator days.
            self._due.pop(session.connection, None)
        return actions

    def _settle(self, session: Session, now: float) -> list[Action]:
        """Decide a claim."""
        return self._carry_out(self._claims.decide(session, now), now)

    def _carry_out(self, steps: Iterable[Step], now: float) -> list[Action]:
        actions: list[Action] = []
        for step in steps:
            match step:
                case Admit():
                    actions += self._admit(step.session, now)
                case Wait():
                    step.session.waiting()
                    self._set_deadline(step.session.connection, step.until)
                case Refuse():
                    self._forget(step.session)
                    actions += step.session.refuse(step.why, code=CloseCode.ADDRESS_HELD, told=step.told)
                case Replace():
                    actions += self._replace(step, now)
                case Ask():
                    assert self._realm.shared is not None
                    self._realm.shared.ask(step.ip, step.relay)
                case Ping() | Log():
                    actions.append(step)
        return actions

    def _keep(self, session: KeyedSession, now: float) -> list[Action]:
        """Its address is free, or its own: keep it until it has confirmed the answer."""
        pool = self._realm.pool
        if pool.address_of(session.connection) != session.ip:
            pool.keep(session.ip, session.vmac, session.connection, session.counted_as, now)
        self._set_deadline(session.connection, now + self._authentication_timeout)
        return self._go_on(session, session.outcome(session.granted_address(pool.leases.wall)), now)

    def _admit(self, session: Session, now: float) -> list[Action]:
        if self.max_members is not None and self._members >= self.max_members:
            self._forget(session)
            full = f"the network is full: {self._members} members are in"
            self._realm.logins["full"] += 1
            log = session.warning("full", f"not let in as {session.ip}: {full}")
            return [log, *session.end(CloseCode.TRY_AGAIN_LATER, full)]
        if isinstance(session, KeyedSession) and not session.is_confirmed:
            return self._keep(session, now)
        if (wanted := self._realm.address_wanted(int(session.ip), session.vmac)) is not None:
            self._set_deadline(session.connection, now + self._authentication_timeout)
            return session.recording(wanted)
        self._members += 1
        ip, pool = session.ip, self._realm.pool
        pool.leases.expire()
        before = pool.leases.get(int(ip))
        moved: list[Action] = []
        if before is not None and before.vmac != session.vmac:
            moved = [session.did("moved", f"{ip} was leased to {before.device}, and is not any more")]
        welcome = session.welcome() if isinstance(session, KeyedSession) else []
        session.claimed(pool.claim(ip, session.vmac, session.connection, session.source), now)
        if session.lease is not None:
            self._realm.devices.leased(session.lease.vmac, ip)
        self._due.pop(session.connection, None)
        self._telling.changed(int(ip))
        if self._realm.shared is not None:
            self._realm.shared.came(session.presented())
        return [
            self._bind(session),
            *self._limit(session),
            *welcome,
            *self._telling.welcome(session),
            *moved,
            self._first_line(session),
            *session.caught_up(now, pool.leases.wall),
            *self._learn_name(session, now),
        ]

    def _first_line(self, session: Session) -> Log:
        """Of a member."""
        text = f"logged in as {session.ip}"
        if not session.came_by:
            return session.did("logged in", text)
        by = shown(session.came_by)
        if session.is_invited:
            return session.did("logged in", f"{text} by the invitation {by}", invitation=by)
        return session.did("logged in", f"{text} by the password {by}", password=by)

    def _learn_name(self, session: Session, now: float) -> list[Action]:
        if session.lease is None or session.hello is NO_HELLO:
            return []
        session.hello = self._realm.pool.leases.tell(session.lease, session.hello)
        return self._obey(session, now)

    def _obey(self, session: Session, now: float) -> list[Action]:
        """Have a member come back that is not where reservations want it."""
        pool = self._realm.pool
        if pool.is_reserved_for_another(session.ip, session.vmac):
            why = f"{session.ip} is reserved for another device"
            return self._send_away(session, CloseCode.SERVICE_RESTART, why, now)
        # One that insists on its address would come back to it.
        if not session.was_granted or pool.is_reserved_for(session.ip, session.vmac):
            return []
        reserved = pool.reserved_for(session.vmac)
        if reserved is None:
            return []
        return self._send_away(session, CloseCode.SERVICE_RESTART, f"{reserved} is reserved for it", now)

    def _leave_address(self, ip: IPv4Address, now: float) -> list[Action]:
        """The holder of the address has left: a session that waits for it gets it."""
        waiting = self._claims.left(ip)
        return self._settle(waiting, now) if waiting is not None else []

    def _replace(self, step: Replace, now: float) -> list[Action]:
        holder = step.session
        log = self._end_line(holder, f"replaced at {holder.ip} {step.why},", "", "replaced", now)
        self._forget(holder)
        return [log, *holder.end(step.code, step.told if holder.extended else TAKEN_OVER)]

    def _carry(self, session: Session, traffic: Traffic) -> None:
        """What its connection has carried by now."""
        if session.lease is not None:
            self._realm.pool.leases.carry(session.lease, traffic, Traffic.unpacked(session.carried))
            session.carried = traffic.packed()

    def _limit(self, session: Session) -> list[Action]:
        """Have a member carry what it may, by its network's limits, its own and what it has used of its quota."""
        lease, leases, before = session.lease, self._realm.pool.leases, session.allowed
        if lease is None:
            now = allowed(replace(self._realm.limits, quota=0), NO_OWN, 0)
        else:
            now = allowed(self._realm.limits, lease.own, self._realm.used(lease, month_of(leases.wall)))
        if now == before:
            return []
        session.allowed = now
        actions: list[Action] = []
        if (now.down, now.up) != (before.down, before.up):
            actions.append(Limit(session.connection, now.down, now.up))
        if now.is_spent and not before.is_spent:
            text = f"has used up its quota of {now.quota} bytes, and is held to {now.down} bits/s until the month ends"
            actions.append(session.did("quota used up", text, quota=now.quota))
        elif before.is_spent and not now.is_spent:
            actions.append(session.did("quota", "is not held for its quota any more", quota=now.quota))
        return actions

    def _limit_all(self) -> list[Action]:
        """The same, of all members."""
        members = [session for session in self._sessions.values() if session.is_member]
        return [action for session in members for action in self._limit(session)]

    def _traffic_of(self, session: Session) -> Traffic:
        """What its connection has carried by now, as far as that is known."""
        traffic = self._traffic(session.connection)
        return Traffic.unpacked(session.carried) if traffic is None else traffic

    def _forget(self, session: Session) -> None:
        """Called before session.end(), while a member is still counted as one."""
        self._members -= session.is_member
        if session.is_member:
            self._telling.changed(int(session.ip))
            if self._realm.shared is not None:
                self._realm.shared.went(int(session.ip))
        self._telling.left(session)
        self._realm.enrolment.left(session.connection)
        if session.lease is not None:
            self._parting[session.connection] = session
        del self._sessions[session.connection]
        self._due.pop(session.connection, None)
        self._left.pop(session.connection, None)
        self._realm.pool.release(session.connection)

    def _set_deadline(self, connection: int, when: float) -> None:
        self._due[connection] = when
        heapq.heappush(self._deadlines, (when, connection))
