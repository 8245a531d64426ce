"""One member's state machine: a message comes in, actions go out.

                 VMAC, EXPTTUN (answered)
                     ┌────┐
                     ▼    │
    opened ──────▶ GREETING ───AUTH──▶ CLAIMING ──free, or same VMAC──▶ MEMBER ──replaced──▶ CLOSED
                      │                  │   │                             ▲
       wrong hash or clock, replay,      │   │ held                        │ holder silent or gone
       bad address, deadline, pool full  │   └─────────────────────────▶ WAITING
                      ▼                  ▼                                 │
                    CLOSED ◀─────────────┴──reserved, contested────────────┘ holder answers

Rules:
 1. VMAC and EXPTTUN are optional and come before AUTH. An AUTH is never answered; whoever fails to
    authenticate is closed without a word. The hash is looked at first: only who has the password is told
    apart any further, in the log alone.
 2. The first right AUTH of a connection stands; later AUTH, VMAC and EXPTTUN are dropped and counted.
 3. A session decides what concerns its member alone, and stops at CLAIMING. Whether the address can be had,
    and all that takes time, concerns others too: that is the network's part.

Nothing here waits, reads a clock or draws a random number by itself; `now` is monotonic seconds, `wall` Unix
seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from math import inf
from typing import Literal

from candy.errors import PoolFull, WireError
from candy.protocol import auth, wire
from candy.protocol.wire import DropReason
from candy.relay.pool import Pool, is_unicast
from candy.relay.rules import Routes

_UNSPECIFIED = IPv4Address("0.0.0.0")

CLOSE_ROUTES_CHANGED = 1012
"""Close code ("service restart") for a member that can be told a new set of routes on a new connection alone."""
CLOSE_TRY_LATER = 1013
"""Close code for whom there is no address to grant, or no room."""
CLOSE_REPLACED = 4001
"""Close code, from the private range, for a member whose address another connection took over."""

COPIES_PER_S = 200
"""Messages that one member may cause in the long run by sending to everybody: each is a call from Python."""
COPIES_AHEAD_S = 5.0
"""How far it may be ahead of that rate."""
BROADCAST_LIMIT = "broadcast_limit"
"""The engine's counter of packets that exceed such an allowance, and ours of messages."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send one binary message."""

    connection: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Bind:
    """The connection is authenticated: map `ip`, as an integer, to it."""

    connection: int
    ip: int


@dataclass(frozen=True, slots=True)
class AllowSources:
    """The member may send from these networks too, and from none of those named before."""

    connection: int
    lans: tuple[IPv4Network, ...]


@dataclass(frozen=True, slots=True)
class Unbind:
    """Take the connection's address away."""

    connection: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Send a PING; its PONG is to be reported by `Network.ponged`."""

    connection: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection in `delay` seconds; `code` None means without a word, so `reason` is not sent."""

    connection: int
    code: int | None
    reason: str
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Drop:
    """Count a message that was not acted upon; `reason` is a DropReason."""

    connection: int
    reason: str


@dataclass(frozen=True, slots=True)
class Log:
    """Write a line to the log; the text names the source."""

    level: Literal["debug", "info", "warning"]
    text: str


Action = Send | Bind | AllowSources | Unbind | Ping | Close | Drop | Log


class State(Enum):
    """Where a session is; the picture is at the top of this file."""

    GREETING = "greeting"
    CLAIMING = "claiming"
    WAITING = "waiting"
    MEMBER = "member"
    CLOSED = "closed"


@dataclass(slots=True, kw_only=True)
class Realm:
    """What the sessions of one network share: its password and what it knows of all of them."""

    password: bytes
    pool: Pool
    replays: auth.ReplayMemory
    failures: auth.FailureLimiter
    randbytes: Callable[[int], bytes]
    tolerance: int
    allow_outside_pool: bool
    forward_broadcast: bool
    routes: Routes
    host: int | None = None
    """The relay's own interface in the network: a member that has a connection's number, but no session."""


