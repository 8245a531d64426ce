"""What one member logs in by, and whom it believes, from one connection to the next: between its key files and LogIn.

    files of candy.member.keys ─┐
    password, line, invitation ─┼─▶ log_in(shown) ─▶ LogIn ─▶ … ─▶ KeepKeys ─▶ keep(): the files
    scrypt, on a thread        ─┘

Rules:
 1. The files are read anew for each log-in: candy-client join and accept write them while the member runs.
 2. The device's key is made when a relay first asks for it, so that a member that needs none can do without a folder
    that can be written.
 3. A file that can't be read costs the connection, and the member tries again (KeysUnusable). At the start it is an
    error. In neither case is it written over.
 4. What a folder does not take is in memory until it does, as other state is: a full disk, or one that is read-only,
    keeps nobody out. It is said, for after the next start this would be another device. An invitation is not redeemed
    so: it lets in once.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from candy.errors import KeysUnusable, OperationalError, UnwritableError
from candy.member.keys import MemberKeys
from candy.member.login import Credentials, LogIn, Ticket
from candy.member.trust import Known
from candy.primitives import NOISE, key_pair, verify
from candy.protocol.keys import Shown, fingerprint, of_password
from candy.protocol.link import Invitation
from candy.protocol.login import OFFERED
from candy.protocol.noise import KEY_BYTES, KeyPair

_log = logging.getLogger(__name__)


class Keyring:
    """See above.

    Args:
        keys: the files.
        password: None: it has none.
        network: the network's key of its line.
        invitation: to log in by in place of all else.
        randbytes: returns that many random bytes.
        stretch: as of_password; it is called on a thread.

    Raises:
        OperationalError: a file is damaged, or others can read it.
    """

    def __init__(
        self,
        keys: MemberKeys,
        *,
        password: bytes | None,
        network: bytes | None = None,
        invitation: Invitation | None = None,
        randbytes: Callable[[int], bytes],
        stretch: Callable[[bytes, bytes], bytes] = of_password,
    ) -> None:
        self._keys = keys
        self._password = password
        self._network = network
        self._invitation = invitation
        self._randbytes = randbytes
        self._stretch = stretch
        self._stretched: dict[bytes, bytes] = {}
        """The password's pre-shared key, by network's key: one, the last."""
        self._private: bytes | None = None
        """The device's, drawn here."""
        self._known: Known | None = None
        self._ticket: Ticket | None = None
        """What is in memory alone."""
        self._is_said = False
        keys.check()

    @property
    def has_password(self) -> bool:
        return self._password is not None

    def knows_network(self) -> bool:
        """Whether it refuses a relay without candy.3. Raises KeysUnusable."""
        return self.network() is not None

    def network(self) -> bytes | None:
        """The network's key, as far as it knows one. Raises KeysUnusable."""
        with _usable():
            known = self._known_now()
        return self._network if known is None else known.network

    def fingerprints(self) -> tuple[str | None, str | None]:
        """Of the network's key and of the device's, as far as there are any. Raises KeysUnusable."""
        with _usable():
            network, device = self.network(), self._keys.device_if_made()
        if device is None and self._private is not None:
            device = key_pair(self._private)
        return (
            None if network is None else fingerprint(network),
            None if device is None else fingerprint(device.public),
        )

    async def log_in(self, shown: Shown) -> LogIn:
        """For one connection to the relay that shows this. Raises KeysUnusable."""
        with _usable():
            device = self._device()
            self._write()
            ticket, known = self._ticket or self._keys.ticket(), self._known_now()
        invitation = self._invitation
        if invitation is not None:
            ticket, known = None, self._seen(invitation, known)
        if ticket is None and invitation is None and self._password is not None:
            await self._stretch_under(shown.key.network, self._password)
        return LogIn(
            device,
            Credentials(
                ticket=ticket,
                invitation=invitation,
                stretched=None if self._password is None else self._stretched.__getitem__,
            ),
            configured=self._network,
            known=known,
            offered=OFFERED,
            ephemeral=key_pair(self._randbytes(KEY_BYTES)),
            primitives=NOISE,
            verify=verify,
        )

    def keep(self, known: Known, ticket: Ticket | None) -> None:
        """Write down what a log-in gave, or the relay told. Raises KeysUnusable."""
        with _usable():
            kept = self._known_now()
            # A connection beside this one may have been told more, since this one was shown what it knows.
            if kept is None or not known.is_before(kept):
                self._known = known if kept is None else known.beside(kept)
            self._ticket = ticket or self._ticket
            self._write()

    def _known_now(self) -> Known | None:
        return self._known or self._keys.known()

    def _device(self) -> KeyPair:
        def draw(length: int) -> bytes:
            self._private = self._private or self._randbytes(length)
            return self._private

        try:
            return self._keys.device(draw)
        except UnwritableError:
            if self._invitation is not None:
                raise
            self._say()
            return key_pair(draw(KEY_BYTES))

    def _write(self) -> None:
        """What is in memory alone."""
        try:
            if self._known is not None:
                self._keys.keep_known(self._known)
                self._known = None
            if self._ticket is not None:
                self._keys.keep_ticket(self._ticket)
                self._ticket = None
        except UnwritableError:
            if self._invitation is not None:
                raise
            self._say()

    def _say(self) -> None:
        if not self._is_said:
            _log.warning(
                "this device's keys are in memory until the state folder takes them: after the next start it would be "
                "another device, and know no network"
            )
        self._is_said = True

    def _seen(self, invitation: Invitation, known: Known | None) -> Known | None:
        """What is kept, or the invitation's relay, if that is newer or another."""
        if self._network is None:
            return known
        theirs = Known(invitation.number, invitation.relay, invitation.generation, (self._network,))
        if known is None or self._network not in known.passed:
            return theirs
        is_older = (known.network, known.number) == (theirs.network, theirs.number) and (
            known.generation <= theirs.generation
        )
        return theirs if is_older else known

    async def _stretch_under(self, network: bytes, password: bytes) -> None:
        if network not in self._stretched:
            stretched = await asyncio.to_thread(self._stretch, password, network)
            self._stretched = {network: stretched}


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise KeysUnusable(str(error)) from error
