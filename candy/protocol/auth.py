"""Who is believed: the digests of the hashed messages, and the clock window.

Rules:
 1. A digest is SHA-256 over the password and the fields of its message, and is compared in constant time.
 2. A timestamp is believed within a tolerance on both sides of the receiver's clock.
 3. EXPTTUN's digest covers password and time alone, so two members, and the relay itself, may send the same one in the
    same second. Only AUTH digests can be held against replay.

Time is an argument: `wall` in Unix seconds. This module knows neither connections nor addresses of the pool.
"""

import hmac
from hashlib import sha256
from ipaddress import IPv4Address

TOLERANCE_S = 300
"""How far a timestamp may lie from the receiver's clock, in seconds, unless set otherwise."""


def auth_digest(password: bytes, ip: IPv4Address, timestamp: int) -> bytes:
    """The 32 bytes of an AUTH: H(password ‖ ip ‖ timestamp)."""
    return sha256(password + ip.packed + _int64(timestamp)).digest()


def expttun_digest(password: bytes, timestamp: int) -> bytes:
    """The 32 bytes of an EXPTTUN: H(password ‖ timestamp). The address in it is not covered."""
    return sha256(password + _int64(timestamp)).digest()


def vmac_digest(password: bytes, vmac: bytes, timestamp: int) -> bytes:
    """The 32 bytes of a VMAC: H(password ‖ vmac ‖ timestamp)."""
    return sha256(password + vmac + _int64(timestamp)).digest()


def digest_matches(expected: bytes, received: bytes) -> bool:
    """Whether both are the same, compared in a time that does not depend on where they differ."""
    return hmac.compare_digest(expected, received)


def is_timely(timestamp: int, wall: int, tolerance: int = TOLERANCE_S) -> bool:
    """Whether a timestamp lies within `tolerance` seconds of `wall`, the bounds included."""
    return abs(timestamp - wall) <= tolerance


def _int64(timestamp: int) -> bytes:
    return timestamp.to_bytes(8, "big", signed=True)
