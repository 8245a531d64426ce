"""What stands behind `#` in a URL: a network's key, and perhaps an invitation and a pin. It is in no request.

    wss://vpn.example.org/home#AQA…     base64url without padding of

    ┌─────────┬─────────┬────────────┐
    │ version │ flags 1 │ network 32 │  then, with flag 1, an invitation, whose first three are bytes 34 to 73 of
    └─────────┴─────────┴────────────┘  Candy-Key; then, with flag 2, the SHA-256 that pins a certificate
    ┌──────────┬──────────┬──────────────┬─────────────┬───────────┬─────────┐  ┌────────┐
    │ relay 32 │ number 2 │ generation 6 │ selector 16 │ secret 32 │ until 8 │  │ pin 32 │
    └──────────┴──────────┴──────────────┴─────────────┴───────────┴─────────┘  └────────┘

Rule: every length is exact, and no flag is unknown. Anything else is a mistake of the URL's user, a ValueError whose
text ends the sentence "the URL …".
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from struct import Struct
from typing import Final, Self

VERSION: Final = 1
_INVITATION: Final = 1
_PIN: Final = 2
_PIN_BYTES: Final = 32
_HEAD: Final = Struct(">BB32s")
_BODY: Final = Struct(">32sH6s16s32sq")
_CURE: Final = "copy it whole, from the line or the link that the relay printed"


@dataclass(frozen=True, slots=True)
class Invitation:
    """What lets one device in, or a few, and the relay's key that was current when it was written."""

    relay: bytes
    number: int
    generation: int
    selector: bytes
    secret: bytes = field(repr=False)
    until: int
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a URL says of its network."""

    network: bytes
    """Its public key."""
    invitation: Invitation | None = None
    pin: bytes | None = None
    """SHA-256 of the SubjectPublicKeyInfo of the relay's certificate."""

    def encode(self) -> str:
        """The fragment, without `#`."""
        flags = (_INVITATION if self.invitation is not None else 0) | (_PIN if self.pin is not None else 0)
        data = _HEAD.pack(VERSION, flags, self.network)
        if (its := self.invitation) is not None:
            generation = its.generation.to_bytes(6, "big")
            data += _BODY.pack(its.relay, its.number, generation, its.selector, its.secret, its.until)
        return urlsafe_b64encode(data + (self.pin or b"")).decode("ascii").rstrip("=")

    @classmethod
    def parse(cls, fragment: str) -> Self:
        """Raises ValueError, see the rule."""
        if not re.fullmatch(r"[A-Za-z0-9_-]+", fragment) or len(fragment) % 4 == 1:
            raise ValueError(f"has no network's key behind its #: {_CURE}")
        data = urlsafe_b64decode(fragment + "=" * (-len(fragment) % 4))
        if data[0] != VERSION:
            raise ValueError("has behind its # what this candy does not know: update candy")
        if len(data) < _HEAD.size:
            raise ValueError(f"is cut off behind its #: {_CURE}")
        _, flags, network = _HEAD.unpack_from(data)
        if flags & ~(_INVITATION | _PIN):
            raise ValueError("has behind its # what this candy does not know: update candy")
        rest = data[_HEAD.size :]
        expected = (_BODY.size if flags & _INVITATION else 0) + (_PIN_BYTES if flags & _PIN else 0)
        if len(rest) != expected:
            raise ValueError(f"is cut off, or has too much, behind its #: {_CURE}")
        invitation = None
        if flags & _INVITATION:
            relay, number, generation, selector, secret, until = _BODY.unpack_from(rest)
            invitation = Invitation(relay, number, int.from_bytes(generation, "big"), selector, secret, until)
        return cls(network, invitation, rest[-_PIN_BYTES:] if flags & _PIN else None)
