"""One connection's state machine, up to its log-in and behind it: a message comes in, actions go out.

    opened ─▶ GREETING ─▶ … ─▶ CLAIMING ─▶ MEMBER ─▶ CLOSED     by hashes of a password    candy.relay.hashed
                                                                with a key of its own      candy.relay.keyed

Rules of both:
 1. While its source fails too often (candy.relay.guessing) a log-in waits in line, once, with all that it sends; its
    deadline stands still meanwhile.
 2. A session decides what concerns its member alone, and stops at CLAIMING, which received() tells the network. Whether
    the address is free, and all that takes time, concerns others too: the network decides it, and calls claimed(),
    waiting(), refuse() or end().
 3. `state` changes in these three files alone.

Nothing here waits, reads a clock or draws a random number by itself; `now` is monotonic seconds, `wall` Unix
seconds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from math import inf
from sys import intern
from typing import Literal

from candy.control.model import SealSetting
from candy.protocol import wire
from candy.protocol.actions import Close, Drop, Log, Ping, Secure, Send
from candy.protocol.addresses import ipv4, is_unicast, source_of
from candy.protocol.closing import CloseCode, without_extension
from candy.protocol.hello import Hello
from candy.protocol.login import Asks, Tells
from candy.protocol.wire import DropReason
from candy.relay import lines
from candy.relay.leases import NO_HELLO, NO_TRAFFIC_PACKED, Lease, shown_vmac
from candy.relay.limits import UNLIMITED
from candy.relay.passwords import Password
from candy.relay.realm import Realm
from candy.relay.recording import TELL_AWAY, Outcome, Presented, Wanted

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
"""Messages that are kept for a session in line: VMAC, EXPTTUN and AUTH, and one more; and for one whose log-in waits
for others."""
EVENTS = "events"
"""The name under which the engine counts messages of one member that find no room, and Python those beyond HELD_MAX."""


@dataclass(frozen=True, slots=True)
class Bind:
    """The connection is authenticated: have the engine route `ip`, an integer, to it."""

    connection: int
    ip: int
    takes_sealed: bool = True
    """With candy.3: it takes what is sealed."""
    circle: int = 1
    """Who else may be told where it is, and tell it (candy.relay.passwords)."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A member is sent no more than `down` and read no faster than `up`, bits a second; 0: as ever."""

    connection: int
    down: int
    up: int


@dataclass(frozen=True, slots=True)
class Unbind:
    """Take the connection's address away."""

    connection: int


@dataclass(frozen=True, slots=True)
class Record:
    """Have what is new written down, and say what became of it: Network.recorded()."""

    connection: int
    wanted: Wanted | None = None
    """What other relays have to agree on."""


Action = Send | Bind | Limit | Unbind | Ping | Close | Drop | Log | Secure | Record
Judge = Callable[[float, int], list[Action]]
"""Of a message that may have to wait for its turn: `now`, `wall` ─▶ what follows."""


class State(Enum):
    """Where a session is; the pictures are in candy.relay.hashed and candy.relay.keyed."""

    GREETING = "greeting"
    IN_LINE = "in line"
    CLAIMING = "claiming"
    WAITING = "waiting"
    RECORDING = "recording"
    """What it was let in by is being written down, or what other relays have to agree on."""
    ANSWERED = "answered"
    """With a key: it has yet to confirm the answer."""
    APPROVING = "approving"
    """With a key: it waits for the operator."""
    MEMBER = "member"
    CLOSED = "closed"


