"""One connection of a member that logs in with a key: what differs from candy.member.conversation.

    opened ──message 1──▶ ASKING ──message 2──▶ KeepKeys, CONFIRM ──▶ JOINED ──a moment──▶ CONFIRMED
                             │                └── 4010 ──▶ CONFIRM ──▶ WAITING ──APPROVED──▶ JOINED
                             └── refused: the relay's word, in message 2
    behind message 2: CONTROL ─▶ opened, and acted upon;  anything else of the relay's in the clear ─▶ 4012
                      RELAYS ─▶ LearnRelays;  TELL, NOT_SEALING, COMMIT within it, and HANDSHAKE ─▶ candy.member.sealing

Rules:
 1. A close frame is in the clear, so it is believed for nothing: what the relay says stands in message 2 or in CLOSING.
 2. What the log-in gave is written down before the member confirms it.
 3. A relay that closes without a word found no credential that it knows. Anybody on the way can make that, too.
 4. It never goes back to a weaker credential, nor to the log-in of old clients (candy.member.login).
 5. What it sends behind the log-in is sealed when it is decided: each is sent, in the order of the actions.
"""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Interface
from math import inf

from candy.errors import TrustError, WireError
from candy.member.conversation import (
    ANY_ADDRESS,
    CONFIRM_S,
    Action,
    Admitted,
    CameBy,
    Conversation,
    Ending,
    Identity,
    KeepKeys,
    LearnRelays,
    NetworkChanged,
    Shake,
    Tell,
)
from candy.member.cures import CURES, FINAL
from candy.member.login import LogIn, Outcome, refusal
from candy.member.routeset import RouteSet
from candy.member.trust import Known
from candy.protocol import control, keys, wire
from candy.protocol.actions import Close, Drop, Log, Send
from candy.protocol.closing import CloseCode
from candy.protocol.handshake import HANDSHAKE
from candy.protocol.hello import Hello
from candy.protocol.keys import Shown, Verify
from candy.protocol.login import LOGIN, Asked, Asks, Credential, Tells
from candy.protocol.wire import DropReason

ANSWER_S = 20.0
"""How long the relay may take: it may have the log-in wait in line, and ask the holder of an address first."""
_MEMBERS = frozenset({wire.Kind.UDP4CONN, wire.Kind.DISCOVERY, wire.Kind.GENERAL})
"""Kinds that old clients send each other, in the clear."""


_DOUBTS: Mapping[CameBy, str] = {
    "password": "is the password right?",
    "invitation": "it does not know the invitation: ask its operator for another",
    "device": "it does not know this device: has it lost its leases.db? Then run candy-client join with an invitation, "
    "or remove this member's file in the folder credential of its state folder, and the password counts again",
}
"""What is wrong, if nobody on the way has done it."""


