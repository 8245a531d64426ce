"""How many datagrams are sealed under random IVs with the password of old clients, in all runs of the program.

    began() ─▶ kept count ─▶ engine counts on ─ looked() ─▶ keep(), ahead of it ─▶ … ─▶ is_used_up

SEALED_MOST is all that one password has, for the keys that are made of it stay the same. What is kept is ahead of what
was sealed, so a killed program does not begin again where it began.
"""

import logging
from collections.abc import Callable
from typing import Final

SEALED_MOST: Final = 1 << 32
"""Of random IVs under one key (NIST SP 800-38D, 8.3)."""
COUNT_AHEAD: Final = 1 << 22
"""By so many the count that is kept is ahead of what was sealed, at most. A killed program loses this thousandth."""

_log = logging.getLogger(__name__)


class SealedCount:
    """See above.

    Attributes:
        kept: what was kept of a password's count.
        keep: keeps it.
    """

    def __init__(self) -> None:
        self.kept: Callable[[bytes], int] = lambda password: 0
        self.keep: Callable[[bytes, int], object] = lambda password, count: None
        self.is_used_up = False
        self._password = b""
        self._counted = 0
        """What is kept, or would be."""

    def begin(self, password: bytes) -> int:
        """Count what is sealed with this password on from here: from SEALED_MOST on nothing may be."""
        if password != self._password:
            self.is_used_up = False
        self._password = password
        self._counted = self.kept(password)
        self._judge(self._counted)
        return self._counted

    def look(self, sealed: int) -> None:
        """So many are sealed by now."""
        if self.is_used_up:
            return
        self._judge(sealed)
        if not self.is_used_up and sealed > self._counted - COUNT_AHEAD // 2:
            self._keep(sealed + COUNT_AHEAD)

    def end(self, sealed: int) -> None:
        """So many were sealed in all, and no more are."""
        self._keep(sealed)

    def _keep(self, count: int) -> None:
        if count != self._counted:
            self._counted = count
            self.keep(self._password, count)

    def _judge(self, sealed: int) -> None:
        if sealed >= SEALED_MOST and not self.is_used_up:
            self.is_used_up = True
            _log.warning(
                "no direct links with old clients any more: 2^32 datagrams are what their format can keep apart. "
                "Packets for them go by the relay; another password has links again"
            )
