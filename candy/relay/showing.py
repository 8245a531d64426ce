"""The certificates that a relay shows: taken, looked at again, replaced, and what is wrong with them said.

    take(certificates) ─▶ look(), every few seconds ─▶ again(), follow(settings): when settings are read again

Rule: certificates that can't be used leave those before in place, with an error in the log.
"""

import logging
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from candy.carrier.tls import Certificates
from candy.errors import OperationalError
from candy.relay.settings import RelaySettings
from candy.relay.state import certificate_files

_SETTINGS = frozenset({"tls_certificate", "tls_key", "tls_self_signed", "ml_kem"})
"""That decide about certificates."""

log = logging.getLogger("candy.relay")


class Showing:
    """See above."""

    def __init__(self) -> None:
        self.certificates: Certificates | None = None
        """What the door shows; None: no TLS."""

    def take(self, certificates: Certificates) -> None:
        """Show these to members from now on, and say what is wrong with them."""
        self.certificates = certificates
        for doubt in certificates.doubts(time.time()):
            log.warning("%s", doubt)

    def look(self) -> None:
        """Take what has been renewed, by a program that does not know of this relay."""
        if self.certificates is not None:
            self._renew(self.certificates.look)

    def again(self) -> list[str]:
        """Read the files again; returns why they can't be used."""
        return [] if self.certificates is None else self._renew(self.certificates.renew)

    def follow(self, settings: RelaySettings, names: AbstractSet[str]) -> list[str]:
        """Settings differ in `names`; returns why the files that they name can't be used."""
        certificates = self.certificates
        if certificates is None or not names & _SETTINGS:
            return []
        return self._renew(lambda: certificates.use(certificate_files(settings), ml_kem=settings.ml_kem))

    def _renew(self, read: Callable[[], bool]) -> list[str]:
        try:
            if read():
                log.info("the certificate is read again")
                assert self.certificates is not None
                self.take(self.certificates)
        except OperationalError as error:
            log.error("the certificate stays the one before: %s", error)
            return [str(error)]
        return []
