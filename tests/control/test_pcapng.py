"""The blocks of a pcapng file that are not the engine's, held to another reader; and a file that comes in pieces."""

import struct

import pytest
from kit import pcapng as reader

from candy.control.pcapng import LONGEST_BLOCK, Blocks, begin, statistics

NAME, DESCRIPTION, TSRESOL, IFRECV, IFDROP, COMMENT = 2, 3, 9, 4, 5, 1


def packet(data: bytes, *, comment: bytes = b"") -> bytes:
    padded = data + bytes(-len(data) % 4)
    options = (
        b"" if not comment else struct.pack("<HH", 1, len(comment)) + comment + bytes(-len(comment) % 4) + bytes(4)
    )
    size = 32 + len(padded) + len(options)
    body = struct.pack("<IIIII", 0, 0, 0, len(data), len(data)) + padded + options
    return struct.pack("<II", 6, size) + body + struct.pack("<I", size)


def test_how_a_file_begins() -> None:
    section, interface = reader.read(begin("candy 10.0.0.2", "büro, 10.0.0.2 in /", 128))
    assert section.kind == 0x0A0D0D0A
    assert section.options[4][0].startswith(b"candy ")
    assert interface.fields == {"link": 101, "snap": 128}
    assert interface.options == {
        NAME: [b"candy 10.0.0.2"],
        DESCRIPTION: ["büro, 10.0.0.2 in /".encode()],
        TSRESOL: [b"\x09"],
    }


def test_statistics() -> None:
    [block] = reader.read(statistics(0x1234567890ABCDEF, 2**33, 5, "the member has left"))
    assert block.fields == {"interface": 0, "time": 0x1234567890ABCDEF}
    assert block.options[IFRECV] == [struct.pack("<Q", 2**33 + 5)]
    assert block.options[IFDROP] == [struct.pack("<Q", 5)]
    assert block.comment == "the member has left"
    [block] = reader.read(statistics(1, 0, 0))
    assert COMMENT not in block.options


def test_pieces_cut_anywhere() -> None:
    """Whole blocks come out, as soon as they are whole, and nothing else."""
    blocks = [begin("a", "b", 64), packet(b"one"), packet(b"three", comment=b"dropped"), statistics(1, 2, 3, "over")]
    data = b"".join(blocks)
    for step in (1, 3, 7, 64, len(data)):
        found = Blocks()
        got = b""
        for at in range(0, len(data), step):
            got += found.feed(data[at : at + step])
            assert data.startswith(got)
            reader.read(got)
        assert got == data
        assert (found.packets, found.lost, found.comment) == (2, 3, "over")
    found = Blocks()
    assert found.feed(data[:-1]) == b"".join(blocks[:-1])
    assert (found.packets, found.lost, found.comment) == (2, 0, "")


@pytest.mark.parametrize("size", [0, 8, 13, LONGEST_BLOCK + 4])
def test_what_is_no_such_file(size: int) -> None:
    with pytest.raises(ValueError, match=f"a block of {size} bytes"):
        Blocks().feed(struct.pack("<III", 6, size, 0))
