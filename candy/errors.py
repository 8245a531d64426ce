"""Every exception that candy raises on purpose, in one tree.

    CandyError
    ├── ConfigError        what the user wrote can't be right: exit status 2
    ├── OperationalError   the machine or the network refused: exit status 1
    │   ├── AddressTaken   another interface of this machine has the address
    │   ├── TookTooLong    an attempt to connect has run out of time
    │   ├── InterfaceGone  another program removed an interface of ours
    │   └── KeysUnusable   a running member can't use its keys
    ├── RequestError       what somebody asked of the running relay can't be done
    ├── WireError          a message that is not one of the protocol
    ├── TrustError         what a relay shows of its keys is not to be believed
    └── PoolFull           no address left to grant

Rules: the text of a ConfigError or OperationalError is one line that says what is wrong and how to mend it;
the commands print it as it is and exit with `exit_status`. That of a RequestError is such a line for who asked.
WireError and PoolFull never leave the protocol core: a bad message costs a counter, not the relay. The text of a
TrustError is a line for the member's user, and costs it the connection. Nothing outside this tree is caught at the top,
so that a bug shows with its traceback.
"""

from typing import ClassVar


class CandyError(Exception):
    """The root: what derives from it was foreseen."""


class ConfigError(CandyError):
    """A flag, a file or a value in it is wrong; nothing was started."""

    exit_status: ClassVar[int] = 2


class OperationalError(CandyError):
    """The settings are sound, but the machine or the network refused: a port, a device, a file or a peer."""

    exit_status: ClassVar[int] = 1


class UnwritableError(OperationalError):
    """A folder, or a file in it, can't be written."""


class AddressTaken(OperationalError):
    """Another interface has the address that one of ours shall have. It may lose it: a member waits for that."""


class TookTooLong(OperationalError):
    """An attempt to connect has run out of time: nothing was answered, neither yes nor no."""


class InterfaceGone(OperationalError):
    """Another program removed an interface of ours, or gave it another name. Nothing brings it back but a new start."""

    def __init__(self, name: str) -> None:
        super().__init__(f"interface {name} was removed from outside: start again")


class KeysUnusable(OperationalError):
    """A file with a member's keys can't be read, or is damaged. That may be mended: a member that runs tries again."""


class RequestError(CandyError):
    """Nothing was changed: a name that nobody or more than one has, an address that can't be reserved or released.

    Args:
        status: HTTP's, of the answer to who asked.
    """

    def __init__(self, why: str, status: int = 409) -> None:
        super().__init__(why)
        self.status = status


class WireError(CandyError):
    """A message that cannot be decoded. `reason` is one of `candy.protocol.wire.DropReason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TrustError(CandyError):
    """A relay's key, or what should prove it, is malformed, wrongly signed or another than the member knows."""


class PoolFull(CandyError):
    """The pool has no address to grant, or there is no pool; the text says which."""
