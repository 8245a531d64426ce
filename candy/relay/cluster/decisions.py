"""What networks want decided, and what of theirs is new: from them to Agreement, and what comes of it back.

    record(path, wanted) ─▶ digest ─▶ invitation ─▶ device ─▶ address ─▶ Outcome
    write_devices(), write(): devices and invitations that are new; leases that ended, reservations, grants that are old
    take_in(): what the relay's own file has and the cluster has not, at a start

Nothing here decides: networks do, and Agreement. What is owed while NATS is away stays with Shared, and is written once
it is there.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from candy.protocol.addresses import ipv4
from candy.relay.cluster.agreement import (
    Agreement,
    HeldError,
    RefusedError,
    RepeatedError,
    UsedUpError,
)
from candy.relay.cluster.digests import Digests
from candy.relay.cluster.ledger import AwayError
from candy.relay.cluster.records import FormatError, Grant, Redeemable, Reserved, grant_key, reserved_key
from candy.relay.cluster.shared import Shared
from candy.relay.enrolment import AGAIN_S, Device
from candy.relay.recording import Outcome, Wanted

log: Final = logging.getLogger("candy.relay")


class Decisions:
    """See above.

    Args:
        shares: by path, what the relay serves; the caller's, who changes it.
        now: of the networks' clock, monotonic.
    """

    def __init__(
        self, agreement: Agreement, digests: Digests, shares: Mapping[str, Shared], now: Callable[[], float]
    ) -> None:
        self._agreement = agreement
        self._digests = digests
        self._shares = shares
        self._now = now

    async def take_in(self, shared: Shared, imports: bool) -> None:
        """What the relay's own file has and the cluster has not: it is the cluster's from now on, or nobody's."""
        wall, count = int(time.time()), 0
        for ip, holder in shared.unknown():
            if not imports or shared.revision(ip):
                shared.drop(ip)
                continue
            try:
                known = await self._agreement.claim(shared.path, ip, shared.grant(ip, holder, wall))
            except HeldError:
                shared.drop(ip)
                continue
            assert known.record is not None
            shared.learn(ip, known.record, known.revision)
            count += 1
        if imports:
            devices, invitations = shared.network.enrolment, shared.network.enrolment.invitations()
            for device in list(devices):
                shared.changed[device.key] = None
            for invitation in list(invitations):
                shared.changed[invitation.selector] = None
            for reservation in list(shared.network.pool.reservations.commanded()):
                shared.reserved.setdefault(int(reservation.address))
            await self.write_devices()
        if count:
            log.info("cluster: network %s: %d leases of this relay's file are the cluster's now", shared.path, count)

    async def decide(self, path: str, wanted: Wanted) -> Outcome:
        """Have the relays agree on this."""
        shared = self._shares.get(path)
        if shared is None:
            # Its network is not served any more.
            return Outcome.AWAY
        # By the clock of what asked, or it would be asked again.
        enrolment, wall = shared.network.enrolment, shared.network.pool.leases.wall
        try:
            if wanted.digest is not None:
                await self._digests.spend(path, *wanted.digest)
            if wanted.selector:
                invitation = enrolment.invitation(wanted.selector)
                until = invitation.until + AGAIN_S if invitation is not None else 0
                known = await self._agreement.redeem(path, wanted.selector, wanted.device, wall, until)
                assert known.record is not None
                enrolment.learn(known.record.invitation())
            if wanted.device:
                if (device := enrolment.get(wanted.device)) is None:
                    # Another connection had brought it, and was not let in.
                    return Outcome.AWAY
                await self._enrol(shared, device)
            if wanted.ip is not None:
                await self._claim(shared, wanted.ip, wanted.holder, wanted.takes_from, wall)
        except RepeatedError:
            return Outcome.REPEATED
        except UsedUpError:
            return Outcome.USED_UP
        except HeldError:
            return Outcome.HELD
        except (AwayError, FormatError) as error:
            log.debug("cluster: not agreed on: %s", error)
            is_address_alone = wanted.digest is None and not wanted.device
            is_known = is_address_alone and shared.believe(wanted.ip, wanted.holder)
            return Outcome.KEPT if is_known else Outcome.AWAY
        return Outcome.KEPT

    async def _claim(self, shared: Shared, ip: int, holder: bytes, takes_from: bytes, wall: int) -> None:
        grant, before = shared.grant(ip, holder, wall), shared.holder(ip)
        try:
            known = await self._agreement.claim(shared.path, ip, grant, takes_from, shared.revision(ip))
        except HeldError:
            # So that it is not granted a second time.
            theirs = await self._agreement.read(Grant, grant_key(shared.path, ip))
            if theirs.record is not None:
                shared.learn(ip, theirs.record, theirs.revision)
            raise
        assert known.record is not None
        shared.learn(ip, known.record, known.revision)
        shared.granted(ip, holder, before, self._now())

    async def take(self, shared: Shared, ip: int) -> None:
        """Have the member here keep its address: another relay's, to which that was granted, was not there any more."""
        member = shared.network.member_at(ipv4(ip))
        if member is not None and member.vmac is not None:
            with suppress(RefusedError, AwayError, FormatError):
                await self._claim(shared, ip, member.vmac, shared.holder(ip), shared.network.pool.leases.wall)

    async def _enrol(self, shared: Shared, device: Device) -> None:
        found = await self._agreement.enrol(shared.path, device)
        if found != device:
            shared.network.enrolment.learn(found)
        shared.wrote(found)
        shared.changed.pop(device.key, None)

    async def write_devices(self) -> Outcome:
        """What is new of devices and invitations."""
        try:
            for shared in list(self._shares.values()):
                enrolment = shared.network.enrolment
                for key in list(shared.changed):
                    device = enrolment.get(key)
                    invitation = enrolment.invitation(key)
                    if device is not None:
                        await self._enrol(shared, device)
                    elif invitation is not None:
                        await self._agreement.invite(shared.path, Redeemable.of(invitation))
                    shared.changed.pop(key, None)
        except (AwayError, FormatError) as error:
            log.debug("cluster: devices are not written: %s", error)
            return Outcome.AWAY
        return Outcome.KEPT

    async def write(self, shared: Shared) -> None:
        """What nobody waits for. Raises AwayError, FormatError."""
        wall = int(time.time())
        for ip, holder in list(shared.owed.items()):
            await self._agreement.release(shared.path, ip, holder, wall)
            shared.owed.pop(ip, None)
        for ip, holder in shared.unconfirmed(self._now()):
            await self._agreement.release(shared.path, ip, holder, wall)
        for ip in list(shared.reserved):
            await self._write_reserved(shared, ip)
        for ip, holder in shared.aged(wall):
            with suppress(RefusedError):
                await self._claim(shared, ip, holder, b"", wall)

    async def _write_reserved(self, shared: Shared, ip: int) -> None:
        kept = shared.network.pool.reservations.commanded_at(ip)
        wanted = Reserved("" if kept is None else kept.device)
        await self._agreement.update(
            Reserved, reserved_key(shared.path, ip), lambda current: None if current == wanted else wanted
        )
        if shared.network.pool.reservations.commanded_at(ip) == kept:
            shared.reserved.pop(ip, None)
