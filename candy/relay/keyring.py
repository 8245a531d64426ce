"""A network's keys while it is served: log-ins under them, and what its passwords become by them.

    keyring_of(files) ─▶ Keyring ─▶ ready() ─▶ log_in(): headers for the 101, and the rest of a log-in
                            └─▶ rotate(), rotate_network(): another key; log-ins under way keep theirs

Rules:
 1. A password is stretched once for each network's key, on a thread of its own, before the first log-in by one is read:
    nobody can have that done twice, and nobody waits for it but who logs in so.
 2. A relay that can't write new keys goes on without candy.3, and says so. Keys that are damaged, or that others can
    read, end its start (candy.relay.keys).
"""

import asyncio
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from candy.errors import UnwritableError
from candy.primitives import NOISE, key_pair
from candy.protocol.keys import of_password
from candy.protocol.noise import KeyPair
from candy.relay.enrolment import Enrolment
from candy.relay.keys import RelayKeys
from candy.relay.login import LogIn, RelayKeyPair
from candy.relay.passwords import Password

log = logging.getLogger("candy.relay")

_stretching = ThreadPoolExecutor(1, "scrypt")
"""One at a time, for all networks: each takes 32 MB meanwhile."""


class Keyring:
    """See the rules above.

    Args:
        files: of the network.
        current: what they hold.
        enrolment: the network's.
    """

    def __init__(self, files: RelayKeys, current: RelayKeyPair, enrolment: Enrolment) -> None:
        self._files = files
        self.current = current
        self._enrolment = enrolment
        self._lock = asyncio.Lock()
        enrolment.renew(current.key)

    def is_ready(self, passwords: Iterable[Password]) -> bool:
        """Whether these can be proven."""
        return all(each.secret in self._enrolment.stretched for each in passwords)

    async def ready(self, passwords: Iterable[Password]) -> None:
        """Wait until these can be proven, or the network has another key."""
        async with self._lock:
            loop, network = asyncio.get_running_loop(), self._enrolment.network
            for each in passwords:
                if each.secret in self._enrolment.stretched:
                    continue
                psk = await loop.run_in_executor(_stretching, of_password, each.secret, network)
                if network != self._enrolment.network:
                    return
                self._enrolment.stretched[each.secret] = psk

    def log_in(self, offered: Sequence[str]) -> LogIn:
        """Of a connection that is being upgraded, whose request offers these subprotocols."""
        return LogIn(self.current, offered, os.urandom, NOISE, key_pair)

    def rotate(self, wall: int) -> RelayKeyPair:
        """See RelayKeys.rotate(); then tell members."""
        self.current = self._files.rotate(wall)
        return self.current

    def rotate_network(self, wall: int) -> RelayKeyPair:
        """See RelayKeys.rotate_network(); then tell members."""
        self.current = self._files.rotate_network(wall)
        return self.current

    def own_device(self) -> KeyPair:
        """Of the relay's own interface. Raises OperationalError."""
        return self._files.own_device()

    @property
    def times(self) -> Path:
        """The file of that interface's times."""
        return self._files.times


def keyring_of(
    files: RelayKeys, enrolment: Enrolment, wall: int, label: str, number: int | None = None
) -> Keyring | None:
    """None: see rule 2.

    Args:
        label: the beginning of the network's lines in the log.
        number: as for RelayKeys.current().

    Raises:
        OperationalError: see rule 2.
    """
    try:
        current = files.current(wall, number)
    except UnwritableError as error:
        log.warning("%sno log-ins with keys: %s", label, error)
        return None
    return Keyring(files, current, enrolment)
