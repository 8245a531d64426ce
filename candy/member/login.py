"""The member's half of a log-in with keys, on one connection: which credential, whom it believes, what follows.

    headers of the 101 ─▶ begin() ─▶ message 1
                          read(message 2) ─▶ Outcome: let in, or why not; what to keep before CONFIRM; the keys

Rules:
 1. A member that has a device's credential uses no other. It goes back to an invitation or a password by its user's
    hand alone: who has stolen the relay's key could ask for that by refusing.
 2. One with a network's key, from its line or kept, refuses a relay without candy.3 and logs in by no AUTH.
 3. Before message 2 has opened nothing is believed, and nothing kept. Then network's key, relay's key and credential
    are, by the adapter, before it sends CONFIRM.
 4. A refusal in message 2 is the relay's. Any other end is none: a connection that was lost.

No I/O. Primitives are arguments.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from candy.errors import TrustError, WireError
from candy.member.cures import CURES, FINAL
from candy.member.trust import Known, judge
from candy.protocol import control, keys
from candy.protocol.closing import CloseCode
from candy.protocol.keys import Shown, Verify
from candy.protocol.link import Invitation
from candy.protocol.login import NO_SELECTOR, Asked, Credential, Login, Tells, Told, control_key, prologue
from candy.protocol.noise import IKPSK1, Handshake, KeyPair, NoiseError, Primitives
from candy.protocol.wire import DropReason

OLD_RELAY = (
    "the relay does not speak candy.3, but this member knows the network's key: something on the way has changed the "
    "upgrade, or the relay went back to an older candy; without a key in the URL and the member's file in the folder "
    "network of its state folder it would log in as old clients do"
)


WITHOUT_EXTENSION = (
    "--no-extension logs in as old clients do, but this member knows the network's key, and then never does: remove "
    "--no-extension"
)
WITHOUT_PASSWORD = (
    "the relay does not speak candy.3, and without that this member needs the network's password: set CANDY_PASSWORD, "
    "or add --password-file FILE"
)


WITHOUT_SEALING = (
    "the relay does not speak candy.3, so nothing can be sealed, and this member sends nothing in the clear: update "
    "the relay, or remove --secret and --seal require"
)


NO_CREDENTIAL = (
    "no password given: set CANDY_PASSWORD, or add --password-file FILE, or run candy-client join with an invitation"
)


def why_not_by_hash(*, knows_network: bool, extension: bool, seals_alone: bool, has_password: bool) -> str | None:
    """Why this member does not log in as old clients do, at a relay without candy.3; None if it does.

    Args:
        knows_network: rule 2 holds.
        extension: it offers candy.3.
        seals_alone: it sends nothing in the clear.
    """
    if knows_network:
        return OLD_RELAY if extension else WITHOUT_EXTENSION
    if seals_alone:
        return WITHOUT_SEALING
    return None if has_password else WITHOUT_PASSWORD


@dataclass(frozen=True, slots=True)
class Ticket:
    """A device's own credential."""

    selector: bytes
    secret: bytes = field(repr=False)

    def encode(self) -> bytes:
        """As its file has it."""
        return self.selector + self.secret

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Of 48 bytes."""
        return cls(data[: keys.SELECTOR_BYTES], data[keys.SELECTOR_BYTES :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a member has to log in by; of these the first."""

    ticket: Ticket | None = None
    invitation: Invitation | None = None
    stretched: Callable[[bytes], bytes] | None = field(default=None, repr=False)
    """The pre-shared key of its password, under a network's key; None: it has no password."""

    def choose(self, network: bytes) -> tuple[Credential, bytes, bytes]:
        """Which, its selector and its pre-shared key under this network's key. Raises TrustError without any."""
        if self.ticket is not None:
            return Credential.DEVICE, self.ticket.selector, keys.of_device(self.ticket.secret, network)
        if self.invitation is not None:
            return Credential.INVITATION, self.invitation.selector, keys.of_invitation(self.invitation.secret, network)
        if self.stretched is not None:
            return Credential.PASSWORD, NO_SELECTOR, self.stretched(network)
        raise TrustError("this member has neither credential nor password: run candy-client join with an invitation")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What message 2 says. Keep `known` and `ticket` before anything is sent."""

    told: Told
    known: Known
    ticket: Ticket | None
    sends: bytes = field(repr=False)
    """The key of the member's CONTROLs."""
    receives: bytes = field(repr=False)
    name: str
    """Of the connection, for logs: the same on both sides."""

    @property
    def is_in(self) -> bool:
        return self.told.code == 0

    @property
    def waits(self) -> bool:
        """For approval; the connection stays open."""
        return self.told.code == CloseCode.APPROVAL_AWAITED

    @property
    def is_final(self) -> bool:
        return self.told.code in FINAL


