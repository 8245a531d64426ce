"""What this machine's processor can do that the choice of a cipher goes by."""

from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
_SETS: Final = ({"aes", "pclmulqdq"}, {"aes", "pmull"})
"""Of x86-64 and of ARMv8, as the kernel names them."""


def has_aes(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether AES-GCM is its own work: it has AES and carry-less multiplication. Not, if that can't be read."""
    try:
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    words = next((line.split() for line in lines if line.lower().startswith(("flags", "features"))), ())
    return any(needed.issubset(words) for needed in _SETS)
