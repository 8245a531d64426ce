"""Digests of log-ins: which came before, at any relay, and how long that is known.

    spend(timestamp, digest) ─▶ Agreement.spend() ─▶ is its time forgotten? ─▶ RepeatedError
    tidy() ─▶ Agreement.forget(until) ─▶ WAIT_S ─▶ Ledger.forget(slot) …

Rules:
 1. A digest matters as long as a relay may take its timestamp for timely. What is forgotten is never believed again:
    that time is agreed on first, and deleted by it later.
 2. A relay that has spent a digest then looks how far that time is, by a look that is FRESH_S old at most. The relay
    that deletes has waited WAIT_S since that time was agreed on. So a digest that could be spent a second time, because
    it was deleted, is of a time that is known to be forgotten.
 3. WAIT_S is longer than FRESH_S, by more than a leader of NATS that has lost its office may still answer (10 s). Both
    are by a relay's own monotonic clock.
 4. What is forgotten lies behind this relay's clock and behind NATS' by the tolerance and SPARE_S: one clock that runs
    ahead shuts nobody out.

No I/O of its own.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from candy.relay.cluster.agreement import Agreement, RepeatedError
from candy.relay.cluster.ledger import Bucket, Entry, Ledger
from candy.relay.cluster.records import SLOT_S, word

TIDY_S: Final = 60.0
"""Between two rounds of one relay."""
FRESH_S: Final = 30.0
WAIT_S: Final = 60.0
SPARE_S: Final = 60
PASSED_OVER_MOST: Final = 64
"""Digests that are still kept, among which those are looked for that are not."""


class _Mark(NamedTuple):
    """What is forgotten, and since when it is known."""

    until: int
    since: float


class Digests:
    """See the rules above.

    Args:
        now: seconds of a monotonic clock.
    """

    def __init__(self, ledger: Ledger, agreement: Agreement, now: Callable[[], float]) -> None:
        self._ledger = ledger
        self._agreement = agreement
        self._now = now
        self._seen: dict[str, _Mark] = {}
        """By network, as it was looked up last."""
        self._agreed: dict[str, _Mark] = {}
        """What waits to be deleted."""

    async def spend(self, path: str, timestamp: int, digest: bytes) -> None:
        """Nobody else may come by this digest from now on.

        Raises:
            RepeatedError: somebody did, or might have.
            AwayError: the ledger can't be asked.
        """
        await self._agreement.spend(path, timestamp, digest)
        if timestamp <= await self._forgotten(path):
            raise RepeatedError("its time is forgotten")

    async def tidy(self, path: str, tolerance: int, wall: int) -> None:
        """One round; one relay of those that are there is enough, and several do no harm.

        Raises:
            AwayError: the ledger can't be asked.
        """
        agreed = self._agreed.get(path)
        if agreed is None:
            latest = min(wall, await self._ledger.written(Bucket.DIGESTS)) - tolerance - SPARE_S
            # The last second of a slot.
            until = latest // SLOT_S * SLOT_S - 1
            if await self._next(path, until, 0) is not None:
                self._agreed[path] = _Mark(await self._agreement.forget(path, until), self._now())
        elif self._now() - agreed.since >= WAIT_S:
            await self._delete(path, agreed.until)
            self._agreed.pop(path, None)

    def leave(self, path: str) -> None:
        """The network is not served any more."""
        self._seen.pop(path, None)
        self._agreed.pop(path, None)

    async def _forgotten(self, path: str) -> int:
        seen, now = self._seen.get(path), self._now()
        if seen is None or now - seen.since > FRESH_S:
            # From before the question on, not from its answer.
            self._seen[path] = seen = _Mark(await self._agreement.forgotten(path), now)
        return seen.until

    async def _delete(self, path: str, until: int) -> None:
        revision = 0
        while (entry := await self._next(path, until, revision)) is not None:
            revision = entry.revision
            await self._ledger.forget(Bucket.DIGESTS, entry.key.rpartition(".")[0])

    async def _next(self, path: str, until: int, revision: int) -> Entry | None:
        """The first digest that is forgotten, from this revision on. They stand in the order in which they came, and so
        nearly in that of their timestamps."""
        for _ in range(PASSED_OVER_MOST):
            entry = await self._ledger.first(Bucket.DIGESTS, word(path), revision)
            if entry is None:
                return None
            slot = entry.key.split(".")[1]
            if slot.lstrip("-").isdigit() and (int(slot) + 1) * SLOT_S - 1 <= until:
                return entry
            revision = entry.revision + 1
        return None
