"""One connection's state machine, up to its log-in and behind it: a message comes in, actions go out.

                 VMAC, EXPTTUN (answered)
                     ┌────┐
                     ▼    │                  claimed(): free, or same VMAC
    opened ──────▶ GREETING ───AUTH──▶ CLAIMING ──────────────────────▶ MEMBER ──end(): replaced──▶ CLOSED
       its source ▲ │    │               │   │ waiting(): held             ▲
       fails too  │ ▼    │               │   └─────────────────────────▶ WAITING
       often     IN_LINE │               │                                 │  claimed(): holder silent or gone
       wrong hash or clock, replay, bad  │                                 │
       address, deadline, line or pool   │                                 │
       full, too many new devices        │                                 │
                         ▼               ▼                                 ▼
                    CLOSED ◀─────────────┴─refuse(): reserved, contested───┘  refuse(): holder answers

Rules:
 1. VMAC and EXPTTUN are optional and come before AUTH. An AUTH is never answered. The hash is checked first: only a
    peer that has a password learns why its log-in failed, and only with candy.2 (candy.protocol.closing has the
    codes). Any other failed log-in ends without a close frame. Of several passwords the first that a session proves is
    its own: the others count for nothing there, and an EXPTTUN is answered by it. While its source fails too often
    (candy.relay.guessing) a log-in waits in line before that, once, with all that it sends; its deadline stands still
    meanwhile.
 2. The first right AUTH of a connection stands; later AUTH, VMAC and EXPTTUN are dropped and counted.
 3. A session decides what concerns its member alone, and stops at CLAIMING, which received() tells the network. Whether
    the address is free, and all that takes time, concerns others too: the network decides it, and calls claimed(),
    waiting(), refuse() or end().
 4. `state` changes in this file alone.

Nothing here waits, reads a clock or draws a random number by itself; `now` is monotonic seconds, `wall` Unix
seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from math import inf
from sys import intern
from typing import Literal

from candy.errors import PoolFull, WireError
from candy.protocol import auth, wire
from candy.protocol.actions import Close, Drop, Log, Ping, Secure, Send
from candy.protocol.addresses import is_unicast, source_of
from candy.protocol.closing import CloseCode, without_extension
from candy.protocol.hello import Hello
from candy.protocol.wire import DropReason
from candy.relay import lines
from candy.relay.leases import NO_HELLO, NO_TRAFFIC_PACKED, Lease, shown_vmac
from candy.relay.passwords import Password, Passwords
from candy.relay.realm import Realm
from candy.relay.replays import DIGEST_LIMIT

_NEVER = -inf
"""One number for all sessions."""

COPIES_PER_S = 200
"""Messages that one member may cause in the long run by sending to all others: each is a call from Python."""
COPIES_AHEAD_S = 5.0
"""How far a member may be ahead of that rate."""
ADMITTED = "admitted"
UNTOLD = "authentication failed"
"""The reason of a refusal without a close frame, so that nobody gets to see it."""
BROADCAST_LIMIT = "broadcast_limit"
"""The name under which the engine counts packets beyond such an allowance, and Python messages."""
HELD_MAX = 4
"""Messages that are kept for a session in line: VMAC, EXPTTUN and AUTH, and one more."""
EVENTS = "events"
"""The name under which the engine counts messages of one member that find no room, and Python those beyond HELD_MAX."""

Hashed = wire.Vmac | wire.Expttun | wire.Auth


@dataclass(frozen=True, slots=True)
class Bind:
    """The connection is authenticated: have the engine route `ip`, an integer, to it."""

    connection: int
    ip: int


@dataclass(frozen=True, slots=True)
class Unbind:
    """Take the connection's address away."""

    connection: int


@dataclass(frozen=True, slots=True)
class Record:
    """Have the store write what is new, and say whether it did: Network.recorded()."""

    connection: int


Action = Send | Bind | Unbind | Ping | Close | Drop | Log | Secure | Record
Judge = Callable[[float, int], list[Action]]
"""Of a message that may have to wait for its turn: `now`, `wall` ─▶ what follows."""


