"""The member's keys, in its state folder: who it is, how it gets in, and whom it believes.

    device/NAME         its private key, 32 bytes: made once
    credential/NAME     selector 16, secret 32: given by the relay at the first log-in
    network/NAME        what it knows of network and relays (candy.member.trust)

NAME is that of the member's other files (candy.member.state).

Rule: a file that is damaged, or that others can read, ends the start (candy.host.keyfiles). What a log-in gives is
written before the member uses it; what a folder does not take candy.member.keyring has in memory.
"""

from collections.abc import Callable
from pathlib import Path

from candy.host import keyfiles
from candy.member.login import Ticket
from candy.member.state import NONAME
from candy.member.trust import Known
from candy.protocol.keys import SECRET_BYTES, SELECTOR_BYTES
from candy.protocol.noise import KEY_BYTES, KeyPair


class MemberKeys:
    """The files of one member.

    Args:
        folder: from state_folder().
        name: the member's --name; MemberState has checked that it can be a file's.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        self._folder = folder
        self._name = name or NONAME

    def device(self, draw: Callable[[int], bytes]) -> KeyPair:
        """Its key, made from draw(32) at the first call. Raises OperationalError."""
        return _pair(keyfiles.make(self._folder, self._path("device"), KEY_BYTES, "device's key", draw))

    def device_if_made(self) -> KeyPair | None:
        """Its key; None as long as it has none. Raises OperationalError."""
        kept = keyfiles.read(self._path("device"), (KEY_BYTES,), "device's key")
        return None if kept is None else _pair(kept)

    def check(self) -> None:
        """Whether all that there is can be used. Raises OperationalError."""
        self.device_if_made()
        self.ticket()
        self.known()

    def ticket(self) -> Ticket | None:
        """Its credential; None as long as it has none. Raises OperationalError."""
        length = SELECTOR_BYTES + SECRET_BYTES
        kept = keyfiles.read(self._path("credential"), (length,), "device's credential")
        return None if kept is None else Ticket.decode(kept)

    def keep_ticket(self, ticket: Ticket) -> None:
        """Raises OperationalError."""
        keyfiles.replace(self._folder, self._path("credential"), ticket.encode())

    def known(self) -> Known | None:
        """What it knows of network and relay; None before the first log-in. Raises OperationalError."""
        path, what = self._path("network"), "network's and relay's key"
        kept = keyfiles.read(path, Known.LENGTHS, what)
        try:
            return None if kept is None else Known.decode(kept)
        except ValueError:
            raise keyfiles.damaged(path, what) from None

    def keep_known(self, known: Known) -> None:
        """Raises OperationalError."""
        if known != self.known():
            keyfiles.replace(self._folder, self._path("network"), known.encode())

    def _path(self, kind: str) -> Path:
        return self._folder / kind / self._name


def _pair(private: bytes) -> KeyPair:
    # The engine, for which commands that only look for a credential need not wait.
    from candy.primitives import key_pair

    return key_pair(private)
