"""What relays of a cluster write down together: records under keys, each with a revision.

    get(key) ─▶ Entry(value, revision)      put(key, value, revision of what was read) ─▶ the next revision
                                                └─▶ StaleError, LostError, AwayError

Rules:
 1. A put takes effect only while its key has the revision that it names; 0: there is no such key. So of several that
    name one revision, one takes effect at most. Revisions of a key grow.
 2. StaleError: it did not, and never will. AwayError: it was not sent. LostError: nobody knows, and it may yet.
 3. Nothing is deleted but digests of log-ins. What is free or revoked has a record that says so.

candy.relay.cluster.jetstream is the one that relays use. What is in the records candy.relay.cluster.records knows.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

from candy.errors import CandyError


class Bucket(StrEnum):
    """Where a record is."""

    GRANTS = "grants"
    """Who has which address: `NETWORK.a.b.c.d`."""
    DEVICES = "devices"
    """`NETWORK.device.KEY`, `NETWORK.invitation.SELECTOR`, `NETWORK.reserved.ADDRESS`."""
    DIGESTS = "digests"
    """Of AUTHs: `NETWORK.SLOT.DIGEST`."""
    NETWORKS = "networks"
    """What all relays have to agree on: `NETWORK.settings`, `NETWORK.forgotten`."""
    RELAYS = "relays"
    """By name."""


class Entry(NamedTuple):
    """A record as it is written down."""

    key: str
    value: bytes
    revision: int


class LedgerError(CandyError):
    """A put has not succeeded, or nothing could be read."""


class StaleError(LedgerError):
    """The key has another revision than the one that the put names, or is about to."""


class LostError(LedgerError):
    """The answer to a put is missing."""


class AwayError(LedgerError):
    """Nobody can be asked; the text says why, for the log."""


Follow = Callable[[Entry], None]


class Ledger(Protocol):
    """See the rules above."""

    async def get(self, bucket: Bucket, key: str, after: int = -1) -> Entry | None:
        """What is under a key; None: nothing. With `after` it waits until that has a later revision than this.

        Raises:
            AwayError: it can't be asked, or the time is over.
        """

    async def put(self, bucket: Bucket, key: str, value: bytes, revision: int) -> int:
        """Write by rule 1; the new revision.

        Raises:
            StaleError, LostError, AwayError: see rule 2.
        """

    async def follow(self, bucket: Bucket, follow: Follow) -> None:
        """Have this called with everything that a bucket holds, and from then on with every change. It returns when
        all that there was has been given. Of changes that follow each other closely only the last is given.

        Raises:
            AwayError: it can't be asked.
        """

    async def gather(self, bucket: Bucket, prefix: str, take: Follow) -> None:
        """Have this called once with everything under keys that begin with these whole words.

        Raises:
            AwayError: it can't be asked.
        """

    async def first(self, bucket: Bucket, prefix: str, revision: int) -> Entry | None:
        """Of the entries under keys that begin with these whole words, the one with the lowest revision from this one
        on; None: there is none.

        Raises:
            AwayError: it can't be asked.
        """

    async def written(self, bucket: Bucket) -> int:
        """When something was last written there, in Unix seconds by the ledger's clock; 0: never.

        Raises:
            AwayError: it can't be asked.
        """

    async def forget(self, bucket: Bucket, prefix: str) -> None:
        """Delete everything under keys that begin with these whole words.

        Raises:
            AwayError: it can't be asked, or the answer was lost.
        """
