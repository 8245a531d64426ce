"""The blocks of a pcapng file (draft-ietf-opsawg-pcapng) beside its packets, and such a file as it comes in pieces.

    | type 4 | size 4 | body, padded to 4 | size 4 |         in this machine's order of bytes

    begin() ─▶ Section Header, Interface Description; statistics() ─▶ Interface Statistics; packets are the engine's
    Blocks: pieces of a file ─▶ whole blocks, and what they say of themselves

This module does not know where packets come from.
"""

import struct
from collections.abc import Iterator

from candy import __version__

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
LINK_RAW = 101
"""LINKTYPE_RAW: a packet begins with its IP header."""
COMMENT, IF_NAME, IF_DESCRIPTION, IF_TSRESOL, ISB_IFRECV, ISB_IFDROP, SHB_USERAPPL = 1, 2, 3, 9, 4, 5, 4
NANOSECONDS = b"\x09"
LONGEST_BLOCK = 1 << 20


def begin(name: str, description: str, snap: int) -> bytes:
    """How a file with packets of one interface begins.

    Args:
        snap: most bytes of a packet.
    """
    section = struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1) + _options((SHB_USERAPPL, f"candy {__version__}".encode()))
    interface = struct.pack("=HHI", LINK_RAW, 0, snap) + _options(
        (IF_NAME, name.encode()), (IF_DESCRIPTION, description.encode()), (IF_TSRESOL, NANOSECONDS)
    )
    return _block(SECTION, section) + _block(INTERFACE, interface)


def statistics(at_ns: int, packets: int, lost: int, comment: str = "") -> bytes:
    """What there was until `at_ns`, Unix nanoseconds: packets captured, and packets that could not be."""
    options = [(ISB_IFRECV, struct.pack("=Q", packets + lost)), (ISB_IFDROP, struct.pack("=Q", lost))]
    if comment:
        options.append((COMMENT, comment.encode()))
    return _block(STATISTICS, struct.pack("=III", 0, at_ns >> 32, at_ns & 0xFFFFFFFF) + _options(*options))


class Blocks:
    """A file in pieces, cut anywhere.

    Attributes:
        packets: whole ones that have come.
        lost: by the last statistics.
        comment: with these; "" none.
    """

    def __init__(self) -> None:
        self.packets = 0
        self.lost = 0
        self.comment = ""
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        """The blocks that are whole now. Raises ValueError: it is no such file."""
        data = self._rest + piece
        at = 0
        while len(data) - at >= 12:
            kind, size = struct.unpack_from("=II", data, at)
            if size % 4 or not 12 <= size <= LONGEST_BLOCK:
                raise ValueError(f"a block of {size} bytes")
            if len(data) - at < size:
                break
            if kind == PACKET:
                self.packets += 1
            elif kind == STATISTICS:
                self._note(data[at + 20 : at + size - 4])
            at += size
        self._rest = data[at:]
        return data[:at]

    def _note(self, options: bytes) -> None:
        for code, value in _read_options(options):
            if code == ISB_IFDROP:
                [self.lost] = struct.unpack("=Q", value)
            elif code == COMMENT:
                self.comment = value.decode()


def _block(kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return struct.pack("=II", kind, size) + body + struct.pack("=I", size)


def _options(*options: tuple[int, bytes]) -> bytes:
    """With the end of all options."""
    return b"".join(
        struct.pack("=HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in (*options, (0, b""))
    )


def _read_options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from("=HH", data, at)
        if code == 0:
            return
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
