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
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from math import inf

from candy.errors import WireError
from candy.protocol import control
from candy.protocol.actions import Drop, Log, Send
from candy.protocol.addresses import ipv4
from candy.protocol.auth import TOLERANCE_S
from candy.protocol.closing import CloseCode
from candy.protocol.hello import Hello
from candy.protocol.keys import RelayKey, Succession
from candy.protocol.login import Tells
from candy.protocol.noise import KEY_BYTES
from candy.protocol.wire import DropReason
from candy.relay.devices import Devices
from candy.relay.enrolment import Admit, Device, Enrolment, Standing
from candy.relay.guessing import FailureLimiter
from candy.relay.hashed import HashedSession
from candy.relay.keyed import KeyedSession
from candy.relay.leases import LEASE_DAYS, Traffic
from candy.relay.limits import Limits, OwnLimits
from candy.relay.login import LogIn
from candy.relay.passwords import Ends, Passwords
from candy.relay.pool import Pool
from candy.relay.realm import Realm
from candy.relay.recording import Outcome, Sharing
from candy.relay.register import Register
from candy.relay.replays import ReplayMemory, Sightings
from candy.relay.reservations import Reservation
from candy.relay.roster import Roster
from candy.relay.rules import Rules
from candy.relay.session import Action, Bind, State
from candy.sealing.joined import Joined, Own

PROBE_TIMEOUT_S = 3.0