class KeyedConversation(Conversation):
    """See above.

    Args:
        identity, connection, routes: as for Conversation.
        log_in: of this connection.
        shown: what the relay showed in the 101.
        asked: what the member says of itself, and the address that it asks for.
    """

    def __init__(
        self,
        identity: Identity,
        connection: int,
        routes: RouteSet,
        *,
        log_in: LogIn,
        shown: Shown,
        asked: Asked,
        verify: Verify,
    ) -> None:
        last = None if identity.address is not None or asked.address.ip.is_unspecified else asked.address
        super().__init__(identity, connection, 0, last, routes, extended=True)
        self._log_in = log_in
        self._shown = shown
        self._asked = asked
        self._verify = verify
        self._outcome: Outcome | None = None
        self._channel: control.Channel | None = None
        self._lease = b""
        self._relays: tuple[str, ...] = ()
        """URLs of a set that is not whole yet."""

    @property
    def came_by(self) -> CameBy:
        match self._log_in.credential:
            case Credential.DEVICE:
                return "device"
            case Credential.INVITATION:
                return "invitation"
        return "password"

    def sealed(self, message: bytes) -> bytes:
        """The CONTROL that has this message within, behind the log-in: what is sealed is to be sent at once."""
        assert self._channel is not None
        return self._channel.seal(message)

    def opened(self, now: float) -> list[Action]:
        """Also where the relay is not to be believed: then the connection ends at once."""
        try:
            message = self._log_in.begin(self._shown, self._asked)
        except TrustError as error:
            return self._end(str(error), refused=True)
        self._due = now + ANSWER_S
        return [Send(self._connection, message)]

    def received(self, payload: bytes, now: float, wall: int) -> list[Action]:
        if self._ending is not None:
            return []
        if self._channel is None:
            return self._on_answer(payload, now)
        kind = payload[0] if payload else None
        if kind == control.CONTROL:
            try:
                message = self._channel.opened(payload)
            except WireError as error:
                return self._break(error.reason)
            return self._on_control(message, now)
        if kind in control.WITHIN:
            return self._break(DropReason.BAD_CONTROL)
        if kind == HANDSHAKE and self._address is not None:
            return [Shake(payload)]
        if kind not in _MEMBERS:
            return [Drop(self._connection, DropReason.UNEXPECTED_KIND)]
        return super().received(payload, now, wall)

    def ponged(self, now: float) -> list[Action]:
        """A PONG says nothing that message 2 has not said."""
        return []

    def expired(self, now: float) -> list[Action]:
        if now >= self._due and self._outcome is None:
            return self._end(f"the relay did not answer the log-in within {ANSWER_S:g} s")
        return super().expired(now)

    def closing(self, payload: bytes) -> None:
        """Nothing: rule 1."""

    def _on_answer(self, payload: bytes, now: float) -> list[Action]:
        if payload[:1] != bytes([LOGIN]):
            return [Drop(self._connection, DropReason.UNEXPECTED_KIND)]
        try:
            outcome = self._log_in.read(payload)
        except WireError as error:
            text = "the relay's answer to the log-in can't be read: something on the way has changed it"
            return [Drop(self._connection, error.reason), *self._end(text)]
        if not outcome.is_in and not outcome.waits:
            self._ending = Ending(refusal(outcome.told), refused=True, final=outcome.is_final)
            self._due = inf
            # The relay closes behind it.
            return []
        self._outcome = outcome
        self.relay_clock = outcome.told.clock or None
        self._channel = self._log_in.channel(outcome)
        self._lease = outcome.told.lease
        keep = KeepKeys(outcome.known, outcome.ticket)
        if outcome.is_in:
            return [keep, *self._on_address(outcome.told.address, now)]
        self._due = inf
        return [keep, self._confirm(), Log("warning", f"{refusal(outcome.told)}: {self._log_in.fingerprint}")]

    def _on_address(self, address: IPv4Interface, now: float) -> list[Action]:
        own = self._identity.address
        if own is None:
            return self._on_granted(address, now)
        if address != own:
            return self._end(f"the relay gave {address} in place of {own}, this member's own", refused=True)
        return self._join(own, now)

    def _on_control(self, payload: bytes, now: float) -> list[Action]:
        assert self._outcome is not None
        try:
            message = control.decode(payload)
            match message:
                case control.Closing():
                    self._on_closing(message)
                    return []
                case control.Approved() if self._address is None:
                    self._lease = message.lease
                    return self._on_address(message.address, now)
                case control.NetworkKey():
                    known = self._outcome.known.succeeded(message.succession, self._verify)
                    kept = self._keep(known, f"the network has another key: {keys.fingerprint(known.network)}")
                    return [*kept, NetworkChanged(known.network)]
                case control.RelayKey():
                    known = self._outcome.known.renewed(message.key, self._verify)
                    return self._keep(known, "the relay has another key, signed by the network's")
                case wire.Route() if self._address is not None:
                    return self._on_route(message, now)
                case wire.Behind() if self._address is not None:
                    return self._on_behind(message)
                case control.Relays():
                    return self._on_relays(message)
                case control.Tell() | control.NotSealing() | control.Commit() if self._address is not None:
                    return [Tell(message)]
        except TrustError as error:
            return [Log("warning", f"not believed: {error}")]
        except WireError as error:
            return self._on_unusable(payload, error)
        return [Drop(self._connection, DropReason.UNEXPECTED_KIND)]

    def _on_relays(self, message: control.Relays) -> list[Action]:
        assert self._outcome is not None
        if message.first == 0:
            self._relays = ()
        if message.first != len(self._relays):
            # Some are missing.
            return []
        self._relays += message.urls
        if len(self._relays) < message.total:
            return []
        return [LearnRelays(self._outcome.known.network, self._relays)]

    def _on_closing(self, message: control.Closing) -> None:
        told, code = message.text or f"code {message.code}", message.code
        if code == CloseCode.REPLACED:
            self._ending = Ending(
                f"replaced: {told}: is there a copy of this machine, or of its state folder? "
                "If so, remove the file in the device folder of one of them, and have it join anew",
                replaced=True,
                by_key=True,
            )
        elif cure := CURES.get(code):
            self._ending = Ending(f"refused by the relay: {told}: {cure}", refused=True, final=code in FINAL)
        else:
            self._ending = Ending(f"closed by the relay: {told}", held=self.confirmed is not None)

    def _join(self, address: IPv4Interface, now: float) -> list[Action]:
        actions = super()._join(address, now)
        self._due = now + CONFIRM_S
        return actions

    def _claim(self, address: IPv4Interface) -> list[Action]:
        # One that waited for approval has confirmed already.
        assert self._outcome is not None
        flags = self._outcome.told.flags
        admitted = Admitted(
            connection=self._connection,
            device=self._log_in.device,
            address=address.ip,
            lease=self._lease,
            network=self._outcome.known.network,
            checks_source=not flags & Tells.CHECKS_NO_SOURCE,
            allows_links=not flags & Tells.NO_DIRECT_LINKS,
            shares_password=Tells.ADMITS_OLD | Tells.SHARES_PASSWORD in flags,
        )
        # Behind the confirmation, since what follows from it is said within CONTROL as well.
        return [admitted] if self._outcome.waits else [self._confirm(), admitted]

    def _greet(self) -> list[Action]:
        return []

    def _confirm(self) -> Send:
        return Send(self._connection, self.sealed(control.Confirm().encode()))

    def _break(self, reason: str) -> list[Action]:
        """What the relay tells can't be relied upon any more."""
        self._ending = Ending(
            "what the relay told was changed, left out or repeated on the way: something there meddles with it",
            held=self.confirmed is not None,
        )
        self._due = self._told_all_at = inf
        return [Drop(self._connection, reason), Close(self._connection, CloseCode.BROKEN_CONTROL, "")]

    def _keep(self, known: Known, text: str) -> list[Action]:
        assert self._outcome is not None
        self._outcome = replace(self._outcome, known=known)
        return [KeepKeys(known, None), Log("info", text)]

    def _closed_without_reason(self, now: float) -> Ending:
        if self._outcome is not None:
            return Ending("the connection was lost", held=True)
        return Ending(f"the relay closed without a word: {_DOUBTS[self.came_by]}", refused=True)


def keyed(
    identity: Identity,
    connection: int,
    last: IPv4Interface | None,
    routes: RouteSet,
    log_in: LogIn,
    shown: Shown,
    instance: int,
    verify: Verify,
    flags: Asks,
) -> KeyedConversation:
    """The conversation of a member with a relay that showed this.

    Args:
        last: the address that it had last, None for none.
        instance: what it calls itself as long as it runs.
        flags: how it seals.
    """
    if identity.address is not None:
        flags |= Asks.IS_FIXED
    asked = Asked(
        vmac=identity.vmac,
        address=identity.address or last or ANY_ADDRESS,
        flags=flags,
        instance=instance,
        hello=Hello.parse(identity.hello) or Hello(),
    )
    return KeyedConversation(identity, connection, routes, log_in=log_in, shown=shown, asked=asked, verify=verify)
