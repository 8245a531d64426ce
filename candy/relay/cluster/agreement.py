"""How relays come to one decision: they read a record, and write the next one only if nobody else did meanwhile.

    update(key, change) ─▶ what is there ─▶ change() ─▶ put ─┬─▶ Known: it is so now
              ▲                                             ├─ another relay was first ─┐
              │                                             └─ the answer was lost ─▶ put again, then read: whose id?
              └─────────────────────────────────────────────────────────────────────────┘

Rules:
 1. A decision is a function of what is there. It is called anew whenever that has changed, and may refuse
    (RefusedError).
 2. A put whose answer was lost is put again, the same value over the same revision: the ledger takes one of the two at
    most. Who is then refused reads: its own id in the value says that the first one took effect.
 3. What can't be settled is AwayError, and may yet take effect. So a decision has to bear being taken twice for the
    same device: a grant that it has already is its own, and an invitation counts it once.

No I/O, clock or randomness of its own.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final, Generic, NamedTuple, TypeVar

from candy.errors import CandyError
from candy.relay.cluster.ledger import AwayError, Entry, Ledger, LostError, StaleError
from candy.relay.cluster.records import (
    ID_BYTES,
    RECENT_MOST,
    Common,
    Credential,
    Envelope,
    Grant,
    Record,
    Redeemable,
    Spent,
    Watermark,
    device_key,
    digest_key,
    forgotten_key,
    grant_key,
    invitation_key,
    settings_key,
)
from candy.relay.enrolment import Device, Standing

ROUNDS: Final = 16
"""Times that others may be first before a decision is given up."""
TRIES: Final = 3
"""Times that one value is put whose answers are lost."""

_Of = TypeVar("_Of", bound=Record)


class RefusedError(CandyError):
    """What is there allows no such decision."""


class HeldError(RefusedError):
    """The address is another device's; `grant` says whose."""

    def __init__(self, grant: Grant) -> None:
        super().__init__(f"the address is another device's, by {grant.relay}")
        self.grant = grant


class UsedUpError(RefusedError):
    """The invitation lets in nobody else."""


class RepeatedError(RefusedError):
    """The digest came before, or might have: it is older than what is remembered."""


class DiffersError(RefusedError):
    """A network is another one at the other relays; the text names how."""


class Known(NamedTuple, Generic[_Of]):
    """A record, and the revision under which it is."""

    record: _Of | None
    """None: there is none, at revision 0."""
    revision: int


ABSENT: Final = Known[Grant](None, 0)


