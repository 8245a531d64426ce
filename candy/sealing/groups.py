"""Packets to groups under a secret: whose epochs this member opens, and its own.

    own epoch, every EPOCH_S ─▶ SealGroups         Grouped(message) ─▶ clock, sender's key, tag ─▶ OpenGroup
                                                                       time is over ────────────▶ CloseGroup
Rules:
 1. A key is of one sender and one epoch. A member begins an epoch at its start, and one every EPOCH_S; 8 random bytes
    are in it, so a clock that is set back repeats none.
 2. Of others' is taken one whose time is within CLOCK_S of this member's clock, and whose message opens: before that
    nothing of it is kept. The two of a sender that are the greatest as numbers stay, one below both is refused: what
    was forgotten could be repeated.
 3. SENDERS_MOST; one goes when its epochs' time is over, and no sooner.
 4. Of one source no more than RATE a second are tried, and of a source whose key is not known one message is kept for
    KEEP_S while the relay is asked, KEPT_MOST in all.

Nothing here happens without a secret. `at` says when; the engine counts and keeps the windows.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from math import inf
from typing import Final

from candy.protocol import group
from candy.protocol.group import Sealed
from candy.protocol.noise import Primitives
from candy.protocol.wire import DropReason
from candy.sealing.bucket import Bucket
from candy.sealing.seals import CloseGroup, OpenGroup, SealGroups
from candy.sealing.stamps import Moment

EPOCH_S: Final = 120.0
CLOCK_S: Final = 480.0
SENDERS_MOST: Final = 1024
EPOCHS_MOST: Final = 2
"""Of a sender."""
RATE: Final = 1.0
SAVED: Final = 4.0
KEEP_S: Final = 1.0
KEPT_MOST: Final = 64
_NS: Final = 10**9

Result = SealGroups | OpenGroup | CloseGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What keys of groups are made from."""

    secret: bytes = field(repr=False)
    network: bytes
    address: IPv4Address
    key: bytes
    """This member's, public."""


class Groups:
    """See above.

    Args:
        primitives: of which one opens.
        randbytes: n random bytes.
    """

    def __init__(self, primitives: Primitives, randbytes: Callable[[int], bytes]) -> None:
        self._primitives = primitives
        self._randbytes = randbytes
        self._label_key = randbytes(16)
        self._has_joined = False
        self._membership: Membership | None = None
        self._began_at = 0.0
        self._epochs: dict[IPv4Address, list[bytes]] = {}
        """By sender, the greatest last."""
        self._buckets: OrderedDict[IPv4Address, Bucket] = OrderedDict()
        self._kept: OrderedDict[IPv4Address, tuple[bytes, float]] = OrderedDict()

    @property
    def deadline(self) -> float:
        """When tick() has to be called."""
        return inf if self._membership is None else self._began_at + EPOCH_S

    def joined(self, membership: Membership | None, at: Moment) -> list[Result]:
        """Under a secret, or without one: then all that was is forgotten."""
        if self._has_joined and membership == self._membership:
            return []
        self._has_joined = True
        closed: list[Result] = [step for source in list(self._epochs) for step in self.forget(source)]
        self._membership = membership
        self._kept.clear()
        return [*closed, *(self._begin(membership, at) if membership is not None else [SealGroups()])]

    def tick(self, at: Moment) -> list[Result]:
        """Act on time: another epoch of its own, the end of others'."""
        if self._membership is None:
            return []
        results: list[Result] = []
        for source, epochs in list(self._epochs.items()):
            for epoch in [epoch for epoch in epochs if not _is_in_time(epoch, at)]:
                epochs.remove(epoch)
                results.append(CloseGroup(source, epoch))
            if not epochs:
                del self._epochs[source]
        if at.now >= self._began_at + EPOCH_S:
            results += self._begin(self._membership, at)
        return results

    def came(self, sealed: Sealed, sender: bytes | None, at: Moment) -> list[Result] | str:
        """A message of an epoch that is not open, or was not: what opens it, or the name under which it is dropped.

        Args:
            sender: its public key; None: it has none.
        """
        membership, source, epoch = self._membership, sealed.source, sealed.epoch
        if membership is None:
            return "no_secret"
        if not _is_in_time(epoch, at):
            return DropReason.GROUP_CLOCK
        if sender is None:
            return "bad_seal"
        opens = group.key(membership.secret, epoch, membership.network, source, sender)
        epochs = self._epochs.get(source, [])
        if epoch in epochs:
            return [OpenGroup(source, epoch, opens, sealed.message)]
        if len(epochs) == EPOCHS_MOST and epoch < epochs[0]:
            return "replayed"
        if not epochs and len(self._epochs) == SENDERS_MOST:
            return DropReason.GROUP_SENDERS
        if not self._may_try(source, at):
            return DropReason.HANDSHAKE_LIMIT
        if self._primitives.open(opens, sealed.nonce, sealed.head, sealed.body) is None:
            return "bad_seal"
        kept = sorted([*epochs, epoch])
        self._epochs[source] = kept[-EPOCHS_MOST:]
        closed: list[Result] = [CloseGroup(source, old) for old in kept[:-EPOCHS_MOST]]
        return [*closed, OpenGroup(source, epoch, opens, sealed.message)]

    def keep(self, sealed: Sealed, at: Moment) -> list[Result] | str:
        """A message of a sender of whom nothing is known yet: told() is to be called when it is."""
        if self._membership is None:
            return "no_secret"
        for old in [other for other, (_, kept_at) in self._kept.items() if at.now - kept_at >= KEEP_S]:
            del self._kept[old]
        if sealed.source not in self._kept and len(self._kept) == KEPT_MOST:
            return DropReason.HANDSHAKE_LIMIT
        self._kept[sealed.source] = sealed.message, at.now
        return []

    def told(self, source: IPv4Address, at: Moment) -> bytes | None:
        """The message that was kept of it; it is given once."""
        message, kept_at = self._kept.pop(source, (None, -inf))
        return message if at.now - kept_at < KEEP_S else None

    def forget(self, source: IPv4Address) -> list[Result]:
        """It is another's address now, or a device was revoked."""
        return [CloseGroup(source, epoch) for epoch in self._epochs.pop(source, [])]

    def _begin(self, membership: Membership, at: Moment) -> list[Result]:
        self._began_at = at.now
        epoch = group.make_epoch(at.wall // _NS, self._randbytes(group.RANDOM_BYTES))
        own = group.key(membership.secret, epoch, membership.network, membership.address, membership.key)
        return [SealGroups(epoch, own, self._label_key)]

    def _may_try(self, source: IPv4Address, at: Moment) -> bool:
        bucket = self._buckets.setdefault(source, Bucket(RATE, SAVED))
        self._buckets.move_to_end(source)
        if len(self._buckets) > SENDERS_MOST:
            self._buckets.popitem(last=False)
        return bucket.take(at.now)


def _is_in_time(epoch: bytes, at: Moment) -> bool:
    return abs(group.time_of(epoch) - at.wall / _NS) <= CLOCK_S
