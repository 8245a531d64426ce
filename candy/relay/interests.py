"""Which members want to know of which addresses, and what they have not been told yet.

    ask(member, address), hear(member, asker) ─▶ changed(address) ─▶ owed() ─▶ member, its addresses

Rules:
 1. A member asks about an address, or hears of one that asked about its own. From then on it is told every change.
 2. Of one member INTERESTS_EACH are remembered, of all INTERESTS_MAX. Beyond that the oldest goes: of one member its
    own, of all that of the member which has asked longest ago.
 3. What is owed is an address, not what was to be said of it: who is told late is told once.

Connections and addresses are integers here, and nothing is known of either.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

INTERESTS_MAX: Final = 1_000_000
INTERESTS_EACH: Final = 4096


class Interests:
    """See the rules above."""

    def __init__(self, most: int = INTERESTS_MAX, each: int = INTERESTS_EACH) -> None:
        self._most = most
        self._each = each
        self._count = 0
        self._of: OrderedDict[int, dict[int, bool]] = OrderedDict()
        """By connection, the one that has asked longest ago first: its addresses, and whether it asked about them."""
        self._watching: dict[int, set[int]] = {}
        """Connections, by address."""
        self._owed: dict[int, dict[int, None]] = {}
        """Addresses, by connection."""

    def __len__(self) -> int:
        return self._count

    def ask(self, connection: int, address: int) -> None:
        """It has asked about an address."""
        self._add(connection, address, has_asked=True)
        self._of.move_to_end(connection)

    def hear(self, connection: int, asker: int) -> bool:
        """It is to hear of who asked about its address; whether it has not heard of that one before."""
        if asker in self._of.get(connection, ()):
            return False
        self._add(connection, asker, has_asked=False)
        return True

    def has_asked(self, connection: int, address: int) -> bool:
        """Whether it asked about the address, and has not just heard of it."""
        return self._of.get(connection, {}).get(address, False)

    def forget(self, connection: int) -> None:
        """It has ended."""
        self._owed.pop(connection, None)
        for address in self._of.pop(connection, ()):
            self._stop(connection, address)

    def changed(self, address: int) -> None:
        """Something else holds of this address."""
        for connection in self._watching.get(address, ()):
            self.owe(connection, address)

    def owe(self, connection: int, address: int) -> None:
        """It is to be told of this address."""
        self._owed.setdefault(connection, {})[address] = None

    @property
    def owes(self) -> bool:
        return bool(self._owed)

    def owed(self, members: int, most: int) -> Iterator[tuple[int, Iterable[int]]]:
        """Take what is owed to the first so many members, of each so many addresses at most."""
        for connection in list(islice(self._owed, members)):
            addresses = self._owed.pop(connection)
            taken = list(islice(addresses, most))
            if len(taken) < len(addresses):
                for address in taken:
                    del addresses[address]
                # Behind those who wait for their first.
                self._owed[connection] = addresses
            yield connection, taken

    def _add(self, connection: int, address: int, *, has_asked: bool) -> None:
        own = self._of.setdefault(connection, {})
        is_new = address not in own
        own[address] = own.pop(address, False) or has_asked
        if not is_new:
            return
        self._watching.setdefault(address, set()).add(connection)
        self._count += 1
        if len(own) > self._each:
            self._drop_oldest(connection)
        elif self._count > self._most:
            self._drop_oldest(next(iter(self._of)))

    def _drop_oldest(self, connection: int) -> None:
        own = self._of[connection]
        address = next(iter(own))
        del own[address]
        if not own:
            del self._of[connection]
        self._owed.get(connection, {}).pop(address, None)
        self._stop(connection, address)

    def _stop(self, connection: int, address: int) -> None:
        watching = self._watching[address]
        watching.discard(connection)
        if not watching:
            del self._watching[address]
        self._count -= 1
