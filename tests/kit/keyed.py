"""A network whose members log in with keys, in memory, and members of it; the engine's part is played here."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from kit.login import DEVICE, PASSWORD, WALL, Talk
from kit.talk import network

from candy.member.login import Credentials, Outcome
from candy.protocol import auth, control, wire
from candy.protocol.actions import Close, Log, Secure, Send
from candy.protocol.control import Confirm
from candy.protocol.link import Invitation
from candy.protocol.login import Asked, Asks
from candy.protocol.noise import KeyPair
from candy.relay import enrolment
from candy.relay.network import Network
from candy.relay.passwords import Passwords
from candy.relay.pool import Pool
from candy.relay.recording import Outcome as RecordingOutcome
from candy.relay.session import Action, Bind, Record

FIXED = Asked(address=IPv4Interface("192.168.202.9/24"), flags=Asks.IS_FIXED)
CONFIRM = Confirm().encode()


@dataclass
class Keyed:
    """A network of devices with keys; each method returns the actions without log lines."""

    talk: Talk = field(default_factory=Talk)
    options: dict[str, Any] = field(default_factory=dict)
    now: float = 1000.0
    wall: int = WALL
    log: list[str] = field(default_factory=list)
    connections: int = 0
    outcome: RecordingOutcome = RecordingOutcome.KEPT
    bound: Bind | None = None
    """That of the last member()."""
    secured: set[int] = field(default_factory=set)
    """Connections that have keys."""

    def __post_init__(self) -> None:
        pool = self.options.pop("pool", "192.168.202.0/24")
        self.network: Network = network(
            None if pool is None else Pool(IPv4Network(pool)), **{"enrolment": self.talk.enrolment, **self.options}
        )
        self.network.set_passwords(Passwords(self.talk.passwords), self.now, self.wall)

    def keep(self, actions: Iterable[Action]) -> list[Action]:
        actions = list(actions)
        self.log += [action.text for action in actions if isinstance(action, Log)]
        self.secured.update(action.connection for action in actions if isinstance(action, Secure))
        return [action for action in actions if not isinstance(action, Log)]

    def receive(self, connection: int, message: bytes) -> list[Action]:
        """In the clear, or what was within a CONTROL, as its kind has it."""
        is_control = message[0] in control.WITHIN and connection in self.secured
        receive = self.network.controlled if is_control else self.network.received
        return self.keep(receive(connection, message, self.now, self.wall))

    def begin(
        self, credentials: Credentials, device: KeyPair = DEVICE, asked: Asked | None = None, source: str | None = None
    ) -> tuple[int, Any, list[Action]]:
        """Message 1 on a new connection, the member, and what follows; what has to be written down is."""
        self.connections += 1
        connection = self.connections
        relay, member = self.talk.relay(), self.talk.member(credentials, device)
        source = source if source is not None else f"203.0.113.{connection}"
        assert self.network.opened_with_keys(connection, source, self.now, relay) == []
        message = member.begin(relay.shown, asked if asked is not None else Asked())
        actions = self.receive(connection, message)
        if actions == [Record(connection)]:
            actions = self.keep(self.network.recorded(connection, self.outcome, self.now, self.wall))
        return connection, member, actions

    def answered(self, credentials: Credentials, device: KeyPair = DEVICE, asked: Asked | None = None) -> Any:
        """The connection, and what message 2 says."""
        connection, member, actions = self.begin(credentials, device, asked)
        [secure, send] = actions
        assert isinstance(secure, Secure)
        assert isinstance(send, Send)
        outcome: Outcome = member.read(send.payload)
        assert (secure.sends, secure.receives) == (outcome.receives, outcome.sends)
        return connection, outcome

    def refused(self, credentials: Credentials, device: KeyPair = DEVICE, asked: Asked | None = None) -> Outcome:
        """What message 2 says, before the connection is closed for it."""
        connection, member, [send, close] = self.begin(credentials, device, asked)
        assert isinstance(send, Send)
        outcome: Outcome = member.read(send.payload)
        assert close == Close(connection, outcome.told.code, outcome.told.text)
        assert outcome.ticket is None
        return outcome

    def member(
        self, credentials: Credentials, device: KeyPair = DEVICE, asked: Asked | None = None
    ) -> tuple[int, Outcome]:
        """One that is in."""
        connection, outcome = self.answered(credentials, device, asked)
        assert outcome.is_in
        takes_sealed = not (asked or Asked()).flags & Asks.SEALS_NOTHING
        [bound] = [each for each in self.receive(connection, CONFIRM) if isinstance(each, Bind)]
        assert bound == Bind(connection, int(outcome.told.address.ip), takes_sealed, bound.circle)
        self.bound = bound
        return connection, outcome

    def old(self, address: IPv4Address, vmac: bytes | None = None, close: bool = False) -> tuple[int, list[Action]]:
        """An old client that logs in."""
        self.connections += 1
        self.wall += 1
        connection, secret = self.connections, PASSWORD.secret
        self.network.opened(connection, f"203.0.113.{connection}", self.now)
        if vmac is not None:
            digest = auth.vmac_digest(secret, vmac, self.wall)
            assert self.receive(connection, wire.Vmac(vmac, self.wall, digest).encode()) == []
        digest = auth.auth_digest(secret, address, self.wall)
        actions = self.receive(connection, wire.Auth(address, self.wall, digest).encode())
        if close:
            self.close(connection)
        return connection, actions

    def close(self, connection: int) -> list[Action]:
        return self.keep(self.network.closed(connection, self.now, self.wall, "peer"))


def link_of(its: enrolment.Invitation) -> Invitation:
    """As its link has it."""
    return Invitation(bytes(32), 0, WALL, its.selector, its.secret, its.until)
