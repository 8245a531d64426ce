"""A new device's log-in with a key, by password, as the members of bench/members.py make it."""

import functools
import os
from ipaddress import IPv4Address

from candy.member.login import Credentials
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
    """

    def __init__(self, head: bytes, password: bytes) -> None:
        lines = (line.partition(": ") for line in head.decode().split("\r\n"))
        shown = Shown.parse({name: value for name, _, value in lines}.get)
        device, ephemeral = _made.pop()
        self._member = MemberLogIn(
            device,
            Credentials(stretched=lambda network: _stretched(password, network)),
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
        self.ip = outcome.told.address.ip
        self._sends = Cipher(NOISE, outcome.sends)
        return False

    def confirmed(self) -> list[bytes]:
        """CONFIRM, and a question."""
        assert self._sends is not None
        sends = self._sends
        return [control.seal(sends, each.encode()) for each in (control.Confirm(), control.Ask((self.ip,)))]


_verified = functools.cache(verify)
