"""VMACs that replace themselves: one installation that comes back, or two machines with a copied disk.

    is_again(vmac, now) ─▶ noted; whether the same VMAC replaced itself within REPLACED_AGAIN_S before

It knows neither connections nor addresses.
"""

from collections import OrderedDict
from math import inf

REPLACED_AGAIN_S = 60.0
REPLACED_MAX = 1024
"""VMACs whose last replacement is remembered."""


class Replacements:
    """See above; `now` in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._last: OrderedDict[bytes, float] = OrderedDict()

    def is_again(self, vmac: bytes, now: float) -> bool:
        """Note a replacement."""
        before = self._last.pop(vmac, -inf)
        self._last[vmac] = now
        if len(self._last) > REPLACED_MAX:
            self._last.popitem(last=False)
        return now - before <= REPLACED_AGAIN_S
