"""One connection as a member leads it, from the upgrade to its end: a message comes in, actions go out.

    opened ──VMAC, EXPTTUN──▶ ASKING ──right answer──▶ AUTH, PING ──▶ JOINED ──▶ CONFIRMED
       └──────VMAC, with an address of its own───────▶┘          PONG, and still open a moment later
                               ROUTE ─▶ RouteSet;  BEHIND ─▶ Placements;  UDP4CONN, DISCOVERY, GENERAL ─▶ Learn

Rules:
 1. The relay never answers AUTH. That it believed the AUTH is concluded from two facts: a PONG answered the PING behind
    it, and the connection is still open a moment later, because the PONG may be quicker than the verdict on the AUTH.
 2. A granted address is believed only with the right hash, and kept for next time once it is confirmed.
 3. Routes of the connection before hold until this one has told all: candy.2 says so itself; else the other messages of
    a relay follow right behind its first, and a relay that sends none within a verdict's time has none.
 4. With candy.2 a relay tells a member that has the password why it closes (candy.protocol.closing), and the member
    tells its user. If it closes without a word, it probably has another password, unless nothing came for a while
    before: then something on the way may have cut the connection.
 5. No I/O, no clock, no random numbers: `now` is monotonic seconds, `wall` Unix seconds, randomness an
    argument.

This module does not know how a connection is made, nor when it is tried again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface
from math import inf
from typing import Literal

from candy.errors import WireError
from candy.member.acceptance import Acceptance
from candy.member.cures import CURES
from candy.member.login import Ticket
from candy.member.placements import Placements
from candy.member.routeset import RouteSet
from candy.member.trust import Known
from candy.protocol import auth, control, wire
from candy.protocol.actions import Close, Drop, Log, Ping, Send
from candy.protocol.addresses import SHORTEST_PREFIX, is_unicast
from candy.protocol.closing import CloseCode, parse
from candy.protocol.noise import KeyPair
from candy.protocol.wire import DropReason

ANSWER_S = 10.0
"""How long the relay may take to grant an address."""
CONFIRM_S = 1.0
"""Rule 1's moment. Shorter than a verdict may take, so that the user need not wait: a later refusal is told as one."""
ROUTES_S = 1.0
"""Rule 3's: how long the next ROUTE of a relay without candy.2 may take."""
VERDICT_S = 11.0
"""A connection that ends sooner after its AUTH counts as refused: our relay probes another holder of the address for
3 s, and may have a log-in wait in line for 8 s before that."""
SILENCE_S = 5.0
"""No proxy ends a connection sooner because nobody says anything, and a relay's refusal comes sooner nearly always."""
ANY_ADDRESS = IPv4Interface("0.0.0.0/0")
CameBy = Literal["hash", "password", "invitation", "device"]
"""How a member proves that it may come in: as old clients do, or by a credential of candy.3."""


@dataclass(frozen=True, slots=True)
class Configure:
    """Give the interface this address."""

    address: IPv4Interface


@dataclass(frozen=True, slots=True)
class Join:
    """Let packets pass between the connection and the interface."""

    connection: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Remember the address for next time."""

    address: IPv4Interface


@dataclass(frozen=True, slots=True)
class SetRoutes:
    """Send to these destinations through members, and to no others; first match first."""

    routes: tuple[wire.RouteEntry, ...]


@dataclass(frozen=True, slots=True)
class SetPlacements:
    """Look at what is wrapped for this member by these; none: leave that to the relay."""

    placements: tuple[wire.Placement, ...]


@dataclass(frozen=True, slots=True)
class Learn:
    """Keep what another member says of itself, for direct links."""

    message: wire.Udp4Conn | wire.Discovery | wire.General


@dataclass(frozen=True, slots=True)
class LearnRelays:
    """Remember by which relays the network is reached, under its key."""

    network: bytes
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeepKeys:
    """Write down whom the member believes, and the credential that it was given, before anything behind this."""

    known: Known
    ticket: Ticket | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Seal packets for others by this, from before the first one passes on the connection."""

    connection: int
    device: KeyPair
    address: IPv4Address
    lease: bytes
    network: bytes
    """The network's key."""
    checks_source: bool
    allows_links: bool
    """The network lets members reach each other directly."""
    shares_password: bool = False
    """Old clients are in, and came by the password of who has keys."""


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """The network has another key, on the same connection."""

    network: bytes


