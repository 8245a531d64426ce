"""A member that a test plays by hand and that logs in with a key: candy.3 on a blocking socket.

    KeyedMember.connect() ─▶ 101, its headers ─▶ log_in() ─▶ Outcome, CONFIRM ─▶ tell(), heard() ─▶ close()

What it does with keys is the member's own code (candy.member.login); what it sends is right unless a test says
otherwise.
"""

import functools
import os
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Any, Self

from kit.primitives import PRIMITIVES, pair
from lab.member import Member
from lab.programs import PASSWORD, connect

from candy.member.login import Credentials, LogIn, Outcome
from candy.member.trust import Known
from candy.primitives import verify
from candy.protocol import control
from candy.protocol.control import Confirm, FromRelay
from candy.protocol.keys import Shown, of_password
from candy.protocol.login import Asked
from candy.protocol.noise import Cipher, KeyPair

OFFERED = ("candy.3", "candy.2")


def device() -> KeyPair:
    """One that nobody else is."""
    return pair(os.urandom(32))


_stretched = functools.cache(of_password)


def by_password(password: str = PASSWORD) -> Credentials:
    return Credentials(stretched=lambda network: _stretched(password.encode(), network))


class KeyedMember(Member):
    """A connection behind its upgrade, as for Member.

    Args:
        offered: subprotocols.
        headers: further lines of the request.
    """

    def __init__(
        self, opened: Any, *, offered: Sequence[str] = OFFERED, headers: Sequence[str] = (), **more: Any
    ) -> None:
        self.offered = tuple(offered)
        super().__init__(opened, headers=[f"Sec-WebSocket-Protocol: {', '.join(offered)}", *headers], **more)
        lines = (line.partition(": ") for line in self.head.split("\r\n")[1:])
        self.headers = {name: value for name, _, value in lines}
        self._sends: Cipher | None = None
        self._receives: Cipher | None = None

    @classmethod
    def connect(cls, address: tuple[str, int], **more: Any) -> Self:
        return cls(connect(address), **more)

    @property
    def shown(self) -> Shown:
        return Shown.parse(self.headers.get)

    def begin(
        self,
        credentials: Credentials,
        device: KeyPair,
        asked: Asked | None = None,
        *,
        configured: bytes | None = None,
        known: Known | None = None,
        change: Callable[[bytes], bytes] = lambda message: message,
    ) -> LogIn:
        """Send message 1, perhaps changed."""
        log_in = LogIn(
            device,
            credentials,
            configured=configured,
            known=known,
            offered=self.offered,
            ephemeral=pair(os.urandom(32)),
            primitives=PRIMITIVES,
            verify=verify,
        )
        self.send(change(log_in.begin(self.shown, asked if asked is not None else Asked())))
        return log_in

    def answered(self, credentials: Credentials, device: KeyPair, asked: Asked | None = None, **more: Any) -> Outcome:
        """What message 2 says; from here on CONTROL can be spoken."""
        log_in = self.begin(credentials, device, asked, **more)
        outcome = log_in.read(self.receive_message())
        self._sends, self._receives = Cipher(PRIMITIVES, outcome.sends), Cipher(PRIMITIVES, outcome.receives)
        return outcome

    def enter(self, credentials: Credentials, device: KeyPair, asked: Asked | None = None, **more: Any) -> Outcome:
        """Become a member, and wait until it is one."""
        outcome = self.answered(credentials, device, asked, **more)
        assert outcome.is_in, outcome.told
        self.ip = outcome.told.address.ip
        self.tell(Confirm())
        self.settle()
        return outcome

    def tell(self, message: control.FromMember) -> None:
        self.send(self.sealed(message.encode()))

    def sealed(self, message: bytes) -> bytes:
        """The next CONTROL."""
        assert self._sends is not None
        return control.seal(self._sends, message)

    def heard(self) -> FromRelay:
        """The next message, within a CONTROL."""
        return self.opened(self.receive_message())

    def opened(self, sealed: bytes) -> FromRelay:
        """What is within the next CONTROL."""
        assert self._receives is not None
        message = control.decode(control.opened(self._receives, sealed))
        assert not isinstance(message, control.Ask | control.Confirm)
        return message

    def closing(self) -> tuple[int, str]:
        """What the relay says before it closes; the code of the close frame is the same."""
        message = self.heard()
        assert isinstance(message, control.Closing), message
        assert self.end() == message.code
        return message.code, message.text

    def asked(self, *addresses: str) -> tuple[control.Peer, ...]:
        """What the relay says of these addresses. Everything sent before was seen by it then."""
        self.tell(control.Ask(tuple(map(IPv4Address, addresses))))
        message = self.heard()
        assert isinstance(message, control.Tell), message
        return message.peers

    def settle(self) -> list[bytes]:
        """Return once all that was sent was acted upon in Python."""
        assert self.ip is not None
        [me] = self.asked(str(self.ip))
        assert me.address == self.ip
        return []
