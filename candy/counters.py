"""What both commands write to their logs on SIGUSR1: the engine's totals, and the drops by reason.

    packets_in: 1200
    …
    dropped no_route: 3

Rules: every total is there, also one that is zero; of the reasons only those for which something was dropped, for most
never come up. This module does not know what is counted, nor who logs it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping


def lines(totals: Mapping[str, int], *drops: Mapping[str, int]) -> Iterator[str]:
    """One line each; drops for the same reason are added up."""
    for name, value in totals.items():
        yield f"{name}: {value}"
    summed: Counter[str] = Counter()
    for counted in drops:
        summed.update(counted)
    for reason, value in summed.items():
        if value:
            yield f"dropped {reason}: {value}"