@dataclass(frozen=True, slots=True)
class Tell:
    """Have the sealed sessions hear what the relay says of other members."""

    message: control.Tell | control.NotSealing | control.Commit


@dataclass(frozen=True, slots=True)
class Shake:
    """Have the sealed sessions look at another member's HANDSHAKE."""

    payload: bytes


Sealing = Admitted | NetworkChanged | Tell | Shake
"""For sealed sessions with others (candy.member.sealing)."""
Action = (
    Send
    | Ping
    | Close
    | Drop
    | Log
    | Configure
    | Join
    | Keep
    | KeepKeys
    | LearnRelays
    | SetRoutes
    | SetPlacements
    | Learn
    | Sealing
)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection, or the attempt to make one, ended: a line for the user, and what candy.member.sequel judges by.

    `refused`: the relay did not let the member in. `held`: it was in. `replaced`: another connection with its VMAC took
    its address over. `silence`: seconds without a byte before the connection broke off; None if it ended otherwise.
    `gave_up`: the member gave it up, because nothing came. `final`: the user has to act before it can get in. `by_key`:
    the double that replaced it has this member's device key, which no other replaces.
    """

    text: str
    refused: bool = False
    held: bool = False
    replaced: bool = False
    silence: float | None = None
    gave_up: bool = False
    final: bool = False
    by_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What this member says of itself on every connection.

    `vmac` has 16 ASCII hex characters, `address` is None for one that the relay grants, `hello` is the
    payload of the PING behind AUTH, `randbytes(n)` gives n random bytes, `acceptance` judges granted addresses.
    """

    password: bytes = field(repr=False)
    vmac: bytes
    address: IPv4Interface | None
    hello: bytes
    randbytes: Callable[[int], bytes]
    acceptance: Acceptance = field(default_factory=Acceptance)