class State(Enum):
    """Where a session is; the picture is at the top of this file."""

    GREETING = "greeting"
    IN_LINE = "in line"
    CLAIMING = "claiming"
    WAITING = "waiting"
    RECORDING = "recording"
    """With a key: what it was let in by is being written down."""
    ANSWERED = "answered"
    """With a key: it has yet to confirm the answer."""
    APPROVING = "approving"
    """With a key: it waits for the operator."""
    MEMBER = "member"
    CLOSED = "closed"


class Session:
    """One connection, from its opening to its end. Small, because there is one per member.

    Args:
        realm: shared with the network's other sessions.
        connection: the engine's number.
        source: the peer's IP address as text.
        extended: candy.2 was agreed on.
        now: when it was opened.
        instance: what its program has for a number of its own; 0: none.
    """

    __slots__ = (
        "_copies_until",
        "_counted_as",
        "_granted",
        "_had_turn",
        "_held",
        "_ip",
        "_realm",
        "carried",
        "connection",
        "extended",
        "hello",
        "instance",
        "lease",
        "password",
        "since",
        "source",
        "state",
        "turn",
        "vmac",
    )

    def __init__(
        self, realm: Realm, connection: int, source: str, extended: bool, now: float, instance: int = 0
    ) -> None:
        self._realm = realm
        self._copies_until = _NEVER
        """The time until which its member has used its allowance of copies, at COPIES_PER_S."""
        self._counted_as = intern(source_of(source))
        """What all limits per source count it under."""
        self._had_turn = False
        """Whatever it sends is judged at once: a wrong hash ends it, so it has one guess a turn all the same."""
        self._held: tuple[Judge, ...] = ()
        """Kept until its turn."""
        self.connection = connection
        self.source = intern(source)
        self.extended = extended
        self.instance = instance
        self.state = State.GREETING
        self.vmac: bytes | None = None
        self._ip = 0
        self.password: Password | None = None
        """The one that it has proven."""
        self._granted: int | None = None
        """The address that it was granted last; behind its AUTH None if that is for another."""
        self.hello: Hello = NO_HELLO
        """What its client last said of itself."""
        self.lease: Lease | None = None
        """A member's, unless it has no VMAC."""
        self.carried = NO_TRAFFIC_PACKED
        """What its connection has carried, up to the last report; Traffic.unpacked() reads it."""
        self.since = now
        """When it became a member; before that, when it was opened."""
        self.turn = _NEVER
        """In line: when its turn comes."""

    @property
    def ip(self) -> IPv4Address:
        """The address that its AUTH claimed, before that 0.0.0.0. Kept as a number, which its lease and the pool
        share."""
        return IPv4Address(self._ip)

    @property
    def was_granted(self) -> bool:
        """It has the address that it was granted; before its AUTH: it was granted one."""
        return self._granted is not None

    @property
    def counted_as(self) -> str:
        """What all limits per source count it under."""
        return self._counted_as

    @property
    def is_member(self) -> bool:
        return self.state is State.MEMBER

    @property
    def is_confirmed(self) -> bool:
        """Nothing stands between it and the address that it claims. One with a key has to show first that it can read
        the answer (candy.relay.keyed)."""
        return True

    @property
    def came_by(self) -> str:
        """The name of its password, or of what else let it in."""
        return "" if self.password is None else self.password.name

    @property
    def is_invited(self) -> bool:
        """That is the name of an invitation."""
        return False

    @property
    def is_in_line(self) -> bool:
        return self.state is State.IN_LINE

    @property
    def is_waiting(self) -> bool:
        return self.state is State.WAITING

    def received(self, payload: bytes, now: float, wall: int) -> tuple[list[Action], bool, bool]:
        """Act on one message.

        Returns:
            actions; whether the session claims its address now, on which the network decides; whether the session has
            ended, so that the network forgets it.
        """
        return self.outcome(self._act_on(payload, now, wall))

    def called(self, now: float, wall: int) -> tuple[list[Action], bool, bool]:
        """Its turn in line has come: act on what it sent so far, with received()'s result."""
        self._had_turn = True
        self.state = State.GREETING
        held, self._held = self._held, ()
        actions: list[Action] = []
        for judge in held:
            if self.state is not State.CLOSED:
                actions += judge(now, wall)
        return self.outcome(actions)

    def claimed(self, lease: Lease | None, now: float) -> None:
        """The network gives the session the address that it claimed."""
        self.state = State.MEMBER
        self.since = now
        self.lease = lease
        if lease is not None:
            # Equal, and in memory once.
            self.vmac = lease.vmac
            self._ip = lease.ip
        self._realm.logins[ADMITTED] += 1

    def waiting(self) -> None:
        """The network probes the holder of the address first."""
        self.state = State.WAITING

    def end(self, code: CloseCode | None, reason: str) -> list[Action]:
        """Close the connection; a member's address is taken away first.

        Args:
            code: for a peer with candy.2; any other gets what stands for it, and so perhaps nothing.
            reason: what its user is told, in ASCII and at most 123 bytes.
        """
        unbind: list[Action] = [Unbind(self.connection)] if self.is_member else []
        self.state = State.CLOSED
        known = code if self.extended else without_extension(code)
        return [*unbind, Close(self.connection, known, reason if known is not None or code is None else UNTOLD)]

    def refuse(
        self,
        why: str,
        *,
        kind: str = "refused",
        code: CloseCode | None = None,
        told: str = UNTOLD,
    ) -> list[Action]:
        """End a failed log-in: a line in the log, and for a peer that has the password a reason.

        Args:
            why, kind: for the log; `kind` also for the counters.
            code, told: end()'s `code` and `reason`.
        """
        self._realm.logins[kind] += 1
        return [self.warning(kind, f"refused: {why}"), *self.end(code, told)]

    def warning(self, kind: str, text: str) -> Log:
        """A line that its peer can cause at will."""
        return self.line("warning", text, kind, self._counted_as)

    def did(self, kind: str, text: str, level: Literal["info", "warning"] = "info", **facts: str | float) -> Log:
        """A line about what its member does, which it can do at will."""
        device = shown_vmac(self.vmac) if self.vmac is not None else self._counted_as
        return self.line(level, text, kind, device, of_member=True, **facts)

    def line(
        self,
        level: Literal["debug", "info", "warning"],
        text: str,
        kind: str | None = None,
        counted_as: str = "",
        *,
        of_member: bool = False,
        **facts: str | float,
    ) -> Log:
        """A line about its member; of a kind if it is limited."""
        return lines.line(
            level,
            text,
            source=self.source,
            ip=self.ip,
            vmac=self.vmac,
            name=self.hello.name,
            kind=kind,
            counted_as=counted_as,
            of_member=of_member,
            facts=facts,
        )

    def outcome(self, actions: list[Action]) -> tuple[list[Action], bool, bool]:
        """As received() returns it."""
        return actions, self.state is State.CLAIMING, self.state is State.CLOSED

    def _act_on(self, payload: bytes, now: float, wall: int) -> list[Action]:
        try:
            message = wire.decode(payload)
        except WireError as error:
            return [Drop(self.connection, error.reason)]
        match message:
            case wire.Vmac() | wire.Expttun() | wire.Auth():
                is_trusted = self._realm.devices.is_trusted(self._device(message))
                return self._in_turn(partial(self._judge, message), is_trusted, now, wall)
            case wire.Udp4Conn() | wire.Discovery() | wire.General():
                return self._on_relayed(message, payload, now)
            case wire.Route() | wire.Behind():
                return [Drop(self.connection, DropReason.UNEXPECTED_KIND)]

    def _in_turn(self, judge: Judge, is_trusted: bool, now: float, wall: int) -> list[Action]:
        """Judge a message, or keep it until its turn; `is_trusted`: it need not wait."""
        if self.is_in_line:
            if len(self._held) == HELD_MAX:
                return [Drop(self.connection, EVENTS)]
            self._held += (judge,)
            return []
        if self.state is State.GREETING and not self._had_turn and not is_trusted:
            turn = self._realm.failures.turn(self._counted_as, now)
            if turn is None:
                return self.refuse("too many log-ins from its address wait in line", kind="line")
            if turn > now:
                self.state = State.IN_LINE
                self.turn = turn
                self._held = (judge,)
                return []
        return judge(now, wall)

    def _device(self, message: Hashed) -> bytes | None:
        """The VMAC that it is under, proven or not."""
        return message.identity if isinstance(message, wire.Vmac) else self.vmac

    def _judge(self, message: Hashed, now: float, wall: int) -> list[Action]:
        match message:
            case wire.Vmac():
                return self._on_vmac(message, now, wall)
            case wire.Expttun():
                return self._on_expttun(message, now, wall)
            case wire.Auth():
                return self._on_auth(message, now, wall)

    def _on_vmac(self, message: wire.Vmac, now: float, wall: int) -> list[Action]:
        if self.state is not State.GREETING:
            return [Drop(self.connection, DropReason.VMAC_AFTER_AUTH)]
        refusal = self._verify(
            message, lambda secret: auth.vmac_digest(secret, message.vmac, message.timestamp), now, wall
        )
        if not refusal:
            self.vmac = message.identity
        return refusal

    def _on_expttun(self, message: wire.Expttun, now: float, wall: int) -> list[Action]:
        if self.state is not State.GREETING:
            return [Drop(self.connection, DropReason.EXPTTUN_AFTER_AUTH)]
        realm = self._realm
        refusal = self._verify(message, lambda secret: auth.expttun_digest(secret, message.timestamp), now, wall)
        if refusal:
            return refusal
        assert self.password is not None
        may_keep = realm.sightings.may_keep(message.digest, message.timestamp, self._counted_as, now)
        try:
            granted = realm.pool.ask(
                message.address.ip,
                self.vmac,
                self.connection,
                self._counted_as,
                now,
                may_keep=may_keep,
                within=self.password.addresses,
            )
        except PoolFull as full:
            realm.logins["no_address"] += 1
            log = self.warning("no address", f"no address granted: {full}")
            code = CloseCode.NO_POOL if realm.pool.network is None else CloseCode.POOL_FULL
            return [log, *self.end(code, str(full))]
        answer = wire.Expttun(wall, granted, auth.expttun_digest(self.password.secret, wall))
        realm.sightings.answered(answer.digest, wall)
        self._granted = int(granted.ip)
        return [
            Send(self.connection, answer.encode(wire.draw_confusion(realm.randbytes))),
            self.line("debug", f"granted {granted}"),
        ]

    def _on_auth(self, message: wire.Auth, now: float, wall: int) -> list[Action]:
        if self.state is not State.GREETING:
            return [Drop(self.connection, DropReason.SECOND_AUTH)]
        realm = self._realm
        ip = message.ip
        refusal = self._verify(message, lambda secret: auth.auth_digest(secret, ip, message.timestamp), now, wall)
        if refusal:
            return refusal
        if not realm.replays.is_first(message.digest, message.timestamp, wall):
            if message.timestamp <= realm.replays.forgotten:
                return self.refuse(
                    f"AUTH for {ip} may be a replay: it is of a time whose log-ins are forgotten, because the clock "
                    f"was set back, or more than {DIGEST_LIMIT} came since",
                    kind="replay",
                )
            return self.refuse(f"AUTH for {ip} is a replay", kind="replay")
        assert self.password is not None
        refusal = self._judge_address(ip, self.password.addresses, now)
        if refusal:
            return refusal
        # What was offered was for its AUTH, and this is the AUTH, for any address.
        realm.pool.release(self.connection)
        self._ip = int(ip)
        self._granted = self._ip if self._granted == self._ip else None
        self.state = State.CLAIMING
        return []

    def _judge_address(self, ip: IPv4Address, within: IPv4Network | None, now: float) -> list[Action]:
        """The refusal of an address that no member has, or not this one, or of one more new device."""
        realm = self._realm
        if not is_unicast(ip):
            why = f"{ip} is not an address that a member can have"
            return self.refuse(why, code=CloseCode.OUTSIDE_POOL, told=why)
        if not (realm.allow_outside_pool or realm.pool.contains(ip)):
            why = f"{ip} is not a member's address in the pool {realm.pool.network}"
            return self.refuse(
                f"{why}; --allow-outside-pool admits such addresses", code=CloseCode.OUTSIDE_POOL, told=why
            )
        if within is not None and ip not in within:
            why = f"{ip} is not one of {within}, to which this member is bound"
            return self.refuse(why, code=CloseCode.OUTSIDE_POOL, told=why)
        if not realm.devices.let_in(self.vmac, ip, self._counted_as, now):
            count = f"{realm.devices.new_per_minute} new devices came from its address within a minute"
            realm.logins["new_devices"] += 1
            log = self.warning("new devices", f"not let in as {ip}: {count}; --new-devices-per-minute allows more")
            return [log, *self.end(CloseCode.TRY_AGAIN_LATER, "too many new devices: try again in a minute")]
        return []

    def _note_failure(self, now: float) -> list[Action]:
        """Nothing was proven: count it for the source."""
        if not self._realm.failures.failed(self._counted_as, now):
            return []
        many = "too many wrong passwords within a minute: log-ins from its address wait in line from now on"
        return [self.warning("many passwords", many)]

    def _verify(self, message: Hashed, digest_of: Callable[[bytes], bytes], now: float, wall: int) -> list[Action]:
        """The refusal of a hashed message; empty when the hash is right and the timestamp timely.

        Args:
            digest_of: what the message's digest has to be, by the password's raw bytes.
        """
        realm = self._realm
        name = type(message).__name__.upper()
        passwords = realm.passwords if self.password is None else Passwords([self.password])
        proven = passwords.prove(digest_of, message.digest)
        if proven is None or not realm.passwords.holds(proven, wall):
            why = "wrong password" if proven is None else f"password that holds no more ({proven.name or 'nameless'})"
            refusal = self.refuse(f"{why} in {name}", kind="password")
            refusal += self._note_failure(now)
            if realm.devices.failed(self._device(message), now):
                many = "too many wrong passwords within an hour under one VMAC: it waits in line from now on, too"
                refusal.append(self.warning("many passwords of a device", many))
            return refusal
        if not auth.is_timely(message.timestamp, wall, realm.tolerance):
            skew, tolerance = message.timestamp - wall, realm.tolerance
            direction = "ahead of" if skew > 0 else "behind"
            return self.refuse(
                f"{name} is {skew:+d} s off this clock, {tolerance} s are tolerated",
                kind="clock",
                code=CloseCode.CLOCK_OFF,
                told=f"the member's clock is {abs(skew)} s {direction} the relay's, which tolerates {tolerance} s",
            )
        self.password = proven
        return []

    def _on_relayed(
        self, message: wire.Udp4Conn | wire.Discovery | wire.General, payload: bytes, now: float
    ) -> list[Action]:
        # The engine relays what a member says. This came before it had heard that its sender is one.
        if not self.is_member:
            return [Drop(self.connection, DropReason.NOT_AUTHENTICATED)]
        if len(payload) > wire.LEGACY_PAYLOAD:
            return [Drop(self.connection, DropReason.TOO_LARGE)]
        if message.src != self.ip:
            return [Drop(self.connection, DropReason.SPOOFED_SOURCE)]
        realm = self._realm
        if message.dst == wire.BROADCAST and realm.forward_broadcast and not isinstance(message, wire.Udp4Conn):
            return self._to_all_others(payload, now)
        receiver = realm.pool.holder(message.dst)
        # The relay's own interface takes no messages, because it needs no direct links.
        if receiver is None or receiver == realm.host:
            return [Drop(self.connection, DropReason.NO_ROUTE)]
        return [Send(receiver, payload)]

    def _to_all_others(self, payload: bytes, now: float) -> list[Action]:
        if self._copies_until > now + COPIES_AHEAD_S:
            return [Drop(self.connection, BROADCAST_LIMIT)]
        not_to = (self.connection, self._realm.host)
        copies: list[Action] = [Send(other, payload) for other in self._realm.pool.holders() if other not in not_to]
        # Counted afterwards, so that a message to all others is possible in a network of any size.
        self._copies_until = max(self._copies_until, now) + len(copies) / COPIES_PER_S
        return copies