class LogIn:
    """See the rules above.

    Args:
        device: its key.
        credentials: what it has.
        configured: the network's key of its line.
        known: what it has kept of network and relay.
        offered: the subprotocols of its upgrade, in their order.
        ephemeral: a key pair that serves for this log-in alone.
    """

    def __init__(
        self,
        device: KeyPair,
        credentials: Credentials,
        *,
        configured: bytes | None,
        known: Known | None,
        offered: Sequence[str],
        ephemeral: KeyPair,
        primitives: Primitives,
        verify: Verify,
    ) -> None:
        self.device = device
        self._credentials = credentials
        self._configured = configured
        self._known = known
        self._offered = tuple(offered)
        self._ephemeral = ephemeral
        self._primitives = primitives
        self._verify = verify
        self._handshake: Handshake | None = None
        self.credential = Credential.NONE
        """What it logs in by, once it has begun."""

    @property
    def has_key(self) -> bool:
        """Whether rule 2 holds."""
        return self._configured is not None or self._known is not None

    @property
    def fingerprint(self) -> str:
        """Of the device's key, as the relay's operator sees it."""
        return keys.fingerprint(self.device.public)

    def begin(self, shown: Shown, asked: Asked) -> bytes:
        """Message 1, to the relay that shows this. A password takes 0.2 s here.

        Raises:
            TrustError: the relay is not to be believed, or there is nothing to log in by; the text is for the user.
        """
        self._known = judge(shown, self._configured, self._known, self._verify)
        self.credential, selector, psk = self._credentials.choose(shown.key.network)
        head = Login(1, self.credential, selector, b"")
        self._handshake = Handshake(
            IKPSK1,
            self._primitives,
            is_initiator=True,
            prologue=prologue(shown.key, shown.nonce, self._offered, head.head),
            static=self.device,
            ephemeral=self._ephemeral,
            remote=shown.key.relay,
            psk=psk,
        )
        try:
            return head.encode() + self._handshake.write(asked.encode())
        except NoiseError as error:
            raise TrustError(f"the relay's key can't be one: {error}") from None

    def read(self, message: bytes) -> Outcome:
        """What the relay answers.

        Raises:
            WireError: it is no answer of the relay that was shown.
        """
        assert self._handshake is not None
        assert self._known is not None
        try:
            told = Told.decode(self._handshake.read(Login.decode(message, 2).noise))
            sends, receives = map(control_key, self._handshake.split())
        except NoiseError as error:
            raise WireError(DropReason.BAD_LOGIN) from error
        # A refusal gives none, but to a device that waits for approval.
        may_give = told.code in (0, CloseCode.APPROVAL_AWAITED)
        ticket = Ticket(told.selector, told.secret) if may_give and told.flags & Tells.GIVES_CREDENTIAL else None
        return Outcome(told, self._known, ticket, sends, receives, self._handshake.hash[:8].hex())

    def channel(self, outcome: Outcome) -> control.Channel:
        """What follows goes by this."""
        return control.Channel(self._primitives, outcome.sends, outcome.receives)


def refusal(told: Told) -> str:
    """A line for the user, which says how to mend it."""
    said = told.text or f"code {told.code}"
    cure = CURES.get(told.code)
    return f"refused by the relay: {said}" + (f": {cure}" if cure is not None else "")
