"""The devices of one network: which of them have been here before, and how many new ones a source brings.

    AUTH is right ─▶ let_in(vmac, ip, source, now) ─▶ True: known from now on │ False: too many new ones came

Rules:
 1. A device is a VMAC with an address, because several clients of one host share a VMAC: else one VMAC could take all
    addresses. Without a VMAC it is a source with an address.
 2. A source brings `new_per_minute` devices that are not known, and no more. Loopback brings any number, because a
    reverse proxy connects from there, for members of any address.

This module knows neither sessions nor passwords. A source is as by source_of(), `now` in seconds of a monotonic clock.
"""

from collections import OrderedDict
from ipaddress import IPv4Address

from candy.protocol.addresses import is_loopback
from candy.relay.allowance import Allowance

DEVICE_LIMIT = 65536
"""Devices that are known; the one whose log-in is the longest ago is forgotten first."""
MINUTE_S = 60.0


class Devices:
    """See the rules above. `new_per_minute` 0: any number."""

    __slots__ = ("_known", "_limit", "_new", "new_per_minute")

    def __init__(self, new_per_minute: int = 0, limit: int = DEVICE_LIMIT) -> None:
        self.new_per_minute = new_per_minute
        self._limit = limit
        self._known: OrderedDict[tuple[bytes | str, IPv4Address], None] = OrderedDict()
        self._new: Allowance[str] | None = Allowance(new_per_minute, MINUTE_S) if new_per_minute else None

    def __len__(self) -> int:
        return len(self._known)

    def let_in(self, vmac: bytes | None, ip: IPv4Address, source: str, now: float) -> bool:
        """Whether a device with the right password may come in. It is known from then on."""
        device = (vmac if vmac is not None else source, ip)
        if device not in self._known and self._new is not None and not is_loopback(source):
            if self._new.is_used_up(source, now):
                return False
            self._new.use(source, now)
        self._known[device] = None
        self._known.move_to_end(device)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)
        return True
