"""One network: all its sessions, and what concerns more than one of them. The adapter's single entry.

The adapter calls `opened` once per connection, then `received`, `ponged` and `closed` as the engine reports
them, and `expired` when `next_deadline` has come. Each returns actions to be carried out in order. A
connection that was closed here is forgotten at once: later reports of it are ignored.

The relay may have an interface of its own in the network (`host`). It holds its address as a member does, but has no
session. It is local, so it is never probed.

Which session gets an address that an AUTH claims candy.relay.claims decides.

The network tells a replaced holder and a refused newcomer why, by a close code if they can read one
(candy.protocol.closing); also a newcomer for which network or pool are full, or that is one new device too many of its
source. It names no other member's source.

What is reserved counts at once: a member in the way is closed with 1012 and comes back to another address, and so is
one that was granted an address and has another one reserved for it that is free.

Settings may change while members are there, and concern some of them:
 - rules (`set_rules`): every member whose routes change with them learns it, by a new set with candy.2, else by being
   closed with 1012, because "ROUTE of the original has no way to withdraw or replace". A gateway with candy.2 is told
   what lies behind whom, so that it can look at what is wrapped for it as the relay does.
 - passwords (`set_passwords`): who came by one that does not hold any more is closed with 4008; at its end, too.
 - a larger pool (`enlarge`): who was granted an address has its interface in the smaller one, and is closed with 1012.
 - the network itself is taken away (`dissolve`): everybody is closed with 1001.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from math import inf

from candy.control.escape import shown
from candy.protocol.actions import Log, Ping, Send
from candy.protocol.addresses import source_of
from candy.protocol.auth import TOLERANCE_S
from candy.protocol.closing import CloseCode
from candy.protocol.hello import Hello
from candy.protocol.login import Tells
from candy.protocol.noise import KEY_BYTES
from candy.relay import lines
from candy.relay.claims import Admit, Claims, Refuse, Replace, Step, Wait
from candy.relay.devices import Devices
from candy.relay.enrolment import Enrolment
from candy.relay.guessing import FailureLimiter
from candy.relay.keyed import KeyedSession
from candy.relay.leases import LEASE_DAYS, NO_HELLO, Traffic
from candy.relay.login import LogIn
from candy.relay.passwords import Ends, Passwords
from candy.relay.pool import Pool
from candy.relay.realm import Realm
from candy.relay.register import Register
from candy.relay.replays import ReplayMemory, Sightings
from candy.relay.reservations import Reservation
from candy.relay.rules import Rules, behind_messages, messages
from candy.relay.session import Action, Bind, Session, State

PROBE_TIMEOUT_S = 3.0
TAKEN_OVER = "another login took over the address"
"""What a member without candy.2 is told that lost its address, as ever."""


class Network:
    """The sessions of one network.

    Args:
        passwords: by which members log in.
        pool: None: no addresses are granted, and any unicast address may be claimed.
        randbytes: returns that many random bytes.
        failures: may be shared between networks.
        enrolment: of devices with keys; None: nobody logs in by one.
        tolerance: seconds that a member's clock may be off.
        allow_outside_pool: addresses outside the pool may be claimed.
        forward_broadcast: members may send messages to all others.
        rules: SD-WAN.
        tell_gateways: tell them what lies behind whom.
        max_members: None: any number; may be set anew.
        new_devices_per_minute: of one source; 0: any number.
        lease_days: how long an address is kept for its device; 0: for ever.
        reservations: those of the configuration.
        authentication_timeout: seconds from the upgrade to the AUTH, without those in line.
        probe_timeout: seconds that the holder of an address has to answer a probe.
        traffic: what a connection has carried, also one that has just ended; None: that is not known any more.
    """

    def __init__(
        self,
        passwords: Passwords,
        pool: Pool | None,
        *,
        randbytes: Callable[[int], bytes],
        failures: FailureLimiter,
        enrolment: Enrolment | None = None,
        tolerance: int = TOLERANCE_S,
        allow_outside_pool: bool = False,
        forward_broadcast: bool = True,
        rules: Rules | None = None,
        tell_gateways: bool = True,
        max_members: int | None = None,
        new_devices_per_minute: int = 0,
        lease_days: int = LEASE_DAYS,
        reservations: Iterable[Reservation] = (),
        authentication_timeout: float,
        probe_timeout: float = PROBE_TIMEOUT_S,
        traffic: Callable[[int], Traffic | None] = lambda connection: None,
    ) -> None:
        pool = pool if pool is not None else Pool(None)
        self._realm = Realm(
            passwords=passwords,
            pool=pool,
            replays=ReplayMemory(tolerance),
            sightings=Sightings(),
            devices=Devices(new_devices_per_minute, leases=pool.leases),
            enrolment=enrolment if enrolment is not None else Enrolment(bytes(KEY_BYTES), randbytes),
            failures=failures,
            randbytes=randbytes,
            tolerance=tolerance,
            allow_outside_pool=allow_outside_pool or pool.network is None,
            forward_broadcast=forward_broadcast,
            rules=rules if rules is not None else Rules(),
            tells=Tells(0) if tell_gateways else Tells.CHECKS_NO_SOURCE,
        )
        self.register = Register(self._realm)
        """What it remembers."""
        self.register.set_lease_days(lease_days)
        pool.configure(reservations)
        self._tell_gateways = tell_gateways
        self.max_members = max_members
        self._members = 0
        self._authentication_timeout = authentication_timeout
        self._traffic = traffic
        self._ends = Ends(passwords)
        self._sessions: dict[int, Session] = {}
        self._parting: dict[int, Session] = {}
        """Of members whose connection is ending, for their last traffic."""
        self._claims = Claims(self._realm, self._sessions, probe_timeout)
        self._due: dict[int, float] = {}
        """When the network has to act on a session that is not a member yet, by connection."""
        self._left: dict[int, float] = {}
        """The seconds that a session in line has left behind its turn, by connection."""
        self._deadlines: list[tuple[float, int]] = []
        """A heap of (when, connection). An entry counts only while `_due` says the same."""

    def host(self, connection: int, ip: IPv4Address) -> list[Action]:
        """Give the relay's own interface its address, before any member logs in."""
        self._realm.host = connection
        self._realm.pool.claim(ip, None, connection)
        return [Bind(connection, int(ip))]

    def opened(
        self, connection: int, source: str, now: float, *, extended: bool = False, instance: int = 0
    ) -> list[Action]:
        """A connection was upgraded.

        Args:
            source: its peer's IP address as text.
            extended: it has candy.2.
            instance: what its program has for a number of its own; 0: none.
        """
        self._sessions[connection] = Session(self._realm, connection, source, extended, now, instance)
        self._set_deadline(connection, now + self._authentication_timeout)
        return []

    def opened_with_keys(self, connection: int, source: str, now: float, log_in: LogIn) -> list[Action]:
        """A connection was upgraded to candy.3; `log_in` has its headers."""
        self._sessions[connection] = KeyedSession(self._realm, connection, source, now, log_in)
        self._set_deadline(connection, now + self._authentication_timeout)
        return []

    def recorded(self, connection: int, is_kept: bool, now: float, wall: int) -> list[Action]:
        """What a Record asked for is written down, or can't be."""
        self._realm.pool.leases.wall = wall
        session = self._sessions.get(connection)
        if not isinstance(session, KeyedSession):
            return []
        return self._go_on(session, session.outcome(session.recorded(is_kept, wall)), now)

    def approve(self, key: bytes, now: float, wall: int) -> list[Action]:
        """A device that waits may come in, by command; see Enrolment.approve().

        Raises:
            RequestError: it was revoked.
        """
        self._realm.pool.leases.wall = wall
        self._realm.enrolment.approve(key)
        actions: list[Action] = []
        for session in self._of_device(key):
            if session.state is State.APPROVING:
                actions += self._go_on(session, session.outcome(session.approved(now)), now)
        return actions

    def revoke(self, key: bytes, now: float) -> list[Action]:
        """No credential lets this device in from now on, by command, and its connections end."""
        self._realm.enrolment.revoke(key)
        told = "this device was revoked"
        actions: list[Action] = []
        for session in self._of_device(key):
            actions += self._send_away(session, CloseCode.DEVICE_REVOKED, told, now)
        return actions

    def _of_device(self, key: bytes) -> list[KeyedSession]:
        """Sessions that have shown this key."""
        return [each for each in self._sessions.values() if isinstance(each, KeyedSession) and each.vmac == key]

    def received(self, connection: int, message: bytes, now: float, wall: int) -> list[Action]:
        """A whole message, kind byte first, that the engine leaves to Python."""
        self._realm.pool.leases.wall = wall
        session = self._sessions.get(connection)
        if session is None:
            return []
        was_in_line = session.is_in_line
        actions = self._go_on(session, session.received(message, now, wall), now)
        if session.is_in_line and not was_in_line:
            self._left[connection] = self._due[connection] - now
            self._set_deadline(connection, session.turn)
        return actions

    def ponged(self, connection: int, payload: bytes, now: float, wall: int) -> list[Action]:
        """A PONG; only one that answers a probe matters here."""
        self._realm.pool.leases.wall = wall
        holder = self._sessions.get(connection)
        return [] if holder is None else self._carry_out(self._claims.answered(holder, payload), now)

    def pinged(self, connection: int, payload: bytes, now: float, wall: int) -> list[Action]:
        """The first PING behind a message, which may say who it is."""
        self._realm.pool.leases.wall = wall
        session = self._sessions.get(connection)
        hello = Hello.parse(payload)
        if session is None or hello is None:
            return []
        session.hello = hello
        return self._learn_name(session, now)

    def carried(self, connection: int, traffic: Traffic, wall: int) -> None:
        """What a connection has carried from its beginning on; told now and then, while it is there."""
        self._realm.pool.leases.wall = wall
        if (session := self._sessions.get(connection)) is not None:
            self._carry(session, traffic)

    def closed(self, connection: int, now: float, wall: int, cause: str) -> list[Action]:
        """The connection has ended, by either side; `cause` by the engine's names."""
        self._realm.pool.leases.wall = wall
        session = self._sessions.get(connection)
        if session is not None:
            self._forget(session)
        if (parting := self._parting.pop(connection, None)) is not None:
            self._carry(parting, self._traffic_of(parting))
        if session is None:
            return []
        if session.is_member:
            return [self._last_line(session, cause, now), *self._leave_address(session.ip, now)]
        if session.is_waiting:
            self._claims.left(session.ip)
        return [session.line("debug", "left before it was logged in")]

    def expired(self, now: float, wall: int) -> list[Action]:
        """Act on every deadline up to `now`."""
        self._realm.pool.leases.wall = wall
        actions = self._look_at_passwords(now, wall) if self._ends.due <= now else []
        while (when := self._next_due()) is not None and when <= now:
            session = self._sessions[heapq.heappop(self._deadlines)[1]]
            if session.is_in_line:
                self._set_deadline(session.connection, now + self._left.pop(session.connection))
                actions += self._go_on(session, session.called(now, wall), now)
            elif session.is_waiting:
                actions += self._carry_out(self._claims.unanswered(session), now)
                actions += self._settle(session, now)
            else:
                self._realm.logins["timeout"] += 1
                actions.append(session.line("debug", "did not authenticate in time"))
                actions += session.end(None, "authentication timed out")
                self._forget(session)
        return actions

    def set_rules(self, rules: Rules, now: float) -> list[Action]:
        """Use these rules instead of those before, and see to it that every member follows them."""
        before, self._realm.rules = self._realm.rules, rules
        actions: list[Action] = []
        told = closed = 0
        # A list, because a newcomer that gets the address of a closed member has the new rules already.
        members = [session for session in self._sessions.values() if session.is_member]
        # Gateways first: others are about to send them what is new.
        for session in members:
            actions += self._tell_behind(session, before)
        for session in members:
            entries = rules.entries(session.ip)
            # As sets: no two entries of a member overlap, so their order means nothing.
            if set(entries) == set(before.entries(session.ip)):
                continue
            if session.extended:
                told += 1
                actions += [Send(session.connection, message) for message in messages(entries, extended=True)]
            else:
                closed += 1
                actions += self._send_away(session, CloseCode.SERVICE_RESTART, "the routes have changed", now)
        log = f"{len(rules.rules)} SD-WAN rules from now on; members told: {told}, closed to come back: {closed}"
        return [*actions, Log("info", log)]

    def reserve(self, reservation: Reservation, now: float) -> list[Action]:
        """Reserve an address by command, from now on; see Reservation.of() and the rules at the top.

        Raises:
            RequestError: the address is reserved in the configuration, the relay's own, or none that a member can have.
        """
        self.register.reserve(reservation)
        return self._make_way(now)

    def set_reservations(self, reservations: Iterable[Reservation], now: float) -> list[Action]:
        """What the configuration reserves, instead of what it reserved before."""
        self._realm.pool.configure(reservations)
        return self._make_way(now)

    def kick(self, connection: int, now: float) -> list[Action]:
        """End a member's connection, for an operator. It may make another one."""
        told = "an operator of the relay ended the connection"
        return self._send_away(self._sessions[connection], CloseCode.POLICY_VIOLATION, told, now)

    def set_passwords(self, passwords: Passwords, now: float, wall: int) -> list[Action]:
        """Believe these passwords instead of those before."""
        self._realm.passwords = passwords
        self._ends = Ends(passwords)
        return self._look_at_passwords(now, wall)

    def enlarge(self, network: IPv4Network, now: float) -> list[Action]:
        """Grant addresses of this network, of which the pool until now is a part."""
        self._realm.pool.enlarge(network)
        granted = [session for session in self._sessions.values() if session.was_granted]
        return self._send_all_away(granted, CloseCode.SERVICE_RESTART, f"the pool is {network} from now on", now)

    def dissolve(self, now: float) -> list[Action]:
        """Close every connection: the network is not served any more."""
        everybody = list(self._sessions.values())
        return self._send_all_away(everybody, CloseCode.GOING_AWAY, "the relay serves this network no more", now)

    def _look_at_passwords(self, now: float, wall: int) -> list[Action]:
        """Close those who came by a password that does not hold any more."""
        if not self._ends.look(now, wall):
            return []
        passwords = self._realm.passwords
        gone = [
            session
            for session in self._sessions.values()
            if session.password is not None and not passwords.holds(session.password, wall)
        ]
        holding = passwords.holding(wall)
        text = f"passwords that hold from now on: {holding}; closed who came by another one: {len(gone)}"
        told = "the password by which this member logged in holds no more"
        actions = self._send_all_away(gone, CloseCode.PASSWORD_ENDED, told, now)
        return [*actions, Log("info" if holding else "warning", text)]

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
    def rules(self) -> Rules:
        """Those in force."""
        return self._realm.rules

    @property
    def logins(self) -> Mapping[str, int]:
        """How log-ins ended so far."""
        return self._realm.logins

    @property
    def sessions(self) -> Iterable[Session]:
        """All of them, members and others."""
        return self._sessions.values()

    def next_deadline(self) -> float | None:
        """When `expired` has to be called next, in the seconds of `now`; None for never."""
        when = min(self._ends.due, inf if (due := self._next_due()) is None else due)
        return None if when == inf else when

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
                case Ping() | Log():
                    actions.append(step)
        return actions

    def _keep(self, session: KeyedSession, now: float) -> list[Action]:
        """Its address is free, or its own: keep it until it has confirmed the answer."""
        pool = self._realm.pool
        if pool.address_of(session.connection) != session.ip:
            pool.keep(session.ip, session.vmac, session.connection, source_of(session.source), now)
        self._set_deadline(session.connection, now + self._authentication_timeout)
        return session.granted_address(pool.leases.wall)

    def _admit(self, session: Session, now: float) -> list[Action]:
        if self.max_members is not None and self._members >= self.max_members:
            self._forget(session)
            full = f"the network is full: {self._members} members are in"
            self._realm.logins["full"] += 1
            log = session.warning("full", f"not let in as {session.ip}: {full}")
            return [log, *session.end(CloseCode.TRY_AGAIN_LATER, full)]
        if isinstance(session, KeyedSession) and not session.is_confirmed:
            return self._keep(session, now)
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
        entries = self._realm.rules.entries(ip)
        # "ROUTE messages follow if SD-WAN rules concern this address": the member has no older set to withdraw.
        told = messages(entries, session.extended) if entries else []
        return [
            Bind(session.connection, int(ip)),
            *welcome,
            *self._tell_behind(session),
            *(Send(session.connection, message) for message in told),
            *moved,
            self._first_line(session),
            *self._learn_name(session, now),
        ]

    def _first_line(self, session: Session) -> Log:
        """Of a member."""
        text = f"logged in as {session.ip}"
        if not session.came_by:
            return session.did("logged in", text)
        by = shown(session.came_by)
        return session.did("logged in", f"{text} by the password {by}", password=by)

    def _tell_behind(self, session: Session, before: Rules | None = None) -> list[Action]:
        """Tell a gateway what lies behind whom, unless it was told so before; tell one that was a gateway nothing."""
        rules = self._realm.rules
        is_gateway = bool(rules.lans(session.ip))
        was_gateway = before is not None and bool(before.lans(session.ip))
        if not self._tell_gateways or not session.extended or not (is_gateway or was_gateway):
            return []
        if was_gateway and is_gateway and before is not None and set(before.rules) == set(rules.rules):
            return []
        placements = rules.placements if is_gateway else ()
        has_keys = isinstance(session, KeyedSession)
        return [Send(session.connection, message) for message in behind_messages(placements, has_keys=has_keys)]

    def _learn_name(self, session: Session, now: float) -> list[Action]:
        if session.lease is None or session.hello is NO_HELLO:
            return []
        session.hello = self._realm.pool.leases.tell(session.lease, session.hello)
        return self._obey(session, now)

    def _make_way(self, now: float) -> list[Action]:
        """Reservations have changed."""
        members = [session for session in self._sessions.values() if session.is_member]
        return [action for session in members if session.is_member for action in self._obey(session, now)]

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

    def _traffic_of(self, session: Session) -> Traffic:
        """What its connection has carried by now, as far as that is known."""
        traffic = self._traffic(session.connection)
        return Traffic.unpacked(session.carried) if traffic is None else traffic

    def _forget(self, session: Session) -> None:
        """Called before session.end(), while a member is still counted as one."""
        self._members -= session.is_member
        if session.lease is not None:
            self._parting[session.connection] = session
        del self._sessions[session.connection]
        self._due.pop(session.connection, None)
        self._left.pop(session.connection, None)
        self._realm.pool.release(session.connection)

    def _set_deadline(self, connection: int, when: float) -> None:
        self._due[connection] = when
        heapq.heappush(self._deadlines, (when, connection))
