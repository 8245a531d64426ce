"""A device's log-in with a key, as the members of the benchmarks make it: by password, and once it has come by its own
credential."""

import functools
import os
from ipaddress import IPv4Address

from candy.member.login import Credentials, Ticket
from candy.member.login import LogIn as MemberLogIn
from candy.primitives import NOISE, key_pair, verify
from candy.protocol import control
from candy.protocol.keys import Shown, of_password
from candy.protocol.login import Asked
from candy.protocol.noise import Cipher, KeyPair

OFFERED = b"candy.3, candy.2"
_stretched = functools.cache(of_password)
_made: list[tuple[KeyPair, KeyPair]] = []
"""Of devices to come: the key pair that each has, and the one of its log-in."""


def make_keys(devices: int) -> None:
    """Of so many devices, before the time is taken in which they log in."""
    _made.extend((key_pair(os.urandom(32)), key_pair(os.urandom(32))) for _ in range(devices))


class LogIn:
    """One connection's, behind its upgrade.

    Args:
        head: of the relay's 101.
        before: the same device's log-in before this one; None: it is a new device.
    """

    def __init__(self, head: bytes, password: bytes, before: "LogIn | None" = None) -> None:
        lines = (line.partition(": ") for line in head.decode().split("\r\n"))
        shown = Shown.parse({name: value for name, _, value in lines}.get)
        device, ephemeral = _made.pop()
        self._device: KeyPair = device if before is None else before._device
        self._ticket: Ticket | None = None if before is None else before._ticket
        self._member = MemberLogIn(
            self._device,
            Credentials(ticket=self._ticket, stretched=lambda network: _stretched(password, network)),
            configured=shown.key.network,
            known=None,
            offered=("candy.3", "candy.2"),
            ephemeral=ephemeral,
            primitives=NOISE,
            verify=_verified,
        )
        self.message_1 = self._member.begin(shown, Asked())
        self.ip = IPv4Address(0)
        self._sends: Cipher | None = None

    def is_told(self, payload: bytes) -> bool:
        """Whether this is the answer to its question; else it is message 2."""
        if self._sends is not None:
            return payload[0] == control.CONTROL
        outcome = self._member.read(payload)
        if not outcome.is_in:
            raise ConnectionError(f"the relay refuses a device: {outcome.told}")
        self._ticket = outcome.ticket or self._ticket
        self.ip = outcome.told.address.ip
        self._sends = Cipher(NOISE, outcome.sends)
        return False

    def confirmed(self) -> list[bytes]:
        """CONFIRM, and a question."""
        assert self._sends is not None
        sends = self._sends
        return [control.seal(sends, each.encode()) for each in (control.Confirm(), control.Ask((self.ip,)))]


_verified = functools.cache(verify)