class Agreement:
    """See the rules above.

    Args:
        relay: this one's name.
        envelope: of the relays' secret.
    """

    def __init__(self, ledger: Ledger, envelope: Envelope, relay: str) -> None:
        self._ledger = ledger
        self._envelope = envelope
        self._relay = relay

    # Addresses.

    async def claim(self, path: str, ip: int, grant: Grant, takes_from: bytes = b"", known: int = 0) -> Known[Grant]:
        """Give an address to a device, unless it is another's.

        Args:
            takes_from: the device from which it may be taken, because that has left and others have a right to it.
            known: the revision at which it is this device's, or free, as far as is known; 0: no device ever had it.

        Raises:
            HeldError: it is another device's.
            AwayError: the ledger can't be asked.
        """

        def change(current: Grant | None) -> Grant:
            if current is not None and current.holder not in (b"", grant.holder, takes_from):
                raise HeldError(current)
            own = current is not None and current.holder == grant.holder
            # Others may have been told that number.
            return replace(grant, number=current.number or grant.number) if own and current is not None else grant

        begin = Known[Grant](None, known) if known == 0 else None
        return await self.update(Grant, grant_key(path, ip), change, begin)

    async def release(self, path: str, ip: int, holder: bytes, seen: int) -> bool:
        """Make an address free that is this device's; whether it was.

        Raises:
            AwayError: the ledger can't be asked.
        """

        def change(current: Grant | None) -> Grant | None:
            if current is None or current.holder != holder:
                raise RefusedError("the address is another device's by now")
            return Grant(b"", self._relay, seen)

        try:
            await self.update(Grant, grant_key(path, ip), change)
        except RefusedError:
            return False
        return True

    # Devices with keys.

    async def redeem(self, path: str, selector: bytes, key: bytes, wall: int, until: int) -> Known[Redeemable]:
        """A device comes by an invitation; one that did before counts once, until then in Unix seconds.

        Raises:
            UsedUpError: it has ended, or others have used it up.
            AwayError: the ledger can't be asked.
        """
        own = key[:ID_BYTES].hex()

        def change(current: Redeemable | None) -> Redeemable | None:
            if current is None or wall >= until:
                raise UsedUpError("the invitation is used up or has expired")
            if own in current.recent:
                return None
            if current.used >= current.uses or wall >= current.until:
                raise UsedUpError("the invitation is used up or has expired")
            return replace(current, used=current.used + 1, recent=(*current.recent, own)[-RECENT_MOST:])

        return await self.update(Redeemable, invitation_key(path, selector), change)

    async def invite(self, path: str, invitation: Redeemable) -> None:
        """Let devices come by it, at all relays. Raises AwayError."""
        key = invitation_key(path, invitation.selector)
        await self.update(Redeemable, key, lambda current: None if current is not None else invitation)

    async def enrol(self, path: str, device: Device) -> Device:
        """Write a device down, as it is now; returns it as it is at all relays: one that came to two of them at once
        has one credential, and one that was revoked stays so.

        Raises:
            AwayError: the ledger can't be asked.
        """

        def change(current: Credential | None) -> Credential | None:
            if current is None:
                return Credential.of(device)
            wanted = Credential.of(merged(device, current.device()))
            return None if wanted == current else wanted

        known = await self.update(Credential, device_key(path, device.key), change)
        assert known.record is not None
        return known.record.device()

    # Digests of AUTHs.

    async def spend(self, path: str, timestamp: int, digest: bytes) -> None:
        """Nobody else may come by this digest from now on.

        Raises:
            RepeatedError: somebody did.
            AwayError: the ledger can't be asked.
        """

        def change(current: Spent | None) -> Spent:
            if current is not None:
                raise RepeatedError("it came before, perhaps to another relay")
            return Spent(self._relay)

        await self.update(Spent, digest_key(path, timestamp, digest), change, Known[Spent](None, 0))

    async def forgotten(self, path: str) -> int:
        """Up to when AUTHs are believed no more, in Unix seconds; 0: nothing is forgotten. Raises AwayError."""
        known = await self.read(Watermark, forgotten_key(path))
        return 0 if known.record is None else known.record.timestamp

    async def forget(self, path: str, until: int) -> int:
        """Believe no AUTHs up to this time; up to when that is so now. Raises AwayError."""

        def change(current: Watermark | None) -> Watermark | None:
            return None if current is not None and current.timestamp >= until else Watermark(until)

        known = await self.update(Watermark, forgotten_key(path), change)
        assert known.record is not None
        return known.record.timestamp

    # Networks.

    async def join(self, path: str, own: Common, running: Collection[str]) -> None:
        """Serve a network as the other relays do. Where none does that is running, this one says how.

        Args:
            running: names of the other relays that are.

        Raises:
            DiffersError: they serve it otherwise.
            AwayError: the ledger can't be asked.
        """

        def change(current: Common | None) -> Common | None:
            if current is None:
                return own
            others = tuple(name for name in current.relays if name in running)
            if others and (difference := differing(own, current, others[0])):
                raise DiffersError(f"network {path}: {difference}")
            wanted = replace(own, relays=tuple(sorted({*own.relays, *others})))
            return None if wanted == current else wanted

        await self.update(Common, settings_key(path), change)

    async def part(self, path: str) -> None:
        """Serve a network no more, and so have no say in what it is. Raises AwayError."""

        def change(current: Common | None) -> Common | None:
            if current is None or self._relay not in current.relays:
                return None
            return replace(current, relays=tuple(name for name in current.relays if name != self._relay))

        await self.update(Common, settings_key(path), change)

    async def update(
        self,
        kind: type[_Of],
        key: str,
        change: Callable[[_Of | None], _Of | None],
        known: Known[_Of] | None = None,
    ) -> Known[_Of]:
        """Take a decision (rule 1).

        Args:
            change: what is there, None for nothing ─▶ what shall be there, None for what is.
            known: what was read before; None: read it first.

        Raises:
            RefusedError: from `change`.
            AwayError: the ledger can't be asked.
        """
        current = known if known is not None else await self.read(kind, key)
        for _ in range(ROUNDS):
            wanted = change(current.record)
            if wanted is None:
                return current
            value, own = self._envelope.seal(kind.bucket, key, wanted.encode())
            settled = await self._settle(kind, key, value, own, current.revision)
            if isinstance(settled, int):
                return Known(wanted, settled)
            current = settled
        raise AwayError(f"other relays were first {ROUNDS} times at {key}")

    async def read(self, kind: type[_Of], key: str) -> Known[_Of]:
        """What is under a key. Raises AwayError."""
        entry = await self._ledger.get(kind.bucket, key)
        return Known(None, 0) if entry is None else Known(self.opened(kind, entry), entry.revision)

    def opened(self, kind: type[_Of], entry: Entry) -> _Of:
        """An entry's record. Raises FormatError."""
        return kind.decode(self._envelope.open(kind.bucket, entry.key, entry.value).content)

    async def _settle(self, kind: type[_Of], key: str, value: bytes, own: bytes, revision: int) -> int | Known[_Of]:
        """Put a value by rule 2: its revision, or what another relay has put there."""
        is_doubtful = False
        for _ in range(TRIES):
            try:
                return await self._ledger.put(kind.bucket, key, value, revision)
            except LostError:
                is_doubtful = True
            except StaleError:
                entry = await self._ledger.get(kind.bucket, key, after=revision)
                if entry is None:
                    # It was deleted: what was put over is not there any more.
                    return Known(None, 0)
                opened = self._envelope.open(kind.bucket, key, entry.value)
                if is_doubtful and opened.id == own:
                    return entry.revision
                return Known(kind.decode(opened.content), entry.revision)
        raise AwayError(f"no answer came to {TRIES} writings of {key}")


