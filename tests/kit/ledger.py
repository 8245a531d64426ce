"""The ledger's slow and obvious model: a dict, and answers that are lost when a test says so."""

from collections import deque
from collections.abc import Callable

from candy.relay.cluster.ledger import AwayError, Bucket, Entry, Follow, LostError, StaleError


class ModelLedger:
    """What several relays share in a test.

    `loses` is taken from by each put: True: it takes effect and the answer is lost; False: it is lost on its way.
    `before_put` is called once, before the next put: another relay that is faster.
    """

    def __init__(self) -> None:
        self._entries: dict[Bucket, dict[str, Entry]] = {bucket: {} for bucket in Bucket}
        self._followers: dict[Bucket, list[Follow]] = {bucket: [] for bucket in Bucket}
        self._revision = 0
        self.loses: deque[bool | None] = deque()
        self.before_put: Callable[[], object] | None = None
        self.is_away = False
        self.puts = 0
        self.wall = 0
        """By its clock."""

    async def get(self, bucket: Bucket, key: str, after: int = -1) -> Entry | None:
        self._check()
        return self._entries[bucket].get(key)

    async def put(self, bucket: Bucket, key: str, value: bytes, revision: int) -> int:
        self._check()
        if self.before_put is not None:
            first, self.before_put = self.before_put, None
            first()
        self.puts += 1
        loses = self.loses.popleft() if self.loses else None
        if loses is False:
            raise LostError("on its way")
        written = self.write(bucket, key, value, revision)
        if loses:
            raise LostError("the answer")
        return written

    def write(self, bucket: Bucket, key: str, value: bytes, revision: int | None = None) -> int:
        """As put(); None: over any revision."""
        entry = self._entries[bucket].get(key)
        if revision is not None and revision != (entry.revision if entry is not None else 0):
            raise StaleError(key)
        self._revision += 1
        self._entries[bucket][key] = made = Entry(key, value, self._revision)
        for follow in self._followers[bucket]:
            follow(made)
        return self._revision

    async def follow(self, bucket: Bucket, follow: Follow) -> None:
        self._check()
        for entry in list(self._entries[bucket].values()):
            follow(entry)
        self._followers[bucket].append(follow)

    async def gather(self, bucket: Bucket, prefix: str, take: Follow) -> None:
        self._check()
        for entry in [each for key, each in self._entries[bucket].items() if key.startswith(prefix + ".")]:
            take(entry)

    async def first(self, bucket: Bucket, prefix: str, revision: int) -> Entry | None:
        self._check()
        found = [each for each in self._entries[bucket].values() if each.key.startswith(prefix + ".")]
        later = [each for each in found if each.revision >= revision]
        return min(later, key=lambda each: each.revision, default=None)

    async def written(self, bucket: Bucket) -> int:
        self._check()
        return self.wall if self._entries[bucket] else 0

    async def forget(self, bucket: Bucket, prefix: str) -> None:
        self._check()
        for key in [key for key in self._entries[bucket] if key.startswith(prefix + ".")]:
            del self._entries[bucket][key]

    def keys(self, bucket: Bucket) -> list[str]:
        return list(self._entries[bucket])

    def _check(self) -> None:
        if self.is_away:
            raise AwayError("away")
