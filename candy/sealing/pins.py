"""What a member remembers of leases for good: whose key each has, and whether that has ever sealed.

    file pins/NAME     each line base64 of  ┌─────────┬────────┬───────┐  the one used last at the end
                                            │ lease 8 │ key 32 │ flags │  flags: 1 it has sealed; key: zeros for none
                                            └─────────┴────────┴───────┘
    doubt(told) ─▶ why the relay is not believed, or None          pin(), has_sealed(), forget()

Rules:
 1. A lease has one key, ever: the relay gives a device another lease when it has another key. So another key for a
    lease is a lie, or a fault, and refused until the user forgets the lease. So is that a lease which has sealed does
    not.
 2. At most PINS_MOST, the one used longest ago goes first.
 3. A line of the file that is damaged is as none.

This module writes nothing: `is_changed` says when its owner has to.
"""

from binascii import a2b_base64, b2a_base64
from collections import OrderedDict
from hmac import compare_digest
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from candy.protocol.control import Peer, State
from candy.protocol.keys import fingerprint
from candy.protocol.noise import KEY_BYTES

PINS_MOST: Final = 4096
NO_KEY: Final = bytes(KEY_BYTES)
NO_LEASE: Final = bytes(8)
_LINE: Final = Struct(">8s32sB")
_HAS_SEALED: Final = 1


class Pin(NamedTuple):
    key: bytes
    has_sealed: bool = False


class Pins:
    """See above.

    Args:
        kept: content of the file.
    """

    def __init__(self, kept: bytes = b"") -> None:
        self._pins: OrderedDict[bytes, Pin] = OrderedDict()
        self.damaged = 0
        """Lines of the file that could not be used."""
        self.is_changed = False
        """Since it was read or encoded."""
        for line in kept.splitlines()[-PINS_MOST:]:
            try:
                lease, key, flags = _LINE.unpack(a2b_base64(line, strict_mode=True))
            except (ValueError, StructError):
                self.damaged += 1
                continue
            self._pins[lease] = Pin(key, bool(flags & _HAS_SEALED))

    def __len__(self) -> int:
        return len(self._pins)

    def encode(self) -> bytes:
        """As the file has it."""
        self.is_changed = False
        lines = (_LINE.pack(lease, pin.key, pin.has_sealed * _HAS_SEALED) for lease, pin in self._pins.items())
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

    def pin(self, lease: bytes, key: bytes, *, has_sealed: bool = False) -> None:
        """Use this lease's, and remember its key; `has_sealed` is never taken back."""
        before = self._pins.get(lease)
        pin = Pin(key, has_sealed or (before is not None and before.has_sealed))
        self._pins[lease] = pin
        self._pins.move_to_end(lease)
        if len(self._pins) > PINS_MOST:
            self._pins.popitem(last=False)
        self.is_changed = self.is_changed or pin != before

    def forget(self, lease: bytes) -> None:
        """Believe the next key again."""
        self.is_changed = self._pins.pop(lease, None) is not None or self.is_changed


class Unpinned(Pins):
    """Of who believes the relay in everything: its own interface."""

    def doubt(self, told: Peer) -> str | None:
        return None

    def has_sealed(self, lease: bytes) -> bool:
        return False

    def pin(self, lease: bytes, key: bytes, *, has_sealed: bool = False) -> None:
        """Nothing is kept."""
