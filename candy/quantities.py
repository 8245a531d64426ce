"""Rates and sizes as people write them: 10M, 1.5G, 500k.

    10M, 10Mbit, 10000000 ─▶ rate()    bits a second
    200G, 200GB, 1.5T ─────▶ size()    bytes

A k is 1000, as in all figures of candy's. Pure.
"""

import re
from typing import Final

_FACTORS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_WRITTEN: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)([kmgt]?)(bit|b|)(/s|)", re.IGNORECASE | re.ASCII)


def rate(text: str) -> int:
    """Bits a second.

    Raises:
        ValueError: it is none; the text completes "<text> …".
    """
    found = _WRITTEN.fullmatch(text.strip())
    # 10MB/s would be eight times what 10Mbit/s is, and who writes it may mean either.
    if found is None or found[3] in ("B", "b"):
        raise ValueError("is not a rate in bits a second: write it like 10M or 500k, 0 for no limit")
    return _number(found)


def size(text: str) -> int:
    """Bytes.

    Raises:
        ValueError: it is none; the text completes "<text> …".
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None or found[3].lower() == "bit" or found[4]:
        raise ValueError("is not a number of bytes: write it like 200G or 1.5T, 0 for no limit")
    return _number(found)


def _number(found: re.Match[str]) -> int:
    whole, _, part = found[1].partition(".")
    factor = _FACTORS[found[2].lower()]
    return int(whole) * factor + int(part or "0") * factor // int(10 ** len(part))
