"""The devices of one network: which of them have been here before, and how many new ones a source brings.

    AUTH is right ─▶ let_in(vmac, ip, source, now) ─▶ True: known from now on │ False: too many new ones came
    a source fails too often ─▶ is_trusted(vmac, now) ─▶ True: this one need not wait in line (candy.relay.guessing)

Rules:
 1. A device is a VMAC with an address, because several clients of one host share a VMAC: else one VMAC could take all
    addresses. Without a VMAC it is a source with an address.
 2. A source brings `new_per_minute` devices that are not known, and no more. Loopback brings any number, because a
    reverse proxy connects from there, for members of any address.
 3. A device with a lease is known, and its VMAC trusted, also when the relay starts again. Others are remembered here.
 4. A VMAC is trusted from its first log-in on. But it can be sniffed, so TRUSTED_FAILURES wrong hashes under it within
    an hour, from whatever sources, end the trust. It comes back with the next log-in that is later than this hour.

This module knows neither sessions nor passwords. A source is as by source_of(), `now` in seconds of a monotonic clock.
"""

from collections import OrderedDict
from ipaddress import IPv4Address

from candy.protocol.addresses import is_loopback
from candy.relay.allowance import Allowance, Key
from candy.relay.leases import Leases

DEVICE_LIMIT = 65536
"""Devices that are known; the one whose log-in is the longest ago is forgotten first."""
MINUTE_S = 60.0
TRUSTED_FAILURES = 10
HOUR_S = 3600.0


class Devices:
    """See the rules above. `new_per_minute` 0: any number."""

    __slots__ = ("_distrusted", "_failures", "_known", "_leases", "_limit", "_new", "_trusted", "new_per_minute")

    def __init__(self, new_per_minute: int = 0, limit: int = DEVICE_LIMIT, leases: Leases | None = None) -> None:
        self.new_per_minute = new_per_minute
        self._leases = leases if leases is not None else Leases()
        self._limit = limit
        self._known: OrderedDict[tuple[bytes | str, IPv4Address], None] = OrderedDict()
        self._new: Allowance[str] | None = Allowance(new_per_minute, MINUTE_S) if new_per_minute else None
        self._trusted: OrderedDict[bytes, None] = OrderedDict()
        self._distrusted: OrderedDict[bytes, None] = OrderedDict()
        """Whatever leases they have."""
        self._failures: Allowance[bytes] = Allowance(TRUSTED_FAILURES, HOUR_S, limit)

    def __len__(self) -> int:
        return len(self._known)

    def let_in(self, vmac: bytes | None, ip: IPv4Address, source: str, now: float) -> bool:
        """Whether a device with the right password may come in. It is known from then on."""
        device = (vmac if vmac is not None else source, ip)
        is_known = device in self._known or self._has_lease(vmac, ip)
        if not is_known and self._new is not None and not is_loopback(source):
            if self._new.is_used_up(source, now):
                return False
            self._new.use(source, now)
        self._remember(self._known, device)
        if vmac is not None and not self._failures.is_used_up(vmac, now):
            self._distrusted.pop(vmac, None)
            self._remember(self._trusted, vmac)
        return True

    def leased(self, vmac: bytes, ip: IPv4Address) -> None:
        """The device that was let in has a lease, so it need not be remembered here."""
        self._known.pop((vmac, ip), None)
        self._trusted.pop(vmac, None)

    def is_trusted(self, vmac: bytes | None) -> bool:
        """Whether a log-in with this VMAC is most likely one of a device that has been here."""
        if vmac is None or vmac in self._distrusted:
            return False
        return vmac in self._trusted or any(self._leases.of(vmac))

    def failed(self, vmac: bytes | None, now: float) -> bool:
        """Count a wrong hash under this VMAC. Returns whether the trust in it ends by it."""
        if vmac is None or not self.is_trusted(vmac) or not self._failures.use(vmac, now):
            return False
        self._trusted.pop(vmac, None)
        self._remember(self._distrusted, vmac)
        return True

    def _has_lease(self, vmac: bytes | None, ip: IPv4Address) -> bool:
        lease = self._leases.get(int(ip))
        return lease is not None and lease.vmac == vmac

    def _remember(self, which: OrderedDict[Key, None], key: Key) -> None:
        which[key] = None
        which.move_to_end(key)
        if len(which) > self._limit:
            which.popitem(last=False)
