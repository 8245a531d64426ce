"""Whom this process's memory, in which its keys are, is kept from: a core file, and other programs of the same user."""

import ctypes
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def keep_private() -> None:
    """Write no core, and let nobody but root attach to the process, or read its memory (PR_SET_DUMPABLE).

    A limit would not do: where the kernel hands cores to a program, as systemd has it, RLIMIT_CORE counts for nothing.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
