"""What has to be written down before a log-in goes on, and how that ended.

    session, roster ─▶ Record(Wanted) ─▶ the store (candy.relay.keeper), or the relays together
    Network.recorded() ◀── Outcome ◀──────┘        (candy.relay.cluster)

A relay that is alone has decided by itself what it has written down. Relays that serve a network together decide by
writing: until then an address, an invitation or a log-in's digest may turn out to be another relay's.

Nothing here does anything.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple, Protocol

from candy.protocol.login import Asks

if TYPE_CHECKING:
    from candy.relay.enrolment import Device


class Outcome(Enum):
    """Of what was to be written down."""

    KEPT = auto()
    UNKEPT = auto()
    """The store fails."""
    AWAY = auto()
    """The other relays can't be asked."""
    HELD = auto()
    """The address is another device's."""
    USED_UP = auto()
    """The invitation is, by others."""
    REPEATED = auto()
    """The digest came before."""


TELL_AWAY = "the relay can't reach what it shares with other relays: try again later"
"""To who is new, meanwhile."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What relays have to agree on, each as far as it is given."""

    ip: int | None = None
    """To be this device's."""
    holder: bytes = b""
    """VMAC or key."""
    takes_from: bytes = b""
    """The device that may lose it."""
    digest: tuple[int, bytes] | None = None
    """An AUTH's timestamp and digest, never to be believed again."""
    device: bytes = b""
    """The key of a device that is new, or has changed."""
    selector: bytes = b""
    """Of the invitation by which it comes."""


class Elsewhere(NamedTuple):
    """A member of another relay's."""

    relay: str
    identity: bytes
    """VMAC or key."""
    lease: bytes = bytes(8)
    """Its number; zeros: it has none."""
    flags: Asks = Asks.SEALS_NOTHING
    commit_bytes: int = 0
    device: int = 0


class Presented(NamedTuple):
    """What the other relays are told of a member."""

    ip: int
    identity: bytes
    lease: bytes
    flags: Asks
    commit_bytes: int
    device: int


class Sharing(Protocol):
    """What a network asks, and tells, of the other relays."""

    def is_settled(self, ip: int, holder: bytes) -> bool:
        """The address is known to be this device's at this relay, so nothing is to be written."""

    def is_written(self, device: "Device") -> bool:
        """The other relays let this device in by the same; whether it has come yet is no matter of theirs."""

    def elsewhere(self, ip: int) -> Elsewhere | None:
        """Who has the address at another relay."""

    def ask(self, ip: int, relay: str) -> None:
        """Have that relay ask its member at this address whether it is still there; Network.probed() says."""

    def used_elsewhere(self, ip: int, holder: bytes, month: int) -> int:
        """Bytes that the device has carried at the other relays in this month, up to their last report."""

    def came(self, member: Presented) -> None:
        """A member has this address here."""

    def went(self, ip: int) -> None:
        """It has it no more."""
