"""One connection as a client leads it, from the upgrade to its end: what comes in, and what is to be done
about it.

    opened ──VMAC, EXPTTUN──▶ ASKING ──right answer──▶ AUTH, PING ──▶ JOINED ──▶ CONFIRMED
       └──────VMAC, with an address of its own───────▶┘          PONG, and still there a moment later

Rules:
 1. The relay never answers AUTH. That it was believed is concluded: from a PONG to the PING behind it, and
    from the connection being there a moment later, for the PONG may be quicker than the verdict on the AUTH.
 2. A granted address is believed only with the right hash, and kept for next time once it is confirmed.
 3. No I/O, no clock, no random numbers: `now` is monotonic seconds, `wall` Unix seconds, randomness an
    argument.

This module does not know how a connection is made, nor when it is tried again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from math import inf

from candy import auth, wire
from candy.addresses import is_unicast
from candy.errors import WireError
from candy.session import Close, Log, Ping, Send

ANSWER_S = 10.0
"""How long the relay may take to grant an address."""
CONFIRM_S = 1.0
"""Rule 1's moment. Nobody wants to wait for all that a relay may still find; a wrong word is put right then."""
VERDICT_S = 11.0
"""A connection that ends sooner after its AUTH counts as refused: our relay asks another holder of the address for 3 s,
and delays a refusal by up to 10 s after many failures."""
SHORTEST_PREFIX = 8
"""A granted address is not covered by the hash: a shorter prefix could draw half of the world into the tunnel."""
CLOSE_POLICY = 1008
ANY_ADDRESS = IPv4Interface("0.0.0.0/0")


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


Action = Send | Ping | Close | Log | Configure | Join | Keep


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection, or the attempt to make one, ended: one line for the user, and what Backoff wants to know."""

    text: str
    refused: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What this member says of itself on every connection.

    `vmac` has 16 ASCII hex characters, `address` is None for one that the relay grants, `hello` is the
    payload of the PING behind AUTH, `randbytes(n)` gives n random bytes.
    """

    password: bytes = field(repr=False)
    vmac: bytes
    address: IPv4Interface | None
    hello: bytes
    randbytes: Callable[[int], bytes]


class Conversation:
    """One connection, from the upgrade to its end. Actions are to be carried out in order.

    Args:
        member: who speaks.
        connection: the engine's number.
        timestamp: for all messages of this connection, and never used before: an AUTH with the same timestamp
            would be the same bytes, which the relay takes for a replay.
        last: the address that was granted last time, None for none.
    """

    def __init__(self, member: Member, connection: int, timestamp: int, last: IPv4Interface | None) -> None:
        self._member = member
        self._connection = connection
        self._timestamp = timestamp
        self._last = last
        self._address: IPv4Interface | None = None
        """With which AUTH was sent; None while asking for one."""
        self._joined = 0.0
        """When that was."""
        self._ponged = False
        self._confirmed = False
        self._ending: Ending | None = None
        """Decided here, before the connection is closed."""
        self.deadline = inf
        """When expired() is to be called."""

    def opened(self, now: float) -> list[Action]:
        """The connection is upgraded and the engine's."""
        member, timestamp = self._member, self._timestamp
        digest = auth.vmac_digest(member.password, member.vmac, timestamp)
        greeting = self._hashed(wire.Vmac(member.vmac, timestamp, digest))
        if member.address is not None:
            return [greeting, *self._join(member.address, now)]
        self.deadline = now + ANSWER_S
        digest = auth.expttun_digest(member.password, timestamp)
        return [greeting, self._hashed(wire.Expttun(timestamp, self._last or ANY_ADDRESS, digest))]

    def received(self, payload: bytes, now: float, wall: int) -> list[Action]:
        """A message that is no packet."""
        try:
            message = wire.decode(payload)
        except WireError as error:
            return [Log("debug", f"message from the relay dropped: {error.reason}")]
        if not isinstance(message, wire.Expttun) or self._address is not None or self._ending is not None:
            return []
        expected = auth.expttun_digest(self._member.password, message.timestamp)
        if not auth.digest_matches(expected, message.digest):
            return self._end(
                "the relay's hash is wrong: it has another password, or is no relay of yours", refused=True
            )
        if not auth.is_timely(message.timestamp, wall):
            skew = message.timestamp - wall
            return self._end(
                f"the relay's clock is {abs(skew)} s {'ahead of' if skew > 0 else 'behind'} this machine's: "
                "set the one that is wrong, for example by NTP",
                refused=True,
            )
        if not _is_usable(message.address):
            return self._end(f"the relay granted {message.address}, which no member can have", refused=True)
        actions = self._join(message.address, now)
        if self._last is not None and self._last != message.address:
            actions.insert(0, Log("warning", f"the relay granted {message.address} in place of {self._last}"))
        return actions

    def ponged(self, now: float) -> list[Action]:
        """A PONG with any payload: the original relay's is 1500 bytes of its own."""
        if self._address is None or self._ponged:
            return []
        self._ponged = True
        self.deadline = self._joined + CONFIRM_S
        return self.expired(now)

    def expired(self, now: float) -> list[Action]:
        """The deadline may have come."""
        if now < self.deadline:
            return []
        if self._address is None:
            return self._end(f"the relay granted no address within {ANSWER_S:g} s: has it a pool?")
        self.deadline = inf
        self._confirmed = True
        keep: list[Action] = [Keep(self._address)] if self._member.address is None else []
        return [*keep, Log("info", f"connected as {self._address} (the relay answers)")]

    def closed(self, cause: str, now: float) -> Ending:
        """The connection is gone; `cause` is one of the engine's CAUSES."""
        if self._ending is not None:
            return self._ending
        if cause == "silent":
            return Ending("the relay fell silent", held=self._confirmed)
        if cause not in ("peer", "eof", "reset"):
            return Ending(f"the relay broke the protocol ({cause})")
        if self._address is None:
            return Ending(
                "closed right after the handshake: wrong password, a clock off by more than 300 s, or no address free",
                refused=True,
            )
        if now - self._joined >= VERDICT_S:
            return Ending(
                "the relay closed the connection" if cause == "peer" else "the connection was lost", held=True
            )
        if self._confirmed:
            return Ending(
                f"closed soon after the handshake: the relay ended, or the address {self._address.ip} is taken",
                refused=True,
            )
        return Ending(
            "closed right after the handshake: wrong password, a clock off by more than 300 s, "
            f"or the address {self._address.ip} is taken",
            refused=True,
        )

    def _join(self, address: IPv4Interface, now: float) -> list[Action]:
        self._address = address
        self._joined = now
        self.deadline = inf
        timestamp = self._timestamp
        digest = auth.auth_digest(self._member.password, address.ip, timestamp)
        return [
            Configure(address),
            self._hashed(wire.Auth(address.ip, timestamp, digest)),
            # Behind AUTH, for what comes before it is dropped.
            Join(self._connection),
            Ping(self._connection, self._member.hello),
        ]

    def _hashed(self, message: wire.Vmac | wire.Expttun | wire.Auth) -> Send:
        return Send(self._connection, message.encode(wire.draw_confusion(self._member.randbytes)))

    def _end(self, text: str, refused: bool = False) -> list[Action]:
        self._ending = Ending(text, refused=refused)
        self.deadline = inf
        return [Close(self._connection, CLOSE_POLICY, "")]


def _is_usable(address: IPv4Interface) -> bool:
    network = address.network
    if network.prefixlen < SHORTEST_PREFIX or not is_unicast(address.ip):
        return False
    return network.prefixlen > 30 or address.ip not in (network.network_address, network.broadcast_address)