def merged(own: Device, theirs: Device) -> Device:
    """Of one device, as two relays know it. What was written first has given the credential; a later standing counts,
    but nothing undoes a revocation."""
    if Standing.REVOKED in (own.standing, theirs.standing):
        revoked = own if own.standing is Standing.REVOKED else theirs
        return replace(theirs, standing=Standing.REVOKED, since=revoked.since)
    is_admitted = Standing.ADMITTED in (own.standing, theirs.standing)
    standing = Standing.ADMITTED if is_admitted else Standing.WAITING
    return replace(theirs, standing=standing, has_come=own.has_come or theirs.has_come)


def differing(own: Common, theirs: Common, other: str) -> str:
    """How two relays' settings of a network differ, in words; empty: not at all."""
    if own.pool != theirs.pool:
        return f"the pool is {own.pool or 'none'} here and {theirs.pool or 'none'} at {other}: write the same"
    if own.passwords != theirs.passwords:
        here, there = len(own.passwords), len(theirs.passwords)
        count = f"{here} here and {there} at {other}" if here != there else f"others than at {other}"
        return f"the passwords are {count}: write the same"
    if own.key != theirs.key:
        file = "network.key of the network's folder in keys/"
        return f"the network's key is another one at {other}: copy its {file} here before the first start"
    for name, what in (("rules", "rules"), ("reservations", "reservations"), ("legacy", "legacy setting")):
        if getattr(own, name) != getattr(theirs, name):
            return f"the {what} here and at {other} differ: write the same"
    for name in ("allow_outside_pool", "clock_tolerance"):
        if getattr(own, name) != getattr(theirs, name):
            return f"{name} here and at {other} differ: write the same"
    return ""
