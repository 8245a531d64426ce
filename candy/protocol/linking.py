"""What two members tell each other of direct links, in bytes: where each is reached, and whether a path carries.

    OFFER     ┌───┬───┬───────┬────────┬────────────┬─────────┐┌──────┬────────┬──────────────┬────────┐
    9+, note  │128│ 3 │ flags │ reason │ sequence 4 │ count 1 ││ kind │ family │ address 4/16 │ port 2 │  `count` times
              └───┴───┴───────┴────────┴────────────┴─────────┘└──────┴────────┴──────────────┴────────┘
    PROBE     ┌───┬──────┬────────────┐
    30+       │ 1 │ id 8 │ zeros      │  as long as the path is to be tried with
              └───┴──────┴────────────┘
    ANSWER    ┌───┬──────┬────────┬────────────┬────────┬──────────┐
    30        │ 2 │ id 8 │ family │ address 16 │ port 2 │ length 2 │  whence the PROBE came; of its datagram, without
              └───┴──────┴────────┴────────────┴────────┴──────────┘  headers of UDP and IP; IPv4 in the first 4 bytes

An OFFER stands in a SEALED or in a datagram of a link, the other two in such datagrams alone. The engine answers
PROBEs.

Rules: the length is checked before the first field is read; bytes that are none raise WireError (`bad_offer`,
`bad_answer`). Flags that are not known don't count, nor do candidates of a kind or family that is not: the address of
any family but 4 has 16 bytes. This module does not know which addresses may be used.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import ClassVar, Final, NamedTuple, Self

from candy.errors import WireError
from candy.protocol.handshake import NOTE
from candy.protocol.wire import DropReason

OFFER: Final = 3
"""The type of its note."""
PROBE: Final = 1
ANSWER: Final = 2
ID_BYTES: Final = 8
CANDIDATES_MOST: Final = 8
OVERHEAD: Final = 32
"""Bytes of a datagram beside its content: header 16, tag 16."""
HEADERS: Final = {4: 28, 6: 48}
"""Bytes of IP and UDP before it, by family."""


class Endpoint(NamedTuple):
    """Where UDP arrives."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.family == 6 else f"{self.address}:{self.port}"

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.address.version

    @classmethod
    def of(cls, family: int, address: bytes, port: int) -> Self:
        """From 16 bytes, of IPv4 the first 4."""
        return cls(IPv4Address(address[:4]) if family == 4 else IPv6Address(address), port)


class Kind(IntEnum):
    """How a member knows an address of its own."""

    LAN = 1
    """An interface has it; of IPv6 a local one."""
    REFLEXIVE = 2
    """A STUN server has seen it."""
    GLOBAL6 = 3
    """An interface has it, and anybody may reach it."""
    FIXED = 4
    """Its user says so."""


class Says(IntFlag):
    """Flags of an OFFER."""

    ANSWER_ME = 1
    """Send yours."""
    IS_SYMMETRIC = 2
    """The sender's NAT has another port for each destination."""
    IS_OFF = 4
    """The sender has no direct links."""
    HEARS_NOTHING = 8
    """By the path: leave it, and look for one anew."""


class Reason(IntEnum):
    """Why a member has no direct links, or not all."""

    NONE = 0
    SWITCHED_OFF = 1
    """By its user."""
    NETWORK = 2
    """By the network."""
    NO_UDP = 3
    """No STUN server answers."""


_SAYS_NOTHING: Final = Says(0)


class Candidate(NamedTuple):
    """One address at which a member may be reached."""

    kind: Kind
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Offer:
    """OFFER: where its sender may be reached."""

    LAYOUT: ClassVar[Struct] = Struct(">BBBBIB")
    ENTRY: ClassVar[Struct] = Struct(">BB")

    sequence: int
    """A greater one replaces what came before."""
    flags: Says = _SAYS_NOTHING
    reason: Reason = Reason.NONE
    candidates: tuple[Candidate, ...] = ()

    def encode(self) -> bytes:
        """The note."""
        assert len(self.candidates) <= CANDIDATES_MOST
        head = self.LAYOUT.pack(NOTE, OFFER, self.flags, self.reason, self.sequence, len(self.candidates))
        return head + b"".join(
            self.ENTRY.pack(kind, endpoint.family) + endpoint.address.packed + endpoint.port.to_bytes(2, "big")
            for kind, endpoint in self.candidates
        )

    @classmethod
    def decode(cls, note: bytes) -> Self:
        if len(note) < cls.LAYOUT.size:
            raise WireError(DropReason.BAD_OFFER)
        first, number, flags, reason, sequence, count = cls.LAYOUT.unpack_from(note)
        if (first, number) != (NOTE, OFFER) or count > CANDIDATES_MOST:
            raise WireError(DropReason.BAD_OFFER)
        candidates: list[Candidate] = []
        at = cls.LAYOUT.size
        for _ in range(count):
            if len(note) < at + cls.ENTRY.size:
                raise WireError(DropReason.BAD_OFFER)
            kind, family = cls.ENTRY.unpack_from(note, at)
            end = at + cls.ENTRY.size + (4 if family == 4 else 16)
            if len(note) < end + 2:
                raise WireError(DropReason.BAD_OFFER)
            port = int.from_bytes(note[end : end + 2], "big")
            if port and kind in iter(Kind) and family in HEADERS:
                endpoint = Endpoint.of(family, note[at + cls.ENTRY.size : end], port)
                candidates.append(Candidate(Kind(kind), endpoint))
            at = end + 2
        reason = Reason(reason) if reason in iter(Reason) else Reason.NONE
        return cls(sequence, Says(flags), reason, tuple(candidates))


def probe(id: bytes, length: int = 0) -> bytes:
    """A PROBE whose datagram has this length, without headers of UDP and IP, or as long as it has to be: nobody answers
    one that is shorter than the ANSWER."""
    assert len(id) == ID_BYTES
    return (bytes([PROBE]) + id).ljust(max(length - OVERHEAD, Answer.LAYOUT.size), b"\0")


@dataclass(frozen=True, slots=True)
class Answer:
    """ANSWER: a PROBE has arrived."""

    LAYOUT: ClassVar[Struct] = Struct(">B8sB16sHH")

    id: bytes
    seen: Endpoint
    """Where the PROBE came from."""
    length: int
    """Of its datagram."""

    def encode(self) -> bytes:
        address = self.seen.address.packed.ljust(16, b"\0")
        return self.LAYOUT.pack(ANSWER, self.id, self.seen.family, address, self.seen.port, self.length)

    @classmethod
    def decode(cls, content: bytes) -> Self:
        if len(content) < cls.LAYOUT.size:
            raise WireError(DropReason.BAD_ANSWER)
        first, id, family, address, port, length = cls.LAYOUT.unpack_from(content)
        if first != ANSWER or family not in HEADERS:
            raise WireError(DropReason.BAD_ANSWER)
        return cls(id, Endpoint.of(family, address, port), length)