class Session:
    """One connection, from its opening to its end. Small, for there are as many as members.

    `ip` is the address that its AUTH claimed, 0.0.0.0 while GREETING; `deadline` is the monotonic time at
    which the network has to act on it, infinite for a member; `extended` tells that candy.2 was agreed on.
    """

    __slots__ = ("_copies_until", "_realm", "connection", "deadline", "extended", "ip", "source", "state", "vmac")

    def __init__(self, realm: Realm, connection: int, source: str, extended: bool) -> None:
        self._realm = realm
        self._copies_until = -inf
        """When the copies that it caused are paid for, at COPIES_PER_S."""
        self.connection = connection
        self.source = source
        self.extended = extended
        self.deadline = inf
        self.state = State.GREETING
        self.vmac: bytes | None = None
        self.ip = _UNSPECIFIED

    def received(self, payload: bytes, now: float, wall: int) -> list[Action]:
        """Act on one message. Afterwards the state says whether a claim or an end is left to the network."""
        try:
            message = wire.decode(payload)
        except WireError as error:
            return [Drop(self.connection, error.reason)]
        match message:
            case wire.Vmac():
                return self._on_vmac(message, now, wall)
            case wire.Expttun():
                return self._on_expttun(message, now, wall)
            case wire.Auth():
                return self._on_auth(message, now, wall)
            case wire.Udp4Conn() | wire.Discovery() | wire.General():
                return self._on_relayed(message, payload, now)
            case wire.Route():
                return [Drop(self.connection, DropReason.UNEXPECTED_KIND)]

    def end(self, code: int | None, reason: str, delay: float = 0.0) -> list[Action]:
        """Close the connection, and take a member's address away first."""
        unbind: list[Action] = [Unbind(self.connection)] if self.state is State.MEMBER else []
        self.state = State.CLOSED
        return [*unbind, Close(self.connection, code, reason, delay)]

    def refuse(self, why: str, delay: float = 0.0) -> list[Action]:
        """End a failed authentication: a line in the log, not a word to the peer."""
        # Whoever has to be slowed down would fill the log as well.
        level: Literal["debug", "warning"] = "debug" if delay else "warning"
        return [Log(level, f"{self.source}: refused: {why}"), *self.end(None, "authentication failed", delay)]

    def _on_vmac(self, message: wire.Vmac, now: float, wall: int) -> list[Action]:
        if self.state is not State.GREETING:
            return [Drop(self.connection, DropReason.VMAC_AFTER_AUTH)]
        expected = auth.vmac_digest(self._realm.password, message.vmac, message.timestamp)
        refusal = self._verify("VMAC", expected, message.digest, message.timestamp, now, wall)
        if not refusal:
            self.vmac = message.identity
        return refusal

    def _on_expttun(self, message: wire.Expttun, now: float, wall: int) -> list[Action]:
        if self.state is not State.GREETING:
            return [Drop(self.connection, DropReason.EXPTTUN_AFTER_AUTH)]
        realm = self._realm
        expected = auth.expttun_digest(realm.password, message.timestamp)
        refusal = self._verify("EXPTTUN", expected, message.digest, message.timestamp, now, wall)
        if refusal:
            return refusal
        try:
            granted = realm.pool.ask(message.address.ip, self.vmac, self.connection)
        except PoolFull as full:
            log = Log("warning", f"{self.source}: no address granted: {full}")
            return [log, *self.end(CLOSE_TRY_LATER, str(full))]
        answer = wire.Expttun(wall, granted, auth.expttun_digest(realm.password, wall))
        return [
            Send(self.connection, answer.encode(wire.draw_confusion(realm.randbytes))),
            Log("debug", f"{self.source}: granted {granted}"),
        ]

    def _on_auth(self, message: wire.Auth, now: float, wall: int) -> list[Action]:
        if self.state is not State.GREETING:
            return [Drop(self.connection, DropReason.SECOND_AUTH)]
        realm = self._realm
        ip = message.ip
        expected = auth.auth_digest(realm.password, ip, message.timestamp)
        refusal = self._verify("AUTH", expected, message.digest, message.timestamp, now, wall)
        if refusal:
            return refusal
        if not realm.replays.is_first(message.digest, message.timestamp, wall):
            return self.refuse(f"AUTH for {ip} is a replay")
        if not is_unicast(ip):
            return self.refuse(f"{ip} is not an address that a member can have")
        if not (realm.allow_outside_pool or realm.pool.contains(ip)):
            return self.refuse(
                f"{ip} is not a member's address in the pool {realm.pool.network}; "
                "--allow-outside-pool admits such addresses"
            )
        # "Reserved for that connection until its AUTH": this is it, whatever address it claims.
        realm.pool.release(self.connection)
        self.ip = ip
        self.state = State.CLAIMING
        return []

    def _verify(self, name: str, expected: bytes, digest: bytes, timestamp: int, now: float, wall: int) -> list[Action]:
        """The refusal of a hashed message, empty for one with the right hash and a timely timestamp."""
        if not auth.digest_matches(expected, digest):
            delay = self._realm.failures.failed(self.source, now)
            return self.refuse(f"wrong password in {name}", delay)
        if not auth.is_timely(timestamp, wall, self._realm.tolerance):
            skew = timestamp - wall
            return self.refuse(f"{name} is {skew:+d} s off this clock, {self._realm.tolerance} s are tolerated")
        return []

    def _on_relayed(
        self, message: wire.Udp4Conn | wire.Discovery | wire.General, payload: bytes, now: float
    ) -> list[Action]:
        if self.state is not State.MEMBER:
            return [Drop(self.connection, DropReason.NOT_AUTHENTICATED)]
        if len(payload) > wire.LEGACY_PAYLOAD:
            return [Drop(self.connection, DropReason.TOO_LARGE)]
        if message.src != self.ip:
            return [Drop(self.connection, DropReason.FOREIGN_SOURCE)]
        realm = self._realm
        if message.dst == wire.BROADCAST and realm.forward_broadcast and not isinstance(message, wire.Udp4Conn):
            return self._to_everybody(payload, now)
        receiver = realm.pool.holder(message.dst)
        # The relay's own interface has no use for messages: it needs no direct links.
        if receiver is None or receiver == realm.host:
            return [Drop(self.connection, DropReason.NO_SUCH_MEMBER)]
        return [Send(receiver, payload)]

    def _to_everybody(self, payload: bytes, now: float) -> list[Action]:
        if self._copies_until > now + COPIES_AHEAD_S:
            return [Drop(self.connection, BROADCAST_LIMIT)]
        not_to = (self.connection, self._realm.host)
        copies: list[Action] = [Send(other, payload) for other in self._realm.pool.holders() if other not in not_to]
        # Paid for afterwards, so that there is no network too large for a message to everybody.
        self._copies_until = max(self._copies_until, now) + len(copies) / COPIES_PER_S
        return copies
