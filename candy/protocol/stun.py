"""STUN as far as a member needs it (RFC 8489, RFC 5780): by which address a server has seen it.

    ┌──────┬──────────┬──────────┬───────┐┌────────┬──────────┬────────────────────┐
    │type 2│ length 2 │ cookie 4 │ id 12 ││ type 2 │ length 2 │ value, padded to 4 │  attributes
    └──────┴──────────┴──────────┴───────┘└────────┴──────────┴────────────────────┘

    request(id) ─▶ Binding request              answer(datagram, id) ◀─ Binding success response: Seen

Rules: an answer is one to a request of this id and no other; its length is that of its header; attributes end where it
ends; a FINGERPRINT, where there is one, is right. Bytes that are none raise WireError (`bad_stun`). Nothing here is
authenticated: who is on the way may say what he likes, and what follows from it is but an address to be tried.
"""

from binascii import crc32
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final, NamedTuple

from candy.errors import WireError
from candy.protocol.linking import Endpoint
from candy.protocol.wire import DropReason

PORT: Final = 3478
ID_BYTES: Final = 12
COOKIE: Final = 0x2112A442
REQUEST: Final = 0x0001
SUCCESS: Final = 0x0101
MAPPED_ADDRESS: Final = 0x0001
XOR_MAPPED_ADDRESS: Final = 0x0020
SOFTWARE: Final = 0x8022
FINGERPRINT: Final = 0x8028
OTHER_ADDRESS: Final = 0x802C
_MASKED: Final = {MAPPED_ADDRESS: False, OTHER_ADDRESS: False, XOR_MAPPED_ADDRESS: True}
"""Attributes that are addresses: whether cookie and id mask them."""
_FINGERPRINT_MASK: Final = 0x5354554E
_HEAD: Final = Struct(">HHI12s")
_ATTRIBUTE: Final = Struct(">HH")
_ADDRESS: Final = Struct(">xBH")
_FAMILIES: Final = {1: 4, 2: 16}
"""Bytes of an address, by the number of its family here."""
_ROOM: Final = _ATTRIBUTE.pack(SOFTWARE, 44) + b"candy".ljust(44)
"""With its head as long as two addresses of IPv6 with theirs; an attribute that any server passes over."""


class Seen(NamedTuple):
    """What an answer says."""

    mapped: Endpoint
    """Where the request came from."""
    other: Endpoint | None
    """Where the server answers, too. Its address is unspecified where it is the one that was asked."""


def request(id: bytes) -> bytes:
    """A Binding request, as long as the longest answer that is wanted: a server that is careful sends no more than it
    gets (docs/protocol.md)."""
    assert len(id) == ID_BYTES
    return _HEAD.pack(REQUEST, len(_ROOM), COOKIE, id) + _ROOM


def answer(datagram: bytes, id: bytes) -> Seen:
    """The answer to a request with this id."""
    bad = WireError(DropReason.BAD_STUN)
    if len(datagram) < _HEAD.size:
        raise bad
    kind, length, cookie, its = _HEAD.unpack_from(datagram)
    if (kind, cookie, its) != (SUCCESS, COOKIE, id) or length % 4 or length != len(datagram) - _HEAD.size:
        raise bad
    found: dict[int, Endpoint] = {}
    at = _HEAD.size
    while at < len(datagram):
        # Each attribute begins at a multiple of 4, and so does the end: there are 4 bytes.
        attribute, size = _ATTRIBUTE.unpack_from(datagram, at)
        value = datagram[at + _ATTRIBUTE.size : at + _ATTRIBUTE.size + size]
        if len(value) < size:
            raise bad
        if attribute in _MASKED:
            found.setdefault(attribute, _address(value, datagram[4:20] if _MASKED[attribute] else bytes(16)))
        elif attribute == FINGERPRINT and value != (crc32(datagram[:at]) ^ _FINGERPRINT_MASK).to_bytes(4, "big"):
            raise bad
        at += _ATTRIBUTE.size + size + -size % 4
    # Some NATs change addresses that they find in a datagram, which the other form is there for.
    mapped = found.get(XOR_MAPPED_ADDRESS, found.get(MAPPED_ADDRESS))
    if mapped is None:
        raise bad
    return Seen(mapped, found.get(OTHER_ADDRESS))


def _address(value: bytes, mask: bytes) -> Endpoint:
    """Of an attribute, with what it is masked by; zeros: by nothing."""
    if len(value) < _ADDRESS.size:
        raise WireError(DropReason.BAD_STUN)
    family, port = _ADDRESS.unpack_from(value)
    packed = bytes(a ^ b for a, b in zip(value[_ADDRESS.size :], mask, strict=False))
    if len(packed) != _FAMILIES.get(family) or len(value) != _ADDRESS.size + len(packed):
        raise WireError(DropReason.BAD_STUN)
    address = IPv4Address(packed) if family == 1 else IPv6Address(packed)
    return Endpoint(address, port ^ int.from_bytes(mask[:2], "big"))
