"""A slow, obvious reader of pcapng (draft-ietf-opsawg-pcapng), which shares nothing with what writes it."""

import struct
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Block:
    """One block: its type, the fixed fields by name, and its options, a list of values by code."""

    kind: int
    fields: dict[str, int]
    options: dict[int, list[bytes]] = field(default_factory=dict)
    data: bytes = b""
    """Of a packet."""

    @property
    def comment(self) -> str:
        """Of the block; "" if there is none."""
        return b"; ".join(self.options.get(1, [])).decode()

    @property
    def direction(self) -> str:
        """Of a packet, by epb_flags."""
        [flags] = self.options[2]
        return {1: "in", 2: "out"}[int.from_bytes(flags, "little") & 3]


def read(data: bytes) -> list[Block]:
    """All blocks; AssertionError where it isn't a sound file."""
    blocks = []
    while data:
        kind, size = struct.unpack("<II", data[:8])
        assert size % 4 == 0
        assert 12 <= size <= len(data), "a block is cut"
        assert struct.unpack("<I", data[size - 4 : size]) == (size,), "both lengths of a block are the same"
        blocks.append(_block(kind, data[8 : size - 4]))
        data = data[size:]
    return blocks


def packets(data: bytes) -> list[Block]:
    """The packets of a file, or of a part of one."""
    return [block for block in read(data) if block.kind == 6]


def _block(kind: int, body: bytes) -> Block:
    if kind == 0x0A0D0D0A:
        magic, major, minor, length = struct.unpack("<IHHq", body[:16])
        assert (magic, major, minor, length) == (0x1A2B3C4D, 1, 0, -1)
        return Block(kind, {}, _options(body[16:]))
    if kind == 1:
        link, reserved, snap = struct.unpack("<HHI", body[:8])
        assert reserved == 0
        return Block(kind, {"link": link, "snap": snap}, _options(body[8:]))
    if kind == 5:
        interface, high, low = struct.unpack("<III", body[:12])
        return Block(kind, {"interface": interface, "time": high << 32 | low}, _options(body[12:]))
    assert kind == 6, f"a block of type {kind}"
    interface, high, low, kept, length = struct.unpack("<IIIII", body[:20])
    padded = (kept + 3) // 4 * 4
    assert body[20 + kept : 20 + padded] == bytes(padded - kept)
    found = {"interface": interface, "time": high << 32 | low, "length": length}
    return Block(kind, found, _options(body[20 + padded :]), body[20 : 20 + kept])


def _options(data: bytes) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    while data:
        code, length = struct.unpack("<HH", data[:4])
        if code == 0:
            assert data == bytes(4), "something follows the end of options"
            return found
        found.setdefault(code, []).append(data[4 : 4 + length])
        data = data[4 + (length + 3) // 4 * 4 :]
    return found
