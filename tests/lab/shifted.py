"""A program whose wall clock a test sets, while it runs.

    Clock(folder) ─▶ environment() of the program ─▶ shift(seconds)

Its monotonic clocks stay right, as a machine's do whose time is set.
"""

import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


def built(folder: Path) -> Path:
    """The library to preload."""
    library = folder / "shifted.so"
    subprocess.run(["cc", "-Wall", "-Werror", "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return library


class Clock:
    """One program's.

    Args:
        library: of built().
        file: that tells the program; it is made.
    """

    def __init__(self, library: Path, file: Path) -> None:
        self._library = library
        self._file = file
        file.write_bytes(struct.pack("q", 0))
        self.seconds = 0
        """How far it is ahead."""

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CANDY_TEST_CLOCK": str(self._file)}

    def shift(self, seconds: int) -> None:
        """Have it be so far ahead from now on."""
        self.seconds = seconds
        # In one write, and in place: the program has this file mapped.
        with self._file.open("r+b") as opened:
            opened.write(struct.pack("q", seconds))
