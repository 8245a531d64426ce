"""A program whose clocks a test sets, while it runs.

    Clock(library, file) ─▶ environment() of the program ─▶ shift(seconds), or sleep(seconds)

Its CLOCK_MONOTONIC stays right: as a machine's does whose time is set, or which was asleep.
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
        file.write_bytes(bytes(16))
        self.seconds = 0
        """How far its wall clock is ahead."""
        self._asleep = 0

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CANDY_TEST_CLOCK": str(self._file)}

    def shift(self, seconds: int) -> None:
        """Have its wall clock be so far ahead from now on."""
        self.seconds = seconds
        self._write()

    def sleep(self, seconds: int) -> None:
        """So long its machine was asleep, at the end of which it wakes up: the caller has it stand still."""
        self.seconds += seconds
        self._asleep += seconds
        self._write()

    def _write(self) -> None:
        # In one write, and in place: the program has this file mapped.
        with self._file.open("r+b") as opened:
            opened.write(struct.pack("qq", self.seconds, self._asleep))