class Session(ABC):
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
        "acquainted",
        "allowed",
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
        """Kept until its turn; behind that until it is a member."""
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
        self.acquainted = 0
        """Its circle, as its engine was told."""
        self.allowed = UNLIMITED
        """What it may carry, as its engine was told."""
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
        return ipv4(self._ip)

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
    def takes_sealed(self) -> bool:
        """It takes what is sealed, if its connection can carry that."""
        return True

    @property
    def seal(self) -> SealSetting | None:
        """With whom it seals packets, as its client says; None: it can't."""
        return None

    @property
    def came_by(self) -> str:
        """The name of its password, or of what else let it in."""
        return "" if self.password is None else self.password.name

    @property
    def is_invited(self) -> bool:
        """That is the name of an invitation."""
        return False

    @property
    def known_password(self) -> Password | None:
        """The one that its client has, as far as the relay knows."""
        return self.password

    @property
    def circle(self) -> int:
        """With whom it may have direct links as the original's clients have them; 0: with nobody."""
        realm = self._realm
        has_links = Tells.ADMITS_OLD in realm.tells and Tells.NO_DIRECT_LINKS not in realm.tells
        return realm.circles.of(self.known_password) if has_links else 0

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
        return self.outcome(self._judge_held(now, wall))

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

    def caught_up(self, now: float, wall: int) -> list[Action]:
        """A member from now on: act on what it said while its log-in waited for others."""
        return self._judge_held(now, wall) if self._held else []

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

    def recording(self, wanted: Wanted) -> list[Action]:
        """Wait until this is written down."""
        self.state = State.RECORDING
        return [Record(self.connection, wanted)]

    def recorded(self, outcome: Outcome, now: float, wall: int) -> list[Action]:
        """What was to be written down is, or can't be. A claim goes on where it was."""
        if self.state is not State.RECORDING:
            return []
        match outcome:
            case Outcome.KEPT:
                self.state = State.CLAIMING
                return []
            case Outcome.HELD:
                told = f"{self.ip} is leased to another device"
                return self.refuse(f"{told}, by another relay", code=CloseCode.ADDRESS_HELD, told=told)
            case Outcome.REPEATED:
                return self.refuse(f"AUTH for {self.ip} is a replay, of one at another relay", kind="replay")
        why = "what relays share can't be written"
        return self.refuse(why, kind="away", code=CloseCode.TRY_AGAIN_LATER, told=TELL_AWAY)

    def presented(self) -> Presented:
        """A member, as other relays are told of it."""
        number = self.lease.number if self.lease is not None else b""
        return Presented(self._ip, self.vmac or b"", number or bytes(8), Asks.SEALS_NOTHING, 0, 0)

    @abstractmethod
    def _act_on(self, payload: bytes, now: float, wall: int) -> list[Action]:
        """Act on one message."""

    def _on_other(self, message: wire.Message, payload: bytes, now: float) -> list[Action]:
        """On one that is not of the log-in."""
        match message:
            case wire.Udp4Conn() | wire.Discovery() | wire.General():
                return self._on_relayed(message, payload, now)
            case _:
                return [Drop(self.connection, DropReason.UNEXPECTED_KIND)]

    def _in_turn(self, judge: Judge, is_trusted: bool, now: float, wall: int) -> list[Action]:
        """Judge a message, or keep it until its turn; `is_trusted`: it need not wait."""
        if self.is_in_line:
            return self._hold(judge)
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

    def _hold(self, judge: Judge) -> list[Action]:
        """Keep a message, if there is room."""
        if len(self._held) == HELD_MAX:
            return [Drop(self.connection, EVENTS)]
        self._held += (judge,)
        return []

    def _judge_held(self, now: float, wall: int) -> list[Action]:
        held, self._held = self._held, ()
        actions: list[Action] = []
        for judge in held:
            if self.state is not State.CLOSED:
                actions += judge(now, wall)
        return actions

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

    def _on_relayed(
        self, message: wire.Udp4Conn | wire.Discovery | wire.General, payload: bytes, now: float
    ) -> list[Action]:
        # The engine relays what a member says. This came before it had heard that its sender is one.
        if self.state is State.RECORDING and self.is_confirmed:
            # An old client says where it is but once, right behind its AUTH, which is never answered.
            return self._hold(lambda now, wall: self._on_relayed(message, payload, now))
        if not self.is_member:
            return [Drop(self.connection, DropReason.NOT_AUTHENTICATED)]
        if len(payload) > wire.LEGACY_PAYLOAD:
            return [Drop(self.connection, DropReason.TOO_LARGE)]
        if message.src != self.ip:
            return [Drop(self.connection, DropReason.SPOOFED_SOURCE)]
        realm = self._realm
        tells = wire.tells_endpoint(message)
        if message.dst == wire.BROADCAST and realm.forward_broadcast and not isinstance(message, wire.Udp4Conn):
            if tells and self.circle == 0:
                return [Drop(self.connection, DropReason.NO_ACQUAINTANCE)]
            return self._to_all_others(payload, now, self._is_acquainted if tells else lambda other: True)
        receiver = realm.pool.holder(message.dst)
        # The relay's own interface takes no messages, because it needs no direct links.
        if receiver is None or receiver == realm.host:
            return [Drop(self.connection, DropReason.NO_ROUTE)]
        if tells and not self._is_acquainted(receiver):
            return [Drop(self.connection, DropReason.NO_ACQUAINTANCE)]
        return [Send(receiver, payload)]

    def _is_acquainted(self, other: int) -> bool:
        """Whether it may tell the member with this connection where it is."""
        return self.circle != 0 and self.circle == self._realm.circle_of(other)

    def _to_all_others(self, payload: bytes, now: float, may_hear: Callable[[int], bool]) -> list[Action]:
        if self._copies_until > now + COPIES_AHEAD_S:
            return [Drop(self.connection, BROADCAST_LIMIT)]
        not_to = (self.connection, self._realm.host)
        others = (other for other in self._realm.pool.holders() if other not in not_to)
        copies: list[Action] = [Send(other, payload) for other in others if may_hear(other)]
        # Counted afterwards, so that a message to all others is possible in a network of any size.
        self._copies_until = max(self._copies_until, now) + len(copies) / COPIES_PER_S
        return copies