class Conversation:
    """One connection, from the upgrade to its end. Actions are to be carried out in order.

    Args:
        identity: what the member says of itself.
        connection: the engine's number.
        timestamp: for all messages of this connection, and never used before: an AUTH with the same timestamp
            would be the same bytes, which the relay takes for a replay.
        last: the address that was granted last time, None for none.
        routes: what earlier connections were told, and this one adds to.
        extended: candy.2 was agreed on.
    """

    def __init__(
        self,
        identity: Identity,
        connection: int,
        timestamp: int,
        last: IPv4Interface | None,
        routes: RouteSet,
        *,
        extended: bool = False,
    ) -> None:
        self._identity = identity
        self._connection = connection
        self._timestamp = timestamp
        self._last = last
        self._routes = routes
        self._placements = Placements()
        self.extended = extended
        self._address: IPv4Interface | None = None
        """The one in the AUTH; None while asking for one."""
        self._joined = 0.0
        """When AUTH was sent."""
        self._ponged = False
        self.confirmed: float | None = None
        """When it was, by rule 1."""
        self._ending: Ending | None = None
        """Set when the member ends the connection itself, or the relay says why it does."""
        self._due = inf
        """The log-in's next deadline."""
        self._told_all_at = inf
        """Rule 3's deadline."""
        self.relay_clock: int | None = None
        """What the relay has for the time, Unix seconds, once it has said so."""

    @property
    def connection(self) -> int:
        """The engine's number."""
        return self._connection

    @property
    def came_by(self) -> CameBy:
        """What it logs in by."""
        return "hash"

    @property
    def has_claimed(self) -> bool:
        """AUTH is sent, so that the relay is about to lead packets here."""
        return self._address is not None

    @property
    def deadline(self) -> float:
        """When expired() has to be called."""
        return min(self._due, self._told_all_at)

    def opened(self, now: float) -> list[Action]:
        """The connection is upgraded, and the engine owns it."""
        identity, timestamp = self._identity, self._timestamp
        digest = auth.vmac_digest(identity.password, identity.vmac, timestamp)
        greeting = self._hashed(wire.Vmac(identity.vmac, timestamp, digest))
        if identity.address is not None:
            return [greeting, *self._join(identity.address, now)]
        self._due = now + ANSWER_S
        digest = auth.expttun_digest(identity.password, timestamp)
        return [greeting, self._hashed(wire.Expttun(timestamp, self._last or ANY_ADDRESS, digest))]

    def received(self, payload: bytes, now: float, wall: int) -> list[Action]:
        """A message other than a packet."""
        if self._ending is not None:
            return []
        try:
            message = wire.decode(payload)
            match message:
                case wire.Expttun() if self._address is None:
                    return self._on_expttun(message, now, wall)
                case wire.Route() if self._address is not None:
                    return self._on_route(message, now)
                case wire.Behind() if self._address is not None and self.extended:
                    return self._on_behind(message)
                case wire.Udp4Conn() | wire.Discovery() | wire.General() if self._address is not None:
                    return self._on_relayed(message, self._address.ip)
            return [Drop(self._connection, DropReason.UNEXPECTED_KIND)]
        except WireError as error:
            return self._on_unusable(payload, error)

    def ponged(self, now: float) -> list[Action]:
        """A PONG with any payload: the original relay's is 1500 bytes of its own."""
        if self._address is None or self._ponged:
            return []
        self._ponged = True
        self._due = self._joined + CONFIRM_S
        return self.expired(now)

    def expired(self, now: float) -> list[Action]:
        """Act on the deadlines up to `now`."""
        actions: list[Action] = []
        if now >= self._told_all_at:
            self._told_all_at = inf
            self._routes.settle()
            actions.append(SetRoutes(self._routes.routes))
        if now < self._due:
            return actions
        if self._address is None:
            return self._end(f"the relay granted no address within {ANSWER_S:g} s: has it a pool?")
        self._due = inf
        self.confirmed = now
        if self._identity.address is None:
            actions.append(Keep(self._address))
        return [*actions, Log("info", f"connected as {self._address} (the relay answers)")]

    def closing(self, payload: bytes) -> None:
        """The relay's close frame: at least the two bytes of a code."""
        # Without candy.2 a code may mean anything.
        if not self.extended or self._ending is not None:
            return
        code, text = parse(payload)
        told = text or f"code {code}"
        if cure := CURES.get(code):
            self._ending = Ending(f"refused by the relay: {told}: {cure}", refused=True)
        elif code == CloseCode.REPLACED and self._ponged:
            self._ending = Ending(
                f"replaced: {told}: is there a copy of this machine, or of its state folder? "
                "If so, remove the file in the vmac folder of one of them",
                replaced=True,
            )
        else:
            self._ending = Ending(f"closed by the relay: {told}", held=self.confirmed is not None)

    def closed(self, cause: str, now: float, silence: float | None = None) -> Ending:
        """The connection is gone; `cause` is one of the engine's CAUSES, behind `silence` seconds without a byte."""
        if self._ending is not None:
            return self._ending
        if cause == "silent":
            return Ending("the relay fell silent", held=self.confirmed is not None, gave_up=True)
        if cause not in ("peer", "eof", "reset"):
            return Ending(f"the relay broke the protocol ({cause})")
        ending = self._ended(cause, now)
        if cause == "peer" or silence is None:
            return ending
        if ending.refused and self.confirmed is not None and silence >= SILENCE_S:
            ending = replace(ending, text=f"the connection was lost after {silence:.0f} s of silence")
        return replace(ending, silence=silence)

    def _ended(self, cause: str, now: float) -> Ending:
        """Without a reason, and not by this member."""
        if self.extended:
            return self._closed_without_reason(now)
        if self._address is None:
            return Ending(
                "closed right after the handshake: wrong password, a clock off by more than 300 s, or no address free",
                refused=True,
            )
        if now - self._joined >= VERDICT_S:
            return Ending(
                "the relay closed the connection" if cause == "peer" else "the connection was lost", held=True
            )
        if self.confirmed is not None:
            return Ending(
                f"closed soon after the handshake: the relay ended, or the address {self._address.ip} is taken",
                refused=True,
            )
        return Ending(
            "closed right after the handshake: wrong password, a clock off by more than 300 s, "
            f"or the address {self._address.ip} is taken or outside of the pool",
            refused=True,
        )

    def _closed_without_reason(self, now: float) -> Ending:
        """By a relay that tells a member with the password why it closes. A right answer to EXPTTUN shows that."""
        has_password = self._address is not None and self._identity.address is None
        if self._address is not None and (
            now - self._joined >= VERDICT_S or (has_password and self.confirmed is not None)
        ):
            return Ending("the connection was lost", held=True)
        doubt = "its log may say why" if has_password else "is the password right?"
        return Ending(f"the relay closed without a reason right after the handshake: {doubt}", refused=True)

    def _on_expttun(self, message: wire.Expttun, now: float, wall: int) -> list[Action]:
        expected = auth.expttun_digest(self._identity.password, message.timestamp)
        if not auth.digest_matches(expected, message.digest):
            return self._end("the relay's hash is wrong: it has another password, or is not your relay", refused=True)
        self.relay_clock = message.timestamp
        if not auth.is_timely(message.timestamp, wall):
            return self._end(f"{clocks(message.timestamp - wall)}: {CURES[CloseCode.CLOCK_OFF]}", refused=True)
        return self._on_granted(message.address, now)

    def _on_granted(self, address: IPv4Interface, now: float) -> list[Action]:
        if not _is_usable(address):
            return self._end(f"the relay granted {address}, which no member can have", refused=True)
        network = address.network
        if self._identity.acceptance.doubts_own(network):
            return self._end(
                f"the relay granted {address}, which is not private: take it with --accept-routes {network}",
                refused=True,
            )
        actions = self._join(address, now)
        if self._last is not None and self._last != address:
            actions.insert(0, Log("warning", f"the relay granted {address} in place of {self._last}"))
        return actions

    def _on_route(self, message: wire.Route, now: float) -> list[Action]:
        self._routes.received(message)
        if self._routes.is_settled:
            self._told_all_at = inf
        elif not self.extended:
            self._told_all_at = now + ROUTES_S
        return [SetRoutes(self._routes.routes)]

    def _on_behind(self, message: wire.Behind) -> list[Action]:
        is_whole = self._placements.received(message)
        return [SetPlacements(self._placements.told)] if is_whole else []

    def _on_unusable(self, payload: bytes, error: WireError) -> list[Action]:
        """A message that is dropped; of a set the rest is of no more use."""
        drop = Drop(self._connection, error.reason)
        if payload[:1] == bytes([wire.Kind.ROUTE]):
            self._routes.abandon()
            return [drop, Log("warning", f"routes that the relay told can't be used: {error.reason}")]
        if payload[:1] == bytes([wire.Kind.BEHIND]):
            self._placements.abandon()
            text = f"what the relay told of networks behind members can't be used: {error.reason}"
            return [drop, Log("warning", text)]
        return [drop]

    def _on_relayed(self, message: wire.Udp4Conn | wire.Discovery | wire.General, own: IPv4Address) -> list[Action]:
        if message.src == own or not is_unicast(message.src):
            raise WireError(DropReason.SPOOFED_SOURCE)
        if message.dst != own and (message.dst != wire.BROADCAST or isinstance(message, wire.Udp4Conn)):
            raise WireError(DropReason.FOREIGN_DESTINATION)
        if isinstance(message, wire.General):
            # Raises for any other GENERAL: no member sends one.
            _ = message.lan_endpoint
        return [Learn(message)]

    def _join(self, address: IPv4Interface, now: float) -> list[Action]:
        self._address = address
        self._joined = now
        self._due = inf
        self._routes.begin(address.ip, extended=self.extended)
        if not self._routes.is_settled:
            self._told_all_at = now + VERDICT_S
        return [
            Configure(address),
            # Also those told before: the kernel drops routes with an address, and one may be in this relay's way now.
            SetRoutes(self._routes.routes),
            *self._claim(address),
            # Behind the claim, because the relay drops packets that come before it.
            Join(self._connection),
            *self._greet(),
        ]

    def _claim(self, address: IPv4Interface) -> list[Action]:
        timestamp = self._timestamp
        digest = auth.auth_digest(self._identity.password, address.ip, timestamp)
        return [self._hashed(wire.Auth(address.ip, timestamp, digest))]

    def _greet(self) -> list[Action]:
        return [Ping(self._connection, self._identity.hello)]

    def _hashed(self, message: wire.Vmac | wire.Expttun | wire.Auth) -> Send:
        return Send(self._connection, message.encode(wire.draw_confusion(self._identity.randbytes)))

    def _end(self, text: str, refused: bool = False) -> list[Action]:
        self._ending = Ending(text, refused=refused)
        self._due = self._told_all_at = inf
        return [Close(self._connection, CloseCode.POLICY_VIOLATION, "")]


def clocks(skew: int) -> str:
    """How far the relay's clock is ahead of this machine's, in words."""
    if skew == 0:
        return "the relay's clock and this machine's say the same"
    return f"the relay's clock is {abs(skew)} s {'ahead of' if skew > 0 else 'behind'} this machine's"


def _is_usable(address: IPv4Interface) -> bool:
    network = address.network
    if network.prefixlen < SHORTEST_PREFIX or not is_unicast(address.ip):
        return False
    return network.prefixlen > 30 or address.ip not in (network.network_address, network.broadcast_address)
