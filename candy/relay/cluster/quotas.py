"""What devices have carried at other relays in this month, so that a quota is of all relays together.

    note(leases) each minute ─▶ rows, numbered ◀── since(number) ── another relay asks for what is new
    take(relay, rows) ─▶ elsewhere(word, ip, holder, month): the sum of what the others have counted

Rules:
 1. Each relay counts what goes through it, and says that of itself alone. What it has said counts also when it is gone.
 2. A row is of an address and its device, in a month; of another device, or month, it counts no more.

No I/O and no clock.
"""

from collections.abc import Iterable, Iterator
from operator import index
from typing import Any, Final, NamedTuple

from candy.relay.leases import Lease

EXCHANGE_S: Final = 60.0
ROWS_MOST: Final = 65536
"""Of one relay, in one network: as many as there are leases."""


class Row(NamedTuple):
    """What one device has carried through one relay."""

    word: str
    ip: int
    holder: bytes
    month: int
    used: int

    def plain(self) -> list[Any]:
        """For JSON."""
        return [self.word, self.ip, self.holder.hex(), self.month, self.used]

    @classmethod
    def of(cls, plain: list[Any]) -> "Row":
        """Of plain(). Raises ValueError, TypeError."""
        word, ip, holder, month, used = plain
        row = cls(str(word), index(ip), bytes.fromhex(holder), index(month), index(used))
        if row.used < 0:
            raise ValueError("nobody carries less than nothing")
        return row


class Quotas:
    """See the rules above."""

    def __init__(self) -> None:
        self.number = 0
        """Of the last look."""
        self._own: dict[tuple[str, int], tuple[int, Row]] = {}
        """With the number of the look that found it so."""
        self._others: dict[str, dict[str, dict[int, Row]]] = {}
        """Rows by the words of networks that are served, by relay and by address."""

    def share(self, word: str) -> None:
        """The network is served from now on."""
        self._others.setdefault(word, {})

    def note(self, word: str, leases: Iterable[Lease], month: int) -> None:
        """Look at what the devices of a network have carried here."""
        for lease in leases:
            row = Row(word, lease.ip, lease.vmac, month, lease.used_in(month))
            before = self._own.get((word, lease.ip))
            if (row.used if before is None else row != before[1]) and len(self._own) < ROWS_MOST * 16:
                self._own[word, lease.ip] = self.number, row

    def since(self, number: int) -> Iterator[Row]:
        """What was found later than by this look."""
        return (row for found, row in list(self._own.values()) if found > number)

    def take(self, relay: str, rows: Iterable[Row]) -> None:
        """What another relay says of itself; of networks that are not served nothing is kept, and of each no more than
        ROWS_MOST rows."""
        for row in rows:
            if (relays := self._others.get(row.word)) is None:
                continue
            known = relays.setdefault(relay, {})
            if row.ip in known or len(known) < ROWS_MOST:
                known[row.ip] = row

    def forgive(self, word: str, ip: int) -> None:
        """What a device has carried at other relays so far counts no more: they count from 0 again."""
        for known in self._others.get(word, {}).values():
            known.pop(ip, None)

    def elsewhere(self, word: str, ip: int, holder: bytes, month: int) -> int:
        """Bytes that a device has carried at the other relays in this month, as far as they have said."""
        rows = [known[ip] for known in self._others.get(word, {}).values() if ip in known]
        return sum(row.used for row in rows if (row.holder, row.month) == (holder, month))

    def leave(self, word: str) -> None:
        """The network is not served any more."""
        self._own = {key: value for key, value in self._own.items() if key[0] != word}
        self._others.pop(word, None)
