"""What a member remembers of leases for good: whose key each has, where, and whether that has ever sealed.

    file pins/NAME     each line base64 of  ┌─────────┬────────┬───────┬───────────┐  the one used last at the end
                                            │ lease 8 │ key 32 │ flags │ address 4 │  flags: 1 it has sealed;
                                            └─────────┴────────┴───────┴───────────┘  key: zeros for none
    doubt(told) ─▶ why the relay is not believed, or None          pin(), has_sealed(), at(), leave(), forget()

Rules:
 1. A lease has one key, ever: the relay gives a device another lease when it has another key. So another key for a
    lease is a lie, or a fault, and refused until the user forgets the lease. So is that a lease which has sealed does
    not.
 2. At most PINS_MOST, the one used longest ago goes first.
 3. A line of the file that is damaged is as none.
 4. Of leases that had one address the last one has it, until another has sealed there, or one in the clear is told of.

This module writes nothing: `is_changed` says when its owner has to.
"""

from binascii import a2b_base64, b2a_base64
from collections import OrderedDict
from hmac import compare_digest
from ipaddress import IPv4Address
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from candy.protocol.control import Peer, State
from candy.protocol.keys import fingerprint
from candy.protocol.noise import KEY_BYTES

PINS_MOST: Final = 4096
NO_KEY: Final = bytes(KEY_BYTES)
NO_LEASE: Final = bytes(8)
_LINE: Final = Struct(">8s32sB4s")
_NOWHERE: Final = IPv4Address(0)
_HAS_SEALED: Final = 1


class Pin(NamedTuple):
    key: bytes
    has_sealed: bool = False
    address: IPv4Address = _NOWHERE


class Pins:
    """See above.

    Args:
        kept: content of the file.
    """

    def __init__(self, kept: bytes = b"") -> None:
        self._pins: OrderedDict[bytes, Pin] = OrderedDict()
        self._at: dict[IPv4Address, bytes] = {}
        """Leases, by the addresses that they have."""
        self.damaged = 0
        """Lines of the file that could not be used."""
        self.is_changed = False
        """Since it was read or encoded."""
        for line in kept.splitlines()[-PINS_MOST:]:
            try:
                lease, key, flags, address = _LINE.unpack(a2b_base64(line, strict_mode=True))
            except (ValueError, StructError):
                self.damaged += 1
                continue
            self._put(lease, Pin(key, bool(flags & _HAS_SEALED), IPv4Address(address)))

    def __len__(self) -> int:
        return len(self._pins)

    def encode(self) -> bytes:
        """As the file has it."""
        self.is_changed = False
        lines = (
            _LINE.pack(lease, pin.key, pin.has_sealed * _HAS_SEALED, pin.address.packed)
            for lease, pin in self._pins.items()
        )
        return b"".join(map(b2a_base64, lines))

    def doubt(self, told: Peer) -> str | None:
        """Why the relay is not believed about this address; None if it is."""
        pin = self._pins.get(told.lease)
        if pin is None:
            return None
        if told.state is State.CLEAR and pin.has_sealed:
            return f"it has sealed before with the key {fingerprint(pin.key)}, and now it should not"
        if told.state is State.SEALS and pin.key != NO_KEY and not compare_digest(pin.key, told.key):
            return f"its key should be {fingerprint(told.key)}, but it was {fingerprint(pin.key)}"
        return None

    def has_sealed(self, lease: bytes) -> bool:
        return self._pins.get(lease, Pin(NO_KEY)).has_sealed

    def at(self, address: IPv4Address) -> tuple[bytes, bytes] | None:
        """The lease that was last pinned there, and its key."""
        lease = self._at.get(address)
        return None if lease is None else (lease, self._pins[lease].key)

    def pin(self, lease: bytes, key: bytes, address: IPv4Address, *, has_sealed: bool = False) -> None:
        """Use this lease's, and remember its key and address; `has_sealed` is never taken back."""
        before = self._pins.get(lease)
        pin = Pin(key, has_sealed or (before is not None and before.has_sealed), address)
        self._put(lease, pin)
        self._pins.move_to_end(lease)
        if len(self._pins) > PINS_MOST:
            self._take(next(iter(self._pins)))
        self.is_changed = self.is_changed or pin != before

    def leave(self, address: IPv4Address) -> None:
        """It is another's now, which has no key."""
        if (lease := self._at.pop(address, None)) is not None:
            self._pins[lease] = self._pins[lease]._replace(address=_NOWHERE)
            self.is_changed = True

    def forget(self, lease: bytes) -> None:
        """Believe the next key again."""
        self.is_changed = self._take(lease) or self.is_changed

    def _put(self, lease: bytes, pin: Pin) -> None:
        before = self._pins.get(lease, pin)
        if self._at.get(before.address) == lease:
            del self._at[before.address]
        if pin.address != _NOWHERE:
            if (other := self._at.get(pin.address)) is not None:
                self._pins[other] = self._pins[other]._replace(address=_NOWHERE)
            self._at[pin.address] = lease
        self._pins[lease] = pin

    def _take(self, lease: bytes) -> bool:
        """Whether it was there."""
        pin = self._pins.pop(lease, None)
        if pin is not None and self._at.get(pin.address) == lease:
            del self._at[pin.address]
        return pin is not None


class Unpinned(Pins):
    """Of who believes the relay in everything: its own interface."""

    def doubt(self, told: Peer) -> str | None:
        return None

    def has_sealed(self, lease: bytes) -> bool:
        return False

    def pin(self, lease: bytes, key: bytes, address: IPv4Address, *, has_sealed: bool = False) -> None:
        """Nothing is kept."""