class Network(Roster):
    """The sessions of one network.

    Args:
        passwords: by which members log in.
        pool: None: no addresses are granted, and any unicast address may be claimed.
        randbytes: returns that many random bytes.
        failures: may be shared between networks.
        enrolment: of devices with keys; None: nobody logs in by one.
        legacy: old clients may join, and members without a key.
        direct: members may reach each other without the relay.
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
        limits: of each member.
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
        legacy: bool = True,
        direct: bool = True,
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
        limits: Limits | None = None,
        traffic: Callable[[int], Traffic | None] = lambda connection: None,
    ) -> None:
        pool = pool if pool is not None else Pool(None)
        realm = Realm(
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
            tells=Tells(0),
            limits=limits if limits is not None else Limits(),
        )
        pool.is_revoked = realm.enrolment.is_revoked
        super().__init__(
            realm,
            tell_gateways=tell_gateways,
            max_members=max_members,
            authentication_timeout=authentication_timeout,
            probe_timeout=probe_timeout,
            traffic=traffic,
        )
        self.register = Register(self._realm)
        """What it remembers."""
        self.register.set_lease_days(lease_days)
        pool.configure(reservations)
        self._ends = Ends(passwords)
        self.checks_source = tell_gateways
        """Whether a source has to be its sender's."""
        self.set_direct(direct)
        self.set_legacy(legacy, 0.0)

    def host(self, connection: int, ip: IPv4Address) -> list[Action]:
        """Give the relay's own interface its address, before any member logs in."""
        self._realm.host = connection
        self._realm.pool.claim(ip, None, connection)
        return [Bind(connection, int(ip))]

    def seal_own(self, own: Own) -> Joined:
        """That interface seals from now on as this says, as others do; returns what a log-in would have given it."""
        host, realm = self._realm.host, self._realm
        assert host is not None
        return Joined(
            connection=host,
            address=realm.pool.address_of(host),
            lease=self._telling.seal_own(own),
            network=realm.enrolment.network,
            secret=None,
            checks_source=self.checks_source,
        )

    def asked(self, ask: control.Ask) -> list[Action]:
        """That interface asks about others: as within a CONTROL."""
        return [*self._telling.answer_own(ask)]

    def opened(
        self, connection: int, source: str, now: float, *, extended: bool = False, instance: int = 0
    ) -> list[Action]:
        """A connection was upgraded.

        Args:
            source: its peer's IP address as text.
            extended: it has candy.2.
            instance: what its program has for a number of its own; 0: none.
        """
        self._sessions[connection] = HashedSession(self._realm, connection, source, extended, now, instance)
        self._set_deadline(connection, now + self._authentication_timeout)
        return []

    def opened_with_keys(self, connection: int, source: str, now: float, log_in: LogIn) -> list[Action]:
        """A connection was upgraded to candy.3; `log_in` has its headers."""
        self._sessions[connection] = KeyedSession(self._realm, connection, source, now, log_in)
        self._set_deadline(connection, now + self._authentication_timeout)
        return []

    def recorded(self, connection: int, outcome: Outcome, now: float, wall: int) -> list[Action]:
        """What a Record asked for is written down, or can't be."""
        self._realm.pool.leases.wall = wall
        session = self._sessions.get(connection)
        if session is None or session.state is not State.RECORDING:
            return []
        return self._go_on(session, session.outcome(session.recorded(outcome, now, wall)), now)

    def share(self, shared: Sharing) -> None:
        """Serve this network together with other relays, before any member comes."""
        self._realm.shared = shared
        self._realm.pool.is_elsewhere = lambda ip: shared.elsewhere(ip) is not None

    def lost(self, ip: int, relay: str, now: float) -> list[Action]:
        """Another relay has the address by a later grant: a member that has it here has it no more."""
        session = self.member_at(ipv4(ip))
        if session is None:
            return []
        told = f"{session.ip} was taken over at another relay"
        return self._send_away(session, CloseCode.REPLACED, told, now)

    def placed(self, ip: int) -> list[Action]:
        """Another relay has a member at this address, or has it no more: who wants to know is told."""
        self._telling.changed(ip)
        return []

    def freed(self, ip: int, now: float) -> list[Action]:
        """Another relay has no member at this address any more: a session that waits for it gets it."""
        return self._leave_address(ipv4(ip), now)

    def probed(self, ip: int, now: float, *, is_there: bool) -> list[Action]:
        """What another relay says of its member at this address (Sharing.ask())."""
        return self._carry_out(self._claims.probed(ipv4(ip), is_there=is_there), now)

    def probe(self, ip: int, answered: Callable[[], None]) -> tuple[bytes, list[Action]]:
        """Another relay asks whether the member at this address is still there: the payload of the PING that asks it,
        empty if there is none. `answered` is called with its PONG. Call probe_over() when its time is over."""
        holder = self.member_at(ipv4(ip))
        if holder is None:
            return b"", []
        return self._claims.ask(holder, answered)

    def probe_over(self, payload: bytes, ip: int, relay: str, now: float, *, is_there: bool) -> list[Action]:
        """It has answered, or its time is over: then it loses its address to a member of that relay's."""
        holder = self._claims.forget(payload)
        if is_there or holder is None or self.member_at(ipv4(ip)) is not holder:
            return []
        return [*self._carry_out(self._claims.silent(holder, relay), now), *self._leave_address(ipv4(ip), now)]

    @property
    def probe_timeout(self) -> float:
        """Seconds that a member has to answer a probe."""
        return self._claims.probe_timeout

    def learned(self, device: Device, now: float, wall: int) -> list[Action]:
        """Another relay has written this of a device."""
        before = self._realm.enrolment.get(device.key)
        self._realm.enrolment.learn(device)
        if device.standing is Standing.REVOKED and (before is None or before.standing is not Standing.REVOKED):
            return self.revoke(device.key, now, wall)
        if before is not None and before.standing is Standing.WAITING and device.standing is Standing.ADMITTED:
            return self.approve(device.key, now, wall)
        return []

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

    def revoke(self, key: bytes, now: float, wall: int) -> list[Action]:
        """No credential lets this device in from now on, by command, its connections end, and all members with a key
        are told."""
        self._realm.enrolment.revoke(key, wall)
        told = "this device was revoked"
        actions: list[Action] = []
        for session in self._of_device(key):
            actions += self._send_away(session, CloseCode.DEVICE_REVOKED, told, now)
        return [*actions, *self._telling.revoked(key)]

    def set_relays(self, urls: Sequence[str]) -> list[Action]:
        """By these URLs members reach the network's relays, this one among them: they are told."""
        self._telling.set_relays(urls)
        return []

    def renew(self, key: RelayKey, succession: Succession | None = None) -> list[Action]:
        """Log-ins are by this key of the relay's from now on, and all who have a key are told; with `succession` the
        network has another one, too."""
        told = [] if succession is None else [control.NetworkKey(succession).encode()]
        self._realm.enrolment.renew(key)
        return [*self._telling.to_all([*told, control.RelayKey(key).encode()])]

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

    def controlled(self, connection: int, message: bytes, now: float, wall: int) -> list[Action]:
        """The same within a CONTROL, opened, of one that has logged in with a key."""
        self._realm.pool.leases.wall = wall
        session = self._sessions.get(connection)
        if not isinstance(session, KeyedSession):
            return []
        try:
            decoded = control.decode(message)
        except WireError as error:
            return [Drop(connection, error.reason)]
        match decoded:
            case control.Ask() if session.is_member:
                return [*self._telling.answer(session, decoded, now)]
            case control.Ask() | control.Confirm():
                return self._go_on(session, session.controlled(decoded, now), now)
        return [Drop(connection, DropReason.UNEXPECTED_KIND)]

    def noticed(self, connection: int, message: bytes) -> list[Action]:
        """What the engine has a member told within a CONTROL: NOT_SEALING or COMMIT."""
        session = self._sessions.get(connection)
        return [Send(connection, message)] if isinstance(session, KeyedSession) and session.is_member else []

    def broken(self, connection: int, now: float) -> list[Action]:
        """Its CONTROL is not the next, or does not open."""
        drop, session = Drop(connection, DropReason.BAD_CONTROL), self._sessions.get(connection)
        if session is None:
            return [drop]
        told = "a sealed message was changed, left out or repeated on the way"
        return [drop, *self._send_away(session, CloseCode.BROKEN_CONTROL, told, now)]

    def ponged(self, connection: int, payload: bytes, now: float, wall: int) -> list[Action]:
        """A PONG; only one that answers a probe matters here."""
        self._realm.pool.leases.wall = wall
        holder = self._sessions.get(connection)
        return [] if holder is None else self._carry_out(self._claims.answered(holder, payload), now)

    def pinged(self, connection: int, payload: bytes, now: float, wall: int) -> list[Action]:
        """The first PING behind a message, which may say who it is: one without a key, for a PING is in the clear."""
        self._realm.pool.leases.wall = wall
        session = self._sessions.get(connection)
        hello = Hello.parse(payload)
        if session is None or hello is None or isinstance(session, KeyedSession):
            return []
        session.hello = hello
        return self._learn_name(session, now)

    def carried(self, connection: int, traffic: Traffic, wall: int) -> list[Action]:
        """What a connection has carried from its beginning on; told now and then, while it is there."""
        self._realm.pool.leases.wall = wall
        if (session := self._sessions.get(connection)) is None:
            return []
        self._carry(session, traffic)
        return self._limit(session) if session.is_member else []

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
        actions += self._telling.catch_up(now)
        while (when := self._next_due()) is not None and when <= now:
            session = self._sessions[heapq.heappop(self._deadlines)[1]]
            if session.is_in_line:
                self._set_deadline(session.connection, now + self._left.pop(session.connection))
                actions += self._go_on(session, session.called(now, wall), now)
            elif session.is_waiting:
                actions += self._carry_out(self._claims.unanswered(session), now)
                if session.is_waiting:
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
            actions += self._telling.follow_behind(session, before)
        for session in members:
            routes = self._telling.follow_routes(session, before)
            if routes is None:
                closed += 1
                actions += self._send_away(session, CloseCode.SERVICE_RESTART, "the routes have changed", now)
            else:
                told += bool(routes)
                actions += routes
        log = f"{len(rules.rules)} SD-WAN rules from now on; members told: {told}, closed to come back: {closed}"
        return [*actions, Log("info", log)]

    def reserve(self, reservation: Reservation, now: float) -> list[Action]:
        """Reserve an address by command, from now on; see Reservation.of() and the rules at the top.

        Raises:
            RequestError: the address is reserved in the configuration, the relay's own, or none that a member can have.
        """
        self.register.reserve(reservation)
        return self._make_way(now)

    def reserved(self, ip: int, reservation: Reservation | None, now: float) -> list[Action]:
        """A command to another relay has reserved this address, or released it."""
        self._realm.pool.learn(ip, reservation)
        return self._make_way(now) if reservation is not None else []

    def set_reservations(self, reservations: Iterable[Reservation], now: float) -> list[Action]:
        """What the configuration reserves, instead of what it reserved before."""
        self._realm.pool.configure(reservations)
        return self._make_way(now)

    def set_limits(self, limits: Limits, wall: int) -> list[Action]:
        """What each member may carry from now on, as far as its device has no limits of its own."""
        self._realm.pool.leases.wall = wall
        self._realm.limits = limits
        return self._limit_all()

    def limit(self, ip: IPv4Address, own: OwnLimits, wall: int, *, is_forgiven: bool = False) -> list[Action]:
        """What the device with the lease of this address may carry from now on, by command.

        Raises:
            RequestError: the address has no lease.
        """
        leases = self._realm.pool.leases
        leases.wall = wall
        self.register.limit(ip, own, is_forgiven=is_forgiven)
        session = self.member_at(ip)
        return [] if session is None or not session.is_member else self._limit(session)

    def exchanged(self, wall: int) -> list[Action]:
        """Other relays have said what devices have carried there."""
        self._realm.pool.leases.wall = wall
        return self._limit_all()

    def forgiven(self, ip: int, holder: bytes, wall: int) -> list[Action]:
        """A command to another relay: what this device has carried in this month counts no more."""
        lease = self._realm.pool.leases.get(ip)
        if lease is None or lease.vmac != holder:
            return []
        return self.limit(ipv4(ip), lease.own, wall, is_forgiven=True)

    @property
    def has_quotas(self) -> bool:
        """Somebody has one, so that it is worth to look often at what is carried."""
        return bool(self._realm.limits.quota) or any(lease.own.quota for lease in self._realm.pool.leases)

    @property
    def limits(self) -> Limits:
        """Of each member, as far as its device has none of its own."""
        return self._realm.limits

    def kick(self, connection: int, now: float) -> list[Action]:
        """End a member's connection, for an operator. It may make another one."""
        told = "an operator of the relay ended the connection"
        return self._send_away(self._sessions[connection], CloseCode.POLICY_VIOLATION, told, now)

    def set_passwords(self, passwords: Passwords, now: float, wall: int) -> list[Action]:
        """Believe these passwords instead of those before. Call set_legacy() afterwards."""
        self._realm.passwords = passwords
        self._realm.circles.keep(passwords)
        self._ends = Ends(passwords)
        return self._look_at_passwords(now, wall)

    def set_legacy(self, legacy: bool, now: float) -> list[Action]:
        """Whether old clients may join; those that are there go, if not. Call it when passwords have changed, too."""
        realm = self._realm
        tells = realm.tells & Tells.NO_DIRECT_LINKS
        if not self.checks_source:
            tells |= Tells.CHECKS_NO_SOURCE
        if legacy:
            tells |= Tells.ADMITS_OLD
            if realm.enrolment.admit is not Admit.INVITE and realm.passwords.are_shared:
                tells |= Tells.SHARES_PASSWORD
        realm.tells = tells
        if legacy:
            return self._regroup()
        old = [session for session in self._sessions.values() if not isinstance(session, KeyedSession)]
        told = "the network admits no old clients any more: update candy"
        return [*self._send_all_away(old, CloseCode.POLICY_VIOLATION, told, now), *self._regroup()]

    def set_direct(self, direct: bool) -> list[Action]:
        """Whether members may reach each other without the relay. They are told with their next log-in, but what they
        tell each other of their endpoints passes no more, or again, at once."""
        tells = self._realm.tells & ~Tells.NO_DIRECT_LINKS
        self._realm.tells = tells if direct else tells | Tells.NO_DIRECT_LINKS
        return self._regroup()

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

    def next_deadline(self) -> float | None:
        """When `expired` has to be called next, in the seconds of `now`; None for never."""
        when = min(self._ends.due, self._telling.due, inf if (due := self._next_due()) is None else due)
        return None if when == inf else when

    def _make_way(self, now: float) -> list[Action]:
        """Reservations have changed."""
        members = [session for session in self._sessions.values() if session.is_member]
        return [action for session in members if session.is_member for action in self._obey(session, now)]
