"""Texts that members send each other, and a search for them where they should not be: in captures, in a memory.

Rule: a text is found in the clear and under any mask of RFC 6455. For that a byte is compared with the fourth behind
it: a mask has the same byte there, and so it shows in neither.
"""

import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

PIECE_BYTES = 1 << 24
"""That are looked at together."""


def marker() -> bytes:
    """A text that is nowhere else."""
    return b"a marker " + secrets.token_hex(24).encode()


def found(texts: Iterable[bytes], pieces: Iterable[bytes]) -> set[bytes]:
    """Those that one of the pieces has."""
    wanted = {_without_mask(text): text for text in texts}
    return {text for bare in map(_without_mask, pieces) for mark, text in wanted.items() if mark in bare}


def memory_of(pid: int) -> Iterator[bytes]:
    """Of a process: all that it may write to and has touched, in pieces that overlap."""
    begin = end = 0
    with Path(f"/proc/{pid}/smaps").open() as regions, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in regions:
            if header := re.match(r"([0-9a-f]+)-([0-9a-f]+) (rw|--|r-)", line):
                begin, end = (int(header[1], 16), int(header[2], 16)) if header[3] == "rw" else (0, 0)
            elif line.startswith("Rss:") and int(line.split()[1]):
                for at in range(begin, end, PIECE_BYTES):
                    memory.seek(at)
                    yield memory.read(min(PIECE_BYTES + 4096, end - at))


def _without_mask(data: bytes) -> bytes:
    length = max(0, len(data) - 4)
    return (int.from_bytes(data[4:]) ^ int.from_bytes(data[:length])).to_bytes(length)
